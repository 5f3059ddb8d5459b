"""The verb `view`."""

import webbrowser
from pathlib import Path

import click
import dask
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.arrays import schema
from nntomo_dask.cli import interruption, support
from nntomo_dask.compute import chunking
from nntomo_dask.formats.format import host_bytes
from nntomo_dask.untrusted import printable


@click.command(cls=support.Verb)
@click.argument("store", type=support.PATH)
@click.option(
    "--level",
    type=click.IntRange(0, 10),
    help="How many times the copy in memory is halved, from which slices along z are made. Default: until it has at "
    "most 256 MiB, so that 512³ voxels are shown as they are.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port on which the viewer listens; 0 lets the system choose one.",
)
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
@support.MEMORY
def view(store: Path, level: int | None, port: int, open_browser: bool, memory: int | None) -> None:  # noqa: FBT001
    """Scroll through a store in a browser.

    Slices in three directions, with zoom, greys and a bar of lengths; of a tilt series its projections and sinograms.
    The page is served to this machine alone, until Ctrl-C. It may be larger than memory. From another machine:
    ssh -L PORT:127.0.0.1:PORT HOST, with the port in the address.

    \b
    Example:
      nntomo view sirt.zarr
    """
    from nntomo_dask.plotting import serving

    def slices(array: xr.DataArray) -> int:
        if schema.ANGLE in array.dims:
            schema.check_tilt_series(array, who="view")
        else:
            schema.check_volume(array, who="view", slices="any")
        shape = (array.shape[0], array.shape[1], array.shape[2])
        limit, halvings = support.budget(memory), serving.level_for(array) if level is None else level
        apart = chunking.Budget(limit.size - serving.host_bytes(array, halvings), limit.origin)
        plan = chunking.plan(apart, host_bytes, shape=shape, workers=1, who="view")
        return min(plan.slices, chunking.slab_slices(shape))

    with dask.config.set(scheduler="synchronous"):
        array = nt.open(store, slices=slices)
        click.echo(f"reading {printable(str(store))}", err=True)
        shown = serving.Slices.of(array, level=level)
        try:
            viewer = serving.Viewer(shown, name=store.resolve().name, port=port)
        except OSError as error:
            raise click.BadParameter(f"{port}: {error.strerror}", param_hint="--port") from error
        click.echo(viewer.address)
        click.echo("this machine alone can open the page; Ctrl-C ends the viewer", err=True)
        if open_browser:
            webbrowser.open(viewer.address)
        with interruption.expected():
            try:
                viewer.serve()
            except KeyboardInterrupt:
                click.echo("the viewer has ended", err=True)
