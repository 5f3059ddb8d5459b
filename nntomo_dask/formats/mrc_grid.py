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
from nntomo_dask.formats.mrc_header import Header
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


def pixel_size(header: Header) -> tuple[float, schema.Units]:
    """The pixel size along x, and its unit; 1 px where the header has none."""
    angstrom = header.pixel_angstrom[0]
    return (angstrom / ANGSTROM_PER_NM, "nm") if np.isfinite(angstrom) and angstrom > 0 else (1.0, "px")


def positions(header: Header, axis: int, pixel_size: float) -> Float64:
    """Positions of the pixels along an axis of a file's data (z, y, x), from what its label says, else centred."""
    count = header.shape[axis]
    found = zeros(header)
    # A step of its own along each axis; a file without pixel sizes has none.
    step = pixel_size * ratio(header, "zyx"[axis])
    if found is None:
        return schema.centred(count, step)
    zero = found[2 - axis]
    if axis == 1 and is_from_the_viewer(header):  # rows are read from the other end
        zero = count - 1 - zero
    return np.asarray((np.arange(count) - zero) * step, np.float64)


def is_from_the_viewer(header: Header) -> bool:
    """Whether the rows of a volume begin at the viewer, as this package writes them, so that y descends along them."""
    return orientation.is_from_the_viewer(header.labels)


def check_square(header: Header, path: Any, *, who: str) -> None:
    """Raise a SchemaError where pixels are not square by the header, unless this package wrote it."""
    found = ratio(header, "y")
    if zeros(header) is None and found != 1:
        across = header.pixel_angstrom[0] / ANGSTROM_PER_NM
        refuse(
            who,
            needs="square pixels",
            got=f"{across:g} nm along x and {across * found:g} nm along y in {path}",
            remedy="resample the images to one pixel size; where the header is wrong, correct it, such as by "
            "alterheader of IMOD",
        )


def warn_of_slices(header: Header, path: Any) -> None:
    """Warn where the slices of a volume are not as far apart as its pixels are wide, by a header of another program."""
    found = ratio(header, "z")
    if zeros(header) is None and found != 1:
        across = header.pixel_angstrom[0] / ANGSTROM_PER_NM
        warnings.warn(
            f"the slices of {path} are {across * found:g} nm apart, and its pixels are {across:g} nm wide, as its "
            "header says; where that is wrong, correct the header, such as by alterheader of IMOD",
            stacklevel=3,
        )


def zeros(header: Header) -> tuple[float, float, float] | None:
    """Where coordinates are zero, [px] along x, y and z, by the label of this package; None where there is none."""
    found = next(filter(None, map(_PATTERN.search, header.labels)), None)
    if found is None:
        return None
    try:
        return (float(found[1]), float(found[2]), float(found[3]))
    except ValueError:  # "1.2.3"
        return None


def ratio(header: Header, axis: str) -> float:
    """The pixel size along an axis of a file over that along x; 1 where it has none, or they differ by rounding."""
    sizes = header.pixel_angstrom
    with np.errstate(divide="ignore", invalid="ignore"):
        found = float(np.float64(sizes["xyz".index(axis)]) / np.float64(sizes[0]))
    if not (np.isfinite(found) and found > 0):
        return 1.0
    return 1.0 if zeros(header) is None and abs(found - 1) < _ROUNDED else found
