"""The verb `phantom`."""

from pathlib import Path
from typing import Any

import click

import nntomo_dask as nt
from nntomo_dask.arrays import slabs
from nntomo_dask.cli import options, report, support
from nntomo_dask.compute import cluster
from nntomo_dask.phantoms import PHANTOMS
from nntomo_dask.store import outputs


@click.command(cls=options.chooser(PHANTOMS))
@click.argument("kind", metavar="KIND", type=options.Name(PHANTOMS))
@click.option(
    "--size", type=support.Shape(), default="128", show_default=True, help="Voxels along each edge: N, or Z,Y,X."
)
@click.option("--seed", default=0, show_default=True, help="Another seed gives another phantom of the same kind.")
@click.option(
    "--pixel-size", default=1.0, show_default=True, help="Length of a voxel's edge, which is kept with the volume."
)
@support.output
@support.computing
def phantom(
    kind: str,
    size: Any,
    seed: int,
    pixel_size: float,
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
    **arguments: Any,
) -> None:
    """Make a phantom volume.

    KIND is the name of a phantom, see the list. The options that begin with names in brackets belong to those kinds.

    \b
    Example:
      nntomo phantom particle --size 128 --seed 1 -o particle.zarr
    """
    chosen = options.build_chosen(PHANTOMS, kind, "KIND", arguments)
    with outputs.reserved("phantom", stores=[output], overwrite=overwrite):
        with support.slabs_within_memory(chosen.host_bytes, memory, who="phantom"):
            volume = slabs.lazy(nt.phantom(chosen, size, seed=seed, pixel_size=pixel_size))
        cluster.expect(volume.data.numblocks[0])
        report.describe(nt.save(volume, output, overwrite=overwrite, progress="bar"), output)
