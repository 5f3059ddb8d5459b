"""The physics of the simulated images, their randomness, and how a series is written."""

import pytest

pytest.importorskip("abtem", reason="needs nntomo_dask[simulation]")

import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.fft
import scipy.ndimage
import xarray as xr
from ase import Atoms

import nntomo_dask as nt
from nntomo_dask import store
from nntomo_dask.arrays import recipes, schema
from nntomo_dask.simulation import degrade, idpc, optics, simulate, truth
from nntomo_dask.simulation.optics import Imaging
from nntomo_dask.simulation.specimen import Specimen

# The cheapest settings that are still physics: a blunt probe, a coarse grid, thick slices.
CHEAP = {"convergence_mrad": 8.0, "detector_mrad": (24.0, 37.0), "slice_thickness_nm": 0.5, "pixels": 50}
CHEAP |= {"phonons": 0}  # atoms at rest
MIDDLE = (CHEAP["pixels"] - 1) / 2
BOTH = ("haadf", "idpc")


def atoms_at(positions_nm, symbols="Au"):
    """A specimen of atoms where they are given."""
    positions = np.atleast_2d(np.asarray(positions_nm, float))
    numbers = np.array([Atoms(symbols).numbers[0]] * len(positions)) if symbols == "Au" else Atoms(symbols).numbers
    return Specimen(numbers, positions, recipes.record("test", {"positions": positions.tolist()}))


def images(specimen, angle_deg, modes=BOTH, **settings):
    imaging = Imaging(**(CHEAP | settings))
    plan = optics.plan(specimen, imaging, modes)
    return plan, dict(zip(modes, simulate.projection(specimen, angle_deg, plan, imaging, modes), strict=True))


def peak(image, pixel_nm, near_nm):
    """Place (detector, z) in nm of a peak: where a Gaussian window of a pixel and a half is centred on what it sees."""
    middle = (np.array(image.shape[::-1]) - 1) / 2
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    place = np.round(np.asarray(near_nm) / pixel_nm + middle)
    for _ in range(50):  # each halves the distance, or better
        weight = image * np.exp(-((columns - place[0]) ** 2 + (rows - place[1]) ** 2) / (2 * 1.5**2))
        place = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
    return (place - middle) * pixel_nm


