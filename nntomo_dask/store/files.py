"""The files of a store: names, metadata, chunks, and whether they are complete."""

import contextlib
import functools
import os
import re
import shutil
import uuid
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
import zarr.codecs

from nntomo_dask import aside
from nntomo_dask.arrays import recipes
from nntomo_dask.errors import refuse
from nntomo_dask.store import metadata
from nntomo_dask.store.form import COORDINATE_TYPES
from nntomo_dask.store.names import ALONG, ARRAYS, COORDINATES, MARK, PAIRS, SERIES, TABLE, VOLUME
from nntomo_dask.untrusted import canonical_json, parsed_json

Stored = zarr.Array[Any]  # of the data
_DAMAGED = ".damaged"
_OWN_NAMES = {metadata.FILE, *ARRAYS, *COORDINATES}
TOKEN_DIGITS = 8  # hexadecimal digits that make the names of temporary folders unique
_FLUSHED_BYTES = 2**20  # smaller files are left to the operating system: waiting for each would take longer
_FLUSHING = 2  # files that are flushed to the disk while the next slab is computed
_flusher = ThreadPoolExecutor(1)
_flushing: deque[Future[None]] = deque()


def is_store(folder: Path) -> bool:
    """Whether a folder is a store that this package wrote, complete or not, with its metadata as they were written."""
    try:
        return metadata.read(folder) is not None
    except metadata.DamagedError:
        return False


def has_damaged_metadata(folder: Path) -> bool:
    """Whether a folder is a store that this package wrote, with metadata that are not as they were written."""
    try:
        metadata.read(folder)
    except metadata.DamagedError:
        return True
    return False


def read(folder: Path) -> metadata.Metadata:
    """What the metadata of a store say, a SchemaError where there is none or they are damaged."""
    try:
        found = metadata.read(folder)
    except metadata.DamagedError:
        refuse_metadata("open", folder)
    if found is None:
        refuse("open", needs="a store that nntomo_dask wrote", got=f"{folder}", remedy="check the path")
    return found


def array_name(folder: Path) -> str:
    """Name of the data array. Folders that programs for files put there, such as ``@eaDir``, are ignored."""
    return read(folder).name


def recipe(folder: Path) -> recipes.Recipe:
    """How the contents of a store were made."""
    return read(folder).recipe


def chunk_count(folder: Path) -> int:
    """Number of chunks along the first dim."""
    return read(folder).chunk_count


def missing_chunks(folder: Path) -> list[int]:
    """Numbers of the chunks whose file is missing or truncated.

    Only the size and the first bytes of each file are read; `is_damaged` reads a whole chunk.
    """
    found = read(folder)
    whole = found.whole_chunks()
    return [index for index in range(found.chunk_count) if index not in whole]


def missing_coordinates(folder: Path) -> list[str]:
    """Dims whose coordinate is missing, damaged, or not the one that was written."""
    return [dim for dim, values in read(folder).coordinates().items() if values is None]


def is_damaged(folder: Path, index: int) -> bool:
    """Whether the bytes of a chunk have changed: its checksum is wrong, or it cannot be decompressed."""
    array = opened(folder / array_name(folder))
    start = index * array.chunks[0]
    try:
        np.asarray(array[start : start + array.chunks[0]])
    except (ValueError, RuntimeError):
        return True
    return False


def set_aside(folder: Path, index: int) -> Path:
    """Rename the file of a damaged chunk, so that the chunk is missing and a rerun computes it again."""
    file = read(folder).chunk_file(index)
    return file.rename(file.with_name(file.name + _DAMAGED))


def check_can_be_stored(array: xr.DataArray, made_by: recipes.Recipe) -> None:
    """Raise a SchemaError where attributes or coordinates are no numbers and texts, which are all that a store takes.

    The level of a training set is left out: it is computed when the store is created.
    """
    for key, value in {**_attributes(array), "recipe": made_by}.items():
        if array.name in (TABLE, PAIRS) and key == "level":
            continue
        try:
            parsed_json(canonical_json(value))
        except (TypeError, ValueError, RecursionError) as error:
            got = f'attrs["{key}"], {error}'
            remedy = f'delete attrs["{key}"]' if key != "recipe" else "parameters that are finite numbers and texts"
            refuse("save", needs="attributes that JSON can hold", got=got, remedy=remedy)
    for dim in _stored_coordinates(array):
        if str(array[dim].dtype) not in COORDINATE_TYPES:
            refuse(
                "save",
                needs=f'numbers as the coordinate "{dim}"',
                got=f"{array[dim].dtype}",
                remedy=f"array.assign_coords({dim}=…) with numbers",
            )


def create(array: xr.DataArray, made_by: recipes.Recipe, folder: Path, chunk: int) -> None:
    """Write the metadata and coordinates of a store in one step: a run that is killed leaves nothing at `folder`."""
    with _created(array, made_by, folder, chunk) as partial:
        if folder.exists():  # an empty folder, which is free
            folder.rmdir()
        partial.rename(folder)


def renew(array: xr.DataArray, folder: Path) -> None:
    """Write the metadata and coordinates of a store again, where some are damaged or missing. Its chunks stay.

    If this is killed, it can be done again.
    """
    found = metadata.surviving(folder)
    if found is None:
        refuse_metadata("save", folder)
    with _created(array, found.recipe, folder, found.chunks[0]) as partial:
        (partial / found.name / metadata.FILE).replace(folder / found.name / metadata.FILE)
        for dim in _stored_coordinates(array):
            shutil.rmtree(folder / dim, ignore_errors=True)
            (partial / dim).rename(folder / dim)
        (partial / metadata.FILE).replace(folder / metadata.FILE)


