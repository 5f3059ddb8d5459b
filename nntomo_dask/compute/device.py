"""Where a block is stored and where it is computed: on the CPU, or on a GPU with CuPy.

The type of a block decides which kernels compute it, see `is_on_gpu`. Blocks in host memory are computed on a GPU if
the Dask configuration says so, see `computes_on_gpu` and `streams`. This is the only module that imports CuPy.

Configuration
-------------
nntomo_dask.device
    "cpu" (default) or "gpu": where the blocks of this process are computed.
nntomo_dask.gpu_memory
    GPU memory that this process may use, in bytes or as text such as "8GB". Default: all that is free.
"""

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, Literal

import dask.config
import numpy as np
import scipy.fft
from dask.utils import parse_bytes

from nntomo_dask import extras
from nntomo_dask.errors import refuse

Pool = Literal["cupy", "rmm", "torch"]
_SOURCES = Path(__file__).parents[1] / "kernels"
_pool: Pool | None = None  # where CuPy allocates memory; None before the first choice


def is_on_gpu(block: Any) -> bool:
    """Whether a block is a CuPy array. CuPy itself is not imported."""
    return type(block).__module__.partition(".")[0] == "cupy"


def namespace(block: Any) -> Any:
    """The module with the functions for a block: numpy or cupy."""
    return cupy() if is_on_gpu(block) else np


def fft(block: Any) -> Any:
    """The module with the Fourier transforms for a block: scipy.fft or cupyx.scipy.fft."""
    return importlib.import_module("cupyx.scipy.fft") if is_on_gpu(block) else scipy.fft


def on_host(block: Any, *, who: str) -> Any:
    """The block as a contiguous NumPy array. A block on a GPU is refused, so that no copy is made unnoticed.

    Raises
    ------
    SchemaError
        The block is on a GPU.
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
    """Number of GPUs that CuPy finds; 0 without CuPy."""
    try:
        module = importlib.import_module("cupy")
        return int(module.cuda.runtime.getDeviceCount())
    except (ImportError, RuntimeError):  # CuPy raises RuntimeErrors if there is no driver or no device
        return 0


def to_host(block: Any) -> Any:
    """A copy in host memory of a block on a GPU; any other block unchanged."""
    return block.get() if is_on_gpu(block) else block


def cupy() -> Any:
    """The module CuPy, after a check that it can use a GPU.

    Raises
    ------
    SchemaError
        CuPy is not installed, or it finds no GPU.
    """
    module = extras.require("cupy", who="GPU")
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
    """Whether the blocks of this process are computed on a GPU, by the Dask configuration ``nntomo_dask.device``.

    Raises
    ------
    SchemaError
        They should be, but CuPy or a GPU is missing; or the value of the configuration is unknown.
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
    """The compiled kernels of ``kernels/<source>.cu``, an object with ``get_function(name)``."""
    return _compiled(source, options, cupy().cuda.Device().id)


@functools.cache
def _compiled(source: str, options: tuple[str, ...], _device_id: int) -> Any:
    return cupy().RawModule(code=(_SOURCES / f"{source}.cu").read_text(encoding="utf-8"), options=options)


def stream(role: str) -> Any:
    """The CUDA stream of this process for a role. It is always the same, because memory pools belong to a stream."""
    return _stream(role, cupy().cuda.Device().id)


@functools.cache
def _stream(_role: str, _device_id: int) -> Any:
    return cupy().cuda.Stream(non_blocking=True)


def event() -> Any:
    """A CUDA event, to order the work of several streams."""
    return cupy().cuda.Event(disable_timing=True)


def empty_pinned(shape: tuple[int, ...], dtype: Any) -> Any:
    """A NumPy array in page-locked memory, so that copies can run in parallel with kernels."""
    return importlib.import_module("cupyx").empty_pinned(shape, dtype)


def use_one_pool() -> Pool:
    """Make CuPy use the memory pool that the process already has, so that two pools never hold memory at once.

    It is the pool of torch if torch was imported and finds the GPU, else that of RMM if RMM is installed, else that of
    CuPy. Torch is not imported for this; if it is imported later, the next call switches. Returns the name of the pool.
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
        # For the current stream: torch reuses freed memory only on the same stream.
        address: int = torch.cuda.caching_allocator_alloc(size, device_id, module.cuda.get_current_stream().ptr)
        return address

    def free(address: int, _device_id: int) -> None:
        torch.cuda.caching_allocator_delete(address)

    return module.cuda.PythonFunctionAllocator(allocate, free).malloc


def _rmm_allocator() -> Any:
    rmm = importlib.import_module("rmm")
    # A resource that was set before, such as the pool of dask-cuda, is kept. The plain one would not reuse memory.
    if type(rmm.mr.get_current_device_resource()) is rmm.mr.CudaMemoryResource:
        rmm.mr.set_current_device_resource(rmm.mr.CudaAsyncMemoryResource())
    return importlib.import_module("rmm.allocators.cupy").rmm_cupy_allocator


def free_bytes() -> int:
    """Bytes of GPU memory that this process may still allocate, within ``nntomo_dask.gpu_memory`` if it is set.

    This is the free memory of the driver, plus the unused memory of the pool. An RMM pool does not report its unused
    memory; in that case only the memory outside the pool counts.
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
