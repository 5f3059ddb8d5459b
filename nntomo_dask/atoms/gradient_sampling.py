"""Atoms sampled from projections whose noise is white in the gradient, as of iDPC."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from nntomo_dask.arrays import recipes
from nntomo_dask.atoms import annealing, gradients, heights as heights_room, table
from nntomo_dask.atoms.consensus import consensus, heights_in_volume, refuse_none, table_of
from nntomo_dask.atoms.gradients import Gradients
from nntomo_dask.kernels import atom_moves
from nntomo_dask.kernels.atom_grid import Prior
from nntomo_dask.types import Float64, Integers

PACKED = 0.1  # atoms in a cube as wide as their least distance; light atoms are far from as dense as that
_WHO = "sample_atoms"
_LEAST = 0.05  # share of the samples in which an atom is looked at at all
_FITTED = (1, 3, 6, 10, 15, 20)  # rounds after which height and width are fitted again


class Start(NamedTuple):
    """What is known before any atom is found."""

    heights: Float64  # (kind,), in a projection
    width: float  # [nm]
    is_known: bool  # the width


class Rounds(NamedTuple):
    """The settings of `sample_atoms` with these names."""

    burn_in: int
    samples: int
    agreement: float | None


def start(
    data: Gradients, atoms: xr.Dataset, symbols: tuple[str, ...], *, exponent: float | None, width: float | None
) -> Start:
    """Heights and width of the elements; from the atoms of a table where the series is no phase in radians."""
    weights = heights_room.weights(symbols, exponent, signal="phase")
    highest = max((heights_room.potential(symbol) for symbol in symbols), default=None)
    found = width or gradients.width_of(data)
    heights = gradients.expected_heights(data, table.positions(atoms), weights, highest, found)
    return Start(heights, found, width is not None)


def sampled(
    data: Gradients,
    begun: Start,
    prior: Prior,
    symbols: tuple[str, ...],
    rounds: Rounds,
    rng: np.random.Generator,
    *,
    recipe: recipes.Recipe,
) -> xr.Dataset:
    """The table of `sample_atoms`. Sampling begins with no atom and little evidence, see `annealing`."""
    positions, kinds, heights = annealing.annealed(data, begun.heights, begun.width, prior, rng)
    heights, width, taken = _walk(data, begun, positions, kinds, heights, prior, rounds, rng)
    near = float(prior.distances.min())
    least = rounds.agreement or _LEAST
    agreed = consensus(taken, len(symbols), near / 2, least)
    if rounds.agreement is None:
        expected = float(np.mean([len(one) for _, one in taken]))
        agreed = agreed.only(agreed.shares >= best_agreement(agreed.shares, expected))
    places, species, *_ = agreed
    if len(places) == 0:
        refuse_none(_WHO, least)
    rest = gradients.residual(data, places, species, heights, width)
    less = np.array(
        [
            atom_moves.change(rest, rest, place, -float(heights[kind]), width, data.rays, precision=data.precision)
            for place, kind in zip(places, species, strict=True)
        ]
    )
    in_volume = heights_in_volume(heights[species], width, data.pixel)
    return table_of(agreed, symbols, in_volume, width, less, distance=near, recipe=recipe)


def best_agreement(shares: Float64, expected: float) -> float:
    """The least share with which the expected harmonic mean of recall and precision is highest.

    Of k atoms with probabilities p, where `expected` atoms are there in all, that is about ``2 Σ p / (k + expected)``.
    """
    if len(shares) == 0:
        return 1.0
    falling = np.sort(shares)[::-1]
    means = 2 * np.cumsum(falling) / (np.arange(1, len(falling) + 1) + expected)
    return float(falling[int(means.argmax())])


def _walk(
    data: Gradients,
    begun: Start,
    positions: Float64,
    kinds: Integers,
    heights: Float64,
    prior: Prior,
    rounds: Rounds,
    rng: np.random.Generator,
) -> tuple[Float64, float, list[tuple[Float64, Integers]]]:
    """Heights, width, and positions and kinds of the atoms of each sample."""
    moving = annealing.Moving.of(prior, positions, kinds, 0.5 * begun.width)
    width, taken = begun.width, []
    for number in range(rounds.burn_in + rounds.samples):
        if number in _FITTED and moving.atoms > 0:
            places, species = moving.state()
            if not begun.is_known:
                width = gradients.better_width(data, places, species, begun.heights, width)
            heights = gradients.heights_of(data, places, species, begun.heights, width)
        moving.round(data, heights, width, prior, rng, share=1.0, is_free=number < rounds.burn_in)
        if number >= rounds.burn_in:
            taken.append(moving.state())
    return heights, width, taken
