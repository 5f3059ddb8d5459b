"""Peaks of a volume: local maxima of its sharpened form, and Gaussians fitted to groups of them.

A Gaussian of three dimensions with a height ``h``, a centre ``c`` and a standard deviation ``s`` is
``h exp(-|r - c|² / 2 s²)``. Lengths are in pixels along y and x; slices may be `step` pixels apart.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from nntomo_dask.kernels.compiling import njit
from nntomo_dask.types import Float32, Float64, Integers

PARAMETERS = 5  # of a Gaussian: z, y, x, height, width
TRUNCATE = 4.0  # widths of a smoothing at which it ends
MOST_TOGETHER = 8  # Gaussians that are fitted together

_MOST_STEPS = 30
_SETTLED = 1e-6  # of a width: a step that moves nothing farther is the last
FARTHEST = 2.0  # widths from its origin that a centre may go
WIDTHS = (0.4, 2.5)  # of the common one that a width may have
HIGHEST = 8.0  # of the range of the voxels that a height may be: at 2 widths from a centre 0.14 of it are seen
REACH = 5.0  # widths beyond which a Gaussian is nothing: 4e-6 of its height


class Region(NamedTuple):
    """Which voxels around Gaussians are fitted."""

    radius: float  # around the origin of a member, [px]
    step: float  # distance of slices, [px]
    depth: int  # voxels of the volume
    height: int
    length: int


def smoothing_halo(width: float, step: float) -> int:
    """Slices on either side that smoothing by a Gaussian of a width, [px], looks at."""
    return int(TRUNCATE * width / step + 0.5)


def smoothed(block: Float32, width: float, step: float, *, slices: Integers | None = None) -> Float32:
    """A block (slice, y, x) smoothed by a Gaussian; along y and x it is mirrored beyond its ends.

    Each value is the same sum in the same order, whichever slices the block has.

    Parameters
    ----------
    slices
        Which slice of the block stands at each place, from `smoothing_halo` places before the first that is asked for
        to as many after the last; None for all of the block, mirrored beyond its ends too.
    """
    along, across = _weights(width / step), _weights(width)
    if slices is None:
        slices = np.pad(np.arange(len(block)), len(along) - 1, mode="symmetric")
    result = np.empty((len(slices) - 2 * (len(along) - 1), *block.shape[1:]), np.float32)
    rows, columns = (np.pad(np.arange(size), len(across) - 1, mode="symmetric") for size in block.shape[1:])
    _smooth(block, np.asarray(slices, np.int64), rows, columns, along, across, result)
    return result


def _weights(width: float) -> Float64:
    """Of a Gaussian at 0, 1, …, up to `TRUNCATE` widths; they and their mirror image add up to 1."""
    places = np.arange(int(TRUNCATE * width + 0.5) + 1)
    weights = np.exp(-0.5 * (places / max(width, 1e-300)) ** 2)
    return np.asarray(weights / (2 * weights.sum() - weights[0]))


@njit(nogil=True, cache=True)
def _smooth(block: Any, slices: Any, rows: Any, columns: Any, along: Any, across: Any, result: Any) -> None:
    count, height, length = result.shape
    deep, wide = len(along) - 1, len(across) - 1
    line, padded = np.empty(length), np.empty(length + 2 * wide)
    for y in range(height):
        for z in range(count):
            middle = block[slices[z + deep], y]
            for x in range(length):
                line[x] = along[0] * middle[x]
            for k in range(1, deep + 1):
                below, above, weight = block[slices[z + deep - k], y], block[slices[z + deep + k], y], along[k]
                for x in range(length):
                    line[x] += weight * (np.float64(below[x]) + np.float64(above[x]))
            end = result[z, y]
            for x in range(length):
                end[x] = line[x]
    plane = np.empty((height, length), np.float32)
    for z in range(count):
        plane[:] = result[z]
        for y in range(height):
            middle = plane[y]
            inner = padded[wide : wide + length]
            for x in range(length):
                inner[x] = across[0] * middle[x]
            for k in range(1, wide + 1):
                below, above, weight = plane[rows[y + wide - k]], plane[rows[y + wide + k]], across[k]
                for x in range(length):
                    inner[x] += weight * (np.float64(below[x]) + np.float64(above[x]))
            for k in range(wide):
                padded[k] = padded[wide + columns[k]]
                padded[wide + length + k] = padded[wide + columns[wide + length + k]]
            for x in range(length):
                line[x] = across[0] * inner[x]
            for k in range(1, wide + 1):
                left, right, weight = padded[wide - k : wide - k + length], padded[wide + k :], across[k]
                for x in range(length):
                    line[x] += weight * (left[x] + right[x])
            end = result[z, y]
            for x in range(length):
                end[x] = line[x]


def sharpened(block: Float32, step: float) -> Float32:
    """The negative Laplacian of a block (slice, y, x) by second differences, mirrored beyond its ends, float32."""
    result = np.empty(block.shape, np.float32)
    _sharpen(np.ascontiguousarray(block), 1 / step**2, result)
    return result


@njit(nogil=True, cache=True)
def _sharpen(block: Any, weight: float, result: Any) -> None:
    depth, height, length = block.shape
    for z in range(depth):
        for y in range(height):
            middle, end = block[z, y], result[z, y]
            below, above = block[max(z - 1, 0), y], block[min(z + 1, depth - 1), y]
            before, after = block[z, max(y - 1, 0)], block[z, min(y + 1, height - 1)]
            for x in range(length):
                twice = 2 * np.float64(middle[x])
                end[x] = twice - before[x] - after[x] + weight * (twice - below[x] - above[x])
            for x in range(1, length - 1):
                end[x] += 2 * np.float64(middle[x]) - middle[x - 1] - middle[x + 1]
            if length > 1:
                end[0] += middle[0] - middle[1]
                end[length - 1] += middle[length - 1] - middle[length - 2]


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
) -> tuple[Float64, Float64, Float64]:
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
    (Gaussian, 5): as `start`; (group,): background; (group,): root mean square of what is left.
    """
    result = np.array(start, np.float64)
    background, left = np.zeros(len(groups) - 1), np.zeros(len(groups) - 1)
    _fit(voxels, begins, region, groups, result, origin, others, fixed, width, background, left)
    return result, background, left


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
    left: Any,
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
                squares = new
                break
            squares = _sums(here, there, theta, normal, gradient)
        for one in range(begin, end):
            for k in range(PARAMETERS):
                result[one, k] = theta[PARAMETERS * (one - begin) + k] / (step if k == 0 else 1.0)
        background[group] = theta[-1]
        left[group] = math.sqrt(squares / count)


