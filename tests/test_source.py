"""Files that arrays are read from: any change of them is noticed, and none kills the process."""

import os
import subprocess
import sys

import mrcfile
import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.arrays import recipes
from nntomo_dask.formats import source

ANGLES = np.linspace(-60, 60, 5)
LARGE = (5, 1350, 1350)  # of int16: 17.4 MiB, above the size up to which samples cover all bytes


def write(path, shape=LARGE, seed=0):
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(np.random.default_rng(seed).integers(0, 1000, shape, dtype=np.int16))


def change(path, place):
    """Change one byte in place, and set the times back: what a repair of bad pixels may leave."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        value = file.read(1)[0]
        file.seek(place)
        file.write(bytes([value ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize("shape", [(5, 6, 8), (5, 300, 300), LARGE])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.77, 1.0])
def test_any_byte_is_part_of_the_recipe(tmp_path, shape, share):
    path = tmp_path / "a.mrc"
    write(path, shape)
    before = nt.read_mrc_series(path, ANGLES).attrs["recipe"]
    assert recipes.same(nt.read_mrc_series(path, ANGLES).attrs["recipe"], before)
    size = path.stat().st_size
    change(path, min(1024 + int(share * (size - 1024)), size - 1))
    assert not recipes.same(nt.read_mrc_series(path, ANGLES).attrs["recipe"], before)


def test_bytes_between_the_samples_of_version_0_1_0(tmp_path):
    """The samples begin at every 256th of the file and are 64 KiB long."""
    path = tmp_path / "a.mrc"
    write(path)
    before = nt.read_mrc_series(path, ANGLES).attrs["recipe"]
    for number in (0, 100, 255):
        place = path.stat().st_size * number // 256 + 2**16 + 100
        change(path, place)
        assert not recipes.same(nt.read_mrc_series(path, ANGLES).attrs["recipe"], before)
        change(path, place)
        assert recipes.same(nt.read_mrc_series(path, ANGLES).attrs["recipe"], before)


def test_a_copy_has_the_same_recipe(tmp_path):
    (tmp_path / "there").mkdir()
    write(tmp_path / "a.mrc")
    (tmp_path / "there/a.mrc").write_bytes((tmp_path / "a.mrc").read_bytes())
    os.utime(tmp_path / "there/a.mrc", (1, 1))
    here, there = (nt.read_mrc_series(tmp_path / folder / "a.mrc", ANGLES) for folder in (".", "there"))
    assert recipes.same(here.attrs["recipe"], there.attrs["recipe"])


def test_a_file_is_read_once_in_a_process(tmp_path, monkeypatch):
    path = tmp_path / "a.mrc"
    write(path)
    monkeypatch.setattr(source, "_SETTLED_SECONDS", -1e9)
    nt.read_mrc_series(path, ANGLES)
    read = []
    monkeypatch.setattr(source, "_checksum", lambda *arguments: read.append(arguments) or {})
    nt.read_mrc_series(path, ANGLES, background=3)
    assert read == []
    change(path, 5000)  # which leaves the time of the last change of its metadata
    nt.read_mrc_series(path, ANGLES, background=3)
    assert len(read) == 1


def test_a_repaired_file_is_imported_anew(run, tmp_path):
    path = tmp_path / "a.mrc"
    write(path)
    (tmp_path / "a.rawtlt").write_text("".join(f"{angle}\n" for angle in ANGLES))
    words = ("import", "a.mrc", "--tilt-axis", "y", "--background", "none", "-o", "s.zarr")
    run(*words)
    change(path, path.stat().st_size // 2 + 2**16 + 100)
    assert "parameters.crc32c is" in run(*words, exit_code=2).output
    run(*words, "--overwrite")
    np.testing.assert_array_equal(nt.open("s.zarr").values, nt.read_mrc_series(path, ANGLES).values)
    chunk = tmp_path / "s.zarr/tilt_series/c/0/0/0"
    before = chunk.stat().st_mtime_ns
    run(*words, "--overwrite")
    assert chunk.stat().st_mtime_ns == before  # nothing differs: nothing to compute


def test_what_version_0_1_0_imported_from_a_large_file(run, tmp_path):
    """Its recipe has samples of the file. The store is recognised by its values."""
    path = tmp_path / "a.mrc"
    write(path)
    (tmp_path / "a.rawtlt").write_text("".join(f"{angle}\n" for angle in ANGLES))
    words = ("import", "a.mrc", "--tilt-axis", "y", "--background", "none", "-o", "s.zarr")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_ALL_SAMPLED_BYTES", 2**60)
        patch.setattr(source, "_known", {})  # a slow machine would remember this checksum
        run(*words)
    assert "crc32" in nt.open("s.zarr").attrs["recipe"]["parameters"]
    before = (tmp_path / "s.zarr/tilt_series/c/0/0/0").stat().st_mtime_ns
    for more in ((), ("--overwrite",)):
        assert "found complete, with the values of a.mrc" in run(*words, *more).output
    assert (tmp_path / "s.zarr/tilt_series/c/0/0/0").stat().st_mtime_ns == before
    change(path, path.stat().st_size // 2 + 2**16 + 100)
    assert "made otherwise: parameters.crc32 is" in run(*words, exit_code=2).output
    run(*words, "--overwrite")
    np.testing.assert_array_equal(nt.open("s.zarr").values, nt.read_mrc_series(path, ANGLES).values)


@pytest.mark.parametrize("tilt_axis", ["x", "y"])
def test_a_change_between_opening_and_reading(tmp_path, tilt_axis):
    path = tmp_path / "a.mrc"
    write(path, (5, 6, 8))
    series = nt.read_mrc_series(path, ANGLES, tilt_axis=tilt_axis)
    os.utime(path, (1, 1))
    with pytest.raises(nt.SchemaError, match=r"stays as it is .* got .*a\.mrc, which has changed since it was opened"):
        series.compute()
    path.unlink()
    with pytest.raises(nt.SchemaError, match="which is gone"):
        series.compute()


TRUNCATE = """
import sys
import nntomo_dask as nt
from nntomo_dask.formats import source
original, done = source.Source._read, []

