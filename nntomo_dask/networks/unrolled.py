"""An unrolled iteration as data: small U-Nets between steps towards the measured projections.

A network is for series at some angles, or for any series whose number and range of angles lie within what it learned.
All is in units of the specimen's own intensity level, so that it fits series of any units.

References
----------
.. [1] J. Adler and O. Öktem, Learned Primal-Dual Reconstruction, IEEE Trans. Med. Imaging 37 (2018) 1322,
   doi:10.1109/TMI.2018.2799231.
.. [2] H. K. Aggarwal, M. P. Mani and M. Jacob, MoDL, IEEE Trans. Med. Imaging 38 (2019) 394,
   doi:10.1109/TMI.2018.2865356.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from nntomo_dask import untrusted
from nntomo_dask.arrays import schema
from nntomo_dask.arrays.angles import extent_deg
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import unet
from nntomo_dask.networks import NETWORKS
from nntomo_dask.networks.nnfbp_layout import check_angles
from nntomo_dask.types import Float32, Float64

REACH = 4  # neighbours on either side that all steps together may see
_MOST_STEPS, _WIDEST, _MOST_PROJECTIONS = 4, 256, 10_000  # of networks in files
_TOLERANCE_DEG = 1.0


@dataclass(frozen=True)
class Geometry:
    """The tilt series that a network was trained for.

    Attributes
    ----------
    angles_deg
        Of one series, ascending; empty where any are taken that fit the numbers below.
    projections
        Least and largest number.
    reach_deg
        Least and largest angle up to which they were tilted to both sides; 90 is the full range.
    """

    angles_deg: tuple[float, ...] = ()
    projections: tuple[int, int] = (0, 0)
    reach_deg: tuple[float, float] = (0.0, 0.0)

    def to_json(self) -> str:
        """All fields."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Geometry":
        """Inverse of `to_json`; a ValueError or a TypeError where a text from a file is none of it."""
        values = untrusted.parsed_object(text)
        angles = values.get("angles_deg")
        least, most = values["projections"]
        inner, outer = values["reach_deg"]
        return cls(
            angles_deg=untrusted.angles(angles) if angles else (),
            projections=(
                untrusted.whole_number(least, least=0, most=_MOST_PROJECTIONS),
                untrusted.whole_number(most, least=0, most=_MOST_PROJECTIONS),
            ),
            reach_deg=(untrusted.finite_number(inner), untrusted.finite_number(outer)),
        )

    def describe(self) -> str:
        """A few words."""
        if self.angles_deg:
            return f"{len(self.angles_deg)} projections"
        (least, most), (inner, outer) = self.projections, self.reach_deg
        return f"{least} to {most} projections in ±{inner:g}° to ±{outer:g}°"

    def fits(self, angles_deg: Float64) -> bool:
        """Whether the number and the range of some angles are among those that were learned."""
        (least, most), (inner, outer) = self.projections, self.reach_deg
        reach = extent_deg(angles_deg) / 2
        return least <= len(angles_deg) <= most and inner - _TOLERANCE_DEG <= reach <= outer + _TOLERANCE_DEG

    def check(self, series: Any, *, who: str) -> None:
        """Raise a SchemaError where a series has other angles."""
        angles = series[schema.ANGLE].values
        if self.angles_deg:
            check_angles(series, self.angles_deg, who=who)
            return
        if not self.fits(angles):
            reach = extent_deg(angles) / 2
            refuse(
                who,
                needs=f"a series like those that the network learned from: {self.describe()}",
                got=f"{angles.size} projections in ±{reach:.3g}°",
                remedy="train a network for this series, or `tv`",
                command="train a network for this series, nntomo train --network unrolled --for SERIES; or --method tv",
            )


