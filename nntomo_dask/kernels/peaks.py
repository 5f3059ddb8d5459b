"""Peaks of a volume: local maxima of its sharpened form, and Gaussians fitted to groups of them.

A Gaussian of three dimensions with a height ``h``, a centre ``c`` and a standard deviation ``s`` is
``h exp(-|r - c|² / 2 s²)``. Lengths are in pixels along y and x; slices may be `step` pixels apart.
"""

import math
from typing import Any

import numpy as np
import scipy.ndimage

from nntomo_dask.kernels.compiling import njit
from nntomo_dask.types import Float32, Float64, Integers

PARAMETERS = 5  # of a Gaussian: z, y, x, height, width
TRUNCATE = 4.0  # widths of a smoothing at which it ends
MOST_TOGETHER = 8  # Gaussians that are fitted together

_MOST_STEPS = 30
_SETTLED = 1e-6  # of a width: a step that moves nothing farther is the last
REACH = 5.0  # widths beyond which a Gaussian is nothing: 4e-6 of its height


def smoothing_halo(width: float, step: float) -> int:
    """Slices on either side that smoothing by a Gaussian of a width, [px], looks at."""
    return int(TRUNCATE * width / step + 0.5)


def smoothed(block: Float32, width: float, step: float) -> Float32:
    """A block (slice, y, x) smoothed by a Gaussian; beyond its ends it is mirrored.

    Each value is the same sum in the same order, whichever slices the block has, as long as it has those that
    `smoothing_halo` counts.
    """
    result: Float32 = block
    for axis, sigma in enumerate((width / step, width, width)):
        if int(TRUNCATE * sigma + 0.5) > 0:
            result = scipy.ndimage.gaussian_filter1d(
                result, sigma, axis=axis, output=np.float32, mode="reflect", truncate=TRUNCATE
            )
    return result


def sharpened(block: Float32, step: float) -> Float32:
    """The negative Laplacian of a block (slice, y, x) by second differences, mirrored beyond its ends, float32."""
    result = np.empty(block.shape, np.float32)
    _sharpen(np.ascontiguousarray(block), 1 / step**2, result)
    return result


@njit(nogil=True, cache=True)
def _sharpen(block: Any, weight: float, result: Any) -> None:
    depth, height, length = block.shape
    for z in range(depth):
        below, above = max(z - 1, 0), min(z + 1, depth - 1)
        for y in range(height):
            before, after = max(y - 1, 0), min(y + 1, height - 1)
            for x in range(length):
                middle = block[z, y, x]
                across = block[z, before, x] + block[z, after, x] - 2 * middle
                along = block[z, y, max(x - 1, 0)] + block[z, y, min(x + 1, length - 1)] - 2 * middle
                result[z, y, x] = -(across + along + weight * (block[below, y, x] + block[above, y, x] - 2 * middle))


def maxima(values: Float32, least: float, *, low: int, high: int, first: int, count: int) -> tuple[Integers, Float64]:
    """Local maxima above `least` among the 26 neighbours of a voxel.

    Of equal neighbours the first counts. What lies outside of the volume is no neighbour.

    Parameters
    ----------
    values
        (slice, y, x), float32.
    low, high
        Slices of the block that are asked for; the others are neighbours.
    first, count
        Number of the block's first slice in the volume, and slices of the volume.

    Returns
    -------
    (peak, 3): slice within the volume, row, column; and (peak,): the values there. In the order of the voxels.
    """
    places = np.empty((256, 3), np.int64)
    while True:
        found = _maxima(values, least, low, high, -first, count - first, places)
        if found <= len(places):
            break
        places = np.empty((found, 3), np.int64)
    places = places[:found]
    heights = values[tuple(places.T)].astype(np.float64)
    return places + np.array([first, 0, 0]), heights


@njit(nogil=True, cache=True)
def _maxima(values: Any, least: float, low: int, high: int, begin: int, end: int, places: Any) -> int:
    depth, height, length = values.shape
    begin, end = max(begin, 0), min(end, depth)
    found = 0
    for z in range(low, high):
        for y in range(height):
            for x in range(length):
                value = values[z, y, x]
                if not value > least:
                    continue
                is_peak = True
                for c in range(max(z - 1, begin), min(z + 2, end)):
                    for b in range(max(y - 1, 0), min(y + 2, height)):
                        for a in range(max(x - 1, 0), min(x + 2, length)):
                            other = values[c, b, a]
                            if other > value or (
                                other == value and (c < z or (c == z and (b < y or (b == y and a < x))))
                            ):
                                is_peak = False
                                break
                        if not is_peak:
                            break
                    if not is_peak:
                        break
                if is_peak:
                    if found < len(places):
                        places[found, 0], places[found, 1], places[found, 2] = z, y, x
                    found += 1
    return found


def fit(
    block: Float32,
    *,
    first: int,
    step: float,
    radius: float,
    groups: Integers,
    start: Float64,
    origin: Float64,
    others: Integers,
    fixed: Float64,
    width: float,
) -> tuple[Float64, Float64, Float64]:
    """Fit groups of Gaussians and a background each to the voxels around them, by least squares.

    Levenberg–Marquardt with analytic derivatives. A centre stays within 2 widths of its origin, a width between 0.4 and
    2.5 of the common one.

    Parameters
    ----------
    block
        (slice, y, x); has every voxel within the radius of a Gaussian that lies in the volume.
    first
        Number of its first slice.
    step
        Distance of slices, [px].
    radius
        Voxels within this distance of the origin of a member count, [px].
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
    (Gaussian, 5): as `start`; (group,): background; (group,): root mean square of what is left.
    """
    result = np.array(start, np.float64)
    background, left = np.zeros(len(groups) - 1), np.zeros(len(groups) - 1)
    _fit(block, first, step, radius, groups, result, origin, others, fixed, width, background, left)
    return result, background, left


