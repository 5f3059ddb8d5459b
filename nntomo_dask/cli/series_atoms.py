"""The atoms of a tilt series, for the verb `atoms`: its options, and what they ask for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.arrays import schema
from nntomo_dask.atoms import chain, page
from nntomo_dask.atoms.sampling import Sampling
from nntomo_dask.cli import options, support
from nntomo_dask.cli.reconstruct import networks_of
from nntomo_dask.reconstruction import METHODS
from nntomo_dask.settings import settings_of
from nntomo_dask.untrusted import printable

FILES = (page.RECIPE, page.NUMBERS, page.PAGE, *page.FIGURES)
_NOISE = ("gain", "read_noise", "background")
# By the names of their parameters.
OPTIONS = ("smoothing", "method", "network_paths", "volume", "candidates", "last", *_NOISE, "folder")


class MethodName(options.Name):
    """The name of a method, or `assess`."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The names."""
        return "|".join((*self.registry, chain.ASSESSED))

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """A name of the registry, or `assess`."""
        if value == chain.ASSESSED:
            return chain.ASSESSED
        if value not in self.registry:
            self.fail(f"{value!r} is not one of {', '.join((*self.registry, chain.ASSESSED))}", param, ctx)
        return str(value)


class Verb(options.Chooser):
    """The verb has options of all methods too, as far as it has none of that name itself."""

    declarations = {}  # noqa: RUF012
    others = (METHODS,)

    def sections(self, own: list[click.Option]) -> dict[str, list[click.Option]]:
        """Options of any input, of a tilt series, and of the methods that may reconstruct one."""
        of_methods = {one.name for one in self.options_of_others()}
        of_series = {one.name for one in settings_of(Sampling) if one.option is not None} | set(OPTIONS)
        parts: dict[str, list[click.Option]] = {
            "Options": [],
            "Options of a tilt series": [],
            "Options of its --method": [],
        }
        for one in own:
            title = 2 if one.name in of_methods else 1 if one.name in of_series else 0
            parts[list(parts)[title]].append(one)
        return parts


_STAGES = (
    click.option(
        "--smoothing",
        type=float,
        metavar="NM",
        help="Standard deviation of the Gaussian by which projections are smoothed before the "
        "reconstruction; 0 for none. Default: the width of an atom.",
    ),
    click.option(
        "--method",
        type=MethodName(METHODS),
        help="How the volume is reconstructed in which sampling begins. assess: by the method that nntomo assess "
        "chooses. Default: SIRT with values of at least 0.",
    ),
    click.option(
        "--network",
        "network_paths",
        type=support.PATH,
        multiple=True,
        help=f"A network from nntomo train, for a --method that needs one; or {support.PRETRAINED}.",
    ),
    click.option("--volume", type=support.PATH, help="A reconstruction of it that there is already."),
    click.option(
        "--candidates",
        type=support.PATH,
        help="A file of atoms to begin with. Default: maxima of the volume.",
    ),
    click.option(
        "--last",
        type=click.Choice(get_args(chain.Last)),
        default="samples",
        show_default=True,
        help="The last stage. projections: after the samples, atoms are refined to the projections.",
    ),
    click.option(
        "--gain",
        type=float,
        help="What one count adds to a value. Default: the noise is found from the series.",
    ),
    click.option("--read-noise", type=float, help="Standard deviation of the read-out noise of a value."),
    click.option("--background", type=float, help="Value where there is no specimen."),
    click.option("--page", "folder", type=support.PATH, help="A folder for a page with figures and numbers."),
)


def stages(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that replace the stages of a chain."""
    for option in reversed(_STAGES):
        command = option(command)
    return command


def is_series(path: Path) -> bool:
    """Whether a store holds a tilt series."""
    return schema.ANGLE in nt.open(path).dims


def inputs(arguments: dict[str, Any]) -> list[Path]:
    """Files and stores that the options name."""
    given = [arguments[name] for name in ("volume", "candidates") if arguments[name] is not None]
    return [*given, *support.files_of(arguments["network_paths"])]


def refuse_all() -> None:
    """Refuse all of the options of a series, where there is none."""
    for name in (*(one.name for one in settings_of(Sampling) if one.option is not None), *OPTIONS):
        support.check_free(name, because="is for a tilt series, and this is a volume")
    _refuse_those_of_methods("is for a tilt series, and this is a volume")


def found(path: Path, elements: Any, arguments: dict[str, Any]) -> tuple[xr.DataArray, xr.Dataset]:
    """The volume and the atoms; the page is written."""
    if isinstance(elements, dict):
        raise click.UsageError("--elements of a series are symbols without numbers, such as Si or Zr,O")
    both = {name: arguments[name] for name in ("width", "minimum_distance")}
    settings = options.build(Sampling, arguments, **both)
    method = _method(arguments)
    volume, candidates = arguments["volume"], arguments["candidates"]
    if volume is not None and method is not None:
        raise click.UsageError("--method makes a volume, and --volume is one; leave one of them out")
    if not elements:
        click.echo(
            "note: without --elements all atoms are of one kind, and how close they may be is taken from their width",
            err=True,
        )
    made = chain.run(
        nt.open(path),
        elements=elements or (),
        smoothing=arguments["smoothing"],
        method=method,
        volume=None if volume is None else nt.open(volume),
        candidates=None if candidates is None else nt.read_atoms(candidates),
        last=arguments["last"],
        noise=_noise(arguments),
        settings=settings,
    )
    for what, value in page.told(made):
        click.echo(f"{what}: {value}", err=True)
    for note in page.notes(made):
        click.echo(f"note: {note}", err=True)
    folder = arguments["folder"]
    if folder is not None:
        written = page.write(made, folder, series=str(path), recipe=dict(made.atoms.attrs["recipe"]))
        click.echo(f"page: {printable(str(written))}", err=True)
    return made.volume, made.atoms


def _method(arguments: dict[str, Any]) -> Any:
    """The method that the options ask for; None where they do not."""
    name, networks = arguments["method"], arguments["network_paths"]
    if name is None or name == chain.ASSESSED:
        because = "is for a --method" if name is None else "is for one --method, and assess tries several"
        support.check_free("network_paths", because=because)
        _refuse_those_of_methods(because)
        return name
    members = networks_of(name, networks)
    needed: dict[str, Any] = {"networks": members} if members else {}
    return options.build_chosen(METHODS, name, "--method", arguments, without=_ours(), **needed)


def _noise(arguments: dict[str, Any]) -> nt.Noise | None:
    """The model that the options ask for; None where they do not."""
    given = {name: arguments[name] for name in _NOISE if arguments[name] is not None}
    if given and not {"gain", "read_noise"} & set(given):
        raise click.UsageError("--background is a part of the noise: give --gain or --read-noise too")
    return nt.Noise(**given) if given else None


def _ours() -> set[str]:
    """The options of the verb itself."""
    return {flag for one in click.get_current_context().command.params for flag in one.opts}


def _refuse_those_of_methods(because: str) -> None:
    for option in options.of_all(METHODS):
        if not _ours().intersection(option.opts) and options.is_given(str(option.name)):
            raise click.UsageError(f"{option.opts[0]} {because}")
