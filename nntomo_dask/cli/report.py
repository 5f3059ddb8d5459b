"""What the verbs of the `nntomo` command print: stores, networks, recipes, tables of errors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from nntomo_dask.arrays import schema
from nntomo_dask.metrics.metric import Column
from nntomo_dask.untrusted import printable


def describe(array: Any, path: Path) -> None:
    """Print what an array is, in one line."""
    sizes = ", ".join(f"{dim} {size}" for dim, size in array.sizes.items())
    unit, pixel = array.attrs["units"], schema.pixel_size_of(array)
    kind = printable(str(array.name)).replace("_", " ")
    mebibytes = np.prod(array.shape, dtype=float) * 4 / 2**20
    click.echo(
        f"{printable(str(path))}: {kind}, {sizes}; {pixel:g} {printable(unit)} a pixel; {mebibytes:.1f} MiB as float32"
    )


def finite(table: dict[str, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """The table with None for what is infinite, since JSON has no word for it."""
    return {
        path: {key: value if np.isfinite(value) else None for key, value in errors.items()}
        for path, errors in table.items()
    }


def figure_bytes(shape: tuple[int, ...], count: int) -> int:
    """Bytes that `draw_comparison` holds for so many volumes."""
    from nntomo_dask.plotting import figures

    return figures.host_bytes(shape, count)


def is_figure(path: Path) -> bool:
    """Whether a file is a figure that was drawn here."""
    if not path.is_file():
        return False
    from nntomo_dask.plotting import figures

    return figures.is_ours(path)


def draw_comparison(
    table: dict[str, dict[str, float]], opened: Sequence[tuple[str, Any]], figure: Path, column: Column, **view: Any
) -> None:
    """Draw the volumes of a table beside their reference, each with its value of a column.

    `opened` are paths and volumes, the reference first. `view` are the keywords of `compare_volumes` that say what is
    shown, and how.
    """
    from nntomo_dask.plotting import figures

    paths, arrays = zip(*opened, strict=True)
    stems = [Path(path).name.removesuffix(".zarr") for path in paths]
    titles = stems if len(set(stems)) == len(stems) else list(paths)
    volumes = dict(zip(titles, arrays, strict=True))
    captions = {
        title: f"{column.title} {values[column.name]:.3g}"
        for title, values in zip(titles[1:], table.values(), strict=True)
    }
    drawn = figures.compare_volumes(volumes, captions=captions, reference=titles[0], **view)
    click.echo(figures.save_figure(drawn, figure), err=True)


def print_table(
    table: dict[str, dict[str, float]],
    columns: Sequence[Column],
    reference: Path,
    region: str,
    unit: str,
    nyquist: float,
) -> None:
    """Print the measures of volumes by path, and how to read them."""
    names = [printable(path) for path in table]
    width = max(len(name) for name in names)
    where = "all voxels" if region == "all" else "voxels that every projection sees"
    click.echo(f"against {printable(str(reference))}, {where}")
    heads, cells, limited = [], [], False
    for column in columns:
        shown = column.unit if column.unit != "length" else unit
        heads.append(f"{column.title} [{shown}]" if shown else column.title)
        texts = []
        for values in table.values():
            value = values[column.name]
            at_limit = column.unit == "length" and value <= nyquist * (1 + 1e-9)
            limited |= at_limit
            texts.append(f"≤ {nyquist:{column.digits}}" if at_limit else f"{value:{column.digits}}")
        cells.append(texts)
    widths = [max(len(head), *map(len, texts)) for head, texts in zip(heads, cells, strict=True)]
    click.echo("  ".join([" " * width, *(f"{head:>{size}}" for head, size in zip(heads, widths, strict=True))]))
    for row, name in enumerate(names):
        shown_values = (f"{texts[row]:>{size}}" for texts, size in zip(cells, widths, strict=True))
        click.echo("  ".join([f"{name:<{width}}", *shown_values]))
    ways = {way: ", ".join(column.title for column in columns if column.better == way) for way in ("lower", "higher")}
    click.echo("; ".join(f"{way} is better: {titles}" for way, titles in ways.items() if titles))
    explained: dict[str, list[str]] = {}
    for column in columns:
        if column.about:
            explained.setdefault(column.about, []).append(column.title)
    for about, titles in explained.items():
        click.echo(f"{', '.join(titles)}: {about}")
    if limited:
        click.echo(f"≤ {nyquist:.3g}: limited by the voxels, whose smallest resolvable period is {nyquist:.3g} {unit}")
