"""The kernels that find and fit peaks, against SciPy."""

import numpy as np
import pytest
from scipy import ndimage, optimize

from nntomo_dask.kernels import peaks


@pytest.fixture
def block():
    return np.random.default_rng(3).normal(0, 1, (17, 14, 15)).astype(np.float32)


@pytest.mark.parametrize("step", [1.0, 1.5])
@pytest.mark.parametrize("width", [0.0, 0.7, 1.6])
def test_sharpened_is_the_laplacian_of_a_smoothed_block(block, width, step):
    """Values of about 10 in float32 after three passes: rounding of about 1e-6 of them each."""
    sigmas = (width / step, width, width)
    smooth = ndimage.gaussian_filter(block.astype(float), sigmas, mode="reflect", truncate=4.0)
    second = [ndimage.correlate1d(smooth, [1.0, -2.0, 1.0], axis=axis, mode="reflect") for axis in range(3)]
    expected = -(second[0] / step**2 + second[1] + second[2])
    found = peaks.sharpened(peaks.smoothed(block, width, step), step)
    np.testing.assert_allclose(found, expected, atol=3e-5)


def test_smoothing_does_not_depend_on_the_slices_around(block):
    """The same bytes from as many slices as the halo counts."""
    halo = peaks.smoothing_halo(1.2, 1.0)
    whole = peaks.smoothed(block, 1.2, 1.0)
    part = peaks.smoothed(block[8 - halo : 9 + halo], 1.2, 1.0)
    np.testing.assert_array_equal(part[halo], whole[8])


def test_maxima_are_those_of_a_maximum_filter(block):
    among = ndimage.maximum_filter(block, size=3, mode="constant", cval=-np.inf)
    expected = np.argwhere((block == among) & (block > 0.5))
    places, values = peaks.maxima(block, 0.5, low=0, high=17, first=0, count=17)
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(values, block[tuple(expected.T)])
    # In slabs, with their neighbours, as in one.
    parts = [
        peaks.maxima(block[max(low - 1, 0) : high + 1], 0.5, low=low - max(low - 1, 0), high=high - max(low - 1, 0),
                     first=max(low - 1, 0), count=17)[0]
        for low, high in ((0, 6), (6, 7), (7, 17))
    ]  # fmt: skip
    np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_of_equal_neighbours_one_is_a_maximum():
    block = np.zeros((3, 4, 5), np.float32)
    block[1, 1:3, 2:4] = 1
    places, _ = peaks.maxima(block, 0.5, low=0, high=3, first=0, count=3)
    assert places.tolist() == [[1, 1, 2]]


def test_there_may_be_any_number_of_maxima():
    block = np.zeros((2, 41, 41), np.float32)
    block[0, ::2, ::2] = 1
    places, _ = peaks.maxima(block, 0.5, low=0, high=2, first=5, count=99)
    assert len(places) == 441
    assert (places[:, 0] == 5).all()


def model(theta, places):
    value = np.full(len(places), theta[-1])
    for z, y, x, height, width in theta[:-1].reshape(-1, 5):
        squared = ((places - [z, y, x]) ** 2).sum(axis=1)
        value += height * np.exp(-squared / (2 * width**2))
    return value


@pytest.mark.parametrize("step", [1.0, 1.4])
def test_a_fit_is_the_least_squares_of_scipy(step):
    """Both end within 1e-7 of a width of the minimum; least_squares stops at 1e-12 of the sum."""
    rng = np.random.default_rng(4)
    true = np.array([[8.2, 9.1, 8.7, 2.0, 1.7], [8.9, 11.6, 9.9, 1.2, 1.5]])
    every = np.argwhere(np.ones((18, 20, 19)))
    scale = np.array([step, 1, 1])
    theta = np.append((true * [step, 1, 1, 1, 1]).ravel(), 0.4)
    block = (model(theta, every * scale) + rng.normal(0, 0.05, len(every))).reshape(18, 20, 19).astype(np.float32)
    origin = np.round(true[:, :3])
    radius, width = 4.0, 1.6
    start = np.column_stack([origin, [1.5, 1.5], [width, width]])
    found, background, left = peaks.fit(
        block,
        first=0,
        step=step,
        radius=radius,
        groups=np.array([0, 2]),
        start=start,
        origin=origin,
        others=np.array([0, 0]),
        fixed=np.zeros((0, 5)),
        width=width,
    )
    near = (((every[:, None] - origin[None]) * scale) ** 2).sum(axis=2).min(axis=1) <= radius**2
    values = block[tuple(every[near].T)].astype(float)
    expected = optimize.least_squares(
        lambda one: model(one, every[near] * scale) - values, theta, xtol=1e-12, ftol=1e-14, gtol=1e-12
    )
    np.testing.assert_allclose(found * [step, 1, 1, 1, 1], expected.x[:-1].reshape(-1, 5), atol=2e-5)
    assert background[0] == pytest.approx(expected.x[-1], abs=2e-5)
    assert left[0] == pytest.approx(np.sqrt((expected.fun**2).mean()), rel=1e-6)


def test_what_is_fixed_is_subtracted():
    """Without noise the fit is exact but for float32 and the reach of 5 widths, 4e-6 of a height."""
    every = np.argwhere(np.ones((16, 16, 16)))
    fixed = np.array([[7.5, 7.7, 11.5, 3.0, 1.8]])
    true = np.array([[7.9, 7.3, 6.2, 1.0, 1.5]])
    block = model(np.append(np.concatenate([true, fixed]).ravel(), 0.0), every).reshape(16, 16, 16).astype(np.float32)
    found, background, _ = peaks.fit(
        block,
        first=0,
        step=1.0,
        radius=3.75,
        groups=np.array([0, 1]),
        start=np.array([[8, 7, 6, 1.2, 1.5]]),
        origin=np.array([[8.0, 7, 6]]),
        others=np.array([0, 1]),
        fixed=fixed,
        width=1.5,
    )
    np.testing.assert_allclose(found, true, atol=1e-4)
    assert background[0] == pytest.approx(0, abs=1e-4)
    left = peaks.subtracted(block, np.concatenate([true, fixed]), first=0, step=1.0)
    assert np.abs(left).max() < 5e-5  # what lies beyond 5 widths


def test_a_corner_with_too_few_voxels_has_no_height():
    found, _, _ = peaks.fit(
        np.ones((1, 1, 3), np.float32),
        first=0,
        step=1.0,
        radius=2.0,
        groups=np.array([0, 1]),
        start=np.array([[0, 0, 1, 1.0, 1.0]]),
        origin=np.array([[0.0, 0, 1]]),
        others=np.array([0, 0]),
        fixed=np.zeros((0, 5)),
        width=1.0,
    )
    assert found[0, 3] == 0
