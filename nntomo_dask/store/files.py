"""The files of a store: names, metadata, chunks, and whether they are complete."""

import functools
import os
import re
import shutil
import uuid
import warnings
from collections import deque
from collections.abc import Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
import zarr.codecs

from nntomo_dask import aside
from nntomo_dask.arrays import recipes, schema
from nntomo_dask.store.names import ARRAYS, COORDINATES

Stored = zarr.Array[Any]  # of the data or of a coordinate
TABLE_DIMS = ("voxel", "column")
PROJECTION_DIMS = (schema.ANGLE, "mode", schema.Z, schema.DETECTOR)
_ARRAYS = frozenset(ARRAYS)
_COORDINATES = frozenset(COORDINATES)
_DAMAGED = ".damaged"
_ZARRS_PARTIAL = re.compile(r"(zarr|\d+)\.[0-9a-f]{32}\.partial")  # a file that Zarr is writing
TOKEN_DIGITS = 8  # hexadecimal digits that make the names of temporary folders unique
_FLUSHED_BYTES = 2**20  # smaller files are left to the operating system: waiting for each would take longer
_FLUSHING = 2  # files that are flushed to the disk while the next slab is computed
_flusher = ThreadPoolExecutor(1)
_flushing: deque[Future[None]] = deque()


def is_store(folder: Path) -> bool:
    """Whether a folder is a store that this package wrote, complete or not, with readable metadata."""
    try:
        # The metadata of the arrays are consolidated in the group as well, but the arrays' own are the ones in use.
        zarr.open_group(folder, mode="r", zarr_format=3)
        return "recipe" in attributes(folder)
    # Metadata that cannot be parsed raise a ValueError; parsed metadata with other keys, a TypeError.
    except (FileNotFoundError, NotADirectoryError, KeyError, ValueError, TypeError):
        return False


def has_damaged_metadata(folder: Path) -> bool:
    """Whether a folder has the contents of a store and nothing else, but cannot be read as one."""
    if not folder.is_dir() or is_store(folder):
        return False
    names = {entry.name for entry in folder.iterdir()}
    return bool(names & _ARRAYS) and names <= {"zarr.json", *_ARRAYS, *_COORDINATES}


def array_name(folder: Path) -> str:
    """Name of the data array. Folders that programs for files put there, such as ``@eaDir``, are ignored."""
    (name,) = (entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name in _ARRAYS)
    return name


def data_array(folder: Path) -> Stored:
    """The Zarr array with the data."""
    return zarr.open_array(folder / array_name(folder), mode="r")


def dims(folder: Path) -> tuple[str, ...]:
    """Names of the dims of the data array."""
    metadata: Any = data_array(folder).metadata  # of version 2 or 3; only those of 3, which stores have, name dims
    return tuple(metadata.dimension_names)


def attributes(folder: Path) -> dict[str, Any]:
    """Attributes of the data array, including the recipe."""
    return dict(data_array(folder).attrs)


def recipe(folder: Path) -> recipes.Recipe:
    """How the contents of a store were made."""
    return cast("recipes.Recipe", attributes(folder)["recipe"])


def chunk_count(folder: Path) -> int:
    """Number of chunks along the first dim."""
    array = data_array(folder)
    return -(-int(array.shape[0]) // int(array.chunks[0]))


def chunk_file(folder: Path, index: int) -> Path:
    """The file of a chunk. Along the other dims there is one chunk."""
    array = data_array(folder)
    return _chunk_file(folder / array_name(folder), index, array.ndim)


def _chunk_file(array_folder: Path, index: int, ndim: int) -> Path:
    return array_folder.joinpath("c", str(index), *["0"] * (ndim - 1))


def missing_chunks(folder: Path) -> list[int]:
    """Numbers of the chunks whose file is missing or truncated.

    Only the size and the first bytes of each file are read; `is_damaged` reads a whole chunk.
    """
    array = data_array(folder)
    name = folder / array_name(folder)
    trailer = 4 * sum(isinstance(codec, zarr.codecs.Crc32cCodec) for codec in array.compressors)
    return [
        index
        for index in range(-(-int(array.shape[0]) // int(array.chunks[0])))
        if not _has_all_bytes(_chunk_file(name, index, array.ndim), trailer)
    ]


def _has_all_bytes(file: Path, trailer: int) -> bool:
    """Whether a file has the length in its Blosc header: bytes 12 to 15 are the number of compressed bytes."""
    try:
        with file.open("rb") as opened:
            header = opened.read(16)
        size = file.stat().st_size
    except FileNotFoundError:
        return False
    return len(header) == 16 and size == int.from_bytes(header[12:16], "little") + trailer


def missing_coordinates(folder: Path) -> list[str]:
    """Dims whose coordinate cannot be read."""
    return [dim for dim in dims(folder) if dim in _COORDINATES and not _can_be_read(folder / dim)]


def _can_be_read(coordinate: Path) -> bool:
    """Whether a coordinate has its one chunk, with the right checksum."""
    try:
        zarr.open_array(coordinate, mode="r")[:]
    except (FileNotFoundError, KeyError, ValueError, RuntimeError):
        return False
    return (coordinate / "c" / "0").is_file()


def is_damaged(folder: Path, index: int) -> bool:
    """Whether the bytes of a chunk have changed: its checksum is wrong, or it cannot be decompressed."""
    array = data_array(folder)
    start = index * array.chunks[0]
    try:
        np.asarray(array[start : start + array.chunks[0]])
    except (ValueError, RuntimeError):
        return True
    return False


def set_aside(folder: Path, index: int) -> Path:
    """Rename the file of a damaged chunk, so that the chunk is missing and a rerun computes it again."""
    file = chunk_file(folder, index)
    return file.rename(file.with_name(file.name + _DAMAGED))


def create(array: xr.DataArray, made_by: recipes.Recipe, folder: Path, chunk: int) -> None:
    """Write the metadata and coordinates of a store in one step: a run that is killed leaves nothing at `folder`."""
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:TOKEN_DIGITS]}.partial")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with aside.naming(folder):
            _write_metadata(array, made_by, partial, chunk)
            write_coordinates(partial, array.coords)
        if folder.exists():  # an empty folder, which is free
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_metadata(array: xr.DataArray, made_by: recipes.Recipe, folder: Path, chunk: int) -> None:
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    group.create_array(
        str(array.name),
        shape=array.shape,
        chunks=(chunk, *array.shape[1:]),
        dtype="float32",
        compressors=[
            zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=4),
            zarr.codecs.Crc32cCodec(),
        ],
        fill_value=0.0,
        dimension_names=[str(dim) for dim in array.dims],
        attributes={**{str(key): _plain(value) for key, value in array.attrs.items()}, "recipe": made_by},
    )


