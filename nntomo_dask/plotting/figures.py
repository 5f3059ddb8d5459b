"""Figures: slices and isosurfaces of several volumes side by side, and the loss curve of a training."""

import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from skimage.measure import marching_cubes

from nntomo_dask import aside
from nntomo_dask.arrays import finite, labels, schema
from nntomo_dask.errors import refuse
from nntomo_dask.plotting.grey import grey_of

_SURFACE_VOXELS = 128  # most voxels per axis of an isosurface; more detail is not visible in a figure
_IMAGE_PIXELS = 1024  # approximate pixels per axis of a slice; a figure shows fewer
# Of one surface; with more, every n-th voxel is left out. A particle has 30,000, noise would have three million.
_TRIANGLES = 80_000
_TRIANGLE_BYTES, _DRAWN_BYTES = 200, 1100  # that matplotlib takes for a triangle, and while it draws it: measured
_FIGURE_BYTES = 48 * 2**20  # of the figure itself and of the libraries that draw it
_SOFTWARE = "nntomo_dask"  # stands in the header of every PNG
_HEADER_BYTES = 1024
SURFACE_COLOUR = "#9dbfe3"
FONTS: Any = {"font.size": 9, "axes.titlesize": 10}


class Shown(Figure):
    """A figure that a notebook shows as it is, also where Matplotlib was not set up for notebooks."""

    def _repr_png_(self) -> bytes:
        held = BytesIO()
        self.savefig(held, dpi=100, format="png")
        return held.getvalue()


def compare_volumes(
    volumes: Mapping[str, xr.DataArray],
    *,
    captions: Mapping[str, str] | None = None,
    level: float | None = None,
    window: tuple[float, float] | None = None,
    reference: str | None = None,
    z: int | None = None,
    y: int | None = None,
) -> Figure:
    """One column per volume: a slice across the tilt axis, a slice along it, and an isosurface.

    Greys, the bar of lengths and the level are those of the reference in all columns. By default they are taken from
    all of its voxels: the window leaves out a thousandth of them at either end, the level is Otsu's threshold.

    Parameters
    ----------
    volumes
        Volumes of the same shape by title; dims (z, y, x).
    captions
        A line of text below the title of a volume, by title.
    level
        Value of the isosurfaces.
    window
        Values that are black and white.
    reference
        Title of the volume from which greys and level are taken; by default the first one.
    z, y
        Numbers of the slices across and along the tilt axis, from 0; by default those nearest to the middle in which
        the reference is as bright as the window's end.

    Returns
    -------
    A figure; `save_figure` writes it.

    Raises
    ------
    SchemaError
        One of them is no volume, there is no such slice, or the window is empty.
    """
    titles = list(volumes)
    main = volumes[reference or titles[0]]
    for volume in volumes.values():
        schema.check_volume(volume, who="compare_volumes")
    check_view(main, window, {schema.Z: z, schema.Y: y}, who="compare_volumes")
    if None in (level, window, z, y):
        found = grey_of(main)
        level, window = found.level if level is None else level, found.window if window is None else window
        z, y = found.z if z is None else z, found.y if y is None else y
    assert level is not None and window is not None and z is not None and y is not None  # noqa: PT018
    places = {schema.Z: z, schema.Y: y}
    unit, pixel = str(main.attrs["units"]), schema.pixel_size_of(main)
    with mpl.rc_context(FONTS):
        figure = Shown(figsize=(2.6 * len(titles) + 0.6, 7.6), layout="constrained")
        FigureCanvasAgg(figure)
        grids = [figure.add_subplot(3, len(titles), number + 1) for number in range(2 * len(titles))]
        for column, title in enumerate(titles):
            volume = volumes[title]
            cuts = [thinned(volume.isel({dim: place}).values) for dim, place in places.items()]
            for row, ((dim, place), image) in enumerate(zip(places.items(), cuts, strict=True)):
                axes = grids[row * len(titles) + column]
                height, width = (volume.sizes[one] for one in schema.VOLUME_DIMS if one != dim)
                shown = draw_slice(axes, image, window, (-0.5, width - 0.5, -0.5, height - 0.5))
                if column == 0:
                    way = "across" if dim == schema.Z else "along"
                    axes.set_ylabel(f"{way} the tilt axis, {dim} = {place}")
                    draw_length(axes, width, pixel, unit)
                if row == 0:
                    caption = (captions or {}).get(title)
                    axes.set_title(title if caption is None else f"{title}\n{caption}")
            axes3d: Any = figure.add_subplot(3, len(titles), 2 * len(titles) + column + 1, projection="3d")
            draw_surface(axes3d, voxels_of(volume, who="compare_volumes"), level)
            if column == 0:
                axes3d.text2D(
                    -0.02, 0.5, f"surface at {level:.3g}", rotation=90, va="center", transform=axes3d.transAxes
                )
        bar = draw_greys(figure, shown, grids, grey_label(main), shrink=0.6)
        bar.ax.axhline(level, color=SURFACE_COLOUR, linewidth=2)
    return figure


