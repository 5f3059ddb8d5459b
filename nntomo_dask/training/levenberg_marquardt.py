"""Levenberg–Marquardt for the NN-FBP network.

Each iteration needs the training set only as the sums JᵀJ, Jᵀr and rᵀr over voxels, which are made chunk by chunk; the
step then solves a system of as many unknowns as the network has parameters (about a hundred). The damping follows
Nielsen. Sums are in float64, in a fixed order, so a seed gives the same network every time.

References
----------
.. [1] M. T. Hagan and M. B. Menhaj, IEEE Trans. Neural Netw. 5 (1994) 989.
.. [2] H. B. Nielsen, Damping Parameter in Marquardt's Method, Technical University of Denmark, IMM-REP-1999-05.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import scipy.linalg
from threadpoolctl import threadpool_limits

from nntomo_dask.chunking import JACOBIAN_VOXELS
from nntomo_dask.kernels.backproject import Activation
from nntomo_dask.networks.nnfbp import activate, sigmoid, unpack

Float64 = npt.NDArray[np.float64]
Part = TypeVar("Part")

_INITIAL_DAMPING = 1e-3  # of the largest diagonal element of JᵀJ
_LARGEST_DAMPING = 1e12  # of the same: no step helps any more


@dataclass
class State:
    """All that the next iteration depends on."""

    parameters: Float64
    damping: float
    growth: float
    loss: float


def start(parameters: Float64, inputs: Float64, targets: Float64, activation: Activation) -> State:
    """State before the first iteration."""
    hessian, _, total = normal_equations(parameters, inputs, targets, activation)
    return State(parameters, _INITIAL_DAMPING * float(np.diag(hessian).max()), 2.0, total / targets.size)


def iterate(state: State, inputs: Float64, targets: Float64, activation: Activation) -> Iterator[State]:
    """Yield the state after each iteration that lowered the training loss, until no step lowers it.

    Parameters
    ----------
    inputs, targets
        (voxel, input) in [-1, 1] and (voxel,) in [0, 1].
    """
    while True:
        hessian, gradient, total = normal_equations(state.parameters, inputs, targets, activation)
        damping, growth = state.damping, state.growth
        largest = _LARGEST_DAMPING * float(np.diag(hessian).max())
        while damping <= largest:
            damped = hessian + damping * np.eye(len(hessian))
            change = scipy.linalg.solve(damped, -gradient, assume_a="pos")
            parameters = state.parameters + change
            new_total = sum_of_squares(parameters, inputs, targets, activation)
            predicted = float(change @ (damping * change - gradient))
            if predicted > 0 and new_total < total:
                gain = (total - new_total) / predicted
                damping *= max(1 / 3, 1 - (2 * gain - 1) ** 3)
                break
            damping *= growth
            growth *= 2
        else:
            return
        state = State(parameters, damping, 2.0, new_total / targets.size)
        yield state


def predict(parameters: Float64, inputs: Float64, activation: Activation) -> Float64:
    """Output (voxel,) of the network with those parameters at scaled inputs."""
    weights, bias, output_weights, output_bias = _unpack(parameters, inputs)
    return sigmoid(activate(inputs @ weights - bias, activation) @ output_weights - output_bias)


def sum_of_squares(parameters: Float64, inputs: Float64, targets: Float64, activation: Activation) -> float:
    """rᵀr over all voxels."""

    def part(chunk: slice) -> float:
        residual = predict(parameters, inputs[chunk], activation) - targets[chunk]
        return float(residual @ residual)

    return sum(_over_chunks(part, targets.size))


def mean_square_error(parameters: Float64, inputs: Float64, targets: Float64, activation: Activation) -> float:
    """rᵀr divided by the number of voxels."""
    return sum_of_squares(parameters, inputs, targets, activation) / targets.size


def normal_equations(
    parameters: Float64, inputs: Float64, targets: Float64, activation: Activation
) -> tuple[Float64, Float64, float]:
    """JᵀJ (parameter, parameter), Jᵀr (parameter,) and rᵀr, r = output - target, summed over all voxels."""

    def part(chunk: slice) -> tuple[Float64, Float64, float]:
        jacobian, residual = _jacobian(parameters, inputs[chunk], targets[chunk], activation)
        return jacobian.T @ jacobian, jacobian.T @ residual, float(residual @ residual)

    size = parameters.size
    hessian, gradient, total = np.zeros((size, size)), np.zeros(size), 0.0
    for part_hessian, part_gradient, part_total in _over_chunks(part, targets.size):
        hessian += part_hessian
        gradient += part_gradient
        total += part_total
    return hessian, gradient, total


def _over_chunks(part: Callable[[slice], Part], count: int) -> Iterator[Part]:
    """Results of `part` for all chunks of `count` voxels in order, made by as many threads as there are cores.

    One BLAS thread each: BLAS's own threads wait for each other actively, and crawl where another program has a core.
    """
    chunks = [slice(first, first + JACOBIAN_VOXELS) for first in range(0, count, JACOBIAN_VOXELS)]
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool, threadpool_limits(1, "blas"):
        for first in range(0, len(chunks), threads):  # so many results at once, however many chunks
            yield from pool.map(part, chunks[first : first + threads])


def _jacobian(
    parameters: Float64, inputs: Float64, targets: Float64, activation: Activation
) -> tuple[Float64, Float64]:
    weights, bias, output_weights, output_bias = _unpack(parameters, inputs)
    hidden = activate(inputs @ weights - bias, activation)
    output = sigmoid(hidden @ output_weights - output_bias)
    slope = output * (1 - output)
    inner = (hidden > 0).astype(float) if activation == "relu" else hidden * (1 - hidden)
    back = slope[:, None] * output_weights * inner
    jacobian = np.concatenate(
        [
            (inputs[:, :, None] * back[:, None, :]).reshape(len(inputs), -1),
            -back,
            slope[:, None] * hidden,
            -slope[:, None],
        ],
        axis=1,
    )
    return jacobian, output - targets


def _unpack(parameters: Float64, inputs: Float64) -> tuple[Float64, Float64, Float64, float]:
    n_inputs = inputs.shape[1]
    return unpack(parameters, n_inputs, (parameters.size - 1) // (n_inputs + 2))


def to_arrays(state: State) -> dict[str, Any]:
    """The state as arrays, for a checkpoint."""
    return {"parameters": state.parameters, "scalars": np.array([state.damping, state.growth, state.loss])}


def from_arrays(arrays: dict[str, Any]) -> State:
    """Inverse of `to_arrays`."""
    damping, growth, loss = (float(value) for value in arrays["scalars"])
    return State(cast("Float64", arrays["parameters"]), damping, growth, loss)
