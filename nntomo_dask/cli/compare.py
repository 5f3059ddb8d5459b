"""The verb `compare`."""

import json
from pathlib import Path
from typing import Any

import click

import nntomo_dask as nt
from nntomo_dask.arrays import schema
from nntomo_dask.cli import options, report, support
from nntomo_dask.compute import chunking, cluster
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
    shape = (truth.sizes[schema.Z], truth.sizes[schema.Y], truth.sizes[schema.X])
    drawn = 0 if figure is None else report.figure_bytes(shape, len(volumes) + 1)
    slices = support.slices_within_memory(
        measuring.host_bytes,
        shape,
        memory,
        wanted=min(truth.data.chunks[0][0], chunking.SLAB_SLICES),
        who="compare",
        apart=drawn,
    )
    truth = nt.open(reference, slices=slices)
    available = _memory(measuring.host_bytes((slices, *shape[1:])), drawn, memory)
    metrics = [options.build(METRICS[name], arguments) for name in METRICS]
    table = {
        str(path): nt.measure(
            nt.open(path, slices=slices), truth, metrics, region=region, memory_bytes=available, progress="bar"
        )
        for path in volumes
    }
    columns = [column for metric in metrics for column in metric.columns]
    nyquist = 2 * float(truth.attrs["pixel_size"])
    if as_json:
        listed = {path: values | {"nyquist": nyquist} for path, values in table.items()}
        click.echo(json.dumps(report.finite(listed), indent=2))
    else:
        report.print_table(table, columns, reference, region, truth.attrs["units"], nyquist)
    if figure is not None:  # after the table, which a figure that fails must not lose
        report.draw_comparison(table, truth, reference, figure, columns[0])


def _memory(slab_bytes: int, drawn: int, memory: int | None) -> int:
    """Bytes that a metric may hold that computes by itself: what the program, its slabs and the figure leave."""
    slabs = chunking.peak_bytes(slab_bytes, workers=cluster.current_workers(), processes=cluster.current_processes())
    available = support.budget(memory).size - slabs - drawn
    return max(available if memory is not None else available // 2, 1)
