"""The layout of a small U-Net with three levels: its layers, and their places in one vector of parameters.

On each level two layers of 3 × 3 convolutions and ReLU; means of 2 × 2 pixels lead down, repeated pixels up, where they
are joined with the maps of that level. The last layer is linear: one output an image. `torch_unet` computes it.

References
----------
.. [1] O. Ronneberger, P. Fischer and T. Brox, U-Net, MICCAI 2015, doi:10.1007/978-3-319-24574-4_28.
"""

from typing import NamedTuple

import numpy as np

from nntomo_dask.types import Float32

LEVELS = 3
ALIGNMENT = 2 ** (LEVELS - 1)  # sides of images are filled up with zeros to a multiple
# Large images are computed in tiles. An output depends on pixels up to 23 away: two on the highest level on the way
# down and two on the way up, as many of twice the size on the next, two of the lowest, and the means' own pixels.
TILE, MARGIN = 256, 24


class Layer(NamedTuple):
    """A convolution: its inputs, outputs and the edge of its kernel."""

    inputs: int
    outputs: int
    edge: int

    @property
    def weights(self) -> int:
        """Number of its weights."""
        return self.inputs * self.outputs * self.edge**2


def layers(inputs: int, width: int) -> list[Layer]:
    """All layers in their order: down, the lowest level, up, and the output.

    Parameters
    ----------
    inputs
        Channels of an image.
    width
        Maps on the highest level; each lower one has twice as many.
    """
    widths = [width * 2**level for level in range(LEVELS)]
    made: list[Layer] = []
    before = inputs
    for one in widths:
        made += [Layer(before, one, 3), Layer(one, one, 3)]
        before = one
    for one in widths[-2::-1]:
        made += [Layer(before + one, one, 3), Layer(one, one, 3)]
        before = one
    return [*made, Layer(before, 1, 1)]


def parameter_count(inputs: int, width: int) -> int:
    """Weights and biases of a U-Net."""
    return sum(layer.weights + layer.outputs for layer in layers(inputs, width))


def initial_parameters(inputs: int, width: int, seed: int) -> Float32:
    """Normal weights of variance 2 / inputs of a node (He et al., 2015); biases and the last layer are 0."""
    rng = np.random.default_rng(seed)
    parts = []
    for layer in layers(inputs, width):
        deviation = 0.0 if layer.edge == 1 else np.sqrt(2 / (layer.inputs * layer.edge**2))
        parts += [rng.normal(0, 1, layer.weights) * deviation, np.zeros(layer.outputs)]
    return np.concatenate(parts).astype(np.float32)


def multiply_adds(inputs: int, width: int, size: int) -> int:
    """Of one image of size × size pixels."""
    count, place = 0, [*range(LEVELS), *range(LEVELS - 2, -1, -1)]
    for number, layer in enumerate(layers(inputs, width)[:-1]):
        count += layer.weights * (size >> place[number // 2]) ** 2
    return count + layers(inputs, width)[-1].weights * size**2


def buffer_bytes(inputs: int, width: int, size: int) -> int:
    """Bytes of one image and of the maps that are held at once when nothing is learned: of one tile where it is large.

    At the end of the way up the level's own maps, twice as many from below, both joined, and a layer's output.
    """
    edge = min(size, TILE + 2 * MARGIN) + ALIGNMENT
    return 4 * ((size + ALIGNMENT) ** 2 * (inputs + 2) + edge**2 * (inputs + 8 * width))


def channel_count(neighbours: int) -> int:
    """Channels that a step of an unrolled iteration sees, see `torch_unet.steps`.

    The slices so far, the first guess, the second with its next neighbours, the direction, and the noise.
    """
    return (2 * neighbours + 1) + 1 + (2 * min(neighbours, 1) + 1) + 2
