"""Backprojection by interpolation on the detector, alone (FBP) and with the end of a network in the same loop (NN-FBP).

Voxel (x, y) of a slice takes from every projection the filtered row at ``t = x cos θ + y sin θ``, between two detector
pixels by linear interpolation, and zero beyond the detector's ends. With a network, H filtered rows of each projection
are backprojected side by side, and what is written is ``offset + gain · sigmoid(Σ_k q_k σ(s_k - b_k) - b_0)`` of the H
sums ``s_k``: a volume per filter never exists.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit

from nntomo_dask import device
from nntomo_dask.kernels import cuda
from nntomo_dask.kernels.lanes import add, fill, fma, load, relu, sigmoid, store, store_transposed
from nntomo_dask.kernels.layout import (
    DETECTOR_FRONT,
    DETECTOR_PAD,
    Float32,
    Float64,
    aligned_zeros,
    lane_width,
    sinogram_to_lanes,
)

Activation = Literal["relu", "sigmoid"]

WIDEST = 32  # lanes of the plain kernel
NETWORK_WIDTH = 8  # slices side by side in the network kernel; times 8 hidden nodes that is 64 lanes
TILE = 32  # pixels a side: the rows that a tile reads stay in the second-level cache


@dataclass(frozen=True)
class NetworkEnd:
    """What follows the H backprojected filters of one network, see the module's formula."""

    hidden_bias: Float32  # (hidden,), b_k
    output_weights: Float32  # (hidden,), q_k
    output_bias: float  # b_0
    activation: Activation
    offset: float
    gain: float


def backproject_reference(filtered: Float32, angles_rad: Float64) -> Float32:
    """Backproject (slice, angle, detector) to (slice, y, x), readably."""
    n_slices, _, n = filtered.shape
    centre = (n - 1) / 2
    axis = np.arange(n) - centre
    padded = np.pad(filtered, ((0, 0), (0, 0), (1, 2)))
    images = np.zeros((n_slices, n, n))
    for a, angle in enumerate(angles_rad):
        t = axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle) + centre
        t = np.clip(t, -1, n)
        lower = np.floor(t).astype(int)
        weight = t - lower
        images += (1 - weight) * padded[:, a, lower + 1] + weight * padded[:, a, lower + 2]
    return images.astype(np.float32)


def backproject_network_reference(filtered: Float32, angles_rad: Float64, end: NetworkEnd) -> Float32:
    """Backproject (slice, hidden, angle, detector) and apply the network's end, readably."""
    output = -np.float64(end.output_bias)
    for k, (weight, bias) in enumerate(zip(end.output_weights, end.hidden_bias, strict=True)):
        hidden = backproject_reference(filtered[:, k], angles_rad).astype(float) - bias
        active = np.maximum(hidden, 0) if end.activation == "relu" else 1 / (1 + np.exp(-hidden))
        output = output + weight * active
    return np.asarray(end.offset + end.gain / (1 + np.exp(-output)), np.float32)


@njit(nogil=True, cache=True, error_model="numpy")
def _locate(cos: Float64, sin: Float64, n: int, y: int, x0: int, index: npt.NDArray[np.int32], weight: Float32) -> None:
    """Detector index (in the padded row) and weight of its upper neighbour for TILE pixels of one line, (angle, pixel).

    A loop of its own, over pixels innermost, so that the compiler computes several of them at once.
    """
    centre = (n - 1) / 2
    end = np.float64(n)
    for a in range(cos.size):
        across = (y - centre) * sin[a]
        for i in range(TILE):
            t = (x0 + i - centre) * cos[a] + across + centre
            t = min(max(t, -1.0), end) + DETECTOR_FRONT
            lower = np.int32(t)
            index[a * TILE + i] = lower
            weight[a * TILE + i] = np.float32(t - lower)


