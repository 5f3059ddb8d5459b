"""A first alignment: mass profiles along the tilt axis; across it, the centre of mass or stretched neighbours."""

from typing import Literal

import numpy as np

from nntomo_dask.alignment.views import Pose, Views, without_gauge
from nntomo_dask.types import Bools, Float64

_BLUR = 1.0  # pixels, of profiles before their slope is taken
_EDGE = 0.03  # share of the columns on either side that say whether matter lies beyond them
_BEYOND = 0.02  # share of the mass that may lie there: the edge's level, over the whole field
_MOST_BEYOND = 0.1  # share of the views that may have more, before not all mass counts as in view
_FEWEST_ROWS = 8
_STEEPEST = 78.0  # degrees; beyond, a view is not stretched further


def along_shifts(views: Views, pose: Pose, *, rounds: int = 3) -> Pose:
    """Aligned along the axis by the cross-correlation of mass profiles.

    The profile along the axis, summed across it, is the same for all tilts where all mass is in view. First outward
    from the view nearest to 0°, each to the mean of those nearer to it; then each to the mean of all. What is
    correlated is the slope of profiles, on lines that are padded, so nothing wraps around.
    """
    size = views.along.size
    order = np.argsort(np.abs(views.angles_deg), kind="stable")
    found = pose
    for turn in range(rounds):
        slopes = _slopes(views.at(found).sum(axis=2, dtype=np.float64))
        shifts = np.zeros(views.count)
        aligned = np.zeros_like(slopes)
        mean = slopes.mean(axis=0)
        for place, view in enumerate(order):
            reference = aligned[order[:place]].mean(axis=0) if turn == 0 and place else mean
            if turn == 0 and place == 0:
                aligned[view] = slopes[view]
                continue
            shifts[view] = lag(slopes[view], reference, size // 2)
            aligned[view] = np.interp(np.arange(size) + shifts[view], np.arange(size), slopes[view], 0, 0)
        found = found.moved(np.column_stack([shifts - np.median(shifts), np.zeros(views.count)]) * views.step)
    return found


def centred(views: Views, pose: Pose) -> Pose:
    """Each view's centre of mass put where the tilt axis is to be: that of an object about the axis stays there.

    The centre moves by ``a cos θ + b sin θ + c`` with the tilt: a and b say where the object is, c where the axis is,
    and the rest is drift. With all mass in view the centres themselves are shifts that align, and centre the object.
    """
    rows = views.rows_in_all(pose)
    images = views.at(pose, views.along[rows])
    mass = images.sum(axis=(1, 2), dtype=np.float64)
    first = images.sum(axis=1, dtype=np.float64) @ views.across
    centres = np.divide(first, mass, out=np.zeros_like(mass), where=mass > 0)
    return pose.moved(np.column_stack([np.zeros(views.count), centres]) * views.step)


def centre_of_mass_fit(centres: Float64, radians: Float64) -> tuple[float, float, float]:
    """a, b and c of ``a cos θ + b sin θ + c`` through centres of mass (view,)."""
    basis = np.column_stack([np.cos(radians), np.sin(radians), np.ones(radians.size)])
    a, b, c = np.linalg.lstsq(basis, centres, rcond=None)[0]
    return float(a), float(b), float(c)


def all_mass_in_view(views: Views, pose: Pose) -> bool:
    """Whether matter lies beyond the field across the axis in a tenth of the views or less.

    The level at either side, if it went on over the whole field, must weigh less than a fiftieth of what is seen.
    Background must have been subtracted. With fewer than eight rows that all views have recorded it is not said.
    """
    rows = views.rows_in_all(pose)
    if rows.sum() < _FEWEST_ROWS:
        return False
    profile = np.abs(views.images).mean(axis=1, dtype=np.float64)
    width = max(int(np.ceil(_EDGE * profile.shape[1])), 2)
    edges = np.maximum(profile[:, :width].mean(axis=1), profile[:, -width:].mean(axis=1))
    within = profile.mean(axis=1)
    beyond: Bools = edges > _BEYOND * within
    return bool(beyond.mean() <= _MOST_BEYOND)


def stretched_shifts(views: Views, pose: Pose, *, orbit: Literal["removed", "kept"] = "removed") -> Pose:
    """Aligned across the axis by the correlation of neighbours, outward from 0°.

    A view is compared with its neighbour nearer to 0°, stretched by the ratio of the cosines of their tilts, as a flat
    specimen would be. Shifts add up from view to view; what of them only moves the object is removed.

    Parameters
    ----------
    orbit
        "kept": only the median is removed. Over few degrees any drift looks like an object far from the axis.
    """
    order = np.argsort(np.abs(views.angles_deg), kind="stable")
    radians = np.deg2rad(np.clip(views.angles_deg, -_STEEPEST, _STEEPEST))
    slopes = np.gradient(_blurred(views.at(pose).astype(np.float64)), axis=2)
    taper = np.hanning(views.across.size + 2)[1:-1]
    shifts = np.zeros(views.count)
    done = [int(order[0])]
    for view in order[1:]:
        near = min(done, key=lambda other: abs(views.angles_deg[other] - views.angles_deg[view]))
        ratio = np.cos(radians[near]) / np.cos(radians[view])  # of places in the neighbour to places in the view
        places = views.across * ratio + shifts[near]
        stretched = np.stack([np.interp(places, views.across, line, 0, 0) for line in slopes[near]])
        shifts[view] = lag(slopes[view] * taper, stretched * taper, views.across.size // 4)
        done.append(int(view))
    if orbit == "kept":
        return pose.moved(np.column_stack([np.zeros(views.count), shifts - np.median(shifts)]) * views.step)
    moves = np.column_stack([np.zeros(views.count), shifts]) * views.step
    return pose.moved(without_gauge(moves, views.radians))


def lag(lines: Float64, reference: Float64, most: int) -> float:
    """By how many pixels a line, or lines (line, place) together, differ from others: ``line(x + lag) ≈ reference(x)``.

    The maximum of the cross-correlation within ±`most`, with a parabola through it and its neighbours.
    """
    size = lines.shape[-1]
    padded = 2 * size
    product = np.fft.rfft(lines, padded) * np.conj(np.fft.rfft(reference, padded))
    curve = np.fft.irfft(product.reshape(-1, product.shape[-1]).sum(axis=0), padded)
    lags = np.arange(-most, most + 1)
    best = int(lags[np.argmax(curve[lags])])
    before, at, after = curve[best - 1], curve[best], curve[(best + 1) % padded]
    bend = before - 2 * at + after
    return best + (0.5 * (before - after) / bend if bend < 0 else 0.0)


def _slopes(profiles: Float64) -> Float64:
    slopes: Float64 = np.gradient(_blurred(profiles), axis=1)
    return slopes


def _blurred(lines: Float64) -> Float64:
    from scipy import ndimage

    blurred: Float64 = ndimage.gaussian_filter1d(lines, _BLUR, axis=-1, mode="nearest")
    return blurred
