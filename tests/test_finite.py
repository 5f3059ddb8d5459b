"""NaN and infinity: whatever computes refuses them and names the place; what keeps values keeps them."""

import dataclasses
import importlib.util

import dask
import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.arrays import finite
from nntomo_dask.settings import settings_of
from nntomo_dask.training.msdnet.slices import training_slices
from tests.unrolled_networks import network_of

ANGLES = nt.tilt_angles("tem", 8)
SIZE, SLICES = 32, 10
BAD = [np.nan, np.inf, -np.inf]
bad_values = pytest.mark.parametrize("bad", BAD)


@pytest.fixture(scope="module")
def volume():
    return nt.nanoparticle((SLICES, SIZE, SIZE), seed=1).compute()


@pytest.fixture(scope="module")
def series(volume):
    return nt.project(volume, ANGLES).compute()


@pytest.fixture(scope="module")
def networks(series):
    sets = nt.phantom_samples(series, phantom="ellipses", n_slices=8, n_samples=400)
    networks = {"nnfbp": nt.train_nnfbp(*sets, hidden_nodes=2, max_epochs=2, progress="none")}
    if importlib.util.find_spec("torch") is not None:
        slices = nt.phantom_slices(series, n_slices=8, neighbours=1)
        networks["msdnet"] = nt.train_msdnet(*slices, depth=2, max_epochs=1, progress="none")
        networks["unrolled"] = network_of()
    return networks


GIVEN = {"sirt": {"minimum": 0}, "cgls": {"iterations": 3}}  # what would be looked up in the whole series


def spoiled(array, bad, place=(6, 3, 5), slices=4):
    """The array in slabs of four slices, with one value replaced."""
    values = array.values.copy()
    values[place] = bad
    return array.copy(data=values).chunk({"z": slices})


def method_of(name, networks):
    method = nt.METHODS[name]
    if name == "dart":
        return method(levels=(0, 1), noise=1)  # which are estimated from slices of all slabs otherwise
    if method.network is None:
        return method()
    if name not in networks:
        pytest.skip("needs PyTorch: pip install 'nntomo_dask[deep]'")
    return method(networks=(networks[name],), **{} if name == "unrolled" else {"scale": 1})


@bad_values
@pytest.mark.parametrize("name", nt.METHODS)
def test_every_method_refuses_and_names_the_place(series, networks, name, bad):
    lazy = nt.reconstruct(spoiled(series, bad), method_of(name, networks))
    with pytest.raises(
        nt.SchemaError, match=rf"{name}: needs finite values; got {bad} at index z=6, angle=3, detector=5"
    ):
        lazy.compute()


@pytest.mark.parametrize("name", nt.METHODS)
def test_other_slabs_are_computed(series, networks, name):
    """A value is refused where it is met; slabs without it are right, where a setting is not taken from all."""
    method = dataclasses.replace(method_of(name, networks), **GIVEN.get(name, {}))
    if not all(isinstance(scalar, float) for scalar in method.prepare(series)):
        pytest.skip("the method asks the whole series, and refuses it")
    if method.block > len(series):
        pytest.skip("the series is one block, which is refused as a whole")
    good, lazy = (nt.reconstruct(one, method) for one in (series.chunk(z=2), spoiled(series, np.nan, slices=2)))
    np.testing.assert_array_equal(lazy.data.blocks[0].compute(), good.data.blocks[0].compute())


