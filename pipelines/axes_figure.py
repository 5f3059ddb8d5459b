"""The figure of docs/howto/axes.md: an object that one could hold, its images, and what becomes of it.

    python pipelines/axes_figure.py docs/axes.png

The object is a tripod of three rods of different lengths. Its images are projections of points that were turned by a
right-handed rotation; nothing of the package's geometry makes them. They are read from an MRC file, reconstructed and
written to one, as the command does it.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import mrcfile
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter
from skimage.measure import marching_cubes

import nntomo_dask as nt
from nntomo_dask.formats import orientation
from nntomo_dask.types import Float32, Float64

SIZE = 64
ANGLES = np.arange(-75.0, 76.0, 5.0)
CORNER = np.array([-12.0, -15.0, -9.0])
# In axes of an image as it is shown: X to the right, Y up, Z towards whoever looks.
RODS = {"X": (30, "#c0392b"), "Y": (38, "#2e8b57"), "Z": (20, "#2f6db5")}
RADIUS = 3.5
VIEW: Any = {"elev": 18, "azim": -62}


def rod(name: str) -> Float64:
    """(point, 3): points that fill a rod, (X, Y, Z) from the corner."""
    length, axis = RODS[name][0], "XYZ".index(name)
    rng = np.random.default_rng(axis)
    points = rng.uniform(-RADIUS, RADIUS, (400_000, 3))
    points[:, axis] = rng.uniform(-RADIUS, length, len(points))
    across = np.delete(points, axis, axis=1)
    return points[(across**2).sum(axis=1) < RADIUS**2] + CORNER


def image(points: Float64, degrees: float) -> Float32:
    """(line from the bottom, column): the points after a right-handed turn about Y, seen from Z."""
    theta = np.deg2rad(degrees)
    right = points[:, 0] * np.cos(theta) + points[:, 2] * np.sin(theta)
    edges = np.arange(SIZE + 1) - SIZE / 2
    counts, *_ = np.histogram2d(points[:, 1], right, bins=(edges, edges))
    return np.asarray(gaussian_filter(counts, 0.7), np.float32)


def main(path: Path) -> None:
    points = {name: rod(name) for name in RODS}
    figure = Figure(figsize=(11, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    with mpl.rc_context({"font.size": 8.5, "axes.titlesize": 9}), tempfile.TemporaryDirectory() as folder:
        _draw_rods(figure.add_subplot(2, 4, 1, projection="3d"), points)
        for place, degrees in enumerate((-50, 0, 50)):
            axes = figure.add_subplot(2, 4, 2 + place)
            _draw_image(axes, {name: image(rod_, degrees) for name, rod_ in points.items()})
            axes.set_title(f"image at {degrees}°, as it is shown")
        grids: list[tuple[str, str]] = [
            ("array", "the array (z, y, x) of the package,\nin right-handed axes: a mirror image"),
            ("file", "a file that is written:\ny begins at the viewer"),
            ("rotated", "the file after clip rotx of IMOD:\nx, y, z as in the hand"),
            ("wrong", "a file, the angles with the\nother sign: a mirror image"),
        ]
        volumes = {name: _volumes(rod_, Path(folder)) for name, rod_ in points.items()}
        for place, (kind, title) in enumerate(grids):
            axes = figure.add_subplot(2, 4, 5 + place, projection="3d")
            _draw_volumes(axes, {name: of_rod[kind] for name, of_rod in volumes.items()}, kind)
            axes.set_title(title)
    nt.save_figure(figure, path)


def _volumes(points: Float64, folder: Path) -> dict[str, Float32]:
    """The volume of a rod, as an array, and as files hold it."""
    stack = np.stack([image(points, angle) for angle in ANGLES])
    with mrcfile.new(folder / "stack.mrc", stack, overwrite=True) as mrc:
        mrc.set_image_stack()
    made = {}
    for kind, sign in (("file", 1), ("wrong", -1)):
        volume = nt.sirt(nt.read_mrc_series(folder / "stack.mrc", sign * ANGLES, tilt_axis="y"))
        made["array"] = volume.values if kind == "file" else made["array"]
        made[kind] = orientation.as_file(volume).values
    made["rotated"] = np.swapaxes(made["file"], 0, 1)[::-1]
    return made


def _draw_rods(axes: Any, points: dict[str, Float64]) -> None:
    axes.set_title("in the right hand: thumb X,\nforefinger Y, middle finger Z")
    for name, (length, colour) in RODS.items():
        end = CORNER.copy()
        end["XYZ".index(name)] += length
        # Matplotlib's axes are right-handed: x to the right, y from the viewer, z up.
        (x0, y0, z0), (x1, y1, z1) = ((at[0], -at[2], at[1]) for at in (CORNER, end))
        axes.plot([x0, x1], [y0, y1], [z0, z1], color=colour, linewidth=9, solid_capstyle="round")
        far = end + 7 * np.eye(3)["XYZ".index(name)]
        axes.text(far[0], -far[2], far[1], name, color=colour, fontsize=12, ha="center", va="center")
    _frame(axes, ("right", "from the viewer", "up"))


def _draw_image(axes: Any, shown: dict[str, Float32]) -> None:
    canvas = np.ones((SIZE, SIZE, 3))
    for name, counts in shown.items():
        share = np.clip(counts / np.quantile(counts[counts > 0], 0.9), 0, 1)[..., None]
        canvas = canvas * (1 - share * (1 - np.array(mpl.colors.to_rgb(RODS[name][1]))))
    axes.imshow(canvas, origin="lower")
    axes.axvline((SIZE - 1) / 2, color="0.5", linewidth=0.8, linestyle="--")
    axes.set(xticks=[], yticks=[])


def _draw_volumes(axes: Any, volumes: dict[str, Float32], kind: str) -> None:
    for name, volume in volumes.items():
        vertices, faces, *_ = marching_cubes(volume, volume.max() / 2)
        surface = axes.plot_trisurf(*vertices[:, [2, 1, 0]].T, triangles=faces, color=RODS[name][1], linewidth=0)
        surface.set_edgecolor("none")
    _frame(axes, ("x", "y", "z"), low=0, high=SIZE)
    if kind == "rotated":  # the camera of 3dmod: x to the right, y up, z to the viewer
        axes.view_init(elev=72, azim=-78)


def _frame(axes: Any, labels: tuple[str, str, str], low: float = -SIZE / 2, high: float = SIZE / 2) -> None:
    axes.view_init(**VIEW)
    axes.set_box_aspect((1, 1, 1), zoom=0.92)
    for name, label in zip("xyz", labels, strict=True):
        getattr(axes, f"set_{name}lim")(low, high)
        getattr(axes, f"set_{name}ticks")([])
        getattr(axes, f"set_{name}label")(f"{label} →", labelpad=-12)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/axes.png"))
