"""The verb `project`."""

from pathlib import Path
from typing import Any

import click

import nntomo_dask as nt
from nntomo_dask.arrays import schema
from nntomo_dask.cli import report, support
from nntomo_dask.compute import chunking, cluster
from nntomo_dask.projection import project as projecting


@click.command()
@click.argument("volume", type=support.PATH)
@click.option("--range", "tilt_range", type=click.Choice(["full", "tem"]), help="full: -90° to 90°; tem: ±70°.")
@click.option("--count", type=int, help="Projections in the range.")
@click.option("--angles", type=support.PATH, help="A file of tilt angles instead of --range and --count.")
@click.option("--engine", type=click.Choice(["native", "astra"]), default="native", show_default=True)
@support.output
@support.computing
def project(
    volume: Path,
    tilt_range: Any,
    count: int | None,
    angles: Path | None,
    engine: Any,
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
) -> None:
    """Project a volume to a tilt series."""
    if (angles is None) == (tilt_range is None or count is None):
        raise click.UsageError("give either --range and --count, or --angles FILE")
    angles_deg = nt.read_tilt_angles(angles) if angles else nt.tilt_angles(tilt_range, count)
    source = nt.open(volume)
    nt.check_volume(source, who="project")
    shape = source.sizes[schema.Z], len(angles_deg), source.sizes[schema.X]
    slices = support.slices_within_memory(
        projecting.host_bytes, shape, memory, wanted=chunking.SLAB_SLICES, who="project"
    )
    cluster.expect(source.sizes[schema.Z] // slices)
    projected = nt.project(nt.open(volume, slices=slices), angles_deg, engine=engine)
    report.describe(nt.save(projected, output, overwrite=overwrite, progress="bar"), output)
