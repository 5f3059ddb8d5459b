"""How axes lie: from the images of a file to a tilt series, and from an array to a file that other programs show.

Images are meant as they are shown, upright. About their vertical a positive tilt is a right-handed turn, as in IMOD and
SerialEM: the right half moves away from whoever looks at them. Then ``detector = x cos θ + y sin θ`` holds with x to
the right, z up along the tilt axis, and y towards whoever looks at the untilted image. In this order, (x, y, z), these
axes are left-handed; files get y from the other end, so that their axes are right-handed. See docs/howto/axes.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import recipes, schema
from nntomo_dask.errors import refuse
from nntomo_dask.formats.images import FirstLine
from nntomo_dask.types import Float64

TiltAxis = Literal["x", "y"] | float
TiltSign = Literal["right-handed", "left-handed"]

_VOLUME_LABEL = "nntomo_dask: right-handed axes; x right, y from the viewer, z up the tilt axis"
_SERIES_LABEL = "nntomo_dask: tilt axis up; positive tilts turn the right half from the viewer"
_TURN_DEG = 90.0
# (along, across) the tilt axis in images as they are shown, (right, up) counted positive, after quarter turns of the
# axis from the vertical, counterclockwise.
_UP, _DOWN, _RIGHT, _LEFT = "up", "down", "right", "left"
_TURNED: tuple[tuple[str, str], ...] = ((_UP, _RIGHT), (_LEFT, _UP), (_DOWN, _LEFT), (_RIGHT, _DOWN))


@dataclass(frozen=True)
class Orientation:
    """How the stored images (line, column) of a file become the projections (z, detector) of a tilt series.

    Attributes
    ----------
    transposed
        Whether the tilt axis runs along the lines, so that z counts columns.
    reversed_along, reversed_across
        Whether z begins at the last line (or column), and detector at the last column (or line).
    angle_sign
        What the angles of the file are multiplied with.
    remaining_deg
        Direction of the tilt axis in the projections, from z, counterclockwise as they are shown, [degrees], within
        ±45: the attribute ``tilt_axis_deg`` of a raw series. An alignment turns by ``rotation_deg = -remaining_deg``.
    """

    transposed: bool
    reversed_along: bool
    reversed_across: bool
    angle_sign: Literal[1, -1]
    remaining_deg: float = 0.0

    def shape(self, lines: int, columns: int) -> tuple[int, int]:
        """(z, detector) of images of so many lines and columns."""
        return (columns, lines) if self.transposed else (lines, columns)

    def window(self, rows: slice, detectors: slice, *, lines: int, columns: int) -> tuple[slice, slice]:
        """The lines and columns, as they are stored, that hold some rows (z) and detector pixels.

        `rows` and `detectors` have a start and a stop, and no step.
        """
        along, across = self.shape(lines, columns)
        stored_rows = _mirrored(rows, along) if self.reversed_along else rows
        stored_detectors = _mirrored(detectors, across) if self.reversed_across else detectors
        return (stored_detectors, stored_rows) if self.transposed else (stored_rows, stored_detectors)

    def projection(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A stored image, or a `window` of it, (…, line, column) as (…, z, detector); a view."""
        turned = np.swapaxes(stored, -1, -2) if self.transposed else stored
        along = slice(None, None, -1) if self.reversed_along else slice(None)
        across = slice(None, None, -1) if self.reversed_across else slice(None)
        return turned[..., along, across]

    def angles(self, angles_deg: npt.ArrayLike) -> Float64:
        """Tilt angles of the series, [degrees], from those of the file."""
        return np.asarray(angles_deg, np.float64) * self.angle_sign + 0.0  # no negative zero


