"""Which tilt angles are one direction, and which are one angle."""

import numpy as np
import numpy.typing as npt

from nntomo_dask.errors import refuse
from nntomo_dask.types import Float64, Integers

# Angles closer than this may be one direction. Microscope stages report hundredths of a degree.
TOLERANCE_DEG = 0.05
# Angles closer than this are one direction in any series: rounding alone keeps them apart.
_ROUNDING_DEG = 1e-6
# Angles are one direction only where all other angles are so many times farther away.
_APART = 4


def directions(angles_deg: npt.ArrayLike) -> tuple[Float64, npt.NDArray[np.intp]]:
    """Distinct directions in [0, 180), ascending, and the index of the direction of each angle.

    θ and θ + 180 are the same direction. Angles that lie within `TOLERANCE_DEG` are repeats of one direction, unless
    the next angle is about as near: then this is the step of the series, and each of them is a direction.
    """
    angles = np.asarray(angles_deg, np.float64)
    if not np.isfinite(angles).all():
        refuse("tilt angles", needs="finite angles", got=f"{angles.tolist()}", remedy="give one number a projection")
    modulo = np.mod(angles, 180)
    modulo[modulo > 180 - _ROUNDING_DEG] = 0
    order = np.argsort(modulo, kind="stable")
    ascending = modulo[order]
    # Directions are cyclic. The list is cut at its widest gap, so that no group lies across the cut.
    gaps = np.diff(ascending, append=ascending[0] + 180)
    cut = int(gaps.argmax()) + 1
    turned = np.concatenate([ascending[cut:], ascending[:cut] + 180])
    firsts = np.zeros(turned.size, bool)
    _mark(turned, 0, turned.size, TOLERANCE_DEG, firsts)
    member = np.empty(turned.size, np.intp)
    member[np.roll(order, -cut)] = np.cumsum(firsts) - 1
    found = np.mod(turned[firsts], 180)
    places = np.argsort(found, kind="stable")
    return found[places], np.argsort(places)[member]


def _mark(turned: Float64, start: int, stop: int, tolerance: float, firsts: npt.NDArray[np.bool_]) -> None:
    """Mark the first angle of each direction among turned[start:stop]."""
    breaks = np.flatnonzero(np.diff(turned[start:stop]) > tolerance) + start + 1
    for low, high in zip([start, *breaks], [*breaks, stop], strict=True):
        if tolerance <= _ROUNDING_DEG or turned[high - 1] - turned[low] <= min(
            tolerance, _next(turned, low, high) / _APART
        ):
            firsts[low] = True
        else:
            _mark(turned, low, high, max(tolerance / _APART, _ROUNDING_DEG), firsts)


def _next(turned: Float64, low: int, high: int) -> float:
    """How far the nearest other angle is from turned[low:high]."""
    before = turned[low] - (turned[low - 1] if low > 0 else turned[-1] - 180)
    after = (turned[high] if high < turned.size else turned[0] + 180) - turned[high - 1]
    return float(min(before, after))


def places_of(wanted_deg: npt.ArrayLike, angles_deg: npt.ArrayLike) -> Integers | None:
    """Where each of the wanted angles stands in a list of angles; None unless both lists hold the same angles.

    The order plays no part. Angles are the same within `TOLERANCE_DEG`, and within a quarter of the usual step.
    """
    wanted, angles = np.asarray(wanted_deg, np.float64), np.asarray(angles_deg, np.float64)
    if wanted.shape != angles.shape:
        return None
    first, second = np.argsort(wanted, kind="stable"), np.argsort(angles, kind="stable")
    step = float(np.median(np.diff(wanted[first]))) if wanted.size > 1 else np.inf
    if np.abs(wanted[first] - angles[second]).max(initial=0) > min(TOLERANCE_DEG, max(step / _APART, _ROUNDING_DEG)):
        return None
    places = np.empty(wanted.size, np.intp)
    places[first] = second
    return places


def extent_deg(angles_deg: npt.ArrayLike) -> float:
    """The range that a series covers, [degrees]: 180 less the widest gap between two directions next to each other."""
    found, _ = directions(angles_deg)
    return float(180 - np.diff(found, append=found[0] + 180).max())
