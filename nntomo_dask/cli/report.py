"""What the verbs of the `nntomo` command print: stores, networks, recipes, tables of errors."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import xarray as xr

import nntomo_dask as nt
from nntomo_dask import store
from nntomo_dask.arrays import schema
from nntomo_dask.errors import refuse
from nntomo_dask.formats.format import format_of
from nntomo_dask.metrics.metric import Column
from nntomo_dask.training.checkpoints import open_checkpoint


def describe(array: Any, path: Path) -> None:
    """Print what an array is, in one line."""
    sizes = ", ".join(f"{dim} {size}" for dim, size in array.sizes.items())
    unit, pixel = array.attrs["units"], array.attrs["pixel_size"]
    kind = str(array.name).replace("_", " ")
    mebibytes = np.prod(array.shape, dtype=float) * 4 / 2**20
    click.echo(f"{path}: {kind}, {sizes}; {pixel:g} {unit} a pixel; {mebibytes:.1f} MiB as float32")


def verify(path: Path) -> bool:
    """Read every chunk of a store, say which are damaged, and return whether none is."""
    damaged = nt.verify(path)
    if damaged:
        listed = ", ".join(map(str, damaged[:20])) + (", …" if len(damaged) > 20 else "")
        kept = any(chunk not in store.missing_chunks(path) for chunk in damaged)
        aside = "it cannot be written to" if kept else "set aside"
        click.echo(
            f"{path}: {_count(len(damaged), 'damaged chunk')} of {store.chunk_count(path)} (number {listed}, from 0); "
            f"{aside}",
            err=True,
        )
    elif not store.missing_coordinates(path) and not store.missing_chunks(path):
        click.echo(f"{path}: every chunk and coordinate is whole", err=True)
    return not (damaged or store.missing_chunks(path) or store.missing_coordinates(path))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def describe_store(path: Path) -> Any:
    """Say what a store is, also one that is not complete, and give its recipe."""
    if path.is_dir() and store.is_store(path):
        missing = [f"coordinate {dim}" for dim in store.missing_coordinates(path)]
        if chunks := store.missing_chunks(path):
            missing.append(f"{len(chunks)} of {_count(store.chunk_count(path), 'chunk')}")
        if missing:
            click.echo(f"{path}: not complete, without {' and '.join(missing)}; run again what wrote it", err=True)
            return store.recipe(path)
    array = nt.open(path)
    if isinstance(array, xr.Dataset) and schema.ANGLE in array.dims:
        for name, series in array.items():
            describe(series, path / str(name))
        _print_angles(array)
        return store.recipe(path)
    if isinstance(array, xr.Dataset):
        click.echo(f"{path}: training set, {array.sizes['voxel']} voxels of {array.sizes['input']} inputs")
        return array.attrs["recipe"]
    describe(array, path)
    if schema.ANGLE in array.dims:
        _print_angles(array)
    return array.attrs["recipe"]


def _print_angles(array: Any) -> None:
    click.echo(f"angles [°]: {', '.join(f'{angle:g}' for angle in array[schema.ANGLE].values)}")


def describe_file(path: Path) -> Any:
    """Say what a file is that is no store, and give its recipe."""
    found = format_of(path)
    if found is not None:
        refuse(
            "info",
            needs="a store or a network",
            got=f"a file in the format {found.title}, {path}",
            remedy="nntomo import",
        )
    if path.name.endswith(".training.safetensors"):
        reached = open_checkpoint(path)
        state = "ended" if reached.ended else "interrupted"
        click.echo(f"training of {reached.kind.title}: {_count(len(reached.losses), 'epoch')}, {state}")
        return reached.best_network().recipe if reached.losses else reached.frame.recipe
    network = nt.load_network(path)
    click.echo(network.describe())
    click.echo(f"angles [°]: {', '.join(f'{angle:g}' for angle in network.angles_deg)}")
    outcome = network.recipe.get("outcome", {})
    click.echo(", ".join(f"{key.replace('_', ' ')} {value:.6g}" for key, value in outcome.items()))
    return network.recipe


def recipe_lines(recipe: Any, depth: int = 1) -> list[str]:
    """A recipe as indented lines, inputs below what was made of them."""
    parameters = ", ".join(f"{key}={_short(value)}" for key, value in recipe["parameters"].items())
    lines = [f"{'  ' * depth}{recipe['operation']}({parameters})"]
    for item in recipe["inputs"]:
        lines += recipe_lines(item, depth + 1)
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def finite(table: dict[str, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """The table with None for what is infinite, since JSON has no word for it."""
    return {
        path: {key: value if np.isfinite(value) else None for key, value in errors.items()}
        for path, errors in table.items()
    }


def draw_comparison(
    table: dict[str, dict[str, float]], truth: Any, reference: Path, figure: Path, column: Column
) -> None:
    """Draw the volumes of a table beside their reference, each with its value of a column."""
    from nntomo_dask.plotting import figures

    stems = [reference.stem, *(Path(path).stem for path in table)]
    titles = stems if len(set(stems)) == len(stems) else [str(reference), *table]
    volumes = dict(zip(titles, [truth, *(nt.open(path) for path in table)], strict=True))
    captions = {
        title: f"{column.title} {values[column.name]:.4g}"
        for title, values in zip(titles[1:], table.values(), strict=True)
    }
    drawn = figures.compare_volumes(volumes, captions=captions, level=figures.otsu_level(truth), reference=titles[0])
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
    width = max(len(path) for path in table)
    click.echo(f"against {reference}, {'all voxels' if region == 'all' else 'voxels that every projection sees'}")
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
    for row, path in enumerate(table):
        shown_values = (f"{texts[row]:>{size}}" for texts, size in zip(cells, widths, strict=True))
        click.echo("  ".join([f"{path:<{width}}", *shown_values]))
    ways = {way: ", ".join(column.title for column in columns if column.better == way) for way in ("lower", "higher")}
    click.echo("; ".join(f"{way} is better: {titles}" for way, titles in ways.items() if titles))
    if any(column.unit == "length" for column in columns):
        click.echo("FSC: resolution at which the Fourier shell correlation with the reference falls below that value")
    if limited:
        click.echo(f"≤ {nyquist:.3g}: limited by the voxels, whose smallest resolvable period is {nyquist:.3g} {unit}")
