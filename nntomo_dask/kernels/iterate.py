"""The two element-wise steps of a SIRT iteration on a lane group, each in one pass over the memory."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nntomo_dask.compute import device
from nntomo_dask.kernels import cuda
from nntomo_dask.kernels.compiling import njit
from nntomo_dask.types import Float32, Float64

_ENTRIES = 256  # values whose squares one block of threads sums on a GPU; it fixes the order of summation
_WARPS = 8  # warps of a block on a GPU


def residual(measured: Float32, projected: Float32, row_weights: Float32, weighted: Float32) -> Float64:
    """Write ``R (y - A x)`` to `weighted` (entry, lane) and return ``‖y - A x‖₂`` of each lane.

    `row_weights` is (entry,), the diagonal of R.
    """
    if device.is_on_gpu(measured):
        return _residual_on_gpu(measured, projected, row_weights, weighted)
    return _residual(measured, projected, row_weights, weighted)


def step(
    images: Float32,
    gradient: Float32,
    column_weights: Float32,
    active: npt.NDArray[np.bool_],
    minimum: np.float32,
) -> None:
    """``x ← max(x + C g, minimum)`` in the active lanes of `images` (pixel, lane); `column_weights` is (pixel,)."""
    if device.is_on_gpu(images):
        _step_on_gpu(images, gradient, column_weights, active, minimum)
    else:
        _step(images, gradient, column_weights, active, minimum)


@njit(nogil=True, cache=True, error_model="numpy")
def _residual(measured: Float32, projected: Float32, row_weights: Float32, weighted: Float32) -> Float64:
    n_entries, width = measured.shape
    squares = np.zeros(width)
    for entry in range(n_entries):
        for lane in range(width):
            difference = measured[entry, lane] - projected[entry, lane]
            squares[lane] += np.float64(difference) * np.float64(difference)
            weighted[entry, lane] = row_weights[entry] * difference
    return np.sqrt(squares)


@njit(nogil=True, cache=True, error_model="numpy")
def _step(
    images: Float32,
    gradient: Float32,
    column_weights: Float32,
    active: npt.NDArray[np.bool_],
    minimum: np.float32,
) -> None:
    n_pixels, width = images.shape
    for pixel in range(n_pixels):
        weight = column_weights[pixel]
        if weight == 0:  # the border, which must stay zero, and pixels that no ray crosses
            continue
        for lane in range(width):
            value = max(images[pixel, lane] + weight * gradient[pixel, lane], minimum)
            images[pixel, lane] = value if active[lane] else images[pixel, lane]


def _residual_on_gpu(measured: Any, projected: Any, row_weights: Any, weighted: Any) -> Any:
    xp = device.namespace(measured)
    n_entries, width = measured.shape
    n_parts = -(-n_entries // _ENTRIES)
    parts, norms = xp.empty((n_parts, width)), xp.empty(width)
    size = np.int32(width)
    cuda.get_function("iterate", "residual", ENTRIES=_ENTRIES, WARPS=_WARPS)(
        (n_parts, width // cuda.WARP),
        (cuda.WARP, _WARPS),
        (measured, projected, row_weights, np.int64(n_entries), size, weighted, parts),
    )
    cuda.get_function("iterate", "norms", ENTRIES=_ENTRIES, WARPS=_WARPS)(
        (width // cuda.WARP,), (cuda.WARP,), (parts, np.int32(n_parts), size, norms)
    )
    return norms


def _step_on_gpu(images: Any, gradient: Any, column_weights: Any, active: Any, minimum: np.float32) -> None:
    n_pixels, width = images.shape
    cuda.get_function("iterate", "step", ENTRIES=_ENTRIES, WARPS=_WARPS)(
        (-(-n_pixels // _WARPS), width // cuda.WARP),
        (cuda.WARP, _WARPS),
        (images, gradient, column_weights, active, minimum, np.int64(n_pixels), np.int32(width)),
    )
