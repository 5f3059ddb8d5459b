"""The verbs of the `nntomo` command that begin with a crystal: simulate, truth, structures."""

import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn, get_args

import click
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.cli import options, report, support
from nntomo_dask.compute import chunking, cluster
from nntomo_dask.errors import refuse
from nntomo_dask.phantoms.phantom import slab_bytes
from nntomo_dask.settings import settings_of
from nntomo_dask.simulation import optics
from nntomo_dask.simulation.specimen import Cut
from nntomo_dask.store.outputs import reserved
from nntomo_dask.store.saving import check_together


class _Numbers(click.ParamType[Any]):
    """Numbers separated by commas, as many as are allowed."""

    name = "numbers"

    def __init__(self, *counts: int) -> None:
        self.counts = counts

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """One number, or a tuple of them."""
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in self.counts:
            examples = (",".join(str(50 + 30 * place) for place in range(count)) for count in self.counts)
            self.fail(f"{value!r}: write {' or '.join(examples)}", param, ctx)
        return numbers[0] if len(numbers) == 1 else numbers


class _Sigma(click.ParamType[Any]):
    """One number, or one for each element."""

    name = "sigma"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """A number, or a dict."""
        try:
            if "=" not in str(value):
                return float(value)
            return {name: float(text) for name, text in (part.split("=") for part in str(value).split(","))}
        except ValueError:
            self.fail(f"{value!r}: write 0.008, or Zr=0.006,other=0.01", param, ctx)


_TYPES = {"detector_mrad": _Numbers(2), "sigma_nm": _Sigma()}
_CUT_TYPES = {"repeat": support.Shape("one count, 2, or three, 2,2,1"), "size_nm": _Numbers(1, 3)}
_ALL_SETTINGS = tuple(one.name for one in settings_of(optics.Imaging))
_CUT = tuple(one.name for one in settings_of(Cut))
_THICKEST_NM = 0.2


def _split(arguments: dict[str, Any], settings: Iterable[str]) -> tuple[dict[str, Any], nt.Imaging]:
    """The keywords of `nntomo_dask.specimen`, and the imaging."""
    cut = {name: arguments[name] for name in _CUT if options.is_given(name)}
    return cut, nt.Imaging(**{name: arguments[name] for name in settings if options.is_given(name)})


def _outputs(structures: tuple[str, ...], output: Path) -> dict[str, Path]:
    """The store of each structure: `output`, or one in it that is named after the structure.

    Structures of one name get as much of their paths as tells them apart: the suffix, or the folders.
    """
    for name, count in Counter(structures).items():
        if count > 1:
            _refuse_equal(f"{name} twice")
    if len(structures) == 1:
        return {structures[0]: output}
    parts = {name: Path(name).parts for name in structures}
    names = {name: Path(name).stem for name in structures}
    for depth in range(1, max(map(len, parts.values())) + 1):
        shared = _shared(names)
        for name in shared:
            names[name] = "-".join(part.strip("/.") for part in parts[name][-depth:])
    if shared := _shared(names):
        _refuse_equal(" and ".join(shared))
    return {name: output / f"{stem}.zarr" for name, stem in names.items()}


def _refuse_equal(got: str) -> NoReturn:
    refuse("simulate", needs="structures that differ", got=got, remedy="give each structure once")


def _shared(names: dict[str, str]) -> list[str]:
    """The structures whose store would have the name of another one, on any file system."""
    counts = Counter(stem.casefold() for stem in names.values())
    return [name for name, stem in names.items() if counts[stem.casefold()] > 1]


@click.command(cls=support.Verb)
@click.argument("structures", nargs=-1, required=True)
@click.option(
    "--mode",
    type=click.Choice(get_args(optics.Modes)),
    default="both",
    show_default=True,
    help="Which images are simulated: dark field (haadf), phase contrast (idpc), or both.",
)
@support.tilts
@options.of(Cut, _CUT_TYPES)
@options.of(optics.Imaging, _TYPES)
@support.output
@support.computing
def simulate(
    structures: tuple[str, ...],
    mode: Any,
    tilt_range: Any,
    count: int | None,
    angles: Path | None,
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
    **arguments: Any,
) -> None:
    """Simulate STEM tilt series of crystals.

    STRUCTURES are names that "nntomo structures" lists, or CIF files. With several of them, OUTPUT is a folder, and
    each gets a store in it, named after the structure (and its folder, where names are equal). With --mode both, the
    store holds two series; other commands take one of them as OUTPUT/haadf or OUTPUT/idpc.

    \b
    Example: 15 projections of one unit cell of UiO-66 between -70° and 70°
      nntomo simulate UiO-66 --range tem --count 15 -o uio66.zarr
    """
    angles_deg = support.tilt_angles(tilt_range, count, angles)
    outputs = _outputs(structures, output)
    cut, settings = _split(arguments, _ALL_SETTINGS)
    inputs = [path for path in (angles, *map(Path, structures)) if path is not None and path.is_file()]
    with reserved("simulate", stores=list(outputs.values()), inputs=inputs, overwrite=overwrite):
        held = {name: nt.specimen(name, **cut) for name in structures}
        series = {name: nt.simulate(one, angles_deg, mode=mode, imaging=settings) for name, one in held.items()}
        check_together({outputs[name]: one for name, one in series.items()}, overwrite=overwrite)
        for name, one in held.items():
            _estimate(name, one, settings, mode, len(angles_deg), memory)
        for name, one in series.items():
            cluster.expect(len(angles_deg))
            saved = nt.save(one, outputs[name], overwrite=overwrite, progress="bar")
            for member, array in saved.items() if mode == "both" else [(None, saved)]:
                report.describe(array, outputs[name] / member if member else outputs[name])