@njit(nogil=True, cache=True, error_model="numpy")
def _store_line(line: Float32, width: int, images: Float32, n_slices: int, n: int, y: int, x0: int, count: int) -> None:
    """Write `count` pixels (pixel, lane) of one line to flat images (slice, y, x)."""
    whole_slices = n_slices - n_slices % 8
    whole = count - count % 8
    for s in range(0, whole_slices, 8):
        for i in range(0, whole, 8):
            store_transposed(line, i * width + s, width, images, (s * n + y) * n + x0 + i, n * n)
    for s in range(n_slices):
        for i in range(whole if s < whole_slices else 0, count):
            images[(s * n + y) * n + x0 + i] = line[i * width + s]


@functools.cache
def _plain_kernel(width: int) -> Any:
    @njit(nogil=True, cache=True, error_model="numpy")
    def kernel(rows: Float32, cos: Float64, sin: Float64, n: int, n_slices: int, images: Float32) -> None:
        row = (n + DETECTOR_PAD) * width
        index = np.empty(cos.size * TILE, np.int32)
        weight = np.empty(cos.size * TILE, np.float32)
        line = np.empty(TILE * width, np.float32)
        for y0 in range(0, n, TILE):
            for x0 in range(0, n, TILE):
                count = min(TILE, n - x0)
                for y in range(y0, min(y0 + TILE, n)):
                    _locate(cos, sin, n, y, x0, index, weight)
                    for i in range(0, TILE, 2):  # two pixels at once: neither waits for the other's sums
                        total = fill(np.float32(0), width)
                        other = fill(np.float32(0), width)
                        for a in range(cos.size):
                            upper = weight[a * TILE + i]
                            entry = a * row + index[a * TILE + i] * width
                            total = fma(np.float32(1) - upper, load(rows, entry, width), total)
                            total = fma(upper, load(rows, entry + width, width), total)
                            upper = weight[a * TILE + i + 1]
                            entry = a * row + index[a * TILE + i + 1] * width
                            other = fma(np.float32(1) - upper, load(rows, entry, width), other)
                            other = fma(upper, load(rows, entry + width, width), other)
                        store(line, i * width, total)
                        store(line, (i + 1) * width, other)
                    _store_line(line, width, images, n_slices, n, y, x0, count)

    return kernel


@functools.cache
def _network_kernel(n_hidden: int, activation: Activation) -> Any:
    width = NETWORK_WIDTH
    lanes = n_hidden * width
    is_relu = activation == "relu"  # a constant to the compiler; the function itself would spoil Numba's cache on disk

    @njit(nogil=True, cache=True, error_model="numpy")
    def kernel(
        rows: Float32,
        cos: Float64,
        sin: Float64,
        hidden_bias: Float32,
        output_weights: Float32,
        output_bias: np.float32,
        offset: np.float32,
        gain: np.float32,
        n: int,
        n_slices: int,
        images: Float32,
    ) -> None:
        row = (n + DETECTOR_PAD) * lanes
        index = np.empty(cos.size * TILE, np.int32)
        weight = np.empty(cos.size * TILE, np.float32)
        sums = np.empty(TILE * lanes, np.float32)
        line = np.empty(TILE * width, np.float32)
        for y0 in range(0, n, TILE):
            for x0 in range(0, n, TILE):
                count = min(TILE, n - x0)
                for y in range(y0, min(y0 + TILE, n)):
                    _locate(cos, sin, n, y, x0, index, weight)
                    for i in range(TILE):
                        total = fill(np.float32(0), lanes)
                        for a in range(cos.size):
                            upper = weight[a * TILE + i]
                            entry = a * row + index[a * TILE + i] * lanes
                            total = fma(np.float32(1) - upper, load(rows, entry, lanes), total)
                            total = fma(upper, load(rows, entry + lanes, lanes), total)
                        store(sums, i * lanes, total)
                    for i in range(TILE):  # apart from the sums, so that the pixels' divisions overlap
                        output = fill(-output_bias, width)
                        for k in range(n_hidden):
                            hidden = add(load(sums, i * lanes + k * width, width), fill(-hidden_bias[k], width))
                            active = relu(hidden) if is_relu else sigmoid(hidden)
                            output = fma(output_weights[k], active, output)
                        store(line, i * width, fma(gain, sigmoid(output), fill(offset, width)))
                    _store_line(line, width, images, n_slices, n, y, x0, count)

    return kernel


