"""The `nntomo` command: one verb a function, no arithmetic."""

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import nntomo_dask as nt
from nntomo_dask import store
from nntomo_dask.arrays import schema
from nntomo_dask.cli import networks as cli_networks
from nntomo_dask.cli import report as report
from nntomo_dask.cli import simulation as cli_simulation
from nntomo_dask.cli import support as support
from nntomo_dask.compute import cluster


@click.group(cls=support.Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="nntomo_dask")
def main() -> None:
    """Electron tomography from a few projections.

    Import a tilt series, train a network for it, reconstruct, compare. Volumes and series are Zarr stores; a command
    that was interrupted goes on where it stopped when it is given again. Start with: nntomo demo
    """


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def demo(options: tuple[str, ...]) -> None:
    """Run the quickstart study.

    A particle, 8 projections, four reconstructions, a table and a figure.
    """
    from nntomo_dask.pipelines import quickstart

    quickstart.main(list(options), prog_name="nntomo demo", standalone_mode=False)


@main.command("import")
@click.argument("source", type=support.PATH)
@click.option(
    "--angles", type=support.PATH, help="Tilt angles: .rawtlt, .tlt (a number a line) or .mdoc. Without: a volume."
)
@click.option(
    "--tilt-axis", type=click.Choice(["x", "y"]), default="y", show_default=True, help="Image axis of the tilt."
)
@click.option(
    "--background",
    default="0",
    show_default=True,
    help="Counts where there is no specimen, taken off: a number, or auto for the dimmest 5 % of the pixels.",
)
@click.option(
    "--keep", metavar="START:STOP:STEP", help="Keep the projections nearest to these angles, such as -70:70:10."
)
@click.option("--fill", type=float, help="Value for pixels that are NaN or infinite; without it they are refused.")
@support.output
@support.computing
def import_(
    source: Path,
    angles: Path | None,
    tilt_axis: Any,
    background: str,
    keep: str | None,
    fill: float | None,
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
) -> None:
    """Import a tilt series from an MRC file.

    The series is aligned already; without --angles the file is a volume.
    """
    if angles is None:
        support.check_free("tilt_axis", "background", "keep", "fill", because="is for a series; give its --angles too")
        array = nt.read_mrc_volume(source)
    else:
        angles_deg = nt.read_tilt_angles(angles)
        counts = support.background_of(nt.read_mrc_series(source, angles_deg, tilt_axis=tilt_axis), background)
        wanted = None if keep is None else support.angles_of(keep)
        array = nt.read_mrc_series(
            source, angles_deg, tilt_axis=tilt_axis, keep_deg=wanted, background=counts, fill=fill
        )
    support.check_memory("copy", array, memory)
    nt.check_finite(array, who="import")
    report.describe(nt.save(array, output, overwrite=overwrite, progress="bar"), output)


@main.command()
@click.argument("kind", type=click.Choice(["spheres", "ellipses", "particle", "mixed"]))
@click.option("--size", type=support.Shape(), default="128", show_default=True, help="N, or Z,Y,X.")
@click.option("--seed", default=0, show_default=True, help="Another seed, another phantom.")
@click.option("--number", type=int, help="Spheres in all, ellipses a slice, or pores of the particle.")
@click.option("--pixel-size", default=1.0, show_default=True, help="Edge of a voxel, in pixels of the specimen.")
@support.output
@support.computing
def phantom(
    kind: str,
    size: Any,
    seed: int,
    number: int | None,
    pixel_size: float,
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
) -> None:
    """Make a phantom volume.

    Spheres, a stack of slices with ellipses or of every kind (mixed), or a faceted particle.
    """
    makers: dict[str, tuple[Callable[..., Any], str | None]] = {
        "spheres": (nt.random_spheres, "n_spheres"),
        "ellipses": (nt.ellipse_stack, "n_ellipses"),
        "particle": (nt.nanoparticle, "n_pores"),
        "mixed": (nt.mixed_stack, None),
    }
    make, counted = makers[kind]
    counts = {}
    if number is not None:
        if counted is None:
            raise click.BadParameter("a mixed stack draws its own", param_hint="--number")
        counts[counted] = number
    volume = make(size, seed=seed, pixel_size=pixel_size, **counts)
    support.check_memory("phantom", volume, memory)
    cluster.expect(volume.data.numblocks[0])
    report.describe(nt.save(volume, output, overwrite=overwrite, progress="bar"), output)


