"""Several networks in one backprojection: the kernel's end, and the reconstruction."""

import dataclasses

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.arrays import recipes
from nntomo_dask.compute import device, streams
from nntomo_dask.kernels import backproject, cuda
from nntomo_dask.networks.nnfbp_layout import InputLayout
from tests.conftest import ANGLES_DEG, Spelling
from tests.test_nnfbp import random_network

ANGLES_RAD = np.deg2rad(ANGLES_DEG)
SIZE = 40
STATISTICS = {"mean": np.mean, "spread": np.std}

pytestmark = pytest.mark.filterwarnings("ignore:nnfbp")  # untrained networks have no range to keep to


@pytest.fixture(scope="module")
def measured():
    return nt.project(nt.nanoparticle((7, SIZE, SIZE), seed=2), nt.tilt_angles("tem", 8)).compute()


@pytest.fixture
def networks(rng, measured):
    """Three networks in the same form; their units differ as their levels do."""
    layout = InputLayout(tuple(measured["angle"].values), SIZE)
    return [dataclasses.replace(random_network(rng, layout), level=level) for level in (1.0, 0.8, 1.3)]


def some_end(rng, members, hidden, activation, statistic, output="sigmoid", second=0):
    biases, weights = rng.standard_normal((2, members, hidden)).astype(np.float32)
    output_bias, offset, gain = rng.standard_normal((3, members)).astype(np.float32)
    end = backproject.NetworkEnd(biases, weights, output_bias, offset, gain, activation, statistic, output)
    if not second:
        return end
    last, second_bias = rng.standard_normal((2, members, second)).astype(np.float32)
    between = (rng.standard_normal((members, hidden, second)) / np.sqrt(hidden)).astype(np.float32)
    return dataclasses.replace(end, output_weights=last, second_weights=between, second_bias=second_bias)


def members_of(end):
    """The ends of the single networks."""
    arrays = [getattr(end, name) for name in ("hidden_bias", "output_weights", "output_bias", "offset", "gain")]
    for m in range(end.n_members):
        yield backproject.NetworkEnd(*(array[m : m + 1] for array in arrays), end.activation)


@pytest.mark.parametrize(
    ("members", "hidden", "second", "activation", "output", "statistic"),
    [
        (1, 5, 0, "relu", "linear", "mean"),
        (1, 12, 0, "sigmoid", "sigmoid", "mean"),
        (1, 16, 8, "relu", "linear", "mean"),
        (1, 7, 5, "sigmoid", "linear", "mean"),
        (2, 12, 1, "relu", "sigmoid", "spread"),
        (3, 3, 4, "relu", "linear", "mean"),
    ],
)
def test_kernel_with_other_ends(spelling, rng, members, hidden, second, activation, output, statistic):
    """A linear output, a second layer of an even and an odd number of nodes, sums made in several passes.

    Rounding of float32, 6e-8, adds up over two layers with weights of 1: 2e-5 of the largest value.
    """
    filtered = rng.standard_normal((11, members * hidden, ANGLES_RAD.size, 35)).astype(np.float32)
    end = some_end(rng, members, hidden, activation, statistic, output, second)
    actual = spelling(backproject.backproject_network, filtered, ANGLES_RAD, end)
    expected = backproject.backproject_network_reference(filtered, ANGLES_RAD, end)
    largest = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, atol=2e-5 * largest, rtol=0)
    assert expected.std() > 1e-3 * largest


@pytest.mark.parametrize(("hidden", "second"), [(16, 8), (5, 3)])
def test_slices_do_not_depend_on_their_group(spelling, rng, hidden, second):
    filtered = rng.standard_normal((11, hidden, ANGLES_RAD.size, 20)).astype(np.float32)
    end = some_end(rng, 1, hidden, "relu", "mean", "linear", second)
    whole = spelling(backproject.backproject_network, filtered, ANGLES_RAD, end)
    for part in (slice(0, 1), slice(3, 10)):
        alone = spelling(backproject.backproject_network, filtered[part], ANGLES_RAD, end)
        np.testing.assert_array_equal(alone, whole[part])


