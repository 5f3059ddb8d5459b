"""The lock of a store: by the operating system, by a file where there is none, and as Windows has it."""

import errno
import fcntl
import importlib
import os
import platform
import subprocess
import sys
import types

import pytest

import nntomo_dask as nt
from nntomo_dask.store import lock

HOLD = """
import errno, fcntl, sys, warnings
from pathlib import Path
from nntomo_dask.store import lock

def none(*_):
    raise OSError(errno.ENOLCK, "No locks available")

if sys.argv[2] == "marker":
    fcntl.flock = none
    warnings.simplefilter("ignore")
with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["lock", "marker"])
def kind(request, monkeypatch):
    """The operating system's lock, or a file system without locks."""
    if request.param == "marker":
        without_locks(monkeypatch)
    return request.param


def without_locks(monkeypatch, number=errno.ENOLCK):
    def none(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)


@pytest.fixture
def holder(tmp_path, kind):
    """Another process that holds the lock until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "a.zarr", kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.filterwarnings("ignore:.*this file system has no locks")
def test_one_process_holds_it(holder, tmp_path):
    target = tmp_path / "a.zarr"
    assert lock.is_held(target)
    named = rf"no other run writes to; got .*a\.zarr, process {holder.pid} on {platform.node()} since "
    with pytest.raises(nt.SchemaError, match=named), lock.held(target):
        pass
    assert not lock.is_held(tmp_path / "b.zarr")
    holder.stdin.close()
    holder.wait()
    assert not lock.is_held(target)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*this file system has no locks")
def test_a_killed_process_holds_nothing(holder, tmp_path):
    target = tmp_path / "a.zarr"
    holder.kill()
    holder.wait()
    assert not lock.is_held(target)
    with lock.held(target):
        assert lock.is_held(target)
        with pytest.raises(nt.SchemaError, match=f"process {os.getpid()} on"), lock.held(target):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_mentioned(tmp_path, monkeypatch, number):
    without_locks(monkeypatch, number)
    with pytest.warns(UserWarning, match=r"has no locks .* \.a\.zarr\.writing marks the store"):
        with lock.held(tmp_path / "a.zarr"):
            assert [path.name for path in tmp_path.iterdir()] == [".a.zarr.writing"]


@pytest.mark.filterwarnings("ignore:.*this file system has no locks")
def test_a_marker_of_another_machine_is_kept(tmp_path, monkeypatch):
    """Nobody here knows whether its process runs: the message says what to delete."""
    without_locks(monkeypatch)
    marker = tmp_path / ".a.zarr.writing"
    marker.write_text("process 1 on elsewhere since then\nelsewhere\n1\n0.0")
    assert lock.is_held(tmp_path / "a.zarr")
    with pytest.raises(nt.SchemaError, match=r"process 1 on elsewhere since then; try: .* delete .*\.a\.zarr\.writing"):
        with lock.held(tmp_path / "a.zarr"):
            pass
    assert marker.exists()


@pytest.mark.filterwarnings("ignore:.*this file system has no locks")
def test_a_process_number_that_was_given_again_is_recognised(tmp_path, monkeypatch):
    without_locks(monkeypatch)
    marker = tmp_path / ".a.zarr.writing"
    marker.write_text(f"process {os.getpid()} on here since then\n{platform.node()}\n{os.getpid()}\n1000.0")
    with lock.held(tmp_path / "a.zarr"):
        assert f"process {os.getpid()}" in marker.read_text()


def test_a_damaged_marker_is_kept(tmp_path, monkeypatch):
    without_locks(monkeypatch)
    (tmp_path / ".a.zarr.writing").write_text("process 1 on here since then\nhere\none\nnow")
    assert lock.is_held(tmp_path / "a.zarr")


def test_other_errors_stay(tmp_path, monkeypatch):
    without_locks(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"), lock.held(tmp_path / "a.zarr"):
        pass


@pytest.fixture
def on_windows(monkeypatch):
    """The module as Windows imports it: no fcntl, a msvcrt that says EACCES, and `flock` behind it."""
    flock = fcntl.flock

    def locking(descriptor, mode, length):
        assert (mode, length) == (msvcrt.LK_NBLCK, 1)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 2**30
        try:
            flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None

    msvcrt = types.ModuleType("msvcrt")
    msvcrt.LK_NBLCK, msvcrt.locking = 2, locking
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "msvcrt", msvcrt)
        patch.setitem(sys.modules, "fcntl", None)
        patch.setattr(sys, "platform", "win32")
        specification = importlib.util.find_spec("nntomo_dask.store.lock")
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        patch.setattr(module, "_WINDOWS", True)
        yield module


def test_windows_locks_a_byte_beyond_the_name(tmp_path, on_windows):
    target = tmp_path / "a.zarr"
    with on_windows.held(target):
        assert on_windows.is_held(target)
        with pytest.raises(nt.SchemaError, match=f"process {os.getpid()} on"), on_windows.held(target):
            pass
    assert not on_windows.is_held(target)
    assert list(tmp_path.iterdir()) == []
