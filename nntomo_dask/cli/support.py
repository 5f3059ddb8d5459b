"""What the verbs of the `nntomo` command share: types of options, the session they run in, refusals, printing."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

import nntomo_dask as nt
from nntomo_dask.arrays import schema
from nntomo_dask.cli.report import MRC_SUFFIXES
from nntomo_dask.compute import chunking, cluster
from nntomo_dask.errors import refuse
from nntomo_dask.reconstruction.nnfbp import OUTSIDE_LIMIT

PATH = click.Path(path_type=Path)
WINDOWS = ["ram-lak", "shepp-logan", "cosine", "hamming", "hann"]


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


def check_memory(operation: Any, array: Any, memory: int | None) -> None:
    """Raise a SchemaError where an operation in slabs of the default height cannot keep to the memory."""
    z, middle, detector = array.shape
    needed = chunking.peak_bytes(
        operation,
        slices=chunking.slab_slices((z, middle, detector)),
        angles=middle,
        detector=detector,
        workers=cluster.current_workers(),
        processes=cluster.current_processes(),
    )
    chunking.check_budget(budget(memory), needed, operation, "its slabs")


def compare_memory(truth: Any, memory: int | None) -> int:
    """Bytes that the correlation of a comparison may hold: what the program and its slabs leave of the memory."""
    detector = truth.shape[-1]
    slices = truth.data.chunks[0][0]
    needed = chunking.peak_bytes(
        "compare",
        slices=slices,
        angles=0,
        detector=detector,
        workers=cluster.current_workers(),
        processes=cluster.current_processes(),
    )
    available = budget(memory)
    chunking.check_budget(available, needed, "compare", "its slabs")
    return max(available - needed, 1) if memory is not None else (available - needed) // 2


def slices_within_memory(operation: Any, source: Any, angles: int, memory: int | None, *, hidden: int = 0) -> int:
    """Slices of a slab that keep an operation within the memory."""
    detector = source.shape[-1]
    return chunking.slices_within(
        budget(memory),
        operation,
        shape=(source.sizes[schema.Z], detector, detector),
        angles=angles,
        detector=detector,
        workers=cluster.current_workers(),
        processes=cluster.current_processes(),
        hidden=hidden,
        on_gpu=cluster.on_gpus(),
    )


def report_outside_range(series: Any, network: Any, scale: Any) -> None:
    """Print the share of a network's inputs outside its training range, and what to do about too many."""
    found = float(nt.intensity_level(series)) / network.level if scale == "auto" else scale
    share = float(nt.outside_training_range(series, network, scale=found if found > 0 else 1).mean())
    origin = "estimated" if scale == "auto" else "given"
    click.echo(f"intensity of the specimen, {origin}: {found:.5g} times that of the training volumes", err=True)
    click.echo(f"inputs outside the training range: {share:.1%}", err=True)
    if share > OUTSIDE_LIMIT:
        click.echo(
            f"warning: above {OUTSIDE_LIMIT:.0%} the network extrapolates; train it on what resembles this specimen, "
            "take off the background at import, or set --scale",
            err=True,
        )


def background_of(series: Any, text: str) -> float:
    """The value of --background in counts; tells what it found, and hints where a series seems to need it."""
    slices = np.unique(np.linspace(0, series.sizes[schema.Z] - 1, 64).round().astype(int))
    dim, bright = np.nanpercentile(series.isel({schema.Z: slices}).values, [5, 99])
    if text == "auto":
        click.echo(f"background: {dim:g} counts taken off", err=True)
        return float(dim)
    try:
        counts = float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r}; write a number or auto", param_hint="--background") from None
    if counts == 0 and dim > 0.01 * bright:
        click.echo(
            f"hint: the dimmest pixels have {dim:g} counts, the brightest {bright:g}; if the former is the detector's "
            "offset, import with --background auto: to a reconstruction it is matter",
            err=True,
        )
    return counts


def angles_of(keep: str) -> Any:
    """START:STOP:STEP as angles, STOP included."""
    try:
        start, stop, step = (float(part) for part in keep.split(":"))
        wanted = start + step * np.arange(int((stop - start) / step + 1e-9) + 1)
    except (ValueError, ZeroDivisionError):
        wanted = np.empty(0)
    if wanted.size < 2:
        raise click.BadParameter(f"{keep!r}; write START:STOP:STEP, -70:70:10", param_hint="--keep")
    return wanted


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


def check_export(target: Path, *, overwrite: bool) -> None:
    """Refuse to write anything but an MRC file, or over a file that is there."""
    if target.suffix not in MRC_SUFFIXES:
        refuse("export", needs=f"a name that ends in {', '.join(MRC_SUFFIXES)}", got=str(target), remedy="name it so")
    if target.exists() and not overwrite:
        refuse("export", needs="a free place", got=f"{target}, which is there", remedy="give --overwrite")


def scale_of(text: str) -> Any:
    """The value of --scale."""
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r}; write a number or auto", param_hint="--scale") from None
