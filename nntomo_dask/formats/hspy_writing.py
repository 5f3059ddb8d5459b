"""HyperSpy's files, written slab by slab: .hspy, which is HDF5, and .zspy, a folder in Zarr's format 2.

Both have one layout, version 3.3 of RosettaSciIO: the signal under ``Experiments/TITLE``, its axes and metadata as
attributes of groups. RosettaSciIO's own writers would need Zarr 2, or the array in memory.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nntomo_dask import aside
from nntomo_dask.arrays import schema
from nntomo_dask.arrays.blocks import block_slices, blocks_of, slabs_of
from nntomo_dask.formats import writing
from nntomo_dask.formats.format import Format
from nntomo_dask.store import zarr_settings

SUFFIXES = (".hspy", ".zspy")
_VERSION = "3.3"  # of the layout
_MARK = "nntomo_dask_export"


class HspyWriting(Format):
    """How the format is written; its reader derives from this."""

    @classmethod
    def write(cls, array: xr.DataArray, path: Path, *, how: None = None) -> list[Path]:
        """The array with its axes and metadata, the angles of a series among them."""
        stored = writing.as_written(array, who="export")
        if cls.is_folder(path):
            with aside.written_folder(path) as folder:
                _write_zspy(stored, folder)
        else:
            with aside.written(path) as partial:
                _write_hspy(stored, partial)
        return [path]

    @classmethod
    def is_folder(cls, path: Path) -> bool:
        """Whether it is a .zspy."""
        return path.name.lower().endswith(".zspy")

    @classmethod
    def may_replace(cls, path: Path) -> bool:
        """Whether the folder was written here."""
        try:
            return _MARK in json.loads((path / ".zattrs").read_bytes())
        except (OSError, ValueError):
            return False


def _axes(array: xr.DataArray) -> list[dict[str, Any]]:
    """HyperSpy's description of the axes; it has a place for unequal steps, as long as angles ascend or descend."""
    found = []
    names = writing.file_names(array)
    for number, (place, size) in enumerate(zip(writing.places(array), writing.file_shape(array), strict=True)):
        axis: dict[str, Any] = {"name": names[number], "units": place.unit, "navigate": number == 0, "is_binned": False}
        uniform = {"_type": "UniformDataAxis", "size": size, "scale": place.step, "offset": place.first}
        angles = array[schema.ANGLE].values.astype(np.float64) if place.dim == schema.ANGLE else np.arange(2.0)
        ordered = (np.diff(angles) > 0).all() or (np.diff(angles) < 0).all()
        if not place.unit and ordered:  # unequal steps
            found.append(axis | {"units": "degree", "_type": "DataAxis", "axis": angles})
        else:  # angles in disorder are counted, and stand in the metadata alone
            found.append(axis | uniform)
    return found


def _metadata(array: xr.DataArray) -> dict[str, Any]:
    said = writing.about(array)
    metadata: dict[str, Any] = {
        "General": {"title": str(array.name), "notes": said["about_axes"]},
        "Signal": {"signal_type": "", "quantity": str(array.attrs.get("quantity", ""))},
    }
    if writing.is_series(array):
        metadata["Tomography"] = {"tilts": array[schema.ANGLE].values.astype(np.float64), "units": "degrees"}
    microscope = {
        ours: said[key]
        for key, ours in (("voltage_kv", "beam_energy"), ("magnification", "magnification"))
        if key in said
    }
    if microscope:
        metadata["Acquisition_instrument"] = {"TEM": microscope}
    return metadata


def _groups(array: xr.DataArray) -> dict[str, dict[str, Any]]:
    """All groups of the layout by path, with their attributes; arrays among these are stored as arrays."""
    title = str(array.name).replace("/", "-") or "__unnamed__"
    root = f"Experiments/{title}"
    groups: dict[str, dict[str, Any]] = {
        "": {"file_format": "HyperSpy", "file_format_version": _VERSION, _MARK: True},
        "Experiments": {},
        root: {"package": "nntomo_dask", "package_version": ""},
        f"{root}/learning_results": {},
        f"{root}/attributes": {"_lazy": False, "ragged": False},
        f"{root}/original_metadata": {},
        f"{root}/original_metadata/nntomo_dask": {"json": json.dumps(writing.about(array))},
        f"{root}/metadata": {},
    }
    for number, axis in enumerate(_axes(array)):
        groups[f"{root}/axis-{number}"] = axis
    for name, group in _metadata(array).items():
        flat = {key: value for key, value in group.items() if not isinstance(value, dict)}
        groups[f"{root}/metadata/{name}"] = flat
        for key, value in group.items():
            if isinstance(value, dict):
                groups[f"{root}/metadata/{name}/{key}"] = value
    return groups


def _root(groups: dict[str, Any]) -> str:
    return next(path for path in groups if path.count("/") == 1)


def _write_hspy(array: xr.DataArray, path: Path) -> None:
    """Chunks of an image, without compression, so that a slab of slices writes its own part of each."""
    import h5py

    groups, shape = _groups(array), writing.file_shape(array)
    with h5py.File(path, "w") as file:
        for name, attributes in groups.items():
            group = file.require_group(name) if name else file
            for key, value in attributes.items():
                if isinstance(value, np.ndarray):
                    group.create_dataset(key, data=value, chunks=value.shape)  # lazy readers look for chunks
                else:
                    group.attrs[key] = value
        data = file[_root(groups)].create_dataset("data", shape, "<f4", chunks=(1, *shape[1:]))
        for first, slab in slabs_of(array):
            if writing.is_series(array):
                for image in range(shape[0]):
                    data[image, first : first + len(slab)] = slab[:, image]
            else:
                data[first : first + len(slab)] = slab


@zarr_settings.ours()
def _write_zspy(array: xr.DataArray, folder: Path) -> None:
    """Chunks of neighbouring slices, each written once."""
    import zarr
    from numcodecs import Blosc

    groups, shape = _groups(array), writing.file_shape(array)
    groups[""]["file_format"] = "ZSpy"
    slices = block_slices(array.shape)
    packed = Blosc(cname="zstd", clevel=1, shuffle=Blosc.SHUFFLE)
    made: Any = {}
    for name, attributes in groups.items():
        plain = {key: value for key, value in attributes.items() if not isinstance(value, np.ndarray)}
        store: Any = str(folder / name)
        made[name] = zarr.open_group(store, mode="w-", zarr_format=2, attributes=plain)
        for key, value in attributes.items():
            if isinstance(value, np.ndarray):
                made[name].create_array(key, data=value, compressors=packed, chunk_key_encoding=_KEYS)
    is_series = writing.is_series(array)
    chunks = (1, slices, shape[2]) if is_series else (slices, *shape[1:])
    data = made[_root(groups)].create_array(
        "data", shape=shape, dtype="<f4", chunks=chunks, compressors=packed, chunk_key_encoding=_KEYS
    )
    for first, block in blocks_of(array, slices):
        if is_series:
            data[:, first : first + len(block)] = np.moveaxis(block, 0, 1)
        else:
            data[first : first + len(block)] = block
    zarr.consolidate_metadata(str(folder), zarr_format=2)


_KEYS = {"name": "v2", "separator": "/"}  # of chunks: folders, as HyperSpy's store makes them
