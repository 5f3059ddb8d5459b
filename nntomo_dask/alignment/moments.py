"""Alignment by what any object keeps when it is tilted: the moments of its rows across the axis.

With all mass in view, the mass of a row is the same in all views, and its first moment across the axis moves by
``a cos θ + b sin θ``; a, b and the mass may differ from row to row [1]_. Shifts, the rotation of the axis and the
intensity of each view are those with which the rows do so best. No volume is reconstructed.

References
----------
.. [1] S. Helgason, The Radon Transform, Birkhäuser, 1999; D. Ludwig, Comm. Pure Appl. Math. 19 (1966) 49.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from nntomo_dask.alignment.views import Pose, Views, harmonics
from nntomo_dask.types import Bools, Float64

Turning = Literal["common", "fixed"]

_ORDERS = 2  # the mass and the first moment
_BLUR = 1.0  # pixels along the axis, of what derivatives are taken from
_FAINTEST = 0.02  # share of the heaviest row's mass below which a row says nothing
_MARGIN = 3  # rows at the ends, where derivatives need what is not there
_FEWEST_ROWS = 6
_FARTHEST = 4.0  # pixels of the views, and degrees, by which one step moves at most
_ENOUGH = 1e-3  # pixels of the raw series
_LEAST_VARIANCE = 1e-3  # share of the largest, so that an empty row's noise is not taken for none
_RANK = 1e-9


@dataclass(frozen=True)
class Moments:
    """What a fit of moments found.

    Attributes
    ----------
    pose
        Where each view lies.
    intensity
        (view,): mass of a view, as a multiple of that of all.
    misfit_px
        By how much a row's centre of mass still differs from where it should be: root mean square over views and rows,
        weighted by mass, [px of the raw series].
    last_step_px
        The largest of the last step.
    steps
        How many steps were made.
    """

    pose: Pose
    intensity: Float64
    misfit_px: float
    last_step_px: float
    steps: int


def fit_moments(views: Views, pose: Pose, *, turning: Turning = "common", steps: int = 12) -> Moments:
    """Shifts, one rotation for all views and their intensities, from the moments of rows.

    Gauss–Newton, least squares weighted by the variance that counting noise has; every step interpolates what was
    recorded. The object's centre of mass is put on the tilt axis.

    Parameters
    ----------
    pose
        Where to begin; within a few pixels and degrees.
    turning
        "common": one rotation, the same for all views, is found too. "fixed": it stays.
    steps
        The most steps; it ends when one moves nothing by over 0.001 px.
    """
    intensity = np.ones(views.count)
    largest, misfit, made = np.inf, np.nan, 0
    while made < steps and largest >= _ENOUGH * views.step:
        sums = _row_sums(views, pose, intensity)
        rows = _useful(views, pose, sums[0])
        if rows.sum() < _FEWEST_ROWS:
            break
        made += 1
        shifts, turn, gains, misfit = _step(views, pose, sums, rows, turning)
        pose = _centred(pose._replace(rotation_deg=pose.rotation_deg + turn).moved(shifts), sums, rows, views)
        intensity = intensity * np.exp(gains)
        reach = views.step * max(views.images.shape[1:]) / 2
        largest = float(max(np.abs(shifts).max(), abs(np.deg2rad(turn)) * reach))
    return Moments(pose, intensity, float(misfit), largest, made)


def _row_sums(views: Views, pose: Pose, intensity: Float64) -> list[Float64]:
    """Moments 0 … 3 across the axis of each row, (view, along) each, in pixels of the views."""
    images = views.at(pose)
    powers = np.stack([views.across**k for k in range(_ORDERS + 2)], axis=1)
    sums = np.stack([image.astype(np.float64) @ powers for image in images]) / intensity[:, None, None]
    return [np.ascontiguousarray(sums[..., k]) for k in range(_ORDERS + 2)]


def _useful(views: Views, pose: Pose, mass: Float64) -> Bools:
    """(along,): rows that all views have recorded and that have mass, without those next to others."""
    from scipy import ndimage

    typical = np.median(mass, axis=0)
    rows = views.rows_in_all(pose) & (typical > _FAINTEST * typical.max())
    useful: Bools = ndimage.binary_erosion(rows, iterations=_MARGIN)
    return useful


def _step(
    views: Views, pose: Pose, sums: list[Float64], rows: Bools, turning: Turning
) -> tuple[Float64, float, Float64, float]:
    """Shifts (view, 2) [px of the raw series], rotation [degrees], logarithms of intensities, and the misfit [px]."""
    from scipy import ndimage

    count = views.count
    parts = [slice(k * count, (k + 1) * count) for k in range(3)]
    size = 3 * count + 1
    lever = float(np.abs(views.along).max())  # so that a rotation weighs as the shift that it makes at the ends
    # What any object would have: the noise of one view is not in the derivatives that its own step is found with.
    model = []
    for order in range(_ORDERS + 1):
        basis = harmonics(views.radians, order) if order + 1 < count else np.eye(count)
        model.append(ndimage.gaussian_filter1d(basis @ (basis.T @ sums[order]), _BLUR, axis=1, mode="nearest"))
    slopes = [np.gradient(one, axis=1) for one in model]
    centre = pose.shifts / views.step
    normal, right = np.zeros((size, size)), np.zeros(size)
    for order in range(_ORDERS):
        basis = harmonics(views.radians, order)
        keep = np.eye(count) - basis @ basis.T
        variance = sums[2 * order].mean(axis=0)
        variance = np.maximum(variance, _LEAST_VARIANCE * variance.max())[rows]
        lower = model[order - 1] if order else np.zeros_like(model[0])
        turned = slopes[order + 1] + centre[:, 1, None] * slopes[order]
        turned = turned + (views.along + centre[:, 0, None]) * order * lower
        # What a row's moments change by when a view's shift along, across or its intensity does: one view each.
        single = [one[:, rows] for one in (slopes[order], -order * lower, -model[order])]
        whole = keep @ (-turned[:, rows] / lever)
        left = keep @ sums[order][:, rows]
        weighted = left / variance
        for i, first in enumerate(single):
            for j, second in enumerate(single):
                normal[parts[i], parts[j]] += keep * ((first / variance) @ second.T)
            normal[parts[i], -1] += (first * whole / variance).sum(axis=1)
            right[parts[i]] -= (first * weighted).sum(axis=1)
        normal[-1, -1] += (whole**2 / variance).sum()
        right[-1] -= (whole * weighted).sum()
    normal[-1, :-1] = normal[:-1, -1]
    heavy = model[0][:, rows].mean(axis=0)
    squares, weight = float((left**2 / heavy).sum()), float(heavy.sum()) * (count - 2)
    if turning == "fixed":
        normal[-1], normal[:, -1], right[-1] = 0.0, 0.0, 0.0
    found = np.linalg.lstsq(normal, right, rcond=_RANK)[0]
    shifts = np.clip(np.column_stack([found[parts[0]], found[parts[1]]]), -_FARTHEST, _FARTHEST)
    shifts[:, 0] -= np.median(shifts[:, 0])
    degrees = float(np.clip(np.rad2deg(found[-1] / lever), -_FARTHEST, _FARTHEST))
    gains = np.clip(found[parts[2]], -0.2, 0.2)
    misfit = np.sqrt(squares / weight) * views.step if weight > 0 else np.nan
    return shifts * views.step, degrees, gains - np.median(gains), float(misfit)


def _centred(pose: Pose, sums: list[Float64], rows: Bools, views: Views) -> Pose:
    """With the object's centre of mass on the axis: its harmonics are taken out of the shifts."""
    mass, first = sums[0][:, rows].sum(axis=1), sums[1][:, rows].sum(axis=1)
    basis = harmonics(views.radians)
    centres = basis @ (basis.T @ (first / mass))
    return pose.moved(np.column_stack([np.zeros(views.count), centres]) * views.step)