def check_view(
    array: xr.DataArray, window: tuple[float, float] | None, places: dict[str, int | None], *, who: str
) -> None:
    """Raise a SchemaError where a slice does not exist, or a window is empty."""
    if window is not None and not window[0] < window[1]:
        refuse(who, needs="a window from black to white", got=f"{window}", remedy="`window=(0, 1)`")
    for dim, place in places.items():
        size = array.sizes[dim]
        if place is not None and not 0 <= place < size:
            needs, remedy = f"a slice {dim} from 0 to {size - 1}", f"slice {size // 2}, the middle one"
            refuse(who, needs=needs, got=f"{place}", remedy=remedy)


def grey_label(volume: xr.DataArray) -> str:
    """What the greys are."""
    name, quantity = labels.values_name(volume) or "value", volume.attrs.get("quantity")
    return f"{name} ({quantity}, per voxel)" if quantity else name


def draw_slice(
    axes: Any, image: npt.NDArray[Any], window: tuple[float, float], extent: tuple[float, float, float, float]
) -> Any:
    """A slice in greys, its first row at the bottom, without ticks; `extent` is left, right, bottom, top."""
    shown = axes.imshow(
        image,
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        origin="lower",
        interpolation="nearest",
        extent=extent,
    )
    axes.set_xticks([])
    axes.set_yticks([])
    return shown


def draw_greys(figure: Figure, shown: Any, axes: Any, label: str, *, shrink: float = 0.7, pad: float = 0.01) -> Any:
    """The bar of greys beside some axes."""
    bar = figure.colorbar(shown, ax=axes, shrink=shrink, pad=pad, extend="both", label=label)
    bar.ax.ticklabel_format(scilimits=(-3, 4))
    return bar


def draw_length(axes: Any, pixels: float, pixel: float, unit: str) -> None:
    """A bar of a round length, about a quarter of an image of so many pixels."""
    wanted = pixels * pixel / 4
    power = 10.0 ** np.floor(np.log10(wanted))
    length = max(step * power for step in (1, 2, 5) if step * power <= wanted * (1 + 1e-9))
    width = length / pixel
    left, bottom, height = pixels * 0.05, pixels * 0.05, max(pixels * 0.015, 0.5)
    edge = [withStroke(linewidth=2, foreground="black")]
    axes.add_patch(Rectangle((left, bottom), width, height, facecolor="white", path_effects=edge))
    axes.text(
        left + width / 2,
        bottom + 1.5 * height,
        f"{length:g} {unit}",
        color="white",
        ha="center",
        va="bottom",
        fontsize=8,
        path_effects=edge,
    )