class TestPhysics:
    @pytest.mark.parametrize("mode", BOTH)
    def test_an_atom_is_as_bright_wherever_it_lies_in_a_pixel(self, mode):
        """Its total, over positions within a point of the grid in both directions, to 0.5 %."""
        totals = []
        for shift in ((0, 0), (0.25, 0.5), (0.5, 0.25), (0.7, 0.9)):
            plan, found = images(atoms_at([[0.0, 0, 0]]), 0.0, (mode,), field_of_view_nm=1.6, drift_nm=0.0)
            step = 1.6 / plan.grid
            plan, found = images(atoms_at([[shift[0] * step, 0, shift[1] * step]]), 0.0, (mode,), field_of_view_nm=1.6)
            image = found[mode]
            totals.append(float(image[13:37, 13:37].sum() - (0 if mode == "haadf" else image[:4].mean() * 24 * 24)))
        np.testing.assert_allclose(totals, np.mean(totals), rtol=5e-3)

    def test_atoms_stand_where_the_geometry_says(self):
        """At five angles, against x cos θ + y sin θ and z, to 0.02 pixels."""
        rng = np.random.default_rng(2)
        places = np.array([[-0.7, 0.1, -0.8], [0.55, -0.6, -0.3], [0.05, 0.75, 0.25], [-0.3, -0.4, 0.8]])
        places += rng.uniform(-0.02, 0.02, places.shape)
        specimen = atoms_at(places)
        for angle in (-70.0, -31.0, 0.0, 18.0, 55.0):
            plan, found = images(specimen, angle, ("haadf",), field_of_view_nm=2.6)
            theta = np.deg2rad(angle)
            for x, y, z in places:
                expected = np.array([x * np.cos(theta) + y * np.sin(theta), z])
                got = peak(found["haadf"], plan.pixel_nm, expected)
                np.testing.assert_allclose(got / plan.pixel_nm, expected / plan.pixel_nm, atol=0.02)

    def test_prism_without_interpolation_is_multislice(self):
        specimen = nt.specimen("MIL-53")
        settings = {"pixels": 34}
        _, prism = images(specimen, 20.0, **settings, interpolation=1)
        _, full = images(specimen, 20.0, **settings, algorithm="multislice")
        for mode in BOTH:
            np.testing.assert_allclose(prism[mode], full[mode], atol=1e-4 * np.ptp(full[mode]))

    def test_interpolation_changes_little(self):
        specimen = nt.specimen("MIL-53")
        _, exact = images(specimen, 20.0, interpolation=1)
        _, coarse = images(specimen, 20.0)
        for mode in BOTH:
            assert np.corrcoef(exact[mode].ravel(), coarse[mode].ravel())[0, 1] > 0.99

    def test_the_focus_is_on_the_tilt_axis(self):
        """Two atoms before and behind the axis are as sharp as each other, and defocus blurs both."""
        specimen = atoms_at([[-0.6, 1.2, 0], [0.6, -1.2, 0]])
        settings = {"field_of_view_nm": 3.0, "detector_mrad": (30.0, 37.0), "convergence_mrad": 12.0, "pixels": 80}
        _, sharp = images(specimen, 0.0, ("haadf",), **settings)
        _, blurred = images(specimen, 0.0, ("haadf",), defocus_nm=20, **settings)
        left, right = sharp["haadf"][:, :40].max(), sharp["haadf"][:, 40:].max()
        assert left == pytest.approx(right, rel=0.02)
        assert blurred["haadf"].max() < 0.8 * left

    @pytest.mark.parametrize(
        "aberration", [{"cs_mm": 5.0}, {"astigmatism_nm": 20.0}, {"coma_nm": 2000.0}, {"focal_spread_nm": 15.0}]
    )
    def test_aberrations_blur(self, aberration):
        specimen = atoms_at([[0.0, 0, 0]])
        settings = {"field_of_view_nm": 1.6, "convergence_mrad": 12.0}
        _, sharp = images(specimen, 0.0, ("haadf",), **settings)
        _, blurred = images(specimen, 0.0, ("haadf",), **settings, **aberration)
        assert blurred["haadf"].max() < 0.97 * sharp["haadf"].max()
        assert blurred["haadf"].sum() == pytest.approx(sharp["haadf"].sum(), rel=0.05)

    def test_astigmatism_has_a_direction(self):
        specimen = atoms_at([[0.0, 0, 0]])
        settings = {"field_of_view_nm": 1.6, "convergence_mrad": 12.0, "astigmatism_nm": 20.0, "defocus_nm": 20.0}
        widths = []
        for direction in (0.0, 90.0):
            _, found = images(specimen, 0.0, ("haadf",), astigmatism_deg=direction, **settings)
            image = found["haadf"]
            widths.append(image.max(axis=0).std() - image.max(axis=1).std())
        assert widths[0] * widths[1] < 0

    def test_vacuum_is_nothing(self):
        _, found = images(nt.specimen("MIL-53"), 10.0)
        assert np.abs(found["haadf"][0]).max() < 0.01 * found["haadf"].max()
        assert np.abs(found["idpc"][0]).max() < 0.05 * found["idpc"].max()

    def test_vacuum_level_is_taken_off_alike_at_every_angle(self):
        """A phase does not wander with the angle: its total is that of the specimen's potential, to a few percent."""
        specimen = nt.specimen("MIL-53")
        totals = [float(images(specimen, angle, ("idpc",))[1]["idpc"].sum()) for angle in (-60, 0, 45)]
        np.testing.assert_allclose(totals, np.mean(totals), rtol=0.06)


@pytest.fixture(scope="module")
def phases():
    specimen = nt.specimen("UiO-66")
    """The phase of a projection of UiO-66 by every route, and the projection of the truth."""
    settings = {"convergence_mrad": 12.0, "detector_mrad": (24.0, 32.0), "pixels": 80}
    routes = {}
    for route in ("center-of-mass", "py4dstem", "segmented"):
        _, found = images(specimen, 20.0, ("idpc",), idpc=route, **settings)
        routes[route] = found["idpc"]
    volume = nt.ground_truth(specimen, mode="idpc", imaging=Imaging(**(CHEAP | settings)))
    return routes, nt.project(volume, [20.0, 50.0]).isel(angle=0).values


