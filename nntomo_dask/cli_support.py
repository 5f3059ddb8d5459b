"""What the verbs of the `nntomo` command share: types of options, the session they run in, refusals, printing."""

import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

import nntomo_dask as nt
from nntomo_dask import chunking, cluster, schema, store
from nntomo_dask.reconstruction.nnfbp import OUTSIDE_LIMIT
from nntomo_dask.training.history import History
from nntomo_dask.training.samples import layout_of

PATH = click.Path(path_type=Path)
WINDOWS = ["ram-lak", "shepp-logan", "cosine", "hamming", "hann"]
MRC_SUFFIXES = (".mrc", ".mrcs", ".map", ".rec", ".st", ".ali")
# Options of `reconstruct` that only some methods know.
_METHODS_OF_OPTION = {
    "network_path": ("nnfbp",),
    "scale": ("nnfbp",),
    "tolerance": ("sirt",),
    "max_iterations": ("sirt",),
    "minimum": ("sirt",),
    "window": ("fbp",),
    "engine": ("fbp", "sirt"),
}


class Bytes(click.ParamType[int]):
    """A memory size such as 2GiB."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Bytes of a text, or of a number as it is."""
        from dask.utils import parse_bytes

        try:
            return int(parse_bytes(value))
        except ValueError:
            self.fail(f"{value!r} is no size; write 800MB or 2GiB", param, ctx)


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


class Group(click.Group):
    """Turns what a user can mend into one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb."""
        try:
            with warnings.catch_warnings():
                # `reconstruct` prints this share itself, for the whole series.
                warnings.filterwarnings("ignore", message="nnfbp: .* outside the range", category=UserWarning)
                return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted; give the same command again to go on", err=True)
            raise
        except schema.SchemaError as error:
            raise _refusal(str(error)) from error
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            text = f"{place}{error.strerror or error}. Mend that and run the command again: what was written is kept"
            raise _refusal(text) from error


def _refusal(text: str) -> click.ClickException:
    return _Refusal(text)


class _Refusal(click.ClickException):
    """What a user can mend."""

    exit_code = 2


OUTPUT = click.option("-o", "--output", type=PATH, required=True, help="The store to write, NAME.zarr.")
MEMORY = click.option(
    "--memory", type=Bytes(), help="Memory to stay within, such as 2GiB. Default: what is free on this machine."
)


def computing(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every verb that computes; the verb runs inside the session they ask for."""

    @click.option("--workers", type=int, help="Slabs in work at once. Default: the CPU cores.")
    @click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler that runs already, tcp://host:8786.")
    @MEMORY
    @click.option("--overwrite", is_flag=True, help="Take the place of an output that was made otherwise.")
    @functools.wraps(command)
    def wrapped(*, workers: int | None, scheduler: str | None, **arguments: Any) -> None:
        with cluster.session(workers=workers, scheduler=scheduler):
            command(**arguments)

    return wrapped


def _budget(memory: int | None) -> int:
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
    )
    chunking.check_budget(_budget(memory), needed, operation, "its slabs")


def check_training_memory(samples: Any, hidden: int, memory: int | None) -> None:
    """Raise a SchemaError where making samples and training on them cannot keep to the memory."""
    layout = layout_of(samples)
    size = layout.detector_count
    needed = chunking.training_bytes(
        samples=samples.sizes["voxel"],
        inputs=layout.n_inputs,
        hidden=hidden,
        slices=chunking.slab_slices((2**20, size, size)),
        angles=len(layout.angles_deg),
        detector=size,
        workers=cluster.current_workers(),
    )
    chunking.check_budget(_budget(memory), needed, "train", "its samples and their derivatives")


def slices_within_memory(operation: Any, source: Any, angles: int, memory: int | None, *, hidden: int = 0) -> int:
    """Slices of a slab that keep an operation within the memory."""
    detector = source.shape[-1]
    return chunking.slices_within(
        _budget(memory),
        operation,
        shape=(source.sizes[schema.Z], detector, detector),
        angles=angles,
        detector=detector,
        workers=cluster.current_workers(),
        hidden=hidden,
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


def check_applicable(method: str) -> None:
    """Refuse an option that was given and that this method does not know."""
    context = click.get_current_context()
    for name, methods in _METHODS_OF_OPTION.items():
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and method not in methods:
            option = "--" + name.removesuffix("_path").replace("_", "-")
            raise click.UsageError(f"{option} is for --method {' or '.join(methods)}, not for {method}")


def own_pairs(training: tuple[Any, Any], validation: tuple[Any, Any], *, seed: int, **common: Any) -> tuple[Any, Any]:
    """Samples of training and of validation pairs (series, volumes), given by path."""
    if not any(validation):
        click.echo("note: validation takes other voxels of the same volumes; see --validation-series", err=True)
        validation = training
    first, second = (
        nt.training_samples(
            [nt.open(path) for path in series], [nt.open(path) for path in volumes], seed=2 * seed + part, **common
        )
        for part, (series, volumes) in enumerate((training, validation), start=1)
    )
    return first, second


def check_series_only(*names: str) -> None:
    """Refuse options of a series where a volume is imported."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} is for a series; give its --angles too")


def check_network_output(output: Path, checkpoint: Path, *, overwrite: bool) -> None:
    """Refuse to replace what is no network, or one whose training is not known any more."""
    if output.exists():
        nt.load_network(output)
        if not overwrite and not checkpoint.exists():
            schema.refuse("train", needs="a free place", got=f"{output}, which is there", do="give --overwrite")
    if overwrite:
        checkpoint.unlink(missing_ok=True)


