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
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@support.computing
def compare(
    volumes: tuple[Path, ...],
    reference: Path,
    region: Region,
    figure: Path | None,
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
