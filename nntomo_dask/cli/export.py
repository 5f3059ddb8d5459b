"""The verb `export`."""

from pathlib import Path

import click
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.cli import support
from nntomo_dask.compute import chunking
from nntomo_dask.formats.format import format_to_write, host_bytes
from nntomo_dask.store import outputs
from nntomo_dask.untrusted import printable


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

    def slices(array: xr.DataArray) -> int:
        shape = (array.shape[0], array.shape[1], array.shape[2])
        plan = chunking.plan(support.budget(memory), host_bytes, shape=shape, workers=1, who="export")
        return min(plan.slices, chunking.slab_slices(shape))

    array = nt.open(store, slices=slices)
    files = kind.outputs(array, target)
    there = [file for file in files if kind.is_written(array, target, file)]
    new = [file for file in files if file not in there]
    with outputs.reserved("export", written=new, replaced=there, inputs=[store], overwrite=overwrite):
        for path in kind.write(array, target):
            click.echo(printable(str(path)))
