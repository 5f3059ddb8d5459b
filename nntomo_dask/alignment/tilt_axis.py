"""Where the tilt axis lies in the images: its direction by the common line, its place by opposite views.

The Fourier transforms of all projections share the line along the tilt axis: on it lies the transform of the mass
profile along the axis, which does not change with the tilt. So a candidate direction is judged by how well the
transforms along it agree. By the slice theorem the line is found without interpolating transforms: it is the transform
of the sums across the candidate.
"""

from typing import NamedTuple

import numpy as np

from nntomo_dask.alignment import coarse
from nntomo_dask.alignment.views import Mass, Pose, Views
from nntomo_dask.types import Float64

_COARSE, _FINE = 2.0, 0.1  # degrees between candidates
_LOWEST = {"in view": 3, "beyond": 1}  # of the frequencies that are compared, in periods in the field
_HIGHEST = 0.25  # the same, in periods a pixel
_OPPOSITE = 0.6  # degrees by which two views may miss to be 180° apart


class CommonLine(NamedTuple):
    """What candidate directions are worth.

    Attributes
    ----------
    rotation_deg
        The best, [degrees].
    agreement
        Of the best: 1 where the transforms of all views are the same along it, 1 / views where they have nothing in
        common.
    at_end
        Whether it is the first or the last candidate, so that the axis may lie beyond.
    """

    rotation_deg: float
    agreement: float
    at_end: bool


def common_line(views: Views, pose: Pose, *, reach_deg: float = 20.0, mass: Mass = "in view") -> CommonLine:
    """The rotation at which the transforms of all views agree best along the axis, coarse then fine.

    Parameters
    ----------
    pose
        Where the views lie so far; candidates are up to `reach_deg` from its rotation, [degrees].
    mass
        "beyond" where matter lies beyond the field across the axis. It enters and leaves with the tilt, so that the
        strongest frequencies, which are the lowest, agree least; there each counts with its amplitude, not its square.
    """
    start = float(np.median(pose.rotation_deg))
    candidates = start + np.arange(-reach_deg, reach_deg + _COARSE / 2, _COARSE)
    worth = np.array([_agreement(views, pose, one, mass) for one in candidates])
    best = int(np.argmax(worth))
    at_end = best in (0, candidates.size - 1)
    step, found = _COARSE, float(candidates[best])
    while step > _FINE:
        step /= 2
        near = [found - step, found, found + step]
        values = [_agreement(views, pose, one, mass) for one in near]
        found = near[int(np.argmax(values))]
    near = [found - _FINE, found, found + _FINE]
    before, at, after = (_agreement(views, pose, one, mass) for one in near)
    bend = before - 2 * at + after
    if bend < 0:
        found += float(np.clip(0.5 * (before - after) / bend, -1, 1)) * _FINE
    return CommonLine(found, float(max(before, at, after)), at_end)


def axis_place(views: Views, pose: Pose) -> float | None:
    """By how much the axis lies beside the middle in a pose, from views 180° apart; None where there are none.

    Such views mirror each other about the axis, [px of the raw series]. A slow drift has to be removed before: what
    two opposite views have drifted apart counts as place of the axis.
    """
    places = []
    images = views.at(pose).astype(np.float64)
    for first, second in opposite_views(views.angles_deg):
        mirrored = images[second][:, ::-1]
        line = coarse.lag(images[first] - images[first].mean(), mirrored - mirrored.mean(), images.shape[2] // 2)
        places.append(line / 2 * views.step)
    return float(np.median(places)) if places else None


def opposite_views(angles_deg: Float64) -> list[tuple[int, int]]:
    """Pairs of views whose angles are 180° apart."""
    found = []
    for first, angle in enumerate(angles_deg):
        off = np.abs(angles_deg - angle - 180)
        second = int(np.argmin(off))
        if off[second] <= _OPPOSITE:
            found.append((first, second))
    return found


def _agreement(views: Views, pose: Pose, rotation_deg: float, mass: Mass) -> float:
    """How well the lines at a rotation agree, after the views were shifted along it to do so."""
    turned = pose.turned(rotation_deg - pose.rotation_deg)
    aligned = coarse.along_shifts(views, turned, rounds=2)
    profiles = views.at(aligned).sum(axis=2, dtype=np.float64)
    profiles -= profiles.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(profiles, axis=1, keepdims=True)
    profiles = np.divide(profiles, norms, out=np.zeros_like(profiles), where=norms > 0)
    size = profiles.shape[1]
    lines = np.fft.rfft(profiles * np.hanning(size + 2)[1:-1], axis=1)
    lines = lines[:, _LOWEST[mass] : max(int(_HIGHEST * size), _LOWEST[mass] + 2)]
    together = np.abs(lines.sum(axis=0)) ** 2
    alone = views.count * (np.abs(lines) ** 2).sum(axis=0)
    weights = (
        np.ones_like(alone)
        if mass == "in view"
        else np.divide(1, np.sqrt(alone), out=np.zeros_like(alone), where=alone > 0)
    )
    whole = float((weights * alone).sum())
    return float((weights * together).sum()) / whole if whole > 0 else 0.0
