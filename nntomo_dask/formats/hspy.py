"""HyperSpy files."""

from typing import ClassVar

from nntomo_dask.formats import FORMATS
from nntomo_dask.formats.hspy_writing import SUFFIXES, HspyWriting


@FORMATS.register
class Hspy(HspyWriting):
    """HyperSpy's file (HDF5), or with .zspy its folder (Zarr 2)."""

    name: ClassVar[str] = "hspy"
    title: ClassVar[str] = "HyperSpy"
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
