"""How intense the matter in a series is: what networks scale a series by."""

from collections.abc import Sequence
from typing import Literal

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from skimage.filters import threshold_otsu

from nntomo_dask.arrays import finite, geometry, grid, schema, slabs
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import device
from nntomo_dask.errors import refuse
from nntomo_dask.reconstruction.sirt import Sirt
from nntomo_dask.types import Float32, Float64, Integers

Scale = float | Literal["auto"]
Level = Literal["median", "brightest"]

# Intensity is estimated from this many slices, binned to this many detector pixels at most, by so many iterations.
_LEVEL_SLICES, _LEVEL_PIXELS, _LEVEL_ITERATIONS = 16, 128, 50
_BRIGHTEST = 99  # percentile of the matter


def intensity_level(series: xr.DataArray, *, of: Level = "median") -> xr.DataArray:
    """How intense the matter in a tilt series is, [value of a voxel], robustly and without a volume to compare with.

    Up to 16 evenly spaced slices, binned to at most 255 detector pixels, are reconstructed by 50 iterations of
    non-negative SIRT; the level is the median of the voxels above Otsu's threshold. What limits such a reconstruction
    limits it in training and at use alike, so the ratio of two levels is a ratio of intensities. A series with twice
    the intensity has twice the level. Lazy.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32.
    of
        "median": of the matter, as above. "brightest": the 99th percentile of the voxels above that threshold, which is
        about the same share of the greatest density where there are several, or greys.

    Returns
    -------
    No dims, float32; 0 where the series is empty. A value that is NaN or infinite is refused when it is computed.

    References
    ----------
    .. [1] N. Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979) 62.
    """
    schema.check_tilt_series(series, who="intensity_level")
    return xr.DataArray(lazy_level(series, who="intensity_level", of=of), name="intensity_level")


def lazy_level(series: xr.DataArray, *, who: str, of: Level = "median") -> da.Array:
    """`intensity_level` as a Dask array without dims, in the name of what needs it."""
    n_z = series.sizes[schema.Z]
    chosen = np.arange(n_z)
    if n_z > _LEVEL_SLICES:
        chosen = np.unique(np.linspace(0, n_z - 1, _LEVEL_SLICES + 2).round().astype(int)[1:-1])
    own = geometry.in_own_pixels(series)
    rows = slabs.lazy(own).isel({schema.Z: chosen}).data
    level = delayed(_level)(rows, chosen, own[schema.ANGLE].values, schema.axis_of(own), who, of)
    found: da.Array = da.from_delayed(level, (), np.float32)
    return found


def _level(rows: Float32, slices: Integers, angles_deg: Float64, axis: Axis, who: str, of: Level) -> np.float32:
    for z, one in zip(slices, rows, strict=True):
        finite.check_slab(one[None], who=who, dims=schema.SERIES_DIMS, first=int(z))
    n_detectors = rows.shape[-1]
    factor = max(n_detectors // _LEVEL_PIXELS, 1)
    binned = rows[..., : n_detectors // factor * factor].reshape(*rows.shape[:2], -1, factor).mean(axis=-1)
    # A binned pixel is `factor` pixels wide, and the line integrals are counted in the original ones.
    estimate = Sirt(tolerance=0, max_iterations=_LEVEL_ITERATIONS, minimum=0)
    where = grid.in_bins(axis, n_detectors, factor)
    return level_of(device.to_host(estimate.slab(binned / np.float32(factor), angles_deg, axis=where)), of=of)


def level_of(volume: Float32, *, of: Level = "median") -> np.float32:
    """The level of a volume that is known: of the voxels above Otsu's threshold; 0 where it is empty."""
    if volume.max() <= 0:
        return np.float32(0)
    bright = volume[volume > threshold_otsu(volume)]
    if not bright.size:
        return np.float32(volume.max())
    return np.float32(np.median(bright) if of == "median" else np.percentile(bright, _BRIGHTEST))


def scales_of(
    who: str, series: xr.DataArray, levels: Sequence[float], scale: Scale, *, of: Level = "median"
) -> list[float] | list[da.Array]:
    """What one unit of training sets with these levels is in a series: as numbers, or lazy where it is estimated."""
    if scale == "auto":
        if not all(level > 0 for level in levels):
            refuse(
                who, needs="a scale: the training set has no level", got='"auto"', remedy="`scale=1`, or another number"
            )
        found = intensity_level(series, of=of).data
        ratios = [found / np.float32(level) for level in levels]
        return [da.where(ratio > 0, ratio, np.float32(1)) for ratio in ratios]
    if not (isinstance(scale, int | float) and np.isfinite(scale) and scale > 0):
        refuse(who, needs='a scale above zero, or "auto"', got=f"{scale!r}", remedy='`scale="auto"`')
    return [float(scale)] * len(levels)
