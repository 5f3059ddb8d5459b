"""What the verbs of the `nntomo` command print: stores, networks, recipes, tables of errors."""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import xarray as xr

import nntomo_dask as nt
from nntomo_dask import store
from nntomo_dask.arrays import schema
from nntomo_dask.compute import cluster
from nntomo_dask.errors import refuse
from nntomo_dask.networks import files
from nntomo_dask.training import msdnet_state
from nntomo_dask.training.history import History

MRC_SUFFIXES = (".mrc", ".mrcs", ".map", ".rec", ".st", ".ali")


def describe(array: Any, path: Path) -> None:
    """Print what an array is, in one line."""
    sizes = ", ".join(f"{dim} {size}" for dim, size in array.sizes.items())
    unit, pixel = array.attrs["units"], array.attrs["pixel_size"]
    kind = str(array.name).replace("_", " ")
    mebibytes = np.prod(array.shape, dtype=float) * 4 / 2**20
    click.echo(f"{path}: {kind}, {sizes}; {pixel:g} {unit} a pixel; {mebibytes:.1f} MiB as float32")


def verify(path: Path) -> bool:
    """Read every chunk of a store, say which are damaged, and return whether none is."""
    damaged = nt.verify(path)
    if damaged:
        listed = ", ".join(map(str, damaged[:20])) + (", …" if len(damaged) > 20 else "")
        kept = any(chunk not in store.missing_chunks(path) for chunk in damaged)
        aside = "it cannot be written to" if kept else "set aside"
        click.echo(
            f"{path}: {_count(len(damaged), 'damaged chunk')} of {store.chunk_count(path)} (number {listed}, from 0); "
            f"{aside}",
            err=True,
        )
    elif not store.missing_coordinates(path) and not store.missing_chunks(path):
        click.echo(f"{path}: every chunk and coordinate is whole", err=True)
    return not (damaged or store.missing_chunks(path) or store.missing_coordinates(path))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def describe_store(path: Path) -> Any:
    """Say what a store is, also one that is not complete, and give its recipe."""
    if path.is_dir() and store.is_store(path):
        missing = [f"coordinate {dim}" for dim in store.missing_coordinates(path)]
        if chunks := store.missing_chunks(path):
            missing.append(f"{len(chunks)} of {_count(store.chunk_count(path), 'chunk')}")
        if missing:
            click.echo(f"{path}: not complete, without {' and '.join(missing)}; run again what wrote it", err=True)
            return store.recipe(path)
    array = nt.open(path)
    if isinstance(array, xr.Dataset) and schema.ANGLE in array.dims:
        for name, series in array.items():
            describe(series, path / str(name))
        _print_angles(array)
        return store.recipe(path)
    if isinstance(array, xr.Dataset):
        click.echo(f"{path}: training set, {array.sizes['voxel']} voxels of {array.sizes['input']} inputs")
        return array.attrs["recipe"]
    describe(array, path)
    if schema.ANGLE in array.dims:
        _print_angles(array)
    return array.attrs["recipe"]


def _print_angles(array: Any) -> None:
    click.echo(f"angles [°]: {', '.join(f'{angle:g}' for angle in array[schema.ANGLE].values)}")


def describe_file(path: Path) -> Any:
    """Say what a file is that is no store, and give its recipe."""
    if path.suffix in MRC_SUFFIXES:
        refuse("info", needs="a store or a network", got=f"an MRC file, {path}", remedy="import it with nntomo import")
    if path.name.endswith(".training.safetensors"):
        of_msdnet = files.kind_of(path) == msdnet_state.FORMAT
        history: Any = msdnet_state.State.load(path) if of_msdnet else History.load(path)
        state = "ended" if history.ended else "interrupted"
        kind = "MS-D Net" if of_msdnet else "an NN-FBP network"
        click.echo(f"training of {kind}: {len(history.losses)} epochs, {state}")
        return history.best_network().recipe if history.losses else history.frame.recipe
    network = nt.load_network(path)
    if isinstance(network, nt.MSDNetwork):
        made = network.inputs
        click.echo(
            f"MS-D Net: {network.depth} layers, {network.parameters.size} parameters, improves {made.method} of "
            f"{len(made.angles_deg)} projections, {made.channels} slices at once"
            + (f", self-supervised in {made.splits} parts" if made.splits > 1 else "")
        )
        angles = made.angles_deg
    else:
        layout = network.layout
        click.echo(
            f"NN-FBP network: {network.n_hidden} hidden nodes ({network.activation}), {layout.n_inputs} inputs, "
            f"for {len(layout.angles_deg)} projections of {layout.detector_count} pixels, wedge: {layout.wedge}"
        )
        angles = layout.angles_deg
    click.echo(f"angles [°]: {', '.join(f'{angle:g}' for angle in angles)}")
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
    # First what takes the largest pieces of memory: what follows fits into them.
    correlation = nt.fourier_shell_correlation(volume, truth, memory_bytes=memory_bytes)
    # Similarity needs the reference's range first: in one pass with the others all blocks would wait for that.
    (sums,) = cluster.load(
        xr.Dataset({"mse": nt.mse(volume, truth, region=region), "psnr": nt.psnr(volume, truth, region=region)}),
        description="mean square error",
        progress="bar",
    )
    (similarity,) = cluster.load(
        xr.Dataset({"ssim": nt.ssim(volume, truth, region=region)}), description="similarity", progress="bar"
    )
    return {
        "mse": float(sums["mse"]),
        "psnr": float(sums["psnr"]),
        "ssim": float(similarity["ssim"]),
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
    from nntomo_dask.plotting import figures as plotting

    stems = [reference.stem, *(Path(path).stem for path in table)]
    titles = stems if len(set(stems)) == len(stems) else [str(reference), *table]
    volumes = dict(zip(titles, [truth, *(nt.open(path) for path in table)], strict=True))
    captions = {title: f"MSE {value['mse']:.4g}" for title, value in zip(titles[1:], table.values(), strict=True)}
    drawn = plotting.compare_volumes(volumes, captions=captions, level=plotting.otsu_level(truth), reference=titles[0])
    click.echo(plotting.save_figure(drawn, figure), err=True)


def print_table(table: dict[str, dict[str, float]], reference: Path, region: str, unit: str) -> None:
    """Print errors by path."""
    width = max(len(path) for path in table)
    click.echo(f"against {reference}, {'all voxels' if region == 'all' else 'voxels that every projection sees'}")
    halves, seventh = f"FSC=0.5 [{unit}]", f"FSC=0.143 [{unit}]"
    click.echo(f"{'':<{width}}  {'MSE':>12}  {'PSNR [dB]':>9}  {'SSIM':>6}  {halves:>13}  {seventh:>15}")
    for path, value in table.items():
        click.echo(
            f"{path:<{width}}  {value['mse']:>12.6g}  {value['psnr']:>9.2f}  {value['ssim']:>6.3f}  "
            f"{resolution_text(value, 'fsc_0.5'):>13}  {resolution_text(value, 'fsc_0.143'):>15}"
        )


def print_outcome(output: Path, network: Any) -> None:
    """Print what training reached."""
    outcome = network.recipe["outcome"]
    measure = "mean square errors of voxels in [0, 1]"
    if isinstance(network, nt.MSDNetwork):
        error = "square" if network.recipe["parameters"]["loss"] == "l2" else "absolute"
        measure = f"mean {error} errors, of voxels with deviation 1"
    click.echo(
        f"{output}: best epoch {outcome['epoch']}, training loss {outcome['training_loss']:.6f}, "
        f"validation loss {outcome['validation_loss']:.6f} ({measure})"
    )
