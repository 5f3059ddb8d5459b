"""Structural similarity."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.graph_manipulation import clone
from skimage.metrics import structural_similarity

from nntomo_dask.arrays import schema
from nntomo_dask.errors import refuse
from nntomo_dask.metrics import METRICS
from nntomo_dask.metrics.metric import Column, Metric
from nntomo_dask.metrics.pairs import Region, data_range, inside_region, pair
from nntomo_dask.types import Float32, Float64

_SSIM_WINDOW = 7  # pixels, the default of scikit-image


@METRICS.register
@dataclass(frozen=True)
class Ssim(Metric):
    """See `ssim`."""

    name: ClassVar[str] = "ssim"
    columns: ClassVar[tuple[Column, ...]] = (
        Column("ssim", "SSIM", "higher", digits=".3f", about="structural similarity; 1 is equal"),
    )
    # It needs the range of the reference first: in one pass with the others all blocks would be held until then.
    pass_number: ClassVar[int] = 2

    def measure(
        self, volume: xr.DataArray, reference: xr.DataArray, *, region: Region, memory_bytes: int
    ) -> Mapping[str, xr.DataArray | float]:
        """Lazy."""
        return {self.name: ssim(volume, reference, region=region)}


def ssim(volume: xr.DataArray, reference: xr.DataArray, *, region: Region = "all") -> xr.DataArray:
    """Structural similarity, slice by slice in windows of 7 × 7 pixels, and its mean.

    Parameters
    ----------
    volume, reference, region
        See `mse`.

    Returns
    -------
    No dims, float64, at most 1.

    Raises
    ------
    SchemaError
        See `mse`; or slices are narrower than the window.

    References
    ----------
    .. [1] Z. Wang et al., IEEE Trans. Image Process. 13 (2004) 600, doi:10.1109/TIP.2003.819861.
    """
    volume, reference = pair("ssim", volume, reference)
    if volume.sizes[schema.X] < _SSIM_WINDOW:
        got = f"{volume.sizes[schema.X]}"
        refuse("ssim", needs=f"slices of at least {_SSIM_WINDOW} pixels", got=got, remedy="use mse")
    means = da.map_blocks(
        _similarities,
        volume.data,
        reference.data,
        # Of blocks that are read for it alone: else all of them would be held until the range is known.
        data_range(clone(reference.data)),
        drop_axis=[1, 2],
        dtype=np.float64,
        meta=np.empty((0,)),
        inside=inside_region(volume, region),
    )
    return xr.DataArray(means.rechunk(-1).sum() / volume.sizes[schema.Z], name="ssim")


def _similarities(slab: Float32, reference: Float32, data_range: Any, *, inside: npt.NDArray[np.bool_]) -> Float64:
    span = float(data_range) or 1.0
    maps = (
        structural_similarity(image, truth, data_range=span, win_size=_SSIM_WINDOW, full=True)[1]
        for image, truth in zip(slab, reference, strict=True)
    )
    return np.array([float(similarity[inside].mean()) for similarity in maps])
