"""The loop over tiles that backprojects the filters of a network and computes its end; see backproject.py."""

import functools
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nntomo_dask.kernels.compiling import njit
from nntomo_dask.kernels.lanes import add, fill, fma, load, relu, sigmoid, store, store_apart, store_transposed
from nntomo_dask.kernels.layout import DETECTOR_FRONT, DETECTOR_PAD
from nntomo_dask.kernels.members import NETWORK_WIDTH, include, take_roots
from nntomo_dask.types import Float32, Float64

Activation = Literal["relu", "sigmoid"]
Output = Literal["linear", "sigmoid"]
Statistic = Literal["mean", "spread"]
Place = tuple[float, float]  # of the tilt axis, (y, x) in pixels

TILE = 32  # pixels along each side: the rows that a tile reads stay in the second-level cache
_AT_ONCE = 8  # hidden nodes whose sums are in registers at once
_BLOCK = 64  # lanes of the second layer that are in registers at once, pixels × slices, for two nodes


@njit(nogil=True, cache=True, error_model="numpy")
def locate(
    cos: Float64, sin: Float64, n: int, axis: Place, y: int, x0: int, index: npt.NDArray[np.int32], weight: Float32
) -> None:
    """Detector index (in the padded row) and weight of its upper neighbour for TILE pixels of one line, (angle, pixel).

    A separate loop with the pixels innermost, so that the compiler computes several of them at once.
    """
    end = np.float64(n)
    axis_y, axis_x = axis
    for a in range(cos.size):
        across = (y - axis_y) * sin[a]
        for i in range(TILE):
            t = (x0 + i - axis_x) * cos[a] + across + axis_x
            t = min(max(t, -1.0), end) + DETECTOR_FRONT
            lower = np.int32(t)
            index[a * TILE + i] = lower
            weight[a * TILE + i] = np.float32(t - lower)


@njit(nogil=True, cache=True, error_model="numpy")
def store_line(line: Float32, width: int, images: Float32, n_slices: int, n: int, y: int, x0: int, count: int) -> None:
    """Write `count` pixels (pixel, lane) of one line to flat images (slice, y, x)."""
    whole_slices = n_slices - n_slices % 8
    whole = count - count % 8
    for s in range(0, whole_slices, 8):
        for i in range(0, whole, 8):
            store_transposed(line, i * width + s, width, images, (s * n + y) * n + x0 + i, n * n)
    for s in range(n_slices):
        for i in range(whole if s < whole_slices else 0, count):
            images[(s * n + y) * n + x0 + i] = line[i * width + s]


