"""Projections of three-dimensional Gaussians in one view, and the products of their derivatives.

A Gaussian of height 1 and standard deviation w has the projection

    F(z, t) = √(2π) (w / length) G(z - z₀) G(t - t₀),    G(d) = exp(-d² / 2w²),

with lengths along the ray counted in `length`. Where pixels measure the mean over their area and not the
value at their centre, G is its mean over the pixel, a difference of error functions. Four derivatives belong to a
Gaussian in a view: by its height, which is F, and by z₀, t₀ and w; they are in this order wherever there are four
numbers. Nothing is computed farther than `REACH` standard deviations from the centre, where G is below 4e-6.

All kernels are serial, release the GIL and sum in the order of the Gaussians.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from nntomo_dask.kernels.compiling import njit
from nntomo_dask.types import Float32, Float64, Integers

REACH = 5.0  # standard deviations
HEIGHT, ALONG, ACROSS, WIDTH = 0, 1, 2, 3  # places of the derivatives: by the height, along and across the tilt axis
_ROOT = math.sqrt(2 * math.pi)


class Grid(NamedTuple):
    """Where the pixels of a view lie, in the unit of the positions and widths."""

    first_z: float
    step_z: float
    first_t: float
    step_t: float
    length: float  # in which line integrals are counted
    half_z: float = 0.0  # half of the height and width that a pixel averages over; 0 for values at its centre
    half_t: float = 0.0
    skipped: int = 0  # slices that lie before the first one of the image, for bits that do not depend on slabs


def derivatives_reference(
    centres: Float64, widths: Float64, grid: Grid, shape: tuple[int, int], *, reach: float = math.inf
) -> Float64:
    """The derivatives of Gaussians of height 1 in plain NumPy: (Gaussian, 4, z, t); the first is the projection."""
    z = grid.first_z + grid.step_z * (grid.skipped + np.arange(shape[0], dtype=np.float64))
    t = grid.first_t + grid.step_t * np.arange(shape[1], dtype=np.float64)
    along = _axis_reference(centres[:, 0], widths, z, grid.half_z, reach)
    across = _axis_reference(centres[:, 1], widths, t, grid.half_t, reach)
    value, of_height = _outer(along[0], across[0]), _ROOT / grid.length
    scale = (of_height * widths)[:, None, None]
    by_width = scale * (_outer(along[2], across[0]) + _outer(along[0], across[2])) + of_height * value
    by_place = [scale * _outer(along[1], across[0]), scale * _outer(along[0], across[1])]
    return np.stack([scale * value, *by_place, by_width], axis=1)


def _outer(first: Float64, second: Float64) -> Float64:
    return np.asarray(first[:, :, None] * second[:, None, :])


def _axis_reference(
    centres: Float64, widths: Float64, places: Float64, half: float, reach: float
) -> tuple[Float64, Float64, Float64]:
    """G and its derivatives by centre and width at the pixels of one axis, (Gaussian, pixel)."""
    d, w = places - centres[:, None], widths[:, None]
    near = np.abs(d) <= reach * w + half
    if half == 0:
        value = np.exp(-(d**2) / (2 * w**2))
        parts = value, value * d / w**2, value * d**2 / w**3
    else:
        ends = [np.exp(-((d + side) ** 2) / (2 * w**2)) for side in (half, -half)]
        edges = [scipy.special.erf((d + side) / (np.sqrt(2) * w)) for side in (half, -half)]
        value = w * np.sqrt(np.pi / 2) / (2 * half) * (edges[0] - edges[1])
        by_width = value / w - ((d + half) * ends[0] - (d - half) * ends[1]) / (2 * half * w)
        parts = value, (ends[1] - ends[0]) / (2 * half), by_width
    value, by_centre, by_width = (np.where(near, part, 0) for part in parts)
    return value, by_centre, by_width


def add(centres: Float64, widths: Float64, coefficients: Float64, grid: Grid, image: Float64) -> None:
    """Add ``Σ coefficient · derivative`` to a view; with coefficients (height, 0, 0, 0) the Gaussians themselves.

    Parameters
    ----------
    centres
        (Gaussian, 2): z₀ and t₀.
    widths
        (Gaussian,), standard deviations.
    coefficients
        (Gaussian, 4), of the derivatives of Gaussians of height 1.
    image
        (z, t), changed in place.
    """
    _add(centres, widths, coefficients, grid, image)


def correlate(centres: Float64, widths: Float64, grid: Grid, image: Float64) -> Float64:
    """(Gaussian, 4): the sums of each derivative times a view, the transpose of `add`."""
    sums = np.zeros((len(centres), 4))
    _correlate(centres, widths, grid, image, sums)
    return sums


def products(centres: Float64, widths: Float64, grid: Grid, weights: Float32 | Float64) -> Float64:
    """(Gaussian, 4, 4): the weighted sums of the products of each Gaussian's own derivatives."""
    own = np.arange(len(centres))
    return cross_products(centres, widths, np.stack([own, own], axis=1), grid, weights)


