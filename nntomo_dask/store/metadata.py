"""The metadata of a store: read within bounds and checked before anything is allocated, listed or given to Zarr.

A store is a Zarr v3 group with one data array and its coordinates. What this package writes is known exactly, so
everything else is refused: other formats, codecs, types, dims, chunks. Metadata lie on the disk twice, with each array
and consolidated in the group; both must agree, and with the checksums that the group holds. Stores of version 0.1.0
have no checksums. Needs neither Zarr, nor xarray, nor Dask.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from nntomo_dask.store.form import (
    DamagedError as DamagedError,
    Json,
    check_coordinate,
    check_data,
    check_group,
    differ,
    is_mark,
)
from nntomo_dask.store.names import ARRAYS, COORDINATES, DIMS, MARK
from nntomo_dask.untrusted import LONGEST_JSON, canonical_json, is_recipe, parsed_object

FILE = "zarr.json"
CHECKSUM_BYTES = 4  # of the CRC-32C at the end of every chunk
ZARRS_PARTIAL = re.compile(r"(zarr|\d+)\.[0-9a-f]{32}\.partial")  # a file that Zarr is writing
_BLOSC_HEADER = 16  # bytes; 4 to 7 are the number of bytes when decompressed, 12 to 15 the number of compressed bytes
_FLAGS, _LZ4, _MOST_PACKED = 2, 1, 256  # the byte whose upper bits are the compressor, LZ4, and its highest ratio


@dataclass(frozen=True)
class Metadata:
    """What the metadata of a store say.

    Attributes
    ----------
    folder
        Of the store.
    name
        Of the data array, a key of `names.DIMS`.
    shape, chunks
        Of the data array. Along all dims but the first there is one chunk.
    attributes
        Of the data array, the recipe among them.
    """

    folder: Path
    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    attributes: Json
    _consolidated: Json | None
    _checksums: Mapping[str, str] | None  # of the coordinates; None in a store of version 0.1.0

    @property
    def dims(self) -> tuple[str, ...]:
        """Of the data array."""
        return DIMS[self.name]

    @property
    def recipe(self) -> Json:
        """How the contents were made."""
        made_by: Json = self.attributes["recipe"]
        return made_by

    @property
    def chunk_count(self) -> int:
        """Chunks along the first dim."""
        return -(-self.shape[0] // self.chunks[0])

    def chunk_file(self, index: int) -> Path:
        """The file of a chunk."""
        return chunk_file(self.folder / self.name, index, len(self.shape))

    def whole_chunks(self) -> set[int]:
        """Numbers of the chunks whose file is as long as its header says. Only folders that exist are looked at."""
        try:
            folders = list((self.folder / self.name / "c").iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return set()
        numbers = (int(folder.name) for folder in folders if folder.name.isascii() and folder.name.isdecimal())
        return {index for index in numbers if index < self.chunk_count and self._has_all_bytes(self.chunk_file(index))}

    def _has_all_bytes(self, file: Path) -> bool:
        try:
            size = file.stat().st_size
            if not file.is_file():
                return False
            with file.open("rb") as opened:
                header = opened.read(_BLOSC_HEADER)
        except (FileNotFoundError, NotADirectoryError):
            return False
        unpacked, packed = (int.from_bytes(header[first : first + 4], "little") for first in (4, 12))
        # What is unpacked is bounded by the file: LZ4 packs zeros to a 255th, other codecs to next to nothing.
        return (
            len(header) == _BLOSC_HEADER
            and unpacked == 4 * math.prod(self.chunks) <= _MOST_PACKED * packed
            and packed == size - CHECKSUM_BYTES
            and header[_FLAGS] >> 5 == _LZ4
        )

    def coordinates(self) -> dict[str, npt.NDArray[Any] | None]:
        """Coordinates by dim; None for one that is missing, damaged, or not the one that was written."""
        sizes = zip(self.dims, self.shape, strict=True)
        return {dim: self._coordinate(dim, size) for dim, size in sizes if dim in COORDINATES}

    def _coordinate(self, dim: str, size: int) -> npt.NDArray[Any] | None:
        try:
            metadata = _object(self.folder / dim / FILE)
            check_coordinate(dim, size, metadata)
            dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
            content = _whole(self.folder / dim / "c" / "0", size * dtype.itemsize + CHECKSUM_BYTES)
        except (OSError, ValueError):
            return None
        data, checksum = content[:-CHECKSUM_BYTES], int.from_bytes(content[-CHECKSUM_BYTES:], "little")
        if google_crc32c.value(data) != checksum:
            return None
        if self._consolidated is not None and differ(self._consolidated.get(dim), metadata):
            return None
        if self._checksums is not None and self._checksums.get(dim) != coordinate_checksum(metadata, content):
            return None
        return np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))


def chunk_file(array: Path, index: int, ndim: int) -> Path:
    """The file of a chunk of the data array in a folder. Along the dims but the first there is one chunk."""
    return array.joinpath("c", str(index), *["0"] * (ndim - 1))


def read(folder: Path) -> Metadata | None:
    """What the metadata of a store say; None where a folder is no store of this package, or there is none.

    Raises
    ------
    DamagedError
        It is a store of this package, and its metadata are not as they were written.
    """
    copies = _Copies.of(folder)
    if not copies.are_ours():
        return None
    if copies.name is None or copies.own is None:
        raise DamagedError("the metadata of its array cannot be read")
    if copies.group is None:
        raise DamagedError("the metadata of its group cannot be read")
    metadata = copies.own_metadata()
    check_group(copies.group)
    consolidated = copies.consolidated()
    if consolidated is not None and differ(consolidated.get(copies.name), copies.own):
        raise DamagedError("two copies of its metadata differ")
    if copies.mark is not None and copies.mark["checksum"] != checksum(copies.own, copies.mark["coordinates"]):
        raise DamagedError("the checksum of its metadata is another")
    return metadata


def surviving(folder: Path) -> Metadata | None:
    """What the metadata of a damaged store said, from a copy that is whole; None where no copy can be trusted.

    The copy is trusted that fits the checksum. Where none does, since the checksum itself was damaged or the store is
    of version 0.1.0, the copies must have one recipe.
    """
    copies = _Copies.of(folder)
    if not copies.are_ours() or copies.name is None:
        return None
    consolidated = copies.consolidated_or_none() or {}
    whole = []
    for copy in (copies.own, consolidated.get(copies.name)):
        try:
            metadata = copies.metadata_of(copy)
        except (ValueError, KeyError, TypeError):
            continue
        if copies.mark is not None and copies.mark["checksum"] == checksum(copy, copies.mark["coordinates"]):
            return metadata
        whole.append(metadata)
    return whole[0] if whole and all(not differ(one.recipe, whole[0].recipe) for one in whole) else None


def is_ours(folder: Path) -> bool:
    """Whether a folder is a store of this package, whole or damaged. One damaged file does not hide whose it is."""
    return _Copies.of(folder).are_ours()


def own_entries(folder: Path) -> list[Path]:
    """The files and folders of a store that are its own, the group's metadata last; others may lie beside them."""
    name = _Copies.of(folder).name
    names = [*COORDINATES, name] if name else COORDINATES
    # Zarr's are files that it was writing when it was killed.
    partial = [entry for entry in folder.iterdir() if ZARRS_PARTIAL.fullmatch(entry.name)]
    return [*partial, *(folder / one for one in (*names, FILE) if (folder / one).exists())]


