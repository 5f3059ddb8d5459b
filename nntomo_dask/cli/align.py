"""The verb `align`."""

import shlex
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.alignment import align as finding, apply as applying, imod, page, progress
from nntomo_dask.alignment.found import found_once
from nntomo_dask.alignment.quality import quality
from nntomo_dask.alignment.table import Alignment, words
from nntomo_dask.arrays import recipes, schema
from nntomo_dask.cli import options, report, support
from nntomo_dask.cli.options import is_given
from nntomo_dask.compute import cluster
from nntomo_dask.errors import refuse
from nntomo_dask.reconstruction.sirt import Sirt
from nntomo_dask.store import outputs, saving
from nntomo_dask.untrusted import printable

_SUFFIX = ".zarr"
_NO_PAGE = "none"


class Crop(click.ParamType[Any]):
    """none, seen, or Z,DETECTOR."""

    name = "crop"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What help shows for a value."""
        return "none|seen|Z,DETECTOR"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The word, or two sizes."""
        if value in ("none", "seen") or isinstance(value, tuple):
            return value
        try:
            sizes = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            sizes = ()
        if len(sizes) != 2:
            self.fail(f"{value!r}: write none, seen, or two sizes, 256,256", param, ctx)
        return sizes


class AngleList(click.ParamType[tuple[float, ...]]):
    """Angles with commas between them."""

    name = "angle,angle"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        """The numbers."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r}: write angles with commas between them, such as -70,12.5", param, ctx)


@click.command(cls=support.Verb)
@click.argument("series", type=support.PATH)
@click.option(
    "--table",
    "given",
    cls=options.SettingOption,
    setting="table",
    type=support.PATH,
    help="Apply this alignment, and find none: a table that nntomo align wrote (.csv, .json), edited or not, or "
    "transforms of IMOD (.xf, .xg, .prexg, .prexf) with their angles beside them as .rawtlt, and corrected ones as "
    ".tlt.",
)
@click.option(
    "--like",
    type=support.PATH,
    help="Apply the alignment, crop and fill of another series that was aligned, such as another channel of the same "
    "specimen.",
)
@click.option(
    "--refine",
    type=click.Choice(get_args(finding.Refine)),
    default="auto",
    show_default=True,
    help="How the alignment is found after the first steps: by moments of rows, which needs all mass in view; by "
    "matching of projections, which is slower; auto chooses; none leaves it at the first steps.",
)
@click.option(
    "--tilt-axis",
    cls=options.SettingOption,
    setting="rotation_deg",
    type=float,
    help="Direction of the tilt axis, from the axis as imported: from the vertical of the images of SERIES, "
    "counterclockwise [degrees]. Import turns an axis that it knows upright: 0 then. It is not searched for. Default: "
    "found, about what the series says.",
)
@click.option(
    "--reach",
    cls=options.SettingOption,
    setting="reach_deg",
    type=float,
    default=20.0,
    show_default=True,
    help="How far from its start the direction of the axis is searched for [degrees].",
)
@click.option(
    "--tilt-angles",
    type=click.Choice(get_args(finding.TiltAngles)),
    default="nominal",
    show_default=True,
    help="refined: correct the tilt angles too, by what the other projections predict.",
)
@click.option(
    "--leave-out",
    type=AngleList(),
    help="Leave out the projections at these nominal angles, with commas between them, besides those that are flagged.",
)
@click.option(
    "--keep-angles",
    is_flag=True,
    help="Keep the nominal tilt angles, whatever the alignment says of them.",
)
@click.option(
    "--fill",
    type=options.NumberOrWord(float, ("edge",)),
    default="edge",
    show_default=True,
    help="Value where nothing was measured, beyond the edges of an image; edge continues the nearest pixels.",
)
@click.option(
    "--crop",
    type=Crop(),
    default="none",
    show_default=True,
    help="Crop the result about its middle: to the largest part that all projections show (seen), or to two sizes.",
)
@click.option(
    "--scale",
    type=float,
    help="How many pixels of this series one of the table's is: 0.5 where the series was binned by 2 since. Default: "
    "what the pixel sizes of both say, where they are known; else 1.",
)
@click.option(
    "--stretch",
    type=click.Choice(["refuse", "ignore"]),
    default="refuse",
    show_default=True,
    help="What to do with transforms of IMOD that stretch images: refuse them, or take the nearest rotation.",
)
@click.option(
    "--write-table",
    "tables",
    type=support.PATH,
    multiple=True,
    help="Write the alignment to this file too: .csv, .json, or IMOD's .xf, .xg, .prexg, .prexf. May be repeated.",
)
@click.option(
    "--page",
    "page_folder",
    metavar="FOLDER|none",
    help="Where the page about the quality goes, with its figures and numbers. Default: beside the output, as "
    "ALIGNED.quality.",
)
@support.output
@support.computing
def align(
    series: Path,
    given: Path | None,
    like: Path | None,
    refine: finding.Refine,
    tilt_axis: float | None,
    reach: float,
    tilt_angles: finding.TiltAngles,
    leave_out: tuple[float, ...] | None,
    keep_angles: bool,  # noqa: FBT001
    fill: Any,
    crop: Any,
    scale: float | None,
    stretch: imod.Stretch,
    tables: tuple[Path, ...],
    page_folder: str | None,
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
) -> None:
    """Align the projections of a measured tilt series.

    Finds shifts, the direction and the position of the tilt axis, and applies all of it in one interpolation. Writes
    the aligned series; a table of what was found, ALIGNED.csv, which can be edited and given back; and a page that
    shows the series before and after, ALIGNED.quality/index.html.

    \b
    Example:
      nntomo align raw.zarr -o aligned.zarr
    The table was edited:
      nntomo align raw.zarr --table aligned.csv -o aligned.zarr --overwrite
    Another channel of the same specimen:
      nntomo align idpc.zarr --like aligned.zarr -o idpc-aligned.zarr
    """
    if given is not None and like is not None:
        raise click.UsageError("give either --table or --like")
    folder = None if page_folder == _NO_PAGE else Path(page_folder) if page_folder else beside(output, ".quality")
    files = [] if folder is None else [folder / name for name in (page.NUMBERS, page.PAGE, *page.FIGURES)]
    inputs = [one for one in (series, given, like) if one is not None]
    found_in = beside(output, ".csv") if given is None and like is None else None
    if found_in is None:
        support.check_free("refine", "tilt_axis", "reach", "tilt_angles", because="is for an alignment that is found")
    if folder is not None:
        outputs.check_folder(folder, inputs, who="align")
        _check_folder(folder)
    reserved = outputs.reserved(
        "align",
        stores=[output],
        written=tables,
        replaced=files if found_in is None else [*files, found_in],
        inputs=inputs,
        overwrite=overwrite,
    )
    with reserved:
        raw = nt.open(series)
        nt.check_tilt_series(raw, who="align")
        applying.check_crop(raw, crop)
        if like is not None:
            alignment, chosen = _like(like)
            chosen |= {name: value for name, value in (("fill", fill), ("crop", crop)) if is_given(name)}
        else:
            chosen = {"fill": fill, "crop": crop}
            if given is not None:
                alignment = _read(given, raw, stretch)
            else:
                assert found_in is not None
                settings: dict[str, Any] = {"refine": refine, "reach_deg": reach, "tilt_angles": tilt_angles}
                if tilt_axis is not None:
                    settings["rotation_deg"] = -tilt_axis
                alignment = _found(raw, settings, found_in, overwrite=overwrite)
        if keep_angles:
            chosen["angles"] = "nominal"
        if leave_out is not None:
            alignment = alignment.edited(leave_out, flagged=True)
        rows = applying.rows_for(raw, alignment, scale=scale)
        extra = alignment.angles_deg.size - rows.angles_deg.size
        if extra:
            click.echo(f"note: the alignment has {extra} rows for projections that {series} does not hold", err=True)
        aligned = _aligned(series, rows, memory, chosen)
        saving.check_together({output: aligned}, overwrite=overwrite)
        saved = nt.save(aligned, output, overwrite=overwrite, progress="bar")
        for table in tables:
            nt.write_alignment(rows, table)
        report.describe(saved, output)
        if rows.flagged.any():
            click.echo(f"left out: {words(rows.angles_deg[rows.flagged], most=20)}")
        shown = folder is None or _tell(raw, rows, saved, folder, str(series), str(output), chosen)
    following = ["assess", str(output), "-o", "assess/"]
    if not shown:  # nor can projections be left out by assess
        following = ["reconstruct", str(output), "--method", Sirt.name, "-o", "volume.zarr"]
    click.echo(printable(f"next: {shlex.join(['nntomo', *following])}"), err=True)


def beside(output: Path, ending: str) -> Path:
    """The path beside a store for what belongs to it: its name without .zarr, and `ending`."""
    name = output.name
    return output.with_name(f"{name.removesuffix(_SUFFIX)}{ending}")


def _found(raw: xr.DataArray, options: dict[str, Any], table: Path, *, overwrite: bool) -> Alignment:
    """The alignment that is found, or was by this command before; prints what it is."""
    if not table.exists():
        click.echo("finding the alignment", err=True)
    with progress.heard_by(lambda line: click.echo(line, err=True)):
        alignment, now = found_once(raw, finding.align, options, table, overwrite=overwrite)
    kept = alignment.kept
    if now:
        shifts = alignment.displacement_px[kept].std(axis=0)
        click.echo(
            f"tilt axis: {0.0 - np.median(alignment.rotation_deg[kept]):+.2f}° from the vertical and "
            f"{alignment.axis_px:+.2f} px from the middle; shifts of {shifts[0]:.2f} px along and {shifts[1]:.2f} px "
            "across it (standard deviation)"
        )
    click.echo(f"table: {printable(str(table))}{'' if now else ', found before'}", err=True)
    return alignment


def _read(table: Path, raw: xr.DataArray, stretch: imod.Stretch) -> Alignment:
    if table.suffix.lower() not in imod.SUFFIXES:
        support.check_free("stretch", because="is for transforms of IMOD")
        return nt.read_alignment(table)
    named = [table.with_suffix(suffix) for suffix in (".rawtlt", ".tlt")]
    if any(one.is_file() for one in named):
        found = nt.read_alignment(table, stretch=stretch)
    else:
        found = nt.read_alignment(table, angles_deg=raw[schema.ANGLE].values, stretch=stretch)
        click.echo(f"note: no {named[0].name} beside {table}: its lines are taken in the order of the series", err=True)
    return found


def _like(store: Path) -> tuple[Alignment, dict[str, Any]]:
    """The alignment of another series, and how it was applied."""
    other = nt.open(store)
    recipe = recipes.find(recipes.recipe_of(other), "apply_alignment")
    if recipe is None:
        got = f"{store}, which nntomo align did not make"
        refuse("align", needs="a series that was aligned", got=got, remedy="`like`: another store, or `table`")
    return applying.of_recipe(recipe)


def _aligned(path: Path, rows: Alignment, memory: int | None, chosen: dict[str, Any]) -> xr.DataArray:
    """The aligned series, in slabs that keep to the memory."""
    source = nt.open(path)
    if recipes.find(recipes.recipe_of(source), "apply_alignment") is not None:
        click.echo(
            f"note: {path} was aligned before, so its values are interpolated a second time; in Python, "
            "first.then(second) makes one alignment for the raw series",
            err=True,
        )
    with support.slabs_within_memory(applying.host_bytes(source, rows), memory, who="align"):
        aligned = nt.apply_alignment(source, rows, scale=1.0, **chosen)
    cluster.expect(aligned.data.numblocks[0])
    return aligned


def _check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else."""
    if folder.is_dir() and not page.is_page(folder) and any(folder.iterdir()):
        got = f"{folder}, which holds something else"
        refuse(
            "align", needs="a free path, or the folder of such a page", got=got, remedy="`page_folder`: another path"
        )


def _tell(
    raw: xr.DataArray,
    rows: Alignment,
    saved: xr.DataArray,
    folder: Path,
    series: str,
    output: str,
    chosen: dict[str, Any],
) -> bool:
    """Write the page, unless it is there, and say what it shows; returns whether there is one."""
    recipe = recipes.recipe_of(saved)
    if not page.is_of(folder, recipe):
        try:
            found = quality(raw, rows, aligned=saved, angles=chosen.get("angles", "corrected"))
        except nt.SchemaError as error:
            click.echo(f"note: no page about the quality: {error}", err=True)
            return False
        page.write(found, folder, raw=series, output=output, recipe=recipe)
        click.echo(found.verdict())
        for text, good in found.findings():
            click.echo(f"{'' if good else 'look at this: '}{text}")
    click.echo(f"page: {printable(str(folder / page.PAGE))}", err=True)
    return True
