"""The header of an MRC file against the size of the file, before memory is taken for what it says.

The header has no checksum: a changed byte in it, or in the pixels, is noticed only where the sizes no longer fit.
"""

import struct
import warnings
from pathlib import Path

HEADER_BYTES = 1024
MOST_EXTENDED_BYTES = 2**26  # an FEI header has under a kilobyte for each image
_LONGEST_AXIS = 2**24
_BITS = {0: 8, 1: 16, 2: 32, 3: 32, 4: 64, 6: 16, 12: 16, 101: 4}  # of a pixel, by mode; 3 and 4 are complex
_SIZES_AND_MODE, _EXTENDED, _MAP, _STAMP = 0, 92, 208, 212  # where they stand


class HeaderError(ValueError):
    """What stands in a header is none of MRC."""


class SizeError(ValueError):
    """A file is shorter than its header says."""


def check(path: Path) -> None:
    """Raise an error where the sizes in a header are no sizes, or more than the file has.

    Of two byte orders the one is taken that the machine stamp names; where it names none, the one in which the mode is
    a known one.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        raise SizeError(f"it has {size} bytes, fewer than a header")
    order = _byte_order(header)
    *sizes, mode = struct.unpack_from(f"{order}4i", header, _SIZES_AND_MODE)
    (extended,) = struct.unpack_from(f"{order}i", header, _EXTENDED)
    if mode not in _BITS:
        raise HeaderError(f"its mode is {mode}, which is not read here")
    if not all(1 <= length <= _LONGEST_AXIS for length in sizes):
        raise HeaderError(f"its sizes are {sizes}, which no stack has")
    if not 0 <= extended <= MOST_EXTENDED_BYTES or extended > size - HEADER_BYTES:
        kind = SizeError if 0 <= extended <= MOST_EXTENDED_BYTES else HeaderError
        raise kind(f"its extended header is said to have {extended} bytes, the file has {size}")
    section = -(-sizes[0] * _BITS[mode] // 8) * sizes[1]
    needed = HEADER_BYTES + extended + section * sizes[2]
    # Some programs pad files; a whole section more than said is another mode or another number of sections.
    if not needed <= size < needed + section:
        kind = SizeError if size < needed else HeaderError
        raise kind(f"it has {size} bytes, and its header says {needed}")
    if size > needed:
        warnings.warn(f"{path} has {size - needed} bytes more than its header says; they are left out", stacklevel=4)


def lacking(path: Path) -> list[str]:
    """What the readers of MRC2014 look for in a header and do not find: the map string, the machine stamp."""
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    found = []
    if header[_MAP : _MAP + 3] != b"MAP":
        found.append("no map string")
    if header[_STAMP : _STAMP + 2] not in (b"\x44\x44", b"\x44\x41", b"\x11\x11"):
        found.append("no known machine stamp")
    return found


def _byte_order(header: bytes) -> str:
    stamp = header[_STAMP : _STAMP + 1]
    if stamp in (b"\x44", b"\x11"):
        return "<" if stamp == b"\x44" else ">"
    (mode,) = struct.unpack_from("<i", header, _SIZES_AND_MODE + 12)
    return "<" if 0 <= mode < 2**16 else ">"
