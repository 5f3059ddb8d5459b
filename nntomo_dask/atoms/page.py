"""The atoms of a series as files: numbers as JSON, figures, and a page that holds all of it and needs nothing else."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nntomo_dask.arrays import recipes
from nntomo_dask.atoms import table
from nntomo_dask.atoms.chain import Chain
from nntomo_dask.atoms.residual import Residual
from nntomo_dask.plotting import html_page
from nntomo_dask.types import Float64

RECIPE, NUMBERS, PAGE = "recipe.json", "atoms.json", "index.html"
FIGURES = ("atoms.png", "certainty.png", "heights.png", "misfits.png", "projection.png")
_WEAK = 3.0  # standard deviations of an atom that noise may be
_LISTED = 8  # projections that are named
_CLEAR = 4.0  # standard deviations of the noise, beyond which a misfit is told
_TEXTS = {
    "atoms.png": ("Atoms", "Slices of the reconstruction, with the atoms that were found."),
    "certainty.png": (
        "Certainty",
        "How many samples have each atom, how significant it is, and how far its position spreads in them.",
    ),
    "heights.png": (
        "Heights",
        "How high each atom would be if it were fitted by itself, as a share of the mean of its element. Atoms of one "
        "element give one peak around 100 %, about as wide as the grey band, the standard error; a peak elsewhere is "
        "another element, two atoms in one place, or none.",
    ),
    "misfits.png": (
        "Misfit of each projection",
        "The mean square of what the atoms do not explain of a projection, smoothed by an atom's width, over that of "
        "the counting noise. Within the band only noise is left. One projection above it has another scale, shift or "
        "angle; all of them above it show matter that was not looked for, or atoms that are no such Gaussians.",
    ),
    "projection.png": (
        "The projection that fits worst",
        "Counts smoothed by an atom's width: what was measured, what the atoms show, and the difference in standard "
        "deviations. An atom that is missing is a red spot of the difference, an invented one a blue spot; where far "
        "less than one count is expected, each single count is red too.",
    ),
}


def write(found: Chain, folder: Path, *, series: str, recipe: recipes.Recipe) -> Path:
    """Write numbers, figures and the page to a folder; returns the path of the page.

    Parameters
    ----------
    series
        The path of the series, for the heading.
    recipe
        Of the atoms.
    """
    numbers = numbers_of(found) | {"recipe": recipe}
    names = [name for name in FIGURES if _is_drawn(name, found)]
    for name in set(FIGURES) - set(names):
        (folder / name).unlink(missing_ok=True)
    images = list(html_page.save_figures(_figures(found), names, folder))
    html_page.write(folder / NUMBERS, (json.dumps(numbers, indent=2, allow_nan=False) + "\n").encode())
    html_page.write(folder / RECIPE, (json.dumps(recipe, indent=2) + "\n").encode())
    place = folder / PAGE
    html_page.write(place, page(found, dict(zip(names, images, strict=True)), series=series).encode())
    return place


def _is_drawn(name: str, found: Chain) -> bool:
    """Candidates alone have neither samples nor a misfit; where noise is white in the gradient, there is no misfit."""
    if name == "atoms.png":
        return True
    return table.AGREEMENT in found.atoms if name == "certainty.png" else found.residual is not None


def numbers_of(found: Chain) -> dict[str, Any]:
    """What is told of a chain; numbers that are not known are None."""
    atoms = found.atoms
    named = [str(one) for one in atoms[table.SPECIES].values]
    spread = position_error(atoms)
    return {
        "atoms": int(atoms.sizes[table.ATOM]),
        "candidates": int(found.candidates.sizes[table.ATOM]),
        "species": {name: named.count(name) for name in sorted(set(named)) if name},
        "width_nm": _mean(atoms["width"]),
        "height": {name: _mean(atoms["height"][np.array(named) == name]) for name in sorted(set(named))},
        "position_error_pm": None if spread is None else 1000 * spread,
        "least_confidence": _least(atoms["confidence"]),
        "certain": int((atoms[table.AGREEMENT].values >= 0.9).sum()) if table.AGREEMENT in atoms else None,
        "weak": _weak(found),
        "counts_of_an_atom": None if found.residual is None else float(found.residual.counts.mean()),
        "heights_alone": None if found.residual is None else _with_none(found.residual.heights),
        "misfit": None if found.residual is None else _by_angle(found.residual, "misfit"),
        "misfit_deviation": None if found.residual is None else _by_angle(found.residual, "deviation"),
        "stages": [one._asdict() for one in found.stages],
        "gain": found.gain,
        "read_counts": found.read_counts,
        "background": found.background,
    }


def position_error(atoms: xr.Dataset) -> float | None:
    """The root mean square of the standard errors of all positions, [nm]; None where there are none."""
    if not all(name in atoms for name in table.ERRORS) or atoms.sizes[table.ATOM] == 0:
        return None
    error = math.sqrt(float(sum(np.nanmean(atoms[name].values ** 2) for name in table.ERRORS)))
    return error if math.isfinite(error) else None


def told(found: Chain) -> Iterator[tuple[str, str]]:
    """The lines of a summary: what, and how much."""
    numbers = numbers_of(found)
    yield "atoms", f"{numbers['atoms']}"
    for name, count in numbers["species"].items():
        yield f"of them {name}", f"{count}"
    yield "candidates", f"{numbers['candidates']}"
    if numbers["certain"] is not None:
        yield "in at least 90 % of the samples", f"{numbers['certain']}"
    if numbers["position_error_pm"] is not None:
        yield "standard error of a position, in all directions together", f"{numbers['position_error_pm']:.3g} pm"
    if numbers["width_nm"] is not None:
        yield "width of an atom in a projection", f"{numbers['width_nm']:.3g} nm"
    if numbers["weak"]:
        yield f"atoms of a significance below {_WEAK:g} standard deviations", f"{numbers['weak']}"
    left = found.residual
    if left is not None:
        yield "counts of an atom in all projections", f"{numbers['counts_of_an_atom']:.3g}"
        mean, spread = mean_misfit(left)
        yield "misfit, 1 where only noise is left", f"{mean:.3g} ± {spread:.1g}"
        far = np.abs(left.misfit - 1) > _CLEAR * left.deviation
        if far.any():
            angles = ", ".join(f"{angle:.4g}°" for angle in left.angles_deg[far][:_LISTED])
            more = f" and {int(far.sum()) - _LISTED} others" if far.sum() > _LISTED else ""
            yield "projections whose misfit is not that of noise", f"{angles}{more}"


def notes(found: Chain) -> Iterator[str]:
    """What may be wrong with the atoms, and why."""
    weak = _weak(found)
    if weak is not None and 2 * weak > found.atoms.sizes[table.ATOM]:
        yield "most of these atoms may be noise: the dose is too low to tell them, or the given width is not theirs"
    if found.residual is not None:
        mean, spread = mean_misfit(found.residual)
        if mean > 1 + _CLEAR * spread:
            yield (
                "these atoms do not explain the projections, whose misfit is above that of noise: atoms are missing, "
                "not all elements that are seen were named, or the given width is not theirs"
            )


def mean_misfit(left: Residual) -> tuple[float, float]:
    """The mean of all projections, and its standard deviation by the noise."""
    return float(left.misfit.mean()), float(np.sqrt(np.sum(left.deviation**2))) / len(left.misfit)


def _weak(found: Chain) -> int | None:
    """How many atoms noise may be; None of candidates, whose confidence is no significance."""
    if found.residual is None and table.AGREEMENT not in found.atoms:
        return None
    return int((found.atoms["confidence"].values < _WEAK).sum())


def _mean(values: xr.DataArray) -> float | None:
    known = values.values[np.isfinite(values.values)]
    return float(known.mean()) if known.size else None


def _least(values: xr.DataArray) -> float | None:
    known = values.values[np.isfinite(values.values)]
    return float(known.min()) if known.size else None


def _with_none(values: Float64) -> list[float | None]:
    return [float(one) if np.isfinite(one) else None for one in values]


def _by_angle(left: Residual, name: str) -> dict[str, float]:
    return {f"{angle:g}": float(value) for angle, value in zip(left.angles_deg, getattr(left, name), strict=True)}


def _figures(found: Chain) -> Iterator[Any]:
    from nntomo_dask.plotting import atoms as drawing  # with Matplotlib, which no help text has to wait for

    yield drawing.plot_atoms(found.volume, found.atoms)
    if _is_drawn("certainty.png", found):
        yield drawing.certainty(found.atoms)
    left = found.residual
    if left is None:
        return
    yield drawing.heights(left.heights, left.height_errors, found.atoms[table.SPECIES].values)
    yield drawing.misfits(left.angles_deg, left.misfit, left.deviation)
    extent = [float(found.volume[dim].values[place]) for dim in ("z", "x") for place in (0, -1)]
    angle = float(left.angles_deg[left.view])
    yield drawing.projection(left.measured, left.expected, left.significance, angle_deg=angle, extent=extent)


def page(found: Chain, images: Mapping[str, bytes], *, series: str) -> str:
    """The page, as HTML with its figures within; these by their names."""
    stages = "".join(_row(one) for one in found.stages)
    head = "<tr><th>stage</th><th>what was done</th><th>result</th></tr>"
    numbers = "".join(_row(one) for one in told(found))
    body = (
        f"<table><tbody>{numbers}</tbody></table><h2>Stages</h2>"
        f"<table class=stages><thead>{head}</thead><tbody>{stages}</tbody></table>"
        f"{html_page.figures([_TEXTS[name] for name in images], images.values())}"
    )
    style = (
        "td:first-child, .stages td, .stages th { text-align: left; white-space: normal; } table { width: auto; } "
        "td { vertical-align: top; }"
    )
    return html_page.page(f"Atoms of {series}", body, style=style)


def _row(cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<td>{html_page.shown(cell)}</td>' for cell in cells)}</tr>"