@pytest.mark.parametrize(
    ("members", "hidden", "activation", "statistic"),
    [(2, 3, "sigmoid", "spread"), (3, 8, "relu", "mean"), (3, 8, "relu", "spread")],
)
def test_kernel(spelling, rng, members, hidden, activation, statistic):
    """Slices of two lane groups, tiles that are not full; 2e-6 of the members' values, as for one network."""
    filtered = rng.standard_normal((11, members * hidden, ANGLES_RAD.size, 35)).astype(np.float32)
    end = some_end(rng, members, hidden, activation, statistic)
    actual = spelling(backproject.backproject_network, filtered, ANGLES_RAD, end)
    expected = backproject.backproject_network_reference(filtered, ANGLES_RAD, end)
    assert actual.dtype == expected.dtype
    largest = np.abs(end.offset).max() + np.abs(end.gain).max()
    np.testing.assert_allclose(actual, expected, atol=2e-6 * largest, rtol=0)
    assert expected.std() > 1e-3 * largest  # there is something to agree on


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_both_statistics_in_one_pass_have_the_bits_of_each_alone(spelling, rng, members, activation):
    """One member takes another path through the kernel when only its mean is written."""
    filtered = rng.standard_normal((11, members * 8, ANGLES_RAD.size, 35)).astype(np.float32)
    end = some_end(rng, members, 8, activation, "mean")
    both = spelling(backproject.backproject_statistics, filtered, ANGLES_RAD, end)
    for actual, statistic in zip(both, STATISTICS, strict=True):
        alone = dataclasses.replace(end, statistic=statistic)
        np.testing.assert_array_equal(
            actual, spelling(backproject.backproject_network, filtered, ANGLES_RAD, alone), statistic
        )
        reference = backproject.backproject_network_reference(filtered, ANGLES_RAD, alone)
        np.testing.assert_array_equal(
            backproject.backproject_statistics_reference(filtered, ANGLES_RAD, end)[backproject.BOTH.index(statistic)],
            reference,
        )
    assert (both[1].max() > 0) == (members > 1)


@pytest.mark.parametrize("function", ["backproject_network", "backproject_statistics"])
def test_the_result_is_written_to_an_array_that_is_given(spelling, rng, function):
    """Groups of slices of a larger array, as a reconstruction gives them."""
    filtered = spelling.put(rng.standard_normal((11, 4, ANGLES_RAD.size, 20)).astype(np.float32))
    end = some_end(rng, 2, 2, "relu", "mean")
    kernel = getattr(backproject, function)
    expected = kernel(filtered, ANGLES_RAD, end)
    whole = device.namespace(filtered).zeros((*expected.shape[:-3], 20, 20, 20), np.float32)
    part = whole[..., 3:14, :, :]
    assert kernel(filtered, ANGLES_RAD, end, out=part) is part
    np.testing.assert_array_equal(device.to_host(part), device.to_host(expected))
    assert not device.to_host(whole[..., :3, :, :]).any()
    assert not device.to_host(whole[..., 14:, :, :]).any()


def test_an_array_in_which_the_result_would_be_lost_is_not_taken(rng):
    filtered = rng.standard_normal((11, 4, ANGLES_RAD.size, 20)).astype(np.float32)
    strided = np.zeros((11, 2, 20, 20), np.float32).swapaxes(0, 1)
    with pytest.raises(AssertionError):
        backproject.backproject_statistics(filtered, ANGLES_RAD, some_end(rng, 2, 2, "relu", "mean"), out=strided)


def test_reference(rng):
    """The reference of an ensemble is made of that of a single network, rounded to float32 in between."""
    filtered = rng.standard_normal((2, 6, ANGLES_RAD.size, 9)).astype(np.float32)
    end = some_end(rng, 3, 2, "relu", "spread")
    single = [
        backproject.backproject_network_reference(rows, ANGLES_RAD, member)
        for rows, member in zip(np.split(filtered, 3, axis=1), members_of(end), strict=True)
    ]
    actual = backproject.backproject_network_reference(filtered, ANGLES_RAD, end)
    np.testing.assert_allclose(actual, np.std(single, axis=0), atol=1e-6)


@pytest.mark.parametrize(("members", "hidden", "second"), [(1, 16, 7), (2, 8, 8)])
def test_cuda_computes_a_second_layer_as_numba_does(cuda_on_cpu, rng, members, hidden, second):
    filtered = rng.standard_normal((35, members * hidden, 5, 20)).astype(np.float32)
    end = some_end(rng, members, hidden, "relu", "mean", "linear", second)
    on_cpu, by_cuda = (
        Spelling(one)(backproject.backproject_network, filtered, np.linspace(-1.5, 1.5, 5), end)
        for one in (None, cuda_on_cpu)
    )
    np.testing.assert_array_equal(by_cuda, on_cpu)


