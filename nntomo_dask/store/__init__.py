"""Zarr in and out: written slab by slab, taken up again where a run ended, with the recipe beside the data.

A store is a Zarr v3 group with one data array and its coordinates. Its metadata are written first, complete or not at
all; then one Dask task writes whole chunks, never part of one, each atomically and with a checksum. Every chunk has a
file even where it holds only zeros: a store is complete when no file is missing, and nothing else has to be kept in
step with the data.
"""

import contextlib
import os
import shutil
import uuid
from pathlib import Path
from typing import Any, NoReturn, overload

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from dask.base import compute as dask_compute
from dask.delayed import delayed

from nntomo_dask.arrays import schema, slabs
from nntomo_dask.compute import chunking, cluster, device
from nntomo_dask.errors import refuse
from nntomo_dask.store import files, lock, projections, reading, samples
from nntomo_dask.store.files import chunk_count, is_store, missing_chunks, missing_coordinates, recipe

StorePath = str | os.PathLike[str]

__all__ = ["chunk_count", "is_store", "missing_chunks", "missing_coordinates", "open", "recipe", "save", "verify"]


@overload
def save(
    array: xr.DataArray, path: StorePath, *, overwrite: bool = ..., progress: cluster.Progress = ...
) -> xr.DataArray: ...
@overload
def save(
    array: xr.Dataset, path: StorePath, *, overwrite: bool = ..., progress: cluster.Progress = ...
) -> xr.Dataset: ...
def save(
    array: xr.DataArray | xr.Dataset,
    path: StorePath,
    *,
    overwrite: bool = False,
    progress: cluster.Progress = "none",
) -> xr.DataArray | xr.Dataset:
    """Compute an array into a Zarr store and open that store.

    Killed at any moment, the same call later computes only what is missing and gives the same bytes. Where the store
    holds the same recipe complete, it is opened at once. A file that is lacking or was removed is made again.

    Parameters
    ----------
    array
        A volume or tilt series, or a training set from `training_samples`; lazy or not. A series in chunks of single
        projections, or a Dataset of several, as `simulate` gives, is written projection by projection.
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
        `path` holds a store with another recipe, or something that is no store; another run is writing to it.
    OSError
        The place cannot be written. What was written stays, and the same call goes on from it.
    """
    target = Path(path).resolve()
    lazy, made_by = _checked(array)
    if not _is_complete(target, made_by):
        with lock.held(target):
            _settle(target)
            files.remove_partial(target)
            _save(lazy, made_by, target, overwrite, progress)
    elif progress == "bar":
        cluster.tell(f"{target.name}: found complete, nothing to compute")
    opened: xr.DataArray | xr.Dataset = open(target)
    return opened


def _save(
    array: xr.DataArray,
    made_by: slabs.Recipe,
    target: Path,
    overwrite: bool,  # noqa: FBT001
    progress: cluster.Progress,
) -> None:
    if not overwrite or not target.exists() or (is_store(target) and slabs.same(recipe(target), made_by)):
        _write(array, made_by, target, progress)
        return
    # Beside the old store, which stays in use until the new one is complete: the new one may be made from it.
    if not files.has_damaged_metadata(target):
        _check_is_ours(target)
    fresh = _fresh(target)
    if fresh.exists() and not (is_store(fresh) and slabs.same(recipe(fresh), made_by)):
        shutil.rmtree(fresh)
    _write(array, made_by, fresh, progress)
    old = target.with_name(f".{target.name}.old-{uuid.uuid4().hex[:8]}")
    target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old)


