"""Compiling kernels by Numba, and where what was compiled is kept.

Numba keeps it beside the source or in the user's cache folder. Where neither can be written, as in a container without
a home, it refuses to compile at all; then a folder for temporary files takes their place, and where there is none,
nothing is kept.
"""

import atexit
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

_SOURCES = Path(__file__).parent


def njit(**options: Any) -> Any:
    """``numba.njit`` with these options; ``cache=True`` where there is a place for the cache."""
    import numba

    return numba.njit(**options | {"cache": bool(options.get("cache")) and _HAS_CACHE})


def place_cache() -> bool:
    """Give Numba a folder for its cache, if it has none that it can write; whether there is one."""
    if any(_is_writable(folder) for folder in _usual_folders()):
        return True
    chosen = _own_folder()
    if chosen is None:
        return False
    os.environ["NUMBA_CACHE_DIR"] = str(chosen)  # for processes that this one starts, and for Numba when it is imported
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(chosen)
    return True


def _usual_folders() -> list[Path]:
    """Where Numba looks, in its order."""
    named = os.environ.get("NUMBA_CACHE_DIR", "")
    if "numba" in sys.modules:
        named = sys.modules["numba"].config.CACHE_DIR or named
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  where there is no home, pathlib raises
    cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    folders = [_SOURCES / "__pycache__", cache / "numba"]
    if sys.platform == "darwin":
        folders[1] = home / "Library/Caches/numba"
    elif sys.platform == "win32":
        folders[1] = Path(os.environ.get("LOCALAPPDATA") or home) / "numba" / "Cache"
    return [folder for folder in (*([Path(named)] if named else []), *folders) if folder.is_absolute()]


def _own_folder() -> Path | None:
    """A folder for temporary files that nobody else can write: what is read from it is run."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    try:
        folder = Path(tempfile.gettempdir()) / f"nntomo_dask-numba-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        own = stat.S_ISDIR(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == os.getuid())
        if own and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and _is_writable(folder):
            return folder
    except OSError:
        pass
    try:
        folder = Path(tempfile.mkdtemp(prefix="nntomo_dask-numba-"))
    except OSError:
        return None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


_HAS_CACHE = place_cache()
