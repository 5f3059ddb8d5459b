"""Atoms found in volumes that are sums of Gaussians."""

import numpy as np
import pytest
import xarray as xr
from scipy.spatial import cKDTree

import nntomo_dask as nt
from nntomo_dask.atoms import species as species_room, table
from nntomo_dask.errors import SchemaError
from tests.atom_volumes import PIXEL, gaussians, scattered, voxels

pytestmark = pytest.mark.xdist_group("found atoms")  # one process compiles their kernels

EXACT = 0.02  # voxels


def errors(found, volume, places):
    """Distance of each true place to the nearest found one, [voxels]."""
    distance, _ = cKDTree(voxels(found, volume)).query(places)
    return distance


@pytest.mark.parametrize(("apart", "width", "count"), [(9, 1.6, 25), (6, 2.0, 60), (5, 2.0, 80)])
def test_atoms_without_noise_are_found_exactly(apart, width, count):
    """From 5.6 down to 2.5 widths from each other, of heights from 1 to 3 and widths within 5 %."""
    shape, rng = (40, 44, 44), np.random.default_rng(1)
    places = scattered(count, shape, apart=apart, seed=2)
    heights, widths = rng.uniform(1, 3, count), width * rng.uniform(0.95, 1.05, count)
    volume = gaussians(places, heights, widths, shape, background=0.5)
    found = nt.find_atoms(volume)
    assert found.sizes["atom"] == count
    distance, nearest = cKDTree(voxels(found, volume)).query(places)
    assert distance.max() < EXACT
    # An error of a hundredth of a width changes height and width by less than a hundredth.
    np.testing.assert_allclose(found["height"].values[nearest], heights, rtol=0.01)
    np.testing.assert_allclose(found["width"].values[nearest], widths * PIXEL, rtol=0.01)
    np.testing.assert_allclose(found["background"].values, 0.5, atol=0.02)


@pytest.mark.parametrize("second", [1.0, 0.5])
@pytest.mark.parametrize("apart", [1.5, 1.7, 2.0])
def test_atoms_that_overlap_are_told_apart(apart, second):
    """Two at 1.5 widths have one maximum; the second is seen in what a fit of one leaves."""
    way = np.array([0.48, 0.6, 0.64]) / np.linalg.norm([0.48, 0.6, 0.64])
    places = np.array([[15.3, 15.1, 15.4], [8.2, 23.0, 9.0], [23.0, 8.0, 21.6]])
    places = np.concatenate([places, places[:1] + apart * 2 * way])
    volume = gaussians(places, [2, 2, 2, 2 * second], 2.0, (32, 32, 32), background=0.3)
    found = nt.find_atoms(volume, minimum_distance=1.4 * 2 * PIXEL)
    assert found.sizes["atom"] == 4
    assert errors(found, volume, places).max() < EXACT


def test_an_atom_at_the_border_is_found_once_and_one_outside_is_left_out():
    """Peaks within half a width of the border on each side; one centre lies 0.9 voxels outside."""
    inside = [
        [0.1, 12.2, 12.4],
        [23.3, 6.1, 14.8],
        [12.0, 0.6, 4.2],
        [11.6, 23.2, 17.0],
        [5.0, 13.3, 0.0],
        [18, 12, 23.4],
    ]
    outside = [[12.2, 11.8, -1.4]]
    volume = gaussians(inside + outside, np.full(7, 2.0), 1.7, (24, 24, 24))
    found = nt.find_atoms(volume, width=1.7 * PIXEL)
    assert found.sizes["atom"] == len(inside)
    assert errors(found, volume, inside).max() < EXACT


def test_positions_follow_the_coordinates():
    """Slices 1.5 pixels apart from another place on, y descending."""
    places = scattered(8, (20, 28, 28), apart=8, seed=5)
    volume = gaussians(places, np.full(8, 2.0), 1.8, (20, 28, 28), step=1.5)
    volume = volume.assign_coords(z=volume["z"] + 7.0, y=volume["y"].values[::-1])
    found = nt.find_atoms(volume)
    expected = np.stack(
        [volume[dim].values[0] + places[:, k] * np.diff(volume[dim].values)[0] for k, dim in enumerate("zyx")], axis=1
    )
    distance, _ = cKDTree(table.positions(found)).query(expected)
    assert found.sizes["atom"] == 8
    assert distance.max() < EXACT * PIXEL


