"""One array in a figure: slices of a volume, its surface, a sinogram, and Fourier shell correlations."""

from collections.abc import Mapping
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import xarray as xr
from dask.base import compute
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nntomo_dask.arrays import finite, grid, labels, schema, slabs
from nntomo_dask.errors import refuse
from nntomo_dask.metrics.fsc import FREQUENCY, resolution
from nntomo_dask.plotting.figures import (
    FONTS,
    Shown,
    check_view,
    draw_greys,
    draw_length,
    draw_slice,
    draw_surface,
    grey_label,
    thinned,
    voxels_of,
)
from nntomo_dask.plotting.grey import grey_of
from nntomo_dask.types import Float64

_THRESHOLDS = {0.5: "--", 0.143: ":"}
_SHARE = 1e-3  # of the pixels of a sinogram at either end that lie outside its window


def plot_slices(
    volume: xr.DataArray,
    *,
    z: int | None = None,
    y: int | None = None,
    x: int | None = None,
    window: tuple[float, float] | None = None,
) -> Figure:
    """Three slices of a volume: across the tilt axis, as the untilted images show it, and along the beam.

    Computed at once and slab by slab, so a volume may be larger than memory: it is read once where `window` and the
    slices are given, else twice more. A volume that is not in a store is reconstructed as many times; save it first.

    Parameters
    ----------
    volume
        Dims (z, y, x), float32.
    z, y, x
        Numbers of the slices, from 0; by default those nearest to the middle that are as bright as the window's end,
        and the middle one along x. Lines show where they cross.
    window
        Values that are black and white; by default all but a thousandth of the voxels at either end.

    Returns
    -------
    A figure with a bar of length and one of greys; `save_figure` writes it.

    Raises
    ------
    SchemaError
        `volume` is none, there is no such slice, or the window is empty. When it is computed: a value is NaN or
        infinite.
    """
    schema.check_volume(volume, who="plot_slices")
    check_view(volume, window, {schema.Z: z, schema.Y: y, schema.X: x}, who="plot_slices")
    if window is None or z is None or y is None:
        found = grey_of(volume)
        window = found.window if window is None else window
        z, y = found.z if z is None else z, found.y if y is None else y
    places = {schema.Z: z, schema.Y: y, schema.X: volume.sizes[schema.X] // 2 if x is None else x}
    lazy = slabs.lazy(volume)
    cuts = compute(*(lazy.isel({dim: place}).data for dim, place in places.items()))
    for image in cuts:
        finite.check_slab(image[None], who="plot_slices", dims=schema.VOLUME_DIMS)
    unit, pixel = str(volume.attrs["units"]), schema.pixel_size_of(volume)
    depth, side = volume.sizes[schema.Z], volume.sizes[schema.X]
    with mpl.rc_context(FONTS):
        figure = _figure((9.6, 1.1 + 3.0 * max(min(depth / side, 1.5), 1.0)))
        grid = figure.subplots(1, 3)
        for axes, (dim, place), image in zip(grid, places.items(), cuts, strict=True):
            up, right = (one for one in schema.VOLUME_DIMS if one != dim)
            height, width = volume.sizes[up], volume.sizes[right]
            shown = draw_slice(axes, thinned(image), window, (-0.5, width - 0.5, -0.5, height - 0.5))
            axes.set(xlabel=right, ylabel=up, title=f"{dim} = {place}")
            for line, crossed in ((axes.axvline, right), (axes.axhline, up)):
                line(places[crossed], color="#d9a441", linewidth=0.6, alpha=0.6)
            draw_length(axes, width, pixel, unit)
        draw_greys(figure, shown, list(grid), grey_label(volume))
    return figure


def plot_isosurface(volume: xr.DataArray, *, level: float | None = None, axes: Any = None) -> Figure:
    """The surface of a volume at a level, in right-handed axes: x to the right, z up, y from the viewer.

    Of a large volume every n-th voxel is drawn, about 128 along an edge and at most 80,000 triangles. Computed at once,
    slab by slab, as `plot_slices`.

    Parameters
    ----------
    volume
        Dims (z, y, x), float32.
    level
        Value of the surface; by default Otsu's threshold of all voxels.
    axes
        Axes with ``projection="3d"`` to draw into; by default those of a new figure.

    Returns
    -------
    The figure of the axes.

    Raises
    ------
    SchemaError
        `volume` is none. When it is computed: a value is NaN or infinite.
    """
    schema.check_volume(volume, who="plot_isosurface")
    level = grey_of(volume).level if level is None else level
    with mpl.rc_context(FONTS):
        if axes is None:
            axes = _figure((4.2, 4.2)).add_subplot(projection="3d")
        draw_surface(axes, voxels_of(volume, who="plot_isosurface"), level)
        unit, pixel = str(volume.attrs["units"]), schema.pixel_size_of(volume)
        edges = " × ".join(f"{volume.sizes[dim] * pixel:.3g}" for dim in reversed(schema.VOLUME_DIMS))
        axes.set_title(f"surface at {level:.3g}, of {edges} {unit}")
    return cast("Figure", axes.figure)


def plot_sinogram(
    series: xr.DataArray,
    *,
    z: int | None = None,
    window: tuple[float, float] | None = None,
    axes: Axes | None = None,
) -> Figure:
    """The projections of one slice, one above the other by their tilt angle.

    A line marks the tilt axis: matter at the axis stays there, all other matter runs along a sine. Computed at once;
    only the slab that holds the slice is read.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32, angles in any order.
    z
        Number of the slice, from 0; by default the middle one.
    window
        Values that are black and white; by default all but a thousandth of the pixels at either end.
    axes
        To draw into; by default those of a new figure.

    Returns
    -------
    The figure of the axes.

    Raises
    ------
    SchemaError
        `series` is none, there is no such slice, or the window is empty. When it is computed: a value is NaN or
        infinite.
    """
    schema.check_tilt_series(series, who="plot_sinogram")
    check_view(series, window, {schema.Z: z}, who="plot_sinogram")
    z = series.sizes[schema.Z] // 2 if z is None else z
    order = np.argsort(series[schema.ANGLE].values, kind="stable")
    image = np.asarray(series.isel({schema.Z: [z]}).values)
    finite.check_slab(image, who="plot_sinogram", dims=schema.SERIES_DIMS)
    angles, rows = series[schema.ANGLE].values[order], image[0][order]
    black, white = np.quantile(rows, [_SHARE, 1 - _SHARE]) if window is None else window
    unit, detector = str(series.attrs["units"]), series[schema.DETECTOR].values
    half = grid.spacing(detector, float(series.attrs["pixel_size"])) / 2
    places = np.append(detector - half, detector[-1] + half)
    with mpl.rc_context(FONTS):
        axes = _figure((5.2, 3.6)).add_subplot() if axes is None else axes
        shown = axes.pcolormesh(places, _between(angles), rows, cmap="gray", vmin=black, vmax=white, rasterized=True)
        if places.min() < 0 < places.max():
            axes.axvline(0, color="#d9a441", linewidth=0.8, linestyle="--")
        axes.set(xlabel=f"detector [{unit}]", ylabel="tilt angle [°]", title=f"z = {z}, {len(angles)} projections")
        figure = cast("Figure", axes.figure)
        draw_greys(figure, shown, axes, labels.values_name(series) or "value", shrink=1.0, pad=0.02)
    return figure


def plot_fsc(
    correlations: xr.DataArray | Mapping[str, xr.DataArray],
    *,
    axes: Axes | None = None,
) -> Figure:
    """Fourier shell correlations against spatial frequency, with the thresholds 0.5 and 0.143.

    Parameters
    ----------
    correlations
        From `fourier_shell_correlation`: one, or several by title.
    axes
        To draw into; by default those of a new figure.

    Returns
    -------
    The figure of the axes; its legend says the length at which each curve falls below the thresholds.

    Raises
    ------
    SchemaError
        There is none, or something else than a correlation.
    """
    several = dict(correlations) if isinstance(correlations, Mapping) else {"": correlations}
    for one in several.values():
        if not isinstance(one, xr.DataArray) or one.dims != (FREQUENCY,):
            got = f"dims {one.dims}" if isinstance(one, xr.DataArray) else type(one).__name__
            remedy = "plot_fsc(fourier_shell_correlation(volume, reference))"
            refuse("plot_fsc", needs="a Fourier shell correlation", got=got, remedy=remedy)
    if not several:
        refuse("plot_fsc", needs="at least one correlation", got="none", remedy='{"SIRT": correlation}')
    with mpl.rc_context(FONTS):
        axes = _figure((5.2, 3.4)).add_subplot() if axes is None else axes
        inverse = ""
        for title, one in several.items():
            inverse = str(one[FREQUENCY].attrs.get("units", ""))
            unit = inverse.removeprefix("1/")
            lengths = ", ".join(_length(one, threshold) for threshold in _THRESHOLDS)
            axes.plot(one[FREQUENCY].values, one.values, label=f"{title}: {lengths} {unit}".removeprefix(": "))
        for threshold, style in _THRESHOLDS.items():
            axes.axhline(threshold, color="0.5", linewidth=0.8, linestyle=style)
        axes.set(
            xlabel=f"spatial frequency [{inverse}]",
            ylabel="Fourier shell correlation",
            ylim=(-0.1, 1.05),
            xlim=(0, None),
        )
        axes.legend(title=f"falls below {' and '.join(map(str, _THRESHOLDS))} at", frameon=False)
    return cast("Figure", axes.figure)


def _length(correlation: xr.DataArray, threshold: float) -> str:
    """Where a curve falls below a threshold; that it does so beyond the last frequency, where it does not."""
    beyond = bool((correlation.values >= threshold).all())
    return f"{'<' if beyond else ''}{resolution(correlation, threshold=threshold):.3g}"


def _figure(inches: tuple[float, float]) -> Figure:
    figure = Shown(figsize=inches, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _between(angles: Float64) -> Float64:
    """Edges of rows at ascending angles: midway between neighbours."""
    inner = (angles[1:] + angles[:-1]) / 2
    edges: Float64 = np.concatenate([[2 * angles[0] - inner[0]], inner, [2 * angles[-1] - inner[-1]]])
    return edges
