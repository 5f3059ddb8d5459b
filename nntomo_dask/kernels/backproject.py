"""Backprojection by interpolation on the detector, alone (FBP) and with the end of a network in the same loop (NN-FBP).

Voxel (x, y) of a slice adds up, over all projections, the filtered row at ``t = x cos θ + y sin θ``, counted from the
tilt axis: interpolated linearly between two detector pixels, zero beyond the ends of the detector. With a network, H
filtered rows of each projection are backprojected side by side to H sums ``s_k``, and the voxel's value is ``offset +
gain · g(Σ_k q_k σ(s_k - b_k) - b_0)``; g is a sigmoid, or with a linear output ``max(·, 0)``. A second hidden layer
puts ``σ(Σ_k v_kj σ(s_k - b_k) - c_j)`` in the place of the first. No volume of a single filter is ever stored. An
ensemble of M networks gives M such values for a voxel; the kernel writes their mean, their standard deviation, or both.
Both are updated member by member, ``mean += d / m``, where d is the deviation of the m-th value from the mean of the
values before it, so no volume of a single member is stored either.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nntomo_dask.arrays.grid import Axis, axis_or_centre
from nntomo_dask.compute import device
from nntomo_dask.kernels import cuda
from nntomo_dask.kernels.compiling import njit
from nntomo_dask.kernels.lanes import fill, fma, load, store
from nntomo_dask.kernels.layout import DETECTOR_FRONT, DETECTOR_PAD, aligned_zeros, lane_width, sinogram_to_lanes
from nntomo_dask.kernels.members import NETWORK_WIDTH
from nntomo_dask.kernels.network_tiles import (
    TILE,
    Activation,
    Output,
    Place,
    Statistic,
    locate,
    network_kernel,
    store_line,
    sums_at_once,
)
from nntomo_dask.types import Float32, Float64

BOTH: tuple[Statistic, Statistic] = ("mean", "spread")  # in the order of `backproject_statistics`

WIDEST = 32  # lanes of the plain kernel


@dataclass(frozen=True)
class NetworkEnd:
    """What is computed from the backprojected filters of one network, or of several of one form.

    See the formula of this module.
    """

    hidden_bias: Float32  # (member, hidden), b_k
    output_weights: Float32  # (member, hidden), q_k; of the second hidden layer where there is one
    output_bias: Float32  # (member,), b_0
    offset: Float32  # (member,)
    gain: Float32  # (member,)
    activation: Activation
    statistic: Statistic = "mean"  # over the members; "spread" is their standard deviation
    output: Output = "sigmoid"
    second_weights: Float32 | None = None  # (member, hidden, second), v_kj
    second_bias: Float32 | None = None  # (member, second), c_j

    @property
    def n_members(self) -> int:
        """Networks."""
        return len(self.hidden_bias)

    @property
    def n_second(self) -> int:
        """Nodes of the second hidden layer; 0 where there is none."""
        return 0 if self.second_bias is None else self.second_bias.shape[1]

    def largest(self, sums: Float64) -> Float64:
        """(member,): what no number within a member exceeds, for hidden sums (member, hidden) up to these.

        ReLUs turn NaN, which numbers that are too large end in, to zero, so that the output does not show it.
        """
        steps = [(sums + np.abs(self.hidden_bias)).max(axis=1)]
        if self.second_weights is not None and self.second_bias is not None:
            of_nodes = np.abs(self.second_weights.astype(np.float64)).sum(axis=1)
            steps.append((steps[-1][:, None] * of_nodes + np.abs(self.second_bias)).max(axis=1))
        of_output = np.abs(self.output_weights.astype(np.float64)).sum(axis=1)
        steps.append(steps[-1] * of_output + np.abs(self.output_bias))
        steps.append(steps[-1] * np.abs(self.gain) + np.abs(self.offset))
        return np.asarray(np.max(steps, axis=0), np.float64)


def backproject_reference(filtered: Float32, angles_rad: Float64, axis: Axis | None = None) -> Float32:
    """Backproject (slice, angle, detector) to (slice, y, x); reference implementation."""
    n_slices, _, n = filtered.shape
    middle = axis_or_centre(axis, n)
    y, x = np.arange(n) - middle.y, np.arange(n) - middle.x
    padded = np.pad(filtered, ((0, 0), (0, 0), (1, 2)))
    images = np.zeros((n_slices, n, n))
    for a, angle in enumerate(angles_rad):
        t = x[None, :] * np.cos(angle) + y[:, None] * np.sin(angle) + middle.x
        t = np.clip(t, -1, n)
        lower = np.floor(t).astype(int)
        weight = t - lower
        images += (1 - weight) * padded[:, a, lower + 1] + weight * padded[:, a, lower + 2]
    return images.astype(np.float32)


def backproject_network_reference(
    filtered: Float32, angles_rad: Float64, end: NetworkEnd, axis: Axis | None = None
) -> Float32:
    """Backproject (slice, member · hidden, angle, detector) and apply the network's end; reference implementation."""
    return _statistics_reference(filtered, angles_rad, end, (end.statistic,), axis)[0]


