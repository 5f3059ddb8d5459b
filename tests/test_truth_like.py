"""The truth that takes its settings from a simulated series, and the stores of several structures."""

import pytest

pytest.importorskip("abtem", reason="needs nntomo_dask[simulation]")

from pathlib import Path

import numpy as np
from ase.io import write

import nntomo_dask as nt
from nntomo_dask.arrays import recipes
from nntomo_dask.cli.simulation import _outputs
from nntomo_dask.simulation import truth
from nntomo_dask.simulation.like import imaging_of
from nntomo_dask.simulation.optics import Imaging

SETTINGS = {"convergence_mrad": 8.0, "detector_mrad": (24.0, 37.0), "slice_thickness_nm": 0.5, "pixels": 60}
IMAGING = Imaging(**SETTINGS, sigma_nm={"Cr": 0.006, "other": 0.01}, phonons=2, source_size_nm=0.05, seed=3, dose=1e4)
PARTICLE = {"shape": "sphere", "size_nm": 1.6, "tilt_axis": "a"}


@pytest.fixture(scope="module")
def series():
    return nt.simulate(nt.specimen("MIL-53", **PARTICLE), [0.0, 30.0], imaging=IMAGING)


class TestLike:
    @pytest.mark.parametrize("mode", ["haadf", "idpc"])
    def test_it_is_the_truth_with_the_same_settings(self, series, mode, nothing_computes):
        expected = nt.ground_truth(nt.specimen("MIL-53", **PARTICLE), mode=mode, imaging=IMAGING)
        for given in (series[mode], series, nt.backproject(series[mode].chunk(z=8, angle=-1))):
            got = nt.ground_truth_like(given, mode=mode)
            assert recipes.same(got.attrs["recipe"], expected.attrs["recipe"])
            assert got.data.name == expected.data.name

    def test_the_settings_come_back_from_the_recipe(self, series):
        field = series["haadf"].attrs["recipe"]["parameters"]["field_of_view_nm"]
        assert imaging_of(series["haadf"].attrs["recipe"]) == Imaging(
            **SETTINGS,
            sigma_nm={"Cr": 0.006, "other": 0.01},
            phonons=2,
            source_size_nm=0.05,
            seed=3,
            dose=1e4,
            field_of_view_nm=field,
            interpolation=series["haadf"].attrs["recipe"]["parameters"]["interpolation"],
        )

    def test_the_mode_is_that_of_the_series(self, series):
        assert nt.ground_truth_like(series["idpc"]).attrs["recipe"]["parameters"]["mode"] == "idpc"
        with pytest.raises(nt.SchemaError, match="needs mode haadf or idpc, as in the series; got none"):
            nt.ground_truth_like(series)
        with pytest.raises(nt.SchemaError, match="needs mode idpc, as in the series; got 'haadf'"):
            nt.ground_truth_like(series["idpc"], mode="haadf")

    def test_what_was_not_simulated_is_refused(self, volume):
        with pytest.raises(nt.SchemaError, match="needs a simulated series"):
            nt.ground_truth_like(nt.project(volume, [0.0, 30.0]))

    def test_a_part_is_refused(self, series):
        with pytest.raises(nt.SchemaError, match=r"needs all of what was simulated, 60 slices .* got 50 slices"):
            nt.ground_truth_like(series["idpc"].isel(z=slice(0, 50)))

    def test_other_pixels_are_refused(self, series):
        with pytest.raises(nt.SchemaError, match=r"needs all of what was simulated, 60 slices .* got 60 slices"):
            nt.ground_truth_like(series["idpc"].coarsen(detector=2).mean())

    def test_another_crystal_is_refused(self, series):
        with pytest.raises(nt.SchemaError, match=r"the atoms that were simulated, MIL-53 .*; got MIL-47"):
            nt.ground_truth_like(series["idpc"], structure="MIL-47")

    def test_a_file_is_found_by_its_name_or_given(self, tmp_path, monkeypatch):
        write(tmp_path / "mine.cif", nt.structure("MIL-47"))
        imaging = Imaging(**SETTINGS)
        made = nt.simulate(tmp_path / "mine.cif", [0.0, 30.0], mode="idpc", imaging=imaging)
        expected = nt.ground_truth(tmp_path / "mine.cif", mode="idpc", imaging=imaging)
        given = nt.ground_truth_like(made, structure=tmp_path / "mine.cif")
        assert given.data.name == expected.data.name
        with pytest.raises(nt.SchemaError, match=r"got mine.cif, which is not in this folder"):
            nt.ground_truth_like(made)
        monkeypatch.chdir(tmp_path)
        assert nt.ground_truth_like(made).data.name == expected.data.name
        write(tmp_path / "mine.cif", nt.structure("MIL-53"))
        with pytest.raises(nt.SchemaError, match="give the file that was simulated, unchanged"):
            nt.ground_truth_like(made)


def test_the_defaults_are_those_of_a_dark_field_user():
    imaging = Imaging()
    assert imaging.detector_mrad == (60, 150)
    assert imaging.detector_mrad[0] == 4 * imaging.convergence_mrad
    assert imaging.phonons == 4


class TestRings:
    @pytest.mark.parametrize("phonons", [0, 4])
    def test_no_dark_field_truth_is_below_zero(self, phonons):
        volume = nt.ground_truth("MIL-53", mode="haadf", imaging=Imaging(**SETTINGS, phonons=phonons)).values
        assert volume.min() == 0

    def test_a_profile_keeps_its_total_and_its_core(self):
        imaging = Imaging(phonons=0)
        k = truth.frequencies(imaging)
        (weight,) = truth.form_factors(np.array([40]), "haadf", imaging, None)
        radii = np.arange(3000) / 3000 * 8
        before = truth.profile(radii, weight(k), truth.broadening(40, k, imaging), k)
        after = truth.without_rings(radii, before)
        first = int((before < 0).argmax())
        assert before.min() < -5e-3 * before.max()
        assert after.min() == 0
        np.testing.assert_array_equal(after[:first], before[:first])
        shell = 4 * np.pi * radii**2
        assert np.trapezoid(shell * after, radii) == pytest.approx(np.trapezoid(shell * before, radii), rel=1e-3)

    def test_a_profile_without_rings_is_left_alone(self):
        values = np.exp(-np.linspace(0, 5, 50))
        assert truth.without_rings(np.linspace(0, 5, 50), values) is values


class TestOutputs:
    @pytest.mark.parametrize(
        ("structures", "names"),
        [
            (["UiO-66"], ["out"]),
            (["UiO-66", "b/x.cif"], ["out/UiO-66.zarr", "out/x.zarr"]),
            (["a/x.cif", "b/x.cif"], ["out/a-x.cif.zarr", "out/b-x.cif.zarr"]),
            (["a/x.cif", "b/X.cif"], ["out/a-x.cif.zarr", "out/b-X.cif.zarr"]),
            (["x.cif", "x.xyz"], ["out/x.cif.zarr", "out/x.xyz.zarr"]),
            (["x.cif", "b/x.cif"], ["out/x.cif.zarr", "out/b-x.cif.zarr"]),
            (["1/a/x.cif", "2/a/x.cif", "y.cif"], ["out/1-a-x.cif.zarr", "out/2-a-x.cif.zarr", "out/y.zarr"]),
            (["/d/x.cif", "x.cif"], ["out/d-x.cif.zarr", "out/x.cif.zarr"]),
        ],
    )
    def test_equal_names_get_stores_of_their_own(self, structures, names):
        assert list(_outputs(tuple(structures), Path("out")).values()) == [Path(name) for name in names]
