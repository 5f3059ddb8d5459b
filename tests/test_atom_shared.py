"""What all atoms share: its likelihood, and how it is drawn."""

import numpy as np
import pytest

from nntomo_dask.atoms import shared
from nntomo_dask.atoms.counts import Counted, width_and_spread_of
from nntomo_dask.kernels import atom_scores
from nntomo_dask.kernels.atom_moves import Rays

pytestmark = pytest.mark.xdist_group("sampled atoms")  # one process compiles their kernels

THETA = np.log([3.0, 0.045, 0.05, 0.03])  # height, width, level, tail
SHAPE = 6, 30, 30
STEP = 0.03


@pytest.fixture(scope="module")
def seen():
    rng = np.random.default_rng(0)
    return shared.Seen(rng.uniform(-0.25, 0.25, (8, 3)), rng.integers(0, 2, 8), np.array([1.0, 0.4]))


@pytest.fixture(scope="module")
def data(seen):
    angles, first = np.deg2rad(np.linspace(-75, 75, SHAPE[0])), -(SHAPE[1] - 1) / 2 * STEP
    rays = Rays(np.cos(angles), np.sin(angles), first, STEP, first, STEP)
    empty = Counted(np.zeros(SHAPE), 0.2, 1.0, 0.0, rays, STEP)
    expected = shared.model(empty, seen, THETA)
    return empty._replace(counts=np.random.default_rng(1).poisson(expected).astype(float))


def test_scores_are_those_of_the_reference():
    rng = np.random.default_rng(0)
    atoms, wider, tails = rng.uniform(0, 1, (3, *SHAPE))
    counts = rng.poisson(atoms + 0.3).astype(float)
    assert (counts == 0).any()
    found = atom_scores.scores(counts, atoms, wider, tails, 0.1, 0.2)
    wanted = atom_scores.scores_reference(counts, atoms, wider, tails, 0.1, 0.2)
    # Sums of 5400 terms in another order.
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


def test_a_step_goes_where_the_probability_grows(data, seen):
    known = shared.Known.of(data, None)
    at = THETA + np.array([0.05, 0.02, -0.1, 0.1])
    here = shared.near(data, known, seen, at)
    gradient = here.lower @ here.lower.T @ (here.mean - at)
    # A width changes where Gaussians end too, at 3.5 widths, and its derivative is a difference over 2 %.
    for place, share in ((shared.HEIGHT, 0.01), (shared.LEVEL, 0.01), (shared.TAIL, 0.01), (shared.WIDTH, 0.1)):
        step = 0.02 * np.eye(4)[place]
        up, down = (shared.near(data, known, seen, at + sign * step).logarithm for sign in (1, -1))
        scale = np.sqrt((here.lower @ here.lower.T)[place, place])
        assert gradient[place] == pytest.approx((up - down) / 0.04, abs=share * scale + 0.02 * abs(gradient[place]))


def test_a_fit_finds_what_made_the_counts(data, seen):
    known = shared.Known.of(data, None)
    found = shared.fitted(data, known, seen, THETA + np.array([0.5, -0.3, 1.0, 0.3]))
    lower = shared.near(data, known, seen, found).lower
    deviations = np.sqrt(np.diag(np.linalg.inv(lower @ lower.T)))
    assert (deviations[:2] < 0.1).all()
    assert (np.abs(found - THETA) < 4 * deviations).all()


def test_a_width_that_is_given_stays(data, seen):
    known = shared.Known.of(data, 0.06)
    found = shared.fitted(data, known, seen, np.log([3.0, 0.06, 0.05, 0.03]))
    assert np.exp(found[shared.WIDTH]) == pytest.approx(0.06, rel=1e-4)


def test_draws_come_up_as_often_as_they_are_probable(data, seen):
    known, rng = shared.Known.of(data, None), np.random.default_rng(2)
    theta = best = shared.fitted(data, known, seen, THETA)
    local = shared.near(data, known, seen, best)
    drawn = []
    for _ in range(500):
        theta = shared.drawn(data, known, seen, theta, rng, accept="by probability")
        drawn.append(theta)
    found = (np.array(drawn) - best) @ local.lower
    assert len({tuple(one) for one in drawn}) > 250
    # The same from draws of one Gaussian, each weighted by how much more probable it is than there.
    others = [local.draw(rng) for _ in range(500)]
    gained = np.array([shared.near(data, known, seen, one).logarithm - local.density(one) for one in others])
    weights = np.exp(gained - gained.max())
    weights /= weights.sum()
    wanted = (np.array(others) - best) @ local.lower
    mean = weights @ wanted
    # 500 draws of deviation 1, every other one another: a mean to 0.08 in each; four of their difference.
    np.testing.assert_allclose(found.mean(axis=0), mean, atol=0.35)
    np.testing.assert_allclose(found.std(axis=0), np.sqrt(weights @ (wanted - mean) ** 2), atol=0.3)


def test_a_width_tells_how_uncertain_it_is(data, seen):
    expected = shared.model(data, seen, THETA + np.array([0, 0, 0, -9]))  # without tails
    logarithms, told = [], []
    for seed in range(12):
        counts = np.random.default_rng(seed).poisson(0.3 * expected).astype(float)
        width, spread = width_and_spread_of(data._replace(counts=counts))
        logarithms.append(np.log(width / 0.045))
        told.append(spread)
    # A root mean square of 12 is known to 20 %; the lags are not independent, which `shared` takes into account.
    assert 0.4 < np.mean(told) / np.sqrt(np.mean(np.square(logarithms))) < 2
    assert np.mean(told) < 0.5
