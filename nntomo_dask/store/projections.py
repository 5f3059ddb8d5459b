"""Tilt series in chunks of single projections: one or more series in one stored array, a chunk for each angle."""

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import recipes, schema, slabs
from nntomo_dask.errors import refuse
from nntomo_dask.store.files import Stored
from nntomo_dask.store.names import DIMS, PROJECTIONS

_SHARED = ("units", "pixel_size")


def come_by_angle(array: object) -> bool:
    """Whether an array is a tilt series in chunks of single projections, or a Dataset of such series."""
    if isinstance(array, xr.Dataset):
        return bool(array.data_vars) and all(come_by_angle(series) for series in array.data_vars.values())
    return (
        isinstance(array, xr.DataArray)
        and array.dims == schema.SERIES_DIMS
        and len(schema.chunks_of(array, schema.ANGLE)) > 1
        and set(schema.chunks_of(array, schema.ANGLE)) == {1}
    )


def to_stack(array: xr.DataArray | xr.Dataset) -> tuple[xr.DataArray, recipes.Recipe]:
    """The lazy stack (angle, mode, z, detector) of one or more series on the same grid, and its recipe."""
    series = dict(array.items()) if isinstance(array, xr.Dataset) else {array.name or "tilt_series": array}
    for one in series.values():
        schema.check_tilt_series(one.chunk({schema.Z: -1, schema.ANGLE: -1}), who="save")
    first = next(iter(series.values()))
    blocks = [one.data.rechunk({0: -1}).transpose(1, 0, 2) for one in series.values()]
    stacked = da.stack(blocks, axis=1).rechunk({1: -1})
    own = [
        {key: value for key, value in one.attrs.items() if key not in (*_SHARED, "recipe")} for one in series.values()
    ]
    attrs = {key: first.attrs[key] for key in _SHARED} | {"modes": [str(name) for name in series], "attributes": own}
    made_by = [recipes.recipe_of(one) for one in series.values()]
    names = [str(name) for name in series]
    recipe = made_by[0] if len(made_by) == 1 else recipes.record("together", {"names": names}, made_by)
    coords = {dim: first[dim] for dim in schema.SERIES_DIMS}
    return xr.DataArray(stacked, dims=DIMS[PROJECTIONS], coords=coords, attrs=attrs, name=PROJECTIONS), recipe


def from_stack(
    blocks_of: Callable[[int], da.Array],
    attributes: Mapping[str, Any],
    coords: Mapping[Hashable, npt.NDArray[np.generic]],
    wanted: str | None,
    source: Path,
) -> xr.DataArray | xr.Dataset:
    """The stored series in slabs of slices: one series, or a Dataset of several.

    Parameters
    ----------
    blocks_of
        Returns the lazy array (z, angle, detector) of the series with a given number in the stack.
    wanted
        Name of a single series; None for all of them.
    source
        The store, for errors.
    """
    modes: list[str] = attributes["modes"]
    if wanted is not None and wanted not in modes:
        refuse("open", needs=f"one of {', '.join(modes)} in {source}", got=wanted, remedy="choose one of these names")
    recipe = attributes["recipe"]
    made_by = [recipe] if len(modes) == 1 else recipe["inputs"]
    series = {
        name: slabs.label(
            blocks_of(place),
            dims=schema.SERIES_DIMS,
            coords=coords,
            attrs={key: attributes[key] for key in _SHARED} | attributes["attributes"][place],
            recipe=made_by[place],
            name=name,
        )
        for place, name in enumerate(modes)
        if wanted in (None, name)
    }
    return next(iter(series.values())) if len(series) == 1 else xr.Dataset(series)


def read_slab(stack: Stored, place: int, first: int, last: int) -> npt.NDArray[np.float32]:
    """Slices (z, angle, detector) of one series. A part of every chunk is read."""
    slab = np.empty((last - first, stack.shape[0], stack.shape[3]), np.float32)
    for angle in range(stack.shape[0]):
        slab[:, angle] = stack[angle, place, first:last]
    return slab
