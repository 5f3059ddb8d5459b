"""Atoms from nothing, by moves that follow the evidence the more the longer they go on: simulated annealing.

At first only atoms of the heaviest element are worth more than a place without. Lighter ones appear where these have
left something. The moves that follow one state alone stay in the first that explains much, such as one heavy atom
between two light ones.
"""

import math

import numpy as np

from nntomo_dask.atoms import gradients
from nntomo_dask.atoms.gradients import Gradients
from nntomo_dask.kernels import atom_moves
from nntomo_dask.kernels.atom_grid import Prior
from nntomo_dask.types import Float64, Integers

_FIRST = 10.0  # of the evidence: what the highest atom adds to twice the logarithm of the likelihood
_ROUNDS, _LEAST_ROUNDS = 80, 60  # for a factor of e; at least
_SMALL, _LARGE, _JUMP = 15, 5, 0.07  # moves of an atom in a round with small and large shifts; a large shift [nm]
_SHARE = (0.6, 0.0), (0.5, 0.15)  # of shifts and of changes of kind, for one kind and for several
_PAIRS = 0.15  # of splits and mergers
_ACCEPTED = 0.3  # share of small shifts that should be accepted
_FIT_AFTER = 10  # rounds
_START, _ROOM = 10, 2.0  # atoms that moves are made for at least; how many may be there, of those of the prior


def annealed(
    data: Gradients, expected: Float64, heights: Float64, width: float, prior: Prior, rng: np.random.Generator
) -> tuple[Float64, Integers, Float64]:
    """Positions (atom, 3) and kinds of atoms, and the heights (kind,) that were fitted on the way."""
    first = min(1.0, _FIRST / gradients.strength(data, heights))
    rounds = max(_LEAST_ROUNDS, math.ceil(-_ROUNDS * math.log(first)))
    inside = int((np.diff(prior.births) > 0).sum())
    room = int(_ROOM * prior.per_voxel * inside) + 100
    positions, kinds, atoms, shift = np.zeros((room, 3)), np.zeros(room, np.int64), 0, 0.5 * width
    for number in range(rounds):
        share = first ** (1 - (number + 1) / rounds)
        if number % _FIT_AFTER == 0 and atoms > 0:
            heights = gradients.heights_of(data, positions[:atoms], kinds[:atoms], expected, width)
        model = share * gradients.residual(data, positions[:atoms], kinds[:atoms], heights, width)
        for steps, length in ((_SMALL, shift), (_LARGE, _JUMP)):
            atoms, done = atom_moves.moves(
                data.counts,
                model,
                positions,
                kinds,
                atoms,
                heights=heights,
                width=width,
                rays=data.rays,
                prior=prior,
                steps=steps * max(atoms, _START),
                shift=length,
                share=_SHARE[len(heights) > 1],
                rng=rng,
                precision=share * data.precision,
                pairs=_PAIRS,
            )
            if steps == _SMALL:
                accepted = done[atom_moves.SHIFTS, 0] / max(done[atom_moves.SHIFTS, 1], 1)
                shift = float(np.clip(shift * math.exp(accepted - _ACCEPTED), 1e-4, _JUMP))
    return positions[:atoms].copy(), kinds[:atoms].copy(), heights
