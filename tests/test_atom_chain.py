"""From a series of low dose to its atoms."""

import json

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import nntomo_dask as nt
from nntomo_dask.atoms import chain, consensus, counts, page, table
from nntomo_dask.atoms.sampling import Sampling
from nntomo_dask.cli import series_atoms
from nntomo_dask.cli.main import main

DOSE = 4e5


def seen(dose=DOSE, views=12, seed=0):
    held = nt.cluster_specimen(nt.amorphous_cluster(atoms=14, seed=3))
    imaging = nt.Imaging(
        pixels=46, detector_mrad=(45, 90), field_of_view_nm=1.45, source_size_nm=0.05, dose=dose, seed=seed
    )
    series = nt.linear_series(held, nt.tilt_angles("full", views), mode="haadf", imaging=imaging)
    return series.compute(), held.positions_nm[:, ::-1]


@pytest.fixture(scope="module")
def series():
    return seen()[0]


@pytest.fixture(scope="module")
def truth():
    return seen()[1]


@pytest.fixture(scope="module")
def made(series):
    return chain.run(series, elements=("Si",))


def apart(atoms, truth):
    return np.linalg.norm(table.positions(atoms)[:, None] - truth, axis=2)


def test_every_atom_is_found_and_none_invented(made, truth):
    away = apart(made.atoms, truth)
    assert made.atoms.sizes["atom"] == len(truth)
    assert sorted(away.argmin(axis=1)) == list(range(len(truth)))
    # About 200 counts an atom in all views: 0.04 nm / √(200/2) along each of two directions; four of them.
    assert away.min(axis=1).max() < 0.03


def test_errors_of_positions_are_what_they_say(made, truth):
    told = 1000 * page.position_error(made.atoms)
    found = 1000 * np.sqrt((apart(made.atoms, truth).min(axis=1) ** 2).mean())
    # 14 atoms in three directions: a root mean square to 1/√(2 · 42) = 11 %, and samples that are not independent.
    assert found == pytest.approx(told, rel=0.5)


def test_heights_and_widths_are_those_of_the_specimen(made, series):
    atoms = made.atoms
    assert len(set(atoms["height"].values)) == 1
    # An atom adds up to its cross-section; a Gaussian has (2π)^(3/2) w³ times its height, in voxels. The field of view
    # ends at 0.7 nm, and the tails of two Gaussians are not all there is.
    tail, pixel = atoms["tail"].values[0], series.attrs["pixel_size"]
    near, far = ((2 * np.pi) ** 1.5 * (atoms[name].values[0] / pixel) ** 3 for name in ("width", "tail_width"))
    per_view = float(series.sum()) / series.sizes["angle"] / 14
    assert atoms["height"].values[0] * ((1 - tail) * near + tail * far) == pytest.approx(per_view, rel=0.05)
    assert 0.03 < atoms["width"].values[0] < 0.04
    assert 0.003 < tail < 0.02
    assert (atoms["confidence"] > 5).all()


def test_the_order_of_projections_changes_nothing(series, made):
    turned = series.isel(angle=slice(None, None, -1))
    again = nt.atoms_from_series(turned, elements=("Si",), volume=made.volume)
    np.testing.assert_array_equal(table.positions(again), table.positions(made.atoms))


def test_atoms_that_were_left_out_appear_and_invented_ones_go(series, made, truth):
    wrong = table.positions(made.atoms)[:9]
    wrong = np.concatenate([wrong, [[0.6, -0.1, 0.1], [0.0, 0.55, -0.2]]])
    begun = table.make(wrong, recipe={"operation": "test"}, height=np.ones(11))
    found = nt.sample_atoms(series, volume=made.volume, atoms=begun, elements=("Si",), seed=1)
    assert found.sizes["atom"] == len(truth)
    assert apart(found, truth).min(axis=1).max() < 0.03


def test_stages_can_be_replaced(series, made, truth):
    begun = nt.atoms_from_series(series, elements=("Si",), last="candidates")
    xr.testing.assert_equal(begun, made.candidates)
    other = nt.atoms_from_series(series, elements=("Si",), method=nt.METHODS["fbp"](), seed=2)
    assert other.sizes["atom"] == len(truth)
    refined = nt.atoms_from_series(series, elements=("Si",), volume=made.volume, candidates=begun, last="projections")
    assert apart(refined, truth).min(axis=1).max() < 0.03
    assert "significance" in refined


def test_gaussian_noise_is_told_by_its_model(made, truth):
    clean, _ = seen(dose=None)
    deviation = 0.1 * float(clean.max())
    noisy = nt.add_noise(clean, noise=0.1, seed=2).compute()
    model = nt.Noise(read_noise=deviation)
    found = nt.atoms_from_series(noisy, elements=("Si",), noise=model)
    assert found.sizes["atom"] == len(truth)
    assert apart(found, truth).min(axis=1).max() < 0.03


def test_a_step_of_counts_is_found():
    values = np.random.default_rng(0).poisson(0.7, 4000) * np.float32(0.0123)
    assert counts.counting_step(values) == pytest.approx(0.0123, rel=1e-6)
    assert counts.counting_step(values + np.float32(0.001)) is None
    assert counts.counting_step(values * np.float32(1) + 0.003 * np.arange(4000) % 0.0123) is None
    assert counts.counting_step(np.zeros(10)) is None


