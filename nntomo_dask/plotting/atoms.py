"""Figures of atoms: over slices of a volume, and how far they are from where they should be."""

from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nntomo_dask.arrays import grid, schema
from nntomo_dask.errors import refuse
from nntomo_dask.plotting.figures import FONTS, Shown, draw_length, draw_slice
from nntomo_dask.types import Float64

# Told apart by people of any colour vision: Okabe and Ito, doi:10.1038/nmeth.1618.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7")
_TRUE = "#ff2d2d"
_BINS = 30
_PICOMETRES = 1000.0


def plot_atoms(
    volume: xr.DataArray,
    atoms: xr.Dataset,
    *,
    reference: xr.Dataset | None = None,
    z: int | None = None,
    y: int | None = None,
    thickness: float | None = None,
) -> Figure:
    """Atoms over a slice across the tilt axis and one along it, a colour an element.

    The greys are the largest value of the slices whose atoms are drawn, so that an atom between two slices is seen too.

    Parameters
    ----------
    volume
        Dims (z, y, x), in nm.
    atoms
        A table of atoms, drawn as rings.
    reference
        Atoms of a structure, drawn as crosses.
    z, y
        Numbers of the slices, from 0; by default those with the most atoms around them.
    thickness
        Atoms within half of it are drawn, [nm]. None: 0.1, at least 3 slices.

    Returns
    -------
    A figure; `save_figure` writes it.

    Raises
    ------
    SchemaError
        `volume` is no volume in nm, or there is no such slice.
    """
    schema.check_volume(volume, who="plot_atoms", slices="any")
    pixel = schema.pixel_size_of(volume)
    places = _places(volume, atoms)
    true = None if reference is None else _places(volume, reference)
    species = np.asarray(atoms["species"].values)
    kinds = sorted(set(species.tolist()))
    with mpl.rc_context(FONTS):
        figure = Shown(figsize=(9.2, 5.4), layout="constrained")
        FigureCanvasAgg(figure)
        grids = figure.subplots(1, 2)
        for axes, (dim, wanted) in zip(grids, ((schema.Z, z), (schema.Y, y)), strict=True):
            axis, count = schema.VOLUME_DIMS.index(dim), volume.sizes[dim]
            step = abs(grid.spacing(volume[dim].values, pixel))
            half = max((0.1 if thickness is None else thickness) / 2 / step, 1.5)
            at = _fullest(places[:, axis], half, count) if wanted is None else wanted
            if not 0 <= at < count:
                refuse(
                    "plot_atoms",
                    needs=f"a slice along {dim} from 0 to {count - 1}",
                    got=f"{at}",
                    remedy=f"`{dim}={count // 2}`",
                )
            low, high = max(int(np.ceil(at - half)), 0), min(int(at + half) + 1, count)
            image = volume.isel({dim: slice(low, high)}).max(dim).values
            rows, columns = (one for one in range(3) if one != axis)
            window = (float(np.quantile(image, 0.01)), float(np.quantile(image, 0.999)))
            window = window if window[0] < window[1] else (window[0], window[0] + 1)
            draw_slice(axes, image, window, (-0.5, image.shape[1] - 0.5, -0.5, image.shape[0] - 0.5))
            if true is not None:
                near = np.abs(true[:, axis] - at) <= half
                axes.plot(
                    true[near, columns],
                    true[near, rows],
                    "+",
                    color=_TRUE,
                    markersize=13,
                    markeredgewidth=1,
                    label="structure",
                )
            for number, kind in enumerate(kinds):
                near = (np.abs(places[:, axis] - at) <= half) & (species == kind)
                axes.plot(
                    places[near, columns],
                    places[near, rows],
                    "o",
                    fillstyle="none",
                    markersize=8,
                    markeredgewidth=1.2,
                    color=_COLOURS[number % len(_COLOURS)],
                    label=str(kind) or "atoms",
                )
            way = "across" if dim == schema.Z else "along"
            axes.set_title(f"{way} the tilt axis, {dim} = {at}, {2 * half * step:.2g} nm")
            axes.set_xlabel(schema.VOLUME_DIMS[columns])
            axes.set_ylabel(schema.VOLUME_DIMS[rows])
        draw_length(grids[0], volume.sizes[schema.X], pixel, str(volume.attrs["units"]))
        handles, labels = grids[0].get_legend_handles_labels()
        legend = figure.legend(
            handles, labels, loc="outside lower center", ncols=len(labels), facecolor="0.35", fontsize=8
        )
        for text in legend.get_texts():
            text.set_color("white")
    return figure