@njit(nogil=True, cache=True)
def _gathered(
    block: Any, first: int, step: float, radius: float, origin: Any, fixed: Any, places: Any, values: Any
) -> int:
    """Voxels within the radius of some origins, in pixels, less what is fixed; their number, also beyond the room."""
    depth, height, length = block.shape
    low, high = np.empty(3), np.empty(3)
    for axis in range(3):
        scale = step if axis == 0 else 1.0
        low[axis] = origin[:, axis].min() - radius / scale
        high[axis] = origin[:, axis].max() + radius / scale
    count = 0
    for z in range(max(math.ceil(low[0]), first), min(math.floor(high[0]) + 1, first + depth)):
        for y in range(max(math.ceil(low[1]), 0), min(math.floor(high[1]) + 1, height)):
            for x in range(max(math.ceil(low[2]), 0), min(math.floor(high[2]) + 1, length)):
                near = False
                for one in range(len(origin)):
                    dz, dy, dx = (z - origin[one, 0]) * step, y - origin[one, 1], x - origin[one, 2]
                    if dz * dz + dy * dy + dx * dx <= radius * radius:
                        near = True
                        break
                if not near:
                    continue
                if count < len(values):
                    value = float(block[z - first, y, x])
                    for one in range(len(fixed)):
                        dz, dy, dx = (z - fixed[one, 0]) * step, y - fixed[one, 1], x - fixed[one, 2]
                        squared, deviation = dz * dz + dy * dy + dx * dx, fixed[one, 4]
                        if squared < (REACH * deviation) ** 2:
                            value -= fixed[one, 3] * math.exp(-squared / (2 * deviation * deviation))
                    places[count, 0], places[count, 1], places[count, 2] = z * step, y, x
                    values[count] = value
                count += 1
    return count


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
    block: Any,
    first: int,
    step: float,
    radius: float,
    groups: Any,
    result: Any,
    origin: Any,
    others: Any,
    fixed: Any,
    width: float,
    background: Any,
    left: Any,
) -> None:
    room = 4096
    places, values = np.empty((room, 3)), np.empty(room)
    for group in range(len(groups) - 1):
        begin, end = groups[group], groups[group + 1]
        subtracted = fixed[others[group] : others[group + 1]]
        count = _gathered(block, first, step, radius, origin[begin:end], subtracted, places, values)
        if count > room:
            room = count
            places, values = np.empty((room, 3)), np.empty(room)
            count = _gathered(block, first, step, radius, origin[begin:end], subtracted, places, values)
        size = PARAMETERS * (end - begin) + 1
        if count < size:  # at a corner: nothing to fit, and a height of zero says so
            result[begin:end, 3] = 0.0
            continue
        here, there = places[:count], values[:count]
        theta = np.empty(size)
        for one in range(begin, end):
            for k in range(PARAMETERS):
                theta[PARAMETERS * (one - begin) + k] = result[one, k] * (step if k == 0 else 1.0)
        theta[-1] = there.min()
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
                            tried[at + axis] = min(max(place, centre - 2 * width), centre + 2 * width)
                        tried[at + 3] = theta[at + 3] + change[at + 3]
                        tried[at + 4] = min(max(theta[at + 4] + change[at + 4], 0.4 * width), 2.5 * width)
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
                squares = new
                break
            squares = _sums(here, there, theta, normal, gradient)
        for one in range(begin, end):
            for k in range(PARAMETERS):
                result[one, k] = theta[PARAMETERS * (one - begin) + k] / (step if k == 0 else 1.0)
        background[group] = theta[-1]
        left[group] = math.sqrt(squares / count)


def subtracted(block: Float32, gaussians: Float64, *, first: int, step: float) -> Float32:
    """A block (slice, y, x) less some Gaussians (Gaussian, 5), each within 5 of its widths."""
    result = np.array(block, np.float32)
    _subtract(result, np.ascontiguousarray(gaussians), first, step)
    return result


@njit(nogil=True, cache=True)
def _subtract(block: Any, gaussians: Any, first: int, step: float) -> None:
    depth, height, length = block.shape
    for one in range(len(gaussians)):
        cz, cy, cx, peak, deviation = gaussians[one]
        reach = REACH * deviation
        for z in range(max(math.ceil(cz - reach / step), first), min(int(cz + reach / step) + 1, first + depth)):
            for y in range(max(math.ceil(cy - reach), 0), min(int(cy + reach) + 1, height)):
                for x in range(max(math.ceil(cx - reach), 0), min(int(cx + reach) + 1, length)):
                    dz, dy, dx = (z - cz) * step, y - cy, x - cx
                    squared = dz * dz + dy * dy + dx * dx
                    if squared < reach * reach:
                        block[z - first, y, x] -= peak * math.exp(-squared / (2 * deviation * deviation))
