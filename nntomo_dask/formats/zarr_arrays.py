"""Arrays in Zarr's formats 2 and 3 that others wrote: what is read of them, and what is refused.

Metadata are compared with a form before Zarr sees them: real numbers, regular chunks, and codecs that decode bytes and
do nothing else; objects would have to be unpickled. How large a chunk becomes is compared with its size before it is
decoded.
"""

import math
import os
import re
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nntomo_dask.formats import stored
from nntomo_dask.formats.faults import FaultError, reading
from nntomo_dask.formats.images import FirstLine, Images, Said
from nntomo_dask.formats.source import Source
from nntomo_dask.untrusted import LONGEST_JSON, parsed_object

Json = dict[str, Any]
MOST_CHUNKS = 2**18
MOST_CHUNK_BYTES = 2**30
_MOST_DIMS = 6
_ZSTD = b"\x28\xb5\x2f\xfd"
_BLOCK = 2**20
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
        raise FaultError(f"its values are of type {str(kind)[:20]!r}, not real numbers")
    if found.get("filters") not in (None, []) or found.get("order") not in ("C", "F"):
        raise FaultError("its values pass through filters, or are in an order that is not known")
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
        raise FaultError(f"its values are of type {str(kind)[:20]!r}, not real numbers")
    if not (isinstance(grid, dict) and grid.get("name") == "regular" and isinstance(grid.get("configuration"), dict)):
        raise FaultError("its chunks are not regular")
    if not isinstance(keys, dict) or keys.get("name") not in ("default", "v2"):
        raise FaultError("the names of its chunks are of a kind that is not known")
    settings = keys.get("configuration", {})
    is_default = keys["name"] == "default"
    separator = settings.get("separator", "/" if is_default else ".") if isinstance(settings, dict) else None
    if found.get("storage_transformers", []) != []:
        raise FaultError("it has storage transformers, which are not read")
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
        raise FaultError(f"its codec {first!r} is not read here; save it without it")
    tail = 0
    if chain and chain[-1][0] == "crc32c":
        tail, chain = 4, chain[:-1]
    if len(chain) > 1:
        raise FaultError("it passes through more codecs than are read here")
    name = _compressor(*chain[0]) if chain else None
    chunks = grid["configuration"].get("chunk_shape")
    return _checked(3, found, chunks, dtype, f"c{separator}" if is_default else "", separator, name, tail)


def _compressor(name: Any, settings: Any) -> str:
    if not isinstance(name, str) or name not in _COMPRESSORS:
        raise FaultError(f"its codec {str(name)[:30]!r} is not read here")
    if not isinstance(settings, dict) or not set(settings) <= _COMPRESSORS[name]:
        raise FaultError(f"its codec {name!r} has settings that are not known")
    if not all(isinstance(value, int | str | bool) for value in settings.values()):
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


@dataclass(frozen=True)
class ZarrImages(Images):
    """Images in an array of Zarr.

    Attributes
    ----------
    folder
        Of the array.
    axes
        Axes of the array that are image, line and column; the first is -1 where it holds one image. Along the others
        it has one pixel.
    array
        What its metadata say.
    chunks
        The files of its chunks by name; a chunk that is missing has the fill value.
    """

    shape: tuple[int, int, int]
    dtype: "np.dtype[Any]"
    first_line: FirstLine
    said: Said
    sources: Sequence[Source]
    folder: str
    axes: tuple[int, int, int]
    array: Described
    chunks: dict[str, Source] = field(repr=False)
    reads: Literal["lines", "images"] = "images"

    def read(self, image: int, lines: slice, columns: slice) -> npt.NDArray[Any]:
        """See `Images.read`."""
        lines, columns = stored.part_of(self.shape, lines, columns)
        chosen: list[int | slice] = [0] * len(self.array.shape)
        parts: tuple[int | slice, ...] = (image, lines, columns)
        for axis, part in zip(self.axes, parts, strict=True):
            if axis >= 0:
                chosen[axis] = part
        self.sources[0].check()
        with reading(Path(self.folder), "a whole Zarr array"):
            return read_part(Path(self.folder), self.array, self.chunks, tuple(chosen)).astype(self.dtype, copy=False)


def images_of(
    folder: Path,
    axes: tuple[int, int, int],
    said: Said,
    first_line: FirstLine,
    *,
    others: Sequence[Source] = (),
    missing: Literal["refused", "filled"],
) -> ZarrImages:
    """The images of an array; `axes` as of `ZarrImages`.

    Parameters
    ----------
    others
        Files of metadata that were read too.
    missing
        What chunks without a file are: damage, or pixels with the fill value.
    """
    array, metadata = described(folder)
    chunks = chunks_of(folder, array)
    if not chunks or (missing == "refused" and len(chunks) < math.prod(array.grid)):
        raise FaultError(f"{len(chunks)} of its {math.prod(array.grid)} chunks are there")
    return ZarrImages(
        shape=stored.shape_of([array.shape[axis] for axis in axes if axis >= 0]),
        dtype=array.dtype,
        first_line=first_line,
        said=said,
        sources=(Source.of(metadata), *others, *chunks.values()),
        folder=str(folder),
        axes=axes,
        array=array,
        chunks=chunks,
    )


