"""The verb `train`."""

from pathlib import Path
from typing import Any

import click

import nntomo_dask as nt
from nntomo_dask.arrays import schema
from nntomo_dask.cli import report, support
from nntomo_dask.compute import chunking, cluster
from nntomo_dask.store import lock
from nntomo_dask.training.msdnet_state import State

_OF_NETWORK: dict[str, tuple[str, ...]] = {
    "samples": ("nnfbp",),
    "hidden": ("nnfbp",),
    "activation": ("nnfbp",),
    "binning": ("nnfbp",),
    "wedge": ("nnfbp",),
    "solver": ("nnfbp",),
    "input_method": ("msdnet",),
    "input_network": ("msdnet",),
    "neighbours": ("msdnet",),
    "depth": ("msdnet",),
    "loss": ("msdnet",),
    "self_supervised": ("msdnet",),
    "splits": ("msdnet",),
}


@click.command()
@click.option("--for", "target", type=support.PATH, help="The series to train for: its angles and detector are taken.")
@click.option(
    "--network",
    type=click.Choice(["nnfbp", "msdnet"]),
    default="nnfbp",
    show_default=True,
    help="nnfbp: seconds, for volumes of any size. msdnet: minutes to hours, and a better volume.",
)
@click.option(
    "--phantom",
    type=click.Choice(["ellipses", "bodies", "mixed", "spheres"]),
    help="What the network learns from. ellipses (default of nnfbp): one material; bodies (default of msdnet): the "
    "same in three dimensions; mixed: a specimen nothing is known of.",
)
@click.option(
    "--slices", type=click.IntRange(min=4), help="Slices of the training phantom. Default: 400, for msdnet 1600."
)
@click.option(
    "--series", "all_series", type=support.PATH, multiple=True, help="A training series of your own; repeatable."
)
@click.option(
    "--volume", "volumes", type=support.PATH, multiple=True, help="The volume of each --series, in their order."
)
@click.option("--validation-series", type=support.PATH, multiple=True, help="As --series, for validation; repeatable.")
@click.option("--validation-volume", type=support.PATH, multiple=True, help="The volume of each --validation-series.")
@click.option(
    "--samples",
    default=100_000,
    show_default=True,
    help="nnfbp: training voxels, and as many for validation; above 1048576 kept beside OUTPUT, in chunks.",
)
@click.option("--hidden", default=8, show_default=True, help="nnfbp: hidden nodes, learned filters.")
@click.option("--activation", type=click.Choice(["relu", "sigmoid"]), default="relu", show_default=True, help="nnfbp.")
@click.option(
    "--binning", type=click.Choice(["exponential", "none"]), default="exponential", show_default=True, help="nnfbp."
)
@click.option(
    "--wedge",
    type=click.Choice(["complete", "keep"]),
    default="complete",
    show_default=True,
    help="nnfbp: fill the missing wedge by interpolation before filtering, or not.",
)
@click.option(
    "--solver",
    type=click.Choice(["lm", "adam"]),
    default="lm",
    show_default=True,
    help="nnfbp; adam holds all in memory.",
)
@click.option(
    "--input",
    "input_method",
    type=click.Choice(["sirt", "fbp", "nnfbp"]),
    help="msdnet: the reconstruction to improve. Default: sirt, of values at least 0; fbp with --self-supervised.",
)
@click.option("--input-network", type=support.PATH, help="msdnet with --input nnfbp: the NN-FBP network.")
@click.option(
    "--neighbours",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="msdnet: slices on either side that it looks at.",
)
@click.option(
    "--depth",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="msdnet: layers; the time grows with its square.",
)
@click.option(
    "--loss", type=click.Choice(["l2", "l1"]), default="l2", show_default=True, help="msdnet: square or absolute error."
)
@click.option(
    "--self-supervised",
    is_flag=True,
    help="msdnet: learn from the measured series itself, to take its noise away; for dozens of projections.",
)
@click.option(
    "--splits",
    type=click.IntRange(min=2),
    default=2,
    show_default=True,
    help="msdnet, self-supervised: parts of the projections.",
)
@click.option("--members", type=click.IntRange(min=1), default=1, show_default=True, help="Networks of an ensemble: "
              "NAME-0.safetensors and so on, of seeds SEED, SEED + 1, ….")  # fmt: skip
@click.option("--max-epochs", type=click.IntRange(min=1), help="Default: 500 for lm, 10000 for adam, 200 for msdnet.")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--output", type=support.PATH, required=True, help="The network to write, NAME.safetensors.")
@support.OVERWRITE
@support.computing
def train(
    target: Path | None,
    network: str,
    output: Path,
    members: int,
    seed: int,
    memory: int | None,
    overwrite: bool,  # noqa: FBT001
    **options: Any,
) -> None:
    """Train a network.

    From phantoms for one series, or from pairs of series and volume of your own. An interrupted training goes on when
    the command is given again; OUTPUT.training.safetensors keeps what it has reached.
    """
    support.check_applicable(_OF_NETWORK, "--network", network)
    if (target is None) == (not options["all_series"]):
        raise click.UsageError("give either --for SERIES, or pairs of --series and --volume")
    if options["self_supervised"] and target is None:
        raise click.UsageError("--self-supervised learns from one series: give it by --for")
    places = (
        [output] if members == 1 else [output.with_name(f"{output.stem}-{k}{output.suffix}") for k in range(members)]
    )
    checkpoints = [place.with_name(f"{place.stem}.training.safetensors") for place in places]
    with lock.held(output):
        for place, checkpoint in zip(places, checkpoints, strict=True):
            support.check_network_output(place, checkpoint, overwrite=overwrite)
        if target is not None:
            support.check_free(
                "validation_series",
                "validation_volume",
                because="plays no part where --for makes a phantom for validation; leave it out",
            )
        prepare = _nnfbp if network == "nnfbp" else _msdnet
        options |= {"members": members, "seed": seed, "memory": memory, "overwrite": overwrite}
        function, sets, arguments = prepare(target, output, checkpoints, options)
        for checkpoint in checkpoints if overwrite else ():
            checkpoint.unlink(missing_ok=True)
        if options["max_epochs"] is not None:
            arguments["max_epochs"] = options["max_epochs"]
        if members == 1:
            networks = [function(*sets, seed=seed, checkpoint=checkpoints[0], **arguments)]
        else:
            networks = nt.train_ensemble(
                function, *sets, members=members, seed=seed, checkpoints=checkpoints, **arguments
            )
        for trained, place in zip(networks, places, strict=True):
            nt.save_network(trained, place)
            report.print_outcome(place, trained)


