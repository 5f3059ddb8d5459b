"""Joseph's projector and its exact transpose.

A ray crosses the image line by line: the lines are rows if |cos θ| ≥ |sin θ|, and columns otherwise. On every line the
ray takes the linear interpolation of the two nearest pixels, times the distance 1/max(|cos θ|, |sin θ|) of two lines.
Outside the image all values are zero. Positions are counted from the tilt axis, which is in the middle of a slice
unless an `Axis` says otherwise; on the detector it lies where it does along x. The `linear` projector of ASTRA is the
same.

References
----------
.. [1] P. M. Joseph, An improved algorithm for reprojecting rays through pixel images,
   IEEE Trans. Med. Imaging 1 (1982) 192, doi:10.1109/TMI.1982.4307572.
"""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from nntomo_dask.arrays.grid import Axis, axis_or_centre
from nntomo_dask.compute import device
from nntomo_dask.kernels import cuda
from nntomo_dask.kernels.compiling import njit
from nntomo_dask.kernels.lanes import fill, fma, load, store
from nntomo_dask.kernels.layout import (
    DETECTOR_FRONT,
    DETECTOR_PAD,
    IMAGE_PAD,
    image_from_lanes,
    image_to_lanes,
    lane_width,
    sinogram_from_lanes,
    sinogram_to_lanes,
)
from nntomo_dask.types import Float32, Float64

WIDEST = 32  # lanes of a group; more share the index arithmetic, fewer keep a tile in the cache
TILE = 32  # side of a tile in pixels; TILE² · WIDEST float32 values are 128 KiB


def forward_reference(images: Float32, angles_rad: Float64, axis: Axis | None = None) -> Float32:
    """Reference implementation of `forward`: project (slice, y, x) to (slice, angle, detector)."""
    n_slices, n, _ = images.shape
    middle = axis_or_centre(axis, n)
    detector = np.arange(n) - middle.x
    sinograms = np.zeros((n_slices, angles_rad.size, n))
    for a, (cos, sin) in enumerate(zip(np.cos(angles_rad), np.sin(angles_rad), strict=True)):
        along_rows = abs(cos) >= abs(sin)
        lines = images if along_rows else np.swapaxes(images, 1, 2)
        main, other = (cos, sin) if along_rows else (sin, cos)
        axis_u, axis_v = middle if along_rows else middle[::-1]
        for u in range(n):
            position = (detector - (u - axis_u) * other) / main + axis_v
            lower = np.floor(position).astype(int)
            for index, weight in ((lower, lower + 1 - position), (lower + 1, position - lower)):
                inside = (index >= 0) & (index < n)
                sinograms[:, a, inside] += lines[:, u, index[inside]] * weight[inside] / abs(main)
    return sinograms.astype(np.float32)


def back_reference(sinograms: Float32, angles_rad: Float64, axis: Axis | None = None) -> Float32:
    """Reference implementation of `back`: the transpose of `forward_reference`."""
    n_slices, _, n = sinograms.shape
    middle = axis_or_centre(axis, n)
    detector = np.arange(n) - middle.x
    images = np.zeros((n_slices, n, n))
    for a, (cos, sin) in enumerate(zip(np.cos(angles_rad), np.sin(angles_rad), strict=True)):
        along_rows = abs(cos) >= abs(sin)
        lines = images if along_rows else np.swapaxes(images, 1, 2)
        main, other = (cos, sin) if along_rows else (sin, cos)
        axis_u, axis_v = middle if along_rows else middle[::-1]
        for u in range(n):
            position = (detector - (u - axis_u) * other) / main + axis_v
            lower = np.floor(position).astype(int)
            for index, weight in ((lower, lower + 1 - position), (lower + 1, position - lower)):
                inside = (index >= 0) & (index < n)
                values = sinograms[:, a, inside] * weight[inside] / abs(main)
                np.add.at(lines[:, u].T, index[inside], values.T)
    return images.astype(np.float32)