def backproject_statistics_reference(filtered: Float32, angles_rad: Float64, end: NetworkEnd) -> Float32:
    """Backproject like `backproject_network_reference` to mean and spread, (statistic, slice, y, x)."""
    return _statistics_reference(filtered, angles_rad, end, BOTH, None)


def _statistics_reference(
    filtered: Float32, angles_rad: Float64, end: NetworkEnd, statistics: tuple[Statistic, ...], axis: Axis | None
) -> Float32:
    def activate(hidden: Float64) -> Float64:
        return np.maximum(hidden, 0) if end.activation == "relu" else 1 / (1 + np.exp(-hidden))

    members = []
    for m, rows in enumerate(np.split(filtered, end.n_members, axis=1)):
        sums = [backproject_reference(one, angles_rad, axis).astype(float) for one in np.moveaxis(rows, 1, 0)]
        active = activate(np.stack(sums, axis=-1) - end.hidden_bias[m])
        if end.second_weights is not None and end.second_bias is not None:
            active = activate(active @ end.second_weights[m].astype(float) - end.second_bias[m])
        output = active @ end.output_weights[m].astype(float) - np.float64(end.output_bias[m])
        value = np.maximum(output, 0) if end.output == "linear" else 1 / (1 + np.exp(-output))
        members.append(end.offset[m] + end.gain[m] * value)
    functions: dict[Statistic, Callable[..., Any]] = {"mean": np.mean, "spread": np.std}
    return np.asarray([functions[statistic](members, axis=0) for statistic in statistics], np.float32)


@functools.cache
def _plain_kernel(width: int) -> Any:
    @njit(nogil=True, cache=True, error_model="numpy")
    def kernel(rows: Float32, cos: Float64, sin: Float64, n: int, axis: Place, n_slices: int, images: Float32) -> None:
        row = (n + DETECTOR_PAD) * width
        index = np.empty(cos.size * TILE, np.int32)
        weight = np.empty(cos.size * TILE, np.float32)
        line = np.empty(TILE * width, np.float32)
        for y0 in range(0, n, TILE):
            for x0 in range(0, n, TILE):
                count = min(TILE, n - x0)
                for y in range(y0, min(y0 + TILE, n)):
                    locate(cos, sin, n, axis, y, x0, index, weight)
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
                    store_line(line, width, images, n_slices, n, y, x0, count)

    return kernel


def backproject(filtered: Float32, angles_rad: Float64, axis: Axis | None = None) -> Float32:
    """Backproject (slice, angle, detector) to (slice, y, x)."""
    n_slices, _, n = filtered.shape
    middle = tuple(axis_or_centre(axis, n))
    if device.is_on_gpu(filtered):
        return _on_gpu(filtered[:, None], angles_rad, None, ("mean",), middle)[0]
    width = lane_width(n_slices, WIDEST)
    cos, sin = np.cos(angles_rad), np.sin(angles_rad)
    images = np.empty((n_slices, n, n), np.float32)
    for z in range(0, n_slices, width):
        rows = sinogram_to_lanes(filtered[z : z + width], width)
        group = images[z : z + width]
        _plain_kernel(width)(rows, cos, sin, n, middle, len(group), group.reshape(-1))
    return images


def backproject_network(
    filtered: Float32,
    angles_rad: Float64,
    end: NetworkEnd,
    *,
    axis: Axis | None = None,
    out: Float32 | None = None,
) -> Float32:
    """Backproject (slice, member · hidden, angle, detector), ordered by member, and apply the network's end.

    Returns (slice, y, x): the statistic of `end`, written to `out` if that is given.
    """
    written = _network(filtered, angles_rad, end, (end.statistic,), axis, None if out is None else out[None])
    return written[0] if out is None else out