def cross_products(
    centres: Float64, widths: Float64, pairs: Integers, grid: Grid, weights: Float32 | Float64
) -> Float64:
    """(pair, 4, 4): the weighted sums of the products of the derivatives of two Gaussians, of the first in rows.

    Parameters
    ----------
    pairs
        (pair, 2), numbers of Gaussians.
    weights
        (z, t), one of each pixel.
    """
    sums = np.zeros((len(pairs), 4, 4))
    _cross_products(centres, widths, pairs, grid, weights, sums)
    return sums


@njit(nogil=True, cache=True, error_model="numpy")
def _first_and_last(
    centre: float, reach: float, start: float, step: float, skipped: int, count: int
) -> tuple[int, int]:
    """Pixels from the first to before the last that lie within the reach of a centre."""
    one, other = (centre - reach - start) / step - skipped, (centre + reach - start) / step - skipped
    low, high = min(one, other), max(one, other)
    if high < 0 or low > count - 1:
        return 0, 0
    return int(max(math.ceil(low), 0)), int(min(math.floor(high) + 1, count))


@njit(nogil=True, cache=True, error_model="numpy")
def _axis(
    centre: float,
    w: float,
    start: float,
    step: float,
    skipped: int,
    half: float,
    first: int,
    last: int,
    parts: Float64,
) -> None:
    """G and its derivatives by centre and width at some pixels, into the rows of `parts`."""
    if half == 0:
        for i in range(first, last):
            d = start + step * (skipped + i) - centre
            value = math.exp(-d * d / (2 * w * w))
            parts[0, i - first] = value
            parts[1, i - first] = value * d / (w * w)
            parts[2, i - first] = value * d * d / (w * w * w)
        return
    scale = w * math.sqrt(math.pi / 2) / (2 * half)
    root = math.sqrt(2.0) * w
    for i in range(first, last):
        d = start + step * (skipped + i) - centre
        right, left = d + half, d - half
        high, low = math.exp(-right * right / (2 * w * w)), math.exp(-left * left / (2 * w * w))
        value = scale * (math.erf(right / root) - math.erf(left / root))
        parts[0, i - first] = value
        parts[1, i - first] = (low - high) / (2 * half)
        parts[2, i - first] = value / w - (right * high - left * low) / (2 * half * w)


@njit(nogil=True, cache=True, error_model="numpy")
def _seen(centre: Float64, w: float, grid: Any, n_z: int, n_t: int) -> tuple[int, int, int, int]:
    """The pixels within the reach of a Gaussian: first and before the last along z, and across."""
    z0, z1 = _first_and_last(centre[0], REACH * w + grid.half_z, grid.first_z, grid.step_z, grid.skipped, n_z)
    t0, t1 = _first_and_last(centre[1], REACH * w + grid.half_t, grid.first_t, grid.step_t, 0, n_t)
    return z0, z1, t0, t1


@njit(nogil=True, cache=True, error_model="numpy")
def _profiles(
    centre: Float64, w: float, grid: Any, pixels: tuple[int, int, int, int], along: Float64, across: Float64
) -> None:
    """`_axis` of both axes, at the pixels of `_seen`."""
    z0, z1, t0, t1 = pixels
    _axis(centre[0], w, grid.first_z, grid.step_z, grid.skipped, grid.half_z, z0, z1, along)
    _axis(centre[1], w, grid.first_t, grid.step_t, 0, grid.half_t, t0, t1, across)


