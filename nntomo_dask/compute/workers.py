"""Worker processes of this machine and workers of other machines: how to start, reach and check them."""

import contextlib
import ctypes
import gc
import importlib
import importlib.metadata
import logging
import platform
from collections.abc import Iterator, Sequence
from typing import Any

import dask

from nntomo_dask import extras
from nntomo_dask.compute import configuration, device
from nntomo_dask.errors import refuse

_LOOPBACK = "127.0.0.1"
# glibc keeps this much freed memory for the next slab. Getting new pages would take longer than the computation.
_KEPT_BYTES = 2**30
_MALLOC = {  # environment variable: (number in malloc.h, value)
    "MALLOC_TRIM_THRESHOLD_": (-1, _KEPT_BYTES),
    "MALLOC_TOP_PAD_": (-2, 2**24),
    "MALLOC_MMAP_THRESHOLD_": (-3, _KEPT_BYTES),
    "MALLOC_ARENA_MAX": (-8, 1),  # one heap; otherwise every thread keeps its own
}
_ONE_THREAD = dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"], 1)


def import_modules(names: Sequence[str]) -> None:
    """Import modules, so that the first task of a worker does not have to wait for them."""
    for name in names:
        importlib.import_module(name)


def keep_freed_memory() -> None:
    """Apply `_MALLOC` to this process, if its C library is glibc."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for number, value in _MALLOC.values():
            libc.mallopt(number, value)


@contextlib.contextmanager
def local_cluster(workers: int, processes: int, gpus: list[int] | None) -> Iterator[Any]:
    """A Dask cluster of processes on the loopback interface of this machine: on its cores, or one per GPU."""
    common: dict[str, Any] = {
        "host": _LOOPBACK,
        "dashboard_address": f"{_LOOPBACK}:0",
        "memory_limit": 0,  # `chunking` plans the memory; Dask would kill workers instead
        "silence_logs": logging.ERROR,
    }
    threads = -(-workers // processes)
    # In the environment before the start, when glibc reads it. Dask's own value returns memory at once.
    environment = {name: value for name, (_, value) in _MALLOC.items()}
    if gpus is None:
        from distributed import LocalCluster

        with (
            configuration.local_cluster(),
            dask.config.set({"distributed.nanny.pre-spawn-environ": environment | _ONE_THREAD}),
            LocalCluster(n_workers=processes, threads_per_worker=threads, **common) as local,
        ):
            yield local
        return
    extras.check("dask_cuda", who="--gpus")
    from dask_cuda import LocalCUDACluster

    # One thread of each worker feeds the GPU; the others read and compress at the same time.
    with (
        configuration.local_cluster(),
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
    """A client of a cluster; a SchemaError if no scheduler answers."""
    from distributed import Client

    chosen = dask.config.get("scheduler", None)
    # When a scheduler dies, the client logs every attempt to reconnect. The error of the run says it once.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout="10s", security=security)
    except (
        OSError,
        ValueError,
        TypeError,
        RuntimeError,
    ) as error:  # RuntimeError: certificates without a tls:// address
        dask.config.set(scheduler=chosen)  # after some of these errors it still names the failed client
        # The frames of the error hold that client, and Dask takes it for the current one as long as it exists.
        error.__traceback__ = None
        gc.collect()
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
    """The TLS settings of a client; None without files, a SchemaError if only some of the three are given."""
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
    """Raise a SchemaError if a worker of a cluster does not have this package in this version."""
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
            needs=f"nntomo_dask {here} on every worker, as on this machine",
            got=f"{version} on {address}",
            remedy="install this version in the environment in which the workers are started",
        )


def chosen_gpus(gpus: str) -> list[int]:
    """Indices of the GPUs: "all", a number of GPUs ("2" is the first two), or a list ("0,2", or "2," for one)."""
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
