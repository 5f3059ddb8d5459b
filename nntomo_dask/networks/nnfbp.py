"""The NN-FBP network as data: its layout, its formula, its file.

``out = g( Σ_k q_k f( Σ_i W_ik x_i - b_k ) - b_0 )`` with inputs x scaled to [-1, 1] and the output scaled back from
[0, 1]; g is a sigmoid, or with a linear output ``max(·, 0)``, which no brightness saturates. A second hidden layer has
``f( Σ_k V_kj f(…) - c_j )`` in the place of the first. An input is the mean over a bin of detector offsets of
``Σ_θ weight_θ P_θ(t_θ - offset)``, see `kernels.sample`, where the sum is over a group of projections: these share a
filter. Where the missing wedge is filled by interpolation, the filled projections are a group of their own: the network
learns how far to believe them. With ``filters="apart"`` measured neighbours are groups too, down to single projections,
and the two sides of a bin are two inputs. Reconstruction costs the same.

References
----------
.. [1] D. M. Pelt and K. J. Batenburg, Fast Tomographic Reconstruction From Limited Data Using Artificial Neural
   Networks, IEEE Trans. Image Process. 22 (2013) 5238, doi:10.1109/TIP.2013.2283142.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

import numpy as np
import numpy.typing as npt

from nntomo_dask import untrusted
from nntomo_dask.arrays import finite
from nntomo_dask.kernels import filters
from nntomo_dask.kernels.backproject import NetworkEnd
from nntomo_dask.kernels.network_tiles import Activation, Output, Statistic
from nntomo_dask.networks import NETWORKS
from nntomo_dask.networks.nnfbp_layout import InputLayout
from nntomo_dask.types import Float64

_ARRAYS = ("hidden_weights", "hidden_bias", "output_weights", "input_low", "input_high")
_SECOND = ("second_weights", "second_bias")
_SCALARS = ("output_bias", "target_low", "target_high")


@NETWORKS.register
@dataclass(frozen=True)
class NNFBPNetwork:
    """A trained network with all that reconstruction needs.

    Attributes
    ----------
    hidden_weights
        (input, hidden), W.
    hidden_bias
        (hidden,), b.
    output_weights
        (hidden,), q; (second,) where there is a second hidden layer.
    output_bias
        b_0.
    second_weights, second_bias
        (hidden, second) and (second,), V and c of a second hidden layer; None where there is none.
    output
        "linear": the output is what the last layer gives, at least the least value of the training volumes. "sigmoid":
        it lies between their least and greatest value.
    input_low, input_high
        (input,), range of each input over the training set.
    target_low, target_high
        Range of the training volumes.
    level
        Intensity of matter in the training series, see `intensity_level`; what a measured series is
        scaled to.
    recipe
        How it was trained, with the losses.
    """

    name: ClassVar[str] = "nnfbp"
    FORMAT: ClassVar[str] = "nntomo_dask.nnfbp"

    layout: InputLayout
    activation: Activation
    hidden_weights: Float64
    hidden_bias: Float64
    output_weights: Float64
    output_bias: float
    input_low: Float64
    input_high: Float64
    target_low: float
    target_high: float
    level: float
    recipe: dict[str, Any] = field(default_factory=dict)
    output: Output = "sigmoid"
    second_weights: Float64 | None = None
    second_bias: Float64 | None = None

    @property
    def n_hidden(self) -> int:
        """Hidden nodes of the first layer."""
        return self.hidden_bias.size

    @property
    def n_second(self) -> int:
        """Hidden nodes of the second layer, 0 where there is none."""
        return 0 if self.second_bias is None else self.second_bias.size

    @property
    def form(self) -> "Form":
        """Its sizes and functions."""
        return Form(self.layout.n_inputs, self.n_hidden, self.activation, self.n_second, self.output)

    @property
    def angles_deg(self) -> tuple[float, ...]:
        """Tilt angles of the series that it was trained for."""
        return self.layout.angles_deg

    def describe(self) -> str:
        """One line: hidden nodes, inputs, and the series that it is for."""
        layout = self.layout
        nodes = f"{self.n_hidden} and {self.n_second}" if self.n_second else f"{self.n_hidden}"
        return (
            f"NN-FBP network: {nodes} hidden nodes ({self.activation}), {self.output} output, "
            f"{layout.n_inputs} inputs, for {len(layout.angles_deg)} projections of {layout.detector_count} pixels, "
            f"wedge: {layout.wedge}"
        )

    def __repr__(self) -> str:
        """The line of `describe`: the arrays would fill a page."""
        return f"<{self.describe()}>"

    @property
    def digest(self) -> str:
        """Digest of all numbers that a reconstruction depends on."""
        state = hashlib.sha256(repr((self.layout, self.activation, self.level)).encode())
        if self._is_new:
            state.update(repr((self.layout.filters, self.output, self.n_second)).encode())
        for value in _tensors(self).values():
            state.update(np.ascontiguousarray(value).tobytes())
        return state.hexdigest()[:16]

    def check(self, series: Any, *, who: str) -> None:
        """Raise a SchemaError where the network was made for another series: its angles or its detector."""
        self.layout.check(series, who=who)

    def to_file(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Tensors and metadata that make up the network's file."""
        # Under another name, so that version 0.1.0 refuses a network that it would compute otherwise.
        functions = {"activations": json.dumps([self.activation, self.output])}
        metadata = {
            "layout": self.layout.to_json(),
            **(functions if self._is_new else {"activation": self.activation}),
            "level": repr(float(self.level)),
            "recipe": json.dumps(self.recipe),
        }
        return _tensors(self), metadata

    @classmethod
    def from_file(cls, tensors: dict[str, Any], metadata: dict[str, str]) -> "NNFBPNetwork":
        """Inverse of `to_file`."""
        layout = InputLayout.from_json(metadata["layout"])
        output: Any = "sigmoid"
        if "activations" in metadata:
            activation, output = untrusted.parsed_json(metadata["activations"])
        else:
            activation = metadata["activation"]
        if activation not in get_args(Activation) or output not in get_args(Output):
            raise ValueError(f"the activation {activation!r} with the output {output!r} is not known")
        hidden = last = tensors["hidden_bias"].size
        sizes = {"hidden_weights": (layout.n_inputs, hidden), "hidden_bias": (hidden,)}
        if "second_bias" in tensors:
            last = tensors["second_bias"].size
            sizes |= {"second_weights": (hidden, last), "second_bias": (last,)}
        sizes |= {"output_weights": (last,)}
        sizes |= {"input_low": (layout.n_inputs,), "input_high": (layout.n_inputs,)} | dict.fromkeys(_SCALARS, (1,))
        for name, shape in sizes.items():
            if tensors[name].shape != shape or tensors[name].dtype != np.float64:
                raise ValueError(
                    f"{name} is {tensors[name].dtype} of shape {tensors[name].shape}, not float64 of {shape}"
                )
            if not np.isfinite(tensors[name]).all():
                raise ValueError(f"{name} is not finite")
        scalars: dict[str, Any] = {name: float(tensors[name][0]) for name in _SCALARS}
        return cls(
            layout=layout,
            activation=activation,
            level=untrusted.finite_number(metadata["level"]),
            recipe=untrusted.recipe_of_network(metadata["recipe"]),
            output=output,
            **{name: tensors[name] for name in _ARRAYS},
            **{name: tensors[name] for name in _SECOND if name in sizes},
            **scalars,
        )

    @property
    def _is_new(self) -> bool:
        """Whether version 0.1.0 had no such networks."""
        return self.layout.filters != "shared" or self.output != "sigmoid" or self.n_second > 0


