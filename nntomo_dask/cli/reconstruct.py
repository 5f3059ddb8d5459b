"""The verb `reconstruct`."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click
import xarray as xr
from dask.base import compute

import nntomo_dask as nt
from nntomo_dask.arrays import detector, schema
from nntomo_dask.cli import options, report, support
from nntomo_dask.compute import cluster
from nntomo_dask.networks.pretrained import Pretrained
from nntomo_dask.reconstruction import METHODS
from nntomo_dask.reconstruction.jackknife import Jackknife
from nntomo_dask.reconstruction.method import Method, mean_and_spread, padded_host_bytes, prepared_for
from nntomo_dask.reconstruction.report import misfit_of, report as reported
from nntomo_dask.reconstruction.signs import signs
from nntomo_dask.store import outputs, saving


class MethodName(options.Name):
    """The name of a method; where there is none, all are told, and how to choose."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What follows "Missing option '--method'."."""
        listed = "".join(f"\n  {name}: {method.summary}" for name, method in METHODS.items())
        return f"The methods:{listed}\nnntomo assess SERIES -o assess/ measures which of them suits the series"


@click.command(cls=options.chooser(METHODS))
@click.argument("series", type=support.PATH)
@click.option(
    "--method",
    type=MethodName(METHODS),
    required=True,
    help="How the volume is reconstructed; the list is above. Some need --network.",
)
@click.option(
    "--network",
    "network_paths",
    type=support.PATH,
    multiple=True,
    help=f"A network from nntomo train, for a method that needs one; or {support.PRETRAINED}, which come with the "
    f"package for --method unrolled, whose default is {get_args(Pretrained)[0]}. Repeat the option for an ensemble; "
    "the volume is the mean of its members.",
)
@click.option(
    "--spread",
    type=support.PATH,
    help="Also write to this store how uncertain each voxel is: of an ensemble, the standard deviation over its "
    "members; of a method without networks, the standard error by leaving out each projection once, which takes as "
    "many reconstructions more.",
)
@click.option(
    "--axis-position",
    type=float,
    metavar="PX",
    help="Where the tilt axis lies on the detector, in pixels from the middle of the first one; by default where the "
    "series says, which is the middle unless it was aligned or imported otherwise.",
)
@click.option(
    "--pad",
    type=options.NumberOrWord(int, ("auto",)),
    default="0",
    show_default=True,
    metavar="PIXELS|auto",
    help="For a specimen larger than the field of view across the tilt axis: projections are extended by so many "
    "pixels at either end, falling to zero there, and the slices cropped; auto is half of the detector.",
)
@click.option(
    "--report",
    "as_published",
    is_flag=True,
    help="The settings of Branchut (2024), where they differ from the defaults: for sirt --tolerance 0.01 --minimum "
    "none, for fbp --window ram-lak.",
)
@support.output
@support.computing
def reconstruct(
    series: Path,
    method: str,
    network_paths: tuple[Path, ...],
    spread: Path | None,
    axis_position: float | None,
    pad: detector.Pad,
    as_published: bool,  # noqa: FBT001
    output: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
    **arguments: Any,
) -> None:
    """Reconstruct a volume from a tilt series.

    The options below that begin with names in brackets belong to those methods.

    \b
    Example:
      nntomo reconstruct series.zarr --method sirt -o sirt.zarr
    """
    if spread is not None and len(network_paths) < 2 and METHODS[method].network is not None:
        raise click.UsageError(
            f"--spread of --method {method} needs an ensemble: --network twice or more; volume_and_spread in Python "
            "judges one network beside another method"
        )
    stores = [output] if spread is None else [output, spread]
    inputs = [series, *support.files_of(network_paths)]
    with outputs.reserved("reconstruct", stores=stores, inputs=inputs, overwrite=overwrite):
        chosen = _method(method, network_paths, arguments, as_published=as_published)
        _reconstruct(series, chosen, stores, memory, axis_position=axis_position, pad=pad, overwrite=overwrite)


