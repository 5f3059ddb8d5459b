"""Functions of one slab of slices, applied lazily to whole arrays.

A *slab* is a chunk along z: a group of neighbouring slices.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed

from nntomo_dask.arrays import finite, labels, recipes, schema
from nntomo_dask.compute import chunking, configuration


def label(
    data: da.Array,
    *,
    dims: tuple[str, ...],
    coords: Mapping[Hashable, Any],
    attrs: Mapping[str, Any],
    recipe: recipes.Recipe,
    name: str,
) -> xr.DataArray:
    """A labelled lazy array whose Dask name is a digest of its recipe, chunks and coordinates."""
    configuration.check_arrays(name)
    array = xr.DataArray(data, dims=dims, coords=coords, attrs={**attrs, "recipe": recipes.Shown(recipe)}, name=name)
    return labels.with_labels(array.copy(data=_renamed(data, recipes.name_of(recipe, array))))


def map_slabs(
    function: Callable[..., Any],
    array: xr.DataArray,
    *,
    dims: tuple[str, ...],
    coords: Mapping[Hashable, Any],
    recipe: recipes.Recipe,
    name: str,
    extra: Sequence[Any] = (),
    halo: int = 0,
    block: int = 0,
    pixel_size: float | None = None,
    **parameters: Any,
) -> xr.DataArray:
    """Apply ``function(slab, *extra, **parameters)`` to every slab of slices.

    A slab that holds NaN or infinity is refused when it is computed, with the name of the recipe's operation.

    Parameters
    ----------
    function
        Maps (slice, …) to (slice, …). Each slice is computed independently of the others.
    dims, coords
        Dims and coordinates of the result; the first dim is z.
    extra
        Further arguments. Dask arrays without dimensions are computed before they are passed.
    halo
        Slices on either side of a slab that the function gets too; beyond the ends they are mirrored. What it returns
        has only the slab's own slices.
    block
        Slices of a slab that the function gets, counted from the first of the array, whatever its chunks; 0 for these.
    pixel_size
        Of the result, where it differs from that of the array.
    """
    shape = tuple(np.size(coords[dim]) for dim in dims[1:])
    who, names = recipe["operation"], tuple(str(dim) for dim in array.dims)
    data = lazy(array).data
    mapped = map_blocks(function, data, shape, who=who, dims=names, extra=extra, halo=halo, block=block, **parameters)
    attrs = {key: value for key, value in array.attrs.items() if key != "recipe"}
    if pixel_size is not None:
        attrs["pixel_size"] = pixel_size
    return label(mapped, dims=dims, coords=coords, attrs=attrs, recipe=recipe, name=name)


def map_blocks(
    function: Callable[..., Any],
    data: da.Array,
    shape: tuple[int, ...],
    *,
    who: str,
    dims: tuple[str, ...],
    extra: Sequence[Any] = (),
    halo: int = 0,
    block: int = 0,
    **parameters: Any,
) -> da.Array:
    """``function(slab, *extra, **parameters)`` of every slab of a lazy array, without labels; see `map_slabs`.

    `shape` is that of a slice of the result, which may have more dims than a slice of `data`. `who` refuses values that
    are not finite, at a place in `dims`, those of `data`.
    """
    if halo > 0 or block > 0:
        heights = chunking.slab_chunks(data.shape[0], block) if block else data.chunks[0]
        return _with_halo(function, data, heights, extra, parameters, halo, shape, who, dims)
    mapped: da.Array = da.map_blocks(
        finite.Checked(function, who, dims, finite.starts(data)),
        data,
        *extra,
        chunks=(data.chunks[0], *((size,) for size in shape)),
        new_axis=list(range(1, len(shape) + 2 - data.ndim)),
        dtype=np.float32,
        meta=np.empty((0,) * (len(shape) + 1), np.float32),
        **parameters,
    )
    return mapped


def _with_halo(
    function: Callable[..., Any],
    data: da.Array,
    heights: tuple[int, ...],
    extra: Sequence[Any],
    parameters: dict[str, Any],
    halo: int,
    shape: tuple[int, ...],
    who: str,
    dims: tuple[str, ...],
) -> da.Array:
    """Slabs of their own heights that see their neighbours' slices.

    Each is one task that reads what it sees again and needs no other slab.
    """
    seen = mirrored(data.shape[0], halo)
    blocks, first = [], 0
    for height in heights:
        wanted = seen[first : first + height + 2 * halo]
        low, high = int(wanted.min()), int(wanted.max()) + 1
        block = delayed(_call_with_halo)(data[low:high], wanted, who, dims, function, list(extra), parameters)
        blocks.append(da.from_delayed(block, (height, *shape), np.float32))
        first += height
    joined: da.Array = da.concatenate(blocks)
    return joined


def _call_with_halo(
    rows: Any,
    places: np.ndarray[Any, Any],
    who: str,
    dims: tuple[str, ...],
    function: Callable[..., Any],
    extra: list[Any],
    parameters: dict[str, Any],
) -> Any:
    first = int(places.min())
    finite.check_slab(rows, who=who, dims=dims, first=first)
    return function(rows[places - first], *extra, **parameters)


def mirrored(count: int, border: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Which slice of `count` each place from -border to count + border shows; again and again where that is wider."""
    places = np.mod(np.arange(-border, count + border), 2 * count)
    return np.asarray(np.minimum(places, 2 * count - 1 - places))


@configuration.ours()
def generate_slabs(
    function: Callable[..., Any],
    shape: tuple[int, int, int],
    /,
    *,
    recipe: recipes.Recipe,
    pixel_size: float,
    units: schema.Units = "px",
    **parameters: Any,
) -> xr.DataArray:
    """A volume whose slabs are ``function(z_indices, **parameters)``, from (slice,) to (slice, y, x)."""
    schema.check_pixel_size(pixel_size, units, who=recipe["operation"])
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
    attrs = {"units": units, "pixel_size": pixel_size}
    return label(data, dims=schema.VOLUME_DIMS, coords=coords, attrs=attrs, recipe=recipe, name="volume")


def lazy(array: xr.DataArray) -> xr.DataArray:
    """The array as a Dask array: unchanged if it is one, otherwise in slabs of the default height."""
    if array.chunks is not None:
        return array
    configuration.check_arrays(str(array.name or "array"))
    return array.chunk({dim: -1 for dim in array.dims} | {schema.Z: chunking.slab_slices(array.shape)})


def _renamed(data: da.Array, name: str) -> da.Array:
    """The same blocks under another name; one alias for each block."""
    renamed: da.Array = da.map_blocks(_identity, data, name=name, dtype=data.dtype, meta=data._meta)
    return renamed


def _identity(block: Any) -> Any:
    return block
