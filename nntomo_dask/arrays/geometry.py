"""Tilt angles: ranges, weights, and the missing wedge."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import recipes, schema, slabs
from nntomo_dask.compute import device
from nntomo_dask.errors import refuse
from nntomo_dask.types import Float64

TiltRange = Literal["full", "tem"]

TEM_LIMIT_DEG = 70.0
# A gap between neighbouring angles counts as a missing wedge when it is this many times their usual step.
_MOST_FILLED = 10_000  # more projections than a series has are not made up, whatever a file says of its angles
_WEDGE_FACTOR = 1.5
# Angles that differ by less than this are one direction. Microscope stages report hundredths of a degree.
ANGLE_TOLERANCE_DEG = 0.05


def tilt_angles(tilt_range: TiltRange, count: int) -> Float64:
    """Equally spaced tilt angles.

    Parameters
    ----------
    tilt_range
        "full" is -90 (included) to 90 (excluded); "tem" is -70 to 70, both included.
    count
        Number of projections, at least 2.

    Returns
    -------
    (angle,), [degrees], ascending.

    Raises
    ------
    SchemaError
        There are fewer than 2 projections, or the range is unknown.

    Examples
    --------
    >>> tilt_angles("tem", 8)
    array([-70., -50., -30., -10.,  10.,  30.,  50.,  70.])
    """
    if count < 2:
        refuse("tilt_angles", needs="at least 2 projections", got=f"{count}", remedy="raise `count`")
    if tilt_range == "full":
        return np.linspace(-90, 90, count, endpoint=False)
    if tilt_range == "tem":
        return np.linspace(-TEM_LIMIT_DEG, TEM_LIMIT_DEG, count)
    refuse(
        "tilt_angles",
        needs='"full" or "tem"',
        got=f"{tilt_range!r}",
        remedy='`tilt_range="full"`, or give a list of angles where a range is not wanted',
    )


def wedge(angles_deg: Float64) -> tuple[float, float] | None:
    """The missing wedge: the widest gap between directions as (start, width) in degrees, or None if there is none.

    Directions are cyclic: θ and θ + 180 are the same direction.
    """
    directions, _ = _directions(angles_deg)
    gaps = _gaps(directions)
    widest = int(gaps.argmax())
    others = np.delete(gaps, widest)
    if others.size == 0 or gaps[widest] <= _WEDGE_FACTOR * np.median(others):
        return None
    return float(directions[widest]), float(gaps[widest])


def angular_cells(angles_deg: Float64) -> Float64:
    """Weight of each projection in an integral over all directions.

    The cell of a direction extends halfway to both of its neighbours. Projections of the same direction share its cell.
    At the edge of a missing wedge the cell is as wide outside as inside, so equal steps give equal weights.

    Returns
    -------
    (angle,), sums to 1.
    """
    directions, member = _directions(angles_deg)
    gaps = _gaps(directions)
    missing = wedge(angles_deg)
    left, right = np.roll(gaps, 1), gaps.copy()
    if missing is not None:
        at = int(gaps.argmax())
        right[at] = left[at]
        left[(at + 1) % gaps.size] = right[(at + 1) % gaps.size]
    cells = ((left + right) / np.bincount(member))[member]
    return np.asarray(cells / cells.sum())


def _directions(angles_deg: Float64) -> tuple[Float64, npt.NDArray[np.intp]]:
    """Distinct directions in [0, 180), ascending, and the index of the direction of each angle."""
    modulo = np.mod(np.asarray(angles_deg, np.float64), 180)
    modulo[modulo > 180 - ANGLE_TOLERANCE_DEG] = 0
    order = np.argsort(modulo, kind="stable")
    starts = np.diff(modulo[order], prepend=-1.0) > ANGLE_TOLERANCE_DEG
    member = np.empty(modulo.size, np.intp)
    member[order] = np.cumsum(starts) - 1
    return modulo[order][starts], member


def _gaps(directions: Float64) -> Float64:
    """Distance from each direction to the next one, cyclic."""
    return np.diff(directions, append=directions[0] + 180)


def completed_angles(angles_deg: Float64) -> Float64:
    """Angles of a series after its missing wedge is filled with the step of the series.

    Returns
    -------
    (angle,), [degrees], ascending: the measured angles, and new ones in [-90, 90). Without a missing wedge, the angles
    as they were given.

    Examples
    --------
    >>> completed_angles(tilt_angles("tem", 8))
    array([-90., -70., -50., -30., -10.,  10.,  30.,  50.,  70.])
    """
    measured = np.asarray(angles_deg, np.float64)
    missing = wedge(measured)
    if missing is None:
        return measured
    return np.sort(np.concatenate([measured, _signed(_filled(measured, missing))]))


def is_filled(angles_deg: Float64) -> npt.NDArray[np.bool_]:
    """(angle,), whether each of the `completed_angles` was added, not measured."""
    measured = np.asarray(angles_deg, np.float64)
    missing = wedge(measured)
    if missing is None:
        return np.zeros(measured.size, bool)
    order = np.argsort(np.concatenate([measured, _signed(_filled(measured, missing))]), kind="stable")
    return order >= measured.size


def _filled(angles_deg: Float64, missing: tuple[float, float]) -> Float64:
    """New directions inside the wedge, at the step of the series; they may exceed 180."""
    gaps = _gaps(_directions(angles_deg)[0])
    step = np.median(np.delete(gaps, gaps.argmax()))
    intervals = max(round(missing[1] / float(step)), 1)
    if intervals > _MOST_FILLED:
        refuse(
            "complete_wedge",
            needs=f"a missing wedge of at most {_MOST_FILLED} steps",
            got=f"{intervals}, of {float(step):g}° each",
            remedy="select other angles",
        )
    return missing[0] + np.arange(1, intervals) / intervals * missing[1]


def _signed(angles_deg: Float64) -> Float64:
    return np.mod(np.asarray(angles_deg) + 90, 180) - 90


def complete_wedge(series: xr.DataArray) -> xr.DataArray:
    """Fill the missing wedge of a tilt series by interpolation.

    The projection after the wedge is the mirrored one of the other end, P_{θ+180}(t) = P_θ(-t). Between the two ends,
    projections are interpolated linearly in the angle, at the step of the series: 8 projections in ±70° become 9, 15
    become 18, 29 become 36. Lazy: nothing is computed until the result is saved.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32.

    Returns
    -------
    Dims (z, angle, detector), float32, at `completed_angles`. Without a missing wedge, the series as it was given.

    Raises
    ------
    SchemaError
        `series` is not a tilt series.

    References
    ----------
    .. [1] A. Branchut, Machine Learning for Transmission Electron Microscopy Tomography, 2024, §2.2.1.
    """
    schema.check_tilt_series(series, who="complete_wedge")
    angles = series[schema.ANGLE].values
    if wedge(angles) is None:
        return series
    completed = completed_angles(angles)
    coords = schema.series_coords(series[schema.Z], completed, series[schema.DETECTOR])
    return slabs.map_slabs(
        complete_rows,
        series,
        dims=schema.SERIES_DIMS,
        coords=coords,
        recipe=recipes.record("complete_wedge", {}, [series]),
        name="tilt_series",
        angles_deg=angles,
    )


def complete_rows(rows: npt.NDArray[np.float32], angles_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """`complete_wedge` for a plain array (slice, angle, detector), in the order of `completed_angles`."""
    missing = wedge(angles_deg)
    if missing is None:
        return rows
    directions, member = _directions(angles_deg)
    at = int(_gaps(directions).argmax())
    before = int(np.flatnonzero(member == at)[0])
    after = int(np.flatnonzero(member == (at + 1) % directions.size)[0])
    # The rows at both ends of the wedge, mirrored where their direction differs from the angle by a half turn.
    near = _half_turned(rows[:, before], angles_deg[before], missing[0])
    far = _half_turned(rows[:, after], angles_deg[after], missing[0] + missing[1])
    filled = _filled(angles_deg, missing)
    xp = device.namespace(rows)
    new = xp.empty((rows.shape[0], filled.size, rows.shape[2]), np.float32)
    for i, (angle, signed) in enumerate(zip(filled, _signed(filled), strict=True)):
        fraction = np.float32((angle - missing[0]) / missing[1])
        new[:, i] = _half_turned((1 - fraction) * near + fraction * far, angle, signed)
    order = np.argsort(np.concatenate([angles_deg, _signed(filled)]), kind="stable")
    completed: npt.NDArray[np.float32] = xp.ascontiguousarray(xp.concatenate([rows, new], axis=1)[:, order])
    return completed


def _half_turned(row: npt.NDArray[np.float32], angle_deg: float, target_deg: float) -> npt.NDArray[np.float32]:
    """A row recorded at `angle_deg`, seen from `target_deg`, which is a whole number of half turns away."""
    return row[:, ::-1] if round((target_deg - angle_deg) / 180) % 2 else row


def seen_by_all(size: int) -> npt.NDArray[np.bool_]:
    """(y, x): whether the centre of each pixel projects onto the detector at every angle."""
    axis = schema.centred(size)
    return np.asarray(np.hypot(axis[:, None], axis[None, :]) <= max((size - 1) / 2, 0.75))


def same_angles(angles_deg: npt.ArrayLike, others_deg: npt.ArrayLike) -> bool:
    """Whether two lists of tilt angles are equal, in the same order."""
    angles, others = np.asarray(angles_deg), np.asarray(others_deg)
    return angles.size == others.size and bool(np.abs(angles - others).max() <= ANGLE_TOLERANCE_DEG)
