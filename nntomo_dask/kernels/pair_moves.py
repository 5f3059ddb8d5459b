"""Moves that make two atoms of one, and one of two: what overlaps in the projections is told apart.

An atom at c becomes two at c + v and c - v, with v from a normal distribution of density q, or two atoms become one
half way. States (c, v) have an eighth of the volume of pairs of positions, and both signs of v give one pair. With n
atoms before, a density λ of the prior, and m₁ and m₂ atoms that each of the two has within reach, a split is accepted
with the ratio of the likelihoods times

    λ n / (n + 1) · (1/m₁ + 1/m₂) · 4 / q(v),

and a merger with the inverse.
"""

import math
from typing import Any

import numpy as np

from nntomo_dask.kernels.atom_evidence import add, gain
from nntomo_dask.kernels.atom_grid import accepts, is_free, voxel_of
from nntomo_dask.kernels.compiling import njit

APART = 0.07  # nm: standard deviation, along each axis, of half of what two atoms are apart
PAIR = 0.4  # nm: farther apart than that, two atoms do not become one


@njit(nogil=True, cache=True)
def _near(positions: Any, atoms: int, one: int) -> int:
    """How many others are within reach of an atom."""
    count = 0
    for other in range(atoms):
        if other != one and _apart(positions, one, other) < PAIR:
            count += 1
    return count


@njit(nogil=True, cache=True)
def _apart(positions: Any, one: int, other: int) -> float:
    square = 0.0
    for axis in range(3):
        square += (positions[one, axis] - positions[other, axis]) ** 2
    return math.sqrt(square)


@njit(nogil=True, cache=True)
def _weight(half: Any, density: float, atoms: int, near: float) -> float:
    """The logarithm of the factor of a split of one of so many atoms."""
    square = 0.0
    for axis in range(3):
        square += (half[axis] / APART) ** 2
    normal = -0.5 * square - 3 * math.log(APART * math.sqrt(2 * math.pi))
    return math.log(4 * density * atoms / (atoms + 1) * near) - normal


@njit(nogil=True, cache=True)
def split(
    counts: Any,
    model: Any,
    positions: Any,
    kinds: Any,
    atoms: int,
    heights: Any,
    width: float,
    rays: Any,
    prior: Any,
    rng: Any,
    precision: float,
) -> int:
    """Try to make two of an atom. Returns how many atoms there are."""
    if atoms == 0 or atoms >= len(positions):
        return atoms
    i = rng.integers(0, atoms)
    middle, half = positions[i].copy(), np.empty(3)
    for axis in range(3):
        half[axis] = APART * rng.standard_normal()
    kind, first, second = kinds[i], rng.integers(0, len(heights)), rng.integers(0, len(heights))
    slices, births = counts.shape[2], prior.births
    for place in (middle + half, middle - half):
        voxel = voxel_of(place, rays, prior.size, slices)
        if voxel < 0 or births[voxel + 1] <= births[voxel]:
            return atoms
    apart = 2 * math.sqrt((half**2).sum())
    if apart >= PAIR or apart < prior.distances[first, second]:
        return atoms
    one, other = middle + half, middle - half
    if not is_free(positions, kinds, atoms, one, first, i, prior.distances):
        return atoms
    if not is_free(positions, kinds, atoms, other, second, i, prior.distances):
        return atoms
    gained = gain(counts, model, middle, -heights[kind], width, rays, precision)
    add(model, middle, -heights[kind], width, rays, precision)
    gained += gain(counts, model, one, heights[first], width, rays, precision)
    add(model, one, heights[first], width, rays, precision)
    gained += gain(counts, model, other, heights[second], width, rays, precision)
    positions[i], positions[atoms] = one, other
    kinds[i], kinds[atoms] = first, second
    near = 1 / _near(positions, atoms + 1, i) + 1 / _near(positions, atoms + 1, atoms)
    density = prior.per_voxel / abs(rays.step_z * rays.step_t * rays.step_t)
    if accepts(gained + _weight(half, density, atoms, near), rng):
        add(model, other, heights[second], width, rays, precision)
        return atoms + 1
    add(model, one, -heights[first], width, rays, precision)
    add(model, middle, heights[kind], width, rays, precision)
    positions[i], kinds[i] = middle, kind
    return atoms


@njit(nogil=True, cache=True)
def merge(
    counts: Any,
    model: Any,
    positions: Any,
    kinds: Any,
    atoms: int,
    heights: Any,
    width: float,
    rays: Any,
    prior: Any,
    rng: Any,
    precision: float,
) -> int:
    """Try to make one of two atoms. Returns how many atoms there are."""
    if atoms < 2:
        return atoms
    i = rng.integers(0, atoms)
    count = _near(positions, atoms, i)
    if count == 0:
        return atoms
    chosen, j = rng.integers(0, count), -1
    for other in range(atoms):
        if other != i and _apart(positions, i, other) < PAIR:
            if chosen == 0:
                j = other
                break
            chosen -= 1
    one, other_place = positions[i].copy(), positions[j].copy()
    middle, half = 0.5 * (one + other_place), 0.5 * (one - other_place)
    kind, first, second = rng.integers(0, len(heights)), kinds[i], kinds[j]
    voxel = voxel_of(middle, rays, prior.size, counts.shape[2])
    if voxel < 0 or prior.births[voxel + 1] <= prior.births[voxel]:
        return atoms
    near = 1 / count + 1 / _near(positions, atoms, j)
    # The last atom takes the place of the one that goes; the new one is put where the other was.
    low, high = min(i, j), max(i, j)
    last, last_kind = positions[atoms - 1].copy(), kinds[atoms - 1]
    went, went_kind = positions[high].copy(), kinds[high]
    positions[high], kinds[high] = last, last_kind
    if is_free(positions, kinds, atoms - 1, middle, kind, low, prior.distances):
        gained = gain(counts, model, one, -heights[first], width, rays, precision)
        add(model, one, -heights[first], width, rays, precision)
        gained += gain(counts, model, other_place, -heights[second], width, rays, precision)
        add(model, other_place, -heights[second], width, rays, precision)
        gained += gain(counts, model, middle, heights[kind], width, rays, precision)
        density = prior.per_voxel / abs(rays.step_z * rays.step_t * rays.step_t)
        if accepts(gained - _weight(half, density, atoms - 1, near), rng):
            add(model, middle, heights[kind], width, rays, precision)
            positions[low], kinds[low] = middle, kind
            return atoms - 1
        add(model, one, heights[first], width, rays, precision)
        add(model, other_place, heights[second], width, rays, precision)
    positions[high], kinds[high] = went, went_kind
    return atoms
