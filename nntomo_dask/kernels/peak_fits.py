"""Gaussians fitted to groups of peaks, with a background each, by the voxels around them; lengths as in `peaks`."""

import math
from typing import Any, NamedTuple

import numpy as np

from nntomo_dask.kernels.compiling import njit
from nntomo_dask.kernels.peaks import PARAMETERS, REACH
from nntomo_dask.types import Float32, Float64, Integers

MOST_TOGETHER = 8  # Gaussians that are fitted together
_MOST_STEPS = 30
_SETTLED = 1e-6  # of a width: a step that moves nothing farther is the last
FARTHEST = 2.0  # widths from its origin that a centre may go
WIDTHS = (0.4, 2.5)  # of the common one that a width may have
HIGHEST = 8.0  # of the range of the voxels that a height may be: at 2 widths from a centre 0.14 of it are seen


class Region(NamedTuple):
    """Which voxels around Gaussians are fitted."""

    radius: float  # around the origin of a member, [px]
    step: float  # distance of slices, [px]
    depth: int  # voxels of the volume
    height: int
    length: int


def gathered(block: Float32, region: Region, groups: Integers, origin: Float64, *, first: int) -> tuple[Any, Integers]:
    """Voxels within the radius of a member of each group, one group after another, and where each begins.

    Parameters
    ----------
    block
        (slice, y, x); has every voxel within the radius of an origin that lies in the volume.
    groups
        (group + 1,): where the members of each begin in `origin`.
    origin
        (member, 3), [voxels].
    first
        Number of the block's first slice.
    """
    begins = np.zeros(len(groups), np.int64)
    nothing, places = np.zeros(0, np.float32), np.zeros((0, 3))
    for measuring in (True, False):
        values = nothing if measuring else np.empty(begins[-1], np.float32)
        _gather(block, first, region, groups, origin, begins, values, places)
    return values, begins


@njit(nogil=True, cache=True)
def _gather(
    block: Any, first: int, region: Any, groups: Any, origin: Any, begins: Any, values: Any, places: Any
) -> None:
    for group in range(len(groups) - 1):
        at = begins[group]
        here = origin[groups[group] : groups[group + 1]]
        begins[group + 1] = at + _voxels(block, first, region, here, values[at:], places)


@njit(nogil=True, cache=True)
def _voxels(block: Any, first: int, region: Any, origin: Any, values: Any, places: Any) -> int:
    """The number of the voxels of a group; their values and their places in pixels, where there is room for either."""
    radius, step = region.radius, region.step
    low, high = np.empty(3), np.empty(3)
    for axis in range(3):
        scale = step if axis == 0 else 1.0
        low[axis] = origin[:, axis].min() - radius / scale
        high[axis] = origin[:, axis].max() + radius / scale
    count = 0
    for z in range(max(math.ceil(low[0]), 0), min(math.floor(high[0]) + 1, region.depth)):
        for y in range(max(math.ceil(low[1]), 0), min(math.floor(high[1]) + 1, region.height)):
            for x in range(max(math.ceil(low[2]), 0), min(math.floor(high[2]) + 1, region.length)):
                near = False
                for one in range(len(origin)):
                    dz, dy, dx = (z - origin[one, 0]) * step, y - origin[one, 1], x - origin[one, 2]
                    if dz * dz + dy * dy + dx * dx <= radius * radius:
                        near = True
                        break
                if not near:
                    continue
                if count < len(values):
                    values[count] = block[z - first, y, x]
                if count < len(places):
                    places[count, 0], places[count, 1], places[count, 2] = z * step, y, x
                count += 1
    return count


