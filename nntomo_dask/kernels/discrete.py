"""Voxels of a few grey levels, drawn from their distribution given the projections: one sweep of a Gibbs sampler.

Arrays have the slice last, like the lane groups: labels (y, x, slice), residuals (angle, detector + pad, slice).
"""

import math

import numpy as np
import numpy.typing as npt

from nntomo_dask.arrays.grid import Axis
from nntomo_dask.kernels.compiling import njit
from nntomo_dask.kernels.layout import DETECTOR_FRONT
from nntomo_dask.types import Float32, Float64

Labels = npt.NDArray[np.uint8]


def neighbour_weights(smoothing: float, thickness: float = 1.0) -> Float64:
    """(3, 3, 3): how much a pair of neighbours (z, y, x) counts, `smoothing` over their distance.

    `thickness` is the distance of two slices in pixels; infinite, they do not count. The middle is 0.
    """
    z, y, x = np.meshgrid(*[np.arange(-1.0, 2.0)] * 3, indexing="ij")
    across = np.where(z == 0, 0.0, thickness)
    distance = np.sqrt(across**2 + y**2 + x**2)
    weights = np.zeros_like(distance)
    np.divide(smoothing, distance, out=weights, where=distance > 0)
    return weights


def sweep(
    labels: Labels,
    residual: Float32,
    totals: Float32,
    *,
    levels: Float64,
    precision: float,
    weights: Float64,
    costs: Float64,
    angles_rad: Float64,
    axis: Axis,
    free: float,
    number: int,
    counted: int,
) -> None:
    """Draw every voxel at a boundary once, and a few others, given all that surround it and the projections.

    The probability of label k is proportional to
    ``exp(-precision ‖y - A x‖² / 2 - costs[k, k] - Σ weight costs[k, l])``, with ``levels[k]`` at this voxel of x; the
    sum is over its neighbours that have another label, l.

    Parameters
    ----------
    labels
        (y, x, slice), changed in place.
    residual
        (angle, detector + pad, slice or more), ``y - A levels[labels]``; changed in place.
    totals
        (y, x, slice), of the values: see `means`.
    weights
        See `neighbour_weights`.
    costs
        (level, level), symmetric: of neighbours with two labels, and on the diagonal of a voxel with one.
    free
        Share of the other voxels that are drawn too.
    number
        Of the sweep; with a voxel's place it fixes the random number.
    counted
        Sweeps that `totals` holds so far; below 0, nothing is added.
    """
    _sweep(
        labels,
        residual,
        totals,
        levels,
        precision,
        weights,
        costs,
        np.cos(angles_rad),
        np.sin(angles_rad),
        axis.y,
        axis.x,
        free,
        number,
        counted,
    )


def means(labels: Labels, totals: Float32, levels: Float64, counted: int) -> Float32:
    """(y, x, slice): the mean value of each voxel.

    Totals hold only what differs from the last labels, so that a sweep need not touch voxels that it does not draw.
    """
    mean: Float32 = levels.astype(np.float32)[labels]
    mean += totals / np.float32(counted)
    return mean


def sweep_reference(
    labels: Labels,
    measured: Float64,
    matrix: Float64,
    *,
    levels: Float64,
    precision: float,
    weights: Float64,
    costs: Float64,
    visited: npt.NDArray[np.bool_],
    draws: Float64,
) -> tuple[Labels, Float64]:
    """`sweep` by the whole energy of every volume that differs in one voxel; the labels and all probabilities after it.

    Parameters
    ----------
    measured
        (entry, slice).
    matrix
        (entry, pixel), the projector of a slice.
    visited, draws
        (y, x, slice): which voxels may change, and the random number of each. A voxel inside a body, of the same label
        as all its neighbours, changes only where it is visited.
    """
    labels, n_levels = labels.copy(), levels.size
    probable = np.zeros((n_levels, *labels.shape))
    n_y, n_x, n_z = labels.shape

    def energy(volume: Labels) -> float:
        misfit = measured - matrix @ levels[volume].reshape(-1, n_z)
        pairs = np.diag(costs)[volume].sum()
        between = costs - np.diag(np.diag(costs))
        padded = np.pad(volume.astype(int), 1, constant_values=-1)
        for dz in range(-1, 2):
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    other = padded[1 + dy : 1 + dy + n_y, 1 + dx : 1 + dx + n_x, 1 + dz : 1 + dz + n_z]
                    pairs += weights[dz + 1, dy + 1, dx + 1] * ((other >= 0) * between[volume, other]).sum() / 2
        return float(precision * (misfit**2).sum() / 2 + pairs)

    for y in range(n_y):
        for x in range(n_x):
            for z in (*range(0, n_z, 2), *range(1, n_z, 2)):
                beside = labels[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2, max(z - 1, 0) : z + 2]
                if (beside == labels[y, x, z]).all() and not visited[y, x, z]:
                    probable[labels[y, x, z], y, x, z] = 1
                    continue
                energies = np.empty(n_levels)
                for k in range(n_levels):
                    changed = labels.copy()
                    changed[y, x, z] = k
                    energies[k] = energy(changed)
                share = np.exp(energies.min() - energies)
                probable[:, y, x, z] = share / share.sum()
                chosen = np.searchsorted(np.cumsum(share), draws[y, x, z] * share.sum(), side="right")
                labels[y, x, z] = min(int(chosen), n_levels - 1)
    return labels, probable