def test_several_elements_have_their_heights():
    place = np.array([[0.0, 0.2, 0.0], [0.1, -0.25, 0.05], [-0.2, 0.0, -0.25], [0.25, 0.1, 0.3]])
    names = ["Zr", "O", "Zr", "O"]
    height = np.where(np.array(names) == "Zr", 1.0, (8 / 40) ** 1.7)
    atoms = table.make(
        place,
        recipe={"operation": "test"},
        species=names,
        height=height,
        width=np.full(4, 0.05),
        background=np.zeros(4),
    )
    shape = nt.tilt_series(np.zeros((44, 12, 44)), nt.tilt_angles("full", 12), pixel_size=0.03, units="nm")
    clean = nt.project_atoms(atoms, like=shape).compute()
    noisy = nt.add_noise(clean, dose=60, seed=1).compute()
    found = nt.atoms_from_series(noisy, elements=("Zr", "O"))
    nearest = np.linalg.norm(table.positions(found)[:, None] - place, axis=2).argmin(axis=1)
    assert sorted(nearest) == [0, 1, 2, 3]
    assert [str(one) for one in found["species"].values] == [names[one] for one in nearest]


def test_consensus_takes_what_most_samples_have():
    rng = np.random.default_rng(0)
    samples = []
    for number in range(40):
        places = np.array([[0.0, 0, 0], [0.3, 0, 0]]) + 0.01 * rng.standard_normal((2, 3))
        if number < 8:
            places = np.concatenate([places, [[0.0, 0.5, 0]]])
        samples.append((places, np.zeros(len(places), np.int64)))
    places, _, shares, spread = consensus.consensus(samples, 1, 0.1, 0.5)
    order = np.argsort(places[:, 0])
    # Means of 40 values of a deviation of 0.01: 0.0016; five of them.
    np.testing.assert_allclose(places[order], [[0, 0, 0], [0.3, 0, 0]], atol=0.008)
    np.testing.assert_array_equal(shares, 1)
    np.testing.assert_allclose(spread, 0.01, rtol=0.5)
    assert len(consensus.consensus(samples, 1, 0.1, 0.15)[0]) == 3


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"elements": ("Qq",)}, "symbols of elements"),
        ({"last": "all"}, "a last stage"),
        ({"agreement": 1.5}, "at most 1"),
        ({"burn_in": 3}, "at least 21"),
        ({"width": -1.0}, "width"),
        ({"candidates": xr.Dataset()}, "a table of atoms"),
    ],
)
def test_settings_that_cannot_be_are_refused(series, changed, words):
    with pytest.raises(nt.SchemaError, match=words):
        nt.atoms_from_series(series, **({"elements": ("Si",)} | changed))


def test_series_that_cannot_be_are_refused(series, made):
    bare = nt.tilt_series(series.values, series["angle"].values)
    with pytest.raises(nt.SchemaError, match="pixels have a length"):
        nt.atoms_from_series(bare, elements=("Si",))
    with pytest.raises(nt.SchemaError, match="without"):
        nt.atoms_from_series(series * 0, elements=("Si",))
    with pytest.raises(nt.SchemaError, match="on the grid of the series"):
        nt.atoms_from_series(series, elements=("Si",), volume=made.volume.isel(z=slice(3, None)))
    with pytest.raises(nt.SchemaError, match="a method or a volume"):
        nt.atoms_from_series(series, volume=made.volume, method=nt.METHODS["fbp"]())


def test_the_page_tells_what_was_found(made, tmp_path):
    place = page.write(made, tmp_path, series="series.zarr", recipe=dict(made.atoms.attrs["recipe"]))
    text = place.read_text()
    assert "Atoms of series.zarr" in text
    assert text.count("<img") == 2
    numbers = json.loads((tmp_path / page.NUMBERS).read_text())
    assert numbers["atoms"] == 14
    assert numbers["species"] == {"Si": 14}
    assert Sampling().seed == numbers["recipe"]["parameters"]["seed"]


def command(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_verb_takes_a_series(series, made, tmp_path):
    nt.save(series, tmp_path / "series.zarr")
    done = command(
        "atoms", tmp_path / "series.zarr", "-o", tmp_path / "atoms.csv", "--elements", "Si", "--page", tmp_path / "page"
    )
    assert done.exit_code == 0, done.output
    assert "14 atoms, 14 Si" in done.output
    read = nt.read_atoms(tmp_path / "atoms.csv")
    np.testing.assert_allclose(table.positions(read), table.positions(made.atoms), atol=1e-9)
    np.testing.assert_array_equal(read["agreement"], made.atoms["agreement"])
    assert {one.name for one in (tmp_path / "page").iterdir()} == {*series_atoms.FILES}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threshold", "4"], "--threshold is for a volume"),
        (["--elements", "Si=14"], "symbols without numbers"),
        (["--elements", "Si", "--agreement", "2"], "--agreement"),
    ],
)
def test_options_that_a_series_has_not_are_refused(series, tmp_path, words, said):
    nt.save(series, tmp_path / "series.zarr")
    done = command("atoms", tmp_path / "series.zarr", "-o", tmp_path / "atoms.csv", *words)
    assert done.exit_code != 0
    assert said in (done.output if done.exit_code == 2 else str(done.output) + str(done.exception))


def test_a_slope_hides_no_maximum(series):
    # Two atoms as near as a bond, one half as high: the slope of the higher one is above the lower one.
    place = np.array([[0.0, -0.12, 0.0], [0.0, 0.12, 0.0], [0.3, 0.0, 0.2]])
    height = np.array([1.0, 0.6, 1.0])
    z, y, x = np.meshgrid(*(series[dim].values for dim in ("z", "detector", "detector")), indexing="ij")
    grid = np.stack([z, y, x], axis=-1)
    image = sum(h * np.exp(-((grid - c) ** 2).sum(-1) / (2 * 0.05**2)) for c, h in zip(place, height, strict=True))
    volume = nt.volume(image, pixel_size=series.attrs["pixel_size"], units="nm")
    found = nt.atoms_from_series(series, elements=("Si",), volume=volume, last="candidates")
    assert found.sizes["atom"] == 3
    assert apart(found, place).min(axis=1).max() < 0.02