def cut(self, *arguments):
    with open(self.path, "r+b") as file:
        file.truncate(2000)
    return original(self, *arguments)

source.Source._read = cut
try:
    nt.read_mrc_series(sys.argv[1], [0, 1, 2, 3, 4], tilt_axis=sys.argv[2]).compute()
except nt.SchemaError as error:
    print(error)
"""


@pytest.mark.parametrize("tilt_axis", ["x", "y"])
def test_a_file_that_is_cut_short_while_it_is_read(tmp_path, tilt_axis):
    """Of a memory map this would be SIGBUS."""
    path = tmp_path / "a.mrc"
    write(path, (5, 60, 80))
    command = [sys.executable, "-c", TRUNCATE, str(path), tilt_axis]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    # The clock of the file system may tell it before the size does.
    assert "which has become shorter since" in ended.stdout or "which has changed since" in ended.stdout


@pytest.mark.parametrize("tilt_axis", ["x", "y"])
@pytest.mark.parametrize("extended", [0, 1024])
def test_lines_are_read_in_bands(tmp_path, monkeypatch, tilt_axis, extended):
    monkeypatch.setattr(source, "_BLOCK_BYTES", 100)
    path = tmp_path / "a.mrc"
    data = np.random.default_rng(0).integers(0, 1000, (5, 7, 70)).astype(">i2")
    with mrcfile.new(path) as mrc:
        mrc.set_data(data)
        mrc.set_extended_header(np.zeros(extended, "V1"))
    series = nt.read_mrc_series(path, ANGLES, tilt_axis=tilt_axis, keep_deg=[-60, 30]).chunk(z=3)
    axes = (2, 0, 1) if tilt_axis == "x" else (1, 0, 2)
    np.testing.assert_array_equal(series.values, np.transpose(data, axes)[:, [0, 3]])
