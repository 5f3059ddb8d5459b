"""Memory layouts of the kernels: the slice is the last axis, so that many slices share one index and weight.

A *lane group* contains up to `width` slices of an image or of a sinogram. The slice is the last, contiguous axis. The
group is padded with zeros to the full width, and has a border of zeros, so that kernels need no branches at the edges.
A group is on the same device as its slices, in host memory or on a GPU.
"""

from typing import Any

import numpy as np

from nntomo_dask.compute import device
from nntomo_dask.types import Float32

DETECTOR_FRONT = 2  # zeros before the first detector pixel; both pixels of an interpolation may be outside
DETECTOR_PAD = 4  # zeros before the first and after the last detector pixel together
IMAGE_PAD = 1  # one zero pixel on every side

_LINE = 16  # float32 values in a cache line


def lane_width(n_slices: int, widest: int) -> int:
    """The smallest of 8, 16, 32, … that is at least `n_slices`, but at most `widest`."""
    width = 8
    while width < min(n_slices, widest):
        width *= 2
    return width


def padded_image_bytes(size: int, lanes: int) -> int:
    """Bytes of a lane group of images with their border."""
    return 4 * (size + 2 * IMAGE_PAD) ** 2 * lanes


def aligned_zeros(count: int, xp: Any = np) -> Any:
    """`count` zeros that begin at a cache line; a vector across two lines takes 1.5 times as long to load."""
    if xp is not np:  # arrays of CuPy are always aligned
        return xp.zeros(count, np.float32)
    buffer = np.zeros(count + _LINE, np.float32)
    skipped = -buffer.ctypes.data % (4 * _LINE) // 4
    return buffer[skipped : skipped + count]


def sinogram_to_lanes(sinograms: Float32, width: int) -> Float32:
    """(slice, angle, detector) to a flat (angle, detector + pad, lane)."""
    n_slices, n_angles, n_detectors = sinograms.shape
    xp = device.namespace(sinograms)
    lanes = aligned_zeros(n_angles * (n_detectors + DETECTOR_PAD) * width, xp).reshape(n_angles, -1, width)
    lanes[:, DETECTOR_FRONT : DETECTOR_FRONT + n_detectors, :n_slices] = xp.moveaxis(sinograms, 0, -1)
    return lanes.reshape(-1)


def sinogram_from_lanes(lanes: Float32, shape: tuple[int, int, int]) -> Float32:
    """Inverse of `sinogram_to_lanes`; `shape` is (slice, angle, detector)."""
    xp = device.namespace(lanes)
    n_slices, n_angles, n_detectors = shape
    table = lanes.reshape(n_angles, n_detectors + DETECTOR_PAD, -1)
    measured = table[:, DETECTOR_FRONT : DETECTOR_FRONT + n_detectors, :n_slices]
    return xp.ascontiguousarray(xp.moveaxis(measured, -1, 0))


def image_to_lanes(images: Float32, width: int) -> Float32:
    """(slice, y, x) to a flat (y + pad, x + pad, lane)."""
    n_slices, n_y, n_x = images.shape
    xp = device.namespace(images)
    padded = n_y + 2 * IMAGE_PAD, n_x + 2 * IMAGE_PAD
    lanes = aligned_zeros(padded[0] * padded[1] * width, xp).reshape(*padded, width)
    lanes[1:-1, 1:-1, :n_slices] = xp.moveaxis(images, 0, -1)
    return lanes.reshape(-1)


def image_from_lanes(lanes: Float32, shape: tuple[int, int, int]) -> Float32:
    """Inverse of `image_to_lanes`; `shape` is (slice, y, x)."""
    xp = device.namespace(lanes)
    n_slices, n_y, n_x = shape
    table = lanes.reshape(n_y + 2 * IMAGE_PAD, n_x + 2 * IMAGE_PAD, -1)
    return xp.ascontiguousarray(xp.moveaxis(table[1:-1, 1:-1, :n_slices], -1, 0))
