"""Shifting and turning projections by cubic B-splines."""

import numpy as np
import pytest

from nntomo_dask.kernels import warp

rng = np.random.default_rng(12)


@pytest.mark.parametrize("shape", [(2, 9, 12), (1, 1, 7), (3, 6, 1), (1, 2, 2)])
@pytest.mark.parametrize("middle", [None, (3.25, 4.0)])
def test_compiled_equals_reference(shape, middle):
    splines = warp.coefficients(rng.standard_normal(shape).astype(np.float32))
    where = (np.arange(-5.0, 6.0), np.linspace(-7, 7, 13), rng.uniform(-4, 4, (shape[0], 2)))
    turns = rng.uniform(-30, 30, shape[0])
    found = warp.warp(splines, *where, turns, middle)
    expected = warp.warp_reference(splines, *where, turns, middle)
    # Sixteen products of float32 coefficients of order 3, summed in float64 by both, rounded to float32 at the end.
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=3e-6)


def test_without_shift_the_images_come_back():
    images = rng.standard_normal((2, 20, 17)).astype(np.float32)
    grid = np.arange(20) - 9.5, np.arange(17) - 8.0
    found = warp.warp(warp.coefficients(images), *grid, np.zeros((2, 2)), np.zeros(2))
    # Coefficients are float32 and up to about 6 times as large as pixels of order 1.
    np.testing.assert_allclose(found, images, atol=1e-5)


def test_follows_the_formula_of_an_alignment():
    """A smooth blob is drawn where the formula says that the raw image has it, and lands where it belongs."""
    along, across = np.arange(64) - 31.5, np.arange(80) - 39.5
    place, shift, turn = np.array([4.0, -7.0]), np.array([2.3, -5.6]), 11.0
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    raw = np.array([[cos, -sin], [sin, cos]]) @ (place + shift)

    def blob(centre):
        squares = (along[:, None] - centre[0]) ** 2 + (across[None, :] - centre[1]) ** 2
        return np.exp(-squares / 32).astype(np.float32)

    found = warp.warp(warp.coefficients(blob(raw))[None], along, across, shift[None], np.array([turn]))[0]
    # The error of cubic splines on a Gaussian of 4 pixels: below (π/2/4)⁴ / 30 of its height, about 1e-3.
    np.testing.assert_allclose(found, blob(place), atol=1e-3)


def test_edges_are_continued_and_said_to_be_no_measurement():
    images = np.ones((1, 10, 10), np.float32) * np.arange(10, dtype=np.float32)
    grid = np.arange(10) - 4.5
    where = (grid, grid, np.array([[0.0, 6.0]]), np.zeros(1))
    found = warp.warp(warp.coefficients(images), *where)
    inside = warp.measured((10, 10), *where)
    # Float32 coefficients of values up to 9.
    np.testing.assert_allclose(found[0, 0], np.minimum(np.arange(10) + 6.0, 9.0), atol=1e-5)
    assert inside[0, 0].tolist() == [True] * 4 + [False] * 6
    assert inside[0].all(axis=0).tolist() == [True] * 4 + [False] * 6


def test_lines_that_are_asked_for_alone_are_those_of_the_whole():
    images = rng.standard_normal((2, 16, 16)).astype(np.float32)
    splines, grid = warp.coefficients(images), np.arange(16) - 7.5
    how = (rng.uniform(-2, 2, (2, 2)), np.array([3.0, -2.0]))
    whole = warp.warp(splines, grid, grid, *how)
    np.testing.assert_array_equal(warp.warp(splines, grid[3:7], grid, *how), whole[:, 3:7])
