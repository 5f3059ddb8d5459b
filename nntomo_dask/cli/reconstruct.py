"""The verb `reconstruct`."""

import dataclasses
from pathlib import Path
from typing import Any

import click
import xarray as xr
from dask.base import compute

import nntomo_dask as nt
from nntomo_dask.arrays import schema
from nntomo_dask.cli import options, report, support
from nntomo_dask.compute import cluster
from nntomo_dask.reconstruction import METHODS
from nntomo_dask.reconstruction.method import Method, mean_and_spread
from nntomo_dask.store import outputs, saving


@click.command(cls=options.chooser(METHODS))
@click.argument("series", type=support.PATH)
@click.option(
    "--method",
    type=options.Name(METHODS),
    required=True,
    help="How the volume is reconstructed; the list is above. Some need --network.",
)
@click.option(
    "--network",
    "network_paths",
    type=support.PATH,
    multiple=True,
    help="A network from nntomo train, for a method that needs one. Repeat the option for an ensemble; the volume is "
    "the mean of its members.",
)
@click.option(
    "--spread",
    type=support.PATH,
    help="Also write the standard deviation over an ensemble's members to this store, as a measure of uncertainty.",
)
@support.output
@support.computing
def reconstruct(
    series: Path,
    method: str,
    network_paths: tuple[Path, ...],
    spread: Path | None,
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
    **arguments: Any,
) -> None:
    """Reconstruct a volume from a tilt series.

    The options below that begin with names in brackets belong to those methods.

    \b
    Example:
      nntomo reconstruct series.zarr --method sirt --minimum 0 --tolerance 0.001 -o sirt.zarr
    """
    if spread is not None and len(network_paths) < 2:
        raise click.UsageError("--spread needs an ensemble: --network twice or more")
    stores = [output] if spread is None else [output, spread]
    inputs = [series, *network_paths]
    with outputs.reserved("reconstruct", stores=stores, inputs=inputs, overwrite=overwrite):
        _reconstruct(series, method, network_paths, stores, memory, arguments, overwrite=overwrite)


def _reconstruct(
    series: Path,
    method: str,
    network_paths: tuple[Path, ...],
    stores: list[Path],
    memory: int | None,
    arguments: dict[str, Any],
    *,
    overwrite: bool,
) -> None:
    networks = _networks(method, network_paths)
    chosen = options.build_chosen(
        METHODS, method, "--method", arguments, **({"networks": networks} if networks else {})
    )

    whole: xr.DataArray | None = None  # the series in the store's own chunks; a lower slab reads all of a chunk again

    def slices(stored: xr.DataArray) -> int:
        nonlocal whole
        whole = stored
        chosen.check(stored)
        shape = stored.sizes[schema.Z], stored.sizes[schema.ANGLE], stored.sizes[schema.DETECTOR]
        wanted = chosen.wanted_slices(shape)
        return support.slices_within_memory(chosen.host_bytes, shape, memory, wanted=wanted, who=method)

    source = nt.open(series, slices=slices)
    cluster.expect(source.data.numblocks[0])
    silent = dataclasses.replace(chosen, warns=False) if hasattr(chosen, "warns") else chosen
    saving.check_together(_volumes(source, silent, stores), overwrite=overwrite)
    assert whole is not None
    nt.check_finite(whole, who=method)
    prepared = tuple(float(one) for one in compute(*chosen.prepare(whole)))
    for line in chosen.outlook(whole, prepared):
        click.echo(line, err=True)
    volumes = _volumes(source, silent, stores, prepared=prepared)
    for path, volume in nt.save_together(volumes, overwrite=overwrite, progress="bar").items():
        report.describe(volume, path)


def _volumes(
    source: xr.DataArray, method: Method, stores: list[Path], *, prepared: tuple[float, ...] | None = None
) -> dict[Path, xr.DataArray]:
    """The lazy volume for each store: the volume alone, or the mean and the spread."""
    if len(stores) == 1:
        return {stores[0]: nt.reconstruct(source, method, prepared=prepared)}
    return dict(zip(stores, mean_and_spread(source, method, prepared=prepared), strict=True))


def _networks(method: str, paths: tuple[Path, ...]) -> tuple[Any, ...]:
    """The networks of a method that needs some."""
    kind = METHODS[method].network
    if kind is None:
        if paths:
            needing = [name for name in METHODS if METHODS[name].network is not None]
            raise click.UsageError(f"--network is for --method {' or '.join(needing)}, not for {method}")
        return ()
    if not paths:
        raise click.UsageError(f"--method {method} needs --network FILE; nntomo train makes one")
    networks = tuple(nt.load_network(path) for path in paths)
    for path, network in zip(paths, networks, strict=True):
        if not isinstance(network, kind):
            raise click.UsageError(f"{path} holds a network for --method {network.name}, not for {method}")
    return networks
