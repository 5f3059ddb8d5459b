"""What a simulated series was made of, read from its recipe: its specimen, its imaging, and the truth that fits it."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import xarray as xr
from ase import Atoms

from nntomo_dask.arrays import recipes, schema
from nntomo_dask.errors import refuse
from nntomo_dask.settings import settings_of
from nntomo_dask.simulation.optics import Imaging, Mode
from nntomo_dask.simulation.specimen import Specimen, made
from nntomo_dask.simulation.truth import ground_truth

_WHO = "ground_truth_like"


def ground_truth_like(
    series: xr.DataArray | xr.Dataset,
    *,
    structure: Specimen | str | os.PathLike[str] | Atoms | None = None,
    mode: Mode | None = None,
    exponent: float | None = None,
    block: str | int | None = None,
) -> xr.DataArray:
    """The truth of a simulated series, with the crystal, the specimen, the imaging and the grid of that series.

    Lazy: nothing is computed until the volume is saved.

    Parameters
    ----------
    series
        A series from `simulate`, the Dataset of both, or something made from one, such as a reconstruction.
    structure
        The crystal that was simulated, where it is not one of the table: its file, or what `simulate` was given. By
        default it is looked for by the name in the recipe, in the current folder.
    mode
        As for `ground_truth`. It is needed where `series` has both.
    exponent
        As for `ground_truth`.
    block
        As for `specimen`.

    Returns
    -------
    As for `ground_truth`.

    Raises
    ------
    SchemaError
        `series` was not simulated, its crystal is not found or is another one, or it is only a part of what was
        simulated.
    """
    arrays = list(series.data_vars.values()) if isinstance(series, xr.Dataset) else [series]
    made = [recipes.find(recipes.recipe_of(array), "simulate") for array in arrays]
    found = [one for one in made if one is not None]
    if not found:
        operation = series.attrs.get("recipe", {}).get("operation", "array")
        refuse(
            _WHO,
            needs="a simulated series, or what was made from one",
            got="an array" if operation == "array" else f"what {operation} made",
            remedy="ground_truth(specimen, mode=…, imaging=…) with the settings of the images",
            command="nntomo truth STRUCTURE with the settings of the images, without --like",
        )
    modes = list(dict.fromkeys(one["parameters"]["mode"] for one in found))
    chosen: Mode | None = modes[0] if mode is None and len(modes) == 1 else mode
    if chosen is None or chosen not in modes:
        refuse(
            _WHO,
            needs=f"`mode` {' or '.join(modes)}, as in the series",
            got="none" if mode is None else f"{mode!r}",
            remedy=f"`mode={modes[0]!r}`",
        )
    recipe = found[modes.index(chosen)]
    held = _specimen(recipe["inputs"][0], structure, block)
    volume = ground_truth(held, mode=chosen, imaging=imaging_of(recipe), exponent=exponent)
    _check_grid(arrays[0], volume)
    return volume


def imaging_of(recipe: recipes.Recipe) -> Imaging:
    """The settings in the recipe of a simulated series; those that its version did not know have their defaults."""
    return Imaging(**_given(recipe, [one.name for one in settings_of(Imaging)]))


def _given(recipe: recipes.Recipe, names: Iterable[str]) -> dict[str, Any]:
    """Keywords by name, from the parameters of a recipe; those without a value are left out."""
    found = {name: recipe["parameters"].get(name) for name in names}
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in found.items() if value is not None
    }


def _specimen(recipe: recipes.Recipe, structure: Any, block: str | int | None) -> Specimen:
    """The specimen of a recipe, made again; refused where its atoms are others."""
    if isinstance(structure, Specimen):
        held = structure
    elif recipe.get("operation") != "specimen":
        refuse(
            _WHO,
            needs="the specimen that was simulated",
            got="one that was not made by specimen()",
            remedy="structure=specimen, the same Specimen",
            command="make the truth in Python: ground_truth_like(series, structure=specimen)",
        )
    else:
        if structure is None:
            structure = _found(recipe["parameters"]["crystal"])
        held, _ = made(structure, block=block, **_given(recipe, ("shape", "repeat", "size_nm", "tilt_axis")))
    if held.recipe["parameters"].get("atoms") != recipe["parameters"].get("atoms"):
        _refuse_other(held.recipe["parameters"], recipe["parameters"])
    return held


def _found(crystal: str) -> str:
    """The crystal of the table, or the file in the current folder, that a recipe names."""
    from nntomo_dask.simulation import structures

    if crystal not in structures.crystals() and not Path(crystal).is_file():
        refuse(
            _WHO,
            needs="the crystal that was simulated",
            got=f"{crystal}, which is not in this folder",
            remedy="give the path of its file as the structure",
        )
    return crystal


def _refuse_other(made: dict[str, Any], wanted: dict[str, Any]) -> NoReturn:
    names = [f"{one.get('crystal')} ({one.get('structure')})" for one in (wanted, made)]
    same = " with other positions or another origin" if names[0] == names[1] else ""
    refuse(
        _WHO,
        needs=f"the atoms that were simulated, {names[0]}",
        got=f"{names[1]}{same}",
        remedy="give the file that was simulated, unchanged",
    )


def _check_grid(array: xr.DataArray, volume: xr.DataArray) -> None:
    """Refuse a part of a series, or one of other pixels: the truth has the grid of the whole simulation."""
    size, pixel, wanted = array.sizes.get(schema.Z), schema.pixel_size_of(array), schema.pixel_size_of(volume)
    if size != volume.sizes[schema.Z] or abs(pixel - wanted) > 1e-6 * wanted:
        refuse(
            _WHO,
            needs=f"all of what was simulated, {volume.sizes['z']} slices of {wanted:.4g} nm",
            got=f"{size} slices of {pixel:.4g} nm",
            remedy="the simulated series itself; crop or resize its truth like the series",
        )