def subtract(block: Float32, gaussians: Float64, *, first: int, step: float) -> None:
    """Take some Gaussians (Gaussian, 5) away from a block (slice, y, x), each within 5 of its widths."""
    _subtract(block, np.ascontiguousarray(gaussians), first, step)


@njit(nogil=True, cache=True)
def _subtract(block: Any, gaussians: Any, first: int, step: float) -> None:
    depth, height, length = block.shape
    shape = np.empty(length)
    for one in range(len(gaussians)):
        cz, cy, cx, peak, deviation = gaussians[one]
        reach, double = REACH * deviation, 2 * deviation * deviation
        begin, end = max(math.ceil(cx - reach), 0), min(math.floor(cx + reach) + 1, length)
        for x in range(begin, end):
            shape[x] = math.exp(-((x - cx) ** 2) / double)
        for z in range(max(math.ceil(cz - reach / step), first), min(math.floor(cz + reach / step) + 1, first + depth)):
            deep = ((z - cz) * step) ** 2
            for y in range(max(math.ceil(cy - reach), 0), min(math.floor(cy + reach) + 1, height)):
                left = reach * reach - deep - (y - cy) ** 2
                if left <= 0:
                    continue
                half, here = math.sqrt(left), peak * math.exp(-(deep + (y - cy) ** 2) / double)
                row = block[z - first, y]
                for x in range(max(math.ceil(cx - half), 0), min(math.floor(cx + half) + 1, length)):
                    row[x] -= here * shape[x]
