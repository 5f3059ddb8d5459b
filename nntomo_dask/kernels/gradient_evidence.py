"""What projections say of an atom where they are integrated gradients, as in iDPC.

The noise is white in the gradient, of a variance s² in each component. A projection y of the model m has the
probability ``exp(-Σ |∇(y - m)|² / 2s²)``, so an atom δ more adds ``Σ δ ρ - ½ Σ δ κ`` to its logarithm, with the
residual ``ρ = -∇²(y - m) / s²`` and ``κ = -∇²δ / s²``. Each atom takes its κ from the residual. Of a Gaussian of height
h and width w it is ``h (2 - d²/w²) / w² s² · exp(-d² / 2w²)``. A constant, and what rises evenly, are not seen.
"""

import math
from typing import Any

import numpy as np

from nntomo_dask.kernels.atom_grid import REACH, Rays, along as along_of, span
from nntomo_dask.kernels.compiling import njit
from nntomo_dask.types import Float64, Integers


def curvatures(
    positions: Float64,
    kinds: Integers,
    heights: Float64,
    width: float,
    rays: Rays,
    shape: tuple[int, int, int],
    *,
    precision: float,
) -> Float64:
    """``-∇² m · precision``, (view, detector, z), of the projections m of atoms; else as `render`.

    Parameters
    ----------
    precision
        One over the variance of each component of the gradient, per nm.
    """
    images = np.zeros(shape)
    for position, kind in zip(positions, kinds, strict=True):
        curve(images, position, precision * float(heights[kind]), width, rays)
    return images


def curvatures_reference(
    positions: Float64,
    kinds: Integers,
    heights: Float64,
    width: float,
    rays: Rays,
    shape: tuple[int, int, int],
    *,
    precision: float,
) -> Float64:
    """Reference implementation of `curvatures`."""
    z = rays.first_z + rays.step_z * np.arange(shape[2])
    t = rays.first_t + rays.step_t * np.arange(shape[1])
    images = np.zeros(shape)
    for (az, ay, ax), kind in zip(positions, kinds, strict=True):
        along = z - az
        across = t - (ax * rays.cosines + ay * rays.sines)[:, None]
        square = (across[:, :, None] ** 2 + along**2) / width**2
        values = heights[kind] * (2 - square) / width**2 * np.exp(-square / 2)
        near = (np.abs(across)[:, :, None] <= REACH * width) & (np.abs(along) <= REACH * width)
        images += precision * np.where(near, values, 0)
    return images


@njit(nogil=True, cache=True)
def curve(images: Any, position: Any, height: float, width: float, rays: Any) -> None:
    """Add the curvature of an atom, with a height that has the precision in it."""
    views, detectors, slices = images.shape
    low, along = along_of(position, height / (width * width), width, rays, slices)
    for k in range(views):
        place = position[2] * rays.cosines[k] + position[1] * rays.sines[k]
        start, stop = span(place, rays.first_t, rays.step_t, REACH * width, detectors)
        for t in range(start, stop):
            away = (rays.first_t + rays.step_t * t - place) / width
            across = math.exp(-0.5 * away * away)
            for z in range(len(along)):
                up = (rays.first_z + rays.step_z * (low + z) - position[0]) / width
                images[k, t, low + z] += (2 - away * away - up * up) * across * along[z]


@njit(nogil=True, cache=True)
def change_of(residual: Any, position: Any, height: float, width: float, rays: Any, precision: float) -> float:
    """What an atom more adds to the logarithm of the likelihood, by the residual (view, detector, z)."""
    views, detectors, slices = residual.shape
    low, along = along_of(position, height, width, rays, slices)
    square = np.empty(len(along))
    for z in range(len(along)):
        square[z] = ((rays.first_z + rays.step_z * (low + z) - position[0]) / width) ** 2
    half, change = 0.5 * precision / (width * width), 0.0
    for k in range(views):
        place = position[2] * rays.cosines[k] + position[1] * rays.sines[k]
        start, stop = span(place, rays.first_t, rays.step_t, REACH * width, detectors)
        for t in range(start, stop):
            away = (rays.first_t + rays.step_t * t - place) / width
            across = math.exp(-0.5 * away * away)
            rest = 2 - away * away
            for z in range(len(along)):
                value = across * along[z]
                change += value * (residual[k, t, low + z] - half * (rest - square[z]) * value)
    return change
