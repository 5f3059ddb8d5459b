"""Training sets as stored tables: a row for each voxel, with its inputs and, in the last column, its target."""

from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from nntomo_dask.compute import chunking
from nntomo_dask.errors import refuse
from nntomo_dask.store.names import DIMS, TABLE

_VARIABLES = ("inputs", "target", "level")


def to_table(dataset: xr.Dataset) -> xr.DataArray:
    """The lazy table (voxel, column) of a training set. Its attribute `level` is still lazy.

    Raises
    ------
    SchemaError
        The dataset is no training set.
    """
    if not set(_VARIABLES) <= set(dataset.data_vars) or not {"layout", "recipe"} <= set(dataset.attrs):
        refuse(
            "save",
            needs="a training set",
            got=f"a dataset of {', '.join(map(str, dataset))}",
            remedy="make one by training_samples(…)",
        )
    inputs, target = (da.asarray(dataset[name].data) for name in ("inputs", "target"))
    table = da.concatenate([inputs, target[:, None]], axis=1).rechunk((chunking.TABLE_ROWS, -1))
    attrs = {"layout": dataset.attrs["layout"], "level": dataset["level"].data}
    return xr.DataArray(table, dims=DIMS[TABLE], attrs=attrs, name=TABLE)


def with_level(table: xr.DataArray) -> xr.DataArray:
    """The table with its level computed; any other array unchanged."""
    if table.name != TABLE:
        return table
    return table.assign_attrs(level=float(np.asarray(table.attrs["level"])))


def from_table(table: da.Array, attributes: Mapping[str, Any]) -> xr.Dataset:
    """The training set of a stored table."""
    inputs, target = table[:, :-1], table[:, -1]
    return xr.Dataset(
        {
            "inputs": (("voxel", "input"), inputs),
            "target": ("voxel", target),
            "level": ((), np.float32(attributes["level"])),
        },
        attrs={
            "layout": attributes["layout"],
            "recipe": attributes["recipe"],
            "names": [inputs.name, target.name],
            "stored": True,
        },
    )
