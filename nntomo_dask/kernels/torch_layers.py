"""The Mixed-Scale Dense network as a PyTorch module. Only this module and `training` import torch.

On the CPU the layers are the kernels of `mixed_scale`, forward and backward, with one slice per thread. On a GPU they
are convolutions of PyTorch in one buffer, with the same derivative. Both store one value for each map and pixel, and
one more for the derivative.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from nntomo_dask.arrays.slabs import mirrored
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import mixed_scale
from nntomo_dask.kernels.mixed_scale import DILATIONS, dilation_of, parameter_count, unpack
from nntomo_dask.types import Float32

_MAPS = 16  # maps in one convolution of PyTorch, which copies them to contiguous memory


def initial_parameters(inputs: int, depth: int, seed: int) -> Float32:
    """Weights of variance 2 / (9 (inputs + depth - 1) + 1); biases and output weights are 0 (Pelt & Sethian)."""
    parameters = np.zeros(parameter_count(inputs, depth), np.float32)
    weights = parameters.size - 2 * depth - inputs - 1
    deviation = np.sqrt(2 / (9 * (inputs + depth - 1) + 1))
    parameters[:weights] = np.random.default_rng(seed).normal(0, deviation, weights)
    return parameters


class MixedScaleDense(torch.nn.Module):
    """Maps images (image, channel, y, x) to (image, y, x), float32, of any size, on the CPU or a GPU.

    Parameters
    ----------
    inputs
        Number of channels of an image.
    depth
        Number of layers, with one map each. Their dilations are 1 … 10, 1 ….
    seed
        Seed of the initial weights.
    precision
        Type of the maps on a GPU. On the CPU they are always float32.
    threads
        Number of images that are computed at once on the CPU.
    """

    def __init__(
        self,
        inputs: int,
        depth: int = 100,
        *,
        seed: int = 0,
        precision: torch.dtype = torch.float32,
        threads: int = 1,
    ) -> None:
        super().__init__()
        self.inputs, self.depth, self.precision, self.threads = inputs, depth, precision, threads
        self.vector = torch.nn.Parameter(torch.from_numpy(initial_parameters(inputs, depth, seed)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Apply the network."""
        if images.ndim != 4 or images.shape[1] != self.inputs:
            refuse(
                "MixedScaleDense",
                needs=f"images (image, {self.inputs}, y, x)",
                got=f"{tuple(images.shape)}",
                remedy=f"give images with {self.inputs} {'channel' if self.inputs == 1 else 'channels'}",
            )
        if images.device.type == "cpu":
            output = _OnCPU.apply(images, self.vector, self.depth, self.threads)  # type: ignore[no-untyped-call]
        else:
            output = _ByTorch.apply(images, self.vector, self.depth, self.precision)  # type: ignore[no-untyped-call]
        return output


class _Buffers:
    """Buffers that can be reused, by their shape. Several threads may take and return them."""

    def __init__(self) -> None:
        self.lock, self.size = threading.Lock(), (0, 0)
        self.free: dict[tuple[int, int], list[Float32]] = {}  # by number of maps and border

    def take(self, maps: int, height: int, width: int, border: int) -> Float32:
        with self.lock:
            if self.size != (height, width):  # buffers for another image size are dropped
                self.size, self.free = (height, width), {}
            free = self.free.get((maps, border))
            if free:
                return free.pop()
        return mixed_scale.buffer(maps, height, width, border)

    def give(self, buffer: Float32, maps: int, height: int, width: int, border: int) -> None:
        with self.lock:
            if self.size == (height, width):
                self.free.setdefault((maps, border), []).append(buffer)


_buffers = _Buffers()