def checksum(array: Json | None, coordinates: Mapping[str, str]) -> str:
    """Checksum over the metadata of the data array, and over the checksums of the coordinates."""
    return hashlib.sha256(canonical_json([array, dict(coordinates)]).encode()).hexdigest()


def coordinate_checksum(metadata: Json, content: bytes) -> str:
    """Checksum over the metadata of a coordinate and over the bytes of its file."""
    return hashlib.sha256(canonical_json(metadata).encode() + content).hexdigest()


def mark_of(folder: Path, name: str) -> Json:
    """The mark of a store that has just been written: the checksums of its metadata."""
    dims = [dim for dim in DIMS[name] if dim in COORDINATES]
    coordinates = {
        dim: coordinate_checksum(_object(folder / dim / FILE), (folder / dim / "c" / "0").read_bytes()) for dim in dims
    }
    return {"checksum": checksum(_object(folder / name / FILE), coordinates), "coordinates": coordinates}


@dataclass(frozen=True)
class _Copies:
    """The files with the metadata of a store, as far as they are JSON."""

    folder: Path
    group: Json | None
    name: str | None
    own: Json | None  # of the data array

    @classmethod
    def of(cls, folder: Path) -> "_Copies":
        there = [name for name in ARRAYS if (folder / name).is_dir()]
        # A folder that some other program put there may have the name of an array.
        names = [name for name in there if (folder / name / FILE).is_file()] or there
        name = names[0] if len(names) == 1 else None
        own = _object_or_none(folder / name / FILE) if name else None
        return cls(folder, _object_or_none(folder / FILE), name, own)

    @property
    def mark(self) -> Json | None:
        """The mark of a store of this package; None where there is none, or where it is damaged."""
        attributes = (self.group or {}).get("attributes")
        mark = attributes.get(MARK) if isinstance(attributes, dict) else None
        return mark if is_mark(mark) else None

    def consolidated_or_none(self) -> Json | None:
        try:
            return self.consolidated()
        except DamagedError:
            return None

    def consolidated(self) -> Json | None:
        """The copies in the group by name; None where it has none."""
        kept = (self.group or {}).get("consolidated_metadata")
        if kept is None:
            return None
        if not isinstance(kept, dict) or not isinstance(kept.get("metadata"), dict):
            raise DamagedError("its consolidated metadata cannot be read")
        copies: Json = kept["metadata"]
        return copies

    def are_ours(self) -> bool:
        """Whether one of the files says so: by the mark, or by a recipe with an array of such a name."""
        if self.name is None:
            return False
        copies = (self.own, (self.consolidated_or_none() or {}).get(self.name))
        attributes = (copy.get("attributes") for copy in copies if isinstance(copy, dict))
        return self.mark is not None or any(
            isinstance(one, dict) and is_recipe(one.get("recipe")) for one in attributes
        )

    def own_metadata(self) -> Metadata:
        try:
            return self.metadata_of(self.own)
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(str(error)) from error

    def metadata_of(self, copy: Any) -> Metadata:
        """What a copy says of the data array; an error of some kind where it is none that this package wrote."""
        name = str(self.name)
        check_data(name, copy)
        mark = self.mark
        return Metadata(
            self.folder,
            name,
            tuple(copy["shape"]),
            tuple(copy["chunk_grid"]["configuration"]["chunk_shape"]),
            copy["attributes"],
            self.consolidated_or_none(),
            None if mark is None else mark["coordinates"],
        )


def _object(file: Path) -> Json:
    """The JSON object in a file; an OSError or a ValueError where there is none."""
    if not file.is_file():  # a pipe would wait for ever
        raise FileNotFoundError(file)
    with file.open("rb") as opened:
        return parsed_object(opened.read(LONGEST_JSON + 1))


def _whole(file: Path, size: int) -> bytes:
    """A file that has to have a certain size; an OSError where it has another."""
    if not file.is_file() or file.stat().st_size != size:
        raise FileNotFoundError(file)
    return file.read_bytes()


def _object_or_none(file: Path) -> Json | None:
    try:
        return _object(file)
    except (OSError, ValueError):
        return None
