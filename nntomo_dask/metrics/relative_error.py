"""Relative error: the root of the mean square error, as a share of the reference."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import delayed

from nntomo_dask.arrays import schema
from nntomo_dask.metrics import METRICS
from nntomo_dask.metrics.metric import Column, Metric
from nntomo_dask.metrics.mse import mse, squares
from nntomo_dask.metrics.pairs import Region, inside_region, pair
from nntomo_dask.types import Float32, Float64


@METRICS.register
@dataclass(frozen=True)
class RelativeError(Metric):
    """See `relative_error`."""

    name: ClassVar[str] = "relative_error"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "relative_error",
            "Relative error",
            "lower",
            digits=".3g",
            about="root of the MSE over the root mean square of the reference; a volume of zeros has 1",
            doubtful=1.0,
        ),
    )

    def measure(
        self, volume: xr.DataArray, reference: xr.DataArray, *, region: Region, memory_bytes: int
    ) -> Mapping[str, xr.DataArray | float]:
        """Lazy."""
        return {self.name: relative_error(volume, reference, region=region)}


def relative_error(volume: xr.DataArray, reference: xr.DataArray, *, region: Region = "all") -> xr.DataArray:
    """Root of the mean square error, divided by the root mean square of the reference.

    Parameters
    ----------
    volume, reference, region
        See `mse`.

    Returns
    -------
    No dims, float64, without unit: 0 where both are equal, 1 for a volume of zeros; infinite where only the reference
    is zero everywhere.

    Raises
    ------
    SchemaError
        See `mse`.
    """
    error = mse(volume, reference, region=region).data
    _, reference = pair("relative_error", volume, reference)
    inside = inside_region(reference, region)
    sums = da.map_blocks(
        _powers, reference.data, drop_axis=[1, 2], dtype=np.float64, meta=np.empty((0,)), inside=inside
    )
    power = sums.rechunk(-1).sum() / (reference.sizes[schema.Z] * int(inside.sum()))
    # Delayed, not mapped, as in `psnr`.
    return xr.DataArray(da.from_delayed(delayed(_share)(error, power), (), np.float64), name="relative_error")


def _powers(slab: Float32, *, inside: npt.NDArray[np.bool_]) -> Float64:
    return squares(slab[:, inside].astype(np.float64))


def _share(error: Any, power: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, np.sqrt(error / power))
