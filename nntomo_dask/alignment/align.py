"""Where the projections of a raw series lie: all steps, with defaults that suit."""

import warnings
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from nntomo_dask.alignment import coarse, left_out, matching, moments, prepare, tilt_axis
from nntomo_dask.alignment.progress import tell
from nntomo_dask.alignment.table import Alignment
from nntomo_dask.alignment.views import Mass, Pose, Views
from nntomo_dask.arrays import schema
from nntomo_dask.errors import refuse
from nntomo_dask.types import Float32, Float64

Refine = Literal["auto", "moments", "matching", "none"]
TiltAngles = Literal["nominal", "refined"]

_FEWEST_VIEWS = 3
_SMALLEST = 16  # pixels along and across
_QUICK = 128  # pixels of the larger side, on which the first steps work
_WHOLE_BYTES = 2**29  # of all projections together; larger series are binned as they are read
_SLAB_BYTES = 2**26
_LEAST_LIKENESS = 0.2  # correlation of neighbouring views, below which there is nothing to align by
_SURE = 0.002  # of the field: the misfit of moments below which no other direction of the axis is tried
_LIKELY = 0.01  # of the field: the misfit of moments up to which all mass is taken to be in view
_NARROW = 20.0  # degrees; views that span less look alike whatever the direction of the axis
_CONTRADICTION = 20.0  # degrees by which a direction that was given may differ from the one that views agree on
_UNSETTLED = 0.1  # pixels of the raw series, of the last step of matching
_WHO = "align"


def align(
    series: xr.DataArray,
    *,
    refine: Refine = "auto",
    rotation_deg: float | Literal["auto"] = "auto",
    reach_deg: float = 20.0,
    tilt_angles: TiltAngles = "nominal",
) -> Alignment:
    """Find where each projection of a raw tilt series lies, and where the tilt axis is.

    Background and single bad pixels are removed, views without mass are flagged. Views are aligned along the axis by
    their mass profiles, which also give the axis's direction. Where all mass is in view, which is tested, the moments
    of rows across the axis then give all shifts, the rotation, the axis's place and the intensity of each view; else
    neighbours are correlated, and projection matching refines. From angles that span less than 20° the axis cannot be
    found: it is taken as said, and only shifts are. A warning tells that, and one tells of a rotation that was given
    and contradicts the views by over 20°. The series is read once, and reduced on reading where
    it is larger than 512 MiB. For the same series the result has the same bits, whatever its chunks and workers.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32, z along the tilt axis; angle and detector in one chunk each. Its attribute
        ``tilt_axis_deg``, where it has one, is what its images are still to be turned by, and the search starts there.
    refine
        "moments": from the moments of rows, "matching": by projection matching, after the moments where all mass is in
        view. "none": the first alignment, on 128 pixels or fewer. "auto": moments where all mass is in view, matching
        elsewhere.
    rotation_deg
        Rotation of the images, [degrees], as in `Alignment`, that is not to be searched for.
    reach_deg
        How far from its start the rotation is searched for, [degrees].
    tilt_angles
        "refined": corrections of the tilt angles are sought too, by what the other views predict.

    Returns
    -------
    The table; `apply_alignment` makes the aligned series with it.

    Raises
    ------
    SchemaError
        The series has fewer than 3 projections or 16 pixels, its views are empty or show nothing in common, a view is
        shifted by more than half the image, or a parameter is out of range.
    """
    _check(series, refine, rotation_deg, reach_deg, tilt_angles)
    nominal = np.asarray(series[schema.ANGLE].values, np.float64)
    order = np.argsort(nominal, kind="stable")
    images, step, middle = read(series, order)
    prepared = prepare.prepare(images)
    del images
    if (~prepared.flagged).sum() < _FEWEST_VIEWS:
        refuse(
            _WHO,
            needs=f"{_FEWEST_VIEWS} views or more that show something",
            got=f"{int((~prepared.flagged).sum())} of {nominal.size}; the others are empty or of another mass",
            remedy="select the views that show the specimen",
        )
    usable = np.flatnonzero(~prepared.flagged)
    views = Views(prepared.images, nominal[order], step, middle).only(usable)
    preparation = {
        "background": [float(one) for one in prepared.background],
        "replaced_pixels": prepared.replaced,
        "binning": step,
    }
    del prepared
    said = -float(series.attrs.get("tilt_axis_deg", 0.0))
    pose, told = estimate(
        views,
        refine=refine,
        start_deg=said if rotation_deg == "auto" else float(rotation_deg),
        reach_deg=reach_deg if rotation_deg == "auto" else 0.0,
    )
    if rotation_deg != "auto":
        _contradiction(views, pose, said)
    _check_shifts(views, pose)
    correction = np.zeros(nominal.size)
    if tilt_angles == "refined":
        correction[order[usable]] = left_out.angle_corrections(_quick(views), pose)
    told = {"prepared": preparation, **told}
    return _table(nominal, order, usable, pose, correction, told)


