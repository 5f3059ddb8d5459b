"""Peaks of a volume: local maxima of its sharpened form, and Gaussians taken away from it.

A Gaussian of three dimensions with a height ``h``, a centre ``c`` and a standard deviation ``s`` is
``h exp(-|r - c|² / 2 s²)``. Lengths are in pixels along y and x; slices may be `step` pixels apart.
"""

import math
from typing import Any

import numpy as np

from nntomo_dask.kernels.compiling import njit
from nntomo_dask.types import Float32, Float64, Integers

PARAMETERS = 5  # of a Gaussian: z, y, x, height, width
TRUNCATE = 4.0  # widths of a smoothing at which it ends

REACH = 5.0  # widths beyond which a Gaussian is nothing: 4e-6 of its height


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
