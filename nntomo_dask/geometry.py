"""Tilt angles: ranges, the weight of each, and what to do about the missing wedge."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask import schema, slabs

Float64 = npt.NDArray[np.float64]
TiltRange = Literal["full", "tem"]

TEM_LIMIT_DEG = 70.0
# A gap between neighbouring angles counts as a missing wedge when it is this many times their usual step.
_WEDGE_FACTOR = 1.5


def tilt_angles(tilt_range: TiltRange, count: int) -> Float64:
    """Equally spaced tilt angles.

    Parameters
    ----------
    tilt_range
        "full" is -90 (included) to 90 (not); "tem" is -70 to 70, both included.
    count
        Number of projections, at least 2.

    Returns
    -------
    (angle,), [degrees], ascending.

    Raises
    ------
    SchemaError
        Fewer than 2 projections, or another range.

    Examples
    --------
    >>> tilt_angles("tem", 8)
    array([-70., -50., -30., -10.,  10.,  30.,  50.,  70.])
    """
    if count < 2:
        schema.refuse("tilt_angles", needs="at least 2 projections", got=f"{count}", do="raise count")
    if tilt_range == "full":
        return np.linspace(-90, 90, count, endpoint=False)
    if tilt_range == "tem":
        return np.linspace(-TEM_LIMIT_DEG, TEM_LIMIT_DEG, count)
    schema.refuse("tilt_angles", needs='"full" or "tem"', got=f"{tilt_range!r}", do="pass a list of angles instead")


def wedge(angles_deg: Float64) -> tuple[float, float] | None:
    """The widest gap between neighbouring directions as (start, width) in degrees, or None where none stands out.

    Directions are cyclic: θ and θ + 180 are the same one.
    """
    start, gaps = _cyclic_gaps(angles_deg)
    widest = int(gaps.argmax())
    others = np.delete(gaps, widest)
    if others.size == 0 or gaps[widest] <= _WEDGE_FACTOR * np.median(others):
        return None
    return float(start[widest]), float(gaps[widest])


def angular_cells(angles_deg: Float64) -> Float64:
    """Share of each projection in an integral over all directions.

    A projection counts with half the distance to each of its neighbours. At the edge of a missing wedge the cell ends
    as far outside as inside, so equal steps give equal shares.

    Returns
    -------
    (angle,), sums to 1.
    """
    order = np.argsort(np.mod(angles_deg, 180), kind="stable")
    start, gaps = _cyclic_gaps(angles_deg)
    missing = wedge(angles_deg)
    left = np.roll(gaps, 1)
    right = gaps.copy()
    if missing is not None:
        at = int(np.flatnonzero(start == missing[0])[-1])
        after = (at + 1) % gaps.size
        right[at] = left[at]
        left[after] = right[after]
    cells = np.empty_like(gaps)
    cells[order] = left + right
    return np.asarray(cells / cells.sum())


def _cyclic_gaps(angles_deg: Float64) -> tuple[Float64, Float64]:
    """Directions in [0, 180), ascending, and the gap from each to the next."""
    directions = np.sort(np.mod(angles_deg, 180))
    return directions, np.diff(directions, append=directions[0] + 180)


def completed_angles(angles_deg: Float64) -> Float64:
    """Angles of a series once its missing wedge is filled at the series' own step.

    Returns
    -------
    (angle,), [degrees] in [-90, 90), ascending. Where there is no wedge, the angles as they came.

    Examples
    --------
    >>> completed_angles(tilt_angles("tem", 8))
    array([-90., -70., -50., -30., -10.,  10.,  30.,  50.,  70.])
    """
    missing = wedge(angles_deg)
    if missing is None:
        return np.asarray(angles_deg, np.float64)
    filled = missing[0] + _fractions(angles_deg) * missing[1]
    return np.sort(np.concatenate([_signed(angles_deg), _signed(filled)]))


def is_filled(angles_deg: Float64) -> npt.NDArray[np.bool_]:
    """(angle,), whether each of `completed_angles` was filled in rather than measured."""
    missing = wedge(angles_deg)
    if missing is None:
        return np.zeros(len(angles_deg), bool)
    filled = _signed(missing[0] + _fractions(angles_deg) * missing[1])
    order = np.argsort(np.concatenate([_signed(angles_deg), filled]), kind="stable")
    return order >= len(angles_deg)


def _fractions(angles_deg: Float64) -> Float64:
    """Where in the missing wedge projections are put, as fractions of its width."""
    _, gaps = _cyclic_gaps(angles_deg)
    step = np.median(np.delete(gaps, gaps.argmax()))
    intervals = max(round(float(gaps.max() / step)), 1)
    return np.arange(1, intervals) / intervals


def _signed(angles_deg: Float64) -> Float64:
    return np.mod(np.asarray(angles_deg) + 90, 180) - 90


def complete_wedge(series: xr.DataArray) -> xr.DataArray:
    """Fill the missing wedge of a tilt series by interpolation.

    Between the last projection before the wedge and the mirrored first one behind it, P_{θ+180}(t) = P_θ(-t), linear in
    the angle, at the series' own step: 8 projections in ±70° become 9, 15 become 18, 29 become 36. Lazy.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32.

    Returns
    -------
    Dims (z, angle, detector), float32, angles in [-90, 90), ascending. Without a wedge, the series as it came.

    Raises
    ------
    SchemaError
        `series` is no tilt series.

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
        recipe=slabs.record("complete_wedge", {}, [series]),
        name="tilt_series",
        angles_deg=angles,
    )


