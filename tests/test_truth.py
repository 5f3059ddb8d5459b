"""The yardstick: specimens, series and rows of pipelines/truth.py."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import nntomo_dask as nt

PIPELINES = Path(__file__).parents[1] / "pipelines"
NAMES = ("faceted", "porous", "coreshell", "smooth", "particles", "needle")


@pytest.fixture
def truth(monkeypatch):
    """The script, which imports what lies beside it."""
    monkeypatch.syspath_prepend(str(PIPELINES))
    import truth

    return truth


@pytest.fixture
def run(truth, tmp_path):
    """One tiny case as from the command line; gives the rows."""

    def main(*more):
        words = [argument for word in ("faceted", "tem8", "2%", *more) for argument in ("--only", word)]
        truth.main(["--voxels", "16", "--figure", "--out", str(tmp_path), *words])
        return truth.read(tmp_path / "truth.csv")

    return main


@pytest.mark.parametrize("name", NAMES)
def test_specimens(truth, name):
    volume = truth.binned(fine := truth.fine_specimen(name, 24, 3), truth.FINER)
    assert volume.dtype == np.float32
    assert volume.shape == (24, 24, 24)
    assert 0 == volume.min() < volume.max() <= 1
    assert volume.mean() == pytest.approx(fine.mean(), rel=1e-5)  # rounding of float32
    # A few of 24³ voxels at least; no specimen fills half of its box.
    assert 0.01 < (volume > 0).mean() < 0.5
    y, x = np.indices((24, 24)) - 11.5
    assert not volume[:, np.hypot(y, x) > 0.95 * 12].any()
    assert np.array_equal(fine, truth.fine_specimen(name, 24, 3))
    assert not np.array_equal(fine, truth.fine_specimen(name, 24, 4))


@pytest.mark.parametrize(
    ("name", "densities"),
    [("faceted", {0, 1}), ("porous", {0, 1}), ("coreshell", {0, 0.45, 1}), ("particles", {0, 0.3, 1})],
)
def test_densities(truth, name, densities):
    assert set(np.unique(truth.fine_specimen(name, 24, 5))) == {np.float32(one) for one in densities}


def test_series(truth):
    case = truth.Case("coreshell", 32, "fine", "full8", 0.0, 2)
    clean, volume = truth.series_of(case), truth.truth_of(case)
    # Every projection holds all of the matter; Joseph's interpolation keeps its sum to some thousandths here.
    np.testing.assert_allclose(clean.sum(("z", "detector")), volume.sum(), rtol=1e-2)
    onto_voxels = truth.series_of(case._replace(rays="grid"))
    # The same rays on two grids: they differ at boundaries, by less than a pixel's length.
    assert 0 < np.abs(clean - onto_voxels).max() < 1
    noise = (truth.series_of(case._replace(noise=5.0)) - clean).values
    # 8,192 values know their deviation to 0.8 %; four times that.
    assert noise.std() == pytest.approx(0.05 * float(clean.max()), rel=0.032)


def test_rows_are_the_errors_and_are_computed_once(truth, run, tmp_path):
    rows = run("fbp", "sirt")
    case = rows[0].case
    errors = {(row.method, row.choice): row.mse for row in rows}
    volume = nt.sirt(truth.series_of(case), tolerance=1e-3, minimum=0)
    # Six digits are written.
    assert errors["sirt", ""] == pytest.approx(float(nt.mse(volume, truth.truth_of(case))), rel=1e-5)
    relative = next(row.relative_error for row in rows if (row.method, row.choice) == ("sirt", ""))
    assert relative == pytest.approx(float(nt.relative_error(volume, truth.truth_of(case))), rel=1e-5)
    assert len(errors) == 2 + len(truth.ITERATIONS)
    before = (tmp_path / "truth.csv").read_bytes()
    run("fbp", "sirt")
    assert (tmp_path / "truth.csv").read_bytes() == before
    assert len(run("cgls")) > len(rows)
    assert (tmp_path / "truth.csv").read_bytes().startswith(before)
    assert "| faceted | tem8 | 2 % |" in (tmp_path / "truth.md").read_text()
    assert (tmp_path / "truth.png").stat().st_size > 10_000
    assert (tmp_path / "slices.png").stat().st_size > 10_000
    middle = np.load(truth.slice_of(case, next(one for one in truth.available() if one.name == "sirt"), tmp_path))
    assert np.array_equal(middle, truth.shown(volume.values, case, truth.truth_of(case).values))


def test_a_network_is_trained_once(truth, tmp_path):
    size = dataclasses.replace(truth.SIZES["small"], voxels=16, slices=16)
    case = truth.Case("faceted", 16, "fine", "tem8", 2.0, 1)
    one = next(one for one in truth.CONFIGURATIONS if one.name == "nnfbp-ellipses")
    first = truth.network_of(one, case, size, tmp_path)
    (path,) = tmp_path.iterdir()
    written = path.stat().st_mtime_ns
    again = truth.network_of(one, case._replace(specimen="porous", seed=7), size, tmp_path)
    assert path.stat().st_mtime_ns == written
    assert again.digest == first.digest


def test_methods_that_are_not_there_are_left_out(truth, run, monkeypatch):
    other = truth.Configuration("other", "Other", "no_such_method")
    monkeypatch.setattr(truth, "CONFIGURATIONS", (*truth.CONFIGURATIONS, other))
    assert other not in truth.available()
    with pytest.raises(SystemExit):
        run("other")


def test_table(truth):
    case = truth.Case("faceted", 16, "fine", "tem8", 2.0, 1)
    rows = [
        truth.Row(one, method, choice, mse, 1.0, 1.0, 1.0)
        for one, unit in ((case, 1.0), (case._replace(seed=2), 2.0))
        for method, choice, mse in (
            ("sirt", "", unit),
            ("tv", "", unit / 2),
            ("tv", "weight=1", unit / unit / 4),
            ("tv", "weight=3", unit),
        )
    ]
    heading, _, line = truth.markdown(rows, truth.columns()).splitlines()
    assert heading.split(" | ") == [
        "| specimen",
        "projections",
        "noise",
        "SIRT ≥ 0",
        "SIRT ≥ 0, oracle",
        "TV",
        "TV, oracle |",
    ]
    # Ratios of TV's best weight: a quarter and an eighth.
    assert line == "| faceted | tem8 | 2 % | 1.50000 | 1.00 ± 0.00 | 0.50 ± 0.00 | **0.19 ± 0.09** |"
