"""Adam with a rate that rises and falls over a fixed number of epochs, on errors as shares of those of their slice.

Mini-batches in a new random order every epoch, float32, in NumPy: a network of some thousand parameters leaves nothing
for a framework to do. At the beginning of an epoch the mean square error of each slice is taken; in that epoch a slice
counts by its inverse, plus a share of the median slice's. So bright and dim slices, sharp and smooth ones count alike,
as they do where errors are compared with those of another method. An epoch depends on its parameters, on the moments of
Adam, on the seed and on its number alone, so a training that goes on takes the very same steps.

References
----------
.. [1] D. P. Kingma and J. Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, arXiv:1412.6980.
.. [2] L. N. Smith and N. Topin, Super-Convergence, 2017, arXiv:1708.07120.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from nntomo_dask.compute import blas
from nntomo_dask.networks.nnfbp import Form
from nntomo_dask.training.nnfbp.sets import Scaling
from nntomo_dask.types import Float32, Float64, Integers

_BATCH = 200
_RATE, _FIRST_RATE, _LAST_RATE = 1e-2, 4e-4, 1e-7
_RISE = 0.1  # of the steps
_MEAN, _SQUARE, _TINY = 0.9, 0.999, 1e-8  # Adam's
_MEDIAN_SHARE = 0.2  # of the median slice's error, added to each: a slice without matter has none
_LEAST_VARIANCE = 1e-3  # of a direction, as a share of the largest, below which it counts less
_ROWS = 8192  # voxels whose layers are held at once where a whole set is looked at


@dataclass
class State:
    """All that the next epoch depends on."""

    parameters: Float32
    mean: Float32  # of the gradient
    square: Float32  # mean of its square
    epoch: int
    loss: float  # mean square error over the epoch, each batch before its own step


@dataclass(frozen=True)
class Problem:
    """What is fitted."""

    inputs: Float32  # (voxel, input), of mean 0 and deviation 1
    targets: Float32  # (voxel,), in [0, 1]
    slices: Integers  # (voxel,), of a training volume, counted from 0
    form: Form
    epochs: int
    seed: int


@dataclass(frozen=True)
class Standard:
    """Inputs as uncorrelated ones of mean 0 and deviation 1: ``(x - mean) @ directions``.

    Inputs of neighbouring bins are nearly alike, and what tells a fine structure is their small difference. Without
    this step Adam finds it late, and by chance.
    """

    mean: Float64  # (input,)
    directions: Float64  # (input, input)

    @classmethod
    def of(cls, inputs: Float32) -> "Standard":
        """Of a set (voxel, input); directions without variance are left small."""
        mean = inputs.mean(axis=0, dtype=np.float64)
        covariance = np.zeros((inputs.shape[1],) * 2)
        with blas.one_thread():
            for first in range(0, len(inputs), _ROWS):
                part = inputs[first : first + _ROWS] - mean
                covariance += part.T @ part
            covariance /= len(inputs)
            deviation = np.sqrt(np.diag(covariance))
            deviation = np.where(deviation > 1e-6 * (np.abs(mean) + 1), deviation, 1)
            variances, vectors = scipy.linalg.eigh(covariance / np.outer(deviation, deviation))
        least = _LEAST_VARIANCE * max(float(variances.max()), 1e-12)
        return cls(mean, vectors / deviation[:, None] / np.sqrt(np.maximum(variances, 0) + least))

    def scaled(self, inputs: Float32) -> Float32:
        """Inputs of mean 0 and deviation 1."""
        with blas.one_thread():
            centred = inputs - self.mean.astype(np.float32)
            return np.asarray(centred @ self.directions.astype(np.float32), np.float32)

    def for_range(self, parameters: Float32, form: Form, scaling: Scaling) -> Float64:
        """The same network's parameters for inputs that are scaled by their range, as networks have them."""
        found = parameters.astype(np.float64)
        parts = form.unpack(found)
        low, high = scaling.input_low, scaling.input_high
        half = np.where(high > low, high - low, 1) / 2
        weights = self.directions @ parts["hidden_weights"]
        parts["hidden_bias"] -= (low + half - self.mean) @ weights
        parts["hidden_weights"][...] = weights * half[:, None]
        return found


def start(parameters: Float64) -> State:
    """State before the first epoch."""
    vector = parameters.astype(np.float32)
    return State(vector, np.zeros_like(vector), np.zeros_like(vector), 0, np.inf)


def iterate(state: State, problem: Problem) -> Iterator[State]:
    """Yield the state after each epoch, up to the last that the rate is planned for."""
    while state.epoch < problem.epochs:
        with blas.one_thread():
            state = _epoch(state, problem)
        yield state


