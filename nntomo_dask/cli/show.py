"""The verb `show`."""

from pathlib import Path
from typing import Any, Literal

import click
import dask
import xarray as xr

import nntomo_dask as nt
from nntomo_dask import extras
from nntomo_dask.arrays import schema
from nntomo_dask.cli import options, report, support
from nntomo_dask.cli.compare import Window
from nntomo_dask.compute import chunking
from nntomo_dask.errors import refuse
from nntomo_dask.formats import orientation
from nntomo_dask.formats.format import host_bytes
from nntomo_dask.store import outputs
from nntomo_dask.untrusted import printable


class Places(click.ParamType[tuple[int, ...]]):
    """One number of a slice, or three."""

    name = "slice"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """One or three numbers from 0."""
        parts = str(value).split(",")
        if len(parts) not in (1, 3) or not all(part.strip().isdigit() for part in parts):
            self.fail(f"{value!r}: write one number, 40, or three, 40,64,64", param, ctx)
        return tuple(int(part) for part in parts)


@click.command(cls=support.Verb)
@click.argument("store", type=support.PATH)
@click.option(
    "-o",
    "--output",
    type=support.PATH,
    help="File to write; its suffix chooses the format, PNG by default. Default: the store's name with .png, here.",
)
@click.option("--overwrite", is_flag=True, help="Overwrite an existing file that is not a figure of this command.")
@click.option(
    "--slice",
    "cut",
    type=Places(),
    metavar="Z|Z,Y,X",
    help="Numbers of the slices that are shown, from 0. Default: of a volume the nearest to the middle with voxels as "
    "bright as the window's end; of a tilt series the middle one, whose sinogram is drawn.",
)
@click.option(
    "--window",
    type=Window(),
    metavar="BLACK,WHITE",
    help="The values that are black and white. Default: a thousandth of all lies below, and a thousandth above.",
)
@click.option(
    "--level",
    type=options.NumberOrWord(float, ("auto", "none")),
    default="auto",
    show_default=True,
    help="Value of the isosurface of a volume; auto is Otsu's threshold, none leaves it out.",
)
@click.option(
    "--napari",
    "scale",
    type=click.IntRange(0, 10),
    metavar="SCALE",
    help="Open the store in napari instead, if that is installed: 0 is the whole of it, 1 every second voxel along "
    "each axis, 2 every fourth.",
)
@support.MEMORY
def show(
    store: Path,
    output: Path | None,
    overwrite: bool,  # noqa: FBT001
    cut: tuple[int, ...] | None,
    window: tuple[float, float] | None,
    level: float | Literal["auto", "none"],
    scale: int | None,
    memory: int | None,
) -> None:
    """Draw a store: slices and a surface of a volume, projections and a sinogram of a tilt series.

    \b
    Examples:
      nntomo show sirt.zarr
      nntomo show sirt.zarr -o sirt.pdf --slice 40,64,64 --window 0,1
    """
    if scale is not None:
        support.check_free("output", "level", "overwrite", because="is for a figure, not for --napari")
        if cut is not None:
            raise click.UsageError("--slice is for a figure, not for --napari")
        _open_in_napari(store, scale, window)
        return
    target = output or Path(f"{store.resolve().name.removesuffix('.zarr')}.png")
    kept = [target] if report.is_figure(target) else []
    new = [] if kept else [target]

    def slices(array: xr.DataArray) -> int:
        from nntomo_dask.plotting import showing

        shape = (array.shape[0], array.shape[1], array.shape[2])
        limit = support.budget(memory)
        apart = chunking.Budget(limit.size - showing.host_bytes(shape), limit.origin)
        plan = chunking.plan(apart, host_bytes, shape=shape, workers=1, who="show")
        return min(plan.slices, chunking.slab_slices(shape))

    with (
        outputs.reserved("show", written=new, replaced=kept, inputs=[store], overwrite=overwrite),
        dask.config.set(scheduler="synchronous"),
    ):
        figure = _drawn(nt.open(store, slices=slices), cut, window, level)
        click.echo(printable(str(nt.save_figure(figure, target))))


def _drawn(
    array: xr.DataArray,
    cut: tuple[int, ...] | None,
    window: tuple[float, float] | None,
    level: float | Literal["auto", "none"],
) -> Any:
    from nntomo_dask.plotting import showing

    if schema.ANGLE in array.dims:
        if cut is not None and len(cut) == 3:
            raise click.BadParameter("of a tilt series give one number, Z", param_hint="--slice")
        support.check_free("level", because="is for a volume; a tilt series has no surface")
        return showing.show_series(array, z=cut[0] if cut else None, window=window)
    z, y, x = (*(cut or ()), None, None, None)[:3]
    return showing.show_volume(array, z=z, y=y, x=x, window=window, level=level)


def _open_in_napari(store: Path, scale: int, window: tuple[float, float] | None) -> None:
    """Show every n-th voxel lazily: napari reads what it shows."""
    napari = extras.require("napari", who="nntomo show --napari")
    array = nt.open(store)
    step = 2**scale
    if step > min(array.sizes[dim] for dim in array.dims if dim != schema.ANGLE):
        got = f"--napari {scale} of {dict(array.sizes)}"
        refuse("show", needs="a scale at which there is something left", got=got, remedy="--napari 0")
    upright = orientation.as_file(array, first_line="top")  # the first line of an image is shown at the top
    thin = upright.isel({dim: slice(None, None, step) for dim in array.dims if dim != schema.ANGLE})
    if schema.ANGLE in array.dims:
        thin = thin.transpose(schema.ANGLE, schema.Z, schema.DETECTOR)
    positions = [thin[dim].values for dim in thin.dims]
    steps = [abs(float(one[-1] - one[0])) / max(len(one) - 1, 1) or 1.0 for one in positions]
    if schema.ANGLE in array.dims:
        steps[0] = steps[1]  # projections lie behind each other
    viewer = napari.Viewer()
    if hasattr(viewer.camera, "orientation"):  # from 0.6 on its 3D view would mirror right-handed axes x, y, z
        viewer.camera.orientation = ("away", "down", "right")
    viewer.add_image(thin.data, name=store.name, scale=steps, contrast_limits=window, axis_labels=thin.dims)
    napari.run()
