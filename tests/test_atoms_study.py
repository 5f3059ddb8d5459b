"""The study of atoms against dose, on a cluster of 14 atoms."""

import pytest

pytest.importorskip("ase")

from pipelines import atoms as study

SIZE = study.Size(
    cases=(("silicon", "haadf", study.LINEAR, ("full12",), (4e5, 2e6)),),
    seeds=(3,),
    pixels=46,
    field_nm=1.45,
    cluster_atoms=14,
    methods=("sirt-smooth",),
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
    study.page([row], cases, tmp_path)
    html = (tmp_path / "index.html").read_text()
    assert html.count("data:image/png") == 2
    assert "\\n" not in html
    assert "`" not in html
    assert f"{row.rmsd_pm:.1f}" in (tmp_path / "atoms.md").read_text()


def test_the_bound_falls_with_the_root_of_the_dose():
    low, high = study.cases_of(SIZE, [])
    series, truth = study.series_of(low, SIZE, None), study.truth_of(low, SIZE)
    # 5 times the dose; the read-out noise is a thousandth of a count.
    ratio = study.bound_of(truth, series, low) / study.bound_of(truth, series, high)
    assert ratio == pytest.approx(5**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("words", "doses"), [((), [4e5, 2e6]), (("2000000", "chain"), [2e6]), (("silicon", "2e6"), [2e6])]
)
def test_words_choose_cases(words, doses):
    assert [case.dose for case in study.cases_of(SIZE, words)] == doses


def test_words_that_say_nothing_are_refused():
    with pytest.raises(SystemExit, match="gold"):
        study.cases_of(SIZE, ["gold"])


def test_a_geometry_is_a_range_and_a_number():
    assert len(study.angles_of("tem15")) == 15
    assert study.angles_of("tem15")[-1] == 70
