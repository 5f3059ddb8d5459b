"""Where pixels lie: the spacing of a coordinate, and where the tilt axis crosses a slice.

The coordinates of labelled arrays say where each pixel lies, as distances from the tilt axis. Kernels work on plain
arrays and count in pixels; `Axis` tells them where the axis is.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nntomo_dask.errors import refuse

# Positions may be off by this share of a step: other programs round them.
_UNEVEN = 0.01
# Two lengths that differ by less are one, and a place so near to a whole or half pixel is there: rounding, no more.
_RELATIVE, _PIXELS = 1e-6, 1e-5


class Axis(NamedTuple):
    """Where the tilt axis crosses a slice (y, x), in pixels from the first; on the detector it lies at x too."""

    y: float
    x: float

    @classmethod
    def centred(cls, size: int) -> "Axis":
        """In the middle of a slice of size × size pixels."""
        return cls((size - 1) / 2, (size - 1) / 2)


def axis_or_centre(axis: Axis | None, size: int) -> Axis:
    """The axis; the middle of a slice where none is given."""
    return Axis.centred(size) if axis is None else axis


def spacing(positions: npt.ArrayLike, pixel_size: float) -> float:
    """Step of a coordinate, negative where it descends; `pixel_size` where there is one position, or about this."""
    values = np.asarray(positions, np.float64)
    if values.size == 1:
        return pixel_size
    step = float(values[-1] - values[0]) / (values.size - 1)
    return float(np.copysign(pixel_size, step)) if is_same_length(abs(step), pixel_size) else step


def is_same_length(first: float, second: float) -> bool:
    """Whether two lengths are equal but for rounding."""
    return abs(first - second) <= _RELATIVE * abs(second)


def zero(positions: npt.ArrayLike, pixel_size: float) -> float:
    """Where a coordinate is zero, in pixels from its first; below 0 or beyond the last where it lies outside."""
    values = np.asarray(positions, np.float64)
    return snapped(float(-values[0] / spacing(values, pixel_size)))


def snapped(place: float) -> float:
    """A place in pixels, without the rounding that keeps it from a whole or half pixel."""
    nearest = round(2 * place) / 2
    return nearest if abs(place - nearest) <= _PIXELS else place


def depth_zero(place: float, count: int) -> float:
    """Where y is zero in the reconstruction of a detector of `count` pixels with the axis at `place`.

    At the same place, so that y has the positions of the detector. Where the axis lies beyond the detector, that would
    be a corner that few projections see: then y lies about zero, on the same grid of pixels.
    """
    if -0.5 <= place <= count - 0.5:
        return place
    return place + round((count - 1) / 2 - place)


def in_bins(axis: Axis, size: int, factor: int) -> Axis | None:
    """Where the tilt axis lies in bins of `factor` of `size` pixels; None where it is in the middle of these."""
    if axis == Axis.centred(size):
        return None
    place = (axis.x + 0.5) / factor - 0.5
    return Axis(depth_zero(place, size // factor), place)


def check_positions(positions: npt.ArrayLike, *, dim: str, kind: str, who: str, even: bool = True) -> None:
    """Raise a SchemaError unless a coordinate holds finite numbers, and where `even` in equal steps."""
    values = np.asarray(positions)
    needs = f'a {kind} whose coordinate "{dim}" has ' + ("equal steps" if even else "finite positions")
    if values.dtype.kind not in "iuf":
        refuse(who, needs=needs, got=f"values of {values.dtype}", remedy=f"array.assign_coords({dim}=…) with positions")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        refuse(
            who,
            needs=needs,
            got=f"{values[bad[0]]} at index {bad[0]}",
            remedy=f"array.assign_coords({dim}=…), which says where each pixel lies, also those that were padded",
        )
    if not even or values.size < 2:
        return
    steps = np.diff(values.astype(np.float64))
    usual = (float(values[-1]) - float(values[0])) / (values.size - 1)
    if usual == 0 or np.abs(steps - usual).max() > _UNEVEN * abs(usual):
        got = f"steps from {steps.min():.6g} to {steps.max():.6g}"
        if (steps == 0).any():
            got = f"the position {values[:-1][steps == 0][0]:g} more than once"
        refuse(
            who,
            needs=needs,
            got=got,
            remedy=f"a slice of neighbouring pixels with one step; or array.assign_coords({dim}=…) where the positions "
            f"are wrong; or array.interp({dim}=…)",
        )
