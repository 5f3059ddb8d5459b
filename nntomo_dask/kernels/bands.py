"""A band of the lines of projections, turned and shifted by one interpolation of images of which only a band is read.

The same cubic B-splines as in `warp`, for images that are too large to be read whole. A value depends on the pixels
around it alone, and is computed from them in the same way whatever the band, so its bytes do not depend on how the
images were cut: places are counted in the whole image, and along the bands coefficients are sums over a fixed number of
neighbours, not the recursion over all lines, from which they differ by less than a float32 resolves.

References
----------
.. [1] M. Unser, Splines: a perfect fit for signal and image processing, IEEE Signal Process. Mag. 16 (1999) 22.
"""

import math

import numpy as np

from nntomo_dask.kernels.compiling import njit
from nntomo_dask.kernels.warp import spline, taps
from nntomo_dask.types import Float32, Float64, Integers

# The weights of neighbours fall by √3 - 2 = -0.268 from one to the next; beyond 14, all of them are 2e-8 together.
_POLE = math.sqrt(3) - 2
REACH = 14
_WEIGHTS = _POLE ** np.abs(np.arange(-REACH, REACH + 1))
_WEIGHTS /= _WEIGHTS.sum()  # so that a constant is its own spline
_TAPS = 2  # lines beside a place that a spline touches


def lines_needed(rows: tuple[int, int], shape: tuple[int, int], shifts: Float64, rotation_deg: Float64) -> range:
    """The lines of images (along, across) that rows from the first to before the second are computed from.

    Parameters
    ----------
    shifts, rotation_deg
        As for `warped`.
    """
    lines, columns = shape
    turns = np.deg2rad(np.asarray(rotation_deg, np.float64))
    ends = np.array([rows[0], rows[1] - 1]) - (lines - 1) / 2
    sides = np.array([-1, 1]) * (columns - 1) / 2
    # Over a rectangle, a linear function is largest and least at corners.
    corners = [
        (end + shifts[:, 0]) * np.cos(turns) - (side + shifts[:, 1]) * np.sin(turns) for end in ends for side in sides
    ]
    places = np.array(corners) + (lines - 1) / 2 if shifts.size else np.zeros((1, 1))
    margin = _TAPS + REACH + 1  # one for the rounding of the places
    low = min(max(math.floor(places.min()), 0), lines - 1) - margin
    high = min(max(math.floor(places.max()), 0), lines - 1) + margin
    return range(max(low, 0), min(high + 1, lines))


def coefficients(images: Float32, first: int, lines: int) -> Float32:
    """The coefficients of the splines through a band of images (view, line, across); right but for `REACH` at its ends.

    At the first and last of the `lines` of the image, which is mirrored there, they are right too.
    """
    from scipy import ndimage

    found = np.ascontiguousarray(images, np.float32)
    if found.shape[2] > 1:
        found = ndimage.spline_filter1d(found, 3, axis=2, output=np.float32, mode="mirror")
    if lines > 1:
        summed = np.empty_like(found)
        _along(found, _mirrored(first, found.shape[1], lines), _WEIGHTS, summed)
        found = summed
    return found


def warped_reference(
    images: Float32, rows: tuple[int, int], shifts: Float64, rotation_deg: Float64, fill: float | None = None
) -> Float32:
    """Reference implementation of `warped`, of whole images, by `warp`."""
    from nntomo_dask.kernels import warp

    lines, columns = images.shape[1:]
    along, across = np.arange(*rows) - (lines - 1) / 2, np.arange(columns) - (columns - 1) / 2
    values = warp.warp_reference(warp.coefficients(images), along, across, shifts, rotation_deg)
    if fill is not None:
        seen = warp.measured((lines, columns), along, across, shifts, rotation_deg)
        values = np.where(seen, values, np.float32(fill))
    return values


def warped(
    band: Float32,
    first: int,
    lines: int,
    rows: tuple[int, int],
    shifts: Float64,
    rotation_deg: Float64,
    fill: float | None = None,
) -> Float32:
    """Rows of aligned projections from a band of the raw ones.

    The value at u = (along, across), from the middle of the image, is read at ``R(φ)(u + d)``, as in `warp.warp`.

    Parameters
    ----------
    band
        (line, view, across), the lines from `first` on that `lines_needed` names.
    lines
        Of the whole image.
    rows
        The first row to compute, and the one after the last.
    shifts
        (view, 2): along and across, in pixels.
    rotation_deg
        (view,), in degrees, from along towards across.
    fill
        Value where nothing was measured: more than half a pixel beyond the outermost pixels. By default the nearest
        pixel counts there.

    Returns
    -------
    (row, view, across).
    """
    _, views, columns = band.shape
    values = np.empty((rows[1] - rows[0], views, columns), np.float32)
    turns = np.deg2rad(np.asarray(rotation_deg, np.float64))
    shifts = np.asarray(shifts, np.float64)
    for view in range(views):
        splines = coefficients(band[:, view][None], first, lines)[0]
        _warp_band(
            splines,
            first,
            lines,
            rows[0],
            shifts[view, 0],
            shifts[view, 1],
            math.cos(turns[view]),
            math.sin(turns[view]),
            math.nan if fill is None else fill,
            values[:, view],
        )
    return values


def _mirrored(first: int, count: int, lines: int) -> Integers:
    """Places within the band of its lines and of `REACH` beside them, mirrored at the outermost lines of the image.

    Where the band ends before the image, its last line stands for those that are not there.
    """
    period = 2 * (lines - 1)
    places = np.mod(np.arange(first - REACH, first + count + REACH), period)
    places = np.minimum(places, period - places) - first
    return np.asarray(np.clip(places, 0, count - 1), np.int64)


@njit(nogil=True, cache=True, error_model="numpy")
def _along(images: Float32, places: Integers, weights: Float64, summed: Float32) -> None:
    views, lines, columns = images.shape
    line = np.empty(columns, np.float64)
    for view in range(views):
        for row in range(lines):
            line[:] = 0.0
            for k in range(weights.size):
                source = places[row + k]
                for column in range(columns):
                    line[column] += weights[k] * images[view, source, column]
            for column in range(columns):
                summed[view, row, column] = np.float32(line[column])


@njit(nogil=True, cache=True, error_model="numpy")
def _warp_band(
    splines: Float32,
    first: int,
    lines: int,
    first_row: int,
    shift_along: float,
    shift_across: float,
    cos: float,
    sin: float,
    fill: float,
    values: Float32,
) -> None:
    columns = splines.shape[1]
    middle_along, middle_across = (lines - 1) / 2, (columns - 1) / 2
    row_weights, column_weights = np.empty(4), np.empty(4)
    row_indices, column_indices = np.empty(4, np.int64), np.empty(4, np.int64)
    fills = not np.isnan(fill)
    for i in range(values.shape[0]):
        a = first_row + i - middle_along + shift_along
        for j in range(columns):
            c = j - middle_across + shift_across
            row = middle_along + a * cos - c * sin
            column = middle_across + a * sin + c * cos
            if fills and (row < -0.5 or row > lines - 0.5 or column < -0.5 or column > columns - 0.5):
                values[i, j] = np.float32(fill)
                continue
            taps(row, lines, row_indices, row_weights)
            taps(column, columns, column_indices, column_weights)
            row_indices -= first  # of the band
            values[i, j] = spline(splines, row_indices, row_weights, column_indices, column_weights)
