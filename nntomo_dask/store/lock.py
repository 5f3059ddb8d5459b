"""One run at a time writes a store; a run that was killed holds nothing."""

import contextlib
import fcntl
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from nntomo_dask.errors import refuse


@contextlib.contextmanager
def held(target: Path) -> Iterator[None]:
    """Hold the right to write a store, or refuse where another run does.

    The lock is the operating system's, on a hidden file beside the store: it ends with the process, however that ends.

    Raises
    ------
    SchemaError
        Another run holds it.
    OSError
        The folder cannot be written.
    """
    path = _path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    file = _locked(path)
    if file is None:
        refuse(
            "save",
            needs="a place that no other run writes to",
            got=f"{target}, {_holder(path)}",
            remedy="wait for that",
        )
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def is_held(target: Path) -> bool:
    """Whether some run is writing a store just now."""
    path = _path(target)
    try:
        with path.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


def _path(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def _locked(path: Path) -> IO[str] | None:
    """The lock file, open and locked; None where another process has it."""
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking the holder may have ended and removed the file: then begin again.
            if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        except BlockingIOError:
            file.close()
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()


def _holder(path: Path) -> str:
    try:
        return path.read_text() or "which another run has just begun"
    except FileNotFoundError:
        return "where another run is just ending"
