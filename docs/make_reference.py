"""Write docs/reference.md from the declarations: ``make docs``. With --check it only compares."""

import sys
from pathlib import Path

import nntomo_dask as nt
from nntomo_dask.atoms.finding import Finding
from nntomo_dask.settings import settings_of

PAGE = Path(__file__).parent / "reference.md"
HEAD = """# Methods, phantoms, metrics, formats, networks, atoms and noise

This page is written by `make docs` from the declarations in the package; do not edit it. Python names are in the first
column, options of the command line in the second.
"""

ATOMS = """`nntomo atoms VOLUME -o atoms.csv`; in Python `nt.find_atoms(volume, setting=…)`.
[howto/atoms.md](howto/atoms.md) shows how."""

NOISE = """`nt.noise(series)` estimates a `nt.Noise`; `nt.add_noise(series, noise=…)` adds the noise of one.
`variance(values)` and `deviation(values)` say how large it is, `share` compares it with the brightest ray, and
`signal_to_noise`, `is_noiseless` and `is_all_noise` say what the series is worth. All are in the series' units."""


def rows(declaration):
    """The settings of a declaration as a Markdown table; empty where it has none."""
    found = settings_of(declaration)
    if not found:
        return ""
    lines = ["| setting | option | default | |", "|---|---|---|---|"]
    for one in found:
        option = "" if one.option is None else f"`{one.flag}`"
        default = "" if one.default is None else f"`{one.default}`"
        names = ", ".join(f"`{choice}`" for choice in one.choices)
        word = "A number, or" if one.kind in (int, float) else "Numbers, or" if one.kind is object else "One of"
        choices = f" {word} {names}." if one.choices else ""
        unit = f" [{one.unit}]" if one.unit else ""
        lines.append(f"| `{one.name}` | {option} | {default} | {one.help}{unit}{choices} |")
    return "\n".join(lines) + "\n"


def table(declaration):
    """The rows of a declaration; empty where it is none."""
    return rows(declaration) if hasattr(declaration, "__dataclass_fields__") else ""


def section(title, text, registry, say, settings=lambda thing: thing):
    """One registry: a heading, and each of its things with its settings, those of itself or of what it names."""
    parts = [f"## {title}\n\n{text}\n"]
    for name in registry:
        thing = registry[name]
        parts.append(f"### `{name}`\n\n{say(thing)}\n\n{table(settings(thing))}")
    return "\n".join(part.rstrip() + "\n" for part in parts)


def first_line(thing):
    """The first line of a docstring."""
    return (thing.__doc__ or "").strip().split("\n")[0]


def page():
    """The whole page."""
    ways = "{column.title}, {column.better} is better"
    return "\n".join(
        [
            HEAD,
            section(
                "Methods",
                '`nntomo reconstruct --method NAME`; in Python `nt.reconstruct(series, "NAME", setting=…)`.',
                nt.METHODS,
                lambda kind: f"{kind.title}. {first_line(kind)}",
            ),
            section(
                "Trainings",
                "`nntomo train --network NAME`.",
                nt.TRAININGS,
                first_line,
            ),
            section(
                "Phantoms",
                '`nntomo phantom NAME`; in Python `nt.phantom("NAME", shape, setting=…)`.',
                nt.PHANTOMS,
                lambda kind: f"{kind.summary[0].upper()}{kind.summary[1:]}.",
            ),
            section(
                "Metrics",
                "The columns of `nntomo compare`; in Python `nt.measure(volume, reference, metrics)`.",
                nt.METRICS,
                lambda kind: "; ".join(ways.format(column=column) for column in kind.columns) + ".",
            ),
            section(
                "Formats",
                "`nntomo import` and `nntomo export`, whose options are in the tables.",
                nt.FORMATS,
                lambda kind: f"{first_line(kind)} Suffixes: {', '.join(kind.suffixes)}.",
                settings=lambda kind: kind.writing,
            ),
            f"## Atoms\n\n{ATOMS}\n\n{rows(Finding)}",
            f"## Noise\n\n{NOISE}\n\n{rows(nt.Noise)}",
        ]
    )


if __name__ == "__main__":
    if "--check" in sys.argv:
        if PAGE.read_text(encoding="utf-8") != page():
            sys.exit(f"{PAGE} is not what the declarations say; run: make docs")
    else:
        PAGE.write_text(page(), encoding="utf-8")
