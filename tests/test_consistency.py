"""Volumes that are moved to what the projections say, against dense least squares in double precision."""

import dask
import numpy as np
import pytest
from scipy.optimize import lsq_linear

import nntomo_dask as nt
from nntomo_dask.compute import device, reporting
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import consistency
from nntomo_dask.reconstruction.consistency import finished

SIZE = 12
ANGLES_DEG = np.array([-60.0, -20.0, 10.0, 45.0, 80.0])
NOISE = (0.0, 0.3, 0.0)  # gain, read-out noise, background


@pytest.fixture(scope="module", params=[None, (4.2, 6.1)], ids=["middle", "aside"])
def pair(request):
    return nt.projector(ANGLES_DEG, SIZE, axis=request.param)


@pytest.fixture
def volume(rng):
    """What somebody proposes: nine slices, whose voxels should lie between 0 and 1."""
    return rng.normal(0.4, 0.5, (9, SIZE, SIZE)).astype(np.float32)


@pytest.fixture
def rows(rng, pair):
    truth = rng.random((9, SIZE, SIZE), np.float32)
    return pair.forward(truth) + rng.normal(0, 0.3, (9, ANGLES_DEG.size, SIZE)).astype(np.float32)


def matrix(pair):
    """A as (ray, pixel), in double precision."""
    units = np.eye(SIZE**2, dtype=np.float32).reshape(-1, SIZE, SIZE)
    return pair.forward(units).reshape(len(units), -1).T.astype(np.float64)


def dense(volume, rows, pair, weight, bounds=(-np.inf, np.inf)):
    """The minimum of one slice by the normal equations, or by an active-set method where there are bounds."""
    stacked = np.vstack([matrix(pair), np.sqrt(weight) * np.eye(SIZE**2)])
    target = np.concatenate([rows.ravel(), np.sqrt(weight) * volume.ravel()]).astype(np.float64)
    if np.isinf(bounds).all():
        solution = np.linalg.solve(stacked.T @ stacked, stacked.T @ target)
    else:
        solution = lsq_linear(stacked, target, bounds, method="bvls").x
    return solution.reshape(SIZE, SIZE)


@pytest.mark.parametrize("bounds", [(None, None), (0.0, None), (None, 0.5), (0.1, 0.9)])
@pytest.mark.parametrize("weight", [0.5, 20.0])
def test_against_dense_least_squares(volume, rows, pair, weight, bounds):
    """Converged; single precision leaves 1e-5 of the line integrals, over a weight of 0.5 of what a voxel gets."""
    found = finished(
        volume, rows, pair, weight=weight, minimum=bounds[0], maximum=bounds[1], noise=NOISE, iterations=800
    )
    lower, upper = (-np.inf if bounds[0] is None else bounds[0]), (np.inf if bounds[1] is None else bounds[1])
    for z in (0, 8):
        expected = dense(volume[z], rows[z], pair, weight, (lower, upper))
        np.testing.assert_allclose(found[z], expected, atol=2e-4)


def test_few_iterations_are_near(volume, rows, pair):
    """By default, with the weight of a network that is wrong by 0.1 with noise of 0.3."""
    found = finished(volume, rows, pair, weight=9.0)
    expected = dense(volume[3], rows[3], pair, 9.0, (0, np.inf))
    start = np.maximum(volume[3], 0)
    assert np.linalg.norm(found[3] - expected) < 0.02 * np.linalg.norm(start - expected)


def test_the_limits(volume, rows, pair):
    """A large weight leaves the volume; a weight of 0 fits the projections and moves the volume as little as can be."""
    np.testing.assert_allclose(finished(volume, rows, pair, weight=1e9), np.maximum(volume, 0), atol=1e-6)
    found = finished(volume, rows, pair, weight=0.0, minimum=None, iterations=3000)
    nearest = volume[2].ravel() + np.linalg.pinv(matrix(pair)) @ (rows[2].ravel() - matrix(pair) @ volume[2].ravel())
    # Differences that no volume explains make q grow without a limit, and single precision lose digits of it.
    np.testing.assert_allclose(found[2].ravel(), nearest, atol=2e-2)


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_bounds_are_kept_after_any_number_of_iterations(volume, rows, pair, iterations):
    found = finished(volume, rows, pair, weight=1.0, minimum=0.2, maximum=0.6, iterations=iterations)
    assert found.min() == np.float32(0.2)
    assert found.max() == np.float32(0.6)


def test_the_automatic_weight_is_the_ratio_of_the_variances(rng):
    """White errors of voxels: four fifths of what the right weight gains.

    576 rays of 4,096 voxels, with as much noise as error: a fourteenth of the squares can be known.
    """
    size, angles = 64, nt.tilt_angles("tem", 9)
    pair = Projector(angles, size)
    truth = rng.random((16, size, size), np.float32)
    volume = truth + rng.normal(0, 0.2, truth.shape).astype(np.float32)
    rows = pair.forward(truth) + rng.normal(0, 2.0, (16, angles.size, size)).astype(np.float32)

    def error(**weight):
        found = finished(volume, rows, pair, minimum=None, **weight)
        return float(((found - truth) ** 2).mean())

    before, right = float(((volume - truth) ** 2).mean()), error(weight=(2.0 / 0.2) ** 2)
    assert right < 0.97 * before
    assert error(weight="auto", noise=(0, 2.0, 0)) < right + 0.2 * (before - right)
    assert right < error(weight=1.0)
    assert right < error(weight=1e4)