def _nnfbp(
    target: Path | None, output: Path, checkpoints: list[Path], options: dict[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    """The function that trains, its sets, and its other arguments."""
    slices = 400 if options["slices"] is None else options["slices"]
    support.check_training(target, slices, options["samples"], options["solver"])
    common = {"n_samples": options["samples"], "wedge": options["wedge"], "binning": options["binning"]}
    if target is not None:
        phantom = options["phantom"] or "ellipses"
        if phantom == "bodies":
            raise click.UsageError("--phantom bodies is for --network msdnet; to NN-FBP ellipses teach the same")
        sets = nt.phantom_samples(nt.open(target), phantom=phantom, n_slices=slices, seed=options["seed"], **common)
    else:
        sets = support.own_pairs(*_pairs(options), seed=options["seed"], **common)
    sets = support.prepared_sets(
        sets, output, checkpoints, options["hidden"], options["memory"], overwrite=options["overwrite"]
    )
    names = {"hidden": "hidden_nodes", "activation": "activation", "solver": "solver"}
    return nt.train_nnfbp, sets, {name: options[option] for option, name in names.items()}


def _msdnet(
    target: Path | None, output: Path, checkpoints: list[Path], options: dict[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    method, path = options["input_method"], options["input_network"]
    if (method == "nnfbp") != (path is not None):
        raise click.UsageError("--input nnfbp and --input-network FILE need each other")
    given = {"method": method or "sirt", "network": None if path is None else nt.load_network(path)}
    given["neighbours"] = options["neighbours"]
    if not options["self_supervised"]:
        _no_part("splits", where="--self-supervised is not given")
    if options["self_supervised"]:
        _no_part("phantom", "slices", where="a measured series is learned from")
        sets = nt.noise2inverse_slices(
            nt.open(target), splits=options["splits"], method=method or "fbp", neighbours=options["neighbours"]
        )
    elif target is not None:
        slices = 1600 if options["slices"] is None else options["slices"]
        sets = nt.phantom_slices(
            nt.open(target), phantom=options["phantom"] or "bodies", n_slices=slices, seed=options["seed"], **given
        )
    else:
        _no_part("phantom", "slices", where="pairs of your own are learned from")
        training, validation = _pairs(options)
        if not any(validation):
            raise click.UsageError(
                "--network msdnet needs --validation-series and --validation-volume beside the pairs"
            )
        sets = tuple(
            nt.training_slices([nt.open(one) for one in series], [nt.open(one) for one in volumes], **given)
            for series, volumes in (training, validation)
        )
    sets = _prepared_slices(sets, output, checkpoints, options)
    return nt.train_msdnet, sets, {"depth": options["depth"], "loss": options["loss"]}


def _no_part(*names: str, where: str) -> None:
    """Refuse options that were given in vain."""
    support.check_free(*names, because=f"plays no part where {where}; leave it out")


def _prepared_slices(
    sets: tuple[Any, Any], output: Path, checkpoints: list[Path], options: dict[str, Any]
) -> tuple[Any, Any]:
    """Training and validation slices for `train_msdnet`: kept in stores beside the network, and read from there.

    Raises
    ------
    SchemaError
        They cannot keep to the memory.
    """
    overwrite, depth = options["overwrite"], options["depth"]
    if not overwrite and all(path.exists() and State.load(path).ended for path in checkpoints):
        return sets  # what has ended needs no slices
    source = sets[0]["input"]
    inputs = sets[0].attrs["inputs"]
    needed = chunking.slice_training_bytes(
        slices=sum(part.sizes[schema.Z] for part in sets),
        detector=source.shape[-1],
        angles=len(inputs.angles_deg),
        channels=inputs.channels,
        depth=depth,
        members=options["members"],
        workers=cluster.current_workers(),
        processes=cluster.current_processes(),
    )
    chunking.check_budget(
        support.budget(options["memory"]), needed, "train", f"{depth} layers of slices of {source.shape[-1]} pixels"
    )
    folder = output.with_name(f"{output.stem}.slices")
    click.echo(f"the slices are kept in {folder}; once the training has ended you may delete that folder", err=True)
    saved: dict[str, Any] = {}  # by the lazy array's name: self-supervised sets are parts of the same slices

    def stored(part: Any, kind: str) -> Any:
        for name in ("input", "target"):
            array = part[name].drop_vars(["scene", "used"])
            if array.data.name not in saved:
                place = folder / f"{kind}-{name}.zarr"
                saved[array.data.name] = nt.save(array, place, overwrite=overwrite, progress="bar")
            part = part.assign({name: saved[array.data.name]})
        return part

    return stored(sets[0], "training"), stored(sets[1], "validation")


def _pairs(options: dict[str, Any]) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    return (options["all_series"], options["volumes"]), (options["validation_series"], options["validation_volume"])
