"""An assessment as files: numbers as JSON, figures, and a page that holds all of it and needs nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nntomo_dask.arrays import recipes
from nntomo_dask.assessment.candidates import plain_settings
from nntomo_dask.assessment.result import Assessment, Score
from nntomo_dask.plotting import html_page

RECIPE, NUMBERS, PAGE = "recipe.json", "assessment.json", "index.html"
FIGURES = ("predictions.png", "misfits.png", "settings.png")
_STYLE = """
.advice { background: #f6efe9; border-left: 4px solid #b5442e; padding: .8rem 1rem; }
pre { overflow-x: auto; margin: .6rem 0 0; white-space: pre-wrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
tr.chosen td { background: #f6efe9; font-weight: 600; }
"""
_TEXTS = (
    ("What was predicted", "A projection that no method saw, what each predicts of it, and the difference."),
    ("Misfits", "The misfit of each method, with the standard error of its ratio to the best."),
    ("Settings", "How the misfit depends on a setting; a minimum inside the range needs no wider one."),
)


def told(score: Score, assessment: Assessment) -> tuple[str, ...]:
    """One row of the table of candidates: what `HEADS` names."""
    known = np.isfinite(score.beyond_noise)
    share = score.beyond_noise / assessment.empty_beyond_noise if known else score.misfit / assessment.empty
    best = score is assessment.best
    return (
        score.title,
        f"{score.beyond_noise if known else score.misfit:.3g}",
        f"{100 * share:.3g} %",
        "best" if best else f"{score.against_best:.3g} ± {score.standard_error:.1g} ×",
        "" if best else "tie" if score.tied else "",
        f"{score.seconds:.2g}",
    )


def heads(assessment: Assessment) -> tuple[str, ...]:
    """The head of each column of the table."""
    known = assessment.noise_variance is not None
    misfit = "misfit beyond noise" if known else "misfit"
    return ("method", f"{misfit} [units²]", "of an empty volume's", "against the best", "", "seconds")


def explained(assessment: Assessment) -> Iterator[str]:
    """What the numbers of the table mean, a sentence each."""
    angles = ", ".join(f"{'/'.join(f'{one:.4g}' for one in fold)}°" for fold in assessment.left_out_deg)
    slices = ", ".join(f"{start}–{stop - 1}" for start, stop in assessment.slices)
    yield f"Left out in turn: the projections at {angles}; looked at: slices {slices}."
    yield (
        "Misfit: mean square error of the volume as far as the projections that were left out show it, in the units of "
        "the reconstruction; lower is better."
    )
    yield (
        "Against the best: the ratio of the misfits, noise included, projection by projection (geometric means, with "
        "standard errors); a tie is a ratio of 1 within about one standard error."
    )
    if assessment.noise_variance is None:
        yield "The noise of the series could not be estimated, so that the misfits contain its part."
    else:
        deviation = float(np.sqrt(np.mean(assessment.noise_variance)))
        yield f"Noise of a measured value: {deviation:.3g}; its own part is taken from the misfits."
    yield "Seconds: of one processor core, for the whole volume, about."


def write(assessment: Assessment, folder: Path, *, series: str, recipe: recipes.Recipe) -> Path:
    """Write numbers, figures and the page to a folder; returns the path of the page.

    Parameters
    ----------
    series
        The path of the series, for the command to run.
    recipe
        Of the assessment.
    """
    numbers = assessment_json(assessment) | {"advice": assessment.advice(series), "recipe": recipe}
    images = list(html_page.save_figures(_figures(assessment), FIGURES, folder))
    html_page.write(folder / NUMBERS, (json.dumps(numbers, indent=2, allow_nan=False) + "\n").encode())
    place = folder / PAGE
    html_page.write(place, page(assessment, images, series=series).encode())
    return place


def assessment_json(assessment: Assessment) -> dict[str, Any]:
    """All but the images; numbers that are not known are None."""

    def plain(score: Score) -> dict[str, Any]:
        return {
            "title": score.title,
            "method": score.method.name,
            "settings": plain_settings(score.method),
            "network": score.network,
            "misfits": list(score.misfits),
            "misfit": score.misfit,
            "beyond_noise": score.beyond_noise if np.isfinite(score.beyond_noise) else None,
            "against_best": score.against_best,
            "standard_error": score.standard_error,
            "tied": score.tied,
            "seconds": score.seconds,
        }

    return {
        "recommended": assessment.recommended.title,
        "baseline": assessment.baseline.title,
        "left_out_deg": [list(fold) for fold in assessment.left_out_deg],
        "slices": [list(run) for run in assessment.slices],
        "noise_variance": None if assessment.noise_variance is None else list(assessment.noise_variance),
        "empty": assessment.empty,
        "scores": [plain(one) for one in assessment.scores],
    }


def _figures(assessment: Assessment) -> Iterator[Any]:
    from nntomo_dask.plotting import assessments as drawing  # with Matplotlib, which no help text has to wait for

    scores, shown = assessment.scores, assessment.shown
    by_title = {one.title: one for one in scores}
    captions = {
        title: (
            "recommended" if by_title[title] is assessment.recommended else f"{_times(by_title[title], assessment)}"
        )
        for title in shown.predicted
    }
    yield drawing.predictions(shown.measured, shown.predicted, captions=captions, angle_deg=shown.angle_deg)
    noise = assessment.noise_part
    titles, values = [one.title for one in scores], [one.misfit for one in scores]
    errors = [one.misfit * one.standard_error / one.against_best for one in scores]
    yield drawing.misfits(titles, values, errors, chosen=assessment.recommended.title, noise=noise)
    yield drawing.by_setting(list(_lines(scores)), noise=noise)


def _times(score: Score, assessment: Assessment) -> str:
    return "best" if score is assessment.best else f"{score.against_best:.3g} × the least misfit"


def _lines(scores: tuple[Score, ...]) -> Iterator[tuple[str, str, list[float], list[float]]]:
    """For each method with a number among its settings: how its misfit depends on it, all others as in its best."""
    seen: set[tuple[str, str]] = set()
    for best in scores:
        settings = plain_settings(best.method)
        for name, value in settings.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or (best.method.name, name) in seen:
                continue
            others = {key: one for key, one in settings.items() if key != name}
            alike = [
                (float(there[name]), one.misfit)
                for one in scores
                if one.method.name == best.method.name and one.network == best.network
                for there in [plain_settings(one.method)]
                if isinstance(there[name], int | float) and {k: v for k, v in there.items() if k != name} == others
            ]
            if len(alike) > 1:
                seen.add((best.method.name, name))
                places, values = zip(*sorted(alike), strict=True)
                yield best.method.title, name.replace("_", " "), list(places), list(values)


def page(assessment: Assessment, images: list[bytes], *, series: str) -> str:
    """The page, as HTML with its figures within."""
    reason, _, command = assessment.advice(series).partition("; run: ")
    rows = []
    for score in assessment.scores:
        cells = "".join(f"<td>{html_page.shown(cell)}</td>" for cell in told(score, assessment))
        mark = ' class="chosen"' if score is assessment.recommended else ""
        rows.append(f"<tr{mark}>{cells}</tr>")
    head = "".join(f"<th>{html_page.shown(one)}</th>" for one in heads(assessment))
    notes = "".join(f"<p class=note>{html_page.shown(one)}</p>" for one in explained(assessment))
    body = (
        f'<div class="advice">{html_page.shown(reason)}.<pre>{html_page.shown(command)}</pre></div>'
        f"<h2>Methods</h2><div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"</div>{notes}{html_page.figures(_TEXTS, images)}"
    )
    return html_page.page(f"Assessment of {series}", body, style=_STYLE)
