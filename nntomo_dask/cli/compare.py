"""The verb `compare`."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.arrays import recipes, schema
from nntomo_dask.cli import options, provenance, report, support
from nntomo_dask.compute import chunking, cluster
from nntomo_dask.metrics import METRICS, metric as measuring
from nntomo_dask.metrics.metric import Column
from nntomo_dask.metrics.pairs import Region
from nntomo_dask.store import outputs

_VIEW = ("cut", "level", "window")  # options of the figure


class Slice(click.ParamType[tuple[int, ...]]):
    """One number of a slice, or two."""

    name = "slice"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """One or two numbers from 0."""
        parts = str(value).split(",")
        if len(parts) > 2 or not all(part.strip().isdigit() for part in parts):
            self.fail(f"{value!r}: write one number, 40, or two, 40,64", param, ctx)
        return tuple(int(part) for part in parts)


class Window(click.ParamType[tuple[float, float]]):
    """Two numbers, BLACK,WHITE."""

    name = "window"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, float]:
        """A pair of numbers, the first of them the lesser."""
        try:
            black, white = (float(part) for part in str(value).split(","))
        except ValueError:
            black, white = 0.0, 0.0
        if not black < white:
            self.fail(f"{value!r}: write two values, the lesser first, such as 0,1", param, ctx)
        return black, white


@click.command(cls=options.chooser(METRICS))
@click.argument("volumes", type=support.PATH, nargs=-1, required=True)
@click.option("--reference", type=support.PATH, required=True, help="The volume to compare with.")
@click.option(
    "--region",
    type=click.Choice(["all", "disc"]),
    default="all",
    show_default=True,
    help="Compare all voxels, or only the disc of each slice that every projection sees. The Fourier shell correlation "
    "always takes all.",
)
@click.option(
    "--figure",
    type=support.PATH,
    help="Also draw slices and isosurfaces to this file; its suffix chooses the format, PNG by default.",
)
@click.option("--overwrite", is_flag=True, help="Overwrite an existing file that is not a figure of this command.")
@click.option(
    "--slice",
    "cut",
    type=Slice(),
    metavar="Z|Z,Y",
    help="For --figure: number of the slice across the tilt axis, from 0, and of the one along it. Default: the "
    "nearest to the middle with voxels as bright as the window's end.",
)
@click.option(
    "--level",
    type=float,
    help="For --figure: value of the isosurfaces. Default: Otsu's threshold of all voxels of the reference.",
)
@click.option(
    "--window",
    type=Window(),
    metavar="BLACK,WHITE",
    help="For --figure: the values that are black and white. Default: a thousandth of the reference's voxels "
    "lie below, and a thousandth above.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@support.computing
def compare(
    volumes: tuple[Path, ...],
    reference: Path,
    region: Region,
    figure: Path | None,
    overwrite: bool,  # noqa: FBT001
    cut: tuple[int, ...] | None,
    level: float | None,
    window: tuple[float, float] | None,
    as_json: bool,  # noqa: FBT001
    memory: int | None,
    **arguments: Any,
) -> None:
    """Compare volumes with a reference.

    Prints a table of errors and similarities with their units, and says which way is good and what limits them.
    --figure draws the volumes beside the reference.

    \b
    Example:
      nntomo compare sirt.zarr fbp.zarr --reference particle.zarr --figure compare.png
    """
    if figure is None and any(options.is_given(name) for name in _VIEW):
        raise click.UsageError("--slice, --level and --window are for --figure")
    kept = [] if figure is None or not report.is_figure(figure) else [figure]
    new = [] if figure is None or kept else [figure]
    inputs = [*volumes, reference]
    z, y = (*(cut or ()), None, None)[:2]
    view = {"z": z, "y": y, "level": level, "window": window}
    with outputs.reserved("compare", written=new, replaced=kept, inputs=inputs, overwrite=overwrite):
        _compare(volumes, reference, region, figure, view, as_json, memory, arguments)


def _compare(
    volumes: tuple[Path, ...],
    reference: Path,
    region: Region,
    figure: Path | None,
    view: dict[str, Any],
    as_json: bool,  # noqa: FBT001
    memory: int | None,
    arguments: dict[str, Any],
) -> None:
    def drawn(shape: tuple[int, ...]) -> int:
        return 0 if figure is None else report.figure_bytes(shape, len(volumes) + 1)

    def slices(truth: xr.DataArray) -> int:
        schema.check_volume(truth, who=f"compare with {reference}")
        shape = (truth.sizes[schema.Z], truth.sizes[schema.Y], truth.sizes[schema.X])
        wanted = min(truth.data.chunks[0][0], chunking.SLAB_SLICES)
        return support.slices_within_memory(
            measuring.host_bytes, shape, memory, wanted=wanted, who="compare", apart=drawn(shape)
        )

    truth = nt.open(reference, slices=slices)
    slab = (truth.data.chunks[0][0], truth.sizes[schema.Y], truth.sizes[schema.X])
    available = _memory(measuring.host_bytes(slab), drawn(truth.shape), memory)
    metrics = [options.build(METRICS[name], arguments) for name in METRICS]
    opened = {str(path): nt.open(path, slices=slab[0]) for path in volumes}
    for path, volume in opened.items():
        schema.check_volume(volume, who=f"compare {path}")
        schema.check_same_grid(volume, truth, who=f"compare {path} with {reference}")
    if figure is not None:
        _check_slice(truth, view)
    table = {
        path: nt.measure(volume, truth, metrics, region=region, memory_bytes=available, progress="bar")
        for path, volume in opened.items()
    }
    columns = [column for metric in metrics for column in metric.columns]
    nyquist = 2 * schema.pixel_size_of(truth)
    if as_json:
        listed = {path: values | {"nyquist": nyquist} for path, values in table.items()}
        click.echo(json.dumps(report.finite(listed), indent=2))
    else:
        report.print_table(table, columns, reference, region, truth.attrs["units"], nyquist)
    for path, values in table.items():
        for note in _notes(opened[path], truth, values, columns):
            click.echo(f"note: {path} and {reference}: {note}", err=True)
    if figure is not None:  # after the table, which a figure that fails must not lose
        column = next((one for one in columns if one.doubtful is not None), columns[0])
        report.draw_comparison(table, [(str(reference), truth), *opened.items()], figure, column, **view)


def _check_slice(truth: xr.DataArray, view: dict[str, Any]) -> None:
    """Refuse a slice that does not exist, before anything is computed."""
    for dim in (schema.Z, schema.Y):
        place, last = view[dim], truth.sizes[dim] - 1
        if place is not None and place > last:
            raise click.BadParameter(f"{place}; along {dim} there are slices 0 to {last}", param_hint="--slice")


def _notes(volume: Any, truth: Any, values: dict[str, float], columns: Sequence[Column]) -> Iterator[str]:
    """What makes a comparison say less than its numbers seem to."""
    kinds = [one.attrs.get("quantity") for one in (volume, truth)]
    if None not in kinds and kinds[0] != kinds[1]:
        yield f"they are different quantities ({kinds[0]}, and {kinds[1]}); only similarities of shape mean something"
    elif differs := provenance.mismatch(*(recipes.recipe_of(one) for one in (volume, truth))):
        yield differs
    else:
        for column in columns:
            if column.doubtful is not None and values[column.name] > column.doubtful:
                yield (
                    f"{column.title} is {values[column.name]:.3g}, above {column.doubtful:g}; they may be different "
                    "quantities or on different scales"
                )


def _memory(slab_bytes: int, drawn: int, memory: int | None) -> int:
    """Bytes that a metric may hold that computes by itself: what the program, its slabs and the figure leave."""
    slabs = chunking.peak_bytes(slab_bytes, workers=cluster.current_workers(), processes=cluster.current_processes())
    available = support.budget(memory).size - slabs - drawn
    return max(available if memory is not None else available // 2, 1)
