"""What the verbs of the `nntomo` command share: types of options, help pages, the session, checks, printing."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

import nntomo_dask as nt
from nntomo_dask.arrays.geometry import TiltRange
from nntomo_dask.compute import chunking, cluster
from nntomo_dask.errors import refuse

PATH = click.Path(path_type=Path)


class Bytes(click.ParamType[int]):
    """A memory size such as 2GiB."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """The number of bytes."""
        from dask.utils import parse_bytes

        try:
            size = int(parse_bytes(value)) if value else 0
        except ValueError:
            size = 0
        if size < 1:
            self.fail(f"{value!r} is not a memory size; write 800MB or 2GiB", param, ctx)
        return size


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


MEMORY = click.option(
    "--memory",
    type=Bytes(),
    help="Memory that the command and all its workers may use together, such as 800MB or 2GiB. It decides how many "
    "slices a slab has. Default: the memory that is free on this machine.",
)
OVERWRITE = click.option("--overwrite", is_flag=True, help="Overwrite an existing output.")
_SESSION = [
    click.option("--workers", type=int, help="Number of slabs that are computed at once. Default: one per CPU core."),
    click.option(
        "--gpus",
        metavar="all|NUMBER|LIST",
        help="Compute on GPUs. A single number is how many GPUs to use: 2 means the first two. A list with commas "
        "names them: 0,2 means the first and the third, and 2, (with a comma) means only the third. all means all of "
        "them.",
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS|threads|processes",
        help="Where the slabs are computed: by the workers of a Dask scheduler that is already running, such as "
        "tcp://host:8786, or by threads or processes of this machine. Default: threads for up to 4 workers, processes "
        "for more.",
    ),
    click.option(
        "--tls-ca-file",
        type=click.Path(exists=True),
        help="For a tls:// scheduler: file with the certificate of the authority that signed the keys. The three --tls "
        "options must be given together.",
    ),
    click.option(
        "--tls-cert",
        type=click.Path(exists=True),
        help="For a tls:// scheduler: file with your certificate.",
    ),
    click.option(
        "--tls-key",
        type=click.Path(exists=True),
        help="For a tls:// scheduler: file with your private key.",
    ),
]
# What worker processes import while this process is still planning.
_PRELOADED = (
    "nntomo_dask.store",
    "nntomo_dask.phantoms",
    "nntomo_dask.reconstruction.nnfbp",
    "nntomo_dask.training.nnfbp.samples",
)
SESSION_OPTIONS = ("workers", "gpus", "scheduler", "tls_ca_file", "tls_cert", "tls_key")
# Help pages show these in a section of their own, after the options that are about the specimen.
_COMPUTING = ("memory", *SESSION_OPTIONS)
_ABOUT_COMPUTING = (
    "The data are computed in slabs, groups of neighbouring slices (nntomo simulate: projections). Slabs are read, "
    "computed and written a few at a time, so that a volume may be larger than the memory. These options do not change "
    "the result, except that a GPU may differ from a CPU in the last digits."
)


class Verb(click.Command):
    """A verb whose help page shows the options of the computation in a section of their own, at the end."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options: those of the verb, then those of the computation."""
        options = {one.name: one for one in self.get_params(ctx) if isinstance(one, click.Option)}
        own = [one for name, one in options.items() if name not in _COMPUTING]
        computing = [options[name] for name in _COMPUTING if name in options]
        with formatter.section("Options"):
            formatter.write_dl(_rows(own, ctx))
        if computing:
            with formatter.section("Computing options"):
                formatter.write_text(_ABOUT_COMPUTING)
                formatter.write_paragraph()
                formatter.write_dl(_rows(computing, ctx))


def _rows(options: list[click.Option], ctx: click.Context) -> list[tuple[str, str]]:
    """Option and help of each, without hidden ones."""
    return [row for one in options if (row := one.get_help_record(ctx)) is not None]


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


def computing(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every verb that computes. The verb runs in the session that they ask for."""

    @functools.wraps(command)
    def wrapped(**arguments: Any) -> None:
        options = {name: arguments.pop(name) for name in SESSION_OPTIONS}
        with cluster.session(**options, preload=_PRELOADED, progress="bar"):
            command(**arguments)

    for option in reversed([*_SESSION, MEMORY]):
        wrapped = option(wrapped)
    return wrapped


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


def check_applicable(known_to: dict[str, tuple[str, ...]], choice: str, chosen: str) -> None:
    """Refuse an option that was given and does not belong to what was chosen."""
    context = click.get_current_context()
    for name, those in known_to.items():
        if is_given(name) and chosen not in those:
            option = next(item.opts[0] for item in context.command.params if item.name == name)
            raise click.UsageError(f"{option} is for {choice} {' or '.join(those)}, not for {chosen}")


def check_free(*names: str, because: str) -> None:
    """Refuse options that were given but play no part."""
    for name in names:
        if is_given(name):
            raise click.UsageError(f"--{name.replace('_', '-')} {because}")


def is_given(name: str) -> bool:
    """Whether an option was given on the command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def check_network_output(output: Path, checkpoint: Path, *, overwrite: bool) -> None:
    """Refuse to overwrite a file that is not a network, or a network whose checkpoint is missing."""
    if output.exists():
        nt.load_network(output)
        if not overwrite and not checkpoint.exists():
            refuse("train", needs="a free path", got=f"{output}, which exists", remedy="`overwrite=True`")
