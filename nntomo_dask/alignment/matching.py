"""Refinement by projection matching: each view against the projection of a volume that was made from all.

Every iteration interpolates what was recorded, once, at the total shift; reconstructs it; and moves each view by the
least-squares step ``Δ = -Σ M ∂p r / Σ M (∂p)²``, where p is the projection of the volume, r what was measured minus p,
and M where something was measured [1]_, [2]_. Both shifts and the rotation are solved together. The volume is that of
some accelerated steps of SIRT with values of at least 0, always from zero: a volume that has converged fully would
reproduce views that are misaligned.

A fixed point is sought, and steps shrink slowly near it, because the volume follows the views. So the last steps tell
how the next ones will go (Anderson's acceleration [3]_); the length of the plain step decides when it ends.

Slices are independent, so runs of neighbouring slices are reconstructed one after another, and only the sums of each
are kept: no volume is in memory. On fine levels, runs spread along the axis suffice.

References
----------
.. [1] M. Odstrčil et al., Opt. Express 27 (2019) 36637, doi:10.1364/OE.27.036637.
.. [2] D. Gürsoy et al., Sci. Rep. 7 (2017) 11818, doi:10.1038/s41598-017-12141-9.
.. [3] H. F. Walker and P. Ni, SIAM J. Numer. Anal. 49 (2011) 1715.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from dask.base import compute
from dask.delayed import delayed

from nntomo_dask.alignment.progress import tell
from nntomo_dask.alignment.views import Mass, Pose, Views, without_gauge
from nntomo_dask.kernels import iterate
from nntomo_dask.projection.projector import Projector
from nntomo_dask.types import Bools, Float32, Float64

Turning = Literal["common", "fixed"]

_BINNINGS = (8, 4, 2, 1)
_SMALLEST = 24  # pixels across or along, that a binned view has at least
_ROWS, _MARGIN = 32, 4  # rows of a run; those at its ends, in which blurring and derivatives miss neighbours
_VOXELS = 2**25  # of all runs of a level
_WORK = 2**37  # voxels, times views, times projections of them, that a level takes at most: some minutes on two cores
_FEWEST, _USUAL = 5, 12  # iterations: fewer do not refine, and rows are so many that these fit
_BLUR = 1.0  # pixels
_WIDER = 1.5  # the field that is reconstructed, where matter lies beyond the one that was recorded
_CLAMP = 0.5  # pixels of a level
_REMEMBERED = 4  # steps that tell the next one
_QUANTILE = 0.995
_ENOUGH = 0.01  # pixels of the raw series
_LEAST_CURVATURE = 1e-12


@dataclass(frozen=True)
class Level:
    """One binning of a refinement.

    Attributes
    ----------
    binning
        Pixels of the raw series that make one of this level.
    iterations
        How many were made.
    last_step_px
        The 99.5 % quantile of the last plain step, [px of the raw series].
    residual
        ``‖r‖ / ‖measured‖`` before the last step.
    rows
        How many rows were looked at.
    """

    binning: int
    iterations: int
    last_step_px: float
    residual: float
    rows: int


class Matched(NamedTuple):
    """What a refinement found.

    Attributes
    ----------
    pose
        Where the views lie.
    levels
        How it went, level by level.
    left_out
        Binnings that would take too long.
    """

    pose: Pose
    levels: tuple[Level, ...]
    left_out: tuple[int, ...]


class _Sums(NamedTuple):
    """Of one run: the normal equations of each view, the squares of its residual and of what was measured."""

    normal: Float64
    right: Float64
    misfit: Float64
    power: Float64


@dataclass(frozen=True)
class _Grid:
    """What a level reconstructs: runs of rows, and places across."""

    views: Views
    runs: tuple[Float64, ...]
    across: Float64
    pair: Projector
    steps: int
    high_pass: float | None


def refine_by_matching(
    views: Views,
    pose: Pose,
    *,
    turning: Turning = "common",
    mass: Mass = "in view",
    binnings: tuple[int, ...] = _BINNINGS,
    sirt_steps: int = 24,
    iterations: int = 30,
    most_rows: int | None = None,
) -> Matched:
    """Refine a pose by projection matching, on coarser and then finer pixels.

    Parameters
    ----------
    pose
        Where to begin; within some pixels.
    turning
        "common": one rotation, the same for all views, is refined with the shifts. "fixed": it stays.
    mass
        "beyond": matter lies beyond the field across the axis. A wider field is reconstructed then, from views whose
        edges are continued, only what was recorded is compared, and slow variations are not.
    binnings
        Of pixels of `views`; those that would leave fewer than 24 pixels are left out.
    sirt_steps
        Accelerated steps of SIRT; k of them come as far as k² / 4 plain ones.
    iterations
        At most, on each level.
    most_rows
        Rows that are looked at on a level; where there are more, runs of 32 are spread evenly. By default as many as
        make 2²⁵ voxels, 32 of a view of 1024 pixels, and fewer where views are many.

    A level makes 2³⁷ updates of voxels at most, as voxels × views × projections count them, by fewer iterations; one of
    which less than five would be left, and all finer ones, are left out. So the time does not depend on the size.
    """
    smallest = min(views.images.shape[1:])
    used = [one for one in binnings if smallest // one >= _SMALLEST] or [min(binnings)]
    levels: list[Level] = []
    for binning in used:
        level = views.binned(binning)
        grid = _grid(level, pose, mass, sirt_steps, most_rows)
        fitting = _WORK // _work(grid)
        if fitting < _FEWEST and levels:
            break
        pose, told = _refine(grid, pose, turning, min(iterations, max(fitting, _FEWEST)))
        levels.append(told)
    return Matched(pose, tuple(levels), tuple(one * views.step for one in used[len(levels) :]))


def sirt(rows: Float32, pair: Projector, steps: int) -> Float32:
    """A volume (slice, y, x) from rows (slice, angle, detector) by accelerated steps of SIRT, values at least 0.

    ``x ← max(y + C Aᵀ R (b - A y), 0)``, and y goes beyond x by the share ``(k - 1) / (k + 2)`` of the k-th change.
    """

    def solve(measured: Float32) -> Float32:
        row_weights, column_weights = pair.inverse_sums(measured)
        images, previous = pair.zeros(measured), pair.zeros(measured)
        weighted = np.empty_like(measured)
        active = np.ones(measured.shape[1], bool)
        for step in range(1, steps + 1):
            seen = pair.forward(images) if step > 1 else np.zeros_like(measured)
            iterate.residual(measured, seen, row_weights, weighted)
            iterate.step(images, pair.back(weighted), column_weights, active, np.float32(0))
            if step < steps:  # without a third volume: x + share · (x - the x before), and x itself
                previous -= images
                previous *= np.float32((1 - step) / (step + 2))
                images += previous
                np.subtract(images, previous, out=previous)
        return images

    return pair.run(solve, rows)


def _grid(views: Views, pose: Pose, mass: Mass, steps: int, most_rows: int | None) -> _Grid:
    """The rows that views have recorded, in runs; all of them, or runs that are spread."""
    recorded = views.measured(pose, None, np.zeros(1))[..., 0]
    rows = views.along[recorded.mean(axis=0) > 0.5]
    inner = _ROWS - 2 * _MARGIN
    starts = np.arange(0, max(rows.size - 2 * _MARGIN, 1), inner)
    count = views.images.shape[2]
    wide = count + 2 * int(np.ceil((_WIDER - 1) * count / 2)) if mass == "beyond" else count
    if most_rows is None:
        most_rows = min(_VOXELS // count**2, _WORK // (_USUAL * 2 * steps * views.count * wide**2))
    most = max(most_rows // _ROWS, 1)
    if starts.size > most:
        starts = (2 * np.arange(most) + 1) * (rows.size - _ROWS) // (2 * most)
    runs = tuple(rows[start : start + _ROWS] for start in starts)
    across = np.arange(wide) - (wide - 1) / 2
    return _Grid(views, runs, across, Projector(views.angles_deg, wide), steps, count / 8 if mass == "beyond" else None)


def _work(grid: _Grid) -> int:
    """Of one iteration: voxels, times views, times projections and backprojections."""
    return max(sum(run.size for run in grid.runs) * grid.across.size**2 * grid.views.count * 2 * grid.steps, 1)


def _refine(grid: _Grid, pose: Pose, turning: Turning, iterations: int) -> tuple[Pose, Level]:
    views = grid.views
    lever = float(np.abs(views.along).max()) * views.step  # a rotation counts as the shift that it makes at the ends
    turns = turning == "common"
    past: list[tuple[Float64, Float64]] = []
    step_px, residual, made = np.inf, np.nan, 0
    while made < iterations and step_px >= _ENOUGH:
        made += 1
        sums = _all_runs(grid, pose)
        residual = float(np.sqrt(sums.misfit.sum() / sums.power.sum()))
        shifts, turn = _solved(sums, turning)
        shifts = without_gauge(np.clip(shifts, -_CLAMP, _CLAMP) * views.step, views.radians)
        most = _CLAMP * views.step / lever
        turn = float(np.clip(turn, -most, most)) if turns else 0.0
        plain = np.append(shifts.ravel(), turn * lever)
        step_px = float(np.quantile(np.abs(plain), _QUANTILE))
        place = np.append(pose.shifts.ravel(), np.deg2rad(pose.rotation_deg[0]) * lever)
        past = [*past[-_REMEMBERED:], (place, plain)]
        moved = place + np.clip(_accelerated(past), -_CLAMP * views.step, _CLAMP * views.step)
        rotation = pose.rotation_deg + np.rad2deg((moved[-1] - place[-1]) / lever)
        pose = Pose(moved[:-1].reshape(-1, 2), rotation)
        tell(
            f"matching in bins of {views.step}: iteration {made} of {iterations} at most, step {step_px:.3f} px (ends "
            f"below {_ENOUGH}), residual {100 * residual:.2f} %"
        )
    rows = sum(run.size for run in grid.runs)
    return pose, Level(views.step, made, step_px, residual, rows)


def _accelerated(past: list[tuple[Float64, Float64]]) -> Float64:
    """The next step from the last places and their plain steps: that for which the steps' combination is smallest."""
    plain = past[-1][1]
    if len(past) < 2:
        return plain
    places, steps = (np.diff(np.stack(one, axis=1)) for one in zip(*past, strict=True))
    share = np.linalg.lstsq(steps, plain, rcond=1e-3)[0]
    found: Float64 = plain - (places + steps) @ share
    return found


