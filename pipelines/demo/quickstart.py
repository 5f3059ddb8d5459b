"""From eight projections to a volume: a faceted particle, reconstructed by FBP, SIRT, NN-FBP and total variation.

An assessment by projections that are left out says which of them to trust, without the known particle. MS-D Net,
discrete tomography and the settings of Branchut (2024) come with ``--methods``.

Run it with ``make demo``, ``nntomo demo`` or ``python pipelines/demo/quickstart.py``. All results are written into one
folder; a second run finds them there and computes nothing twice. To use the script with a measured series, replace the
two lines that make `particle` and `series` by ``series = nt.open("my_series.zarr")``, and leave out the table of
errors, which needs a known volume.
"""

from pathlib import Path

import click

import nntomo_dask as nt
from nntomo_dask.compute import cluster
from nntomo_dask.plotting import figures as plotting

METHODS = ("fbp", "sirt", "nnfbp", "tv")
TITLES = {
    "fbp": "FBP",
    "sirt": "SIRT",
    "sirt_report": "SIRT, Branchut",  # the settings of Branchut (2024): values of any sign, tolerance 0.01
    "nnfbp": "NN-FBP",
    "tv": "Total variation",
    "dart": "DART",
    "unrolled": "Unrolled network",  # needs PyTorch
    "msdnet": "MS-D Net",  # takes some minutes longer, so only if asked for
}


def run(*, size: int, count: int, seed: int, methods: tuple[str, ...], out: Path) -> dict[str, dict[str, float]]:
    """Run the study and return the errors by method."""
    click.echo(f"Particle of {size}³ voxels, seed {seed}, and its {count} projections between -70° and 70°.")
    particle = nt.save(nt.nanoparticle(size, seed=seed), out / "particle.zarr", progress="bar")
    series = nt.save(nt.project(particle, nt.tilt_angles("tem", count)), out / "series.zarr", progress="bar")

    reconstructions = {
        "fbp": lambda: nt.fbp(series),
        "sirt": lambda: nt.sirt(series),
        "sirt_report": lambda: nt.sirt(series, tolerance=0.01, minimum=None),
        "nnfbp": lambda: nt.nnfbp(series, train(series, out)),
        "tv": lambda: nt.tv(series),
        "dart": lambda: nt.dart(series),
        "unrolled": lambda: nt.unrolled(series),
        "msdnet": lambda: nt.msdnet(series, train_msdnet(series, out)),
    }
    volumes = {}
    for method in methods:
        click.echo(f"\n{TITLES[method]}")
        volumes[method] = nt.save(reconstructions[method](), out / f"{method}.zarr", progress="bar")

    errors = {
        method: {
            "mse": float(nt.mse(volume, particle)),
            "psnr": float(nt.psnr(volume, particle)),
            "ssim": float(nt.ssim(volume, particle)),
            "resolution": nt.resolution(nt.fourier_shell_correlation(volume, particle), threshold=0.5),
        }
        for method, volume in volumes.items()
    }
    figure = plotting.compare_volumes(
        {"particle": particle} | {TITLES[method]: volume for method, volume in volumes.items()},
        captions={TITLES[method]: f"error {value['mse']:.4f}" for method, value in errors.items()},
        reference="particle",
    )
    plotting.save_figure(figure, out / "quickstart.png")
    return errors


def assess(series, out: Path) -> str:
    """Which method to trust, said by projections that are left out in turn; the particle plays no part."""
    methods = [nt.METHODS["fbp"](), nt.METHODS["sirt"](), nt.METHODS["tv"]()]
    kept = out / "network.safetensors"
    networks = {str(kept): nt.load_network(kept)} if kept.exists() else {}
    methods += ["nnfbp"] if networks else []
    found = nt.assess(series, methods, networks=networks, folds=4, folder=out / "predictions", progress="bar")
    return found.advice(str(out / "series.zarr"))


