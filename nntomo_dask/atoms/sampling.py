"""Atoms sampled from their likelihood in the projections: which there are, where, and how certain that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
import xarray as xr

from nntomo_dask.arrays import recipes
from nntomo_dask.atoms import annealing, counts, elements as element_room, gradient_sampling, shared, table
from nntomo_dask.atoms.annealing import Moving
from nntomo_dask.atoms.consensus import consensus, heights_in_volume, refuse_none, table_of
from nntomo_dask.atoms.counts import Counted, refuse_unseen, width_of
from nntomo_dask.atoms.evidence import Evidence, Likelihood, evidence
from nntomo_dask.atoms.gradients import Gradients
from nntomo_dask.atoms.heights import weights as weights_of
from nntomo_dask.atoms.spacing import apart, spaced
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import atom_moves
from nntomo_dask.kernels.atom_grid import Prior
from nntomo_dask.projection.noise import Noise
from nntomo_dask.settings import check_settings, setting
from nntomo_dask.types import Float64, Integers

_WHO = "sample_atoms"
_PACKED = 1.0  # atoms in a cube as wide as their least distance: the density of the prior
_ANYWHERE = 0.1  # share of births that are proposed anywhere; the others where the volume is bright
_MOVES_PER_ATOM = 20  # in a round
_EVERY = 2  # rounds with samples, of which one draws what all atoms share
_SHARE = (0.7, 0.0), (0.6, 0.15)  # of shifts and of changes of kind, for one kind and for several


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How atoms are sampled: the keywords of `sample_atoms`, which says more about each."""

    width: float | None = setting(
        None,
        option=None,  # that of `Finding`
        help="Standard deviation of the Gaussian that an atom is in a projection, without tails. Default: drawn.",
        unit="nm",
        above=0,
    )
    exponent: float | None = setting(
        None,
        help="Of a series: power of the atomic number with which atoms of several elements are weighted. "
        "Default: 1.7; of a phase the potential of each element.",
        least=0,
        most=3,
    )
    likelihood: Likelihood = setting(
        "auto",
        help="Of a series: noise of counts, or white in the gradient, as of iDPC; auto: by its quantity.",
    )
    minimum_distance: float | None = setting(
        None,
        option=None,
        help="Least distance of two atoms. Default: 0.85 of the sum of their covalent radii.",
        unit="nm",
        above=0,
    )
    agreement: float | None = setting(
        None,
        help="Of a series: share of the samples that an atom has to be in. Default: 0.5; of iDPC found with the atoms.",
        above=0,
        most=1,
    )
    burn_in: int = setting(
        25, help="Of a series: rounds of moves before the first sample, 20 for each atom in a round.", least=21
    )
    samples: int = setting(40, help="Of a series: rounds of moves with a sample after each.", least=2)
    seed: int = setting(0, help="Of a series: seed of the random moves.", least=0)


class State(NamedTuple):
    """Atoms and what they have in common."""

    positions: Float64  # (atom, 3) [nm]
    kinds: Integers
    heights: Float64  # (kind,), in counts
    width: float  # [nm]
    level: float  # counts of the background, of the read-out too
    tail: float  # height of the Gaussian that is `shared.RATIO` times as wide, beside that of the atom


