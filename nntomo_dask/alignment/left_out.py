"""Views that are left out in turn: how well the others predict them, and at which tilt they predict them best."""

import numpy as np

from nntomo_dask.alignment.matching import sirt
from nntomo_dask.alignment.views import Pose, Views
from nntomo_dask.projection.projector import Projector
from nntomo_dask.types import Float32, Float64

_STEPS = 24  # of SIRT
_ROWS = 32  # of a run
_PROBE = 0.5  # degrees to either side, for the derivative with respect to the tilt
_FARTHEST = 2.0  # degrees of a correction in one round
_ENDS = 2  # views at either end of the tilt range
_BLUR = 1.0  # pixels


def prediction_errors(
    views: Views, pose: Pose, *, most_rows: int = 64, correction_deg: Float64 | None = None
) -> Float64:
    """(view,): how far each view is from what the others predict, ``‖measured - predicted‖ / ‖measured‖``.

    A view at an end of the tilt range is predicted by extrapolation, so its error is larger.

    Parameters
    ----------
    most_rows
        Rows that are looked at, in runs of 32 spread along the axis.
    correction_deg
        (view,), added to the angles; by default nothing.
    """
    angles = views.angles_deg if correction_deg is None else views.angles_deg + correction_deg
    squares, power = np.zeros(views.count), np.zeros(views.count)
    for run in _runs(views, pose, most_rows):
        rows = np.ascontiguousarray(np.moveaxis(views.at(pose, run), 0, 1))
        for view in range(views.count):
            seen = _predicted(rows, angles, view, angles[[view]])[:, 0]
            squares[view] += float(((rows[:, view] - seen).astype(np.float64) ** 2).sum())
            power[view] += float((rows[:, view].astype(np.float64) ** 2).sum())
    return np.sqrt(np.divide(squares, power, out=np.zeros_like(power), where=power > 0))


def angle_corrections(views: Views, pose: Pose, *, rounds: int = 3, most_rows: int = 64) -> Float64:
    """(view,): what to add to the nominal angles, [degrees], so that the others predict each view best.

    The least-squares step of the angle, together with shifts, from the projection of a volume that was made without the
    view. Their mean is zero, since the object may turn. The two views at either end are not corrected: nothing beyond
    them is measured. Corrections that do not lower the sum of the squared errors of all predictions are not made, as
    for an object that looks the same from all sides.
    """
    inner = slice(_ENDS, views.count - _ENDS)
    if views.count <= 2 * _ENDS + 1:
        return np.zeros(views.count)
    correction = np.zeros(views.count)
    least = _total(views, pose, correction, most_rows)
    for _ in range(rounds):
        angles = views.angles_deg + correction
        normal, right = np.zeros((views.count, 3, 3)), np.zeros((views.count, 3))
        for run in _runs(views, pose, most_rows):
            rows = np.ascontiguousarray(np.moveaxis(views.at(pose, run), 0, 1))
            for view in range(views.count)[inner]:
                probed = angles[view] + np.array([-_PROBE, 0.0, _PROBE])
                before, seen, after = np.moveaxis(_blurred(_predicted(rows, angles, view, probed)), 1, 0)
                left = (_blurred(rows[:, view : view + 1])[:, 0] - seen).astype(np.float64).ravel()
                along, across = (
                    np.gradient(seen) if len(seen) > 1 else (np.zeros_like(seen), np.gradient(seen[0])[None])
                )
                parts = np.stack([(after - before) / (2 * _PROBE), along, across]).reshape(3, -1).astype(np.float64)
                normal[view] += parts @ parts.T
                right[view] += parts @ left
        found = np.array([np.linalg.lstsq(one, two, rcond=1e-9)[0][0] for one, two in zip(normal, right, strict=True)])
        tried = correction + np.clip(found, -_FARTHEST, _FARTHEST)
        tried[inner] -= tried[inner].mean()
        total = _total(views, pose, tried, most_rows)
        if not total < least:
            break
        correction, least = tried, total
    return correction


def _total(views: Views, pose: Pose, correction: Float64, most_rows: int) -> float:
    return float((prediction_errors(views, pose, most_rows=most_rows, correction_deg=correction) ** 2).sum())


def _runs(views: Views, pose: Pose, most_rows: int) -> list[Float64]:
    rows = views.along[views.rows_in_all(pose)]
    starts = np.arange(0, max(rows.size, 1), _ROWS)
    most = max(most_rows // _ROWS, 1)
    if starts.size > most:
        starts = (2 * np.arange(most) + 1) * (rows.size - _ROWS) // (2 * most)
    return [rows[start : start + _ROWS] for start in starts]


def _predicted(rows: Float32, angles_deg: Float64, view: int, at_deg: Float64) -> Float32:
    """(slice, angle, detector): what all views but one say of projections at some angles."""
    kept = np.delete(np.arange(angles_deg.size), view)
    size = rows.shape[2]
    volume = sirt(np.ascontiguousarray(rows[:, kept]), Projector(angles_deg[kept], size), _STEPS)
    return Projector(at_deg, size).forward(volume)


def _blurred(images: Float32) -> Float32:
    from scipy import ndimage

    blurred: Float32 = ndimage.gaussian_filter(images, (_BLUR, 0, _BLUR), mode="nearest")
    return blurred
