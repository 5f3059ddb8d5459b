"""Whether bytes in an MRC file are signed: MRC2014 says so; IMOD and SerialEM wrote unsigned ones for years."""

import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nntomo_dask.formats.mrc_header import Header

ByteKind = Literal["signed", "unsigned"]

_SIGNED_BYTES = 1  # the bit of IMOD's flags that says so
_LOOKED_AT = 2**24  # bytes of the image that decides; it is read in part where it has more
_TYPES: dict[ByteKind, str] = {"signed": "|i1", "unsigned": "|u1"}


def dtype_of(path: Path, header: Header, byte_kind: ByteKind | None = None) -> str:
    """The type of the values in a file, as NumPy writes it.

    Bytes are what `byte_kind` says, else what IMOD's flags say where they are. Elsewhere the image in the middle of the
    stack decides: read in the wrong way, bright pixels beside dark ones make it much rougher. A warning says what was
    taken, where it makes a difference.
    """
    if header.dtype != "|i1":
        return header.dtype
    if byte_kind is not None:
        return _TYPES[byte_kind]
    if header.imod_flags is not None:
        return "|i1" if header.imod_flags & _SIGNED_BYTES else "|u1"
    lines = min(header.lines, max(_LOOKED_AT // header.columns, 1))
    first = header.offset + (header.sections // 2) * header.lines * header.columns
    with path.open("rb") as file:
        file.seek(first + (header.lines - lines) // 2 * header.columns)
        image = np.frombuffer(file.read(lines * header.columns), np.int8).reshape(-1, header.columns)
    if image.min(initial=0) >= 0:
        return "|i1"
    signed, unsigned = (_roughness(image.view(kind)) for kind in (np.int8, np.uint8))
    name, taken = ("unsigned", "|u1") if unsigned < signed else ("signed", "|i1")
    warnings.warn(
        f"{path.name} does not say whether its bytes are signed; {name} ones are taken, since they make smoother "
        'images; byte_kind="signed" or "unsigned" (--bytes) decides otherwise',
        stacklevel=2,
    )
    return taken


def _roughness(image: Any) -> float:
    """Sum of the differences between neighbouring pixels."""
    values = image.astype(np.float32)
    return float(sum(np.abs(np.diff(values, axis=axis)).sum() for axis in (0, 1)))
