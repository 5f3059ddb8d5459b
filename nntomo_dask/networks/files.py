"""What every kind of network has in common, and its file: .safetensors with checksums, written whole or not at all.

A kind of network is a class that fulfils `network.Network` and is registered in `NETWORKS`. A file that is read may be
damaged or made to do harm: its header is checked within bounds before anything is read that it describes.
"""

import json
import math
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import safetensors
import safetensors.numpy

from nntomo_dask import aside
from nntomo_dask.errors import SchemaError, refuse
from nntomo_dask.networks import NETWORKS
from nntomo_dask.networks.network import Metadata, Network, Tensors
from nntomo_dask.untrusted import LONGEST_JSON, parsed_object

FORMAT_VERSION = "1"
SUFFIX = ".safetensors"
_LENGTH_BYTES = 8  # of the header's length, at the beginning of the file
_ALIGNMENT = 8  # bytes
_ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U8": 1,
    "BOOL": 1,
}
_MOST_BYTES = 2**32  # of all tensors; a training's checkpoint has some megabytes
_CHECKSUMS = ("crc32", "metadata_crc32")
_OF_SHAPES = "shapes_crc32"  # not in files of version 0.1.0

Built = TypeVar("Built")


def save_network(network: Network, path: str | os.PathLike[str]) -> Path:
    """Write a network of any kind to a .safetensors file, whole or not at all.

    Raises
    ------
    SchemaError
        `path` is a folder or a device, or lies inside a store.
    OSError
        The place cannot be written.
    """
    tensors, metadata = network.to_file()
    return write_tensors(tensors, {**metadata, "format": network.FORMAT}, Path(path))


def load_network(path: str | os.PathLike[str]) -> Network:
    """Read a network that `save_network` wrote, of whatever kind: an `NNFBPNetwork`, an `MSDNetwork`, ….

    Raises
    ------
    SchemaError
        There is no such file, it is damaged, or it holds something else.
    """
    known = {kind.FORMAT: kind for kind in NETWORKS.values()}
    tensors, metadata = read_tensors(Path(path), *known, who="load_network")
    kind = known[metadata["format"]]
    return built(lambda: kind.from_file(tensors, metadata), Path(path), who="load_network")


def built(make: Callable[[], Built], path: Path, *, who: str) -> Built:
    """What `make` makes of the contents of a file; a SchemaError where it finds other contents than were written."""
    try:
        return make()
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        reason = str(error) if isinstance(error, SchemaError) else f"{type(error).__name__}: {error}"
        _refuse_damaged(who, path, f"its contents are not those of a network, {reason}")


def beside(path: Path, ending: str) -> Path:
    """The path beside a network's file for something that belongs to it: its name without .safetensors, and `ending`.

    Only that suffix is left out, since a name may have dots: ``net_v0.4`` and ``net_v0.8`` are two networks.
    """
    name = path.name
    return path.with_name(f"{name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name}{ending}")


def kind_of(path: Path) -> str:
    """The kind that a file says it is; empty where it says nothing or is no .safetensors file."""
    try:
        return _metadata(_header(path)[0]).get("format", "")
    except (OSError, ValueError):
        return ""


def was_of(path: Path, kind: str) -> bool:
    """Whether a file is of a kind, or was before it was damaged: whether its beginning says so."""
    with path.open("rb") as file:
        found = re.search(rb'"format"\s*:\s*"([^"]+)"', file.read(2**20))
    return found is not None and found[1].decode() == kind


def write_tensors(tensors: Tensors, metadata: Metadata, path: Path) -> Path:
    """Write a .safetensors file, with checksums, whole or not at all. Equal contents are equal bytes."""
    metadata = {"format_version": FORMAT_VERSION, **metadata, "crc32": _checksum(tensors)}
    metadata["metadata_crc32"] = _metadata_checksum(metadata)
    metadata[_OF_SHAPES] = _shapes_checksum(tensors)
    with aside.written(path) as partial:
        partial.write_bytes(_in_order(safetensors.numpy.save(tensors, metadata)))
    return path


def _refuse_kind(who: str, needs: str, got: str, path: Path, *, known: bool) -> NoReturn:
    """Raise a SchemaError: a file holds something else, or is of another version."""
    ending = ".training.safetensors"  # as `nntomo train` names checkpoints
    if path.name.endswith(ending):
        network = path.with_name(path.name.removesuffix(ending) + SUFFIX)
        remedy = f"the network, {network}, which is written when its training has ended"
        refuse(who, needs=needs, got=f"{got}, the state of a training", remedy=remedy)
    if known:
        refuse(who, needs=needs, got=got, remedy="the version of nntomo_dask that wrote it, or train again")
    refuse(
        who,
        needs=needs,
        got=got,
        remedy="give another file; register_network makes more kinds known",
        command="give another file",
    )