def open(path: StorePath, *, slices: int | None = None) -> Any:
    """Open a store as a lazy array.

    Parameters
    ----------
    path
        What `save` wrote. Of a store of several series, ``store.zarr/name`` is one of them.
    slices
        Slices of a chunk of the lazy array, at least 1; by default those of the store.

    Returns
    -------
    Volume or tilt series: a DataArray over Dask, float32. Training set, or several series: the Dataset that was saved.

    Raises
    ------
    SchemaError
        There is no store at `path`, or it is not complete.
    """
    if slices is not None and slices < 1:
        refuse("open", needs="slices of at least 1", got=f"{slices}", remedy="leave it out")
    source, wanted = member(Path(path).resolve())
    if not lock.is_held(source):
        _settle(source)
    if not source.exists():
        refuse("open", needs="a store", got=f"nothing at {source}", remedy="check the path")
    if files.has_damaged_metadata(source):
        _refuse_metadata("open", source)
    if not is_store(source):
        refuse(
            "open",
            needs="a store that nntomo_dask wrote",
            got=f"{source}",
            remedy="nntomo import for a file of a microscope; in Python nt.save(nt.volume(array), path)",
        )
    lacking = [f"coordinate {dim}" for dim in missing_coordinates(source)]
    if missing := missing_chunks(source):
        lacking.append(f"{len(missing)} of {files.chunk_count(source)} chunks")
    if lacking:
        refuse(
            "open",
            needs="a complete store",
            got=f"{source} without {' and '.join(lacking)}",
            remedy="run what wrote it again; it computes only what is missing",
        )
    array = files.data_array(source)
    name = files.array_name(source)
    attributes = files.attributes(source)
    if name == files.TABLE:
        return samples.from_table(reading.lazy_data(source, array, slices), attributes)
    dims: tuple[str, ...] = schema.SERIES_DIMS if name == files.PROJECTIONS else tuple(array.metadata.dimension_names)
    coords: dict[Any, Any] = {dim: np.asarray(zarr.open_array(source / dim, mode="r")[:]) for dim in dims}
    if name == files.PROJECTIONS:
        return projections.from_stack(
            lambda member: reading.lazy_series(source, array, slices, member), attributes, coords, wanted, source
        )
    return slabs.label(
        reading.lazy_data(source, array, slices),
        dims=dims,
        coords=coords,
        attrs={key: value for key, value in attributes.items() if key != "recipe"},
        recipe=attributes["recipe"],
        name=name,
    )


def member(path: Path) -> tuple[Path, str | None]:
    """The store of a path, and which of its series is meant: ``store.zarr/name``."""
    parent = path.parent
    if not path.exists() and is_store(parent) and files.array_name(parent) == files.PROJECTIONS:
        return parent, path.name
    return path, None


def verify(path: StorePath) -> list[int]:
    """Read every chunk of a store, set those aside that are damaged, and return which.

    A damaged chunk's file gets the suffix ``.damaged``: the store then lacks it, and running again what wrote it makes
    it anew and removes that file. Where the store cannot be written to, the files stay as they are.

    Raises
    ------
    SchemaError
        There is no store at `path`, or another run is writing to it.
    """
    target, _ = member(Path(path).resolve())
    if files.has_damaged_metadata(target):
        _refuse_metadata("verify", target)
    if not is_store(target):
        refuse("verify", needs="a store that nntomo_dask wrote", got=f"{target}", remedy="check the path")
    with contextlib.ExitStack() as held:
        if writable := os.access(target.parent, os.W_OK) and os.access(target, os.W_OK):
            held.enter_context(lock.held(target))
        missing = set(missing_chunks(target))
        there = [index for index in range(files.chunk_count(target)) if index not in missing]
        found = dask_compute(*(delayed(files.is_damaged)(target, index) for index in there))
        damaged = [index for index, is_damaged in zip(there, found, strict=True) if is_damaged]
        if writable:
            for index in damaged:
                files.set_aside(target, index)
    return damaged


def _checked(array: Any) -> tuple[xr.DataArray, slabs.Recipe]:
    """What is stored, over Dask, and its recipe; a SchemaError for what is neither volume, series nor training set."""
    if projections.come_by_angle(array):
        return projections.to_stack(array)
    if isinstance(array, xr.Dataset):
        return samples.to_table(array), array.attrs["recipe"]
    if isinstance(array, xr.DataArray) and schema.ANGLE in array.dims:
        schema.check_tilt_series(array, who="save")
    else:
        schema.check_volume(array, who="save")
    name = "tilt_series" if schema.ANGLE in array.dims else "volume"
    return slabs.lazy(array).rename(name), slabs.recipe_of(array)


def _is_complete(target: Path, made_by: slabs.Recipe) -> bool:
    return (
        is_store(target)
        and slabs.same(recipe(target), made_by)
        and not missing_chunks(target)
        and not missing_coordinates(target)
    )


