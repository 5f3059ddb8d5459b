"""Figures of an assessment: what was predicted of a projection that was left out, and misfits by method and setting."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nntomo_dask.types import Float32

_CHOSEN, _OTHER = "#b5442e", "#4a6b8a"
_FONTS: Any = {"font.size": 9, "axes.titlesize": 9}


def predictions(
    measured: Float32, predicted: Mapping[str, Float32], *, captions: Mapping[str, str], angle_deg: float
) -> Figure:
    """A row for each method: the projection that was left out, the prediction, and the difference.

    Parameters
    ----------
    measured
        (slice, detector).
    predicted
        The same by title.
    captions
        A few words for each title.
    """
    titles = list(predicted)
    low, high = np.quantile(measured, [0.001, 0.999])
    residuals = {title: predicted[title] - measured for title in titles}
    # The colours show the differences of the better half; those of a bad method saturate.
    reach = float(np.median([np.quantile(np.abs(one), 0.99) for one in residuals.values()])) or 1.0
    with mpl.rc_context(_FONTS):
        figure = Figure(figsize=(9.6, 0.6 + 1.15 * len(titles)), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(titles), 3, squeeze=False)
        heads = (f"measured, left out at {angle_deg:.4g}°", "predicted", "predicted less measured")
        for row, title in zip(grid, titles, strict=True):
            for axes, image in zip(row[:2], (measured, predicted[title]), strict=True):
                grey = axes.imshow(image, cmap="gray", vmin=low, vmax=high, aspect="auto", interpolation="nearest")
            colours = row[2].imshow(
                residuals[title], cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="auto", interpolation="nearest"
            )
            row[0].set_ylabel(f"{_folded(title)}\n{captions.get(title, '')}", rotation=0, ha="right", va="center")
            for axes in row:
                axes.set_xticks([])
                axes.set_yticks([])
        for axes, head in zip(grid[0], heads, strict=True):
            axes.set_title(head)
        for axes in grid[-1]:
            axes.set_xlabel("detector")
        figure.colorbar(grey, ax=grid[:, :2], shrink=0.8, pad=0.01, extend="both")
        figure.colorbar(colours, ax=grid[:, 2], shrink=0.8, pad=0.01, extend="both")
    return figure


def misfits(
    titles: Sequence[str], values: Sequence[float], errors: Sequence[float], *, chosen: str, noise: float | None
) -> Figure:
    """The misfit of each candidate, the least at the top, with the standard error of its ratio to the least.

    Parameters
    ----------
    values, errors
        Of each title, in units² of the series.
    chosen
        The title that is recommended.
    noise
        The noise's own part of each misfit, drawn as a line; None where it is not known.
    """
    with mpl.rc_context(_FONTS):
        figure = Figure(figsize=(8, 0.9 + 0.24 * len(titles)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        places = np.arange(len(titles))[::-1]
        for place, title, value, error in zip(places, titles, values, errors, strict=True):
            colour = _CHOSEN if title == chosen else _OTHER
            axes.errorbar(value, place, xerr=[[min(error, value / 2)], [error]], fmt="o", color=colour, capsize=2)
        axes.set_yticks(places, titles)
        for label in axes.get_yticklabels():
            if label.get_text() == chosen:
                label.set_color(_CHOSEN)
                label.set_fontweight("bold")
        axes.set_xscale("log")
        if noise is not None and noise > 0:
            axes.axvline(noise, color="0.4", linestyle="--", linewidth=1, label="noise's own part")
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, borderaxespad=0)
        axes.set_xlabel("mean square misfit at projections that were left out [units² of the series]")
        axes.grid(axis="x", which="both", alpha=0.2)
    return figure


def by_setting(lines: Sequence[tuple[str, str, Sequence[float], Sequence[float]]], *, noise: float | None) -> Figure:
    """Misfit against a setting, a diagram for each method.

    Parameters
    ----------
    lines
        Method, setting, its values, and the misfits there.
    noise
        See `misfits`.
    """
    with mpl.rc_context(_FONTS):
        figure = Figure(figsize=(2.9 * max(len(lines), 1), 2.6), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(1, max(len(lines), 1), squeeze=False)[0]
        for axes, (method, setting, places, values) in zip(grid, lines, strict=False):
            axes.plot(places, values, "o-", color=_OTHER)
            best = int(np.argmin(values))
            axes.plot(places[best], values[best], "o", color=_CHOSEN)
            if min(places) > 0:
                axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_title(method)
            axes.set_xlabel(setting)
            axes.grid(which="both", alpha=0.2)
            if noise is not None and noise > 0:
                axes.axhline(noise, color="0.4", linestyle="--", linewidth=1)
        grid[0].set_ylabel("mean square misfit")
    return figure


def _folded(title: str) -> str:
    """A title with its settings below each other."""
    return title.replace(", ", "\n")
