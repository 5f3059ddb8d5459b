"""The two element-wise halves of a SIRT iteration on a lane group, each one pass over memory."""

import numpy as np
import numpy.typing as npt
from numba import njit

from nntomo_dask.kernels.layout import Float32, Float64


@njit(nogil=True, cache=True, error_model="numpy")
def residual(measured: Float32, projected: Float32, row_weights: Float32, weighted: Float32) -> Float64:
    """Write ``R (y - A x)`` to `weighted` (entry, lane) and return ``‖y - A x‖₂`` of each lane.

    `row_weights` is (entry,), the diagonal of R.
    """
    n_entries, width = measured.shape
    squares = np.zeros(width)
    for entry in range(n_entries):
        for lane in range(width):
            difference = measured[entry, lane] - projected[entry, lane]
            squares[lane] += np.float64(difference) * np.float64(difference)
            weighted[entry, lane] = row_weights[entry] * difference
    return np.sqrt(squares)


@njit(nogil=True, cache=True, error_model="numpy")
def step(
    images: Float32,
    gradient: Float32,
    column_weights: Float32,
    active: npt.NDArray[np.bool_],
    minimum: np.float32,
) -> None:
    """``x ← max(x + C g, minimum)`` in the active lanes of `images` (pixel, lane); `column_weights` is (pixel,)."""
    n_pixels, width = images.shape
    for pixel in range(n_pixels):
        weight = column_weights[pixel]
        if weight == 0:  # the border of the layout, which has to stay zero, and what no ray meets
            continue
        for lane in range(width):
            value = max(images[pixel, lane] + weight * gradient[pixel, lane], minimum)
            images[pixel, lane] = value if active[lane] else images[pixel, lane]
