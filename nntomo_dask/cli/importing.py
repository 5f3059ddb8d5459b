"""The verb `import`."""

from pathlib import Path
from typing import Any, NoReturn

import click
import numpy as np
import numpy.typing as npt
import xarray as xr

import nntomo_dask as nt
from nntomo_dask import store
from nntomo_dask.arrays import recipes
from nntomo_dask.cli import report, support
from nntomo_dask.errors import refuse
from nntomo_dask.formats import FORMATS
from nntomo_dask.formats.format import TiltAxis, format_of, host_bytes, intensity_range
from nntomo_dask.formats.source import as_in_0_1_0
from nntomo_dask.store import outputs, saving

_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".7z")


@click.command("import", cls=support.Verb)
@click.argument("source", type=support.PATH)
@click.option(
    "--angles",
    type=support.PATH,
    help="File of the tilt angles: .rawtlt or .tlt (a number in each line), or .mdoc. Without it the file is a volume.",
)
@click.option(
    "--tilt-axis",
    type=click.Choice(["x", "y"]),
    default="y",
    show_default=True,
    help="Axis of the images along which the tilt axis lies.",
)
@click.option(
    "--background",
    default="0",
    show_default=True,
    help="Counts where there is no specimen, to be subtracted: a number, or auto for the dimmest 5 % of the pixels.",
)
@click.option(
    "--keep",
    metavar="START:STOP:STEP",
    help="Keep the projections nearest to the angles from START to STOP, both included, such as -70:70:10.",
)
@click.option("--fill", type=float, help="Value for pixels that are NaN or infinite; without it they are refused.")
@support.output
@support.computing
def import_(
    source: Path,
    angles: Path | None,
    tilt_axis: TiltAxis,
    background: str,
    keep: str | None,
    fill: float | None,
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
) -> None:
    """Import a tilt series, or a volume, from a file of a microscope or of another program.

    With --angles the file is a tilt series, which must be aligned already; without, it is a volume.

    \b
    Example:
      nntomo import series.mrc --angles series.rawtlt --background auto -o series.zarr
    """
    kind = format_of(source)
    if kind is None:
        _refuse_source(source)
    if angles is None:
        support.check_free(
            "tilt_axis", "background", "keep", "fill", because="is for a tilt series; give its --angles too"
        )
    inputs = [source] if angles is None else [source, angles]
    with outputs.reserved("import", stores=[output], inputs=inputs, overwrite=overwrite):
        if angles is None:
            click.echo("no --angles: the file is imported as a volume", err=True)
            with support.slabs_within_memory(host_bytes, memory, who="import"):
                array = kind.read_volume(source)
        else:
            angles_deg = nt.read_tilt_angles(angles)
            wanted = None if keep is None else _angles_of(keep)
            common: dict[str, Any] = {"tilt_axis": tilt_axis, "fill": fill}
            with support.slabs_within_memory(host_bytes, memory, who="import"):
                whole = kind.read_series(source, angles_deg, keep_deg=None, background=0.0, **common)
                counts = _background(whole, background)
                array = kind.read_series(source, angles_deg, keep_deg=wanted, background=counts, **common)
        if _holds(output, array, source):
            report.describe(nt.open(output), output)
            return
        if not saving.check_together({output: array}, overwrite=overwrite):
            nt.check_finite(array, who="import")
        report.describe(nt.save(array, output, overwrite=overwrite, progress="bar"), output)


def _refuse_source(source: Path) -> NoReturn:
    """Raise a SchemaError: what was given is of no known format."""
    titles = ", ".join(one.title for one in FORMATS.values())
    got, remedy = f"{source}, which is none", f"save it as {titles} by the program that made it"
    if store.is_store(source):
        got, remedy = f"{source}, which is a store already", "use it as it is"
    elif source.is_dir():
        got, remedy = (
            f"{source}, which is a folder",
            f"join its images into one {titles} stack, such as by Fiji or IMOD",
        )
    elif not source.exists():
        got, remedy = f"nothing at {source}", "check the path"
    elif source.suffix.lower() in _PACKED:
        got, remedy = f"{source}, which is compressed", "unpack it first"
    refuse("import", needs=f"a file of a known format ({titles})", got=got, remedy=remedy)


def _holds(output: Path, array: xr.DataArray, source: Path) -> bool:
    """Whether a store of version 0.1.0 holds an array from a large file; says so.

    The recipe there has samples of the file, which say nothing of the rest. So the values are compared.
    """
    former = as_in_0_1_0(recipes.recipe_of(array), source)
    if former is None or not store.is_store(output) or not recipes.same(store.recipe(output), former):
        return False
    if store.missing_chunks(output) or store.missing_coordinates(output):
        return False
    there = nt.open(output)
    if there.shape != array.shape or not bool((there.data == array.data).all()):
        return False
    click.echo(f"{output}: found complete, with the values of {source}; nothing to compute", err=True)
    return True


def _background(series: xr.DataArray, text: str) -> float:
    """The value of --background in counts; prints what it found, and a hint where a series seems to need it."""
    dim, bright = intensity_range(series)
    if text == "auto":
        click.echo(f"background: {dim:g} counts subtracted", err=True)
        return dim
    try:
        counts = float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r}; write a number or auto", param_hint="--background") from None
    if counts == 0 and bright > dim > 0.01 * bright:
        click.echo(
            f"hint: the dimmest pixels have {dim:g} counts, the brightest {bright:g}. If {dim:g} is the offset of the "
            "detector, import with --background auto: a reconstruction takes it for matter",
            err=True,
        )
    return counts


def _angles_of(keep: str) -> npt.NDArray[np.float64]:
    """START:STOP:STEP as angles, STOP included."""
    try:
        start, stop, step = (float(part) for part in keep.split(":"))
        wanted = start + step * np.arange(int((stop - start) / step + 1e-9) + 1)
    except (ValueError, ZeroDivisionError):
        wanted = np.empty(0)
    if wanted.size < 2:
        raise click.BadParameter(f"{keep!r}; write START:STOP:STEP, -70:70:10", param_hint="--keep")
    return np.asarray(wanted, np.float64)
