"""The file that an array is read from: a checksum of all its bytes, and reads that notice when it has changed.

Files are read, not mapped: where a mapped file is cut short meanwhile, the system kills the process.
"""

import os
import time
import zlib
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

import google_crc32c
import numpy as np
import numpy.typing as npt

from nntomo_dask.arrays import recipes
from nntomo_dask.errors import refuse
from nntomo_dask.types import Float32
from nntomo_dask.untrusted import printable

_SAMPLES, _SAMPLE_BYTES = 256, 2**16
_ALL_SAMPLED_BYTES = _SAMPLES * _SAMPLE_BYTES  # in files up to this size the samples leave no byte out
_BLOCK_BYTES = 2**22
_SETTLED_SECONDS = 2.0  # a file that changed within the same tick of the clock would look unchanged
_known: dict[tuple[Any, ...], dict[str, int]] = {}


@dataclass(frozen=True)
class Source:
    """A file as it was when it was opened.

    Attributes
    ----------
    path
        Where it is, without symbolic links.
    size, changed_ns
        Its size in bytes and the time of its last change, by which later reads recognise it.
    """

    path: str
    size: int
    changed_ns: int

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> "Source":
        """The file as it is now."""
        place = Path(path).resolve()
        status = place.stat()
        return cls(str(place), status.st_size, status.st_mtime_ns)

    def identity(self) -> dict[str, Any]:
        """What a recipe says of the file: name, size, and a checksum of all bytes.

        The file is read once for it, unless this process has just done so. The time of the last change is left out: a
        copy has another, and holds the same.

        Raises
        ------
        SchemaError
            The file has changed since it was opened.
        """
        with self._opened() as file:
            status = os.fstat(file.fileno())
            key = (self.path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            settled = time.time() - max(status.st_mtime_ns, status.st_ctime_ns) / 1e9 > _SETTLED_SECONDS
            if not settled or key not in _known:
                checksum = _checksum(file, self.size)
                self._check(file)
                if settled:
                    _known[key] = checksum
            else:
                checksum = _known[key]
        return {"file": printable(Path(self.path).name), "bytes": self.size, **checksum}

    def _opened(self) -> BufferedReader:
        try:
            file = Path(self.path).open("rb")
        except FileNotFoundError:
            self._refuse("is gone")
        try:
            self._check(file)
        except BaseException:
            file.close()
            raise
        return file

    def _check(self, file: BufferedReader) -> None:
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) != (self.size, self.changed_ns):
            self._refuse("has changed since it was opened")

    def _refuse(self, what: str) -> NoReturn:
        refuse(
            "read",
            needs="a source file that stays as it is until it has been read",
            got=f"{self.path}, which {what}",
            remedy="open the file again, or give the same command again, when nothing writes to it any more",
        )

    def block(self, dtype: npt.DTypeLike, start: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Read an array that lies in the file from a byte on, in C order.

        Raises
        ------
        SchemaError
            The file has changed since it was opened.
        """
        with self._opened() as file:
            values = self._read(file, np.dtype(dtype), start, 0, shape)
            self._check(file)
        return values

    def slab(
        self,
        dtype: npt.DTypeLike,
        offset: int,
        shape: tuple[int, int, int],
        axes: tuple[int, int, int],
        rows: slice,
        images: npt.NDArray[np.intp] | None,
    ) -> Float32:
        """Read a slab of slices from an array that lies in the file.

        Parameters
        ----------
        dtype, offset, shape
            Of the stored array: values of this type from this byte on, in C order.
        axes
            Axes of the stored array that become those of the slab.
        rows
            Indices along the first axis of the slab.
        images
            Indices along its second axis, by default all; not where the first axis of the file is that of the slab.

        Raises
        ------
        SchemaError
            The file has changed since it was opened.
        """
        kind = np.dtype(dtype)
        slices = rows.stop - rows.start
        with self._opened() as file:
            if axes[0] == 0:
                values = self._read(file, kind, offset, rows.start * shape[1] * shape[2], (slices, *shape[1:]))
                slab = np.ascontiguousarray(np.transpose(values, axes), np.float32)
            else:
                chosen = np.arange(shape[0]) if images is None else images
                slab = np.empty((slices, chosen.size, shape[axes[2]]), np.float32)
                for place, image in enumerate(chosen):
                    first = int(image) * shape[1] * shape[2]
                    if axes[0] == 1:
                        slab[:, place] = self._read(
                            file, kind, offset, first + rows.start * shape[2], (slices, shape[2])
                        )
                    else:
                        self._read_columns(file, kind, offset, first, shape, rows, slab[:, place])
            self._check(file)
        return slab

    def check(self) -> None:
        """Look whether the file is as it was when it was opened.

        Raises
        ------
        SchemaError
            It has changed, or it is gone.
        """
        self._opened().close()

    def _read_columns(
        self,
        file: BufferedReader,
        kind: "np.dtype[Any]",
        offset: int,
        first: int,
        shape: tuple[int, int, int],
        columns: slice,
        out: Float32,
    ) -> None:
        """Read columns of an image as the rows of `out`: a band of lines at a time, since files have lines."""
        band = max(_BLOCK_BYTES // (shape[2] * kind.itemsize), 1)
        for line in range(0, shape[1], band):
            lines = min(band, shape[1] - line)
            values = self._read(file, kind, offset, first + line * shape[2], (lines, shape[2]))
            out[:, line : line + lines] = values[:, columns].T

    def _read(
        self, file: BufferedReader, kind: "np.dtype[Any]", offset: int, first: int, shape: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        values = np.empty(shape, kind)
        file.seek(offset + first * kind.itemsize)
        if file.readinto(values.reshape(-1).view(np.uint8).data) < values.nbytes:
            self._refuse("has become shorter since it was opened")
        return values


def _checksum(file: BufferedReader, size: int) -> dict[str, int]:
    """A checksum of all bytes. That of small files is the one that version 0.1.0 made of files of any size."""
    if size <= _ALL_SAMPLED_BYTES:
        return {"crc32": _of_samples(file, size)}
    checksum = 0
    while block := file.read(_BLOCK_BYTES):
        checksum = google_crc32c.extend(checksum, block)
    return {"crc32c": checksum}


def _of_samples(file: BufferedReader, size: int) -> int:
    checksum = 0
    for place in range(_SAMPLES):
        file.seek(size * place // _SAMPLES)
        checksum = zlib.crc32(file.read(_SAMPLE_BYTES), checksum)
    return checksum


def as_in_0_1_0(recipe: recipes.Recipe, path: str | os.PathLike[str]) -> recipes.Recipe | None:
    """The recipe that version 0.1.0 gave to what was read from a large file, of which it took samples.

    Equal recipes of this kind do not mean equal files. None where the recipe has not changed since.
    """
    if "crc32c" not in recipe["parameters"]:
        return None
    place = Path(path)
    with place.open("rb") as file:
        samples = {"crc32": _of_samples(file, place.stat().st_size)}
    parameters = {key: value for key, value in recipe["parameters"].items() if key != "crc32c"}
    return recipe | {"parameters": parameters | samples}
