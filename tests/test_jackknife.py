"""The standard error of voxels by leaving out each projection once."""

from pathlib import Path

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.reconstruction.jackknife import Jackknife

METHODS = {
    "fbp": {"window": "ram-lak"},
    "sirt": {"tolerance": 0, "max_iterations": 5, "minimum": 0},
    "cgls": {"iterations": 3},
    "tv": {"weight": 1.0, "tolerance": 1e-9, "max_iterations": 4},  # in blocks of slices with neighbours
}


def by_hand(series, method, **settings):
    """The textbook's formula in double precision, from volumes that are all kept."""
    count = series.sizes["angle"]
    chosen = nt.METHODS[method](**settings)
    prepared = chosen.prepare(series)  # of all projections
    volumes = []
    for left_out in range(count):
        kept = series.isel(angle=np.delete(np.arange(count), left_out))
        volumes.append(nt.reconstruct(kept, chosen, prepared=prepared).values.astype(np.float64))
    return np.sqrt((count - 1) / count * ((volumes - np.mean(volumes, axis=0)) ** 2).sum(axis=0))


@pytest.mark.parametrize("method", METHODS)
def test_against_the_formula(series, method):
    expected = by_hand(series, method, **METHODS[method])
    errors = nt.jackknife(series, method, **METHODS[method])
    assert errors.dims == ("z", "y", "x")
    assert errors.dtype == np.float32
    # Sums of eight squares in single precision.
    np.testing.assert_allclose(errors.values, expected, atol=1e-5 * expected.max())
    if method != "tv":  # whose slices know of each other
        assert errors.values[4].max() == 0  # an empty slice is empty without any projection


def test_a_mean_has_its_textbook_error(series):
    """Of a sum over projections the jackknife is exact: √N · the standard deviation of the terms (with N - 1)."""
    from dataclasses import dataclass

    from nntomo_dask.reconstruction.method import Method

    @dataclass(frozen=True)
    class Mean(Method):
        name = "mean"
        title = "Mean"

        def slab(self, rows, angles_deg, *prepared):
            mean = rows[..., 0].mean(axis=1)
            return np.broadcast_to(mean[:, None, None], (len(rows), *2 * rows.shape[-1:])).astype(np.float32)

        def host_bytes(self, shape):
            return 0

    errors = nt.jackknife(series, Mean()).values[:, 0, 0]
    terms = series.values[..., 0].astype(np.float64)
    np.testing.assert_allclose(errors, terms.std(axis=1, ddof=1) / np.sqrt(8), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_chunks_change_nothing(series, method):
    whole = nt.jackknife(series, method, **METHODS[method]).values
    np.testing.assert_array_equal(nt.jackknife(series.chunk(z=2), method, **METHODS[method]).values, whole)


def test_the_order_of_projections_changes_nothing_but_rounding(series):
    whole = nt.jackknife(series, "fbp").values
    shuffled = series.isel(angle=[3, 1, 7, 0, 2, 6, 5, 4])
    np.testing.assert_allclose(nt.jackknife(shuffled, "fbp").values, whole, atol=1e-5 * whole.max())


def test_on_a_gpu(cuda_on_cpu, series):
    on_gpu = series.copy(data=cuda_on_cpu.asarray(series.values))
    host = nt.jackknife(series, "cgls", iterations=3).values
    values = nt.jackknife(on_gpu.chunk(z=9), "cgls", iterations=3).data.compute()
    # Few units in the last place between the devices, which iterations and differences of volumes enlarge.
    np.testing.assert_allclose(values.get(), host, atol=1e-3 * host.max())


def test_lazy_with_defaults_and_a_recipe(series, nothing_computes):
    errors = nt.jackknife(series, "sirt", max_iterations=7)
    assert errors.attrs["recipe"]["operation"] == "jackknife"
    assert errors.attrs["recipe"]["parameters"]["method"] == "sirt"
    assert errors.attrs["recipe"]["parameters"]["max_iterations"] == 7
    assert errors.shape == (9, 32, 32)


def test_memory_is_that_of_the_method_and_four_volumes(series):
    method = nt.METHODS["fbp"]()
    shape = (32, 8, 64)
    more = Jackknife(method).host_bytes(shape) - method.host_bytes(shape)
    assert more == 32 * (4 * 4 * 64**2 + 4 * 8 * 64)
    assert Jackknife(method).wanted_slices((64, 8, 64)) == method.wanted_slices((64, 8, 64))


@pytest.mark.parametrize(
    ("count", "method", "message"),
    [(2, "fbp", "jackknife: needs at least 3 projections; got 2"), (8, "srit", "needs a method")],
)
def test_what_has_no_jackknife_is_refused(series, count, method, message):
    with pytest.raises(nt.SchemaError, match=message):
        nt.jackknife(series.isel(angle=slice(0, count)), method)


def test_networks_are_refused():
    made = Path(__file__).parent / "data" / "v0_1"
    network = nt.load_network(made / "nnfbp_lm.safetensors")
    with pytest.raises(nt.SchemaError, match="jackknife: needs a method without networks"):
        nt.jackknife(nt.open(made / "series.zarr"), nt.METHODS["nnfbp"](networks=(network,)))


def test_the_command_writes_the_volume_and_its_spread(run, series_store):
    options = ("--method", "sirt", "--max-iterations", 6)
    run("reconstruct", series_store, *options, "-o", "alone.zarr")
    text = run("reconstruct", series_store, *options, "--spread", "spread.zarr", "-o", "both.zarr").stderr
    assert "note: the spread takes 8 reconstructions more" in text
    assert "sirt: 32 slices in " in text
    assert "jackknife: 32 slices in " in text
    series = nt.open(series_store)
    np.testing.assert_array_equal(nt.open("both.zarr").values, nt.open("alone.zarr").values)
    np.testing.assert_array_equal(nt.open("spread.zarr").values, nt.jackknife(series, "sirt", max_iterations=6).values)
    refused = run("reconstruct", series_store, "--method", "nnfbp", "--spread", "s.zarr", "-o", "v.zarr", exit_code=2)
    assert "--spread of --method nnfbp needs an ensemble" in refused.output


def test_noise_widens_it(series, rng):
    """Noise of the projections alone makes the standard error of a linear method; it grows with it."""
    noise = rng.normal(0, 1, series.shape).astype(np.float32)
    small, large = (nt.jackknife(series * 0 + factor * noise, "fbp").values for factor in (1, 3))
    np.testing.assert_allclose(large, 3 * small, rtol=1e-3)
