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
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from skimage.filters import threshold_otsu
from skimage.measure import marching_cubes

from nntomo_dask import aside
from nntomo_dask.arrays import finite, schema

_SURFACE_VOXELS = 96  # approximate voxels per axis of an isosurface; more detail is not visible in a figure
_SOFTWARE = "nntomo_dask"  # stands in the header of every PNG
_HEADER_BYTES = 1024
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


def _central(volume: xr.DataArray) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """The central slices across and along z, and every n-th voxel for the isosurface, read slab by slab."""
    schema.check_volume(volume, who="compare_volumes")
    middle = {dim: volume.sizes[dim] // 2 for dim in schema.VOLUME_DIMS}
    across = volume.isel({schema.Z: middle[schema.Z]}).values
    along = volume.isel({schema.Y: middle[schema.Y]}).values
    step = max(max(volume.shape) // _SURFACE_VOXELS, 1)
    thin = volume.isel({dim: slice(None, None, step) for dim in schema.VOLUME_DIMS}).values
    for shown, dims in (
        (across, (schema.Y, schema.X)),
        (along, (schema.Z, schema.X)),
        (thin, schema.VOLUME_DIMS),
    ):
        finite.check_slab(shown, who="compare_volumes", dims=dims)
    return across, along, thin


def _draw_surface(axes: Any, volume: npt.NDArray[Any], level: float) -> None:
    axes.set_axis_off()
    if min(volume.shape) < 2 or not volume.min() < level < volume.max():
        axes.text2D(0.5, 0.5, "nothing at this level", ha="center", transform=axes.transAxes)
        return
    padded = np.pad(volume, 1, constant_values=float(volume.min()))  # so that the surface is closed at the border
    vertices, faces, *_ = marching_cubes(padded, level)
    surface = Poly3DCollection(vertices[:, ::-1][faces], facecolors=_SURFACE_COLOUR, shade=True, linewidth=0)
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
