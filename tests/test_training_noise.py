"""The noise of the phantoms of a training: that of the series, in the phantoms' units."""

import importlib.util

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.arrays import recipes
from nntomo_dask.reconstruction.intensity import intensity_level
from nntomo_dask.training import noise as phantom_noise

SIZE, COUNT = 48, 8
ANGLES = nt.tilt_angles("tem", COUNT)


@pytest.fixture(scope="module")
def clean():
    return nt.project(nt.nanoparticle((SIZE,) * 3, seed=5), ANGLES).compute()


@pytest.fixture(scope="module")
def phantoms():
    return nt.project(nt.training_stack((32, SIZE, SIZE), seed=2), ANGLES).compute()


@pytest.mark.parametrize("intensity", [1, 500])
@pytest.mark.parametrize("background", [0, 0.3])
def test_noise_and_background_of_the_series_at_the_ratio_of_the_levels(clean, phantoms, intensity, background):
    """A series so many times as intense as the phantoms, and on a background that is a share of its brightest ray."""
    peak = float(clean.max())
    series = (nt.add_noise(clean, noise=0.03, dose=300, seed=4) + background * peak) * intensity
    made = phantom_noise.like(series.astype("float32"), "auto", who="here")(phantoms, 1)
    added = made.values.astype(float) - phantoms.values
    # Rays of less than a tenth of the level carry next to no counts: the level is that of a voxel, these are rays.
    level = float(intensity_level(phantoms)) / float(intensity_level(clean))
    dark = phantoms.values == 0
    # The estimates' own errors, see test_noise, and a level that the noise changes by a few per cent.
    assert added[dark].mean() == pytest.approx(background * peak * level, rel=0.05, abs=0.01 * peak * level)
    assert added[dark].std() == pytest.approx(0.03 * peak * level, rel=0.12)
    bright = phantoms.values > 0.5 * phantoms.values.max()
    wanted = np.sqrt((0.03 * peak) ** 2 + phantoms.values[bright].mean() / level * peak / 300) * level
    assert added[bright].std() == pytest.approx(wanted, rel=0.12)


def test_the_order_of_the_projections_changes_nothing(clean, phantoms, rng):
    series = nt.add_noise(clean, noise=0.02)
    order = rng.permutation(COUNT)
    first, second = (
        phantom_noise.like(one, "auto", who="here")(phantoms, 1) for one in (series, series.isel(angle=order))
    )
    assert recipes.same(first.attrs["recipe"], second.attrs["recipe"])
    np.testing.assert_array_equal(first.values, second.values)


@pytest.mark.parametrize("binned", [1, 2])
def test_lengths_in_other_pixels(clean, phantoms, binned):
    """Line integrals of a binned series are counted in the old pixels; phantoms know its own alone."""
    series = nt.add_noise(clean, noise=0.05).compute().coarsen(detector=binned).mean()
    made = phantom_noise.like(series, "auto", who="here")(phantoms, 1)
    dark = phantoms.values == 0
    # A pixel of twice the size has half of the length, and the mean of two the noise by √2; the level stays.
    wanted = 0.05 * float(clean.max()) / binned / np.sqrt(binned)
    level = float(intensity_level(phantoms)) / float(intensity_level(clean))
    assert made.values[dark].std() == pytest.approx(wanted * level, rel=0.12)


@pytest.mark.parametrize("noise", ["none", 0, 0.0])
def test_none(clean, phantoms, noise):
    assert phantom_noise.like(clean, noise, who="here")(phantoms, 1) is phantoms


def test_a_share_of_the_phantoms_brightest_ray(clean, phantoms):
    made = phantom_noise.like(clean, 0.04, who="here")(phantoms, 1)
    assert (made - phantoms).values.std() == pytest.approx(0.04 * float(phantoms.max()), rel=0.03)


def test_roughness_of_voxels_is_not_added_as_noise(phantoms):
    series = nt.project(nt.nanoparticle((96,) * 3, seed=5), ANGLES)
    assert phantom_noise.like(series, "auto", who="here")(phantoms, 1) is phantoms


@pytest.mark.parametrize("shape", [(1, COUNT, SIZE), (1, COUNT, 6)])
@pytest.mark.parametrize("value", [0, 1])
def test_a_series_made_for_its_angles_alone(phantoms, shape, value):
    template = nt.tilt_series(np.full(shape, value), ANGLES)
    assert phantom_noise.like(template, "auto", who="here")(phantoms, 1) is phantoms


def sets(name, series, **options):
    """Training and validation set of a kind of network."""
    if name == "nnfbp":
        return nt.phantom_samples(series, n_slices=8, n_samples=200, **options)
    return nt.phantom_slices(series, n_slices=8, method="fbp", neighbours=0, **options)


@pytest.mark.parametrize("name", ["nnfbp", "msdnet"])
def test_sets_have_the_noise_and_say_so(clean, name):
    series = nt.add_noise(clean, noise=0.05)
    noisy, silent = (sets(name, series, noise=noise) for noise in ("auto", "none"))
    inputs = {"nnfbp": "inputs", "msdnet": "input"}[name]
    models = []
    for with_noise, without in zip(noisy, silent, strict=True):
        made = recipes.find(with_noise.attrs["recipe"], "add_noise")
        models.append(made["parameters"]["noise"])
        assert recipes.find(without.attrs["recipe"], "add_noise") is None
        np.testing.assert_array_equal(with_noise.target.values, without.target.values)
        difference = (with_noise[inputs] - without[inputs]).values
        assert difference.std() > 0.02 * without[inputs].values.std()
        assert recipes.find(sets(name, series)[0].attrs["recipe"], "add_noise") == recipes.find(
            noisy[0].attrs["recipe"], "add_noise"
        )
    assert models[0] == models[1]
    assert models[0]["read_noise"] == pytest.approx(0.05 * float(clean.max()), rel=0.07)


