"""Projections of Gaussians and their derivatives: against plain NumPy, finite differences and an integral."""

import numpy as np
import pytest

from nntomo_dask.kernels import gaussians
from nntomo_dask.kernels.gaussians import REACH, Grid

SHAPE = (40, 33)
GRIDS = {
    "points": Grid(-2.0, 0.1, -1.6, 0.1, 0.1),
    "means": Grid(-2.0, 0.1, -1.6, 0.1, 0.1, 0.05, 0.05),
    "descending, coarser slices": Grid(2.0, -0.13, 1.6, -0.1, 0.2, 0.065, 0.05),
}
ON_GRIDS = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


@pytest.fixture
def some(rng):
    """Centres and widths of Gaussians, at the rim and outside of the view too."""
    centres = np.concatenate([rng.uniform(-1.2, 1.2, (12, 2)), [[-2.1, 0.3], [0.2, 1.62], [30.0, 0.0], [0.0, -30.0]]])
    return centres, rng.uniform(0.08, 0.25, len(centres))


@ON_GRIDS
def test_against_the_reference(some, grid, rng):
    centres, widths = some
    exact = gaussians.derivatives_reference(centres, widths, grid, SHAPE, reach=REACH)
    coefficients, image = rng.standard_normal((len(centres), 4)), rng.standard_normal(SHAPE)
    made = image.copy()
    gaussians.add(centres, widths, coefficients, grid, made)
    # Sums of up to 12 Gaussians with derivatives of up to 60: differences of error functions lose two digits.
    np.testing.assert_allclose(made, image + np.einsum("ac,aczt->zt", coefficients, exact), atol=1e-10)
    np.testing.assert_allclose(
        gaussians.correlate(centres, widths, grid, image), np.einsum("aczt,zt->ac", exact, image), atol=1e-9
    )
    weights = rng.uniform(0.5, 2, SHAPE)
    pairs = np.array([(0, 0), (0, 1), (1, 0), (2, 7), (5, 12), (13, 3), (14, 15), (0, 14)])
    expected = np.einsum("pczt,zt,pdzt->pcd", exact[pairs[:, 0]], weights, exact[pairs[:, 1]])
    np.testing.assert_allclose(
        gaussians.cross_products(centres, widths, pairs, grid, weights), expected, rtol=1e-9, atol=1e-9
    )
    own = np.einsum("aczt,zt,adzt->acd", exact, weights, exact)
    np.testing.assert_allclose(gaussians.products(centres, widths, grid, weights), own, rtol=1e-9, atol=1e-9)


@ON_GRIDS
def test_derivatives_are_differences(some, grid):
    centres, widths = some
    step = 1e-5
    exact = gaussians.derivatives_reference(centres, widths, grid, SHAPE)

    def value(by_z, by_t, by_width):
        moved = centres + np.array([by_z, by_t])
        return gaussians.derivatives_reference(moved, widths + by_width, grid, SHAPE)[:, 0]

    for place in range(3):
        shift = step * np.eye(3)[place]
        difference = (value(*shift) - value(*-shift)) / (2 * step)
        # Third derivatives are below 25 / w³ ≈ 5e4 here: an error of step² / 6 times that, 1e-16 / step of rounding.
        np.testing.assert_allclose(exact[:, place + 1], difference, atol=2e-6)


def test_value_is_a_line_integral():
    """The sum over depth of a sampled Gaussian, with lengths in pixels of 0.1, is its projection."""
    y = 0.1 * np.arange(-60, 61)
    width, centre = 0.2, np.array([[0.33, -0.21]])
    grid = GRIDS["points"]
    z, t = (first + step * np.arange(n) for first, step, n in ((-2, 0.1, SHAPE[0]), (-1.6, 0.1, SHAPE[1])))
    distance = (z[:, None, None] - 0.33) ** 2 + (t[None, :, None] + 0.21) ** 2 + y**2
    summed = np.exp(-distance / (2 * width**2)).sum(axis=2)
    made = gaussians.derivatives_reference(centre, np.array([width]), grid, SHAPE)[0, 0]
    np.testing.assert_allclose(made, summed, atol=1e-10)  # sampled at half a width, the sum is exact to 2 exp(-8 π²)


def test_means_are_means_of_points(some):
    """A pixel's mean is that of points in it, up to the error of the trapezoidal rule."""
    centres, widths = some
    parts = 20
    grid = GRIDS["means"]
    fine = Grid(-2.05 + 0.05 / parts, 0.1 / parts, -1.65 + 0.05 / parts, 0.1 / parts, 0.1)
    points = gaussians.derivatives_reference(centres, widths, fine, (SHAPE[0] * parts, SHAPE[1] * parts))
    means = points.reshape(len(centres), 4, SHAPE[0], parts, SHAPE[1], parts).mean(axis=(3, 5))
    made = gaussians.derivatives_reference(centres, widths, grid, SHAPE)
    # The midpoint rule: (step² / 24) times second derivatives, 1e-6 of up to 4 / w² ≈ 600 times the derivatives.
    np.testing.assert_allclose(made, means, atol=2e-3 * np.abs(made).max())


def test_what_lies_beyond_the_reach_is_small(some):
    centres, widths = some
    grid = GRIDS["points"]
    full = gaussians.derivatives_reference(centres, widths, grid, SHAPE)[:, 0]
    cut = gaussians.derivatives_reference(centres, widths, grid, SHAPE, reach=REACH)[:, 0]
    # exp(-REACH² / 2) of the largest.
    assert np.abs(full - cut).max() <= 4e-6 * full.max()
