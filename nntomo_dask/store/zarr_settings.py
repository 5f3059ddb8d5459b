"""Zarr as the stores need it, whatever a user has configured for other data.

A codec pipeline or a codec that is not installed, buffers on a GPU, another layout of metadata: within `ours`, Zarr's
own defaults hold, so that a store has the same bytes and opens everywhere.
"""

from contextlib import AbstractContextManager
from typing import Any

import zarr

from nntomo_dask.compute.configuration import Shared

_KEPT = {"threading"}  # how many threads there are changes no result


def _defaults() -> AbstractContextManager[Any]:
    sections = {
        name: value for defaults in zarr.config.defaults for name, value in defaults.items() if name not in _KEPT
    }
    context: AbstractContextManager[Any] = zarr.config.set(sections)
    return context


ours = Shared(_defaults)
