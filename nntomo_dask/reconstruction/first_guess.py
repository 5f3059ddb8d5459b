"""What an unrolled iteration begins with: two solutions of total variation, and what the projections say against one.

All is in units of the specimen's intensity level, on a block of slices and its halo.
"""

from dataclasses import dataclass

import numpy as np

from nntomo_dask.compute import device
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import tv_weight
from nntomo_dask.reconstruction.tv_solver import NOISY, Problem, automatic_tolerance, solve
from nntomo_dask.types import Float32

# The second solution has a lower weight, which leaves details and noise; without noise a higher one, which flattens.
_LOWER, _HIGHER = 1 / 5, 5.0
_LEAST_WEIGHT = 0.1
_ITERATIONS = 120


@dataclass(frozen=True)
class Guess:
    """Arrays (slice, y, x) of a block: two solutions x, and for the first ``Aᵀ S (y - A x)``, the descent."""

    first: Float32
    second: Float32
    descent: Float32


class Conditioned:
    """``Aᵀ S A`` and ``Aᵀ S`` of a projector pair, S the steps by frequency of `projection.conditioning`."""

    def __init__(self, pair: Projector, steps: Float32 | None = None) -> None:
        self.pair, self._steps = pair, steps

    def normal(self, images: Float32) -> Float32:
        """``Aᵀ S A x`` of images (slice, y, x)."""
        return self.back(self.pair.forward(images))

    def back(self, rows: Float32) -> Float32:
        """``Aᵀ S y`` of rows (slice, angle, detector)."""
        fft = device.fft(rows)
        xp = device.namespace(rows)
        steps = self.pair.frequency_steps(rows) if self._steps is None else xp.asarray(self._steps)
        spectra = fft.rfft(rows, axis=-1) * steps
        return self.pair.back(xp.ascontiguousarray(fft.irfft(spectra, rows.shape[-1], axis=-1), np.float32))


def weight_of(noise: float, count: int) -> float:
    """The weight of the first solution, for the noise of a ray and a number of projections."""
    return max(tv_weight.of_noise(noise, count), _LEAST_WEIGHT)


def solution(rows: Float32, pair: Projector, *, weight: float, between: float) -> Float32:
    """Total variation of rows (slice, angle, detector), values of at least 0."""
    problem = Problem(
        weight=weight,
        lower=0.0,
        upper=np.inf,
        huber=0.0,
        between=between,
        tolerance=automatic_tolerance(weight),
        max_iterations=_ITERATIONS,
    )
    return solve(rows, pair, problem, np.ones(len(pair.angles_deg)))


def guess(rows: Float32, pair: Projector, *, noise: float, between: float) -> Guess:
    """The solutions for rows (slice, angle, detector) of up to 32 neighbouring slices.

    Parameters
    ----------
    noise
        Standard deviation in a ray that crosses the specimen.
    between
        Weight of the differences between slices, see `tv_solver.Problem`.
    """
    weight = weight_of(noise, len(pair.angles_deg))
    other = weight * (_LOWER if weight >= NOISY else _HIGHER)
    first = solution(rows, pair, weight=weight, between=between)
    second = solution(rows, pair, weight=other, between=between)
    return Guess(first, second, Conditioned(pair).back(rows - pair.forward(first)))