def train(series, out: Path):
    """Train a network for this series on scenes of matter of every kind."""
    training, validation = nt.phantom_samples(series)
    checkpoint = out / "network.training.safetensors"
    if not checkpoint.exists():
        training, validation = cluster.load(training, validation, description="training voxels", progress="bar")
    network = nt.train_nnfbp(training, validation, checkpoint=checkpoint)
    nt.save_network(network, out / "network.safetensors")
    outcome = network.recipe["outcome"]
    click.echo(f"kept the network of epoch {outcome['epoch']}, validation loss {outcome['validation_loss']:.5f}")
    share = float(nt.outside_training_range(series, network).mean())
    click.echo(f"inputs outside the training range: {share:.1%}")
    return network


def train_msdnet(series, out: Path):
    """Train a small Mixed-Scale Dense network for this series on slices through random bodies."""
    sets = nt.phantom_slices(series, phantom="bodies", n_slices=800)
    checkpoint = out / "msdnet.training.safetensors"
    if not checkpoint.exists():
        sets = cluster.load(*sets, description="training slices", progress="bar")
    network = nt.train_msdnet(*sets, depth=30, max_epochs=12, checkpoint=checkpoint)
    nt.save_network(network, out / "msdnet.safetensors")
    outcome = network.recipe["outcome"]
    click.echo(f"kept the network of epoch {outcome['epoch']}, validation loss {outcome['validation_loss']:.5f}")
    return network


def report(errors: dict[str, dict[str, float]], advice: str, out: Path) -> None:
    """Print the table, what the assessment says, and the commands for a series of your own."""
    click.echo("\nErrors against the known particle, over all voxels:")
    click.echo(f"{'method':<18}{'mean square error':>18}{'PSNR [dB]':>11}{'SSIM':>7}{'resolution [px]':>17}")
    for method, value in errors.items():
        click.echo(
            f"{TITLES[method]:<18}{value['mse']:>18.5f}{value['psnr']:>11.2f}{value['ssim']:>7.3f}"
            f"{value['resolution']:>17.1f}"
        )
    click.echo(
        "(resolution: where the Fourier shell correlation with the particle falls below 0.5; the best possible is 2.0)"
    )
    click.echo(f"\nWithout the particle, by projections that are left out:\n{advice}")
    click.echo(
        f"""
Figure: {out / "quickstart.png"}
The same steps for a series of your own:
  nntomo import raw.mrc -o raw.zarr
  nntomo align raw.zarr -o series.zarr
  nntomo assess series.zarr -o assessment/
  nntomo reconstruct series.zarr --method tv -o volume.zarr
In Python: nntomo_dask.open("{out / f"{next(reversed(errors))}.zarr"}") is a lazy xarray.DataArray.
Explanation of the methods: docs/theory.md. This script: pipelines/demo/quickstart.py."""
    )


@click.command(
    help="""Run the quick start: reconstruct a known particle from a few projections, and compare the methods.

    It makes a faceted particle and its projections, reconstructs them, and prints a table of errors. The volumes and a
    figure are written into one folder. A second run continues from what is there.

    \b
    Example: a smaller particle, only two methods
      nntomo demo --size 64 --methods fbp,tv
    """,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--size", type=click.IntRange(min=16), default=128, show_default=True, help="Number of voxels along each axis."
)
@click.option(
    "--count",
    type=click.IntRange(min=2),
    default=8,
    show_default=True,
    help="Number of projections between -70° and 70°.",
)
@click.option("--seed", default=1, show_default=True, help="Seed of the random particle.")
@click.option(
    "--methods",
    default=",".join(METHODS),
    show_default=True,
    help="The methods to compare, separated by commas. There are sirt_report, with the settings of Branchut (2024), "
    "dart, unrolled and msdnet, which need PyTorch, too; msdnet takes some minutes longer.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("stores/quickstart"),
    show_default=True,
    help="Folder of the results.",
)
@click.option("--scheduler", help="Address of a Dask scheduler that is already running, such as tcp://host:8786.")
def main(size: int, count: int, seed: int, methods: str, out: Path, scheduler: str | None) -> None:
    chosen = tuple(methods.split(","))
    unknown = set(chosen) - set(TITLES)
    if unknown:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; there are {', '.join(TITLES)}", param_hint="--methods")
    with cluster.session(scheduler=scheduler):
        errors = run(size=size, count=count, seed=seed, methods=chosen, out=out)
        click.echo("\nAssessment")
        advice = assess(nt.open(out / "series.zarr"), out)
    report(errors, advice, out)


if __name__ == "__main__":
    main()