class TestRoutes:
    """Three ways to a phase, of one projection."""

    def test_they_agree(self, phases):
        routes, _ = phases
        reference = routes["center-of-mass"]
        np.testing.assert_allclose(routes["py4dstem"], reference, atol=2e-3 * np.ptp(reference))
        assert np.corrcoef(reference.ravel(), routes["segmented"].ravel())[0, 1] > 0.98

    def test_they_show_the_projected_potential(self, phases):
        routes, expected = phases
        for route in ("center-of-mass", "py4dstem"):
            assert np.corrcoef(routes[route].ravel(), expected.ravel())[0, 1] >= 0.99

    def test_they_are_in_radians(self, phases):
        """Within what a weak-phase model says of a specimen of 3 nm."""
        routes, expected = phases
        for route, image in routes.items():
            slope = float((image * expected).sum() / (expected**2).sum())
            assert slope == pytest.approx(1, abs=0.1 if route != "segmented" else 0.3)


def test_output_is_not_lost_to_threads_that_silence_py4dstem():
    """Silence is of the process: two threads that overlapped left it in place."""
    specimen, settings = nt.specimen("MIL-53"), Imaging(**(CHEAP | {"pixels": 34, "idpc": "py4dstem"}))
    plan, before = optics.plan(specimen, settings, ("idpc",)), sys.stdout
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda angle: simulate.projection(specimen, angle, plan, settings, ("idpc",)), range(6)))
    assert sys.stdout is before


class TestTruth:
    def test_an_exponent_is_for_haadf(self):
        with pytest.raises(nt.SchemaError, match="needs no exponent for idpc; got 2"):
            nt.ground_truth("MIL-53", mode="idpc", imaging=Imaging(**CHEAP), exponent=2)

    def test_haadf_matches_the_images(self):
        specimen = nt.specimen("UiO-66")
        settings = {"convergence_mrad": 12.0, "pixels": 80}
        plan, found = images(specimen, 20.0, ("haadf",), **settings)
        volume = nt.ground_truth(specimen, mode="haadf", imaging=Imaging(**(CHEAP | settings)))
        expected = nt.project(volume, [20.0, 50.0]).isel(angle=0).values
        assert np.corrcoef(found["haadf"].ravel(), expected.ravel())[0, 1] > 0.97
        assert volume.attrs["pixel_size"] == plan.pixel_nm

    @pytest.mark.parametrize("mode", BOTH)
    def test_one_atom_against_its_transform(self, mode):
        """The profile of an atom, projected, is its form factor times the probe's transfer function."""
        imaging = Imaging(**(CHEAP | {"field_of_view_nm": 1.6, "pixels": 65}))
        specimen = atoms_at([[0.0, 0, 0]])
        volume = nt.ground_truth(specimen, mode=mode, imaging=imaging).values
        spectrum = np.fft.fft(np.fft.ifftshift(volume.sum(axis=(0, 1)))).real[:20]
        k = np.arange(20) / 16.0
        limit = 2 * imaging.convergence_mrad * 1e-3 / (10 * imaging.wavelength_nm)
        (weight,) = truth.form_factors(np.array([79]), mode, imaging, None)
        # Two sums over pixels of 1.6 nm / 65, in voxels that hold one of three already.
        expected = weight(k) * truth.transfer(k / limit) / (16.0 / 65) ** 2
        # For dark field the probe's negative rings are left out, 2 % of a projection.
        np.testing.assert_allclose(spectrum[1:], expected[1:], atol=(3e-3 if mode == "idpc" else 2e-2) * expected[0])
        # The probe's faint rings beyond the box of 1.6 nm are missed by the total alone.
        assert spectrum[0] == pytest.approx(expected[0], rel=0.06)

    def test_slabs_are_the_same_in_any_chunks(self):
        volume = nt.ground_truth("MIL-53", mode="idpc", imaging=Imaging(**CHEAP))
        one, many = volume.chunk(z=-1).values, volume.chunk(z=1).values
        assert volume.data.numblocks[0] > 1
        np.testing.assert_array_equal(one, many)
        np.testing.assert_array_equal(volume.values, one)

    def test_thermal_motion_broadens_and_keeps_the_total(self):
        still = nt.ground_truth("MIL-53", mode="haadf", imaging=Imaging(**CHEAP)).values
        moving = nt.ground_truth(
            "MIL-53", mode="haadf", imaging=Imaging(**(CHEAP | {"phonons": 2, "sigma_nm": 0.02}))
        ).values
        assert moving.max() < 0.9 * still.max()
        assert moving.sum() == pytest.approx(still.sum(), rel=0.01)

    def test_heavier_atoms_weigh_more(self):
        imaging = Imaging(**CHEAP, field_of_view_nm=2.0)
        pair = atoms_at([[-0.5, 0, 0], [0.5, 0, 0]], "CZr")
        for exponent, ratio in ((1.7, (40 / 6) ** 1.7), (2.0, (40 / 6) ** 2)):
            row = nt.ground_truth(pair, mode="haadf", imaging=imaging, exponent=exponent).values.max(axis=(0, 1))
            assert row[25:].max() / row[:25].max() == pytest.approx(ratio, rel=0.02)


