"""From eight projections to a volume: a faceted particle, by FBP, SIRT and NN-FBP, and MS-D Net if asked.

Run it with ``make demo``, ``nntomo demo`` or ``python pipelines/demo/quickstart.py``. Everything it makes lies in one
folder; a second run finds it there and computes nothing twice. To use it with a measured series, replace the two lines
that make `particle` and `series` by ``series = nt.open("my_series.zarr")``, and the table by what you know of your
specimen.
"""

from pathlib import Path

import click

import nntomo_dask as nt
from nntomo_dask.compute import cluster
from nntomo_dask.plotting import figures as plotting

METHODS = ("fbp", "sirt", "sirt_nonnegative", "nnfbp")
TITLES = {
    "fbp": "FBP",
    "sirt": "SIRT",
    "sirt_nonnegative": "SIRT, values ≥ 0",
    "nnfbp": "NN-FBP",
    "msdnet": "MS-D Net",  # minutes of training more, so not without being asked for
}


def run(*, size: int, count: int, seed: int, methods: tuple[str, ...], out: Path) -> dict[str, dict[str, float]]:
    """Run the study and return the errors by method."""
    click.echo(f"Particle of {size}³ voxels, seed {seed}, and its {count} projections between -70° and 70°.")
    particle = nt.save(nt.nanoparticle(size, seed=seed), out / "particle.zarr", progress="bar")
    series = nt.save(nt.project(particle, nt.tilt_angles("tem", count)), out / "series.zarr", progress="bar")

    reconstructions = {
        "fbp": lambda: nt.fbp(series),
        "sirt": lambda: nt.sirt(series, tolerance=0.01),
        "sirt_nonnegative": lambda: nt.sirt(series, tolerance=0.001, minimum=0),
        "nnfbp": lambda: nt.nnfbp(series, train(series, out)),
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


def train(series, out: Path):
    """A network for exactly this series, from stacks of random ellipses."""
    training, validation = nt.phantom_samples(series, phantom="ellipses")
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
    """A small Mixed-Scale Dense network for exactly this series, from slices through random bodies."""
    sets = nt.phantom_slices(series, phantom="bodies", n_slices=800)
    checkpoint = out / "msdnet.training.safetensors"
    if not checkpoint.exists():
        sets = cluster.load(*sets, description="training slices", progress="bar")
    network = nt.train_msdnet(*sets, depth=30, max_epochs=12, checkpoint=checkpoint)
    nt.save_network(network, out / "msdnet.safetensors")
    outcome = network.recipe["outcome"]
    click.echo(f"kept the network of epoch {outcome['epoch']}, validation loss {outcome['validation_loss']:.5f}")
    return network


def report(errors: dict[str, dict[str, float]], out: Path) -> None:
    """Print the table, and where to go from here."""
    click.echo("\nAgainst the particle itself, all voxels:")
    click.echo(f"{'method':<18}{'mean square error':>18}{'PSNR [dB]':>11}{'SSIM':>7}{'resolution [px]':>17}")
    for method, value in errors.items():
        click.echo(
            f"{TITLES[method]:<18}{value['mse']:>18.5f}{value['psnr']:>11.2f}{value['ssim']:>7.3f}"
            f"{value['resolution']:>17.1f}"
        )
    click.echo(
        "(resolution: where the Fourier shell correlation with the particle falls below 0.5; pixels limit it to 2.0)"
    )
    click.echo(
        f"""
The figure: {out / "quickstart.png"}
Every step again, on your own series:
  nntomo import series.mrc --angles series.rawtlt -o series.zarr
  nntomo train --for series.zarr --phantom ellipses -o net.safetensors
  nntomo reconstruct series.zarr --method nnfbp --network net.safetensors -o volume.zarr
In Python: nntomo_dask.open("{out / f"{next(reversed(errors))}.zarr"}") is a lazy xarray.DataArray.
What is computed and why: docs/theory.md. This script: pipelines/demo/quickstart.py."""
    )


@click.command(
    help="Reconstruct a faceted particle from a few projections, and compare the methods.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--size", type=click.IntRange(min=16), default=128, show_default=True, help="Voxels along each axis.")
@click.option(
    "--count", type=click.IntRange(min=2), default=8, show_default=True, help="Projections between -70° and 70°."
)
@click.option("--seed", default=1, show_default=True, help="Which particle.")
@click.option("--methods", default=",".join(METHODS), show_default=True, help="Some, with commas between; msdnet too.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("stores/quickstart"), show_default=True)
@click.option("--scheduler", help="Address of a Dask scheduler that runs already, tcp://…")
def main(size: int, count: int, seed: int, methods: str, out: Path, scheduler: str | None) -> None:
    chosen = tuple(methods.split(","))
    unknown = set(chosen) - set(TITLES)
    if unknown:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; there are {', '.join(TITLES)}", param_hint="--methods")
    with cluster.session(scheduler=scheduler):
        errors = run(size=size, count=count, seed=seed, methods=chosen, out=out)
    report(errors, out)


if __name__ == "__main__":
    main()
