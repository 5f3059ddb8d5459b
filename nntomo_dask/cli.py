"""The `nntomo` command: one verb a function, no arithmetic."""

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import nntomo_dask as nt
from nntomo_dask import cli_report as report
from nntomo_dask import cli_simulation, cluster, schema, store
from nntomo_dask import cli_support as support
from nntomo_dask.store import lock


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
        support.check_series_only("tilt_axis", "background", "keep", "fill")
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
@click.option("--for", "target", type=support.PATH, help="The series to train for: its angles and detector are taken.")
@click.option(
    "--phantom",
    type=click.Choice(["ellipses", "mixed", "spheres"]),
    default="ellipses",
    show_default=True,
    help="What the network learns from: ellipses for one material, mixed for a specimen nothing is known of.",
)
@click.option(
    "--slices", type=click.IntRange(min=4), default=400, show_default=True, help="Slices of the training phantom."
)
@click.option(
    "--series", "all_series", type=support.PATH, multiple=True, help="A training series of your own; repeatable."
)
@click.option(
    "--volume", "volumes", type=support.PATH, multiple=True, help="The volume of each --series, in their order."
)
@click.option("--validation-series", type=support.PATH, multiple=True, help="As --series, for validation; repeatable.")
@click.option("--validation-volume", type=support.PATH, multiple=True, help="The volume of each --validation-series.")
@click.option(
    "--samples",
    default=100_000,
    show_default=True,
    help="Training voxels, and as many for validation; above 1048576 kept beside OUTPUT, in chunks.",
)
@click.option("--hidden", default=8, show_default=True, help="Hidden nodes: learned filters.")
@click.option("--activation", type=click.Choice(["relu", "sigmoid"]), default="relu", show_default=True)
@click.option("--binning", type=click.Choice(["exponential", "none"]), default="exponential", show_default=True)
@click.option(
    "--wedge",
    type=click.Choice(["complete", "keep"]),
    default="complete",
    show_default=True,
    help="Fill the missing wedge by interpolation before filtering, or not.",
)
@click.option(
    "--solver", type=click.Choice(["lm", "adam"]), default="lm", show_default=True, help="adam holds all in memory."
)
@click.option("--max-epochs", type=int, help="Default: 500 for lm, 10000 for adam.")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--output", type=support.PATH, required=True, help="The network to write, NAME.safetensors.")
@support.OVERWRITE
@support.computing
def train(
    target: Path | None,
    phantom: Any,
    slices: int,
    all_series: tuple[Path, ...],
    volumes: tuple[Path, ...],
    validation_series: tuple[Path, ...],
    validation_volume: tuple[Path, ...],
    samples: int,
    hidden: int,
    activation: Any,
    binning: Any,
    wedge: Any,
    solver: Any,
    max_epochs: int | None,
    seed: int,
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
) -> None:
    """Train an NN-FBP network.

    From phantoms for one series, or from pairs of series and volume of your own. An interrupted training goes on when
    the command is given again; OUTPUT.training.safetensors keeps every epoch.
    """
    if (target is None) == (not all_series):
        raise click.UsageError("give either --for SERIES, or pairs of --series and --volume")
    support.check_training(target, slices, samples, solver)
    common = {"n_samples": samples, "wedge": wedge, "binning": binning}
    if target is not None:
        sets = nt.phantom_samples(nt.open(target), phantom=phantom, n_slices=slices, seed=seed, **common)
    else:
        pairs = (all_series, volumes), (validation_series, validation_volume)
        sets = support.own_pairs(*pairs, seed=seed, **common)
    checkpoint = output.with_name(f"{output.stem}.training.safetensors")
    with lock.held(output):
        support.check_network_output(output, checkpoint, overwrite=overwrite)
        sets = support.prepared_sets(sets, output, checkpoint, hidden, memory)
        network = nt.train_nnfbp(
            *sets,
            hidden_nodes=hidden,
            activation=activation,
            solver=solver,
            seed=seed,
            max_epochs=max_epochs,
            checkpoint=checkpoint,
        )
        nt.save_network(network, output)
    report.print_outcome(output, network)


@main.command()
@click.argument("series", type=support.PATH)
@click.option("--method", type=click.Choice(["fbp", "sirt", "nnfbp"]), required=True)
@click.option("--network", "network_path", type=support.PATH, help="nnfbp: the network, from nntomo train.")
@click.option(
    "--scale",
    default="auto",
    show_default=True,
    help="nnfbp: intensity of the specimen in units of the training volumes'.",
)
@click.option("--tolerance", default=0.01, show_default=True, help="sirt: stop when the residual falls by less.")
@click.option("--max-iterations", default=1000, show_default=True, help="sirt: stop then anyway.")
@click.option("--minimum", type=float, help="sirt: least value of a voxel; 0 for matter that cannot be negative.")
@click.option(
    "--window", type=click.Choice(support.WINDOWS), default="ram-lak", show_default=True, help="fbp: of the ramp."
)
@click.option(
    "--engine", type=click.Choice(["native", "astra"]), default="native", show_default=True, help="fbp, sirt."
)
@support.output
@support.computing
def reconstruct(
    series: Path,
    method: str,
    network_path: Path | None,
    scale: str,
    tolerance: float,
    max_iterations: int,
    minimum: float | None,
    window: Any,
    engine: Any,
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
) -> None:
    """Reconstruct a tilt series.

    By FBP, SIRT, or NN-FBP with a network from nntomo train.
    """
    support.check_applicable(method)
    source = nt.open(series)
    nt.check_tilt_series(source, who=method)
    network = None
    if method == "nnfbp":
        if network_path is None:
            raise click.UsageError("--method nnfbp needs --network FILE; nntomo train makes one")
        network = nt.load_network(network_path)
        network.layout.check(source, who=method)
    hidden, angles = 0, source.sizes[schema.ANGLE]
    if network is not None:
        hidden, angles = network.n_hidden, network.layout.used_angles_deg.size
    slices = support.slices_within_memory(method, source, angles, memory, hidden=hidden)
    cluster.expect(source.sizes[schema.Z] // slices)
    nt.check_finite(source, who=method)
    factor = support.scale_of(scale)
    if network is not None:
        support.report_outside_range(source, network, factor)
    source = nt.open(series, slices=slices)
    if network is not None:
        volume = nt.nnfbp(source, network, scale=factor)
    elif method == "sirt":
        volume = nt.sirt(source, tolerance=tolerance, max_iterations=max_iterations, minimum=minimum, engine=engine)
    else:
        volume = nt.fbp(source, window=window, engine=engine)
    report.describe(nt.save(volume, output, overwrite=overwrite, progress="bar"), output)


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


for verb in (cli_simulation.simulate, cli_simulation.truth, cli_simulation.structures):
    main.add_command(verb)


if __name__ == "__main__":
    sys.exit(main())
