"""What the verbs of the `nntomo` command share: types of options, the session they run in, refusals, printing."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import nntomo_dask as nt
from nntomo_dask.compute import chunking, cluster
from nntomo_dask.errors import refuse

PATH = click.Path(path_type=Path)


class Bytes(click.ParamType[int]):
    """A memory size such as 2GiB."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Bytes of a text, or of a number as it is."""
        from dask.utils import parse_bytes

        try:
            size = int(parse_bytes(value)) if value else 0
        except ValueError:
            size = 0
        if size < 1:
            self.fail(f"{value!r} is no size; write 800MB or 2GiB", param, ctx)
        return size


class Shape(click.ParamType[Any]):
    """One size, or Z,Y,X."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """(z, y, x) or one number."""
        try:
            sizes = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            sizes = ()
        if len(sizes) not in (1, 3) or min(sizes, default=0) < 1:
            self.fail(f"{value!r}: write one size, 128, or three, 100,512,512", param, ctx)
        return sizes[0] if len(sizes) == 1 else sizes


MEMORY = click.option(
    "--memory", type=Bytes(), help="Memory to stay within, such as 2GiB. Default: what is free on this machine."
)
OVERWRITE = click.option("--overwrite", is_flag=True, help="Take the place of an output that was made otherwise.")
_SESSION = [
    click.option("--workers", type=int, help="Slabs in work at once. Default: one a CPU core."),
    click.option("--gpus", metavar="all|N|0,2", help="Compute on GPUs: all, so many, or these."),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="A Dask scheduler that runs already, tcp://host:8786; or threads or processes of this machine "
        "(default: threads for up to 4 workers).",
    ),
    click.option("--tls-ca-file", type=click.Path(exists=True), help="For a tls:// scheduler; as Dask's own options."),
    click.option("--tls-cert", type=click.Path(exists=True), help="Likewise."),
    click.option("--tls-key", type=click.Path(exists=True), help="Likewise."),
]
# What worker processes import while this one still plans.
_PRELOADED = (
    "nntomo_dask.store",
    "nntomo_dask.phantoms",
    "nntomo_dask.reconstruction.nnfbp",
    "nntomo_dask.training.nnfbp.samples",
)
SESSION_OPTIONS = ("workers", "gpus", "scheduler", "tls_ca_file", "tls_cert", "tls_key")


def output(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every verb that writes a store."""
    where = click.option("-o", "--output", type=PATH, required=True, help="The store to write, NAME.zarr.")
    return where(OVERWRITE(command))


def computing(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every verb that computes; the verb runs inside the session they ask for."""

    @functools.wraps(command)
    def wrapped(**arguments: Any) -> None:
        options = {name: arguments.pop(name) for name in SESSION_OPTIONS}
        with cluster.session(**options, preload=_PRELOADED, progress="bar"):
            command(**arguments)

    for option in reversed([*_SESSION, MEMORY]):
        wrapped = option(wrapped)
    return wrapped


def budget(memory: int | None) -> int:
    """Bytes that a verb may hold: those of --memory, or what is free."""
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


def check_applicable(known_to: dict[str, tuple[str, ...]], choice: str, chosen: str) -> None:
    """Refuse an option that was given and that what was chosen does not know."""
    context = click.get_current_context()
    for name, those in known_to.items():
        if is_given(name) and chosen not in those:
            option = next(item.opts[0] for item in context.command.params if item.name == name)
            raise click.UsageError(f"{option} is for {choice} {' or '.join(those)}, not for {chosen}")


def check_free(*names: str, because: str) -> None:
    """Refuse options that were given where they play no part."""
    for name in names:
        if is_given(name):
            raise click.UsageError(f"--{name.replace('_', '-')} {because}")


def is_given(name: str) -> bool:
    """Whether an option stands on the command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def check_network_output(output: Path, checkpoint: Path, *, overwrite: bool) -> None:
    """Refuse to replace what is no network, or one whose training is not known any more."""
    if output.exists():
        nt.load_network(output)
        if not overwrite and not checkpoint.exists():
            refuse("train", needs="a free place", got=f"{output}, which is there", remedy="give --overwrite")
