"""Mean square error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import schema
from nntomo_dask.metrics import METRICS
from nntomo_dask.metrics.metric import Column, Metric
from nntomo_dask.metrics.pairs import Region, inside_region, pair
from nntomo_dask.types import Float32, Float64


@METRICS.register
@dataclass(frozen=True)
class Mse(Metric):
    """See `mse`."""

    name: ClassVar[str] = "mse"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("mse", "MSE", "lower", unit="u²", digits=".6g", about="mean square error; u is the unit of the values"),
    )

    def measure(
        self, volume: xr.DataArray, reference: xr.DataArray, *, region: Region, memory_bytes: int
    ) -> Mapping[str, xr.DataArray | float]:
        """Lazy."""
        return {self.name: mse(volume, reference, region=region)}


def mse(volume: xr.DataArray, reference: xr.DataArray, *, region: Region = "all") -> xr.DataArray:
    """Mean square error.

    Parameters
    ----------
    volume, reference
        Dims (z, y, x), float32, of one shape and with the same coordinates. Where one is in nm and the other in px,
        voxels are compared by their numbers from the tilt axis.
    region
        "all" voxels, or those of the "disc" that every projection sees, in each slice: about the tilt axis, as wide as
        the nearer end of x allows.

    Returns
    -------
    No dims, float64, [u²].

    Raises
    ------
    SchemaError
        One of them is no volume, or their shapes or coordinates differ. When it is computed: a value is NaN or
        infinite.
    """
    volume, reference = pair("mse", volume, reference)
    inside = inside_region(volume, region)
    sums = da.map_blocks(
        _squares, volume.data, reference.data, drop_axis=[1, 2], dtype=np.float64, meta=np.empty((0,)), inside=inside
    )
    count = volume.sizes[schema.Z] * int(inside.sum())
    return xr.DataArray(sums.rechunk(-1).sum() / count, name="mse")


def _squares(slab: Float32, reference: Float32, *, inside: npt.NDArray[np.bool_]) -> Float64:
    return squares((slab.astype(np.float64) - reference)[:, inside])


def squares(values: Float64) -> Float64:
    """(slice,): the sum of the squares of values (slice, voxel)."""
    return np.array([float(one @ one) for one in values])
