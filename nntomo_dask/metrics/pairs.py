"""Two volumes to compare, slab by slab."""

from typing import Literal

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import finite, geometry, schema, slabs
from nntomo_dask.errors import refuse

Region = Literal["all", "disc"]


def pair(who: str, volume: xr.DataArray, reference: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Both volumes over Dask, in slabs of the same slices, whose values are refused where they are not finite."""
    schema.check_volume(volume, who=who)
    schema.check_volume(reference, who=who)
    schema.check_same_grid(volume, reference, who=who)
    reference = slabs.lazy(reference)
    return _finite(volume.chunk(dict(reference.chunksizes)), who), _finite(reference, who)


def _finite(volume: xr.DataArray, who: str) -> xr.DataArray:
    return volume.copy(data=finite.checked_data(volume.data, who=who, dims=schema.VOLUME_DIMS))


def inside_region(volume: xr.DataArray, region: Region) -> npt.NDArray[np.bool_]:
    """(y, x): the pixels of a slice that count."""
    size = volume.sizes[schema.X]
    if region == "disc":
        inside = geometry.seen_by_all(size, schema.axis_of(volume))
        if not inside.any():
            refuse(
                "metrics",
                needs='a volume with the tilt axis (y = 0, x = 0) inside it for region "disc"',
                got="it elsewhere",
                remedy='`region="all"`',
            )
        return inside
    if region == "all":
        return np.ones((size, size), bool)
    refuse("metrics", needs='region "all" or "disc"', got=f"{region!r}", remedy='`region="all"`')


def data_range(data: da.Array) -> da.Array:
    """Largest value less the least, lazy."""
    span: da.Array = data.max() - data.min()
    return span
