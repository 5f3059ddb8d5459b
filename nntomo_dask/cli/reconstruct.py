"""The verb `reconstruct`."""

from pathlib import Path
from typing import Any

import click

import nntomo_dask as nt
from nntomo_dask.arrays import schema
from nntomo_dask.cli import report, support
from nntomo_dask.compute import cluster

_OF_METHOD: dict[str, tuple[str, ...]] = {
    "network_paths": ("nnfbp", "msdnet"),
    "scale": ("nnfbp", "msdnet"),
    "spread": ("nnfbp", "msdnet"),
    "tolerance": ("sirt",),
    "max_iterations": ("sirt",),
    "minimum": ("sirt",),
    "window": ("fbp",),
    "engine": ("fbp", "sirt"),
}


@click.command()
@click.argument("series", type=support.PATH)
@click.option("--method", type=click.Choice(["fbp", "sirt", "nnfbp", "msdnet"]), required=True)
@click.option(
    "--network",
    "network_paths",
    type=support.PATH,
    multiple=True,
    help="nnfbp, msdnet: the network, from nntomo train. Several form an ensemble, which is averaged.",
)
@click.option(
    "--spread",
    type=support.PATH,
    help="nnfbp, msdnet: also write the members' standard deviation to this store, as a measure of the uncertainty.",
)
@click.option(
    "--scale",
    default="auto",
    show_default=True,
    help="nnfbp, msdnet: intensity of the specimen in units of the training volumes'.",
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
    network_paths: tuple[Path, ...],
    spread: Path | None,
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

    By FBP, SIRT, or with a network from nntomo train: NN-FBP or MS-D Net.
    """
    support.check_applicable(_OF_METHOD, "--method", method)
    source = nt.open(series)
    nt.check_tilt_series(source, who=method)
    networks = _loaded(method, network_paths, source)
    if spread is not None and spread.resolve() == output.resolve():
        raise click.UsageError("--spread and --output are two stores; give them two places")
    if spread is not None and len(networks) < 2:
        raise click.UsageError("--spread needs an ensemble: --network twice or more")
    hidden, angles = 0, source.sizes[schema.ANGLE]
    if method == "nnfbp":
        hidden, angles = sum(one.n_hidden for one in networks), networks[0].layout.used_angles_deg.size
    elif method == "msdnet":
        hidden = max(one.depth + one.inputs.channels for one in networks)
    slices = support.slices_within_memory(method, source, angles, memory, hidden=hidden)
    cluster.expect(source.sizes[schema.Z] // slices)
    nt.check_finite(source, who=method)
    factor = support.scale_of(scale)
    if method == "nnfbp":
        support.report_outside_range(source, networks[0], factor)
    source = nt.open(series, slices=slices)
    if networks:
        one_or_all = networks[0] if len(networks) == 1 else networks
        learned = nt.nnfbp if method == "nnfbp" else nt.msdnet
        volume = learned(source, one_or_all, scale=factor)
        if spread is not None:
            uncertainty = learned(source, one_or_all, scale=factor, statistic="spread")
            report.describe(nt.save(uncertainty, spread, overwrite=overwrite, progress="bar"), spread)
    elif method == "sirt":
        volume = nt.sirt(source, tolerance=tolerance, max_iterations=max_iterations, minimum=minimum, engine=engine)
    else:
        volume = nt.fbp(source, window=window, engine=engine)
    report.describe(nt.save(volume, output, overwrite=overwrite, progress="bar"), output)


def _loaded(method: str, paths: tuple[Path, ...], series: Any) -> list[Any]:
    """The networks of a method that needs some."""
    if method not in ("nnfbp", "msdnet"):
        return []
    if not paths:
        raise click.UsageError(f"--method {method} needs --network FILE; nntomo train makes one")
    networks = [nt.load_network(path) for path in paths]
    for path, network in zip(paths, networks, strict=True):
        kind = network.FORMAT.removeprefix("nntomo_dask.")
        if kind != method:
            raise click.UsageError(f"{path} holds a network for --method {kind}, not for {method}")
        network.check(series, who=method)
    return networks
