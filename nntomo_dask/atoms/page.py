"""The atoms of a series as files: numbers as JSON, figures, and a page that holds all of it and needs nothing else."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nntomo_dask.arrays import recipes
from nntomo_dask.atoms import table
from nntomo_dask.atoms.chain import Chain
from nntomo_dask.plotting import html_page

RECIPE, NUMBERS, PAGE = "recipe.json", "atoms.json", "index.html"
FIGURES = ("atoms.png", "certainty.png")
_TEXTS = (
    ("Atoms", "Slices of the reconstruction, with the atoms that were found."),
    ("Certainty", "How many samples have each atom, how significant it is, and how far its position spreads in them."),
)


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
    images = list(html_page.save_figures(_figures(found), FIGURES, folder))
    html_page.write(folder / NUMBERS, (json.dumps(numbers, indent=2, allow_nan=False) + "\n").encode())
    html_page.write(folder / RECIPE, (json.dumps(recipe, indent=2) + "\n").encode())
    place = folder / PAGE
    html_page.write(place, page(found, images, series=series).encode())
    return place


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
    yield "candidates in the volume", f"{numbers['candidates']}"
    if numbers["certain"] is not None:
        yield "in at least 90 % of the samples", f"{numbers['certain']}"
    if numbers["position_error_pm"] is not None:
        yield "standard error of a position, in all directions together", f"{numbers['position_error_pm']:.3g} pm"
    if numbers["width_nm"] is not None:
        yield "width of an atom in a projection", f"{numbers['width_nm']:.3g} nm"
    if numbers["gain"] > 0:
        yield "a count adds", f"{numbers['gain']:.3g}"
    if numbers["read_counts"] > 0:
        yield "read-out noise, as the variance of so many counts", f"{numbers['read_counts']:.3g}"


def _mean(values: xr.DataArray) -> float | None:
    known = values.values[np.isfinite(values.values)]
    return float(known.mean()) if known.size else None


def _least(values: xr.DataArray) -> float | None:
    known = values.values[np.isfinite(values.values)]
    return float(known.min()) if known.size else None


def _figures(found: Chain) -> Iterator[Any]:
    from nntomo_dask.plotting import atoms as drawing  # with Matplotlib, which no help text has to wait for

    yield drawing.plot_atoms(found.volume, found.atoms)
    yield drawing.certainty(found.atoms)


def page(found: Chain, images: list[bytes], *, series: str) -> str:
    """The page, as HTML with its figures within."""
    rows = "".join(
        f"<tr><td>{html_page.shown(what)}</td><td>{html_page.shown(value)}</td></tr>" for what, value in told(found)
    )
    body = f"<table><tbody>{rows}</tbody></table>{html_page.figures(_TEXTS, images)}"
    style = "td:first-child { text-align: left; white-space: normal; } table { width: auto; }"
    return html_page.page(f"Atoms of {series}", body, style=style)
