"""Volumes scaled to [0, 1], or cut at a threshold."""

from typing import Any

import numpy as np
import xarray as xr

from nntomo_dask.arrays import finite, recipes, schema, slabs
from nntomo_dask.errors import refuse
from nntomo_dask.types import Float32


def normalize(volume: xr.DataArray) -> xr.DataArray:
    """A volume scaled linearly to [0, 1]; a constant one becomes 0. Lazy.

    Raises
    ------
    SchemaError
        `volume` is no volume. When it is computed: a value is NaN or infinite.
    """
    schema.check_volume(volume, who="normalize", slices="any")
    data = finite.checked_data(slabs.lazy(volume).data, who="normalize", dims=schema.VOLUME_DIMS)
    return _same_grid(_scaled, volume, "normalize", {}, [data.min(), data.max()])


def segment(volume: xr.DataArray, *, threshold: float) -> xr.DataArray:
    """1 where a volume exceeds the threshold, 0 elsewhere; float32. Lazy.

    Raises
    ------
    SchemaError
        `volume` is no volume, or the threshold is not finite. When it is computed: a value is NaN or infinite.
    """
    schema.check_volume(volume, who="segment", slices="any")
    if not np.isfinite(threshold):
        refuse("segment", needs="a finite threshold", got=f"{threshold}", remedy="`threshold=0.5`")
    return _same_grid(_above, volume, "segment", {"threshold": threshold}, [threshold])


def _same_grid(
    function: Any, volume: xr.DataArray, operation: str, parameters: dict[str, Any], extra: list[Any]
) -> xr.DataArray:
    return slabs.map_slabs(
        function,
        volume,
        dims=schema.VOLUME_DIMS,
        coords={dim: volume[dim].values for dim in schema.VOLUME_DIMS},
        recipe=recipes.record(operation, parameters, [volume]),
        name="volume",
        pixel_size=schema.pixel_size_of(volume),
        extra=extra,
    )


def _scaled(slab: Float32, low: Any, high: Any) -> Float32:
    low, high = np.float32(low), np.float32(high)
    return (slab - low) / (high - low) if high > low else np.zeros_like(slab)


def _above(slab: Float32, threshold: float) -> Float32:
    return (slab > threshold).astype(np.float32)
