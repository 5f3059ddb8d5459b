"""How a volume is shown: grey window, surface level and slices, from all of its voxels, block by block."""

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from nntomo_dask.arrays import schema, slabs
from nntomo_dask.compute import cluster
from nntomo_dask.types import Float64

_BINS = 4096  # of the histogram, between the least and the largest value
_FEW = 256  # bins, below which the histogram is made again, of the window alone
_SHARE = 1e-3  # of the voxels at either end that may lie outside the window


@dataclass(frozen=True)
class Grey:
    """How a volume is shown.

    Parameters
    ----------
    window
        Values that are black and white.
    level
        Value of the isosurface.
    z, y
        Slices across and along the tilt axis: the nearest to the middle that have voxels as bright as the window's end.
    """

    window: tuple[float, float]
    level: float
    z: int
    y: int


def grey_of(volume: xr.DataArray) -> Grey:
    """The window that leaves out a thousandth of the voxels at either end, and Otsu's threshold. Computed at once.

    The volume is read twice, block by block: for its range, and for a histogram of 4096 bins; once more where a few
    voxels are far from all others. Where matter fills less than a thousandth of the volume, the window reaches to the
    largest value.
    """
    schema.check_volume(volume, who="grey_of", slices="any")
    data = slabs.lazy(volume).data
    found = _computed(low=data.min(), z=data.max(axis=(1, 2)), y=data.max(axis=(0, 2)))
    low, high = float(found["low"]), float(found["z"].max())
    if not low < high:
        return Grey((low, low + 1), low, len(found["z"]) // 2, len(found["y"]) // 2)
    counts, edges, first, last = _histogram_of(data, low, high)
    black, white = float(edges[first]), float(edges[last])
    level = otsu(counts[first:last], (edges[first:last] + edges[first + 1 : last + 1]) / 2)
    return Grey((black, white), level, *(_nearest(found[dim], float(edges[last - 1])) for dim in ("z", "y")))


def range_of(data: da.Array) -> tuple[float, float]:
    """The least and the largest finite value of a lazy array (z, …), read once, slab by slab; zeros where none is."""
    slabs_of_two = ((1,) * data.numblocks[0], (2,))
    ends = da.map_blocks(_ends, data, drop_axis=[1, 2], new_axis=[1], chunks=slabs_of_two, dtype=float)
    found = _computed(ends=ends)["ends"]
    low, high = float(found[:, 0].min()), float(found[:, 1].max())
    return (low, high) if low <= high else (0.0, 0.0)


def window_of(data: da.Array) -> tuple[float, float]:
    """The values that leave out a thousandth of a lazy array (z, …) at either end; read twice, slab by slab."""
    low, high = range_of(data)
    if not low < high:
        return low, low + 1
    _, edges, first, last = _histogram_of(data, low, high)
    return float(edges[first]), float(edges[last])


def _ends(slab: Any) -> Float64:
    """(1, 2): the least and the largest finite value of a slab."""
    found = np.array([[np.inf, -np.inf]])
    for image in slab:
        values = image if np.isfinite(image).all() else image[np.isfinite(image)]
        if values.size:
            found = np.array([[min(found[0, 0], values.min()), max(found[0, 1], values.max())]], np.float64)
    return found


def _histogram_of(data: da.Array, low: float, high: float) -> tuple[Float64, Float64, int, int]:
    """Counts and edges of bins, and the numbers of the edges between which all but a thousandth at either end lie."""
    counts, edges = _counted(data, low, high)
    first, last = _inner(counts)
    if last - first < _FEW:  # the rest of the bins is for a few values far away
        counts, edges = _counted(data, edges[first], edges[last])
        first, last = _inner(counts)
    if last - first <= 1:
        counts, edges = _counted(data, low, high)
        first, last = 0, _BINS
    return counts, edges, first, last


def _counted(data: da.Array, low: float, high: float) -> tuple[Float64, Float64]:
    """Voxels in each bin between two values, and the edges of the bins. What lies outside is in the last bins."""
    counts = da.map_blocks(
        _histogram,
        data,
        low=low,
        high=high,
        drop_axis=[1, 2],
        new_axis=[1],
        chunks=((1,) * data.numblocks[0], (_BINS,)),
        dtype=float,
    )
    return _computed(total=counts.sum(axis=0))["total"], np.linspace(low, high, _BINS + 1)


def _inner(counts: Float64) -> tuple[int, int]:
    """Edges of the bins that hold all but a share of the voxels at either end."""
    share = np.cumsum(counts) / counts.sum()
    return int(np.searchsorted(share, _SHARE)), min(int(np.searchsorted(share, 1 - _SHARE)) + 1, _BINS)


def otsu(counts: Float64, values: Float64) -> float:
    """The value that parts a histogram into the two classes that differ most; the middle of several that do equally."""
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * values)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    apart = np.nan_to_num(apart)
    best = np.flatnonzero(apart >= apart.max() * (1 - 1e-9))
    return float((values[best].mean() + values[best + 1].mean()) / 2)


def _nearest(brightest: Float64, wanted: float) -> int:
    """The slice nearest to the middle whose brightest voxel reaches a value."""
    middle = len(brightest) // 2
    reaching = np.flatnonzero(brightest >= min(wanted, brightest.max()))
    return int(reaching[np.abs(reaching - middle).argmin()])


def _computed(**arrays: da.Array) -> dict[str, Float64]:
    """Small arrays, computed together where the session computes."""
    named = xr.Dataset({name: ([f"{name}_{axis}" for axis in range(one.ndim)], one) for name, one in arrays.items()})
    (computed,) = cluster.load(named, description="greys", progress="none")
    return {name: np.asarray(computed[name].values, np.float64) for name in arrays}


def _histogram(slab: Any, *, low: float, high: float) -> Float64:
    """(1, bin), slice by slice, so that little more than the slab is in memory."""
    total = np.zeros(_BINS)
    for image in slab:
        total += np.histogram(np.clip(image, low, high), _BINS, (low, high))[0]
    return total[None]
