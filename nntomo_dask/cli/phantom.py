"""The verb `phantom`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import nntomo_dask as nt
from nntomo_dask.cli import report, support
from nntomo_dask.compute import cluster


@click.command()
@click.argument("kind", type=click.Choice(["spheres", "ellipses", "particle", "mixed"]))
@click.option("--size", type=support.Shape(), default="128", show_default=True, help="N, or Z,Y,X.")
@click.option("--seed", default=0, show_default=True, help="Another seed, another phantom.")
@click.option("--number", type=int, help="Spheres in all, ellipses a slice, or pores of the particle.")
@click.option("--pixel-size", default=1.0, show_default=True, help="Edge of a voxel, in pixels of the specimen.")
@support.output
@support.computing
def phantom(
    kind: str,
    size: Any,
    seed: int,
    number: int | None,
    pixel_size: float,
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
) -> None:
    """Make a phantom volume.

    Spheres, a stack of slices with ellipses or of every kind (mixed), or a faceted particle.
    """
    makers: dict[str, tuple[Callable[..., Any], str | None]] = {
        "spheres": (nt.random_spheres, "n_spheres"),
        "ellipses": (nt.ellipse_stack, "n_ellipses"),
        "particle": (nt.nanoparticle, "n_pores"),
        "mixed": (nt.mixed_stack, None),
    }
    make, counted = makers[kind]
    counts = {}
    if number is not None:
        if counted is None:
            raise click.BadParameter("a mixed stack draws its own", param_hint="--number")
        counts[counted] = number
    volume = make(size, seed=seed, pixel_size=pixel_size, **counts)
    support.check_memory(support.phantom_bytes, volume, memory, who="phantom")
    cluster.expect(volume.data.numblocks[0])
    report.describe(nt.save(volume, output, overwrite=overwrite, progress="bar"), output)