def _epoch(state: State, problem: Problem) -> State:
    voxels, form = len(problem.targets), problem.form
    weights = _weights(state.parameters, problem)
    parameters, mean, square = (np.array(values) for values in (state.parameters, state.mean, state.square))
    gradient = np.empty_like(parameters)
    order = np.random.default_rng([problem.seed, state.epoch]).permutation(voxels)
    per_epoch = -(-voxels // _BATCH)
    squares = 0.0
    for batch in range(per_epoch):
        chosen = order[batch * _BATCH : (batch + 1) * _BATCH]
        residual = _gradient(
            parameters, problem.inputs[chosen], problem.targets[chosen], weights[chosen], form, gradient
        )
        squares += float(residual @ residual)
        step = state.epoch * per_epoch + batch
        rate = np.float32(_rate(step, problem.epochs * per_epoch))
        mean += np.float32(1 - _MEAN) * (gradient - mean)
        square += np.float32(1 - _SQUARE) * (gradient * gradient - square)
        unbiased = np.sqrt(square / np.float32(1 - _SQUARE ** (step + 1))) + np.float32(_TINY)
        parameters -= rate / np.float32(1 - _MEAN ** (step + 1)) * mean / unbiased
    return State(parameters, mean, square, state.epoch + 1, squares / voxels)


def _rate(step: int, steps: int) -> float:
    """Half a cosine up, half a cosine down."""
    rise = max(_RISE * steps, 1)
    if step < rise:
        low, high, share = _FIRST_RATE, _RATE, step / rise
    else:
        low, high, share = _RATE, _LAST_RATE, (step - rise) / max(steps - rise, 1)
    return high + (low - high) * (1 + math.cos(math.pi * share)) / 2


def _weights(parameters: Float32, problem: Problem) -> Float32:
    """(voxel,), of mean 1: what the errors of each voxel's slice are multiplied by."""
    errors, least = _slice_errors(parameters, problem.inputs, problem.targets, problem.slices, problem.form)
    weights = (1 / np.maximum(errors + least, np.finfo(np.float32).tiny))[problem.slices]
    return np.asarray(weights / weights.mean(), np.float32)


def validation_loss(
    parameters: Float32, inputs: Float32, targets: Float32, slices: Integers, form: Form, standard: Standard
) -> float:
    """The geometric mean of the slices' mean square errors, a share of the median added: what the epochs lower."""
    with blas.one_thread():
        errors, least = _slice_errors(parameters, inputs, targets, slices, form, standard)
    found = errors[np.bincount(slices) > 0] + least
    return float(np.exp(np.log(np.maximum(found, np.finfo(np.float32).tiny)).mean()))


def _slice_errors(
    parameters: Float32,
    inputs: Float32,
    targets: Float32,
    slices: Integers,
    form: Form,
    standard: Standard | None = None,
) -> tuple[Float64, float]:
    """(slice,), mean square errors, 0 of slices without voxels, and the share of the median that is added."""
    squares = np.empty(len(targets), np.float64)
    for first in range(0, len(squares), _ROWS):
        part = slice(first, first + _ROWS)
        x = inputs[part] if standard is None else standard.scaled(inputs[part])
        squares[part] = (_layers(parameters, x, form)[-1] - targets[part]) ** 2
    counts = np.bincount(slices)
    errors = np.bincount(slices, squares) / np.maximum(counts, 1)
    return errors, _MEDIAN_SHARE * float(np.median(errors[counts > 0]))


def _layers(parameters: Float32, inputs: Float32, form: Form) -> list[Float32]:
    """Nodes (voxel, hidden) of each hidden layer, and the outputs (voxel,)."""
    parts = form.unpack(parameters)
    layers = [_activated(inputs @ parts["hidden_weights"] - parts["hidden_bias"], form)]
    if form.n_second:
        layers.append(_activated(layers[0] @ parts["second_weights"] - parts["second_bias"], form))
    output = layers[-1] @ parts["output_weights"] - parts["output_bias"]
    return [*layers, output if form.output == "linear" else 1 / (1 + np.exp(-np.clip(output, -80, 80)))]


def _activated(values: Float32, form: Form) -> Float32:
    return np.asarray(
        np.maximum(values, 0) if form.activation == "relu" else 1 / (1 + np.exp(-np.clip(values, -80, 80)))
    )


def _slope(active: Float32, form: Form) -> Float32:
    """Derivative of the activation, from its value."""
    return np.asarray(active > 0, np.float32) if form.activation == "relu" else active * (1 - active)


def _gradient(
    parameters: Float32, inputs: Float32, targets: Float32, weights: Float32, form: Form, gradient: Float32
) -> Float32:
    """Write the gradient of the weighted mean square error; gives the residuals (voxel,)."""
    *layers, output = _layers(parameters, inputs, form)
    residual = output - targets
    parts, by = form.unpack(parameters), form.unpack(gradient)
    back = np.float32(2 / len(targets)) * weights * residual
    if form.output == "sigmoid":
        back = back * output * (1 - output)
    by["output_weights"][...] = back @ layers[-1]
    by["output_bias"][...] = -back.sum()
    spread = back[:, None] * parts["output_weights"] * _slope(layers[-1], form)
    if form.n_second:
        by["second_weights"][...] = layers[0].T @ spread
        by["second_bias"][...] = -spread.sum(axis=0)
        spread = (spread @ parts["second_weights"].T) * _slope(layers[0], form)
    by["hidden_weights"][...] = inputs.T @ spread
    by["hidden_bias"][...] = -spread.sum(axis=0)
    return residual


def to_arrays(state: State) -> dict[str, Any]:
    """The state as arrays, for a checkpoint."""
    scalars = np.array([state.epoch, state.loss])
    return {"parameters": state.parameters, "mean": state.mean, "square": state.square, "scalars": scalars}


def from_arrays(arrays: dict[str, Any]) -> State:
    """Inverse of `to_arrays`."""
    epoch, loss = arrays["scalars"]
    return State(arrays["parameters"], arrays["mean"], arrays["square"], int(epoch), float(loss))
