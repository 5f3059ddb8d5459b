"""Atoms of integrated gradients: their likelihood, its noise, and what is found."""

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.atoms import annealing, evidence, gradient_bound, gradient_sampling, gradients, table
from nntomo_dask.kernels import atom_moves, gradient_evidence
from nntomo_dask.kernels.atom_grid import Prior, Rays

pytestmark = pytest.mark.xdist_group("sampled atoms")  # one process compiles their kernels

HEIGHTS = np.array([0.12, 0.04])
WIDTH = 0.05
SHAPE = 4, 30, 28
PRECISION = 0.3


def rays(step=0.03):
    angles = np.deg2rad(np.linspace(-70, 70, SHAPE[0]))
    first_z, first_t = (-(count - 1) / 2 * step for count in (SHAPE[2], SHAPE[1]))
    return Rays(np.cos(angles), np.sin(angles), first_z, step, first_t, step)


def scene(atoms, reach=0.2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-reach, reach, (atoms, 3)), rng.integers(0, 2, atoms)


def inverse_covariance():
    """(pixel, pixel): of white noise of the gradient, integrated; dense, one exponential at a time."""
    modes = [np.exp(2j * np.pi * np.outer(np.arange(n), np.fft.fftfreq(n))) / np.sqrt(n) for n in SHAPE[1:]]
    both = np.einsum("ak,bl->abkl", *modes).reshape(SHAPE[1] * SHAPE[2], -1)
    k = [np.fft.fftfreq(n, 0.03) for n in SHAPE[1:]]
    square = (2 * np.pi) ** 2 * (k[0][:, None] ** 2 + k[1] ** 2).ravel()
    return PRECISION * ((both * square) @ both.conj().T).real


def seen(dose=3e5, seed=1, pixels=44, views=10):
    held = nt.cluster_specimen(nt.amorphous_cluster(atoms=8, seed=3))
    imaging = nt.Imaging(pixels=pixels, field_of_view_nm=1.3, source_size_nm=0.05, dose=dose, seed=seed)
    series = nt.linear_series(held, nt.tilt_angles("tem", views), mode="idpc", imaging=imaging)
    return series.compute(), held.positions_nm[:, ::-1]


def expected_deviation(series, dose):
    # N electrons of a uniform disc of radius α/λ: its centre has a variance of (α/λ)²/4N, and the phase 2π times that.
    electrons = dose * (10 * series.attrs["pixel_size"]) ** 2 / series.sizes["angle"]
    wavelength_nm = nt.Imaging().wavelength_nm
    return 2 * np.pi * 15e-3 / wavelength_nm / 2 / np.sqrt(electrons)


@pytest.mark.parametrize("turned", [1, -1])
def test_curvatures_are_those_of_the_reference(turned):
    positions, kinds = scene(7)
    one = rays()
    one = one._replace(first_z=turned * one.first_z, step_z=turned * one.step_z)
    found = gradient_evidence.curvatures(positions, kinds, HEIGHTS, WIDTH, one, SHAPE, precision=PRECISION)
    wanted = gradient_evidence.curvatures_reference(positions, kinds, HEIGHTS, WIDTH, one, SHAPE, precision=PRECISION)
    assert np.abs(found).max() > 1
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10)


def test_curvatures_are_the_laplacian_of_the_images():
    positions, kinds = scene(5)
    images = atom_moves.render(positions, kinds, HEIGHTS, WIDTH, rays(), SHAPE)
    square = gradients.squared_frequencies(SHAPE[1:], rays())
    wanted = PRECISION * np.fft.irfft2(np.fft.rfft2(images) * square, SHAPE[1:])
    found = gradient_evidence.curvatures(positions, kinds, HEIGHTS, WIDTH, rays(), SHAPE, precision=PRECISION)
    # At 3.5 widths a Gaussian is cut at exp(-6.1) = 0.2 %; the Laplacian of that step is (πw/p)²/2 = 14 times as much.
    assert np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()


@pytest.mark.parametrize("height", [0.12, -0.04])
def test_a_change_is_the_difference_of_two_likelihoods(height):
    positions, kinds = scene(6)
    kinds[0] = 1
    model = atom_moves.render(positions, kinds, HEIGHTS, WIDTH, rays(), SHAPE)
    values = model + 0.02 * np.random.default_rng(1).standard_normal(SHAPE)
    inverse = inverse_covariance()

    def likelihood(images):
        rest = (values - images).reshape(SHAPE[0], -1)
        return -0.5 * float(np.einsum("ka,ab,kb->", rest, inverse, rest))

    one = atom_moves.render(positions[:1], np.zeros(1, int), np.array([height]), WIDTH, rays(), SHAPE)
    wanted = likelihood(model + one) - likelihood(model)
    residual = ((values - model).reshape(SHAPE[0], -1) @ inverse).reshape(SHAPE)
    found = atom_moves.change(values, residual, positions[0], height, WIDTH, rays(), precision=PRECISION)
    energy = SHAPE[0] * np.pi * height**2 * PRECISION / 0.03**2
    # What is cut beyond 3.5 widths is 2 % of the curvature at most, where the atom itself is 0.2 %.
    assert found == pytest.approx(wanted, abs=2e-3 * energy)
    assert abs(wanted) > 0.1 * energy