@njit(nogil=True, cache=True, error_model="numpy")
def _uniform(place: int, number: int) -> float:
    """A random number in [0, 1) from a place and the number of a sweep: SplitMix64 (Steele et al., OOPSLA 2014)."""
    state = np.uint64(place) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(number + 1) * np.uint64(0xD1342543DE82EF95)
    for _ in range(2):
        state += np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return np.float64(state >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(nogil=True, cache=True, error_model="numpy")
def _mark(labels: Labels, y: int, x: int, marked: Labels) -> bool:
    """Which voxels of one pixel's column have a neighbour of another label; whether any has."""
    n_y, n_x, n_z = labels.shape
    own = labels[y, x]
    marked[:] = 0
    for other_y in range(max(y - 1, 0), min(y + 2, n_y)):
        for other_x in range(max(x - 1, 0), min(x + 2, n_x)):
            column = labels[other_y, other_x]
            for z in range(n_z):
                marked[z] |= own[z] ^ column[z]
            for z in range(n_z - 1):
                marked[z] |= own[z] ^ column[z + 1]
            for z in range(1, n_z):
                marked[z] |= own[z] ^ column[z - 1]
    any_marked = np.uint8(0)
    for z in range(n_z):
        any_marked |= marked[z]
    return any_marked != 0


@njit(nogil=True, cache=True, error_model="numpy")
def _sweep(
    labels: Labels,
    residual: Float32,
    totals: Float32,
    levels: Float64,
    precision: float,
    weights: Float64,
    costs: Float64,
    cos: Float64,
    sin: Float64,
    axis_y: float,
    axis_x: float,
    free: float,
    number: int,
    counted: int,
) -> None:
    n_y, n_x, n_z = labels.shape
    n_levels = levels.size
    marked = np.empty(n_z, np.uint8)
    ray = np.empty(cos.size, np.int64)
    near, far = np.empty(cos.size, np.float32), np.empty(cos.size, np.float32)
    around, share = np.empty(n_levels), np.empty(n_levels)
    for y in range(n_y):
        for x in range(n_x):
            pixel = y * n_x + x
            some = _mark(labels, y, x, marked)
            if free > 0:
                drawn = _uniform(pixel, -2 - number) / (free * n_z)
                if drawn < 1:
                    marked[int(drawn * n_z)] = 1
                    some = True
            if not some:
                continue
            squares = 0.0
            for a in range(cos.size):  # as the projector's transpose does it
                reach = max(abs(cos[a]), abs(sin[a]))
                t = (x - axis_x) * cos[a] + (y - axis_y) * sin[a] + axis_x
                first = np.floor(t - reach) + 1.0
                near[a] = np.float32(max(1.0 - abs(first - t) / reach, 0.0) / reach)
                far[a] = np.float32(max(1.0 - abs(first + 1.0 - t) / reach, 0.0) / reach)
                ray[a] = np.int64(min(max(first, -2.0), np.float64(n_x))) + DETECTOR_FRONT
                if first < -2 or first >= n_x:
                    near[a] = far[a] = 0
                if first < 0:
                    near[a] = 0
                if first + 1 < 0 or first + 1 >= n_x:
                    far[a] = 0
                squares += near[a] * near[a] + far[a] * far[a]
            for parity in range(2):
                for z in range(parity, n_z, 2):
                    if marked[z] == 0:
                        continue
                    old = labels[y, x, z]
                    around[:] = 0
                    for other_y in range(max(y - 1, 0), min(y + 2, n_y)):
                        for other_x in range(max(x - 1, 0), min(x + 2, n_x)):
                            for other_z in range(max(z - 1, 0), min(z + 2, n_z)):
                                weight = weights[other_z - z + 1, other_y - y + 1, other_x - x + 1]
                                around[labels[other_y, other_x, other_z]] += weight
                    gradient = 0.0
                    for a in range(cos.size):
                        gradient += near[a] * residual[a, ray[a], z] + far[a] * residual[a, ray[a] + 1, z]
                    lowest = np.inf
                    for k in range(n_levels):
                        change = levels[k] - levels[old]
                        share[k] = precision * change * (0.5 * change * squares - gradient) + costs[k, k]
                        for other in range(n_levels):
                            if other != k:
                                share[k] += costs[k, other] * around[other]
                        lowest = min(lowest, share[k])
                    sum_of_shares = 0.0
                    for k in range(n_levels):
                        share[k] = math.exp(lowest - share[k])
                        sum_of_shares += share[k]
                    rest = _uniform(pixel * n_z + z, number) * sum_of_shares
                    new = 0
                    while new < n_levels - 1 and rest >= share[new]:
                        rest -= share[new]
                        new += 1
                    if counted >= 0:
                        mean = 0.0
                        for k in range(n_levels):
                            mean += share[k] / sum_of_shares * levels[k]
                        totals[y, x, z] += np.float32(counted * (levels[old] - levels[new]) + mean - levels[new])
                    if new != old:
                        labels[y, x, z] = new
                        change = levels[new] - levels[old]
                        for a in range(cos.size):
                            residual[a, ray[a], z] -= np.float32(change * near[a])
                            residual[a, ray[a] + 1, z] -= np.float32(change * far[a])