def estimate(
    views: Views, *, refine: Refine = "auto", start_deg: float = 0.0, reach_deg: float = 20.0
) -> tuple[Pose, dict[str, Any]]:
    """Where prepared views lie, and what each step found, JSON-able."""
    told: dict[str, Any] = {}
    quick = _quick(views)
    span = float(np.ptp(views.angles_deg))
    if span < _NARROW:
        warnings.warn(
            f"{_WHO}: the tilt angles span {span:.3g} degrees, from which the tilt axis cannot be found: it is taken "
            f"as the series or you say, {0.0 - start_deg:+.4g} degrees from the vertical and in the middle, and only "
            "shifts are found",
            stacklevel=3,
        )
        pose = _shifts_alone(views, quick, start_deg)
        told["mass"] = "in view" if coarse.all_mass_in_view(quick, pose) else "beyond"
        told["span_deg"] = span
        return pose, told
    tell("first steps: shifts by mass profiles" + (", direction of the tilt axis" if reach_deg > 0 else ""))
    searching: moments.Turning = "common" if reach_deg > 0 else "fixed"
    pose = coarse.along_shifts(quick, Pose.at_rest(quick.count, start_deg))
    mass: Mass = "in view" if coarse.all_mass_in_view(quick, pose) else "beyond"
    first = _by_moments(quick, pose, searching) if mass == "in view" else None
    field = views.images.shape[2] * views.step
    if reach_deg > 0 and (first is None or not first.misfit_px < _SURE * field):
        line = tilt_axis.common_line(quick, Pose.at_rest(quick.count, start_deg), reach_deg=reach_deg, mass=mass)
        told["common_line"] = line._asdict()
        pose = coarse.along_shifts(quick, Pose.at_rest(quick.count, line.rotation_deg))
        if first is not None:
            second = _by_moments(quick, pose, searching)
            first = second if second.misfit_px < first.misfit_px else first
    _check_likeness(quick, pose)
    if first is not None and first.misfit_px < _LIKELY * field:
        pose = first.pose
        if refine != "none":
            tell("moments of rows")
            found = moments.fit_moments(views, pose, turning=searching) if quick is not views else first
            pose = found.pose
            told["moments"] = {
                "misfit_px": found.misfit_px,
                "last_step_px": found.last_step_px,
                "steps": found.steps,
                "intensity": [float(one) for one in found.intensity],
            }
            views = views.divided(found.intensity) if refine == "matching" else views
    else:
        mass = "beyond"
    if mass == "beyond":
        pose = coarse.stretched_shifts(quick, pose)
        place = tilt_axis.axis_place(quick, pose)
        if place is not None:
            pose = pose.moved(np.column_stack([np.zeros(views.count), np.full(views.count, place)]))
            told["opposite_views_px"] = place
        views = views.divided(prepare.intensities(quick, pose))
    told["mass"] = mass
    if refine == "matching" or (refine == "auto" and mass == "beyond"):
        pose, levels, skipped = matching.refine_by_matching(views, pose, turning="fixed", mass=mass)
        told["matching"] = [level.__dict__ for level in levels]
        if skipped:
            told["left_out_binnings"] = list(skipped)
            tell(
                f"matching ends in bins of {levels[-1].binning}: finer pixels would take too long; shifts are still "
                "found to a part of such a bin"
            )
        if levels[-1].last_step_px > _UNSETTLED:
            warnings.warn(
                f"{_WHO}: projection matching did not settle: its last step was {levels[-1].last_step_px:.2g} pixels. "
                "Look at the shifts; leave out views that show other matter, or give `rotation_deg`",
                stacklevel=3,
            )
    return pose, told


