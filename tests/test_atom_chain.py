"""From a series of low dose to its atoms."""

import dataclasses
import json

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import nntomo_dask as nt
from nntomo_dask.atoms import chain, consensus, counts, measured, page, residual, spacing, table
from nntomo_dask.atoms.annealing import Moving
from nntomo_dask.atoms.sampling import Sampling
from nntomo_dask.cli import series_atoms
from nntomo_dask.cli.main import main
from nntomo_dask.kernels.atom_grid import Prior

pytestmark = pytest.mark.xdist_group("sampled atoms")  # one process compiles their kernels

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
    again = nt.atoms_from_series(turned, elements=("Si",), volume=made.volume, candidates=made.candidates)
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


def test_a_series_without_noise_has_some_assumed():
    clean, _ = seen(dose=None)
    rough = clean.copy(data=clean.values * (1 + 1e-7 * np.random.default_rng(0).standard_normal(clean.shape)))
    for series in (clean, rough.astype(np.float32)):
        data = counts.counted(series, noise=None, who="test")
        # Together with the counts that go with it: 2 % of the variance.
        assert data.gain * data.read**0.5 == pytest.approx(1e-3 * float(clean.max()), rel=0.01)


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
        ({"width": 2.0}, "field of view of 1.45 nm"),
        ({"minimum_distance": 3.0}, "minimum_distance of at most 1.45 nm"),
        ({"smoothing": -0.1}, "smoothing of at least 0"),
        ({"smoothing": float("nan")}, "smoothing of at least 0"),
        ({"noise": nt.Noise(gain=1, background=9)}, "no value above 9"),
        ({"method": "sart"}, "sart"),
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
    with pytest.raises(nt.SchemaError, match="0 in every pixel"):
        nt.atoms_from_series(series * 0, elements=("Si",))
    with pytest.raises(nt.SchemaError, match="0 in every pixel"):
        nt.sample_atoms(series * 0, volume=made.volume, atoms=made.candidates, elements=("Si",))
    with pytest.raises(nt.SchemaError, match="2 in every pixel"):
        nt.atoms_from_series(series * 0 + 2, elements=("Si",))
    with pytest.raises(nt.SchemaError, match="no value above 0; try: -series"):
        nt.atoms_from_series(-series, elements=("Si",))
    angstrom = nt.tilt_series(series.values, series["angle"].values, pixel_size=0.3, units="Å")
    with pytest.raises(nt.SchemaError, match=r"a tilt series in nm; got pixels of 0\.3 Å.*pixel_size=0\.03"):
        nt.atoms_from_series(angstrom, elements=("Si",))
    thin, slab = series.isel(z=slice(20, 24)), made.volume.isel(z=slice(20, 24))
    with pytest.raises(nt.SchemaError, match="along each axis, the surroundings of an atom"):
        nt.atoms_from_series(thin.isel(z=slice(1)), elements=("Si",))
    with pytest.raises(nt.SchemaError, match="along each axis, the surroundings of an atom"):
        nt.sample_atoms(thin, volume=slab, atoms=made.candidates, elements=("Si",))
    with pytest.raises(nt.SchemaError, match="one candidate or more"):
        nt.atoms_from_series(series, elements=("Si",), candidates=made.candidates.isel(atom=slice(0)))
    with pytest.raises(nt.SchemaError, match="a stage after them"):
        nt.atoms_from_series(series, elements=("Si",), candidates=made.candidates, last="candidates")
    with pytest.raises(nt.SchemaError, match="on the grid of the series"):
        nt.atoms_from_series(series, elements=("Si",), volume=made.volume.isel(z=slice(3, None)))
    with pytest.raises(nt.SchemaError, match="a volume, or a method to make one"):
        nt.atoms_from_series(series, volume=made.volume, method=nt.METHODS["fbp"]())
    with pytest.raises(nt.SchemaError, match="a volume, or a smoothing to make one"):
        nt.atoms_from_series(series, volume=made.volume, smoothing=0.03)