ON_SERIES = {
    "fbp, astra": ("astra", lambda series, networks: nt.fbp(series, engine="astra")),
    "sirt, non-negative": (None, lambda series, networks: nt.sirt(series, minimum=0)),
    "sirt, damped": (None, lambda series, networks: nt.cgls(series, damping=0.1)),
    "backproject": (None, lambda series, networks: nt.backproject(series)),
    "complete_wedge": (None, lambda series, networks: nt.complete_wedge(series)),
    "resize": (None, lambda series, networks: nt.resize(series, 12)),
    "other order": (None, lambda series, networks: nt.cgls(series.isel(angle=slice(None, None, -1)))),
    "intensity_level": (None, lambda series, networks: nt.intensity_level(series)),
    "outside_training_range": (None, lambda series, networks: nt.outside_training_range(series, networks["nnfbp"])),
    "nnfbp, auto": (None, lambda series, networks: nt.nnfbp(series, networks["nnfbp"])),
    "unrolled, ensemble": (
        "torch",
        lambda series, networks: nt.unrolled(series, [networks["unrolled"]] * 2, noise=0.1, statistic="spread"),
    ),
    "nnfbp, ensemble": (None, lambda series, networks: nt.nnfbp(series, [networks["nnfbp"]] * 2, statistic="spread")),
    "mean_and_spread": (
        None,
        lambda series, networks: nt.mean_and_spread(series, nt.METHODS["nnfbp"](networks=(networks["nnfbp"],) * 2))[1],
    ),
    "volume_and_spread": (None, lambda series, networks: nt.volume_and_spread(series, "fbp", beside="cgls")[1]),
    "training_samples": (
        None,
        lambda series, networks: nt.training_samples(
            series, nt.fbp(series.copy(data=np.ones(series.shape, np.float32))), n_samples=50
        )["inputs"],
    ),
    "training_slices": (None, lambda series, networks: training_slices(series, nt.fbp(series))["input"]),
    "noise2inverse_slices": ("torch", lambda series, networks: nt.noise2inverse_slices(series)[0]["target"]),
}


@bad_values
@pytest.mark.parametrize("name", ON_SERIES)
def test_operations_on_a_series(series, networks, name, bad):
    package, operation = ON_SERIES[name]
    if package is not None:
        pytest.importorskip(package)
    with pytest.raises(nt.SchemaError, match="needs finite values; got"):
        operation(spoiled(series, bad), networks).compute()


ON_VOLUME = {
    "project": lambda volume, good: nt.project(volume, ANGLES),
    "project, astra": lambda volume, good: nt.project(volume, ANGLES, engine="astra"),
    "normalize": lambda volume, good: nt.normalize(volume),
    "segment": lambda volume, good: nt.segment(volume, threshold=0.5),
    "target of samples": lambda volume, good: nt.training_samples(nt.project(good, ANGLES), volume, n_samples=9)[
        "target"
    ],
    "target of slices": lambda volume, good: nt.training_slices(nt.project(good, ANGLES), volume)["target"],
}


@bad_values
@pytest.mark.parametrize("name", ON_VOLUME)
def test_operations_on_a_volume(volume, name, bad):
    if "astra" in name:
        pytest.importorskip("astra")
    with pytest.raises(nt.SchemaError, match="needs finite values; got"):
        ON_VOLUME[name](spoiled(volume, bad), volume).compute()


@bad_values
@pytest.mark.parametrize("region", ["all", "disc"])
@pytest.mark.parametrize("name", nt.METRICS)
def test_every_metric_refuses(volume, name, region, bad):
    """Also where the value lies outside the region."""
    worse = spoiled(volume, bad, place=(6, 0, 0))
    for pair in ((worse, volume), (volume, worse)):
        with pytest.raises(nt.SchemaError, match=r"needs finite values; got .* at index z=6, y=0, x=0"):
            nt.measure(*pair, [nt.METRICS[name]()], region=region)


@bad_values
def test_numbers_that_are_no_setting(volume, series, networks, bad):
    for operation in (
        lambda: nt.segment(volume, threshold=bad),
        lambda: nt.dice(volume, volume, threshold=bad),
        lambda: nt.nnfbp(series, networks["nnfbp"], scale=bad),
        lambda: nt.tilt_series(series.data, [bad, *ANGLES[1:]]),
        lambda: nt.project(volume, [bad, 0, 10]),
        lambda: nt.projector([0, 10, bad], 8),
        lambda: nt.projector([0, 10], 8, axis=(bad, 3)),
        lambda: nt.volume(volume.data, pixel_size=bad),
        lambda: nt.fbp(series.assign_attrs(pixel_size=bad)),
        lambda: nt.angular_cells(np.array([0, bad])),
        lambda: nt.completed_angles(np.array([0, 10, bad])),
        lambda: nt.resolution(nt.fourier_shell_correlation(volume, volume), threshold=bad),
        lambda: nt.resolution(nt.fourier_shell_correlation(volume, volume) + bad),
        lambda: nt.evaluate(networks["nnfbp"], np.full((2, networks["nnfbp"].layout.n_inputs), bad)),
    ):
        with pytest.raises(nt.SchemaError, match="needs "):
            operation()


