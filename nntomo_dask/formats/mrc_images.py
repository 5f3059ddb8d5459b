"""MRC stacks as images, with all that headers and SerialEM's files beside them say."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nntomo_dask.errors import refuse
from nntomo_dask.formats import joining, mdoc, mrc_arrays, mrc_bytes, mrc_extended, mrc_grid, mrc_header
from nntomo_dask.formats.images import FirstLine, Images, Said
from nntomo_dask.formats.mrc_bytes import ByteKind
from nntomo_dask.formats.mrc_header import HALF_BYTES, Header
from nntomo_dask.formats.source import Source

_OURS = ("Written by nntomo_dask", "nntomo_dask:")  # how labels begin
_STACKS = (".mrc", ".mrcs", ".st")  # of which a folder may be a series
_MOST_FILES = 4096
_IMOD_ALIGNED, _IMOD_VOLUME = ".ali", ".rec"
_ROUNDED = 0.01  # pixel sizes that differ by less than this share are one
_DIGITS = re.compile(r"(\d+)")


class MrcImages(Images):
    """The sections of one file."""

    first_line: FirstLine = "bottom"

    def __init__(self, path: Path, header: Header, dtype: str, said: Said) -> None:
        self.shape = (header.sections, header.lines, header.columns)
        self.dtype = np.dtype(dtype)
        self.said = said
        self._source = Source.of(path)
        self.sources: Sequence[Source] = (self._source,)
        self._offset, self.line_bytes = header.offset, header.line_bytes
        self._half = header.mode == HALF_BYTES
        zeros = mrc_grid.zeros(header)
        self.zero = None if zeros is None else (zeros[1], zeros[0])
        self.line_step = mrc_grid.ratio(header, "y") if zeros is not None else 1.0

    def with_beside(self, path: Path) -> Said:
        """What is known of the images where SerialEM's file lies beside another path, such as that of a packed file."""
        return joined(beside_of(path, self.shape), self.said)

    def read(self, image: int, lines: slice, columns: slice) -> npt.NDArray[Any]:
        """See `Images.read`; whole lines are read."""
        first, last, _ = lines.indices(self.shape[1])
        count = max(last - first, 0)
        start = self._offset + (image * self.shape[1] + first) * self.line_bytes
        if self._half:
            packed = self._source.block(np.uint8, start, (count, self.line_bytes))
            pixels = np.empty((count, 2 * self.line_bytes), np.uint8)
            pixels[:, 0::2], pixels[:, 1::2] = packed & 15, packed >> 4  # the first pixel in the lower half
            return pixels[:, : self.shape[2]][:, columns]
        return self._source.block(self.dtype, start, (count, self.shape[2]))[:, columns]


def opened(path: Path, *, byte_kind: ByteKind | None = None) -> Images:
    """A stack, or a folder of stacks, as images. SerialEM's .mdoc beside a stack is read with it.

    Raises
    ------
    SchemaError
        See `Format.open_images`.
    """
    if path.is_dir():
        return joining.Joined([_of_file(one, byte_kind) for one in files_of(path)])
    return _of_file(path, byte_kind)


def is_folder(path: Path) -> bool:
    """Whether a folder holds at least two MRC stacks."""
    return len(files_of(path)) > 1


def files_of(folder: Path) -> list[Path]:
    """The MRC stacks in a folder, numbers in names in their own order."""
    try:
        entries = [one for one in folder.iterdir() if one.suffix.lower() in _STACKS and not one.name.startswith(".")]
    except OSError:
        return []
    if len(entries) > _MOST_FILES:
        return []
    return sorted((one for one in entries if one.is_file() and mrc_header.is_mrc(one)), key=natural)


def natural(path: Path) -> list[Any]:
    """A key by which test_2 comes before test_10."""
    return [int(part) if part.isdecimal() and part.isascii() else part for part in _DIGITS.split(path.name)]


