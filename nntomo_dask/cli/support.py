"""What the verbs of the `nntomo` command share: types of options, help pages, the session, checks, printing."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
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
from nntomo_dask.networks.pretrained import Pretrained

PATH = click.Path(path_type=Path)
PRETRAINED = " or ".join(get_args(Pretrained))


class Shape(click.ParamType[Any]):
    """One size, or Z,Y,X."""

    name = "size"

    def __init__(self, example: str = "one size, 128, or three, 100,512,512") -> None:
        self.example = example

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """One number, or a tuple of three."""
        try:
            sizes = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            sizes = ()
        if len(sizes) not in (1, 3) or min(sizes, default=0) < 1:
            self.fail(f"{value!r}: write {self.example}", param, ctx)
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


def budget(memory: int | None) -> chunking.Budget:
    """Memory that a verb may use: that of --memory, or what this process may take of the machine."""
    return cluster.free_memory() if memory is None else chunking.Budget(memory)


def slices_within_memory(
    host_bytes: chunking.HostBytes,
    shape: chunking.SlabShape,
    memory: int | None,
    *,
    wanted: int,
    who: str,
    apart: int = 0,
    piece: str | None = None,
) -> int:
    """Slices of a slab that keep an operation on a whole (z, angle, detector) within the memory.

    Where not even slabs of one slice fit, fewer workers compute, and a line says so.

    Parameters
    ----------
    apart
        Bytes that the verb holds beside the slabs.
    piece
        What the smallest slab is, for errors; by default a slice.
    """
    workers, limit = cluster.current_workers(), budget(memory)
    plan = chunking.plan(
        dataclasses.replace(limit, size=limit.size - apart),
        host_bytes,
        shape=shape,
        workers=workers,
        processes=cluster.current_processes(),
        fixed=not cluster.can_reduce(),
        least_for_processes=cluster.least_for_processes(),
        wanted=chunking.GPU_SLAB_SLICES if cluster.on_gpus() else wanted,
        who=who,
        piece=piece,
    )
    use_workers(plan.workers, limit)
    return plan.slices


def use_workers(workers: int, limit: chunking.Budget) -> None:
    """Compute with so many workers, and say so where these are fewer than were asked for."""
    if workers < (asked := cluster.current_workers()):
        cluster.reduce_workers(workers)
        size = f"{limit.origin or '--memory'}, {limit.size // 2**20} MiB"
        click.echo(f"note: {workers} of {asked} workers compute; more do not fit into {size}", err=True)


@contextlib.contextmanager
def slabs_within_memory(
    host_bytes: chunking.HostBytes, memory: int | None, *, who: str, wanted: int = chunking.SLAB_SLICES
) -> Iterator[None]:
    """Arrays that are made, or read from a file, within this context come in slabs that keep to the memory.

    A slab is lower than the default where it has to be. Fewer workers compute where not even one slice a worker fits.
    `wanted` are slices beyond which the operation gains nothing.
    """

    def highest(shape: chunking.SlabShape) -> int:
        return slices_within_memory(host_bytes, shape, memory, wanted=wanted, who=who)

    with chunking.lower_slabs(highest):
        yield


def network_at(path: Path) -> Any:
    """The network that --network names: that of a file, or one that comes with the package."""
    name: Any = path.name
    return nt.pretrained_network(name) if _is_pretrained(path) else nt.load_network(path)


def files_of(networks: Sequence[Path]) -> list[Path]:
    """Those of the names after --network that are files."""
    return [path for path in networks if not _is_pretrained(path)]


def _is_pretrained(path: Path) -> bool:
    return str(path) in get_args(Pretrained) and not path.exists()


def check_free(*names: str, because: str) -> None:
    """Refuse options that were given but play no part."""
    for name in names:
        if is_given(name):
            declared = {one.name: max(one.opts, key=len) for one in click.get_current_context().command.params}
            shown = declared.get(name, "--" + name.replace("_", "-"))  # those of a method are made when it is known
            raise click.UsageError(f"{shown} {because}")