def _solved(sums: _Sums, turning: Turning) -> tuple[Float64, float]:
    """Shifts (view, 2) in pixels of the level, and the rotation in radians that serves all views."""
    block = sums.normal[:, :2, :2].copy()
    floor = _LEAST_CURVATURE * max(float(np.trace(block, axis1=1, axis2=2).max()), np.finfo(float).tiny)
    block[:, [0, 1], [0, 1]] += floor
    inverse = np.linalg.inv(block)
    mixed, right = sums.normal[:, :2, 2], sums.right
    turn = 0.0
    if turning == "common":
        through = np.einsum("vk,vkl->vl", mixed, inverse)
        curvature = float((sums.normal[:, 2, 2] - (through * mixed).sum(axis=1)).sum())
        if curvature > floor:
            turn = float((right[:, 2] - (through * right[:, :2]).sum(axis=1)).sum()) / curvature
    return np.einsum("vkl,vl->vk", inverse, right[:, :2] - mixed * turn), turn


def _all_runs(grid: _Grid, pose: Pose) -> _Sums:
    """The sums over all runs, added in their order whatever order they are computed in."""
    tasks = [delayed(_run_sums)(delayed(grid, traverse=False), run, pose) for run in grid.runs]
    parts = compute(*tasks, scheduler="threads")
    return _Sums(*(np.sum(one, axis=0) for one in zip(*parts, strict=True)))


