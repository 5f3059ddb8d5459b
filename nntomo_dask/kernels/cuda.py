"""What the CUDA spellings of the kernels share: how they are compiled, and how slices are laid on warps.

A lane group on a GPU has a multiple of 32 slices: one warp reads 32 of them as 128 contiguous bytes, and one index and
weight serve them all. Multiply-adds are written as ``fmaf`` where the Numba kernels fuse them and the compiler is
kept from fusing others, so both machines do the same operations in the same order.
"""

from typing import Any

import numpy as np

from nntomo_dask.compute import device
from nntomo_dask.kernels import layout

WARP = 32
TILE = 32  # pixels of an image row that a block of threads works on
CHUNK = 64  # angles whose indices and weights a block holds at once
_BLOCKS = 4096  # enough blocks of threads to fill any GPU several times
_GROUP_VALUES = 2**25  # of an image in lanes: 128 MiB, enough work for one launch


def get_function(source: str, name: str, **defines: int) -> Any:
    """A kernel of ``source``.cu, compiled with some macros; called as ``(grid, block, arguments)``."""
    return device.cuda_module(source, options(**defines)).get_function(name)


def options(**defines: int) -> tuple[str, ...]:
    """Compiler options: the layout's constants, a kernel's own, and no fusing of what is not written as fused."""
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
    """Warps of a block: the more sums a thread holds for a pixel, the fewer pixels a warp gets."""
    return 8 if n_hidden <= 8 else 16 if n_hidden <= 16 else 32


def image_grid(n: int, n_groups: int) -> tuple[int, int, int]:
    """Blocks for an image of n × n pixels: few enough along z that a block uses its indices for several groups."""
    tiles = -(-n // TILE)
    return tiles, n, max(1, min(n_groups, _BLOCKS // (tiles * n)))


def lane_width(n_slices: int, n: int) -> int:
    """Slices of a lane group of images of n × n pixels: a multiple of 32, more of them the smaller the images are."""
    wanted = max(1, _GROUP_VALUES // (WARP * n * n))
    return WARP * min(wanted, -(-n_slices // WARP))


def on_device(values: Any, like: Any) -> Any:
    """A small array as contiguous float64 beside a block."""
    return device.namespace(like).asarray(np.ascontiguousarray(values, np.float64))
