"""Tilt angles: ranges, weights, and the missing wedge."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import angles as angles_room, grid, recipes, schema, slabs
from nntomo_dask.compute import device
from nntomo_dask.errors import refuse
from nntomo_dask.types import Float64

TiltRange = Literal["full", "tem"]

TEM_LIMIT_DEG = 70.0
# A gap between neighbouring angles counts as a missing wedge when it is this many times their usual step.
_WEDGE_FACTOR = 1.5
_MOST_FILLED = 10_000  # more projections than a series has are not made up, whatever a file says of its angles


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

    Directions are cyclic: θ and θ + 180 are the same direction, see `angles.directions`.
    """
    directions, _ = angles_room.directions(angles_deg)
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
    directions, member = angles_room.directions(angles_deg)
    gaps = _gaps(directions)
    missing = wedge(angles_deg)
    left, right = np.roll(gaps, 1), gaps.copy()
    if missing is not None:
        at = int(gaps.argmax())
        right[at] = left[at]
        left[(at + 1) % gaps.size] = right[(at + 1) % gaps.size]
    cells = ((left + right) / np.bincount(member))[member]
    return np.asarray(cells / cells.sum())


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
    gaps = _gaps(angles_room.directions(angles_deg)[0])
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
        axis=schema.axis_of(series),
    )


def complete_rows(
    rows: npt.NDArray[np.float32], angles_deg: npt.NDArray[np.float64], axis: grid.Axis | None = None
) -> npt.NDArray[np.float32]:
    """`complete_wedge` for a plain array (slice, angle, detector), in the order of `completed_angles`.

    `axis` says where the tilt axis lies on the detector, about which a projection is mirrored. A pixel whose mirror
    image lies beyond the detector takes the value of the end of the wedge that has seen it.
    """
    missing = wedge(angles_deg)
    if missing is None:
        return rows
    directions, member = angles_room.directions(angles_deg)
    at = int(_gaps(directions).argmax())
    before, after = (_first_of(member, place, angles_deg) for place in (at, (at + 1) % directions.size))
    filled = _filled(angles_deg, missing)
    xp = device.namespace(rows)
    place = grid.axis_or_centre(axis, rows.shape[2]).x
    new = xp.empty((rows.shape[0], filled.size, rows.shape[2]), np.float32)
    for i, (angle, signed) in enumerate(zip(filled, _signed(filled), strict=True)):
        fraction = np.float32((angle - missing[0]) / missing[1])
        # Both ends of the wedge as they are seen from here, mirrored where that is from the other side.
        offsets = angle - missing[0], angle - missing[0] - missing[1]
        (near, near_seen), (far, far_seen) = (
            _half_turned(rows[:, end], angles_deg[end] + offset, signed, place)
            for end, offset in zip((before, after), offsets, strict=True)
        )
        new[:, i] = (1 - fraction) * near + fraction * far
        if not (near_seen.all() and far_seen.all()):
            new[:, i] = xp.where(xp.asarray(far_seen), xp.where(xp.asarray(near_seen), new[:, i], far), near)
    order = np.argsort(np.concatenate([angles_deg, _signed(filled)]), kind="stable")
    completed: npt.NDArray[np.float32] = xp.ascontiguousarray(xp.concatenate([rows, new], axis=1)[:, order])
    return completed


def interpolated_rows(
    rows: npt.NDArray[np.float32], angles_deg: Float64, wanted_deg: Float64, axis: grid.Axis | None = None
) -> npt.NDArray[np.float32]:
    """Rows (slice, angle, detector) at wanted angles, those that are missing between the nearest on either side.

    Parameters
    ----------
    angles_deg
        (angle,), of the rows, ascending, within a half turn.
    wanted_deg
        (wanted,); an angle that is there is taken as it is.
    axis
        Where the tilt axis lies on the detector, about which projections are mirrored; a pixel whose mirror image lies
        beyond the detector takes the value of the other neighbour.
    """
    place = grid.axis_or_centre(axis, rows.shape[2]).x
    xp = device.namespace(rows)
    found: npt.NDArray[np.float32] = xp.empty((rows.shape[0], len(wanted_deg), rows.shape[2]), np.float32)
    for i, wanted in enumerate(wanted_deg):
        ahead = np.mod(wanted - angles_deg, 180)
        before, after = int(ahead.argmin()), int(ahead.argmax())
        (near, near_seen), (far, far_seen) = (
            _half_turned(rows[:, one], angles_deg[one] + offset, wanted, place)
            for one, offset in ((before, ahead[before]), (after, ahead[after] - 180))
        )
        fraction = np.float32(ahead[before] / (ahead[before] + 180 - ahead[after]))
        mixed = (1 - fraction) * near + fraction * far
        found[:, i] = xp.where(xp.asarray(far_seen), xp.where(xp.asarray(near_seen), mixed, far), near)
    return found


