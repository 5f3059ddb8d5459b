"""The moves of atoms: their images, what they change of the likelihood, and how often states come up."""

import numpy as np
import pytest

from nntomo_dask.kernels import atom_moves
from nntomo_dask.kernels.atom_grid import Prior, Rays

pytestmark = pytest.mark.xdist_group("sampled atoms")  # one process compiles their kernels

HEIGHTS = np.array([3.0, 1.0])
WIDTH = 0.05


def rays(views=5, pixels=20, step=0.04):
    angles = np.deg2rad(np.linspace(-70, 70, views))
    first = -(pixels - 1) / 2 * step
    return Rays(np.cos(angles), np.sin(angles), first, step, first, step)


def scene(atoms, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.3, 0.3, (atoms, 3)), rng.integers(0, 2, atoms)


def flat(size, slices, per_voxel, distance=0.0, kinds=2):
    births = np.linspace(0, 1, size**2 * slices + 1)
    return Prior(np.full((kinds, kinds), distance), per_voxel, births, size)


@pytest.mark.parametrize("turned", [1, -1])
def test_images_are_those_of_the_reference(turned):
    positions, kinds = scene(7)
    one = rays()
    one = one._replace(first_z=turned * one.first_z, step_z=turned * one.step_z)
    shape = 5, 20, 20
    found = atom_moves.render(positions, kinds, HEIGHTS, WIDTH, one, shape)
    wanted = atom_moves.render_reference(positions, kinds, HEIGHTS, WIDTH, one, shape)
    assert found.max() > 1
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("height", [2.0, -1.0])
def test_a_change_is_the_difference_of_two_likelihoods(height):
    positions, kinds = scene(6)
    one, shape = rays(), (5, 20, 20)
    kinds[0] = 1
    model = 0.1 + atom_moves.render(positions, kinds, HEIGHTS, WIDTH, one, shape)
    counts = np.random.default_rng(1).poisson(model).astype(float)
    place = positions[0]
    after = model + height * atom_moves.render(place[None], np.zeros(1, int), np.ones(1), WIDTH, one, shape)
    wanted = atom_moves.log_likelihood(counts, after) - atom_moves.log_likelihood(counts, model)
    assert atom_moves.change(counts, model, place, height, WIDTH, one) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def moved(
    counts, model, positions, kinds, atoms, prior, *, heights=HEIGHTS, steps=4000, seed=0, share=(0.6, 0.1), pairs=0.0
):
    settings = {"heights": heights, "width": WIDTH, "rays": rays(), "shift": 0.02, "share": share, "pairs": pairs}
    rng = np.random.default_rng(seed)
    return atom_moves.moves(counts, model, positions, kinds, atoms, prior=prior, steps=steps, rng=rng, **settings)


@pytest.mark.parametrize("pairs", [0.0, 0.2])
def test_the_model_stays_that_of_the_atoms(pairs):
    positions, kinds = scene(40)
    shape = (5, 20, 20)
    heights = np.array([0.3, 0.2])
    model = 0.2 + atom_moves.render(positions[:8], kinds[:8], heights, WIDTH, rays(), shape)
    counts = np.random.default_rng(1).poisson(model).astype(float)
    atoms, done = moved(counts, model, positions, kinds, 8, flat(20, 20, 1e-3, 0.06), heights=heights, pairs=pairs)
    made = done[: 6 if pairs else 4]
    assert (made[:, 0] > 0).all()
    assert (made[:, 0] < made[:, 1]).all()
    again = 0.2 + atom_moves.render(positions[:atoms], kinds[:atoms], heights, WIDTH, rays(), shape)
    np.testing.assert_allclose(model, again, atol=1e-9)
    away = np.linalg.norm(positions[:atoms, None] - positions[:atoms], axis=2) + np.eye(atoms)
    assert away.min() >= 0.06


@pytest.mark.parametrize(("skewed", "pairs"), [(False, 0.0), (True, 0.0), (False, 0.6)])
def test_without_evidence_states_come_up_as_often_as_the_prior_says(skewed, pairs):
    # Atoms that are not seen: their number is a Poisson variable, whatever map births are proposed by.
    shape, mean = (5, 20, 20), 6.0
    prior = flat(20, 20, mean / 20**3)
    if skewed:
        map_ = np.random.default_rng(3).uniform(0.2, 1, 20**3)
        prior = prior._replace(births=np.concatenate([[0], np.cumsum(map_) / map_.sum()]))
        prior.births[-1] = 1
    counts, model = np.zeros(shape), np.zeros(shape)
    positions, kinds = np.zeros((60, 3)), np.zeros(60, np.int64)
    numbers, atoms = [], 0
    for seed in range(1500):
        atoms, _ = moved(
            counts,
            model,
            positions,
            kinds,
            atoms,
            prior,
            heights=np.full(2, 1e-12),
            steps=60,
            seed=seed,
            share=(0, 0),
            pairs=pairs,
        )
        numbers.append(atoms)
    # 60 births and deaths forget a state of 6 atoms (correlation about exp(-60/2/6) < 1 %): the standard error of the
    # mean of 1500 is √6/√1500 = 0.06; four of them.
    assert np.mean(numbers[10:]) == pytest.approx(mean, abs=0.26)
    assert np.var(numbers[10:]) == pytest.approx(mean, rel=0.2)


def test_atoms_are_found_where_they_are():
    positions, kinds = np.array([[0.0, 0.1, -0.1], [0.1, -0.2, 0.2]]), np.zeros(2, np.int64)
    shape = (5, 20, 20)
    expected = 0.01 + atom_moves.render(positions, kinds, HEIGHTS, WIDTH, rays(), shape)
    counts = np.random.default_rng(1).poisson(expected).astype(float)
    room, kinds = np.zeros((30, 3)), np.zeros(30, np.int64)
    atoms, _ = moved(counts, np.full(shape, 0.01), room, kinds, 0, flat(20, 20, 1e-3, 0.1, 1), heights=HEIGHTS[:1])
    assert atoms == 2
    order = np.argsort(room[:2, 0])
    # Counts of an atom: 5 views x 3 x 2π (0.05/0.04)² = 147; a position within 0.05/√(147/2) = 6 pm; five of them.
    np.testing.assert_allclose(room[:2][order], positions, atol=0.03)
