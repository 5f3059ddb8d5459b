"""Levenberg–Marquardt for the NN-FBP network.

Each iteration needs the training set only as the sums JᵀJ, Jᵀr and rᵀr over voxels, which are made leaf by leaf; the
step then solves a system of as many unknowns as the network has parameters (a hundred where filters are shared). The
damping follows Nielsen. Sums are in float64, in the order of `tree`, so a seed gives the same network every time,
wherever the set lies.

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

from nntomo_dask.networks.nnfbp import Form, activate, sigmoid
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


def start(parameters: Float64, samples: Samples, form: Form) -> State:
    """State before the first iteration."""
    hessian, _, total = normal_equations(parameters, samples, form)
    return State(parameters, _INITIAL_DAMPING * float(np.diag(hessian).max()), 2.0, total / samples.shape[0])


def iterate(state: State, samples: Samples, form: Form) -> Iterator[State]:
    """Yield the state after each iteration that lowered the training loss, until no step lowers it."""
    while True:
        hessian, gradient, total = normal_equations(state.parameters, samples, form)
        damping, growth = state.damping, state.growth
        largest = _LARGEST_DAMPING * float(np.diag(hessian).max())
        while damping <= largest:
            damped = hessian + damping * np.eye(len(hessian))
            change = scipy.linalg.solve(damped, -gradient, assume_a="pos")
            parameters = state.parameters + change
            new_total = sum_of_squares(parameters, samples, form)
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


def predict(parameters: Float64, inputs: Float64, form: Form) -> Float64:
    """Output (voxel,) of the network with those parameters at scaled inputs (voxel, input)."""
    return _outputs(parameters, inputs.T, form)[1]


def sum_of_squares(parameters: Float64, samples: Samples, form: Form) -> float:
    """rᵀr over all voxels."""
    leaf = partial(_leaf_squares, parameters=parameters, form=form, scaling=samples.scaling)
    return float(samples.total(leaf, tree.add)[0])


def mean_square_error(parameters: Float64, samples: Samples, form: Form) -> float:
    """rᵀr divided by the number of voxels."""
    return sum_of_squares(parameters, samples, form) / samples.shape[0]


def normal_equations(parameters: Float64, samples: Samples, form: Form) -> tuple[Float64, Float64, float]:
    """JᵀJ (parameter, parameter), Jᵀr (parameter,) and rᵀr, r = output - target, summed over all voxels."""
    leaf = partial(_leaf_equations, parameters=parameters, form=form, scaling=samples.scaling)
    hessian, gradient, total = samples.total(leaf, tree.add)
    return hessian, gradient, float(total)


def _leaf_squares(
    inputs: Array, targets: Array, *, parameters: Float64, form: Form, scaling: Scaling | None
) -> tuple[Any, ...]:
    """The sum of a leaf, alone in a tuple."""
    x, t = scaled(inputs, targets, scaling)
    residual = _outputs(parameters, x, form)[1] - t
    return (residual @ residual,)


def _leaf_equations(
    inputs: Array, targets: Array, *, parameters: Float64, form: Form, scaling: Scaling | None
) -> tuple[Any, ...]:
    """The three sums of a leaf."""
    x, t = scaled(inputs, targets, scaling)
    jacobian, output = _jacobian(parameters, x, form)
    residual = output - t
    # NumPy sees that the first is symmetric and computes one triangle.
    return jacobian @ jacobian.T, jacobian @ residual, residual @ residual


def _jacobian(parameters: Float64, inputs: Float64, form: Form) -> tuple[Float64, Float64]:
    """Derivatives (parameter, voxel) of the outputs by the parameters, and the outputs (voxel,)."""
    layers, output = _outputs(parameters, inputs, form)
    parts = form.unpack(parameters)
    jacobian = np.empty((parameters.size, inputs.shape[1]))
    first, by = 0, {}
    for name, shape in form.shapes.items():
        end = first + int(np.prod(shape))
        by[name] = jacobian[first:end].reshape(*shape, -1)
        first = end
    slope = np.ones_like(output) if form.output == "linear" else output * (1 - output)
    np.multiply(layers[-1], slope, out=by["output_weights"])
    np.negative(slope, out=by["output_bias"][0])
    back = _slope(layers[-1], form) * slope
    back *= parts["output_weights"][:, None]
    if form.n_second:
        np.multiply(layers[0][:, None, :], back, out=by["second_weights"])
        np.negative(back, out=by["second_bias"])
        back = _slope(layers[0], form) * (parts["second_weights"] @ back)
    np.multiply(inputs[:, None, :], back, out=by["hidden_weights"])
    np.negative(back, out=by["hidden_bias"])
    return jacobian, output


def _slope(active: Float64, form: Form) -> Float64:
    """Derivative of the activation, from its value."""
    return np.asarray(active > 0, np.float64) if form.activation == "relu" else active * (1 - active)


def _outputs(parameters: Float64, inputs: Float64, form: Form) -> tuple[list[Float64], Float64]:
    """Nodes (hidden, voxel) of each hidden layer and outputs (voxel,) at scaled inputs (input, voxel)."""
    parts = form.unpack(parameters)
    layers = [activate(parts["hidden_weights"].T @ inputs - parts["hidden_bias"][:, None], form.activation)]
    if form.n_second:
        hidden = parts["second_weights"].T @ layers[0] - parts["second_bias"][:, None]
        layers.append(activate(hidden, form.activation))
    output = parts["output_weights"] @ layers[-1] - parts["output_bias"][0]
    return layers, output if form.output == "linear" else sigmoid(output)


def to_arrays(state: State) -> dict[str, Any]:
    """The state as arrays, for a checkpoint."""
    return {"parameters": state.parameters, "scalars": np.array([state.damping, state.growth, state.loss])}


def from_arrays(arrays: dict[str, Any]) -> State:
    """Inverse of `to_arrays`."""
    damping, growth, loss = (float(value) for value in arrays["scalars"])
    return State(cast("Float64", arrays["parameters"]), damping, growth, loss)