@njit(nogil=True, cache=True, error_model="numpy")
def _add(
    centres: Float64,
    widths: Float64,
    coefficients: Float64,
    grid: Any,
    image: Float64,
) -> None:
    n_z, n_t = image.shape
    along, across = np.empty((3, n_z)), np.empty((3, n_t))
    for one in range(len(centres)):
        w = widths[one]
        z0, z1, t0, t1 = _seen(centres[one], w, grid, n_z, n_t)
        if z0 >= z1 or t0 >= t1:
            continue
        _profiles(centres[one], w, grid, (z0, z1, t0, t1), along, across)
        scale = _ROOT * w / grid.length
        height, by_z, by_t, by_w = coefficients[one]
        for z in range(z0, z1):
            value, by_centre, by_width = along[0, z - z0], along[1, z - z0], along[2, z - z0]
            of_value = scale * (height * value + by_z * by_centre + by_w * (by_width + value / w))
            of_centre, of_width = scale * by_t * value, scale * by_w * value
            for t in range(t1 - t0):
                image[z, t0 + t] += of_value * across[0, t] + of_centre * across[1, t] + of_width * across[2, t]


@njit(nogil=True, cache=True, error_model="numpy")
def _correlate(
    centres: Float64,
    widths: Float64,
    grid: Any,
    image: Float64,
    sums: Float64,
) -> None:
    n_z, n_t = image.shape
    along, across = np.empty((3, n_z)), np.empty((3, n_t))
    columns = np.empty((3, n_t))  # sums along the axis; without sums in the inner loop it is vectorized
    for one in range(len(centres)):
        w = widths[one]
        z0, z1, t0, t1 = _seen(centres[one], w, grid, n_z, n_t)
        if z0 >= z1 or t0 >= t1:
            continue
        _profiles(centres[one], w, grid, (z0, z1, t0, t1), along, across)
        columns[:, : t1 - t0] = 0
        for z in range(z0, z1):
            value, by_centre = along[0, z - z0], along[1, z - z0]
            by_width = along[2, z - z0] + value / w
            for t in range(t1 - t0):
                pixel = image[z, t0 + t]
                columns[0, t] += value * pixel
                columns[1, t] += by_centre * pixel
                columns[2, t] += by_width * pixel
        scale = _ROOT * w / grid.length
        for t in range(t1 - t0):
            sums[one, 0] += scale * columns[0, t] * across[0, t]
            sums[one, 1] += scale * columns[1, t] * across[0, t]
            sums[one, 2] += scale * columns[0, t] * across[1, t]
            sums[one, 3] += scale * (columns[2, t] * across[0, t] + columns[0, t] * across[2, t])


@njit(nogil=True, cache=True, error_model="numpy")
def _cross_products(
    centres: Float64,
    widths: Float64,
    pairs: Integers,
    grid: Any,
    weights: Float32 | Float64,
    sums: Float64,
) -> None:
    n_z, n_t = weights.shape
    along, across = np.empty((2, 3, n_z)), np.empty((2, 3, n_t))
    lines, factors = np.empty((3, 3)), np.zeros((2, 4, 3))
    for pair in range(len(pairs)):
        z0 = t0 = 0
        z1, t1 = n_z, n_t
        for side in range(2):
            one = pairs[pair, side]
            top, bottom, left, right = _seen(centres[one], widths[one], grid, n_z, n_t)
            z0, z1, t0, t1 = max(z0, top), min(z1, bottom), max(t0, left), min(t1, right)
        if z0 >= z1 or t0 >= t1:
            continue
        for side in range(2):
            one = pairs[pair, side]
            _profiles(centres[one], widths[one], grid, (z0, z1, t0, t1), along[side], across[side])
        for z in range(z1 - z0):
            lines[:] = 0
            for t in range(t1 - t0):
                weight = weights[z0 + z, t0 + t]
                for p in range(3):
                    product = weight * across[0, p, t]
                    for q in range(3):
                        lines[p, q] += product * across[1, q, t]
            # Derivative i is Σ factors[i, p] · across[p]; the last one is that of w G(z) G(t), divided by w.
            for side in range(2):
                value, by_centre, by_width = along[side, 0, z], along[side, 1, z], along[side, 2, z]
                factors[side, 0, 0] = factors[side, 2, 1] = factors[side, 3, 2] = value
                factors[side, 1, 0] = by_centre
                factors[side, 3, 0] = by_width + value / widths[pairs[pair, side]]
            for i in range(4):
                for q in range(3):
                    part = 0.0
                    for p in range(3):
                        part += factors[0, i, p] * lines[p, q]
                    for j in range(4):
                        sums[pair, i, j] += part * factors[1, j, q]
        factor = (_ROOT / grid.length) ** 2 * widths[pairs[pair, 0]] * widths[pairs[pair, 1]]
        for i in range(4):
            for j in range(4):
                sums[pair, i, j] *= factor
