"""Backprojection by interpolation on the detector, alone (FBP) and with the end of a network in the same loop (NN-FBP).

Voxel (x, y) of a slice takes from every projection the filtered row at ``t = x cos θ + y sin θ``, between two detector
pixels by linear interpolation, and zero beyond the detector's ends. With a network, H filtered rows of each projection
are backprojected side by side, and what is written is ``offset + gain · sigmoid(Σ_k q_k σ(s_k - b_k) - b_0)`` of the H
sums ``s_k``: a volume per filter never exists. An ensemble of M networks has M such values a voxel, and what is written
is their mean or their standard deviation. Both are updated member by member, ``mean += d / m`` with the deviation d of
the m-th value from the mean of those before, so no volume a member exists either.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit

from nntomo_dask.compute import device
from nntomo_dask.kernels import cuda
from nntomo_dask.kernels.lanes import add, fill, fma, load, relu, sigmoid, sqrt, store, store_transposed
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
Statistic = Literal["mean", "spread"]

WIDEST = 32  # lanes of the plain kernel
NETWORK_WIDTH = 8  # slices side by side in the network kernel; times 8 hidden nodes that is 64 lanes
TILE = 32  # pixels a side: the rows that a tile reads stay in the second-level cache


@dataclass(frozen=True)
class NetworkEnd:
    """What follows the backprojected filters of one network, or of several alike; see the module's formula."""

    hidden_bias: Float32  # (member, hidden), b_k
    output_weights: Float32  # (member, hidden), q_k
    output_bias: Float32  # (member,), b_0
    offset: Float32  # (member,)
    gain: Float32  # (member,)
    activation: Activation
    statistic: Statistic = "mean"  # over the members; "spread" is their standard deviation

    @property
    def n_members(self) -> int:
        """Networks."""
        return len(self.hidden_bias)


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
    """Backproject (slice, member · hidden, angle, detector) and apply the network's end, readably."""
    members = []
    for m, rows in enumerate(np.split(filtered, end.n_members, axis=1)):
        output = -np.float64(end.output_bias[m])
        for k, (weight, bias) in enumerate(zip(end.output_weights[m], end.hidden_bias[m], strict=True)):
            hidden = backproject_reference(rows[:, k], angles_rad).astype(float) - bias
            active = np.maximum(hidden, 0) if end.activation == "relu" else 1 / (1 + np.exp(-hidden))
            output = output + weight * active
        members.append(end.offset[m] + end.gain[m] / (1 + np.exp(-output)))
    statistic = np.mean if end.statistic == "mean" else np.std
    return np.asarray(statistic(members, axis=0), np.float32)


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


@njit(nogil=True, cache=True, error_model="numpy")
def _include(value: Any, m: int, means: Float32, squares: Float32, place: int) -> None:
    """Let the m-th value of NETWORK_WIDTH slices into their mean and their sum of squared deviations from it."""
    if m == 0:
        store(means, place, value)
        store(squares, place, fill(np.float32(0), NETWORK_WIDTH))
    else:
        mean = load(means, place, NETWORK_WIDTH)
        deviation = fma(np.float32(-1), mean, value)
        mean = fma(np.float32(1) / np.float32(m + 1), deviation, mean)
        store(means, place, mean)
        total = load(squares, place, NETWORK_WIDTH)
        store(squares, place, fma(deviation, fma(np.float32(-1), mean, value), total))


@njit(nogil=True, cache=True, error_model="numpy")
def _take_roots(squares: Float32, line: int, share: np.float32) -> None:
    """Standard deviations of a line of TILE pixels, in place of their sums of squares."""
    for i in range(line, line + TILE * NETWORK_WIDTH, NETWORK_WIDTH):
        mean = fma(share, load(squares, i, NETWORK_WIDTH), fill(np.float32(0), NETWORK_WIDTH))
        store(squares, i, sqrt(mean))


