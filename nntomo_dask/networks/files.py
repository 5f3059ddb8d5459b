"""What every kind of network has in common, and its file: .safetensors with a checksum, written whole or not at all.

A kind of network is a class that fulfils `network.Network` and is registered in `NETWORKS`.
"""

import os
import re
import zlib
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from nntomo_dask import aside
from nntomo_dask.errors import refuse
from nntomo_dask.networks import NETWORKS
from nntomo_dask.networks.network import Metadata, Network, Tensors

FORMAT_VERSION = "1"
SUFFIX = ".safetensors"


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
    return known[metadata["format"]].from_file(tensors, metadata)


def beside(path: Path, ending: str) -> Path:
    """The path beside a network's file for something that belongs to it: its name without .safetensors, and `ending`.

    Only that suffix is left out, since a name may have dots: ``net_v0.4`` and ``net_v0.8`` are two networks.
    """
    name = path.name
    return path.with_name(f"{name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name}{ending}")


def kind_of(path: Path) -> str:
    """The kind that a file says it is; empty where it says nothing or is no .safetensors file."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return str((file.metadata() or {}).get("format", ""))
    except (OSError, safetensors.SafetensorError):
        return ""


def was_of(path: Path, kind: str) -> bool:
    """Whether a file is of a kind, or was before it was damaged: whether its beginning says so."""
    with path.open("rb") as file:
        found = re.search(rb'"format"\s*:\s*"([^"]+)"', file.read(2**20))
    return found is not None and found[1].decode() == kind


def write_tensors(tensors: Tensors, metadata: Metadata, path: Path) -> Path:
    """Write a .safetensors file with a checksum, whole or not at all."""
    metadata = {"format_version": FORMAT_VERSION, **metadata, "crc32": _checksum(tensors)}
    metadata["metadata_crc32"] = _metadata_checksum(metadata)
    with aside.written(path) as partial:
        partial.write_bytes(safetensors.numpy.save(tensors, metadata))
    return path


def read_tensors(path: Path, *kinds: str, who: str) -> tuple[Tensors, Metadata]:
    """Tensors and metadata of a .safetensors file of one of some kinds; a SchemaError where it is none of them."""
    needs = f"a {kinds[0]} file" if len(kinds) == 1 else "a network's file"
    again = "delete that file and train again: nntomo train"
    if not path.is_file():
        refuse(who, needs=needs, got=f"no file at {path}", remedy="check the path")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except safetensors.SafetensorError as error:
        refuse(who, needs=needs, got=f"a damaged or foreign file, {path} ({error})", remedy=again)
    if metadata.get("format") not in kinds or metadata.get("format_version") != FORMAT_VERSION:
        got = f"{metadata.get('format', 'something else')} {metadata.get('format_version', '')}".strip()
        if metadata.get("format") not in kinds:
            again = "give another file; in Python register_network makes more kinds known"
        refuse(who, needs=f"{needs} of version {FORMAT_VERSION}", got=f"{got} in {path}", remedy=again)
    written = metadata.pop("crc32", ""), metadata.pop("metadata_crc32", "")  # files of before have none
    found = _checksum(tensors), _metadata_checksum(metadata)
    if any(one not in ("", other) for one, other in zip(written, found, strict=True)):
        refuse(who, needs=needs, got=f"a damaged file, {path} (its checksum is another)", remedy=again)
    return tensors, metadata


def _metadata_checksum(metadata: Metadata) -> str:
    lines = (f"{key}={value}" for key, value in sorted(metadata.items()) if "crc32" not in key)
    return f"{zlib.crc32(chr(10).join(lines).encode()):08x}"


def _checksum(tensors: Tensors) -> str:
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(np.ascontiguousarray(tensors[name]).tobytes(), zlib.crc32(name.encode(), checksum))
    return f"{checksum:08x}"
