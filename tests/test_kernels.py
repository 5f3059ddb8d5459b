"""The fast spellings of each kernel against its NumPy reference, and the references against analysis.

`spelling` is Numba, the CUDA sources compiled for the CPU, or CUDA on a GPU.
"""

import functools

import numpy as np
import pytest

from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import device
from nntomo_dask.kernels import backproject, cuda, filters, iterate, project, sample
from tests.conftest import ANGLES_DEG, Spelling

ANGLES_RAD = np.deg2rad(ANGLES_DEG)
SLICES = [1, 3, 8, 11, 33]  # less, as much and more than a lane group
SIZES = [7, 32, 50]  # less than a tile, one, more; odd and even

# Sums of some hundred products in single precision, rounded once each: 1e-6 of the largest value is generous.
ROUNDING = 2e-6


def close(actual, expected):
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, atol=ROUNDING * np.abs(expected).max(), rtol=0)


def single_end(biases, weights, output_bias, offset, gain, activation):
    """The end of one network; ensembles have tests of their own."""
    values = (np.array([value], np.float32) for value in (biases, weights, output_bias, offset, gain))
    return backproject.NetworkEnd(*values, activation)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("slices", SLICES)
def test_forward(spelling, rng, slices, n):
    images = rng.standard_normal((slices, n, n)).astype(np.float32)
    close(spelling(project.forward, images, ANGLES_RAD), project.forward_reference(images, ANGLES_RAD))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("slices", SLICES)
def test_back(spelling, rng, slices, n):
    sinograms = rng.standard_normal((slices, ANGLES_RAD.size, n)).astype(np.float32)
    close(spelling(project.back, sinograms, ANGLES_RAD), project.back_reference(sinograms, ANGLES_RAD))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("slices", SLICES)
def test_backproject(spelling, rng, slices, n):
    filtered = rng.standard_normal((slices, ANGLES_RAD.size, n)).astype(np.float32)
    actual = spelling(backproject.backproject, filtered, ANGLES_RAD)
    close(actual, backproject.backproject_reference(filtered, ANGLES_RAD))


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("hidden", [1, 5, 8])
@pytest.mark.parametrize("slices", [1, 11])
def test_backproject_network(spelling, rng, slices, hidden, activation):
    filtered = rng.standard_normal((slices, hidden, ANGLES_RAD.size, 33)).astype(np.float32)
    biases, weights = rng.standard_normal((2, hidden)).astype(np.float32)
    end = single_end(biases, weights, 0.3, -1.0, 3.0, activation)
    close(
        spelling(backproject.backproject_network, filtered, ANGLES_RAD, end),
        backproject.backproject_network_reference(filtered, ANGLES_RAD, end),
    )


@pytest.mark.parametrize("value", [-200.0, -88.0, -20.0, 0.0, 1.0, 20.0, 200.0])
def test_the_network_end_is_right_to_the_limits_of_the_sigmoid(spelling, value):
    """One hidden node, one angle: the output is a sigmoid of what was put in, and overflows nowhere."""
    filtered = np.full((1, 1, 1, 5), value, np.float32)
    end = single_end(np.zeros(1), np.ones(1), 0.0, 0.0, 1.0, "sigmoid")
    hidden = 1 / (1 + np.exp(-float(np.clip(value, -87, 87))))
    expected = 1 / (1 + np.exp(-hidden))
    actual = spelling(backproject.backproject_network, filtered, np.zeros(1), end)
    np.testing.assert_allclose(actual[0, 2, 2], expected, rtol=1e-6)


@pytest.mark.parametrize("sides", ["together", "apart"])
@pytest.mark.parametrize("binning", ["exponential", "none"])
@pytest.mark.parametrize("n", SIZES)
def test_sample(spelling, rng, n, binning, sides):
    sinograms = rng.standard_normal((3, ANGLES_RAD.size, n)).astype(np.float32)
    weights = rng.uniform(0.5, 2, ANGLES_RAD.size)
    edges = filters.bin_edges(n, binning=binning)
    voxels = np.column_stack([rng.integers(0, 3, 200), *rng.integers(0, n, (2, 200))])
    # Differences of running sums in double precision: rounding to float32 is all that is lost.
    close(
        spelling(functools.partial(sample.sample, sides=sides), sinograms, ANGLES_RAD, weights, edges, voxels),
        sample.sample_reference(sinograms, ANGLES_RAD, weights, edges, voxels, sides=sides),
    )


