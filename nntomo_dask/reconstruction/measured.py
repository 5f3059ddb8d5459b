"""What a method asks a series before it begins, as lazy scalars: its noise, and whether its matter may be negative."""

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed

from nntomo_dask.arrays import finite, geometry, schema, slabs
from nntomo_dask.compute import device
from nntomo_dask.projection import noise_fit
from nntomo_dask.projection.noise import Noise
from nntomo_dask.types import Float32, Float64, Integers

_SLICES = 16  # that are looked at, evenly spaced
_DEVIATIONS = 4  # of the noise, below which a line integral is negative
_SHARE = 0.01  # of the squares of all line integrals, above which the negative ones are more than an offset


def least_value(series: xr.DataArray, *, who: str) -> da.Array:
    """Lower bound of the voxels: 0, or minus infinity where line integrals are clearly negative."""
    least: da.Array = _found(series, who)[0]
    return least


def least_value_and_noise(series: xr.DataArray, *, who: str) -> tuple[da.Array, da.Array, da.Array, da.Array]:
    """`least_value`, and the three numbers of `noise`, from one look."""
    found = _found(series, who)
    return found[0], found[1], found[2], found[3]


def least_value_and_whether_noiseless(series: xr.DataArray, *, who: str) -> tuple[da.Array, da.Array]:
    """`least_value`, and 1 where there is next to no noise and no background, else 0; from one look.

    0 too where there are too few values to tell.
    """
    found = _found(series, who)
    return found[0], found[4]


def noise(series: xr.DataArray, *, who: str) -> tuple[da.Array, da.Array, da.Array]:
    """Gain, read-out noise and background: the variance at a value v is ``read² + gain · max(v - background, 0)``."""
    found = _found(series, who)
    return found[1], found[2], found[3]


def _found(series: xr.DataArray, who: str) -> da.Array:
    """(5,): the least value of a voxel, gain, read-out noise, background, whether there is next to no noise."""
    own = geometry.in_own_pixels(series)
    chosen = np.unique(np.linspace(0, own.sizes[schema.Z] - 1, _SLICES).round().astype(int))
    rows = slabs.lazy(own).isel({schema.Z: chosen}).data
    look = delayed(_look)(rows, chosen, own[schema.ANGLE].values, who)
    found: da.Array = da.from_delayed(look, (5,), np.float32)
    return found


def _look(rows: Float32, slices: Integers, angles_deg: Float64, who: str) -> Float32:
    for z, one in zip(slices, rows, strict=True):
        finite.check_slab(one[None], who=who, dims=schema.SERIES_DIMS, first=int(z))
    values = np.asarray(device.to_host(rows), np.float64)[:, np.argsort(angles_deg, kind="stable")]
    gain, read_noise, background, is_noiseless = 0.0, 0.0, 0.0, False
    if noise_fit.enough(len(values), 1, *values.shape[1:]):
        # One by one, since they are no neighbours.
        fit = noise_fit.fit([values[z : z + 1] for z in range(len(values))], [])
        gain, read_noise, background = fit.gain, fit.read_noise, fit.background
        found = Noise(gain=gain, read_noise=read_noise, background=background, brightest=fit.brightest)
        is_noiseless = found.is_negligible and not fit.all_noise
    below = np.minimum(values + _DEVIATIONS * read_noise, 0)
    least = -np.inf if (below**2).sum() > _SHARE * (values**2).sum() else 0.0
    return np.array([least, gain, read_noise, background, is_noiseless], np.float32)
