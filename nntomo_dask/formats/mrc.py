"""MRC files: aligned stacks in, volumes and series out."""

from pathlib import Path
from typing import Any, ClassVar

import xarray as xr

from nntomo_dask.formats import FORMATS, mrc_header, mrc_images, mrc_writing, writing
from nntomo_dask.formats.format import Format
from nntomo_dask.formats.images import Images
from nntomo_dask.formats.mrc_arrays import (
    read_mrc_series as read_mrc_series,
    read_mrc_volume as read_mrc_volume,
)
from nntomo_dask.formats.numbers import Numbers


@FORMATS.register
class Mrc(Format):
    """MRC2014 and its dialects: an image stack, or a volume, with a header of 1024 bytes."""

    name: ClassVar[str] = "mrc"
    title: ClassVar[str] = "MRC"
    suffixes: ClassVar[tuple[str, ...]] = mrc_writing.SUFFIXES
    writing: ClassVar[type | None] = Numbers
    options: ClassVar[tuple[str, ...]] = ("byte_kind",)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the map string in the header, or, since older files have none, by sizes that fit the file.

        A folder is recognised where it holds such files, and none of the other formats.
        """
        return mrc_images.is_folder(path) if path.is_dir() else mrc_header.is_mrc(path)

    @classmethod
    def open_images(cls, path: Path, **options: Any) -> Images:
        """A stack, or a folder of stacks of one series; `byte_kind` says whether bytes are signed."""
        return mrc_images.opened(path, **options)

    @classmethod
    def read_volume(cls, path: Path) -> xr.DataArray:
        """See `read_mrc_volume`."""
        return read_mrc_volume(path)

    @classmethod
    def write(cls, array: xr.DataArray, path: Path, *, how: Numbers | None = None) -> list[Path]:
        """The array, and of a series its angles beside it."""
        return mrc_writing.write(array, path, how or Numbers())

    @classmethod
    def outputs(cls, array: xr.DataArray, path: Path) -> list[Path]:
        """The file, and of a series the file of its angles."""
        return [path, *mrc_writing.beside(array, path)]

    @classmethod
    def is_written(cls, array: xr.DataArray, path: Path, output: Path) -> bool:
        """Whether the file of the angles holds just these."""
        texts = mrc_writing.beside(array, path)
        return output in texts and writing.holds(output, texts[output])