@pytest.mark.parametrize("width", [8, 64])
def test_the_halves_of_a_sirt_iteration(spelling, rng, width):
    """Against the formulas; 1000 entries are several parts of a sum, the last not full."""
    if width == 8 and spelling.module is not None:
        width = cuda.WARP
    measured, projected, gradient = rng.standard_normal((3, 1000, width)).astype(np.float32)
    weights = rng.random(1000, np.float32)
    weights[::7] = 0
    weighted = spelling.put(np.zeros_like(measured))
    norms = spelling(iterate.residual, measured, spelling.put(projected), spelling.put(weights), weighted)
    difference = measured - projected
    # Sums in double precision of squares that are exact in it.
    np.testing.assert_allclose(norms, np.linalg.norm(difference.astype(float), axis=0), rtol=1e-12)
    np.testing.assert_array_equal(device.to_host(weighted), weights[:, None] * difference)

    images, active = spelling.put(measured.copy()), rng.random(width) < 0.5
    iterate.step(images, spelling.put(gradient), spelling.put(weights), spelling.put(active), np.float32(-0.25))
    expected = np.maximum(measured + weights[:, None] * gradient, np.float32(-0.25))
    stays = ~active[None, :] | (weights[:, None] == 0)
    np.testing.assert_allclose(device.to_host(images), np.where(stays, measured, expected), rtol=2e-7)


@pytest.mark.parametrize("slices", [1, 3, 8, 20, 33])
def test_a_slice_does_not_depend_on_its_neighbours(spelling, rng, slices):
    """Bit for bit: lane groups of any width do the same operations in the same order."""
    images = rng.random((40, 20, 20), np.float32)
    sinograms = spelling(project.forward, images, ANGLES_RAD)
    part = slice(5, 5 + slices)
    np.testing.assert_array_equal(spelling(project.forward, images[part], ANGLES_RAD), sinograms[part])
    for kernel in (project.back, backproject.backproject):
        whole = spelling(kernel, sinograms, ANGLES_RAD)
        np.testing.assert_array_equal(spelling(kernel, sinograms[part], ANGLES_RAD), whole[part])


@pytest.mark.parametrize("n_angles", [5, cuda.CHUNK + 6])
@pytest.mark.parametrize("blocks", [1, 4096])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_cuda_does_what_numba_does(cuda_on_cpu, monkeypatch, rng, activation, blocks, n_angles):
    """Bit for bit where both sum in the same order; one lane group a block or several, one chunk of angles or two."""
    monkeypatch.setattr(cuda, "_BLOCKS", blocks)
    angles = np.linspace(-1.5, 1.5, n_angles)
    filtered = rng.standard_normal((35, 3, angles.size, 40)).astype(np.float32)
    biases, weights = rng.standard_normal((2, 3)).astype(np.float32)
    end = single_end(biases, weights, 0.3, -1.0, 3.0, activation)
    for kernel, block, arguments in (
        (project.back, filtered[:, 0], ()),
        (backproject.backproject, filtered[:, 0], ()),
        (backproject.backproject_network, filtered, (end,)),
    ):
        on_cpu, by_cuda = (Spelling(one)(kernel, block, angles, *arguments) for one in (None, cuda_on_cpu))
        np.testing.assert_array_equal(by_cuda, on_cpu)


@pytest.mark.parametrize("hidden", [12, 20])
def test_wide_networks_use_more_warps(cuda_on_cpu, rng, hidden):
    filtered = rng.standard_normal((1, hidden, ANGLES_RAD.size, 9)).astype(np.float32)
    biases, weights = rng.standard_normal((2, hidden)).astype(np.float32)
    end = single_end(biases, weights, 0.3, -1.0, 3.0, "relu")
    on_cpu, by_cuda = (
        Spelling(one)(backproject.backproject_network, filtered, ANGLES_RAD, end) for one in (None, cuda_on_cpu)
    )
    np.testing.assert_array_equal(by_cuda, on_cpu)


def supersampled(inside, n, factor=8):
    """(1, n, n): share of each pixel that lies inside, from factor² points in it."""
    fine = (np.arange(n * factor) + 0.5) / factor - n / 2
    return inside(fine[None, :], fine[:, None]).reshape(n, factor, n, factor).mean(axis=(1, 3))[None].astype(np.float32)


