"""The atoms of a tilt series, for the verb `atoms`."""

from pathlib import Path
from typing import Any

import click
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.arrays import schema
from nntomo_dask.atoms import page
from nntomo_dask.atoms.sampling import Sampling
from nntomo_dask.cli import options
from nntomo_dask.untrusted import printable

FILES = (page.RECIPE, page.NUMBERS, page.PAGE, *page.FIGURES)


def is_series(path: Path) -> bool:
    """Whether a store holds a tilt series."""
    return schema.ANGLE in nt.open(path).dims


def found(path: Path, elements: Any, arguments: dict[str, Any], folder: Path | None) -> tuple[xr.DataArray, xr.Dataset]:
    """The volume and the atoms; the page is written."""
    from nntomo_dask.atoms import chain

    if isinstance(elements, dict):
        raise click.UsageError("--elements of a series are symbols without numbers, such as Si or Zr,O")
    both = {name: arguments[name] for name in ("width", "minimum_distance")}
    settings = options.build(Sampling, arguments, **both)
    made = chain.run(nt.open(path), elements=elements or (), settings=settings)
    for what, value in page.told(made):
        click.echo(f"{what}: {value}", err=True)
    if folder is not None:
        written = page.write(made, folder, series=str(path), recipe=dict(made.atoms.attrs["recipe"]))
        click.echo(f"page: {printable(str(written))}", err=True)
    return made.volume, made.atoms