def of_images(
    tilt_axis: TiltAxis,
    *,
    first_line: FirstLine,
    tilt_sign: TiltSign = "right-handed",
    who: str = "import",
) -> Orientation:
    """How the images of a file become projections.

    Parameters
    ----------
    tilt_axis
        In the images as they are shown. "y": upwards, as in IMOD. "x": to the right; z counts columns, detector counts
        lines from the bottom, so the specimen is seen from its far side. A number: degrees from the vertical,
        counterclockwise, as SerialEM and IMOD state it; the images are turned by quarters until less than 45° remain.
        So 0 is "y", and -90 is "x" turned by 180° about the axis. A number and the same plus 180 differ in hand.
    first_line
        Where the first stored line belongs when the image is shown: "bottom" in MRC, "top" in DM3, EMD and TIFF.
    tilt_sign
        "right-handed": a positive angle turns the specimen as the fingers of a right hand whose thumb points along the
        axis, seen from where the images are shown. "left-handed": the other way; the angles change their sign.

    Raises
    ------
    SchemaError
        An axis, a side or a sign that does not exist.
    """
    if first_line not in get_args(FirstLine):
        refuse(who, needs='the first line at the "bottom" or at the "top"', got=f"{first_line!r}", remedy='"bottom"')
    if tilt_sign not in get_args(TiltSign):
        refuse(
            who,
            needs='a sign of tilt that is "right-handed" or "left-handed"',
            got=f"{tilt_sign!r}",
            remedy="`tilt_sign=right-handed`",
        )
    remaining = 0.0
    if tilt_axis == "y":
        along, across = _TURNED[0]
    elif tilt_axis == "x":
        along, across = _RIGHT, _UP
    elif isinstance(tilt_axis, int | float | np.number) and np.isfinite(tilt_axis) and abs(tilt_axis) <= 360:
        quarters = round(float(tilt_axis) / _TURN_DEG)
        remaining = float(tilt_axis) - quarters * _TURN_DEG
        along, across = _TURNED[quarters % 4]
    else:
        refuse(
            who,
            needs="a tilt axis along x or y, or its direction in degrees",
            got=f"{tilt_axis!r}",
            remedy="`tilt_axis=y`",
        )
    transposed = along in (_LEFT, _RIGHT)
    reverse = {way: way in (_DOWN, _LEFT) for way in (_UP, _DOWN, _LEFT, _RIGHT)}
    if first_line == "top":
        reverse |= {_UP: True, _DOWN: False}
    return Orientation(
        transposed=transposed,
        reversed_along=reverse[along],
        reversed_across=reverse[across],
        angle_sign=1 if tilt_sign == "right-handed" else -1,
        remaining_deg=remaining,
    )


def right_handed(volume: xr.DataArray) -> xr.DataArray:
    """A volume whose y descends; where x and z ascend, the axes x, y, z of its array are right-handed.

    `ascending` undoes it.
    """
    descending = volume[schema.Y].size > 1 and volume[schema.Y].values[-1] < volume[schema.Y].values[0]
    return volume if descending else _reversed(volume, schema.Y)


def ascending(array: xr.DataArray) -> xr.DataArray:
    """A volume or a tilt series with its positions in ascending order; the angles stay as they are."""
    for dim in array.dims:
        if dim != schema.ANGLE and array.sizes[dim] > 1 and array[dim].values[-1] < array[dim].values[0]:
            array = _reversed(array, str(dim))
    return array


def as_file(array: xr.DataArray, *, first_line: FirstLine = "bottom") -> xr.DataArray:
    """A volume or a tilt series in the order in which a file holds it, so that other programs show it rightly.

    A volume is `right_handed`. Of a tilt series the lines along z begin at the bottom, or at the top; dims keep their
    order.

    Parameters
    ----------
    first_line
        Of images in files of that format: "bottom" for MRC, "top" for TIFF, HSPY and all formats that show images as
        matrices. It does not matter for a volume.
    """
    array = ascending(array)
    if schema.ANGLE in array.dims:
        return _reversed(array, schema.Z) if first_line == "top" else array
    return right_handed(array)


def statement(array: xr.DataArray) -> str:
    """What an exported file should say of its axes, in one paragraph; it is true of `as_file`."""
    if schema.ANGLE in array.dims:
        text = (
            "Tilt series. Images are to be shown with the tilt axis upwards and the detector to the right; positive "
            "angles are right-handed turns about it (the right half moves away from the viewer), as in IMOD."
        )
    else:
        text = (
            "Axes x, y, z are right-handed if positive tilt angles are (IMOD, SerialEM). z: along the tilt axis, "
            "upwards in the images; x: their right; y: away from the viewer of the untilted image."
        )
    if recipes.find(array.attrs.get("recipe"), "specimen") is not None:
        text += (
            " Simulated: the atoms were taken at (x, y, z) of the package, whose y points to the viewer, so a chiral "
            "crystal is the mirror image of its structure file here."
        )
    return text


def label(array: xr.DataArray) -> str:
    """The `statement` in the 80 characters of a label of an MRC header."""
    return _SERIES_LABEL if schema.ANGLE in array.dims else _VOLUME_LABEL


def is_from_the_viewer(labels: Iterable[str]) -> bool:
    """Whether the labels of an MRC header say that y of a volume runs from the viewer, as `as_file` has it."""
    return _VOLUME_LABEL in (one.strip() for one in labels)


def _reversed(array: xr.DataArray, dim: str) -> xr.DataArray:
    return array.isel({dim: slice(None, None, -1)})


def _mirrored(part: slice, size: int) -> slice:
    """The same pixels, counted from the other end."""
    return slice(size - int(part.stop), size - int(part.start))
