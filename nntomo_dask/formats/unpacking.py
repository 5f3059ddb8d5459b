"""Files packed by gzip or bzip2: unpacked to a temporary file, block by block, since pixels are read in any order."""

import atexit
import bz2
import contextlib
import gzip
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import psutil

from nntomo_dask import aside
from nntomo_dask.errors import SchemaError, refuse

SUFFIXES = (".gz", ".bz2")
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}
_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2"}
_BLOCK_BYTES = 2**20
_FREE_BYTES = 2**26  # up to which any ratio is taken
_MOST_RATIO = 100  # of measured images; what is mostly zeros is packed to a thousandth
_made: set[Path] = set()  # folders that are there
_FOLDER = re.compile(r"nntomo-unpacked-(?P<pid>\d+)-(?P<start>\d+)-.*")


def kind(path: Path) -> str | None:
    """The suffix of a file that is packed, by its first bytes; None of any other."""
    try:
        with path.open("rb") as file:
            start = file.read(3)
    except OSError:
        return None
    return next((suffix for magic, suffix in _MAGIC.items() if start.startswith(magic)), None)


def unpacked(path: Path, folder: Path | None = None) -> Path:
    """Unpack a file into a new folder, which is removed when the process ends.

    It has the name of the packed one without its suffix. Memory is taken for two blocks of a MiB, whatever the file
    says. What an earlier process left, that has been killed, is removed.

    Parameters
    ----------
    folder
        Where the new folder is made; by default that of temporary files (TMPDIR).

    Raises
    ------
    SchemaError
        It is damaged, grows to more than a hundred times its size, or does not fit on the disk.
    """
    suffix = kind(path)
    assert suffix is not None
    parent = Path(tempfile.gettempdir()) if folder is None else folder
    _remove_leftovers(parent)
    process = psutil.Process()
    place = Path(tempfile.mkdtemp(prefix=f"nntomo-unpacked-{process.pid}-{int(process.create_time())}-", dir=parent))
    _made.add(place)
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    name = path.stem if path.suffix.lower() in SUFFIXES else path.name
    target = place / name
    done = False
    try:
        with aside.naming(target), _OPENERS[suffix](path, "rb") as source, target.open("wb") as written:
            _copy(source, written, path)
        done = True
    except SchemaError:
        raise
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError) as error:
        got = f"{path}, which is damaged ({error})"
        refuse("import", needs="a packed file that is whole", got=got, remedy="copy the file again")
    except OSError as error:
        if error.filename is None and error.errno is None:  # how bzip2 says that data are damaged
            got = f"{path}, which is damaged ({error})"
            refuse("import", needs="a packed file that is whole", got=got, remedy="copy the file again")
        raise
    finally:
        if not done:
            shutil.rmtree(place, ignore_errors=True)
    return target


@contextlib.contextmanager
def cleared() -> Iterator[None]:
    """Remove at the end what was unpacked within the context."""
    before = set(_made)
    try:
        yield
    finally:
        for place in _made - before:
            shutil.rmtree(place, ignore_errors=True)
            _made.discard(place)


def _copy(source: IO[bytes], written: IO[bytes], path: Path) -> None:
    packed = path.stat().st_size
    most = max(_FREE_BYTES, _MOST_RATIO * packed)
    size = 0
    while block := source.read(_BLOCK_BYTES):
        size += len(block)
        if size > most:
            refuse(
                "import",
                needs=f"a packed file of images, which unpacks to less than {_MOST_RATIO} times its size",
                got=f"{path}, {packed} bytes that unpack to more than {most}",
                remedy="unpack it first, if you know what it is",
            )
        written.write(block)


def _remove_leftovers(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            found = _FOLDER.fullmatch(entry.name)
            if found and entry.is_dir() and not aside.runs(int(found["pid"]), float(found["start"])):
                shutil.rmtree(entry.path, ignore_errors=True)