@dataclass(frozen=True)
class Form:
    """Sizes and functions of a network: all that says how its parameters, in one vector, give its output."""

    n_inputs: int
    n_hidden: int
    activation: Activation = "relu"
    n_second: int = 0
    output: Output = "sigmoid"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of its parameters, in their order in the vector."""
        first = {"hidden_weights": (self.n_inputs, self.n_hidden), "hidden_bias": (self.n_hidden,)}
        second = {"second_weights": (self.n_hidden, self.n_second), "second_bias": (self.n_second,)}
        last = {"output_weights": (self.n_second or self.n_hidden,), "output_bias": (1,)}
        return first | (second if self.n_second else {}) | last

    @property
    def count(self) -> int:
        """Weights and biases."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    def unpack(self, parameters: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Views of the parameters in a vector."""
        if parameters.shape != (self.count,):
            raise ValueError(f"{parameters.size} parameters of a network that has {self.count}")
        found, first = {}, 0
        for name, shape in self.shapes.items():
            end = first + int(np.prod(shape))
            found[name] = parameters[first:end].reshape(shape)
            first = end
        return found


def activate(values: Float64, activation: Activation) -> Float64:
    """F of the module's formula."""
    if activation == "relu":
        return np.maximum(values, 0)
    return sigmoid(values)


