"""What the verbs of the `nntomo` command share: types of options, help pages, the session, checks, printing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np

import nntomo_dask as nt
from nntomo_dask.arrays import schema
from nntomo_dask.arrays.geometry import TiltRange
from nntomo_dask.cli.computing import MEMORY as MEMORY
from nntomo_dask.cli.computing import SESSION_OPTIONS as SESSION_OPTIONS
from nntomo_dask.cli.computing import Bytes as Bytes
from nntomo_dask.cli.computing import Verb as Verb
from nntomo_dask.cli.computing import computing as computing
from nntomo_dask.cli.report import MRC_SUFFIXES
from nntomo_dask.compute import chunking, cluster
from nntomo_dask.errors import refuse
from nntomo_dask.reconstruction.nnfbp import OUTSIDE_LIMIT
from nntomo_dask.training.samples import layout_of
from nntomo_dask.training.sets import IN_MEMORY_VOXELS, is_large

PATH = click.Path(path_type=Path)
WINDOWS = ["ram-lak", "shepp-logan", "cosine", "hamming", "hann"]


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


def check_memory(operation: Any, array: Any, memory: int | None) -> None:
    """Raise a SchemaError if the memory is too small for an operation in slabs of the default height."""
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
    """Memory for the Fourier shell correlation: what the program and its slabs leave of the memory, in bytes."""
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


def prepared_sets(
    sets: tuple[Any, Any], output: Path, checkpoints: list[Path], hidden: int, memory: int | None, *, overwrite: bool
) -> tuple[Any, Any]:
    """Training and validation set for `train_nnfbp`: in memory, or in stores next to the network if they are large.

    Raises
    ------
    SchemaError
        The memory is too small for them.
    """
    large = any(is_large(part) for part in sets)
    in_memory = 0 if large else max(part.sizes["voxel"] for part in sets)
    chunking.check_budget(budget(memory), _training_bytes(sets[0], in_memory, hidden), "train", "its samples")
    if large:
        folder = output.with_name(f"{output.stem}.samples")
        click.echo(f"the training sets are kept in {folder}; you may delete this folder after the training", err=True)
        names = ("training", "validation")
        first, second = (
            nt.save(part, folder / f"{name}.zarr", overwrite=overwrite, progress="bar")
            for name, part in zip(names, sets, strict=True)
        )
    elif all(path.exists() for path in checkpoints) and not overwrite:
        return sets  # a finished training needs no samples
    else:
        first, second = cluster.load(*sets, description="training voxels", progress="bar")
    return first, second


def check_training(target: Path | None, slices: int, samples: int, solver: str) -> None:
    """Refuse options that `train` cannot use; print a note if a phantom has fewer voxels than samples."""
    if target is None:
        check_free("phantom", "slices", because="is of a phantom, for --for SERIES; leave it out")
    if solver == "adam" and samples > IN_MEMORY_VOXELS:
        raise click.UsageError(f"--solver adam takes at most {IN_MEMORY_VOXELS} samples; --solver lm takes any number")
    if target is not None:
        detector = nt.open(target).sizes[schema.DETECTOR]
        voxels = int(np.pi / 4 * detector**2) * (slices // 4)
        if samples > voxels:
            click.echo(
                f"note: the validation phantom has {voxels} voxels, so some of the {samples} samples are repeated; "
                "raise --slices to avoid this",
                err=True,
            )


def _training_bytes(samples: Any, voxels_in_memory: int, hidden: int) -> int:
    layout = layout_of(samples)
    size = layout.detector_count
    return chunking.training_bytes(
        samples=voxels_in_memory,
        inputs=layout.n_inputs,
        hidden=hidden,
        slices=chunking.slab_slices((2**20, size, size)),
        angles=len(layout.angles_deg),
        detector=size,
        workers=cluster.current_workers(),
        processes=cluster.current_processes(),
    )


def slices_within_memory(operation: Any, source: Any, angles: int, memory: int | None, *, hidden: int = 0) -> int:
    """Number of slices in a slab for which an operation stays within the memory."""
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
    """Print the fraction of the network's inputs outside its training range, and a warning if it is large."""
    found = float(nt.intensity_level(series)) / network.level if scale == "auto" else scale
    share = float(nt.outside_training_range(series, network, scale=found if found > 0 else 1).mean())
    origin = "estimated" if scale == "auto" else "given"
    click.echo(f"intensity of the specimen, {origin}: {found:.5g} times that of the training volumes", err=True)
    click.echo(f"inputs outside the training range: {share:.1%}", err=True)
    if share > OUTSIDE_LIMIT:
        click.echo(
            f"warning: above {OUTSIDE_LIMIT:.0%} the network extrapolates; train it on volumes that resemble this "
            "specimen, subtract the background at import, or set --scale",
            err=True,
        )


def background_of(series: Any, text: str) -> float:
    """The value of --background in counts. Prints what it found, and a hint if a series seems to need it."""
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
            f"hint: the dimmest pixels have {dim:g} counts, the brightest {bright:g}; if the former is the offset of "
            "the detector, import with --background auto: a reconstruction would show it as matter",
            err=True,
        )
    return counts


def angles_of(keep: str) -> Any:
    """The angles of START:STOP:STEP, including STOP."""
    try:
        start, stop, step = (float(part) for part in keep.split(":"))
        wanted = start + step * np.arange(int((stop - start) / step + 1e-9) + 1)
    except (ValueError, ZeroDivisionError):
        wanted = np.empty(0)
    if wanted.size < 2:
        raise click.BadParameter(f"{keep!r}; write START:STOP:STEP, -70:70:10", param_hint="--keep")
    return wanted


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


def own_pairs(training: tuple[Any, Any], validation: tuple[Any, Any], *, seed: int, **common: Any) -> tuple[Any, Any]:
    """Samples from pairs (series, volumes) of training and of validation, given by their paths."""
    if not any(validation):
        click.echo("note: validation uses other voxels of the same volumes; see --validation-series", err=True)
        validation = training
    first, second = (
        nt.training_samples(
            [nt.open(path) for path in series], [nt.open(path) for path in volumes], seed=2 * seed + part, **common
        )
        for part, (series, volumes) in enumerate((training, validation), start=1)
    )
    return first, second


def check_network_output(output: Path, checkpoint: Path, *, overwrite: bool) -> None:
    """Refuse to overwrite a file that is not a network, or a network whose checkpoint is missing."""
    if output.exists():
        nt.load_network(output)
        if not overwrite and not checkpoint.exists():
            refuse("train", needs="a free place", got=f"{output}, which is there", remedy="`overwrite=True`")


def check_export(target: Path, *, overwrite: bool) -> None:
    """Refuse another format than MRC, and to overwrite an existing file unless asked to."""
    if target.suffix not in MRC_SUFFIXES:
        refuse(
            "export",
            needs=f"a name that ends in {', '.join(MRC_SUFFIXES)}",
            got=str(target),
            remedy=f"{target.stem}.mrc",
        )
    if target.exists() and not overwrite:
        refuse("export", needs="a free place", got=f"{target}, which is there", remedy="`overwrite=True`")


def scale_of(text: str) -> Any:
    """The value of --scale."""
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r}; write a number or auto", param_hint="--scale") from None
