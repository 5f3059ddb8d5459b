"""Atoms from nothing, by moves that follow the evidence the more the longer they go on: simulated annealing.

At first only atoms of the heaviest element are worth more than a place without. Lighter ones appear where these have
left something. The moves that follow one state alone stay in the first that explains much, such as one heavy atom
between two light ones.
"""

import math
from dataclasses import dataclass

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
_LEAST_SHIFT = 1e-4  # nm
_FIT_AFTER = 10  # rounds
LEAST_ATOMS, _ROOM = 10, 2.0  # atoms that moves are made for at least; how many may be there, of those of the prior


@dataclass
class Moving:
    """Atoms that are moved, with room for more."""

    positions: Float64  # (room, 3) [nm]
    kinds: Integers
    atoms: int
    shift: float  # of small shifts [nm]

    @classmethod
    def of(cls, prior: Prior, positions: Float64, kinds: Integers, shift: float) -> "Moving":
        """A copy of some atoms, with room for as many as the prior lets be."""
        inside = int((np.diff(prior.births) > 0).sum())
        room = int(_ROOM * prior.per_voxel * inside) + 2 * len(kinds) + 100
        made = cls(np.zeros((room, 3)), np.zeros(room, np.int64), len(kinds), shift)
        made.positions[: len(kinds)], made.kinds[: len(kinds)] = positions, kinds
        return made

    def state(self) -> tuple[Float64, Integers]:
        """Positions and kinds."""
        return self.positions[: self.atoms].copy(), self.kinds[: self.atoms].copy()

    def follow(self, done: Float64, *, most: float) -> None:
        """Shifts longer or shorter by how many of them were accepted, up to a length [nm]."""
        accepted = done[atom_moves.SHIFTS, 0] / max(done[atom_moves.SHIFTS, 1], 1)
        self.shift = float(np.clip(self.shift * math.exp(accepted - _ACCEPTED), _LEAST_SHIFT, most))

    def round(
        self,
        data: Gradients,
        heights: Float64,
        width: float,
        prior: Prior,
        rng: np.random.Generator,
        *,
        share: float,
        is_free: bool,
    ) -> None:
        """20 moves of each atom, by a share of the evidence. The shift follows what is accepted where it is free to."""
        model = share * gradients.residual(data, *self.state(), heights, width)
        for steps, length in ((_SMALL, self.shift), (_LARGE, _JUMP)):
            self.atoms, done = atom_moves.moves(
                data.curvature,
                model,
                self.positions,
                self.kinds,
                self.atoms,
                heights=heights,
                width=width,
                rays=data.rays,
                prior=prior,
                steps=steps * max(self.atoms, LEAST_ATOMS),
                shift=length,
                share=_SHARE[len(heights) > 1],
                rng=rng,
                precision=share * data.precision,
                pairs=_PAIRS,
            )
            if steps == _SMALL and is_free:
                self.follow(done, most=_JUMP)


def annealed(
    data: Gradients, expected: Float64, width: float, prior: Prior, rng: np.random.Generator
) -> tuple[Float64, Integers, Float64]:
    """Positions (atom, 3) and kinds of atoms, and the heights (kind,) that were fitted on the way."""
    first = min(1.0, _FIRST / gradients.strength(data, expected))
    rounds = max(_LEAST_ROUNDS, math.ceil(-_ROUNDS * math.log(first)))
    moving = Moving.of(prior, np.zeros((0, 3)), np.zeros(0, np.int64), 0.5 * width)
    heights = expected
    for number in range(rounds):
        share = first ** (1 - (number + 1) / rounds)
        if number % _FIT_AFTER == 0 and moving.atoms > 0:
            heights = gradients.heights_of(data, *moving.state(), expected, width)
        moving.round(data, heights, width, prior, rng, share=share, is_free=True)
    return *moving.state(), heights
