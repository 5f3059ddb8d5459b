"""A volume beside another method's: how far it may be off."""

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.networks.nnfbp import InputLayout
from tests.test_nnfbp import random_network

pytestmark = pytest.mark.filterwarnings("ignore:nnfbp")  # the network is random
TV = nt.METHODS["tv"](weight=1.0, tolerance=1e-9, max_iterations=4)  # in blocks of slices with neighbours
SIRT = nt.METHODS["sirt"](max_iterations=5)  # that prepares something of the series


@pytest.fixture
def network(rng, series):
    return random_network(rng, InputLayout(tuple(series.angle.values), series.sizes["detector"]))


@pytest.mark.parametrize("beside", [TV, SIRT, "cgls"], ids=["tv", "sirt", "cgls by name"])
@pytest.mark.parametrize("method", ["network", "fbp"])
def test_against_its_parts(series, network, method, beside):
    chosen, settings = (network, {"scale": 1}) if method == "network" else ("fbp", {"window": "ram-lak"})
    volume, spread = nt.volume_and_spread(series, chosen, beside=beside, **settings)
    expected = nt.reconstruct(series, chosen, **settings)
    assert volume.attrs["recipe"] == expected.attrs["recipe"]
    np.testing.assert_array_equal(volume.values, expected.values)
    difference = expected.values.astype(np.float64) - nt.reconstruct(series, beside).values
    spreads = np.sqrt(difference**2 + nt.jackknife(series, beside).values.astype(np.float64) ** 2)
    # Three roundings of the values that are subtracted.
    np.testing.assert_allclose(spread.values, spreads, rtol=1e-6, atol=1e-6 * np.abs(volume.values).max())
    assert spread.dtype == np.float32
    assert spread.coords.equals(volume.coords)
    assert {key: value for key, value in spread.attrs.items() if key != "recipe"} == {
        key: value for key, value in volume.attrs.items() if key != "recipe"
    }


def test_beside_itself_the_jackknife_is_left(series):
    _, spread = nt.volume_and_spread(series, "cgls", beside="cgls")
    np.testing.assert_array_equal(spread.values, nt.jackknife(series, "cgls").values)


def test_lazy(series, network, nothing_computes):
    volume, spread = nt.volume_and_spread(series, network)
    assert volume.chunks is not None
    assert spread.attrs["recipe"]["operation"] == "spread_beside"
    assert str(spread.attrs["recipe"]).startswith("spread_beside(nnfbp(")
    operations = [one["operation"] for one in spread.attrs["recipe"]["inputs"]]
    assert operations == ["nnfbp", "tv", "jackknife"]  # all that it is made of


def test_chunks_change_nothing(series, network):
    whole = nt.volume_and_spread(series, network, beside=TV)[1].values
    np.testing.assert_array_equal(nt.volume_and_spread(series.chunk(z=2), network, beside=TV)[1].values, whole)


def test_padded(series):
    _, spread = nt.volume_and_spread(series, "fbp", beside="cgls", pad=4)
    volumes = [nt.reconstruct(series, one, pad=4).values for one in ("fbp", "cgls")]
    expected = np.hypot(volumes[0] - volumes[1], nt.jackknife(series, "cgls", pad=4).values)
    np.testing.assert_allclose(spread.values, expected, rtol=1e-6)


def test_stored_together(series, network, tmp_path):
    volume, spread = nt.volume_and_spread(series.chunk(z=4), network, beside="cgls")
    arrays = {tmp_path / "volume.zarr": volume, tmp_path / "spread.zarr": spread}
    stored = nt.save_together(arrays)
    for path, lazy in arrays.items():
        back = stored[path]
        np.testing.assert_array_equal(back.values, lazy.values)
        assert back.attrs["recipe"] == lazy.attrs["recipe"]


def test_on_a_gpu(cuda_on_cpu, series):
    """The spread comes to the host, since jackknife's errors do."""
    on_gpu = series.copy(data=cuda_on_cpu.asarray(series.values))
    expected = nt.volume_and_spread(series, "fbp", beside="cgls")[1].values
    spread = nt.volume_and_spread(on_gpu, "fbp", beside="cgls")[1].data.compute()
    assert type(spread) is np.ndarray
    # Sums of tens of products, some iterations.
    np.testing.assert_allclose(spread, expected, atol=1e-4 * expected.max())


def test_a_network_judges_nobody(series, network):
    with pytest.raises(nt.SchemaError, match="needs a method without networks"):
        nt.volume_and_spread(series, "fbp", beside=nt.METHODS["nnfbp"](networks=(network,)))
    with pytest.raises(nt.SchemaError, match="at least 3 projections"):
        nt.volume_and_spread(series.isel(angle=[2, 5]), "fbp", beside="cgls")
