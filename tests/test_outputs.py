"""What commands write: checked before any work, whole or not at all, nothing of others harmed, nothing left behind."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import nntomo_dask as nt
from nntomo_dask import aside
from nntomo_dask.networks import files
from nntomo_dask.plotting import figures
from nntomo_dask.store import lock, outputs, saving
from tests.test_store import digest


@pytest.fixture
def places(run, series_store, tmp_path, trained):
    """A series, two equal networks, and things that are in the way."""
    for name in ("net.safetensors", "second.safetensors"):
        nt.save_network(trained[0], name)
    for name in ("taken", "taken.mrc"):
        (tmp_path / name).write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/mine").write_text("precious")
    (tmp_path / "link.zarr").symlink_to("series.zarr")
    (tmp_path / "to_folder").symlink_to("folder")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


def listed(folder):
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in folder.rglob("*")}


FBP = ("reconstruct", "series.zarr", "--method", "fbp", "-o")
NNFBP = ("reconstruct", "series.zarr", "--method", "nnfbp", "--network", "net.safetensors")
ENSEMBLE = (*NNFBP, "--network", "second.safetensors", "-o", "v.zarr", "--spread")
TRAIN = ("train", "--for", "series.zarr", "--samples", "300", "--slices", "8", "--max-epochs", "1", "-o")
COMPARE = ("compare", "particle.zarr", "--reference", "particle.zarr", "--figure")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*FBP, "/"), "needs the path of a folder to write; got /"),
        ((*FBP, "."), "in which this command runs"),
        ((*FBP, ".."), "in which this command runs"),
        ((*FBP, ""), "in which this command runs"),
        ((*FBP, "taken"), "taken, which is a file"),
        ((*FBP, "taken/a/v.zarr"), "inside the file"),
        ((*FBP, "folder"), "folder, which is something else"),
        ((*FBP, "folder", "--overwrite"), "folder, which is something else"),
        ((*FBP, "to_folder"), "folder, which is something else"),
        ((*FBP, "loop"), "loop"),
        ((*FBP, "particle.zarr/v.zarr"), "inside the store"),
        ((*FBP, "particle.zarr/volume/c/v.zarr"), "inside the store"),
        ((*FBP, "series.zarr"), "needs an output that is not an input"),
        ((*FBP, "series.zarr", "--overwrite"), "needs an output that is not an input"),
        ((*FBP, "./folder/../series.zarr/", "--overwrite"), "needs an output that is not an input"),
        ((*FBP, "link.zarr", "--overwrite"), "needs an output that is not an input"),
        ((*FBP, "particle.zarr"), "made otherwise"),
        ((*ENSEMBLE, "v.zarr"), "needs a path for each output"),
        ((*ENSEMBLE, "./folder/../v.zarr/"), "needs a path for each output"),
        ((*ENSEMBLE, "to_folder/../v.zarr"), "needs a path for each output"),
        ((*ENSEMBLE, "V.ZARR"), "needs a path for each output"),
        ((*ENSEMBLE, "v.zarr/spread.zarr"), "inside the store"),
        ((*NNFBP, "-o", "net.safetensors"), "which is a file"),
        ((*TRAIN, "/"), "needs the path of a file to write; got /"),
        ((*TRAIN, "."), "which is a folder"),
        ((*TRAIN, ".."), "which is a folder"),
        ((*TRAIN, "folder"), "folder, which is a folder"),
        ((*TRAIN, "series.zarr/n.safetensors"), "inside the store"),
        ((*TRAIN, "/dev/null"), "a device or pipe"),
        ((*TRAIN, "n.training.safetensors"), "whose ending is that of checkpoints"),
        ((*TRAIN, "net"), "needs a checkpoint for each network; got net beside net.safetensors"),
        ((*COMPARE, "taken"), "taken, which exists"),
        ((*COMPARE, "folder"), "which is a folder"),
        ((*COMPARE, "/dev/null"), "a device or pipe"),
        ((*COMPARE, "particle.zarr/a.png"), "inside the store"),
        ((*COMPARE, "taken/a.png"), "inside the file"),
        (("export", "series.zarr", "folder.mrc"), "which is a folder"),
        (("export", "series.zarr", "series.zarr/a.mrc"), "inside the store"),
        (("phantom", "particle", "--size", "16", "-o", "/"), "needs the path of a folder"),
        (("project", "particle.zarr", "--angles", "taken", "-o", "taken"), "which is a file"),
        (("import", "taken.mrc", "-o", "taken.mrc"), "which is a file"),
    ],
)
def test_what_is_in_the_way_is_refused_first(places, run, monkeypatch, words, message):
    (places / "folder.mrc").mkdir()
    before = listed(places)
    monkeypatch.setattr(saving, "_write_all", None)
    monkeypatch.setattr("nntomo_dask.formats.mrc_writing._write", None)
    monkeypatch.setattr("nntomo_dask.arrays.schema.check_finite", None)
    result = run(*words, exit_code=2)
    assert message in result.output
    assert "try: " in result.output
    assert listed(places) == before


def test_folders_of_a_refused_command_are_removed(run, series_store, tmp_path):
    run("reconstruct", "particle.zarr", "--method", "fbp", "-o", "new/folder/v.zarr", exit_code=2)
    assert not (tmp_path / "new").exists()
    run("reconstruct", "series.zarr", "--method", "fbp", "-o", "new/folder/v.zarr")
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["v.zarr"]


NAMES = ["a [1]*?.zarr", "long" * 55, "v0.4", "ünï cødé 体.zarr", "-.zarr", "$(x);'.zarr", ".hidden.zarr", "a.zarr.new"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_kind(run, series_store, tmp_path, name):
    """The first run is interrupted, and others lie beside it whose names fit where the name is taken as a pattern."""
    others = [tmp_path / f".{other}.0123abcd.partial" for other in ("a 1xy.zarr", "v0.8", "anything", "a [1]*?.zarrs")]
    for other in others:
        other.mkdir()
    left = tmp_path / f".{name}.0123abcd.partial"
    left.mkdir()
    (tmp_path / f".{name}.lock").write_text("of a run that was killed")
    for _ in range(2):
        run("reconstruct", series_store, "--method", "fbp", "-o", f"./{name}")
        assert nt.open(tmp_path / name).shape == (32, 32, 32)
    assert not left.exists()
    assert all(other.exists() for other in others)
    hidden = {path.name for path in tmp_path.iterdir() if path.name.startswith(".") and path.name != name}
    assert hidden == {other.name for other in others}


def test_an_empty_folder_is_free(run, series_store, tmp_path):
    (tmp_path / "v.zarr").mkdir()
    (tmp_path / "w.zarr").mkdir()
    (tmp_path / "link").symlink_to("w.zarr")
    run("reconstruct", series_store, "--method", "fbp", "-o", "v.zarr")
    run("reconstruct", series_store, "--method", "fbp", "-o", "link", "--overwrite")
    assert digest(tmp_path / "v.zarr") == digest(tmp_path / "w.zarr")
    assert (tmp_path / "link").is_symlink()
    nt.save(nt.volume(np.ones((2, 4, 4), np.float32)), tmp_path / "v.zarr", overwrite=True)


def test_links_stay_and_what_they_lead_to_is_written(run, series_store, tmp_path, volume):
    (tmp_path / "disk").mkdir()
    for name in ("v.zarr", "s.mrc", "s.rawtlt", "n.safetensors", "f.png"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    run("reconstruct", series_store, "--method", "fbp", "-o", "v.zarr")
    run("export", series_store, "s.mrc")
    run("train", "--for", series_store, "--slices", 8, "--samples", 300, "--max-epochs", 1, "-o", "n.safetensors")
    run("compare", "v.zarr", "--reference", "particle.zarr", "--figure", "f.png")
    assert all((tmp_path / name).is_symlink() for name in ("v.zarr", "s.mrc", "s.rawtlt", "n.safetensors", "f.png"))
    assert {path.name for path in (tmp_path / "disk").iterdir()} == {
        "v.zarr",
        "s.mrc",
        "s.rawtlt",
        "n.safetensors",
        "f.png",
    }


class TestNetworks:
    @pytest.mark.parametrize(
        ("name", "checkpoint"),
        [
            ("net.safetensors", "net.training.safetensors"),
            ("net_v0.4", "net_v0.4.training.safetensors"),
            ("net_v0.8", "net_v0.8.training.safetensors"),
            ("net.v1.safetensors", "net.v1.training.safetensors"),
            ("net.pt", "net.pt.training.safetensors"),
            ("NET.SafeTensors", "NET.training.safetensors"),
        ],
    )
    def test_what_lies_beside_a_network(self, name, checkpoint):
        assert files.beside(Path("folder") / name, ".training.safetensors") == Path("folder") / checkpoint

    def test_names_with_dots_share_nothing(self, run, series_store, tmp_path):
        words = ("train", "--for", series_store, "--slices", 8, "--samples", 300, "--max-epochs", 1)
        for number, name in enumerate(("net_v0.4", "net_v0.8")):
            run(*words, "--seed", number, "-o", name)
        run(*words, "--members", 2, "-o", "of.some")
        names = {path.name for path in tmp_path.iterdir()}
        for name in ("net_v0.4", "net_v0.8", "of.some-0", "of.some-1"):
            assert {name, f"{name}.training.safetensors"} <= names

    @pytest.mark.parametrize("held", ["x-0.safetensors", "x-1.safetensors", "x-1.training.safetensors"])
    def test_every_network_of_an_ensemble_is_held(self, run, series_store, tmp_path, held):
        words = ("train", "--for", series_store, "--slices", 8, "--samples", 300, "--max-epochs", 1, "--members", 2)
        with lock.held(tmp_path / held):
            text = run(*words, "-o", "x.safetensors", exit_code=2).output
        assert f"{held}, process" in text
        assert not list(tmp_path.glob("*x*"))

    def test_a_checkpoint_of_another_training_is_refused_before_the_sets_are_made(self, run, series_store, monkeypatch):
        words = ("train", "--for", series_store, "--slices", 8, "--samples", 300, "-o", "n.safetensors")
        run(*words, "--max-epochs", 1)
        monkeypatch.setattr("nntomo_dask.cli.train._prepared", None)
        run(*words, "--max-epochs", 1)
        text = run(*words, "--max-epochs", 2, exit_code=2).output
        assert "max_epochs" in text
        text = run(*words, "--max-epochs", 1, "--seed", 3, exit_code=2).output
        assert "n.training.safetensors began; got another" in text

    @pytest.mark.parametrize("content", [b"precious", b"", bytes(2000), None])
    def test_overwrite_removes_no_file_of_others(self, run, series_store, tmp_path, content):
        words = ("train", "--for", series_store, "--slices", 8, "--samples", 300, "--max-epochs", 1)
        there = tmp_path / "n.training.safetensors"
        if content is None:  # a network in the place of the checkpoint
            run(*words, "-o", "other.safetensors")
            content = (tmp_path / "other.safetensors").read_bytes()
        there.write_bytes(content)
        run(*words, "-o", "n.safetensors", "--overwrite", exit_code=2)
        assert there.read_bytes() == content

    def test_overwrite_removes_a_damaged_checkpoint(self, run, series_store, tmp_path):
        words = ("train", "--for", series_store, "--slices", 8, "--samples", 300, "--max-epochs", 1)
        run(*words, "-o", "n.safetensors")
        there = tmp_path / "n.training.safetensors"
        there.write_bytes(there.read_bytes()[:-50])
        run(*words, "-o", "n.safetensors", exit_code=2)
        run(*words, "-o", "n.safetensors", "--overwrite")
        assert nt.intermediate_networks(there)


class TestFigures:
    def test_a_figure_of_ours_is_replaced_and_another_kept(self, run, series_store, tmp_path):
        words = ("compare", "particle.zarr", "--reference", "particle.zarr", "--figure")
        run(*words, "a.png")
        first = (tmp_path / "a.png").stat().st_mtime_ns
        run(*words, "a.png")
        assert (tmp_path / "a.png").stat().st_mtime_ns != first
        (tmp_path / "b.png").write_bytes(b"\x89PNG of someone else")
        assert "b.png, which exists; try: --overwrite" in run(*words, "b.png", exit_code=2).output
        run(*words, "b.png", "--overwrite")
        assert figures.is_ours(tmp_path / "b.png")

    @pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("v0.4", b"\x89PNG"), ("a.pdf", b"%PDF")])
    def test_the_suffix_chooses_the_format(self, tmp_path, name, begins):
        figures.save_figure(figures.training_curve([(1, 2), (0.5, 1)]), tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(begins)


class TestAside:
    """A file that is being written has a name beside its place that says who writes it."""

    @pytest.fixture
    def mark(self):
        """The mark of a process, and of this one."""

        def mark(pid=None, start=None, host=None):
            return f"{host or aside._host()}-{pid or os.getpid()}-{aside._start() if start is None else start}-00000000"

        return mark

    def left(self, folder, mark, name="a.mrc"):
        partial = folder / f".{name}.{mark}.partial"
        partial.write_text("half")
        return partial

    def write(self, folder, name="a.mrc"):
        with aside.written(folder / name) as partial:
            partial.write_text("whole")

    def test_nothing_is_there_before_the_end(self, tmp_path):
        with aside.written(tmp_path / "a.mrc") as partial:
            partial.write_text("whole")
            assert [path.name for path in tmp_path.iterdir()] == [partial.name]
        assert [path.name for path in tmp_path.iterdir()] == ["a.mrc"]

    def test_an_exception_changes_nothing(self, tmp_path):
        (tmp_path / "a.mrc").write_text("before")

        def interrupted():
            with aside.written(tmp_path / "a.mrc") as partial:
                partial.write_text("half")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert [path.name for path in tmp_path.iterdir()] == ["a.mrc"]
        assert (tmp_path / "a.mrc").read_text() == "before"

    def test_what_a_dead_process_left_is_removed(self, tmp_path, mark):
        with subprocess.Popen([sys.executable, "-c", ""]) as process:
            start = int(psutil.Process(process.pid).create_time())
        self.left(tmp_path, mark(process.pid, start))
        self.write(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["a.mrc"]

    def test_a_process_that_has_ended_and_was_not_waited_for(self, tmp_path, mark):
        process = subprocess.Popen([sys.executable, "-c", ""])
        start = int(psutil.Process(process.pid).create_time())
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        self.left(tmp_path, mark(process.pid, start))
        self.write(tmp_path)
        process.wait()
        assert [path.name for path in tmp_path.iterdir()] == ["a.mrc"]

    def test_what_a_living_process_writes_is_kept(self, tmp_path, mark):
        ours, parents = self.left(tmp_path, mark()), os.getppid()
        others = self.left(tmp_path, mark(parents, int(psutil.Process(parents).create_time())))
        self.write(tmp_path)
        assert ours.exists()
        assert others.exists()

    def test_a_number_that_was_given_again_is_not_mistaken(self, tmp_path, mark):
        self.left(tmp_path, mark(start=aside._start() - 1000))
        self.write(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["a.mrc"]

    @pytest.mark.parametrize("name", ["elsewhere", "version 0.1.0"])
    def test_what_cannot_be_known_goes_after_a_day(self, tmp_path, mark, name):
        left = self.left(tmp_path, mark(host="01234567") if name == "elsewhere" else "4567")
        self.write(tmp_path)
        assert left.exists()
        os.utime(left, (time.time() - 25 * 3600,) * 2)
        self.write(tmp_path)
        assert not left.exists()

    def test_a_long_name(self, tmp_path, mark):
        name = "体" * 80 + ".mrc"
        dead = aside._before(tmp_path / name) + mark(start=1000) + ".partial"
        (tmp_path / dead).write_text("half")
        self.write(tmp_path, name)
        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_names_are_not_patterns(self, tmp_path, mark):
        dead = mark(start=1000)
        kept = [self.left(tmp_path, dead, name) for name in ("ab.mrc", "a.mrc.mrc", "a1.mrc", "[a].mrc")]
        kept.append(self.left(tmp_path, "my own file", "*.mrc"))
        gone = self.left(tmp_path, dead, "*.mrc")
        self.write(tmp_path, "*.mrc")
        assert not gone.exists()
        assert all(path.exists() for path in kept)

    def test_a_refused_command_removes_what_was_left_too(self, run, series_store, tmp_path, mark):
        (tmp_path / "a.mrc").write_text("precious")
        left = self.left(tmp_path, mark(start=1000))
        run("export", series_store, "a.mrc", exit_code=2)
        assert not left.exists()

    def test_the_name_and_the_place_are_flushed(self, tmp_path, monkeypatch):
        flushed = []
        monkeypatch.setattr(aside, "flush", lambda path: flushed.append((path.name, (tmp_path / "a.mrc").exists())))
        self.write(tmp_path)
        assert [(name.endswith(".partial"), there) for name, there in flushed] == [(True, False), (False, True)]


class TestErrorsNameThePlace:
    @pytest.fixture
    def full(self, monkeypatch):
        """A disk that is full when something is flushed, or that has no room for a chunk."""

        def fails(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", fails)
        monkeypatch.setattr("nntomo_dask.store.files.zarr.Array.__setitem__", fails)

    def test_a_store(self, tmp_path, full):
        with pytest.raises(OSError, match=r"No space left on device: .*a\.zarr"):
            nt.save(nt.volume(np.ones((2, 4, 4), np.float32)), tmp_path / "a.zarr")

    @pytest.mark.parametrize("name", ["a.mrc", "a.rawtlt", "a.safetensors", "a.png"])
    def test_a_file(self, tmp_path, full, trained, name):
        write = {
            "a.mrc": lambda path: nt.write_mrc(nt.volume(np.ones((2, 4, 4), np.float32)), path),
            "a.rawtlt": lambda path: nt.write_tilt_angles([1, 2], path),
            "a.safetensors": lambda path: nt.save_network(trained[0], path),
            "a.png": lambda path: figures.save_figure(figures.training_curve([(1, 2)]), path),
        }[name]
        with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/{name}'"):
            write(tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    def test_a_complete_store_on_a_disk_that_is_full_or_read_only(self, run, series_store, tmp_path, monkeypatch):
        words = ("reconstruct", series_store, "--method", "fbp", "-o", "v.zarr")
        run(*words)
        original = os.open

        def denied(path, flags, *arguments, **keywords):
            if str(path).startswith(str(tmp_path)) and flags & os.O_CREAT:
                raise OSError(errno.EROFS, "Read-only file system", str(path))
            return original(path, flags, *arguments, **keywords)

        monkeypatch.setattr(os, "open", denied)
        assert "found complete, nothing to compute" in run(*words).output
        other = run(*words[:-1], "w.zarr", exit_code=2).output
        assert f"{tmp_path}/w.zarr: Read-only file system" in other

    def test_a_folder_that_cannot_be_written_to(self, tmp_path, monkeypatch):
        original = os.open

        def denied(path, *arguments, **keywords):
            if str(path).endswith(".lock"):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return original(path, *arguments, **keywords)

        monkeypatch.setattr(os, "open", denied)
        with pytest.raises(PermissionError) as raised, outputs.reserved("test", stores=[tmp_path / "a.zarr"]):
            pass
        assert raised.value.filename == str(tmp_path / "a.zarr")


class TestOverwrite:
    """A new store that was to replace another, and whose run was killed."""

    @pytest.fixture
    def abandoned(self, run, series_store, tmp_path):
        run("reconstruct", series_store, "--method", "fbp", "-o", "v.zarr")
        run("reconstruct", series_store, "--method", "fbp", "--window", "cosine", "-o", "new.zarr")
        (tmp_path / "new.zarr").rename(tmp_path / ".v.zarr.new")
        (tmp_path / ".v.zarr.lock").write_text("of a run that was killed")
        return tmp_path

    def test_the_same_command_goes_on(self, run, abandoned):
        before = (abandoned / ".v.zarr.new/volume/c/0/0/0").stat().st_ino
        run("reconstruct", "series.zarr", "--method", "fbp", "--window", "cosine", "-o", "v.zarr", "--overwrite")
        assert (abandoned / "v.zarr/volume/c/0/0/0").stat().st_ino == before
        assert not [path for path in abandoned.iterdir() if path.name.startswith(".")]

    @pytest.mark.parametrize("more", [(), ("--overwrite",)])
    def test_another_command_removes_it(self, run, abandoned, more):
        before = digest(abandoned / "v.zarr")
        run("reconstruct", "series.zarr", "--method", "fbp", "-o", "v.zarr", *more)
        assert digest(abandoned / "v.zarr") == before
        assert not [path for path in abandoned.iterdir() if path.name.startswith(".")]

    def test_in_python_too(self, abandoned):
        nt.save(nt.fbp(nt.open(abandoned / "series.zarr")), abandoned / "v.zarr")
        assert not [path for path in abandoned.iterdir() if path.name.startswith(".")]
