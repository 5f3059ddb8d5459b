"""Layers of MS-D Net: kernels and PyTorch against the formula."""

import pytest

pytest.importorskip("torch", reason="needs nntomo_dask[deep]")

import numpy as np
import torch

import nntomo_dask as nt
from nntomo_dask.kernels import mixed_scale, torch_layers as torch_engine

SHAPES = [(1, 1, 1), (2, 3, 30), (5, 23, 17), (3, 48, 64)]  # smaller than the largest dilation, odd, whole registers
DEPTH = 13  # all dilations, and the first again


def parameters(rng, channels, depth=DEPTH):
    """Random ones, biases and the output's among them."""
    vector = torch_engine.initial_parameters(channels, depth, 0)
    return (vector + 0.1 * rng.standard_normal(vector.size)).astype(np.float32)


def naive(images, vector, depth):
    """Output (y, x) for images (channel, y, x) of any type: by concatenation."""
    layers = mixed_scale.unpack(vector, len(images), depth)
    maps = images.astype(vector.dtype)
    for layer, (weights, bias) in enumerate(zip(layers.weights, layers.biases, strict=True)):
        d = layer % 10 + 1
        padded = np.pad(maps, ((0, 0), (d, d), (d, d)), mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * d + 1, 2 * d + 1), axis=(1, 2))
        total = np.einsum("cyxjk,cjk->yx", windows[..., ::d, ::d], weights) + bias
        maps = np.concatenate([maps, np.maximum(total, 0)[None]])
    return np.einsum("cyx,c->yx", maps, layers.output_weights) + layers.output_bias


@pytest.mark.parametrize(("channels", "count"), [(1, 45_652), (5, 49_256)])
def test_number_of_parameters(channels, count):
    assert mixed_scale.parameter_count(channels, 100) == count
    assert sum(one.numel() for one in torch_engine.MixedScaleDense(channels).parameters()) == count


def test_start():
    """Weights of the published variance; biases and the output zero, so that the first output is zero."""
    layers = mixed_scale.unpack(torch_engine.initial_parameters(5, 100, seed=1), 5, 100)
    weights = np.concatenate([one.ravel() for one in layers.weights])
    assert weights.var() == pytest.approx(2 / (9 * (5 + 100 - 1) + 1), rel=0.02)
    for part in (layers.biases, layers.output_weights, layers.output_bias):
        assert not part.any()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_buffered_network_is_the_naive_one(rng, shape):
    images, vector = rng.random(shape, np.float32), parameters(rng, shape[0])
    expected = naive(images, vector.astype(float), DEPTH)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        mixed_scale.forward_reference(images, vector, DEPTH) / scale, expected / scale, atol=1e-6
    )
    output, maps = mixed_scale.forward(images, vector, DEPTH)
    np.testing.assert_allclose(output / scale, expected / scale, atol=1e-6)
    again, _ = mixed_scale.forward(images, vector, DEPTH, maps)  # in a buffer that was used before
    np.testing.assert_array_equal(again, output)


@pytest.mark.parametrize("shape", SHAPES)
def test_derivatives(rng, shape):
    """Along random directions, against finite differences of the naive network in double precision."""
    images, vector = rng.random(shape, np.float32), parameters(rng, shape[0])
    derivative = rng.standard_normal(shape[1:]).astype(np.float32)
    _, maps = mixed_scale.forward(images, vector, DEPTH)
    gradient = mixed_scale.backward(maps, vector, DEPTH, derivative).astype(float)
    for _ in range(3):
        direction = rng.standard_normal(vector.size)
        step = 1e-7 * direction
        ahead, behind = (naive(images, vector + sign * step, DEPTH) for sign in (1, -1))
        expected = ((ahead - behind) * derivative).sum() / 2e-7
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction) / np.sqrt(vector.size)
        assert gradient @ direction == pytest.approx(expected, abs=1e-4 * scale)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_ways_through_pytorch(rng, shape):
    """What a GPU computes, here on the CPU, is what the kernels compute: outputs and derivatives."""
    images = torch.from_numpy(rng.standard_normal((2, *shape)).astype(np.float32))
    wanted = torch.from_numpy(rng.standard_normal((2, *shape[1:])).astype(np.float32))
    found = []
    for way in (torch_engine._OnCPU, torch_engine._ByTorch):
        module = torch_engine.MixedScaleDense(shape[0], DEPTH, threads=2)
        module.vector.data = torch.from_numpy(parameters(np.random.default_rng(1), shape[0]))
        last = 2 if way is torch_engine._OnCPU else torch.float32
        output = way.apply(images, module.vector, DEPTH, last)
        (output - wanted).square().mean().backward()
        found.append((output.detach().numpy(), module.vector.grad.numpy()))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


def test_half_precision_is_near(rng):
    images, vector = rng.random((1, 3, 20, 20), np.float32), parameters(rng, 3)
    exact, rough = (
        torch_engine._ByTorch.apply(torch.from_numpy(images), torch.from_numpy(vector), DEPTH, precision).numpy()
        for precision in (torch.float32, torch.bfloat16)
    )
    assert 0 < np.abs(rough - exact).max() < 0.05 * np.abs(exact).max()


def test_edges_mirror(rng):
    """An image beside its mirror image gives the output beside its mirror image."""
    images, vector = rng.random((2, 12, 12), np.float32), parameters(rng, 2)
    for layer in mixed_scale.unpack(vector, 2, DEPTH).weights:
        layer[:] = layer + layer[..., ::-1]  # symmetric, so that a mirrored image is an input like any other
    output, _ = mixed_scale.forward(images, vector, DEPTH)
    doubled, _ = mixed_scale.forward(np.concatenate([images, images[..., ::-1]], axis=2), vector, DEPTH)
    scale = np.abs(output).max()
    np.testing.assert_allclose(doubled[:, :12] / scale, output / scale, atol=1e-5)
    np.testing.assert_allclose(doubled[:, 12:] / scale, output[:, ::-1] / scale, atol=1e-5)


def test_memory_of_a_large_slice():
    """One buffer of all maps, and nothing beside it, is all that inference takes: half a GB at 1024²."""
    assert mixed_scale.buffer(105, 1024, 1024).nbytes < 0.5e9


def test_wrong_channels(rng):
    module = torch_engine.MixedScaleDense(5, 4)
    with pytest.raises(nt.SchemaError, match=r"needs images \(image, 5, y, x\); got \(1, 3, 8, 8\)"):
        module(torch.zeros(1, 3, 8, 8))