def read_tensors(path: Path, *kinds: str, who: str) -> tuple[Tensors, Metadata]:
    """Tensors and metadata of a .safetensors file of one of some kinds; a SchemaError where it is none of them."""
    needs = f"a {kinds[0]} file" if len(kinds) == 1 else "a network's file"
    if not path.is_file():
        got = f"a folder, {path}" if path.is_dir() else f"nothing at {path}"
        refuse(who, needs=needs, got=got, remedy="check the path")
    try:
        header, size = _header(path)
    except ValueError as error:
        got = f"{path}, which is none, or damaged from its first bytes on ({error})"
        refuse(
            who, needs=needs, got=got, remedy="check the path; a network that is lost is trained again: nntomo train"
        )
    try:
        metadata = _metadata(header)
        kind, version = metadata.get("format"), metadata.get("format_version")
        if kind is not None and (kind not in kinds or version != FORMAT_VERSION):
            got = f"{kind} {version or ''}".strip()
            _refuse_kind(who, f"{needs} of version {FORMAT_VERSION}", f"{got} in {path}", path, known=kind in kinds)
        if kind is None:
            refuse(who, needs=needs, got=f"a file of another program, {path}", remedy="give another file")
        _check_tensors(header, size)
        with safetensors.safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        _check_checksums(tensors, metadata)
    except SchemaError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, safetensors.SafetensorError) as error:
        _refuse_damaged(who, path, str(error))
    return tensors, metadata


def _check_checksums(tensors: Tensors, metadata: Metadata) -> None:
    """Take the checksums out of the metadata; a ValueError where one is another."""
    written = {name: metadata.pop(name, "") for name in (*_CHECKSUMS, _OF_SHAPES)}
    found = {
        "crc32": _checksum(tensors),
        "metadata_crc32": _metadata_checksum(metadata),
        _OF_SHAPES: _shapes_checksum(tensors),
    }
    if any(written[name] != found[name] for name in found if name in _CHECKSUMS or written[name]):
        raise ValueError("its checksum is another")


def _refuse_damaged(who: str, path: Path, reason: str) -> NoReturn:
    refuse(
        who,
        needs="a network's file as it was written",
        got=f"a damaged file, {path} ({reason})",
        remedy="delete that file and train again: nntomo train",
    )


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a file, and how many bytes of tensors follow it; a ValueError where there is none."""
    size = path.stat().st_size - _LENGTH_BYTES
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < 2 or not 2 <= length <= min(size, LONGEST_JSON):
            raise ValueError("it has no header of .safetensors")
        return parsed_object(file.read(length)), size - length


def _metadata(header: dict[str, Any]) -> Metadata:
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are no texts")
    return dict(metadata)


def _check_tensors(header: dict[str, Any], size: int) -> None:
    """Raise a ValueError where the tensors of a header are not just the bytes that follow it."""
    total = 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(tensor, dict) or not {"dtype", "shape", "data_offsets"} == set(tensor):
            raise ValueError(f"the tensor {name!r} is not described")
        dtype, shape, offsets = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
            raise ValueError(f"the tensor {name!r} has the unknown type {str(dtype)[:20]!r}")
        if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
            raise ValueError(f"the tensor {name!r} has no size")
        if offsets[1] > size or offsets[1] - offsets[0] != math.prod(shape) * _ITEM_BYTES[dtype]:
            raise ValueError(f"the tensor {name!r} is not as large as the file says")
        total += offsets[1] - offsets[0]
    if total != size or size > _MOST_BYTES:
        raise ValueError("its tensors are not as large as the file")


def _are_sizes(values: Any) -> bool:
    return (
        isinstance(values, list) and len(values) <= 8 and all(type(one) is int and 0 <= one < 2**62 for one in values)
    )


def _in_order(content: bytes) -> bytes:
    """A .safetensors file with the metadata in the order of their keys; safetensors writes them in any order."""
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + content[_LENGTH_BYTES + length :]


def _metadata_checksum(metadata: Metadata) -> str:
    lines = (f"{key}={value}" for key, value in sorted(metadata.items()) if "crc32" not in key)
    return f"{zlib.crc32(chr(10).join(lines).encode()):08x}"


def _shapes_checksum(tensors: Tensors) -> str:
    lines = (f"{name}: {tensors[name].dtype.str} {list(tensors[name].shape)}" for name in sorted(tensors))
    return f"{zlib.crc32(chr(10).join(lines).encode()):08x}"


def _checksum(tensors: Tensors) -> str:
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(np.ascontiguousarray(tensors[name]).tobytes(), zlib.crc32(name.encode(), checksum))
    return f"{checksum:08x}"