@functools.cache
def network_kernel(
    n_members: int,
    n_hidden: int,
    n_second: int,
    activation: Activation,
    output_kind: Output,
    statistics: tuple[Statistic, ...],
) -> Any:
    """Kernel that writes one or both statistics; the array of the other is not touched."""
    width = NETWORK_WIDTH
    at_once = sums_at_once(n_hidden)
    blocks, lanes = n_hidden // at_once, at_once * width
    line_width = TILE * width  # values of a node for a line of pixels
    # Constants for the compiler. Functions instead of these flags would keep Numba from caching the kernel on disk.
    is_relu, has_mean, has_spread = activation == "relu", "mean" in statistics, "spread" in statistics
    is_linear, has_second, is_odd = output_kind == "linear", n_second > 0, n_second % 2 == 1
    is_single = n_members == 1 and not has_spread
    held = TILE * width if is_single else TILE * TILE * width  # a single network needs no more than a line
    n_last = n_second if has_second else n_hidden
    block = _BLOCK

    @njit(nogil=True, cache=True, error_model="numpy")
    def kernel(
        rows: Float32,
        cos: Float64,
        sin: Float64,
        hidden_bias: Float32,
        second_weights: Float32,
        second_bias: Float32,
        output_weights: Float32,
        output_bias: Float32,
        offset: Float32,
        gain: Float32,
        n: int,
        axis: Place,
        n_slices: int,
        mean_images: Float32,
        spread_images: Float32,
    ) -> None:
        row = (n + DETECTOR_PAD) * lanes
        index = np.empty(cos.size * TILE, np.int32)
        weight = np.empty(cos.size * TILE, np.float32)
        sums = np.empty(n_hidden * line_width, np.float32)  # (hidden, pixel, slice)
        seconds = np.empty(n_second * line_width, np.float32)
        means = np.empty(held, np.float32)
        squares = np.empty(held, np.float32)
        for y0 in range(0, n, TILE):
            for x0 in range(0, n, TILE):
                count = min(TILE, n - x0)
                for m in range(n_members):  # the whole tile for one member: its rows stay in the cache
                    for y in range(y0, min(y0 + TILE, n)):
                        locate(cos, sin, n, axis, y, x0, index, weight)
                        for part in range(blocks):
                            first = (m * blocks + part) * cos.size * row
                            for i in range(TILE):
                                total = fill(np.float32(0), lanes)
                                for a in range(cos.size):
                                    upper = weight[a * TILE + i]
                                    entry = first + a * row + index[a * TILE + i] * lanes
                                    total = fma(np.float32(1) - upper, load(rows, entry, lanes), total)
                                    total = fma(upper, load(rows, entry + lanes, lanes), total)
                                store_apart(sums, (part * at_once * TILE + i) * width, line_width, total, width)
                        # Loops after the sums, so that the divisions of pixels overlap.
                        for k in range(n_hidden):
                            for i in range(k * line_width, (k + 1) * line_width, block):
                                hidden = add(load(sums, i, block), fill(-hidden_bias[m, k], block))
                                store(sums, i, relu(hidden) if is_relu else sigmoid(hidden))
                        if has_second:
                            for i in range(0, line_width, block):
                                for j in range(0, n_second - 1, 2):  # two nodes at once share what is loaded
                                    one = fill(-second_bias[m, j], block)
                                    other = fill(-second_bias[m, j + 1], block)
                                    for k in range(n_hidden):
                                        active = load(sums, k * line_width + i, block)
                                        one = fma(second_weights[m, k, j], active, one)
                                        other = fma(second_weights[m, k, j + 1], active, other)
                                    store(seconds, j * line_width + i, relu(one) if is_relu else sigmoid(one))
                                    other = relu(other) if is_relu else sigmoid(other)
                                    store(seconds, (j + 1) * line_width + i, other)
                                if is_odd:
                                    one = fill(-second_bias[m, n_second - 1], block)
                                    for k in range(n_hidden):
                                        active = load(sums, k * line_width + i, block)
                                        one = fma(second_weights[m, k, n_second - 1], active, one)
                                    one = relu(one) if is_relu else sigmoid(one)
                                    store(seconds, (n_second - 1) * line_width + i, one)
                        last = seconds if has_second else sums
                        line = 0 if is_single else (y - y0) * TILE * width
                        for i in range(TILE):
                            output = fill(-output_bias[m], width)
                            for k in range(n_last):
                                output = fma(
                                    output_weights[m, k], load(last, k * line_width + i * width, width), output
                                )
                            output = relu(output) if is_linear else sigmoid(output)
                            output = fma(gain[m], output, fill(offset[m], width))
                            if is_single:
                                store(means, i * width, output)
                            else:
                                include(output, m, means, squares, line + i * width)
                        if m == n_members - 1:
                            if has_mean:
                                store_line(means[line:], width, mean_images, n_slices, n, y, x0, count)
                            if has_spread:
                                take_roots(squares, line, TILE * width, np.float32(1) / np.float32(n_members))
                                store_line(squares[line:], width, spread_images, n_slices, n, y, x0, count)

    return kernel


def sums_at_once(n_hidden: int) -> int:
    """Hidden nodes whose sums a pass over the angles makes: a divisor of their number that fits into registers."""
    fitting = max(count for count in range(1, _AT_ONCE + 1) if n_hidden % count == 0)
    return fitting if fitting >= min(n_hidden, _AT_ONCE // 2) else n_hidden
