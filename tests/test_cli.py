import json
import subprocess
import sys
import warnings

import mrcfile
import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.cli.info import recipe_lines
from nntomo_dask.compute import device
from nntomo_dask.store import lock
from nntomo_dask.training.nnfbp import sets
from tests.shared_data import NEEDLE

VERBS = [
    "demo",
    "import",
    "phantom",
    "project",
    "train",
    "reconstruct",
    "compare",
    "export",
    "show",
    "view",
    "info",
    "simulate",
    "truth",
]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(run, verb):
    text = run(verb, "--help").output
    assert "Usage:" in text
    assert len(text.splitlines()) > 5 or verb == "export"


def test_from_a_phantom_to_a_table(run, series_store, tmp_path):
    training = ("train", "--for", series_store, "--phantom", "ellipses", "--slices", 40, "--samples", 3000)
    text = run(*training, "--max-epochs", 10, "-o", "net.safetensors").output
    assert "validation loss" in text
    run("reconstruct", series_store, "--method", "nnfbp", "--network", "net.safetensors", "-o", "nnfbp.zarr")
    run("reconstruct", series_store, "--method", "sirt", "-o", "sirt.zarr", "--workers", 1, "--memory", "2GiB")
    run("reconstruct", series_store, "--method", "fbp", "-o", "fbp.zarr", "--window", "hann")
    table = run("compare", "nnfbp.zarr", "sirt.zarr", "--reference", "particle.zarr").output
    assert "MSE" in table
    result = run("compare", "nnfbp.zarr", "sirt.zarr", "--reference", "particle.zarr", "--json", "--figure", "f.png")
    values = json.loads(result.stdout)
    error = float(nt.mse(nt.open("sirt.zarr"), nt.open("particle.zarr")))
    assert values["sirt.zarr"]["mse"] == pytest.approx(error)
    assert set(values["nnfbp.zarr"]) == {
        "mse",
        "relative_error",
        "psnr",
        "ssim",
        "fsc_0.5",
        "fsc_0.143",
        "dice",
        "nyquist",
    }
    assert (tmp_path / "f.png").stat().st_size > 10_000
    itself = run("compare", "particle.zarr", "--reference", "particle.zarr", "--json", "--figure", "g.png").stdout
    assert json.loads(itself)["particle.zarr"]["psnr"] is None
    run("export", "nnfbp.zarr", "nnfbp.mrc")
    with mrcfile.open(tmp_path / "nnfbp.mrc") as mrc:
        np.testing.assert_array_equal(mrc.data, nt.open("nnfbp.zarr").values[:, ::-1])
    run("export", series_store, "series.mrc")
    run("import", "series.mrc", "--angles", "series.rawtlt", "-o", "again.zarr")
    np.testing.assert_array_equal(nt.open("again.zarr").values, nt.open(series_store).values)
    assert "nanoparticle(shape=[32, 32, 32]" in run("info", "nnfbp.zarr").output
    assert "16 and 16 hidden nodes (relu), linear output" in run("info", "net.safetensors").output
    assert "epochs, ended" in run("info", "net.training.safetensors").output
    (tmp_path / "fbp.zarr/volume/c/0/0/0").unlink()
    assert "not complete, without 1 of 1 chunk; run again" in run("info", "fbp.zarr").output
    assert json.loads(run("info", "nnfbp.zarr", "--json").stdout)["operation"] == "nnfbp"


def test_training_with_pairs_of_ones_own(run, series_store):
    common = ("--samples", 500, "--max-epochs", 2, "-o", "net.safetensors")
    run("train", "--series", series_store, "--volume", "particle.zarr", *common)
    assert nt.load_network("net.safetensors").layout.detector_count == 32
    other = ("--validation-series", series_store, "--validation-volume", "particle.zarr")
    text = run("train", "--series", series_store, "--volume", "particle.zarr", *other, *common).output
    assert "note:" not in text


def test_long_lists_of_a_recipe_are_shortened():
    recipe = {"operation": "apply", "parameters": {"along_px": [0.123456789, 2.0, 3.0, 4.0, 5.0], "shape": [1, 2, 3]}}
    assert recipe_lines(recipe) == ["  apply(along_px=[0.1235, 2, … 5 in all], shape=[1, 2, 3])"]