@pytest.mark.parametrize("n_angles", [5, cuda.CHUNK + 6])
@pytest.mark.parametrize("blocks", [1, 4096])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_cuda_does_what_numba_does(cuda_on_cpu, monkeypatch, rng, statistic, blocks, n_angles):
    """Bit for bit; one lane group a block or several, one chunk of angles or two."""
    monkeypatch.setattr(cuda, "_BLOCKS", blocks)
    angles = np.linspace(-1.5, 1.5, n_angles)
    filtered = rng.standard_normal((35, 24, n_angles, 20)).astype(np.float32)
    end = some_end(rng, 3, 8, "relu", statistic)
    on_cpu, by_cuda = (
        Spelling(one)(backproject.backproject_network, filtered, angles, end) for one in (None, cuda_on_cpu)
    )
    np.testing.assert_array_equal(by_cuda, on_cpu)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_equal_members_have_their_value_as_mean_and_no_spread(spelling, rng, offset):
    """Exactly, and also far from zero, where a difference of squares would leave noise of some 10."""
    rows = rng.standard_normal((3, 8, ANGLES_RAD.size, 9)).astype(np.float32)
    end = some_end(rng, 1, 8, "relu", "mean")
    end = dataclasses.replace(end, offset=np.full(1, offset, np.float32))
    same = {name: np.repeat(getattr(end, name), 3, axis=0) for name in ("hidden_bias", "output_weights")}
    same |= {name: np.repeat(getattr(end, name), 3) for name in ("output_bias", "offset", "gain")}
    single = spelling(backproject.backproject_network, rows, ANGLES_RAD, end)
    for statistic, expected in (("mean", single), ("spread", 0 * single)):
        ensemble = dataclasses.replace(end, **same, statistic=statistic)
        actual = spelling(backproject.backproject_network, np.tile(rows, (1, 3, 1, 1)), ANGLES_RAD, ensemble)
        np.testing.assert_array_equal(actual, expected)


def test_one_member_has_no_spread(rng):
    rows = rng.standard_normal((1, 1, ANGLES_RAD.size, 9)).astype(np.float32)
    assert not backproject.backproject_network(rows, ANGLES_RAD, some_end(rng, 1, 1, "relu", "spread")).any()


@pytest.mark.parametrize("scale", [1.7, "auto"])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_an_ensemble_is_its_members_volumes(measured, networks, statistic, scale):
    """To 1e-5 of the range: the same operations on the same rows, and a few roundings more."""
    volumes = [
        nt.nnfbp(measured, network, scale=scale, consistency="none").values.astype(float) for network in networks
    ]
    actual = nt.nnfbp(measured, networks, scale=scale, statistic=statistic, consistency="none")
    expected = STATISTICS[statistic](volumes, axis=0)
    np.testing.assert_allclose(actual.values, expected, atol=1e-5 * np.ptp(volumes))
    assert actual.dims == ("z", "y", "x")
    assert actual.attrs["units"] == measured.attrs["units"]
    assert expected.std() > 1e-2 * np.ptp(volumes)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_the_order_of_the_members_does_not_matter(measured, networks, statistic):
    forth = nt.nnfbp(measured, networks, scale=1, statistic=statistic, consistency="none").values
    back = nt.nnfbp(measured, networks[::-1], scale=1, statistic=statistic, consistency="none").values
    np.testing.assert_allclose(back, forth, atol=1e-5 * 3)  # outputs lie between -1 and 2


@pytest.mark.parametrize("statistic", STATISTICS)
def test_chunks_change_nothing(measured, networks, statistic):
    whole = nt.nnfbp(measured.chunk(z=-1), networks, scale=1, statistic=statistic).values
    for slices in (1, 3):
        parts = nt.nnfbp(measured.chunk(z=slices), networks, scale=1, statistic=statistic)
        np.testing.assert_array_equal(parts.values, whole)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_on_a_gpu(cuda_on_cpu, measured, networks, statistic):
    """Blocks there; to 1e-5 of the range, since transforms differ."""
    expected = nt.nnfbp(measured, networks, scale=1, statistic=statistic).values
    there = measured.chunk(z=-1).copy()
    there.data = there.data.map_blocks(cuda_on_cpu.asarray)
    actual = nt.nnfbp(there, networks, scale=1, statistic=statistic).data.compute()
    assert isinstance(actual, cuda_on_cpu.ndarray)
    np.testing.assert_allclose(actual.get(), expected, atol=1e-5 * 3)
    assert cuda_on_cpu.launches["backproject"] == 1