def host_bytes(shape: tuple[int, ...], count: int) -> int:
    """Bytes that `compare_volumes` and `save_figure` hold for so many volumes, beside the slabs that are read."""
    z, y, x = shape
    read = 4 * max(y * x, z * x)
    step = surface_step(shape)
    images = 4 * (_pixels_left(y) * _pixels_left(x) + _pixels_left(z) * _pixels_left(x))
    thin = 4 * (-(-z // step)) * (-(-y // step)) * (-(-x // step))
    # Of one volume at a time: a slice as it is read and scaled to greys, the voxels of its surface in double precision.
    held = count * (images + thin + _TRIANGLES * _TRIANGLE_BYTES)
    return _FIGURE_BYTES + held + _TRIANGLES * _DRAWN_BYTES + 2 * read + 4 * images + 6 * thin


def training_curve(losses: npt.ArrayLike) -> Figure:
    """Training and validation loss against epochs; `losses` is (epoch, 2)."""
    values = np.asarray(losses)
    figure = Shown(figsize=(5, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    epochs = np.arange(1, len(values) + 1)
    axes.plot(epochs, values[:, 0], label="training")
    axes.plot(epochs, values[:, 1], label="validation")
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel("mean square error")
    axes.legend()
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure and return its path; the file appears when it is complete.

    Parameters
    ----------
    path
        The suffix chooses the format, such as .pdf or .svg; with any other suffix it is PNG.

    Raises
    ------
    SchemaError
        `path` is a folder or a device, or lies inside a store.
    OSError
        The place cannot be written.
    """
    suffix = Path(path).suffix.removeprefix(".").lower()
    kind = suffix if suffix in figure.canvas.get_supported_filetypes() else "png"
    metadata = {"Software": _SOFTWARE} if kind == "png" else None
    with aside.written(path) as partial:
        figure.savefig(partial, dpi=150, format=kind, metadata=metadata)
    return Path(path)


def is_ours(path: Path) -> bool:
    """Whether a file is a PNG that `save_figure` wrote."""
    try:
        with path.open("rb") as file:
            return f"Software\0{_SOFTWARE}".encode() in file.read(_HEADER_BYTES)
    except OSError:
        return False


def voxels_of(volume: xr.DataArray, *, who: str) -> npt.NDArray[Any]:
    """Every n-th voxel, for the isosurface, read slab by slab."""
    step = surface_step(volume.shape)
    thin = np.asarray(volume.isel({dim: slice(None, None, step) for dim in schema.VOLUME_DIMS}).values)
    finite.check_slab(thin, who=who, dims=schema.VOLUME_DIMS)
    return thin


def surface_step(shape: tuple[int, ...]) -> int:
    """The step between the voxels of which an isosurface is made."""
    return -(-max(shape) // _SURFACE_VOXELS)


def _pixels_left(size: int) -> int:
    """Pixels that are left of so many."""
    return -(-size // max(size // _IMAGE_PIXELS, 1))


def thinned(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Every n-th pixel of an image, so that about a thousand are left along an axis."""
    steps = tuple(slice(None, None, max(size // _IMAGE_PIXELS, 1)) for size in image.shape)
    return np.ascontiguousarray(image[steps])


class _Surface(Poly3DCollection):  # type: ignore[misc]
    """A surface that keeps its triangles alone: what drawing makes of them takes several times the memory."""

    def draw(self, renderer: Any) -> None:
        """Draw it, and forget the polygons of this view."""
        super().draw(renderer)
        PolyCollection.set_verts(self, [])


def _surface(volume: npt.NDArray[Any], level: float) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Vertices and triangles of the surface at a level, of as many voxels as give at most `_TRIANGLES`."""
    step = 1
    while True:
        inside = volume[::step, ::step, ::step] > level
        # A surface has about two triangles where two neighbours differ, as long as few of them do.
        crossed = sum(int(np.count_nonzero(np.diff(inside, axis=axis))) for axis in range(3))
        if crossed <= _TRIANGLES or min(inside.shape) < 4:
            vertices, faces, *_ = marching_cubes(volume[::step, ::step, ::step], level)
            if len(faces) <= _TRIANGLES or min(inside.shape) < 4:
                return vertices * step, faces
        step += 1


def draw_surface(axes: Any, volume: npt.NDArray[Any], level: float) -> None:
    """Draw the surface of voxels (z, y, x) into 3D axes, which are right-handed: with y from the viewer."""
    axes.set_axis_off()
    if min(volume.shape) < 2 or not volume.min() < level < volume.max():
        axes.text2D(0.5, 0.5, "nothing at this level", ha="center", transform=axes.transAxes)
        return
    padded = np.pad(volume, 1, constant_values=float(volume.min()))  # so that the surface is closed at the border
    vertices, faces = _surface(padded[:, ::-1], level)
    surface = _Surface(vertices[:, ::-1][faces], facecolors=SURFACE_COLOUR, shade=True, linewidth=0)
    axes.add_collection3d(surface)
    for dim, size in zip("zyx", padded.shape, strict=True):
        getattr(axes, f"set_{dim}lim")(0, size)
    axes.set_box_aspect(padded.shape[::-1], zoom=1.5)
    axes.view_init(elev=20, azim=-55)


def otsu_level(volume: xr.DataArray) -> float:
    """Otsu's threshold of all voxels of a volume, as a level for isosurfaces. Computed at once."""
    return grey_of(volume).level
