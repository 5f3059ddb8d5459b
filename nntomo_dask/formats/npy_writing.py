"""NumPy's .npy files, written slab by slab, with a text beside them that says what the numbers are."""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import xarray as xr

from nntomo_dask import aside
from nntomo_dask.arrays import recipes
from nntomo_dask.formats import writing
from nntomo_dask.formats.format import Format
from nntomo_dask.formats.numbers import Numbers, Stored
from nntomo_dask.untrusted import LONGEST_JSON, parsed_object

SUFFIXES = (".npy",)


class NpyWriting(Format):
    """How the format is written; its reader derives from this."""

    writing: ClassVar[type | None] = Numbers

    @classmethod
    def write(cls, array: xr.DataArray, path: Path, *, how: Numbers | None = None) -> list[Path]:
        """The array in the order of `writing.file_dims`, a JSON file beside it, and of a series its angles."""
        stored = writing.as_written(array, who="export")
        numbers = (how or Numbers()).stored(stored, who="export")
        texts = _beside(stored, path, numbers)
        header = {"descr": numbers.dtype.str, "fortran_order": False, "shape": writing.file_shape(stored)}
        with aside.written(path) as partial:
            with partial.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                writing.write_values(stored, file, file.tell(), numbers.convert, itemsize=numbers.dtype.itemsize)
            writing.write_beside(texts)
        return [path, *texts]

    @classmethod
    def outputs(cls, array: xr.DataArray, path: Path) -> list[Path]:
        """The file, its description, and of a series the file of its angles."""
        return [path, *_names(array, path)]

    @classmethod
    def is_written(cls, array: xr.DataArray, path: Path, output: Path) -> bool:
        """Whether the file of the angles holds just these, or the description is one of this array.

        Both appear before the array does.
        """
        texts = writing.beside(array, path, SUFFIXES)
        if output in texts:
            return writing.holds(output, texts[output])
        return output != path and _describes(output, array)


def _describes(file: Path, array: xr.DataArray) -> bool:
    """Whether a file is the description of an array with the same recipe."""
    try:
        if file.stat().st_size > LONGEST_JSON:
            return False
        said = parsed_object(file.read_bytes())
        return said.get("written_by") == "nntomo_dask" and recipes.same(said["recipe"], recipes.recipe_of(array))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _names(array: xr.DataArray, path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}.json"), *writing.beside(array, path, SUFFIXES)]


def _beside(array: xr.DataArray, path: Path, numbers: Stored) -> dict[Path, str]:
    said = writing.about(array) | ({"values": numbers.text} if numbers.text else {})
    described = {path.with_name(f"{path.name}.json"): json.dumps(said, indent=1) + "\n"}
    return described | writing.beside(array, path, SUFFIXES)
