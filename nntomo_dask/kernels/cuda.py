"""What the CUDA kernels share: how they are compiled, and how slices are assigned to warps.

A lane group on a GPU has a multiple of 32 slices. One warp reads 32 of them as 128 contiguous bytes, and all of them
use the same index and weight. Multiply-adds are written as ``fmaf`` where the Numba kernels fuse them, and the compiler
may not fuse any others. So CPU and GPU do the same operations in the same order.
"""

from typing import Any

import numpy as np

from nntomo_dask.compute import device
from nntomo_dask.kernels import layout

WARP = 32
TILE = 32  # pixels of an image row that one block of threads computes
CHUNK = 64  # angles whose indices and weights a block stores at once
_BLOCKS = 4096  # blocks of threads, enough to fill any GPU several times
_GROUP_VALUES = 2**25  # values of an image in lanes: 128 MiB, enough work for one launch


def get_function(source: str, name: str, **defines: int) -> Any:
    """A kernel of ``<source>.cu``, compiled with the given macros. Call it as ``(grid, block, arguments)``."""
    return device.cuda_module(source, options(**defines)).get_function(name)


def options(**defines: int) -> tuple[str, ...]:
    """Compiler options: the constants of the layout, the given macros, and no automatic fusing of multiply-adds."""
    macros = {
        "DETECTOR_FRONT": layout.DETECTOR_FRONT,
        "DETECTOR_PAD": layout.DETECTOR_PAD,
        "IMAGE_PAD": layout.IMAGE_PAD,
        "LANES": WARP,
        "TILE": TILE,
        "CHUNK": CHUNK,
        **defines,
    }
    return ("--fmad=false", *(f"-D{name}={int(value)}" for name, value in macros.items()))


def warps(n_hidden: int = 1) -> int:
    """Warps of a block. The more sums a thread stores for a pixel, the fewer pixels a warp gets."""
    return 8 if n_hidden <= 8 else 16 if n_hidden <= 16 else 32


def image_grid(n: int, n_groups: int) -> tuple[int, int, int]:
    """Blocks for an image of n × n pixels; few along z, so that a block uses its indices for several groups."""
    tiles = -(-n // TILE)
    return tiles, n, max(1, min(n_groups, _BLOCKS // (tiles * n)))


def lane_width(n_slices: int, n: int) -> int:
    """Slices of a lane group for images of n × n pixels: a multiple of 32, larger for smaller images."""
    wanted = max(1, _GROUP_VALUES // (WARP * n * n))
    return WARP * min(wanted, -(-n_slices // WARP))


def on_device(values: Any, like: Any) -> Any:
    """A small array as contiguous float64, on the same device as a block."""
    return device.namespace(like).asarray(np.ascontiguousarray(values, np.float64))
