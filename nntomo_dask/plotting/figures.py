"""Figures: slices and isosurfaces of several volumes side by side, and the loss curve of a training."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from skimage.filters import threshold_otsu
from skimage.measure import marching_cubes

from nntomo_dask.arrays import schema

_SURFACE_VOXELS = 96  # approximate voxels per axis of an isosurface; more detail is not visible in a figure
_IMAGE_PIXELS = 1024  # approximate pixels per axis of a slice; a figure shows fewer
# Of one surface; with more, every n-th voxel is left out. A particle has 30,000, noise would have three million.
_TRIANGLES = 80_000
_TRIANGLE_BYTES, _DRAWN_BYTES = 200, 1100  # that matplotlib takes for a triangle, and while it draws it: measured
_FIGURE_BYTES = 48 * 2**20  # of the figure itself and of the libraries that draw it
_SURFACE_COLOUR = "#9dbfe3"


def compare_volumes(
    volumes: Mapping[str, xr.DataArray],
    *,
    captions: Mapping[str, str] | None = None,
    level: float | None = None,
    reference: str | None = None,
) -> Figure:
    """One column per volume: a slice across the tilt axis, a slice along it, and an isosurface.

    Parameters
    ----------
    volumes
        Volumes of the same shape by title; dims (z, y, x).
    captions
        A line of text below the title of a volume, by title.
    level
        Grey value of the isosurfaces; by default the middle of the range of the reference.
    reference
        Title of the volume whose range of values is the grey scale of all slices; by default the first one.

    Returns
    -------
    A figure; `save_figure` writes it.
    """
    titles = list(volumes)
    loaded = {title: _central(volume) for title, volume in volumes.items()}
    across, along, thin = loaded[reference or titles[0]]
    low, high = float(min(across.min(), along.min())), float(max(across.max(), along.max()))
    level = low + (high - low) / 2 if level is None else level
    with mpl.rc_context({"font.size": 9, "axes.titlesize": 10}):
        figure = Figure(figsize=(2.6 * len(titles), 7.6), layout="constrained")
        FigureCanvasAgg(figure)
        for column, title in enumerate(titles):
            across, along, thin = loaded[title]
            for row, (image, label) in enumerate(((across, "across the tilt axis"), (along, "along the tilt axis"))):
                axes = figure.add_subplot(3, len(titles), row * len(titles) + column + 1)
                axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower", interpolation="nearest")
                axes.set_xticks([])
                axes.set_yticks([])
                if column == 0:
                    axes.set_ylabel(label)
                if row == 0:
                    caption = (captions or {}).get(title)
                    axes.set_title(title if caption is None else f"{title}\n{caption}")
            axes3d: Any = figure.add_subplot(3, len(titles), 2 * len(titles) + column + 1, projection="3d")
            _draw_surface(axes3d, thin, level)
            if column == 0:
                axes3d.text2D(
                    -0.02, 0.5, f"surface at {level:.3g}", rotation=90, va="center", transform=axes3d.transAxes
                )
    return figure


def host_bytes(shape: tuple[int, ...], count: int) -> int:
    """Bytes that `compare_volumes` and `save_figure` hold for so many volumes, beside the slabs that are read."""
    z, y, x = shape
    read = 4 * max(y * x, z * x)
    step = _surface_step(shape)
    images = 4 * (_thinned(y) * _thinned(x) + _thinned(z) * _thinned(x))
    thin = 4 * (-(-z // step)) * (-(-y // step)) * (-(-x // step))
    # Of one volume at a time: a slice as it is read and scaled to greys, the voxels of its surface in double precision.
    held = count * (images + thin + _TRIANGLES * _TRIANGLE_BYTES)
    return _FIGURE_BYTES + held + _TRIANGLES * _DRAWN_BYTES + 2 * read + 4 * images + 6 * thin


def training_curve(losses: npt.ArrayLike) -> Figure:
    """Training and validation loss against epochs; `losses` is (epoch, 2)."""
    values = np.asarray(losses)
    figure = Figure(figsize=(5, 3.5), layout="constrained")
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
    """Write a figure as PNG and return its path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=150)
    return target


def _central(volume: xr.DataArray) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """The central slices across and along z, and every n-th voxel for the isosurface, read slab by slab."""
    schema.check_volume(volume, who="compare_volumes")
    middle = {dim: volume.sizes[dim] // 2 for dim in schema.VOLUME_DIMS}
    across = _with_fewer_pixels(volume.isel({schema.Z: middle[schema.Z]}).values)
    along = _with_fewer_pixels(volume.isel({schema.Y: middle[schema.Y]}).values)
    thin = volume.isel({dim: slice(None, None, _surface_step(volume.shape)) for dim in schema.VOLUME_DIMS}).values
    return across, along, thin


def _surface_step(shape: tuple[int, ...]) -> int:
    return max(max(shape) // _SURFACE_VOXELS, 1)


def _thinned(size: int) -> int:
    """Pixels that are left of so many."""
    return -(-size // max(size // _IMAGE_PIXELS, 1))


def _with_fewer_pixels(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
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


def _draw_surface(axes: Any, volume: npt.NDArray[Any], level: float) -> None:
    axes.set_axis_off()
    if min(volume.shape) < 2 or not volume.min() < level < volume.max():
        axes.text2D(0.5, 0.5, "nothing at this level", ha="center", transform=axes.transAxes)
        return
    padded = np.pad(volume, 1, constant_values=float(volume.min()))  # so that the surface is closed at the border
    vertices, faces = _surface(padded, level)
    surface = _Surface(vertices[:, ::-1][faces], facecolors=_SURFACE_COLOUR, shade=True, linewidth=0)
    axes.add_collection3d(surface)
    for dim, size in zip("zyx", padded.shape, strict=True):
        getattr(axes, f"set_{dim}lim")(0, size)
    axes.set_box_aspect(padded.shape[::-1], zoom=1.5)
    axes.view_init(elev=20, azim=35)


def otsu_level(volume: xr.DataArray) -> float:
    """Otsu's threshold of the central slices of a volume, as a level for isosurfaces."""
    across, along, _ = _central(volume)
    values = np.concatenate([across.ravel(), along.ravel()])
    return float(threshold_otsu(values)) if values.min() < values.max() else float(values[0])
