"""The header of an MRC file in every dialect: read with `struct`, and compared with the size of the file.

No memory is taken for what a header says before that. The header has no checksum: a changed byte in it, or in the
pixels, is noticed only where the sizes no longer fit. Sources: Cheng et al., J. Struct. Biol. 192 (2015) 146 (MRC2014),
and IMOD's description of the format for its stamp, its flags and 4-bit pixels.
"""

import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HEADER_BYTES = 1024
MOST_EXTENDED_BYTES = 2**26  # an FEI header has under a kilobyte for each image
HALF_BYTES, COLOUR = 101, 16
_LONGEST_AXIS = 2**24
_BITS = {0: 8, 1: 16, 2: 32, 3: 32, 4: 64, 6: 16, 12: 16, HALF_BYTES: 4}  # of a pixel, by mode; 3 and 4 are complex
_TYPES = {0: "i1", 1: "i2", 2: "f4", 3: "c4", 4: "c8", 6: "u2", 12: "f2", HALF_BYTES: "u1"}
_MAP, _STAMP, _IMOD, _EXTENDED_KIND, _WORDS, _LABELS = 208, 212, 152, 104, 128, 220
_IMOD_STAMP = 1146047817
_LABEL_BYTES, _MOST_LABELS = 80, 10
_VOLUME_STACKS = range(401, 631)  # space groups
ByteOrder = Literal["<", ">"]


class HeaderError(ValueError):
    """What stands in a header is none of MRC."""


class SizeError(ValueError):
    """A file is shorter than its header says."""


@dataclass(frozen=True)
class Header:
    """What a header says.

    Attributes
    ----------
    order
        Of the bytes, as NumPy and `struct` write it.
    columns, lines, sections, mode
        Sizes of the file, and the kind of its pixels.
    grid, cell
        Pixels of the cell along x, y and z, and its lengths, [Å].
    extended_bytes, extended_kind, words
        Length of the extended header, its name ("FEI1", "SERI", …; empty in old files), and two numbers on its form.
    space_group
        0 of images, 1 of a volume; most programs do not care.
    imod_flags
        None where IMOD's stamp is absent.
    labels
        Texts of programs that wrote or changed the file.
    """

    order: ByteOrder
    columns: int
    lines: int
    sections: int
    mode: int
    grid: tuple[int, int, int]
    cell: tuple[float, float, float]
    extended_bytes: int
    extended_kind: str
    words: tuple[int, int]
    space_group: int
    imod_flags: int | None
    labels: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the data: an image, a stack or volume, or several volumes."""
        if self.space_group in _VOLUME_STACKS and self.grid[2] > 0 and self.sections % self.grid[2] == 0:
            return (self.sections // self.grid[2], self.grid[2], self.lines, self.columns)
        if self.space_group == 0 and self.sections == 1:
            return (self.lines, self.columns)
        return (self.sections, self.lines, self.columns)

    @property
    def offset(self) -> int:
        """Where the pixels begin."""
        return HEADER_BYTES + self.extended_bytes

    @property
    def line_bytes(self) -> int:
        """Of a line of pixels; lines of half bytes end with a byte."""
        return -(-self.columns * _BITS[self.mode] // 8)

    @property
    def dtype(self) -> str:
        """Of the pixels, as NumPy writes it; bytes are said to be signed, as the standard has it."""
        kind = _TYPES[self.mode]
        return f"|{kind}" if kind.endswith("1") else f"{self.order}{kind}"

    @property
    def is_complex(self) -> bool:
        """Whether pixels are complex numbers."""
        return self.mode in (3, 4)

    @property
    def pixel_angstrom(self) -> tuple[float, float, float]:
        """Edges of a pixel along x, y and z, [Å]; NaN or infinite where the header does not say."""
        sizes = []
        for length, count in zip(self.cell, self.grid, strict=True):
            with_count = length / count if count else float("nan")
            try:
                sizes.append(struct.unpack("<f", struct.pack("<f", with_count))[0])
            except OverflowError:
                sizes.append(float("inf"))
        return (sizes[0], sizes[1], sizes[2])


def read(path: Path, *, silent: bool = False) -> Header:
    """Read a header, and compare it with the size of the file.

    Of two byte orders the one is taken that the machine stamp names. Where it names none, or the header makes no sense
    in it, the one in which sizes and mode do.

    Parameters
    ----------
    silent
        Without a warning where the file is longer than its header says.

    Raises
    ------
    SizeError
        The file is shorter than its header says.
    HeaderError
        The header is none of MRC.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        raw = file.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES:
        raise SizeError(f"it has {size} bytes, fewer than a header")
    header = _parsed(raw, _byte_order(raw))
    needed = _check(header, size)
    if size > needed and not silent:
        warnings.warn(f"{path} has {size - needed} bytes more than its header says; they are left out", stacklevel=4)
    return header


