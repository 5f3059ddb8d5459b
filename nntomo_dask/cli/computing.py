"""The options of the computation, which many verbs share, and their section in the help pages."""

import functools
from collections.abc import Callable
from typing import Any

import click

from nntomo_dask.compute import cluster


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


MEMORY = click.option(
    "--memory",
    type=Bytes(),
    help="Memory that the command and all its workers may use together, such as 800MB or 2GiB. It decides how many "
    "slices a slab has. Default: what is free on this machine, or what a container, a job or ulimit leaves.",
)
_SESSION = [
    click.option(
        "--workers",
        type=int,
        help="Number of slabs that are computed at once; fewer where more do not fit the memory. Default: one per CPU "
        "core that this command may use.",
    ),
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

    def sections(self, own: list[click.Option]) -> dict[str, list[click.Option]]:
        """The verb's own options by the title of their section."""
        return {"Options": own}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options: those of the verb, then those of the computation."""
        options = {one.name: one for one in self.get_params(ctx) if isinstance(one, click.Option)}
        own = [one for name, one in options.items() if name not in _COMPUTING]
        computing = [options[name] for name in _COMPUTING if name in options]
        for title, some in self.sections(own).items():
            with formatter.section(title):
                formatter.write_dl(_rows(some, ctx))
        if computing:
            with formatter.section("Computing options"):
                formatter.write_text(_ABOUT_COMPUTING)
                formatter.write_paragraph()
                formatter.write_dl(_rows(computing, ctx))


def _rows(options: list[click.Option], ctx: click.Context) -> list[tuple[str, str]]:
    """Option and help of each, without hidden ones."""
    return [row for one in options if (row := one.get_help_record(ctx)) is not None]


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
