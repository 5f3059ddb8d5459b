"""Where the pixels of projections lie, which of them an atom reaches, and where it may be."""

import math
from typing import Any, NamedTuple

import numpy as np

from nntomo_dask.kernels.compiling import njit
from nntomo_dask.types import Float64

REACH = 3.5  # standard deviations beyond which an atom adds nothing


class Rays(NamedTuple):
    """Where pixels lie: position [nm] = first + step · index. An entry of the trigonometric functions for each view."""

    cosines: Float64
    sines: Float64
    first_z: float
    step_z: float
    first_t: float
    step_t: float


class Prior(NamedTuple):
    """What is known of atoms beside the projections."""

    distances: Float64  # (kind, kind) [nm], least
    per_voxel: float  # mean number of atoms of all kinds in a voxel
    births: Float64  # (voxel + 1,): cumulative, from 0 to 1; the share of births in each voxel of (z, y, x)
    size: int  # voxels along y and along x


@njit(nogil=True, cache=True)
def span(place: float, first: float, step: float, reach: float, count: int) -> Any:
    """The first pixel within reach of a place, and the one after the last."""
    one, other = (place - reach - first) / step, (place + reach - first) / step
    low, high = min(one, other), max(one, other)
    return max(0, math.ceil(low)), min(count, math.floor(high) + 1)


@njit(nogil=True, cache=True)
def along(position: Any, height: float, width: float, rays: Any, count: int) -> Any:
    """First slice, and the values of the Gaussian along z from there on, times the height."""
    low, high = span(position[0], rays.first_z, rays.step_z, REACH * width, count)
    values = np.empty(max(high - low, 0))
    for z in range(low, high):
        away = (rays.first_z + rays.step_z * z - position[0]) / width
        values[z - low] = height * math.exp(-0.5 * away * away)
    return low, values


@njit(nogil=True, cache=True)
def is_free(positions: Any, kinds: Any, atoms: int, place: Any, kind: int, but: int, distances: Any) -> bool:
    """Whether an atom of that kind may be at a place, whatever atom number `but` says."""
    for other in range(atoms):
        if other == but:
            continue
        least = distances[kind, kinds[other]]
        square = 0.0
        for axis in range(3):
            square += (positions[other, axis] - place[axis]) ** 2
        if square < least * least:
            return False
    return True


@njit(nogil=True, cache=True)
def voxel_of(place: Any, rays: Any, size: int, slices: int) -> int:
    """The number of the voxel that holds a place, -1 outside."""
    z = math.floor((place[0] - rays.first_z) / rays.step_z + 0.5)
    y = math.floor((place[1] - rays.first_t) / rays.step_t + 0.5)
    x = math.floor((place[2] - rays.first_t) / rays.step_t + 0.5)
    if z < 0 or y < 0 or x < 0 or z >= slices or y >= size or x >= size:
        return -1
    return (z * size + y) * size + x


@njit(nogil=True, cache=True)
def accepts(logarithm: float, rng: Any) -> bool:
    """Whether a move is accepted, by the logarithm of the ratio of probabilities."""
    return logarithm >= 0 or rng.random() < math.exp(logarithm)