@pytest.mark.parametrize("kind", ["spheres", "ellipses", "mixed"])
def test_phantoms(run, kind):
    text = run("phantom", kind, "--size", "4,16,16", "-o", "a.zarr").output
    assert "volume, z 4, y 16, x 16" in text


def test_the_same_command_again_does_nothing_and_another_is_refused(run, series_store, tmp_path):
    command = ("reconstruct", series_store, "--method", "fbp", "-o", "v.zarr")
    run(*command)
    chunk = tmp_path / "v.zarr/volume/c/0/0/0"
    before = chunk.stat().st_mtime_ns
    run(*command)
    assert chunk.stat().st_mtime_ns == before
    text = run(*command, "--window", "cosine", exit_code=2).output
    assert 'parameters.window is "hann" there and "cosine" here' in text
    assert "Traceback" not in text
    run(*command, "--window", "cosine", "--overwrite")
    assert chunk.stat().st_mtime_ns != before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("reconstruct", "none.zarr", "--method", "fbp", "-o", "v.zarr"), "needs a store; got nothing at"),
        (("reconstruct", "series.zarr", "-o", "v.zarr"), "nntomo assess SERIES -o assess/ measures which"),
        (("reconstruct", "series.zarr", "--method", "nnfbp", "-o", "v.zarr"), "needs --network FILE"),
        (
            ("reconstruct", "particle.zarr", "--method", "fbp", "-o", "v.zarr"),
            "fbp: needs a tilt series; got a volume",
        ),
        (("reconstruct", "series.zarr", "--method", "sirt", "--memory", "1MB", "-o", "v.zarr"), "for one slice of 32"),
        (
            ("reconstruct", "series.zarr", "--method", "sirt", "--memory", "much", "-o", "v.zarr"),
            "'much' is not a memory size",
        ),
        (("reconstruct", "series.zarr", "--method", "sirt", "--workers", "0", "-o", "v.zarr"), "at least 1 worker"),
        (("reconstruct", "series.zarr", "--method", "sirt", "--tolerance", "2", "-o", "v.zarr"), "needs tolerance"),
        (("project", "particle.zarr", "-o", "s.zarr"), "give either --range and --count, or --angles FILE"),
        (("project", "particle.zarr", "--range", "tem", "--count", "1", "-o", "s.zarr"), "at least 2 projections"),
        (("phantom", "particle", "--size", "4,5", "-o", "p.zarr"), "write one size, 128, or three"),
        (("phantom", "particle", "--size", "4,5,6", "-o", "p.zarr"), "needs square slices"),
        (("train", "-o", "n.safetensors"), "give either --for SERIES, or pairs"),
        (("compare", "particle.zarr", "--reference", "series.zarr"), "needs a volume; got a tilt series"),
        (("info", "none.zarr"), "needs a store; got nothing"),
        (("import", "none.mrc", "-o", "s.zarr"), "got nothing at none.mrc; try: check the path"),
        (("reconstruct", "series.zarr", "--method", "fbp", "-o", "file/v.zarr"), "v.zarr, inside the file "),
        (("reconstruct", "series.zarr", "--method", "fbp", "--minimum", "0", "-o", "v.zarr"), "is for --method sirt"),
        (("export", "particle.zarr", "particle.png"), "needs a name that ends in .mrc"),
        (("export", "particle.zarr", "taken.mrc"), "needs a free path; got taken.mrc, which exists"),
    ],
)
def test_bad_input_gets_one_clear_line_and_exit_code_2(run, series_store, tmp_path, words, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "taken.mrc").write_text("precious")
    before = sorted(path.name for path in tmp_path.iterdir())
    text = run(*words, exit_code=2).output
    assert message in text
    assert "Traceback" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_more_training_voxels_than_memory_holds_go_to_stores(run, series_store, tmp_path, monkeypatch):
    """The same network, bit for bit, as from memory; and the finished training is not repeated."""
    sizes = ("--slices", 40, "--samples", 20_000, "--max-epochs", 3)
    words = ("train", "--for", series_store, *sizes, "--solver", "lm", "--filters", "shared")
    run(*words, "-o", "memory.safetensors")
    monkeypatch.setattr(sets, "IN_MEMORY_VOXELS", 10_000)
    run(*words, "-o", "stored.safetensors")
    assert {path.name for path in (tmp_path / "stored.samples").iterdir()} == {"training.zarr", "validation.zarr"}
    assert nt.load_network("memory.safetensors").digest == nt.load_network("stored.safetensors").digest
    assert "training set, 20000 voxels of 12 inputs" in run("info", "stored.samples/training.zarr").output
    run(*words, "-o", "stored.safetensors")


