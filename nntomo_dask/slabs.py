"""One function of a slab of slices, made lazy: chunks along z, labels, and a recipe that says how the array was made.

A *recipe* is a JSON-able dict: the operation, its parameters and the recipes of its inputs. It travels in
``attrs["recipe"]``, and the Dask array's name is a digest of it. So an array that somebody changed afterwards, by a
selection or by arithmetic that keeps the attributes, is recognised (its name is another) and gets a recipe of its own
instead of passing for what it was.
"""

import importlib.metadata
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, cast

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from nntomo_dask import chunking, schema

Recipe = dict[str, Any]

_DIGITS = 16


def record(operation: str, parameters: Mapping[str, Any], inputs: Sequence[xr.DataArray | Recipe] = ()) -> Recipe:
    """Recipe of an operation; an input is an array or, for what is no array, a recipe."""
    return {
        "operation": operation,
        "parameters": {key: _plain(value) for key, value in parameters.items()},
        "inputs": [recipe_of(item) if isinstance(item, xr.DataArray) else item for item in inputs],
        "version": importlib.metadata.version("nntomo_dask"),
    }


def recipe_of(array: xr.DataArray) -> Recipe:
    """How an array was made, as far as it can be known."""
    recipe = array.attrs.get("recipe")
    if recipe is not None and isinstance(array.data, da.Array) and array.data.name == _name(recipe, array):
        return cast("Recipe", recipe)
    token = tokenize(array.data.name if isinstance(array.data, da.Array) else array.values, _coords_token(array))
    parameters = {"token": token[:_DIGITS], "shape": list(array.shape)}
    return record("array", parameters, [recipe] if recipe is not None else [])


def label(
    data: da.Array,
    *,
    dims: tuple[str, ...],
    coords: Mapping[Hashable, Any],
    attrs: Mapping[str, Any],
    recipe: Recipe,
    name: str,
) -> xr.DataArray:
    """A labelled lazy array whose Dask name is the digest of its recipe, chunks and coordinates."""
    array = xr.DataArray(data, dims=dims, coords=coords, attrs={**attrs, "recipe": recipe}, name=name)
    return array.copy(data=_renamed(data, _name(recipe, array)))


def map_slabs(
    function: Callable[..., Any],
    array: xr.DataArray,
    *,
    dims: tuple[str, ...],
    coords: Mapping[Hashable, Any],
    recipe: Recipe,
    name: str,
    extra: Sequence[Any] = (),
    **parameters: Any,
) -> xr.DataArray:
    """Apply ``function(slab, *extra, **parameters)`` to every slab of slices.

    Parameters
    ----------
    function
        (slice, …) to (slice, …), slices independent of each other.
    dims, coords
        Of the result; the first dim is z.
    extra
        Further arguments; zero-dimensional Dask arrays among them are passed computed.
    """
    data = lazy(array).data
    shape = tuple(np.size(coords[dim]) for dim in dims[1:])
    chunks = (data.chunks[0], *((size,) for size in shape))
    mapped = da.map_blocks(
        function, data, *extra, chunks=chunks, dtype=np.float32, meta=np.empty((0,) * 3, np.float32), **parameters
    )
    attrs = {key: value for key, value in array.attrs.items() if key != "recipe"}
    return label(mapped, dims=dims, coords=coords, attrs=attrs, recipe=recipe, name=name)


def generate_slabs(
    function: Callable[..., Any],
    shape: tuple[int, int, int],
    /,
    *,
    recipe: Recipe,
    pixel_size: float,
    **parameters: Any,
) -> xr.DataArray:
    """A volume whose slab is ``function(z_indices, **parameters)``, (slice,) to (slice, y, x)."""
    slices = chunking.slab_slices(shape)
    data = da.arange(shape[0], chunks=slices).map_blocks(
        function,
        dtype=np.float32,
        new_axis=[1, 2],
        chunks=(chunking.slab_chunks(shape[0], slices), (shape[1],), (shape[2],)),
        meta=np.empty((0,) * 3, np.float32),
        **parameters,
    )
    coords = schema.volume_coords(shape, pixel_size)
    attrs = {"units": "px", "pixel_size": pixel_size}
    return label(data, dims=schema.VOLUME_DIMS, coords=coords, attrs=attrs, recipe=recipe, name="volume")


def lazy(array: xr.DataArray) -> xr.DataArray:
    """The array over Dask: as it is, or in slabs of the default height."""
    if array.chunks is not None:
        return array
    return array.chunk({dim: -1 for dim in array.dims} | {schema.Z: chunking.slab_slices(array.shape)})


def _name(recipe: Recipe, array: xr.DataArray) -> str:
    return f"{recipe['operation']}-{tokenize(recipe, array.data.chunks, _coords_token(array))}"


def _coords_token(array: xr.DataArray) -> str:
    values = {str(key): np.asarray(value.values) for key, value in array.coords.items()}
    # By bytes: Dask's own token of an array differs with how the array came to be.
    return tokenize({key: (value.dtype.str, value.tobytes()) for key, value in values.items()})


def _renamed(data: da.Array, name: str) -> da.Array:
    """The same blocks under another name; one alias a block."""
    renamed: da.Array = da.map_blocks(_identity, data, name=name, dtype=data.dtype, meta=data._meta)
    return renamed


def _identity(block: Any) -> Any:
    return block


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
