"""Projections turned and shifted by one interpolation: cubic B-splines, edges continued, nothing wraps around.

A spline passes through the pixels, and its coefficients are found once for each image; so an iteration that shifts the
same images again and again pays for the interpolation alone, and never interpolates what was interpolated before.
Coefficients are those of an image that is mirrored at its outermost pixels. Beyond them, values stay those of the edge:
zeros there would be steps, and a periodic continuation would bring matter in from the other side.

References
----------
.. [1] M. Unser, Splines: a perfect fit for signal and image processing, IEEE Signal Process. Mag. 16 (1999) 22.
"""

from typing import Any

import numpy as np

from nntomo_dask.kernels.compiling import njit
from nntomo_dask.types import Bools, Float32, Float64

Middle = tuple[float, float]  # of the images, (along, across) in pixels from the first


def coefficients(images: Float32) -> Float32:
    """The coefficients (…, along, across) of the cubic B-splines through images (…, along, across)."""
    from scipy import ndimage

    found = np.asarray(images, np.float32)
    for axis in (-2, -1):
        if found.shape[axis] > 1:  # a line of one pixel is its own coefficient
            found = ndimage.spline_filter1d(found, 3, axis=axis, output=np.float32, mode="mirror")
    return found


def warp_reference(
    splines: Float32,
    along: Float64,
    across: Float64,
    shifts: Float64,
    rotation_deg: Float64,
    middle: Middle | None = None,
) -> Float32:
    """Reference implementation of `warp`."""
    from scipy import ndimage

    places = _places(splines.shape[1:], along, across, shifts, rotation_deg, middle)
    last = np.array(splines.shape[1:])[:, None, None] - 1
    return np.stack([
        ndimage.map_coordinates(
            one.astype(np.float64), np.clip(place, 0, last), order=3, mode="mirror", prefilter=False
        ).astype(np.float32)
        for one, place in zip(splines, places, strict=True)
    ])  # fmt: skip


def warp(
    splines: Float32,
    along: Float64,
    across: Float64,
    shifts: Float64,
    rotation_deg: Float64,
    middle: Middle | None = None,
) -> Float32:
    """Values of images at the pixels of a grid that is shifted and turned for each of them.

    The value at u = (along, across) is read at ``middle + R(φ)(u + d)``, where d is the image's shift, φ its rotation
    and ``R(φ)(a, c) = (a cos φ - c sin φ, a sin φ + c cos φ)``. Beyond the outermost pixels the nearest of them counts.

    Parameters
    ----------
    splines
        (view, along, across), from `coefficients`.
    along, across
        Places of the pixels to find, (along,) and (across,), from the middle, in pixels of the images: any places, so
        that single lines or other steps can be asked for.
    shifts
        (view, 2): along and across, in pixels of the images.
    rotation_deg
        (view,), in degrees, from along towards across.
    middle
        Where the middle is, in pixels from the first; by default in the middle of the images.

    Returns
    -------
    (view, along, across).
    """
    values = np.empty((len(splines), along.size, across.size), np.float32)
    start = _middle(splines.shape[1:], middle)
    turns = np.deg2rad(np.asarray(rotation_deg, np.float64))
    _warp(
        np.ascontiguousarray(splines, np.float32),
        np.asarray(along, np.float64),
        np.asarray(across, np.float64),
        np.asarray(shifts, np.float64),
        np.cos(turns),
        np.sin(turns),
        start[0],
        start[1],
        values,
    )
    return values


def measured(
    shape: tuple[int, int],
    along: Float64,
    across: Float64,
    shifts: Float64,
    rotation_deg: Float64,
    middle: Middle | None = None,
) -> Bools:
    """Which values (view, along, across) of `warp` lie within images of a shape (along, across), not beyond an edge.

    Within half a pixel of the outermost pixels, a value is still measured: a pixel is an area.
    """
    places = _places(shape, along, across, shifts, rotation_deg, middle)
    last = np.array(shape)[:, None, None] - 1
    return np.asarray([((place >= -0.5) & (place <= last + 0.5)).all(axis=0) for place in places])


def _middle(shape: tuple[int, ...], middle: Middle | None) -> Middle:
    return ((shape[0] - 1) / 2, (shape[1] - 1) / 2) if middle is None else middle


def _places(
    shape: tuple[int, ...], along: Float64, across: Float64, shifts: Float64, rotation_deg: Float64, middle: Any
) -> Float64:
    """Where the values are read: (view, 2, along, across), in pixels from the first."""
    start = _middle(shape, middle)
    turns = np.deg2rad(rotation_deg)[:, None, None]
    a = along[None, :, None] + shifts[:, 0, None, None]
    c = across[None, None, :] + shifts[:, 1, None, None]
    rows = start[0] + a * np.cos(turns) - c * np.sin(turns)
    columns = start[1] + a * np.sin(turns) + c * np.cos(turns)
    return np.stack([rows, columns], axis=1)


@njit(nogil=True, cache=True, error_model="numpy")
def _warp(
    splines: Float32,
    along: Float64,
    across: Float64,
    shifts: Float64,
    cos: Float64,
    sin: Float64,
    middle_along: float,
    middle_across: float,
    values: Float32,
) -> None:
    n_views, n_rows, n_columns = splines.shape
    row_weights, column_weights = np.empty(4), np.empty(4)
    row_indices, column_indices = np.empty(4, np.int64), np.empty(4, np.int64)
    for view in range(n_views):
        image = splines[view]
        for i in range(along.size):
            a = along[i] + shifts[view, 0]
            for j in range(across.size):
                c = across[j] + shifts[view, 1]
                row = middle_along + a * cos[view] - c * sin[view]
                column = middle_across + a * sin[view] + c * cos[view]
                taps(row, n_rows, row_indices, row_weights)
                taps(column, n_columns, column_indices, column_weights)
                values[view, i, j] = spline(image, row_indices, row_weights, column_indices, column_weights)


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def spline(
    image: Float32, row_indices: Any, row_weights: Float64, column_indices: Any, column_weights: Float64
) -> np.float32:
    """The value of a spline, from the coefficients and weights that `taps` gives along both axes."""
    total = 0.0
    for k in range(4):
        line = 0.0
        for m in range(4):
            line += column_weights[m] * image[row_indices[k], column_indices[m]]
        total += row_weights[k] * line
    return np.float32(total)


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def taps(place: float, count: int, indices: Any, weights: Float64) -> None:
    """The four coefficients of a line that a place touches, mirrored at the ends, and their weights."""
    place = min(max(place, 0.0), count - 1.0)
    lower = np.int64(np.floor(place))
    t = place - lower
    s = 1.0 - t
    weights[0] = s * s * s / 6.0
    weights[1] = 2.0 / 3.0 - t * t * (2.0 - t) / 2.0
    weights[2] = 2.0 / 3.0 - s * s * (2.0 - s) / 2.0
    weights[3] = t * t * t / 6.0
    for k in range(4):
        index = abs(lower - 1 + k)
        if index > count - 1:
            index = 2 * (count - 1) - index
        indices[k] = min(max(index, 0), count - 1)
