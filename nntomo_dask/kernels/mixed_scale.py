"""The layers of a Mixed-Scale Dense network. Each feature map is computed from all maps before it, in one buffer.

    map_i = relu(bias_i + Σ_c Σ_jk weight_i[c, j, k] · map_c(y + (j-1) d_i, x + (k-1) d_i)),   c < inputs + i
    output = bias + Σ_c weight[c] · map_c

with dilations d_i = 1 … 10, 1 …. A buffer is (map, y, x): the inputs, then one map per layer. Each map has a border
that mirrors it: … b a | a b c … y z | z y …. So a dilated convolution finds all neighbours in the buffer, and nothing
is copied. Derivatives are in a second buffer, whose border is zero.

The kernel is fast because it computes four rows of a map together, one dilation apart, with 16 pixels of each row in
registers. The rows share the values that they read: 18 loads serve 36 multiply-adds.

All parameters are in one vector: the weights (map, 3, 3) layer by layer, then the biases of the layers, the weights of
the output and its bias.

References
----------
.. [1] D. M. Pelt and J. A. Sethian, A mixed-scale dense convolutional neural network for image analysis, PNAS 115
   (2018) 254, doi:10.1073/pnas.1715832114.
"""

from typing import Any, NamedTuple

import numpy as np

from nntomo_dask.arrays.slabs import mirrored
from nntomo_dask.kernels.compiling import njit
from nntomo_dask.kernels.lanes import fill, fma, load, store
from nntomo_dask.types import Float32

DILATIONS = 10  # the dilation of a layer is its number modulo this, plus 1
_WIDTH = 16  # pixels of a row that are in registers
_MAPS = 2  # maps that are read before the sums of four rows are stored; more of them conflict in one cache set
_SLACK = 64  # values after the end of a buffer that the registers of the last rows may read


class Layers(NamedTuple):
    """The parameters of a network, as views of the vector."""

    weights: list[Any]  # (map, 3, 3) of each layer
    biases: Any  # (layer,)
    output_weights: Any  # (map,)
    output_bias: Any  # (1,)


def parameter_count(inputs: int, depth: int) -> int:
    """Number of weights and biases of a network."""
    return 9 * sum(inputs + layer for layer in range(depth)) + depth + (inputs + depth) + 1


def unpack(parameters: Any, inputs: int, depth: int) -> Layers:
    """The parts of a parameter vector, which is an array or a tensor."""
    weights, first = [], 0
    for maps in range(inputs, inputs + depth):
        weights.append(parameters[first : first + 9 * maps].reshape(maps, 3, 3))
        first += 9 * maps
    biases = parameters[first : first + depth]
    return Layers(weights, biases, parameters[first + depth : -1], parameters[-1:])


def dilation_of(layer: int) -> int:
    """Dilation of a layer, counted from 0: 1 … 10, then 1 again."""
    return layer % DILATIONS + 1


def forward_reference(images: Float32, parameters: Float32, depth: int) -> Float32:
    """Reference implementation of `forward`, by concatenation and in double precision: output (y, x) only."""
    layers = unpack(parameters.astype(np.float64), len(images), depth)
    maps = images.astype(np.float64)
    height, width = maps.shape[1:]
    for layer, (weights, bias) in enumerate(zip(layers.weights, layers.biases, strict=True)):
        d = dilation_of(layer)
        padded = maps[:, mirrored(height, d)][:, :, mirrored(width, d)]
        total = np.full((height, width), bias)
        for j in range(3):
            for k in range(3):
                part = padded[:, j * d : j * d + height, k * d : k * d + width]
                total += np.tensordot(weights[:, j, k], part, 1)
        maps = np.concatenate([maps, np.maximum(total, 0)[None]])
    return np.asarray(np.tensordot(layers.output_weights, maps, 1) + layers.output_bias, np.float32)