def _reconstruct(
    series: Path,
    chosen: Method,
    stores: list[Path],
    memory: int | None,
    *,
    axis_position: float | None,
    pad: detector.Pad,
    overwrite: bool,
) -> None:
    jackknife = Jackknife(chosen) if len(stores) > 1 and chosen.network is None else None
    largest = jackknife or chosen
    whole: xr.DataArray | None = None  # the series in the store's own chunks; a lower slab reads all of a chunk again

    def slices(stored: xr.DataArray) -> int:
        nonlocal whole
        whole = stored
        largest.check(stored)
        shape = stored.sizes[schema.Z], stored.sizes[schema.ANGLE], stored.sizes[schema.DETECTOR]
        wide = (*shape[:2], shape[2] + 2 * detector.padding(pad, stored, who=chosen.name))
        wanted = largest.wanted_slices(wide)
        need = partial(padded_host_bytes, largest, pad=(wide[2] - shape[2]) // 2)
        return support.slices_within_memory(need, shape, memory, wanted=wanted, who=chosen.name)

    source = nt.open(series, slices=slices)
    if axis_position is not None:
        assert whole is not None
        source, whole = (nt.with_axis_position(one, axis_position) for one in (source, whole))
    cluster.expect(source.data.numblocks[0])
    silent: Method = chosen
    if hasattr(chosen, "warns"):
        silent = dataclasses.replace(chosen, warns=False)  # type: ignore[type-var]
    saving.check_together(_volumes(source, silent, jackknife, stores, pad=pad), overwrite=overwrite)
    assert whole is not None
    nt.check_finite(whole, who=chosen.name)
    prepared = tuple(float(one) for one in compute(*prepared_for(whole, chosen, pad=pad)))
    pixels = detector.padding(pad, whole, who=chosen.name)
    if pixels == 0 and detector.reaches_the_ends(whole.isel({schema.Z: [whole.sizes[schema.Z] // 2]}).values):
        click.echo("note: matter reaches the ends of the detector; --pad auto extends the projections there", err=True)
    wide = detector.extended(whole, pixels)
    for method in (chosen, jackknife):
        for line in method.widened(pixels).outlook(wide, prepared) if method is not None else ():
            click.echo(line, err=True)
    if len(stores) > 1 and jackknife is None:
        click.echo(
            "note: the spread is how far the networks disagree; on known specimens they were wrong by 2 to 20 times as "
            "much",
            err=True,
        )
    volumes = _volumes(source, silent, jackknife, stores, pad=pad, prepared=prepared)
    with reported() as lines:
        saved = nt.save_together(volumes, overwrite=overwrite, progress="bar")
    if lines:  # something was computed
        known = misfit_of(saved[stores[0]], whole)
        lines.append(f"{chosen.name}: {known[0].told()}")
        if chosen.network is not None and pixels == 0:  # a cropped volume never gives back its series
            lines += signs(saved[stores[0]], whole, ends=chosen.ends(prepared), known=known)
    for line in lines:
        click.echo(line, err=True)
    for path, volume in saved.items():
        report.describe(volume, path)


def _method(name: str, network_paths: tuple[Path, ...], arguments: dict[str, Any], *, as_published: bool) -> Method:
    """The method that the options ask for."""
    published = METHODS[name].published if as_published else {}
    if as_published and not published:
        having = [one for one in METHODS if METHODS[one].published]
        raise click.UsageError(f"--report is for --method {' or '.join(having)}, not for {name}")
    for setting in published:
        support.check_free(setting, because="is what --report sets")
    networks = networks_of(name, network_paths)
    needed: dict[str, Any] = {"networks": networks} if networks else {}
    method: Method = options.build_chosen(METHODS, name, "--method", arguments, **needed, **published)
    return method


def _volumes(
    source: xr.DataArray,
    method: Method,
    jackknife: Jackknife | None,
    stores: list[Path],
    *,
    pad: detector.Pad,
    prepared: tuple[float, ...] | None = None,
) -> dict[Path, xr.DataArray]:
    """The lazy volume for each store: the volume alone, or with its spread."""
    if len(stores) == 1 or jackknife is not None:
        methods = (method,) if jackknife is None else (method, jackknife)
        arguments: dict[str, Any] = {"pad": pad, "prepared": prepared}
        return {path: nt.reconstruct(source, one, **arguments) for path, one in zip(stores, methods, strict=True)}
    return dict(zip(stores, mean_and_spread(source, method, pad=pad, prepared=prepared), strict=True))


def networks_of(method: str, paths: tuple[Path, ...]) -> tuple[Any, ...]:
    """The networks of a method that needs some: those of the paths, or its own."""
    kind = METHODS[method].network
    if kind is None:
        if paths:
            needing = [name for name in METHODS if METHODS[name].network is not None]
            raise click.UsageError(f"--network is for --method {' or '.join(needing)}, not for {method}")
        return ()
    if not paths and (own := METHODS[method].own_networks()):
        return own
    if not paths:
        raise click.UsageError(f"--method {method} needs --network FILE; nntomo train makes one")
    networks = tuple(support.network_at(path) for path in paths)
    for path, network in zip(paths, networks, strict=True):
        if not isinstance(network, kind):
            raise click.UsageError(f"{path} holds a network for --method {network.name}, not for {method}")
    return networks