def sample_atoms(
    series: xr.DataArray,
    *,
    volume: xr.DataArray,
    atoms: xr.Dataset,
    elements: Sequence[str] = (),
    noise: Noise | None = None,
    width: float | None = None,
    exponent: float | None = None,
    likelihood: Likelihood = "auto",
    minimum_distance: float | None = None,
    agreement: float | None = None,
    burn_in: int = 25,
    samples: int = 40,
    seed: int = 0,
) -> xr.Dataset:
    """Atoms as probable as the projections say, with missing ones added and wrong ones left out.

    All atoms of an element are equally high, and none are closer than a bond. From the given atoms, random moves follow
    the likelihood of the counts in all projections: atoms are shifted, appear and disappear, so that every state comes
    up as often as it is probable. What most samples have is an atom; its position is their mean, which is the estimate
    of the least mean square error, and its standard error is their spread. That is more than the most probable
    positions alone can tell where there is little dose. Computes at once, with one thread.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32, with a length of its pixels.
    volume
        A reconstruction of it, dims (z, y, x): atoms appear where it is bright, and a few everywhere.
    atoms
        Where to begin: a table, such as `find_atoms(volume)` gives. Where the noise is white in the gradient, sampling
        begins with no atom; these say how high atoms are where the series is no phase in radians.
    elements
        Symbols of the elements that are seen. Without them, atoms are of one unknown kind.
    noise
        Of the series. None: found from it; exactly, where all values are multiples of a step, as counts are.
    width
        Standard deviation of the Gaussian that an atom is in a projection, without its tails, [nm]. None: drawn with
        the atoms, as are the heights, the tails and the background.
    exponent
        With several elements, atoms are as high as this power of their atomic number. None: 1.7, as in dark field; of
        noise that is white in the gradient, as their projected potential.
    likelihood
        "counts": noise of counts, with the gain of `noise`. "gradient": white noise of the gradient, as of iDPC; the
        read-out noise of `noise` is then the deviation of each component of the gradient, per nm.
        "auto": gradient where the quantity of the series is a phase.
    minimum_distance
        Least distance of any two atoms, [nm]. None: 0.85 of the sum of their covalent radii, which are no bonds then;
        without elements, that of `atoms`, or 2.5 widths.
    agreement
        Share of the samples in which an atom has to be. None: 0.5; where the noise is white in the gradient, the share
        with which the expected harmonic mean of recall and precision is highest.
    burn_in, samples
        Rounds before the first sample and with a sample. A round has 20 moves for every atom.
    seed
        Of the random moves.

    Returns
    -------
    A table of atoms: `height` in units of the volume, `confidence` in standard deviations, the root of what the atom
    without its tail adds to twice the logarithm of the likelihood; `agreement`, the share of samples with the atom;
    `z_error`, `y_error`, `x_error`, the standard deviations of the samples [nm]; `tail` and `tail_width` [nm], the
    share of the height and the width of a second Gaussian, as `refine_atoms` has them.

    Raises
    ------
    SchemaError
        `series` or `atoms` is none, pixels have no length, the volume is on another grid, there are no atoms, or a
        setting is out of range.

    References
    ----------
    .. [1] P. J. Green, Biometrika 82 (1995) 711, doi:10.1093/biomet/82.4.711.
    """
    settings = Sampling(
        width=width,
        exponent=exponent,
        likelihood=likelihood,
        minimum_distance=minimum_distance,
        agreement=agreement,
        burn_in=burn_in,
        samples=samples,
        seed=seed,
    )
    check_settings(settings, who=_WHO)
    symbols = element_room.symbols(elements, who=_WHO)
    table.check(atoms, who=_WHO)
    counts.check_volume(volume, series, who=_WHO)
    if atoms.sizes[table.ATOM] == 0:
        refuse(_WHO, needs="at least one atom to begin with", got="none", remedy="`find_atoms` with a lower threshold")
    data = evidence(series, likelihood=likelihood, noise=noise, who=_WHO)
    parameters: dict[str, Any] = {"elements": list(symbols), **vars(settings)}
    parameters["noise"] = None if noise is None else [noise.gain, noise.read_noise, noise.background]
    recipe = recipes.record(_WHO, parameters, [series, volume, atoms.attrs.get("recipe", {"operation": "atoms"})])
    return sampled(data, volume, atoms, symbols, settings, recipe=recipe)


def sampled(
    data: Evidence,
    volume: xr.DataArray,
    atoms: xr.Dataset,
    symbols: tuple[str, ...],
    settings: Sampling,
    *,
    recipe: recipes.Recipe,
) -> xr.Dataset:
    """`sample_atoms` without its checks."""
    rng = np.random.default_rng(settings.seed)
    distances = spaced(symbols, settings.minimum_distance, atoms)
    if isinstance(data, Gradients):
        start = gradient_sampling.start(data, atoms, symbols, exponent=settings.exponent, width=settings.width)
        prior = prior_of(data, volume, distances, start.width, packed=gradient_sampling.PACKED)
        rounds = gradient_sampling.Rounds(settings.burn_in, settings.samples, settings.agreement)
        return gradient_sampling.sampled(data, start, prior, symbols, rounds, rng, recipe=recipe)
    weights = weights_of(symbols, settings.exponent, signal="dark field")
    kinds = _kinds_of(atoms, symbols)
    positions = table.positions(atoms)
    kept = apart(positions, kinds, np.asarray(atoms["height"].values), distances)
    state = begin(data, positions[kept], kinds[kept], weights, settings)
    state = fitted(data, state, width=settings.width)
    prior = prior_of(data, volume, distances, state.width)
    inside = _inside(data, prior, state.positions)
    state = state._replace(positions=state.positions[inside], kinds=state.kinds[inside])
    state, taken = walk(data, state, prior, settings, rng)
    agreement = 0.5 if settings.agreement is None else settings.agreement
    agreed = consensus(taken, len(symbols), float(distances.min()) / 2, agreement)
    places, species, *_ = agreed
    if len(places) == 0:
        refuse_none(_WHO, agreement)
    heights = state.heights[species]
    model = _model(data, state._replace(positions=places, kinds=species))
    less = np.array(
        [
            atom_moves.change(data.counts, model, place, -float(height), state.width, data.rays)
            for place, height in zip(places, heights, strict=True)
        ]
    )
    tail = state.tail / shared.RATIO
    in_volume = heights_in_volume(heights * data.gain, state.width, data.pixel) * (1 + tail)
    tails = {table.TAIL: tail / (1 + tail), table.TAIL_WIDTH: shared.RATIO * state.width}
    return table_of(
        agreed, symbols, in_volume, state.width, less, distance=float(distances.min()), recipe=recipe, common=tails
    )


def _kinds_of(atoms: xr.Dataset, symbols: tuple[str, ...]) -> Integers:
    """(atom,): number of each atom's element; the first one where the table does not say."""
    places = {symbol: number for number, symbol in enumerate(symbols)}
    return np.array([places.get(str(one), 0) for one in atoms[table.SPECIES].values], np.int64)


