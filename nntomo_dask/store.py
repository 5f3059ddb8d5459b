"""Zarr in and out: written slab by slab, taken up again where a run ended, with the recipe beside the data.

A store is a Zarr v3 group with one data array and its coordinates. Its metadata are written first, complete or not at
all; then one Dask task writes whole chunks, never part of one, each atomically. Every chunk has a file even where it
holds only zeros: a store is complete when no file is missing, and nothing else has to be kept in step with the data.
"""

import os
import shutil
import uuid
import warnings
from pathlib import Path
from typing import Any, cast

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
import zarr.codecs
from dask.delayed import delayed

from nntomo_dask import chunking, cluster, schema, slabs

StorePath = str | os.PathLike[str]

_COORDINATES = frozenset({*schema.VOLUME_DIMS, *schema.SERIES_DIMS})


def save(
    array: xr.DataArray, path: StorePath, *, overwrite: bool = False, progress: cluster.Progress = "none"
) -> xr.DataArray:
    """Compute an array into a Zarr store and open that store.

    Killed at any moment, the same call later computes only what is missing and gives the same bytes. Where the store
    holds the same recipe complete, it is opened at once. A file that is lacking or was removed is made again.

    Parameters
    ----------
    array
        A volume or tilt series, lazy or not.
    path
        Folder of the store; ends in .zarr by custom.
    overwrite
        Take the place of a store with another recipe, once the new one is complete.
    progress
        "bar" shows how many slabs are done.

    Returns
    -------
    The store's array, lazy, as `open` gives it.

    Raises
    ------
    SchemaError
        `path` holds a store with another recipe, or something that is no store.
    OSError
        The place cannot be written. What was written stays, and the same call goes on from it.
    """
    target = _settled(path)
    lazy = _checked(array)
    made_by = slabs.recipe_of(array)
    if (
        not target.exists()
        or not overwrite
        or (is_store(target) and slabs.same(_attributes(target)["recipe"], made_by))
    ):
        _write(lazy, made_by, target, progress)
        return open(target)
    # Beside the old store, which stays in use until the new one is complete: the new one may be made from it.
    _check_is_ours(target)
    fresh = _fresh(target)
    if fresh.exists() and not (is_store(fresh) and slabs.same(_attributes(fresh)["recipe"], made_by)):
        shutil.rmtree(fresh)
    _write(lazy, made_by, fresh, progress)
    old = target.with_name(f".{target.name}.old-{uuid.uuid4().hex[:8]}")
    target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old)
    return open(target)


def open(path: StorePath, *, slices: int | None = None) -> xr.DataArray:
    """Open a store as a lazy array.

    Parameters
    ----------
    path
        What `save` wrote.
    slices
        Slices of a chunk of the lazy array; by default those of the store.

    Returns
    -------
    Volume or tilt series over Dask, float32.

    Raises
    ------
    SchemaError
        There is no store at `path`, or it is not complete.
    """
    source = _settled(path)
    if not source.exists():
        schema.refuse("open", needs="a store", got=f"nothing at {source}", do="check the path")
    if not is_store(source):
        schema.refuse(
            "open",
            needs="a store that nntomo_dask wrote",
            got=f"{source}",
            do="nntomo import for an MRC file; in Python nt.save(nt.volume(array), path) or nt.tilt_series for others",
        )
    missing = missing_chunks(source)
    if missing:
        schema.refuse(
            "open",
            needs="a complete store",
            got=f"{source} without {len(missing)} of {_chunk_count(source)} chunks",
            do="run what wrote it again; it computes only what is missing",
        )
    dataset = xr.open_zarr(source, chunks=None, consolidated=False)
    (name,) = dataset.data_vars
    eager = dataset[name]
    attributes = _attributes(source)
    per_chunk = _zarr_array(source).chunks[0] if slices is None else slices
    chunks = chunking.slab_chunks(eager.sizes[schema.Z], per_chunk)
    rest = [(size,) for size in eager.shape[1:]]
    data = da.arange(eager.sizes[schema.Z], chunks=(chunks,)).map_blocks(
        _read,
        dtype=np.float32,
        new_axis=[1, 2],
        chunks=(chunks, *rest),
        meta=np.empty((0,) * 3, np.float32),
        path=str(source / str(name)),
        recipe=attributes["recipe"],
    )
    return slabs.label(
        data,
        dims=tuple(str(dim) for dim in eager.dims),
        coords={dim: eager[dim].values for dim in eager.dims},
        attrs={key: value for key, value in attributes.items() if key != "recipe"},
        recipe=attributes["recipe"],
        name=str(name),
    )


def recipe(path: StorePath) -> slabs.Recipe:
    """How what lies in a store was made."""
    return cast("slabs.Recipe", _attributes(Path(path))["recipe"])


def missing_chunks(path: StorePath) -> list[int]:
    """Chunks along z that a store should have and has not."""
    folder = Path(path)
    return [index for index in range(_chunk_count(folder)) if not _has_bytes(_chunk_file(folder, index))]


def _checked(array: xr.DataArray) -> xr.DataArray:
    """A volume or tilt series over Dask; a SchemaError for anything else."""
    if isinstance(array, xr.DataArray) and schema.ANGLE in array.dims:
        schema.check_tilt_series(array, who="save")
    else:
        schema.check_volume(array, who="save")
    return slabs.lazy(array)


def _settled(path: StorePath) -> Path:
    """The absolute path, once what a killed `overwrite` left beside it is put right."""
    target = Path(path).resolve()
    fresh = _fresh(target)
    if not target.exists() and is_store(fresh) and not missing_chunks(fresh):
        fresh.rename(target)
    if target.exists():
        for old in target.parent.glob(f".{target.name}.old-*"):
            shutil.rmtree(old)
    return target