def surviving_recipe(folder: Path) -> recipes.Recipe | None:
    """How the contents of a store with damaged metadata were made; None where that is not known for certain."""
    found = metadata.surviving(folder)
    return None if found is None else found.recipe


def refuse_metadata(who: str, folder: Path) -> NoReturn:
    """Raise the SchemaError for a store whose metadata are damaged."""
    reason = ""
    try:
        metadata.read(folder)
    except metadata.DamagedError as error:
        reason = f" ({error})"
    again = "rerun what wrote the store"
    refuse(
        who,
        needs="the metadata of a store as they were written",
        got=f"damaged or missing metadata in {folder}{reason}",
        remedy=f"{again}, which writes them again" if metadata.surviving(folder) else f"{again}, with `overwrite=True`",
    )


@contextlib.contextmanager
def _created(array: xr.DataArray, made_by: recipes.Recipe, folder: Path, chunk: int) -> Iterator[Path]:
    """A new store beside its place, without chunks; it is removed unless it was moved."""
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:TOKEN_DIGITS]}.partial")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with aside.naming(folder):
            _write_metadata(array, made_by, partial, chunk)
        if has_damaged_metadata(partial) or not is_store(partial):
            got = "more than can be opened again"
            refuse("save", needs="attributes and a recipe of some megabytes", got=got, remedy="leave attributes out")
        yield partial
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
        attributes={**_attributes(array), "recipe": made_by},
    )
    for dim in _stored_coordinates(array):
        values = array[dim].values
        written = group.create_array(
            dim,
            shape=values.shape,
            chunks=values.shape,
            dtype=values.dtype,
            dimension_names=[dim],
            compressors=[zarr.codecs.Crc32cCodec()],
        ).with_config({"write_empty_chunks": True})
        written[:] = values
    group.attrs[MARK] = metadata.mark_of(folder, str(array.name))
    with warnings.catch_warnings():
        # Zarr warns that consolidated metadata are not in the specification of v3; xarray warns where they are missing.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(folder)


def _attributes(array: xr.DataArray) -> dict[str, Any]:
    found = {str(key): _plain(value) for key, value in array.attrs.items() if key != ALONG}
    along = {
        str(name): [str(coord.dims[0]), coord.values.tolist()]
        for name, coord in array.coords.items()
        if name not in array.dims
        and len(coord.dims) == 1
        and coord.dims[0] in COORDINATES
        and coord.dtype.kind in "iuf"
    }
    return found | {ALONG: along} if along and array.name in (SERIES, VOLUME) else found


def _stored_coordinates(array: xr.DataArray) -> list[str]:
    """Dims whose coordinate is stored; other coordinates along these are among the attributes."""
    return [str(dim) for dim in array.dims if dim in COORDINATES and dim in array.coords]


def remove(folder: Path) -> None:
    """Remove a store. What somebody else put into its folder stays, and with it the folder."""
    # What is left where this was interrupted is not known for a store any more, but has the names of one.
    if metadata.is_ours(folder) or {entry.name for entry in folder.iterdir()} <= _OWN_NAMES:
        for entry in metadata.own_entries(folder):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def move_foreign(folder: Path, target: Path) -> None:
    """Move what somebody else put into the folder of a store to another folder."""
    own = metadata.own_entries(folder)
    for entry in folder.iterdir():
        if entry not in own and not (target / entry.name).exists():
            entry.rename(target / entry.name)


def remove_partial(target: Path) -> None:
    """Remove what runs left that were killed while they created a store, or wrote metadata or coordinates into it."""
    for partial in leftovers(target, before=".", after=".partial"):
        shutil.rmtree(partial, ignore_errors=True)
    for folder in (target, *(target / name for name in COORDINATES), *(target / name / "c" for name in COORDINATES)):
        if folder.is_dir():
            for entry in list(folder.iterdir()):
                if metadata.ZARRS_PARTIAL.fullmatch(entry.name):
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
        file = metadata.chunk_file(Path(path), index, array.ndim)
        with aside.naming(file):
            array[start:stop] = np.asarray(block[start - first : stop - first])
        if file.stat().st_size >= _FLUSHED_BYTES:
            _flushing.append(_flusher.submit(_flush, file))
            if len(_flushing) > _FLUSHING:
                _flushing.popleft().result()
        file.with_name(file.name + _DAMAGED).unlink(missing_ok=True)
        for entry in list(file.parent.iterdir()):  # of a run that was killed while Zarr wrote the file
            if metadata.ZARRS_PARTIAL.fullmatch(entry.name):
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
    """The Zarr array at `path`. Each process checks its metadata once, and again when they have changed.

    Raises
    ------
    FileNotFoundError
        There is no array.
    SchemaError
        It is none of a store of this package, or its metadata are damaged.
    """
    stat = (path / "zarr.json").stat()
    return _opened(path, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=16)
def _opened(path: Path, _changed_ns: int, _inode: int) -> Stored:
    read(path.parent)  # Zarr gets only what this package wrote
    return zarr.open_array(path, mode="r+", zarr_format=3).with_config({"write_empty_chunks": True})


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
