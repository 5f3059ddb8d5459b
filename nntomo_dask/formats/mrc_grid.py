"""Where the pixels of an MRC file lie: pixel sizes, the origin, and a label that says where the tilt axis is.

Programs disagree on the sign and the zero of the origin in a header, so a file that is read is taken as centred on the
tilt axis unless a label of this package says otherwise.
"""

import re
from typing import Any

import numpy as np
import xarray as xr

from nntomo_dask.arrays import geometry, grid, schema
from nntomo_dask.types import Float64

ANGSTROM_PER_NM = 10.0
# Where the coordinates are zero, in pixels from the first along x, y and z of the file.
_LABEL = "nntomo_dask: zero at pixel x={x:.9g} y={y:.9g} z={z:.9g}"
_NUMBER = r"(-?[0-9.]+(?:e[-+]?[0-9]+)?)"
_PATTERN = re.compile(rf"nntomo_dask: zero at pixel x={_NUMBER} y={_NUMBER} z={_NUMBER}")


def as_written(array: xr.DataArray, *, who: str) -> xr.DataArray:
    """The array as a file holds it: positions ascend at equal steps, and line integrals are counted in its pixels."""
    schema.check_even_z(array, who=who)
    is_series = schema.DETECTOR in array.dims
    if is_series:
        array = geometry.in_own_pixels(array)
    dims = [dim for dim in array.dims if dim != schema.ANGLE]
    descending = {dim: slice(None, None, -1) for dim in dims if array[dim].values[-1] < array[dim].values[0]}
    return array.isel(descending) if descending else array


def write_header(mrc: Any, array: xr.DataArray) -> None:
    """Pixel sizes and origin in Å where the unit is nm; a label where coordinates are not centred."""
    is_series = schema.DETECTOR in array.dims
    # Dims of the array along x, y and z of the file; z of a series counts its projections.
    dims = (schema.DETECTOR, schema.Z, None) if is_series else (schema.X, schema.Y, schema.Z)
    across = schema.pixel_size_of(array)
    steps = [across if dim is None else abs(grid.spacing(array[dim].values, across)) for dim in dims]
    centres = [(array.sizes[dim or schema.ANGLE] - 1) / 2 for dim in dims]
    zeros = [
        centre if dim is None else grid.zero(array[dim].values, across)
        for dim, centre in zip(dims, centres, strict=True)
    ]
    if array.attrs["units"] == "nm":
        mrc.voxel_size = tuple(step * ANGSTROM_PER_NM for step in steps)
    if zeros != centres:
        mrc.add_label(_LABEL.format(**dict(zip("xyz", zeros, strict=True))))
        if array.attrs["units"] == "nm":
            firsts = (-zero * step * ANGSTROM_PER_NM for zero, step in zip(zeros, steps, strict=True))
            mrc.header.origin = tuple(0.0 if dim is None else first for dim, first in zip(dims, firsts, strict=True))


def positions(mrc: Any, axis: int, pixel_size: float) -> Float64:
    """Positions of the pixels along an axis of a file's data (z, y, x), from what its label says, else centred."""
    count = mrc.data.shape[axis]
    found = next(filter(None, map(_PATTERN.search, mrc.get_labels())), None)
    if found is None:
        return schema.centred(count, pixel_size)
    # A step of its own along each axis; a file without pixel sizes has none.
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(mrc.voxel_size["zyx"[axis]]) / float(mrc.voxel_size.x)
    step = pixel_size * (ratio if np.isfinite(ratio) and ratio > 0 else 1.0)
    return np.asarray((np.arange(count) - float(found[3 - axis])) * step, np.float64)
