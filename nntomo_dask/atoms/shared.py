"""What all atoms share, drawn with them: their height, their width, their tails and the background.

An atom in a projection is a Gaussian of width w and, of a share of its height, one that is three times as wide: a
tenth and more of the counts of an atom in dark field are in such tails, which other atoms would explain. The four are
positive, so their logarithms θ are drawn. The likelihood of them is nearly a Gaussian, whose mean and covariance one
step of Fisher scoring tells; a draw from it is accepted by the ratio of probabilities [1]_.

References
----------
.. [1] W. K. Hastings, Monte Carlo sampling methods using Markov chains and their applications, Biometrika 57 (1970) 97,
   doi:10.1093/biomet/57.1.97.
"""

import math
from typing import Literal, NamedTuple

import numpy as np

from nntomo_dask.atoms.counts import Counted, width_and_spread_of
from nntomo_dask.kernels import atom_moves, atom_scores
from nntomo_dask.types import Float64, Integers

HEIGHT, WIDTH, LEVEL, TAIL = range(4)  # places in θ
RATIO = 3.0  # width of the tail in widths of the atom
BEGUN_TAIL = 0.025  # its height beside that of the atom: of silicon 0.02 to 0.03
_TAIL_SPREAD = 0.3  # standard deviations of logarithms
_LEVEL, _LEVEL_SPREAD = 0.03, 2.0  # beside the mean count
_UNSURE, _LEAST_SPREAD = 1.5, 0.1  # of a width from the autocorrelation, whose lags are not independent
_GIVEN = 1e-6  # of a width that is given
_FAR = 0.4  # of a step, at most
_STEP = 0.02  # of the logarithm of the width, for a derivative
_LEAST_INFORMATION = 1.0  # of a logarithm: where counts say nothing, as of noise alone, it changes by about 1 at a time
_STEPS, _NEAR = 8, 1e-3  # of a fit

Accept = Literal["always", "by probability"]


class Known(NamedTuple):
    """What is known of θ before atoms are looked at; of the height nothing."""

    means: Float64  # (4,)
    precisions: Float64  # (4,)

    @classmethod
    def of(cls, data: Counted, width: float | None) -> "Known":
        """From the autocorrelation of the series, unless the width is given [nm]."""
        if width is None:
            first, spread = width_and_spread_of(data)
            spread = max(_UNSURE * spread, _LEAST_SPREAD)
        else:
            first, spread = width, _GIVEN
        mean = float(data.counts.mean())
        level = _LEVEL * max(mean - data.read, 1e-3 * mean, 1e-9)
        precisions = [0.0, 1 / spread**2, 1 / _LEVEL_SPREAD**2, 1 / _TAIL_SPREAD**2]
        return cls(np.array([0.0, math.log(first), math.log(level), math.log(BEGUN_TAIL)]), np.array(precisions))


class Seen(NamedTuple):
    """The atoms whose θ is asked for."""

    positions: Float64  # (atom, 3) [nm]
    kinds: Integers
    weights: Float64  # (kind,): heights in units of the highest

    def images(self, data: Counted, factor: float, width: float) -> Float64:
        """(view, detector, z): projections with these weights, times a factor."""
        return atom_moves.render(self.positions, self.kinds, factor * self.weights, width, data.rays, data.shape)


class Local(NamedTuple):
    """The probability of θ near one place."""

    logarithm: float  # of the probability there
    mean: Float64  # of the Gaussian that a step of Fisher scoring tells
    lower: Float64  # Cholesky factor of its precision

    def density(self, theta: Float64) -> float:
        """Logarithm of that Gaussian, but for a constant."""
        away = self.lower.T @ (theta - self.mean)
        return float(np.log(np.diag(self.lower)).sum() - 0.5 * (away**2).sum())

    def draw(self, rng: np.random.Generator) -> Float64:
        """A place from it."""
        return np.asarray(self.mean + np.linalg.solve(self.lower.T, rng.standard_normal(4)))


def model(data: Counted, seen: Seen, theta: Float64) -> Float64:
    """(view, detector, z): the counts that are expected."""
    height, width, level, tail = np.exp(theta)
    found = data.read + level + seen.images(data, height * tail, RATIO * width)
    found += seen.images(data, height, width)
    return np.asarray(found)


def near(data: Counted, known: Known, seen: Seen, theta: Float64) -> Local:
    """The probability near θ."""
    height, width, level, tail = np.exp(theta)
    tails = seen.images(data, height * tail, RATIO * width)
    atoms = tails + seen.images(data, height, width)
    wider = seen.images(data, height, width * (1 + _STEP))
    wider += seen.images(data, height * tail, RATIO * width * (1 + _STEP))
    wider -= atoms
    wider /= _STEP
    logarithm, gradient, information = atom_scores.scores(data.counts, atoms, wider, tails, data.read, level)
    away = theta - known.means
    logarithm -= 0.5 * float((known.precisions * away**2).sum())
    gradient -= known.precisions * away
    information += np.diag(known.precisions + 1e-9 * np.diag(information) + _LEAST_INFORMATION)
    step = np.clip(np.linalg.solve(information, gradient), -_FAR, _FAR)
    return Local(logarithm, theta + step, np.linalg.cholesky(information))


def fitted(data: Counted, known: Known, seen: Seen, theta: Float64) -> Float64:
    """The most probable θ near a place."""
    for _ in range(_STEPS):
        mean = near(data, known, seen, theta).mean
        change, theta = float(np.abs(mean - theta)[[HEIGHT, WIDTH]].max()), mean
        if change < _NEAR:
            break
    return theta


def drawn(
    data: Counted, known: Known, seen: Seen, theta: Float64, rng: np.random.Generator, *, accept: Accept
) -> Float64:
    """The next θ of the chain. While atoms are missing, what is accepted always finds its way sooner."""
    here = near(data, known, seen, theta)
    proposed = here.draw(rng)
    if accept == "always":
        return proposed
    there = near(data, known, seen, proposed)
    gained = there.logarithm - here.logarithm + there.density(theta) - here.density(proposed)
    return proposed if gained >= 0 or rng.random() < math.exp(gained) else theta
