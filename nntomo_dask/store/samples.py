"""Training sets as stored arrays.

A set of voxels is a table: a row for each voxel, with its inputs, its target, and in the last column the number of its
slice; tables of version 0.1.0, which have no attribute `columns`, end with the target. A set of slices
is an array (z, pair, y, x): of each slice the input and the target.
"""

from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from nntomo_dask.arrays import recipes, schema
from nntomo_dask.compute import chunking
from nntomo_dask.errors import refuse
from nntomo_dask.store.names import DIMS, PAIRS, TABLE

_VOXELS = {"inputs", "target", "level"}
_COLUMNS = ["target", "slice"]  # after the inputs
_SLICES = {"input", "target", "level"}
_SCENE, _USED = "scene", "used"  # coordinates (z) of a set of slices


def to_array(dataset: xr.Dataset) -> xr.DataArray:
    """The lazy array that is stored of a training set. Its attribute `level` is still lazy.

    Raises
    ------
    SchemaError
        The dataset is no training set.
    """
    variables = set(dataset.data_vars)
    if {"layout", "recipe"} <= set(dataset.attrs):
        attrs = {"layout": dataset.attrs["layout"], "level": dataset["level"].data} if "level" in dataset else {}
        if variables >= _VOXELS:
            columns = [name for name in _COLUMNS if name in variables]
            attrs |= {"columns": columns} if columns == _COLUMNS else {}
            parts = [da.asarray(dataset[name].data)[:, None] for name in columns]
            table = da.concatenate([da.asarray(dataset["inputs"].data), *parts], axis=1)
            table = table.rechunk((chunking.TABLE_ROWS, -1))
            return xr.DataArray(table, dims=DIMS[TABLE], attrs=attrs, name=TABLE)
        if variables >= _SLICES and {_SCENE, _USED} <= set(dataset.coords):
            pairs = da.stack([da.asarray(dataset[name].data) for name in ("input", "target")], axis=1)
            attrs |= {name: dataset[name].values.astype(int).tolist() for name in (_SCENE, _USED)}
            coords = {dim: dataset[dim].values for dim in schema.VOLUME_DIMS}
            return xr.DataArray(pairs.rechunk({1: -1}), dims=DIMS[PAIRS], coords=coords, attrs=attrs, name=PAIRS)
    refuse(
        "save",
        needs="a training set",
        got=f"a dataset of {', '.join(map(str, dataset))}",
        remedy="make one by training_samples(…) or training_slices(…)",
    )


def with_level(array: xr.DataArray) -> xr.DataArray:
    """The array of a training set with its level computed; any other array unchanged."""
    if array.name not in (TABLE, PAIRS):
        return array
    return array.assign_attrs(level=float(np.asarray(array.attrs["level"])))


def from_table(table: da.Array, attributes: Mapping[str, Any]) -> xr.Dataset:
    """The training set of a stored table of voxels."""
    columns = _COLUMNS if attributes.get("columns") == _COLUMNS else _COLUMNS[:1]
    inputs = table[:, : -len(columns)]
    own = {name: ("voxel", table[:, place - len(columns)]) for place, name in enumerate(columns)}
    target = own["target"][1]
    return xr.Dataset(
        {
            "inputs": (("voxel", "input"), inputs),
            **own,
            "level": ((), np.float32(attributes["level"])),
        },
        attrs=_attributes(attributes, inputs, target),
    )


def from_pairs(pairs: da.Array, attributes: Mapping[str, Any], coords: Mapping[Any, Any]) -> xr.Dataset:
    """The training set of stored pairs of slices."""
    images, target = pairs[:, 0], pairs[:, 1]
    return xr.Dataset(
        {
            "input": (schema.VOLUME_DIMS, images),
            "target": (schema.VOLUME_DIMS, target),
            "level": ((), np.float32(attributes["level"])),
        },
        coords={
            **coords,
            _SCENE: (schema.Z, np.asarray(attributes[_SCENE], np.int64)),
            _USED: (schema.Z, np.asarray(attributes[_USED], bool)),
        },
        attrs=_attributes(attributes, images, target),
    )


def _attributes(attributes: Mapping[str, Any], *parts: da.Array) -> dict[str, Any]:
    return {
        "layout": attributes["layout"],
        "recipe": recipes.Shown(attributes["recipe"]),
        "names": [part.name for part in parts],
        "stored": True,
    }
