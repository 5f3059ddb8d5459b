"""Two volumes to compare, slab by slab."""

from typing import Literal

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import geometry, schema, slabs
from nntomo_dask.errors import refuse

Region = Literal["all", "disc"]


def pair(who: str, volume: xr.DataArray, reference: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Both volumes over Dask, in slabs of the same slices."""
    schema.check_volume(volume, who=who)
    schema.check_volume(reference, who=who)
    schema.check_same_grid(volume, reference, who=who)
    reference = slabs.lazy(reference)
    return volume.chunk(dict(reference.chunksizes)), reference


def inside_region(volume: xr.DataArray, region: Region) -> npt.NDArray[np.bool_]:
    """(y, x): the pixels of a slice that count."""
    size = volume.sizes[schema.X]
    if region == "disc":
        return geometry.seen_by_all(size)
    if region == "all":
        return np.ones((size, size), bool)
    refuse("metrics", needs='region "all" or "disc"', got=f"{region!r}", remedy='`region="all"`')


def data_range(data: da.Array) -> da.Array:
    """Largest value less the least, lazy."""
    span: da.Array = data.max() - data.min()
    return span
