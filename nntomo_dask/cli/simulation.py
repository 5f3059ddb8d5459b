"""The verbs of the `nntomo` command that begin with a crystal."""

from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args

import click

import nntomo_dask as nt
from nntomo_dask.cli import report as report
from nntomo_dask.cli import support as support
from nntomo_dask.compute import chunking, cluster
from nntomo_dask.phantoms.phantom import slab_bytes

_HELP = {
    "energy_ev": "Energy of the electrons [eV].",
    "convergence_mrad": "Semi-angle of the probe.",
    "detector_mrad": "Inner and outer angle of the dark-field detector: 50,80.",
    "pixels": "Along the detector and along the tilt axis.",
    "field_of_view_nm": "Width of a projection. Default: the specimen and 0.1 nm on each side.",
    "slice_thickness_nm": "Of the slices in which the beam is scattered; 0.2 is nearly twice as fast.",
    "algorithm": "PRISM, or multislice of every probe, which takes ten times as long or more.",
    "interpolation": "Of PRISM. Default: as much as leaves the probe room; 1 is exact.",
    "idpc": "How the phase is found.",
    "defocus_nm": "From the tilt axis; above 0 is underfocus.",
    "cs_mm": "Spherical aberration.",
    "astigmatism_nm": "Twofold astigmatism.",
    "astigmatism_deg": "Its direction.",
    "coma_nm": "Axial coma.",
    "coma_deg": "Its direction.",
    "focal_spread_nm": "Standard deviation of the defocus.",
    "phonons": "Frozen-phonon configurations; 0: atoms that stand still.",
    "sigma_nm": "Displacement of the atoms: a number, or by element: Zr=0.006,other=0.01.",
    "dose": "Electrons a square ångström, with Poisson noise. Default: no noise.",
    "dose_per": "What the dose is of.",
    "source_size_nm": "Full width at half maximum of the electron source.",
    "blur_nm": "Gaussian blur of the finished images, standard deviation.",
    "drift_nm": "Random displacement of each projection, standard deviation.",
    "jitter_nm": "Random displacement of each scan line, standard deviation.",
    "seed": "Of all that is random.",
}


class _Numbers(click.ParamType[Any]):
    """Numbers with commas between: one, or as many as are allowed."""

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
    """A number, or numbers by element."""

    name = "sigma"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """A number, or a dict."""
        try:
            if "=" not in str(value):
                return float(value)
            return {name: float(text) for name, text in (part.split("=") for part in str(value).split(","))}
        except ValueError:
            self.fail(f"{value!r}: write 0.008, or Zr=0.006,other=0.01", param, ctx)


