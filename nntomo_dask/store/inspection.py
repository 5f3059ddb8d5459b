"""What a store holds, from its metadata alone: for a quick look, without Zarr, xarray or Dask."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from nntomo_dask.store.names import ARRAYS, COORDINATES

_COORDINATE_CODECS = ["bytes", "crc32c"]  # how coordinates are stored: raw values and a checksum


@dataclass(frozen=True)
class Contents:
    """What the metadata of a store say.

    Attributes
    ----------
    name
        Of the data array: "volume", "tilt_series", "samples" or "projections".
    dims, shape
        Of the data array.
    attributes
        Of the data array, the recipe among them.
    coordinates
        Values by dim, as far as they could be read.
    chunks
        Number of chunks.
    missing
        What is missing, in words; empty for a complete store.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    attributes: dict[str, Any]
    coordinates: dict[str, npt.NDArray[np.float64]]
    chunks: int
    missing: tuple[str, ...]


def inspect(folder: Path) -> Contents | None:
    """What a store holds; None where the folder is no store of this package, or its metadata are damaged.

    Of each chunk the size and the first bytes are read, as `files.missing_chunks` does; coordinates are read whole.
    """
    try:
        return _inspect(folder)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _inspect(folder: Path) -> Contents | None:
    names = [name for name in ARRAYS if (folder / name / "zarr.json").is_file()]
    if len(names) != 1 or _metadata(folder)["node_type"] != "group":
        return None
    name = names[0]
    metadata = _metadata(folder / name)
    if metadata["zarr_format"] != 3 or metadata["node_type"] != "array" or "recipe" not in metadata["attributes"]:
        return None
    dims, shape = tuple(metadata["dimension_names"]), tuple(int(size) for size in metadata["shape"])
    chunk = int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0])
    trailer = 4 * sum(codec["name"] == "crc32c" for codec in metadata["codecs"])
    count = -(-shape[0] // chunk)
    present = _whole_chunks(folder / name, count, len(shape), trailer)
    found = {dim: _coordinate(folder / dim) for dim in dims if dim in COORDINATES}
    missing = [f"coordinate {dim}" for dim, values in found.items() if values is None]
    if present < count:
        missing.append(f"{count - present} of {count} chunk{'' if count == 1 else 's'}")
    coordinates = {dim: values for dim, values in found.items() if values is not None}
    return Contents(name, dims, shape, metadata["attributes"], coordinates, count, tuple(missing))


def _metadata(folder: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
    return metadata


def _whole_chunks(array: Path, count: int, ndim: int, trailer: int) -> int:
    """How many chunks have a file as long as its Blosc header says; only folders that exist are looked at."""
    whole = 0
    with contextlib.suppress(FileNotFoundError):
        for folder in (array / "c").iterdir():
            file = folder.joinpath(*["0"] * (ndim - 1))
            if folder.name.isdecimal() and int(folder.name) < count and file.is_file():
                with file.open("rb") as opened:
                    header = opened.read(16)
                expected = int.from_bytes(header[12:16], "little") + trailer
                whole += len(header) == 16 and file.stat().st_size == expected
    return whole


def _coordinate(folder: Path) -> npt.NDArray[np.float64] | None:
    """Values of a coordinate; None where its file is missing or its checksum is wrong."""
    try:
        metadata = _metadata(folder)
        data = (folder / "c" / "0").read_bytes()
    except (OSError, ValueError):
        return None
    dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
    if [codec["name"] for codec in metadata["codecs"]] != _COORDINATE_CODECS:
        return None
    values, checksum = data[:-4], data[-4:]
    if len(values) != metadata["shape"][0] * dtype.itemsize:
        return None
    if google_crc32c.value(values) != int.from_bytes(checksum, "little"):
        return None
    return np.frombuffer(values, dtype).astype(np.float64)
