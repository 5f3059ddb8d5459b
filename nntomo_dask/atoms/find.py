"""Atoms found in a volume: maxima above the background, and Gaussians fitted to the voxels around them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from nntomo_dask.arrays import recipes, schema
from nntomo_dask.atoms import candidates, fitting, look as looking, species as species_room, table
from nntomo_dask.atoms.finding import FAINTEST, THRESHOLD, Finding, Scale
from nntomo_dask.atoms.frame import Frame, frame_of
from nntomo_dask.atoms.look import Look
from nntomo_dask.atoms.species import Species
from nntomo_dask.compute import chunking, cluster
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import peak_fits
from nntomo_dask.settings import check_settings
from nntomo_dask.types import Bools, Float64

_WHO = "find_atoms"
_ROUNDS = 4  # of fits, each without what the one before has shown to be no atoms
_LOOKS = 3  # at what the atoms leave
_NEAR = 4.0  # widths within which an atom may leave rings
_OF_NEIGHBOUR = 0.1  # of the highest atom near it: a candidate that is lower may be a ring
_AT_BOUND = 0.98  # a fitted width this near to a bound is at it
_SLAB_BYTES = 2**28  # of a slab with its borders, where no memory is given


def find_atoms(
    volume: xr.DataArray,
    *,
    width: float | None = None,
    minimum_distance: float | None = None,
    threshold: float = THRESHOLD,
    faintest: float = FAINTEST,
    count: int | None = None,
    species: Species | None = None,
    boundaries: Sequence[float] | None = None,
    scale: Scale = "log",
    folds: Sequence[xr.DataArray] = (),
) -> xr.Dataset:
    """Find the atoms of a volume.

    Candidates are the local maxima of the negative Laplacian of the volume, smoothed up to the width of an atom: a
    background that is constant or rises evenly leaves nothing there. Gaussians of free height, width and position and a
    constant background are fitted to the voxels within 2.5 widths of them, neighbours that overlap together. What is
    lower than the threshold, outside of the volume, too near to a higher one or at a bound of its width is dropped, and
    the others are fitted again.

    Computes at once, slab by slab; the volume is read a few times, so one that takes long to compute should be saved
    first. The result does not depend on chunks.

    Parameters
    ----------
    volume
        Dims (z, y, x), float32, with a length of its voxels in nm. Where it is 0, a constraint is taken to have set it
        so, and its noise is not looked at.
    width
        Standard deviation of the Gaussian that an atom is, [nm]. None: the median of the brightest 64.
    minimum_distance
        Least distance of two atoms, [nm]. None: twice the width. A smaller one makes the maxima sharper, and noise too;
        below 1.65 widths two equal atoms show one maximum and are found as one.
    threshold
        Least height of an atom above the background, in standard deviations of a height where there is no atom.
    faintest
        Least height as a share of the mean of the highest tenth.
    count
        Number of atoms: those of the highest confidence. None: all.
    species
        Symbols of elements: the atoms are divided among them by what each adds up to, with heavier elements for
        brighter atoms. With the number of atoms of each, ``{"Zr": 24, "O": 120}``, the brightest are Zr; `count` is
        their sum. None: unknown.
    boundaries
        What atoms add up to at the boundaries between elements, in units of the volume times px³, one less than
        elements. None: where k-means puts them.
    scale
        Whether k-means takes the logarithm of what an atom adds up to.
    folds
        Other volumes on the same grid, such as reconstructions without some of the projections: the column
        ``agreement`` is the share of them that have an atom within half of the minimum distance.

    Returns
    -------
    A table of atoms, sorted by z, y, x: ``z``, ``y``, ``x``, ``width`` [nm]; ``height``, ``background`` in units of the
    volume; ``confidence``, the height over the noise; ``species``; with folds, ``agreement``. Attributes: ``noise``,
    the standard deviation of a height where there is no atom; ``atom_width``, the common width, and
    ``minimum_distance`` [nm].

    Raises
    ------
    SchemaError
        `volume` is no volume, its voxels have no length, or a value is not finite; it has no peaks, none above the
        threshold, or fewer than are asked for; a species is no element, or a setting is out of range.

    References
    ----------
    .. [1] T. Lindeberg, Feature detection with automatic scale selection, International Journal of Computer Vision 30
       (1998) 79, doi:10.1023/A:1008045108935.
    """
    settings = Finding(
        width=width,
        minimum_distance=minimum_distance,
        threshold=threshold,
        faintest=faintest,
        count=count,
        scale=scale,
    )
    return search(volume, settings, species=species, boundaries=boundaries, folds=folds)


def search(
    volume: xr.DataArray,
    settings: Finding,
    *,
    species: Species | None = None,
    boundaries: Sequence[float] | None = None,
    folds: Sequence[xr.DataArray] = (),
    slices: Callable[[int], int] | None = None,
) -> xr.Dataset:
    """`find_atoms`, with the slices of a slab as a function of those on either side that it needs too."""
    check_settings(settings, who=_WHO)
    wanted = None if species is None else species_room.checked(species, boundaries, who=_WHO)
    if wanted is None and boundaries is not None:
        refuse(_WHO, needs="`species` for boundaries", got="none", remedy='`species=("Zr", "O")`')
    total = _total(settings.count, wanted)
    frame = frame_of(volume, who=_WHO)
    others = [frame_of(one, who=_WHO) for one in folds]
    for one in folds:
        schema.check_same_grid(one, volume, who=_WHO)
    seen = _look(frame, settings)
    border = max(candidates.halo(seen.used, frame.step), int(np.ceil(fitting.RADIUS * seen.width / frame.step)) + 1)
    slab = _slices(border, frame.shape) if slices is None else slices(border)
    frame, others = replace(frame, slab=slab), [replace(one, slab=slab) for one in others]
    found = _found(frame, seen, settings)
    if len(found.gaussians) == 0:
        refuse(
            _WHO,
            needs=f"a volume with peaks above {settings.threshold:g} times its noise",
            got="none",
            remedy="a lower `threshold`, or the `width` of the atoms where another was estimated: "
            f"{seen.width * frame.pixel:.3g} nm",
        )
    confidence = found.gaussians[:, 3] / seen.noise
    if total is not None:
        chosen = _most_certain(found.gaussians, confidence, total, settings.threshold)
        dropped = np.ones(len(confidence), bool)
        dropped[chosen] = False
        found = found.without(dropped, scale=frame.scale, reach=fitting.reach(seen.width))
        confidence = confidence[chosen]
    columns: dict[str, Any] = {}
    if others:
        columns[table.AGREEMENT] = _agreement(frame, found, others, seen, settings)
    symbols = None
    if wanted is not None:
        amounts = species_room.integrated(found.gaussians[:, 3], found.gaussians[:, 4])
        symbols = species_room.assigned(amounts, wanted, boundaries=boundaries, scale=settings.scale, who=_WHO)
    parameters = {
        "width": settings.width,
        "minimum_distance": settings.minimum_distance,
        "threshold": settings.threshold,
        "faintest": settings.faintest,
        "count": settings.count,
        "species": None if wanted is None else {symbol: number for symbol, number in wanted.items()},
        "boundaries": None if boundaries is None else [float(one) for one in boundaries],
        "scale": settings.scale,
        "folds": len(others),
    }
    made = table.make(
        frame.positions(found.gaussians[:, :3]),
        recipe=recipes.record(_WHO, parameters, [volume, *folds]),
        species=symbols,
        height=found.gaussians[:, 3],
        width=found.gaussians[:, 4] * frame.pixel,
        background=found.background,
        confidence=confidence,
        **columns,
    )
    return made.assign_attrs(
        noise=seen.noise,
        atom_width=seen.width * frame.pixel,
        minimum_distance=_distance(seen, frame, settings) * frame.pixel,
    )


def host_bytes(shape: chunking.SlabShape, *, border: int, chunk: int) -> int:
    """Bytes at the peak of a slab (slices, y, x), with a border on either side, read in chunks of some slices."""
    return candidates.host_bytes(shape, border, chunk=chunk)


def fixed_bytes(shape: tuple[int, ...]) -> int:
    """Bytes that are held once: the part that is looked at, with its filtered forms, or voxels around atoms."""
    voxels = min(int(np.prod(shape)), looking.PART_VOXELS)
    return 7 * 4 * voxels


def least_border(width_px: float | None) -> int:
    """Slices on either side of a slab that atoms of a width, [px], need at least; None: the narrowest."""
    return int(fitting.RADIUS * (looking.LEAST_WIDTH if width_px is None else width_px))


def _slices(border: int, shape: tuple[int, int, int]) -> int:
    """Slices of a slab beside which its borders are small, and not more than two workers have something to do with."""
    depth, height, length = shape
    fitting_in = _SLAB_BYTES // (4 * height * length) - 2 * border
    return max(min(4 * border, fitting_in, depth // (2 * cluster.current_workers())), 1)


def _total(count: int | None, wanted: dict[str, int | None] | None) -> int | None:
    """How many atoms are asked for; None for all."""
    numbers = [] if wanted is None else [one for one in wanted.values() if one is not None]
    if not numbers:
        return count
    if count is not None and count != sum(numbers):
        got = f"`count={count}` and {sum(numbers)} atoms of the elements"
        refuse(_WHO, needs="one number of atoms", got=got, remedy="leave out `count`")
    return sum(numbers)


def _look(frame: Frame, settings: Finding) -> Look:
    width, distance = (
        None if one is None else one / frame.pixel for one in (settings.width, settings.minimum_distance)
    )
    return looking.look(
        frame, width=width, distance=distance, threshold=settings.threshold, faintest=settings.faintest, who=_WHO
    )


def _distance(seen: Look, frame: Frame, settings: Finding) -> float:
    """The least distance of two atoms, [px]."""
    return 2 * seen.width if settings.minimum_distance is None else settings.minimum_distance / frame.pixel


def _found(frame: Frame, seen: Look, settings: Finding) -> fitting.Fitted:
    """The atoms, fitted; none where there is none."""
    distance = _distance(seen, frame, settings)
    fitted = looking.first_guess(
        frame, seen.used, settings.threshold * seen.noise_used, distance, seen.width, settings.faintest
    )
    held = fitting.Held()
    fitted = _sound(frame, fitted, seen, settings, held)
    for _ in range(_LOOKS):
        hidden = _hidden(frame, fitted, seen, settings)
        if len(hidden.gaussians) == 0:
            break
        more = fitted.joined(hidden, scale=frame.scale, reach=fitting.reach(seen.width))
        before, fitted = len(fitted.gaussians), _sound(frame, more, seen, settings, held)
        if len(fitted.gaussians) <= before:
            break
    # Atoms outside of the volume have been fitted for the sake of those beside them.
    return fitted.without(~_inside(frame, fitted), scale=frame.scale, reach=0.0)


def _inside(frame: Frame, fitted: fitting.Fitted) -> Bools:
    """Which centres lie in the volume."""
    places = fitted.gaussians[:, :3]
    return np.asarray(np.all((places >= -0.5) & (places <= np.array(frame.shape) - 0.5), axis=1), bool)


def _least(frame: Frame, fitted: fitting.Fitted, width: float, noise: float, settings: Finding) -> float:
    """The height of the lowest atom, among those in the volume: of one beside it a tail is seen, and no height."""
    highest = looking.brightest(fitted.gaussians[_inside(frame, fitted) & ~_at_bound(frame, fitted, width), 3])
    return max(settings.threshold * noise, settings.faintest * highest)


def _at_bound(frame: Frame, fitted: fitting.Fitted, width: float) -> Bools:
    """Which have gone as far as a fit lets them, or as wide or as narrow as it does."""
    moved = np.abs(fitted.gaussians[:, :3] - fitted.origins) * frame.scale
    widths = fitted.gaussians[:, 4] / width
    least, most = peak_fits.WIDTHS
    at_bound = (widths < least / _AT_BOUND) | (widths > most * _AT_BOUND)
    return np.asarray(at_bound | (moved.max(axis=1) > peak_fits.FARTHEST * _AT_BOUND * width), bool)


def _sound(frame: Frame, fitted: fitting.Fitted, seen: Look, settings: Finding, held: fitting.Held) -> fitting.Fitted:
    """Candidates fitted until each of them may be an atom."""
    for _ in range(_ROUNDS):
        fitted = fitting.fit(frame, fitted, seen.width, held=held)
        dropped = _no_atoms(frame, fitted, seen, settings)
        if not dropped.any():
            break
        fitted = fitted.without(dropped, scale=frame.scale, reach=fitting.reach(seen.width))
    return fitted


def _hidden(frame: Frame, fitted: fitting.Fitted, seen: Look, settings: Finding) -> fitting.Fitted:
    """Candidates in what the atoms leave: those on the shoulder of another, too near to it to be a maximum.

    An atom whose shape is no Gaussian leaves rings too. So a candidate rises to a share of the highest atom near it.
    """
    if len(fitted.gaussians) == 0:
        return fitted
    distance, heights = _distance(seen, frame, settings), fitted.gaussians[:, 3]
    least = _least(frame, fitted, seen.width, seen.noise_used, settings)
    places, rises = candidates.maxima(frame, seen.used, least, less=fitted.gaussians)
    if len(places) == 0:
        return fitted.without(np.ones(len(heights), bool), scale=frame.scale, reach=0.0)
    tree = cKDTree(fitted.gaussians[:, :3] * frame.scale)
    near = tree.query_ball_point(places * frame.scale, _NEAR * seen.width)
    highest = np.array([heights[one].max() if one else 0.0 for one in near])
    to_next, _ = tree.query(places * frame.scale)
    possible = (rises > _OF_NEIGHBOUR * highest) & (to_next > distance / 2)
    places, rises = places[possible], rises[possible]
    kept = candidates.apart(places * frame.scale, rises, _NEAR * seen.width)
    gaussians = np.column_stack([places[kept], rises[kept], np.full(len(kept), seen.width)]).astype(np.float64)
    return fitting.Fitted(gaussians, gaussians[:, :3].copy())


def _no_atoms(frame: Frame, fitted: fitting.Fitted, seen: Look, settings: Finding) -> Bools:
    """What is too low, of no width that an atom has, or too near to a higher one."""
    places, heights = fitted.gaussians[:, :3], fitted.gaussians[:, 3]
    low = heights < _least(frame, fitted, seen.width, seen.noise, settings)
    dropped: Bools = low | _at_bound(frame, fitted, seen.width)
    sound = np.flatnonzero(~dropped)
    # Candidates were a distance apart; what is nearer now by less than a tenth of a width is where it was.
    near = _distance(seen, frame, settings) - 0.1 * seen.width
    kept = sound[candidates.apart(places[sound] * frame.scale, heights[sound], near)]
    dropped[:] = True
    dropped[kept] = False
    return dropped


def _most_certain(gaussians: Float64, confidence: Float64, count: int, threshold: float) -> Any:
    """Numbers of the atoms of the highest confidence, ascending."""
    if count > len(gaussians):
        refuse(
            _WHO,
            needs=f"{count} atoms",
            got=f"{len(gaussians)} above {threshold:g} times the noise",
            remedy="a lower `threshold` or `faintest`, a smaller `minimum_distance`, or fewer atoms",
        )
    return np.sort(np.argsort(-confidence, kind="stable")[:count])


def _agreement(frame: Frame, found: fitting.Fitted, folds: Sequence[Frame], seen: Look, settings: Finding) -> Float64:
    """The share of other volumes that have each atom too."""
    places, near = found.gaussians[:, :3] * frame.scale, _distance(seen, frame, settings) / 2
    shares = np.zeros(len(places))
    for fold in folds:
        width = seen.width * frame.pixel
        alike = Finding(
            width=width,
            minimum_distance=2 * near * frame.pixel,
            threshold=settings.threshold,
            faintest=settings.faintest,
        )
        there = _found(fold, _look(fold, alike), alike).gaussians[:, :3] * fold.scale
        if len(there):
            distance, _ = cKDTree(there).query(places)
            shares += distance <= near
    return np.asarray(shares / len(folds))
