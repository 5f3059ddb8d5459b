"""Projections smoothed by a Gaussian, so that a reconstruction sees less noise that is finer than an atom."""

import numpy as np
import scipy.ndimage
import xarray as xr

from nntomo_dask.arrays import grid, recipes, schema, slabs
from nntomo_dask.compute import device
from nntomo_dask.errors import refuse
from nntomo_dask.types import Float32

_WHO = "smooth_projections"
_REACH = 4.0  # standard deviations at which the Gaussian is cut


def smooth_projections(series: xr.DataArray, *, width: float) -> xr.DataArray:
    """Smooth each projection of a tilt series by a Gaussian, along the tilt axis and along the detector.

    A volume of smoothed projections is smoother, and its values of at least 0 are less often those of noise: that they
    cannot be negative tells more than in a volume that is smoothed afterwards. Where a projection holds few counts and
    atoms are looked for, the width of an atom serves best. Lazy; every projection by itself.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; slices at equal steps.
    width
        Standard deviation, in the unit of the series. 0: none.

    Returns
    -------
    Dims (z, angle, detector), float32. With a width of 0, the series as it was given.

    Raises
    ------
    SchemaError
        `series` is no tilt series, its slices are not at equal steps, or the width is below 0 or as wide as the field
        of view. When it is computed: a value is NaN or infinite.
    """
    schema.check_tilt_series(series, who=_WHO)
    schema.check_even_z(series, who=_WHO)
    pixel = schema.pixel_size_of(series)
    steps = [abs(grid.spacing(series[dim].values, pixel)) for dim in (schema.Z, schema.DETECTOR)]
    field = steps[1] * series.sizes[schema.DETECTOR]
    unit = series.attrs["units"]
    if isinstance(width, bool) or not isinstance(width, int | float | np.number) or not 0 <= width < field:
        needs = f"a width of at least 0 and less than the field of view, {field:.3g} {unit}"
        refuse(_WHO, needs=needs, got=f"{width!r}", remedy=f"`width={1.5 * pixel:.2g}`")
    if width == 0:
        return series
    sigmas = tuple(float(width) / step for step in steps)
    return slabs.map_slabs(
        _slab,
        series,
        dims=schema.SERIES_DIMS,
        coords=schema.series_coords(*(series[dim] for dim in schema.SERIES_DIMS)),
        recipe=recipes.record(_WHO, {"width": float(width)}, [series]),
        name="tilt_series",
        halo=_radius(sigmas[0]),
        sigmas=sigmas,
    )


def _slab(rows: Float32, *, sigmas: tuple[float, float]) -> Float32:
    """Rows (slice + 2 · halo, angle, detector), smoothed, without the halo."""
    along, across = sigmas
    halo = _radius(along)
    host = np.asarray(device.to_host(rows), np.float64)
    smooth = scipy.ndimage.gaussian_filter1d(host, across, axis=2, truncate=_REACH, mode="nearest")
    smooth = scipy.ndimage.gaussian_filter1d(smooth, along, axis=0, radius=halo, mode="nearest")
    return np.ascontiguousarray(smooth[halo : len(rows) - halo], np.float32)


def _radius(sigma: float) -> int:
    """Pixels on either side that a Gaussian of so many looks at."""
    return int(_REACH * sigma + 0.5)
