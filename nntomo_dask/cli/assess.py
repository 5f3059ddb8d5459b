"""The verb `assess`."""

import json
from pathlib import Path
from typing import Any

import click

import nntomo_dask as nt
from nntomo_dask import aside
from nntomo_dask.arrays import recipes, schema
from nntomo_dask.assessment import page, plan as planning
from nntomo_dask.cli import options, support
from nntomo_dask.compute import cluster
from nntomo_dask.errors import refuse
from nntomo_dask.reconstruction import METHODS
from nntomo_dask.store import outputs
from nntomo_dask.untrusted import parsed_object, printable


class Folds(click.ParamType[Any]):
    """A number, or all."""

    name = "number|all"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """A whole number, or "all"."""
        if value == "all" or isinstance(value, int):
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r}: write a number of folds, 4, or all", param, ctx)


class Names(click.ParamType[tuple[str, ...]]):
    """Names of methods with commas between them."""

    name = "name,name"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        """The names, each known."""
        names = tuple(part.strip() for part in str(value).split(",") if part.strip())
        return tuple(options.Name(METHODS).convert(name, param, ctx) for name in names)


@click.command(cls=support.Verb)
@click.argument("series", type=support.PATH)
@click.option(
    "--methods",
    type=Names(),
    help=f"The methods to compare, such as fbp,sirt; known are {', '.join(METHODS)}. Each is tried with several "
    "settings. Default: all that need no network or come with one that fits, and those of --network.",
)
@click.option(
    "--network",
    "network_paths",
    cls=options.SettingOption,
    setting="networks",
    type=support.PATH,
    multiple=True,
    help="A network from nntomo train for this series, which is compared too; or one that comes with the package, "
    f"{support.PRETRAINED}. May be repeated.",
)
@click.option(
    "--folds",
    type=Folds(),
    help="How many projections are left out in turn, spread evenly over the tilts; the outermost ones never are. "
    f"Default: all, up to {planning.FOLDS}; up to {planning.FEW_FOLDS} for more than {planning.PIXELS} detector "
    "pixels.",
)
@click.option(
    "--slices",
    type=click.IntRange(min=1),
    help="About how many slices are looked at, in runs of 8 neighbours, where the matter is. Default: "
    f"{planning.SLICES}; {planning.FEW_SLICES} for more than {planning.PIXELS} detector pixels.",
)
@click.option(
    "--noise",
    type=options.NumberOrWord(float, ("auto",)),
    default="auto",
    show_default=True,
    help="Standard deviation of the noise of a measured value, in the units of the series; auto estimates it. It "
    "changes what is shown, not what is chosen.",
)
@click.option(
    "-o",
    "--output",
    type=support.PATH,
    required=True,
    help="A folder for the page, its figures and numbers, and for what was computed, so that the same command goes on.",
)
@click.option("--overwrite", is_flag=True, help="Replace another assessment in that folder.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@support.computing
def assess(
    series: Path,
    methods: tuple[str, ...] | None,
    network_paths: tuple[Path, ...],
    folds: Any,
    slices: int | None,
    noise: Any,
    output: Path,
    overwrite: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
    memory: int | None,
) -> None:
    """Find the method that serves a tilt series best.

    Projections are left out in turn. Each method reconstructs a few slices from the others and has to predict what was
    left out; a small misfit means that its volume can be trusted. Prints a table and the command to run, and writes a
    page, OUTPUT/index.html.

    \b
    Example:
      nntomo assess series.zarr -o assessment/
    """
    files = [output / name for name in (page.RECIPE, page.NUMBERS, page.PAGE, *page.FIGURES)]
    inputs = [series, *support.files_of(network_paths)]
    outputs.check_folder(output, inputs, who="assess")
    _check_folder(output)
    with outputs.reserved("assess", replaced=files, inputs=inputs, overwrite=overwrite):
        _assess(series, methods, network_paths, folds, slices, noise, output, memory, as_json, overwrite=overwrite)


def _assess(
    path: Path,
    methods: tuple[str, ...] | None,
    network_paths: tuple[Path, ...],
    folds: Any,
    slices: int | None,
    noise: Any,
    output: Path,
    memory: int | None,
    as_json: bool,  # noqa: FBT001
    *,
    overwrite: bool,
) -> None:
    series = nt.open(path)
    networks = {str(path): support.network_at(path) for path in network_paths}
    chosen: dict[str, Any] = {"networks": networks, "folds": folds, "slices": slices, "noise": noise}
    plan = planning.planned(series, methods, **chosen)
    _check_same(output / page.RECIPE, plan.recipe(), overwrite=overwrite)
    shape = (series.sizes[schema.Z], series.sizes[schema.ANGLE], series.sizes[schema.DETECTOR])
    support.slices_within_memory(plan.host_bytes, shape, memory, wanted=1, who="assess", piece="a run of slices")
    cluster.expect(plan.tasks)
    with aside.written(output / page.RECIPE) as partial:
        partial.write_text(json.dumps(plan.recipe(), indent=2) + "\n")
    found = nt.assess(series, methods, **chosen, folder=output / "predictions", progress="bar")
    written = page.write(found, output, series=str(path), recipe=plan.recipe())
    if as_json:
        click.echo(json.dumps(page.assessment_json(found) | {"advice": found.advice(str(path))}, indent=2))
        return
    rows = [page.heads(found), *(page.told(one, found) for one in found.scores)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for row, score in zip(rows, (None, *found.scores), strict=True):
        first, *others = (
            f"{cell:<{width}}" if k == 0 else f"{cell:>{width}}"
            for k, (cell, width) in enumerate(zip(map(printable, row), widths, strict=True))
        )
        click.echo("  ".join(["*" if score is found.recommended else " ", first, *others]).rstrip())
    for line in page.explained(found):
        click.echo(line)
    click.echo(f"* {printable(found.advice(str(path)))}")
    click.echo(f"page: {printable(str(written))}", err=True)


def _check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else."""
    if folder.is_dir() and not (folder / page.RECIPE).is_file() and any(folder.iterdir()):
        got = f"{folder}, which holds something else"
        refuse("assess", needs="a free path, or the folder of an assessment", got=got, remedy="give another path")


def _check_same(path: Path, recipe: recipes.Recipe, *, overwrite: bool) -> None:
    """Refuse the folder of another assessment."""
    if overwrite or not path.exists():
        return
    try:
        there = parsed_object(path.read_text(errors="replace"))
    except ValueError:
        there = {}
    here = json.loads(json.dumps(recipe))
    if not recipes.same(there, here):
        got = f"{path.parent}, which holds another: {recipes.difference(there, here)}"
        remedy = "`overwrite=True`, which keeps what was computed; or another path"
        refuse("assess", needs="a free path, or the folder of this assessment", got=got, remedy=remedy)