def test_noise_moves_atoms_as_little_as_it_can():
    """The Cramér–Rao bound of one coordinate is σ/h √(2/(π^1.5 w)).

    Cut at 2.5 widths it is a few per cent larger. 30 atoms give the mean square within 1/√(90/2) = 15 %, three of
    them are 45 %.
    """
    shape, noise, height, width = (40, 40, 40), 0.1, 2.0, 2.0
    places = scattered(30, shape, apart=8, seed=6)
    volume = gaussians(places, np.full(30, height), width, shape, noise=noise, background=1.0)
    found = nt.find_atoms(volume)
    assert found.sizes["atom"] == 30
    bound = noise / height * np.sqrt(2 / (np.pi**1.5 * width))
    square = (errors(found, volume, places) ** 2).mean() / 3
    assert square < bound**2 * 1.5
    # Noise of a height by the filter: of white noise smoothed to a width, known from a volume of noise alone.
    np.testing.assert_allclose(found["confidence"].values, found["height"].values / found.attrs["noise"])
    assert 0.05 * noise < found.attrs["noise"] < noise


def test_noise_alone_has_no_atoms():
    volume = gaussians(np.zeros((0, 3)), [], 1.0, (32, 32, 32), noise=1.0)
    with pytest.raises(SchemaError, match="peaks above 6 times its noise"):
        nt.find_atoms(volume, width=0.04, threshold=6)


def test_noise_is_not_looked_at_where_a_constraint_holds():
    """All is 0 outside of a ball, as most of a vacuum is where values are at least 0: the noise inside counts."""
    shape = (32, 32, 32)
    places = scattered(4, shape, apart=8, seed=8, border=11)
    volume = gaussians(places, np.full(4, 4.0), 1.8, shape, noise=0.3)
    z, y, x = np.ogrid[:32, :32, :32]
    ball = (z - 15.5) ** 2 + (y - 15.5) ** 2 + (x - 15.5) ** 2 < 11**2
    kept = volume.copy(data=np.where(ball, volume.values, 0).astype(np.float32))
    inside = nt.find_atoms(volume, width=1.8 * PIXEL).attrs["noise"]
    assert nt.find_atoms(kept, width=1.8 * PIXEL).attrs["noise"] > 0.5 * inside


@pytest.fixture(scope="module")
def crowd():
    """A volume of atoms that overlap, and what is found in it as one chunk."""
    places = scattered(24, (30, 26, 26), apart=4.5, seed=9)
    volume = gaussians(places, np.linspace(1, 3, 24), 2.0, (30, 26, 26), noise=0.02)
    return volume, nt.find_atoms(volume)


@pytest.mark.parametrize("slices", [1, 7, 16])
def test_chunks_change_nothing(crowd, slices):
    volume, whole = crowd
    parts = nt.find_atoms(volume.chunk(z=slices))
    assert [name for name in whole if whole[name].values.tobytes() != parts[name].values.tobytes()] == []
    assert {key: whole.attrs[key] == parts.attrs[key] for key in ("noise", "atom_width")} == {
        "noise": True,
        "atom_width": True,
    }


def test_the_width_is_found():
    for width, size in ((0.9, 24), (1.8, 32), (3.2, 44)):
        places = scattered(6, (size, size, size), apart=5 * width, seed=10)
        volume = gaussians(places, np.linspace(1, 2, 6), width, (size, size, size), noise=0.03)
        # 6 widths, each within a few per cent at this noise.
        assert nt.find_atoms(volume).attrs["atom_width"] == pytest.approx(width * PIXEL, rel=0.05)


def metals():
    """3 bright, 5 middle and 8 faint atoms."""
    places = scattered(16, (32, 32, 32), apart=8, seed=11)
    heights = np.repeat([8.0, 2.0, 0.7], [3, 5, 8]) * np.random.default_rng(12).uniform(0.9, 1.1, 16)
    names = np.repeat(["Zr", "O", "C"], [3, 5, 8])
    return places, names, gaussians(places, heights, 1.6, (32, 32, 32))


@pytest.mark.parametrize(
    "given",
    [
        {"species": ("C", "Zr", "o")},
        {"species": {"Zr": 3, "O": 5, "C": 8}},
        {"species": {"C": 8, "O": 5, "Zr": 3}},
        # What an atom adds up to is h w³ (2π)^1.5 = 64.5 h.
        {"species": ("Zr", "O", "C"), "boundaries": (80.0, 250.0)},
    ],
)
def test_brighter_atoms_are_heavier(given):
    places, names, volume = metals()
    found = nt.find_atoms(volume, **given)
    _, nearest = cKDTree(voxels(found, volume)).query(places)
    assert found["species"].values[nearest].tolist() == names.tolist()