@functools.cache
def _network_kernel(n_members: int, n_hidden: int, activation: Activation, statistic: Statistic) -> Any:
    width = NETWORK_WIDTH
    lanes = n_hidden * width
    # Constants to the compiler; the functions themselves would spoil Numba's cache on disk.
    is_relu, is_spread = activation == "relu", statistic == "spread"
    is_single = n_members == 1 and not is_spread
    held = TILE * width if is_single else TILE * TILE * width  # a single network needs no more than a line

    @njit(nogil=True, cache=True, error_model="numpy")
    def kernel(
        rows: Float32,
        cos: Float64,
        sin: Float64,
        hidden_bias: Float32,
        output_weights: Float32,
        output_bias: Float32,
        offset: Float32,
        gain: Float32,
        n: int,
        n_slices: int,
        images: Float32,
    ) -> None:
        row = (n + DETECTOR_PAD) * lanes
        index = np.empty(cos.size * TILE, np.int32)
        weight = np.empty(cos.size * TILE, np.float32)
        sums = np.empty(TILE * lanes, np.float32)
        means = np.empty(held, np.float32)
        squares = np.empty(held, np.float32)
        for y0 in range(0, n, TILE):
            for x0 in range(0, n, TILE):
                count = min(TILE, n - x0)
                for m in range(n_members):  # a tile each: the rows of one member stay in the cache
                    for y in range(y0, min(y0 + TILE, n)):
                        _locate(cos, sin, n, y, x0, index, weight)
                        for i in range(TILE):
                            total = fill(np.float32(0), lanes)
                            for a in range(cos.size):
                                upper = weight[a * TILE + i]
                                entry = (m * cos.size + a) * row + index[a * TILE + i] * lanes
                                total = fma(np.float32(1) - upper, load(rows, entry, lanes), total)
                                total = fma(upper, load(rows, entry + lanes, lanes), total)
                            store(sums, i * lanes, total)
                        line = 0 if is_single else (y - y0) * TILE * width
                        for i in range(TILE):  # apart from the sums, so that the pixels' divisions overlap
                            output = fill(-output_bias[m], width)
                            for k in range(n_hidden):
                                hidden = add(load(sums, i * lanes + k * width, width), fill(-hidden_bias[m, k], width))
                                active = relu(hidden) if is_relu else sigmoid(hidden)
                                output = fma(output_weights[m, k], active, output)
                            output = fma(gain[m], sigmoid(output), fill(offset[m], width))
                            if is_single:
                                store(means, i * width, output)
                            else:
                                _include(output, m, means, squares, line + i * width)
                        if m == n_members - 1:
                            if is_spread:
                                _take_roots(squares, line, np.float32(1) / np.float32(n_members))
                            written = squares if is_spread else means
                            _store_line(written[line:], width, images, n_slices, n, y, x0, count)

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
    """Backproject (slice, member · hidden, angle, detector), member after member, and apply the network's end.

    Gives (slice, y, x), `out` if given.
    """
    if device.is_on_gpu(filtered):
        return _on_gpu(filtered, angles_rad, end, out)
    n_slices, n_filters, n_angles, n = filtered.shape
    n_hidden = n_filters // end.n_members
    cos, sin = np.cos(angles_rad), np.sin(angles_rad)
    kernel = _network_kernel(end.n_members, n_hidden, end.activation, end.statistic)
    images = np.empty((n_slices, n, n), np.float32) if out is None else out
    padded = end.n_members, n_angles, n + DETECTOR_PAD, n_hidden, NETWORK_WIDTH
    rows = aligned_zeros(math.prod(padded)).reshape(padded)
    for z in range(0, n_slices, NETWORK_WIDTH):
        group = _by_member(filtered[z : z + NETWORK_WIDTH], end.n_members)
        rows[:, :, DETECTOR_FRONT : DETECTOR_FRONT + n, :, : group.shape[-1]] = group
        kernel(
            rows.reshape(-1),
            cos,
            sin,
            end.hidden_bias,
            end.output_weights,
            end.output_bias,
            end.offset,
            end.gain,
            n,
            group.shape[-1],
            images[z : z + NETWORK_WIDTH].reshape(-1),
        )
    return images


def _by_member(filtered: Any, n_members: int) -> Any:
    """(slice, member · hidden, angle, detector) seen as (member, angle, detector, hidden, slice)."""
    n_slices, n_filters, n_angles, n = filtered.shape
    members = filtered.reshape(n_slices, n_members, n_filters // n_members, n_angles, n)
    return members.transpose(1, 3, 4, 2, 0)


def _on_gpu(filtered: Any, angles_rad: Float64, end: NetworkEnd | None, out: Any = None) -> Any:
    """Both backprojections of (slice, member · hidden, angle, detector), all lane groups in one launch."""
    xp = device.namespace(filtered)
    n_slices, n_filters, n_angles, n = filtered.shape
    n_members = 1 if end is None else end.n_members
    n_hidden = n_filters // n_members
    n_groups = -(-n_slices // cuda.WARP)
    rows = xp.zeros((n_groups, n_members, n_angles, n + DETECTOR_PAD, n_hidden, cuda.WARP), np.float32)
    for group in range(n_groups):
        part = _by_member(filtered[group * cuda.WARP : (group + 1) * cuda.WARP], n_members)
        rows[group, :, :, DETECTOR_FRONT : DETECTOR_FRONT + n, :, : part.shape[-1]] = part
    network: tuple[Any, ...] = ()
    if end is not None:  # one table, so one copy to the GPU
        scalars = np.column_stack([end.output_bias, end.offset, end.gain])
        network = (xp.asarray(np.hstack([end.hidden_bias, end.output_weights, scalars])),)
    images = xp.empty((n_slices, n, n), np.float32) if out is None else out
    warps = cuda.warps(n_hidden)
    kernel = cuda.get_function(
        "backproject",
        "backproject",
        MEMBERS=n_members,
        HIDDEN=n_hidden,
        NETWORK=end is not None,
        RELU=end is not None and end.activation == "relu",
        SPREAD=end is not None and end.statistic == "spread",
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