def test_the_page_tells_what_was_found(made, tmp_path):
    place = page.write(made, tmp_path, series="series.zarr", recipe=dict(made.atoms.attrs["recipe"]))
    text = place.read_text()
    assert "Atoms of series.zarr" in text
    assert text.count("<img") == len(page.FIGURES)
    assert all(one.name in text for one in made.stages)
    numbers = json.loads((tmp_path / page.NUMBERS).read_text())
    assert numbers["atoms"] == 14
    assert numbers["species"] == {"Si": 14}
    assert Sampling().seed == numbers["recipe"]["parameters"]["seed"]
    assert len(numbers["misfit"]) == 12
    assert list(page.notes(made)) == []
    worse = dataclasses.replace(made.residual, misfit=made.residual.misfit + 1)
    (note,) = page.notes(dataclasses.replace(made, residual=worse))
    assert "do not explain the projections" in note
    # Where no misfit is known, and of candidates alone, figures are taken away that it has not.
    page.write(dataclasses.replace(made, residual=None), tmp_path, series="series.zarr", recipe={})
    assert {one.name for one in tmp_path.glob("*.png")} == {"atoms.png", "certainty.png"}
    alone = dataclasses.replace(made, residual=None, atoms=made.candidates)
    page.write(alone, tmp_path, series="series.zarr", recipe={})
    assert {one.name for one in tmp_path.glob("*.png")} == {"atoms.png"}


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


def test_the_verb_replaces_stages(series, made, tmp_path):
    nt.save(series, tmp_path / "series.zarr")
    nt.save(made.volume, tmp_path / "volume.zarr")
    nt.write_atoms(made.candidates, tmp_path / "candidates.csv")
    few = ("--burn-in", 21, "--samples", 2, "--last", "projections", "--page", tmp_path / "refined")
    begun = ("--candidates", tmp_path / "candidates.csv", "--volume", tmp_path / "volume.zarr")
    done = command("atoms", tmp_path / "series.zarr", "--elements", "Si", *few, *begun, "-o", tmp_path / "few.csv")
    assert done.exit_code == 0, done.output
    expected = nt.atoms_from_series(
        series,
        elements=("Si",),
        volume=made.volume,
        candidates=made.candidates,
        last="projections",
        burn_in=21,
        samples=2,
    )
    np.testing.assert_array_equal(table.positions(nt.read_atoms(tmp_path / "few.csv")), table.positions(expected))
    assert "refinement" in (tmp_path / "refined" / "index.html").read_text()
    misfits = json.loads((tmp_path / "refined" / page.NUMBERS).read_text())["misfit"].values()
    assert 0.5 < np.mean(list(misfits)) < 1.5
    where = ("atoms", tmp_path / "series.zarr", "--elements", "Si", "--last", "candidates", "-o")
    step = made.gain * 1.0000001
    for words, keywords in (
        (("--volume", tmp_path / "volume.zarr"), {"volume": made.volume}),
        (
            ("--method", "fbp", "--window", "hann", "--smoothing", "0.02", "--gain", step),
            {"method": nt.METHODS["fbp"](window="hann"), "smoothing": 0.02, "noise": nt.Noise(gain=step)},
        ),
    ):
        done = command(*where, tmp_path / "other.csv", "--overwrite", *words)
        assert done.exit_code == 0, done.output
        expected = nt.atoms_from_series(series, elements=("Si",), last="candidates", **keywords)
        np.testing.assert_array_equal(table.positions(nt.read_atoms(tmp_path / "other.csv")), table.positions(expected))
    # The page of candidates alone.
    done = command(*where, tmp_path / "third.csv", "--page", tmp_path / "page", "--volume", tmp_path / "volume.zarr")
    assert done.exit_code == 0, done.output
    assert "maxima of the volume" in (tmp_path / "page" / "index.html").read_text()