class _OnCPU(torch.autograd.Function):
    """The kernels of `kernels.mixed_scale`, with derivatives only with respect to the parameters."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, vector: torch.Tensor, depth: int, threads: int) -> torch.Tensor:
        host, parameters = images.detach().numpy(), vector.detach().numpy()
        count, channels, height, width = host.shape
        shape = channels + depth, height, width, DILATIONS

        def one(image: Float32) -> tuple[Float32, Float32]:
            return mixed_scale.forward(image, parameters, depth, _buffers.take(*shape))

        with ThreadPoolExecutor(min(threads, count)) as pool:
            outputs, maps = zip(*pool.map(one, host), strict=True)
        if vector.requires_grad:
            ctx.maps, ctx.shape, ctx.depth, ctx.threads = maps, shape, depth, threads
            ctx.save_for_backward(vector)
        else:
            for buffer in maps:
                _buffers.give(buffer, *shape)
        return torch.from_numpy(np.stack(outputs))

    @staticmethod
    def backward(ctx: Any, *derivatives: Any) -> Any:
        (vector,) = ctx.saved_tensors
        parameters, depth = vector.detach().numpy(), ctx.depth
        _, height, width, _ = ctx.shape
        work_shape = depth + 1, height, width, 2 * DILATIONS

        def one(maps: Float32, derivative: Float32) -> Float32:
            work = _buffers.take(*work_shape)
            gradient = mixed_scale.backward(maps, parameters, depth, derivative, work)
            _buffers.give(work, *work_shape)
            _buffers.give(maps, *ctx.shape)
            return gradient

        maps, ctx.maps = ctx.maps, None
        with ThreadPoolExecutor(min(ctx.threads, len(maps))) as pool:
            parts = list(pool.map(one, maps, derivatives[0].numpy()))
        return None, torch.from_numpy(np.sum(parts, axis=0, dtype=np.float64).astype(np.float32)), None, None


class _ByTorch(torch.autograd.Function):
    """The same with operations of PyTorch, on any device."""

    @staticmethod
    def forward(
        ctx: Any, images: torch.Tensor, vector: torch.Tensor, depth: int, precision: torch.dtype
    ) -> torch.Tensor:
        count, channels, height, width = images.shape
        layers = unpack(vector.detach(), channels, depth)
        places = _places(height, images.device), _places(width, images.device)
        shape = count, channels + depth, height + 2 * DILATIONS, width + 2 * DILATIONS
        maps = torch.empty(shape, dtype=precision, device=images.device)
        maps[:, :channels] = images.to(precision)[:, :, places[0]][..., places[1]]
        for layer, weights in enumerate(layers.weights):
            total = layers.biases[layer].expand(count, 1, height, width).clone()
            for first, part in _windows(maps, channels + layer, layer, height, width):
                some = weights[first : first + part.shape[1]].to(precision)[None]
                total += functional.conv2d(part, some, dilation=dilation_of(layer))
            maps[:, channels + layer] = total.relu()[:, 0].to(precision)[:, places[0]][..., places[1]]
        ctx.save_for_backward(vector, maps)
        ctx.depth, ctx.places, ctx.size = depth, places, (channels, height, width)
        output: torch.Tensor = layers.output_bias.expand(count, height, width).clone()
        for first in range(0, channels + depth, _MAPS):
            some = layers.output_weights[first : first + _MAPS]
            output += torch.einsum("ncyx,c->nyx", _inside(maps[:, first : first + _MAPS]).float(), some)
        return output

    @staticmethod
    def backward(ctx: Any, *derivatives: Any) -> Any:
        vector, maps = ctx.saved_tensors
        depth, places, (channels, height, width) = ctx.depth, ctx.places, ctx.size
        derivative = derivatives[0]
        layers = unpack(vector.detach(), channels, depth)
        result = torch.zeros_like(vector)
        by = unpack(result, channels, depth)
        by.output_bias[0] = derivative.sum()
        for channel in range(channels + depth):
            by.output_weights[channel] = (_inside(maps[:, channel]).float() * derivative).sum()
        spread = torch.zeros_like(maps[:, channels:])
        for layer in range(depth - 1, -1, -1):
            channel, d = channels + layer, dilation_of(layer)
            total = layers.output_weights[channel] * derivative + _folded(spread[:, layer].float(), places)
            total = (total * (_inside(maps[:, channel]) > 0))[:, None]
            by.biases[layer] = total.sum()
            total = total.to(maps.dtype)
            for first, part in _windows(maps, channel, layer, height, width):
                shape = (1, part.shape[1], 3, 3)
                gradient = conv2d_weight(part, shape, total, dilation=d)  # type: ignore[no-untyped-call]
                by.weights[layer][first : first + part.shape[1]] = gradient[0]
            border = DILATIONS - d
            for first in range(0, layer, _MAPS):
                some = layers.weights[layer][channels + first : min(channels + first + _MAPS, channel)]
                back = functional.conv_transpose2d(total, some.to(maps.dtype)[None], dilation=d)
                target = spread[:, first : first + back.shape[1]]
                target[..., border : border + height + 2 * d, border : border + width + 2 * d] += back
        return None, result, None, None


def _places(count: int, where: torch.device) -> torch.Tensor:
    return torch.from_numpy(mirrored(count, DILATIONS)).to(where)


def _inside(maps: torch.Tensor) -> torch.Tensor:
    return maps[..., DILATIONS:-DILATIONS, DILATIONS:-DILATIONS]


def _windows(maps: torch.Tensor, count: int, layer: int, height: int, width: int) -> Any:
    """The parts of the earlier maps that a layer reads, a few maps at a time, with the number of the first map."""
    border, d = DILATIONS - dilation_of(layer), dilation_of(layer)
    for first in range(0, count, _MAPS):
        some = maps[:, first : min(first + _MAPS, count)]
        yield first, some[..., border : border + height + 2 * d, border : border + width + 2 * d]


def _folded(one: torch.Tensor, places: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """(image, y, x), after adding the border to the pixels that it mirrors."""
    count, height, width = len(one), int(places[0].max()) + 1, int(places[1].max()) + 1
    rows = torch.zeros(count, height, one.shape[2], device=one.device).index_add_(1, places[0], one)
    return torch.zeros(count, height, width, device=one.device).index_add_(2, places[1], rows)


def on_gpu(images: Any, parameters: Float32, depth: int) -> Float32:
    """Output (image, y, x) for images (image, channel, y, x), on the GPU of this process, one image at a time."""
    vector = torch.from_numpy(parameters).cuda()
    with torch.no_grad():
        outputs = [
            _ByTorch.apply(torch.from_numpy(image)[None].cuda(), vector, depth, torch.float32).cpu().numpy()  # type: ignore[no-untyped-call]
            for image in images
        ]
    return np.concatenate(outputs)
