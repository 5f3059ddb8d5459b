"""Noise that is added to a series: how large it is, and that it depends on seed, angle and place alone."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.arrays import recipes
from nntomo_dask.kernels import counting
from nntomo_dask.projection import add_noise as adding

ANGLES = nt.tilt_angles("tem", 8)
MODEL = nt.Noise(gain=0.5, read_noise=0.7, background=3)


@pytest.fixture(scope="module")
def even():
    """A series of two values, 40,000 times each, and one pixel twice as bright."""
    values = np.zeros((100, 8, 100), np.float32)
    values[:50] = 20
    values[0, 0, 0] = 40
    return nt.tilt_series(values, ANGLES)


def deviations(noisy, clean):
    """Mean and deviation of what was added, where there is something and where there is nothing."""
    added = (noisy - clean).values.astype(float)
    return [(half.mean(), half.std()) for half in (added[1:50], added[50:])]


def test_gaussian_noise_is_a_share_of_the_brightest_ray(even):
    for mean, deviation in deviations(nt.add_noise(even, noise=0.02), even):
        # 39,000 values: standard errors of 0.5 % of the deviation, and of 0.4 % in it; four of them.
        assert mean == pytest.approx(0, abs=0.02 * 0.8)
        assert deviation == pytest.approx(0.8, rel=0.015)


def test_a_dose_is_the_counts_of_the_brightest_ray(even):
    noisy = nt.add_noise(even, dose=100)
    (mean, deviation), dark = deviations(noisy, even)
    assert mean == pytest.approx(0, abs=0.02 * 2.83)
    assert deviation == pytest.approx(np.sqrt(20 * 40 / 100), rel=0.015)  # 50 counts, each of 0.4
    assert dark == (0, 0)
    np.testing.assert_allclose(np.mod(noisy.values / 0.4 + 0.5, 1), 0.5, atol=1e-4)  # whole counts


def test_dose_and_noise_add_up(even):
    (_, bright), (_, dark) = deviations(nt.add_noise(even, noise=0.02, dose=100), even)
    assert dark == pytest.approx(0.8, rel=0.015)
    assert bright == pytest.approx(np.hypot(0.8, np.sqrt(8)), rel=0.015)
    # The Gaussian part of a pixel is the same with and without counts.
    xr.testing.assert_allclose(
        (nt.add_noise(even, noise=0.02, dose=100) - nt.add_noise(even, dose=100)),
        (nt.add_noise(even, noise=0.02) - even),
        atol=2e-5,
    )


def test_a_model(even):
    """Counts lie above the background, which is in the series already."""
    lifted = even + 3
    noisy = nt.add_noise(lifted, noise=MODEL)
    (_, bright), (_, dark) = deviations(noisy, lifted)
    assert dark == pytest.approx(0.7, rel=0.015)
    assert bright == pytest.approx(MODEL.deviation(23), rel=0.015)
    assert nt.noise(noisy).gain == pytest.approx(0.5, rel=0.1)


def test_values_below_zero_have_no_counts_and_stay(even):
    noisy = nt.add_noise(even - 5, dose=100).values
    np.testing.assert_array_equal(noisy[50:], -5)
    assert noisy[1:50].std() == pytest.approx(np.sqrt(15 * 35 / 100), rel=0.015)


@pytest.mark.parametrize("options", [{"noise": 0.02}, {"dose": 30, "noise": 0.01, "seed": 4}, {"noise": MODEL}])
def test_chunks_order_and_other_projections_change_no_bit(even, options, rng):
    part = even.isel(z=slice(45, 55))
    whole = nt.add_noise(part, **options).compute()
    for chunks in (1, 3, 10):
        np.testing.assert_array_equal(nt.add_noise(part.chunk(z=chunks), **options).values, whole.values)
    order = rng.permutation(8)
    np.testing.assert_array_equal(nt.add_noise(part.isel(angle=order), **options).values, whole.values[:, order])
    some = part.isel(angle=[1, 2, 6])
    np.testing.assert_array_equal(nt.add_noise(some, **options).values, whole.values[:, [1, 2, 6]])


def test_every_pixel_angle_slice_and_seed_has_noise_of_its_own(even):
    first, second = (
        (nt.add_noise(even, noise=0.02, seed=seed) - even).values.astype(float).reshape(800, 100) for seed in (0, 1)
    )
    rows = np.concatenate([first, second])
    correlation = np.corrcoef(rows) - np.eye(1600)
    # 1.3 million pairs of 100 values: the largest of as many normal values is 5.1 deviations of 0.1.
    assert np.abs(correlation).max() < 0.65


def levels_of(noisy, clean):
    """(slice,): the deviation of what was added, without the slice that has another pixel."""
    return (noisy - clean).values[1:].astype(float).std(axis=(1, 2))


def test_slices_with_levels_of_their_own(even):
    """Uniform on a logarithmic scale about the level that is asked for; 800 values a slice know theirs to 2.5 %."""
    one, other = (levels_of(adding.add_noises(even, noise=0.02, spread=3, seed=seed), even) / 0.8 for seed in (1, 2))
    for factors in (one, other):
        exponents = np.log(factors) / np.log(3)
        assert np.abs(exponents).max() < 1 + 4 * 0.025
        # 99 uniform numbers: a standard error of 0.06 in the mean, and of 0.05 in the mean square; three of them.
        assert exponents.mean() == pytest.approx(0, abs=0.18)
        assert (exponents**2).mean() == pytest.approx(1 / 3, abs=0.1)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.4  # of independent ones 0.1


def test_counts_and_background_with_levels_of_their_own(even):
    """Both kinds of noise have the slice's factor, so that their ratio stays; the background has none."""
    arguments = {"ratio": da.from_array(np.float64(1)), "level": 1.0, "seed": 1}
    made = adding.add_noise_and_background(even, MODEL, **arguments, spread=2)
    assert float(made.values[60:].mean()) == pytest.approx(3, abs=0.02)
    only_read = adding.add_noise_and_background(even, nt.Noise(read_noise=0.7, background=3), **arguments, spread=2)
    factors = levels_of(only_read, even) / 0.7
    bright = slice(0, 49)
    wanted = factors[bright] * np.sqrt(0.7**2 + 0.5 * 20)
    np.testing.assert_allclose(levels_of(made, even)[bright], wanted, rtol=4 * 0.035)