def complete_rows(rows: npt.NDArray[np.float32], angles_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """`complete_wedge` of a plain (slice, angle, detector); angles that leave ±90° are mirrored back into it."""
    missing = wedge(angles_deg)
    if missing is None:
        return rows
    directions = np.mod(angles_deg, 180)
    signed = _signed(angles_deg)
    # A projection recorded beyond ±90° is the mirror image of its direction's own.
    turned = np.abs(np.mod(angles_deg - signed, 360)) > 1e-9
    own = np.where(turned[None, :, None], rows[:, :, ::-1], rows)
    before = int(np.flatnonzero(directions == missing[0])[0])
    after = int(np.argmin(np.mod(directions - missing[0] - missing[1] + 1e-9, 180)))
    # Both ends of the wedge, counted upwards without wrapping.
    near = _half_turned(own[:, before], signed[before], missing[0])
    far = _half_turned(own[:, after], signed[after], missing[0] + missing[1])
    fractions = _fractions(angles_deg)
    filled = missing[0] + fractions * missing[1]
    filled_signed = _signed(filled)
    new = np.empty((rows.shape[0], fractions.size, rows.shape[2]), np.float32)
    for i, (fraction, angle, wrapped) in enumerate(zip(fractions, filled, filled_signed, strict=True)):
        row = (1 - np.float32(fraction)) * near + np.float32(fraction) * far
        new[:, i] = _half_turned(row, angle, wrapped)
    order = np.argsort(np.concatenate([signed, filled_signed]), kind="stable")
    return np.ascontiguousarray(np.concatenate([own, new], axis=1)[:, order])


def _half_turned(row: npt.NDArray[np.float32], angle_deg: float, target_deg: float) -> npt.NDArray[np.float32]:
    """The row of direction `angle_deg` as row of `target_deg`, a whole number of half turns away."""
    return row[:, ::-1] if round((target_deg - angle_deg) / 180) % 2 else row


def seen_by_all(size: int) -> npt.NDArray[np.bool_]:
    """(y, x): whether a pixel's centre projects onto the detector at every angle."""
    axis = schema.centred(size)
    return np.asarray(np.hypot(axis[:, None], axis[None, :]) <= (size - 1) / 2)
