"""OME-Zarr files."""

from typing import ClassVar

from nntomo_dask.formats import FORMATS
from nntomo_dask.formats.ome_zarr_writing import SUFFIXES, OmeZarrWriting


@FORMATS.register
class OmeZarr(OmeZarrWriting):
    """OME-Zarr 0.5, a folder with the image at several scales."""

    name: ClassVar[str] = "ome_zarr"
    title: ClassVar[str] = "OME-Zarr"
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