def test_one_level_has_the_bytes_and_recipes_of_before(even):
    before = nt.add_noise(even, noise=0.02, seed=3)
    same = adding.add_noises(even, noise=0.02, spread=1, seed=3)
    assert same.attrs["recipe"] == before.attrs["recipe"]
    assert same.data.name == before.data.name
    np.testing.assert_array_equal(same.values, before.values)
    other = adding.add_noises(even, noise=0.02, spread=1.5, seed=3)
    assert not recipes.same(other.attrs["recipe"], before.attrs["recipe"])


def test_levels_depend_on_seed_and_slice_alone(even, rng):
    whole = adding.add_noises(even, noise=0.02, spread=2, seed=3).values
    np.testing.assert_array_equal(adding.add_noises(even.chunk(z=7), noise=0.02, spread=2, seed=3).values, whole)
    order = rng.permutation(8)
    mixed = adding.add_noises(even.isel(angle=order), noise=0.02, spread=2, seed=3).values
    np.testing.assert_array_equal(mixed, whole[:, order])


def test_nothing_is_computed_before_it_is_asked_for(even, nothing_computes):
    made = nt.add_noise(even.chunk(z=10), noise=0.1, dose=50)
    assert made.attrs["recipe"]["operation"] == "add_noise"
    assert made.attrs["recipe"]["parameters"] == {"noise": 0.1, "dose": 50.0, "seed": 0}
    assert nt.add_noise(even, noise=MODEL).attrs["recipe"]["parameters"]["noise"]["gain"] == 0.5


def test_recipes_tell_noise_apart(even):
    lazy = even.chunk(z=10)
    made = [
        nt.add_noise(lazy, **one) for one in ({"noise": 0.1}, {"noise": 0.2}, {"dose": 9}, {"noise": 0.1, "seed": 1})
    ]
    assert len({one.data.name for one in made}) == 4
    assert recipes.recipe_of(made[0]) == made[0].attrs["recipe"]


