"""Which slices of a series an assessment looks at: a few runs of neighbours, where the matter is."""

import dask.array as da
import numpy as np
import xarray as xr

from nntomo_dask.arrays import finite, schema, slabs
from nntomo_dask.types import Float32, Float64

RUN = 8  # slices side by side: as many as the smallest lane group of the kernels


def squares(series: xr.DataArray) -> da.Array:
    """Lazy (z,): the mean square of the values of each slice; a value that is NaN or infinite is refused."""
    data = slabs.lazy(series).data
    means: da.Array = da.map_blocks(
        finite.Checked(_squares, "assess", schema.SERIES_DIMS, finite.starts(data)),
        data,
        drop_axis=[1, 2],
        dtype=np.float64,
        meta=np.empty((0,), np.float64),
    )
    return means


def _squares(rows: Float32) -> Float64:
    return np.asarray(np.square(rows, dtype=np.float64).mean(axis=(1, 2)))


def runs(squares: Float64, slices: int) -> list[tuple[int, int]]:
    """Places (start, stop) of runs of neighbouring slices, ascending and apart.

    Their middles divide what is in the series, above its emptiest slice, into equal parts; so a small particle in a
    large volume is not missed, and a needle is looked at along its length.

    Parameters
    ----------
    squares
        (z,), mean square of each slice.
    slices
        About as many in all; all of them where there are no more.
    """
    count = len(squares)
    if slices >= count:
        return [(start, min(start + RUN, count)) for start in range(0, count, RUN)]
    height = min(RUN, slices)
    number = max(slices // height, 1)
    above = squares - squares.min()
    if not above.any():
        above = np.ones(count)
    middles = np.searchsorted(np.cumsum(above), (np.arange(number) + 0.5) / number * above.sum())
    starts = np.clip(middles - height // 2, 0, count - height)
    for k in range(1, number):
        starts[k] = max(starts[k], starts[k - 1] + height)
    last = count
    for k in range(number - 1, -1, -1):
        starts[k] = min(starts[k], last - height)
        last = starts[k]
    return [(int(start), int(start) + height) for start in starts]
