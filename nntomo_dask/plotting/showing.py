"""One figure of a volume or of a tilt series: orthogonal slices and a surface, or projections and a sinogram."""

from typing import Any, Literal

import dask.array as da
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nntomo_dask.arrays import schema, slabs
from nntomo_dask.compute import cluster
from nntomo_dask.plotting import figures
from nntomo_dask.plotting.grey import grey_of, range_of, window_of

_PROJECTIONS = 5
_LINE = "#e0a030"


def show_volume(
    volume: xr.DataArray,
    *,
    z: int | None = None,
    y: int | None = None,
    x: int | None = None,
    window: tuple[float, float] | None = None,
    level: float | Literal["auto", "none"] = "auto",
) -> Figure:
    """Three orthogonal slices of a volume at one scale, and an isosurface. Computed at once, slab by slab.

    What is no number is shown as the least number.

    Parameters
    ----------
    volume
        Dims (z, y, x).
    z, y, x
        Numbers of the slices, from 0; by default z and y nearest to the middle in which there are voxels as bright as
        the window's end, and the middle x.
    window
        Values that are black and white; by default a thousandth of the voxels lies below, and a thousandth above.
    level
        Value of the isosurface: "auto" is Otsu's threshold, "none" leaves the surface out.

    Returns
    -------
    A figure; `save_figure` writes it.

    Raises
    ------
    SchemaError
        It is no volume, there is no such slice, or the window is empty.
    """
    schema.check_volume(volume, who="show", slices="any")
    figures.check_view(volume, window, {schema.Z: z, schema.Y: y, schema.X: x}, who="show")
    found = grey_of(volume)
    if not np.isfinite(found.window).all():
        volume = _with_numbers(volume)
        found = grey_of(volume)
    low, high = window or found.window
    places = {
        schema.Z: found.z if z is None else z,
        schema.Y: found.y if y is None else y,
        schema.X: volume.sizes[schema.X] // 2 if x is None else x,
    }
    surface = None if level == "none" else found.level if level == "auto" else float(level)
    images, thin = _planes(volume, places, surface=surface is not None)
    sizes = {dim: volume.sizes[dim] * _step(volume, dim) for dim in schema.VOLUME_DIMS}  # lengths
    along, depth, across = (sizes[dim] for dim in schema.VOLUME_DIMS)
    with mpl.rc_context(figures.FONTS):
        inch = 5.0 / max(across, depth)
        ratio = min(max(along, 0.25 * across), 2 * across)  # a volume of few slices, or of many, is still looked at
        figure = Figure(figsize=(inch * (across + ratio) + 1.6, inch * (depth + ratio) + 0.9), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, 2, width_ratios=(across, ratio), height_ratios=(depth, ratio))
        plan = (
            (grid[0, 0], schema.Z, (schema.Y, schema.X), "across the tilt axis"),
            (grid[0, 1], schema.X, (schema.Y, schema.Z), "across x"),
            (grid[1, 0], schema.Y, (schema.Z, schema.X), "across the beam at 0°"),
        )
        drawn = []
        for place, dim, (up, right), title in plan:
            axes = figure.add_subplot(place)
            drawn.append(axes)
            image = images[dim] if dim != schema.X else images[dim].T
            shown = figures.draw_slice(axes, image, (low, high), (0, sizes[right], 0, sizes[up]))
            axes.set_title(f"{title}, {dim} = {places[dim]}")
            axes.set_xlabel(right)
            axes.set_ylabel(up)
            for other, line in ((up, axes.axhline), (right, axes.axvline)):
                line((places[other] + 0.5) * _step(volume, other), color=_LINE, linewidth=0.6, alpha=0.7)
        figures.draw_length(drawn[0], across, 1.0, str(volume.attrs["units"]))
        if surface is not None:
            axes3d: Any = figure.add_subplot(grid[1, 1], projection="3d")
            figures.draw_surface(axes3d, thin, surface)
            axes3d.set_title(f"surface at {surface:.3g}")
        bar = figures.draw_greys(figure, shown, drawn, figures.grey_label(volume))
        if surface is not None:
            bar.ax.axhline(surface, color=figures.SURFACE_COLOUR, linewidth=2)
    return figure


