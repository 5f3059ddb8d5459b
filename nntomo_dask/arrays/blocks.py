"""Slices of an array in turn, for what writes or shows it: slab by slab, or in blocks of one height."""

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from nntomo_dask.arrays import schema, slabs
from nntomo_dask.types import Float32

BLOCK_BYTES = 32 * 2**20  # of the slices that are gathered until they make a row of chunks
BLOCK_SLICES = 32


def slabs_of(array: xr.DataArray) -> Iterator[tuple[int, Float32]]:
    """Each slab of slices in turn, with the number of its first slice; one is in memory at a time."""
    first = 0
    for slices in slabs.lazy(array).data.chunks[0]:
        yield first, np.asarray(array.isel({schema.Z: slice(first, first + slices)}).values, np.float32)
        first += slices


def block_slices(shape: Sequence[int]) -> int:
    """Slices of a row of chunks of an array (z, …): a power of two up to 32, at most 32 MiB of float32."""
    slice_bytes = 4 * int(np.prod(shape[1:]))
    slices = 1
    while 2 * slices <= min(BLOCK_SLICES, shape[0]) and 2 * slices * slice_bytes <= BLOCK_BYTES:
        slices *= 2
    return slices


def blocks_of(array: xr.DataArray, slices: int) -> Iterator[tuple[int, Float32]]:
    """Blocks of so many slices in turn, whatever the slabs are; the last may have fewer.

    So that files have the same bytes with any memory.
    """
    count = array.sizes[schema.Z]
    block, filled, begin = np.empty((min(slices, count), *array.shape[1:]), np.float32), 0, 0
    for _, slab in slabs_of(array):
        taken = 0
        while taken < len(slab):
            part = min(len(slab) - taken, len(block) - filled)
            block[filled : filled + part] = slab[taken : taken + part]
            taken, filled = taken + part, filled + part
            if filled == min(len(block), count - begin):
                yield begin, block[:filled]
                begin, filled = begin + filled, 0


def halved(values: Float32, *, axes: Sequence[int] = (0, 1, 2)) -> Float32:
    """Means of 2 neighbours along some axes; a last one alone stays itself.

    Whatever pieces of an even number of slices an array is given in, the result is the same.
    """
    result: Float32 = values
    for axis in sorted(axes, reverse=True):
        size = result.shape[axis]
        pairs = np.moveaxis(result, axis, 0)
        means = (pairs[: size // 2 * 2 : 2] + pairs[1 : size // 2 * 2 : 2]) * np.float32(0.5)
        if size % 2:
            means = np.concatenate([means, pairs[-1:]])
        result = np.moveaxis(means, 0, axis)
    return np.ascontiguousarray(result)
