"""MS-D Net's part of the benchmark: time and memory of a slice, a training step, and the usual way beside them."""

import statistics
import time

import numpy as np
import torch
from torch.nn import functional

from nntomo_dask.kernels import mixed_scale, torch_layers as torch_engine

CHANNELS, DEPTH = 5, 100
LANES = 16  # multiply-adds of a cycle: two units of eight float32, as AVX2 has


def multiply_adds(size, channels=CHANNELS, depth=DEPTH):
    """Of one slice, forward."""
    weights = mixed_scale.parameter_count(channels, depth) - depth - 1  # all but the biases are used once a pixel
    return weights * size**2


def by_concatenation(images, vector, depth):
    """The network as it is usually written: every layer's input made anew of all maps before it."""
    layers = mixed_scale.unpack(vector, images.shape[1], depth)
    maps = images
    for layer, (weights, bias) in enumerate(zip(layers.weights, layers.biases, strict=True)):
        d = layer % 10 + 1
        padded = functional.pad(maps, (d, d, d, d), mode="replicate")  # PyTorch has no half-sample mirror
        new = functional.conv2d(padded, weights[None], bias[None], dilation=d).relu()
        maps = torch.cat([maps, new], dim=1)
    return functional.conv2d(maps, layers.output_weights[None, :, None, None], layers.output_bias)


def median(function, repetitions):
    function()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def slices(size):
    """One slice on one core: ours, the usual way, and the floor."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    image = rng.random((CHANNELS, size, size), np.float32)
    vector = torch_engine.initial_parameters(CHANNELS, DEPTH, 0)
    maps = mixed_scale.buffer(CHANNELS + DEPTH, size, size)
    tensor, parameters = torch.from_numpy(image)[None], torch.from_numpy(vector)
    repetitions = 3 if size > 512 else 5
    with torch.no_grad():
        ours = median(lambda: mixed_scale.forward(image, vector, DEPTH, maps), repetitions)
        theirs = median(lambda: by_concatenation(tensor, parameters, DEPTH), 1)
    operations = multiply_adds(size)
    return {
        "seconds a slice": ours,
        "by concatenation in PyTorch, seconds": theirs,
        "ratio": theirs / ours,
        "10⁹ multiply-adds": operations / 1e9,
        "10⁹ multiply-adds a second": operations / ours / 1e9,
        "floor at 3 GHz, seconds": operations / LANES / 3e9,
        "buffer, MB": maps.nbytes / 1e6,
    }


def step(size=128):
    """A slice's forward and backward pass on one core."""
    rng = np.random.default_rng(0)
    image, derivative = rng.random((CHANNELS, size, size), np.float32), rng.random((size, size), np.float32)
    vector = torch_engine.initial_parameters(CHANNELS, DEPTH, 0)
    maps = mixed_scale.buffer(CHANNELS + DEPTH, size, size)
    work = mixed_scale.buffer(DEPTH + 1, size, size, 2 * mixed_scale.DILATIONS)
    forward = median(lambda: mixed_scale.forward(image, vector, DEPTH, maps), 5)
    backward = median(lambda: mixed_scale.backward(maps, vector, DEPTH, derivative, work), 5)
    return {
        "forward, ms": 1000 * forward,
        "backward, ms": 1000 * backward,
        "10⁹ multiply-adds a second, forward": multiply_adds(size) / forward / 1e9,
        "10⁹ multiply-adds a second, backward (twice as many)": 2 * multiply_adds(size) / backward / 1e9,
        "both buffers, MB": (maps.nbytes + work.nbytes) / 1e6,
    }
