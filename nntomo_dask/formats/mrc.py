"""MRC files: aligned stacks in, volumes and series out."""

import mmap
import os
from pathlib import Path
from typing import Any, ClassVar

import mrcfile
import numpy as np
import xarray as xr

from nntomo_dask import aside
from nntomo_dask.arrays import schema, slabs
from nntomo_dask.formats import FORMATS, mrc_grid, mrc_header, mrc_images, mrc_statistics
from nntomo_dask.formats.format import Format
from nntomo_dask.formats.images import Images
from nntomo_dask.formats.mrc_arrays import (
    MrcPath,
    read_mrc_series as read_mrc_series,
    read_mrc_volume as read_mrc_volume,
)
from nntomo_dask.formats.tilt_angles import text_of, write_tilt_angles

_LABEL = "Written by nntomo_dask"


@FORMATS.register
class Mrc(Format):
    """MRC2014 and its dialects: an image stack, or a volume, with a header of 1024 bytes."""

    name: ClassVar[str] = "mrc"
    title: ClassVar[str] = "MRC"
    suffixes: ClassVar[tuple[str, ...]] = (".mrc", ".mrcs", ".map", ".rec", ".st", ".ali")
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
    def write(cls, array: xr.DataArray, path: Path) -> list[Path]:
        """The array, and of a series its angles beside it."""
        if schema.ANGLE not in array.dims:
            return [write_mrc(array, path)]
        stored = _as_written(array)
        angles = _angle_file(path)
        with aside.written(path) as partial:
            _write(stored, partial)
            # Just before the array appears: either both are new, or the next run finds nothing in its way.
            if not _holds(angles, array):
                write_tilt_angles(array[schema.ANGLE].values, angles)
        return [path, angles]

    @classmethod
    def outputs(cls, array: xr.DataArray, path: Path) -> list[Path]:
        """The file, and of a series the file of its angles."""
        return [path] if schema.ANGLE not in array.dims else [path, _angle_file(path)]

    @classmethod
    def is_written(cls, array: xr.DataArray, path: Path, output: Path) -> bool:
        """Whether the file of the angles holds just these.

        It appears before the array does. Where a run is killed in between, it does not stand in the way of the next.
        """
        return schema.ANGLE in array.dims and output == _angle_file(path) and _holds(output, array)


def _angle_file(path: Path) -> Path:
    """The name of the file with .rawtlt in place of the suffix, if that is one of MRC files; else behind it."""
    return path.with_suffix(".rawtlt") if path.suffix.lower() in Mrc.suffixes else Path(f"{path}.rawtlt")


def _holds(angles: Path, array: xr.DataArray) -> bool:
    """Whether a file holds the angles of a series, as they would be written."""
    wanted = text_of(array[schema.ANGLE].values)
    try:
        return angles.stat().st_size == len(wanted) and angles.read_text() == wanted
    except (OSError, UnicodeDecodeError):
        return False


def write_mrc(array: xr.DataArray, path: MrcPath) -> Path:
    """Write a volume (z, y, x) or a tilt series (tilt, y, x) with the tilt axis along y to an MRC file, slab by slab.

    The file appears when it is complete; one that was there is replaced.

    Parameters
    ----------
    array
        Volume or tilt series, float32, slices at equal steps. Where its units are nm the header gets the steps of the
        coordinates in Å. Axes in the file are right-handed, as a label in the header says: x and z ascend, and y of a
        volume descends; `read_mrc_volume` turns it back. Line integrals are counted in pixels of the file. Where the
        tilt axis is not in the middle, another label says where it is, and `read_mrc_series` reads it. Values that are
        not finite stay as they are.

    Raises
    ------
    SchemaError
        `array` is neither, or its slices are not at equal steps; or `path` is a folder or a device, or lies inside a
        store.
    OSError
        The place cannot be written.
    """
    stored = _as_written(array)
    with aside.written(path) as partial:
        _write(stored, partial)
    return Path(path)


def _as_written(array: xr.DataArray) -> xr.DataArray:
    """The array as the file will hold it; a SchemaError where it cannot."""
    if isinstance(array, xr.DataArray) and schema.ANGLE in array.dims:
        schema.check_tilt_series(array, who="write_mrc")
    else:
        schema.check_volume(array, who="write_mrc", slices="any")
    return mrc_grid.as_written(array, who="write_mrc")


def _write(array: xr.DataArray, path: Path) -> None:
    is_series = schema.ANGLE in array.dims
    dims = (schema.ANGLE, schema.Z, schema.DETECTOR) if is_series else schema.VOLUME_DIMS
    shape = tuple(array.sizes[dim] for dim in dims)
    with mrcfile.new_mmap(path, shape=shape, mrc_mode=2, overwrite=True) as mrc:
        mrc.header.label[0] = _LABEL  # without a date, so that the same array gives the same bytes
        _take_room(path)
        first = 0
        statistics = mrc_statistics.Statistics()
        for slices in slabs.lazy(array).data.chunks[0]:
            slab = array.isel({schema.Z: slice(first, first + slices)}).values
            if is_series:
                mrc.data[:, first : first + slices] = np.moveaxis(slab, 0, 1)
            else:
                mrc.data[first : first + slices] = slab
            statistics.add(slab)
            _let_go(mrc.data)
            first += slices
        if is_series:
            mrc.set_image_stack()
        statistics.write(mrc.header)
        mrc_grid.write_header(mrc, array)


def _let_go(mapped: Any) -> None:
    """Take what was written to a mapped file out of this process's memory; the system writes it to the disk."""
    pages = getattr(mapped, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def _take_room(path: Path) -> None:
    """Take the room on the disk that a file says it has; writing to a map of a file on a full disk kills a process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
