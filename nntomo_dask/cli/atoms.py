"""The verb `atoms`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.arrays import schema
from nntomo_dask.atoms import table
from nntomo_dask.atoms.finding import Finding
from nntomo_dask.atoms.sampling import Sampling
from nntomo_dask.cli import options, report, series_atoms, support
from nntomo_dask.compute import chunking, cluster
from nntomo_dask.settings import check_settings
from nntomo_dask.store import outputs
from nntomo_dask.untrusted import printable

_TABLES = (".csv", ".xyz", ".extxyz")
_OF_CRYSTAL = ("repeat", "tilt_axis", "limit", "align")
_OF_VOLUME = ("threshold", "faintest", "count", "scale", "boundaries", "folds", "memory")


class Elements(click.ParamType[Any]):
    """Symbols with commas between them, or each with its number of atoms."""

    name = "Zr,O|Zr=24,O=120"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """A tuple of symbols, or a dict."""
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(",") if part.strip()]
        if not any("=" in part for part in parts):
            return tuple(parts)
        try:
            return {name.strip(): int(number) for name, number in (part.split("=") for part in parts)}
        except ValueError:
            self.fail(f"{value!r}: write Zr,O,C, or Zr=24,O=120", param, ctx)


class Boundaries(click.ParamType[Any]):
    """Numbers with commas between them."""

    name = "number,number"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """A tuple of numbers."""
        if not isinstance(value, str):
            return value
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r}: write numbers with commas between them", param, ctx)


@click.command(cls=series_atoms.Verb)
@click.argument("store", type=support.PATH)
@click.option(
    "-o",
    "--output",
    type=support.PATH,
    required=True,
    help="File to write; .csv has all columns, .xyz and .extxyz have positions in Å, .cif needs --elements.",
)
@click.option("--overwrite", is_flag=True, help="Overwrite existing files.")
@click.option(
    "--elements",
    cls=options.SettingOption,
    setting="species",
    type=Elements(),
    metavar=Elements.name,
    help="Elements of the atoms, heavier ones for brighter atoms. With numbers of atoms, Zr=24,O=120, the brightest 24 "
    "are Zr; without, they are divided where the brightness has gaps.",
)
@click.option(
    "--boundaries",
    type=Boundaries(),
    help="What an atom adds up to at the boundary between two elements, in units of the volume times px³; one less "
    "than elements. Default: by k-means.",
)
@options.of(Finding)
@options.of(Sampling)
@series_atoms.stages
@click.option(
    "--fold",
    "folds",
    type=support.PATH,
    multiple=True,
    help="Another volume of the same specimen, such as a reconstruction without some projections; the table says which "
    "share of them has each atom too. May be repeated.",
)
@click.option(
    "--refine",
    type=support.PATH,
    help="The tilt series of the specimen: positions, heights and widths are fitted to its projections. Prints how "
    "well these are met and the standard errors of the positions, which the table has too.",
)
@click.option(
    "--crystal",
    cls=options.SettingOption,
    setting="reference",
    help="The structure that was imaged: a file of atoms (.csv, .xyz, .extxyz) as they lie in the volume, or a CIF or "
    "a name that nntomo structures lists, whose unit cells are taken. Prints how many of its atoms were found.",
)
@click.option(
    "--repeat",
    type=support.Shape("one count, 2, or three, 2,2,1"),
    help="For --crystal: number of unit cells along a, b and c. Default: 1.",
)
@click.option(
    "--tilt-axis",
    type=click.Choice(["a", "b", "c"]),
    help="For --crystal: the cell vector along the tilt axis. Default: c.",
)
@click.option(
    "--limit",
    type=float,
    metavar="NM",
    help="For --crystal: farthest that a found atom may be from that of "
    "the structure, in nm. Default: half the distance of the nearest two, at most 0.1.",
)
@click.option(
    "--align",
    type=click.Choice(["none", "shift", "rigid"]),
    help="For --crystal: compare positions as they are, shift the found atoms first, or rotate them by a few degrees "
    "too. Default: shift.",
)
@click.option(
    "--figure",
    type=support.PATH,
    help="Also draw the atoms over slices of the volume to this file. With --crystal, a histogram of displacements "
    "is written beside it, NAME-displacements. The suffix chooses the format, PNG by default.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
@support.computing
def atoms(
    store: Path,
    output: Path,
    overwrite: bool,  # noqa: FBT001
    elements: Any,
    boundaries: Any,
    folds: tuple[Path, ...],
    refine: Path | None,
    crystal: str | None,
    figure: Path | None,
    as_json: bool,  # noqa: FBT001
    memory: int | None,
    **arguments: Any,
) -> None:
    """Find the atoms of a volume, or of a tilt series of low dose.

    Of a series, the noise is found, projections are smoothed, a volume is reconstructed, and from its maxima on atoms
    are sampled from their likelihood in the projections: they are told by all of the counts, and each has a standard
    error. Every stage can be replaced.

    \b
    Examples:
      nntomo atoms volume.zarr -o atoms.csv
      nntomo atoms series.zarr -o atoms.csv --elements Si --page atoms/
      nntomo atoms series.zarr -o atoms.csv --elements Si --method tv --last projections
      nntomo atoms volume.zarr -o atoms.xyz --elements Zr,O --figure atoms.png
      nntomo atoms volume.zarr -o atoms.csv --crystal UiO-66
      nntomo atoms volume.zarr -o atoms.csv --refine series.zarr
    """
    from nntomo_dask.atoms import files, find, match as matching

    files.check_suffix(output, who="atoms")
    settings = options.build(Finding, arguments)
    check_settings(settings, who="atoms")
    if crystal is None:
        support.check_free(*_OF_CRYSTAL, because="is for --crystal")
    elif Path(crystal).suffix.lower() in _TABLES:
        support.check_free("repeat", "tilt_axis", because="is for a crystal, not for a file of atoms")
    if output.suffix.lower() == ".cif" and elements is None:
        raise click.UsageError("a CIF needs the elements of the atoms: --elements Zr,O")
    figures = [] if figure is None else [figure]
    if figure is not None and crystal is not None:
        figures.append(_beside(figure))
    kept = [one for one in figures if report.is_figure(one)]
    written = [output, *(one for one in figures if one not in kept)]
    folder: Path | None = arguments["folder"]
    pages = [] if folder is None else [folder / name for name in series_atoms.FILES]
    inputs = [
        store,
        *folds,
        *([] if refine is None else [refine]),
        *([Path(crystal)] if crystal is not None and Path(crystal).is_file() else []),
        *series_atoms.inputs(arguments),
    ]
    with outputs.reserved("atoms", written=written, replaced=[*kept, *pages], inputs=inputs, overwrite=overwrite):
        reference = None if crystal is None else _structure(crystal, arguments)
        limit: float | None = arguments["limit"]
        matching.check_limit(limit)
        if series_atoms.is_series(store):
            support.check_free(*_OF_VOLUME, because="is for a volume, and this is a tilt series")
            support.check_free("refine", because="is for a volume; a tilt series has --last projections")
            volume, found = series_atoms.found(store, elements, arguments)
        else:
            series_atoms.refuse_all()
            volume, others, slices = _opened(store, folds, settings, memory)
            found = find.search(volume, settings, species=elements, boundaries=boundaries, folds=others, slices=slices)
        if refine is not None:
            kept_names = [name for name in ("atom_width", "minimum_distance", "noise") if name in found.attrs]
            said = {name: found.attrs[name] for name in kept_names}
            found = nt.refine_atoms(found, nt.open(refine)).assign_attrs(said)
        nt.write_atoms(found, output)  # atoms of another structure are atoms all the same
        match = None
        try:
            if reference is not None:
                align: Any = arguments["align"] or "shift"
                match = nt.match_atoms(found, reference, limit=limit, align=align)
        finally:
            _tell(found, match, output, as_json=as_json)
        if figure is not None:
            _draw(volume, found, match, figure)


def _opened(
    path: Path, folds: tuple[Path, ...], settings: Finding, memory: int | None
) -> tuple[xr.DataArray, list[xr.DataArray], Callable[[int], int]]:
    """The volume and the folds, and slices of a slab within the memory by the slices that it needs beside it."""
    from nntomo_dask.atoms import find

    def planned(volume: xr.DataArray, border: int, wanted: int, chunk: int | None) -> int:
        def host_bytes(shape: chunking.SlabShape) -> int:
            return find.host_bytes(shape, border=border, chunk=chunk or shape[0])

        depth, height, length = volume.shape
        apart = find.fixed_bytes(volume.shape)
        return support.slices_within_memory(
            host_bytes, (depth, height, length), memory, wanted=wanted, who="atoms", apart=apart
        )

    def chunks(volume: xr.DataArray) -> int:
        schema.check_volume(volume, who="atoms", slices="any")
        width = None if settings.width is None else settings.width / schema.pixel_size_of(volume)
        return planned(volume, find.least_border(width), min(volume.data.chunks[0][0], chunking.SLAB_SLICES), None)

    def slices(border: int) -> int:
        return planned(volume, border, max(len(volume) // (2 * cluster.current_workers()), 1), height)

    volume = nt.open(path, slices=chunks)
    height = volume.data.chunks[0][0]
    return volume, [nt.open(one, slices=height) for one in folds], slices


def _structure(crystal: str, arguments: dict[str, Any]) -> xr.Dataset:
    """The atoms of a file as they are, or those of unit cells of a crystal around the tilt axis."""
    if Path(crystal).suffix.lower() in _TABLES:
        return nt.read_atoms(crystal)
    tilt_axis: Any = arguments["tilt_axis"] or "c"
    return table.from_specimen(nt.specimen(crystal, repeat=arguments["repeat"] or 1, tilt_axis=tilt_axis))


def _tell(found: xr.Dataset, match: Any, output: Path, *, as_json: bool) -> None:
    confidence = found["confidence"].values
    figures: dict[str, Any] = {
        "atoms": int(found.sizes["atom"]),
        "width_nm": float(found.attrs["atom_width"]),
        "minimum_distance_nm": float(found.attrs["minimum_distance"]),
        **({"noise": float(found.attrs["noise"])} if "noise" in found.attrs else {}),
        "least_confidence": float(confidence.min()),
    }
    if table.REFINED in found:
        figures |= _refined(found)
    named = found["species"].values.tolist()
    figures["species"] = {name: named.count(name) for name in sorted(set(named)) if name}
    if as_json:
        matched = {} if match is None else {"match": match.summary()}
        click.echo(json.dumps(figures | matched, indent=2))
        return
    of_volume = "noise" in found.attrs
    what, unit = ("heights", "times the noise") if of_volume else ("significance", "standard deviations")
    kinds = "".join(f", {count} {name}" for name, count in figures["species"].items())
    click.echo(f"{printable(str(output))}: {figures['atoms']} atoms{kinds}")
    click.echo(
        f"width {figures['width_nm']:.3g} nm, at least {figures['minimum_distance_nm']:.3g} nm apart; {what} from "
        f"{figures['least_confidence']:.3g} to {confidence.max():.3g} {unit}"
    )
    if table.REFINED in found:
        error = figures["position_error_pm"]
        moved = (
            "none of them moved, since the projections show none: is it the series of this volume?"
            if error is None
            else f"{figures['refined']} of them moved to where the projections show them, with a standard error of "
            f"{error:.3g} pm"
        )
        click.echo(f"{moved}; misfit of the pixels {figures['misfit']:.3g} times that of the noise")
    if match is None:
        return
    click.echo(
        f"of {match.reference.sizes['atom']} atoms of the structure {len(match.rows)} were found, "
        f"{100 * match.recall:.4g} %; of the found ones {100 * match.precision:.4g} % are of it; "
        f"{match.rmsd_pm:.3g} pm root mean square"
    )
    species = match.by_species()
    for place, name in enumerate(species["species"].values):
        one = species.isel(species=place)
        named_right = "" if bool(one["named"].isnull()) else f", {100 * float(one['named']):.4g} % named so"
        counts = f"{int(one['found'])} of {int(one['atoms'])}"
        off = f", {float(one['rmsd']):.3g} pm" if int(one["found"]) else ""
        click.echo(f"  {name or 'unknown'}: {counts}{off}{named_right}")
    ways = match.by_direction()
    click.echo(
        f"  {ways['axis']:.3g} pm along the tilt axis, {ways['beam']:.3g} pm along the beam at 0°, "
        f"{ways['across']:.3g} pm across both"
    )


def _refined(found: xr.Dataset) -> dict[str, Any]:
    """How many atoms moved, the root mean square of their standard errors in space, and the mean misfit."""
    moved = found[table.REFINED].values == 1
    squares = np.sum([found[name].values[moved] ** 2 for name in table.ERRORS], axis=0)
    return {
        "refined": int(moved.sum()),
        "position_error_pm": 1000 * float(np.sqrt(squares.mean())) if moved.any() else None,
        "misfit": float(np.mean(found.attrs["projections"]["misfit"])),
    }


def _draw(volume: xr.DataArray, found: xr.Dataset, match: Any, figure: Path) -> None:
    drawn = nt.plot_atoms(
        volume, found if match is None else match.found, reference=None if match is None else match.reference
    )
    click.echo(f"figure: {printable(str(nt.save_figure(drawn, figure)))}", err=True)
    if match is not None and len(match.rows):
        drawn = nt.plot_displacements(match.displacements, limit=match.limit)
        click.echo(f"figure: {printable(str(nt.save_figure(drawn, _beside(figure))))}", err=True)


def _beside(figure: Path) -> Path:
    return figure.with_name(f"{figure.stem}-displacements{figure.suffix}")