def test_atoms_of_noise_are_called_so(tmp_path):
    noise = np.random.default_rng(0).poisson(0.05, (46, 8, 46))
    nt.save(nt.tilt_series(noise, nt.tilt_angles("full", 8), pixel_size=0.03, units="nm"), tmp_path / "noise.zarr")
    few = ("--burn-in", 21, "--samples", 2, "--width", 0.04)
    done = command("atoms", tmp_path / "noise.zarr", "-o", tmp_path / "atoms.csv", "--elements", "Si", *few)
    assert done.exit_code == 0, done.output
    assert "most of these atoms may be noise" in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "sart"], "is not one of fbp"),
        (["--method", "fbp", "--weight", "1"], "--weight is for --method tv"),
        (["--weight", "1"], "--weight is for a --method"),
        (["--method", "assess", "--weight", "1"], "assess tries several"),
        (["--method", "nnfbp"], "--network"),
        (["--network", "general"], "--network is for a --method"),
        (["--volume", "OTHER.zarr"], "a volume on the grid of the series"),
        (["--volume", "OTHER.zarr", "--method", "fbp"], "leave one of them out"),
        (["--volume", "series.zarr"], "volume"),
        (["--candidates", "none.csv"], "none.csv"),
        (["--last", "candidates", "--candidates", "OTHER.csv"], "--last samples"),
        (["--background", "1"], "give --gain or --read-noise"),
        (["--refine", "series.zarr"], "--last projections"),
        (["--smoothing", "-1"], "a --smoothing of at least 0"),
        (["--width", "2"], "--width of at most"),
        (["--threshold", "4"], "--threshold is for a volume"),
        (["--elements", "Si=14"], "symbols without numbers"),
        (["--elements", "Si", "--agreement", "2"], "--agreement"),
    ],
)
def test_options_that_a_series_has_not_are_refused(series, tmp_path, words, said):
    nt.save(series, tmp_path / "series.zarr")
    nt.save(nt.volume(np.ones((3, 46, 46)), pixel_size=series.attrs["pixel_size"], units="nm"), tmp_path / "other.zarr")
    nt.write_atoms(table.make([[0.0, 0.0, 0.0]], recipe={"operation": "test"}), tmp_path / "other.csv")
    places = {name: tmp_path / name.lower() for name in ("OTHER.zarr", "OTHER.csv", "series.zarr")}
    words = [places.get(word, word) for word in words]
    done = command("atoms", tmp_path / "series.zarr", "-o", tmp_path / "atoms.csv", *words)
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert not (tmp_path / "atoms.csv").exists()


def test_options_of_a_series_are_refused_for_a_volume(made, tmp_path):
    nt.save(made.volume, tmp_path / "volume.zarr")
    for words in (["--last", "samples"], ["--method", "fbp"], ["--weight", "1"], ["--gain", "1"], ["--seed", "1"]):
        done = command("atoms", tmp_path / "volume.zarr", "-o", tmp_path / "atoms.csv", *words)
        assert done.exit_code == 2
        assert f"{words[0]} is for a tilt series, and this is a volume" in done.output


def test_the_assessment_chooses_the_method(series, monkeypatch):
    chosen = nt.METHODS["fbp"](window="hann")
    seen_by = []
    monkeypatch.setattr(chain, "assess", lambda one: seen_by.append(one) or type("Found", (), {"method": chosen}))
    found = chain.run(series, elements=("Si",), method="assess", smoothing=0.03, last="candidates")
    (smooth,) = seen_by
    np.testing.assert_array_equal(smooth.values, nt.smooth_projections(series, width=0.03).values)
    xr.testing.assert_equal(found.volume, nt.reconstruct(smooth, chosen).compute())
    assert "chosen by assessment" in found.stages[2].done


@pytest.mark.parametrize(
    ("symbols", "width", "wanted"),
    [
        (("Si",), 0.04, 0.04),  # 0.85 · 0.222 nm = 4.7 widths apart
        (("O",), 0.05, (0.0561**2 - 0.05**2) ** 0.5),  # 0.85 · 0.132 nm; half of it, less the width
        (("H",), 0.05, 0.0),
        ((), 0.05, 0.05),
    ],
)
def test_smoothing_leaves_two_atoms_apart(symbols, width, wanted):
    assert chain._smoothing(None, None, symbols, Sampling(width=width)) == pytest.approx(wanted, rel=1e-3)
    assert chain._smoothing(0.01, None, symbols, Sampling(width=width)) == 0.01


