"""HDF5 files that may be damaged, or made to do harm: what is read of them, and what is refused.

A file may lead to other files by links, by external storage and by virtual datasets, and may name filters that are
loaded as plug-ins; none of these is followed. Sizes are compared with what the file stores before memory is taken.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from nntomo_dask.formats import faults, stored
from nntomo_dask.formats.faults import FaultError, reading
from nntomo_dask.formats.images import Said
from nntomo_dask.formats.source import Source

MAGIC = b"\x89HDF\r\n\x1a\n"
MOST_CHUNK_BYTES = 2**30
_MOST_NAMES = 10_000  # of a group
_MOST_SMALL = 2**24  # bytes of metadata that are read at once
_MOST_RATIO = 1100  # deflate makes at most 1032 bytes of one
_HEAP = b"GCOL\x01\0\0\0"  # where a global heap begins, of the only version
_LENGTH = 8  # bytes of lengths and addresses
_LOOKED_THROUGH = 2**26  # bytes at either end of a file in which heaps are looked for
_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 6: "scaleoffset", 32000: "lzf"}


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 does."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


@contextmanager
def opened(source: Source) -> Iterator[Any]:
    """The file, open for reading; a SchemaError where it has changed since it became a source."""
    source.check()
    with h5py.File(source.path, "r", locking=False) as file:
        yield file
    source.check()


def node(group: Any, *names: str) -> Any:
    """What lies in a group under some names; None where nothing does, or where it lies in another file."""
    for name in names:
        if not isinstance(group, h5py.Group) or not name or "/" in name or name == ".":
            return None
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            return None
        group = group[name]
    return group


def children(group: Any) -> list[str]:
    """Names in a group; a FaultError where there are too many."""
    if not isinstance(group, h5py.Group):
        return []
    if len(group) > _MOST_NAMES:
        raise FaultError(f"a group has {len(group)} members")
    return list(group)


def attribute(owner: Any, name: str) -> Any:
    """An attribute as a Python or NumPy value: a number, a text, or an array; None where there is none of these."""
    if owner is None or name not in owner.attrs:
        return None
    described = owner.attrs.get_id(name)
    if described.get_storage_size() > _MOST_SMALL:
        return None
    text = h5py.check_string_dtype(described.dtype)
    if described.dtype.kind not in "iufbS" and text is None:
        return None
    if text is not None and text.length is None:
        check_heaps(owner.file)
    value = owner.attrs[name]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if isinstance(value, np.generic) else value


def check_heaps(file: Any) -> None:
    """Raise a FaultError where a heap of texts is damaged so that HDF5 would look through it without end."""
    if file.id.get_create_plist().get_sizes()[1] != _LENGTH:
        raise FaultError("its lengths are not of 8 bytes")
    path = Path(file.filename)
    state = path.stat()
    if not _are_heaps_whole(path, state.st_size, state.st_mtime_ns):
        raise FaultError("a list of its texts is damaged")


@functools.lru_cache(maxsize=64)
def _are_heaps_whole(path: Path, size: int, changed: int) -> bool:
    """Whether the objects of each global heap follow each other to its end; looked for at both ends of large files."""
    with path.open("rb") as file:
        for start in {0, max(size - _LOOKED_THROUGH, 0)}:
            file.seek(start)
            part = file.read(_LOOKED_THROUGH)
            place = part.find(_HEAP)
            while place >= 0:
                if not _is_heap_whole(part, place):
                    return False
                place = part.find(_HEAP, place + 1)
    return True


def _is_heap_whole(part: bytes, place: int) -> bool:
    """Whether each object, or the free space (object 0), takes some bytes; see the format's specification, III.E."""
    length = int.from_bytes(part[place + 8 : place + 16], "little")
    position, end = place + 16, min(place + length, len(part))
    while position + 16 <= end:
        index = int.from_bytes(part[position : position + 2], "little")
        size = int.from_bytes(part[position + 8 : position + 16], "little")
        taken = size if index == 0 else 16 + -(-size // 8) * 8
        if taken < 16:
            return False
        position += taken
    return True


def small(dataset: Any) -> npt.NDArray[Any] | None:
    """An array of numbers among the metadata; None where it is none."""
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "iuf":
        return None
    check_stored(dataset)
    if dataset.size * dataset.dtype.itemsize > _MOST_SMALL:
        return None
    return np.asarray(dataset[()])


def check_stored(dataset: Any) -> None:
    """Raise a FaultError unless the values of a dataset lie in its own file, all of them, by filters that are known."""
    if dataset.shape is None or dataset.external is not None or dataset.is_virtual:
        raise FaultError("its values lie in other files", remedy="save it as one file")
    if dataset.dtype.kind not in "iuf" or dataset.dtype.itemsize > 8:
        raise FaultError(f"its values are of type {dataset.dtype}, not real numbers", remedy=faults.REAL)
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
    if unknown := [code for code in filters if code not in _FILTERS]:
        raise FaultError(
            f"it is compressed by filter {unknown[0]} of HDF5, which is not read here",
            remedy="save it without compression, or with that by gzip",
        )
    nbytes, kept = math.prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
    size = Path(dataset.file.filename).stat().st_size
    if dataset.chunks is None:
        is_whole = nbytes <= kept <= size
    else:
        if math.prod(dataset.chunks) * dataset.dtype.itemsize > max(MOST_CHUNK_BYTES, 1):
            raise FaultError(f"its chunks are larger than {MOST_CHUNK_BYTES} bytes")
        chunks = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        is_whole = kept <= size and dataset.id.get_num_chunks() == chunks
        is_whole = is_whole and nbytes <= (_MOST_RATIO * kept if filters else kept)
    if not is_whole:
        raise FaultError("it does not hold all of its images")


@dataclass
class Hdf5Images(stored.FileImages):
    """Images in a dataset of an HDF5 file.

    Attributes
    ----------
    place
        Names of groups and of the dataset.
    axes
        Axes of the dataset that are image, line and column; the first is -1 where it holds one image.
    """

    place: tuple[str, ...]
    axes: tuple[int, int, int]
    reads: Literal["lines", "images"] = "images"

    def read(self, image: int, lines: slice, columns: slice) -> npt.NDArray[Any]:
        """See `Images.read`."""
        lines, columns = stored.part_of(self.shape, lines, columns)
        source = self.sources[0]
        with reading(Path(source.path), "a whole HDF5 file"), opened(source) as file:
            dataset = node(file, *self.place)  # as it was when it was looked at, since the file is
            chosen: list[Any] = [0] * dataset.ndim
            for axis, part in zip(self.axes, (image, lines, columns), strict=True):
                if axis >= 0:
                    chosen[axis] = part
            values = np.asarray(dataset[tuple(chosen)])
            transposed = self.axes[1] > self.axes[2]
            return np.ascontiguousarray(values.T if transposed else values)


def images_of(
    dataset: Any, place: Sequence[str], axes: tuple[int, int, int], said: Said, sources: Sequence[Source]
) -> Hdf5Images:
    """The images of a dataset with 2 or 3 dims; `axes` as of `Hdf5Images`."""
    if not isinstance(dataset, h5py.Dataset):
        raise FaultError("it has no images where they should be")
    check_stored(dataset)
    sizes = [dataset.shape[axis] for axis in axes if axis >= 0]
    return Hdf5Images(
        shape=stored.shape_of(sizes),
        dtype=dataset.dtype,
        first_line="top",
        said=said,
        sources=tuple(sources),
        reads="lines" if dataset.chunks is None else "images",
        place=tuple(place),
        axes=axes,
    )
