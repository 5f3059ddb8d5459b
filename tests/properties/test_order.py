"""Order means nothing: projections that change places together with their angles change no result beyond rounding."""

import dataclasses
import importlib.util

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings, strategies as st

import nntomo_dask as nt
from nntomo_dask.arrays import angles as angles_room, geometry
from nntomo_dask.networks.nnfbp_layout import InputLayout
from tests.unrolled_networks import network_of

SIZE, COUNT = 24, 12
ANGLES = np.linspace(-66, 66, COUNT) + np.array([0, 0.7, -1] * 4)  # a missing wedge, and unequal steps
HYPOTHESIS = settings(deadline=None, max_examples=8, derandomize=True)
ORDERS = st.permutations(range(COUNT)).map(np.array)


@pytest.fixture(scope="module")
def series():
    volume = nt.nanoparticle((9, SIZE, SIZE), seed=4)
    return nt.project(volume, ANGLES).compute()


@pytest.fixture(scope="module")
def networks(series):
    """A network of each kind, also one that was trained without phantoms."""
    nnfbp = nt.train_nnfbp(
        *nt.phantom_samples(series, phantom="ellipses", filters="shared", n_slices=8, n_samples=500),
        hidden_nodes=2,
        second_nodes=2,
        max_epochs=3,
        progress="none",
    )
    networks = {"nnfbp": [nnfbp]}
    if importlib.util.find_spec("torch") is None:
        return networks
    sets = {
        "msdnet": nt.phantom_slices(series, n_slices=8, neighbours=1),
        "msdnet_of_nnfbp": nt.phantom_slices(series, n_slices=8, neighbours=1, method="nnfbp", network=nnfbp),
        "msdnet_self": nt.noise2inverse_slices(series, neighbours=1, splits=3),
    }
    for name, both in sets.items():
        networks[name] = [nt.train_msdnet(*both, depth=2, max_epochs=1, progress="none")]
    networks["unrolled"] = [network_of()]
    return networks