def _first_of(member: npt.NDArray[np.intp], direction: int, angles_deg: Float64) -> int:
    """The projection of a direction that has the least angle."""
    found = np.flatnonzero(member == direction)
    return int(found[np.argmin(angles_deg[found])])


def _half_turned(
    row: npt.NDArray[np.float32], angle_deg: float, target_deg: float, place: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """A row recorded at `angle_deg`, seen from `target_deg`, which is a whole number of half turns away.

    It is mirrored about `place`, in pixels, where that number is odd. Also (detector,), which pixels of it were seen.
    """
    size = row.shape[-1]
    if not round((target_deg - angle_deg) / 180) % 2:
        return row, np.ones(size, bool)
    if 2 * place == size - 1:
        return row[:, ::-1], np.ones(size, bool)
    sources = 2 * place - np.arange(size)
    seen = (sources > -0.5) & (sources < size - 0.5)  # within the pixels at both ends
    sources = np.clip(sources, 0, size - 1)
    lower = np.minimum(sources.astype(np.intp), max(size - 2, 0))
    xp = device.namespace(row)
    weight = xp.asarray((sources - lower).astype(np.float32))
    upper = np.minimum(lower + 1, size - 1)
    return (1 - weight) * row[:, lower] + weight * row[:, upper], seen


def seen_by_all(size: int, axis: grid.Axis | None = None) -> npt.NDArray[np.bool_]:
    """(y, x): whether the centre of each pixel projects onto the detector at every angle.

    None does where the tilt axis lies beyond the detector, which has the positions of x.
    """
    y, x = grid.axis_or_centre(axis, size)
    radius = min(x, size - 1 - x)
    pixels = np.arange(size)
    distance = np.hypot((pixels - y)[:, None], (pixels - x)[None, :])
    return np.asarray((distance <= max(radius, 0.75)) & (radius > -0.5))


def in_order_of_angle(series: xr.DataArray) -> xr.DataArray:
    """The series with its projections in ascending order of angle; itself where they are."""
    angles = series[schema.ANGLE].values
    order = np.argsort(angles, kind="stable")
    if (np.diff(order) > 0).all():
        return series
    return slabs.map_slabs(
        _taken,
        series,
        dims=schema.SERIES_DIMS,
        coords=schema.series_coords(series[schema.Z], angles[order], series[schema.DETECTOR]),
        recipe=recipes.record("in_order_of_angle", {}, [series]),
        name="tilt_series",
        order=order,
    )


def _taken(rows: npt.NDArray[np.float32], *, order: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    taken: npt.NDArray[np.float32] = device.namespace(rows).ascontiguousarray(rows[:, order])
    return taken


def in_own_pixels(series: xr.DataArray) -> xr.DataArray:
    """The series with the lengths in its line integrals counted in its own pixels; itself where they are.

    Its pixels are those of its coordinate; values are counted in ``attrs["pixel_size"]``.
    """
    factor = schema.lengths_in_pixels(series)
    if factor == 1:
        return series
    return slabs.map_slabs(
        _times,
        series,
        dims=schema.SERIES_DIMS,
        coords=schema.series_coords(*(series[dim] for dim in schema.SERIES_DIMS)),
        recipe=recipes.record("in_own_pixels", {}, [series]),
        name="tilt_series",
        pixel_size=schema.pixel_size_of(series),
        factor=np.float32(factor),
    )


def _times(rows: npt.NDArray[np.float32], *, factor: np.float32) -> npt.NDArray[np.float32]:
    return rows * factor


def rows_at(rows: npt.NDArray[np.float32], angles_deg: npt.ArrayLike, wanted_deg: npt.ArrayLike) -> Any:
    """Rows (slice, angle, detector) in the order of the wanted angles, which are the same in another order."""
    places = angles_room.places_of(wanted_deg, angles_deg)
    if places is None:
        refuse("rows_at", needs="rows at the wanted angles", got="others", remedy="check(series) before")
    return rows if (np.diff(places) == 1).all() else rows[:, places]