def test_verify_finds_and_the_rerun_mends(run, series_store, tmp_path):
    assert "every chunk and coordinate is whole" in run("info", series_store, "--verify").output
    chunk = tmp_path / "series.zarr/tilt_series/c/0/0/0"
    content = bytearray(chunk.read_bytes())
    content[100] ^= 1
    chunk.write_bytes(content)
    text = run("info", series_store, "--verify", exit_code=1).output
    assert "1 damaged chunk of 1 (number 0, from 0); set aside" in text
    assert "not complete, without 1 of 1 chunk; run again what wrote it" in text
    run("project", "particle.zarr", "--range", "tem", "--count", 8, "-o", "series.zarr")
    assert "every chunk and coordinate is whole" in run("info", series_store, "--verify").output


def test_verify_says_so_where_something_is_missing(run, series_store, tmp_path):
    (tmp_path / "series.zarr/tilt_series/c/0/0/0").unlink()
    assert "not complete" in run("info", series_store, "--verify", exit_code=1).output


def test_a_network_whose_bytes_changed_is_refused(run, series_store, tmp_path):
    run("train", "--for", series_store, "--slices", 20, "--samples", 500, "--max-epochs", 1, "-o", "net.safetensors")
    content = bytearray((tmp_path / "net.safetensors").read_bytes())
    content[-3] ^= 1
    (tmp_path / "net.safetensors").write_bytes(content)
    assert "its checksum is another" in run("info", "net.safetensors", exit_code=2).output


def test_one_training_at_a_time(run, series_store, tmp_path):
    with lock.held(tmp_path / "net.safetensors"):
        text = run("train", "--for", series_store, "-o", "net.safetensors", exit_code=2).output
    assert "needs a place that no other run writes to" in text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--for", "series.zarr", "--slices", 0), "slices of at least 4"),
        (("--for", "series.zarr", "--solver", "adam", "--samples", 2_000_000), "at most 1048576 samples"),
        (("--series", "series.zarr", "--volume", "v.zarr", "--phantom", "mixed"), "--phantom plays no part"),
    ],
)
def test_what_training_could_not_do_is_refused_first(run, series_store, tmp_path, words, text):
    before = sorted(tmp_path.iterdir())
    assert text in run("train", *words, "-o", "net.safetensors", exit_code=2).output
    assert sorted(tmp_path.iterdir()) == before


def test_more_samples_than_voxels_are_mentioned(run, series_store):
    words = ("train", "--for", series_store, "--slices", 4, "--samples", 3000, "--max-epochs", 1)
    assert "note: the validation phantom has" in run(*words, "-o", "net.safetensors").output


@pytest.mark.extra("abtem")
def test_a_reader_that_has_had_enough(series_store, tmp_path):
    command = f"{sys.executable} -m nntomo_dask.cli structures | head -1"
    shown = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert shown.stdout.startswith("MOF-5")
    assert shown.stderr == ""


def test_gpus_without_one_are_refused(run, series_store):
    if device.gpu_count():
        pytest.skip("there is a GPU")
    words = ("reconstruct", series_store, "--method", "fbp", "-o", "fbp.zarr", "--gpus")
    assert "GPU: needs an NVIDIA GPU, CuPy and dask-cuda; got no GPU" in run(*words, "all", exit_code=2).output
    assert (
        "needs either --gpus or --scheduler; got both" in run(*words, 1, "--scheduler", "threads", exit_code=2).output
    )


def test_a_network_for_another_series_is_refused(run, series_store, trained):
    nt.save_network(trained[0], "net.safetensors")
    words = ("reconstruct", series_store, "--method", "nnfbp", "--network", "net.safetensors", "-o", "v.zarr")
    assert "needs a series with 48 detector pixels" in run(*words, exit_code=2).output


def test_training_does_not_replace_a_foreign_file(run, series_store, tmp_path):
    (tmp_path / "net.safetensors").write_text("precious")
    assert (
        "which is none, or damaged" in run("train", "--for", series_store, "-o", "net.safetensors", exit_code=2).output
    )
    assert (tmp_path / "net.safetensors").read_text() == "precious"