OPERATIONS = {
    "fbp": nt.fbp,
    "fbp_astra": lambda series: nt.fbp(series, engine="astra"),
    "sirt": lambda series: nt.sirt(series, minimum=0, tolerance=0, max_iterations=20),
    "sirt_astra": lambda series: nt.sirt(series, tolerance=0, max_iterations=5, engine="astra"),
    "cgls": lambda series: nt.cgls(series, iterations=5),
    "tv": lambda series: nt.tv(series, weight=1, max_iterations=10, tolerance=1e-9),
    "dart": lambda series: nt.dart(series, levels=(0, 1), noise=0.2, iterations=9),
    "backproject": nt.backproject,
    "complete_wedge": lambda series: nt.complete_wedge(series).sortby("angle"),
    "resize": lambda series: nt.resize(series, 12).sortby("angle"),
    "intensity_level": nt.intensity_level,
    "project": lambda series: nt.project(nt.fbp(series), series.angle.values).sortby("angle"),
    "samples": lambda series: xr.concat(
        [
            part[name].astype(float).sum()
            for part in nt.phantom_samples(series, n_slices=8, n_samples=99)
            for name in part
        ],
        "sum",
        coords="minimal",
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
@HYPOTHESIS
@given(order=ORDERS)
def test_operations(series, name, order):
    if "astra" in name:
        pytest.importorskip("astra")
    wanted, got = (OPERATIONS[name](one).compute() for one in (series, series.isel(angle=order)))
    # Sums of 12 terms of float32 in another order: 12 · 6e-8 of the largest; iterations carry it on.
    np.testing.assert_allclose(got.values, wanted.values, rtol=1e-4, atol=2e-5 * float(abs(wanted).max()))


@pytest.mark.extra("torch")
def test_every_method_is_tried(networks):
    assert {name.split("_")[0] for name in OPERATIONS} | set(networks) >= set(nt.METHODS)


@pytest.mark.parametrize("name", ["nnfbp", "msdnet", "msdnet_of_nnfbp", "msdnet_self", "unrolled"])
@HYPOTHESIS
@given(order=ORDERS)
def test_networks_reconstruct(series, networks, name, order):
    if name not in networks:
        pytest.skip("needs PyTorch: pip install 'nntomo_dask[deep]'")
    wanted, got = (nt.reconstruct(one, networks[name]).compute() for one in (series, series.isel(angle=order)))
    np.testing.assert_allclose(got.values, wanted.values, rtol=1e-4, atol=1e-4 * float(abs(wanted).max()))


@HYPOTHESIS
@given(order=ORDERS)
def test_outside_training_range(series, networks, order):
    (network,) = networks["nnfbp"]
    wanted, got = (nt.outside_training_range(one, network).values for one in (series, series.isel(angle=order)))
    np.testing.assert_allclose(got, wanted, atol=1e-3)  # an input at the very limit may fall on either side


SETS = {
    "samples_of_a_phantom": lambda series: nt.phantom_samples(series, n_slices=8, n_samples=50),
    "samples": lambda series: [nt.training_samples(series, nt.fbp(series.sortby("angle")), n_samples=50)],
    "slices_of_a_phantom": lambda series: nt.phantom_slices(series, n_slices=8),
    "slices": lambda series: [nt.training_slices(series, nt.fbp(series.sortby("angle")))],
    "noise2inverse": lambda series: nt.noise2inverse_slices(series, splits=2),
    "noise2inverse_in_three": lambda series: nt.noise2inverse_slices(series, splits=3, method="sirt"),
}


SLOW = "noise2inverse_in_three"  # another number of splits, by iteration


@pytest.mark.parametrize("name", [pytest.param(one, marks=pytest.mark.slow) if one == SLOW else one for one in SETS])
@HYPOTHESIS
@given(order=ORDERS)
def test_training_sets(series, name, order):
    for wanted, got in zip(*(SETS[name](one) for one in (series, series.isel(angle=order))), strict=True):
        assert got.attrs["layout"] == wanted.attrs["layout"]
        for one in wanted:
            np.testing.assert_array_equal(got[one].values, wanted[one].values)


def test_series_of_several_orders_make_one_set(series):
    volume = nt.fbp(series).compute()
    order = np.arange(COUNT)[::-1]
    mixed = [series, series.isel(angle=order)]
    for make in (lambda *pair: nt.training_samples(*pair, n_samples=80), nt.training_slices):
        wanted, got = make([series, series], [volume, volume]), make(mixed, [volume, volume])
        for name in wanted:
            np.testing.assert_array_equal(got[name].values, wanted[name].values)


def test_self_supervised_parts_have_all_directions(series):
    """A dose-symmetric series, 0, 3, -3, 6, …: dealt out by place, its parts were negative and positive tilts."""
    angles = np.arange(-30, 31, 3.0)
    rows = np.broadcast_to(angles[:, None].astype(np.float32), (8, 21, 6))  # each projection says its angle
    order = np.argsort(np.abs(angles) + (angles < 0) * 0.5, kind="stable")
    training, _ = nt.noise2inverse_slices(nt.tilt_series(rows[:, order], angles[order]), method="fbp", neighbours=0)
    inputs, targets = training["input"].values, training["target"].values
    ordered, _ = nt.noise2inverse_slices(nt.tilt_series(rows, angles), method="fbp", neighbours=0)
    np.testing.assert_array_equal(inputs, ordered["input"].values)
    np.testing.assert_array_equal(targets, ordered["target"].values)


def test_a_network_keeps_the_order_that_it_was_trained_in(series, networks):
    """Files of version 0.1.0 hold angles in the order of their series."""
    (network,) = networks["nnfbp"]
    order = np.roll(np.arange(COUNT), 5)
    turned = dataclasses.replace(network, layout=dataclasses.replace(network.layout, angles_deg=tuple(ANGLES[order])))
    wanted = nt.nnfbp(series, network).values
    for one in (series, series.isel(angle=order), series.isel(angle=order[::-1])):
        np.testing.assert_allclose(nt.nnfbp(one, turned).values, wanted, rtol=1e-4, atol=1e-4 * wanted.max())


@HYPOTHESIS
@given(order=st.permutations(range(24)).map(np.array), seed=st.integers(0, 99))
def test_directions_and_weights(order, seed):
    rng = np.random.default_rng(seed)
    angles = np.concatenate([rng.uniform(-70, 70, 12), np.arange(-70, 50, 10.0) + 0.01])
    directions, member = angles_room.directions(angles)
    other, members = angles_room.directions(angles[order])
    np.testing.assert_array_equal(other, directions)
    np.testing.assert_array_equal(members, member[order])
    np.testing.assert_allclose(geometry.angular_cells(angles[order]), geometry.angular_cells(angles)[order])
    assert geometry.wedge(angles[order]) == geometry.wedge(angles)
    np.testing.assert_array_equal(
        np.sort(geometry.completed_angles(angles[order])), np.sort(geometry.completed_angles(angles))
    )
    layout = InputLayout(tuple(angles), 8)
    turned = InputLayout(tuple(angles[order]), 8)
    if geometry.wedge(angles) is not None:
        np.testing.assert_allclose(turned.weights, layout.weights)


def test_other_angles_are_refused(series, networks):
    (network,) = networks["nnfbp"]
    with pytest.raises(nt.SchemaError, match="needs the angles for which the network was trained"):
        nt.nnfbp(series.assign_coords(angle=np.sort(ANGLES + 0.2)), network)


@pytest.mark.parametrize("step", [0.01, 0.04, 0.05, 0.06, 0.2])
def test_small_steps_are_steps(step):
    """Weights of equal steps are equal, and FBP has the error of the same range in larger steps."""
    angles = np.round(np.arange(-90, 90, step), 6)
    np.testing.assert_allclose(geometry.angular_cells(angles) * angles.size, 1, rtol=1e-6)
    assert geometry.wedge(angles) is None
    part = angles[np.abs(angles) <= 60]
    assert geometry.wedge(part) == (pytest.approx(60), pytest.approx(60, abs=2 * step))
    order = np.random.default_rng(0).permutation(part.size)
    np.testing.assert_allclose(geometry.angular_cells(part[order]) * part.size, 1, rtol=1e-6)


def test_a_series_in_steps_of_a_twentieth_of_a_degree_reconstructs():
    volume = nt.ellipse_stack((1, 32, 32), seed=2).compute()
    errors = {}
    for step in (0.05, 0.5):
        got = nt.fbp(nt.project(volume, np.arange(-90, 90, step))).values
        inside = geometry.seen_by_all(32)
        errors[step] = float(
            np.sqrt(((got - volume.values)[:, inside] ** 2).mean() / (volume.values[:, inside] ** 2).mean())
        )
    # 360 directions are enough for 32 pixels: ten times as many change nothing.
    assert errors[0.05] == pytest.approx(errors[0.5], rel=0.02)


@pytest.mark.parametrize(
    ("angles", "weights"),
    [
        ([-60, -30, 0, 0.01, 30, 60], [2, 2, 1, 1, 2, 2]),  # 0 was recorded twice
        ([-60, -30, 0, 30, 60, -59.98, -30.01], [1, 1, 2, 2, 2, 1, 1]),
        ([0, 0.02, 0.04, 0.06, 0.08, 0.1], [1] * 6),  # steps
        ([-90, -45, 0, 45, 90, -89.99], [2 / 3, 2, 2, 2, 2 / 3, 2 / 3]),  # one direction, three times
    ],
)
def test_repeats_share_a_cell_and_steps_do_not(angles, weights):
    got = geometry.angular_cells(np.array(angles, float))
    np.testing.assert_allclose(got, np.array(weights) / np.sum(weights), rtol=0.01)


def test_repeats_within_a_series_of_small_steps():
    once = np.arange(-60, 60, 0.04)
    twice = np.concatenate([once, once + 0.001])
    np.testing.assert_allclose(geometry.angular_cells(twice) * twice.size, 1, rtol=1e-6)
    assert angles_room.directions(twice)[0].size == once.size
    assert angles_room.places_of(once, once + 0.04) is None  # the same but for one step: other angles
    assert angles_room.places_of(once, once[::-1] + 0.005) is not None
