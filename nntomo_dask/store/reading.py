"""Lazy arrays whose blocks are read from a store when they are computed."""

from pathlib import Path

import dask.array as da
import numpy as np
import numpy.typing as npt

from nntomo_dask.arrays import recipes
from nntomo_dask.compute import chunking
from nntomo_dask.errors import refuse
from nntomo_dask.store import files, projections, zarr_settings
from nntomo_dask.store.metadata import Metadata


def lazy_data(array: Metadata, slices: int | None) -> da.Array:
    """Lazy array of a store's data, in blocks of `slices`, or of the store's own chunks."""
    count, per_chunk = array.shape[0], array.chunks[0] if slices is None else slices
    chunks = chunking.slab_chunks(count, per_chunk)
    rest = [(size,) for size in array.shape[1:]]
    blocks: da.Array = da.arange(count, chunks=(chunks,)).map_blocks(
        _read,
        dtype=np.float32,
        new_axis=list(range(1, len(array.shape))),
        chunks=(chunks, *rest),
        meta=np.empty((0,) * len(array.shape), np.float32),
        path=str(array.folder / array.name),
        recipe=array.recipe,
    )
    return blocks


def lazy_series(array: Metadata, slices: int | None, place: int) -> da.Array:
    """Lazy array (z, angle, detector) of the series number `place` in a store that is chunked by angle."""
    angles, _, count, detector = array.shape
    chunks = chunking.slab_chunks(count, slices or chunking.slab_slices((count, angles, detector)))
    blocks: da.Array = da.arange(count, chunks=(chunks,)).map_blocks(
        _read,
        dtype=np.float32,
        new_axis=[1, 2],
        chunks=(chunks, (angles,), (detector,)),
        meta=np.empty((0, 0, 0), np.float32),
        path=str(array.folder / array.name),
        recipe=array.recipe,
        series=place,
    )
    return blocks


@zarr_settings.ours()
def _read(
    indices: npt.NDArray[np.int64], *, path: str, recipe: recipes.Recipe, series: int | None = None
) -> npt.NDArray[np.float32]:
    """A slab of an array chunked along the first dim, or of one series of an array chunked by angle."""
    array = check_same_store("open", path, recipe)
    first, last = int(indices[0]), int(indices[-1])
    try:
        if series is not None:
            return projections.read_slab(array, series, first, last + 1)
        return np.asarray(array[first : last + 1], np.float32)
    except (ValueError, RuntimeError) as error:
        store = Path(path).parent
        refuse(
            "open",
            needs="chunks as they were written",
            got=f"a damaged one between {first} and {last} of {store} ({error})",
            remedy=f"nntomo info --verify {store}, then rerun what wrote the store",
        )


def check_same_store(who: str, path: str, recipe: recipes.Recipe) -> files.Stored:
    """The Zarr array at `path`; a SchemaError where another store has replaced the one that was opened."""
    array = files.opened(Path(path))
    if array.attrs["recipe"] != recipe:
        refuse(who, needs=f"the store that was opened at {path}", got="another store", remedy="open it again")
    return array
