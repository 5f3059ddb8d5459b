"""The verb `project`."""

from pathlib import Path
from typing import Any, get_args

import click
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.arrays import schema
from nntomo_dask.cli import report, support
from nntomo_dask.compute import chunking, cluster
from nntomo_dask.projection import add_noise as adding, project as projecting
from nntomo_dask.projection.project import Engine
from nntomo_dask.store import outputs


@click.command(cls=support.Verb)
@click.argument("volume", type=support.PATH)
@support.tilts
@click.option(
    "--engine",
    type=click.Choice(get_args(Engine)),
    default="native",
    show_default=True,
    help="Which program computes the projections: this package (native) or the ASTRA toolbox.",
)
@click.option(
    "--noise",
    type=float,
    default=0.0,
    help="Add Gaussian noise with this standard deviation, as a share of the brightest ray: 0.02 is 2 %.",
)
@click.option(
    "--dose",
    type=float,
    help="Add the noise of counting so many counts at the brightest ray; other rays have counts in proportion.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of the noise.")
@support.output
@support.computing
def project(
    volume: Path,
    tilt_range: Any,
    count: int | None,
    angles: Path | None,
    engine: Any,
    noise: float,
    dose: float | None,
    seed: int,
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
) -> None:
    """Project a volume to a tilt series.

    VOLUME is a store with a volume. The tilt axis is its z axis.

    \b
    Example: 15 projections of a phantom between -70° and 70°
      nntomo project particle.zarr --range tem --count 15 -o series.zarr
    The same with 2 % noise:
      nntomo project particle.zarr --range tem --count 15 --noise 0.02 -o noisy.zarr
    """
    adding.check(noise, dose, seed, who="project")
    if noise == 0 and dose is None:
        support.check_free("seed", because="plays no part without --noise or --dose; leave it out")
    inputs = [volume] if angles is None else [volume, angles]
    with outputs.reserved("project", stores=[output], inputs=inputs, overwrite=overwrite):
        angles_deg = support.tilt_angles(tilt_range, count, angles)

        def host_bytes(shape: chunking.SlabShape) -> int:
            added = 0 if noise == 0 and dose is None else adding.host_bytes(shape)
            return projecting.host_bytes(shape) + added

        def slices(source: xr.DataArray) -> int:
            nt.check_volume(source, who="project")
            shape = source.sizes[schema.Z], len(angles_deg), source.sizes[schema.X]
            wanted = chunking.SLAB_SLICES
            return support.slices_within_memory(host_bytes, shape, memory, wanted=wanted, who="project")

        source = nt.open(volume, slices=slices)
        cluster.expect(source.data.numblocks[0])
        projected = nt.add_noise(nt.project(source, angles_deg, engine=engine), noise=noise, dose=dose, seed=seed)
        report.describe(nt.save(projected, output, overwrite=overwrite, progress="bar"), output)
