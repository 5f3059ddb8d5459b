"""The U-Net of `unet` and the steps that are made of several, in PyTorch; `training` and this room alone import it.

The networks of one *unrolled iteration* stand one behind the other. Each sees the slice as it is so far with its
neighbours, two first guesses, what the measured projections say against it (the direction of steepest descent, see
`steps`), and how strong the noise is; its output is added to the slice.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from nntomo_dask.compute import device
from nntomo_dask.kernels import unet

Apply = Callable[[Any], Any]  # a symmetric linear operation on images (image, y, x), arrays of NumPy or CuPy


def apply(images: torch.Tensor, vector: torch.Tensor, width: int) -> torch.Tensor:
    """The U-Net of a vector of parameters, from images (image, channel, y, x) to (image, y, x)."""
    inputs, (height, length) = images.shape[1], images.shape[2:]
    missing = [-side % unet.ALIGNMENT for side in (length, height)]
    maps = functional.pad(images, (0, missing[0], 0, missing[1]))
    remaining, start = iter(unet.layers(inputs, width)), 0

    def convolved(maps: torch.Tensor) -> torch.Tensor:
        nonlocal start
        layer = next(remaining)
        middle, end = start + layer.weights, start + layer.weights + layer.outputs
        weights = vector[start:middle].reshape(layer.outputs, layer.inputs, layer.edge, layer.edge)
        bias, start = vector[middle:end], end
        return functional.conv2d(maps, weights, bias, padding=layer.edge // 2)

    def level(maps: torch.Tensor) -> torch.Tensor:
        return convolved(convolved(maps).relu()).relu()

    above = []
    for depth in range(unet.LEVELS):
        maps = level(maps)
        if depth < unet.LEVELS - 1:
            above.append(maps)
            maps = functional.avg_pool2d(maps, 2)
    for beside in reversed(above):
        maps = level(torch.cat([functional.interpolate(maps, scale_factor=2, mode="nearest"), beside], dim=1))
    return convolved(maps)[:, 0, :height, :length]


def apply_in_tiles(images: torch.Tensor, vector: torch.Tensor, width: int) -> torch.Tensor:
    """`apply` to one large image after the other in tiles, which take little memory; without derivatives.

    A tile sees a margin that is wider than the network does, and begins where means of pixels do. So the values are
    those of `apply`, up to rounding, and the tiles are the same whatever else is computed.
    """
    height, length = images.shape[2:]
    if max(height, length) <= unet.TILE + 2 * unet.MARGIN:
        return torch.cat([apply(image[None], vector, width) for image in images])
    output = torch.empty((len(images), height, length), device=images.device)
    for number in range(len(images)):
        for y in range(0, height, unet.TILE):
            for x in range(0, length, unet.TILE):
                top, left = max(y - unet.MARGIN, 0), max(x - unet.MARGIN, 0)
                bottom, right = y + unet.TILE + unet.MARGIN, x + unet.TILE + unet.MARGIN
                found = apply(images[number : number + 1, :, top:bottom, left:right], vector, width)[0]
                inside = found[y - top : y - top + unet.TILE, x - left : x - left + unet.TILE]
                output[number, y : y + unet.TILE, x : x + unet.TILE] = inside
    return output


def steps(
    vectors: Sequence[torch.Tensor],
    guesses: Sequence[torch.Tensor],
    operation: Apply,
    *,
    noise: float,
    width: int,
    neighbours: int,
    together: int,
) -> torch.Tensor:
    """The slices (slice, y, x) after all steps, in units of the specimen's intensity.

    Parameters
    ----------
    vectors
        (parameter,) of each step.
    guesses
        (slice + 2 · reach, y, x) each: a first guess x, with which the steps begin, a second one, and the descent
        ``Aᵀ S (y - A x)``, the direction in which the first fits the measured projections y better. The reach is the
        number of steps times that of the neighbours.
    operation
        ``Aᵀ S A``, which tells how the direction changes with the slices.
    noise
        Standard deviation in a ray.
    width, neighbours
        Of a U-Net; slices that it sees on either side.
    together
        Images that are convolved at once. With 1 a slice has the same bits for any number of slices, and large ones are
        convolved in tiles, without derivatives.
    """
    first, second, descent = guesses
    current, offset = first, 0
    network = apply_in_tiles if together == 1 else apply
    near = min(neighbours, 1)
    for number, vector in enumerate(vectors):
        count = len(current) - 2 * neighbours
        inside = slice(neighbours, neighbours + count)
        offset += neighbours
        direction = descent[offset : offset + count]
        if number > 0:
            direction = direction - symmetric(operation, current[inside] - first[offset : offset + count])
        outputs = []
        for start in range(0, count, together):
            stop = min(start + together, count)
            channels = [current[start + shift : stop + shift] for shift in range(2 * neighbours + 1)]
            channels.append(first[offset + start : offset + stop])
            channels += [second[offset + start + shift : offset + stop + shift] for shift in range(-near, near + 1)]
            channels += [direction[start:stop], torch.full_like(direction[start:stop], noise**0.5)]
            outputs.append(network(torch.stack(channels, dim=1), vector, width))
        current = current[inside] + torch.cat(outputs)
    return current


class _Symmetric(torch.autograd.Function):
    """A symmetric linear operation: its own derivative."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, operation: Apply) -> torch.Tensor:
        ctx.operation = operation
        return _applied(operation, images)

    @staticmethod
    def backward(ctx: Any, *derivatives: Any) -> Any:
        return _applied(ctx.operation, derivatives[0]), None


