"""Whether bytes in an MRC file are signed: MRC2014 says so; IMOD and SerialEM wrote unsigned ones for years."""

import warnings
from typing import Any, Literal

import numpy as np

_IMOD_STAMP = 1146047817  # in bytes 152 to 155 of files that IMOD writes
_SIGNED_BYTES = 1  # the bit of IMOD's flags, in bytes 156 to 159, that says so
_STAMP, _FLAGS = (slice(152, 156), slice(156, 160))


def dtype_of(mrc: Any) -> str:
    """The type of the values in an open file, as NumPy writes it.

    IMOD's flags decide where they are. Elsewhere the image in the middle of the stack decides: read in the wrong way,
    bright pixels beside dark ones make it much rougher. A warning says what was taken, where it makes a difference.
    """
    dtype = mrc.data.dtype
    if dtype != np.int8:
        return str(dtype.str)
    header = mrc.header.tobytes()
    order: Literal["little", "big"] = "big" if mrc.header.dtype["nx"].str[0] == ">" else "little"
    if int.from_bytes(header[_STAMP], order) == _IMOD_STAMP:
        flags = int.from_bytes(header[_FLAGS], order)
        return "|i1" if flags & _SIGNED_BYTES else "|u1"
    image = np.asarray(mrc.data[len(mrc.data) // 2] if mrc.data.ndim > 2 else mrc.data)
    if image.min() >= 0:
        return "|i1"
    signed, unsigned = (_roughness(image.view(kind)) for kind in (np.int8, np.uint8))
    name, taken = ("unsigned", "|u1") if unsigned < signed else ("signed", "|i1")
    warnings.warn(
        f"the file does not say whether its bytes are signed; {name} ones are taken, since they make smoother images",
        stacklevel=2,
    )
    return taken


def _roughness(image: Any) -> float:
    """Sum of the differences between neighbouring pixels."""
    values = image.astype(np.float32)
    return float(sum(np.abs(np.diff(values, axis=axis)).sum() for axis in (0, 1)))