class TestDegradation:
    def test_counting_is_unbiased_and_as_noisy_as_poisson(self, rng):
        signal = np.full((200, 200), 0.02, np.float32)
        counted = degrade.counted(signal, 500.0, rng)
        # Of 40,000 pixels of 10 electrons: the mean to 5 standard errors, the variance to 5 of its own.
        assert counted.mean() == pytest.approx(0.02, abs=5 * np.sqrt(0.02 / 500 / 40_000))
        assert counted.var() == pytest.approx(0.02 / 500, rel=5 * np.sqrt(2.1 / 40_000))
        assert degrade.counted(signal, None, rng) is signal

    def test_blur_and_jitter_keep_the_sum(self, rng):
        signal = rng.random((32, 24, 2), np.float32) + 1
        np.testing.assert_allclose(degrade.blurred(signal, 2.0).sum(axis=(0, 1)), signal.sum(axis=(0, 1)), rtol=1e-5)
        moved = degrade.jittered(signal, np.full(24, 3.0))
        np.testing.assert_allclose(moved, np.roll(signal, 3, axis=0), atol=1e-5)
        assert degrade.jittered(signal, np.zeros(24)) is signal

    def test_dose_of_a_series_is_shared(self):
        """Ten projections of one series have the noise of a tenth of its dose each."""
        specimen = nt.specimen("MIL-53")
        imaging = Imaging(**CHEAP, dose=3e4)
        plan = optics.plan(specimen, imaging, ("haadf",))
        clean = simulate.projection(specimen, 0.0, plan, Imaging(**CHEAP), ("haadf",))
        deviations = [
            np.std(simulate.projection(specimen, 0.0, plan, imaging, ("haadf",), n_angles=n) - clean) for n in (1, 100)
        ]
        assert deviations[1] / deviations[0] == pytest.approx(10, rel=0.15)
        each = Imaging(**CHEAP, dose=3e4, dose_per="projection")
        alike = [simulate.projection(specimen, 0.0, plan, each, ("haadf",), n_angles=n) for n in (1, 100)]
        np.testing.assert_array_equal(*alike)

    @pytest.mark.parametrize("mode", BOTH)
    def test_noise_hides_less_at_a_higher_dose(self, mode):
        specimen = nt.specimen("MIL-53")
        _, clean = images(specimen, 0.0, (mode,))
        correlations = [
            np.corrcoef(images(specimen, 0.0, (mode,), dose=dose)[1][mode].ravel(), clean[mode].ravel())[0, 1]
            for dose in (1e3, 1e4, 1e6)
        ]
        assert correlations == sorted(correlations)
        assert correlations[0] < 0.8 < 0.95 < correlations[2]

    def test_frozen_phonons(self):
        specimen = nt.specimen("MIL-53")
        _, still = images(specimen, 0.0, ("haadf",))
        _, none = images(specimen, 0.0, ("haadf",), phonons=1, sigma_nm=0.0)
        _, some = images(specimen, 0.0, ("haadf",), phonons=2, sigma_nm={"Cr": 0.01, "other": 0.0})
        np.testing.assert_allclose(none["haadf"], still["haadf"], atol=1e-6)
        assert 0.001 < np.abs(some["haadf"] - still["haadf"]).max() / still["haadf"].max() < 0.5

    def test_drift_moves_the_image(self):
        specimen = atoms_at([[0.0, 0, 0]])
        plan, found = images(specimen, 0.0, ("haadf",), field_of_view_nm=2.0, drift_nm=0.1, seed=5)
        row, column = np.unravel_index(found["haadf"].argmax(), found["haadf"].shape)
        near = (np.array([column, row]) - MIDDLE) * plan.pixel_nm
        assert 0.02 < np.linalg.norm(peak(found["haadf"], plan.pixel_nm, near)) < 0.4

    def test_jitter_and_source_size(self):
        specimen = nt.specimen("MIL-53")
        _, clean = images(specimen, 0.0, ("haadf",))
        _, jittered = images(specimen, 0.0, ("haadf",), jitter_nm=0.05)
        _, spread = images(specimen, 0.0, ("haadf",), source_size_nm=0.1)
        _, blurred = images(specimen, 0.0, ("haadf",), blur_nm=0.1 / degrade.FWHM)
        assert np.std(jittered["haadf"] - clean["haadf"]) > 0.05 * np.std(clean["haadf"])
        np.testing.assert_allclose(spread["haadf"], blurred["haadf"], atol=1e-6)
        assert spread["haadf"].max() < clean["haadf"].max()