def test_the_residual_stays_that_of_the_atoms():
    positions, kinds = scene(40)
    heights = 0.2 * HEIGHTS
    curvature = np.random.default_rng(1).standard_normal(SHAPE)
    data = gradients.Gradients(curvature, PRECISION, rays(), 0.03, in_radians=False)
    residual = gradients.residual(data, positions[:8], kinds[:8], heights, WIDTH)
    births = np.linspace(0, 1, SHAPE[2] * SHAPE[1] ** 2 + 1)
    prior = Prior(np.full((2, 2), 0.06), 1e-3, births, SHAPE[1])
    settings = {"heights": heights, "width": WIDTH, "rays": rays(), "prior": prior, "shift": 0.02, "share": (0.6, 0.1)}
    atoms, done = atom_moves.moves(
        curvature,
        residual,
        positions,
        kinds,
        8,
        steps=2000,
        rng=np.random.default_rng(0),
        precision=PRECISION,
        **settings,
    )
    assert (done[:4, 0] > 0).all()
    assert (done[:4, 0] < done[:4, 1]).all()
    again = gradients.residual(data, positions[:atoms], kinds[:atoms], heights, WIDTH)
    np.testing.assert_allclose(residual, again, atol=1e-9)


def test_the_noise_of_a_series_is_white_in_its_gradient():
    dose = 1e3
    noisy, _ = seen(dose)
    clean, _ = seen(None)
    noise = noisy - clean.values
    deviation = expected_deviation(noisy, dose)
    data = gradients.gradients(noise.assign_attrs(noisy.attrs), noise=nt.Noise(read_noise=deviation), who="test")
    square = gradients.squared_frequencies(data.shape[1:], data.rays)
    square[0, 0] = np.inf
    power = (np.abs(np.fft.rfft2(data.curvature)) ** 2).mean(axis=0) / square / data.precision / (44 * 44)
    k = np.sqrt(square) / (2 * np.pi)
    inside = np.abs(np.fft.fftfreq(44))[:, None] + np.fft.rfftfreq(44) < 0.499
    for low, high in ((0.5, 4), (4, 8), (8, 12)):
        ring = (k > low) & (k < high) & inside
        # Means of 10 views of exponential variables: four standard errors, each frequency of the half-plane once.
        assert power[ring].mean() == pytest.approx(1, abs=4 / np.sqrt(10 * ring.sum() / 1.1))


def test_the_deviation_is_found():
    for dose in (1e3, 1e5):
        series, _ = seen(dose)
        found = gradients.gradients(series, noise=None, who="test").precision ** -0.5
        # Of 10 views · 44² · 0.1 or so values: the median of their squares to 1.44/√2000 = 3 %, its root to 1.6 %.
        assert found == pytest.approx(expected_deviation(series, dose), rel=0.06)


@pytest.fixture(scope="module")
def series():
    return seen()[0]


@pytest.fixture(scope="module")
def truth():
    return seen()[1]


@pytest.fixture(scope="module")
def made(series):
    return nt.atoms_from_series(series, elements=("Si",))


def test_every_atom_is_found_and_none_invented(made, truth):
    away = np.linalg.norm(table.positions(made)[:, None] - truth, axis=2)
    assert sorted(away.argmin(axis=1)) == list(range(len(truth)))
    assert away.min(axis=1).max() < 0.03
    assert (made["confidence"] > 5).all()


def test_errors_of_positions_are_those_of_the_bound(made, series, truth):
    bound = nt.position_bound(made, series, likelihood="gradient")
    assert nt.position_bound(made, series).identical(bound)
    told = [float(np.sqrt((made[name] ** 2).mean())) for name in table.ERRORS]
    least = [float(np.sqrt((bound[name] ** 2).mean())) for name in table.ERRORS]
    # 40 samples of 8 atoms, which are not independent: a tenth or so; known heights are worth little.
    np.testing.assert_allclose(told, least, rtol=0.35)


def test_the_order_of_projections_changes_nothing(series, made):
    volume = nt.reconstruct(series, nt.METHODS["sirt"](minimum=0.0)).compute()
    first = nt.atoms_from_series(series, elements=("Si",), volume=volume)
    turned = series.isel(angle=slice(None, None, -1))
    again = nt.atoms_from_series(turned, elements=("Si",), volume=volume)
    np.testing.assert_array_equal(table.positions(again), table.positions(first))


def test_a_constant_and_a_scale_are_not_seen(series, made):
    other = (3 * series + 7).assign_attrs({**series.attrs, "quantity": "phase"})
    again = nt.atoms_from_series(other, elements=("Si",))
    assert again.sizes["atom"] == made.sizes["atom"]
    away = np.linalg.norm(table.positions(again)[:, None] - table.positions(made), axis=2).min(axis=1)
    assert away.max() < 0.02


