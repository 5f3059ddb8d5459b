"""Mean and standard deviation of the members of an ensemble, updated member by member; for kernels."""

from typing import Any

import numpy as np

from nntomo_dask.kernels.compiling import njit
from nntomo_dask.kernels.lanes import fill, fma, load, sqrt, store
from nntomo_dask.types import Float32

NETWORK_WIDTH = 8  # slices side by side in the network kernel; times 8 hidden nodes that is 64 lanes


@njit(nogil=True, cache=True, error_model="numpy")
def include(value: Any, m: int, means: Float32, squares: Float32, place: int) -> None:
    """Update the mean and the sum of squared deviations with the m-th value of NETWORK_WIDTH slices."""
    if m == 0:
        store(means, place, value)
        store(squares, place, fill(np.float32(0), NETWORK_WIDTH))
    else:
        mean = load(means, place, NETWORK_WIDTH)
        deviation = fma(np.float32(-1), mean, value)
        mean = fma(np.float32(1) / np.float32(m + 1), deviation, mean)
        store(means, place, mean)
        total = load(squares, place, NETWORK_WIDTH)
        store(squares, place, fma(deviation, fma(np.float32(-1), mean, value), total))


@njit(nogil=True, cache=True, error_model="numpy")
def take_roots(squares: Float32, line: int, count: int, share: np.float32) -> None:
    """Replace the sums of squared deviations of a line of `count` values by the standard deviations."""
    for i in range(line, line + count, NETWORK_WIDTH):
        mean = fma(share, load(squares, i, NETWORK_WIDTH), fill(np.float32(0), NETWORK_WIDTH))
        store(squares, i, sqrt(mean))
