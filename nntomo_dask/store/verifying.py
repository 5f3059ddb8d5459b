"""Verifying the checksums of stores."""

import contextlib
import os
from pathlib import Path

from dask.base import compute as dask_compute
from dask.delayed import delayed

from nntomo_dask.errors import refuse
from nntomo_dask.store import files, lock, opening, zarr_settings
from nntomo_dask.store.places import StorePath


@zarr_settings.ours()
def verify(path: StorePath) -> list[int]:
    """Read every chunk of a store, set damaged chunks aside, and return their numbers.

    The file of a damaged chunk gets the suffix ``.damaged``, so the chunk counts as missing. A rerun of what wrote the
    store computes the chunk again and removes that file. Where the store cannot be written to, no file is renamed.

    Raises
    ------
    SchemaError
        There is no store at `path`, or another run is writing to it.
    """
    target, _ = opening.member(Path(path).resolve())
    if files.has_damaged_metadata(target):
        files.refuse_metadata("verify", target)
    if not files.is_store(target):
        refuse("verify", needs="a store that nntomo_dask wrote", got=f"{target}", remedy="check the path")
    with contextlib.ExitStack() as held:
        if writable := os.access(target.parent, os.W_OK) and os.access(target, os.W_OK):
            held.enter_context(lock.held(target))
        missing = set(files.missing_chunks(target))
        there = [index for index in range(files.chunk_count(target)) if index not in missing]
        found = dask_compute(*(delayed(files.is_damaged)(target, index) for index in there))
        damaged = [index for index, is_damaged in zip(there, found, strict=True) if is_damaged]
        if writable:
            for index in damaged:
                files.set_aside(target, index)
    return damaged