def check_export(target: Path, *, overwrite: bool) -> None:
    """Refuse to write anything but an MRC file, or over a file that is there."""
    if target.suffix not in MRC_SUFFIXES:
        schema.refuse(
            "export", needs=f"a name that ends in {', '.join(MRC_SUFFIXES)}", got=str(target), do="name it so"
        )
    if target.exists() and not overwrite:
        schema.refuse("export", needs="a free place", got=f"{target}, which is there", do="give --overwrite")


def scale_of(text: str) -> Any:
    """The value of --scale."""
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r}; write a number or auto", param_hint="--scale") from None


def describe(array: Any, path: Path) -> None:
    """Print what an array is, in one line."""
    sizes = ", ".join(f"{dim} {size}" for dim, size in array.sizes.items())
    unit, pixel = array.attrs["units"], array.attrs["pixel_size"]
    kind = str(array.name).replace("_", " ")
    mebibytes = np.prod(array.shape, dtype=float) * 4 / 2**20
    click.echo(f"{path}: {kind}, {sizes}; {pixel:g} {unit} a pixel; {mebibytes:.1f} MiB as float32")


def describe_store(path: Path) -> Any:
    """Say what a store is, also one that is not complete, and give its recipe."""
    missing = store.missing_chunks(path) if path.is_dir() and store.is_store(path) else []
    if missing:
        click.echo(f"{path}: not complete, {len(missing)} chunks are missing; run again what wrote it")
        return store.recipe(path)
    array = nt.open(path)
    describe(array, path)
    if schema.ANGLE in array.dims:
        click.echo(f"angles [°]: {', '.join(f'{angle:g}' for angle in array[schema.ANGLE].values)}")
    return array.attrs["recipe"]


def describe_file(path: Path) -> Any:
    """Say what a file is that is no store, and give its recipe."""
    if path.suffix in MRC_SUFFIXES:
        schema.refuse("info", needs="a store or a network", got=f"an MRC file, {path}", do="nntomo import it")
    if path.name.endswith(".training.safetensors"):
        history = History.load(path)
        state = "ended" if history.ended else "interrupted"
        click.echo(f"training of an NN-FBP network: {len(history.losses)} epochs, {state}")
        return history.best_network().recipe
    network = nt.load_network(path)
    layout = network.layout
    click.echo(
        f"NN-FBP network: {network.n_hidden} hidden nodes ({network.activation}), {layout.n_inputs} inputs, "
        f"for {len(layout.angles_deg)} projections of {layout.detector_count} pixels, wedge: {layout.wedge}"
    )
    click.echo(f"angles [°]: {', '.join(f'{angle:g}' for angle in layout.angles_deg)}")
    outcome = network.recipe.get("outcome", {})
    click.echo(", ".join(f"{key.replace('_', ' ')} {value:.6g}" for key, value in outcome.items()))
    return network.recipe


def recipe_lines(recipe: Any, depth: int = 1) -> list[str]:
    """A recipe as indented lines, inputs below what was made of them."""
    parameters = ", ".join(f"{key}={_short(value)}" for key, value in recipe["parameters"].items())
    lines = [f"{'  ' * depth}{recipe['operation']}({parameters})"]
    for item in recipe["inputs"]:
        lines += recipe_lines(item, depth + 1)
    return lines


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def errors_of(volume: Any, truth: Any, region: Any, memory_bytes: int) -> dict[str, float]:
    """A volume's errors by name."""
    correlation = nt.fourier_shell_correlation(volume, truth, memory_bytes=memory_bytes)
    return {
        "mse": float(nt.mse(volume, truth, region=region)),
        "psnr": float(nt.psnr(volume, truth, region=region)),
        "ssim": float(nt.ssim(volume, truth, region=region)),
        "fsc_0.5": nt.resolution(correlation, threshold=0.5),
        "fsc_0.143": nt.resolution(correlation, threshold=0.143),
        "nyquist": 2 * truth.attrs["pixel_size"],
    }


def finite(table: dict[str, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """The table with None for what is infinite, since JSON has no word for it."""
    return {
        path: {key: value if np.isfinite(value) else None for key, value in errors.items()}
        for path, errors in table.items()
    }


def resolution_text(errors: dict[str, float], key: str) -> str:
    """A resolution; one that the pixels limit, not the volume, as at most that."""
    limited = errors[key] <= errors["nyquist"] * (1 + 1e-9)
    return f"≤ {errors['nyquist']:.3g}" if limited else f"{errors[key]:.3g}"


def draw_comparison(table: dict[str, dict[str, float]], truth: Any, reference: Path, figure: Path) -> None:
    """Draw the volumes of a table of errors beside their reference."""
    from nntomo_dask import plotting

    stems = [reference.stem, *(Path(path).stem for path in table)]
    titles = stems if len(set(stems)) == len(stems) else [str(reference), *table]
    volumes = dict(zip(titles, [truth, *(nt.open(path) for path in table)], strict=True))
    captions = {title: f"MSE {value['mse']:.4g}" for title, value in zip(titles[1:], table.values(), strict=True)}
    drawn = plotting.compare_volumes(volumes, captions=captions, level=plotting.otsu_level(truth), reference=titles[0])
    click.echo(plotting.save_figure(drawn, figure), err=True)
