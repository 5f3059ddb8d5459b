"""What ``nntomo compare`` prints, and what it says about comparisons that mean little."""

import json

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.arrays import recipes
from nntomo_dask.cli import provenance


@pytest.fixture
def stores(run):
    rng = np.random.default_rng(0)
    truth = rng.random((8, 16, 16), np.float32)
    truth[0, 0, 0] = 0
    for name, data, attrs in (
        ("truth", truth, {}),
        ("near", truth * 1.1, {}),
        ("far", truth * 1e4, {}),
        ("small", truth * np.float32(1e-5), {}),
        ("haadf", truth, {"quantity": "share of the beam", "long_name": "HAADF intensity"}),
        ("idpc", truth, {"quantity": "phase in radians"}),
    ):
        nt.save(nt.volume(data, pixel_size=0.5, units="nm").assign_attrs(attrs), f"{name}.zarr")


def test_the_table_says_units_direction_and_limits(run, stores):
    text = run("compare", "near.zarr", "--reference", "truth.zarr").output
    head = text.splitlines()[1]
    for column in ("MSE [u²]", "Relative error", "PSNR [dB]", "SSIM", "FSC=0.5 [nm]", "FSC=0.143 [nm]", "Dice"):
        assert column in head
    assert "lower is better: MSE, Relative error, FSC=0.5, FSC=0.143; higher is better: PSNR, SSIM, Dice" in text
    assert "Relative error: root of the MSE over the root mean square of the reference" in text
    assert "MSE: mean square error; u is the unit of the values" in text
    assert "≤ 1: limited by the voxels, whose smallest resolvable period is 1 nm" in text
    assert "note:" not in text
    (values,) = json.loads(run("compare", "near.zarr", "--reference", "truth.zarr", "--json").stdout).values()
    assert values["relative_error"] == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize(
    ("volume", "reference", "note"),
    [
        ("far", "truth", "Relative error is 1e+04, above 1; they may be different quantities or on different scales"),
        ("small", "truth", None),
        ("idpc", "haadf", "they are different quantities (phase in radians, and share of the beam)"),
        ("haadf", "haadf", None),
        ("truth", "haadf", None),
    ],
)
def test_notes(run, stores, volume, reference, note):
    result = run("compare", f"{volume}.zarr", "--reference", f"{reference}.zarr", "--json")
    assert json.loads(result.stdout)
    assert ("note:" in result.stderr) == (note is not None)
    assert note is None or f"note: {volume}.zarr and {reference}.zarr: {note}" in result.stderr


def test_options_of_the_figure(run, stores, tmp_path):
    words = ("compare", "near.zarr", "--reference", "truth.zarr")
    run(*words, "--figure", "f.png", "--slice", "2,3", "--level", 0.4, "--window", "0,1")
    assert (tmp_path / "f.png").stat().st_size > 10_000
    for option, value in (("--slice", 2), ("--level", 1), ("--window", "0,1")):
        text = run(*words, option, value, exit_code=2).output
        assert "--slice, --level and --window are for --figure" in text
    for option, value, says in (
        ("--slice", "1,2,3", "write one number, 40, or two, 40,64"),
        ("--window", "2,1", "the lesser first, such as 0,1"),
        ("--slice", "8", "--slice: 8; along z there are slices 0 to 7"),
    ):
        assert says in run(*words, "--figure", "g.png", option, value, exit_code=2).output


class TestProvenance:
    """Recipes as `simulate` and `ground_truth` write them."""

    @staticmethod
    def made(operation, crystal="UiO-66", atoms="a", structure=None, repeat=1, **parameters):
        cut = recipes.record(
            "specimen", {"crystal": crystal, "atoms": atoms, "structure": structure, "repeat": repeat, "shape": "cells"}
        )
        return recipes.record(operation, {"mode": "haadf", "convergence_mrad": 15.0} | parameters, [cut])

    def test_a_truth_fits_its_series(self):
        volume = recipes.record("sirt", {}, [self.made("simulate", dose=3.0)])
        assert provenance.mismatch(volume, self.made("ground_truth", exponent=None)) == ""

    def test_what_differs_is_named(self):
        volume = recipes.record("sirt", {}, [self.made("simulate")])
        for other, says in (
            (self.made("ground_truth", crystal="ZIF-4", atoms="b"), "different specimens (UiO-66, and ZIF-4)"),
            (self.made("ground_truth", atoms="b"), "different specimens (atoms of UiO-66, and other atoms of UiO-66)"),
            (self.made("ground_truth", convergence_mrad=20.0), "made with convergence mrad 15.0 and 20.0"),
            (self.made("ground_truth", mode="idpc"), "made with mode haadf and idpc"),
        ):
            assert says in provenance.mismatch(volume, other)

    @pytest.mark.parametrize("formula", ["C24N16Zn4", "C6N4Zn"])
    def test_one_crystal_of_two_sources_is_told_from_two_crystals(self, formula):
        volume = self.made("simulate", "ZIF-4", structure="C24N16Zn4")
        note = provenance.mismatch(volume, self.made("ground_truth", "z.cif", "b", formula))
        assert "of one composition, but of two sources (ZIF-4, and z.cif)" in note
        assert "nntomo truth --like" in note
        for other in (
            self.made("ground_truth", "z.cif", "b", "C6N4Zn2"),
            self.made("ground_truth", "z.cif", "b", formula, repeat=2),
        ):
            assert "different specimens (ZIF-4, and z.cif); the reference is not" in provenance.mismatch(volume, other)

    def test_what_was_not_simulated_is_left_alone(self):
        assert provenance.mismatch(recipes.record("sirt", {}), self.made("ground_truth")) == ""
