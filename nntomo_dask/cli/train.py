"""The verb `train`: its options are the settings of all networks that are registered when it is called."""

import dataclasses
from pathlib import Path
from typing import Any

import click
import xarray as xr

import nntomo_dask as nt
from nntomo_dask import aside
from nntomo_dask.arrays import recipes, schema
from nntomo_dask.assessment import check
from nntomo_dask.cli import options, support
from nntomo_dask.compute import cluster
from nntomo_dask.errors import refuse
from nntomo_dask.networks import files
from nntomo_dask.phantoms import PHANTOMS
from nntomo_dask.settings import settings_of
from nntomo_dask.store import outputs
from nntomo_dask.training import TRAININGS
from nntomo_dask.training.checkpoints import Checkpoint, refuse_another
from nntomo_dask.training.declaration import Pairs, Sets, Training
from nntomo_dask.untrusted import printable

CHECKPOINT = ".training.safetensors"
_Paths = tuple[tuple[Path, ...], tuple[Path, ...]]  # of series and of volumes
_FORMER = {"--binning": "--filter-bins"}  # options of version 0.1.0 that have another name now


class _Train(options.chooser(TRAININGS, PHANTOMS)):  # type: ignore[misc]
    """Takes options by their former names too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words of the command line, options by their former names too."""
        parts = (word.partition("=") for word in args)
        words: list[str] = super().parse_args(
            ctx, [f"{_FORMER.get(name, name)}{sign}{value}" for name, sign, value in parts]
        )
        return words


def _first_network() -> str:
    return next(iter(TRAININGS))


@click.command(cls=_Train)
@click.option(
    "--for",
    "target",
    type=support.PATH,
    help="The series for which the network is trained: its angles and its number of detector pixels are used.",
)
@click.option(
    "--network",
    type=options.Name(TRAININGS),
    default=_first_network,
    show_default="the first one of the list",
    help="The kind of network; the list is above.",
)
@click.option(
    "--series",
    "all_series",
    type=support.PATH,
    multiple=True,
    help="A training series of your own, instead of --for, or beside it where the network takes both; it needs its "
    "--volume. May be repeated.",
)
@click.option(
    "--volume", "volumes", type=support.PATH, multiple=True, help="The volume of each --series, in the same order."
)
@click.option(
    "--validation-series",
    type=support.PATH,
    multiple=True,
    help="A series of your own for validation; may be repeated.",
)
@click.option(
    "--validation-volume",
    type=support.PATH,
    multiple=True,
    help="The volume of each --validation-series, in the same order.",
)
@click.option(
    "--members",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="The number of networks in an ensemble. They are written to NAME-0.safetensors, NAME-1.safetensors "
    "and so on, and start from the seeds SEED, SEED + 1 and so on.",
)
@click.option(
    "--max-epochs",
    type=click.IntRange(min=1),
    help="The training ends after so many epochs at the latest. By default each network and solver has its own number.",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="The seed of all random choices; the same seed gives the same network.",
)
@click.option("-o", "--output", type=support.PATH, required=True, help="The network to write, NAME.safetensors.")
@support.OVERWRITE
@support.computing
def train(
    target: Path | None,
    network: str,
    output: Path,
    members: int,
    max_epochs: int | None,
    seed: int,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
    **arguments: Any,
) -> None:
    """Train a network.

    The network learns from phantoms that are made for one series (--for), or from your own pairs of series and volume;
    unrolled networks from both.
    An interrupted training continues when the same command is given again; OUTPUT.training.safetensors holds its state.

    \b
    Example:
      nntomo train --for series.zarr -o network.safetensors
    """
    training = _with_phantom(options.build_chosen(TRAININGS, network, "--network", arguments), arguments)
    given = _pairs(arguments["all_series"], arguments["volumes"])
    validation = _pairs(arguments["validation_series"], arguments["validation_volume"])
    if target is None and given is None:
        raise click.UsageError("give either --for SERIES, or pairs of --series and --volume")
    if given is None:
        reason = "plays no part where --for makes a set for validation; leave it out"
        support.check_free("validation_series", "validation_volume", because=reason)
    training.check()
    _check_unused(training, own_pairs=given is not None)
    if output.name in ("", ".."):
        aside.check_file(aside.resolved(output), who="train")  # which refuses it
    if output.name.lower().endswith(CHECKPOINT):
        got = f"{output}, whose ending is that of checkpoints"
        refuse("train", needs="a name for a network, NAME.safetensors", got=got, remedy="give another name")
    places = _places(output, members)
    checkpoints = [files.beside(place, CHECKPOINT) for place in places]
    inputs = [path for path in (target, arguments.get("input_network")) if path is not None]
    for name in ("all_series", "volumes", "validation_series", "validation_volume"):
        inputs += arguments[name]
    with outputs.reserved("train", replaced=[*places, *checkpoints], inputs=inputs, overwrite=overwrite):
        for place, checkpoint in zip(places, checkpoints, strict=True):
            _check_output(place, checkpoint, training, overwrite=overwrite)
        series = None if target is None else nt.open(target)
        if series is not None:
            schema.check_tilt_series(series, who="train")
        if given is not None and len(given[0]) != len(given[1]):
            got = f"{len(given[0])} series and {len(given[1])} volumes"
            refuse("train", needs="a volume for each series", got=got, remedy="give a --volume for each --series")
        for note in training.notes(series, validation=validation is not None):
            click.echo(f"note: {note}", err=True)
        if series is not None:
            sets = _sets_for(training, series, given, validation, seed=seed)
            _say_noise(sets)
        else:
            assert given is not None
            sets = training.sets_of(_opened(given), None if validation is None else _opened(validation), seed=seed)
        for line in training.told(sets):
            click.echo(f"note: {line}", err=True)
        for number, checkpoint in enumerate(() if overwrite else checkpoints):
            _check_continues(checkpoint, training, sets, seed=seed + number, max_epochs=max_epochs)
        if overwrite or not all(_has_ended(training, checkpoint) for checkpoint in checkpoints):
            folder = training.folder(output, sets)
            if folder is not None:
                outputs.check_folder(folder, inputs, who="train")
            sets = _prepared(training, sets, output, members, memory, overwrite=overwrite)
        for checkpoint in checkpoints if overwrite else ():
            checkpoint.unlink(missing_ok=True)
        if members == 1:
            networks = [training.train(*sets, seed=seed, max_epochs=max_epochs, checkpoint=checkpoints[0])]
        else:
            networks = nt.train_ensemble(
                training.train, *sets, members=members, seed=seed, checkpoints=checkpoints, max_epochs=max_epochs
            )
        for trained, place in zip(networks, places, strict=True):
            nt.save_network(trained, place)
            click.echo(f"{printable(str(place))}: {training.describe_outcome(trained)}")
        if series is not None:
            for line in check.told(series, networks[0]):
                click.echo(line, err=True)