def _shifts_alone(views: Views, quick: Views, rotation_deg: float) -> Pose:
    """Shifts between neighbours, on few pixels and then on all of them."""
    pose = Pose.at_rest(views.count, rotation_deg)
    for level in (quick,) if quick is views else (quick, views):
        tell(f"shifts of neighbouring views, in bins of {level.step}")
        pose = coarse.stretched_shifts(level, coarse.along_shifts(level, pose), orbit="kept")
        if level is quick:
            _check_likeness(quick, pose)
    return pose.moved(np.tile([0.0, -np.median(pose.shifts[:, 1])], (views.count, 1)))


def _contradiction(views: Views, pose: Pose, said_deg: float) -> None:
    """Warn where views agree better on another direction of the axis, near the one that the series says."""
    given = float(np.median(pose.rotation_deg))
    if _between(given, said_deg) <= _CONTRADICTION or np.ptp(views.angles_deg) < _NARROW:
        return
    quick = _quick(views)
    mass: Mass = "in view" if coarse.all_mass_in_view(quick, Pose.at_rest(quick.count, said_deg)) else "beyond"
    line = tilt_axis.common_line(quick, Pose.at_rest(quick.count, said_deg), mass=mass)
    here = tilt_axis.common_line(quick, Pose.at_rest(quick.count, given), reach_deg=0, mass=mass)
    if _between(given, line.rotation_deg) > _CONTRADICTION and line.agreement > here.agreement:
        warnings.warn(
            f"{_WHO}: the tilt axis was given as {-given:+.4g} degrees, but the views agree better with one at "
            f"{-line.rotation_deg:+.3g} degrees. Directions count from the vertical of the images as they are in the "
            "series, which import may have turned already: leave `rotation_deg` out to have it found",
            stacklevel=3,
        )


def _between(first_deg: float, second_deg: float) -> float:
    """The angle between two lines, [degrees]."""
    return abs((first_deg - second_deg + 90) % 180 - 90)


def _by_moments(views: Views, pose: Pose, searching: moments.Turning) -> moments.Moments:
    return moments.fit_moments(views, coarse.centred(views, pose), turning=searching)


