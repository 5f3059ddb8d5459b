"""Arrays of Zarr that others wrote, in the forms of `zarr_forms`.

How large a chunk becomes is compared with its size before it is decoded, and a chunk that is a link is not followed.
"""

import math
import os
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
from nntomo_dask.formats.images import Said
from nntomo_dask.formats.source import Source
from nntomo_dask.formats.zarr_forms import Described, described

_ZSTD = b"\x28\xb5\x2f\xfd"
_BLOCK = 2**20


@dataclass
class ZarrImages(stored.FileImages):
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
        first_line="top",
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
    while left > 0 and not inflater.eof and made <= wanted and (block := file.read(min(_BLOCK, left))):
        left -= len(block)
        while block and made <= wanted:
            made += len(inflater.decompress(block, _BLOCK))
            block = inflater.unconsumed_tail
    return made if inflater.eof and not left else -1