def test_import_with_values_that_are_not_finite(run, tmp_path):
    data = np.ones((3, 8, 8), np.float32)
    data[1, 2, 3] = np.nan
    with mrcfile.new(tmp_path / "a.mrc") as mrc, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mrc.set_data(data)
    (tmp_path / "a.rawtlt").write_text("0\n10\n20\n")
    words = ("import", "a.mrc", "--tilt-axis", "y", "-o", "s.zarr")
    assert "1 NaN or infinite, the first at index z=2, angle=1, detector=3" in run(*words, exit_code=2).output
    assert not (tmp_path / "s.zarr").exists()
    run(*words, "--fill", 0)
    assert nt.open("s.zarr").values[2, 1, 3] == 0


def test_import_keeps_a_range_of_projections(run, tmp_path):
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(np.arange(5 * 4 * 4, dtype=np.float32).reshape(5, 4, 4))
    (tmp_path / "a.rawtlt").write_text("-60\n-31\n0\n29\n60\n")
    run("import", "a.mrc", "--tilt-axis", "y", "--keep", "-30:30:30", "-o", "s.zarr")
    np.testing.assert_array_equal(nt.open("s.zarr").angle, [-31, 0, 29])
    words = ("import", "a.mrc", "--angles", "a.rawtlt", "--keep", "all", "-o", "t.zarr")
    assert "write START:STOP:STEP" in run(*words, exit_code=2).output


def test_background_is_found(run, tmp_path):
    data = np.full((3, 8, 8), 500, np.int16)
    data[:, 2:6, 2:6] = 9000
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(data)
    (tmp_path / "a.rawtlt").write_text("0\n10\n20\n")
    words = ("import", "a.mrc", "--tilt-axis", "y")
    assert "background: nothing subtracted" in run(*words, "--background", "none", "-o", "plain.zarr").output
    assert "background: 500 counts subtracted" in run(*words, "-o", "auto.zarr").output
    np.testing.assert_array_equal(nt.open("auto.zarr").values, nt.open("plain.zarr").values - 500)
    assert "is not a number or auto or none" in run(*words, "--background", "much", "-o", "b.zarr", exit_code=2).output


def test_the_needle(run):
    """The measured series: NN-FBP and SIRT from 15 of 91 projections resemble SIRT from all of them."""
    source = (NEEDLE / "needle.mrc", "--angles", NEEDLE / "needle.rawtlt", "--tilt-axis", "x", "--background", 515)
    run("import", *source, "-o", "needle.zarr")
    run("import", *source, "--keep", "-70:70:10", "-o", "few.zarr")
    run("train", "--for", "few.zarr", "--phantom", "mixed", "--slices", 100, "--samples", 20000, "-o", "n.safetensors")
    run("reconstruct", "needle.zarr", "--method", "sirt", "-o", "all.zarr")
    volumes = {}
    for method, more in {"fbp": (), "sirt": (), "nnfbp": ("--network", "n.safetensors")}.items():
        run("reconstruct", "few.zarr", "--method", method, *more, "-o", f"{method}.zarr")
        volumes[method] = nt.open(f"{method}.zarr").values
    reference = nt.open("all.zarr").values
    correlation = {method: np.corrcoef(v.ravel(), reference.ravel())[0, 1] for method, v in volumes.items()}
    assert all(np.isfinite(volume).all() for volume in volumes.values())
    assert correlation["nnfbp"] > 0.93  # 0.944 to 0.956 with three seeds
    assert correlation["sirt"] > 0.95
    # A needle: its cross section shrinks towards the tip, here at high z.
    area = (volumes["nnfbp"] > 0.5 * np.percentile(volumes["nnfbp"], 99.5)).sum(axis=(1, 2))
    assert area[15] > area[30] > area[45] > 0