@bad_values
@pytest.mark.parametrize("name", nt.METHODS)
def test_settings_of_methods(series, networks, name, bad):
    method = method_of(name, networks)
    for one in settings_of(type(method)):
        if one.kind in (float, int):
            with pytest.raises(nt.SchemaError, match=rf"needs (a )?(finite )?{one.name.replace('_', '.')}"):
                nt.reconstruct(series, dataclasses.replace(method, **{one.name: bad}))


@bad_values
@pytest.mark.parametrize("name", nt.PHANTOMS)
def test_phantoms(name, bad):
    with pytest.raises(nt.SchemaError, match="needs a pixel size above zero"):
        nt.phantom(name, 8, pixel_size=bad)
    for one in settings_of(nt.PHANTOMS[name]):
        if one.kind in (float, int):
            with pytest.raises(nt.SchemaError, match="needs "):
                nt.phantom(name, 8, **{one.name: bad})


@bad_values
def test_trainings(series, volume, bad):
    samples = nt.training_samples(series, volume, n_samples=60).compute()
    for name in ("inputs", "target", "level"):
        values = samples[name].values.copy()
        values.flat[0] = bad
        worse = samples.assign({name: samples[name].copy(data=values)})
        with pytest.raises(nt.SchemaError, match="needs finite samples"):
            nt.train_nnfbp(worse, samples, max_epochs=1, progress="none")
    worse = samples.assign(inputs=samples["inputs"] + bad)
    with pytest.raises(nt.SchemaError, match="needs finite samples"):
        nt.train_nnfbp(samples, worse, max_epochs=1, progress="none")


@bad_values
@pytest.mark.extra("torch")
def test_training_of_slices(series, volume, bad):
    slices = nt.training_slices(series, volume, method="fbp").compute()
    for name in ("input", "target", "level"):
        values = slices[name].values.copy()
        values.flat[0] = bad
        worse = slices.assign({name: slices[name].copy(data=values)})
        with pytest.raises(nt.SchemaError, match="needs finite slices"):
            nt.train_msdnet(worse, slices, depth=1, max_epochs=1, progress="none")
        if name != "level":  # that of a validation set plays no part
            with pytest.raises(nt.SchemaError, match="needs finite slices"):
                nt.train_msdnet(slices, worse, depth=1, max_epochs=1, progress="none")


@bad_values
def test_figures(volume, bad):
    with pytest.raises(nt.SchemaError, match="compare_volumes: needs finite values"):
        nt.compare_volumes({"one": volume, "other": spoiled(volume, bad, place=(SLICES // 2, 3, 3))})


@bad_values
def test_what_keeps_values_keeps_them(tmp_path, series, volume, bad):
    for array in (series, volume):
        worse = spoiled(array, bad)
        saved = nt.save(worse, tmp_path / "kept.zarr", overwrite=True)
        np.testing.assert_array_equal(saved.values, worse.values)
        nt.write_mrc(worse, tmp_path / "kept.mrc")
    np.testing.assert_array_equal(nt.read_mrc_volume(tmp_path / "kept.mrc").values, worse.values)


def test_the_error_passes_through_processes(series):
    with (
        dask.config.set(scheduler="processes", num_workers=1),
        pytest.raises(nt.SchemaError, match="index z=6, angle=3"),
    ):
        nt.fbp(spoiled(series, np.nan)).compute()


@pytest.mark.parametrize("value", [0.0, 3e38, -3e38])
def test_large_sums_are_no_infinity(value):
    values = np.full((2, 3, 4), value, np.float32)
    assert finite.is_finite(values)
    values[1, 2, 3] = -np.inf
    assert not finite.is_finite(values)
    assert not finite.is_finite(np.array([np.inf, -np.inf], np.float32))
    assert not finite.is_finite(np.array([3e38, 3e38, np.nan], np.float32))
