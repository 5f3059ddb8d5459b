"""The study of atoms against dose, on a cluster of 14 atoms."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("ase")

import nntomo_dask as nt
from pipelines import atoms as study

pytestmark = pytest.mark.xdist_group("sampled atoms")  # one process compiles their kernels

SIZE = study.Size(
    cases=(
        ("silicon", "haadf", study.LINEAR, ("full12",), (4e5, 2e6)),
        ("silicon", "haadf", study.SCATTERED, ("full4", "full2"), (2e6,)),
        ("silicon", "idpc", study.SCATTERED, ("full4", "full2"), (2e6,)),
        ("UiO-66", "haadf", study.LINEAR, ("tem8",), (1e5,)),
        ("UiO-66", "idpc", study.LINEAR, ("tem8",), (1e5,)),
    ),
    seeds=(3,),
    pixels=46,
    field_nm=1.45,
    cluster_atoms=14,
    methods=("sirt-smooth",),
    crystal_pixels=92,
)


def test_a_study_is_scored_kept_and_drawn(tmp_path, monkeypatch):
    cases = study.cases_of(SIZE, ["4e5"])
    study.study(cases, SIZE.methods, SIZE, tmp_path)
    (row,) = study.read(tmp_path / "atoms.csv")
    assert (row.case, row.atoms, row.found, row.recall, row.precision) == (cases[0], 14, 14, 1, 1)
    # No maximum of a volume is much nearer to an atom than the counts tell.
    assert 0.5 * row.bound_pm < row.rmsd_pm < 50
    monkeypatch.setattr(study, "found_by", None)
    study.study(cases, SIZE.methods, SIZE, tmp_path)
    assert study.read(tmp_path / "atoms.csv") == [row]
    monkeypatch.undo()
    study.page([row], cases, tmp_path)
    titles = [axes.get_title() for axes in study.draw_slices(tmp_path, cases).axes]
    assert titles == ["SIRT ≥ 0, smoothed"]
    html = (tmp_path / "index.html").read_text()
    assert html.count("data:image/png") == 2
    assert "\\n" not in html
    assert "`" not in html
    assert f"{row.rmsd_pm:.1f}" in (tmp_path / "atoms.md").read_text()


def simulated(monkeypatch):
    """Projections that stand for multislice's: they show their own angle. The angles that were computed, in order."""
    computed = []

    def projection(held, angle, plan, imaging, modes, *, n_angles):
        computed.append(angle)
        return np.full((1, imaging.pixels, imaging.pixels), 0.01 + angle / 1e4, np.float32)

    monkeypatch.setattr("nntomo_dask.simulation.simulate.projection", projection)
    return computed


def test_fewer_projections_are_read_from_those_of_more(tmp_path, monkeypatch):
    computed = simulated(monkeypatch)
    four, two = study.cases_of(SIZE, ["haadf", "multislice"])
    series = study.series_of(four, SIZE, tmp_path)
    assert computed == [-90, -45, 0, 45]
    assert not list(tmp_path.glob(".*"))
    half = study.series_of(two, SIZE, tmp_path)
    assert computed == [-90, -45, 0, 45]
    assert list(half["angle"].values) == [-90, 0]
    # Counts of a mean of 0.01 · 2e6 / 4 · 0.0993 and more a pixel; 2116 pixels.
    means = np.array([one.mean("z").mean() for one in series.transpose("angle", ...)])
    assert means == pytest.approx(0.01 + np.array([-90, -45, 0, 45]) / 1e4, rel=0.01)


def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch):
    computed = simulated(monkeypatch)
    case = study.cases_of(SIZE, ["haadf", "multislice", "full4"])[0]
    whole = study.series_of(case, SIZE, tmp_path)
    lost = next(tmp_path.glob("*-045.000.npy"))
    lost.unlink()
    computed.clear()
    assert study.series_of(case, SIZE, tmp_path).identical(whole)
    assert computed == [-45]


def test_projections_of_other_settings_are_others(tmp_path, monkeypatch):
    computed = simulated(monkeypatch)
    case = study.cases_of(SIZE, ["haadf", "multislice", "full2"])[0]
    study.series_of(case, SIZE, tmp_path)
    study.series_of(case._replace(dose=1e3), SIZE, tmp_path)  # its counts are drawn afterwards
    assert len(computed) == 2
    study.series_of(case._replace(seed=4), SIZE, tmp_path)
    study.series_of(case, dataclasses.replace(SIZE, pixels=48), tmp_path)
    assert len(computed) == 6


def test_phase_images_are_kept_with_the_dose_of_a_projection(tmp_path, monkeypatch):
    computed = simulated(monkeypatch)
    four, two = study.cases_of(SIZE, ["idpc", "multislice"])
    study.series_of(four, SIZE, tmp_path)
    study.series_of(two, SIZE, tmp_path)
    assert len(computed) == 6
    study.series_of(two._replace(dose=two.dose / 2), SIZE, tmp_path)  # as many electrons a projection as in `four`
    assert len(computed) == 6