def test_memory_is_that_of_all_members(measured, networks, monkeypatch):
    asked = []

    def streamed(function, slab, *, slice_bytes, who):
        asked.append(slice_bytes)
        return function(slab)

    monkeypatch.setattr(streams, "streamed", streamed)
    nt.nnfbp(measured.chunk(z=-1), networks, scale=1, consistency="none").compute()
    one, two, three = (
        nt.METHODS["nnfbp"](networks=tuple(networks[:count]), consistency="none").device_bytes_per_slice(measured.shape)
        for count in (1, 2, 3)
    )
    assert asked == [three]
    assert three - two == two - one > 0


def test_lazy(measured, networks, nothing_computes):
    assert nt.nnfbp(measured, networks, statistic="spread").shape == (7, SIZE, SIZE)


def test_recipes(measured, networks):
    """That of one network is as it was before there were ensembles, which stores that exist depend on."""
    recipe = recipes.recipe_of(nt.nnfbp(measured.chunk(z=3), networks[0], consistency="none"))
    assert recipe["parameters"] == {"network": networks[0].digest, "scale": "auto"}
    default = recipes.recipe_of(nt.nnfbp(measured.chunk(z=3), networks[0]))
    assert default["parameters"] == recipe["parameters"] | {"consistency": "noiseless"}
    assert recipe["inputs"][1:] == [networks[0].recipe]
    alone, listed = nt.nnfbp(measured.chunk(z=3), networks[0]), nt.nnfbp(measured.chunk(z=3), networks[:1])
    assert listed.data.name == alone.data.name
    several = [nt.nnfbp(measured.chunk(z=3), networks, statistic=statistic) for statistic in STATISTICS]
    assert several[0].data.name != several[1].data.name
    assert recipes.recipe_of(several[1])["parameters"] == {
        "networks": [network.digest for network in networks],
        "scale": "auto",
        "statistic": "spread",
    }


@pytest.mark.filterwarnings("default:nnfbp")
def test_the_worst_member_is_warned_of(measured, networks):
    """One network that saw a range without end, one that saw next to nothing."""
    n_inputs = networks[0].layout.n_inputs
    wide, narrow = (
        dataclasses.replace(networks[0], input_low=np.full(n_inputs, -size), input_high=np.full(n_inputs, size))
        for size in (1e6, 1e-6)
    )
    worst = float(nt.outside_training_range(measured.chunk(z=-1), narrow, scale=1).mean())
    assert float(nt.outside_training_range(measured, wide, scale=1).max()) == 0
    for members in ([wide, wide, narrow], [narrow, wide, wide]):
        with pytest.warns(
            UserWarning, match=f"^nnfbp: inputs .* outside the range it saw in training: {worst:.1%}, by "
        ):
            nt.nnfbp(measured.chunk(z=-1), members, scale=1).compute()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"hidden": 5},
            "needs networks with the same n_hidden; got 8 and 5; try: train them alike, with different seeds",
        ),
        ({"activation": "sigmoid"}, "needs networks with the same activation; got relu and sigmoid"),
        ({"wedge": "keep"}, "needs networks with the same wedge; got complete and keep"),
        ({"detector_count": 41}, "needs networks with the same detector_count; got 40 and 41"),
        ({"angles_deg": (0.0, 9.0)}, r"needs networks with the same angles_deg; got \[-70.0, .* and \[0.0, 9.0\]"),
    ],
)
def test_members_of_another_form_are_refused(rng, measured, networks, change, message):
    of_layout = {key: value for key, value in change.items() if key not in ("hidden", "activation")}
    of_network = {key: value for key, value in change.items() if key in ("hidden", "activation")}
    other = random_network(rng, dataclasses.replace(networks[0].layout, **of_layout), **of_network)
    with pytest.raises(nt.SchemaError, match=f"^nnfbp: {message}"):
        nt.nnfbp(measured, [*networks, other])


def test_what_is_no_ensemble_is_refused(measured, networks):
    with pytest.raises(nt.SchemaError, match="nnfbp: needs a network or several; got none"):
        nt.nnfbp(measured, [])
    for one in (networks[0], networks[:1]):
        with pytest.raises(nt.SchemaError, match="nnfbp: needs two networks or more for a spread; got one"):
            nt.nnfbp(measured, one, statistic="spread")
    with pytest.raises(nt.SchemaError, match='nnfbp: needs statistic "mean" or "spread"; got \'median\''):
        nt.nnfbp(measured, networks, statistic="median")
    without_level = dataclasses.replace(networks[1], level=0.0)
    with pytest.raises(nt.SchemaError, match="nnfbp: needs a scale: the training set has no level"):
        nt.nnfbp(measured, [networks[0], without_level])