def backproject(filtered: Float32, angles_rad: Float64) -> Float32:
    """Backproject (slice, angle, detector) to (slice, y, x)."""
    if device.is_on_gpu(filtered):
        return _on_gpu(filtered[:, None], angles_rad, None)
    n_slices, _, n = filtered.shape
    width = lane_width(n_slices, WIDEST)
    cos, sin = np.cos(angles_rad), np.sin(angles_rad)
    images = np.empty((n_slices, n, n), np.float32)
    for z in range(0, n_slices, width):
        rows = sinogram_to_lanes(filtered[z : z + width], width)
        group = images[z : z + width]
        _plain_kernel(width)(rows, cos, sin, n, len(group), group.reshape(-1))
    return images


def backproject_network(
    filtered: Float32, angles_rad: Float64, end: NetworkEnd, *, out: Float32 | None = None
) -> Float32:
    """Backproject (slice, hidden, angle, detector) and apply the network's end; gives (slice, y, x), `out` if given."""
    if device.is_on_gpu(filtered):
        return _on_gpu(filtered, angles_rad, end, out)
    n_slices, n_hidden, n_angles, n = filtered.shape
    cos, sin = np.cos(angles_rad), np.sin(angles_rad)
    kernel = _network_kernel(n_hidden, end.activation)
    images = np.empty((n_slices, n, n), np.float32) if out is None else out
    padded = n_angles, n + DETECTOR_PAD, n_hidden, NETWORK_WIDTH
    rows = aligned_zeros(math.prod(padded)).reshape(padded)
    for z in range(0, n_slices, NETWORK_WIDTH):
        group = filtered[z : z + NETWORK_WIDTH]
        rows[:, DETECTOR_FRONT : DETECTOR_FRONT + n, :, : len(group)] = group.transpose(2, 3, 1, 0)
        kernel(
            rows.reshape(-1),
            cos,
            sin,
            end.hidden_bias,
            end.output_weights,
            np.float32(end.output_bias),
            np.float32(end.offset),
            np.float32(end.gain),
            n,
            len(group),
            images[z : z + NETWORK_WIDTH].reshape(-1),
        )
    return images


def _on_gpu(filtered: Any, angles_rad: Float64, end: NetworkEnd | None, out: Any = None) -> Any:
    """Both backprojections of (slice, hidden, angle, detector), all lane groups in one launch."""
    xp = device.namespace(filtered)
    n_slices, n_hidden, n_angles, n = filtered.shape
    n_groups = -(-n_slices // cuda.WARP)
    rows = xp.zeros((n_groups, n_angles, n + DETECTOR_PAD, n_hidden, cuda.WARP), np.float32)
    for group in range(n_groups):
        part = filtered[group * cuda.WARP : (group + 1) * cuda.WARP]
        rows[group, :, DETECTOR_FRONT : DETECTOR_FRONT + n, :, : len(part)] = part.transpose(2, 3, 1, 0)
    network: tuple[Any, ...] = ()
    if end is not None:
        biases, weights = (xp.asarray(values) for values in (end.hidden_bias, end.output_weights))
        network = (biases, weights, np.float32(end.output_bias), np.float32(end.offset), np.float32(end.gain))
    images = xp.empty((n_slices, n, n), np.float32) if out is None else out
    warps = cuda.warps(n_hidden)
    kernel = cuda.get_function(
        "backproject",
        "backproject",
        HIDDEN=n_hidden,
        NETWORK=end is not None,
        RELU=end is not None and end.activation == "relu",
        WARPS=warps,
    )
    kernel(
        cuda.image_grid(n, n_groups),
        (cuda.WARP, warps),
        (
            rows,
            cuda.on_device(np.cos(angles_rad), filtered),
            cuda.on_device(np.sin(angles_rad), filtered),
            *(np.int32(size) for size in (n_groups, n_angles, n, n_slices)),
            *network,
            images,
        ),
    )
    return images