@pytest.mark.parametrize("noise", ["auto", 0.05])
def test_slices_of_the_phantom_with_levels_of_their_own(clean, noise):
    """Said in the recipe; one level for all is the set of before."""
    series = nt.add_noise(clean, noise=0.05)
    default, one, several = (
        sets("nnfbp", series, noise=noise, **options) for options in ({}, {"noise_spread": 1}, {"noise_spread": 3})
    )
    for before, same, other in zip(default, one, several, strict=True):
        assert before.attrs["recipe"] == same.attrs["recipe"]
        np.testing.assert_array_equal(before.inputs.values, same.inputs.values)
        parameters = [recipes.find(part.attrs["recipe"], "add_noise")["parameters"] for part in (same, other)]
        assert parameters[1] == parameters[0] | {"spread": 3.0}
        assert (same.inputs.values != other.inputs.values).any()
        np.testing.assert_array_equal(same.target.values, other.target.values)


@pytest.mark.parametrize("spread", [0.5, float("nan"), float("inf")])
def test_spreads_that_are_refused(clean, spread):
    with pytest.raises(nt.SchemaError, match="phantom_samples: needs a noise spread of at least 1; got "):
        nt.phantom_samples(clean, noise_spread=spread)


@pytest.mark.parametrize("name", ["nnfbp", "msdnet"])
@pytest.mark.parametrize(
    ("series", "noise", "text"),
    [
        ("noise", "auto", "a series that shows a specimen; got one that varies no more than its noise, 0.99"),
        ("small", "auto", "at least 8 detector pixels, and 256 values within; .*; try: .* noise=.none."),
        ("clean", -0.1, "a noise of at least 0, a share of the brightest ray; got -0.1"),
        ("clean", "much", 'a noise "auto" or "none", or a share of the brightest ray; got .much.'),
    ],
)
def test_what_cannot_be_is_refused(clean, rng, name, series, noise, text):
    given = {
        "clean": clean,
        "noise": nt.tilt_series(rng.standard_normal((32, COUNT, SIZE)), ANGLES),
        "small": clean.isel(z=[20], detector=slice(10, 30)),
    }[series]
    with pytest.raises(nt.SchemaError, match=text):
        sets(name, given, noise=noise)


def test_on_the_command_line(run):
    run("phantom", "particle", "--size", 48, "--seed", 5, "-o", "particle.zarr")
    run("project", "particle.zarr", "--range", "tem", "--count", 8, "--noise", 0.02, "-o", "series.zarr")
    words = ("train", "--for", "series.zarr", "--slices", 8, "--samples", 300, "--hidden", 2, "--max-epochs", 2)
    said = run(*words, "-o", "auto.safetensors").output
    assert "note: the phantoms have the noise of the series: read-out" in said
    assert "note: the phantoms" not in run(*words, "--noise", "none", "-o", "none.safetensors").output
    run(*words, "--noise", 0.02, "-o", "share.safetensors")
    models = {}
    for name in ("auto", "none", "share"):
        made = recipes.find(nt.load_network(f"{name}.safetensors").recipe, "add_noise")
        models[name] = made and made["parameters"]["noise"]
    assert set(models["auto"]) == {"gain", "read_noise", "background"}
    assert models["none"] is None
    assert models["share"] == 0.02
    run(*words, "--noise", 0.02, "--noise-spread", 2, "-o", "spread.safetensors")
    made = recipes.find(nt.load_network("spread.safetensors").recipe, "add_noise")
    assert made["parameters"]["spread"] == 2
    changed = run(*words, "--noise", "none", "-o", "auto.safetensors", exit_code=2)
    assert "add_noise" in changed.output
    refused = run(*words, "--noise", -1, "-o", "no.safetensors", exit_code=2)
    assert "needs noise of at least 0; got -1.0; try: --noise auto" in " ".join(refused.output.split())
    pairs = ("--series", "series.zarr", "--volume", "particle.zarr", "--noise", 0.1, "-o", "no.safetensors")
    assert "--noise plays no part where pairs" in run("train", *pairs, exit_code=2).output
    if importlib.util.find_spec("torch") is not None:
        own = ("train", "--network", "msdnet", "--for", "series.zarr", "--self-supervised", "--noise", 0.1)
        assert "--noise plays no part where the network" in run(*own, "-o", "no.safetensors", exit_code=2).output


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:nnfbp. .* outside the range it saw")
def test_networks_trained_with_the_noise_are_better(clean):
    """On a particle with 3 % noise, the median of three networks, which a training's chance moves by a half."""
    truth = nt.nanoparticle((SIZE,) * 3, seed=5)
    series = nt.add_noise(clean, noise=0.03, seed=9).compute()
    errors, outside = {}, {}
    for noise in ("auto", "none"):
        found, shares = [], []
        for seed in range(3):
            both = nt.phantom_samples(series, noise=noise, n_slices=120, n_samples=15_000, seed=seed)
            network = nt.train_nnfbp(*(part.compute() for part in both), max_epochs=10, progress="none", seed=seed)
            found.append(float(nt.mse(nt.nnfbp(series, network), truth)))
            shares.append(float(nt.outside_training_range(series, network).mean()))
        errors[noise], outside[noise] = np.median(found), np.median(shares)
    assert errors["auto"] < 0.8 * errors["none"]  # measured: 0.62
    assert outside["auto"] < 0.2 * outside["none"]  # measured: 0.01 and 0.25
