"""Grey images as PNG, for pages: 8 bits, one channel."""

import struct
import zlib

import numpy as np
import numpy.typing as npt

from nntomo_dask.types import Float32

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def greys(image: Float32, window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """An image as bytes: black and white at the ends of a window; what is no number is black."""
    low, high = window
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = (image.astype(np.float64) - low) * (255 / (high - low))
    found: npt.NDArray[np.uint8] = np.clip(np.rint(np.nan_to_num(scaled, nan=0.0)), 0, 255).astype(np.uint8)
    return found


def encoded(image: npt.NDArray[np.uint8]) -> bytes:
    """An image (row, column) of bytes as a PNG file."""
    height, width = image.shape
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)  # 8 bits of grey, not interlaced
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter, 0: none
    rows[:, 1:] = image
    return _SIGNATURE + b"".join(
        _chunk(kind, content)
        for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