def sigmoid(values: Float64) -> Float64:
    """``1 / (1 + exp(-values))``, without overflow."""
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -500, 500))))


def scale_inputs(inputs: npt.NDArray[Any], low: Float64, high: Float64) -> Float64:
    """Inputs (voxel, input) as [-1, 1] of the training range; a constant input becomes -1."""
    span = np.where(high > low, high - low, 1)
    return np.asarray(2 * (inputs - low) / span - 1)


def evaluate(network: NNFBPNetwork, inputs: npt.NDArray[Any]) -> Float64:
    """The network at the inputs of some voxels: Branchut (2024), Eq. 8, voxel by voxel.

    Parameters
    ----------
    inputs
        (voxel, input), as `kernels.sample` gives them.

    Returns
    -------
    (voxel,), in the units of the training volumes.

    Raises
    ------
    SchemaError
        An input is NaN or infinite.
    """
    finite.check_slab(inputs, who="evaluate", dims=("voxel", "input"))
    scaled = scale_inputs(inputs, network.input_low, network.input_high)
    hidden = activate(scaled @ network.hidden_weights - network.hidden_bias, network.activation)
    if network.second_weights is not None and network.second_bias is not None:
        hidden = activate(hidden @ network.second_weights - network.second_bias, network.activation)
    output = hidden @ network.output_weights - network.output_bias
    output = np.maximum(output, 0) if network.output == "linear" else sigmoid(output)
    return network.target_low + (network.target_high - network.target_low) * output


def folded(
    networks: Sequence[NNFBPNetwork], scales: Sequence[float], *, statistic: Statistic = "mean"
) -> tuple[npt.NDArray[Any], NetworkEnd]:
    """Networks as filters and an end: Branchut (2024), Eq. 9, with all scaling included.

    Parameters
    ----------
    networks
        One, or the members of an ensemble: of one layout, one number of hidden nodes and one activation.
    scales
        What one unit of each network's training volumes is in the series to be reconstructed.
    statistic
        Of the members' values.

    Returns
    -------
    Responses (member · hidden, angle, frequency) for `filters.filter_rows`, the weights of the angles included, and the
    end for `kernels.backproject`.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what a stranger's file may hold; reconstructions refuse it
        filters_and_biases = [_folded(network, scale) for network, scale in zip(networks, scales, strict=True)]
        lows = np.array([network.target_low for network in networks])
        highs = np.array([network.target_high for network in networks])
        end = NetworkEnd(
            hidden_bias=np.array([bias for _, bias in filters_and_biases], np.float32),
            output_weights=np.array([network.output_weights for network in networks], np.float32),
            output_bias=np.array([network.output_bias for network in networks], np.float32),
            offset=np.asarray(scales * lows, np.float32),
            gain=np.asarray(scales * (highs - lows), np.float32),
            activation=networks[0].activation,
            statistic=statistic,
            output=networks[0].output,
        )
        if networks[0].n_second:
            second = {name: np.array([getattr(network, name) for network in networks], np.float32) for name in _SECOND}
            end = dataclasses.replace(end, second_weights=second["second_weights"], second_bias=second["second_bias"])
        return np.concatenate([responses for responses, _ in filters_and_biases]), end


def _folded(network: NNFBPNetwork, scale: float) -> tuple[npt.NDArray[Any], Float64]:
    """Responses (hidden, angle, frequency) and hidden biases of one network."""
    span = np.where(network.input_high > network.input_low, network.input_high - network.input_low, 1)
    slope = 2 / span
    weights = network.hidden_weights * slope[:, None]
    bias = network.hidden_bias + (network.input_low * slope + 1) @ network.hidden_weights
    layout = network.layout
    responses = np.empty(
        (network.n_hidden, layout.used_angles_deg.size, filters.fft_length(layout.detector_count) // 2 + 1),
        complex if layout.sides == "apart" else float,
    )
    binned = filters.two_sided_filter if layout.sides == "apart" else filters.binned_filter
    for group, group_weights in zip(layout.groups, np.split(weights / scale, len(layout.groups)), strict=True):
        of_group = binned(group_weights, layout.edges, layout.detector_count)
        responses[:, group] = of_group[:, None] * layout.weights[group][:, None]
    return responses, bias


def _tensors(network: NNFBPNetwork) -> dict[str, Any]:
    arrays = _ARRAYS + (_SECOND if network.n_second else ())
    return {name: np.ascontiguousarray(getattr(network, name), np.float64) for name in arrays} | {
        name: np.array([getattr(network, name)], np.float64) for name in _SCALARS
    }
