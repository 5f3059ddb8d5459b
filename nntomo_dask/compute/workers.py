"""Workers of this machine, and the way to those of another: how they are started and what they must have."""

import contextlib
import ctypes
import importlib
import importlib.metadata
import logging
import platform
from collections.abc import Iterator, Sequence
from typing import Any

import dask

from nntomo_dask.compute import device
from nntomo_dask.errors import refuse

_LOOPBACK = "127.0.0.1"
# glibc keeps what is freed, up to this, for the next slab: fresh pages cost more time than what is computed in them.
_KEPT_BYTES = 2**30
_MALLOC = {  # name in the environment, number in malloc.h, value
    "MALLOC_TRIM_THRESHOLD_": (-1, _KEPT_BYTES),
    "MALLOC_TOP_PAD_": (-2, 2**24),
    "MALLOC_MMAP_THRESHOLD_": (-3, _KEPT_BYTES),
    "MALLOC_ARENA_MAX": (-8, 1),  # one heap, or every thread would keep its own
}
_ONE_THREAD = dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"], 1)


def import_modules(names: Sequence[str]) -> None:
    """Import what a worker's first task would wait for."""
    for name in names:
        importlib.import_module(name)


def keep_freed_memory() -> None:
    """Set what `_MALLOC` says in this process, where its C library is glibc."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for number, value in _MALLOC.values():
            libc.mallopt(number, value)


@contextlib.contextmanager
def local_cluster(workers: int, processes: int, gpus: list[int] | None) -> Iterator[Any]:
    """A Dask cluster of processes on this machine's loopback interface, on its cores or one process a GPU."""
    common: dict[str, Any] = {
        "host": _LOOPBACK,
        "dashboard_address": f"{_LOOPBACK}:0",
        "memory_limit": 0,  # `chunking` keeps to a memory; a worker that is killed halfway would not
        "silence_logs": logging.ERROR,
    }
    threads = -(-workers // processes)
    # Before they start, since glibc reads it then; Dask's own setting gives memory back at once.
    environment = {name: value for name, (_, value) in _MALLOC.items()}
    if gpus is None:
        from distributed import LocalCluster

        with (
            dask.config.set({"distributed.nanny.pre-spawn-environ": environment | _ONE_THREAD}),
            LocalCluster(n_workers=processes, threads_per_worker=threads, **common) as local,
        ):
            yield local
        return
    from dask_cuda import LocalCUDACluster

    # Of a GPU's threads one feeds it; the others read and compress meanwhile.
    with (
        dask.config.set(  # the workers inherit the configuration
            {"nntomo_dask.device": "gpu", "distributed.nanny.pre-spawn-environ": environment | _ONE_THREAD}
        ),
        LocalCUDACluster(
            CUDA_VISIBLE_DEVICES=gpus, threads_per_worker=threads, device_memory_limit=0, **common
        ) as local,
    ):
        yield local


@contextlib.contextmanager
def client(address: Any, security: Any = None) -> Iterator[Any]:
    """A client of a cluster; a SchemaError where no scheduler answers."""
    from distributed import Client

    chosen = dask.config.get("scheduler", None)
    # When a scheduler dies, the client tells each of its tries; the run's own error says it once.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout="10s", security=security)
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # the last: certificates, and no tls:// address
        dask.config.set(scheduler=chosen)  # some of these leave in it the client that failed
        refuse(
            "cluster",
            needs="a Dask scheduler that answers",
            got=f"none at {address} ({error})",
            remedy="start one with the command dask scheduler; for a tls:// address give `tls_ca_file`, `tls_cert` and "
            "`tls_key`; or leave out `scheduler`",
        )
    try:
        yield client
    finally:
        client.close()


def security(ca_file: str | None, cert: str | None, key: str | None) -> Any:
    """What a ``tls://`` scheduler asks of a client; None without files, a SchemaError for some of the three."""
    given = [
        name for name, value in (("tls_ca_file", ca_file), ("tls_cert", cert), ("tls_key", key)) if value is not None
    ]
    if not given:
        return None
    if len(given) < 3:
        refuse(
            "cluster",
            needs="`tls_ca_file`, `tls_cert` and `tls_key` together",
            got=" and ".join(f"`{name}`" for name in given),
            remedy="give all three",
        )
    from distributed.security import Security

    return Security(tls_ca_file=ca_file, tls_client_cert=cert, tls_client_key=key, require_encryption=True)


def check_workers(client: Any) -> None:
    """Raise a SchemaError where a worker of a cluster lacks this package, or has another version."""
    try:
        versions = client.run(importlib.metadata.version, "nntomo_dask")
    except importlib.metadata.PackageNotFoundError:
        versions = {"a worker": "none"}
    here = importlib.metadata.version("nntomo_dask")
    others = {address: version for address, version in versions.items() if version != here}
    if others:
        address, version = next(iter(others.items()))
        refuse(
            "cluster",
            needs=f"nntomo_dask {here} on every worker, as here",
            got=f"{version} on {address}",
            remedy="install this version in the environment in which the workers are started",
        )


def chosen_gpus(gpus: str) -> list[int]:
    """Indices of "all", of a number of GPUs, or of a list of them."""
    count = device.gpu_count()
    if count == 0:
        refuse(
            "GPU",
            needs="an NVIDIA GPU, CuPy and dask-cuda",
            got="no GPU that CuPy can use",
            remedy="pip install 'nntomo_dask[cuda13]' (or cuda12) on a machine with a GPU, or leave out `gpus`",
        )
    try:
        chosen = list(range(count)) if gpus == "all" else [int(part) for part in gpus.split(",") if part]
    except ValueError:
        chosen = []
    if len(chosen) == 1 and "," not in gpus and gpus != "all":
        chosen = list(range(chosen[0]))
    if not chosen or not set(chosen) <= set(range(count)) or len(set(chosen)) < len(chosen):
        refuse(
            "GPU",
            needs=f"all, a number of GPUs up to {count}, or a list of indices below {count}",
            got=gpus,
            remedy='`gpus="all"`, `gpus="1"` for the first one, or `gpus="0,1"` for two of them',
        )
    return chosen
