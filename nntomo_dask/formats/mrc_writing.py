"""MRC files of volumes and tilt series, written slab by slab.

Sections are images (y, x) whose first line is the lowest, as 3dmod of IMOD shows them: of a volume those across the
tilt axis, as IMOD's `tilt` writes them before they are turned; of a series the projections, the tilt axis upright.
"""

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nntomo_dask import aside
from nntomo_dask.arrays.blocks import slabs_of
from nntomo_dask.formats import mrc_grid, mrc_statistics, writing
from nntomo_dask.formats.numbers import Numbers, Stored

SUFFIXES = (".mrc", ".mrcs", ".map", ".rec", ".st", ".ali")
_LABEL = "Written by nntomo_dask"
_MODES = {"float32": 2, "int16": 1, "uint16": 6, "uint8": 0}
# IMOD's stamp, and its flags: bytes are unsigned without the bit 1, and 4 says that the origin has the sign of MRC2014.
_IMOD_STAMP, _ORIGIN_AS_IN_MRC2014 = 1146047817, 4
_STAMP_BYTE = 152


def write_mrc(array: xr.DataArray, path: str | os.PathLike[str]) -> Path:
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
    stored = writing.as_written(array, who="write_mrc", first_line="bottom")
    numbers = Numbers().stored(stored, who="write_mrc")
    with aside.written(path) as partial:
        _write(stored, partial, numbers)
    return Path(path)


def write(array: xr.DataArray, path: Path, how: Numbers) -> list[Path]:
    """Write the array, and of a series its angles beside it; returns the files."""
    stored = writing.as_written(array, who="export", first_line="bottom")
    numbers, texts = how.stored(stored, who="export"), beside(array, path)
    with aside.written(path) as partial:
        _write(stored, partial, numbers)
        # Just before the array appears: either both are new, or the next run finds nothing in its way.
        writing.write_beside(texts)
    return [path, *texts]


def beside(array: xr.DataArray, path: Path) -> dict[Path, str]:
    """The file of the angles of a series, and its text."""
    return writing.beside(array, path, SUFFIXES)


def _write(array: xr.DataArray, path: Path, numbers: Stored) -> None:
    is_series = writing.is_series(array)
    shape = writing.file_shape(array)
    import mrcfile  # here: the help of the command needs the formats, not this

    with mrcfile.new_mmap(path, shape=shape, mrc_mode=_MODES[numbers.type], overwrite=True) as mrc:
        mrc.header.label[0] = _LABEL  # without a date, so that the same array gives the same bytes
        _take_room(path)
        statistics = mrc_statistics.Statistics()
        values = mrc.data.view(np.uint8) if numbers.type == "uint8" else mrc.data
        for first, read in slabs_of(array):
            slab = numbers.convert(read, first)
            if is_series:
                values[:, first : first + len(slab)] = np.moveaxis(slab, 0, 1)
            else:
                values[first : first + len(slab)] = slab
            statistics.add(slab)
            _let_go(mrc.data)
        if is_series:
            mrc.set_image_stack()
        statistics.write(mrc.header)
        mrc_grid.write_header(mrc, array)
        if numbers.text:
            mrc.add_label(f"nntomo_dask: value = {numbers.zero:.9g} + {numbers.step:.9g} * stored")
    if numbers.type == "uint8":
        with path.open("r+b") as file:
            file.seek(_STAMP_BYTE)
            file.write(np.array([_IMOD_STAMP, _ORIGIN_AS_IN_MRC2014], "<i4").tobytes())


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
