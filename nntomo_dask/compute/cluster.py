"""Where Dask computes: threads, worker processes of this machine, one worker per GPU, or a cluster that is running."""

import asyncio
import contextlib
import importlib
import queue
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, cast

import dask
import xarray as xr
from dask.base import compute as dask_compute
from dask.callbacks import Callback

from nntomo_dask.compute import configuration, limits, scripts, workers as workers_room
from nntomo_dask.compute.chunking import Budget
from nntomo_dask.compute.progress import Bar, Progress as Progress, shown, tell as tell
from nntomo_dask.errors import OutOfMemoryError, refuse

# Up to this many slabs at once are computed by threads of this process: kernels, transforms and codecs release the GIL,
# and worker processes need seconds to start. More threads would wait for each other; they are spread over processes.
THREADS_OF_A_PROCESS = 4
_LOOK_SECONDS = 5.0  # between two checks that the scheduler is still there
LEAST_TASKS_FOR_PROCESSES = 8  # threads finish a smaller job before worker processes have started


@dataclass
class _Session:
    """The settings of `session`, and the cluster after it has started."""

    workers: int
    processes: int
    gpus: list[int] | None
    progress: Progress
    preload: tuple[str, ...]
    running: contextlib.ExitStack
    starting: Future[Any] | None = None

    def reduce(self, workers: int) -> None:
        """Have fewer workers, before they have started."""
        assert self.starting is None, "the workers are running"
        threads = -(-self.workers // self.processes)
        self.workers, self.processes = workers, -(-workers // threads)

    def begin(self) -> None:
        """Start the workers in the background, unless they are running."""
        if self.starting is None:
            # Two threads that import it at once, as Dask does while it computes, see half of it.
            importlib.import_module("distributed")
            background = self.running.enter_context(ThreadPoolExecutor(1))
            self.starting = background.submit(self._start)

    def start(self) -> Any:
        """Start the workers, unless they are running, and return the client when it is ready."""
        self.begin()
        assert self.starting is not None
        return self.starting.result()

    @property
    def client(self) -> Any | None:
        """The client, if the workers are running."""
        return self.starting.result() if self.starting is not None and self.starting.done() else None

    def _start(self) -> Any:
        local = self.running.enter_context(workers_room.local_cluster(self.workers, self.processes, self.gpus))
        client = self.running.enter_context(workers_room.client(local))
        client.run(workers_room.import_modules, self.preload)
        if self.progress == "bar":
            kind = "worker process" if self.gpus is None else "GPU worker"
            plural = "" if self.processes == 1 else "es" if self.gpus is None else "s"
            tell(f"{self.processes} {kind}{plural}, dashboard {local.dashboard_link}")
        return client


_session: _Session | None = None


def default_workers() -> int:
    """CPU cores that this process may use: its affinity, or what the quota of a container allows."""
    return limits.cores()


def current_workers() -> int:
    """Number of slabs that the present session computes at once."""
    if _session is not None:
        return _session.workers
    client = _current_client()
    if client is not None:
        return max(sum(int(worker["nthreads"]) for worker in _workers(client)), 1)
    return int(dask.config.get("num_workers", None) or default_workers())


def current_processes() -> int:
    """Number of worker processes of the present session, without this process; 0 if its threads compute."""
    if _session is not None:
        return _session.processes
    client = _current_client()
    return 0 if client is None else max(len(_workers(client)), 1)


def on_gpus() -> bool:
    """Whether the workers of the present session compute on GPUs."""
    return _session is not None and _session.gpus is not None


def free_memory() -> Budget:
    """Memory that this process may use, or the memory limits of the workers of a cluster on other machines."""
    client = _current_client()
    if _session is None and client is not None:
        sizes = [worker["memory_limit"] for worker in _workers(client) if worker["memory_limit"]]
        if sizes:
            return Budget(int(min(sizes) * len(sizes)), "the memory limits of the workers together")
    return Budget(*limits.memory())


def least_for_processes() -> int:
    """Slabs of the smallest job that worker processes compute; threads do a smaller one."""
    return LEAST_TASKS_FOR_PROCESSES if can_reduce() else 1


def can_reduce() -> bool:
    """Whether the present session can still compute with fewer workers than it was begun with."""
    if _session is not None:
        return _session.starting is None and _session.gpus is None
    return _current_client() is None


def reduce_workers(workers: int) -> None:
    """Compute with so many workers, fewer than before, until the present session ends."""
    if _session is not None:
        _session.reduce(workers)
    dask.config.set(num_workers=workers)  # the session restores what was set before it


@contextlib.contextmanager
def session(
    *,
    workers: int | None = None,
    gpus: str | None = None,
    scheduler: str | None = None,
    tls_ca_file: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    preload: Sequence[str] = (),
    progress: Progress = "none",
) -> Iterator[None]:
    """Compute within this context on threads, worker processes, GPUs or a cluster.

    Worker processes form a Dask cluster that listens only on the loopback interface of this machine. They start with
    the first job of at least `LEAST_TASKS_FOR_PROCESSES` slabs; threads do the smaller jobs. In your own script, put
    the call under ``if __name__ == "__main__":``, because worker processes import the script.

    Parameters
    ----------
    workers
        Number of slabs that are computed at once; by default one per core.
    gpus
        "all", the number of GPUs ("2"), or a list of their indices ("0,2"; "2," for a single one). Each GPU gets one
        worker process, started by dask-cuda.
    scheduler
        By default, up to `THREADS_OF_A_PROCESS` workers are threads of this process, and a larger number are threads of
        worker processes. "threads": always threads of this process. "processes": every worker is a process.
        ``tcp://host:8786`` or ``tls://…``: the workers of that Dask scheduler.
    tls_ca_file, tls_cert, tls_key
        Certificate of the authority, certificate and key of this client, for a ``tls://`` scheduler; as for
        ``dask scheduler``.
    preload
        Modules that worker processes import when they start, while this process is still planning.
    progress
        "bar" prints the address of the dashboard.

    Raises
    ------
    SchemaError
        There is less than one worker, the GPU does not exist, no scheduler answers at the address, or its workers do
        not have this version of nntomo_dask.
    """
    if workers is not None and workers < 1:
        refuse("cluster", needs="at least 1 worker", got=f"{workers}", remedy="`workers=1` or more")
    if gpus is not None and scheduler is not None:
        refuse(
            "cluster",
            needs="either `gpus` or `scheduler`",
            got="both",
            remedy="leave out `gpus`, and start the workers of the scheduler on GPUs",
        )
    if scheduler not in (None, "threads", "processes") and ":" not in scheduler:
        refuse(
            "cluster", needs="threads, processes or an address", got=scheduler, remedy='`scheduler="tcp://host:8786"`'
        )
    certificates = {"tls_ca_file": tls_ca_file, "tls_cert": tls_cert, "tls_key": tls_key}
    given = [f"`{name}`" for name, path in certificates.items() if path is not None]
    if given and scheduler in (None, "threads", "processes"):
        refuse(
            "cluster",
            needs=f"the address of a scheduler for {' and '.join(given)}",
            got=f"{scheduler or 'none'}",
            remedy='`scheduler="tls://host:8786"`, or leave them out',
        )
    count = workers or default_workers()
    local = gpus is not None or scheduler == "processes" or (scheduler is None and count > THREADS_OF_A_PROCESS)
    with configuration.ours(), dask.config.set(pool=None):
        if local:
            chosen = None if gpus is None else workers_room.chosen_gpus(gpus)
            scripts.check_guard()
            each = 1 if scheduler == "processes" else THREADS_OF_A_PROCESS
            processes = -(-count // each) if chosen is None else len(chosen)
            with _local_session(count, processes, chosen, tuple(preload), progress):
                yield
        elif scheduler in (None, "threads"):
            workers_room.keep_freed_memory()
            with dask.config.set(scheduler="threads", num_workers=count):
                yield
        else:
            security = workers_room.security(tls_ca_file, tls_cert, tls_key)
            with workers_room.client(scheduler, security) as client, _losses(client, "cluster"):
                if not _workers(client):  # the memory is planned from their number
                    if progress == "bar":
                        tell(f"{scheduler} has no workers yet; waiting for one")
                    client.wait_for_workers(1)
                workers_room.check_workers(client)
                yield


@contextlib.contextmanager
def _local_session(
    workers: int, processes: int, gpus: list[int] | None, preload: tuple[str, ...], progress: Progress
) -> Iterator[None]:
    global _session
    outer = _session
    threads = workers if gpus is None else max(workers, len(gpus))
    workers_room.keep_freed_memory()
    # The cluster must end before the configuration is restored, because a client restores what it found.
    with dask.config.set(scheduler="threads", num_workers=threads), contextlib.ExitStack() as running:
        _session = _Session(threads, processes, gpus, progress, preload, running)
        try:
            yield
        finally:
            if _session.starting is not None:
                wait([_session.starting])  # `running` ends a cluster only after its start
            _session = outer


def expect(slabs: int) -> None:
    """Start the workers in the background if a job of that many slabs will need them."""
    if _session is not None and (_session.gpus or slabs >= LEAST_TASKS_FOR_PROCESSES):
        _session.begin()


def compute(tasks: Sequence[Any], *, description: str, progress: Progress) -> None:
    """Run delayed tasks for their side effects, on the current cluster or on threads, with a progress bar.

    Raises
    ------
    MemoryError
        Several workers died on the same task, usually because the machine ran out of memory.
    ConnectionError
        The connection to the scheduler was lost.
    """
    if not tasks:
        if progress == "bar":
            tell(f"{description}: found complete, nothing to compute")
        return
    with configuration.ours(), shown(progress, description=description, unit="slab", total=len(tasks)) as bar:
        client = _current_client()
        if client is None and _session is not None and (_session.gpus or len(tasks) >= LEAST_TASKS_FOR_PROCESSES):
            client = _session.start()
        if client is None:
            with _Counter({task.key for task in tasks}, bar):
                dask_compute(*tasks, scheduler=dask.config.get("scheduler", None) or "threads")
        else:
            _compute_on(client, tasks, description, bar)


def _compute_on(client: Any, tasks: Sequence[Any], description: str, bar: Bar) -> None:
    """Run delayed tasks on a cluster."""
    from distributed import KilledWorker

    with _losses(client, description):
        futures = client.compute(list(tasks))
        finished: queue.Queue[Any] = queue.Queue()
        try:
            for future in futures:
                future.add_done_callback(finished.put)
            for _ in futures:
                _next_finished(finished, client).result()
                bar.update()
        except KilledWorker as error:
            died = (
                f"{description}: several workers died on the same slab, usually because the machine ran out of memory"
            )
            again = "or fewer `workers`, and run it again: what was written is kept"
            lost = OutOfMemoryError(f"{died}; try: smaller slabs, open(path, slices=…), {again}")
            lost.command = f"{died}; try: less `memory`, so that slabs are smaller, {again}"
            raise lost from error
        finally:
            if client.status == "running":
                client.cancel(futures)


def _next_finished(finished: "queue.Queue[Any]", client: Any) -> Any:
    """The next future that has ended; a TimeoutError if the scheduler is gone."""
    while True:
        try:
            return finished.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            if client.status != "running":
                raise TimeoutError from None


@contextlib.contextmanager
def _losses(client: Any, description: str) -> Iterator[None]:
    """Turn every error by which Dask answers when its scheduler has gone into one that says so."""
    from distributed import CancelledError
    from distributed.comm.core import CommClosedError

    try:
        yield
    except (CancelledError, asyncio.CancelledError, CommClosedError, TimeoutError) as error:
        if isinstance(error, TimeoutError) and client.status == "running":
            raise  # of something else
        raise ConnectionError(f"{description}: the connection to the Dask scheduler was lost") from error


def load(*datasets: xr.Dataset, description: str, progress: Progress) -> tuple[xr.Dataset, ...]:
    """Compute datasets together, with a progress bar. What they share is computed once; attributes are kept."""
    client = _current_client()
    if client is None and _session is not None and _session.gpus:
        client = _session.start()
    with configuration.ours():
        if client is not None:
            with _losses(client, description):
                return cast("tuple[xr.Dataset, ...]", dask_compute(*datasets, scheduler=client))
        with shown(progress, description=description, unit="task") as bar, _Counter(None, bar):
            return cast("tuple[xr.Dataset, ...]", dask_compute(*datasets))


def _current_client() -> Any | None:
    """The client of this session, or one that the user made; None if threads compute."""
    if _session is not None:
        return _session.client
    if "distributed" not in sys.modules or dask.config.get("scheduler", None) not in (None, "dask.distributed"):
        return None
    try:
        return sys.modules["distributed"].default_client()
    except ValueError:
        return None


def _workers(client: Any) -> list[dict[str, Any]]:
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


class _Counter(Callback):
    """Advances a progress bar when one of the tasks `keys` is done; None means any task."""

    def __init__(self, keys: set[Any] | None, bar: Bar) -> None:
        super().__init__(start=self._start, posttask=self._done)  # type: ignore[no-untyped-call]
        self.keys, self.bar = keys, bar

    def _start(self, graph: Any) -> None:
        if self.keys is None:
            self.bar.expect(len(graph))

    def _done(self, key: Any, *_: Any) -> None:
        if self.keys is None or key in self.keys:
            self.bar.update()