def test_projection_of_a_disc():
    """A centred disc of radius r projects to 2 sqrt(r² - t²) at every angle; 1 % of the norm."""
    n, radius = 200, 60.0
    t = np.arange(n) - (n - 1) / 2
    expected = 2 * np.sqrt(np.clip(radius**2 - t**2, 0, None))
    disc = supersampled(lambda x, y: x**2 + y**2 <= radius**2, n)
    for sinogram in project.forward(disc, ANGLES_RAD)[0]:
        assert np.linalg.norm(sinogram - expected) < 0.01 * np.linalg.norm(expected)


def test_projection_of_a_shifted_turned_ellipse():
    """At angle θ: 2ab/s² sqrt(s² - (t - t0)²), s² = a² cos²(θ-φ) + b² sin²(θ-φ), t0 = x0 cos θ + y0 sin θ."""
    n, a, b, phi, x0, y0 = 400, 110.0, 60.0, np.deg2rad(25), 24.0, -40.0

    def inside(x, y):
        u = (x - x0) * np.cos(phi) + (y - y0) * np.sin(phi)
        v = (y - y0) * np.cos(phi) - (x - x0) * np.sin(phi)
        return (u / a) ** 2 + (v / b) ** 2 <= 1

    # Averaged over the width of a detector pixel, as the image's pixels do: at its ends the root is steep.
    t = (np.arange(n) - (n - 1) / 2)[:, None] + (np.arange(20) + 0.5) / 20 - 0.5
    for angle, sinogram in zip(ANGLES_RAD, project.forward(supersampled(inside, n), ANGLES_RAD)[0], strict=True):
        squared = (a * np.cos(angle - phi)) ** 2 + (b * np.sin(angle - phi)) ** 2
        offset = t - x0 * np.cos(angle) - y0 * np.sin(angle)
        expected = (2 * a * b / squared * np.sqrt(np.clip(squared - offset**2, 0, None))).mean(axis=1)
        assert np.linalg.norm(sinogram - expected) < 0.01 * np.linalg.norm(expected)


@pytest.mark.parametrize("axis", [Axis(16.0, 12.5), Axis(11.25, 40.7), Axis(15.5, -9.0)])
def test_an_axis_that_is_not_in_the_middle(spelling, rng, axis):
    n, slices = 33, 9
    images = rng.standard_normal((slices, n, n)).astype(np.float32)
    rows = rng.standard_normal((slices, ANGLES_RAD.size, n)).astype(np.float32)
    forward, back = project.forward_reference(images, ANGLES_RAD, axis), project.back_reference(rows, ANGLES_RAD, axis)
    assert not np.allclose(forward, project.forward_reference(images, ANGLES_RAD))
    close(spelling(project.forward, images, ANGLES_RAD, axis), forward)
    close(spelling(project.back, rows, ANGLES_RAD, axis), back)
    expected = backproject.backproject_reference(rows, ANGLES_RAD, axis)
    close(spelling(backproject.backproject, rows, ANGLES_RAD, axis), expected)
    biases, weights = rng.standard_normal((2, 2)).astype(np.float32)
    end = single_end(biases, weights, 0.3, -1.0, 3.0, "relu")
    filtered = np.stack([rows, 2 * rows], axis=1)
    network = spelling(lambda block: backproject.backproject_network(block, ANGLES_RAD, end, axis=axis), filtered)
    close(network, backproject.backproject_network_reference(filtered, ANGLES_RAD, end, axis))
    voxels = np.stack([rng.integers(0, size, 40) for size in (slices, n, n)], axis=1)
    edges, shares = filters.bin_edges(n), rng.random(ANGLES_RAD.size)
    inputs = sample.sample_reference(rows, ANGLES_RAD, shares, edges, voxels, Axis(16.0, 12.5))
    close(spelling(sample.sample, rows, ANGLES_RAD, shares, edges, voxels, Axis(16.0, 12.5)), inputs)


def test_an_axis_elsewhere_is_that_of_the_whole_image(rng):
    """An image with the axis in its middle, and a part of it: the same rays, where the rest is empty."""
    part = rng.random((1, 33, 33)).astype(np.float32)
    whole = np.pad(part, ((0, 0), (4, 4), (8, 0)))
    expected = project.forward_reference(whole, ANGLES_RAD)[..., 8:]
    np.testing.assert_allclose(project.forward_reference(part, ANGLES_RAD, Axis(16.0, 12.0)), expected, rtol=1e-5)