def read(series: xr.DataArray, order: Any) -> tuple[Float32, int, tuple[float, float]]:
    """The projections (view, along, across) in an order, read slab by slab, their binning and where the middle is.

    Series of over 512 MiB are binned by 2, 4, … until they have no more.
    """
    slices, angles, across = series.shape
    step = 1
    while (
        4 * angles * (slices // step) * (across // step) > _WHOLE_BYTES
        and min(slices, across) // (2 * step) >= _SMALLEST
    ):
        step *= 2
    rows, columns = slices // step, across // step
    first = (slices % step) // 2, (across % step) // 2
    images = np.empty((angles, rows, columns), np.float32)
    height = max(_SLAB_BYTES // (4 * angles * across * step), 1)
    for row in range(0, rows, height):
        count = min(height, rows - row)
        start = first[0] + row * step
        slab = np.asarray(series[start : start + count * step, :, first[1] : first[1] + columns * step].data)
        if not np.isfinite(slab).all():
            schema.check_finite(series, who=_WHO)
        blocks = slab.reshape(count, step, angles, columns, step)[:, :, order]
        images[:, row : row + count] = np.moveaxis(blocks.mean(axis=(1, 4), dtype=np.float64), 1, 0)
    places = tuple(
        ((size - 1) / 2 - begin + 0.5) / step - 0.5 for size, begin in zip((slices, across), first, strict=True)
    )
    return images, step, (places[0], places[1])


def _quick(views: Views) -> Views:
    """Binned so that the larger side has 128 pixels or fewer, as far as the smaller keeps 24."""
    factor, (along, across) = 1, views.images.shape[1:]
    while max(along, across) // factor > _QUICK and min(along, across) // (2 * factor) >= 24:
        factor *= 2
    return views.binned(factor)


def _table(
    nominal: Float64, order: Any, usable: Any, pose: Pose, correction: Float64, told: dict[str, Any]
) -> Alignment:
    """In the order of the series; views that are flagged lie as their neighbours suggest."""
    angles = nominal[order]
    shifts = np.stack([np.interp(angles, angles[usable], one) for one in pose.shifts.T], axis=1)
    rotation = np.interp(angles, angles[usable], pose.rotation_deg)
    flagged = np.ones(nominal.size, bool)
    flagged[usable] = False
    axis = float(np.median(pose.shifts[:, 1]))
    back = np.argsort(order, kind="stable")
    return Alignment(
        angles_deg=nominal,
        along_px=shifts[back, 0],
        across_px=shifts[back, 1] - axis,
        rotation_deg=rotation[back],
        correction_deg=correction,
        flagged=flagged[back],
        axis_px=axis,
        provenance={"align": told},
    )


def _check(series: xr.DataArray, refine: str, rotation_deg: Any, reach_deg: float, tilt_angles: str) -> None:
    schema.check_tilt_series(series, who=_WHO)
    for name, value, choices in (("refine", refine, Refine), ("tilt_angles", tilt_angles, TiltAngles)):
        if value not in get_args(choices):
            listed = ", ".join(f'"{one}"' for one in get_args(choices))
            refuse(_WHO, needs=f"`{name}` of {listed}", got=f"{value!r}", remedy=f'`{name}="{get_args(choices)[0]}"`')
    if rotation_deg != "auto" and not (isinstance(rotation_deg, int | float) and np.isfinite(rotation_deg)):
        refuse(_WHO, needs="a rotation in degrees", got=f"{rotation_deg!r}", remedy='`rotation_deg="auto"`')
    if not (np.isfinite(reach_deg) and 0 <= reach_deg <= 90):
        refuse(_WHO, needs="a reach from 0 to 90 degrees", got=f"{reach_deg!r}", remedy="`reach_deg=20`")
    if series.sizes[schema.ANGLE] < _FEWEST_VIEWS:
        refuse(
            _WHO,
            needs=f"{_FEWEST_VIEWS} projections or more",
            got=f"{series.sizes[schema.ANGLE]}",
            remedy="a series of more projections",
        )
    smallest = min(series.sizes[schema.Z], series.sizes[schema.DETECTOR])
    if smallest < _SMALLEST:
        refuse(
            _WHO,
            needs=f"images of {_SMALLEST} pixels or more along and across the tilt axis",
            got=f"{series.sizes[schema.Z]} along and {series.sizes[schema.DETECTOR]} across",
            remedy="the whole series, before it is cropped or binned",
        )


def _check_likeness(views: Views, pose: Pose) -> None:
    """Refuse views that have nothing in common with their neighbours."""
    profiles = views.at(pose).sum(axis=2, dtype=np.float64)
    profiles -= profiles.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(profiles, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        likeness = (profiles[1:] * profiles[:-1]).sum(axis=1) / (norms[1:] * norms[:-1])
    typical = float(np.median(np.nan_to_num(likeness)))
    if typical < _LEAST_LIKENESS:
        refuse(
            _WHO,
            needs="views that show something in common, for which their mass profiles along the axis are compared",
            got=f"profiles of neighbouring views that correlate by {typical:.2f} in the middle of all",
            remedy="bin the series, where it is noise that hides the specimen; or give the axis's `rotation_deg`",
        )


def _check_shifts(views: Views, pose: Pose) -> None:
    """Refuse shifts by which a view shows less than half of what the others do."""
    size = np.array(views.images.shape[1:]) * views.step
    spread = pose.shifts - np.median(pose.shifts, axis=0)
    far = np.flatnonzero((np.abs(spread) > size / 2).any(axis=1))
    if far.size:
        along, across = spread[far[0]]
        refuse(
            _WHO,
            needs="views that are shifted by less than half the image",
            got=f"{along:.0f} pixels along and {across:.0f} across at {views.angles_deg[far[0]]:g} degrees",
            remedy="leave out views that show something else",
        )
