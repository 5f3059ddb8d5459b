"""Dice coefficient of two segmentations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.graph_manipulation import clone

from nntomo_dask.errors import refuse
from nntomo_dask.metrics import METRICS
from nntomo_dask.metrics.metric import Column, Metric
from nntomo_dask.metrics.pairs import Region, inside_region, pair
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Float64


@METRICS.register
@dataclass(frozen=True)
class Dice(Metric):
    """See `dice`."""

    name: ClassVar[str] = "dice"
    columns: ClassVar[tuple[Column, ...]] = (Column("dice", "Dice", "higher", digits=".3f"),)
    # It needs the range of the reference first, unless a threshold is given.
    pass_number: ClassVar[int] = 3

    threshold: float | None = setting(
        None,
        help="Voxels above this value count as matter in the Dice coefficient. By default halfway between the least "
        "and the largest value of the reference.",
    )

    def measure(
        self, volume: xr.DataArray, reference: xr.DataArray, *, region: Region, memory_bytes: int
    ) -> Mapping[str, xr.DataArray | float]:
        """Lazy."""
        return {self.name: dice(volume, reference, threshold=self.threshold, region=region)}


def dice(
    volume: xr.DataArray, reference: xr.DataArray, *, threshold: float | None = None, region: Region = "all"
) -> xr.DataArray:
    """Dice coefficient of the voxels above a threshold: ``2 |V ∩ R| / (|V| + |R|)``.

    Parameters
    ----------
    volume, reference, region
        See `mse`.
    threshold
        Voxels above it count as matter, in both volumes; by default halfway between the least and the largest value of
        the reference.

    Returns
    -------
    No dims, float64, from 0 to 1; 1 where neither volume has matter. Lazy.

    Raises
    ------
    SchemaError
        See `mse`.

    References
    ----------
    .. [1] L. R. Dice, Ecology 26 (1945) 297, doi:10.2307/1932409.
    """
    volume, reference = pair("dice", volume, reference)
    if threshold is not None and not np.isfinite(threshold):
        refuse("dice", needs="a finite threshold", got=f"{threshold}", remedy="leave out `threshold`")
    if threshold is None:
        known = clone(reference.data)  # blocks that are read for the range alone, and not held until it is known
        level = (known.max() + known.min()) / np.float32(2)
    else:
        level = da.from_array(np.float32(threshold), chunks=())
    counts = da.map_blocks(
        _counts,
        volume.data,
        reference.data,
        level,
        drop_axis=[1, 2],
        new_axis=[1],
        chunks=(volume.data.chunks[0], (3,)),
        dtype=np.float64,
        meta=np.empty((0, 0)),
        inside=inside_region(volume, region),
    )
    both, first, second = counts.rechunk(-1).sum(axis=0)
    empty = first + second == 0
    return xr.DataArray(da.where(empty, 1.0, 2 * both / da.where(empty, 1.0, first + second)), name="dice")


def _counts(slab: Float32, reference: Float32, level: Any, *, inside: npt.NDArray[np.bool_]) -> Float64:
    """(slice, 3): voxels above the level in both, in the slab, in the reference."""
    first, second = (one[:, inside] > np.float32(level) for one in (slab, reference))
    return np.stack([one.sum(axis=1, dtype=np.float64) for one in (first & second, first, second)], axis=1)
