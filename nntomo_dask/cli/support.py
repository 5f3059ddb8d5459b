"""What the verbs of the `nntomo` command share: types of options, help pages, the session, checks, printing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

import nntomo_dask as nt
from nntomo_dask.arrays.geometry import TiltRange
from nntomo_dask.cli.computing import (
    MEMORY as MEMORY,
    SESSION_OPTIONS as SESSION_OPTIONS,
    Bytes as Bytes,
    Verb as Verb,
    computing as computing,
)
from nntomo_dask.cli.options import is_given
from nntomo_dask.compute import chunking, cluster

PATH = click.Path(path_type=Path)


class Shape(click.ParamType[Any]):
    """One size, or Z,Y,X."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """One number, or a tuple of three."""
        try:
            sizes = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            sizes = ()
        if len(sizes) not in (1, 3) or min(sizes, default=0) < 1:
            self.fail(f"{value!r}: write one size, 128, or three, 100,512,512", param, ctx)
        return sizes[0] if len(sizes) == 1 else sizes


OVERWRITE = click.option("--overwrite", is_flag=True, help="Overwrite an existing output.")


def output(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every verb that writes a store."""
    where = click.option(
        "-o", "--output", type=PATH, required=True, help="Path of the store to write, such as volume.zarr."
    )
    return where(OVERWRITE(command))


def tilts(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every verb that makes a tilt series; `tilt_angles` reads them."""
    for option in reversed(
        [
            click.option(
                "--range",
                "tilt_range",
                type=click.Choice(get_args(TiltRange)),
                help="Range of the tilt angles: full is -90° (included) to 90° (excluded), tem is -70° to 70°. Needs "
                "--count.",
            ),
            click.option("--count", type=int, help="Number of projections in the range. Required with --range."),
            click.option(
                "--angles",
                type=PATH,
                help="File with the tilt angles in degrees, one per line, instead of --range and --count.",
            ),
        ]
    ):
        command = option(command)
    return command


def tilt_angles(tilt_range: Any, count: int | None, angles: Path | None) -> Any:
    """The angles that the options of `tilts` ask for."""
    if angles is not None and tilt_range is None and count is None:
        return nt.read_tilt_angles(angles)
    if angles is None and tilt_range is not None and count is not None:
        return nt.tilt_angles(tilt_range, count)
    raise click.UsageError("give either --range and --count, or --angles FILE")


def budget(memory: int | None) -> int:
    """Memory that a verb may use, in bytes: that of --memory, or what is free."""
    return cluster.free_memory_bytes() if memory is None else memory


def check_memory(host_bytes: chunking.HostBytes, array: Any, memory: int | None, *, who: str) -> int:
    """Bytes at the peak of an operation in slabs of the default height; a SchemaError where they exceed the memory."""
    z, middle, detector = array.shape
    return check_slab(host_bytes((chunking.slab_slices((z, middle, detector)), middle, detector)), memory, who=who)


def check_slab(slab_bytes: int, memory: int | None, *, who: str) -> int:
    """Bytes at the peak of an operation, from those of a slab; a SchemaError where they exceed the memory."""
    workers, processes = cluster.current_workers(), cluster.current_processes()
    needed = chunking.peak_bytes(slab_bytes, workers=workers, processes=processes)
    chunking.check_budget(budget(memory), needed, who, "its slabs")
    return needed


def slices_within_memory(
    host_bytes: chunking.HostBytes, shape: tuple[int, int, int], memory: int | None, *, wanted: int, who: str
) -> int:
    """Slices of a slab that keep an operation on a whole (z, angle, detector) within the memory."""
    return chunking.slices_within(
        budget(memory),
        host_bytes,
        shape=shape,
        workers=cluster.current_workers(),
        processes=cluster.current_processes(),
        wanted=chunking.GPU_SLAB_SLICES if cluster.on_gpus() else wanted,
        who=who,
    )


def check_free(*names: str, because: str) -> None:
    """Refuse options that were given but play no part."""
    for name in names:
        if is_given(name):
            raise click.UsageError(f"--{name.replace('_', '-')} {because}")
