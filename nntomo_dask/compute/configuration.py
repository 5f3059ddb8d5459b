"""What a user's configuration of Dask may not change: how graphs are made here, and the clusters of this machine.

A configuration that is right for a user's own programs can be wrong for this one: another array library, other rules
for joining tasks, a folder that does not exist. Within `ours`, Dask's own defaults hold.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import dask

from nntomo_dask.errors import refuse

# Sections whose values change which tasks there are, or what they compute with.
_SECTIONS = ("array", "optimization", "tokenize", "multiprocessing")
_QUERY_PLANNING = "query-planning"  # of arrays: it holds from the import of dask.array to the end of the process


class Shared:
    """A setting of the whole process that threads may ask for at the same time.

    It is made by the first that comes and ended by the last that goes; one alone would restore what another still uses.

    Parameters
    ----------
    make
        Returns the context that makes the setting.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[Any]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._inside = 0
        self._made = contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Within this context, or this decorated function, the setting holds."""
        with self._lock:
            if self._inside == 0:
                self._made.enter_context(self._make())
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._made.close()


def _defaults() -> dict[str, Any]:
    """Dask's configuration as it comes, without what a user has set; that of distributed is in it once imported."""
    merged: dict[str, Any] = dask.config.merge(*dask.config.defaults)
    return merged


def _sections() -> dict[str, Any]:
    """Every value of `_SECTIONS` by its name."""
    defaults = _defaults()
    return {
        f"{section}.{name}": value
        for section in _SECTIONS
        for name, value in defaults.get(section, {}).items()
        if name != _QUERY_PLANNING
    }


ours = Shared(lambda: dask.config.set(_sections()))


def local_cluster() -> AbstractContextManager[Any]:
    """The context in which a cluster of this machine starts: nothing of it is as a user has configured other clusters.

    These may ask for encryption, another network, modules that workers import, or a folder for temporary files that
    does not exist here.
    """
    defaults = _defaults()["distributed"]  # there, since whoever starts a cluster has imported it
    context: AbstractContextManager[Any] = dask.config.set(
        {"distributed": defaults, "temporary-directory": None} | _sections()
    )
    return context


def check_arrays(who: str) -> None:
    """Raise a SchemaError where Dask's arrays are those of its query planner.

    Neither xarray nor this package know them. Which arrays there are is decided when dask.array is imported, and stays
    so to the end of the process.
    """
    import dask.array

    if getattr(dask.array, "ARRAY_EXPR_ENABLED", False):
        refuse(
            who,
            needs="the usual arrays of Dask",
            got="those of its query planner, by the setting array.query-planning of Dask's configuration",
            remedy="DASK_ARRAY__QUERY_PLANNING=False in the environment, or "
            'dask.config.set({"array.query-planning": False}) before dask.array is imported',
        )