def test_without_noise_the_series_is_the_same(even):
    assert nt.add_noise(even) is even
    assert nt.add_noise(even, noise=nt.Noise(background=5)) is even
    empty = nt.tilt_series(np.zeros((3, 8, 10)), ANGLES)
    np.testing.assert_array_equal(nt.add_noise(empty, noise=0.1, dose=10).values, 0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"noise": -0.01}, "a noise of at least 0, a share of the brightest ray; got -0.01"),
        ({"noise": float("nan")}, "a noise of at least 0, .* got nan"),
        ({"noise": "2 %"}, "a noise of at least 0, .* got '2 %'"),
        ({"dose": 0}, "a dose above 0, counts at the brightest ray; got 0"),
        ({"dose": -3}, "a dose above 0, .* got -3"),
        ({"dose": float("inf")}, "a dose above 0, .* got inf"),
        ({"noise": MODEL, "dose": 10}, "a model of the noise or a dose; got .*; try: leave out dose"),
        ({"noise": 0.1, "seed": -1}, "a seed that is a whole number of at least 0; got -1"),
    ],
)
def test_noise_that_cannot_be_is_refused(even, options, text):
    with pytest.raises(nt.SchemaError, match=f"add_noise: needs {text}"):
        nt.add_noise(even, **options)


@pytest.mark.parametrize("options", [{"noise": 0.1}, {"noise": MODEL}])
def test_what_is_not_finite_is_refused(even, options):
    broken = even.copy()
    broken[70, 2, 3] = np.inf
    with pytest.raises(nt.SchemaError, match="add_noise: needs finite values; got inf at index z=70, angle=2"):
        nt.add_noise(broken.chunk(z=30), **options).compute()
    with pytest.raises(nt.SchemaError, match="add_noise: needs a tilt series"):
        nt.add_noise(nt.volume(np.zeros((2, 8, 8))), noise=0.1)


def test_counts_have_the_mean_and_the_variance_of_their_number(rng):
    for counts in (0.5, 5, 500):
        values = counting.counted(np.full(40_000, 2.0), counts, rng) * counts
        assert values.mean() == pytest.approx(2 * counts, rel=4 / np.sqrt(2 * counts * 40_000))
        assert values.var() == pytest.approx(2 * counts, rel=0.05)


def test_on_the_command_line(run):
    run("phantom", "particle", "--size", 32, "-o", "particle.zarr")
    words = ("project", "particle.zarr", "--range", "tem", "--count", 8)
    run(*words, "-o", "clean.zarr")
    clean = nt.open("clean.zarr")
    run(*words, "--noise", 0.02, "--dose", 200, "--seed", 3, "-o", "noisy.zarr")
    noisy = nt.open("noisy.zarr")
    np.testing.assert_array_equal(noisy.values, nt.add_noise(clean, noise=0.02, dose=200, seed=3).values)
    run(*words, "--noise", 0.02, "--dose", 200, "--seed", 3, "--memory", "520MiB", "--workers", 1, "-o", "again.zarr")
    np.testing.assert_array_equal(nt.open("again.zarr").values, noisy.values)
    changed = run(*words, "--noise", 0.03, "--dose", 200, "--seed", 3, "-o", "noisy.zarr", exit_code=2)
    assert "noise is 0.02 there and 0.03 here" in changed.output


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--noise", -0.1), "needs a noise of at least 0, a share of the brightest ray; got -0.1; try: --noise 0.02"),
        (("--dose", 0), "needs a dose above 0, counts at the brightest ray; got 0.0; try: --dose 1000"),
        (("--seed", 4), "--seed plays no part without --noise or --dose"),
        (("--noise", 0.1, "--seed", -4), "a seed that is a whole number of at least 0; got -4; try: --seed 0"),
    ],
)
def test_options_that_cannot_be_are_refused(run, words, text):
    run("phantom", "particle", "--size", 16, "-o", "particle.zarr")
    refused = run("project", "particle.zarr", "--range", "tem", "--count", 8, *words, "-o", "no.zarr", exit_code=2)
    assert text in " ".join(refused.output.split())