def test_what_is_left_of_exact_atoms_is_noise(truth):
    """Counts drawn from the model itself: misfits are 1, with the spread that they are told to have."""
    shape = nt.tilt_series(np.zeros((46, 60, 46)), nt.tilt_angles("full", 60), pixel_size=1.45 / 46, units="nm")
    count = len(truth)
    atoms = table.make(
        truth,
        recipe={"operation": "test"},
        species=["Si"] * count,
        height=np.ones(count),
        width=np.full(count, 0.04),
        background=np.zeros(count),
    )
    clean = nt.project_atoms(atoms, like=shape).compute() + 0.02
    gain = float(clean.max()) / 3
    noisy = clean.copy(data=np.random.default_rng(0).poisson(clean.values / gain).astype(np.float32) * np.float32(gain))
    data = counts.counted(noisy, noise=None, who="test")
    left = residual.of(atoms, noisy, data)
    score = (left.misfit - 1) / left.deviation
    # 60 independent values of mean 0 and deviation 1: 1/√60 and 1/√120; four of them.
    assert score.mean() == pytest.approx(0, abs=0.52)
    assert score.std() == pytest.approx(1, abs=0.37)
    assert ((left.heights - 1) / left.height_errors).std() == pytest.approx(1, abs=4 / 28**0.5)
    assert left.counts == pytest.approx(2 * np.pi * (0.04 / data.pixel) ** 2 * 60 * peak(0.04, data), rel=0.02)
    # Counts where a refinement expects less than none do not make the nearest atom many times as high.
    below = dict.fromkeys(measured.Projections._fields, [0.0] * 60) | {
        "angle": noisy["angle"].values.tolist(),
        "scale": [1.0] * 60,
        "background": [-0.01] * 60,
    }
    dark = residual.of(atoms.assign_attrs(projections=below), noisy, data)
    assert np.abs(dark.heights - 1).max() < 1
    # A projection without noise is far from 1 too, but it fits best.
    still = data.counts.copy()
    still[5] = clean.isel(angle=5).transpose("detector", "z").values / gain
    quiet = residual.of(atoms, noisy, data._replace(counts=still))
    score = (quiet.misfit - 1) / quiet.deviation
    assert np.abs(score).argmax() == 5
    assert quiet.view == score.argmax()
    # Without one atom, the projections miss it; one too many has no height of its own.
    few = residual.of(atoms.isel(atom=slice(1, None)), noisy, data)
    assert ((few.misfit - 1) / few.deviation).mean() > 1
    twice = table.make(
        np.concatenate([truth, [[0.0, 0.6, 0.0]]]),
        recipe={"operation": "test"},
        species=["Si"] * (count + 1),
        height=np.ones(count + 1),
        width=np.full(count + 1, 0.04),
        background=np.zeros(count + 1),
    )
    more = residual.of(twice, noisy, data)
    invented = np.isclose(twice["y"].values, 0.6)
    assert abs(more.heights[invented][0]) < 4 * more.height_errors[invented][0]
    assert more.heights[~invented].min() > 0.5


def peak(width, data):
    """Counts of an atom of height 1 at its brightest pixel."""
    return np.sqrt(2 * np.pi) * width / data.pixel / data.gain


def test_of_two_atoms_too_close_the_higher_one_stays():
    rng = np.random.default_rng(0)
    places, kinds, height = rng.uniform(0, 1, (60, 3)), rng.integers(0, 2, 60), rng.integers(0, 9, 60) / 9
    distances = np.array([[0.1, 0.2], [0.2, 0.35]])
    kept = []
    for one in np.argsort(-height, kind="stable"):  # the rule itself
        away = np.linalg.norm(places[kept] - places[one], axis=1)
        if not (away < distances[kinds[kept], kinds[one]]).any():
            kept.append(one)
    np.testing.assert_array_equal(spacing.apart(places, kinds, height, distances), np.sort(kept))
    assert spacing.apart(places[:1], kinds[:1], height[:1], distances).tolist() == [0]
    assert spacing.apart(places[:0], kinds[:0], height[:0], distances).tolist() == []


def test_atoms_that_are_missed_find_room():
    """A chain that begins with one atom may have as many as the prior lets be."""
    prior = Prior(np.full((1, 1), 0.2), 0.5, np.linspace(0, 1, 1001), 10)
    moving = Moving.of(prior, np.ones((1, 3)), np.zeros(1, np.int64), 0.02)
    assert len(moving.positions) >= 2 * 0.5 * 1000
    np.testing.assert_array_equal(moving.state()[0], np.ones((1, 3)))


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
