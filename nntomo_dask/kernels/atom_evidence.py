"""What an atom more changes: the model of the projections, and the logarithm of its likelihood."""

import math
from typing import Any

from nntomo_dask.kernels.atom_grid import REACH, along as along_of, span
from nntomo_dask.kernels.compiling import njit
from nntomo_dask.kernels.gradient_evidence import change_of, curve

LEAST = 1e-12  # of the model's values: the logarithm stays finite


@njit(nogil=True, cache=True)
def paint(images: Any, position: Any, height: float, width: float, rays: Any) -> None:
    """Add an atom to images (view, detector, z)."""
    views, detectors, slices = images.shape
    low, along = along_of(position, height, width, rays, slices)
    for k in range(views):
        place = position[2] * rays.cosines[k] + position[1] * rays.sines[k]
        start, stop = span(place, rays.first_t, rays.step_t, REACH * width, detectors)
        for t in range(start, stop):
            away = (rays.first_t + rays.step_t * t - place) / width
            across = math.exp(-0.5 * away * away)
            for z in range(len(along)):
                images[k, t, low + z] += across * along[z]


@njit(nogil=True, cache=True)
def change_of_counts(counts: Any, model: Any, position: Any, height: float, width: float, rays: Any) -> float:
    """What an atom more adds to the logarithm of the likelihood of counts, by the model (view, detector, z)."""
    views, detectors, slices = counts.shape
    low, along = along_of(position, height, width, rays, slices)
    total, change = along.sum(), 0.0
    for k in range(views):
        place = position[2] * rays.cosines[k] + position[1] * rays.sines[k]
        start, stop = span(place, rays.first_t, rays.step_t, REACH * width, detectors)
        for t in range(start, stop):
            away = (rays.first_t + rays.step_t * t - place) / width
            across = math.exp(-0.5 * away * away)
            change -= across * total
            for z in range(len(along)):
                counted = counts[k, t, low + z]
                if counted > 0:
                    before = max(model[k, t, low + z], LEAST)
                    change += counted * math.log(max(model[k, t, low + z] + across * along[z], LEAST) / before)
    return change


@njit(nogil=True, cache=True)
def add(model: Any, position: Any, height: float, width: float, rays: Any, precision: float) -> None:
    """Add an atom to the model; where the noise is white in the gradient, take it from the residual."""
    if precision > 0:
        curve(model, position, -precision * height, width, rays)
    else:
        paint(model, position, height, width, rays)


@njit(nogil=True, cache=True)
def gain(counts: Any, model: Any, position: Any, height: float, width: float, rays: Any, precision: float) -> float:
    """What an atom more adds to the logarithm of the likelihood of counts; above a precision of 0, of gradients."""
    if precision > 0:
        return change_of(model, position, height, width, rays, precision)
    return change_of_counts(counts, model, position, height, width, rays)
