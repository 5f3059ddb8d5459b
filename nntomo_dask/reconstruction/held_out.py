"""Projections that are left out in turn, and how well a reconstruction from the others predicts them.

A prediction error needs no volume to compare with: the projection that a method has not seen is the truth. All here is
on plain arrays. A run of slices has the neighbours that a method looks at, as `Method.slab` takes it; where a run is a
whole volume, ``rows[slabs.mirrored(len(rows), method.halo)]`` gives them.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from nntomo_dask.arrays import angles as angles_room, geometry
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import device
from nntomo_dask.errors import refuse
from nntomo_dask.projection import project as projecting
from nntomo_dask.reconstruction.method import Method
from nntomo_dask.types import Float32, Float64, Integers

Weighting = Literal["plain", "volume"]

LEAST = 2  # folds: a standard error needs two differences


class Fold(NamedTuple):
    """One direction that is left out.

    Attributes
    ----------
    left_out
        Places of its projections in the series, ascending; several where an angle was repeated.
    kept
        Places of all others, ascending.
    """

    left_out: Integers
    kept: Integers


def at_most(angles_deg: npt.ArrayLike, most: int, *, who: str = "folds") -> tuple[Fold, ...]:
    """As `folds`: all that can be left out, or so many of them where they are more."""
    every = folds(angles_deg, who=who)
    return every if len(every) <= most else folds(angles_deg, most, who=who)


def folds(angles_deg: npt.ArrayLike, count: int | None = None, *, who: str = "folds") -> tuple[Fold, ...]:
    """Which projections are left out in turn.

    Directions at the edge of a missing wedge are not: nothing beyond them is measured, so that their prediction would
    be an extrapolation, unlike what a reconstruction is used for. Projections of one direction are left out together.

    Parameters
    ----------
    angles_deg
        (angle,), in degrees, in any order.
    count
        How many directions, spread evenly over those that can be left out; by default all of them.

    Returns
    -------
    In ascending order of angle from the wedge on; the same directions in whatever order the angles stand.

    Raises
    ------
    SchemaError
        The count is below 2, or above the number of directions that can be left out; or that number is below 2.
    """
    angles = np.asarray(angles_deg, np.float64)
    directions, member = angles_room.directions(angles)
    order = np.arange(directions.size)
    missing = geometry.wedge(angles)
    if missing is not None:
        first = int(np.abs(directions - missing[0]).argmin()) + 1  # the wedge begins at a direction
        order = np.roll(order, -first)[1:-1]
    if order.size < LEAST:
        refuse(
            who,
            needs=f"{LEAST} directions or more that can be left out, apart from those at the edges of a missing wedge",
            got=f"{max(order.size, 0)} of {directions.size}",
            remedy="a series of more projections",
        )
    if count is not None:
        if not (isinstance(count, int | np.integer) and count >= LEAST):
            refuse(who, needs=f"a whole number of folds, {LEAST} or more", got=f"{count!r}", remedy="`folds=4`")
        if count > order.size:
            at_edges = " apart from those at the edges of the missing wedge" if missing is not None else ""
            refuse(
                who,
                needs=f"as many directions as folds, {count}{at_edges}",
                got=f"{order.size} of {directions.size}",
                remedy=f"`folds={order.size}`, or leave it out for all of them",
            )
        order = order[(2 * np.arange(count) + 1) * order.size // (2 * count)]
    return tuple(Fold(np.flatnonzero(member == one), np.flatnonzero(member != one)) for one in order)


def without(
    method: Method,
    rows: Float32,
    angles_deg: Float64,
    fold: Fold,
    *,
    prepared: Sequence[float] = (),
    axis: Axis | None = None,
) -> Float32:
    """The reconstruction (slice, y, x) of rows (slice + 2 · halo, angle, detector) from the kept projections.

    `prepared` is what ``method.prepare`` gives, as numbers; `axis` where the tilt axis is unless it is in the middle.
    """
    where: dict[str, Any] = {} if axis is None else {"axis": axis}
    kept = device.namespace(rows).ascontiguousarray(rows[:, fold.kept])
    return method.slab(kept, np.asarray(angles_deg, np.float64)[fold.kept], *prepared, **where)


def reconstructions(
    method: Method,
    rows: Float32,
    angles_deg: Float64,
    *,
    folds: Sequence[Fold],
    prepared: Sequence[float] = (),
    axis: Axis | None = None,
) -> Iterator[Float32]:
    """`without` of each fold in turn: one volume (slice, y, x) is in memory at a time."""
    for fold in folds:
        yield without(method, rows, angles_deg, fold, prepared=prepared, axis=axis)


def predicted(volume: Float32, angles_deg: Float64, fold: Fold, *, axis: Axis | None = None) -> Float32:
    """What a volume (slice, y, x) says of the projections that were left out: (slice, left out, detector)."""
    angles = np.asarray(angles_deg, np.float64)[fold.left_out]
    return projecting.forward_slab(volume, angles_deg=angles, engine="native", axis=axis)


def misfits(
    method: Method,
    rows: Float32,
    angles_deg: Float64,
    *,
    folds: Sequence[Fold],
    prepared: Sequence[float] = (),
    axis: Axis | None = None,
    weighting: Weighting = "plain",
) -> Float64:
    """How far the predictions of projections that were left out are from what was measured there.

    Parameters
    ----------
    rows
        (slice + 2 · halo, angle, detector), measured line integrals [u · px]: neighbouring slices, of which the
        outermost are neighbours only, as `Method.slab` takes them.
    angles_deg
        (angle,), in degrees.
    folds
        From `folds`.
    prepared
        What ``method.prepare`` gives, as numbers.
    axis
        Where the tilt axis crosses a slice; by default in the middle.
    weighting
        See `misfit`.

    Returns
    -------
    (fold, slice), means over the projections of a fold. Noise of variance v in a measured value adds
    ``noise_part(v, detector, weighting=…)`` to each of them on average, whatever the method.
    """
    found = []
    for fold in folds:
        volume = without(method, rows, angles_deg, fold, prepared=prepared, axis=axis)
        found.append(misfit(predicted(volume, angles_deg, fold, axis=axis), rows, fold, weighting=weighting))
    return np.array(found)


def misfit(prediction: Float32, rows: Float32, fold: Fold, *, weighting: Weighting = "plain") -> Float64:
    """(slice,), how far a prediction (slice, left out, detector) is from what was measured.

    Of `rows`, the slices in the middle are those that were predicted.

    Parameters
    ----------
    weighting
        "plain": the mean square of the differences, [u² px²]. "volume": each frequency along the detector counts with
        its absolute value. By the Fourier slice theorem the mean of this over all directions is the mean square error
        of the volume, [u²]; so an error that projections average out, such as noise, is not taken for none.
    """
    _check_weighting(weighting)
    halo = (len(rows) - len(prediction)) // 2
    residual = (prediction - rows[halo : halo + len(prediction), fold.left_out]).astype(np.float64)
    if weighting == "plain":
        squares: Float64 = np.square(residual).mean(axis=(1, 2))
        return squares
    size = residual.shape[-1]
    power = np.abs(np.fft.rfft(residual, 2 * size, axis=-1)) ** 2
    # Both signs of a frequency, π for the directions, the step of the frequencies, and the pixels of a slice.
    weights = 2 * np.pi * np.fft.rfftfreq(2 * size) / (2 * size) / size**2
    weights[-1] /= 2
    return np.asarray((power * weights).sum(axis=-1).mean(axis=-1))


def noise_part(variance: float, detector: int, *, weighting: Weighting = "plain") -> float:
    """What white noise of a variance, in values of so many detector pixels, adds to each `misfit` on average."""
    _check_weighting(weighting)
    return variance if weighting == "plain" else np.pi / 4 * variance / detector


def _check_weighting(weighting: str) -> None:
    if weighting not in get_args(Weighting):
        refuse("misfit", needs='"plain" or "volume"', got=f"{weighting!r}", remedy='`weighting="plain"`')