def test_values_are_divided_with_the_least_sum_of_squares():
    """Against all ways to divide 12 values into 3 classes."""
    values = np.random.default_rng(13).normal(0, 1, 12)
    ordered = np.sort(values)
    least = min(
        sum(((part - part.mean()) ** 2).sum() for part in np.split(ordered, [one, two]))
        for one in range(1, 11)
        for two in range(one + 1, 12)
    )
    classes = species_room.divided(values, 3)
    assert sum(((values[classes == k] - values[classes == k].mean()) ** 2).sum() for k in range(3)) == pytest.approx(
        least
    )
    assert (np.diff(classes[np.argsort(values)]) >= 0).all()


def test_many_values_are_divided_in_bins():
    rng = np.random.default_rng(14)
    values = np.concatenate([rng.normal(0, 0.2, 4000), rng.normal(3, 0.2, 1000)])
    assert (species_room.divided(values, 2) == (values > 1.5)).all()


def test_a_count_takes_the_most_certain():
    _, names, volume = metals()
    found, bright = nt.find_atoms(volume), nt.find_atoms(volume, count=3)
    assert found.sizes["atom"] == len(names)
    assert sorted(bright["height"].values) == sorted(found["height"].values)[-3:]


def test_agreement_is_the_share_of_folds_with_the_atom():
    places = scattered(6, (28, 28, 28), apart=9, seed=15)
    volume = gaussians(places, np.full(6, 2.0), 1.8, (28, 28, 28))
    fewer = gaussians(places[:4], np.full(4, 2.0), 1.8, (28, 28, 28))
    found = nt.find_atoms(volume, folds=[volume, fewer])
    _, nearest = cKDTree(voxels(found, volume)).query(places)
    assert found["agreement"].values[nearest].tolist() == [1, 1, 1, 1, 0.5, 0.5]


def test_the_table_says_how_it_was_made():
    _, _, volume = metals()
    found = nt.find_atoms(volume, species={"Zr": 3, "O": 5, "C": 8})
    assert isinstance(found, xr.Dataset)
    assert found.attrs["recipe"]["operation"] == "find_atoms"
    assert found.attrs["recipe"]["parameters"]["species"] == {"Zr": 3, "O": 5, "C": 8}
    assert len(found.attrs["recipe"]["inputs"]) == 1


def sound():
    return gaussians([[8.0, 8, 8], [14, 15, 16]], [1, 2], 1.8, (24, 24, 24))


@pytest.mark.parametrize(
    ("spoiled", "given", "says"),
    [
        (lambda one: one * 0, {}, "peaks above its background; got the same value, 0, everywhere"),
        (lambda one: one * 0 + 3, {}, "the same value, 3, everywhere"),
        (lambda one: one.assign_attrs(units="px"), {}, 'voxels with a length in nm.*got units "px"'),
        (lambda one: one.isel(x=slice(20)), {"width": -1.0}, "width"),
        (lambda one: one.rename(z="angle", x="detector"), {}, "volume"),
        (lambda one: one.where(one < 1.9, np.nan), {}, "finite values"),
        (lambda one: one, {"species": ("Zr", "Qq")}, "Qq"),
        (lambda one: one, {"species": ()}, "at least one element"),
        (lambda one: one, {"species": {"Zr": 0}}, "number of atoms of each element"),
        (lambda one: one, {"count": 3}, "needs 3 atoms; got 2 above 5 times the noise"),
        (lambda one: one, {"species": {"Zr": 1, "O": 4}}, "needs 5 atoms; got 2"),
        (lambda one: one, {"species": {"Zr": 1}, "count": 2}, "one number of atoms"),
        (lambda one: one, {"species": ("Zr", "O", "C")}, "3 atoms that differ; got 2"),
        (lambda one: one, {"boundaries": (1.0,)}, "species"),
        (lambda one: one, {"species": ("Zr", "O"), "boundaries": (1.0, 2.0)}, "boundaries"),
        (lambda one: one, {"threshold": 1e9}, "peaks above 1e\\+09 times its noise; got none"),
        (lambda one: one, {"scale": "cubic"}, "scale"),
        (lambda one: one, {"folds": [gaussians([[8.0, 8, 8]], [1], 1.8, (20, 24, 24))]}, "of one shape"),
    ],
)
def test_bad_input_is_refused(spoiled, given, says):
    volume = spoiled(sound()).astype(np.float32)
    volume.attrs = {**sound().attrs, **volume.attrs}
    with pytest.raises(SchemaError, match=says):
        nt.find_atoms(volume, **given)