def imaging(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every verb that needs to know how the microscope is set: one a field of `Imaging`."""
    from nntomo_dask.simulation import optics

    types: dict[str, Any] = {"detector_mrad": _Numbers(2), "sigma_nm": _Sigma()}
    types |= {"field_of_view_nm": float, "interpolation": int, "dose": float}
    for name, choices in (("algorithm", optics.Algorithm), ("idpc", optics.Route), ("dose_per", optics.DosePer)):
        types[name] = click.Choice(get_args(choices))
    for field in reversed(fields(optics.Imaging)):
        default = ",".join(f"{part:g}" for part in field.default) if isinstance(field.default, tuple) else field.default
        assert field.default is not MISSING
        option = click.option(
            "--" + field.name.replace("_", "-"),
            type=types.get(field.name, type(field.default)),
            default=default,
            show_default=field.default is not None,
            help=_HELP[field.name],
        )
        command = option(command)
    return command


def specimen(command: Callable[..., None]) -> Callable[..., None]:
    """Options of what is cut from the crystal."""
    for option in reversed(
        [
            click.option(
                "--shape",
                type=click.Choice(["cells", "sphere", "cuboid", "octahedron"]),
                default="cells",
                show_default=True,
                help="Whole cells, or a particle.",
            ),
            click.option("--repeat", type=support.Shape(), default="1", show_default=True, help="cells: N, or A,B,C."),
            click.option("--size-nm", type=_Numbers(1, 3), help="Particle: its size, or the edges X,Y,Z of a cuboid."),
            click.option(
                "--tilt-axis",
                type=click.Choice(["a", "b", "c"]),
                default="c",
                show_default=True,
                help="Cell vector along the tilt axis.",
            ),
        ]
    ):
        command = option(command)
    return command


_THICKEST_NM = 0.2
_SPECIMEN = ("shape", "repeat", "size_nm", "tilt_axis")


def _split(arguments: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The keywords of `nntomo_dask.specimen`, and the imaging; the other arguments stay."""
    cut = {name: arguments.pop(name) for name in _SPECIMEN}
    settings = {field.name: arguments.pop(field.name) for field in fields(nt.Imaging)}
    return cut, nt.Imaging(**settings)


@click.command()
@click.argument("structures", nargs=-1, required=True)
@click.option("--mode", type=click.Choice(["haadf", "idpc", "both"]), default="both", show_default=True)
@click.option("--range", "tilt_range", type=click.Choice(["full", "tem"]), help="full: -90° to 90°; tem: ±70°.")
@click.option("--count", type=int, help="Projections in the range.")
@click.option("--angles", type=support.PATH, help="A file of tilt angles instead of --range and --count.")
@specimen
@imaging
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

    STRUCTURES are names from nntomo structures, or CIF files; of several, OUTPUT is a folder. A store of both modes is
    taken apart by its path: OUTPUT/haadf and OUTPUT/idpc are the series that other verbs take.
    """
    if (angles is None) == (tilt_range is None or count is None):
        raise click.UsageError("give either --range and --count, or --angles FILE")
    angles_deg = nt.read_tilt_angles(angles) if angles else nt.tilt_angles(tilt_range, count)
    cut, settings = _split(arguments)
    held = {name: nt.specimen(name, **cut) for name in structures}
    outputs = {name: output / f"{Path(name).stem}.zarr" if len(held) > 1 else output for name in held}
    series = {name: nt.simulate(one, angles_deg, mode=mode, imaging=settings) for name, one in held.items()}
    for name, one in held.items():
        _estimate(name, one, settings, mode, len(angles_deg), memory)
    for name, one in series.items():
        cluster.expect(len(angles_deg))
        saved = nt.save(one, outputs[name], overwrite=overwrite, progress="bar")
        for member, array in saved.items() if mode == "both" else [(None, saved)]:
            report.describe(array, outputs[name] / member if member else outputs[name])


def _estimate(name: str, held: Any, settings: Any, mode: str, count: int, memory: int | None) -> None:
    """Say what a series is going to take; a SchemaError where the memory does not suffice."""
    from nntomo_dask.simulation import cost, optics

    modes = get_args(optics.Mode) if mode == "both" else (mode,)
    plan = optics.plan(held, settings, modes)
    needed = cost.cost(held, plan, settings, modes)
    workers = min(cluster.current_workers(), count)
    total = chunking.PROCESS_BYTES + cluster.current_processes() * chunking.WORKER_BYTES + workers * needed.worker_bytes
    chunking.check_budget(support.budget(memory), total, "simulate", f"{workers} projections at once")
    if "haadf" in modes and settings.slice_thickness_nm > _THICKEST_NM:
        click.echo(
            f"note: slices of {settings.slice_thickness_nm:g} nm are too thick for HAADF where atoms stand in rows "
            f"along the beam; {_THICKEST_NM:g} nm or less",
            err=True,
        )
    seconds = needed.seconds()
    click.echo(
        f"{name}: {len(held.numbers)} atoms, {count} projections of {settings.pixels}² pixels, {plan.pixel_nm:.4f} nm "
        f"each; waves of {plan.grid}² points, interpolation {plan.interpolation}\n"
        f"about {seconds:.1f} s a projection and core, {_duration(seconds * count / workers)} in all with {workers} "
        f"workers; {total / 2**20:.0f} MiB",
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


@click.command()
@click.argument("structure")
@click.option("--mode", type=click.Choice(["haadf", "idpc"]), required=True)
@click.option("--exponent", type=float, help="haadf: weigh atoms by this power of Z. Default: by scattering factors.")
@specimen
@imaging
@support.output
@support.computing
def truth(
    structure: str,
    mode: Any,
    exponent: float | None,
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
    **arguments: Any,
) -> None:
    """Make the volume that a simulated series is of.

    From the crystal itself, on the grid of nntomo simulate with the same options: what a perfect reconstruction would
    show.
    """
    cut, settings = _split(arguments)
    volume = nt.ground_truth(nt.specimen(structure, **cut), mode=mode, imaging=settings, exponent=exponent)
    support.check_memory(slab_bytes, volume, memory, who="truth")
    report.describe(nt.save(volume, output, overwrite=overwrite, progress="bar"), output)


@click.command()
def structures() -> None:
    """List the crystals that simulate and truth know by name."""
    from nntomo_dask.simulation.structures import crystals

    for entry in crystals().values():
        atoms = entry.atoms()
        a, b, c, *angles = entry.cell
        skewed = "" if angles == [90, 90, 90] else ", " + " ".join(f"{angle:g}°" for angle in angles)
        aliases = f" ({', '.join(entry.aliases)})" if entry.aliases else ""
        click.echo(f"{entry.name}{aliases}: {atoms.get_chemical_formula()}; {a:g} × {b:g} × {c:g} Å{skewed}")
        click.echo(f"    {entry.reference}{'; ' + entry.note if entry.note else ''}")
