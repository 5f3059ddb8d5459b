"""What dies or breaks in the middle of a run: nothing is lost, and the rerun gives the bytes of an undisturbed one."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask import store
from nntomo_dask.arrays import recipes, slabs
from nntomo_dask.compute import cluster
from nntomo_dask.store import files
from tests.test_store import digest

SLICES = 24
_MORE_KILLS = 9
# A reconstruction in 24 slabs that takes some seconds, given the folder of its output and where it computes.
RECONSTRUCT = """
import json
import sys
import numpy as np
import nntomo_dask as nt
from nntomo_dask.compute import cluster
if __name__ == "__main__":
    rows = np.random.default_rng(0).random((24, 8, 64), np.float32)
    series = nt.tilt_series(rows, nt.tilt_angles("tem", 8)).chunk(z=1)
    with cluster.session(workers=2, scheduler=sys.argv[2] or None):
        print("ready", flush=True)
        volume = nt.reconstruct(series, sys.argv[3], **json.loads(sys.argv[4]))
        nt.save(volume, sys.argv[1])
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "reconstruct.py"
    path.write_text(RECONSTRUCT)
    return path


def command(
    script: Path, output: Path, *, scheduler: str = "threads", iterations: int = 200, method: str = "sirt"
) -> list[str]:
    settings = {"sirt": {"tolerance": 0, "max_iterations": iterations}, "cgls": {"iterations": iterations}}
    return [sys.executable, str(script), str(output), scheduler, method, json.dumps(settings[method])]


