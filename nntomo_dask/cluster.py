"""Where Dask computes: on the threads of this process, or on a cluster that runs already."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import dask
import psutil
import xarray as xr
from dask.base import compute as dask_compute
from dask.callbacks import Callback
from tqdm.auto import tqdm

from nntomo_dask import schema

Progress = Literal["bar", "none"]


def hidden(progress: Progress) -> bool | None:
    """Value of tqdm's `disable`: None leaves a bar out where nobody watches a terminal."""
    return True if progress == "none" else None


def default_workers() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def current_workers() -> int:
    """Slabs that are in work at once on one machine, in the present session."""
    return int(dask.config.get("num_workers", None) or default_workers())


def free_memory_bytes() -> int:
    """Memory of this machine that is free now."""
    return int(psutil.virtual_memory().available)


@contextlib.contextmanager
def session(*, workers: int | None = None, scheduler: str | None = None) -> Iterator[None]:
    """Compute within this context on `workers` threads, or on the cluster at address `scheduler`.

    Raises
    ------
    SchemaError
        Fewer than one worker, or no scheduler answers at the address.
    """
    if workers is not None and workers < 1:
        schema.refuse("cluster", needs="at least 1 worker", got=f"{workers}", do="raise --workers")
    if scheduler is None:
        with dask.config.set(scheduler="threads", num_workers=workers or default_workers()):
            yield
        return
    from distributed import Client

    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        schema.refuse(
            "cluster",
            needs="a Dask scheduler that answers",
            got=f"none at {scheduler} ({error})",
            do="start one, dask scheduler, or leave --scheduler out",
        )
    with client:
        yield


def compute(tasks: Sequence[Any], *, description: str, progress: Progress) -> None:
    """Run delayed tasks for what they do, on the current cluster or on threads, with a progress bar."""
    if not tasks:
        if progress == "bar":
            tqdm.write(f"{description}: found complete, nothing to compute", file=sys.stderr)
        return
    with tqdm(total=len(tasks), desc=description, unit="slab", disable=hidden(progress)) as bar:
        client = _current_client()
        if client is None:
            with _Counter({task.key for task in tasks}, bar):
                dask_compute(*tasks, scheduler=dask.config.get("scheduler", "threads"))
        else:
            from distributed import as_completed

            for future in as_completed(client.compute(list(tasks))):
                future.result()
                bar.update()


def load(*datasets: xr.Dataset, description: str, progress: Progress) -> tuple[xr.Dataset, ...]:
    """Compute datasets in one go, what they share once, with a progress bar; the attributes stay."""
    if _current_client() is not None:
        return cast("tuple[xr.Dataset, ...]", dask_compute(*datasets))
    with tqdm(desc=description, unit="task", disable=hidden(progress)) as bar, _Counter(None, bar):
        return cast("tuple[xr.Dataset, ...]", dask_compute(*datasets))


def _current_client() -> Any | None:
    if "distributed" not in sys.modules or dask.config.get("scheduler", None) not in (None, "dask.distributed"):
        return None
    try:
        return sys.modules["distributed"].default_client()
    except ValueError:
        return None


class _Counter(Callback):
    """Moves a progress bar when one of some tasks is done, or any task where `keys` is None."""

    def __init__(self, keys: set[Any] | None, bar: Any) -> None:
        super().__init__(start=self._start, posttask=self._done)  # type: ignore[no-untyped-call]
        self.keys, self.bar = keys, bar

    def _start(self, graph: Any) -> None:
        if self.keys is None:
            self.bar.reset(total=len(graph))

    def _done(self, key: Any, *_: Any) -> None:
        if self.keys is None or key in self.keys:
            self.bar.update()
