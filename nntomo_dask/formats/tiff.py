"""TIFF files."""

from typing import ClassVar

from nntomo_dask.formats import FORMATS
from nntomo_dask.formats.tiff_writing import SUFFIXES, TiffWriting


@FORMATS.register
class Tiff(TiffWriting):
    """A TIFF stack, BigTIFF from 4 GB on, with the scale where ImageJ looks for it."""

    name: ClassVar[str] = "tiff"
    title: ClassVar[str] = "TIFF"
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
