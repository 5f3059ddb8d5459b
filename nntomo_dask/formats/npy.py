"""NumPy's .npy files of images or of a volume. They say nothing but their numbers."""

from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nntomo_dask.formats import FORMATS, faults, ours, stored
from nntomo_dask.formats.faults import FaultError, reading
from nntomo_dask.formats.images import Images, Said
from nntomo_dask.formats.npy_writing import NpyWriting
from nntomo_dask.formats.source import Source
from nntomo_dask.formats.stored import StoredImages
from nntomo_dask.untrusted import LONGEST_JSON

_MAGIC = b"\x93NUMPY"
_NEEDS = "a whole .npy file of numbers, (image, line, column)"


@FORMATS.register
class Npy(NpyWriting):
    """Arrays (image, line, column), or volumes (z, y, x), as programs show arrays: the first line at the top."""

    name: ClassVar[str] = "npy"
    title: ClassVar[str] = "NPY"
    suffixes: ClassVar[tuple[str, ...]] = (".npy",)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the first bytes."""
        try:
            with path.open("rb") as file:
                return file.read(len(_MAGIC)) == _MAGIC
        except OSError:
            return False

    @classmethod
    def open_images(cls, path: Path, **options: Any) -> Images:
        """See `Format.open_images`. Objects, which would have to be unpickled, are refused."""
        with reading(path, _NEEDS):
            source = Source.of(path)
            with path.open("rb") as file:
                version = np.lib.format.read_magic(file)
                readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                if version not in readers:
                    raise FaultError(
                        f"its version is {version}, which is not read", remedy="save it again by numpy.save"
                    )
                sizes, is_fortran, dtype = readers[version](file)
                offset = file.tell()
            if dtype.kind not in "iuf" or dtype.hasobject or dtype.itemsize > 8:
                raise FaultError(f"its values are of type {dtype}, not real numbers", remedy=faults.REAL)
            if is_fortran:
                raise FaultError("its order is that of Fortran", remedy="save numpy.ascontiguousarray(array)")
            shape = stored.shape_of(sizes)
            if prod(shape) * dtype.itemsize > source.size - offset:
                raise FaultError("it ends before its values do")
            image_bytes = dtype.itemsize * shape[1] * shape[2]
            offsets = tuple(offset + index * image_bytes for index in range(shape[0]))
            images = StoredImages(shape, dtype, "top", Said(), (source,), offsets)
            _take_beside(images, path)
        return images


def _take_beside(images: StoredImages, path: Path) -> None:
    """What the text says that an export writes beside an array."""
    text = path.with_name(f"{path.name}.json")
    if text.is_file() and text.stat().st_size <= LONGEST_JSON:
        images.sources = (*images.sources, Source.of(text))
        ours.apply(images, text.read_bytes())