def backproject_statistics(
    filtered: Float32,
    angles_rad: Float64,
    end: NetworkEnd,
    *,
    axis: Axis | None = None,
    out: Float32 | None = None,
) -> Float32:
    """Backproject like `backproject_network`, and write mean and spread of the members in one pass.

    Parameters
    ----------
    filtered, angles_rad, axis
        As for `backproject_network`.
    end
        Its `statistic` is ignored.
    out
        (2, slice, y, x); each of the two has to be contiguous.

    Returns
    -------
    (2, slice, y, x): mean, then spread, with the same bits as `backproject_network` gives one at a time. `out` if that
    is given.
    """
    return _network(filtered, angles_rad, end, BOTH, axis, out)


def _network(
    filtered: Any,
    angles_rad: Float64,
    end: NetworkEnd,
    statistics: tuple[Statistic, ...],
    axis: Axis | None,
    out: Any | None,
) -> Any:
    """(statistic, slice, y, x)."""
    if out is not None:
        assert all(images.flags.c_contiguous for images in out)  # what is written to a copy would be lost
    n_slices, n_filters, n_angles, n = filtered.shape
    middle = tuple(axis_or_centre(axis, n))
    if device.is_on_gpu(filtered):
        return _on_gpu(filtered, angles_rad, end, statistics, middle, out)
    n_hidden = n_filters // end.n_members
    cos, sin = np.cos(angles_rad), np.sin(angles_rad)
    kernel = network_kernel(end.n_members, n_hidden, end.n_second, end.activation, end.output, statistics)
    blocks = n_hidden // sums_at_once(n_hidden)
    nothing = np.empty((end.n_members, n_hidden, 0), np.float32)
    written = np.empty((len(statistics), n_slices, n, n), np.float32) if out is None else out
    padded = end.n_members * blocks, n_angles, n + DETECTOR_PAD, n_hidden // blocks, NETWORK_WIDTH
    rows = aligned_zeros(math.prod(padded)).reshape(padded)
    for z in range(0, n_slices, NETWORK_WIDTH):
        group = _by_member(filtered[z : z + NETWORK_WIDTH], end.n_members * blocks)
        rows[:, :, DETECTOR_FRONT : DETECTOR_FRONT + n, :, : group.shape[-1]] = group
        images = dict(zip(statistics, written[:, z : z + NETWORK_WIDTH], strict=True))
        unused = np.empty(0, np.float32)
        kernel(
            rows.reshape(-1),
            cos,
            sin,
            end.hidden_bias,
            nothing if end.second_weights is None else end.second_weights,
            nothing[:, 0] if end.second_bias is None else end.second_bias,
            end.output_weights,
            end.output_bias,
            end.offset,
            end.gain,
            n,
            middle,
            group.shape[-1],
            images.get("mean", unused).reshape(-1),
            images.get("spread", unused).reshape(-1),
        )
    return written


def _by_member(filtered: Any, n_members: int) -> Any:
    """(slice, member · hidden, angle, detector) seen as (member, angle, detector, hidden, slice)."""
    n_slices, n_filters, n_angles, n = filtered.shape
    members = filtered.reshape(n_slices, n_members, n_filters // n_members, n_angles, n)
    return members.transpose(1, 3, 4, 2, 0)


def _on_gpu(
    filtered: Any,
    angles_rad: Float64,
    end: NetworkEnd | None,
    statistics: tuple[Statistic, ...],
    axis: tuple[float, ...],
    out: Any = None,
) -> Any:
    """Both backprojections of (slice, member · hidden, angle, detector), all lane groups in one launch.

    Returns (statistic, slice, y, x); without a network the only statistic is the "mean" of one member.
    """
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
        parts = [end.hidden_bias, end.output_weights, np.column_stack([end.output_bias, end.offset, end.gain])]
        if end.second_weights is not None and end.second_bias is not None:
            by_node = end.second_weights.transpose(0, 2, 1).reshape(n_members, -1)
            parts[1:1] = [end.second_bias, by_node]
        network = (xp.asarray(np.ascontiguousarray(np.hstack(parts))),)
    written = xp.empty((len(statistics), n_slices, n, n), np.float32) if out is None else out
    warps = cuda.warps(n_hidden)
    kernel = cuda.get_function(
        "backproject",
        "backproject",
        MEMBERS=n_members,
        HIDDEN=n_hidden,
        NETWORK=end is not None,
        SECOND=0 if end is None else end.n_second,
        RELU=end is not None and end.activation == "relu",
        LINEAR=end is not None and end.output == "linear",
        MEAN="mean" in statistics,
        SPREAD="spread" in statistics,
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
            *(np.float64(place) for place in axis),
            *network,
            *(written[place] for place in range(len(statistics))),
        ),
    )
    return written
