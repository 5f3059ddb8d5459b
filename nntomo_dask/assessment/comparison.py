"""Candidates compared by their misfits at the projections that were left out: pairwise, with standard errors.

The same projections are left out for all candidates, and their noise is the same; so the ratios of two candidates,
projection by projection, say more than the two means. Projections far from others are predicted with many times the
misfit of others, whatever the method; as ratios all of them count alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nntomo_dask.types import Float64

# A ratio within the first is a tie; what is to be called better than the baseline differs by the second. Probabilities
# of a normal distribution up to one and two deviations; few projections need more of them (Student's t).
_ONE, _TWO = 0.8413, 0.9772
_LEAST = np.finfo(np.float64).tiny  # a misfit of zero is taken as this


def _limit(probability: float, folds: int) -> float:
    """Standard errors that a mean over some folds stays below with this probability, by Student's t."""
    from scipy import stats  # a tenth of a second, which no help text has to wait for

    return float(stats.t.ppf(probability, folds - 1))


@dataclass(frozen=True)
class Ratio:
    """How many times larger the misfit of one candidate is than that of another, over the projections left out.

    Attributes
    ----------
    mean
        The mean of the logarithms of the ratios.
    standard_error
        Of that mean.
    folds
        How many ratios there are.
    """

    mean: float
    standard_error: float
    folds: int

    @property
    def times(self) -> float:
        """The ratio itself, a geometric mean."""
        return float(np.exp(self.mean))

    @property
    def is_tie(self) -> bool:
        """Whether it is 1 within about one standard error."""
        return abs(self.mean) <= _limit(_ONE, self.folds) * self.standard_error

    @property
    def is_clear(self) -> bool:
        """Whether it is above 1 by more than about two standard errors."""
        return self.mean > _limit(_TWO, self.folds) * self.standard_error


def ratio(first: Float64, second: Float64) -> Ratio:
    """How many times larger the misfits (fold,) of the first are than those of the second."""
    each = np.log(np.maximum(first, _LEAST)) - np.log(np.maximum(second, _LEAST))
    return Ratio(float(each.mean()), float(each.std(ddof=1) / np.sqrt(each.size)), each.size)


def typical(misfits: Float64) -> float:
    """The geometric mean of misfits (fold,)."""
    return float(np.exp(np.log(np.maximum(misfits, _LEAST)).mean()))


@dataclass(frozen=True)
class Ranks:
    """What follows from the misfits of all candidates.

    Attributes
    ----------
    order
        All candidates, the least misfit first.
    against_best
        Of each candidate, how many times larger its misfit is than that of the best.
    tied
        Whether that is a tie; the best is tied with itself.
    chosen
        The candidate that is recommended.
    """

    order: tuple[int, ...]
    against_best: tuple[Ratio, ...]
    tied: tuple[bool, ...]
    chosen: int

    @property
    def best(self) -> int:
        """The candidate with the least misfit."""
        return self.order[0]


def ranks(misfits: Float64, *, kinds: Sequence[str], ranks: Sequence[float], learned: Sequence[bool]) -> Ranks:
    """Compare candidates, and choose one.

    The best is chosen, with three exceptions. The baseline is, where the best is not clearly better than it. A method
    without a network is, where it is tied with a network. And of the settings of a method that are tied with its best,
    those are chosen that the method prefers.

    Parameters
    ----------
    misfits
        (candidate, fold); the first candidate is the baseline.
    kinds
        The method of each candidate.
    ranks
        Of each candidate, a number that is lower the more its method prefers these settings among equals.
    learned
        Of each candidate, whether it is a network.
    """
    order = np.argsort([typical(one) for one in misfits], kind="stable")
    best = int(order[0])
    against = [ratio(one, misfits[best]) for one in misfits]
    tied = [one.is_tie for one in against]
    chosen = best
    if not ratio(misfits[0], misfits[best]).is_clear:
        chosen = 0
    else:
        if learned[chosen]:
            chosen = next((int(one) for one in order if tied[one] and not learned[one]), chosen)
        alike = [k for k in range(len(misfits)) if kinds[k] == kinds[chosen] and learned[k] == learned[chosen]]
        equal = [k for k in alike if ratio(misfits[k], misfits[chosen]).is_tie]
        chosen = min(equal, key=lambda k: (ranks[k], int(np.flatnonzero(order == k)[0])))
    return Ranks(tuple(int(one) for one in order), tuple(against), tuple(tied), chosen)