def fit(
    voxels: Float32,
    begins: Integers,
    region: Region,
    *,
    groups: Integers,
    start: Float64,
    origin: Float64,
    others: Integers,
    fixed: Float64,
    width: float,
) -> tuple[Float64, Float64]:
    """Fit groups of Gaussians and a background each to the voxels around them, by least squares.

    Levenberg–Marquardt with analytic derivatives. A centre stays within 2 widths of its origin, a width between 0.4 and
    2.5 of the common one, and no height is below 0: else two that nearly coincide could become a huge one less another.

    Parameters
    ----------
    voxels, begins
        As `gathered` gives them.
    groups
        (group + 1,): where the members of each begin in `start`; at most `MOST_TOGETHER` each.
    start
        (Gaussian, 5): z [slices of the volume], y, x [px], height, width [px].
    origin
        (Gaussian, 3): where each was seen first.
    others
        (group + 1,): where the Gaussians begin in `fixed` that are subtracted for a group.
    fixed
        (Gaussian, 5): Gaussians that are not fitted.
    width
        The common one, [px].

    Returns
    -------
    (Gaussian, 5): as `start`; (group,): background.
    """
    result = np.array(start, np.float64)
    background = np.zeros(len(groups) - 1)
    _fit(voxels, begins, region, groups, result, origin, others, fixed, width, background)
    return result, background


@njit(nogil=True, cache=True)
def _less(raw: Any, places: Any, fixed: Any, step: float, values: Any) -> None:
    """Voxels less what is fixed."""
    for voxel in range(len(raw)):
        value = float(raw[voxel])
        for one in range(len(fixed)):
            dz, deviation = places[voxel, 0] - fixed[one, 0] * step, fixed[one, 4]
            dy, dx = places[voxel, 1] - fixed[one, 1], places[voxel, 2] - fixed[one, 2]
            squared = dz * dz + dy * dy + dx * dx
            if squared < (REACH * deviation) ** 2:
                value -= fixed[one, 3] * math.exp(-squared / (2 * deviation * deviation))
        values[voxel] = value


@njit(nogil=True, cache=True)
def _sums(places: Any, values: Any, theta: Any, normal: Any, gradient: Any) -> float:
    """Normal matrix, gradient and sum of squares of the residuals at some parameters; z in pixels."""
    members = (len(theta) - 1) // PARAMETERS
    normal[:] = 0
    gradient[:] = 0
    row = np.empty(len(theta))
    used = np.empty(len(theta), np.int64)
    total = 0.0
    for voxel in range(len(values)):
        model, many = theta[-1], 0
        for one in range(members):
            at = PARAMETERS * one
            dz, dy, dx = (
                places[voxel, 0] - theta[at],
                places[voxel, 1] - theta[at + 1],
                places[voxel, 2] - theta[at + 2],
            )
            squared, deviation = dz * dz + dy * dy + dx * dx, theta[at + 4]
            if squared > (REACH * deviation) ** 2:
                continue
            shape = math.exp(-squared / (2 * deviation * deviation))
            value = theta[at + 3] * shape
            model += value
            slope = value / (deviation * deviation)
            row[many], row[many + 1], row[many + 2] = slope * dz, slope * dy, slope * dx
            row[many + 3], row[many + 4] = shape, slope * squared / deviation
            for k in range(PARAMETERS):
                used[many + k] = at + k
            many += PARAMETERS
        row[many], used[many] = 1.0, len(theta) - 1
        many += 1
        residual = values[voxel] - model
        total += residual * residual
        for k in range(many):
            gradient[used[k]] += row[k] * residual
            for m in range(k + 1):
                normal[used[k], used[m]] += row[k] * row[m]
    return total


@njit(nogil=True, cache=True)
def _squares(places: Any, values: Any, theta: Any) -> float:
    """Sum of squares of the residuals."""
    members = (len(theta) - 1) // PARAMETERS
    total = 0.0
    for voxel in range(len(values)):
        residual = values[voxel] - theta[-1]
        for one in range(members):
            at = PARAMETERS * one
            dz, dy, dx = (
                places[voxel, 0] - theta[at],
                places[voxel, 1] - theta[at + 1],
                places[voxel, 2] - theta[at + 2],
            )
            squared, deviation = dz * dz + dy * dy + dx * dx, theta[at + 4]
            if squared <= (REACH * deviation) ** 2:
                residual -= theta[at + 3] * math.exp(-squared / (2 * deviation * deviation))
        total += residual * residual
    return total