def symmetric(operation: Apply, images: torch.Tensor) -> torch.Tensor:
    """``operation(images)``, through which derivatives pass."""
    result: torch.Tensor = _Symmetric.apply(images, operation)  # type: ignore[no-untyped-call]
    return result


def _applied(operation: Apply, images: torch.Tensor) -> torch.Tensor:
    if images.device.type == "cpu":
        return tensor_of(operation(array_of(images)))
    with device.cupy().cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
        return tensor_of(operation(array_of(images)))


def tensor_of(array: Any) -> torch.Tensor:
    """An array of NumPy or CuPy as a tensor; the memory is the same."""
    if device.is_on_gpu(array):
        on_gpu: torch.Tensor = torch.from_dlpack(array)  # type: ignore[attr-defined]
        return on_gpu
    return torch.from_numpy(np.ascontiguousarray(array))


def array_of(tensor: torch.Tensor) -> Any:
    """A tensor as an array of NumPy or, where it is on a GPU, of CuPy; the memory is the same."""
    found = tensor.detach().contiguous()
    return found.numpy() if found.device.type == "cpu" else device.cupy().from_dlpack(found)


def solved(
    vectors: Sequence[Any],
    guesses: Sequence[Any],
    operation: Apply,
    *,
    noise: float,
    width: int,
    neighbours: int,
) -> Any:
    """`steps` on arrays of NumPy or CuPy, slice by slice, without derivatives."""
    with torch.no_grad(), one_thread(), _on_stream_of(guesses[0]):
        parameters = [tensor_of(vector) for vector in vectors]
        images = [tensor_of(array) for array in guesses]
        found = steps(parameters, images, operation, noise=noise, width=width, neighbours=neighbours, together=1)
    return array_of(found)


def _on_stream_of(array: Any) -> contextlib.AbstractContextManager[object]:
    """Within this context PyTorch computes on the stream on which CuPy does, where the array is CuPy's."""
    if not device.is_on_gpu(array):
        return contextlib.nullcontext()
    pointer = device.cupy().cuda.get_current_stream().ptr
    return torch.cuda.stream(torch.cuda.ExternalStream(pointer))  # type: ignore[no-untyped-call]


class one_thread:
    """Within this context PyTorch computes with one thread what this thread asks for.

    Cores are used by other threads already, and bits do not depend on their number. PyTorch has a number for each
    thread, and one for threads to come; contexts may overlap, and the last that ends restores it.
    """

    _lock = threading.Lock()
    _inside = 0
    _before = 1

    def __enter__(self) -> None:
        with self._lock:
            if one_thread._inside == 0:
                one_thread._before = torch.get_num_threads()
            one_thread._inside += 1
            torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            one_thread._inside -= 1
            torch.set_num_threads(one_thread._before if one_thread._inside == 0 else 1)
