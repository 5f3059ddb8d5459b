"""Levenberg–Marquardt for the NN-FBP network.

Each iteration needs the training set only as the sums JᵀJ, Jᵀr and rᵀr over voxels, which are made leaf by leaf; the
step then solves a system of as many unknowns as the network has parameters (about a hundred). The damping follows
Nielsen. Sums are in float64, in the order of `tree`, so a seed gives the same network every time, wherever the set
lies.

References
----------
.. [1] M. T. Hagan and M. B. Menhaj, IEEE Trans. Neural Netw. 5 (1994) 989.
.. [2] H. B. Nielsen, Damping Parameter in Marquardt's Method, Technical University of Denmark, IMM-REP-1999-05.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import scipy.linalg

from nntomo_dask.kernels.backproject import Activation
from nntomo_dask.networks.nnfbp import activate, sigmoid, unpack
from nntomo_dask.training.nnfbp import tree
from nntomo_dask.training.nnfbp.sets import Samples, Scaling, scaled
from nntomo_dask.types import Float64

Array = npt.NDArray[Any]

_INITIAL_DAMPING = 1e-3  # of the largest diagonal element of JᵀJ
_LARGEST_DAMPING = 1e12  # of the same: no step helps any more


@dataclass
class State:
    """All that the next iteration depends on."""

    parameters: Float64
    damping: float
    growth: float
    loss: float


def start(parameters: Float64, samples: Samples, activation: Activation) -> State:
    """State before the first iteration."""
    hessian, _, total = normal_equations(parameters, samples, activation)
    return State(parameters, _INITIAL_DAMPING * float(np.diag(hessian).max()), 2.0, total / samples.shape[0])


def iterate(state: State, samples: Samples, activation: Activation) -> Iterator[State]:
    """Yield the state after each iteration that lowered the training loss, until no step lowers it."""
    while True:
        hessian, gradient, total = normal_equations(state.parameters, samples, activation)
        damping, growth = state.damping, state.growth
        largest = _LARGEST_DAMPING * float(np.diag(hessian).max())
        while damping <= largest:
            damped = hessian + damping * np.eye(len(hessian))
            change = scipy.linalg.solve(damped, -gradient, assume_a="pos")
            parameters = state.parameters + change
            new_total = sum_of_squares(parameters, samples, activation)
            predicted = float(change @ (damping * change - gradient))
            if predicted > 0 and new_total < total:
                gain = (total - new_total) / predicted
                damping *= max(1 / 3, 1 - (2 * gain - 1) ** 3)
                break
            damping *= growth
            growth *= 2
        else:
            return
        state = State(parameters, damping, 2.0, new_total / samples.shape[0])
        yield state


def predict(parameters: Float64, inputs: Float64, activation: Activation) -> Float64:
    """Output (voxel,) of the network with those parameters at scaled inputs (voxel, input)."""
    return _outputs(parameters, inputs.T, activation)[1]


def sum_of_squares(parameters: Float64, samples: Samples, activation: Activation) -> float:
    """rᵀr over all voxels."""
    leaf = partial(_leaf_squares, parameters=parameters, activation=activation, scaling=samples.scaling)
    return float(samples.total(leaf, tree.add)[0])


def mean_square_error(parameters: Float64, samples: Samples, activation: Activation) -> float:
    """rᵀr divided by the number of voxels."""
    return sum_of_squares(parameters, samples, activation) / samples.shape[0]


def normal_equations(parameters: Float64, samples: Samples, activation: Activation) -> tuple[Float64, Float64, float]:
    """JᵀJ (parameter, parameter), Jᵀr (parameter,) and rᵀr, r = output - target, summed over all voxels."""
    leaf = partial(_leaf_equations, parameters=parameters, activation=activation, scaling=samples.scaling)
    hessian, gradient, total = samples.total(leaf, tree.add)
    return hessian, gradient, float(total)


def _leaf_squares(
    inputs: Array, targets: Array, *, parameters: Float64, activation: Activation, scaling: Scaling | None
) -> tuple[Any, ...]:
    """The sum of a leaf, alone in a tuple."""
    x, t = scaled(inputs, targets, scaling)
    residual = _outputs(parameters, x, activation)[1] - t
    return (residual @ residual,)


def _leaf_equations(
    inputs: Array, targets: Array, *, parameters: Float64, activation: Activation, scaling: Scaling | None
) -> tuple[Any, ...]:
    """The three sums of a leaf."""
    x, t = scaled(inputs, targets, scaling)
    jacobian, output = _jacobian(parameters, x, activation)
    residual = output - t
    # NumPy sees that the first is symmetric and computes one triangle.
    return jacobian @ jacobian.T, jacobian @ residual, residual @ residual


def _jacobian(parameters: Float64, inputs: Float64, activation: Activation) -> tuple[Float64, Float64]:
    """Derivatives (parameter, voxel) of the outputs by the parameters, and the outputs (voxel,)."""
    n_inputs, voxels = inputs.shape
    hidden, output = _outputs(parameters, inputs, activation)
    n_hidden = len(hidden)
    split = n_inputs * n_hidden
    slope = output * (1 - output)
    jacobian = np.empty((parameters.size, voxels))
    of_weights, of_bias, of_output = jacobian[:split], jacobian[split : split + n_hidden], jacobian[split + n_hidden :]
    back = (hidden > 0) * slope if activation == "relu" else hidden * (1 - hidden) * slope
    back *= parameters[split + n_hidden : -1, None]
    np.multiply(inputs[:, None, :], back, out=of_weights.reshape(n_inputs, n_hidden, voxels))
    np.negative(back, out=of_bias)
    np.multiply(hidden, slope, out=of_output[:-1])
    np.negative(slope, out=of_output[-1])
    return jacobian, output


def _outputs(parameters: Float64, inputs: Float64, activation: Activation) -> tuple[Float64, Float64]:
    """Hidden nodes (hidden, voxel) and outputs (voxel,) at scaled inputs (input, voxel)."""
    n_inputs = len(inputs)
    weights, bias, output_weights, output_bias = unpack(parameters, n_inputs, (parameters.size - 1) // (n_inputs + 2))
    hidden = activate(weights.T @ inputs - bias[:, None], activation)
    return hidden, sigmoid(output_weights @ hidden - output_bias)


def to_arrays(state: State) -> dict[str, Any]:
    """The state as arrays, for a checkpoint."""
    return {"parameters": state.parameters, "scalars": np.array([state.damping, state.growth, state.loss])}


def from_arrays(arrays: dict[str, Any]) -> State:
    """Inverse of `to_arrays`."""
    damping, growth, loss = (float(value) for value in arrays["scalars"])
    return State(cast("Float64", arrays["parameters"]), damping, growth, loss)
