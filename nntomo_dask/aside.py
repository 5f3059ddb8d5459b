"""Files that appear whole or not at all: written beside their place, flushed to the disk, and renamed.

The name of a file that is being written, ``.NAME.HOST-PID-START-TOKEN.partial``, says which process writes it. If that
process has ended, the next one that writes at this place removes the file. START is the process's start time, so that
a number that the system has given to another process since is not mistaken for it. HOST stands for the machine and, in
a container, for its own numbering of processes. What happens elsewhere cannot be known: a file of another host, or of
version 0.1.0, whose names say less, is removed when nothing has been written to it for a day.
"""

import contextlib
import errno
import hashlib
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil

from nntomo_dask.errors import refuse

_SUFFIX = ".partial"
_MARK = re.compile(r"(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}|\d+")  # \d+: version 0.1.0
_SAME_START_SECONDS = 2.0  # a correction of the clock moves what the system says of a process's start
_LONG_NAME_BYTES = 180  # file systems allow 255
_FORGOTTEN_SECONDS = 24 * 3600.0
# What only writing can end in, so that a file without a name in the error must be the one that is written.
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


@contextlib.contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of a file to write; when that is done, the file is flushed and becomes `path`.

    A symbolic link stays, and what it leads to is written. If an exception ends the writing, `path` stays as it was.

    Raises
    ------
    SchemaError
        A file cannot be written at `path`: it is a folder or a device, or lies inside a Zarr store.
    OSError
        The place cannot be written; `filename` says which.
    """
    place = resolved(path)
    check_file(place, who="save")
    partial = place.with_name(f"{_before(place)}{_mark()}{_SUFFIX}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place)
        yield partial
        flush(partial)
        partial.replace(place)
        flush_folder(place.parent)
    except OSError as error:
        if _names_another(error, partial):
            raise
        raise _named(error, place) from error
    finally:
        with contextlib.suppress(OSError):  # it is gone already, or an error of the same cause is on its way
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def written_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of a folder to write; when that is done, its files are flushed and it becomes `path`.

    A folder that is there already is replaced: whoever calls this has made sure that it may be. If an exception ends
    the writing, `path` stays as it was. A process that is killed between the two renames at the end leaves no folder.

    Raises
    ------
    SchemaError
        A folder cannot be written at `path`: it is a file, or lies inside a Zarr store.
    OSError
        The place cannot be written; `filename` says which.
    """
    place = resolved(path)
    check_folder(place, who="save")
    partial, old = (place.with_name(f"{_before(place)}{_mark()}{_SUFFIX}") for _ in range(2))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place)
        partial.mkdir()
        yield partial
        for folder, _, names in os.walk(partial):
            for name in names:
                flush(Path(folder, name))
            flush_folder(Path(folder))
        if place.exists():
            place.rename(old)
        partial.rename(place)
        flush_folder(place.parent)
    except OSError as error:
        if error.filename is not None and not str(error.filename).startswith(str(partial)):
            raise
        raise _named(error, place) from error
    finally:
        for folder_to_remove in (partial, old):
            shutil.rmtree(folder_to_remove, ignore_errors=True)


def _mark() -> str:
    """What stands in the name of a partial file or folder: who writes it, and a token."""
    return f"{_host()}-{os.getpid()}-{_start()}-{uuid.uuid4().hex[:8]}"


def resolved(path: str | os.PathLike[str]) -> Path:
    """Where a path leads to, through all symbolic links.

    Raises
    ------
    SchemaError
        The links lead to each other.
    """
    try:
        return Path(path).resolve()
    except RuntimeError:
        refuse("save", needs="a path", got=f"{path}, links that lead to each other", remedy="give another path")