@NETWORKS.register
@dataclass(frozen=True)
class UnrolledNetwork:
    """A trained unrolled iteration with all that reconstruction needs.

    Attributes
    ----------
    geometry
        The tilt series that it is for.
    parameters
        (step, parameter), float32 that are exact in half precision, in the order of `kernels.unet`.
    width
        Maps of a U-Net on its highest level.
    neighbours
        Slices on either side that a step sees.
    recipe
        How it was trained, with the losses.
    """

    name: ClassVar[str] = "unrolled"
    FORMAT: ClassVar[str] = "nntomo_dask.unrolled"

    geometry: Geometry
    parameters: Float32
    width: int
    neighbours: int
    recipe: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise a SchemaError where the parameters are not those of such a network."""
        wanted = unet.parameter_count(unet.channel_count(self.neighbours), self.width)
        if self.parameters.ndim != 2 or self.parameters.shape[1] != wanted:
            refuse(
                "UnrolledNetwork",
                needs=f"{wanted} parameters a step for a width of {self.width} and {self.neighbours} neighbours",
                got=f"{self.parameters.shape}",
                remedy="check width and neighbours",
            )
        if self.reach > REACH:
            refuse(
                "UnrolledNetwork",
                needs=f"steps that see at most {REACH} slices on either side together",
                got=f"{len(self.parameters)} steps with {self.neighbours} neighbours",
                remedy="fewer of them",
            )

    @property
    def steps(self) -> int:
        """U-Nets, one behind the other."""
        return len(self.parameters)

    @property
    def reach(self) -> int:
        """Slices on either side that all steps together see."""
        return self.steps * self.neighbours

    @property
    def angles_deg(self) -> tuple[float, ...]:
        """Tilt angles of the series that it was trained for; empty for one that takes many."""
        return self.geometry.angles_deg

    def describe(self) -> str:
        """One line: steps, parameters, and the series that it is for."""
        return (
            f"unrolled network: {self.steps} {'step' if self.steps == 1 else 'steps'} of "
            f"{self.parameters.shape[1]} parameters after total variation, for {self.geometry.describe()}"
        )

    def __repr__(self) -> str:
        """The line of `describe`: the arrays would fill a page."""
        return f"<{self.describe()}>"

    @property
    def digest(self) -> str:
        """Digest of all numbers that a reconstruction depends on."""
        state = hashlib.sha256(repr((self.geometry.to_json(), self.width, self.neighbours)).encode())
        state.update(np.ascontiguousarray(self.parameters, np.float32).tobytes())
        return state.hexdigest()[:16]

    def check(self, series: Any, *, who: str) -> None:
        """Raise a SchemaError where the network was made for another series."""
        self.geometry.check(series, who=who)

    def to_file(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Tensors and metadata that make up the network's file."""
        tensors = {"parameters": np.ascontiguousarray(self.parameters, np.float16)}
        metadata = {
            "geometry": self.geometry.to_json(),
            "width": str(self.width),
            "neighbours": str(self.neighbours),
            "recipe": json.dumps(self.recipe),
        }
        return tensors, metadata

    @classmethod
    def from_file(cls, tensors: dict[str, Any], metadata: dict[str, str]) -> "UnrolledNetwork":
        """Inverse of `to_file`."""
        parameters = tensors["parameters"]
        if parameters.dtype != np.float16 or not np.isfinite(parameters).all():
            raise ValueError("its parameters are no finite numbers of half precision")
        if parameters.ndim != 2 or not 1 <= len(parameters) <= _MOST_STEPS:
            raise ValueError(f"parameters of shape {parameters.shape}")
        return cls(
            geometry=Geometry.from_json(metadata["geometry"]),
            parameters=parameters.astype(np.float32),
            width=untrusted.whole_number(metadata["width"], least=1, most=_WIDEST),
            neighbours=untrusted.whole_number(metadata["neighbours"], least=0, most=REACH),
            recipe=untrusted.recipe_of_network(metadata["recipe"]),
        )


def in_half_precision(parameters: Float32) -> Float32:
    """The parameters as a file keeps them."""
    return np.asarray(parameters, np.float16).astype(np.float32)