def chunks_of(folder: Path, array: Described) -> dict[str, Source]:
    """The files of all chunks that are there, by name."""
    found, whole = {}, folder.resolve()
    for place in np.ndindex(array.grid):
        path = str(whole / (key := array.key(place)))
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(status.st_mode):
            raise FaultError(f"its chunk {key} leads to another place, or is no file")
        found[key] = Source(path, status.st_size, status.st_mtime_ns)
    return found


def read_part(
    folder: Path, array: Described, chunks: dict[str, Source], chosen: tuple[int | slice, ...]
) -> npt.NDArray[Any]:
    """A part of an array, whose chunks are looked at first.

    Raises
    ------
    SchemaError
        A chunk has changed since it was opened.
    ValueError
        A chunk is damaged.
    """
    import zarr

    from nntomo_dask.store import zarr_settings

    for place in _touched(array, chosen):
        key = array.key(place)
        if key in chunks:
            chunks[key].check()
            _check_chunk(folder / key, array)
        elif (folder / key).exists():
            raise FaultError(f"its chunk {key} has come since it was opened")
    with zarr_settings.ours():
        store = zarr.storage.LocalStore(folder, read_only=True)
        opened: Any = zarr.open_array(store, mode="r", zarr_format=array.zarr_format)
        if tuple(opened.shape) != array.shape:
            raise FaultError("its metadata have changed since it was opened")
        return np.asarray(opened[chosen])


def small(folder: Path, most: int = 2**24) -> npt.NDArray[Any] | None:
    """An array of numbers among the metadata; None where it is none, or large."""
    try:
        array, _ = described(folder)
        if math.prod(array.shape) * array.dtype.itemsize > most or array.chunk_bytes > most:
            return None
        chunks = chunks_of(folder, array)
        if len(chunks) < math.prod(array.grid):
            return None
        return read_part(folder, array, chunks, (slice(None),) * len(array.shape))
    except (ValueError, OSError):
        return None


def _touched(array: Described, chosen: tuple[int | slice, ...]) -> Iterator[tuple[int, ...]]:
    ranges = []
    for part, size, chunk in zip(chosen, array.shape, array.chunks, strict=True):
        begin, end, _ = part.indices(size) if isinstance(part, slice) else (part, part + 1, 1)
        ranges.append(range(begin // chunk, -(-max(end, begin) // chunk)))
    for place in np.ndindex(*(len(one) for one in ranges)):
        yield tuple(one[index] for one, index in zip(ranges, place, strict=True))


def _check_chunk(path: Path, array: Described) -> None:
    """Raise a FaultError where a chunk would not become as large as it should; without decoding it where that goes."""
    size, wanted = path.stat().st_size - array.tail, array.chunk_bytes
    if not 0 <= size <= 2 * wanted + _BLOCK:
        raise FaultError(f"its chunk {path.name} is of a size that it cannot have")
    with path.open("rb") as file:
        head = file.read(18)
        file.seek(0)
        made = _size_of(file, head, size, array)
    if made != wanted:
        raise FaultError(f"its chunk {path.name} is damaged")


def _size_of(file: Any, head: bytes, size: int, array: Described) -> int:
    """How many bytes a chunk of so many bytes becomes; -1 where it is damaged."""
    match array.compressor:
        case None:
            return size
        case "blosc":
            return int.from_bytes(head[4:8], "little") if int.from_bytes(head[12:16], "little") == size else -1
        case "lz4":
            return int.from_bytes(head[:4], "little")
        case "zstd":
            stated = _zstd_size(head)
            return _decoded_by_zstd(file.read(size), array.chunk_bytes) if stated is None else stated
        case _:
            return _inflated(file, array.chunk_bytes, size)


def _zstd_size(head: bytes) -> int | None:
    """The size that the header of a frame states (RFC 8878, 3.1.1.1); None where it states none."""
    if head[:4] != _ZSTD or len(head) < 6:
        return -1
    descriptor = head[4]
    single, code = bool(descriptor & 32), descriptor >> 6
    begin = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    length = (1 if single else 0, 2, 4, 8)[code]
    if not length:
        return None
    if len(head) < begin + length:
        return -1
    return int.from_bytes(head[begin : begin + length], "little") + (256 if length == 2 else 0)


def _decoded_by_zstd(content: bytes, wanted: int) -> int:
    from imagecodecs import zstd_decode

    return len(zstd_decode(content, out=wanted))


def _inflated(file: Any, wanted: int, size: int) -> int:
    """How many bytes gzip or zlib make, no further than one more than is wanted."""
    inflater, made = zlib.decompressobj(zlib.MAX_WBITS | 32), 0
    left = size
    while left > 0 and not inflater.eof and made <= wanted:
        block = file.read(min(_BLOCK, left))
        if not block:
            break
        left -= len(block)
        while block and made <= wanted:
            made += len(inflater.decompress(block, _BLOCK))
            block = inflater.unconsumed_tail
    return made if inflater.eof and not left else -1