def test_the_bound_falls_with_the_root_of_the_dose():
    low, high = study.cases_of(SIZE, ["silicon", "linear"])
    series, truth = study.series_of(low, SIZE, None), study.truth_of(low, SIZE)
    # 5 times the dose; the read-out noise is a thousandth of a count.
    ratio = study.bound_of(truth, series, low) / study.bound_of(truth, series, high)
    assert ratio == pytest.approx(5**0.5, rel=0.05)


def test_a_framework_is_scored_by_its_metal_in_dark_field():
    dark, phase = study.cases_of(SIZE, ["UiO-66"])
    assert (study.elements_of(dark), study.seen_of(dark)) == (("Zr",), ("Zr", "O", "C"))
    assert study.elements_of(phase) == ("Zr", "O", "C")
    truth = study.truth_of(dark, SIZE)
    held = nt.specimen("UiO-66")
    metal = held.positions_nm[held.numbers == 40][:, ::-1]
    found = np.stack([truth[name].values for name in ("z", "y", "x")], axis=1)
    assert np.array_equal(np.sort(found, axis=0), np.sort(metal, axis=0))
    assert set(truth["species"].values) == {"Zr"}
    assert study.limit_of(truth) == study.LIMIT_NM
    # A source of 0.05 nm and a probe of 0.55 λ/α = 0.07 nm, both full widths at half maximum.
    assert truth["width"].values[0] == pytest.approx(np.hypot(0.05, 0.07) / 2.355, rel=0.15)


def test_the_chain_is_told_the_width_where_it_is_known(monkeypatch):
    case = study.cases_of(SIZE, ["4e5"])[0]
    series, truth = study.series_of(case, SIZE, None), study.truth_of(case, SIZE)
    volumes = {}
    for method in ("chain", "chain-width"):
        found, volume = study.found_by(method, series, case, truth, volumes)
        told = float(found["width"].values[0]) == pytest.approx(float(truth["width"].values[0]), rel=1e-5)
        assert told == (method == "chain-width")
        assert volume.dims == ("z", "y", "x")
        assert study.scored(case, method, found, truth, 1.0, 0.0).recall == 1


def test_where_a_chain_is_sure_of_nothing_it_found_nothing(tmp_path, monkeypatch):
    def refuses(series, **settings):
        raise nt.SchemaError("none")

    monkeypatch.setattr(study.chain, "run", refuses)
    cases = study.cases_of(SIZE, ["4e5"])
    study.study(cases, ["chain"], SIZE, tmp_path)
    (row,) = study.read(tmp_path / "atoms.csv")
    assert (row.found, row.recall, row.precision) == (0, 0, 0)


@pytest.mark.parametrize(
    ("words", "doses"), [(("linear",), [4e5, 2e6]), (("2000000", "linear", "chain"), [2e6]), (("linear", "2e6"), [2e6])]
)
def test_words_choose_cases(words, doses):
    assert [case.dose for case in study.cases_of(SIZE, ["silicon", *words])] == doses


def test_words_that_say_nothing_are_refused():
    with pytest.raises(SystemExit, match="gold"):
        study.cases_of(SIZE, ["gold"])


def test_a_geometry_is_a_range_and_a_number():
    assert len(study.angles_of("tem15")) == 15
    assert study.angles_of("tem15")[-1] == 70


def row_of(case, method, *, recall, precision=1.0):
    return study.Row(case, method, 10, 10, recall, precision, 20.0, 1.0, 1.0, 1.0, 9.0, "{}", 1.0)


def test_slices_are_of_the_series_on_which_all_methods_differ_most():
    low, high = study.cases_of(SIZE, ["silicon", "linear"])
    alone = low._replace(dose=1.0)
    rows = [row_of(low, "sirt", recall=0.2), row_of(low, "chain", recall=0.9)]
    rows += [row_of(high, "sirt", recall=0.9), row_of(high, "chain", recall=0.9, precision=0.1)]
    rows += [row_of(alone, "sirt", recall=0.0)]
    assert study.shown_cases(rows) == [high]


def test_a_distance_is_drawn_where_half_of_the_atoms_are_found():
    (case, _) = study.cases_of(SIZE, ["silicon", "linear"])
    rows = [row_of(case, "chain", recall=0.4), row_of(case._replace(dose=2e6), "chain", recall=0.6)]
    lower = study.draw_doses(rows).axes[2]
    (line,) = [line for line in lower.get_lines() if line.get_label() == study.TITLES["chain"]]
    assert list(line.get_ydata()) == pytest.approx([np.nan, 20.0], nan_ok=True)


def test_where_no_distance_is_known_the_shares_are_drawn(tmp_path):
    (case, _) = study.cases_of(SIZE, ["silicon", "linear"])
    figure = study.draw_doses([row_of(case, "sirt", recall=0.1)._replace(bound_pm=float("nan"))])
    figure.savefig(tmp_path / "doses.png")
    assert [axes.get_yscale() for axes in figure.axes] == ["linear"] * 3