def is_mrc(path: Path) -> bool:
    """Whether a file has the map string of MRC, or else a header that fits its size."""
    try:
        with path.open("rb") as file:
            raw = file.read(HEADER_BYTES)
        if raw[_MAP : _MAP + 3] == b"MAP":
            return True
        read(path, silent=True)
    except (OSError, HeaderError, SizeError):
        return False
    return True


def _parsed(raw: bytes, order: ByteOrder) -> Header:
    columns, lines, sections, mode = struct.unpack_from(f"{order}4i", raw, 0)
    grid = struct.unpack_from(f"{order}3i", raw, 28)
    cell = struct.unpack_from(f"{order}3f", raw, 40)
    space_group, extended = struct.unpack_from(f"{order}2i", raw, 88)
    stamp, flags = struct.unpack_from(f"{order}2i", raw, _IMOD)
    (count,) = struct.unpack_from(f"{order}i", raw, _LABELS)
    labels = [
        raw[_LABELS + 4 + _LABEL_BYTES * k : _LABELS + 4 + _LABEL_BYTES * (k + 1)]
        for k in range(min(max(count, 0), _MOST_LABELS))
    ]
    return Header(
        order=order,
        columns=columns,
        lines=lines,
        sections=sections,
        mode=mode,
        grid=grid,
        cell=cell,
        extended_bytes=extended,
        extended_kind=raw[_EXTENDED_KIND : _EXTENDED_KIND + 4].strip(b"\0 ").decode("latin-1"),
        words=struct.unpack_from(f"{order}2h", raw, _WORDS),
        space_group=space_group,
        imod_flags=flags if stamp == _IMOD_STAMP else None,
        labels=tuple(label.split(b"\0")[0].decode("latin-1").strip() for label in labels),
    )


def _check(header: Header, size: int) -> int:
    """The bytes that a file needs; an error where the sizes in its header are no sizes, or more than the file has."""
    sizes, extended = [header.columns, header.lines, header.sections], header.extended_bytes
    if header.mode not in _BITS:
        which = ", colour" if header.mode == COLOUR and all(1 <= one <= _LONGEST_AXIS for one in sizes) else ""
        raise HeaderError(f"its mode is {header.mode}{which}, which is not read here")
    if not all(1 <= length <= _LONGEST_AXIS for length in sizes):
        raise HeaderError(f"its sizes are {sizes}, which no stack has")
    if not 0 <= extended <= MOST_EXTENDED_BYTES or extended > size - HEADER_BYTES:
        kind = SizeError if 0 <= extended <= MOST_EXTENDED_BYTES else HeaderError
        raise kind(f"its extended header is said to have {extended} bytes, the file has {size}")
    section = header.line_bytes * header.lines
    needed = HEADER_BYTES + extended + section * header.sections
    # Some programs pad files; a whole section more than said is another mode or another number of sections.
    if not needed <= size < needed + section:
        kind = SizeError if size < needed else HeaderError
        raise kind(f"it has {size} bytes, and its header says {needed}")
    return needed


def _byte_order(raw: bytes) -> ByteOrder:
    stamp = raw[_STAMP : _STAMP + 1]
    named: ByteOrder | None = "<" if stamp == b"\x44" else ">" if stamp == b"\x11" else None
    if named is not None and _makes_sense(raw, named):
        return named
    for order in ("<", ">"):
        if _makes_sense(raw, order):
            return order
    return named or "<"


def _makes_sense(raw: bytes, order: ByteOrder) -> bool:
    *sizes, mode = struct.unpack_from(f"{order}4i", raw, 0)
    return 0 <= mode < 2**16 and all(1 <= one <= _LONGEST_AXIS for one in sizes)
