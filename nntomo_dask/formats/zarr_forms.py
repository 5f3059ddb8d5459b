"""The forms of arrays in Zarr's formats 2 and 3 that are read; everything else is refused before Zarr sees it.

Real numbers, regular chunks, sizes that images can have, and codecs that decode bytes and do nothing else: objects
would have to be unpickled.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nntomo_dask.formats import faults, stored
from nntomo_dask.formats.faults import FaultError
from nntomo_dask.untrusted import LONGEST_JSON, parsed_object

Json = dict[str, Any]
MOST_CHUNKS = 2**18
MOST_CHUNK_BYTES = 2**30
_MOST_DIMS = 6
_KEYS_2 = {
    "zarr_format", "shape", "chunks", "dtype", "compressor", "fill_value", "order", "filters", "dimension_separator",
}  # fmt: skip
_KEYS_3 = {
    "zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs",
    "attributes", "dimension_names", "storage_transformers",
}  # fmt: skip
_TYPES_3 = {
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
}  # fmt: skip
_COMPRESSORS = {
    "blosc": {"cname", "clevel", "shuffle", "blocksize", "typesize"}, "zstd": {"level", "checksum"}, "gzip": {"level"},
    "zlib": {"level"}, "lz4": {"acceleration"},
}  # fmt: skip
_PLAIN = "save it in regular chunks, compressed by Zstandard or gzip, without other codecs and filters"


@dataclass(frozen=True)
class Described:
    """What the metadata of an array say.

    Attributes
    ----------
    prefix, separator
        Of the names of chunks.
    compressor
        How chunks are compressed, a key of `_COMPRESSORS`; None where they are not.
    tail
        Bytes of a checksum behind each chunk.
    """

    zarr_format: Literal[2, 3]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: "np.dtype[Any]"
    prefix: str
    separator: str
    compressor: str | None
    tail: int

    @property
    def grid(self) -> tuple[int, ...]:
        """How many chunks there are along each axis."""
        return tuple(-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True))

    @property
    def chunk_bytes(self) -> int:
        """Of a chunk that is not compressed."""
        return math.prod(self.chunks) * self.dtype.itemsize

    def key(self, place: Sequence[int]) -> str:
        """The name of the file of a chunk, in the folder of the array."""
        return self.prefix + self.separator.join(map(str, place))


def json_of(path: Path) -> Json:
    """The JSON object in a file; a FaultError where there is none, or it is too long."""
    if not path.is_file() or path.stat().st_size > LONGEST_JSON:
        raise FaultError(f"{path.name} in {path.parent.name} is missing or too long")
    return parsed_object(path.read_bytes())


def described(folder: Path) -> tuple[Described, Path]:
    """What an array's metadata say, and the file of these.

    Raises
    ------
    ValueError
        They are of another form; FaultErrors are ValueErrors.
    """
    if (folder / ".zarray").is_file():
        return _of_2(json_of(folder / ".zarray")), folder / ".zarray"
    return _of_3(json_of(folder / "zarr.json")), folder / "zarr.json"


def _of_2(found: Json) -> Described:
    if not set(found) <= _KEYS_2 or found.get("zarr_format") != 2:
        raise FaultError("the metadata of an array have not the keys of Zarr's format 2")
    kind = found.get("dtype")
    if not isinstance(kind, str) or not re.fullmatch(r"[<>|][iuf][1248]", kind) or kind[1:] == "f1":
        raise FaultError(f"its values are of type {str(kind)[:20]!r}, not real numbers", remedy=faults.REAL)
    if found.get("filters") not in (None, []) or found.get("order") not in ("C", "F"):
        raise FaultError("its values pass through filters, or are in an order that is not known", remedy=_PLAIN)
    separator = found.get("dimension_separator", ".")
    compressor = found.get("compressor")
    name = None
    if compressor is not None:
        settings = dict(compressor) if isinstance(compressor, dict) else {}
        name = _compressor(settings.pop("id", None), settings)
    return _checked(2, found, found.get("chunks"), np.dtype(kind), "", separator, name, 0)


def _of_3(found: Json) -> Described:
    if not set(found) <= _KEYS_3 or found.get("zarr_format") != 3 or found.get("node_type") != "array":
        raise FaultError("the metadata of an array have not the keys of Zarr's format 3")
    kind, grid, keys = found.get("data_type"), found.get("chunk_grid"), found.get("chunk_key_encoding")
    if not isinstance(kind, str) or kind not in _TYPES_3:
        raise FaultError(f"its values are of type {str(kind)[:20]!r}, not real numbers", remedy=faults.REAL)
    if not (isinstance(grid, dict) and grid.get("name") == "regular" and isinstance(grid.get("configuration"), dict)):
        raise FaultError("its chunks are not regular", remedy=_PLAIN)
    if not isinstance(keys, dict) or keys.get("name") not in ("default", "v2"):
        raise FaultError("the names of its chunks are of a kind that is not known")
    settings = keys.get("configuration", {})
    is_default = keys["name"] == "default"
    separator = settings.get("separator", "/" if is_default else ".") if isinstance(settings, dict) else None
    if found.get("storage_transformers", []) != []:
        raise FaultError("it has storage transformers, which are not read", remedy=_PLAIN)
    codecs = found.get("codecs")
    if not isinstance(codecs, list) or not all(isinstance(one, dict) for one in codecs):
        raise FaultError("its codecs cannot be read")
    chain = [(one.get("name"), one.get("configuration", {})) for one in codecs]
    dtype = np.dtype(kind)
    if chain and chain[0][0] == "bytes" and isinstance(chain[0][1], dict):
        order = chain[0][1].get("endian", "little")
        if order not in ("little", "big") or not set(chain[0][1]) <= {"endian"}:
            raise FaultError("the order of its bytes is not known")
        dtype = dtype.newbyteorder("<" if order == "little" else ">")
        del chain[0]
    else:
        first = str(chain[0][0])[:30] if chain else "none"
        raise FaultError(f"its codec {first!r} is not read here", remedy=_PLAIN)
    tail = 0
    if chain and chain[-1][0] == "crc32c":
        tail, chain = 4, chain[:-1]
    if len(chain) > 1:
        raise FaultError("it passes through more codecs than are read here", remedy=_PLAIN)
    name = _compressor(*chain[0]) if chain else None
    chunks = grid["configuration"].get("chunk_shape")
    return _checked(3, found, chunks, dtype, f"c{separator}" if is_default else "", separator, name, tail)


def _compressor(name: Any, settings: Any) -> str:
    if not isinstance(name, str) or name not in _COMPRESSORS:
        raise FaultError(f"its codec {str(name)[:30]!r} is not read here", remedy=_PLAIN)
    known = isinstance(settings, dict) and set(settings) <= _COMPRESSORS[name]
    if not known or not all(isinstance(value, int | str | bool) for value in settings.values()):
        raise FaultError(f"its codec {name!r} has settings that are not known")
    return name


def _checked(
    zarr_format: Literal[2, 3], found: Json, chunks: Any, dtype: "np.dtype[Any]", prefix: str, separator: Any,
    compressor: str | None, tail: int,
) -> Described:  # fmt: skip
    shape = found.get("shape")
    for sizes in (shape, chunks):
        if not isinstance(sizes, list) or not 1 <= len(sizes) <= _MOST_DIMS:
            raise FaultError("its shape cannot be read")
        if not all(type(size) is int and 1 <= size <= stored.LONGEST_EDGE for size in sizes):
            raise FaultError("its shape is none of images")
    if not isinstance(shape, list) or len(shape) != len(chunks) or separator not in (".", "/"):
        raise FaultError("its chunks do not fit its shape")
    fill = found.get("fill_value")
    if isinstance(fill, bool) or not isinstance(fill, int | float | str | None):
        raise FaultError("its fill value cannot be read")
    made = Described(zarr_format, tuple(shape), tuple(chunks), dtype, prefix, separator, compressor, tail)
    if made.chunk_bytes > MOST_CHUNK_BYTES:
        raise FaultError(f"its chunks are larger than {MOST_CHUNK_BYTES} bytes")
    if math.prod(made.grid) > MOST_CHUNKS:
        raise FaultError(f"it has more than {MOST_CHUNKS} chunks")
    return made
