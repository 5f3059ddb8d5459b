"""Where a block lies and where it is computed: this machine's memory and cores, or a GPU with CuPy.

The only room that imports CuPy. A block's own type decides which kernels run on it, see `is_on_gpu`; blocks in host
memory go through a GPU where the Dask configuration says so, see `computes_on_gpu` and `streams`.

Configuration
-------------
nntomo_dask.device
    "cpu" (default) or "gpu": where the blocks of this process are computed.
nntomo_dask.gpu_memory
    Bytes of GPU memory, or text such as "8GB", that this process may use; without it, all that is free.
"""

import functools
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, Literal

import dask.config
import numpy as np
import scipy.fft
from dask.utils import parse_bytes

from nntomo_dask.errors import refuse

Pool = Literal["cupy", "rmm", "torch"]
_SOURCES = Path(__file__).parents[1] / "kernels"
_pool: Pool | None = None  # what CuPy allocates from; None as long as nothing was chosen


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_on_gpu(block: Any) -> bool:
    """Whether a block is a CuPy array; CuPy itself is not imported."""
    return type(block).__module__.partition(".")[0] == "cupy"


def namespace(block: Any) -> Any:
    """The module of a block's functions: numpy or cupy."""
    return cupy() if is_on_gpu(block) else np


def fft(block: Any) -> Any:
    """The module of a block's Fourier transforms: scipy.fft or cupyx.scipy.fft."""
    return importlib.import_module("cupyx.scipy.fft") if is_on_gpu(block) else scipy.fft


def on_host(block: Any, *, who: str) -> Any:
    """The block as a contiguous NumPy array; a block on a GPU is refused, not copied behind the caller's back.

    Raises
    ------
    SchemaError
        The block lies on a GPU.
    """
    if is_on_gpu(block):
        refuse(
            who,
            needs="blocks in host memory",
            got="a CuPy array",
            remedy='`engine="native"`, or array.copy(data=array.data.map_blocks(cupy.asnumpy))',
        )
    return np.ascontiguousarray(block)


def gpu_count() -> int:
    """GPUs that CuPy sees; 0 without CuPy."""
    try:
        module = importlib.import_module("cupy")
        return int(module.cuda.runtime.getDeviceCount())
    except (ImportError, RuntimeError):  # CuPy's errors are RuntimeErrors: no driver, no device
        return 0


def to_host(block: Any) -> Any:
    """A copy in host memory of a block on a GPU; another block as it is."""
    return block.get() if is_on_gpu(block) else block


def cupy() -> Any:
    """CuPy, with a GPU that it can use.

    Raises
    ------
    SchemaError
        CuPy is not installed, or it sees no GPU.
    """
    try:
        module = importlib.import_module("cupy")
    except ImportError as error:
        refuse(
            "GPU",
            needs="CuPy",
            got=f"no such package ({error})",
            remedy="pip install 'nntomo_dask[cuda13]' (or cuda12, as your driver needs), or compute on the CPU",
        )
    try:
        count = module.cuda.runtime.getDeviceCount()
    except module.cuda.runtime.CUDARuntimeError as error:
        refuse("GPU", needs="an NVIDIA GPU and its driver", got=str(error), remedy="compute on the CPU")
    if count == 0:
        refuse(
            "GPU",
            needs="an NVIDIA GPU",
            got="none",
            remedy="check the environment variable CUDA_VISIBLE_DEVICES, or compute on the CPU",
        )
    return module


def computes_on_gpu() -> bool:
    """Whether the blocks of this process go to a GPU, by the Dask configuration ``nntomo_dask.device``.

    Raises
    ------
    SchemaError
        They are to, but CuPy or a GPU is missing; or the configuration names no device.
    """
    where = dask.config.get("nntomo_dask.device", "cpu")
    if where not in ("cpu", "gpu"):
        refuse(
            "nntomo_dask.device",
            needs='"cpu" or "gpu"',
            got=f"{where!r}",
            remedy="set nntomo_dask.device to one of them in Dask's configuration",
        )
    if where == "cpu":
        return False
    cupy()
    return True


