"""The verb `export`."""

from pathlib import Path

import click

import nntomo_dask as nt
from nntomo_dask.cli import support
from nntomo_dask.compute import chunking
from nntomo_dask.formats.format import check_outputs, format_to_write, host_bytes


@click.command(cls=support.Verb)
@click.argument("store", type=support.PATH)
@click.argument("target", type=support.PATH)
@click.option("--overwrite", is_flag=True, help="Overwrite existing files.")
@support.MEMORY
def export(store: Path, target: Path, memory: int | None, overwrite: bool) -> None:  # noqa: FBT001
    """Write a store to a file for other programs.

    The suffix of TARGET chooses the format. A volume is written as (z, y, x); a tilt series as (tilt, y, x) with its
    tilt axis along y, and its angles beside it as .rawtlt.

    \b
    Example:
      nntomo export sirt.zarr sirt.mrc
    """
    kind = format_to_write(target, who="export")
    array = nt.open(store)
    check_outputs(kind.outputs(array, target), overwrite=overwrite, who="export")
    shape = (array.shape[0], array.shape[1], array.shape[2])
    plan = chunking.plan(support.budget(memory), host_bytes, shape=shape, workers=1, who="export")
    for path in kind.write(nt.open(store, slices=min(plan.slices, chunking.slab_slices(shape))), target):
        click.echo(path)