@pytest.fixture(scope="module")
def undisturbed(script, tmp_path_factory):
    """The output of a run that nothing happened to, and how long it took after its imports."""
    path = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    with subprocess.Popen(command(script, path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        start = time.perf_counter()
    assert process.returncode == 0
    return path, time.perf_counter() - start


def kill_and_rerun(script: Path, output: Path, seconds: float, *, scheduler: str = "threads") -> tuple[int, int]:
    """Kill a run some seconds after its imports, run it again; how many chunks it had, and how many of these stayed."""
    with subprocess.Popen(
        command(script, output, scheduler=scheduler), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
    chunks = output / "volume" / "c"
    missing = set(store.missing_chunks(output)) if output.exists() else set(range(SLICES))
    before = {index: (chunks / str(index) / "0" / "0").stat() for index in range(SLICES) if index not in missing}
    subprocess.run(command(script, output, scheduler=scheduler), check=True, capture_output=True)
    after = {index: (chunks / str(index) / "0" / "0").stat() for index in before}
    stayed = [index for index in before if before[index].st_mtime_ns == after[index].st_mtime_ns]
    return len(before), len(stayed)


def check_kills(script: Path, undisturbed: tuple[Path, float], folder: Path, count: int) -> None:
    """So many kills, and more until one falls into the writing: how long a run takes differs by what else runs."""
    path, duration = undisturbed
    rng = random.Random(count)
    in_the_middle = number = 0
    while number < count or (not in_the_middle and number < count + _MORE_KILLS):
        output = folder / f"{number}.zarr"
        before, stayed = kill_and_rerun(script, output, rng.uniform(0, duration))
        in_the_middle += 0 < before < SLICES
        assert stayed == before, "chunks that were there were computed again"
        assert digest(output) == digest(path)
        assert [entry.name for entry in folder.iterdir() if f"{number}.zarr" in entry.name] == [output.name]
        number += 1
    assert in_the_middle, "no kill fell into the writing"


def test_a_killed_driver(script, undisturbed, tmp_path):
    check_kills(script, undisturbed, tmp_path, 3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cgls"])
def test_a_killed_driver_of_another_method(script, tmp_path, method):
    """Killed when it has written its first chunks; the rerun keeps them."""
    output, whole = tmp_path / "a.zarr", tmp_path / "whole.zarr"
    with subprocess.Popen(
        command(script, output, method=method, iterations=400), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        while len(list(output.glob("volume/c/*/0/0"))) < 2:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    missing = set(store.missing_chunks(output))
    assert 0 < len(missing) < SLICES - 1
    before = {
        index: files.read(output).chunk_file(index).stat().st_mtime_ns
        for index in range(SLICES)
        if index not in missing
    }
    for path in (output, whole):
        subprocess.run(command(script, path, method=method, iterations=400), check=True, capture_output=True)
    assert before == {index: files.read(output).chunk_file(index).stat().st_mtime_ns for index in before}
    assert digest(output) == digest(whole)


@pytest.mark.slow
def test_a_driver_killed_at_twenty_random_moments(script, undisturbed, tmp_path):
    check_kills(script, undisturbed, tmp_path, 20)


@pytest.mark.slow
def test_a_killed_driver_takes_its_workers_along(script, undisturbed, tmp_path):
    """With worker processes: those of a killed run end by themselves and do not write into the rerun's store."""
    output = tmp_path / "a.zarr"
    before, stayed = kill_and_rerun(script, output, 6.0, scheduler="processes")
    assert stayed == before
    assert digest(output) == digest(undisturbed[0])


def _dies_once(slab, *, mark, driver):
    """Ones; the first worker that comes here dies of it."""
    assert os.getpid() != driver, "this has to run in a worker"
    try:
        Path(mark).touch(exist_ok=False)
    except FileExistsError:
        return np.ones_like(slab)
    os.kill(os.getpid(), signal.SIGKILL)


def _dies(slab):
    os.kill(os.getpid(), signal.SIGKILL)


def mapped(function, **parameters):
    series = nt.volume(np.zeros((12, 8, 8), np.float32)).chunk(z=1)
    coords = {dim: series[dim].values for dim in series.dims}
    return slabs.map_slabs(
        function,
        series,
        dims=series.dims,
        coords=coords,
        recipe=recipes.record("test", {}),
        name="volume",
        **parameters,
    )


@pytest.mark.filterwarnings("ignore")  # distributed's own, of sockets that close late
def test_a_killed_worker(tmp_path):
    mark = tmp_path / "died"
    with cluster.session(workers=2, scheduler="processes"):
        nt.save(mapped(_dies_once, mark=str(mark), driver=os.getpid()), tmp_path / "a.zarr")
    assert mark.exists()
    assert nt.open(tmp_path / "a.zarr").values.min() == 1
    nt.save(nt.volume(np.ones((12, 8, 8), np.float32)).chunk(z=1), tmp_path / "b.zarr")
    chunks = "volume/c"
    assert digest(tmp_path / "a.zarr" / chunks) == digest(tmp_path / "b.zarr" / chunks)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_workers_that_always_die_are_an_error_that_says_so(tmp_path):
    with (
        cluster.session(workers=2, scheduler="processes"),
        pytest.raises(MemoryError, match=r"several workers died .* try: less memory, "),
    ):
        nt.save(mapped(_dies), tmp_path / "a.zarr")
    assert len(store.missing_chunks(tmp_path / "a.zarr")) == 12


def test_two_runs_on_one_output(script, tmp_path):
    output = tmp_path / "a.zarr"
    with subprocess.Popen(command(script, output, iterations=4000), stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        while not any(output.glob("volume/c/*/0/0")):
            with pytest.raises(subprocess.TimeoutExpired):  # it runs still
                process.wait(0.05)
        with pytest.raises(nt.SchemaError, match=rf"no other run writes to; got .*a\.zarr, process {process.pid} on "):
            nt.save(nt.volume(np.ones((4, 8, 8), np.float32)), output, overwrite=True)
        with pytest.raises(nt.SchemaError, match="no other run writes to"):
            nt.verify(output)
        with pytest.raises(nt.SchemaError, match=r"without \d+ of 24 chunks"):
            nt.open(output)
        process.kill()
    # What held the place is gone with its process.
    saved = nt.save(nt.volume(np.ones((4, 8, 8), np.float32)), output, overwrite=True)
    assert saved.shape == (4, 8, 8)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


def test_a_folder_that_turns_read_only(tmp_path):
    """An immutable folder of chunks stands for a file system that was remounted read-only."""
    output = tmp_path / "a.zarr"
    array = nt.volume(np.random.default_rng(0).random((12, 8, 8))).chunk(z=1)
    chunks = output / "volume" / "c"

    def freeze(slab, *, then):
        if then and (chunks / "1").exists():
            subprocess.run(["chattr", "+i", str(chunks)], check=False, capture_output=True)
        return slab

    lazy = mapped(freeze, then=True)
    nt.save(array, tmp_path / "probe.zarr")
    if subprocess.run(["chattr", "+i", str(tmp_path / "probe.zarr")], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to make a folder immutable, and a file system that knows it")
    subprocess.run(["chattr", "-i", str(tmp_path / "probe.zarr")], check=True)
    try:
        with cluster.session(workers=1, scheduler="threads"), pytest.raises(OSError, match=r"not permitted|Read-only"):
            nt.save(lazy, output)
    finally:
        subprocess.run(["chattr", "-i", str(chunks)], check=True)
    assert 0 < len(store.missing_chunks(output)) < 12
    np.testing.assert_array_equal(nt.save(mapped(freeze, then=False), output).values, 0)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MiB."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(mounted)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield mounted
    subprocess.run(["umount", "--lazy", str(mounted)], check=True)


def test_a_full_disk(small_disk, tmp_path, rng):
    """The command says so, keeps what it wrote, and goes on where room was made, to the bytes of another disk."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2**20))
    nt.save(nt.tilt_series(rng.random((64, 4, 96), np.float32), nt.tilt_angles("tem", 4)), tmp_path / "series.zarr")
    command = [sys.executable, "-m", "nntomo_dask.cli", "reconstruct", str(tmp_path / "series.zarr")]
    command += ["--method", "fbp", "--workers", "1", "-o"]  # 2.25 MiB of noise, which packs badly
    full = subprocess.run([*command, str(small_disk / "a.zarr")], capture_output=True, text=True, check=False)
    assert full.returncode == 2
    text = f"{small_disk}/a.zarr/volume/c/{{chunk}}: No space left on device. Fix this and rerun"
    chunks = (f"{index}/0/0" for index in range(64))
    assert any(text.format(chunk=chunk) in full.stderr for chunk in chunks), full.stderr
    missing = store.missing_chunks(small_disk / "a.zarr")
    assert 0 < len(missing) < store.chunk_count(small_disk / "a.zarr")
    ballast.unlink()
    for output in (small_disk / "a.zarr", tmp_path / "a.zarr"):
        subprocess.run([*command, str(output)], check=True, capture_output=True)
    assert digest(small_disk / "a.zarr") == digest(tmp_path / "a.zarr")


def test_an_export_to_a_full_disk(small_disk, rng):
    """Written through a memory map, which would kill the process without a word."""
    with pytest.raises(OSError, match="No space left"):
        nt.write_mrc(nt.volume(rng.random((64, 160, 160), np.float32)), small_disk / "a.mrc")  # 6.25 MiB
    assert list(small_disk.iterdir()) == []


class TestFlushing:
    """A chunk is written, but has still to reach the disk."""

    @pytest.fixture
    def large(self, rng):
        return nt.volume(rng.random((4, 640, 640), np.float32)).chunk(z=1)  # chunks of more than a MiB

    def test_a_disk_that_fills_up_then(self, tmp_path, large, monkeypatch):
        def fails_twice(descriptor, *, original=os.fsync, calls=[]):  # noqa: B006
            calls.append(descriptor)
            if len(calls) in (2, 4):
                raise OSError(errno.ENOSPC, "No space left on device")
            original(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fails_twice)
            with pytest.raises(OSError, match="No space left"):
                nt.save(large, tmp_path / "a.zarr")
        assert store.missing_chunks(tmp_path / "a.zarr")
        np.testing.assert_array_equal(nt.save(large, tmp_path / "a.zarr").values, large.values)

    def test_a_store_that_goes_away_meanwhile(self, tmp_path, large):
        nt.save(large, tmp_path / "a.zarr")
        chunk = tmp_path / "a.zarr/volume/c/0/0/0"
        (tmp_path / "a.zarr").rename(tmp_path / "b.zarr")
        files._flush(chunk)
        assert store.missing_chunks(tmp_path / "b.zarr") == []

    def test_all_is_on_the_disk_when_save_returns(self, tmp_path, large, monkeypatch):
        flushed = []
        monkeypatch.setattr(os, "fsync", lambda descriptor: (time.sleep(0.05), flushed.append(descriptor)))
        nt.save(large, tmp_path / "a.zarr")
        assert len(flushed) == 4


class TestDamage:
    @pytest.fixture
    def volume_store(self, tmp_path):
        volume = nt.nanoparticle((70, 24, 24), seed=1)
        nt.save(volume, tmp_path / "a.zarr")
        return tmp_path / "a.zarr", volume, digest(tmp_path / "a.zarr")

    def test_an_undamaged_store(self, volume_store):
        path, _, before = volume_store
        assert nt.verify(path) == []
        assert digest(path) == before

    @pytest.mark.parametrize("place", [3, 20, 200, -2])
    def test_a_changed_byte_is_found_and_mended(self, volume_store, place):
        path, volume, before = volume_store
        chunk = path / "volume/c/1/0/0"
        content = bytearray(chunk.read_bytes())
        content[place] ^= 1
        chunk.write_bytes(content)
        assert nt.verify(path) == [1]
        assert chunk.with_name("0.damaged").read_bytes() == content
        with pytest.raises(nt.SchemaError, match="without 1 of 3 chunks"):
            nt.open(path)
        nt.save(volume, path)
        assert digest(path) == before

    def test_a_truncated_chunk_is_found_without_being_asked(self, volume_store):
        path, volume, before = volume_store
        chunk = path / "volume/c/2/0/0"
        for content in (b"", chunk.read_bytes()[:10], chunk.read_bytes()[:-1]):
            chunk.write_bytes(content)
            with pytest.raises(nt.SchemaError, match="without 1 of 3 chunks"):
                nt.open(path)
            nt.save(volume, path)
            assert digest(path) == before

    def test_a_coordinate_that_is_gone(self, volume_store):
        path, volume, before = volume_store
        (path / "y/c/0").unlink()
        (path / "x/zarr.json").unlink()
        with pytest.raises(nt.SchemaError, match="without coordinate y and coordinate x"):
            nt.open(path)
        nt.save(volume, path)
        assert digest(path) == before

    def test_a_changed_coordinate_is_found_without_being_asked(self, volume_store):
        path, volume, before = volume_store
        coordinate = path / "z/c/0"
        content = bytearray(coordinate.read_bytes())
        content[20] ^= 64
        coordinate.write_bytes(content)
        with pytest.raises(nt.SchemaError, match="without coordinate z"):
            nt.open(path)
        nt.save(volume, path)
        assert digest(path) == before

    def test_a_changed_byte_is_a_clear_error_when_it_is_read(self, volume_store):
        path, _, _ = volume_store
        chunk = path / "volume/c/1/0/0"
        content = bytearray(chunk.read_bytes())
        content[200] ^= 1
        chunk.write_bytes(content)
        with pytest.raises(
            nt.SchemaError, match=r"damaged one between 32 and 63 of .*a\.zarr .* try: nntomo info --verify"
        ):
            nt.open(path).compute()

    @pytest.mark.parametrize("file", ["zarr.json", "volume/zarr.json"])
    @pytest.mark.parametrize("damage", [b"x", b'{"attrixutes": {}, "zarr_format": 3, "node_type": "group"}', None])
    def test_damaged_metadata(self, volume_store, file, damage):
        path, volume, before = volume_store
        if damage is None:
            (path / file).unlink()
        else:
            (path / file).write_bytes(damage)
        chunks = {file: file.stat().st_mtime_ns for file in path.glob("volume/c/*/0/0")}
        for attempt in (lambda: nt.open(path), lambda: nt.verify(path)):
            with pytest.raises(nt.SchemaError, match=r"needs the metadata of a store .* try: rerun what wrote"):
                attempt()
        with pytest.raises(nt.SchemaError, match=r"made otherwise: .* try: overwrite=True"):
            nt.save(nt.normalize(volume), path)
        nt.save(volume, path)  # writes the metadata again, and computes nothing
        assert digest(path) == before
        assert {file: file.stat().st_mtime_ns for file in path.glob("volume/c/*/0/0")} == chunks

    def test_verify_where_nothing_may_be_written(self, volume_store, monkeypatch):
        path, _, _ = volume_store
        chunk = path / "volume/c/1/0/0"
        chunk.write_bytes(chunk.read_bytes()[:-8] + bytes(8))
        monkeypatch.setattr(os, "access", lambda *_: False)
        assert nt.verify(path) == [1]
        assert [entry.name for entry in chunk.parent.iterdir()] == ["0"]

    def test_what_is_no_store(self, tmp_path):
        with pytest.raises(nt.SchemaError, match="verify: needs a store"):
            nt.verify(tmp_path)
