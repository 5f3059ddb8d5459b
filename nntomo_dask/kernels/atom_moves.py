"""Random moves of atoms that follow their likelihood in the projections: a sampler of point processes.

The model of a projection is a constant and, for every atom, a Gaussian of a height that its kind has,

    m(k, t, z) = b + Σ h G(z - z₀) G(t - x cos θ - y sin θ),    G(d) = exp(-d² / 2w²),

and the logarithm of the likelihood of counts is ``Σ y log m - m``. The prior is a Poisson process of constant density
with a least distance for each two kinds. Moves are proposed and accepted so that states come up as often as they are
probable [1]_: an atom is shifted, gets another kind, is born or dies. Births are proposed where a map is high.

Where the noise is white in the gradient of the projections, `gradient_evidence` has the likelihood.

References
----------
.. [1] P. J. Green, Reversible jump Markov chain Monte Carlo computation and Bayesian model determination, Biometrika 82
   (1995) 711, doi:10.1093/biomet/82.4.711.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nntomo_dask.kernels.atom_evidence import LEAST, add, gain, paint
from nntomo_dask.kernels.atom_grid import REACH, Prior, Rays, accepts, is_free, voxel_of
from nntomo_dask.kernels.compiling import njit
from nntomo_dask.kernels.pair_moves import merge, split
from nntomo_dask.types import Float64, Integers

SHIFTS, KINDS, BIRTHS, DEATHS, SPLITS, MERGERS = 0, 1, 2, 3, 4, 5  # places of the counts of moves


def render(
    positions: Float64, kinds: Integers, heights: Float64, width: float, rays: Rays, shape: tuple[int, int, int]
) -> Float64:
    """The projections (view, detector, z) of atoms, without a background.

    Parameters
    ----------
    positions
        (atom, 3): z, y, x [nm].
    kinds, heights
        (atom,) and (kind,): the height of an atom in a projection.
    width
        Standard deviation [nm].
    """
    images = np.zeros(shape)
    for position, kind in zip(positions, kinds, strict=True):
        paint(images, position, float(heights[kind]), width, rays)
    return images


def render_reference(
    positions: Float64, kinds: Integers, heights: Float64, width: float, rays: Rays, shape: tuple[int, int, int]
) -> Float64:
    """Reference implementation of `render`."""
    z = rays.first_z + rays.step_z * np.arange(shape[2])
    t = rays.first_t + rays.step_t * np.arange(shape[1])
    images = np.zeros(shape)
    for (az, ay, ax), kind in zip(positions, kinds, strict=True):
        place = ax * rays.cosines + ay * rays.sines
        along, across = z - az, t - place[:, None]
        along_value, across_value = (np.exp(-((one / width) ** 2) / 2) for one in (along, across))
        along_value[np.abs(along) > REACH * width] = 0
        across_value[np.abs(across) > REACH * width] = 0
        images += heights[kind] * across_value[:, :, None] * along_value
    return images


def log_likelihood(counts: Float64, model: Float64) -> float:
    """``Σ y log m - m``."""
    return float((counts * np.log(np.maximum(model, LEAST)) - model).sum())


def change(
    counts: Float64,
    model: Float64,
    position: Float64,
    height: float,
    width: float,
    rays: Rays,
    *,
    precision: float = 0.0,
) -> float:
    """What an atom more, or one of negative height, adds to the logarithm of the likelihood.

    A `precision` above zero is that of `moves`.
    """
    return float(gain(counts, model, position, height, width, rays, precision))


def moves(
    counts: Float64,
    model: Float64,
    positions: Float64,
    kinds: npt.NDArray[np.int64],
    atoms: int,
    *,
    heights: Float64,
    width: float,
    rays: Rays,
    prior: Prior,
    steps: int,
    shift: float,
    share: tuple[float, float],
    rng: np.random.Generator,
    precision: float = 0.0,
    pairs: float = 0.0,
) -> tuple[int, Float64]:
    """Make some moves. `model`, `positions` and `kinds` are changed in place.

    Parameters
    ----------
    counts, model
        (view, detector, z): what was counted, and what is expected by the atoms that there are.
    positions, kinds
        (room, 3) and (room,): the first `atoms` rows are atoms.
    steps
        Number of moves.
    shift
        Standard deviation of a shift along each axis, [nm].
    share
        Of moves: shifts, and changes of the kind; the others are births and deaths, and what `pairs` says.
    precision
        Above zero: the noise is white in the gradient, and one over the variance of each of its components, per nm;
        `model` is the residual of `gradient_evidence` then, and of `counts` the shape alone counts.
    pairs
        Share of moves that make two atoms of one, or one of two.

    Returns
    -------
    The number of atoms, and (move, 2): for shifts, changes of kind, births, deaths, splits and mergers how many were
    accepted and proposed.
    """
    done = np.zeros((6, 2))
    left = _moves(
        counts,
        model,
        positions,
        kinds,
        atoms,
        heights,
        width,
        rays,
        prior,
        steps,
        shift,
        share[0],
        share[1],
        rng,
        done,
        precision,
        pairs,
    )
    return int(left), done


@njit(nogil=True, cache=True)
def _moves(
    counts: Any,
    model: Any,
    positions: Any,
    kinds: Any,
    atoms: int,
    heights: Any,
    width: float,
    rays: Any,
    prior: Any,
    steps: int,
    shift: float,
    share_of_shifts: float,
    share_of_kinds: float,
    rng: Any,
    done: Any,
    precision: float,
    share_of_pairs: float,
) -> int:
    slices, size, births = counts.shape[2], prior.size, prior.births
    place, before = np.empty(3), np.empty(3)
    for _ in range(steps):
        chosen = rng.random()
        if chosen < share_of_shifts:
            if atoms == 0:
                continue
            done[SHIFTS, 1] += 1
            i = rng.integers(0, atoms)
            for axis in range(3):
                before[axis] = positions[i, axis]
                place[axis] = before[axis] + shift * rng.standard_normal()
            voxel = voxel_of(place, rays, size, slices)
            # Outside of the map, and where it is zero, there are no atoms.
            if voxel < 0 or births[voxel + 1] <= births[voxel]:
                continue
            if not is_free(positions, kinds, atoms, place, kinds[i], i, prior.distances):
                continue
            height = heights[kinds[i]]
            add(model, before, -height, width, rays, precision)
            gained = gain(counts, model, place, height, width, rays, precision)
            gained -= gain(counts, model, before, height, width, rays, precision)
            if accepts(gained, rng):
                positions[i] = place
                before[:] = place
                done[SHIFTS, 0] += 1
            add(model, before, height, width, rays, precision)
        elif chosen < share_of_shifts + share_of_kinds:
            if atoms == 0 or len(heights) < 2:
                continue
            done[KINDS, 1] += 1
            i = rng.integers(0, atoms)
            kind = (kinds[i] + 1 + rng.integers(0, len(heights) - 1)) % len(heights)
            place[:] = positions[i]
            if not is_free(positions, kinds, atoms, place, kind, i, prior.distances):
                continue
            more = heights[kind] - heights[kinds[i]]
            if accepts(gain(counts, model, place, more, width, rays, precision), rng):
                add(model, place, more, width, rays, precision)
                kinds[i] = kind
                done[KINDS, 0] += 1
        elif chosen < share_of_shifts + share_of_kinds + share_of_pairs:
            before_it = atoms
            if rng.random() < 0.5:
                done[SPLITS, 1] += 1
                atoms = split(counts, model, positions, kinds, atoms, heights, width, rays, prior, rng, precision)
                done[SPLITS, 0] += atoms - before_it
            else:
                done[MERGERS, 1] += 1
                atoms = merge(counts, model, positions, kinds, atoms, heights, width, rays, prior, rng, precision)
                done[MERGERS, 0] += before_it - atoms
        elif rng.random() < 0.5:
            done[BIRTHS, 1] += 1
            voxel = min(np.searchsorted(births, rng.random(), side="right") - 1, len(births) - 2)
            density = births[voxel + 1] - births[voxel]
            kind = rng.integers(0, len(heights))
            place[0] = rays.first_z + rays.step_z * (voxel // (size * size) + rng.random() - 0.5)
            place[1] = rays.first_t + rays.step_t * (voxel % (size * size) // size + rng.random() - 0.5)
            place[2] = rays.first_t + rays.step_t * (voxel % size + rng.random() - 0.5)
            if atoms >= len(positions) or density <= 0:
                continue
            if not is_free(positions, kinds, atoms, place, kind, -1, prior.distances):
                continue
            gained = gain(counts, model, place, heights[kind], width, rays, precision)
            if accepts(gained + math.log(prior.per_voxel / (density * (atoms + 1))), rng):
                add(model, place, heights[kind], width, rays, precision)
                positions[atoms] = place
                kinds[atoms] = kind
                atoms += 1
                done[BIRTHS, 0] += 1
        else:
            if atoms == 0:
                continue
            done[DEATHS, 1] += 1
            i = rng.integers(0, atoms)
            place[:] = positions[i]
            voxel = voxel_of(place, rays, size, slices)
            if voxel < 0 or births[voxel + 1] <= births[voxel]:
                continue
            density = births[voxel + 1] - births[voxel]
            height = heights[kinds[i]]
            gained = gain(counts, model, place, -height, width, rays, precision)
            if accepts(gained + math.log(density * atoms / prior.per_voxel), rng):
                add(model, place, -height, width, rays, precision)
                atoms -= 1
                positions[i] = positions[atoms]
                kinds[i] = kinds[atoms]
                done[DEATHS, 0] += 1
    return atoms