class TestSeeds:
    SETTINGS = CHEAP | {"dose": 5e3, "phonons": 1, "drift_nm": 0.02, "jitter_nm": 0.01, "dose_per": "projection"}

    def test_a_projection_depends_on_seed_and_angle_alone(self):
        imaging = Imaging(**self.SETTINGS)
        one = nt.simulate("MIL-53", [-20.0, 10.0, 40.0], imaging=imaging).compute()
        other = nt.simulate("MIL-53", [10.0, -50.0], imaging=imaging).compute()
        for mode in BOTH:
            np.testing.assert_array_equal(one[mode].sel(angle=10), other[mode].sel(angle=10))
            assert not np.array_equal(one[mode].sel(angle=10), one[mode].sel(angle=40))

    def test_another_seed_is_another_noise(self):
        _, one = images(nt.specimen("MIL-53"), 0.0, **self.SETTINGS)
        _, same = images(nt.specimen("MIL-53"), 0.0, **self.SETTINGS)
        _, other = images(nt.specimen("MIL-53"), 0.0, **self.SETTINGS, seed=1)
        for mode in BOTH:
            np.testing.assert_array_equal(one[mode], same[mode])
            assert not np.array_equal(one[mode], other[mode])


ANGLES = (-30.0, 0.0, 45.0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A store of both modes, and what it opens as."""
    path = tmp_path_factory.mktemp("simulated") / "mil53.zarr"
    return path, nt.save(nt.simulate("MIL-53", ANGLES, imaging=Imaging(**CHEAP)), path)


class TestSeries:
    def test_it_is_lazy(self, nothing_computes):
        both = nt.simulate("MIL-53", ANGLES, imaging=Imaging(**CHEAP))
        assert set(both) == {"haadf", "idpc"}
        assert both["haadf"].dims == schema.SERIES_DIMS
        assert both["haadf"].shape == (50, 3, 50)

    def test_what_is_stored_can_be_reconstructed(self, saved):
        path, both = saved
        series = nt.open(path / "idpc")
        nt.check_tilt_series(series, who="test")
        assert series.attrs["units"] == "nm"
        assert series.attrs["quantity"] == "phase in radians"
        np.testing.assert_array_equal(series.values, both["idpc"].values)
        np.testing.assert_array_equal(series.angle, ANGLES)
        assert nt.sirt(nt.open(path, slices=5)["haadf"], max_iterations=2).shape == (50, 50, 50)

    def test_plain_xarray_reads_it(self, saved):
        path, both = saved
        plain = xr.open_zarr(path)["projections"]
        assert plain.dims == ("angle", "mode", "z", "detector")
        assert plain.attrs["modes"] == ["haadf", "idpc"]
        np.testing.assert_array_equal(plain.isel(mode=1).transpose("z", "angle", "detector"), both["idpc"])

    def test_every_projection_is_computed_once(self, tmp_path, monkeypatch):
        calls = []
        monkeypatch.setattr(
            simulate, "projection", lambda *_, **__: calls.append(1) or np.zeros((2, 50, 50), np.float32)
        )
        nt.save(nt.simulate("MIL-53", ANGLES, imaging=Imaging(**CHEAP)), tmp_path / "a.zarr")
        assert len(calls) == 3

    def test_a_single_mode_has_the_bytes_and_the_recipe_of_both(self, saved, tmp_path):
        path, both = saved
        alone = nt.save(nt.simulate("MIL-53", ANGLES, mode="haadf", imaging=Imaging(**CHEAP)), tmp_path / "a.zarr")
        np.testing.assert_array_equal(alone.values, both["haadf"].values)
        assert recipes.same(alone.attrs["recipe"], nt.open(path / "haadf").attrs["recipe"])
        np.testing.assert_array_equal(nt.open(tmp_path / "a.zarr/haadf").values, alone.values)
        assert nt.verify(tmp_path / "a.zarr/haadf") == []

    def test_opened_series_keep_their_recipes(self, saved):
        path, both = saved
        for mode in BOTH:
            assert recipes.recipe_of(both[mode])["operation"] == "simulate"
            assert recipes.recipe_of(nt.open(path / mode))["parameters"]["mode"] == mode

    def test_another_series_in_the_same_place_is_refused(self, saved):
        path, _ = saved
        with pytest.raises(nt.SchemaError, match=r"made otherwise: .*pixels is 50 there and 52 here"):
            nt.save(nt.simulate("MIL-53", ANGLES, imaging=Imaging(**(CHEAP | {"pixels": 52}))), path)

    def test_both_at_once_are_refused_where_one_is_needed(self, saved):
        path, both = saved
        with pytest.raises(
            nt.SchemaError, match=r"needs one tilt series; got a dataset of haadf, idpc; try: dataset\["
        ):
            nt.sirt(both)
        with pytest.raises(nt.SchemaError, match=r"needs one of haadf, idpc in .*; got bf"):
            nt.open(path / "bf")

    def test_a_damaged_projection_is_found_and_mended(self, saved):
        path, both = saved
        chunk = path / "projections/c/1/0/0/0"
        content = bytearray(chunk.read_bytes())
        content[100] ^= 1
        chunk.write_bytes(content)
        assert nt.verify(path) == [1]
        again = nt.save(nt.simulate("MIL-53", ANGLES, imaging=Imaging(**CHEAP)), path)
        np.testing.assert_array_equal(again["haadf"].values, both["haadf"].values)

    @pytest.mark.filterwarnings("ignore")  # distributed's own, of sockets that close late
    def test_two_workers_equal_one(self, saved, tmp_path):
        from nntomo_dask.compute import cluster

        path, _ = saved
        for scheduler in ("threads", "processes"):
            with cluster.session(workers=2, scheduler=scheduler):
                lazy = nt.simulate("MIL-53", ANGLES, imaging=Imaging(**CHEAP))
                nt.save(lazy, tmp_path / f"{scheduler}.zarr")
            for index in range(3):
                name = f"projections/c/{index}/0/0/0"
                assert (tmp_path / f"{scheduler}.zarr" / name).read_bytes() == (path / name).read_bytes()

    def test_a_killed_run_goes_on(self, saved, tmp_path):
        path, _ = saved
        script = tmp_path / "run.py"
        script.write_text(
            "import sys, nntomo_dask as nt\n"
            f"imaging = nt.Imaging(**{CHEAP!r})\n"
            f"nt.save(nt.simulate('MIL-53', {ANGLES!r}, imaging=imaging), sys.argv[1])\n"
        )
        output = tmp_path / "killed.zarr"
        command = [sys.executable, str(script), str(output)]
        with subprocess.Popen(command) as process:
            while not any(output.glob("projections/c/*/0/0/0")) and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        there = {file: file.stat().st_mtime_ns for file in output.glob("projections/c/*/0/0/0")}
        assert there
        nt.save(nt.simulate("MIL-53", ANGLES, imaging=Imaging(**CHEAP)), output)
        assert {file: file.stat().st_mtime_ns for file in there} == there
        for index in range(3):
            name = f"projections/c/{index}/0/0/0"
            assert (output / name).read_bytes() == (path / name).read_bytes()
        assert store.missing_chunks(output) == []


def test_clusters_stand_where_the_crystal_has_them():
    """SIRT of four simulated projections of UiO-66: a peak within a voxel of the centre of every Zr6 cluster."""
    specimen = nt.specimen("UiO-66")
    series = nt.simulate(specimen, nt.tilt_angles("full", 4), mode="haadf", imaging=Imaging(**CHEAP)).compute()
    volume = nt.sirt(series.chunk(z=8), minimum=0, tolerance=1e-3)
    zirconium = specimen.positions_nm[specimen.numbers == 40]
    clusters = []
    for atom in zirconium:
        if not any(np.linalg.norm(atom - centre) < 0.3 for centre in clusters):
            clusters.append(zirconium[np.linalg.norm(zirconium - atom, axis=1) < 0.55].mean(axis=0))
    assert len(clusters) == 4
    smooth = scipy.ndimage.gaussian_filter(volume.values, 0.18 / volume.attrs["pixel_size"])
    for x, y, z in clusters:
        middle = np.round(np.array([z, y, x]) / volume.attrs["pixel_size"] + MIDDLE).astype(int)
        around = tuple(slice(place - 4, place + 5) for place in middle)
        found = np.array(np.unravel_index(smooth[around].argmax(), (9, 9, 9))) - 4
        assert np.abs(found + middle - (np.array([z, y, x]) / volume.attrs["pixel_size"] + MIDDLE)).max() <= 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"detector_mrad": (5, 40)}, "dark-field detector from 15 mrad, where the beam ends"),
            ({"detector_mrad": (80, 50)}, "got 80 to 50 mrad"),
            ({"interpolation": 9}, r"needs a window of at least .* nm for PRISM's probe; got .* by interpolation 9"),
            ({"field_of_view_nm": 1.0}, r"needs a field of view of at least 2\.\d+ nm, for all of the specimen"),
            (
                {"pixels": 32},
                r"needs pixels of at most 0\.0328 nm, which resolve a probe of 15 mrad; got .* try: pixels=91, or",
            ),
            ({"dose": -5}, "needs a dose above 0 e/Å²; got -5"),
            ({"dose": 0}, "needs a dose above 0 e/Å²; got 0"),
            (
                {"idpc": "magic"},
                'needs idpc "center-of-mass", "segmented" or "py4dstem"; got .magic.; try: idpc="center-of-mass"',
            ),
            ({"algorithm": "ray"}, "needs algorithm .prism. or .multislice."),
            ({"blur_nm": -1}, "needs blur of at least 0 in nm; got -1; try: blur_nm=0"),
            ({"energy_ev": 300}, r"needs energy of at least 1000 in eV; got 300; try: energy_ev=300000"),
            ({"sigma_nm": 0.8}, r"needs sigma_nm of 0 or more, below 0\.1"),
            ({"sigma_nm": {"Zz": 0.01, "other": 0}}, "no element called Zz"),
            ({"sigma_nm": {"Zr": 0.01}}, "got none of C, H, O"),
            ({"detector_mrad": (50, 2000)}, "at most 400 mrad"),
            ({"phonons": -1}, "needs phonons of at least 0"),
            ({"field_of_view_nm": 0}, "needs field of view above 0 in nm; got 0; try: another field_of_view_nm"),
            ({"drift_nm": np.inf}, "needs a finite drift; got inf; try: drift_nm=0"),
        ],
    )
    def test_settings_that_do_not_go_together(self, settings, match, nothing_computes):
        with pytest.raises(nt.SchemaError, match=match):
            nt.simulate("UiO-66", [0, 30], imaging=Imaging(**settings))

    def test_a_misspelt_setting(self):
        with pytest.raises(TypeError, match="semiangle"):
            Imaging(semiangle_mrad=10)

    def test_modes_and_angles(self):
        with pytest.raises(nt.SchemaError, match="needs mode haadf, idpc or both"):
            nt.simulate("UiO-66", [0, 30], mode="bf")
        with pytest.raises(nt.SchemaError, match="simulate: needs every angle once"):
            nt.simulate("UiO-66", [0, 0, 30])


def test_abtem_transforms_by_scipy(rng, monkeypatch):
    """The private function of abTEM that is replaced still exists, has the same parameters, and is the one called."""
    import abtem.core.fft

    from nntomo_dask.simulation import multislice

    multislice.configure("cpu")
    assert abtem.core.fft._mkl_fft_dispatch is multislice._scipy_transform
    calls = []
    monkeypatch.setattr(
        abtem.core.fft,
        "_mkl_fft_dispatch",
        lambda x, func_name, overwrite_x, **more: (
            calls.append(func_name) or multislice._scipy_transform(x, func_name, overwrite_x, **more)
        ),
    )
    wave = (rng.random((16, 16)) + 1j * rng.random((16, 16))).astype(np.complex64)
    np.testing.assert_array_equal(abtem.core.fft.fft2(wave, overwrite_x=False), scipy.fft.fft2(wave))
    np.testing.assert_array_equal(abtem.core.fft.ifft2(wave, overwrite_x=False), scipy.fft.ifft2(wave))
    assert calls == ["fft2", "ifft2"]


def test_an_abtem_without_the_function_is_refused(monkeypatch):
    import abtem.core.fft

    from nntomo_dask.simulation import multislice

    monkeypatch.delattr(abtem.core.fft, "_mkl_fft_dispatch")
    with pytest.raises(RuntimeError, match="abTEM has changed"):
        multislice.use_scipy_transforms()


def test_abtem_has_the_function_that_is_replaced():
    """In a fresh process, since this one has replaced it."""
    script = (
        "import inspect, abtem.core.fft as fft; print(*inspect.signature(fft._mkl_fft_dispatch).parameters); "
        "print('_mkl_fft_dispatch(x, func_name, overwrite_x' in inspect.getsource(fft._fft_dispatch))"
    )
    shown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert shown.split() == ["x", "func_name", "overwrite_x", "kwargs", "True"]


@pytest.mark.parametrize("outer", [40.0, 60.0, 80.0, 123.0])
@pytest.mark.parametrize("interpolation", [None, 1, 2, 3])
def test_grids_suit_the_transform_and_the_detector(outer, interpolation):
    """The plan is what abTEM makes of it: its window, its cutoff beyond the detector, small prime factors."""
    import abtem

    specimen = nt.specimen("MIL-53")
    imaging = Imaging(detector_mrad=(30.0, outer), interpolation=interpolation)
    plan = optics.plan(specimen, imaging, BOTH)
    assert optics._is_smooth(plan.grid)
    assert optics._is_smooth(plan.window)
    assert plan.cutoff_mrad >= outer + 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matrix = abtem.SMatrix(
            semiangle_cutoff=15,
            energy=300e3,
            gpts=plan.grid,
            extent=10 * plan.field_of_view_nm,
            interpolation=plan.interpolation,
        )
    assert matrix.window_gpts == (plan.window,) * 2
    assert min(matrix.cutoff_angles) >= outer
    assert len(matrix) == optics.plane_waves(plan, imaging)


def test_wavelength():
    """Of the textbooks: 1.97 pm at 300 kV, 2.51 pm at 200 kV, 3.70 pm at 100 kV."""
    got = [1000 * optics.wavelength_nm(1000 * kilovolts) for kilovolts in (300, 200, 100)]
    np.testing.assert_allclose(got, [1.97, 2.51, 3.70], atol=0.005)


def test_centre_of_mass_of_an_empty_pattern_is_zero():
    patterns = np.zeros((1, 2, 4, 4), np.float32)
    patterns[0, 1, 3, 1] = 2
    np.testing.assert_allclose(idpc.centre_of_mass(patterns, (0.5, 0.25)), [[0, 0.5 - 0.25j]])
