"""TIFF stacks as ImageJ and Fiji read them, written slab by slab; BigTIFF where a file has 4 GB or more."""

import json
from pathlib import Path
from typing import Any, ClassVar

import xarray as xr

from nntomo_dask import aside
from nntomo_dask.formats import writing
from nntomo_dask.formats.format import Format
from nntomo_dask.formats.numbers import Numbers, Stored

SUFFIXES = (".tif", ".tiff")
MOST_BYTES = 2**32 - 2**25  # of a classic TIFF, with room for its tags


class TiffWriting(Format):
    """How the format is written; its reader derives from this."""

    writing: ClassVar[type | None] = Numbers

    @classmethod
    def write(cls, array: xr.DataArray, path: Path, *, how: Numbers | None = None) -> list[Path]:
        """The array image by image, and of a series its angles beside it."""
        stored = writing.as_written(array, who="export")
        numbers, texts = (how or Numbers()).stored(stored, who="export"), writing.beside(array, path, SUFFIXES)
        with aside.written(path) as partial:
            _write(stored, partial, numbers)
            writing.write_beside(texts)
        return [path, *texts]

    @classmethod
    def outputs(cls, array: xr.DataArray, path: Path) -> list[Path]:
        """The file, and of a series the file of its angles."""
        return [path, *writing.beside(array, path, SUFFIXES)]

    @classmethod
    def is_written(cls, array: xr.DataArray, path: Path, output: Path) -> bool:
        """Whether the file of the angles holds just these."""
        texts = writing.beside(array, path, SUFFIXES)
        return output in texts and writing.holds(output, texts[output])


def _write(array: xr.DataArray, path: Path, numbers: Stored) -> None:
    """Images without compression, one after another in the file."""
    import tifffile

    shape = writing.file_shape(array)
    large = numbers.dtype.itemsize * shape[0] * shape[1] * shape[2] > MOST_BYTES
    said = writing.about(array) | ({"values": numbers.text} if numbers.text else {})
    _, row, column = writing.places(array)
    first = writing.places(array)[0]
    # ImageJ counts pixels in a length whose name stands in the description: here pixels in a unit.
    keywords: dict[str, Any] = {"resolution": (1 / column.step, 1 / row.step), "resolutionunit": "NONE"}
    described = {
        "unit": column.unit if column.unit != "px" else "pixel",
        "spacing": first.step if not writing.is_series(array) else 1.0,
        "Info": json.dumps(said, indent=1),
    }
    with tifffile.TiffWriter(path, bigtiff=large, imagej=not large, byteorder="<" if large else None) as tiff:
        if large:  # the description of ImageJ, by which Fiji and tifffile know stack and scale of a BigTIFF too
            text = (
                f"ImageJ=1.11a\nimages={shape[0]}\nslices={shape[0]}\nunit={described['unit']}\n"
                f"spacing={described['spacing']:.17g}\nloop=false\n"
            )
            keywords |= {"metadata": None, "description": text}
            keywords["extratags"] = [(_INFO_TAG, 2, 0, described["Info"], True)]
        else:
            axes = "TYX" if writing.is_series(array) else "ZYX"
            keywords["metadata"] = {"axes": axes, "loop": False, **described}
        placed: Any = tiff.write(
            shape=shape,
            dtype=numbers.dtype,
            photometric="minisblack",
            contiguous=True,
            software="nntomo_dask",
            returnoffset=True,
            **keywords,
        )
        byteorder, (offset, _) = tiff.tiff.byteorder, placed
    with path.open("r+b") as file:
        writing.write_values(
            array,
            file,
            offset,
            lambda slab, first: numbers.convert(slab, first).astype(numbers.dtype.newbyteorder(byteorder), copy=False),
            itemsize=numbers.dtype.itemsize,
        )


_INFO_TAG = 65000  # a private one, as no public tag of a BigTIFF is for such a text
