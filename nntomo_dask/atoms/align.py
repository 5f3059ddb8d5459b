"""How a set of points is moved onto another: a shift that many pairs vote for, and a rotation that is no mirror."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from nntomo_dask.types import Float64, Integers

_VOTERS = 48  # points whose distances to all others vote for a shift
_MOST_VOTES = 400_000
_TRIED = 12  # shifts of the most votes
_ROUNDS = 30
_STILL = 1e-12


@dataclass(frozen=True, eq=False)
class Move:
    """``rotation @ (place) + shift``.

    Attributes
    ----------
    rotation
        (3, 3), proper.
    shift
        (3,), [nm].
    """

    rotation: Float64
    shift: Float64

    def of(self, places: Float64) -> Float64:
        """(point, 3), moved."""
        return np.asarray(places @ self.rotation.T + self.shift)

    @property
    def degrees(self) -> float:
        """Angle of the rotation."""
        cosine = (np.trace(self.rotation) - 1) / 2
        skew = self.rotation - self.rotation.T
        sine = np.sqrt((skew**2).sum() / 8)
        return float(np.rad2deg(np.arctan2(sine, cosine)))


NOWHERE = Move(np.eye(3), np.zeros(3))


def kabsch(places: Float64, targets: Float64) -> Move:
    """The rotation and the shift that move points onto others with the least sum of squares [1]_; never a mirror.

    References
    ----------
    .. [1] W. Kabsch, A discussion of the solution for the best rotation to relate two sets of vectors, Acta
       Crystallographica A 34 (1978) 827, doi:10.1107/S0567739478001680.
    """
    middle, aim = places.mean(axis=0), targets.mean(axis=0)
    left, _, right = np.linalg.svd((places - middle).T @ (targets - aim))
    hand = np.sign(np.linalg.det(left @ right))
    rotation = right.T @ np.diag([1.0, 1.0, hand]) @ left.T
    return Move(rotation, aim - rotation @ middle)


def nearest(places: Float64, targets: Float64, limit: float) -> tuple[Integers, Integers]:
    """Pairs of points that are each other's nearest, within a limit."""
    if len(places) == 0 or len(targets) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    forth, target = cKDTree(targets).query(places, distance_upper_bound=limit)
    _, back = cKDTree(places).query(targets)
    here = np.flatnonzero(np.isfinite(forth))
    here = here[back[target[here]] == here]
    return here, np.asarray(target[here], np.int64)


def refined(places: Float64, targets: Float64, start: Move, limit: float, *, turns: bool) -> tuple[Move, int, float]:
    """A move improved by its own pairs until it is still; the pairs within the limit, and their mean square.

    Pairs are looked for within twice the limit at first, and the worst fifth is left out of the first steps.
    """
    move = start
    for round_number in range(_ROUNDS):
        wide = limit * (2 if round_number < 5 else 1)
        here, there = nearest(move.of(places), targets, wide)
        if len(here) < (4 if turns else 1):
            return move, len(here), np.inf
        apart = ((move.of(places[here]) - targets[there]) ** 2).sum(axis=1)
        if round_number < 5 and len(here) > 10:
            kept = apart <= np.quantile(apart, 0.8)
            here, there = here[kept], there[kept]
        before = move
        if turns:
            move = kabsch(places[here], targets[there])
        else:
            move = Move(move.rotation, (targets[there] - places[here] @ move.rotation.T).mean(axis=0))
        change = np.abs(move.of(places) - before.of(places)).max()
        if round_number >= 5 and change < _STILL:
            break
    here, there = nearest(move.of(places), targets, limit)
    apart = ((move.of(places[here]) - targets[there]) ** 2).sum(axis=1)
    return move, len(here), float(apart.mean()) if len(here) else np.inf


def shifts(places: Float64, targets: Float64, limit: float) -> Iterator[Float64]:
    """Shifts that may move points onto others: none, that of the means, and those that most pairs vote for."""
    yield np.zeros(3)
    middle = targets.mean(axis=0)
    yield middle - places.mean(axis=0)
    # Voters stand near the middle, where partners are likely on all sides.
    order = np.argsort(((places - places.mean(axis=0)) ** 2).sum(axis=1), kind="stable")
    voters = places[order[:_VOTERS]]
    near = np.argsort(((targets - middle) ** 2).sum(axis=1), kind="stable")[: _MOST_VOTES // len(voters)]
    votes = (targets[near][None] - voters[:, None]).reshape(-1, 3)
    tree = cKDTree(votes)
    counts = tree.query_ball_point(votes, limit, return_length=True)
    free, tried = np.ones(len(votes), bool), 0
    for one in np.lexsort(((votes**2).sum(axis=1), -counts)):
        if tried == _TRIED:
            break
        if free[one]:
            yield votes[tree.query_ball_point(votes[one], limit)].mean(axis=0)
            free[tree.query_ball_point(votes[one], 2 * limit)] = False
            tried += 1


def best(places: Float64, targets: Float64, limit: float, *, turns: bool) -> Move:
    """The move with the most pairs within a limit; of those with equally many, that with the least mean square.

    A rotation is looked for from none on: it has to be small, or known and applied before.
    """
    found: tuple[float, float, float] | None = None
    chosen = NOWHERE
    for shift in shifts(places, targets, limit):
        move, pairs, square = refined(places, targets, Move(np.eye(3), shift), limit, turns=False)
        if turns:
            move, pairs, square = refined(places, targets, move, limit, turns=True)
        score = (-pairs, square, float((move.shift**2).sum()))
        if found is None or score < found:
            found, chosen = score, move
    return chosen
