"""One run at a time writes a store or a file; a run that was killed holds nothing.

The lock is the operating system's, on a hidden file beside it: `flock` on Linux and macOS, `msvcrt.locking` on
Windows. It ends with the process, however that ends. Some network file systems have no such locks. There a file that
only one process can create takes its place. It names its process and host; a process of the same host that has ended
is recognised, one of another host is not.
"""

import contextlib
import errno
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import psutil

from nntomo_dask import aside
from nntomo_dask.errors import refuse

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# A reader that asks `is_held` holds the lock for an instant, so that a writer tries more than once.
_TRIES, _PAUSE_SECONDS = 5, 0.02
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}  # what a file system without locks answers
_WINDOWS = os.name == "nt"
_reserved: set[Path] = set()  # held by `reserved` in this process
_BEYOND = 2**30  # the byte that is locked on Windows, where locked bytes cannot be read: none of the holder's name


class _NoLocksError(OSError):
    """The file system has no locks."""


@contextlib.contextmanager
def held(target: Path) -> Iterator[None]:
    """Hold the right to write a store or file, or refuse where another run does.

    Raises
    ------
    SchemaError
        Another run holds it.
    OSError
        The folder cannot be written.
    """
    if target in _reserved:
        yield
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = _locked(_path(target))
    except _NoLocksError as error:
        _path(target).unlink(missing_ok=True)
        warnings.warn(
            f"{target.parent}: this file system has no locks ({error}). {_marker(target).name} marks the store as "
            "being written; a run that is killed on another machine leaves it behind",
            stacklevel=3,
        )
        with _marked(target):
            yield
        return
    if descriptor is None:
        _refuse(target, _path(target), "wait for that")
    try:
        with contextlib.suppress(OSError):  # on a full disk the lock holds without the name of its holder
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, _name().encode())
        yield
    finally:
        _release(descriptor, _path(target))


@contextlib.contextmanager
def reserved(targets: Sequence[Path]) -> Iterator[None]:
    """Hold several places from the beginning of a command to its end; within, `held` lets this process write to them.

    Folders that have to be made for the locks are removed at the end where nothing was written into them.

    Raises
    ------
    SchemaError, OSError
        As for `held`, of the first place that cannot be had; none is held then.
    """
    missing = {parent for target in targets for parent in target.parents if not parent.exists()}
    try:
        with contextlib.ExitStack() as all_held:
            for target in targets:
                with _about(target):
                    all_held.enter_context(held(target))
            _reserved.update(targets)
            try:
                yield
            finally:
                _reserved.difference_update(targets)
    finally:
        for parent in sorted(missing, key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):  # it is not empty
                parent.rmdir()


@contextlib.contextmanager
def _about(target: Path) -> Iterator[None]:
    """Let an error speak of the place, of which users know, and not of its lock."""
    try:
        yield
    except OSError as error:
        if str(error.filename) not in ("None", str(_path(target)), str(_marker(target))):
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


def is_held(target: Path) -> bool:
    """Whether another run is writing a store or file just now, or this one without having `reserved` it."""
    if target in _reserved:
        return False
    try:
        descriptor = os.open(_path(target), os.O_RDWR if _WINDOWS else os.O_RDONLY)
    except FileNotFoundError:
        return _is_marked(target)
    try:
        _lock(descriptor, exclusive=False)
        return _is_marked(target)
    except _NoLocksError:
        return _is_marked(target)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def is_left(target: Path) -> bool:
    """Whether a lock file lies there, of a run that writes or of one that was killed."""
    return _path(target).exists() or _marker(target).exists()


def _path(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def _marker(target: Path) -> Path:
    """The file that takes the place of a lock."""
    return target.with_name(f".{target.name}.writing")


def _name() -> str:
    """Who this process is: for people."""
    return f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"


def _refuse(target: Path, path: Path, remedy: str) -> NoReturn:
    try:
        holder = path.read_text(encoding="utf-8").partition("\n")[0] or "which another run has just begun"
    except FileNotFoundError:
        holder = "where another run is just ending"
    refuse("save", needs="a place that no other run writes to", got=f"{target}, {holder}", remedy=remedy)


# The operating system's lock.


def _locked(path: Path) -> int | None:
    """The lock file, open and locked; None where another process has it."""
    tries = 0
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, exclusive=True)
            # Between opening and locking the holder may have ended and removed the file: then begin again. Windows
            # removes no file that is open.
            if _WINDOWS or os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        except BlockingIOError:
            tries += 1
            if tries == _TRIES:
                os.close(descriptor)
                return None
            time.sleep(_PAUSE_SECONDS)
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, *, exclusive: bool) -> None:
    """Lock an open file; a BlockingIOError where another has it, a _NoLocksError where there are no locks."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _BEYOND, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise _NoLocksError(error.errno, error.strerror) from error
        if _WINDOWS and error.errno in (errno.EACCES, errno.EDEADLK):
            raise BlockingIOError(error.errno, error.strerror) from error
        raise


def _release(descriptor: int, path: Path) -> None:
    """Remove the lock file and with it the lock."""
    if not _WINDOWS:
        path.unlink(missing_ok=True)
    os.close(descriptor)
    if _WINDOWS:  # which removes no open file: not ours before it is closed, not that of a run that follows at once
        with contextlib.suppress(PermissionError):
            path.unlink(missing_ok=True)


# A file in its place.


@contextlib.contextmanager
def _marked(target: Path) -> Iterator[None]:
    """Hold the right to write a store by a file that only one process can create."""
    marker = _marker(target)
    text = "\n".join([_name(), platform.node(), str(os.getpid()), repr(psutil.Process().create_time())])
    while True:
        try:
            descriptor = os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            break
        except FileExistsError:
            if _is_marked(target):
                _refuse(target, marker, f"wait for that, or delete {marker} if it runs no more")
            _take_away(marker)
    try:
        os.write(descriptor, text.encode())
        os.close(descriptor)
        yield
    finally:
        marker.unlink(missing_ok=True)


def _take_away(marker: Path) -> None:
    """Remove the marker of a process that has ended, unless a run that saw it too has put its own there meanwhile."""
    taken = marker.with_name(f"{marker.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        marker.rename(taken)
        if _runs(taken):
            taken.rename(marker)
        taken.unlink(missing_ok=True)


def _is_marked(target: Path) -> bool:
    return _runs(_marker(target))


def _runs(marker: Path) -> bool:
    """Whether the process that a marker names may still run; one of another machine may."""
    try:
        _, host, process, started = marker.read_text(encoding="utf-8").split("\n")
        number, since = int(process), float(started)
    except FileNotFoundError:
        return False
    except ValueError:  # it has just been created
        return True
    return host != platform.node() or aside.runs(number, since)
