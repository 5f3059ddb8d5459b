"""Where the pixels of projections lie, and which of them an atom reaches."""

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
