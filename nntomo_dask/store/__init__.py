"""Saving, opening and verifying Zarr stores.

A store is a Zarr v3 group with one data array and its coordinates. Its metadata are written first and in one step.
After that each Dask task writes whole chunks; every chunk is written atomically and has a checksum. A chunk of zeros
has a file like any other, so a store is complete when no file is missing, and nothing else records the progress.
"""

from nntomo_dask.store.files import chunk_count, is_store, missing_chunks, missing_coordinates, recipe
from nntomo_dask.store.opening import member, open, open_dataset
from nntomo_dask.store.saving import save, save_together
from nntomo_dask.store.verifying import verify

__all__ = [
    "chunk_count",
    "is_store",
    "member",
    "missing_chunks",
    "missing_coordinates",
    "open",
    "open_dataset",
    "recipe",
    "save",
    "save_together",
    "verify",
]