def _run_sums(grid: _Grid, run: Float64, pose: Pose) -> _Sums:
    """Reconstruct a run of rows, project it, and compare."""
    views = grid.views
    measured = views.at(pose, run, grid.across)
    within = views.measured(pose, run, grid.across)
    rows = np.ascontiguousarray(np.moveaxis(measured, 0, 1))
    seen = np.moveaxis(grid.pair.forward(sirt(rows, grid.pair, grid.steps)), 1, 0)
    inner = slice(_MARGIN, -_MARGIN) if run.size > 4 * _MARGIN else slice(1, -1) if run.size > 2 else slice(None)
    seen, rest = _filtered(seen, grid.high_pass), _filtered(measured - seen, grid.high_pass)
    slopes_along = np.gradient(seen, axis=1) if run.size > 1 else np.zeros_like(seen)
    slopes_across = np.gradient(seen, axis=2)
    centre = pose.shifts / views.step
    along, across = run + centre[:, :1], grid.across + centre[:, 1:]
    turned = along[:, :, None] * slopes_across - across[:, None, :] * slopes_along
    found = []
    for view in range(views.count):
        weight = _eroded(within[view])[inner]
        parts = np.stack([one[view, inner][weight] for one in (slopes_along, slopes_across, turned)]).astype(np.float64)
        left = rest[view, inner][weight].astype(np.float64)
        strength = measured[view, inner][weight].astype(np.float64)
        found.append((parts @ parts.T, -parts @ left, left @ left, strength @ strength))
    return _Sums(*(np.array(one) for one in zip(*found, strict=True)))


def _filtered(images: Float32, high_pass: float | None) -> Float32:
    """Blurred by a pixel, against noise; and without what varies slowly across the axis, where `high_pass` says so."""
    from scipy import ndimage

    blurred: Float32 = ndimage.gaussian_filter(images, (0, _BLUR, _BLUR), mode="nearest")
    if high_pass is None:
        return blurred
    slow: Float32 = ndimage.gaussian_filter1d(blurred, high_pass, axis=2, mode="nearest")
    return blurred - slow


def _eroded(mask: Bools) -> Bools:
    """Without the pixels next to what was not measured, which blurring mixes with it."""
    from scipy import ndimage

    found: Bools = ndimage.binary_erosion(mask, iterations=2, border_value=1)
    return found