def plot_displacements(displacements: npt.ArrayLike, *, limit: float | None = None) -> Figure:
    """Histograms of how far found atoms are from those of a structure: in all, and along z, y and x.

    Parameters
    ----------
    displacements
        (pair, 3): z, y, x, [nm]; those of a `Match`.
    limit
        Farthest that a pair may be apart, [nm], drawn as a line where it is not far from all of them.

    Raises
    ------
    SchemaError
        There is no pair.
    """
    apart = np.asarray(displacements, np.float64).reshape(-1, 3) * _PICOMETRES
    if len(apart) == 0:
        refuse("plot_displacements", needs="pairs of atoms", got="none", remedy="a larger `limit` of the match")
    distance = np.sqrt((apart**2).sum(axis=1))
    with mpl.rc_context(FONTS):
        figure = Shown(figsize=(8.4, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        left.hist(distance, bins=_BINS, color="#4a6b8a")
        left.axvline(_rms(distance), color="#b5442e", label=f"root mean square, {_rms(distance):.3g} pm")
        if limit is not None and limit * _PICOMETRES < 3 * distance.max():
            left.axvline(limit * _PICOMETRES, color="0.4", linestyle="--", label=f"limit, {limit * _PICOMETRES:.3g} pm")
        left.set_xlabel("distance from the structure's atom [pm]")
        left.set_ylabel("atoms")
        _show_legend(left)
        reach = float(np.quantile(np.abs(apart), 0.995)) or 1.0
        edges = np.linspace(-reach, reach, _BINS + 1)
        for place, dim in enumerate(schema.VOLUME_DIMS):
            label = f"{dim}, {_rms(apart[:, place]):.3g} pm"
            right.hist(
                np.clip(apart[:, place], -reach, reach),
                bins=edges,
                histtype="step",
                linewidth=1.5,
                color=_COLOURS[(0, 1, 2)[place]],
                label=label,
            )
        right.set_xlabel("displacement along an axis [pm]")
        _show_legend(right)
    return figure


def _show_legend(axes: Any) -> None:
    """A legend above the axes, where no bar is."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=8)


def _places(volume: xr.DataArray, atoms: xr.Dataset) -> Float64:
    """(atom, 3): z, y, x in voxels from the first."""
    pixel = schema.pixel_size_of(volume)
    columns = []
    for dim in schema.VOLUME_DIMS:
        positions = volume[dim].values
        columns.append((np.asarray(atoms[dim].values) - float(positions[0])) / grid.spacing(positions, pixel))
    return np.stack(columns, axis=1)


def _fullest(places: Float64, half: float, count: int) -> int:
    """The slice with the most atoms around it, the nearest to the middle of several; the middle one without any."""
    around = np.array([(np.abs(places - at) <= half).sum() for at in range(count)])
    best = np.flatnonzero(around == around.max())
    return int(best[np.abs(best - (count - 1) / 2).argmin()])


def _rms(values: Float64) -> float:
    return float(np.sqrt((values**2).mean()))


def certainty(atoms: xr.Dataset) -> Figure:
    """Histograms of what is known of each atom: its share of the samples, its significance and its standard error.

    Columns that a table does not have are left empty.
    """
    nothing = np.full(atoms.sizes["atom"], np.nan)
    shares = np.asarray(atoms["agreement"].values if "agreement" in atoms else nothing)
    errors = [np.asarray(atoms[f"{dim}_error"].values if f"{dim}_error" in atoms else nothing) for dim in "zyx"]
    parts = (
        ("share of the samples with the atom", 100 * shares, "%"),
        ("significance of the atom", np.asarray(atoms["confidence"].values), "standard deviations"),
        ("standard error of the position", _PICOMETRES * np.sqrt(sum(one**2 for one in errors)), "pm"),
    )
    with mpl.rc_context(FONTS):
        figure = Shown(figsize=(10.2, 2.8), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (title, values, unit) in zip(figure.subplots(1, 3), parts, strict=True):
            known = values[np.isfinite(values)]
            if known.size:
                axes.hist(known, bins=_BINS, range=(0, 100) if unit == "%" else None, color="#4a6b8a")
            axes.set_title(title)
            axes.set_xlabel(f"[{unit}]")
            axes.set_ylabel("atoms")
    return figure


def heights(shares: Float64, errors: Float64, species: npt.NDArray[Any]) -> Figure:
    """Histograms of the heights of atoms by themselves, as shares of the mean of their element, a panel an element.

    Parameters
    ----------
    shares, errors
        (atom,), and their standard errors.
    species
        (atom,): symbols.
    """
    kinds = sorted(set(species.tolist()))
    low, high = 100 * float(min(shares.min(), 0.5)), 100 * float(max(shares.max(), 1.5))
    with mpl.rc_context(FONTS):
        figure = Shown(figsize=(2.2 + 3.2 * len(kinds), 2.8), layout="constrained")
        FigureCanvasAgg(figure)
        for number, (axes, kind) in enumerate(
            zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True)
        ):
            own = species == kind
            axes.hist(100 * shares[own], bins=_BINS, range=(low, high), color=_COLOURS[number % len(_COLOURS)])
            error = 100 * float(np.sqrt(np.nanmean(errors[own] ** 2)))
            axes.axvline(100, color="0.3", linestyle="--")
            axes.axvspan(100 - error, 100 + error, color="0.85", zorder=0)
            axes.set_title(f"{kind or 'atoms'}: standard error {error:.3g} %")
            axes.set_xlabel("height by itself, of the mean [%]")
            axes.set_ylabel("atoms")
    return figure


def misfits(angles_deg: Float64, misfit: Float64, deviation: Float64) -> Figure:
    """The misfit of each projection against its angle, with what noise alone gives.

    Parameters
    ----------
    misfit, deviation
        (view,), of the noise, and its standard deviation.
    """
    with mpl.rc_context(FONTS):
        figure = Shown(figsize=(9.2, 2.8), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        low, high = 1 - 2 * deviation, 1 + 2 * deviation
        axes.fill_between(angles_deg, low, high, color="0.85", label="noise alone, two standard deviations", zorder=0)
        axes.axhline(1, color="0.4", linestyle="--", linewidth=1)
        axes.plot(angles_deg, misfit, "o", color="#4a6b8a", markersize=4, label="projections")
        axes.set_ylim(0, 1.08 * float(max(misfit.max(), high.max())))
        axes.set_xlabel("tilt angle [degrees]")
        axes.set_ylabel("misfit")
        _show_legend(axes)
    return figure


def projection(
    measured: Float64, expected: Float64, significance: Float64, *, angle_deg: float, extent: list[float]
) -> Figure:
    """A projection as it was measured, as atoms show it, and the difference in standard deviations.

    Parameters
    ----------
    measured, expected, significance
        (detector, z).
    extent
        Of the first and last pixel along z and along the detector, [nm].
    """
    brightest = max(float(np.quantile(measured, 0.999)), float(expected.max())) or 1.0
    parts = (
        ("measured [counts]", measured, "gray", (0.0, brightest)),
        ("of the atoms [counts]", expected, "gray", (0.0, brightest)),
        ("difference [standard deviations]", significance, "RdBu_r", (-5.0, 5.0)),
    )
    with mpl.rc_context(FONTS):
        figure = Shown(figsize=(10.2, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (title, image, colours, (low, high)) in zip(figure.subplots(1, 3), parts, strict=True):
            shown = axes.imshow(
                image, cmap=colours, vmin=low, vmax=high, origin="lower", extent=extent, interpolation="nearest"
            )
            figure.colorbar(shown, ax=axes, shrink=0.8)
            axes.set_title(title)
            axes.set_xlabel("z [nm]")
        figure.axes[0].set_ylabel("detector [nm]")
        figure.suptitle(f"{angle_deg:.4g}°", fontsize=10)
    return figure