def test_the_likelihood_follows_the_quantity(series):
    assert isinstance(evidence.evidence(series, likelihood="auto", noise=None, who="test"), gradients.Gradients)
    bare = series.assign_attrs(quantity="")
    known = nt.Noise(gain=0.01)
    assert not isinstance(evidence.evidence(bare, likelihood="auto", noise=known, who="test"), gradients.Gradients)
    assert isinstance(evidence.evidence(bare, likelihood="gradient", noise=None, who="test"), gradients.Gradients)
    assert not isinstance(evidence.evidence(series, likelihood="counts", noise=known, who="test"), gradients.Gradients)


def test_the_bound_is_that_of_dense_matrices():
    positions, kinds = scene(3, reach=0.12)
    heights = HEIGHTS[kinds]
    parameters = np.concatenate([np.concatenate([[h], p]) for h, p in zip(heights, positions, strict=True)])

    def images(values):
        parts = values.reshape(-1, 4)
        each = [atom_moves.render(one[None, 1:], np.zeros(1, int), one[:1], WIDTH, rays(), SHAPE) for one in parts]
        return sum(each).reshape(SHAPE[0], -1)

    steps = 1e-5 * np.eye(parameters.size)
    changes = [(images(parameters + step) - images(parameters - step)) / 2e-5 for step in steps]
    information = np.einsum("pka,ab,qkb->pq", changes, inverse_covariance(), changes)
    wanted = np.sqrt(np.diag(np.linalg.inv(information))).reshape(-1, 4)
    found = gradient_bound.standard_errors(positions, heights, WIDTH, rays(), precision=PRECISION, field=1e3)
    # Gaussians that are cut at 0.2 % against whole ones.
    np.testing.assert_allclose(found.heights, wanted[:, 0], rtol=0.03)
    np.testing.assert_allclose(found.positions, wanted[:, 1:], rtol=0.03)


def test_the_agreement_is_the_best_on_the_mean():
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.05, 1, 60) ** 2
    there = rng.random((4000, 60)) < shares
    expected = float(shares.sum())
    found = gradient_sampling.best_agreement(shares, expected)

    def score(least):
        kept = shares >= least
        return float((2 * there[:, kept].sum(axis=1) / (kept.sum() + there.sum(axis=1))).mean())

    best = max(score(least) for least in shares)
    # The mean of ratios is not the ratio of means: with 20 atoms that are there, 1/20 of their spread.
    assert score(found) == pytest.approx(best, abs=0.005)
    assert score(0.5) < best - 0.005
    assert gradient_sampling.best_agreement(np.ones(3), 3.0) == 1


def test_the_width_of_few_pixels_is_the_one_that_is_expected(series):
    # 8 pixels of 0.005 nm: the lowest frequency is 25 / nm, where no atom is seen.
    few = nt.tilt_series(series.values[:8, :, :8], series["angle"].values, pixel_size=0.005, units="nm")
    assert gradients.width_of(gradients.gradients(few, noise=None, who="test")) == gradients._WIDTH


def test_annealing_starts_where_the_highest_atoms_begin_to_count(series):
    data = gradients.gradients(series, noise=None, who="test")
    heights = np.array([0.08])
    one = atom_moves.change(
        np.zeros(data.shape), np.zeros(data.shape), np.zeros(3), 0.08, 0.045, data.rays, precision=data.precision
    )
    assert gradients.strength(data, heights) == pytest.approx(-2 * one, rel=0.01)
    assert annealing._FIRST < gradients.strength(data, heights)


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"likelihood": "poisson"}, "likelihood"), ({"noise": nt.Noise(gain=1.0)}, "noise of the gradient")],
)
def test_settings_that_cannot_be_are_refused(series, changed, words):
    with pytest.raises(nt.SchemaError, match=words):
        nt.atoms_from_series(series, elements=("Si",), **changed)


def test_series_that_cannot_be_are_refused(series, made):
    with pytest.raises(nt.SchemaError, match="at least 8 pixels"):
        nt.atoms_from_series(series.isel(z=slice(0, 5)), elements=("Si",))
    large = nt.tilt_series(series.values, series["angle"].values, pixel_size=0.2, units="nm")
    with pytest.raises(nt.SchemaError, match=r"pixels of less than 0\.2 nm"):
        nt.atoms_from_series(large, elements=("Si",), likelihood="gradient")
    with pytest.raises(nt.SchemaError, match="with a specimen"):
        nt.atoms_from_series((series * 0).assign_attrs(series.attrs), elements=("Si",))
    with pytest.raises(nt.SchemaError, match="likelihood"):
        nt.position_bound(made, series, likelihood="poisson")
    with pytest.raises(nt.SchemaError, match="counts for a refinement"):
        nt.atoms_from_series(series, elements=("Si",), last="projections")
