"""Figures of an alignment: what it says of each projection, and a series before and after."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nntomo_dask.types import Bools, Float32, Float64

_BEFORE, _AFTER, _FLAGGED = "#8a8f94", "#4a6b8a", "#b5442e"
_FONTS: Any = {"font.size": 9, "axes.titlesize": 9}


def degrees(angle: float) -> str:
    """An angle as Matplotlib writes numbers at axes, with a minus and no hyphen."""
    return f"{angle:.3g}".replace("-", "\N{MINUS SIGN}")


def displacements(
    angles_deg: Float64,
    columns: Sequence[tuple[str, Float64]],
    flagged: Bools,
) -> Figure:
    """A diagram for each column of a table against the tilt angle; projections that are left out are crosses.

    Parameters
    ----------
    columns
        What stands at the axis, and the values (angle,).
    """
    with mpl.rc_context(_FONTS):
        figure = Figure(figsize=(9.6, 1.1 + 1.6 * -(-len(columns) // 2)), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(-(-len(columns) // 2), 2, squeeze=False, sharex=True)
        order = np.argsort(angles_deg, kind="stable")
        order = order[~flagged[order]]
        for axes, (title, values) in zip(grid.flat, columns, strict=False):
            axes.plot(angles_deg[order], values[order], "o-", color=_AFTER, markersize=3, linewidth=1)
            if flagged.any():
                axes.plot(angles_deg[flagged], values[flagged], "x", color=_FLAGGED, label="left out")
            axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
            axes.set_ylabel(title)
            axes.grid(alpha=0.2)
        for axes in list(grid.flat)[len(columns) :]:
            axes.set_visible(False)
        for axes in list(grid.flat)[max(len(columns) - 2, 0) : len(columns)]:
            axes.set_xlabel("nominal tilt angle [°]")
            axes.tick_params(labelbottom=True)
        if flagged.any():
            grid[0, 0].legend(frameon=False)
    return figure


def sinograms(
    before: Float32,
    after: Float32,
    *,
    before_deg: Float64,
    after_deg: Float64,
    flagged: Bools,
    axis_px: float,
    z: int,
) -> Figure:
    """One slice of the raw and of the aligned series, the angles from below as if they were at equal steps.

    Parameters
    ----------
    before, after
        (angle, detector).
    flagged
        (angle,), of the raw series.
    axis_px
        Where the axis was in the raw images, from the middle.
    """
    with mpl.rc_context(_FONTS):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(1, 2, sharex=True)
        low, high = np.quantile(after, [0.002, 0.998])
        names = (f"raw, slice {z}", f"aligned, slice {z}")
        for axes, image, angles, name in zip(grid, (before, after), (before_deg, after_deg), names, strict=True):
            order = np.argsort(angles, kind="stable")
            half = image.shape[1] / 2
            axes.imshow(
                image[order],
                cmap="gray",
                vmin=low,
                vmax=high if high > low else low + 1,
                aspect="auto",
                interpolation="nearest",
                origin="lower",
                extent=(-half, half, -0.5, len(angles) - 0.5),
            )
            ticks = np.unique(np.linspace(0, len(angles) - 1, 7).round().astype(int))
            axes.set_yticks(ticks, [degrees(angles[order][one]) for one in ticks])
            axes.set_title(name)
            axes.set_xlabel("detector, from the middle [px]")
        grid[0].set_ylabel("tilt angle [°]")
        grid[0].axvline(axis_px, color=_FLAGGED, linewidth=1, label=f"tilt axis, {axis_px:+.2f} px")
        grid[1].axvline(0, color=_FLAGGED, linewidth=1, linestyle="--", label="tilt axis, in the middle")
        order = np.argsort(before_deg, kind="stable")
        left_out = np.flatnonzero(flagged[order])
        if left_out.size:
            places = np.full(left_out.size, before.shape[1] / 2)
            grid[0].plot(places, left_out, "<", color=_FLAGGED, clip_on=False, label="left out")
        for axes in grid:
            axes.legend(loc="lower left", fontsize=8, framealpha=0.8)
    return figure


def centres(
    angles_deg: Float64, before: Float64, after: Float64, *, misfits_px: tuple[float, float], fitted: Float64
) -> Figure:
    """Centre of mass across the tilt axis against the angle, before and after, with the curve of a rotating body."""
    with mpl.rc_context(_FONTS):
        figure = Figure(figsize=(9.6, 2.8), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        order = np.argsort(angles_deg, kind="stable")
        names = ("raw", "aligned")
        for values, colour, name, misfit in zip((before, after), (_BEFORE, _AFTER), names, misfits_px, strict=True):
            label = f"{name}: {misfit:.2g} px off its curve"
            axes.plot(angles_deg[order], values[order], "o-", color=colour, markersize=3, linewidth=1, label=label)
        axes.plot(angles_deg[order], fitted[order], "--", color=_FLAGGED, linewidth=1, label="a cos θ + b sin θ + c")
        axes.set_xlabel("tilt angle [°]")
        axes.set_ylabel("centre of mass [px]")
        axes.legend(frameon=False)
        axes.grid(alpha=0.2)
    return figure


def profiles(before: Float64, after: Float64, *, angles_deg: Float64) -> Figure:
    """Mass along the tilt axis at each angle (angle, z), before and after: all rows of the second are alike."""
    with mpl.rc_context(_FONTS):
        figure = Figure(figsize=(9.6, 3.0), layout="constrained")
        FigureCanvasAgg(figure)
        order = np.argsort(angles_deg, kind="stable")
        for axes, values, name in zip(
            figure.subplots(1, 2, sharey=True), (before, after), ("raw", "aligned"), strict=True
        ):
            shown = values - values.min(axis=1, keepdims=True)
            peak = shown.max(axis=1, keepdims=True)
            shown = shown / np.where(peak > 0, peak, 1)
            axes.imshow(shown[order], cmap="gray", aspect="auto", interpolation="nearest", origin="lower")
            ticks = np.unique(np.linspace(0, len(order) - 1, 7).round().astype(int))
            axes.set_yticks(ticks, [degrees(angles_deg[order][one]) for one in ticks])
            axes.set_title(name)
            axes.set_xlabel("z, along the tilt axis [px]")
            if name == "raw":
                axes.set_ylabel("tilt angle [°]")
    return figure


def residuals(
    angles_deg: Float64,
    before: Float64,
    after: Float64,
    left_out_deg: Float64,
    left_before: Float64,
    left_after: Float64,
) -> Figure:
    """How far projections are from those of a reconstruction: of all of them, and of all others."""
    with mpl.rc_context(_FONTS):
        figure = Figure(figsize=(9.6, 3.0), layout="constrained")
        FigureCanvasAgg(figure)
        heads = ("reconstructed from all projections", "left out in turn")
        parts = ((angles_deg, before, after), (left_out_deg, left_before, left_after))
        top = 150 * max(float(one.max()) for one in (before, after, left_before, left_after))
        for axes, head, (angles, first, second) in zip(figure.subplots(1, 2, sharey=True), heads, parts, strict=True):
            order = np.argsort(angles, kind="stable")
            for values, colour, name in ((first, _BEFORE, "raw"), (second, _AFTER, "aligned")):
                label = f"{name}: {100 * values.mean():.3g} % on average"
                axes.plot(
                    angles[order], 100 * values[order], "o-", color=colour, markersize=3, linewidth=1, label=label
                )
            axes.set_title(head)
            axes.set_xlabel("tilt angle [°]")
            axes.set_ylim(0, top or 1)
            axes.legend(frameon=False, loc="upper left", fontsize=8)  # above all curves
            axes.grid(alpha=0.2)
            if head == heads[0]:
                axes.set_ylabel("residual [% of the projection]")
    return figure


def slices(before: Float32, after: Float32, *, z: int) -> Figure:
    """A slice by filtered backprojection from the raw and from the aligned series, in the same greys."""
    with mpl.rc_context(_FONTS):
        figure = Figure(figsize=(9.6, 5.0), layout="constrained")
        FigureCanvasAgg(figure)
        low, high = np.quantile(after, [0.005, 0.998])
        for axes, image, name in zip(figure.subplots(1, 2), (before, after), ("raw", "aligned"), strict=True):
            shown = axes.imshow(
                image,
                cmap="gray",
                vmin=low,
                vmax=high if high > low else low + 1,
                origin="lower",
                interpolation="nearest",
            )
            axes.set_title(f"{name}, slice {z}, filtered backprojection")
            axes.set_xticks([])
            axes.set_yticks([])
        figure.colorbar(shown, ax=list(figure.axes), shrink=0.7, pad=0.01, extend="both")
    return figure
