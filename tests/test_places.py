"""Where a command has to run: configurations for other programs, terminals, signals, scripts, read-only folders."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import nntomo_dask as nt
from nntomo_dask.cli import interruption, output
from nntomo_dask.cli.main import main
from nntomo_dask.compute import cluster, configuration, progress, scripts
from nntomo_dask.kernels import compiling
from tests.test_store import digest

ROOT = Path(nt.__file__).parents[1]
NNTOMO = [sys.executable, "-m", "nntomo_dask.cli"]


def environment(**variables: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)} | variables


def command(*words: object, folder: Path, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*NNTOMO, *map(str, words)], cwd=folder, env=environment(**variables), capture_output=True, check=False
    )


FOREIGN_DASK = {
    "array.slicing.split-large-chunks": True,
    "array.chunk-size": "1kiB",
    "array.rechunk.method": "p2p",
    "array.backend": "cupy",
    "optimization.fuse.active": False,
    "optimization.fuse.ave-width": 100,
    "tokenize.ensure-deterministic": True,
    "temporary-directory": "/nowhere/at/all",
    "distributed.comm.require-encryption": True,
    "distributed.comm.default-scheme": "ucx",
    "distributed.worker.preload": ["no_such_module"],
    "distributed.nanny.preload": ["no_such_module"],
    "distributed.worker.multiprocessing-method": "forkserver",
    "distributed.dashboard.link": "{NO_SUCH_VARIABLE}",
}
FOREIGN_ZARR = {
    "codec_pipeline.path": "zarrs.ZarrsCodecPipeline",
    "codecs.blosc": "no_such_package.Blosc",
    "ndbuffer": "no_such_package.Buffer",
    "buffer": "no_such_package.Buffer",
    "json_indent": 7,
    "default_zarr_format": 2,
    "array.order": "F",
    "array.write_empty_chunks": True,
}
PLANNING = {"DASK_ARRAY__QUERY_PLANNING": "True"}
UNGUARDED = """
from nntomo_dask.compute import cluster
with cluster.session(workers=2, scheduler='processes'):
    print('in')
"""
IN_A_FUNCTION = """
from nntomo_dask.compute import cluster
def main():
    with cluster.session(workers=9):
        print('in')
if '__main__' == __name__:
    main()
