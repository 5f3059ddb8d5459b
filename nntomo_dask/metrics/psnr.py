"""Peak signal-to-noise ratio."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed

from nntomo_dask.metrics import METRICS
from nntomo_dask.metrics.metric import Column, Metric
from nntomo_dask.metrics.mse import mse
from nntomo_dask.metrics.pairs import Region, data_range, pair


@METRICS.register
@dataclass(frozen=True)
class Psnr(Metric):
    """See `psnr`."""

    name: ClassVar[str] = "psnr"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            "psnr",
            "PSNR",
            "higher",
            unit="dB",
            digits=".2f",
            about="range of the reference against the root of the MSE",
        ),
    )

    def measure(
        self, volume: xr.DataArray, reference: xr.DataArray, *, region: Region, memory_bytes: int
    ) -> Mapping[str, xr.DataArray | float]:
        """Lazy."""
        return {self.name: psnr(volume, reference, region=region)}


def psnr(volume: xr.DataArray, reference: xr.DataArray, *, region: Region = "all") -> xr.DataArray:
    """Peak signal-to-noise ratio, the peak being the range of the reference.

    Parameters
    ----------
    volume, reference, region
        See `mse`.

    Returns
    -------
    No dims, float64, [dB]; infinite where both are equal.

    Raises
    ------
    SchemaError
        See `mse`.
    """
    error = mse(volume, reference, region=region).data
    peak = data_range(pair("psnr", volume, reference)[1].data).astype(np.float64)
    # Delayed, not mapped: Dask fuses a mapped one with the error, and loses that where both are asked for at once.
    return xr.DataArray(da.from_delayed(delayed(_decibels)(peak, error), (), np.float64), name="psnr")


def _decibels(peak: Any, error: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, np.inf, 10 * np.log10(peak**2 / error))