def check_file(place: Path, *, who: str) -> None:
    """Raise a SchemaError where no file may be written at a resolved path."""
    if not place.name:
        refuse(who, needs="the path of a file to write", got=f"{place}", remedy="give a path with a name")
    if place.is_dir():
        refuse(who, needs="the path of a file to write", got=f"{place}, which is a folder", remedy="give another path")
    if place.exists() and not place.is_file():
        refuse(who, needs="the path of a file to write", got=f"{place}, a device or pipe", remedy="give another path")
    _check_is_in_no_store(place, who=who)


def check_folder(place: Path, *, who: str) -> None:
    """Raise a SchemaError where no folder may be written at a resolved path."""
    here = Path.cwd()
    if not place.name or place == here or place in here.parents:
        got = f"{place}, in which this command runs" if place.name else f"{place}"
        refuse(who, needs="the path of a folder to write", got=got, remedy="give a path with a name of its own")
    if place.exists() and not place.is_dir():
        got = f"{place}, which is a file"
        refuse(who, needs="the path of a folder to write", got=got, remedy="give another path")
    _check_is_in_no_store(place, who=who)


def _check_is_in_no_store(place: Path, *, who: str) -> None:
    for parent in place.parents:
        if any((parent / name).is_file() for name in ("zarr.json", ".zgroup")):
            refuse(
                who,
                needs="a path outside of stores",
                got=f"{place}, inside the store {parent}",
                remedy=f"give a path beside it, {parent.with_name(place.name)}",
            )


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give the errors of writing that name no file, such as that the disk is full, the name of a file."""
    try:
        yield
    except OSError as error:
        if _names_another(error):
            raise
        raise _named(error, path) from error


def _names_another(error: OSError, partial: Path | None = None) -> bool:
    """Whether an error names a file other than the one that is written, or none although it may be of reading."""
    if error.filename is None:
        return error.errno not in _OF_WRITING
    return partial is None or str(error.filename) != str(partial)


def _named(error: OSError, place: str | os.PathLike[str]) -> OSError:
    return OSError(error.errno, error.strerror or os.strerror(error.errno or 0), str(place))


def flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows flushes no reader's file
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems that have nothing to flush
            raise
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that."""
    if os.name != "nt":
        with contextlib.suppress(OSError):
            flush(folder)


def remove_leftovers(place: Path) -> None:
    """Remove the files and folders that processes which have ended were writing for a resolved path."""
    before = _before(place)
    with contextlib.suppress(OSError):
        for entry in list(place.parent.iterdir()):
            if entry.name.startswith(before) and entry.name.endswith(_SUFFIX):
                mark = _MARK.fullmatch(entry.name[len(before) : -len(_SUFFIX)])
                if mark is not None and not _may_be_written(entry, mark):
                    if entry.is_dir() and not entry.is_symlink():
                        shutil.rmtree(entry, ignore_errors=True)
                    else:
                        entry.unlink(missing_ok=True)


def _before(place: Path) -> str:
    """How the names of the files begin that are written for a place; a long name would make them too long."""
    name = os.fsencode(place.name)
    return f".{place.name}." if len(name) <= _LONG_NAME_BYTES else f".{hashlib.sha256(name).hexdigest()[:32]}."


def _may_be_written(partial: Path, mark: re.Match[str]) -> bool:
    if mark["host"] == _host():
        return runs(int(mark["pid"]), float(mark["start"]))
    with contextlib.suppress(FileNotFoundError):
        return abs(time.time() - partial.stat().st_mtime) < _FORGOTTEN_SECONDS
    return False


def runs(process: int, started: float) -> bool:
    """Whether the process of this machine with that number and start time, [s] since 1970, still runs."""
    try:
        found = psutil.Process(process)
        return bool(abs(found.create_time() - started) < _SAME_START_SECONDS and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _start() -> int:
    return int(psutil.Process().create_time())


def _host() -> str:
    """Eight digits for this machine; within a container for the container, since it counts processes by itself."""
    numbering = ""
    with contextlib.suppress(OSError):
        numbering = str(Path("/proc/self/ns/pid").stat().st_ino)
    return hashlib.sha256(f"{platform.node()} {numbering}".encode()).hexdigest()[:8]
