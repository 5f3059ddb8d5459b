"""How a store lies on disk: names, metadata, chunk files, and whether they are whole."""

import functools
import os
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

from nntomo_dask.arrays import schema, slabs

TABLE = "samples"
TABLE_DIMS = ("voxel", "column")
PROJECTIONS = "projections"
PROJECTION_DIMS = (schema.ANGLE, "mode", schema.Z, schema.DETECTOR)
_ARRAYS = frozenset({"volume", "tilt_series", TABLE, PROJECTIONS})
_COORDINATES = frozenset({*schema.VOLUME_DIMS, *schema.SERIES_DIMS})
_DAMAGED = ".damaged"
_FLUSHED_BYTES = 2**20  # smaller files are left to the operating system: waiting for each would take longer
_FLUSHING = 2  # files on their way to the disk while the next slab is computed
_flusher = ThreadPoolExecutor(1)
_flushing: deque[Future[None]] = deque()


def is_store(folder: Path) -> bool:
    """Whether a folder is a store of ours, complete or not, whose metadata can be read."""
    try:
        zarr.open_group(folder, mode="r", zarr_format=3)  # the group knows its arrays' metadata too, but not for us
        return "recipe" in attributes(folder)
    # What does not parse is a ValueError; what parses and has other keys, a TypeError.
    except (FileNotFoundError, NotADirectoryError, KeyError, ValueError, TypeError):
        return False


def has_damaged_metadata(folder: Path) -> bool:
    """Whether a folder holds what our stores hold and nothing else, but cannot be read as one."""
    if not folder.is_dir() or is_store(folder):
        return False
    names = {entry.name for entry in folder.iterdir()}
    return bool(names & _ARRAYS) and names <= {"zarr.json", *_ARRAYS, *_COORDINATES}


def array_name(folder: Path) -> str:
    """Name of the group's data array: the one that is no coordinate."""
    (name,) = (entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name not in _COORDINATES)
    return name


def data_array(folder: Path) -> Any:
    """The Zarr array of the data."""
    return zarr.open_array(folder / array_name(folder), mode="r")


def attributes(folder: Path) -> dict[str, Any]:
    """Attributes of the data, the recipe among them."""
    return dict(data_array(folder).attrs)


def recipe(folder: Path) -> slabs.Recipe:
    """How what lies in a store was made."""
    return cast("slabs.Recipe", attributes(folder)["recipe"])


def chunk_count(folder: Path) -> int:
    """Chunks along the first dim."""
    array = data_array(folder)
    return -(-int(array.shape[0]) // int(array.chunks[0]))


def chunk_file(folder: Path, index: int) -> Path:
    """The file of a chunk; the other dims are one chunk each."""
    array = data_array(folder)
    return _chunk_file(folder / array_name(folder), index, array.ndim)


def _chunk_file(array_folder: Path, index: int, ndim: int) -> Path:
    return array_folder.joinpath("c", str(index), *["0"] * (ndim - 1))


def missing_chunks(folder: Path) -> list[int]:
    """Chunks that a store should have and has not, or not to their end.

    A look at each file's size and first bytes; `damaged_chunk` reads it all.
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
    """Whether a file is as long as its Blosc header says: bytes 12 to 15 count the compressed bytes."""
    try:
        with file.open("rb") as opened:
            header = opened.read(16)
        size = file.stat().st_size
    except FileNotFoundError:
        return False
    return len(header) == 16 and size == int.from_bytes(header[12:16], "little") + trailer


def missing_coordinates(folder: Path) -> list[str]:
    """Dims whose coordinate cannot be read."""
    dims = [dim for dim in data_array(folder).metadata.dimension_names if dim in _COORDINATES]
    return [dim for dim in dims if not _can_be_read(folder / dim)]


def _can_be_read(coordinate: Path) -> bool:
    """Whether a coordinate is there with its one chunk, and its checksum is right."""
    try:
        zarr.open_array(coordinate, mode="r")[:]
    except (FileNotFoundError, KeyError, ValueError, RuntimeError):
        return False
    return (coordinate / "c" / "0").is_file()


def is_damaged(folder: Path, index: int) -> bool:
    """Whether a chunk's bytes are not those that were written: its checksum, and whether it can be unpacked."""
    array = data_array(folder)
    start = index * array.chunks[0]
    try:
        np.asarray(array[start : start + array.chunks[0]])
    except (ValueError, RuntimeError):
        return True
    return False


def set_aside(folder: Path, index: int) -> Path:
    """Rename a damaged chunk, so that the store lacks it and a rerun makes it again."""
    file = chunk_file(folder, index)
    return file.rename(file.with_name(file.name + _DAMAGED))


def create(array: xr.DataArray, made_by: slabs.Recipe, folder: Path, chunk: int) -> None:
    """Write a store's metadata and coordinates, at once or not at all."""
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        group = zarr.open_group(partial, mode="w", zarr_format=3)
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
        write_coordinates(partial, array.coords)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
        # Zarr warns that consolidated metadata are not in the v3 specification; xarray, where they are missing.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(folder)


def remove_partial(target: Path) -> None:
    """Remove what runs that were killed while they created a store left beside it."""
    for partial in target.parent.glob(f".{target.name}.*.partial"):
        shutil.rmtree(partial, ignore_errors=True)


def write_chunks(block: npt.NDArray[np.float32], first: int, wanted: tuple[int, ...], path: str) -> None:
    """Write some whole chunks of a slab that begins at index `first` of the array at `path`."""
    array = opened(Path(path))
    per_chunk = array.chunks[0]
    for index in wanted:
        start = index * per_chunk
        stop = min(start + per_chunk, array.shape[0])
        array[start:stop] = np.asarray(block[start - first : stop - first])
        file = _chunk_file(Path(path), index, array.ndim)
        if file.stat().st_size >= _FLUSHED_BYTES:
            _flushing.append(_flusher.submit(_flush, file))
            if len(_flushing) > _FLUSHING:
                _flushing.popleft().result()
        file.with_name(file.name + _DAMAGED).unlink(missing_ok=True)


def wait_until_flushed() -> None:
    """Wait for the files of this process that are on their way to the disk.

    Raises
    ------
    OSError
        One did not reach it, and was removed.
    """
    pending = list(_flushing)
    _flushing.clear()
    wait(pending)
    for flushed in pending:
        flushed.result()


def opened(path: Path) -> Any:
    """The Zarr array at `path`; its metadata are parsed once a process, not once a task, as long as they stay the same.

    Raises
    ------
    FileNotFoundError
        There is no array.
    """
    stat = (path / "zarr.json").stat()
    return _opened(path, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=16)
def _opened(path: Path, _changed_ns: int, _inode: int) -> Any:
    return zarr.open_array(path, mode="r+").with_config({"write_empty_chunks": True})


def _flush(file: Path) -> None:
    """Wait until a file is on the disk, and let the page cache forget it.

    So a volume larger than memory does not drive out all that the machine has cached, the next chunk takes the same
    pages, which costs less than to get fresh ones, and the disk is never many chunks behind. A file that does not reach
    the disk is removed: the store lacks that chunk. One whose store was moved or removed meanwhile needs nothing.
    """
    try:
        descriptor = os.open(file, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows flushes no reader's file
    except FileNotFoundError:
        return
    try:
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
