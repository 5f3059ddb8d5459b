"""The quality of an alignment as files: numbers, figures, and a page that holds all of it and needs nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nntomo_dask.alignment.quality import Quality, rotating
from nntomo_dask.alignment.table import COLUMNS, Alignment, words
from nntomo_dask.arrays import recipes
from nntomo_dask.plotting import html_page
from nntomo_dask.untrusted import parsed_object

NUMBERS, PAGE = "quality.json", "index.html"
FIGURES = ("sinograms.png", "slices.png", "residuals.png", "centres.png", "profiles.png", "table.png")
_STYLE = """
ul.found { list-style: none; padding: .8rem 1rem; margin: 0; background: #eef2f6; border-left: 4px solid #4a6b8a; }
ul.found li.bad { color: #b5442e; font-weight: 600; }
table.hints td { text-align: left; white-space: normal; vertical-align: top; }
tr.flagged td { color: #b5442e; }
"""
_TEXTS = (
    ("Sinograms", "One slice at all angles. Aligned, every feature follows a sine about the middle, without steps."),
    ("Reconstruction", "The same slice by filtered backprojection. Arcs and doubled edges show what is misaligned."),
    (
        "Residuals",
        "How far projections are from those of a reconstruction by SIRT, relative to the projection. On the right, it "
        "was made without them: what fits noise does not fall there.",
    ),
    ("Centre of mass", "A body that turns about an axis has its centre on a sine, as long as all of it is in view."),
    (
        "Along the tilt axis",
        "Mass of each slice at each angle, the most as white: it is the same at all angles.",
    ),
    ("Table", "What the alignment says of each projection."),
)


def write(quality: Quality, folder: Path, *, raw: str, output: str, recipe: recipes.Recipe) -> Path:
    """Write numbers, figures and the page to a folder; returns the path of the page.

    Parameters
    ----------
    raw, output
        Paths of the raw and of the aligned series, for commands.
    recipe
        Of the aligned series; `is_of` finds it again.
    """
    images = list(html_page.save_figures(_figures(quality), FIGURES, folder))
    place = folder / PAGE
    html_page.write(place, page(quality, images, raw=raw, output=output).encode())
    numbers = quality_json(quality) | {"recipe": recipe}  # last, so that it says that the rest is there
    html_page.write(folder / NUMBERS, (json.dumps(numbers, indent=2, allow_nan=False) + "\n").encode())
    return place


def is_of(folder: Path, recipe: recipes.Recipe) -> bool:
    """Whether a folder holds the whole page of the aligned series with a recipe."""
    try:
        there = parsed_object((folder / NUMBERS).read_bytes()).get("recipe")
    except (OSError, ValueError):
        return False
    files = (PAGE, *FIGURES)
    return recipes.same(there, json.loads(json.dumps(recipe))) and all((folder / name).is_file() for name in files)


def is_page(folder: Path) -> bool:
    """Whether a folder is one of a page, or was begun as one."""
    return any((folder / name).is_file() for name in (NUMBERS, PAGE, *FIGURES))


def quality_json(quality: Quality) -> dict[str, Any]:
    """All but the images."""

    def plain(look: Any) -> dict[str, Any]:
        names = ("centre_px", "residual", "left_out_residual")
        return {
            **{name: getattr(look, name).tolist() for name in names},
            "centre_misfit_px": look.centre_misfit_px,
            "mean_residual": float(look.residual.mean()),
            "mean_left_out_residual": float(look.left_out_residual.mean()),
        }

    return {
        "angles_deg": quality.angles_deg.tolist(),
        "left_out_deg": quality.left_out_deg.tolist(),
        "flagged_deg": quality.alignment.angles_deg[quality.alignment.flagged].tolist(),
        "slice": quality.z,
        "bins": quality.bins,
        "before": plain(quality.before),
        "after": plain(quality.after),
        "verdict": quality.verdict(),
        "findings": [{"text": text, "good": good} for text, good in quality.findings()],
    }


def plot_alignment(alignment: Alignment) -> Any:
    """Shifts, rotation and corrections of an alignment against the tilt angle; flagged projections are crosses.

    Corrections are left out where there are none.

    Parameters
    ----------
    alignment
        From `align` or `read_alignment`.

    Returns
    -------
    A figure; `save_figure` writes it.
    """
    from nntomo_dask.plotting import alignments as drawing  # with Matplotlib, which no help text has to wait for

    columns = [
        ("along the axis [px]", alignment.along_px),
        (f"across the axis [px]\n(axis at {alignment.axis_px:+.2f})", alignment.across_px),
        ("rotation [°]", alignment.rotation_deg),
        ("correction of the angle [°]", alignment.correction_deg),
    ]
    if not alignment.correction_deg.any():
        columns.pop()
    return drawing.displacements(alignment.angles_deg, columns, alignment.flagged)


def _figures(quality: Quality) -> Iterator[Any]:
    from nntomo_dask.plotting import alignments as drawing

    before, after, rows = quality.before, quality.after, quality.alignment
    yield drawing.sinograms(
        quality.raw_sinogram,
        after.sinogram,
        before_deg=rows.angles_deg,
        after_deg=quality.angles_deg,
        flagged=rows.flagged,
        axis_px=rows.axis_px,
        z=quality.z,
    )
    yield drawing.slices(before.slice_, after.slice_, z=quality.z)
    yield drawing.residuals(
        quality.angles_deg,
        before.residual,
        after.residual,
        quality.left_out_deg,
        before.left_out_residual,
        after.left_out_residual,
    )
    yield drawing.centres(
        quality.angles_deg,
        before.centre_px,
        after.centre_px,
        misfits_px=(before.centre_misfit_px, after.centre_misfit_px),
        fitted=rotating(after.centre_px, quality.angles_deg),
    )
    yield drawing.profiles(before.profiles, after.profiles, angles_deg=quality.angles_deg)
    yield plot_alignment(rows)


def page(quality: Quality, images: list[bytes], *, raw: str, output: str) -> str:
    """The page, as HTML with its figures within."""
    rows = quality.alignment
    found = "".join(
        f"<li{'' if good else ' class=bad'}>{'' if good else 'Look at this: '}{html_page.shown(text)}.</li>"
        for text, good in quality.findings()
    )
    left_out = rows.angles_deg[rows.flagged]
    flagged = f"Left out: {words(left_out, most=40)}." if left_out.size else "No projection was left out."
    hints = "".join(
        f"<tr><td>{html_page.shown(when)}</td><td>{_marked(what)}</td></tr>"
        for when, what in quality.to_try(raw, output)
    )
    head = "".join(f"<th>{html_page.shown(name)}</th>" for name in ("angle_deg", *COLUMNS, "left out"))
    lines = []
    for row, angle in enumerate(rows.angles_deg):
        cells = [f"{angle:.2f}", *(f"{getattr(rows, name)[row]:.3f}" for name in COLUMNS)]
        cells.append("left out" if rows.flagged[row] else "")
        mark = " class=flagged" if rows.flagged[row] else ""
        lines.append(f"<tr{mark}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    shown = (
        f"Slices about {quality.z}; residuals in bins of {quality.bins} pixels."
        if quality.bins > 1
        else f"Slices about {quality.z}."
    )
    body = (
        f"<p><strong>{html_page.shown(quality.verdict())}.</strong></p>"
        f"<p>{len(quality.angles_deg)} of {rows.angles_deg.size} projections; the tilt axis was {rows.axis_px:+.2f} px "
        f"from the middle of the images and {0.0 - np.median(rows.rotation_deg):+.2f}° from the vertical, "
        f"counterclockwise. {flagged} {shown}</p>"
        f"<ul class=found>{found}</ul>{html_page.figures(_TEXTS, images)}"
        f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        f"<h2>If it looks bad</h2><div class=wide><table class=hints><tbody>{hints}</tbody></table></div>"
    )
    return html_page.page(f"Alignment of {raw}", body, style=_STYLE)


def _marked(text: str) -> str:
    """What to try; a command as code."""
    return f"<code>{html_page.shown(text)}</code>" if text.startswith("nntomo ") else html_page.shown(text)
