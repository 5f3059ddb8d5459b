"""Images whose pixels lie in files as they are, and images of several files in a row."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nntomo_dask.errors import refuse
from nntomo_dask.formats import quantities
from nntomo_dask.formats.faults import FaultError
from nntomo_dask.formats.images import FirstLine, Images, Said
from nntomo_dask.formats.source import Source

MOST_FILES = 2**16
LONGEST_EDGE = 2**20  # pixels of an image, and images of a series
_PER_IMAGE = ("angles_deg", "exposure_s", "dose_e_per_a2")
_PER_FILE = ("tilt_axis_deg", "voltage_kv", "magnification", "detector")


@dataclass
class FileImages(Images):
    """Images with what `Images` describes as fields, for readers to add how they read."""

    shape: tuple[int, int, int]
    dtype: "np.dtype[Any]"
    first_line: FirstLine
    said: Said
    sources: Sequence[Source]


@dataclass
class StoredImages(FileImages):
    """Images that lie in a file without compression, each from a byte on.

    Attributes
    ----------
    offsets
        The first byte of each image.
    """

    offsets: tuple[int, ...]

    def read(self, image: int, lines: slice, columns: slice) -> npt.NDArray[Any]:
        """See `Images.read`; the first of the sources holds the pixels."""
        lines, columns = part_of(self.shape, lines, columns)
        width, count = self.shape[2], lines.stop - lines.start
        start = self.offsets[image] + lines.start * width * self.dtype.itemsize
        return np.ascontiguousarray(self.sources[0].block(self.dtype, start, (count, width))[:, columns])


def part_of(shape: tuple[int, int, int], lines: slice, columns: slice) -> tuple[slice, slice]:
    """Lines and columns with start and stop, within an image."""
    height, width = shape[1:]
    ranges = range(*lines.indices(height)), range(*columns.indices(width))
    one, other = (slice(found.start, max(found.start, found.stop)) for found in ranges)
    return one, other


def shape_of(sizes: Sequence[int]) -> tuple[int, int, int]:
    """A shape (image, line, column), of a stack or of one image.

    Raises
    ------
    FaultError
        It is neither, or it is larger than images can be.
    """
    if len(sizes) not in (2, 3) or not all(1 <= size <= LONGEST_EDGE for size in sizes):
        raise FaultError(f"its shape is {tuple(int(size) for size in sizes)}, which is none of images")
    height, width = sizes[-2:]
    return (int(sizes[0]) if len(sizes) == 3 else 1, int(height), int(width))


class Opened(NamedTuple):
    """Images of one file, and when each was taken, in seconds; None where the file does not say."""

    images: Images
    times: tuple[float | None, ...]


@dataclass
class JoinedImages(FileImages):
    """The images of several files one after another."""

    parts: tuple[Images, ...]
    places: tuple[tuple[int, int], ...]

    def read(self, image: int, lines: slice, columns: slice) -> npt.NDArray[Any]:
        """See `Images.read`."""
        part, place = self.places[image]
        return self.parts[part].read(place, lines, columns)


def in_folder(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of a folder with one of some suffixes, in the order of the numbers in their names, 2 before 10."""
    found = [file for file in path.iterdir() if file.suffix.lower() in suffixes and not file.name.startswith(".")]
    return sorted((file for file in found if file.is_file()), key=lambda file: _natural(file.name))


def is_folder_of(path: Path, suffixes: Sequence[str], recognises: Callable[[Path], bool]) -> bool:
    """Whether a folder holds files of a format."""
    try:
        if not path.is_dir():
            return False
        found = in_folder(path, suffixes)
    except OSError:
        return False
    return bool(found) and recognises(found[0])


def images_at(path: Path, suffixes: Sequence[str], open_one: Callable[[Path], Opened]) -> Images:
    """The images of a file, or of the files in a folder one after another."""
    return joined(path, in_folder(path, suffixes), open_one).images if path.is_dir() else open_one(path).images


def joined(path: Path, files: Sequence[Path], open_one: Callable[[Path], Opened]) -> Opened:
    """Open the files of a folder as one series.

    Raises
    ------
    SchemaError
        There are none, or too many; or they differ in size, type or size of their pixels.
    """
    if not 1 <= len(files) <= MOST_FILES:
        refuse("import", needs=f"1 to {MOST_FILES} files", got=f"{len(files)} in {path}", remedy="another folder")
    opened = [open_one(file) for file in files]
    parts = tuple(one.images for one in opened)
    first = parts[0]
    for file, part in zip(files, parts, strict=True):
        if part.shape[1:] != first.shape[1:] or part.dtype != first.dtype:
            refuse(
                "import",
                needs="images of one size and type",
                got=f"{_described(first)} in {files[0].name} and {_described(part)} in {file.name}",
                remedy="move the files that belong to no series out of the folder",
            )
        one, other = part.said.pixel_nm, first.said.pixel_nm
        if (one is None) != (other is None) or (one and other and abs(one - other) > 1e-3 * other):
            refuse(
                "import",
                needs="images of one magnification",
                got=f"pixels of {other} nm in {files[0].name} and of {one} nm in {file.name}",
                remedy="move the files that belong to no series out of the folder",
            )
    times = tuple(time for one in opened for time in one.times)
    images = JoinedImages(
        shape=(sum(part.shape[0] for part in parts), *first.shape[1:]),
        dtype=first.dtype,
        first_line=first.first_line,
        said=_said(parts, times),
        sources=tuple(source for part in parts for source in part.sources),
        parts=parts,
        places=tuple((index, image) for index, part in enumerate(parts) for image in range(part.shape[0])),
    )
    return Opened(images, times)


def _said(parts: Sequence[Images], times: Sequence[float | None]) -> Said:
    said = [part.said for part in parts]
    places = dict(said[0].places)
    values: dict[str, Any] = {}
    for name in _PER_IMAGE:
        each = [getattr(one, name) for one in said]
        values[name] = None if any(one is None for one in each) else tuple(item for one in each for item in one)
    for name in _PER_FILE:
        each = [getattr(one, name) for one in said]
        values[name] = each[0] if all(one == each[0] for one in each) else None
    values["holds"] = "series" if values["angles_deg"] else said[0].holds
    values["order"] = quantities.order_of(times)
    if values["order"] is not None:
        places["order"] = "the times of acquisition"
    kept = {name: place for name, place in places.items() if name == "pixel_nm" or values.get(name) is not None}
    return replace(said[0], **values, places=kept)


def _described(images: Images) -> str:
    return f"{images.shape[2]} × {images.shape[1]} pixels of {images.dtype}"


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d{1,18})", name.casefold())
    return [(0, int(part), "") if part.isdigit() and part.isascii() else (1, 0, part) for part in parts]
