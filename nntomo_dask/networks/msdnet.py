"""The Mixed-Scale Dense network as data: from a few neighbouring slices of a reconstruction to one better slice.

Its layers and the order of its parameters are those of `kernels.mixed_scale`. Inputs and output are scaled: what the
network sees has mean 0 and deviation 1 over the training set.

References
----------
.. [1] D. M. Pelt and J. A. Sethian, PNAS 115 (2018) 254, doi:10.1073/pnas.1715832114.
.. [2] D. M. Pelt, K. J. Batenburg and J. A. Sethian, J. Imaging 4 (2018) 128, doi:10.3390/jimaging4110128.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from nntomo_dask import untrusted
from nntomo_dask.errors import refuse
from nntomo_dask.kernels.mixed_scale import parameter_count
from nntomo_dask.networks import NETWORKS
from nntomo_dask.networks.network import Network
from nntomo_dask.networks.nnfbp import NNFBPNetwork
from nntomo_dask.networks.nnfbp_layout import check_angles
from nntomo_dask.types import Float32

NEIGHBOURS = 2  # slices on either side that a network looks at unless told otherwise

_MOST_NEIGHBOURS, _DEEPEST = 1000, 10_000  # of networks in files
_SCALES = ("input_mean", "input_deviation", "target_mean", "target_deviation", "level")
_INPUT = "input."  # how the names of an input network's tensors begin


@dataclass(frozen=True)
class Inputs:
    """How the input slices of a network come from a tilt series.

    Attributes
    ----------
    angles_deg
        Of the measured series, in the series' order.
    method
        Name of the method whose reconstruction is improved.
    network
        The network of that method, where it needs one.
    neighbours
        Slices on either side that are looked at too.
    settings
        Of that method, JSON-able; None for those that it has as input, see `reconstruction.method.Method.as_input`.
    splits
        1: the reconstruction is from all projections. K, for a network trained by `noise2inverse_slices`: K
        reconstructions, each without the projections K·i + k, are improved one by one, and averaged.
    """

    angles_deg: tuple[float, ...]
    method: str
    network: Network | None = None
    neighbours: int = NEIGHBOURS
    splits: int = 1
    settings: dict[str, Any] | None = None

    @property
    def channels(self) -> int:
        """Slices that the network sees at once."""
        return 2 * self.neighbours + 1

    @property
    def level_of(self) -> Literal["median", "brightest"]:
        """By which matter intensities are compared: as the network that makes the slices does it."""
        return self.network.layout.level_of if isinstance(self.network, NNFBPNetwork) else "median"

    def to_json(self) -> str:
        """All but the network."""
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "network"}
        if self.settings is None:  # as in files of version 0.1.0
            del fields["settings"]
        return json.dumps(fields)

    @property
    def digest(self) -> str:
        """Of all, the network too: what two networks must have in common to be one ensemble."""
        return f"{self.to_json()}{'' if self.network is None else self.network.digest}"

    @classmethod
    def from_json(cls, text: str, network: Network | None) -> "Inputs":
        """Inverse of `to_json`; a ValueError or a TypeError where a text from a file is none of it."""
        values = untrusted.parsed_object(text)
        made = cls(**{**values, "angles_deg": untrusted.angles(values.get("angles_deg")), "network": network})
        untrusted.whole_number(made.neighbours, least=0, most=_MOST_NEIGHBOURS)
        untrusted.whole_number(made.splits, least=1, most=len(made.angles_deg))
        if not isinstance(made.method, str) or not isinstance(made.settings, dict | None):
            raise ValueError("how the input slices are made is not said")
        return made

    def check(self, series: Any, *, who: str) -> None:
        """Raise a SchemaError where the network was made for a series at other angles."""
        check_angles(series, self.angles_deg, who=who)
        if self.network is not None:
            self.network.check(series, who=who)


@NETWORKS.register
@dataclass(frozen=True)
class MSDNetwork:
    """A trained network with all that reconstruction needs.

    Attributes
    ----------
    inputs
        How its input slices are made.
    depth
        Layers.
    parameters
        (parameter,), float32, in the order of `kernels.mixed_scale`.
    input_mean, input_deviation, target_mean, target_deviation
        Of the training set.
    level
        Intensity of matter in the training series, see `intensity_level`.
    recipe
        How it was trained, with the losses.
    """

    name: ClassVar[str] = "msdnet"
    FORMAT: ClassVar[str] = "nntomo_dask.msdnet"

    inputs: Inputs
    depth: int
    parameters: Float32
    input_mean: float
    input_deviation: float
    target_mean: float
    target_deviation: float
    level: float
    recipe: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise a SchemaError where the parameters are not those of such a network."""
        wanted = parameter_count(self.inputs.channels, self.depth)
        if self.parameters.shape != (wanted,):
            refuse(
                "MSDNetwork",
                needs=f"{wanted} parameters for {self.depth} layers above {self.inputs.channels} input slices",
                got=f"{self.parameters.shape}",
                remedy="check depth and neighbours",
            )

    @property
    def angles_deg(self) -> tuple[float, ...]:
        """Tilt angles of the series that it was trained for."""
        return self.inputs.angles_deg

    def describe(self) -> str:
        """One line: layers, parameters, and what it improves."""
        made = self.inputs
        return (
            f"MS-D Net: {self.depth} layers, {self.parameters.size} parameters, improves {made.method} of "
            f"{len(made.angles_deg)} projections, {made.channels} slices at once"
            + (f", self-supervised in {made.splits} parts" if made.splits > 1 else "")
        )

    def __repr__(self) -> str:
        """The line of `describe`: the arrays would fill a page."""
        return f"<{self.describe()}>"

    @property
    def digest(self) -> str:
        """Digest of all numbers that a reconstruction depends on."""
        scales = [float(getattr(self, name)) for name in _SCALES]
        state = hashlib.sha256(repr((self.inputs.digest, self.depth, scales)).encode())
        state.update(np.ascontiguousarray(self.parameters, np.float32).tobytes())
        return state.hexdigest()[:16]

    def check(self, series: Any, *, who: str) -> None:
        """Raise a SchemaError where the network was made for another series."""
        self.inputs.check(series, who=who)

    def to_file(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Tensors and metadata that make up the network's file; an input network is part of them."""
        tensors: dict[str, Any] = {"parameters": np.ascontiguousarray(self.parameters, np.float32)}
        metadata = {"inputs": self.inputs.to_json(), "depth": str(self.depth), "recipe": json.dumps(self.recipe)}
        metadata |= {name: repr(float(getattr(self, name))) for name in _SCALES}
        if self.inputs.network is not None:
            inner, texts = self.inputs.network.to_file()
            tensors |= {_INPUT + name: value for name, value in inner.items()}
            metadata |= {_INPUT + name: value for name, value in texts.items()}
        return tensors, metadata

    @classmethod
    def from_file(cls, tensors: dict[str, Any], metadata: dict[str, str]) -> "MSDNetwork":
        """Inverse of `to_file`."""
        inner, texts = (
            {name.removeprefix(_INPUT): value for name, value in whole.items() if name.startswith(_INPUT)}
            for whole in (tensors, metadata)
        )
        # The network of a method has the method's name.
        kind = untrusted.parsed_object(metadata["inputs"])["method"]
        network = NETWORKS[kind].from_file(inner, texts) if inner else None
        parameters = tensors["parameters"]
        if parameters.dtype != np.float32 or not np.isfinite(parameters).all():
            raise ValueError("its parameters are no finite float32")
        return cls(
            inputs=Inputs.from_json(metadata["inputs"], network),
            depth=untrusted.whole_number(metadata["depth"], least=1, most=_DEEPEST),
            parameters=parameters,
            recipe=untrusted.recipe_of_network(metadata["recipe"]),
            **{name: untrusted.finite_number(metadata[name]) for name in _SCALES},
        )
