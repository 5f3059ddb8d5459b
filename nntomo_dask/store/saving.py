"""Computing arrays into stores, one or several in one computation."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.array.optimization import optimize as optimize_arrays
from dask.core import flatten
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.typing import Key

from nntomo_dask import aside
from nntomo_dask.arrays import recipes, schema, slabs
from nntomo_dask.compute import chunking, cluster, configuration, device
from nntomo_dask.store import files, lock, names, opening, places, projections, reading, samples, zarr_settings
from nntomo_dask.store.places import StorePath
from nntomo_dask.untrusted import printable

Labelled = TypeVar("Labelled", bound=xr.DataArray | xr.Dataset)
Place = TypeVar("Place", bound=StorePath)

_BLOCKS, _JOINED = "blocks", "joined-slab"  # layers of the graph that is computed


def save(array: Labelled, path: StorePath, *, overwrite: bool = False, progress: cluster.Progress = "none") -> Labelled:
    """Compute an array into a Zarr store, and open that store.

    If the run is killed, the same call computes only what is missing, and the bytes are those of an uninterrupted run.
    A complete store with the same recipe is opened without computing anything. A file that is missing is made again.

    Parameters
    ----------
    array
        A volume or tilt series, or a training set from `training_samples`; lazy or in memory. A series in chunks of
        single projections, or a Dataset of several such series as `simulate` returns, is written projection by
        projection.
    path
        Folder of the store; by custom its name ends in .zarr. It cannot lie inside another store.
    overwrite
        Replace a store with another recipe, once the new one is complete. The new one may be computed from the old.
    progress
        "bar" shows how many slabs are done.

    Returns
    -------
    The array of the store, lazy, as `open` or `open_dataset` gives it.

    Raises
    ------
    SchemaError
        `path` holds a store with another recipe, or something that is no store, or lies inside a store; or another run
        is writing to it.
    OSError
        The store cannot be written. The chunks that were written are kept, and the same call continues from them.
    """
    return save_together({path: array}, overwrite=overwrite, progress=progress)[path]


@configuration.ours()
@zarr_settings.ours()
def save_together(
    arrays: Mapping[Place, Labelled], *, overwrite: bool = False, progress: cluster.Progress = "none"
) -> dict[Place, Labelled]:
    """Compute several arrays into a Zarr store each; what they have in common is computed once.

    Every store is as `save` would write it: it has a recipe and a lock of its own, and a rerun computes only the chunks
    that are missing in it. Arrays have something in common where their Dask graphs do, such as the mean and the spread
    of one ensemble.

    Parameters
    ----------
    arrays
        The array for each path, as for `save`. No two paths are equal, and none lies inside another.
    overwrite
        As for `save`. All stores are replaced at the end, so each may be computed from the old ones.
    progress
        "bar" shows how many slabs are done; a slab that is written to several stores counts once.

    Returns
    -------
    The array of each store, as for `save`.

    Raises
    ------
    SchemaError, OSError
        As for `save`, for any of the stores. A SchemaError comes before anything is computed or written.
    """
    outputs = _checked(arrays, overwrite=overwrite)
    for output in outputs:
        places.remove_leftovers(output.target, output.made_by)
    wanted = [output for output in outputs if not output.is_complete()]
    if progress == "bar":
        for output in outputs:
            if output not in wanted:
                cluster.tell(f"{printable(output.target.name)}: found complete, nothing to compute")
    if wanted:
        with contextlib.ExitStack() as held:
            for output in wanted:
                held.enter_context(lock.held(output.target))
            _write_all(wanted, overwrite=overwrite, progress=progress)
    return {
        path: cast("Labelled", opening.open_dataset(path) if isinstance(array, xr.Dataset) else opening.open(path))
        for path, array in arrays.items()
    }


def check_together(arrays: Mapping[Place, Labelled], *, overwrite: bool = False) -> bool:
    """Whether `save_together` would find all stores complete. Nothing is computed or written.

    Raises
    ------
    SchemaError
        As for `save_together`, unless another run has to be asked.
    """
    return all(output.is_complete() for output in _checked(arrays, overwrite=overwrite))


def _checked(arrays: Mapping[Place, Labelled], *, overwrite: bool) -> list["_Output"]:
    outputs = [_Output.of(array, aside.resolved(path)) for path, array in arrays.items()]
    places.check_places([output.target for output in outputs])
    for output in outputs:
        output.check(overwrite=overwrite)
    return outputs


@dataclass(frozen=True, eq=False)
class _Output:
    """A store to be written."""

    array: xr.DataArray  # what is stored, over Dask
    made_by: recipes.Recipe
    target: Path

    @classmethod
    def of(cls, array: xr.DataArray | xr.Dataset, target: Path) -> "_Output":
        """Check an array; a SchemaError where it is no volume, tilt series or training set."""
        if projections.come_by_angle(array):
            return cls(*projections.to_stack(array), target)
        if isinstance(array, xr.Dataset):
            return cls(samples.to_array(array), array.attrs["recipe"], target)
        if isinstance(array, xr.DataArray) and schema.ANGLE in array.dims:
            schema.check_tilt_series(array, who="save")
        else:
            schema.check_volume(array, who="save", slices="any")
        name = "tilt_series" if schema.ANGLE in array.dims else "volume"
        return cls(slabs.lazy(array).rename(name), recipes.recipe_of(array), target)

    def check(self, *, overwrite: bool) -> None:
        """Raise a SchemaError where the target holds what may not be continued or replaced, or cannot be stored."""
        files.check_can_be_stored(self.array, self.made_by)
        if self.target.exists():
            places.check_contents(self.target, self.made_by, overwrite=overwrite)

    def is_complete(self) -> bool:
        """Whether the store is there already, with nothing missing."""
        return (
            places.is_of(self.target, self.made_by)
            and not files.missing_chunks(self.target)
            and not files.missing_coordinates(self.target)
        )

    def create(self, *, overwrite: bool) -> Path:
        """Create the store unless it is there, and give its folder: the target, or the new store beside an old one."""
        is_free = not self.target.exists() or places.is_empty(self.target)
        replaced = overwrite and not is_free and not places.is_of(self.target, self.made_by)
        if not replaced or not places.is_of(places.new_store(self.target), self.made_by):
            places.remove_new_store(self.target)
        folder = places.new_store(self.target) if replaced else self.target
        if not folder.exists() or places.is_empty(folder):
            files.create(samples.with_level(self.array), self.made_by, folder, self._chunk_slices())
            return folder
        places.check_contents(folder, self.made_by, overwrite=False)
        if files.has_damaged_metadata(folder) or files.missing_coordinates(folder):
            files.renew(samples.with_level(self.array), folder)
        return folder

    def _chunk_slices(self) -> int:
        """Slices in a chunk of a new store: the default, or fewer where the array comes in smaller slabs."""
        if self.array.name == names.TABLE:
            return min(chunking.TABLE_ROWS, self.array.shape[0])
        if self.array.name == names.PROJECTIONS:
            return 1
        return min(chunking.slab_slices(self.array.shape), int(self.array.data.chunks[0][0]))


def _write_all(outputs: Sequence[_Output], *, overwrite: bool, progress: cluster.Progress) -> None:
    """Compute the missing chunks of stores whose locks are held."""
    for output in outputs:
        places.finish_replacement(output.target)
        files.remove_partial(output.target)
        files.remove_partial(places.new_store(output.target))
        # A second check: another run may have written the store before the lock was held.
        output.check(overwrite=overwrite)
    folders = [output.create(overwrite=overwrite) for output in outputs]
    names = ", ".join(printable(output.target.name) for output in outputs)
    try:
        tasks = _tasks([_Plan.of(output.array, folder) for output, folder in zip(outputs, folders, strict=True)])
        cluster.compute(tasks, description=names, progress=progress)
    finally:
        files.wait_until_flushed()
    for output, folder in zip(outputs, folders, strict=True):
        if folder != output.target:
            places.replace(output.target)


@dataclass(frozen=True)
class _Slab:
    """A slab of an array and the chunks of it that are missing in the store."""

    first: int
    size: int
    missing: tuple[int, ...]


@dataclass(frozen=True)
class _Plan:
    """The slabs of a store, and the lazy array that writes them when it is computed: one block for each slab."""

    slabs: list[_Slab]
    written: da.Array

    @classmethod
    def of(cls, array: xr.DataArray, folder: Path) -> "_Plan":
        """Plan the slabs of an array for the store in a folder."""
        per_chunk = files.read(folder).chunks[0]
        data = _in_whole_chunks(array, per_chunk).data
        missing = set(files.missing_chunks(folder))
        plan = []
        first = 0
        for size in data.chunks[0]:
            chunks = range(first // per_chunk, -(-(first + size) // per_chunk))
            plan.append(_Slab(first, size, tuple(index for index in chunks if index in missing)))
            first += size
        # An array operation, so that Dask makes a single task of reading, computing and writing a slab.
        written = da.map_blocks(
            _write_slab,
            data,
            chunks=((1,) * len(plan), *((1,) for _ in data.shape[1:])),
            dtype=bool,
            meta=np.empty((0,) * data.ndim, bool),
            plan=[(slab.first, slab.missing) for slab in plan],
            path=str(folder / files.array_name(folder)),
            recipe=files.recipe(folder),
        )
        return cls(plan, written)


def _tasks(plans: Sequence[_Plan]) -> list[Delayed]:
    """A task for each slab that lacks a chunk in at least one of the stores.

    The graphs are optimized as one graph. Dask would optimize them one by one, and then fuse what they have in common
    into the tasks of each store, which would compute it again for each.
    """
    merged = HighLevelGraph.merge(*(plan.written.dask for plan in plans))
    optimized = optimize_arrays(merged, list(flatten([plan.written.__dask_keys__() for plan in plans])))
    blocks_of: dict[tuple[int, int], list[Key]] = {}
    for plan in plans:
        for slab, block in zip(plan.slabs, flatten(plan.written.__dask_keys__()), strict=True):
            if slab.missing:
                blocks_of.setdefault((slab.first, slab.size), []).append(block)
    # One layer for all slabs: joined one by one, every task would copy the graph.
    joined: dict[Key, Any] = {
        (_JOINED, *slab): (_all_written, blocks) for slab, blocks in blocks_of.items() if len(blocks) > 1
    }
    graph = HighLevelGraph({_BLOCKS: dict(optimized), _JOINED: joined}, {_BLOCKS: set(), _JOINED: {_BLOCKS}})
    return [
        Delayed((_JOINED, *slab), graph, layer=_JOINED) if len(blocks) > 1 else Delayed(blocks[0], graph, layer=_BLOCKS)
        for slab, blocks in blocks_of.items()
    ]


def _all_written(_blocks: list[npt.NDArray[np.bool_]]) -> None:
    """Depend on the blocks of a slab in several stores."""


@zarr_settings.ours()
def _write_slab(
    block: Any,
    *,
    plan: list[tuple[int, tuple[int, ...]]],
    path: str,
    recipe: recipes.Recipe,
    block_id: tuple[int, ...],
) -> npt.NDArray[np.bool_]:
    # A worker of a cluster may outlive the run that sent the task, and another store may be at the path by then.
    reading.check_same_store("save", path, recipe)
    files.write_chunks(device.to_host(block), *plan[block_id[0]], path)
    return np.ones((1,) * block.ndim, bool)


def _in_whole_chunks(array: xr.DataArray, per_chunk: int) -> xr.DataArray:
    """The array in slabs that are whole chunks of the store; unchanged where they are already."""
    sizes = array.data.chunks[0]
    if all(size % per_chunk == 0 for size in sizes[:-1]):
        return array
    return array.chunk({array.dims[0]: max(sizes[0] // per_chunk, 1) * per_chunk})
