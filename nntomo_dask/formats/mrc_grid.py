"""Where the pixels of an MRC file lie: pixel sizes, the origin, and a label that says where the tilt axis is.

Programs disagree on the sign and the zero of the origin in a header, so a file that is read is taken as centred on the
tilt axis unless a label of this package says otherwise.
"""

import re
import warnings
from typing import Any

import numpy as np
import xarray as xr

from nntomo_dask.arrays import grid, schema
from nntomo_dask.errors import refuse
from nntomo_dask.formats import orientation
from nntomo_dask.types import Float64

ANGSTROM_PER_NM = 10.0
_ROUNDED = 0.01  # pixel sizes that differ by less than this share are one, since programs round the lengths in headers
# Where the coordinates are zero, in pixels from the first along x, y and z of the file.
_LABEL = "nntomo_dask: zero at pixel x={x:.9g} y={y:.9g} z={z:.9g}"
_NUMBER = r"(-?[0-9.]+(?:e[-+]?[0-9]+)?)"
_PATTERN = re.compile(rf"nntomo_dask: zero at pixel x={_NUMBER} y={_NUMBER} z={_NUMBER}")


def write_header(mrc: Any, array: xr.DataArray) -> None:
    """Pixel sizes and origin in Å where the unit is nm; labels of axes, and of a zero that is not centred."""
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
    mrc.add_label(orientation.label(array))
    if array.attrs["units"] == "nm":
        mrc.voxel_size = tuple(step * ANGSTROM_PER_NM for step in steps)
    uneven = array.attrs["units"] == "nm" and not all(grid.is_same_length(step, across) for step in steps)
    if zeros != centres or uneven:
        mrc.add_label(_LABEL.format(**dict(zip("xyz", zeros, strict=True))))
        if array.attrs["units"] == "nm":
            firsts = (-zero * step * ANGSTROM_PER_NM for zero, step in zip(zeros, steps, strict=True))
            mrc.header.origin = tuple(0.0 if dim is None else first for dim, first in zip(dims, firsts, strict=True))


def pixel_size(mrc: Any) -> tuple[float, schema.Units]:
    """The pixel size along x, and its unit; 1 px where the header has none."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a header may leave the number of pixels at zero
        angstrom = float(mrc.voxel_size.x)
    return (angstrom / ANGSTROM_PER_NM, "nm") if np.isfinite(angstrom) and angstrom > 0 else (1.0, "px")


def positions(mrc: Any, axis: int, pixel_size: float) -> Float64:
    """Positions of the pixels along an axis of a file's data (z, y, x), from what its label says, else centred."""
    count = mrc.data.shape[axis]
    found = _label(mrc)
    # A step of its own along each axis; a file without pixel sizes has none.
    step = pixel_size * _ratio(mrc, "zyx"[axis])
    if found is None:
        return schema.centred(count, step)
    zero = float(found[3 - axis])
    if axis == 1 and is_from_the_viewer(mrc):  # rows are read from the other end
        zero = count - 1 - zero
    return np.asarray((np.arange(count) - zero) * step, np.float64)


def is_from_the_viewer(mrc: Any) -> bool:
    """Whether the rows of a volume begin at the viewer, as this package writes them, so that y descends along them."""
    return orientation.is_from_the_viewer(mrc.get_labels())


def check_square(mrc: Any, path: Any, *, who: str) -> None:
    """Raise a SchemaError where pixels are not square by the header, unless this package wrote it."""
    ratio = _ratio(mrc, "y")
    if _label(mrc) is None and ratio != 1:
        across = float(mrc.voxel_size.x) / ANGSTROM_PER_NM
        refuse(
            who,
            needs="square pixels",
            got=f"{across:g} nm along x and {across * ratio:g} nm along y in {path}",
            remedy="resample the images to one pixel size; where the header is wrong, correct it, such as by "
            "alterheader of IMOD",
        )


def warn_of_slices(mrc: Any, path: Any) -> None:
    """Warn where the slices of a volume are not as far apart as its pixels are wide, by a header of another program."""
    ratio = _ratio(mrc, "z")
    if _label(mrc) is None and ratio != 1:
        across = float(mrc.voxel_size.x) / ANGSTROM_PER_NM
        warnings.warn(
            f"the slices of {path} are {across * ratio:g} nm apart, and its pixels are {across:g} nm wide, as its "
            "header says; where that is wrong, correct the header, such as by alterheader of IMOD",
            stacklevel=3,
        )


def _label(mrc: Any) -> "re.Match[str] | None":
    """What the label of this package says of the zeros; None where there is none."""
    return next(filter(None, map(_PATTERN.search, mrc.get_labels())), None)


def _ratio(mrc: Any, axis: str) -> float:
    """The pixel size along an axis of a file over that along x; 1 where it has none, or they differ by rounding."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.float64(mrc.voxel_size[axis]) / np.float64(mrc.voxel_size.x))
    if not (np.isfinite(ratio) and ratio > 0):
        return 1.0
    return 1.0 if _label(mrc) is None and abs(ratio - 1) < _ROUNDED else ratio
