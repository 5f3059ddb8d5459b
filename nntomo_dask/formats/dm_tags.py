"""The tags of DigitalMicrograph's files of versions 3 and 4, read within bounds.

A file is a tree of groups, whose leaves are numbers, texts, structures and arrays. Every size is compared with what is
left of the file before anything is read, and large arrays, among them the pixels, are passed over: only where they lie
is kept. The layout is described by C. Boothroyd, https://personal.ntu.edu.sg/cbb/info/dmformat/.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from nntomo_dask.formats.faults import FaultError

_GROUP, _DATA = 20, 21
_STRUCT, _STRING, _ARRAY = 15, 18, 20
_TYPES = {
    2: "i2", 3: "i4", 4: "u2", 5: "u4", 6: "f4", 7: "f8", 8: "u1", 9: "i1", 10: "i1", 11: "i8", 12: "u8",
}  # fmt: skip
_PIXELS = ("ImageData", "Data")
_MOST_TAGS = 500_000
_DEEPEST = 60
_LONGEST_INFO = 1024  # numbers that describe the type of a tag
_LONGEST_KEPT = 2**16  # bytes of an array or a text that is kept

Tree = dict[str, Any]


class Stretch(NamedTuple):
    """An array that was passed over: where it lies, of what, and how many."""

    offset: int
    dtype: "np.dtype[Any]"
    values: int


def is_dm(path: Path) -> bool:
    """Whether a file begins as one of version 3 or 4."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    if len(head) < 16:
        return False
    version = int.from_bytes(head[:4], "big")
    order = int.from_bytes(head[8:12] if version == 3 else head[12:16], "big")
    return version in (3, 4) and order in (0, 1)


def tags_of(path: Path) -> Tree:
    """All tags of a file as a tree of dicts; tags without a name are called "#0", "#1", ….

    Raises
    ------
    FaultError
        It is no such file, or it is damaged.
    """
    with path.open("rb") as file:
        return _Parser.of(file, path.stat().st_size).root()


def at(tree: Any, *names: str) -> Any:
    """The tag at a path; None where there is none."""
    for name in names:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


@dataclass
class _Parser:
    file: IO[bytes]
    size: int
    version: int
    order: str
    tags: int = 0

    @classmethod
    def of(cls, file: IO[bytes], size: int) -> "_Parser":
        """A parser after the header."""
        parser = cls(file, size, 3, "<")
        parser.version = int.from_bytes(parser.bytes(4), "big")
        if parser.version not in (3, 4):
            raise FaultError(f"its version is {parser.version}, not 3 or 4")
        parser.length()
        parser.order = "<" if int.from_bytes(parser.bytes(4), "big") else ">"
        return parser

    def root(self) -> Tree:
        """The tree of all tags."""
        return self.group("", 0)

    def group(self, own: str, depth: int) -> Tree:
        if depth > _DEEPEST:
            raise FaultError(f"its tags are more than {_DEEPEST} levels deep")
        self.bytes(2)  # whether the group is sorted, and whether it is shown open
        found: Tree = {}
        unnamed = 0
        for _ in range(self.length()):
            self.tags += 1
            if self.tags > _MOST_TAGS:
                raise FaultError(f"it has more than {_MOST_TAGS} tags")
            kind = self.bytes(1)[0]
            if kind not in (_GROUP, _DATA):
                raise FaultError(f"a tag is of kind {kind}, not {_GROUP} or {_DATA}")
            name = self.bytes(int.from_bytes(self.bytes(2), "big")).decode("latin-1")
            if not name:
                name, unnamed = f"#{unnamed}", unnamed + 1
            if self.version == 4:
                self.length()  # of the tag in bytes
            passes = (own, name) == _PIXELS
            found[name] = self.group(name, depth + 1) if kind == _GROUP else self.leaf(0 if passes else _LONGEST_KEPT)
        return found

    def leaf(self, longest: int) -> Any:
        """The value of a tag; of an array of more bytes than `longest`, where it lies."""
        if self.bytes(4) != b"%%%%":
            raise FaultError("the data of a tag do not begin as they should")
        words = self.length()
        if not 1 <= words <= _LONGEST_INFO:
            raise FaultError(f"a tag has a description of {words} numbers")
        info = [self.number() for _ in range(words)]
        if len(info) == 1:
            return self.array(self.simple(info[0]), 1)[0]
        if info[0] == _STRING and len(info) == 2:
            return self.text(info[1])
        if info[0] == _STRUCT:
            return tuple(self.array(dtype, 1)[0] for dtype in self.fields(info[1:]))
        if info[0] == _ARRAY and len(info) == 3:
            kept = self.array(self.simple(info[1]), info[2], longest)
            if info[1] == 4 and isinstance(kept, np.ndarray):  # how texts are stored
                return "".join(map(chr, kept))
            return kept
        if info[0] == _ARRAY and info[1:2] == [_STRUCT]:
            width = sum(dtype.itemsize for dtype in self.fields(info[2:-1]))
        elif info[0] == _ARRAY and info[1:2] == [_ARRAY] and len(info) == 5:
            width = self.simple(info[2]).itemsize * info[3]
        else:
            raise FaultError(f"a tag is of a type that is not known: {info[:3]}")
        self.skip(width * info[-1])
        return None

    def simple(self, code: int) -> "np.dtype[Any]":
        if code not in _TYPES:
            raise FaultError(f"a tag has values of type {code}, which is not known")
        return np.dtype(self.order + _TYPES[code])

    def fields(self, info: list[int]) -> list["np.dtype[Any]"]:
        """Types of the fields of a structure, whose description has two numbers, and two more for each field."""
        if len(info) < 2 or len(info) != 2 + 2 * info[1]:
            raise FaultError("the description of a structure does not fit its fields")
        return [self.simple(code) for code in info[3::2]]

    def array(self, dtype: "np.dtype[Any]", count: int, longest: int = _LONGEST_KEPT) -> Any:
        """An array; a `Stretch` where it is long."""
        nbytes = dtype.itemsize * count
        if nbytes > longest:
            offset = self.file.tell()
            self.skip(nbytes)
            return Stretch(offset, dtype, count)
        return np.frombuffer(self.bytes(nbytes), dtype)

    def text(self, length: int) -> str:
        if length > _LONGEST_KEPT:
            self.skip(length)
            return ""
        return self.bytes(length).decode("utf-8", "replace")

    def skip(self, nbytes: int) -> None:
        if not 0 <= nbytes <= self.size - self.file.tell():
            raise FaultError("it ends before its tags do")
        self.file.seek(nbytes, 1)

    def bytes(self, count: int) -> bytes:
        if not 0 <= count <= self.size - self.file.tell():
            raise FaultError("it ends before its tags do")
        found = self.file.read(count)
        if len(found) < count:
            raise FaultError("it ends before its tags do")
        return found

    def number(self) -> int:
        """One of the numbers that describe a type or a length, which are big-endian."""
        width = 8 if self.version == 4 else 4
        (value,) = struct.unpack(">q" if width == 8 else ">i", self.bytes(width))
        return int(value)

    def length(self) -> int:
        value = self.number()
        if value < 0:
            raise FaultError(f"a length is {value}")
        return value