@njit(nogil=True, cache=True)
def _solved(normal: Any, gradient: Any, damping: float, factor: Any, step: Any) -> bool:
    """Solve a damped symmetric system, of which the lower triangle is given, by Cholesky; whether it is definite."""
    size = len(gradient)
    for i in range(size):
        for j in range(i + 1):
            total = normal[i, j]
            if i == j:
                total += damping * normal[i, i] + 1e-300
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            if i == j:
                if not total > 1e-14 * normal[i, i]:
                    return False
                factor[i, i] = math.sqrt(total)
            else:
                factor[i, j] = total / factor[j, j]
    for i in range(size):
        total = gradient[i]
        for k in range(i):
            total -= factor[i, k] * step[k]
        step[i] = total / factor[i, i]
    for i in range(size - 1, -1, -1):
        total = step[i]
        for k in range(i + 1, size):
            total -= factor[k, i] * step[k]
        step[i] = total / factor[i, i]
    return True


@njit(nogil=True, cache=True)
def _fit(
    voxels: Any,
    begins: Any,
    region: Any,
    groups: Any,
    result: Any,
    origin: Any,
    others: Any,
    fixed: Any,
    width: float,
    background: Any,
) -> None:
    step = region.step
    room, nothing = 0, np.zeros((0, 1, 1), np.float32)
    for group in range(len(groups) - 1):
        room = max(room, begins[group + 1] - begins[group])
    places, values = np.empty((room, 3)), np.empty(room)
    for group in range(len(groups) - 1):
        begin, end = groups[group], groups[group + 1]
        raw = voxels[begins[group] : begins[group + 1]]
        count = len(raw)
        size = PARAMETERS * (end - begin) + 1
        if count < size:  # at a corner: nothing to fit, and a height of zero says so
            result[begin:end, 3] = 0.0
            continue
        here, there = places[:count], values[:count]
        _voxels(nothing, 0, region, origin[begin:end], raw[:0], here)
        _less(raw, here, fixed[others[group] : others[group + 1]], step, there)
        theta = np.empty(size)
        for one in range(begin, end):
            for k in range(PARAMETERS):
                theta[PARAMETERS * (one - begin) + k] = result[one, k] * (step if k == 0 else 1.0)
        theta[-1] = there.min()
        highest = HIGHEST * (raw.max() - raw.min())
        normal, factor = np.empty((size, size)), np.empty((size, size))
        gradient, change, tried = np.empty(size), np.empty(size), np.empty(size)
        damping = 1e-3
        squares = _sums(here, there, theta, normal, gradient)
        for _ in range(_MOST_STEPS):
            accepted, farthest = False, 0.0
            for _ in range(12):
                if _solved(normal, gradient, damping, factor, change):
                    farthest = 0.0
                    tried[-1] = theta[-1] + change[-1]
                    for one in range(end - begin):
                        at = PARAMETERS * one
                        for axis in range(3):
                            centre = origin[begin + one, axis] * (step if axis == 0 else 1.0)
                            place = theta[at + axis] + change[at + axis]
                            tried[at + axis] = min(max(place, centre - FARTHEST * width), centre + FARTHEST * width)
                        tried[at + 3] = min(max(theta[at + 3] + change[at + 3], 0.0), highest)
                        tried[at + 4] = min(max(theta[at + 4] + change[at + 4], WIDTHS[0] * width), WIDTHS[1] * width)
                        for k in (0, 1, 2, 4):
                            farthest = max(farthest, abs(tried[at + k] - theta[at + k]))
                    new = _squares(here, there, tried)
                    if new <= squares:
                        accepted = True
                        break
                damping *= 5
            if not accepted:
                break
            theta[:] = tried
            damping = max(damping / 10, 1e-12)
            if farthest < _SETTLED * width:
                break
            squares = _sums(here, there, theta, normal, gradient)
        for one in range(begin, end):
            for k in range(PARAMETERS):
                result[one, k] = theta[PARAMETERS * (one - begin) + k] / (step if k == 0 else 1.0)
        background[group] = theta[-1]