def _fresh(target: Path) -> Path:
    """Where a store is written that will take the place of another."""
    return target.with_name(f".{target.name}.new")


def _write(array: xr.DataArray, made_by: slabs.Recipe, folder: Path, progress: cluster.Progress) -> None:
    """Create the store unless it is there, and compute the chunks that are missing."""
    if folder.exists():
        _check_is_ours(folder)
        _check_recipe(folder, made_by)
    else:
        _create(array, made_by, folder)
    per_chunk = _zarr_array(folder).chunks[0]
    array = _in_whole_chunks(array, per_chunk)
    missing = set(missing_chunks(folder))
    tasks = []
    first = 0
    for block, slices in zip(array.data.to_delayed().ravel(), array.data.chunks[0], strict=True):
        wanted = [index for index in range(first // per_chunk, -(-(first + slices) // per_chunk)) if index in missing]
        if wanted:
            tasks.append(delayed(_write_chunks)(block, first, wanted, str(folder / _array_name(folder))))
        first += slices
    cluster.compute(tasks, description=folder.name, progress=progress)


def _in_whole_chunks(array: xr.DataArray, per_chunk: int) -> xr.DataArray:
    """The array in slabs that are whole chunks of the store: as it is, if it can be."""
    slabs_now = array.data.chunks[0]
    if all(size % per_chunk == 0 for size in slabs_now[:-1]):
        return array
    return array.chunk({schema.Z: max(slabs_now[0] // per_chunk, 1) * per_chunk})


def _chunk_slices(array: xr.DataArray) -> int:
    """Slices of a chunk of a new store: the default, or fewer where the array comes in smaller slabs."""
    return min(chunking.slab_slices(array.shape), int(array.data.chunks[0][0]))


def _create(array: xr.DataArray, made_by: slabs.Recipe, folder: Path) -> None:
    """Write a store's metadata and coordinates, at once or not at all."""
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        group = zarr.open_group(partial, mode="w", zarr_format=3)
        group.create_array(
            "tilt_series" if schema.ANGLE in array.dims else "volume",
            shape=array.shape,
            chunks=(_chunk_slices(array), *array.shape[1:]),
            dtype="float32",
            compressors=zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=4),
            fill_value=0.0,
            dimension_names=[str(dim) for dim in array.dims],
            attributes={**{str(key): _plain(value) for key, value in array.attrs.items()}, "recipe": made_by},
        )
        for dim in array.dims:
            values = array[dim].values
            written = group.create_array(
                str(dim), shape=values.shape, chunks=values.shape, dtype=values.dtype, dimension_names=[str(dim)]
            )
            written[:] = values
        with warnings.catch_warnings():
            # Zarr warns that consolidated metadata are not in the v3 specification; xarray, where they are missing.
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(partial)
        try:
            partial.rename(folder)
        except OSError:
            if not is_store(folder):
                raise
            _check_recipe(folder, made_by)  # another process was faster
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_chunks(block: npt.NDArray[np.float32], first: int, wanted: list[int], path: str) -> None:
    """Write some whole chunks of a slab that begins at slice `first`."""
    array = zarr.open_array(path, mode="r+").with_config({"write_empty_chunks": True})
    per_chunk = array.chunks[0]
    for index in wanted:
        start = index * per_chunk
        stop = min(start + per_chunk, array.shape[0])
        array[start:stop] = np.asarray(block[start - first : stop - first])


def _read(z_indices: npt.NDArray[np.int64], *, path: str, recipe: slabs.Recipe) -> npt.NDArray[np.float32]:
    array = zarr.open_array(path, mode="r")
    if array.attrs["recipe"] != recipe:
        schema.refuse("open", needs=f"the store that was opened at {path}", got="another by now", do="open it again")
    return np.asarray(array[int(z_indices[0]) : int(z_indices[-1]) + 1], np.float32)


def is_store(folder: Path) -> bool:
    """Whether a folder is a store of ours, complete or not."""
    try:
        group = zarr.open_group(folder, mode="r", zarr_format=3)
        return "recipe" in group[_array_name(folder)].attrs
    except (FileNotFoundError, NotADirectoryError, KeyError, ValueError):  # JSON that does not parse is a ValueError
        return False


def _check_is_ours(folder: Path) -> None:
    if not is_store(folder):
        schema.refuse(
            "save",
            needs="a free path, or one of a store that nntomo_dask wrote",
            got=f"{folder}, which is something else",
            do="give another path",
        )


def _check_recipe(folder: Path, wanted: slabs.Recipe) -> None:
    existing = cast("slabs.Recipe", _attributes(folder)["recipe"])
    if not slabs.same(existing, wanted):
        schema.refuse(
            "save",
            needs="a free path, or one that holds what this call would write",
            got=f"{folder}, made otherwise: {slabs.difference(existing, wanted)}",
            do="overwrite=True (on the command line --overwrite), or give another path",
        )


def _attributes(folder: Path) -> dict[str, Any]:
    return dict(_zarr_array(folder).attrs)


def _array_name(folder: Path) -> str:
    """Name of the group's data array: the one that is no coordinate."""
    (name,) = (entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name not in _COORDINATES)
    return name


def _zarr_array(folder: Path) -> Any:
    return zarr.open_array(folder / _array_name(folder), mode="r")


def _chunk_count(folder: Path) -> int:
    array = _zarr_array(folder)
    return -(-int(array.shape[0]) // int(array.chunks[0]))


def _has_bytes(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def _chunk_file(folder: Path, index: int) -> Path:
    return folder / _array_name(folder) / "c" / str(index) / "0" / "0"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