def write_coordinates(folder: Path, coords: Mapping[Hashable, xr.DataArray]) -> None:
    """Write the coordinates into a store, and consolidate its metadata."""
    group = zarr.open_group(folder, mode="r+", zarr_format=3)
    for dim, coordinate in coords.items():
        values = coordinate.values
        shutil.rmtree(folder / str(dim), ignore_errors=True)
        written = group.create_array(
            str(dim),
            shape=values.shape,
            chunks=values.shape,
            dtype=values.dtype,
            dimension_names=[str(dim)],
            compressors=[zarr.codecs.Crc32cCodec()],
        ).with_config({"write_empty_chunks": True})
        written[:] = values
    with warnings.catch_warnings():
        # Zarr warns that consolidated metadata are not in the specification of v3; xarray warns where they are missing.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(folder)


def remove_partial(target: Path) -> None:
    """Remove what runs left that were killed while they created a store, or wrote metadata or coordinates into it."""
    for partial in leftovers(target, before=".", after=".partial"):
        shutil.rmtree(partial, ignore_errors=True)
    for folder in (target, *(target / name for name in COORDINATES), *(target / name / "c" for name in COORDINATES)):
        if folder.is_dir():
            for entry in list(folder.iterdir()):
                if _ZARRS_PARTIAL.fullmatch(entry.name):
                    entry.unlink(missing_ok=True)


def leftovers(target: Path, *, before: str, after: str = "") -> list[Path]:
    """Temporary folders of a store: ``.NAME``, `before`, a token and `after`.

    Names are compared as they are, since a name may contain characters that are special in patterns, and may be the
    beginning of the name of another store.
    """
    token = f"[0-9a-f]{{{TOKEN_DIGITS}}}"
    name = re.compile(re.escape(f".{target.name}{before}") + token + re.escape(after))
    return [entry for entry in target.parent.iterdir() if name.fullmatch(entry.name)]


def write_chunks(block: npt.NDArray[np.float32], first: int, wanted: tuple[int, ...], path: str) -> None:
    """Write some whole chunks of a slab that starts at index `first` of the array at `path`."""
    array = opened(Path(path))
    per_chunk = array.chunks[0]
    for index in wanted:
        start = index * per_chunk
        stop = min(start + per_chunk, array.shape[0])
        file = _chunk_file(Path(path), index, array.ndim)
        with aside.naming(file):
            array[start:stop] = np.asarray(block[start - first : stop - first])
        if file.stat().st_size >= _FLUSHED_BYTES:
            _flushing.append(_flusher.submit(_flush, file))
            if len(_flushing) > _FLUSHING:
                _flushing.popleft().result()
        file.with_name(file.name + _DAMAGED).unlink(missing_ok=True)
        for entry in list(file.parent.iterdir()):  # of a run that was killed while Zarr wrote the file
            if _ZARRS_PARTIAL.fullmatch(entry.name):
                entry.unlink(missing_ok=True)


def wait_until_flushed() -> None:
    """Wait until the files that this process wrote are on the disk.

    Raises
    ------
    OSError
        A file could not be flushed, and was removed.
    """
    pending = list(_flushing)
    _flushing.clear()
    wait(pending)
    for flushed in pending:
        flushed.result()


def opened(path: Path) -> Stored:
    """The Zarr array at `path`. Each process parses its metadata once, and again when they have changed.

    Raises
    ------
    FileNotFoundError
        There is no array.
    """
    stat = (path / "zarr.json").stat()
    return _opened(path, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=16)
def _opened(path: Path, _changed_ns: int, _inode: int) -> Stored:
    return zarr.open_array(path, mode="r+").with_config({"write_empty_chunks": True})


def _flush(file: Path) -> None:
    """Wait until a file is on the disk, and drop it from the page cache.

    Otherwise a volume larger than memory would replace everything in the cache. Besides, the next chunk reuses the
    pages, which is faster than allocating new ones, and the disk is never many chunks behind. A file that cannot be
    flushed is removed, so that its chunk is missing. A file that was moved or removed meanwhile is skipped.
    """
    try:
        descriptor = os.open(file, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows flushes no reader's file
    except FileNotFoundError:
        return
    try:
        with aside.naming(file):
            os.fsync(descriptor)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        file.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
