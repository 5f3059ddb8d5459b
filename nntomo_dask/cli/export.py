"""The verb `export`."""

from pathlib import Path

import click

import nntomo_dask as nt
from nntomo_dask.arrays import schema
from nntomo_dask.cli import support


@click.command()
@click.argument("store", type=support.PATH)
@click.argument("target", type=support.PATH)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def export(store: Path, target: Path, overwrite: bool) -> None:  # noqa: FBT001
    """Write a store as an MRC file.

    A volume as (z, y, x), a series as (tilt, y, x) with its tilt axis along y and its angles beside it as .rawtlt.
    """
    array = nt.open(store)
    support.check_export(target, overwrite=overwrite)
    click.echo(nt.write_mrc(array, target))
    if schema.ANGLE in array.dims:
        click.echo(nt.write_tilt_angles(array[schema.ANGLE].values, target.with_suffix(".rawtlt")))
