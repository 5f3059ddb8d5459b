"""The verb `compare`."""

import json
from pathlib import Path
from typing import Any

import click

import nntomo_dask as nt
from nntomo_dask.arrays import schema
from nntomo_dask.cli import options, report, support
from nntomo_dask.metrics import METRICS, metric as measuring
from nntomo_dask.metrics.pairs import Region
from nntomo_dask.store import outputs


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
@click.option("--figure", type=support.PATH, help="Also draw slices and isosurfaces to this PNG file.")
@click.option("--overwrite", is_flag=True, help="Overwrite an existing file that is not a figure of this command.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@support.computing
def compare(
    volumes: tuple[Path, ...],
    reference: Path,
    region: Region,
    figure: Path | None,
    overwrite: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
    memory: int | None,
    **arguments: Any,
) -> None:
    """Compare volumes with a reference.

    Prints a table of errors and similarities, and says which way is good.

    \b
    Example:
      nntomo compare sirt.zarr fbp.zarr --reference particle.zarr --figure compare.png
    """
    kept = [] if figure is None or not report.is_figure(figure) else [figure]
    new = [] if figure is None or kept else [figure]
    inputs = [*volumes, reference]
    with outputs.reserved("compare", written=new, replaced=kept, inputs=inputs, overwrite=overwrite):
        _compare(volumes, reference, region, figure, as_json, memory, arguments)


def _compare(
    volumes: tuple[Path, ...],
    reference: Path,
    region: Region,
    figure: Path | None,
    as_json: bool,  # noqa: FBT001
    memory: int | None,
    arguments: dict[str, Any],
) -> None:
    truth = nt.open(reference)
    schema.check_volume(truth, who="compare")
    available = _memory(truth, memory)
    metrics = [options.build(METRICS[name], arguments) for name in METRICS]
    table = {
        str(path): nt.measure(nt.open(path), truth, metrics, region=region, memory_bytes=available, progress="bar")
        for path in volumes
    }
    columns = [column for metric in metrics for column in metric.columns]
    nyquist = 2 * schema.pixel_size_of(truth)
    if as_json:
        listed = {path: values | {"nyquist": nyquist} for path, values in table.items()}
        click.echo(json.dumps(report.finite(listed), indent=2))
    else:
        report.print_table(table, columns, reference, region, truth.attrs["units"], nyquist)
    if figure is not None:  # after the table, which a figure that fails must not lose
        report.draw_comparison(table, truth, reference, figure, columns[0])


def _memory(truth: Any, memory: int | None) -> int:
    """Bytes that a metric may hold that computes by itself: what the program and its slabs leave of the memory."""
    shape = (truth.data.chunks[0][0], *truth.shape[1:])
    needed = support.check_slab(measuring.host_bytes(shape), memory, who="compare")
    available = support.budget(memory)
    return max(available - needed, 1) if memory is not None else (available - needed) // 2
