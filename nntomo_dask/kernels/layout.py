"""Memory layouts of the kernels: slices innermost, so that one index and weight serve many slices.

A *lane group* is up to `width` slices (of an image or of a sinogram) with the slice as the last, contiguous axis,
padded with zeros to the full width and by a border of zeros, so that no kernel needs a branch at an edge.
"""

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

DETECTOR_FRONT = 2  # zeros before the first detector pixel: a pair of neighbours may lie wholly outside
DETECTOR_PAD = 4  # the same behind the last, together
IMAGE_PAD = 1  # one zero pixel on every side


def lane_width(n_slices: int, widest: int) -> int:
    """Smallest of 8, 16, 32, … that holds `n_slices`, at most `widest`."""
    width = 8
    while width < min(n_slices, widest):
        width *= 2
    return width


def sinogram_to_lanes(sinograms: Float32, width: int) -> Float32:
    """(slice, angle, detector) to a flat (angle, detector + pad, lane)."""
    n_slices, n_angles, n_detectors = sinograms.shape
    lanes = np.zeros((n_angles, n_detectors + DETECTOR_PAD, width), np.float32)
    lanes[:, DETECTOR_FRONT : DETECTOR_FRONT + n_detectors, :n_slices] = np.moveaxis(sinograms, 0, -1)
    return lanes.reshape(-1)


def sinogram_from_lanes(lanes: Float32, shape: tuple[int, int, int]) -> Float32:
    """Inverse of `sinogram_to_lanes`; `shape` is (slice, angle, detector)."""
    n_slices, n_angles, n_detectors = shape
    table = lanes.reshape(n_angles, n_detectors + DETECTOR_PAD, -1)
    measured = table[:, DETECTOR_FRONT : DETECTOR_FRONT + n_detectors, :n_slices]
    return np.ascontiguousarray(np.moveaxis(measured, -1, 0))


def image_to_lanes(images: Float32, width: int) -> Float32:
    """(slice, y, x) to a flat (y + pad, x + pad, lane)."""
    n_slices, n_y, n_x = images.shape
    lanes = np.zeros((n_y + 2 * IMAGE_PAD, n_x + 2 * IMAGE_PAD, width), np.float32)
    lanes[1:-1, 1:-1, :n_slices] = np.moveaxis(images, 0, -1)
    return lanes.reshape(-1)


def image_from_lanes(lanes: Float32, shape: tuple[int, int, int]) -> Float32:
    """Inverse of `image_to_lanes`; `shape` is (slice, y, x)."""
    n_slices, n_y, n_x = shape
    table = lanes.reshape(n_y + 2 * IMAGE_PAD, n_x + 2 * IMAGE_PAD, -1)
    return np.ascontiguousarray(np.moveaxis(table[1:-1, 1:-1, :n_slices], -1, 0))