def _sets_for(
    training: Training[Any], series: xr.DataArray, given: _Paths | None, validation: _Paths | None, *, seed: int
) -> Sets:
    """Sets for a series, from phantoms and from pairs where there are any."""
    if given is None:
        return training.sets_for(series, seed=seed)
    return training.sets_with(series, _opened(given), None if validation is None else _opened(validation), seed=seed)


def _say_noise(sets: Sets) -> None:
    """Tell which noise the phantoms have, where they have the series' own."""
    made = recipes.find(sets.training.attrs["recipe"], "add_noise")
    model = made["parameters"]["noise"] if made is not None else None
    if isinstance(model, dict):
        text = f"read-out {model['read_noise']:.3g}, gain {model['gain']:.3g}, background {model['background']:.3g}"
        click.echo(f"note: the phantoms have the noise of the series: {text}, in its units", err=True)


def _places(output: Path, members: int) -> list[Path]:
    """The files of the networks."""
    if members == 1:
        return [output]
    suffix = output.name[len(files.beside(output, "").name) :]
    return [files.beside(output, f"-{k}{suffix}") for k in range(members)]


def _check_output(place: Path, checkpoint: Path, training: Training[Any], *, overwrite: bool) -> None:
    """Refuse to replace what is no network or no checkpoint, and a network whose checkpoint is missing."""
    if place.exists():
        if not place.name.lower().endswith(files.SUFFIX) and not files.kind_of(place):
            got = f"{place}, which is something else"
            refuse("train", needs="a free path, or the path of a network", got=got, remedy="another `output`")
        nt.load_network(place)
        if not overwrite and not checkpoint.exists():
            refuse("train", needs="a free path", got=f"{place}, which exists", remedy="`overwrite=True`")
    if checkpoint.exists() and overwrite and not files.was_of(checkpoint, training.kind.format):
        got = f"{checkpoint}, which is something else"
        refuse("train", needs="a free path for the checkpoint", got=got, remedy="move that file, or another name")
    with_suffix = place.name.lower().endswith(files.SUFFIX)
    twin = files.beside(place, "" if with_suffix else files.SUFFIX)
    if files.kind_of(twin):
        got = f"{place.name} beside {twin.name}, which share {checkpoint.name}"
        refuse("train", needs="a checkpoint for each network", got=got, remedy="give another name")