def test_a_right_volume_is_left_alone(rng):
    """Of a volume that differs from the projections by noise alone less than 2 % of the squares of a fit come in."""
    size, angles = 64, nt.tilt_angles("tem", 9)
    pair = Projector(angles, size)
    truth = rng.random((16, size, size), np.float32)
    rows = pair.forward(truth) + rng.normal(0, 2.0, (16, angles.size, size)).astype(np.float32)
    moved, fitted = (
        float(((finished(truth, rows, pair, minimum=None, **arguments) - truth) ** 2).mean())
        for arguments in ({"noise": (0, 2.0, 0)}, {"weight": 1.0})
    )
    assert moved < 0.02 * fitted


def test_a_gain_and_a_background_are_noise_too(rng):
    """Of a ray of 30 above the background: the variance of Poisson's noise, like that of the read-out."""
    size, angles = 32, nt.tilt_angles("tem", 9)
    pair = Projector(angles, size)
    volume = rng.random((3, size, size), np.float32)
    rows = np.full((3, angles.size, size), 50, np.float32)
    found = finished(volume, rows, pair, noise=(0.1, 2.0, 20.0))
    np.testing.assert_allclose(found, finished(volume, rows, pair, noise=(0, np.sqrt(4 + 0.1 * 30), 0)), rtol=1e-5)


def test_what_was_not_measured_has_no_noise(rng):
    """Half of the detector is padding, so that the mean variance is half as large."""
    size, angles = 32, nt.tilt_angles("tem", 9)
    pair = Projector(angles, size)
    volume, rows = rng.random((3, size, size), np.float32), 20 * rng.random((3, angles.size, size), np.float32)
    half = finished(volume, rows, pair, noise=(0, np.sqrt(0.5), 0))
    np.testing.assert_allclose(finished(volume, rows, pair, noise=(0, 1.0, 0), pad=8), half, rtol=1e-5)


def test_nothing_from_nothing(pair):
    """Empty slices, without noise, divide nothing by zero."""
    empty = np.zeros((2, SIZE, SIZE), np.float32), np.zeros((2, ANGLES_DEG.size, SIZE), np.float32)
    for arguments in ({}, {"noise": NOISE}, {"weight": 0.0}):
        np.testing.assert_array_equal(finished(*empty, pair, **arguments), 0)


@pytest.mark.parametrize("weight", ["auto", 5.0])
def test_a_slice_does_not_depend_on_the_others(rng, weight):
    """Bit for bit, in lane groups of any width and at any place in them."""
    size = 24
    pair = Projector(ANGLES_DEG, size)
    volume, rows = rng.random((70, size, size), np.float32), 9 * rng.random((70, ANGLES_DEG.size, size), np.float32)
    whole = finished(volume, rows, pair, weight=weight, noise=NOISE)
    for part in (slice(0, 1), slice(3, 12), slice(20, 40), slice(31, 70)):
        alone = finished(volume[part], rows[part], pair, weight=weight, noise=NOISE)
        np.testing.assert_array_equal(alone, whole[part])


@pytest.mark.parametrize("weight", ["auto", 5.0])
def test_a_gpu_gives_what_the_cpu_gives(cuda_on_cpu, rng, weight):
    """From host memory in groups of 32 slices, and from blocks on the GPU, which stay there."""
    size = 24
    pair = Projector(ANGLES_DEG, size)
    volume, rows = rng.random((70, size, size), np.float32), 9 * rng.random((70, ANGLES_DEG.size, size), np.float32)
    expected = finished(volume, rows, pair, weight=weight, noise=NOISE)
    need = 32 * consistency.device_bytes_per_slice((32, ANGLES_DEG.size, size)) / 0.9
    with dask.config.set({"nntomo_dask.device": "gpu", "nntomo_dask.gpu_memory": int(need) + 2**20 + 1024}):
        streamed = finished(volume, rows, pair, weight=weight, noise=NOISE)
    np.testing.assert_allclose(streamed, expected, atol=1e-5)
    there = finished(volume[:9], cuda_on_cpu.asarray(rows[:9]), pair, weight=weight, noise=NOISE)
    assert device.is_on_gpu(there)
    np.testing.assert_array_equal(device.to_host(there), streamed[:9])


def test_the_squares_are_told(volume, rows, pair):
    with reporting.listening() as told, reporting.slab("test") as figures:
        found = finished(volume, rows, pair, weight=9.0)
        figures.slices = len(found)
    (one,) = told
    before = rows - pair.forward(np.maximum(volume, 0))
    wanted = [float((values.astype(np.float64) ** 2).sum()) for values in (rows, before, rows - pair.forward(found))]
    measured = [one.measured_squares, one.before_squares, one.after_squares]
    np.testing.assert_allclose(measured, wanted, rtol=1e-4)