@pytest.mark.extra("abtem")
class TestSimulation:
    OPTIONS_OF_TRUTH = ("--convergence-mrad", 8, "--detector-mrad", "24,37", "--pixels", 34, "--phonons", 0)
    OPTIONS = (*OPTIONS_OF_TRUTH, "--slice-thickness-nm", 0.5)

    def test_from_a_crystal_to_a_table(self, run, tmp_path):
        result = run("simulate", "MIL-53", "--range", "full", "--count", 4, *self.OPTIONS, "-o", "mil.zarr")
        assert "MIL-53: 76 atoms, 4 projections of 34² pixels" in result.stderr
        assert "s for each projection on one core" in result.stderr
        assert "mil.zarr/idpc: idpc, z 34, angle 4, detector 34" in result.output
        run("reconstruct", "mil.zarr/idpc", "--method", "sirt", "--minimum", 0, "-o", "sirt.zarr")
        run("truth", "MIL-53", "--mode", "idpc", *self.OPTIONS_OF_TRUTH, "-o", "truth.zarr")
        again = run("truth", "--like", "sirt.zarr", "-o", "truth.zarr")  # the same, so nothing is computed
        assert "found complete, nothing to compute" in again.stderr
        assert (
            "--pixels is taken from --like"
            in run("truth", "--like", "mil.zarr", "--pixels", 9, "-o", "t", exit_code=2).output
        )
        assert "give --like SERIES, or a structure and --mode" in run("truth", "MIL-53", "-o", "t", exit_code=2).output
        assert "try: --mode haadf" in run("truth", "--like", "mil.zarr", "-o", "t.zarr", exit_code=2).output
        table = json.loads(run("compare", "sirt.zarr", "--reference", "truth.zarr", "--json").stdout)
        assert table["sirt.zarr"]["psnr"] > 15
        text = run("info", "mil.zarr").output
        assert "mil.zarr/haadf: haadf" in text
        assert "together(" in text
        assert 'crystal="MIL-53"' in text
        assert "too thick for HAADF" in result.stderr
        assert "angles [°]: -90, -45, 0, 45" in text
        assert "every chunk and coordinate is whole" in run("info", "mil.zarr", "--verify").output
        run("export", "mil.zarr/haadf", "haadf.mrc")
        assert (
            "one tilt series; got a dataset"
            in run("reconstruct", "mil.zarr", "--method", "fbp", "-o", "f.zarr", exit_code=2).output
        )

    def test_a_library_of_several(self, run, tmp_path):
        run(
            "simulate",
            "MIL-53",
            "mil-47",
            "--mode",
            "haadf",
            "--range",
            "full",
            "--count",
            2,
            *self.OPTIONS,
            "-o",
            "all",
        )
        assert {path.name for path in (tmp_path / "all").iterdir()} == {"MIL-53.zarr", "mil-47.zarr"}

    def test_too_little_memory_is_refused_first(self, run, tmp_path):
        words = ("simulate", "UiO-66", "--range", "full", "--count", 4, "--memory", "600MiB", "-o", "a.zarr")
        assert "simulate: needs" in run(*words, exit_code=2).output
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (("UiO-65",), "try: UiO-67 or UiO-66"),
            (("UiO-66", "--dose", -3), "needs a dose above 0"),
            (("UiO-66", "--detector-mrad", "50"), "write 50,80"),
            (("UiO-66", "--sigma-nm", "Zr:3"), "write 0.008, or Zr=0.006"),
            (("UiO-66", "--pixels", 20), "which resolve a probe"),
            (("UiO-66", "--shape", "sphere"), "needs --size-nm of a sphere: one number above 0"),
        ],
    )
    def test_bad_input_is_one_line(self, run, tmp_path, words, text):
        assert text in run("simulate", *words, "--range", "full", "--count", 4, "-o", "a.zarr", exit_code=2).output
        assert list(tmp_path.iterdir()) == []

    def test_the_truth_has_no_options_that_play_no_part(self, run):
        text = run("truth", "--help").output
        assert "--source-size-nm" in text
        for option in ("--dose", "--drift-nm", "--jitter-nm", "--seed", "--algorithm", "--interpolation", "--idpc"):
            assert option not in text.split()
        assert "No such option" in run("truth", "UiO-66", "--mode", "idpc", "--dose", 1, "-o", "t", exit_code=2).output

    @pytest.mark.parametrize("verb", ["project", "simulate", "truth"])
    def test_options_of_the_computation_are_a_group_at_the_end(self, run, verb):
        own, computing = run(verb, "--help").output.split("Computing options:")
        assert "Example:" in own
        assert "--output" in own
        for option in ("--memory", "--workers", "--gpus", "--scheduler", "--tls-ca-file", "--tls-cert", "--tls-key"):
            assert option in computing
            assert option not in own

    def test_structures(self, run):
        text = run("structures").output
        assert "also IRMOF-1; M. Eddaoudi" in text
        assert "UiO-66: C192H112O128Zr24; 20.5183 × 20.5183 × 20.5183 Å" in text
        assert text.count("\n") == 36