def begin(data: Counted, positions: Float64, kinds: Integers, weights: Float64, settings: Sampling) -> State:
    """A first guess: all counts above the read-out belong to atoms."""
    width = settings.width or width_of(data)
    above = max(float((data.counts - data.read).sum()), 1.0)
    area = 2 * math.pi * width**2 / abs(data.rays.step_z * data.rays.step_t)
    scale = above / (area * len(data.rays.cosines) * max(float(weights[kinds].sum()), float(weights.min())))
    level = data.read + 1e-3 * max(float(data.counts.mean()), 1e-6)
    return State(positions, kinds, weights * scale, width, level, shared.BEGUN_TAIL)


def fitted(data: Counted, state: State, *, width: float | None) -> State:
    """The state with heights, width, tails and background fitted to the counts: all heights by one factor.

    A `width` that is given stays.
    """
    known = shared.Known.of(data, width)
    return _with(data, state, shared.fitted(data, known, _seen(state), _theta(data, state)))


def _seen(state: State) -> shared.Seen:
    return shared.Seen(state.positions, state.kinds, state.heights / float(state.heights.max()))


def _theta(data: Counted, state: State) -> Float64:
    return np.log([float(state.heights.max()), state.width, max(state.level - data.read, 1e-9), state.tail])


def _with(data: Counted, state: State, theta: Float64) -> State:
    height, width, level, tail = (float(one) for one in np.exp(theta))
    heights = state.heights * (height / float(state.heights.max()))
    return state._replace(heights=heights, width=width, level=data.read + level, tail=tail)


def _model(data: Counted, state: State) -> Float64:
    return shared.model(data, _seen(state), _theta(data, state))


def prior_of(
    data: Evidence, volume: xr.DataArray, distances: Float64, width: float, *, packed: float = _PACKED
) -> Prior:
    """Where atoms may be: within all projections, and born where the smoothed volume is bright."""
    bright = np.maximum(scipy.ndimage.gaussian_filter(np.asarray(volume.values, np.float64), width / data.pixel), 0)
    margin = min(2 * width, 0.25 * abs(data.rays.step_t) * data.shape[1])
    inside = data.seen(margin)
    if not inside.any():
        refuse_unseen(_WHO, margin)
    bright *= inside
    shares = _ANYWHERE * inside / inside.sum()
    if bright.sum() > 0:
        shares = (1 - _ANYWHERE) * bright / bright.sum() + shares
    births = np.concatenate([[0.0], np.cumsum(shares.ravel())])
    births /= births[-1]
    voxel = abs(data.rays.step_z) * data.rays.step_t**2
    return Prior(distances, packed / float(distances.mean()) ** 3 * voxel, births, data.shape[1])


def _inside(data: Counted, prior: Prior, positions: Float64) -> Integers:
    """Numbers of atoms that are where atoms may be."""
    rays, (_, detectors, slices) = data.rays, data.shape
    z = np.floor((positions[:, 0] - rays.first_z) / rays.step_z + 0.5).astype(int)
    y, x = (np.floor((positions[:, axis] - rays.first_t) / rays.step_t + 0.5).astype(int) for axis in (1, 2))
    within = (z >= 0) & (z < slices) & (np.minimum(y, x) >= 0) & (np.maximum(y, x) < detectors)
    voxel = np.where(within, (z * detectors + y) * detectors + x, 0)
    return np.flatnonzero(within & (prior.births[voxel + 1] > prior.births[voxel]))


def walk(
    data: Counted, state: State, prior: Prior, settings: Sampling, rng: np.random.Generator
) -> tuple[State, list[tuple[Float64, Integers]]]:
    """Rounds of moves, each with the tails that atoms had before it.

    Returns the last state, with the mean of what all atoms share, and positions and kinds of the atoms of each sample.
    """
    moving = Moving.of(prior, state.positions, state.kinds, 0.5 * state.width)
    known, thetas, taken = shared.Known.of(data, settings.width), [], []
    for number in range(settings.burn_in + settings.samples):
        positions, kinds = moving.state()
        state = state._replace(positions=positions, kinds=kinds)
        sampling = number - settings.burn_in
        if moving.atoms > 0 and (sampling < 0 or sampling % _EVERY == 0):
            accept: shared.Accept = "always" if sampling < 0 else "by probability"
            theta = shared.drawn(data, known, _seen(state), _theta(data, state), rng, accept=accept)
            state = _with(data, state, theta)
        model = _model(data, state)
        moving.atoms, done = atom_moves.moves(
            data.counts,
            model,
            moving.positions,
            moving.kinds,
            moving.atoms,
            heights=state.heights,
            width=state.width,
            rays=data.rays,
            prior=prior,
            steps=_MOVES_PER_ATOM * max(moving.atoms, annealing.LEAST_ATOMS),
            shift=moving.shift,
            share=_SHARE[len(state.heights) > 1],
            rng=rng,
        )
        if number < settings.burn_in:  # later it would favour some states
            moving.follow(done, most=state.width)
        else:
            taken.append(moving.state())
            thetas.append(_theta(data, state))
    return _with(data, state, np.mean(thetas, axis=0)), taken
