"""Weighted least squares of atoms to projections: Levenberg–Marquardt with conjugate gradients.

The normal equations are never made: each product is a pass over the views. Their blocks of single atoms, with what
atoms share, are the preconditioner.

References
----------
.. [1] J. Nocedal and S. J. Wright, Numerical Optimization, Springer 2006, §10.3 (Levenberg–Marquardt) and §7.1 (inexact
   steps).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

from nntomo_dask.atoms.parameters import Atoms, Parameters
from nntomo_dask.atoms.views import ACROSS, ALONG, OF_GAUSSIAN, OF_VIEW, SCALE, Gaussians, OfViews, Views
from nntomo_dask.projection.noise import Noise
from nntomo_dask.types import Bools, Float32, Float64

PerProjection = Literal["nothing", "background", "scale", "shift"]
# Which of background, scale, shift along and shift across are free.
FREE_OF_VIEWS: dict[PerProjection, Bools] = {
    "nothing": np.array([False, False, False, False]),
    "background": np.array([True, False, False, False]),
    "scale": np.array([True, True, False, False]),
    "shift": np.array([True, True, True, True]),
}
_DARK = (
    0.02  # of the brightest value: counts are taken to be at least so many, since no tail of an atom is a Gaussian's
)
_RESIDUAL, _MOST_STEPS = 1e-2, 60  # of the conjugate gradients
_START, _LARGEST, _SMALLEST = 1e-3, 1e6, 1e-9  # of the damping
_STILL, _SETTLED = 1e-4, 1e-3  # in widths; of the misfit, which noise changes by √(2 · pixels)


@dataclass(frozen=True)
class Weighing:
    """One over the variance of each pixel, from the value that the model has there."""

    noise: Noise | None  # None: one variance for all pixels, that of the residual
    brightest: float

    def weights(self, image: Float64 | Float32, variance: float) -> Float32:
        """Of the pixels of a view; `variance` where no noise is known."""
        if self.noise is None:
            return np.full(image.shape, 1 / variance, np.float32)
        dark = self.noise.background + _DARK * max(self.brightest - self.noise.background, 0)
        return (1 / self.noise.variance(np.maximum(image, dark))).astype(np.float32)


class Gauge(NamedTuple):
    """Steps of the views that change nothing that is seen, since atoms can take them: orthonormal columns."""

    of_scale: Float64  # (view, 1)
    along: Float64  # (view, 1)
    across: Float64  # (view, up to 2)

    @classmethod
    def of(cls, views: Views) -> "Gauge":
        """All scales, all shifts along the axis, and the shifts across it that a move of the specimen makes."""
        same = np.full((views.count, 1), views.count**-0.5)
        return cls(same, same, scipy.linalg.orth(views.directions))

    def left_out(self, steps: Float64) -> Float64:
        """Steps (view, 4) without those."""
        kept = steps.copy()
        for place, basis in zip((SCALE, ALONG, ACROSS), self, strict=True):
            kept[:, place] -= basis @ (basis.T @ kept[:, place])
        return kept


class Linear(NamedTuple):
    """A model near some atoms: weights, misfits, and the gradient of half of the misfit, downhill."""

    weights: list[Float32]
    misfits: Float64  # (view,): weighted sums of squares
    by_gaussian: Float64  # (Gaussian, 5)
    by_view: Float64  # (view, 4)


class Found(NamedTuple):
    """The result of a fit."""

    atoms: Atoms
    own: OfViews
    weights: list[Float32]
    misfits: Float64
    iterations: int
    converged: bool


class Fit:
    """The projections, the noise, and what may change."""

    def __init__(
        self, views: Views, data: Float32, weighing: Weighing, parameters: Parameters, per_projection: PerProjection
    ) -> None:
        self.views, self.data, self.weighing, self.parameters = views, data, weighing, parameters
        self.free_of_views = FREE_OF_VIEWS[per_projection]
        self.gauge = Gauge.of(views)

    def run(self, atoms: Atoms, own: OfViews, *, iterations: int) -> Found:
        """Fit, from these atoms."""
        damping, precision = _START, self.parameters.precision()
        now = self.linear(atoms, own)
        for iteration in range(1, iterations + 1):
            downhill = self._joined(atoms, now) - self._padded(precision * self.parameters.away(atoms))
            equations = _Equations(self, atoms, own, now.weights, precision)
            cost = now.misfits.sum() + _square(precision, self.parameters.away(atoms))
            while True:
                step = equations.solved(downhill, damping)
                new_atoms, longest = self.parameters.moved(atoms, step[: self.parameters.count])
                new_own = own.moved(self._of_views(step))
                misfits = self.misfits(new_atoms, new_own, now.weights)
                fallen = cost - misfits.sum() - _square(precision, self.parameters.away(new_atoms))
                if fallen >= 0 or damping >= _LARGEST:
                    break
                damping *= 10
            if fallen < 0:
                return Found(atoms, own, now.weights, now.misfits, iteration, converged=True)
            damping = max(damping / 10, _SMALLEST)
            atoms, own = new_atoms, new_own
            now = self.linear(atoms, own)
            if longest < _STILL and fallen < _SETTLED * max(1.0, cost / self.data.size):
                return Found(atoms, own, now.weights, now.misfits, iteration, converged=True)
        return Found(atoms, own, now.weights, now.misfits, iterations, converged=iterations == 0)

    def linear(self, atoms: Atoms, own: OfViews) -> Linear:
        """The model at some atoms."""
        shown, variance = atoms.gaussians(), 0.0
        if self.weighing.noise is None:
            squares = self.views.each(lambda view: float((self._residual(shown, own, view)[1] ** 2).sum()))
            least = (1e-6 * self.weighing.brightest) ** 2  # what float32 leaves of projections without noise
            variance = max(sum(squares) / self.data.size, least, float(np.finfo(np.float32).tiny))

        def one(view: int) -> tuple[Float32, float, Float64, Float64]:
            model, residual = self._residual(shown, own, view)
            weights = self.weighing.weights(model, variance)
            weighted = weights * residual
            by_gaussian, by_view = self.views.sums(shown, own, view, weighted)
            return weights, float((weighted * residual).sum()), by_gaussian, by_view

        weights, misfits, by_gaussian, by_view = zip(*self.views.each(one), strict=True)
        return Linear(list(weights), np.array(misfits), _total(by_gaussian), np.stack(by_view))

    def misfits(self, atoms: Atoms, own: OfViews, weights: list[Float32]) -> Float64:
        """(view,): weighted sums of squares with weights that were made before."""
        shown = atoms.gaussians()

        def one(view: int) -> float:
            return float((weights[view] * self._residual(shown, own, view)[1] ** 2).sum())

        return np.array(self.views.each(one))

    def in_units_of_noise(self, found: Found) -> Float64:
        """(view,): the misfits, each divided by what noise alone would leave of it on average."""
        noise, shown = self.weighing.noise, found.atoms.gaussians()

        def one(view: int) -> float:
            if noise is None:
                return float(self.data[view].size)
            model, _ = self._residual(shown, found.own, view)
            return float((found.weights[view] * noise.variance(model)).sum())

        fitted = (self.parameters.count + self.free_of_views.sum() * self.views.count) / self.views.count
        expected = np.maximum(np.array(self.views.each(one)) - fitted, 1)
        return np.asarray(found.misfits / expected)

    def own_height_errors(self, found: Found) -> Float64:
        """(atom,): standard errors of the heights where all else is known."""
        shown, own, chain = found.atoms.gaussians(), found.own, self.parameters.chain(found.atoms)
        blocks = self.views.each(lambda view: self.views.products(shown, own, view, found.weights[view]))
        information = (chain.T @ block_diagonal(_total(blocks)) @ chain).diagonal()[self.parameters.heights]
        return np.asarray(1 / np.sqrt(np.maximum(information, np.finfo(float).tiny)))

    def _residual(self, atoms: Gaussians, own: OfViews, view: int) -> tuple[Float64, Float64]:
        model = own.background[view] + own.scale[view] * self.views.shown(atoms, own, view)
        return model, self.data[view] - model

    def _joined(self, atoms: Atoms, now: Linear) -> Float64:
        by_view = self.gauge.left_out(np.where(self.free_of_views, now.by_view, 0))
        return np.concatenate([self.parameters.chain(atoms).T @ now.by_gaussian.ravel(), by_view.ravel()])

    def _padded(self, of_atoms: Float64) -> Float64:
        return np.concatenate([of_atoms, np.zeros(self.views.count * OF_VIEW)])

    def _of_views(self, step: Float64) -> Float64:
        return step[self.parameters.count :].reshape(-1, OF_VIEW)


class _Equations:
    """``(Jᵀ W J + precision) step = downhill`` at some atoms."""

    def __init__(self, fit: Fit, atoms: Atoms, own: OfViews, weights: list[Float32], precision: Float64) -> None:
        self.fit, self.own, self.weights, self.precision = fit, own, weights, precision
        self.shown = shown = atoms.gaussians()
        self.chain = fit.parameters.chain(atoms)
        views, free = fit.views, fit.free_of_views

        def one(view: int) -> tuple[Float64, Float64]:
            blocks = views.products(shown, own, view, weights[view])
            return blocks, _own_diagonal(views, shown, own, view, weights[view], free)

        blocks, diagonals = zip(*views.each(one), strict=True)
        self.block = self.chain.T @ block_diagonal(_total(blocks)) @ self.chain + scipy.sparse.diags(precision)
        self.diagonal = self.block.diagonal()
        self.of_views = np.stack(diagonals)

    def solved(self, downhill: Float64, damping: float) -> Float64:
        """The step, to a hundredth."""
        count, gauge = self.fit.parameters.count, self.fit.gauge
        least = max(float(self.diagonal.max(initial=0)), np.finfo(float).tiny) * 1e-14
        inverse = scipy.sparse.linalg.splu((self.block + scipy.sparse.diags(damping * self.diagonal + least)).tocsc())
        own_scale = np.where(self.fit.free_of_views, (1 + damping) * self.of_views, np.inf)
        own_scale = np.where(own_scale > 0, own_scale, np.inf)

        def preconditioned(vector: Float64) -> Float64:
            of_views = gauge.left_out(vector[count:].reshape(own_scale.shape) / own_scale)
            return np.concatenate([inverse.solve(vector[:count]), of_views.ravel()])

        def product(vector: Float64) -> Float64:
            made = self.product(vector)
            made[:count] += damping * self.diagonal * vector[:count]
            made[count:] += damping * (self.of_views.ravel() * vector[count:])
            made[count:] = gauge.left_out(made[count:].reshape(own_scale.shape)).ravel()
            return made

        return conjugate_gradients(product, downhill, preconditioned, _RESIDUAL, _MOST_STEPS)

    def product(self, vector: Float64) -> Float64:
        """The normal equations times a vector."""
        fit, views, count = self.fit, self.fit.views, self.fit.parameters.count
        by = (self.chain @ vector[:count]).reshape(-1, OF_GAUSSIAN)
        by_own = vector[count:].reshape(-1, OF_VIEW)

        def one(view: int) -> tuple[Float64, Float64]:
            change = views.change(self.shown, self.own, view, by, by_own[view])
            return views.sums(self.shown, self.own, view, self.weights[view] * change)

        by_gaussian, by_view = zip(*views.each(one), strict=True)
        of_atoms = self.chain.T @ _total(by_gaussian).ravel() + self.precision * vector[:count]
        return np.concatenate([of_atoms, np.where(fit.free_of_views, np.stack(by_view), 0).ravel()])


def conjugate_gradients(
    product: Callable[[Float64], Float64],
    right: Float64,
    preconditioned: Callable[[Float64], Float64],
    tolerance: float,
    most: int,
) -> Float64:
    """Solve ``product(x) = right``, from zero, until the preconditioned residual is so small a share of the first."""
    x, residual = np.zeros(right.size), right.copy()
    z = preconditioned(residual)
    direction, size = z, float(residual @ z)
    enough = size * tolerance**2
    for _ in range(most):
        if size <= enough or size <= 0:
            break
        made = product(direction)
        curvature = float(direction @ made)
        if curvature <= 0:
            break
        x = x + size / curvature * direction
        residual = residual - size / curvature * made
        z = preconditioned(residual)
        new = float(residual @ z)
        direction, size = z + new / size * direction, new
    return x


def block_diagonal(blocks: Float64) -> scipy.sparse.csr_matrix:
    """A sparse matrix of blocks (number, size, size) along its diagonal."""
    n, size, _ = blocks.shape
    matrix = scipy.sparse.bsr_matrix((blocks, np.arange(n), np.arange(n + 1)), shape=(n * size, n * size))
    return matrix.tocsr()


def own_changes(views: Views, atoms: Gaussians, own: OfViews, view: int, free: Bools) -> list[Float64]:
    """The derivatives of a view by those of its own parameters that are free, images (z, detector)."""
    still = np.zeros((len(atoms.heights), OF_GAUSSIAN))
    return [views.change(atoms, own, view, still, np.eye(OF_VIEW)[place]) for place in np.flatnonzero(free)]


def _own_diagonal(views: Views, atoms: Gaussians, own: OfViews, view: int, weights: Float32, free: Bools) -> Float64:
    found = np.zeros(OF_VIEW)
    found[free] = [float((weights * change**2).sum()) for change in own_changes(views, atoms, own, view, free)]
    return found


def _total(parts: Sequence[Float64]) -> Float64:
    """Their sum, in their order."""
    total = np.zeros(parts[0].shape)
    for part in parts:
        total += part
    return total


def _square(precision: Float64, away: Float64) -> float:
    return float(precision @ away**2)