def _check_continues(
    checkpoint: Path, training: Training[Any], sets: Sets, *, seed: int, max_epochs: int | None
) -> None:
    """Refuse a checkpoint that another training began, before the sets are made."""
    if not checkpoint.exists():
        return
    there = Checkpoint.load(checkpoint, training.kind).frame.recipe
    known = training.recorded() | {
        "seed": seed,
        "max_epochs": training.default_epochs if max_epochs is None else max_epochs,
    }
    parameters = {name: known.get(name, value) for name, value in there["parameters"].items()}
    here = there | {"parameters": parameters, "inputs": [part.attrs["recipe"] for part in sets]}
    if not recipes.same(there, here):
        difference = recipes.difference(there, here)
        refuse_another("train", checkpoint, "data and parameters", f"another: {difference}")


def _pairs(series: tuple[Path, ...], volumes: tuple[Path, ...]) -> _Paths | None:
    return (series, volumes) if series or volumes else None


def _opened(paths: _Paths) -> Pairs:
    series, volumes = paths
    return Pairs([nt.open(path) for path in series], [nt.open(path) for path in volumes])


def _options_of_phantoms() -> list[click.Option]:
    command = click.get_current_context().command
    assert isinstance(command, options.Chooser)
    return command.options_of_others()


def _given_to_phantoms() -> list[str]:
    """Options of phantoms that stand on the command line."""
    return [max(one.opts, key=len) for one in _options_of_phantoms() if options.is_given(str(one.name))]


def _with_phantom(training: Training[Any], arguments: dict[str, Any]) -> Training[Any]:
    """A training whose phantom has the settings that stand on the command line."""
    given = _given_to_phantoms()
    if not given:
        return training
    if not hasattr(training, "phantom"):
        raise click.UsageError(f"{given[0]} is for phantoms, from which --network {training.name} does not learn")
    known = {flag for one in _options_of_phantoms() for flag in one.opts}
    without = {one.flag for declared in PHANTOMS.values() for one in settings_of(declared)} - known
    chosen = options.build_chosen(PHANTOMS, training.phantom, "--phantom", arguments, without=without)
    changed: Training[Any] = dataclasses.replace(training, **{"phantom": chosen})
    return changed


def _check_unused(training: Training[Any], *, own_pairs: bool) -> None:
    """Refuse options that are given although they play no part."""
    flags = {one.name: one.flag for one in settings_of(training)}
    for name, reason in training.unused(own_pairs=own_pairs).items():
        if options.is_given(flags[name].removeprefix("--").replace("-", "_")):
            raise click.UsageError(f"{flags[name]} plays no part where {reason}; leave it out")
        if name == "phantom":
            for flag in _given_to_phantoms():
                raise click.UsageError(f"{flag} plays no part where {reason}; leave it out")


def _has_ended(training: Training[Any], checkpoint: Path) -> bool:
    """Whether a training is complete, so that it needs no sets."""
    return checkpoint.exists() and Checkpoint.load(checkpoint, training.kind).ended


def _prepared(
    training: Training[Any],
    sets: Sets,
    output: Path,
    members: int,
    memory: int | None,
    *,
    overwrite: bool,
) -> Sets:
    """The sets in memory, or in stores beside the network and read from there.

    Raises
    ------
    SchemaError
        They cannot keep to the memory.
    """
    limit = support.budget(memory)
    workers, processes = cluster.current_workers(), cluster.current_processes()
    threads = -(-workers // processes) if processes else 0

    def need(asked: int) -> int:
        started = -(-asked // threads) if threads else 0
        return training.host_bytes(sets, workers=asked, processes=started, members=members)

    fewest = 1 if cluster.can_reduce() else workers
    asked = next((one for one in range(workers, fewest - 1, -1) if need(one) <= limit.size), fewest)
    limit.check(need(asked), "train", training.described(sets), fixed=fewest > 1)
    support.use_workers(asked, limit)
    if training.reads == "blocks":
        return sets
    folder = training.folder(output, sets)
    if folder is None:
        return Sets(*cluster.load(*sets, description=training.holds, progress="bar"))
    text = f"the {training.holds} are kept in {folder}; once the training has ended you may delete that folder"
    click.echo(text, err=True)

    def save(array: Any, path: Path) -> Any:
        return nt.save(array, path, overwrite=overwrite, progress="bar")

    return training.keep(sets, folder, save=save)