def show_series(series: xr.DataArray, *, z: int | None = None, window: tuple[float, float] | None = None) -> Figure:
    """Some projections of a tilt series, upright, and the sinogram of a slice. Computed at once, slab by slab.

    What is no number is shown as the least number.

    Parameters
    ----------
    series
        Dims (z, angle, detector).
    z
        Number of the slice of the sinogram, from 0; by default the middle one.
    window
        Values that are black and white; by default a thousandth of all values lies below, and a thousandth above.

    Returns
    -------
    A figure; `save_figure` writes it.

    Raises
    ------
    SchemaError
        It is no tilt series, there is no such slice, or the window is empty.
    """
    schema.check_tilt_series(series, who="show")
    figures.check_view(series, window, {schema.Z: z}, who="show")
    low, high = window or window_of(slabs.lazy(series).data)
    place = series.sizes[schema.Z] // 2 if z is None else z
    angles = series[schema.ANGLE].values
    order = np.argsort(angles, kind="stable")
    wanted = np.linspace(angles.min(), angles.max(), _PROJECTIONS)
    chosen = list(dict.fromkeys(int(np.abs(angles - one).argmin()) for one in wanted))
    data = _with_numbers(series)
    found = _computed(sinogram=data.isel({schema.Z: place}), images=data.isel({schema.ANGLE: chosen}))
    height, width = (series.sizes[dim] * _step(series, dim) for dim in (schema.Z, schema.DETECTOR))
    with mpl.rc_context(figures.FONTS):
        tall = 2.4 * min(max(height / width, 0.25), 2)
        figure = Figure(figsize=(2.4 * len(chosen) + 1.4, tall + 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, len(chosen), height_ratios=(tall, 2.6))
        drawn = []
        for column, number in enumerate(chosen):
            axes = figure.add_subplot(grid[0, column])
            drawn.append(axes)
            image = figures.thinned(found["images"][:, column])
            shown = figures.draw_slice(axes, image, (low, high), (0, width, 0, height))
            axes.axhline((place + 0.5) * _step(series, schema.Z), color=_LINE, linewidth=0.6, alpha=0.7)
            axes.set_title(_degrees(angles[number]))
            if column == 0:
                axes.set_ylabel("z, along the tilt axis")
        figures.draw_length(drawn[0], width, 1.0, str(series.attrs["units"]))
        axes = figure.add_subplot(grid[1, :])
        drawn.append(axes)
        sinogram = figures.thinned(found["sinogram"][order])
        # A row for each projection, whatever the steps of the angles are.
        axes.imshow(
            sinogram, cmap="gray", vmin=low, vmax=high, aspect="auto", interpolation="nearest", origin="lower",
            extent=(0, width, -0.5, len(order) - 0.5),
        )  # fmt: skip
        ticks = np.unique(np.linspace(0, len(order) - 1, min(len(order), 7)).round().astype(int))
        axes.set_yticks(ticks, [_degrees(angles[order[tick]]) for tick in ticks])
        axes.set_xticks([])
        axes.set_title(f"sinogram of slice z = {place}")
        axes.set_xlabel("detector")
        axes.set_ylabel("tilt angle")
        figures.draw_greys(figure, shown, drawn, figures.grey_label(series))
    return figure


def _degrees(angle: float) -> str:
    """An angle to a tenth of a degree, which is what stages reach; zero has no sign."""
    return f"{round(float(angle), 1) + 0.0:g}°".replace("-", "\N{MINUS SIGN}")


def _with_numbers(array: xr.DataArray) -> xr.DataArray:
    """The array with its least number in place of what is none."""
    data = slabs.lazy(array).data
    low, _ = range_of(data)
    return array.copy(data=da.where(da.isfinite(data), data, np.float32(low)))


def host_bytes(shape: tuple[int, ...]) -> int:
    """Bytes that either function holds beside the slabs that are read."""
    first, second, third = shape
    planes = 4 * (second * third + first * third + first * second)
    return figures.host_bytes((first, max(second, third), third), 1) + 3 * planes + 4 * 4 * _PROJECTIONS * first * third


def _step(array: xr.DataArray, dim: str) -> float:
    """The distance of two pixels along a dim."""
    values = array[dim].values
    if len(values) == 1:
        return schema.pixel_size_of(array)
    return abs(float(values[-1] - values[0])) / (len(values) - 1)


def _planes(
    volume: xr.DataArray, places: dict[str, int], *, surface: bool
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[Any]]:
    """The three slices, and every n-th voxel for the surface, from one pass over the slabs."""
    data = slabs.lazy(volume)
    parts = {dim: data.isel({dim: place}) for dim, place in places.items()}
    if surface:
        step = figures.surface_step(volume.shape)
        parts["thin"] = data.isel({dim: slice(None, None, step) for dim in schema.VOLUME_DIMS})
    found = _computed(**parts)
    thin = found.pop("thin", np.empty((0, 0, 0)))
    return {dim: figures.thinned(image) for dim, image in found.items()}, thin


def _computed(**parts: xr.DataArray) -> dict[str, npt.NDArray[Any]]:
    """Parts of an array, computed together where the session computes, so that each slab is read once."""
    named = xr.Dataset(
        {name: ([f"{name}_{axis}" for axis in range(part.ndim)], part.data) for name, part in parts.items()}
    )
    (computed,) = cluster.load(named, description="slices", progress="none")
    return {name: np.asarray(computed[name].values) for name in parts}
