"""What can happen to a file, drawn from a few numbers."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nntomo_dask.networks import files as networks
from nntomo_dask.store import metadata
from nntomo_dask.store.names import ARRAYS, MARK

HOWS = ("flip", "cut", "insert", "zero", "remove", "swap", "delete", "json", "json key", "crafted")
_LENGTH_BYTES = 8  # of the header's length in a .safetensors file
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3.5, 1e308, 2**31, 2**63, 10**30, "", "x", "\x1b[2J", "é", "\ud800", "x" * 5000,
    [], {}, [1], [[]], {"a": 1}, "volume", "z", "float64", "int64", "nm", 9.0, "NaN",
)  # fmt: skip
RAW = ("NaN", "Infinity", "1" * 5000, "1e999", "[" * 500 + "]" * 500, "[" * 100_000, '{"a":' * 200 + "1" + "}" * 200)


@dataclass(frozen=True)
class Damage:
    """One damage to one of the files of a kind.

    Attributes
    ----------
    kind
        A key of `targets.KINDS`.
    how
        One of `HOWS`.
    file, place, value
        Which of its files, where in it, and what is put there; any numbers, of which remainders are taken.
    """

    kind: str
    how: str
    file: int
    place: int
    value: int

    def do(self, path: Path) -> str:
        """Damage a file or a store at `path`; says what was done."""
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        if self.how in ("json", "json key", "crafted"):
            files = [file for file in files if _has_json(file)] or files
        file = files[self.file % len(files)]
        if self.how == "delete":
            file.unlink()
            return f"{file.name} deleted"
        if self.how in ("json", "json key", "crafted") and _has_json(file):
            return f"{file.relative_to(path.parent)}: {self._json(file, path)}"
        content = bytearray(file.read_bytes())
        place, length = self.place % (len(content) + 1), 1 + self.value % 64
        if self.how == "cut":
            del content[place:]
        elif self.how == "remove":
            del content[place : place + length]
        elif self.how == "insert":
            content[place:place] = bytes((self.value + 31 * index) % 256 for index in range(length))
        elif self.how == "zero":
            content[place : place + length] = bytes(len(content[place : place + length]))
        elif self.how == "swap":
            other = self.value % (len(content) + 1)
            one, two = slice(place, place + 8), slice(other, other + 8)
            content[one], content[two] = content[two], content[one]
        elif content:
            content[place % len(content)] ^= 1 + self.value % 255
        file.write_bytes(content)
        return f"{file.relative_to(path.parent)}: {self.how} at {place}"

    def _json(self, file: Path, path: Path) -> str:
        header, write = _json_of(file)
        places = list(_places(header))
        container, key = places[self.place % len(places)]
        if self.how == "json key":
            if isinstance(container, dict) and self.value % 2:
                container[f"{key}x"] = container.pop(key)
            else:
                del container[key]
            write(json.dumps(header))
            return f"key {key!r} gone"
        number = self.value % (len(VALUES) + len(RAW))
        raw = number >= len(VALUES)
        new = "@raw@" if raw else VALUES[number]
        old, container[key] = container[key], new
        text = json.dumps(header)
        if raw:
            text = text.replace('"@raw@"', RAW[number - len(VALUES)])
        write(text)
        if self.how == "crafted" and not raw:
            _make_checksums_fit(file, path)
        return f"{key!r}: {str(old)[:60]!r} is {str(new)[:60]!r}"


def _has_json(file: Path) -> bool:
    return file.name == "zarr.json" or file.suffix == ".safetensors"


def _json_of(file: Path) -> tuple[Any, Any]:
    """The JSON of a file, and what writes another text in its place."""
    content = file.read_bytes()
    if file.suffix != ".safetensors":
        return json.loads(content), lambda text: file.write_bytes(text.encode())
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    rest = content[_LENGTH_BYTES + length :]

    def write(text: str) -> None:
        header = text.encode()
        file.write_bytes(len(header).to_bytes(_LENGTH_BYTES, "little") + header + rest)

    return json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length]), write


def _places(value: Any) -> Any:
    """Every container and key in some JSON."""
    if isinstance(value, dict | list):
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, key
            yield from _places(item)


def _make_checksums_fit(file: Path, path: Path) -> None:
    """What somebody does who wants a changed file to be opened."""
    try:
        if file.suffix == ".safetensors":
            header, _ = _json_of(file)
            texts = {key: value for key, value in header["__metadata__"].items() if "crc32" not in key}
            tensors, _ = networks.read_tensors(path, texts["format"], who="fuzz")
            networks.write_tensors(tensors, texts, file)
            return
        group = json.loads((path / metadata.FILE).read_text())
        copies = group["consolidated_metadata"]["metadata"]
        for name in copies:
            copies[name] = json.loads((path / name / metadata.FILE).read_text())
        (name,) = (name for name in ARRAYS if (path / name).is_dir())
        if MARK in group["attributes"]:
            group["attributes"][MARK] = metadata.mark_of(path, name)
        (path / metadata.FILE).write_text(json.dumps(group))
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return  # then the checksums do not fit


def copy(original: Path, folder: Path) -> Path:
    """A fresh copy of an undamaged file or store."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    target = folder / original.name
    if original.is_dir():
        shutil.copytree(original, target)
    else:
        shutil.copy(original, target)
    return target