@functools.cache
def _forward_kernel(width: int) -> Any:
    @njit(nogil=True, cache=True, error_model="numpy")
    def kernel(
        image: Float32, cos: Float64, sin: Float64, n: int, axis_y: float, axis_x: float, sinogram: Float32
    ) -> None:
        stride = n + 2 * IMAGE_PAD
        for u0 in range(0, n, TILE):
            u1 = min(u0 + TILE, n)
            for v_start in range(0, n, TILE):
                v1 = min(v_start + TILE, n)
                v0 = v_start if v_start > 0 else -1  # the first tile includes the interval before the first pixel
                for a in range(cos.size):
                    along_rows = abs(cos[a]) >= abs(sin[a])
                    main = cos[a] if along_rows else sin[a]
                    other = sin[a] if along_rows else cos[a]
                    axis_u = axis_y if along_rows else axis_x
                    axis_v = axis_x if along_rows else axis_y
                    step_u = stride if along_rows else 1
                    step_v = 1 if along_rows else stride
                    length = np.float32(1 / abs(main))
                    ratio = other / main
                    low, high = 1e30, -1e30
                    for u in (u0, u1 - 1):
                        for v in (v0, v1):
                            t = (u - axis_u) * other + (v - axis_v) * main + axis_x
                            low, high = min(low, t), max(high, t)
                    first, last = max(int(low) - 1, 0), min(int(high) + 2, n)
                    for t in range(first, last):
                        start = (t - axis_x) / main + axis_v
                        total = fill(np.float32(0), width)
                        for u in range(u0, u1):
                            position = start - (u - axis_u) * ratio
                            if position < v0 or position >= v1:
                                continue
                            lower = np.int64(np.floor(position))
                            weight = np.float32(position - lower)
                            pixel = ((u + IMAGE_PAD) * step_u + (lower + IMAGE_PAD) * step_v) * width
                            total = fma(np.float32(1) - weight, load(image, pixel, width), total)
                            total = fma(weight, load(image, pixel + step_v * width, width), total)
                        entry = (a * (n + DETECTOR_PAD) + t + DETECTOR_FRONT) * width
                        store(sinogram, entry, fma(length, total, load(sinogram, entry, width)))

    return kernel


@njit(nogil=True, cache=True, error_model="numpy")
def _locate(
    cos: Float64,
    sin: Float64,
    n: int,
    axis_y: float,
    axis_x: float,
    y: int,
    x0: int,
    index: npt.NDArray[np.int32],
    near: Float32,
    far: Float32,
) -> None:
    """For TILE pixels of one line: the first of the two rays that may touch each pixel, and both weights.

    The results are (angle, pixel). The innermost loop is over pixels, so that the compiler can vectorise it.
    """
    for a in range(cos.size):
        reach = max(abs(cos[a]), abs(sin[a]))
        across = (y - axis_y) * sin[a]
        for i in range(TILE):
            t = (x0 + i - axis_x) * cos[a] + across + axis_x
            # The rays that touch this pixel are strictly within ±reach of its detector position.
            ray = np.floor(t - reach) + 1.0
            near[a * TILE + i] = np.float32(max(1.0 - abs(ray - t) / reach, 0.0) / reach)
            far[a * TILE + i] = np.float32(max(1.0 - abs(ray + 1.0 - t) / reach, 0.0) / reach)
            index[a * TILE + i] = np.int32(min(max(ray, -2.0), np.float64(n))) + DETECTOR_FRONT


@functools.cache
def _back_kernel(width: int) -> Any:
    @njit(nogil=True, cache=True, error_model="numpy")
    def kernel(
        sinogram: Float32, cos: Float64, sin: Float64, n: int, axis_y: float, axis_x: float, image: Float32
    ) -> None:
        stride = n + 2 * IMAGE_PAD
        row = (n + DETECTOR_PAD) * width
        index = np.empty(cos.size * TILE, np.int32)
        near = np.empty(cos.size * TILE, np.float32)
        far = np.empty(cos.size * TILE, np.float32)
        for y0 in range(0, n, TILE):
            for x0 in range(0, n, TILE):
                count = min(TILE, n - x0)
                for y in range(y0, min(y0 + TILE, n)):
                    _locate(cos, sin, n, axis_y, axis_x, y, x0, index, near, far)
                    first = ((y + IMAGE_PAD) * stride + x0 + IMAGE_PAD) * width
                    for i in range(0, count, 2):  # two pixels at once, because their sums are independent
                        total = fill(np.float32(0), width)
                        other = fill(np.float32(0), width)
                        for a in range(cos.size):
                            place = a * TILE + i
                            entry = a * row + index[place] * width
                            total = fma(near[place], load(sinogram, entry, width), total)
                            total = fma(far[place], load(sinogram, entry + width, width), total)
                            entry = a * row + index[place + 1] * width
                            other = fma(near[place + 1], load(sinogram, entry, width), other)
                            other = fma(far[place + 1], load(sinogram, entry + width, width), other)
                        store(image, first + i * width, total)
                        if i + 1 < count:
                            store(image, first + (i + 1) * width, other)

    return kernel