@main.command()
@click.argument("volume", type=support.PATH)
@click.option("--range", "tilt_range", type=click.Choice(["full", "tem"]), help="full: -90° to 90°; tem: ±70°.")
@click.option("--count", type=int, help="Projections in the range.")
@click.option("--angles", type=support.PATH, help="A file of tilt angles instead of --range and --count.")
@click.option("--engine", type=click.Choice(["native", "astra"]), default="native", show_default=True)
@support.output
@support.computing
def project(
    volume: Path,
    tilt_range: Any,
    count: int | None,
    angles: Path | None,
    engine: Any,
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
) -> None:
    """Project a volume to a tilt series."""
    if (angles is None) == (tilt_range is None or count is None):
        raise click.UsageError("give either --range and --count, or --angles FILE")
    angles_deg = nt.read_tilt_angles(angles) if angles else nt.tilt_angles(tilt_range, count)
    source = nt.open(volume)
    nt.check_volume(source, who="project")
    slices = support.slices_within_memory("project", source, len(angles_deg), memory)
    cluster.expect(source.sizes[schema.Z] // slices)
    projected = nt.project(nt.open(volume, slices=slices), angles_deg, engine=engine)
    report.describe(nt.save(projected, output, overwrite=overwrite, progress="bar"), output)


@main.command()
@click.argument("volumes", type=support.PATH, nargs=-1, required=True)
@click.option("--reference", type=support.PATH, required=True, help="The volume to compare with.")
@click.option(
    "--region",
    type=click.Choice(["all", "disc"]),
    default="all",
    show_default=True,
    help="MSE, PSNR and SSIM over all voxels, or those that every projection sees.",
)
@click.option("--figure", type=support.PATH, help="Also draw slices and isosurfaces to this PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@support.computing
def compare(
    volumes: tuple[Path, ...],
    reference: Path,
    region: Any,
    figure: Path | None,
    as_json: bool,  # noqa: FBT001
    memory: int | None,
) -> None:
    """Compare volumes with a reference.

    Mean square error, peak signal-to-noise ratio, structural similarity, and the resolution at which the Fourier shell
    correlation falls below 0.5 and 0.143.
    """
    truth = nt.open(reference)
    budget = support.compare_memory(truth, memory)
    table = {str(path): report.errors_of(nt.open(path), truth, region, budget) for path in volumes}
    if figure is not None:
        report.draw_comparison(table, truth, reference, figure)
    if as_json:
        click.echo(json.dumps(report.finite(table), indent=2))
    else:
        report.print_table(table, reference, region, truth.attrs["units"])


@main.command()
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


@main.command()
@click.argument("path", type=support.PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the whole recipe as JSON.")
@click.option(
    "--verify",
    is_flag=True,
    help="Read a store's every chunk; damaged ones are set aside, and made again by running what wrote it.",
)
def info(path: Path, as_json: bool, verify: bool) -> None:  # noqa: FBT001
    """Say what a store or a network is, and how it was made."""
    whole = report.verify(store.member(path)[0]) if verify and not path.is_file() else True
    # Of JSON nothing else may stand beside it.
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        recipe = report.describe_file(path) if path.is_file() else report.describe_store(path)
    click.echo(json.dumps(recipe, indent=2) if as_json else "made by:\n" + "\n".join(report.recipe_lines(recipe)))
    sys.exit(0 if whole else 1)


for verb in (
    cli_networks.train,
    cli_networks.reconstruct,
    cli_simulation.simulate,
    cli_simulation.truth,
    cli_simulation.structures,
):
    main.add_command(verb)


if __name__ == "__main__":
    sys.exit(main())
