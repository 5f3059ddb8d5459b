"""What a store holds, from its metadata alone: for a quick look, without Zarr, xarray or Dask."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nntomo_dask.store import metadata


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
        stored = metadata.read(folder)
    except metadata.DamagedError:
        return None
    if stored is None:
        return None
    found = stored.coordinates()
    missing = [f"coordinate {dim}" for dim, values in found.items() if values is None]
    count = stored.chunk_count
    if lacking := count - len(stored.whole_chunks()):
        missing.append(f"{lacking} of {count} chunk{'' if count == 1 else 's'}")
    coordinates = {dim: values.astype(np.float64) for dim, values in found.items() if values is not None}
    return Contents(stored.name, stored.dims, stored.shape, stored.attributes, coordinates, count, tuple(missing))