def buffer(maps: int, height: int, width: int, border: int = DILATIONS) -> Float32:
    """Zeros (map, y, x) with their borders. Rows are padded to whole registers; more zeros follow the last row."""
    shape = maps, height + 2 * border, -(-width // _WIDTH) * _WIDTH + 2 * border
    count = buffer_bytes(maps, height, width, border) // 4
    return np.zeros(count + _SLACK, np.float32)[:count].reshape(shape)


def buffer_bytes(maps: int, height: int, width: int, border: int = DILATIONS) -> int:
    """Bytes of a `buffer`."""
    return 4 * maps * (height + 2 * border) * (-(-width // _WIDTH) * _WIDTH + 2 * border)


def forward(images: Float32, parameters: Float32, depth: int, maps: Float32 | None = None) -> tuple[Float32, Float32]:
    """Output (y, x) and the buffer of all maps, for inputs (channel, y, x). `maps` is a buffer to reuse."""
    inputs, height, width = images.shape
    if maps is None:
        maps = buffer(inputs + depth, height, width)
    layers = unpack(parameters, inputs, depth)
    maps[:inputs, DILATIONS : DILATIONS + height, DILATIONS : DILATIONS + width] = images
    for channel in range(inputs):
        _fill_border(maps[channel], height, width)
    for layer, weights in enumerate(layers.weights):
        target = inputs + layer
        _layer(maps, target, weights, layers.biases[layer], dilation_of(layer), height, width)
        _fill_border(maps[target], height, width)
    output = np.empty((height, width), np.float32)
    _output(maps, layers.output_weights, layers.output_bias[0], output)
    return output, maps


def backward(
    maps: Float32, parameters: Float32, depth: int, derivative: Float32, work: Float32 | None = None
) -> Float32:
    """Derivative of a loss with respect to all parameters.

    `maps` are the maps of `forward`, and `derivative` is that with respect to the output (y, x). `work` is a buffer to
    reuse: `depth + 1` maps with twice the border, which is zero.
    """
    inputs = len(maps) - depth
    height, width = derivative.shape
    if work is None:
        work = buffer(depth + 1, height, width, 2 * DILATIONS)
    layers = unpack(parameters, inputs, depth)
    result = np.zeros_like(parameters)
    by = unpack(result, inputs, depth)
    _output_gradient(maps, derivative, by.output_weights)
    by.output_bias[0] = derivative.sum(dtype=np.float64)
    derivative = np.ascontiguousarray(derivative, np.float32)
    total = work[depth]
    for layer in range(depth - 1, -1, -1):
        channel = inputs + layer
        total[:] = 0
        for later in range(layer + 1, depth):
            _spread(work, later, total, layers.weights[later][channel], dilation_of(later), height, width)
        _fold_border(total, height, width)
        _through_relu(total, layers.output_weights[channel], derivative, maps[channel], work[layer])
        by.biases[layer] = _sum(work[layer], height, width)
        _weight_gradient(work, layer, maps, channel, dilation_of(layer), height, width, by.weights[layer])
    return result


@njit(nogil=True, cache=True, error_model="numpy")
def _mirror(place: int, count: int) -> int:
    remainder = place % (2 * count)
    return min(remainder, 2 * count - 1 - remainder)


@njit(nogil=True, cache=True, error_model="numpy")
def _fill_border(one: Float32, height: int, width: int) -> None:
    """Fill the border of a map by mirroring its inside."""
    b = DILATIONS
    for y in range(b, b + height):
        for place in range(b):
            one[y, b - 1 - place] = one[y, b + _mirror(-1 - place, width)]
            one[y, b + width + place] = one[y, b + _mirror(width + place, width)]
    for place in range(b):
        one[b - 1 - place] = one[b + _mirror(-1 - place, height)]
        one[b + height + place] = one[b + _mirror(height + place, height)]


@njit(nogil=True, cache=True, error_model="numpy")
def _fold_border(one: Float32, height: int, width: int) -> None:
    """Add the border of a map, of width `DILATIONS`, to the pixels that it mirrors: the transpose of `_fill_border`."""
    b = 2 * DILATIONS  # first row and column of the inside
    for place in range(DILATIONS):
        one[b + _mirror(-1 - place, height)] += one[b - 1 - place]
        one[b + _mirror(height + place, height)] += one[b + height + place]
    for y in range(b, b + height):
        for place in range(DILATIONS):
            one[y, b + _mirror(-1 - place, width)] += one[y, b - 1 - place]
            one[y, b + _mirror(width + place, width)] += one[y, b + width + place]


@njit(nogil=True, cache=True, error_model="numpy")
def _four_rows(
    target: Float32, at: int, step: int, source: Float32, start: int, map_size: int, source_step: int, weights: Float32,
    first: int, last: int, d: int, count: int,
) -> None:  # fmt: skip
    """Add the convolutions of maps `first` … `last` to four rows of flat `target`, which are `step` apart."""
    for x in range(0, count, _WIDTH):
        sum0 = load(target, at + x, _WIDTH)
        sum1 = load(target, at + step + x, _WIDTH)
        sum2 = load(target, at + 2 * step + x, _WIDTH)
        sum3 = load(target, at + 3 * step + x, _WIDTH)
        for channel in range(first, last):
            for k in range(3):
                place = start + channel * map_size + x + (k - 1) * d
                above, middle, below = weights[channel, 0, k], weights[channel, 1, k], weights[channel, 2, k]
                row = load(source, place - source_step, _WIDTH)
                sum0 = fma(above, row, sum0)
                row = load(source, place, _WIDTH)
                sum0 = fma(middle, row, sum0)
                sum1 = fma(above, row, sum1)
                row = load(source, place + source_step, _WIDTH)
                sum0 = fma(below, row, sum0)
                sum1 = fma(middle, row, sum1)
                sum2 = fma(above, row, sum2)
                row = load(source, place + 2 * source_step, _WIDTH)
                sum1 = fma(below, row, sum1)
                sum2 = fma(middle, row, sum2)
                sum3 = fma(above, row, sum3)
                row = load(source, place + 3 * source_step, _WIDTH)
                sum2 = fma(below, row, sum2)
                sum3 = fma(middle, row, sum3)
                row = load(source, place + 4 * source_step, _WIDTH)
                sum3 = fma(below, row, sum3)
        store(target, at + x, sum0)
        store(target, at + step + x, sum1)
        store(target, at + 2 * step + x, sum2)
        store(target, at + 3 * step + x, sum3)


@njit(nogil=True, cache=True, error_model="numpy")
def _one_row(
    target: Float32, at: int, source: Float32, start: int, map_size: int, source_step: int, weights: Float32,
    first: int, last: int, d: int, count: int,
) -> None:  # fmt: skip
    """Like `_four_rows` for one row of the rest, with the same order of summation."""
    for x in range(0, count, _WIDTH):
        total = load(target, at + x, _WIDTH)
        for channel in range(first, last):
            for k in range(3):
                place = start + channel * map_size + x + (k - 1) * d
                total = fma(weights[channel, 0, k], load(source, place - source_step, _WIDTH), total)
                total = fma(weights[channel, 1, k], load(source, place, _WIDTH), total)
                total = fma(weights[channel, 2, k], load(source, place + source_step, _WIDTH), total)
        store(target, at + x, total)


@njit(nogil=True, cache=True, error_model="numpy")
def _convolve(
    target: Float32, at: int, row: int, source: Float32, start: int, map_size: int, source_row: int, weights: Float32,
    first: int, last: int, d: int, height: int, width: int,
) -> None:  # fmt: skip
    """Add the convolutions of maps `first` … `last` to `height` rows of flat `target`, from index `at` on."""
    for y0 in range(0, height, 4 * d):
        for y in range(y0, min(y0 + d, height)):
            if y + 3 * d < height:
                _four_rows(target, at + y * row, d * row, source, start + y * source_row, map_size, d * source_row,
                           weights, first, last, d, width)  # fmt: skip
            else:
                for single in range(y, height, d):
                    _one_row(target, at + single * row, source, start + single * source_row, map_size, d * source_row,
                             weights, first, last, d, width)  # fmt: skip


@njit(nogil=True, cache=True, error_model="numpy")
def _layer(maps: Float32, channel: int, weights: Float32, bias: float, d: int, height: int, width: int) -> None:
    """Compute one map, without its border, from the maps before it."""
    row, map_size = maps.shape[2], maps.shape[1] * maps.shape[2]
    inside = DILATIONS * row + DILATIONS
    flat = maps.reshape(-1)
    target = maps[channel]
    target[DILATIONS : DILATIONS + height, DILATIONS : row - DILATIONS] = bias
    for first in range(0, channel, _MAPS):
        last = min(first + _MAPS, channel)
        at = channel * map_size + inside
        _convolve(flat, at, row, flat, inside, map_size, row, weights, first, last, d, height, width)
    for y in range(DILATIONS, DILATIONS + height):
        for x in range(DILATIONS, row - DILATIONS):
            target[y, x] = max(target[y, x], np.float32(0))


@njit(nogil=True, cache=True, error_model="numpy")
def _output(maps: Float32, weights: Float32, bias: float, output: Float32) -> None:
    height, width = output.shape
    for y in range(height):
        output[y] = bias
        for channel in range(len(maps)):
            for x in range(width):
                output[y, x] += weights[channel] * maps[channel, DILATIONS + y, DILATIONS + x]


@njit(nogil=True, cache=True, error_model="numpy")
def _output_gradient(maps: Float32, derivative: Float32, weights: Float32) -> None:
    height, width = derivative.shape
    for channel in range(len(maps)):
        total = 0.0
        for y in range(height):
            of_row = np.float32(0)
            for x in range(width):
                of_row += derivative[y, x] * maps[channel, DILATIONS + y, DILATIONS + x]
            total += float(of_row)
        weights[channel] = total


@njit(nogil=True, cache=True, error_model="numpy")
def _spread(work: Float32, later: int, total: Float32, weights: Float32, d: int, height: int, width: int) -> None:
    """Add to `total` the derivative that a later layer propagates back to one map, borders included."""
    row, map_size = work.shape[2], work.shape[1] * work.shape[2]
    flipped = np.ascontiguousarray(weights[::-1, ::-1]).reshape(1, 3, 3)
    first = (2 * DILATIONS - d) * (row + 1)
    start = later * map_size + first
    _convolve(total.reshape(-1), first, row, work.reshape(-1), start, 0, row, flipped, 0, 1, d, height + 2 * d,
              width + 2 * d)  # fmt: skip


@njit(nogil=True, cache=True, error_model="numpy")
def _through_relu(total: Float32, weight: float, derivative: Float32, one: Float32, result: Float32) -> None:
    """The derivative with respect to the sums of a layer: zero where its map is zero."""
    height, width = derivative.shape
    b = 2 * DILATIONS
    for y in range(height):
        for x in range(width):
            whole = total[b + y, b + x] + weight * derivative[y, x]
            result[b + y, b + x] = whole if one[DILATIONS + y, DILATIONS + x] > 0 else np.float32(0)


@njit(nogil=True, cache=True, error_model="numpy")
def _sum(one: Float32, height: int, width: int) -> float:
    b = 2 * DILATIONS
    total = 0.0
    for y in range(b, b + height):
        for x in range(b, b + width):
            total += one[y, x]
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def _weight_gradient(
    work: Float32, layer: int, maps: Float32, channels: int, d: int, height: int, width: int, result: Float32
) -> None:
    """The derivative (map, 3, 3) with respect to the weights of a layer: its derivative times shifted maps, summed."""
    row, map_size = maps.shape[2], maps.shape[1] * maps.shape[2]
    of_row = work.shape[2]
    g, m = work.reshape(-1), maps.reshape(-1)
    g_start = layer * work.shape[1] * of_row + 2 * DILATIONS * (of_row + 1)
    m_start = DILATIONS * (row + 1)
    step, of_step = d * row, d * of_row
    lanes = np.empty(3 * _WIDTH, np.float32)
    for channel in range(channels):
        for k in range(3):
            start = m_start + channel * map_size + (k - 1) * d
            above = fill(np.float32(0), _WIDTH)
            middle = fill(np.float32(0), _WIDTH)
            below = fill(np.float32(0), _WIDTH)
            for y0 in range(0, height, 4 * d):
                for y in range(y0, min(y0 + d, height)):
                    if y + 3 * d < height:
                        for x in range(0, width, _WIDTH):
                            at, place = g_start + y * of_row + x, start + y * row + x
                            g0 = load(g, at, _WIDTH)
                            g1 = load(g, at + of_step, _WIDTH)
                            g2 = load(g, at + 2 * of_step, _WIDTH)
                            g3 = load(g, at + 3 * of_step, _WIDTH)
                            value = load(m, place - step, _WIDTH)
                            above = fma(g0, value, above)
                            value = load(m, place, _WIDTH)
                            middle = fma(g0, value, middle)
                            above = fma(g1, value, above)
                            value = load(m, place + step, _WIDTH)
                            below = fma(g0, value, below)
                            middle = fma(g1, value, middle)
                            above = fma(g2, value, above)
                            value = load(m, place + 2 * step, _WIDTH)
                            below = fma(g1, value, below)
                            middle = fma(g2, value, middle)
                            above = fma(g3, value, above)
                            value = load(m, place + 3 * step, _WIDTH)
                            below = fma(g2, value, below)
                            middle = fma(g3, value, middle)
                            value = load(m, place + 4 * step, _WIDTH)
                            below = fma(g3, value, below)
                    else:
                        for single in range(y, height, d):
                            for x in range(0, width, _WIDTH):
                                at, place = g_start + single * of_row + x, start + single * row + x
                                g0 = load(g, at, _WIDTH)
                                above = fma(g0, load(m, place - step, _WIDTH), above)
                                middle = fma(g0, load(m, place, _WIDTH), middle)
                                below = fma(g0, load(m, place + step, _WIDTH), below)
            store(lanes, 0, above)
            store(lanes, _WIDTH, middle)
            store(lanes, 2 * _WIDTH, below)
            for j in range(3):
                total = 0.0
                for lane in range(_WIDTH):
                    total += lanes[j * _WIDTH + lane]
                result[channel, j, k] = total