"""


class TestConfigurations:
    @staticmethod
    def save(folder):
        volume = nt.save(nt.nanoparticle((40, 24, 24), seed=1), folder / "volume.zarr")
        series = nt.save(nt.project(volume, nt.tilt_angles("tem", 8)), folder / "series.zarr")
        return nt.save(nt.fbp(series), folder / "fbp.zarr")

    def test_they_change_no_byte(self, tmp_path):
        with dask.config.set(FOREIGN_DASK), zarr.config.set(FOREIGN_ZARR):
            with cluster.session(workers=2):
                self.save(tmp_path / "foreign")
            assert zarr.config.get("json_indent") == 7, "the user's own configuration is there again"
            assert dask.config.get("array.backend") == "cupy"
            assert nt.verify(tmp_path / "foreign/fbp.zarr") == []
            assert nt.open(tmp_path / "foreign/fbp.zarr").shape == (40, 24, 24)
        self.save(tmp_path / "plain")
        for name in ("volume.zarr", "series.zarr", "fbp.zarr"):
            assert digest(tmp_path / "foreign" / name) == digest(tmp_path / "plain" / name)

    @pytest.mark.xdist_group("clusters")
    @pytest.mark.filterwarnings("ignore")  # distributed's own, of sockets that close late
    def test_nor_hinder_worker_processes(self, tmp_path):
        lazy = nt.nanoparticle((40, 24, 24), seed=1).chunk(z=4)
        with dask.config.set(FOREIGN_DASK), cluster.session(workers=2, scheduler="processes"):
            nt.save(lazy, tmp_path / "a.zarr")
        assert nt.open(tmp_path / "a.zarr").shape == (40, 24, 24)

    def test_contexts_of_threads_overlap(self):
        """What the first has changed, the last one restores."""
        inside, leave = threading.Event(), threading.Event()

        def other():
            with configuration.ours():
                inside.set()
                leave.wait(10)

        with dask.config.set({"array.backend": "cupy"}):
            with configuration.ours():
                thread = threading.Thread(target=other)
                thread.start()
                inside.wait(10)
            assert dask.config.get("array.backend") == "numpy", "the other thread still needs it"
            leave.set()
            thread.join()
            assert dask.config.get("array.backend") == "cupy"

    @pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
    def test_schedulers_of_a_user(self, tmp_path, scheduler):
        with dask.config.set(scheduler=scheduler, num_workers=3):
            self.save(tmp_path / "a")
        self.save(tmp_path / "b")
        assert digest(tmp_path / "a/fbp.zarr") == digest(tmp_path / "b/fbp.zarr")

    def test_query_planning(self, tmp_path):
        """The command does without it; a script is told how to."""
        done = command("phantom", "particle", "--size", 16, "-o", "a.zarr", folder=tmp_path, **PLANNING)
        assert done.returncode == 0, done.stderr
        assert command("info", "a.zarr", folder=tmp_path, **PLANNING).returncode == 0
        script = "import nntomo_dask as nt; nt.nanoparticle(16)"
        told = subprocess.run(
            [sys.executable, "-c", script],
            env=environment(**PLANNING),
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.stderr.splitlines()[-1].endswith("before dask.array is imported")
        assert "try: DASK_ARRAY__QUERY_PLANNING=False in the environment" in told.stderr


class TestScripts:
    def run(self, tmp_path, text):
        path = tmp_path / "script.py"
        path.write_text(text)
        return subprocess.run(
            [sys.executable, str(path)], env=environment(), capture_output=True, text=True, check=False
        )

    def test_one_without_a_guard_is_told_so_once(self, tmp_path):
        ended = self.run(tmp_path, UNGUARDED)
        assert ended.returncode == 1
        (line,) = (line for line in ended.stderr.splitlines() if "__main__" in line and "needs" in line)
        assert 'which starts them in line 3, outside of if __name__ == "__main__":' in line
        assert line.endswith('or scheduler="threads"')
        assert ended.stdout == ""

    @pytest.mark.parametrize(
        "text",
        [
            'if __name__ == "__main__":\n' + "".join(f"    {line}\n" for line in UNGUARDED.splitlines()),
            IN_A_FUNCTION,
            UNGUARDED.replace("'processes'", "'threads'"),
        ],
    )
    def test_others_run(self, tmp_path, text):
        ended = self.run(tmp_path, text)
        assert (ended.returncode, ended.stdout) == (0, "in\n"), ended.stderr

    def test_the_other_branch_is_no_guard(self, tmp_path):
        text = "if __name__ == '__mp_main__':\n    pass\nelse:\n    x = 1\n"
        (tmp_path / "a.py").write_text(text)
        assert not scripts._is_guarded(tmp_path / "a.py", 4)
        assert scripts._is_guarded(tmp_path / "a.py", 2)
        assert scripts._is_guarded(tmp_path / "missing.py", 2)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("volume") / "a.zarr"
    nt.save(nt.nanoparticle(24, seed=1), path)
    return path


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    path = tmp_path_factory.mktemp("series") / "series.zarr"
    rows = np.random.default_rng(0).random((24, 8, 64), np.float32)
    nt.save(nt.tilt_series(rows, nt.tilt_angles("tem", 8)).chunk(z=1), path)
    return path


class TestOutput:
    @pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
    def test_a_terminal_of_few_characters(self, small, encoding):
        done = command("compare", small, "--reference", small, folder=small.parent, PYTHONIOENCODING=encoding)
        assert done.returncode == 0, done.stderr
        last = done.stdout.decode(encoding).splitlines()[-1]
        assert last.startswith("≤ 2: limited" if encoding == "utf-8" else "? 2: limited")

    def test_a_file_whose_name_is_no_text(self, small, tmp_path):
        place = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.zarr")
        nt.save(nt.open(small), place)
        done = command("info", place, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert b"caf\\udce9.zarr: volume" in done.stdout

    def test_progress_in_a_file_is_plain_lines(self, tmp_path):
        done = command("phantom", "particle", "--size", "70,16,16", "-o", "a.zarr", folder=tmp_path)
        lines = done.stderr.decode().splitlines()
        assert lines[0] == "a.zarr: 0 of 3 slabs done"
        assert lines[-1].startswith("a.zarr: 3 slabs in ")
        assert not set(done.stderr) & {ord("\r"), 27}

    def test_a_line_now_and_then(self, capsys, monkeypatch):
        now = iter(range(0, 10_000, 3))
        monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
        with progress.shown("bar", description="a", unit="slab", total=40) as bar:
            for _ in range(40):
                bar.update()
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "a: 0 of 40 slabs done"
        assert lines[1] == "a: 4 of 40 slabs, 12 s"
        assert lines[-1] == "a: 40 slabs in 2 min"
        assert len(lines) == 2 + 9, "one for each tenth but the last"
        with progress.shown("none", description="a", unit="slab", total=1) as bar:
            bar.update()
        assert capsys.readouterr().err == ""

    def test_no_line_more_often_than_the_pause(self, capsys):
        with progress.shown("bar", description="training", unit="epoch") as bar:
            for epoch in range(1000):
                bar.add(loss=f"{epoch}")
                bar.update()
        begin, end = capsys.readouterr().err.splitlines()
        assert begin == "training: begins"
        assert end.startswith("training: 1000 epochs in ")
        assert end.endswith(", loss 999")

    def test_a_dumb_terminal_gets_lines(self, capsys, monkeypatch):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        monkeypatch.setenv("TERM", "dumb")
        with progress.shown("bar", description="a", unit="slab", total=1) as bar:
            bar.update()
        assert capsys.readouterr().err.splitlines()[0] == "a: 0 of 1 slab done"

    def test_a_warning_is_said_once(self, capsys):
        show = output._Warnings()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show
            for line in range(3):
                warnings.warn_explicit("12 bytes too many", RuntimeWarning, "library.py", line)
        assert capsys.readouterr().err == "warning: 12 bytes too many\n"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
class TestSignals:
    def begin(self, slow, folder, *words, **variables):
        return subprocess.Popen(
            [
                *NNTOMO,
                "reconstruct",
                str(slow),
                "--method",
                "sirt",
                "--tolerance",
                "0",
                "--max-iterations",
                "200000",
                "-o",
                str(folder / "a.zarr"),
                *words,
            ],
            env=environment() | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def computing(process):
        """Wait until it computes; before that it may have things to say."""
        assert any(line.startswith("a.zarr: 0 of ") for line in process.stderr)

    @staticmethod
    def ended(process, code):
        """It ends with its code, one sentence and no traceback; the seconds that this takes."""
        start = time.monotonic()
        _, text = process.communicate(timeout=20)
        seconds = time.monotonic() - start
        assert process.returncode == code, text
        assert "Traceback" not in text
        said = [line for line in text.splitlines() if not line.startswith("import time:")]
        assert said[-1] == "interrupted; give the same command again to continue"
        return seconds

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    def test_while_it_computes(self, slow, tmp_path, number, code):
        """It unwinds; on a busy machine, in one of five tries. The others leave a lock that holds nothing."""
        for _ in range(5):
            process = self.begin(slow, tmp_path)
            self.computing(process)
            process.send_signal(number)
            seconds = self.ended(process, code)
            left = {entry.name for entry in tmp_path.iterdir()}
            assert left - {".a.zarr.lock"} == {"a.zarr"}
            if seconds < interruption.GRACE_SECONDS:
                assert left == {"a.zarr"}
                return
        pytest.fail(f"it took {seconds:.1f} s in the last of five tries")

    @pytest.mark.parametrize("module", ["click", "numpy", "xarray"])
    def test_while_it_imports(self, slow, tmp_path, module):
        process = self.begin(slow, tmp_path, PYTHONPROFILEIMPORTTIME="1")  # a line after each module
        assert any(line.rpartition("|")[2].strip() == module for line in process.stderr)
        process.send_signal(signal.SIGINT)
        assert self.ended(process, 130) < 5  # two on a machine that does nothing else

    @pytest.mark.slow
    def test_worker_processes_end_too(self, slow, tmp_path):
        import psutil

        process = self.begin(slow, tmp_path, "--scheduler", "processes", "--workers", "2")
        self.computing(process)
        parent = psutil.Process(process.pid)
        while len(children := parent.children(recursive=True)) < 2:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.1)
        process.send_signal(signal.SIGINT)
        assert self.ended(process, 130) < 5  # two on a machine that does nothing else
        _, alive = psutil.wait_procs(children, timeout=2)
        assert alive == []

    def test_a_second_one_ends_at_once_what_does_not_unwind(self, tmp_path):
        script = tmp_path / "script.py"
        script.write_text(
            "import time\nfrom nntomo_dask.cli import interruption\nwith interruption.handled():\n"
            "    try:\n        print('in', flush=True)\n        time.sleep(30)\n    finally:\n"
            "        print('unwinding', flush=True)\n        time.sleep(30)\n"
        )
        for signals in (1, 2):
            process = subprocess.Popen(
                [sys.executable, str(script)],
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stdout.readline() == "in\n"
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "unwinding\n"
            if signals == 2:
                process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
            seconds = time.monotonic() - start
            assert process.returncode == 130
            assert (seconds < interruption.GRACE_SECONDS) == (signals == 2)

    def test_one_that_is_ignored_stays_ignored(self, tmp_path):
        script = (
            "import signal\nfrom nntomo_dask.cli import interruption\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
            "with interruption.handled():\n    print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)\n"
            "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["True", "True"]

    def test_an_interruption_without_a_signal(self, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("nntomo_dask.cli.info._store", interrupt)
        result = CliRunner().invoke(main, ["info", "a.zarr"])
        assert result.exit_code == 130
        assert result.output == "interrupted; give the same command again to continue\n"


class TestCache:
    """Of compiled kernels."""

    @pytest.fixture(autouse=True)
    def untouched(self, monkeypatch):
        import numba

        monkeypatch.setattr(numba.config, "CACHE_DIR", "")
        monkeypatch.setenv("NUMBA_CACHE_DIR", "")

    @pytest.fixture
    def nowhere(self, monkeypatch, tmp_path):
        """Neither the package nor the home can be written to."""
        real = compiling._is_writable
        monkeypatch.setattr(compiling, "_usual_folders", lambda: [tmp_path / "file" / "cache"])
        (tmp_path / "file").touch()
        monkeypatch.setattr(compiling.tempfile, "gettempdir", lambda: str(tmp_path))
        assert not real(tmp_path / "file" / "cache")
        return tmp_path

    def test_the_package_itself_first(self, monkeypatch):
        assert compiling._usual_folders()[0] == Path(compiling.__file__).parent / "__pycache__"
        monkeypatch.setattr(compiling, "_is_writable", lambda folder: True)
        assert compiling.place_cache()
        assert os.environ["NUMBA_CACHE_DIR"] == ""

    def test_a_folder_of_its_own_where_there_is_no_other(self, nowhere):
        import numba

        assert compiling.place_cache()
        chosen = Path(os.environ["NUMBA_CACHE_DIR"])
        assert chosen.parent == nowhere
        assert numba.config.CACHE_DIR == str(chosen)
        assert stat.S_IMODE(chosen.stat().st_mode) == 0o700

        source = nowhere / "kernel.py"
        source.write_text(
            "from nntomo_dask.kernels.compiling import njit\n@njit(cache=True)\ndef twice(x):\n    return 2 * x\n"
        )
        names = {}
        exec(compile(source.read_text(), str(source), "exec"), names)
        assert names["twice"](3) == 6
        assert any(chosen.rglob("*.nbi"))

    @pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX owners of files")
    def test_not_one_that_another_could_have_filled(self, nowhere):
        planted = nowhere / f"nntomo_dask-numba-{os.getuid()}"
        planted.mkdir()
        planted.chmod(0o777)
        monkeypatched = compiling.tempfile.tempdir
        try:
            compiling.tempfile.tempdir = str(nowhere)
            assert compiling.place_cache()
        finally:
            compiling.tempfile.tempdir = monkeypatched
        assert Path(os.environ["NUMBA_CACHE_DIR"]) != planted

    def test_none_at_all(self, nowhere, monkeypatch):
        def nothing(*_, **__):
            raise FileNotFoundError("No usable temporary directory found")

        monkeypatch.setattr(compiling.tempfile, "gettempdir", nothing)
        monkeypatch.setattr(compiling.tempfile, "mkdtemp", nothing)
        assert not compiling.place_cache()
        monkeypatch.setattr(compiling, "_HAS_CACHE", False)
        assert compiling.njit(cache=True)(lambda x: 2 * x)(3) == 6

    def test_a_home_that_is_not_known(self, monkeypatch):
        monkeypatch.setattr(compiling.os.path, "expanduser", lambda path: path)  # no HOME, and no entry for the user
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert all(folder.is_absolute() for folder in compiling._usual_folders())
