"""The verb `info`: it imports what it needs for the thing it is asked about, and for a store next to nothing."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from nntomo_dask.arrays import grid
from nntomo_dask.cli import found
from nntomo_dask.errors import refuse
from nntomo_dask.store import inspection
from nntomo_dask.untrusted import printable


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print how it was made as JSON, and nothing else to stdout.")
@click.option(
    "--verify",
    is_flag=True,
    help="Read all of a store, a network or a training, and compare it with its checksums. Damaged chunks of a store "
    "are set aside; running the command that wrote the store again computes them anew.",
)
def info(path: Path, as_json: bool, verify: bool) -> None:  # noqa: FBT001
    """Show what a store, a network or a training is, and how it was made.

    \b
    Example:
      nntomo info --verify sirt.zarr
    """
    whole = _verify(path) if verify and not path.is_file() else True
    lines, recipe = _file(path) if path.is_file() else _store(path)
    if verify and path.is_file():  # it was read whole
        click.echo(f"{printable(str(path))}: its checksums are right", err=True)
    for line in lines:
        click.echo(printable(line), err=as_json)
    if as_json:
        click.echo(json.dumps(recipe, indent=2).replace("\x7f", "\\u007f"))
    else:
        click.echo("made by:\n" + "\n".join(printable(line) for line in recipe_lines(recipe)))
    sys.exit(0 if whole else 1)


def _verify(path: Path) -> bool:
    """Read every chunk of a store, say which are damaged, and return whether none is."""
    from nntomo_dask import store

    folder = store.member(path)[0]
    damaged = store.verify(folder)
    lacking = store.missing_chunks(folder) or store.missing_coordinates(folder)
    if damaged:
        listed = ", ".join(map(str, damaged[:20])) + (", …" if len(damaged) > 20 else "")
        kept = any(chunk not in store.missing_chunks(folder) for chunk in damaged)
        damage = f"{_count(len(damaged), 'damaged chunk')} of {store.chunk_count(folder)} (number {listed}, from 0)"
        outcome = "it cannot be written to" if kept else "set aside"
        click.echo(f"{printable(str(folder))}: {damage}; {outcome}", err=True)
    elif not lacking:
        click.echo(f"{printable(str(folder))}: every chunk and coordinate is whole, and so are the metadata", err=True)
    return not (damaged or lacking)


def _store(path: Path) -> tuple[list[str], Any]:
    """Lines about a store, or one of its series, and the recipe."""
    folder, member = path, None
    contents = inspection.inspect(folder)
    if contents is None and not path.exists() and (contents := inspection.inspect(path.parent)) is not None:
        folder, member = path.parent, path.name
    modes: list[str] = [] if contents is None else contents.attributes.get("modes", [])
    if contents is None or (member is not None and member not in modes):
        from nntomo_dask import store

        store.open(path)  # refuses what is no store, with the reason
        raise AssertionError(f"{path} opens, but its metadata could not be read")
    recipe = contents.attributes["recipe"]
    if contents.missing:
        lacking = " and ".join(contents.missing)
        click.echo(f"{printable(str(folder))}: not complete, without {lacking}; run again what wrote it", err=True)
        return [], recipe
    if not modes:
        origin = found.lines(contents.attributes.get("found")) if "angle" in contents.dims else []
        return [_array(path, contents, contents.name.replace("_", " ")), *_angles(contents), *origin], recipe
    recipes = [recipe] if len(modes) == 1 else recipe["inputs"]
    chosen = [mode for mode in modes if member in (None, mode)]
    places = [path if member or len(modes) == 1 else path / mode for mode in chosen]
    lines = [_array(place, contents, mode) for place, mode in zip(places, chosen, strict=True)]
    return [*lines, *_angles(contents)], recipe if member is None else recipes[modes.index(member)]


def _array(path: Path, contents: inspection.Contents, kind: str) -> str:
    """A stored array in one line."""
    sizes = dict(zip(contents.dims, contents.shape, strict=True))
    if "voxel" in sizes:
        others = len(contents.attributes.get("columns", ["target"]))
        return f"{path}: training set, {sizes['voxel']} voxels of {sizes['column'] - others} inputs"
    if "pair" in sizes:
        return f"{path}: training set, {sizes['z']} slices of {sizes['x']} × {sizes['y']} pixels, each with its input"
    sizes.pop("mode", None)
    order = [dim for dim in ("z", "y", "x", "angle", "detector") if dim in sizes]
    count = 1
    for dim in order:
        count *= sizes[dim]
    listed = ", ".join(f"{dim} {sizes[dim]}" for dim in order)
    unit, pixel = contents.attributes["units"], contents.attributes["pixel_size"]
    across = contents.coordinates.get("detector", contents.coordinates.get("x"))
    if across is not None:
        pixel = abs(grid.spacing(across, pixel))
    return f"{path}: {kind}, {listed}; {pixel:g} {unit} a pixel; {count * 4 / 2**20:.1f} MiB as float32"


def _angles(contents: inspection.Contents) -> list[str]:
    angles = contents.coordinates.get("angle")
    return [] if angles is None else [f"angles [°]: {', '.join(f'{angle:g}' for angle in angles)}"]


def _file(path: Path) -> tuple[list[str], Any]:
    """Lines about a file that is no store, and its recipe."""
    import nntomo_dask as nt
    from nntomo_dask.formats.format import format_of
    from nntomo_dask.networks import files
    from nntomo_dask.training.checkpoints import open_checkpoint

    found = format_of(path)
    if found is not None:
        got = f"a file in the format {found.title}, {path}"
        refuse("info", needs="a store or a network", got=got, remedy="nntomo import")
    if path.name.endswith(".training.safetensors"):
        reached = open_checkpoint(path)
        state = "ended" if reached.ended else "interrupted"
        line = f"training of {reached.kind.title}: {_count(len(reached.losses), 'epoch')}, {state}"
        return [line], reached.best_network().recipe if reached.losses else reached.frame.recipe
    if not files.kind_of(path):
        needs = "a store, which is a folder, or the file of a network or a training"
        refuse("info", needs=needs, got=f"{path}, which is something else", remedy=_remedy(path))
    network = nt.load_network(path)
    outcome = network.recipe.get("outcome")
    numbers = outcome.items() if isinstance(outcome, dict) else ()
    return [
        network.describe(),
        *([f"angles [°]: {', '.join(f'{angle:g}' for angle in network.angles_deg)}"] if network.angles_deg else []),
        ", ".join(f"{key.replace('_', ' ')} {value:.6g}" for key, value in numbers if isinstance(value, int | float)),
    ], network.recipe


def _remedy(path: Path) -> str:
    """What to do with a file that is neither."""
    if path.suffix == ".safetensors":
        return "train the network again if this was one: nntomo train"
    if path.name == "zarr.json" or any((parent / "zarr.json").is_file() for parent in path.absolute().parents[:6]):
        return "give the folder of the store, not a file in it"
    if path.suffix.lower() == ".cif":
        return "nntomo simulate takes the structure file of a crystal"
    return "check the path"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def recipe_lines(recipe: Any, depth: int = 1) -> list[str]:
    """A recipe as indented lines, inputs below what was made of them."""
    parameters = ", ".join(f"{key}={_short(value)}" for key, value in recipe.get("parameters", {}).items())
    lines = [f"{'  ' * depth}{recipe.get('operation', 'something')}({parameters})"]
    for item in recipe.get("inputs", []):
        lines += recipe_lines(item, depth + 1)
    return lines


def _short(value: Any) -> str:
    """A value in 60 characters or fewer; of a long list, the first entries and how many there are."""
    if isinstance(value, list) and len(value) > 4:
        numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in value)
        first = ", ".join(f"{one:.4g}" if numbers else _short(one) for one in value[:2])
        if len(first) < 40:
            return f"[{first}, … {len(value)} in all]"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
