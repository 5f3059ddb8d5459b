"""The grey levels of a specimen and the noise of its series, from a few slices across the volume."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy.ndimage
from skimage.filters import threshold_otsu

from nntomo_dask.arrays import finite, schema
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.kernels import layout
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction.gibbs import Body, Edges, Prior, ascending
from nntomo_dask.types import Float32, Float64

MOST = 8  # levels
MOST_FOUND = 4  # levels that "auto" tries
_GROUPS, _GROUP_SLICES, _SWEEPS = 3, 8, 40
_GAIN = 0.1  # a further level has to lower the mean square misfit by this share
_GROWTH = 1.1  # of the noise from one sweep to the next, at most
_LEAST = 1e-3  # noise, in units of a pixel of the whole range of levels
_INSIDE = 0.1  # share of a level's voxels that have none but their like beside them; those of a boundary layer have not


def groups_of(n_z: int) -> list[tuple[int, int]]:
    """Where the groups of slices begin and end from which levels are estimated: evenly over the volume."""
    if n_z <= _GROUPS * _GROUP_SLICES:
        return [(0, n_z)]
    starts = np.linspace(0, n_z, 2 * _GROUPS + 1)[1::2] - _GROUP_SLICES / 2
    return [(int(first), int(first) + _GROUP_SLICES) for first in starts]


def estimated(
    groups: list[Float32],
    firsts: list[int],
    angles_deg: Float64,
    axis: Axis,
    *,
    wanted: Sequence[float] | int | Literal["auto"],
    smoothing: float,
    thickness: float,
    edges: Edges,
    seed: int,
    who: str,
) -> Float64:
    """What SIRT leaves, noise, and levels of groups of slices (slice, angle, detector); (2 + MOST,).

    The noise and what is left are root mean squares. NaN stands where there are no more levels.

    Parameters
    ----------
    firsts
        The first slice of each group, for the place of a value that is not finite.
    wanted
        The levels, where they are known; their number; or "auto".
    """
    for rows, first in zip(groups, firsts, strict=True):
        finite.check_slab(rows, who=who, dims=schema.SERIES_DIMS, first=first)
    ordered = [ascending(rows, angles_deg) for rows in groups]
    pair = Projector(ordered[0][1], groups[0].shape[-1], axis=axis)
    whole = Prior(smoothing, thickness, parts=1)
    bodies = [Body(rows, pair, whole, np.zeros(1), 1.0, seed) for rows, _ in ordered]
    volumes = [body.estimate() for body in bodies]
    power = float(np.mean([np.square(rows, dtype=np.float64).mean() for rows in groups]))
    found = np.full(2 + MOST, np.nan)
    found[:3] = _left(bodies, volumes), math.sqrt(power) or 1.0, 0.0
    if not isinstance(wanted, str | int):
        levels = np.sort(np.asarray(wanted, np.float64))
    else:
        # With whole voxels: partial ones could stand for a level between two others.
        chosen = _chosen_levels(bodies, volumes, wanted, power)
        if chosen is None:
            return found
        levels = chosen
    noise, parts = math.inf, 0
    while True:
        prior = Prior.of(smoothing, thickness, edges=edges, noise=noise, levels=levels)
        if prior.parts == parts:
            break
        parts = prior.parts
        for body in bodies:
            body.prior = prior
        noise = min(noise, _fitted(bodies, volumes, levels, fixed=True)[0])
    found[1], found[2 : 2 + levels.size] = noise, levels
    return found


def _chosen_levels(
    bodies: list[Body], volumes: list[Float32], wanted: int | Literal["auto"], power: float
) -> Float64 | None:
    """The fewest levels that explain the projections, whose mean square is `power`; None without any."""
    misfit, chosen = power, None
    for count in range(2, MOST_FOUND + 1) if isinstance(wanted, str) else [int(wanted)]:
        fits = [_fitted(bodies, volumes, first, fixed=False) for first in _first_levels(volumes, count)]
        if not fits:
            break
        noise, levels, insides = min(fits, key=lambda fit: fit[0])
        if isinstance(wanted, str) and not (noise**2 < (1 - _GAIN) * misfit and insides):
            break
        misfit, chosen = noise**2, levels
    return chosen


def _first_levels(volumes: list[Float32], count: int) -> list[Float64]:
    """Sets of zero and as many greys as wanted among the bright voxels of SIRT; none where nothing is bright.

    SIRT shows small bodies fainter than they are, so one set has a brighter highest level.
    """
    values = np.concatenate([volume.ravel() for volume in volumes])
    bright = values[values > threshold_otsu(values)] if values.max() > max(values.min(), 0) else values[:0]
    if not bright.size:
        return []
    shares = (np.arange(count - 1) + 0.5) / (count - 1)
    levels = np.concatenate([[0.0], np.quantile(bright, shares)])
    if not (np.diff(levels) > 0).all():
        return []
    return [levels] if count == 2 else [levels, np.append(levels[:-1], 2 * levels[-1])]


def _fitted(bodies: list[Body], volumes: list[Float32], levels: Float64, *, fixed: bool) -> tuple[float, Float64, bool]:
    """Noise and levels, means over sweeps in which labels are drawn with both, and both are fitted to the labels.

    Also whether each level is that of bodies: see `_have_insides`.
    """
    levels, kept = levels.copy(), []
    noise = _left(bodies, volumes)
    for body, volume in zip(bodies, volumes, strict=True):
        body.set_levels(levels)
        body.number = 0
        body.start(volume)
    for _ in range(_SWEEPS):
        if not fixed:
            levels = _least_squares(bodies, levels)
        for body in bodies:
            body.set_levels(levels)
            body.compare()
        squares, rays = (sum(part) for part in zip(*(body.misfit for body in bodies), strict=True))
        # Labels that do not fit yet are no noise: taken as such, they would be smoothed instead of fitted.
        noise = max(min(math.sqrt(squares / rays), _GROWTH * noise), _LEAST * float(levels[-1] - levels[0]))
        for body in bodies:
            body.noise = noise
            body.draw(1)
        kept.append([noise**2, *levels])
    square, *mean = np.mean(kept[_SWEEPS // 2 :], axis=0)
    return math.sqrt(square), np.array(mean), _have_insides(bodies)


def _left(bodies: list[Body], volumes: list[Float32]) -> float:
    """What SIRT leaves unexplained, root mean square."""
    squares = [
        np.square(body.pair.forward(volume) - body.rows, dtype=np.float64).mean()
        for body, volume in zip(bodies, volumes, strict=True)
    ]
    return math.sqrt(float(np.mean(squares)))


def _have_insides(bodies: list[Body]) -> bool:
    """Whether each level is that of bodies, and none that of the partial voxels between two others."""
    for k in range(1, bodies[0].levels.size):
        held = inside = 0
        for body in bodies:
            mask = body.labels == k * body.prior.parts
            held += int(mask.sum())
            inside += int(scipy.ndimage.binary_erosion(mask, border_value=1).sum())
        if inside <= _INSIDE * held:
            return False
    return True


def _least_squares(bodies: list[Body], levels: Float64) -> Float64:
    """The levels above the lowest with which the labels fit the projections best; one that no voxel has stays."""
    count = levels.size
    normal, right = np.zeros((count - 1, count - 1)), np.zeros(count - 1)
    for body in bodies:
        projected = [body.project(body.share(k)).ravel().astype(np.float64) for k in range(count)]
        columns = np.stack(projected[1:], axis=1)
        measured = layout.sinogram_to_lanes(body.rows, body.width).ravel() - levels[0] * projected[0]
        # Not by BLAS, whose last bits may depend on the number of its threads.
        normal += np.einsum("ij,ik->jk", columns, columns)
        right += np.einsum("ij,i->j", columns, measured)
    held = np.diag(normal) > 0
    fitted = levels.copy()
    fitted[1:][held] = np.linalg.lstsq(normal[np.ix_(held, held)], right[held], rcond=None)[0]
    return np.sort(fitted)
