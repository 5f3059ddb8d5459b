"""The verb `align`: tables given, other channels, what it writes, and what it refuses before it writes."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import nntomo_dask as nt
from nntomo_dask.alignment import align as finding, found, page
from nntomo_dask.alignment.quality import quality
from nntomo_dask.cli.main import main
from tests.shared_data import NEEDLE

ANGLES = nt.tilt_angles("tem", 15)


@pytest.fixture(scope="module")
def specimen():
    """A known particle, the table of a drift, and the series that drifted so."""
    rng = np.random.default_rng(3)
    series = nt.project(nt.nanoparticle((20, 48, 48), seed=2), ANGLES)
    table = nt.Alignment.identity(
        ANGLES,
        along_px=rng.uniform(-1.5, 1.5, 15),
        across_px=rng.uniform(-3, 3, 15),
        rotation_deg=np.full(15, 1.0),
        axis_px=3.0,
    )
    raw = nt.apply_alignment(series, table.inverse(), fill=0.0)
    return nt.tilt_series(raw.values, ANGLES), table.edited(ANGLES[0], flagged=True)


@pytest.fixture
def stored(run, specimen):
    """The raw series as a store, and its table as a file, in the folder of the test."""
    raw, table = specimen
    nt.save(raw, "raw.zarr")
    nt.write_alignment(table, "table.csv")
    return raw, table


@pytest.fixture(scope="module")
def shown(specimen, tmp_path_factory):
    """A folder with a series that was aligned with its page, and what the command printed."""
    folder = tmp_path_factory.mktemp("shown")
    nt.save(specimen[0], folder / "raw.zarr")
    nt.write_alignment(specimen[1], folder / "table.csv")
    words = ["align", folder / "raw.zarr", "--table", folder / "table.csv", "-o", folder / "aligned.zarr"]
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code == 0, result.output
    return folder, words, result.output


def test_a_table_that_is_given_is_applied(shown, specimen, run):
    folder, words, text = shown
    np.testing.assert_array_equal(nt.open(folder / "aligned.zarr").values, nt.apply_alignment(*specimen).values)
    assert "left out: -70°" in text
    assert f"page: {folder / 'aligned.quality' / 'index.html'}" in text
    assert re.search(r"meets them to [\d.]+ %; before, [\d.]+ %", text)
    assert "The alignment helped: a volume that is reconstructed leaves " in text
    following = f"next: nntomo assess {folder / 'aligned.zarr'} -o assess/"
    assert text.splitlines()[-1] == following
    again = run(*words).output
    assert again.splitlines()[-1] == following
    assert "found complete" in again
    assert "meets them" not in again  # the page is there already


def test_the_page_needs_nothing_else(shown):
    look = shown[0] / "aligned.quality"
    text = (look / "index.html").read_text()
    sources = re.findall(r'src="([^"]{0,40})', text)
    assert len(sources) == len(page.FIGURES)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in text
    for angle in ANGLES:
        assert f"<td>{angle:.2f}</td>" in text
    numbers = json.loads((look / "quality.json").read_text())
    shares = [100 * numbers[one]["mean_residual"] for one in ("after", "before")]
    assert numbers["verdict"].endswith(
        f"leaves {shares[0]:.3g} % of the aligned series unexplained; of the raw one, {shares[1]:.3g} %"
    )
    assert text.index(numbers["verdict"]) < text.index("projections; the tilt axis was")
    assert numbers["flagged_deg"] == [-70.0]
    assert numbers["after"]["mean_residual"] < 0.5 * numbers["before"]["mean_residual"]
    assert all((look / name).read_bytes()[:4] == b"\x89PNG" for name in page.FIGURES)


def test_a_page_that_was_cut_short_is_written_again(shown, run):
    folder, words, _ = shown
    lost = folder / "aligned.quality" / "slices.png"
    lost.unlink()
    assert "meets them" in run(*words).output
    assert lost.is_file()


def test_of_three_projections_there_is_no_page_and_nothing_to_assess(run, specimen):
    nt.save(specimen[0].isel(angle=[6, 7, 8]), "few.zarr")
    nt.write_alignment(specimen[1], "table.csv")
    lines = run("align", "few.zarr", "--table", "table.csv", "-o", "a.zarr").output.splitlines()
    assert any("no page about the quality" in line for line in lines)
    assert lines[-1] == "next: nntomo reconstruct a.zarr --method sirt -o volume.zarr"


def test_figures_tell_a_bad_projection(specimen):
    """One projection is shifted by 4 px in the table: it is the one that is named, with the command to leave it out."""
    raw, table = specimen
    wrong = table.edited(ANGLES[6], across_px=table.across_px[6] + 4)
    good, bad = quality(raw, table), quality(raw, wrong)
    assert good.suspects.size == 0
    assert bad.left_out_deg[bad.suspects].tolist() == [ANGLES[6]]
    assert any(f"--leave-out={ANGLES[6]:g}" in what for _, what in bad.to_try("raw.zarr", "a.zarr"))
    assert good.after.residual.mean() < bad.after.residual.mean()
    assert good.after.centre_misfit_px < 0.1 < bad.after.centre_misfit_px


def test_what_the_page_proposes_exists(specimen, run):
    """Every option that it names is one of the verb."""
    known = run("align", "--help").output
    wrong = specimen[1].edited(ANGLES[6], across_px=specimen[1].across_px[6] + 4)
    hints = " ".join(what for _, what in quality(specimen[0], wrong).to_try("raw.zarr", "a.zarr"))
    options = set(re.findall(r"--[a-z-]+", hints))
    assert {"--leave-out", "--refine", "--table", "--tilt-axis", "--scale"} <= options
    assert [option for option in options if option not in known] == []


def test_the_verdict_tells_harm(specimen):
    raw, table = specimen
    assert quality(raw, table).verdict().startswith("The alignment helped: ")
    away = table.edited(ANGLES, across_px=-np.asarray(table.across_px), along_px=-np.asarray(table.along_px))
    assert quality(raw, away).verdict().startswith("The alignment did harm: ")


def test_figures_are_those_of_the_projector(specimen):
    """Of a series that is aligned already, the raw one and the aligned one look the same."""
    raw, _ = specimen
    same = quality(raw, nt.Alignment.identity(ANGLES))
    np.testing.assert_allclose(same.before.residual, same.after.residual, atol=1e-4)
    np.testing.assert_allclose(same.before.profiles, same.after.profiles, rtol=1e-5, atol=1e-3)  # sums of 48 float32
    assert same.raw_sinogram.shape == (15, 48)


def test_another_channel_follows(run, stored):
    raw, _ = stored
    nt.save(nt.tilt_series(raw.values * 2, ANGLES), "other.zarr")
    run("align", "raw.zarr", "--table", "table.csv", "-o", "aligned.zarr", "--page", "none", "--crop", "seen")
    run("align", "other.zarr", "--like", "aligned.zarr", "-o", "other-aligned.zarr", "--page", "none")
    first, second = nt.open("aligned.zarr"), nt.open("other-aligned.zarr")
    assert first.sizes["detector"] < 48
    np.testing.assert_array_equal(second["detector"], first["detector"])
    np.testing.assert_allclose(second.values, 2 * first.values, rtol=1e-5, atol=1e-4)
    run("align", "other.zarr", "--like", "aligned.zarr", "-o", "whole.zarr", "--page", "none", "--crop", "none")
    assert nt.open("whole.zarr").sizes["detector"] == 48


def test_imods_transforms_are_taken(run, stored):
    raw, table = stored
    nt.write_alignment(table, "a.xf")
    nt.write_tilt_angles(ANGLES, "a.rawtlt")
    nt.write_tilt_angles(ANGLES + 0.5, "a.tlt")
    words = ("align", "raw.zarr", "--table", "a.xf", "--page", "none")
    run(*words, "-o", "a.zarr", "--leave-out", "-70")
    aligned = nt.open("a.zarr")
    expected = nt.apply_alignment(raw, table).values
    # Shifts to 0.0005 px along and across, where values differ by so much from pixel to pixel; splines are steeper.
    steepest = sum(np.abs(np.diff(expected, axis=axis)).max() for axis in (0, 2))
    np.testing.assert_allclose(aligned.values, expected, atol=2 * 0.0005 * steepest)
    np.testing.assert_allclose(aligned["angle"], ANGLES[1:] + 0.5)
    run(*words, "-o", "b.zarr", "--keep-angles")
    np.testing.assert_allclose(nt.open("b.zarr")["angle"], ANGLES)


def test_transforms_without_angles_are_taken_in_order(run, stored):
    nt.write_alignment(stored[1], "b.xf")
    shown = run("align", "raw.zarr", "--table", "b.xf", "-o", "b.zarr", "--page", "none").output
    assert "no b.rawtlt beside b.xf: its lines are taken in the order of the series" in shown


def test_tables_are_written_in_every_form(run, stored):
    _, table = stored
    files = ["out.csv", "out.json", "out.xf"]
    words = [word for file in files for word in ("--write-table", file)]
    run("align", "raw.zarr", "--table", "table.csv", *words, "-o", "a.zarr", "--page", "none")
    for file in files[:2]:
        read = nt.read_alignment(file)
        np.testing.assert_array_equal(read.displacement_px, table.displacement_px)
        np.testing.assert_array_equal(read.flagged, table.flagged)
        assert read.pixel_size == 1
    assert len(Path("out.xf").read_text().splitlines()) == 15


def test_rows_that_the_series_lacks_are_told(run, stored):
    nt.save(stored[0].isel(angle=slice(2, 12)), "fewer.zarr")
    shown = run("align", "fewer.zarr", "--table", "table.csv", "-o", "a.zarr", "--page", "none").output
    assert "5 rows for projections that fewer.zarr does not hold" in shown


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--table", "table.csv", "--like", "raw.zarr"), "give either --table or --like"),
        (("--like", "raw.zarr"), "which nntomo align did not make"),
        (("--table", "raw.zarr"), "which is a folder"),
        (("--table", "absent.csv"), "nothing at absent.csv"),
        (("--table", "table.csv", "--leave-out", "-71"), "none for -71°"),
        (("--table", "table.csv", "--leave-out", "west"), "write angles with commas"),
        (("--table", "table.csv", "--crop", "big"), "write none, seen, or two sizes"),
        (("--table", "table.csv", "--crop", "64,64"), "crop of z to at most 20 pixels"),
        (("--crop", "64,64"), "crop of z to at most 20 pixels"),
        (("--table", "table.csv", "--stretch", "ignore"), "--stretch is for transforms of IMOD"),
        (("--table", "table.csv", "--write-table", "table.csv"), "an output that is not an input"),
        (("--table", "table.csv", "--page", "full"), "which holds something else"),
        (("--table", "table.csv", "--scale", "40"), "shifts within the images"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(run, stored, tmp_path, words, text):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    assert text in run("align", "raw.zarr", *words, "-o", "a.zarr", exit_code=2).output
    assert not (tmp_path / "a.zarr").exists()
    assert not (tmp_path / "a.quality").exists()
    assert not (tmp_path / "a.csv").exists()


def test_an_edited_table_needs_overwrite(run, stored):
    words = ("align", "raw.zarr", "--table", "table.csv", "-o", "a.zarr", "--page", "none")
    run(*words)
    nt.write_alignment(stored[1].edited(ANGLES[3], along_px=0.0), "table.csv")
    assert "--overwrite" in run(*words, exit_code=2).output
    run(*words, "--overwrite")
    assert "found complete" in run(*words).output


# What was found is kept.


@pytest.fixture
def finder():
    """Finds an alignment, and counts how often it was asked."""

    class Finder:
        calls = 0

        def __call__(self, series, *, steps):
            self.calls += 1
            return nt.Alignment.identity(series["angle"].values, provenance={"steps": list(steps)})

    return Finder()


def test_what_was_found_is_found_once(tmp_path, specimen, finder):
    raw, table = specimen[0], tmp_path / "a.csv"
    first, now = found.found_once(raw, finder, {"steps": ("one",)}, table)
    again, later = found.found_once(raw, finder, {"steps": ("one",)}, table)
    assert (now, later, finder.calls) == (True, False, 1)
    assert again.is_same(first)
    assert (first.pixel_size, first.units) == (1.0, "px")
    assert first.provenance["steps"] == ["one"]


def test_a_table_that_was_edited_or_is_another_is_not_lost(tmp_path, specimen, finder):
    raw, table = specimen[0], tmp_path / "a.csv"
    found.found_once(raw, finder, {"steps": ("one",)}, table)
    with pytest.raises(nt.SchemaError, match="of other options"):
        found.found_once(raw, finder, {"steps": ("two",)}, table)
    with pytest.raises(nt.SchemaError, match="another series"):
        found.found_once(raw + 1, finder, {"steps": ("one",)}, table)
    table.write_text(table.read_text().replace("0.0,0.0,0.0,0.0,0\n", "0.5,0.0,0.0,0.0,0\n", 1))
    with pytest.raises(nt.SchemaError, match="one that was edited since"):
        found.found_once(raw, finder, {"steps": ("one",)}, table)
    table.write_text("not a table")
    with pytest.raises(nt.SchemaError, match="no line of the names"):
        found.found_once(raw, finder, {"steps": ("one",)}, table)
    assert finder.calls == 1
    assert found.found_once(raw, finder, {"steps": ("one",)}, table, overwrite=True)[1]


def test_one_command_finds_and_applies(run, stored, monkeypatch):
    """Found once: a rerun reads the table, also where the series was not written yet; an edited one is not lost."""
    raw, _ = stored
    words = ("align", "raw.zarr", "-o", "a.zarr", "--page", "none")
    text = run(*words).output
    assert re.search(r"tilt axis: [-+][\d.]+° from the vertical and [-+][\d.]+ px from the middle", text)
    table = nt.read_alignment("a.csv")
    expected = nt.align(raw)
    np.testing.assert_array_equal(table.displacement_px, expected.displacement_px)
    np.testing.assert_array_equal(nt.open("a.zarr").values, nt.apply_alignment(raw, expected).values)

    def found_again(*_, **__):
        raise AssertionError("it was found again")

    monkeypatch.setattr(finding, "align", found_again)
    shutil.rmtree("a.zarr")
    assert "found before" in run(*words).output
    np.testing.assert_array_equal(nt.open("a.zarr").values, nt.apply_alignment(raw, expected).values)
    assert "of other options" in run(*words, "--refine", "none", exit_code=2).output
    nt.write_alignment(table.edited(ANGLES[2], flagged=True), "a.csv")
    assert "edited since; try: --table a.csv to apply it" in run(*words, exit_code=2).output
    run("align", "raw.zarr", "--table", "a.csv", "-o", "a.zarr", "--page", "none", "--overwrite")
    assert nt.open("a.zarr").sizes["angle"] == 14


def test_the_tilt_axis_that_is_given_is_kept(run, stored):
    run("align", "raw.zarr", "-o", "a.zarr", "--page", "none", "--tilt-axis", "-1.5", "--refine", "none")
    np.testing.assert_array_equal(nt.read_alignment("a.csv").rotation_deg, 1.5)


@pytest.mark.parametrize("option", ["--refine=none", "--tilt-axis=3", "--reach=5", "--tilt-angles=refined"])
def test_options_of_finding_are_refused_with_a_table(run, stored, option):
    text = run("align", "raw.zarr", "--table", "table.csv", option, "-o", "a.zarr", exit_code=2).output
    assert "is for an alignment that is found" in text


def test_another_file_is_not_taken_for_the_table(run, stored):
    Path("a.csv").write_text("x,y\n1,2\n")
    text = run("align", "raw.zarr", "-o", "a.zarr", "--page", "none", exit_code=2).output
    assert "a.csv: " in text
    assert not Path("a.zarr").exists()


@pytest.mark.skipif(not NEEDLE.is_dir(), reason="needs tests/data/needle")
def test_a_measured_series_is_aligned_by_one_command(run):
    """The residual of its reconstruction is halved, with all projections and with those that are left out."""
    angles = nt.read_tilt_angles(NEEDLE / "needle.rawtlt")
    nt.save(nt.read_mrc_series(NEEDLE / "needle.mrc", angles, tilt_axis="x", background=515.0), "raw.zarr")
    run("align", "raw.zarr", "-o", "a.zarr")
    numbers = json.loads(Path("a.quality/quality.json").read_text())
    before, after = numbers["before"], numbers["after"]
    assert after["mean_residual"] < 0.5 * before["mean_residual"]
    assert after["mean_left_out_residual"] < 0.5 * before["mean_left_out_residual"]


def test_a_figure_of_a_table(specimen, tmp_path):
    figure = nt.plot_alignment(specimen[1].edited(ANGLES[3], correction_deg=0.5))
    assert len([axes for axes in figure.axes if axes.get_visible()]) == 4
    figure = nt.plot_alignment(specimen[1])
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 3  # no angle was corrected
    kept, left_out = shown[0].lines[0], shown[0].lines[1]
    np.testing.assert_array_equal(kept.get_xdata(), ANGLES[1:])
    np.testing.assert_array_equal(kept.get_ydata(), specimen[1].along_px[1:])
    np.testing.assert_array_equal(left_out.get_xdata(), ANGLES[:1])
    assert nt.save_figure(figure, tmp_path / "table.png").is_file()


def test_figures_of_the_page_have_the_largest_angle_at_the_top(specimen):
    """As `show` has it; and legends lie above all curves."""
    found = quality(*specimen)
    drawn = dict(zip(page.FIGURES, page._figures(found), strict=True))
    for name, number in (("sinograms.png", 1), ("profiles.png", 0)):
        axes = drawn[name].axes[number]
        assert axes.images[0].origin == "lower"
        assert axes.get_ylim()[0] < axes.get_ylim()[1]
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert labels[-1] == "70"
        assert labels[0] == "\N{MINUS SIGN}60"  # the one at -70 is left out
    figure = drawn["residuals.png"]
    figure.canvas.draw()
    for axes in figure.axes:
        box = axes.get_legend().get_window_extent()
        highest = max(line.get_ydata().max() for line in axes.lines)
        assert axes.transData.transform((0, highest))[1] < box.y0
        assert box.x1 < axes.get_window_extent().x1
