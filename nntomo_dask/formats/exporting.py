"""Files for other programs, from Python: any format that can be written, by the suffix of a name."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import xarray as xr

from nntomo_dask import aside
from nntomo_dask.errors import refuse
from nntomo_dask.formats.format import format_to_write
from nntomo_dask.formats.numbers import NumberType, RangeWord

_WHO = "write"


def write(
    array: xr.DataArray,
    path: str | os.PathLike[str],
    *,
    type: NumberType = "float32",
    range: tuple[float, float] | RangeWord = "minmax",
    levels: int | None = None,
) -> list[Path]:
    """Write a volume or a tilt series to a file for other programs, slab by slab; `nntomo export` in Python.

    The file appears when it is complete; one that was there is replaced. A folder is replaced where an export wrote it.

    Parameters
    ----------
    array
        Volume or tilt series, float32, slices at equal steps.
    path
        Its suffix chooses the format: .mrc, .tif, .ome.zarr, .hspy, .zspy, .npy.
    type
        Of the stored values. Integers are scaled by `range`.
    range
        Values that become the least and the largest integer: two numbers; "minmax", those of all values; "percentiles",
        all but a thousandth at either end; or "none", values are rounded.
    levels
        Number of scales of an OME-Zarr; by default until its longest side has at most 128 pixels.

    Returns
    -------
    The files that were written: also that of a series' angles, .rawtlt, where the format has no place for them.

    Raises
    ------
    SchemaError
        `array` is neither; no format has this suffix, or it does not know a setting; or `path` is no place for it.
    OSError
        The place cannot be written.
    """
    place = Path(path)
    kind = format_to_write(place, who=_WHO)
    known = {field.name for field in dataclasses.fields(kind.writing)} if kind.writing is not None else set()
    given: dict[str, Any] = {}
    for name, value, default in (("type", type, "float32"), ("range", range, "minmax"), ("levels", levels, None)):
        if name in known:
            given[name] = value
        elif value != default:
            refuse(_WHO, needs=f"a format that has `{name}`", got=kind.title, remedy=f"leave `{name}` out")
    if kind.is_folder(place):
        folder = aside.resolved(place)
        if folder.is_dir() and any(folder.iterdir()) and not kind.may_replace(folder):
            got = f"{folder}, which holds something else"
            refuse(_WHO, needs="a free path, or that of an earlier export", got=got, remedy="give another path")
    return kind.write(array, place) if kind.writing is None else kind.write(array, place, how=kind.writing(**given))
