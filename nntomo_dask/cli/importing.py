"""The verb `import`."""

from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import numpy.typing as npt
import xarray as xr

import nntomo_dask as nt
from nntomo_dask import store
from nntomo_dask.arrays import recipes, schema
from nntomo_dask.cli import found, report, support
from nntomo_dask.cli.options import NumberOrWord
from nntomo_dask.compute import chunking
from nntomo_dask.errors import refuse
from nntomo_dask.formats import unpacking
from nntomo_dask.formats.angle_sources import Disagreement
from nntomo_dask.formats.choosing import Repeats
from nntomo_dask.formats.format import host_bytes
from nntomo_dask.formats.mrc_bytes import ByteKind
from nntomo_dask.formats.orientation import TiltSign
from nntomo_dask.formats.reading import Contrast
from nntomo_dask.formats.source import as_in_0_1_0
from nntomo_dask.store import outputs, saving
from nntomo_dask.untrusted import printable

_NM = {"": 1.0, "nm": 1.0, "a": 0.1, "å": 0.1, "pm": 1e-3, "um": 1e3, "µm": 1e3}


class _Length(click.ParamType[float]):
    """A length in nm, or with a unit behind it."""

    name = "length"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "NM"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Nanometres."""
        text = str(value).strip()
        number = text.rstrip("aAåÅnmpuµ ")
        unit = text[len(number) :].strip().lower()
        try:
            return float(number) * _NM[unit]
        except (ValueError, KeyError):
            self.fail(f"{value!r}; write nanometres, 3.36, or 33.6A", param, ctx)


class _Numbers(click.ParamType[Any]):
    """Numbers of images: 1,41-45."""

    name = "numbers"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "1,41-45"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """The numbers."""
        if isinstance(value, tuple):
            return value
        numbers: list[int] = []
        try:
            for part in value.split(","):
                first, dash, last = part.partition("-")
                run = range(int(first), int(last if dash else first) + 1)
                if not 0 < len(run) <= 2**16:
                    raise ValueError(part)
                numbers += run
        except ValueError:
            self.fail(f"{value!r}; write numbers of images, 1,41-45", param, ctx)
        return tuple(numbers)


class _Crop(click.ParamType[Any]):
    """FIRST:END of columns and of lines."""

    name = "part"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "COLUMNS,LINES"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """((first column, end), (first line, end))."""
        if isinstance(value, tuple):
            return value
        try:
            columns, lines = (tuple(int(one) for one in part.split(":")) for part in value.split(","))
            if len(columns) != 2 or len(lines) != 2:
                raise ValueError(value)
        except ValueError:
            self.fail(f"{value!r}; write columns and lines, 100:900,50:950", param, ctx)
        return (columns, lines)


class _Keep(click.ParamType[Any]):
    """START:STOP:STEP, STOP included."""

    name = "angles"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "START:STOP:STEP"

    def convert(self, value: Any, param: Any, ctx: Any) -> npt.NDArray[np.float64]:
        """The angles."""
        if isinstance(value, np.ndarray):
            return value
        try:
            start, stop, step = (float(part) for part in value.split(":"))
            count = int((stop - start) / step + 1e-9) + 1
            wanted = start + step * np.arange(count if count <= 2**16 else 0)
        except (ValueError, ZeroDivisionError, OverflowError):
            wanted = np.empty(0)
        if wanted.size < 2:
            self.fail(f"{value!r}; write START:STOP:STEP, -70:70:10", param, ctx)
        return np.asarray(wanted, np.float64)


@click.command("import", cls=support.Verb)
@click.argument("sources", type=support.PATH, nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--as",
    "kind",
    type=click.Choice(["series", "volume"]),
    help="What the file holds, where it does not say. Without angles a stack is imported as a volume only with this.",
)
@click.option(
    "--angles",
    type=support.PATH,
    help="File of the tilt angles: .rawtlt, .tlt, .txt, .csv or .mdoc. Default: a file of the same name beside the "
    "images, else their metadata.",
)
@click.option(
    "--tilt-axis",
    type=NumberOrWord(float, ("x", "y")),
    help="Direction of the tilt axis in the images: y is upwards, x to the right, a number is degrees from the "
    "vertical, counterclockwise. Default: what the metadata say, else what the images show clearly.",
)
@click.option(
    "--tilt-sign",
    type=click.Choice(get_args(TiltSign)),
    default="right-handed",
    show_default=True,
    help="left-handed reverses the signs of the angles.",
)
@click.option(
    "--pixel-size",
    "pixel_size_nm",
    type=_Length(),
    help="Edge of a pixel of the images in nm, or with another unit: 3.36 or 33.6A. Default: what the metadata say.",
)
@click.option(
    "--background",
    type=NumberOrWord(float, ("auto", "none")),
    default="auto",
    show_default=True,
    help="Counts where there is no specimen, to be subtracted. auto decides from the images: the most frequent value "
    "at the dark end; nothing in bright field.",
)
@click.option(
    "--contrast",
    type=click.Choice(get_args(Contrast)),
    default="as-is",
    show_default=True,
    help="bright-field makes line integrals of bright-field images, ln(background / counts); --background is then the "
    "bright level beside the specimen.",
)
@click.option(
    "--keep", "keep_deg", type=_Keep(), help="Keep the projections nearest to the angles from START to STOP, both "
    "included, such as -70:70:10."
)  # fmt: skip
@click.option("--exclude", type=_Numbers(), default=(), help="Numbers of images to leave out, from 1 on, as in IMOD.")
@click.option(
    "--repeats",
    type=click.Choice(get_args(Repeats)),
    help="What to do with several images of one angle: sum, mean, keep (as angles 0.001° apart), or refuse. Default: "
    "frames are summed, which are neighbouring images of an angle, as many for each angle or in each file; others are "
    "refused.",
)
@click.option(
    "--bin", type=int, default=1, show_default=True, help="Pixels along an edge of a bin; a bin is the mean of its "
    "pixels."
)  # fmt: skip
@click.option(
    "--crop", type=_Crop(), help="Part of the images as they are stored, from FIRST to before END: 100:900,50:950 for "
    "columns and lines."
)  # fmt: skip
@click.option("--fill", type=float, help="Value for pixels that are NaN or infinite; without it they are refused.")
@click.option(
    "--bytes",
    "byte_kind",
    type=click.Choice(get_args(ByteKind)),
    help="Whether the bytes of an MRC file are signed. Default: what IMOD's flags in it say, else what makes smoother "
    "images.",
)
@click.option("--dataset", help="Which series, where a file holds several.")
@click.option(
    "--disagreement",
    type=click.Choice(get_args(Disagreement)),
    default="refuse",
    show_default=True,
    help="What to do where sources of angles differ by more than 0.5°: ignore takes the first of --angles, the file "
    "beside the images, and their metadata.",
)
@support.output
@support.computing
def import_(
    sources: tuple[Path, ...],
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
    **options: Any,
) -> None:
    """Import a tilt series, or a volume, from files of a microscope or of another program.

    FILE is a file, a folder that is one series, or several files of one series. The format is recognised by content.
    What was found, and from where, is printed and kept.

    \b
    Examples:
      nntomo import series.mrc -o series.zarr
      nntomo import series.mrc --angles series.rawtlt --tilt-axis y -o series.zarr
      nntomo import tomogram.mrc --as volume -o volume.zarr
    """
    angles: Path | None = options["angles"]
    inputs = [*sources, *([] if angles is None else [angles])]
    with (
        outputs.reserved("import", stores=[output], inputs=inputs, overwrite=overwrite),
        unpacking.cleared(),
    ):
        if len(sources) == 1 and store.is_store(sources[0]):
            got = f"{sources[0]}, which is a store already"
            refuse("import", needs="a file of a microscope or of another program", got=got, remedy="use it as it is")
        with support.slabs_within_memory(host_bytes, memory, who="import", wanted=chunking.GPU_SLAB_SLICES * 8):
            place = output.resolve().parent
            array = nt.read(sources, unpack_to=place if place.is_dir() else None, **options)
        _tell(array, options["kind"])
        if len(sources) == 1 and _holds(output, array, sources[0]):
            report.describe(nt.open(output), output)
            return
        if not saving.check_together({output: array}, overwrite=overwrite) and not _are_whole_numbers(array):
            nt.check_finite(array, who="import")
        report.describe(nt.save(array, output, overwrite=overwrite, progress="bar"), output)
    if "tilt_axis_deg" in array.attrs:
        aligned = output.with_name(f"{output.name.removesuffix('.zarr')}_aligned.zarr")
        click.echo(f"next: nntomo align {output} -o {aligned} (unless the series is aligned already)", err=True)


def _tell(array: xr.DataArray, kind: str | None) -> None:
    """Print what was found, and from where."""
    if schema.ANGLE not in array.dims:
        click.echo(f"a volume{', as given' if kind else ', as the file says'}", err=True)
    for line in found.lines(array.attrs.get("found")):
        click.echo(printable(line), err=True)


def _are_whole_numbers(array: xr.DataArray) -> bool:
    """Whether the file holds whole numbers, among which there is no NaN."""
    pixels = str(array.attrs.get("found", {}).get("pixels", ""))
    return pixels.startswith(("int", "uint"))


def _holds(output: Path, array: xr.DataArray, source: Path) -> bool:
    """Whether a store of version 0.1.0 holds an array from a large file; says so.

    The recipe there has samples of the file, which say nothing of the rest. So the values are compared.
    """
    if not source.is_file():
        return False
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
