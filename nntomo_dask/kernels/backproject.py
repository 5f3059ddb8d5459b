"""Backprojection by interpolation on the detector, alone (FBP) and with the end of a network in the same loop (NN-FBP).

Voxel (x, y) of a slice takes from every projection the filtered row at ``t = x cos θ + y sin θ``, between two detector
pixels by linear interpolation, and zero beyond the detector's ends. With a network, H filtered rows of each projection
are backprojected side by side, and what is written is ``offset + gain · sigmoid(Σ_k q_k σ(s_k - b_k) - b_0)`` of the H
sums ``s_k``: a volume per filter never exists.
"""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit

from nntomo_dask.kernels.lanes import add, fill, fma, load, relu, sigmoid, store
from nntomo_dask.kernels.layout import DETECTOR_FRONT, DETECTOR_PAD, Float32, Float64, lane_width, sinogram_to_lanes

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


@functools.cache
def _plain_kernel(width: int) -> Any:
    @njit(nogil=True, cache=True, error_model="numpy")
    def kernel(rows: Float32, cos: Float64, sin: Float64, images: Float32) -> None:
        n_slices, n, _ = images.shape
        centre = (n - 1) / 2
        end = np.float64(n)
        tile = np.empty(TILE * TILE * width, np.float32)
        for y0 in range(0, n, TILE):
            for x0 in range(0, n, TILE):
                y1, x1 = min(y0 + TILE, n), min(x0 + TILE, n)
                for y in range(y0, y1):
                    for x in range(x0, x1):
                        total = fill(np.float32(0), width)
                        for a in range(cos.size):
                            t = (x - centre) * cos[a] + (y - centre) * sin[a] + centre
                            t = min(max(t, -1.0), end) + DETECTOR_FRONT
                            lower = np.int64(t)
                            weight = np.float32(t - lower)
                            entry = (a * (n + DETECTOR_PAD) + lower) * width
                            total = fma(np.float32(1) - weight, load(rows, entry, width), total)
                            total = fma(weight, load(rows, entry + width, width), total)
                        store(tile, ((y - y0) * TILE + x - x0) * width, total)
                for s in range(n_slices):
                    for y in range(y0, y1):
                        for x in range(x0, x1):
                            images[s, y, x] = tile[((y - y0) * TILE + x - x0) * width + s]

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
        images: Float32,
    ) -> None:
        n_slices, n, _ = images.shape
        centre = (n - 1) / 2
        end = np.float64(n)
        sums = np.empty(lanes, np.float32)
        tile = np.empty(TILE * TILE * width, np.float32)
        for y0 in range(0, n, TILE):
            for x0 in range(0, n, TILE):
                y1, x1 = min(y0 + TILE, n), min(x0 + TILE, n)
                for y in range(y0, y1):
                    for x in range(x0, x1):
                        total = fill(np.float32(0), lanes)
                        for a in range(cos.size):
                            t = (x - centre) * cos[a] + (y - centre) * sin[a] + centre
                            t = min(max(t, -1.0), end) + DETECTOR_FRONT
                            lower = np.int64(t)
                            weight = np.float32(t - lower)
                            entry = (a * (n + DETECTOR_PAD) + lower) * lanes
                            total = fma(np.float32(1) - weight, load(rows, entry, lanes), total)
                            total = fma(weight, load(rows, entry + lanes, lanes), total)
                        store(sums, 0, total)
                        output = fill(-output_bias, width)
                        for k in range(n_hidden):
                            hidden = add(load(sums, k * width, width), fill(-hidden_bias[k], width))
                            active = relu(hidden) if is_relu else sigmoid(hidden)
                            output = fma(output_weights[k], active, output)
                        value = fma(gain, sigmoid(output), fill(offset, width))
                        store(tile, ((y - y0) * TILE + x - x0) * width, value)
                for s in range(n_slices):
                    for y in range(y0, y1):
                        for x in range(x0, x1):
                            images[s, y, x] = tile[((y - y0) * TILE + x - x0) * width + s]

    return kernel


def backproject(filtered: Float32, angles_rad: Float64) -> Float32:
    """Backproject (slice, angle, detector) to (slice, y, x)."""
    n_slices, _, n = filtered.shape
    width = lane_width(n_slices, WIDEST)
    cos, sin = np.cos(angles_rad), np.sin(angles_rad)
    images = np.empty((n_slices, n, n), np.float32)
    for z in range(0, n_slices, width):
        rows = sinogram_to_lanes(filtered[z : z + width], width)
        _plain_kernel(width)(rows, cos, sin, images[z : z + width])
    return images


def backproject_network(filtered: Float32, angles_rad: Float64, end: NetworkEnd) -> Float32:
    """Backproject (slice, hidden, angle, detector) and apply the network's end; gives (slice, y, x)."""
    n_slices, n_hidden, n_angles, n = filtered.shape
    cos, sin = np.cos(angles_rad), np.sin(angles_rad)
    kernel = _network_kernel(n_hidden, end.activation)
    images = np.empty((n_slices, n, n), np.float32)
    rows = np.zeros((n_angles, n + DETECTOR_PAD, n_hidden, NETWORK_WIDTH), np.float32)
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
            images[z : z + NETWORK_WIDTH],
        )
    return images