def _estimate(name: str, held: Any, settings: Any, mode: str, count: int, memory: int | None) -> None:
    """Print the time and memory that a series will take; a SchemaError if the memory is too small."""
    from nntomo_dask.simulation import cost

    modes = get_args(optics.Mode) if mode == "both" else (mode,)
    plan = optics.plan(held, settings, modes)
    needed = cost.cost(held, plan, settings, modes)
    support.slices_within_memory(
        lambda _: needed.worker_bytes, (count, 1, 1), memory, wanted=1, who="simulate", piece="one projection"
    )
    workers = min(cluster.current_workers(), count)
    total = chunking.peak_bytes(needed.worker_bytes, workers=workers, processes=cluster.current_processes())
    if "haadf" in modes and settings.slice_thickness_nm > _THICKEST_NM:
        click.echo(
            f"note: slices of {settings.slice_thickness_nm:g} nm are too thick for HAADF where atoms stand in rows "
            f"along the beam; use --slice-thickness-nm {_THICKEST_NM:g} or less",
            err=True,
        )
    seconds = needed.seconds()
    click.echo(
        f"{name}: {len(held.numbers)} atoms, {count} projections of {settings.pixels}² pixels, {plan.pixel_nm:.4f} nm "
        f"each; waves of {plan.grid}² points, interpolation {plan.interpolation}\n"
        f"about {seconds:.1f} s for each projection on one core, {_duration(seconds * count / workers)} in total with "
        f"{workers} {'worker' if workers == 1 else 'workers'}; {total / 2**20:.0f} MiB of memory",
        err=True,
    )


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


@click.command(cls=support.Verb)
@click.argument("structure", required=False)
@click.option(
    "--like",
    type=support.PATH,
    help="A simulated series, or a reconstruction of one. The crystal, the specimen, the grid and all settings of the "
    "truth are taken from it. STRUCTURE is needed only for a CIF file that is not in the current folder.",
)
@click.option(
    "--mode",
    type=click.Choice(get_args(optics.Mode)),
    help="The kind of image whose truth is made: dark field (haadf) or phase contrast (idpc). It may be left out with "
    "--like and a series of one kind.",
)
@click.option(
    "--exponent",
    type=float,
    help="For --mode haadf: weight each atom by this power of its atomic number. Default: by its scattering factor.",
)
@options.of(Cut, _CUT_TYPES)
@options.of(optics.Imaging, _TYPES, only=optics.SETTINGS_OF_TRUTH)
@support.output
@support.computing
def truth(
    structure: str | None,
    like: Path | None,
    mode: Any,
    exponent: float | None,
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
    **arguments: Any,
) -> None:
    """Make the volume that a perfect reconstruction of a simulated series would show.

    It is calculated from the crystal itself, on the grid of the simulated series. --like takes all settings from the
    series, so that the truth fits it. Without --like, give the options that you gave to "nntomo simulate"; those that
    do not change the truth, such as the dose or the drift, do not exist here.

    \b
    Example: the truth of the iDPC series of the example of "nntomo simulate"
      nntomo truth --like uio66.zarr/idpc -o truth.zarr
    """
    inputs = [Path(name) for name in (structure, like) if name is not None and Path(name).exists()]
    with reserved("truth", stores=[output], inputs=inputs, overwrite=overwrite):
        with support.slabs_within_memory(slab_bytes, memory, who="truth"):
            volume = _truth(structure, like, mode, exponent, arguments)
        report.describe(nt.save(volume, output, overwrite=overwrite, progress="bar"), output)


def _truth(structure: str | None, like: Path | None, mode: Any, exponent: float | None, arguments: Any) -> xr.DataArray:
    """The volume that the options ask for, lazy."""
    if like is not None:
        fixed = tuple(name for name in (*_CUT, *optics.SETTINGS_OF_TRUTH) if name != "block")
        support.check_free(*fixed, because="is taken from --like; leave it out")
        return nt.ground_truth_like(
            nt.open(like), structure=structure, mode=mode, exponent=exponent, block=arguments["block"]
        )
    if structure is None or mode is None:
        raise click.UsageError("give --like SERIES, or a structure and --mode")
    cut, settings = _split(arguments, optics.SETTINGS_OF_TRUTH)
    return nt.ground_truth(nt.specimen(structure, **cut), mode=mode, imaging=settings, exponent=exponent)


@click.command()
def structures() -> None:
    """List the crystals that simulate and truth know by name.

    Each line begins with the name; other names of the same crystal follow after "also". Any of them can be given. CIF
    files can be given instead. A file of one of these crystals may have another origin or cell: give either the name or
    the file to both simulate and truth.

    \b
    Example: the line of UiO-66
      nntomo structures | grep -A 1 UiO-66
    """
    from nntomo_dask.simulation.structures import crystals

    for entry in crystals().values():
        atoms = entry.atoms()
        a, b, c, *angles = entry.cell
        skewed = "" if angles == [90, 90, 90] else ", " + " ".join(f"{angle:g}°" for angle in angles)
        click.echo(f"{entry.name}: {atoms.get_chemical_formula()}; {a:g} × {b:g} × {c:g} Å{skewed}")
        others = f"also {' or '.join(_as_typed(name) for name in entry.aliases)}; " if entry.aliases else ""
        click.echo(f"    {others}{entry.reference}{'; ' + entry.note if entry.note else ''}")


def _as_typed(name: str) -> str:
    """A name as a shell takes it: in quotes where it has brackets or blanks."""
    return shlex.quote(name)