def cuda_module(source: str, options: tuple[str, ...]) -> Any:
    """The compiled kernels of ``kernels/source.cu``; what it returns has ``get_function(name)``."""
    return _compiled(source, options, cupy().cuda.Device().id)


@functools.cache
def _compiled(source: str, options: tuple[str, ...], _device_id: int) -> Any:
    return cupy().RawModule(code=(_SOURCES / f"{source}.cu").read_text(encoding="utf-8"), options=options)


def stream(role: str) -> Any:
    """The CUDA stream of this process for some role; always the same, since memory pools keep memory for a stream."""
    return _stream(role, cupy().cuda.Device().id)


@functools.cache
def _stream(_role: str, _device_id: int) -> Any:
    return cupy().cuda.Stream(non_blocking=True)


def event() -> Any:
    """A CUDA event for order between streams."""
    return cupy().cuda.Event(disable_timing=True)


def empty_pinned(shape: tuple[int, ...], dtype: Any) -> Any:
    """A NumPy array in page-locked memory, from and to which copies run beside kernels."""
    return importlib.import_module("cupyx").empty_pinned(shape, dtype)


def use_one_pool() -> Pool:
    """Make CuPy allocate from the pool that the process has already, so that no two pools hold memory at once.

    That is torch's where torch was imported and sees the GPU, else RMM's where it is installed, else CuPy's own. Torch
    is not imported for it; where it comes later, the next call changes over. Returns which pool it is.
    """
    global _pool
    module = cupy()
    torch = sys.modules.get("torch")
    wanted: Pool = "cupy"
    if torch is not None and torch.cuda.is_available():
        wanted = "torch"
    elif importlib.util.find_spec("rmm") is not None:
        wanted = "rmm"
    if wanted == _pool:
        return wanted
    if wanted == "torch":
        module.cuda.set_allocator(_torch_allocator(module, torch))
    elif wanted == "rmm":
        module.cuda.set_allocator(_rmm_allocator())
    else:
        module.cuda.set_allocator(module.get_default_memory_pool().malloc)
    module.get_default_memory_pool().free_all_blocks()
    _pool = wanted
    return wanted


def _torch_allocator(module: Any, torch: Any) -> Any:
    torch.cuda.init()

    def allocate(size: int, device_id: int) -> int:
        # For the stream in use: torch hands freed memory out again to the same stream only.
        address: int = torch.cuda.caching_allocator_alloc(size, device_id, module.cuda.get_current_stream().ptr)
        return address

    def free(address: int, _device_id: int) -> None:
        torch.cuda.caching_allocator_delete(address)

    return module.cuda.PythonFunctionAllocator(allocate, free).malloc


def _rmm_allocator() -> Any:
    rmm = importlib.import_module("rmm")
    # A resource that somebody set, such as dask-cuda's pool, is kept; the plain one would allocate anew every time.
    if type(rmm.mr.get_current_device_resource()) is rmm.mr.CudaMemoryResource:
        rmm.mr.set_current_device_resource(rmm.mr.CudaAsyncMemoryResource())
    return importlib.import_module("rmm.allocators.cupy").rmm_cupy_allocator


def free_bytes() -> int:
    """Bytes of GPU memory that this process may still allocate, within ``nntomo_dask.gpu_memory`` where it is set.

    What the driver has free, and what the pool holds without using it. An RMM pool does not say what it holds: only
    what lies outside it counts then.
    """
    module = cupy()
    held = used = 0
    if _pool == "torch":
        memory, device_id = sys.modules["torch"].cuda, module.cuda.Device().id
        used = memory.memory_allocated(device_id)
        held = memory.memory_reserved(device_id) - used
    elif _pool != "rmm":
        pool = module.get_default_memory_pool()
        used, held = pool.used_bytes(), pool.free_bytes()
    free = int(module.cuda.runtime.memGetInfo()[0]) + int(held)
    limit = dask.config.get("nntomo_dask.gpu_memory", None)
    return free if limit is None else max(0, min(free, parse_bytes(limit) - int(used)))
