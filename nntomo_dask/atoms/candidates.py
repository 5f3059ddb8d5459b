"""Where atoms may be: maxima of the sharpened volume, slab by slab, and of those too near each other the highest."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from nntomo_dask.arrays import slabs
from nntomo_dask.atoms.frame import Frame, compute_slices
from nntomo_dask.atoms.spacing import highest
from nntomo_dask.compute import chunking
from nntomo_dask.kernels import peaks
from nntomo_dask.types import Float32, Float64, Integers

# Two equal Gaussians of width w, smoothed to S = √(w² + s²), have two maxima of the negative Laplacian where they are
# farther than this from each other, in S: the root of 5 - 8 r² + r⁴ at r = 0.827, twice.
APART = 1.654
_AT_ONCE = 16  # slices of a slab that are filtered at once
_BORDER = 2  # slices beyond a slab at which the Laplacian and the neighbours of a maximum look


@dataclass(frozen=True)
class Filter:
    """The negative Laplacian of a smoothed volume, scaled so that a Gaussian of the common width has its height.

    Attributes
    ----------
    smoothing
        Width of the smoothing, [px].
    gain
        What the Laplacian is multiplied with.
    """

    smoothing: float
    gain: float

    def of(self, block: Float32, step: float) -> Float32:
        """Heights at the voxels of a block."""
        heights: Float32 = np.float32(self.gain) * peaks.sharpened(peaks.smoothed(block, self.smoothing, step), step)
        return heights


def filter_for(width: float, smoothing: float, step: float) -> Filter:
    """The filter for Gaussians of a width, [px]. A smoothing of the same width is the one with the least noise."""
    half = int(np.ceil(4 * (width + smoothing))) + 2
    places = np.arange(-half, half + 1)
    slices = np.arange(-int(np.ceil(half / step)), int(np.ceil(half / step)) + 1) * step
    squared = slices[:, None, None] ** 2 + places[:, None] ** 2 + places**2
    shape = np.exp(-squared / (2 * width**2)).astype(np.float32)
    response = Filter(smoothing, 1.0).of(shape, step)[len(slices) // 2, half, half]
    return Filter(smoothing, 1 / float(response))


def smoothing_for(width: float, distance: float) -> float:
    """The largest smoothing, up to the width itself, with which atoms at a distance have two maxima, [px]."""
    return float(np.sqrt(np.clip((distance / APART) ** 2 - width**2, 0, width**2)))


def halo(used: Filter, step: float) -> int:
    """Slices on either side of a slab that are needed."""
    return peaks.smoothing_halo(used.smoothing, step) + _BORDER


def host_bytes(shape: chunking.SlabShape, border: int, *, chunk: int) -> int:
    """Bytes at the peak of a slab (slices, y, x) that is read in chunks of some slices.

    It and the slices around it are there as chunks and as one block, and as chunks of the next one, or memory that has
    been freed and not been given back, measured; a part of it is smoothed and sharpened.
    """
    slices, height, length = shape
    block, filtered = slices + 2 * border, min(slices, _AT_ONCE) + 2 * _BORDER
    return 4 * (3 * block + (2 + chunking.READ) * chunk + 2 * filtered + 1) * height * length


def maxima(frame: Frame, used: Filter, least: float, *, less: Float64 | None = None) -> tuple[Integers, Float64]:
    """(peak, 3) voxels and (peak,) heights of all maxima above a height, in the order of the voxels.

    Parameters
    ----------
    less
        Gaussians (Gaussian, 5) that are subtracted first, as `peak_fits.fit` gives them.
    """
    border, count = halo(used, frame.step), frame.shape[0]
    gaussians = np.zeros((0, peaks.PARAMETERS)) if less is None else less
    reaches = peaks.REACH * gaussians[:, 4] / frame.step
    seen = slabs.mirrored(count, border)
    ranges, arguments = [], []
    for first, last in frame.slabs():
        wanted = seen[first : last + 2 * border]
        low, high = int(wanted.min()), int(wanted.max()) + 1
        near = (gaussians[:, 0] + reaches > low - 1) & (gaussians[:, 0] - reaches < high)
        ranges.append((low, high))
        arguments.append((low, wanted - low, first, count, border, used, least, frame.step, gaussians[near]))
    found = compute_slices(_maxima, frame, ranges, arguments)
    return np.concatenate([one for one, _ in found]), np.concatenate([heights for _, heights in found])


def _maxima(
    rows: Float32,
    low: int,
    wanted: Any,
    first: int,
    count: int,
    border: int,
    used: Filter,
    least: float,
    step: float,
    less: Float64,
) -> tuple[Integers, Float64]:
    peaks.subtract(rows, less, first=low, step=step)
    found = []
    for begin in range(0, len(wanted) - 2 * border, _AT_ONCE):
        seen = wanted[begin : begin + _AT_ONCE + 2 * border]
        sharp = peaks.sharpened(peaks.smoothed(rows, used.smoothing, step, slices=seen), step)
        at, low = first + begin - _BORDER, _BORDER
        found.append(peaks.maxima(sharp, least / used.gain, low=low, high=len(sharp) - low, first=at, count=count))
    places, values = zip(*found, strict=True)
    return np.concatenate(places), np.concatenate(values) * used.gain


def apart(places: Float64, heights: Float64, distance: float) -> Integers:
    """Numbers of the points to keep: of two within a distance of each other the higher, the highest first.

    Parameters
    ----------
    places
        (point, 3), [px].
    """
    if len(places) == 0:
        return np.zeros(0, np.int64)
    return highest(cKDTree(places).query_pairs(distance, output_type="ndarray"), heights)
