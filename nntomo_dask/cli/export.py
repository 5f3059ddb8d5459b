"""The verb `export`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import click
import dask
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.arrays.blocks import BLOCK_BYTES, BLOCK_SLICES
from nntomo_dask.cli import options, support
from nntomo_dask.compute import chunking
from nntomo_dask.formats import FORMATS
from nntomo_dask.formats.format import Format, format_to_write, host_bytes, is_written
from nntomo_dask.settings import check_settings
from nntomo_dask.store import outputs
from nntomo_dask.untrusted import printable


@dataclass(frozen=True)
class _NoSettings:
    """Of a format whose writing has none."""


class _Writers(Mapping[str, Any]):
    """The settings of all formats that can be written, by the name of the format."""

    kind: ClassVar[str] = "format"

    def __getitem__(self, name: str) -> Any:
        return FORMATS[name].writing or _NoSettings

    def __iter__(self) -> Iterator[str]:
        return (name for name, kind in FORMATS.items() if is_written(kind))

    def __len__(self) -> int:
        return sum(1 for _ in self)


WRITERS = _Writers()


class Export(options.Chooser):
    """The verb with the settings of all formats as its options, and the formats in its help."""

    declarations = WRITERS

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What the verb does, and the formats with their suffixes."""
        super().format_help_text(ctx, formatter)
        rows = [(name, f"{_first_line(FORMATS[name])} {', '.join(FORMATS[name].suffixes)}") for name in WRITERS]
        with formatter.section("Formats"):
            formatter.write_dl(rows)


def _first_line(kind: type[Format]) -> str:
    return (kind.__doc__ or "").strip().split("\n")[0]


@click.command(cls=Export)
@click.argument("store", type=support.PATH)
@click.argument("target", type=support.PATH)
@click.option("--overwrite", is_flag=True, help="Overwrite existing files, or a folder of an earlier export.")
@support.MEMORY
def export(
    store: Path,
    target: Path,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
    **arguments: Any,
) -> None:
    """Write a store to a file for other programs.

    The suffix of TARGET chooses the format. A volume is written as (z, y, x), z along the tilt axis. A tilt series is
    written image by image with its tilt axis upright; its angles stand within, or beside it as .rawtlt.

    \b
    Examples:
      nntomo export sirt.zarr sirt.mrc
      nntomo export sirt.zarr sirt.tif --type uint16 --range percentiles
      nntomo export sirt.zarr sirt.ome.zarr
    """
    kind = format_to_write(target, who="export")
    settings = options.build_chosen(WRITERS, kind.name, "files of the format", arguments)
    check_settings(settings, who="export")

    def slices(array: xr.DataArray) -> int:
        shape = (array.shape[0], array.shape[1], array.shape[2])
        limit = support.budget(memory)
        plan = chunking.plan(limit, host_bytes_of(target, shape), shape=shape, workers=1, who="export")
        return min(plan.slices, chunking.slab_slices(shape))

    array = nt.open(store, slices=slices)
    files = [] if kind.is_folder(target) else kind.outputs(array, target)
    there = [file for file in files if kind.is_written(array, target, file)]
    new = [file for file in files if file not in there]
    with (
        outputs.reserved(
            "export",
            written=new,
            replaced=there,
            folders=[target] if kind.is_folder(target) else [],
            may_replace=kind.may_replace,
            inputs=[store],
            overwrite=overwrite,
        ),
        dask.config.set(scheduler="synchronous"),  # a slab at a time, also where the range of the values is looked for
    ):
        how = {} if kind.writing is None else {"how": settings}
        for path in kind.write(array, target, **how):
            click.echo(printable(str(path)))


def host_bytes_of(target: str | Path, whole: tuple[int, ...]) -> chunking.HostBytes:
    """Bytes of a slab; of a folder of chunks also those that gather slices until they fill rows of chunks."""
    kind, row = format_to_write(Path(target), who="export"), 4 * whole[1] * whole[2]
    gathered = 3 * max(min(BLOCK_BYTES, BLOCK_SLICES * row), row) if kind.is_folder(Path(target)) else 0

    def needed(shape: chunking.SlabShape) -> int:
        return host_bytes(shape) + gathered

    return needed