def _settle(target: Path) -> None:
    """Put right what a killed `overwrite` left beside a store."""
    fresh = _fresh(target)
    if not target.exists() and is_store(fresh) and not missing_chunks(fresh):
        fresh.rename(target)
    if target.exists():
        for old in target.parent.glob(f".{target.name}.old-*"):
            shutil.rmtree(old)


def _fresh(target: Path) -> Path:
    """Where a store is written that will take the place of another."""
    return target.with_name(f".{target.name}.new")


def _write(array: xr.DataArray, made_by: slabs.Recipe, folder: Path, progress: cluster.Progress) -> None:
    """Create the store unless it is there, and compute the chunks that are missing."""
    if folder.exists():
        _check_is_ours(folder)
        _check_recipe(folder, made_by)
        if missing_coordinates(folder):
            files.write_coordinates(folder, array.coords)
    else:
        files.create(samples.with_level(array), made_by, folder, _chunk_slices(array))
    per_chunk = files.data_array(folder).chunks[0]
    data = _in_whole_chunks(array, per_chunk).data
    missing = set(missing_chunks(folder))
    plan = []  # of each slab its first index and the chunks of it that are wanted
    first = 0
    for size in data.chunks[0]:
        chunks = range(first // per_chunk, -(-(first + size) // per_chunk))
        plan.append((first, tuple(index for index in chunks if index in missing)))
        first += size
    # Written by an array operation, so that Dask makes one task of reading, computing and writing a slab.
    written = da.map_blocks(
        _write_slab,
        data,
        chunks=((1,) * len(plan), *((1,) for _ in data.shape[1:])),
        dtype=bool,
        meta=np.empty((0,) * data.ndim, bool),
        plan=plan,
        path=str(folder / files.array_name(folder)),
        recipe=recipe(folder),
    ).to_delayed()
    tasks = [task for task, (_, wanted) in zip(written.ravel(), plan, strict=True) if wanted]
    try:
        cluster.compute(tasks, description=folder.name, progress=progress)
    finally:
        files.wait_until_flushed()


def _write_slab(
    block: Any,
    *,
    plan: list[tuple[int, tuple[int, ...]]],
    path: str,
    recipe: slabs.Recipe,
    block_id: tuple[int, ...],
) -> npt.NDArray[np.bool_]:
    # A worker elsewhere may outlive the run that sent it here, and another store stand here by now.
    reading.check_same_store("save", path, recipe)
    files.write_chunks(device.to_host(block), *plan[block_id[0]], path)
    return np.ones((1,) * block.ndim, bool)


def _in_whole_chunks(array: xr.DataArray, per_chunk: int) -> xr.DataArray:
    """The array in slabs that are whole chunks of the store: as it is, if it can be."""
    slabs_now = array.data.chunks[0]
    if all(size % per_chunk == 0 for size in slabs_now[:-1]):
        return array
    return array.chunk({array.dims[0]: max(slabs_now[0] // per_chunk, 1) * per_chunk})


def _chunk_slices(array: xr.DataArray) -> int:
    """Slices of a chunk of a new store: the default, or fewer where the array comes in smaller slabs."""
    if array.name == files.TABLE:
        return min(chunking.TABLE_ROWS, array.shape[0])
    if array.name == files.PROJECTIONS:
        return 1
    return min(chunking.slab_slices(array.shape), int(array.data.chunks[0][0]))


def _refuse_metadata(who: str, folder: Path) -> NoReturn:
    refuse(
        who,
        needs="the metadata of a store as they were written",
        got=f"damaged or lost ones in {folder}",
        remedy="overwrite=True (on the command line --overwrite) with what wrote it",
    )


def _check_is_ours(folder: Path) -> None:
    if files.has_damaged_metadata(folder):
        _refuse_metadata("save", folder)
    if not is_store(folder):
        refuse(
            "save",
            needs="a free path, or one of a store that nntomo_dask wrote",
            got=f"{folder}, which is something else",
            remedy="give another path",
        )


def _check_recipe(folder: Path, wanted: slabs.Recipe) -> None:
    existing = recipe(folder)
    if not slabs.same(existing, wanted):
        refuse(
            "save",
            needs="a free path, or one that holds what this call would write",
            got=f"{folder}, made otherwise: {slabs.difference(existing, wanted)}",
            remedy="overwrite=True (on the command line --overwrite), or give another path",
        )
