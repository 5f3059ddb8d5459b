"""Opening stores as lazy arrays."""

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import schema, slabs
from nntomo_dask.compute import configuration
from nntomo_dask.errors import refuse
from nntomo_dask.store import files, lock, metadata, names, places, projections, reading, samples, zarr_settings
from nntomo_dask.store.metadata import Metadata
from nntomo_dask.store.places import StorePath

Slices = int | Callable[[xr.DataArray], int] | None  # of a chunk of the lazy array; a function is given the array


def open(path: StorePath, *, slices: Slices = None) -> xr.DataArray:
    """Open a store as a lazy array.

    A training set, and several series in one store, are opened as the Dataset that was saved. What a store holds is
    known only when it is read, so the declared type is that of a volume or a tilt series; `open_dataset` is the same
    function with the other type, for programs that are checked by a type checker.

    Parameters
    ----------
    path
        A store written by `save`. Of a store of several series, ``store.zarr/name`` is one of them.
    slices
        Slices in each chunk of the lazy array, at least 1; by default those of the store. Or a function that is given
        the array in the store's own chunks and returns this number.

    Returns
    -------
    Volume or tilt series over Dask, float32.

    Raises
    ------
    SchemaError
        There is no store at `path`, or the store is not complete.
    """
    # The one place where the declared type is wider than the truth: see above, and docs/design.md.
    return cast("xr.DataArray", _opened("open", path, slices))


def open_dataset(path: StorePath, *, slices: Slices = None) -> xr.Dataset:
    """Open a store that holds a Dataset: a training set, or one or more series written projection by projection.

    Parameters
    ----------
    path, slices
        As for `open`.

    Raises
    ------
    SchemaError
        As for `open`; or the store holds a single volume or tilt series.
    """
    opened = _opened("open_dataset", path, slices)
    if isinstance(opened, xr.DataArray):
        if files.array_name(member(Path(path).resolve())[0]) != names.PROJECTIONS:
            refuse(
                "open_dataset",
                needs="a store of a training set or of several series",
                got=f"{path}, a {opened.name}",
                remedy="open(path)",
            )
        return xr.Dataset({str(opened.name): opened})
    return opened


@zarr_settings.ours()
def member(path: Path) -> tuple[Path, str | None]:
    """Split ``store.zarr/name`` into the store and the name of one of its series; None without such a name."""
    parent = path.parent
    if not path.exists() and files.is_store(parent) and files.array_name(parent) == names.PROJECTIONS:
        return parent, path.name
    return path, None


@configuration.ours()
@zarr_settings.ours()
def _opened(who: str, path: StorePath, slices: Slices) -> xr.DataArray | xr.Dataset:
    if isinstance(slices, int):
        _check_slices(who, slices)
    source, wanted = member(Path(path).resolve())
    if not lock.is_held(source):
        places.finish_replacement(source)
    labelled = _reader(_complete(who, source), wanted)
    if not callable(slices):
        return labelled(slices)
    found = slices(cast("xr.DataArray", labelled(None)))
    _check_slices(who, found)
    return labelled(found)


def _check_slices(who: str, slices: int) -> None:
    if slices < 1:
        refuse(who, needs="at least 1 slice", got=f"`slices={slices}`", remedy="`slices=1`, or leave it out")


def _reader(stored: Metadata, wanted: str | None) -> Callable[[int | None], xr.DataArray | xr.Dataset]:
    """What labels the contents of a store, in chunks of so many slices."""
    name, attributes = stored.name, stored.attributes
    if name == names.TABLE:
        return lambda slices: samples.from_table(reading.lazy_data(stored, slices), attributes)
    dims: tuple[str, ...] = schema.SERIES_DIMS if name == names.PROJECTIONS else stored.dims
    read = stored.coordinates()
    coords: dict[Hashable, npt.NDArray[np.generic]] = {dim: np.asarray(read[dim]) for dim in dims if dim in read}
    if name == names.PAIRS:
        return lambda slices: samples.from_pairs(reading.lazy_data(stored, slices), attributes, coords)
    if name == names.PROJECTIONS:
        return lambda slices: projections.from_stack(
            lambda place: reading.lazy_series(stored, slices, place), attributes, coords, wanted, stored.folder
        )
    along = {key: (dim, np.asarray(values)) for key, (dim, values) in attributes.get(names.ALONG, {}).items()}
    return lambda slices: slabs.label(
        reading.lazy_data(stored, slices),
        dims=dims,
        coords={**coords, **along},
        attrs={key: value for key, value in attributes.items() if key not in ("recipe", names.ALONG)},
        recipe=attributes["recipe"],
        name=name,
    )


def _instead_of(source: Path) -> str:
    """What to try on the command line in place of something that is no store."""
    if source.is_dir():
        return "check the path; a store is the whole folder that a command wrote as its output"
    if source.suffix.lower() == ".safetensors":
        return "check the path; a network is given by `network`"
    return f"for a file of a microscope, nntomo import {source} -o STORE, with --angles FILE for a tilt series"


def _complete(who: str, source: Path) -> Metadata:
    """What the metadata of a store say; a SchemaError where there is no store, or it lacks something."""
    if not source.exists():
        refuse(who, needs="a store", got=f"nothing at {source}", remedy="check the path")
    try:
        stored = metadata.read(source)
    except metadata.DamagedError:
        files.refuse_metadata(who, source)
    if stored is None:
        refuse(
            who,
            needs="a store that nntomo_dask wrote",
            got=f"{source}",
            remedy="convert a file of a microscope by nntomo import, or save an array by save(volume(array), path)",
            command=_instead_of(source),
        )
    lacking = [f"coordinate {dim}" for dim, values in stored.coordinates().items() if values is None]
    if missing := stored.chunk_count - len(stored.whole_chunks()):
        lacking.append(f"{missing} of {stored.chunk_count} chunks")
    if lacking:
        refuse(
            who,
            needs="a complete store",
            got=f"{source} without {' and '.join(lacking)}",
            remedy="rerun what wrote the store; it computes only what is missing",
        )
    return stored