def group_width(block: Any) -> int:
    """Number of slices in the lane groups of a block (slice, …, detector or x), on its device."""
    if device.is_on_gpu(block):
        return cuda.lane_width(len(block), block.shape[-1])
    return lane_width(len(block), WIDEST)


def forward_lanes(image: Float32, angles_rad: Float64, n: int, width: int, axis: Axis | None = None) -> Float32:
    """Project one lane group; see `layout` for the memory layout of `image` and of the result."""
    middle = axis_or_centre(axis, n)
    if device.is_on_gpu(image):
        return _forward_on_gpu(image, angles_rad, n, width, middle)
    sinogram = np.zeros(angles_rad.size * (n + DETECTOR_PAD) * width, np.float32)
    _forward_kernel(width)(image, np.cos(angles_rad), np.sin(angles_rad), n, *middle, sinogram)
    return sinogram


def back_lanes(sinogram: Float32, angles_rad: Float64, n: int, width: int, axis: Axis | None = None) -> Float32:
    """Backproject one lane group; see `layout` for the memory layout of `sinogram` and of the result."""
    middle = axis_or_centre(axis, n)
    if device.is_on_gpu(sinogram):
        return _back_on_gpu(sinogram, angles_rad, n, width, middle)
    image = np.zeros((n + 2 * IMAGE_PAD) ** 2 * width, np.float32)
    _back_kernel(width)(sinogram, np.cos(angles_rad), np.sin(angles_rad), n, *middle, image)
    return image


def _forward_on_gpu(image: Any, angles_rad: Float64, n: int, width: int, axis: Axis) -> Any:
    xp = device.namespace(image)
    sinogram = xp.zeros(angles_rad.size * (n + DETECTOR_PAD) * width, np.float32)
    warps = cuda.warps()
    cuda.get_function("project", "forward", WARPS=warps)(
        (-(-n // warps), angles_rad.size, width // cuda.WARP),
        (cuda.WARP, warps),
        (
            image,
            cuda.on_device(np.cos(angles_rad), image),
            cuda.on_device(np.sin(angles_rad), image),
            np.int32(n),
            np.int32(width),
            *(np.float64(place) for place in axis),
            sinogram,
        ),
    )
    return sinogram


def _back_on_gpu(sinogram: Any, angles_rad: Float64, n: int, width: int, axis: Axis) -> Any:
    xp = device.namespace(sinogram)
    image = xp.zeros((n + 2 * IMAGE_PAD) ** 2 * width, np.float32)
    warps = cuda.warps()
    cuda.get_function("project", "back", WARPS=warps)(
        cuda.image_grid(n, width // cuda.WARP),
        (cuda.WARP, warps),
        (
            sinogram,
            cuda.on_device(np.cos(angles_rad), sinogram),
            cuda.on_device(np.sin(angles_rad), sinogram),
            np.int32(angles_rad.size),
            np.int32(n),
            np.int32(width),
            *(np.float64(place) for place in axis),
            image,
        ),
    )
    return image


def forward(images: Float32, angles_rad: Float64, axis: Axis | None = None) -> Float32:
    """Project (slice, y, x) to (slice, angle, detector)."""
    n_slices, n, _ = images.shape
    width = group_width(images)
    sinograms = device.namespace(images).empty((n_slices, angles_rad.size, n), np.float32)
    for z in range(0, n_slices, width):
        group = images[z : z + width]
        lanes = forward_lanes(image_to_lanes(group, width), angles_rad, n, width, axis)
        sinograms[z : z + width] = sinogram_from_lanes(lanes, (len(group), angles_rad.size, n))
    return sinograms


def back(sinograms: Float32, angles_rad: Float64, axis: Axis | None = None) -> Float32:
    """Backproject (slice, angle, detector) to (slice, y, x): the transpose of `forward`."""
    n_slices, _, n = sinograms.shape
    width = group_width(sinograms)
    images = device.namespace(sinograms).empty((n_slices, n, n), np.float32)
    for z in range(0, n_slices, width):
        group = sinograms[z : z + width]
        lanes = back_lanes(sinogram_to_lanes(group, width), angles_rad, n, width, axis)
        images[z : z + width] = image_from_lanes(lanes, (len(group), n, n))
    return images