def _of_file(path: Path, byte_kind: ByteKind | None) -> MrcImages:
    header = mrc_arrays.header_of(path, "import")
    if len(header.shape) > 3:
        refuse(
            "import",
            needs="a file of one stack or volume",
            got=f"{header.shape[0]} volumes of {header.shape[1]} sections each in {path}",
            remedy="save one of the stacks to a file of its own",
        )
    mrc_grid.check_square(header, path, who="import")
    shape = (header.sections, header.lines, header.columns)
    if byte_kind is not None and header.dtype != "|i1":
        got = f"`byte_kind={byte_kind!r}` and pixels of {np.dtype(header.dtype)} in {path}"
        refuse("import", needs="a file of bytes where signed or unsigned is said", got=got, remedy="leave it out")
    said = joined(beside_of(path, shape), mrc_extended.said(path, header), _of_header(path, header))
    return MrcImages(path, header, mrc_bytes.dtype_of(path, header, byte_kind), said)


def beside_of(path: Path, shape: tuple[int, int, int]) -> Said:
    """What SerialEM's file beside a stack says; an error where there are two that differ, or it is of another stack."""
    names = [f"{path.name}.mdoc", f"{path.stem}.mdoc"]
    by_name = {one.name.lower(): one for one in _siblings(path)}
    found = [mdoc.read(by_name[name.lower()]) for name in dict.fromkeys(names) if name.lower() in by_name]
    for one in found:
        one.check_fits(shape, path)
    if len(found) > 1 and replace(found[0].said(), places={}) != replace(found[1].said(), places={}):
        got = f"{found[0].path.name} and {found[1].path.name}, which differ"
        refuse("import", needs="one .mdoc beside a stack", got=got, remedy="move the wrong one elsewhere")
    return found[0].said() if found else Said()


def _siblings(path: Path) -> list[Path]:
    try:
        return [one for one in path.parent.iterdir() if one.suffix.lower() == ".mdoc" and one.is_file()]
    except OSError:
        return []


def _of_header(path: Path, header: Header) -> Said:
    """What the first 1024 bytes say, and the name of the file where it is one that IMOD gives."""
    found: dict[str, Any] = {}
    places: dict[str, str] = {}
    pixel, units = mrc_grid.pixel_size(header)
    if units == "nm":
        found["pixel_nm"], places["pixel_nm"] = pixel, "the MRC header"
    axis = mdoc.axis_in(header.labels)
    suffix = path.suffix.lower()
    ours = any(label.startswith(_OURS) for label in header.labels)
    if ours or suffix == _IMOD_ALIGNED:
        found["tilt_axis_deg"] = 0.0
        places["tilt_axis_deg"] = "nntomo, which writes it along y" if ours else "IMOD, whose .ali have it along y"
    elif axis is not None:
        found["tilt_axis_deg"], places["tilt_axis_deg"] = axis, "a title in the MRC header"
    if (ours and header.space_group == 1) or mrc_grid.is_from_the_viewer(header) or suffix == _IMOD_VOLUME:
        found["holds"] = "volume"
        places["holds"] = "nntomo wrote a volume" if ours else "IMOD's .rec are reconstructions"
    return replace(Said(), **found, places=places)


def joined(*found: Said) -> Said:
    """What several places say of a file; the first that says something wins, except for what `.ali` is."""
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    names = [name for name in Said.__dataclass_fields__ if name != "places"]
    for name in names:
        by_place = [(getattr(one, name), one.places.get(name, "")) for one in found]
        if name == "tilt_axis_deg":
            by_place.sort(key=lambda pair: not pair[1].startswith(("nntomo", "IMOD")))
        said = [(value, place) for value, place in by_place if value is not None]
        if said:
            values[name], places[name] = said[0]
        if name == "pixel_nm" and len(said) > 1 and abs(said[-1][0] / said[0][0] - 1) > _ROUNDED:
            places[name] += f" ({said[-1][1]} has {said[-1][0]:g} nm)"
    return Said(**values, places=places)
