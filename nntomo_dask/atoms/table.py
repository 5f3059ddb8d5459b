"""The table of atoms: a dataset with one dim, a row an atom.

========== ========================================================================================= ===============
variable   what it is                                                                                unit
========== ========================================================================================= ===============
z, y, x    position, in the coordinates of the volume or series: zero at the tilt axis               nm
height     height of the Gaussian above the background                                               of the volume
width      standard deviation of the Gaussian                                                        nm
background level below it                                                                            of the volume
confidence height over the standard deviation of the noise                                           1
species    symbol of the element, "" where it is not known                                           text
========== ========================================================================================= ===============

Optional: `z_error`, `y_error`, `x_error`, standard errors of the position [nm]; `agreement`, the share of other volumes
that have the atom too; and what `refine_atoms` adds: `height_error`, `significance`, `refined`, and for two Gaussians
around one place `tail`, the share of the height that the wider one has, and `tail_width` [nm], its width. What a
crystal says nothing about, such as the height, is NaN. Rows are sorted by z, then y, then x; `attrs["recipe"]` says how
the table was made, and `attrs["units"]` is "nm".
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask import extras
from nntomo_dask.arrays import recipes
from nntomo_dask.atoms import elements
from nntomo_dask.errors import refuse
from nntomo_dask.types import Float64

if TYPE_CHECKING:
    from ase import Atoms

    from nntomo_dask.simulation.specimen import Specimen

ATOM = "atom"
POSITION = ("z", "y", "x")
FITTED = ("height", "width", "background", "confidence")
SPECIES = "species"
ERRORS = ("z_error", "y_error", "x_error")
AGREEMENT = "agreement"
REQUIRED = (*POSITION, *FITTED, SPECIES)
HEIGHT_ERROR, SIGNIFICANCE, REFINED, TAIL, TAIL_WIDTH = "height_error", "significance", "refined", "tail", "tail_width"
OPTIONAL = (*ERRORS, AGREEMENT, HEIGHT_ERROR, SIGNIFICANCE, REFINED, TAIL, TAIL_WIDTH)
IN_NM = (*POSITION, "width", *ERRORS, TAIL_WIDTH)
_ANGSTROMS = 10.0  # in a nanometre
_UNKNOWN = "X"  # ASE's symbol for it, with the number 0


def make(
    positions_nm: npt.ArrayLike,
    *,
    recipe: recipes.Recipe,
    species: Sequence[str] | npt.NDArray[Any] | None = None,
    **columns: npt.ArrayLike,
) -> xr.Dataset:
    """A table from its columns, sorted.

    Parameters
    ----------
    positions_nm
        (atom, 3): z, y, x.
    recipe
        How it was made.
    species
        (atom,): symbols; None where no species is known.
    **columns
        (atom,) each: further variables by their names. Of `FITTED` those that are not given are NaN.

    Raises
    ------
    SchemaError
        A position is not finite, a symbol is of no element, or columns differ in length.
    """
    places = np.asarray(positions_nm, np.float64).reshape(-1, 3)
    count = len(places)
    variables: dict[str, Any] = dict(zip(POSITION, places.T, strict=True))
    variables |= {name: np.full(count, np.nan) for name in FITTED}
    variables |= {name: np.asarray(values, np.float64) for name, values in columns.items()}
    variables[SPECIES] = np.asarray([""] * count if species is None else species, np.str_)
    for name, values in variables.items():
        if values.shape != (count,):
            refuse("atoms", needs=f"{count} values in each column", got=f"{values.shape} in {name}", remedy="one a row")
    order = np.lexsort(places.T[::-1])
    labelled = {name: (ATOM, values[order], _attrs(name)) for name, values in variables.items()}
    made = xr.Dataset(labelled, attrs={"recipe": recipes.Shown(recipe), "units": "nm"})
    check(made, who="atoms")
    return made


def _attrs(name: str) -> dict[str, str]:
    return {"units": "nm"} if name in IN_NM else {}


def like(atoms: xr.Dataset, recipe: recipes.Recipe, columns: Mapping[str, npt.ArrayLike]) -> xr.Dataset:
    """A table with some columns replaced or added; all others stay, and rows are sorted again."""
    kept = {str(name): values.values for name, values in atoms.items()} | dict(columns)
    positions = np.stack([np.asarray(kept.pop(name)) for name in POSITION], axis=1)
    species = np.asarray(kept.pop(SPECIES))
    return make(positions, recipe=recipe, species=species, **kept)


def check(atoms: Any, *, who: str, needs: Sequence[str] = ()) -> None:
    """Raise a SchemaError unless `atoms` is a table, with finite positions and finite values in the columns `needs`.

    A table without rows is one.
    """
    remedy = "find_atoms(volume), read_atoms(path), or a table from ASE atoms"
    if not isinstance(atoms, xr.Dataset):
        refuse(who, needs="a table of atoms as xarray.Dataset", got=type(atoms).__name__, remedy=remedy)
    missing = [name for name in REQUIRED if name not in atoms.data_vars]
    if missing:
        got = f"a dataset without {', '.join(missing)}"
        refuse(who, needs="a table of atoms", got=got, remedy=remedy)
    if atoms.attrs.get("units") != "nm":
        got = f'attrs["units"] {atoms.attrs.get("units")!r}'
        refuse(
            who, needs="a table of atoms in nm", got=got, remedy='positions in nm and atoms.assign_attrs(units="nm")'
        )
    for name in (*REQUIRED, *(one for one in OPTIONAL if one in atoms.data_vars)):
        column = atoms[name]
        text = name == SPECIES
        if column.dims != (ATOM,) or (column.dtype.kind in "UO") != text or (not text and column.dtype != np.float64):
            kind = "text" if text else "float64"
            got = f"{name} of {column.dtype} with dims {column.dims}"
            refuse(who, needs=f'a table of atoms whose {name} is {kind} with the dim "{ATOM}"', got=got, remedy=remedy)
        if name in (*POSITION, *needs) and not np.isfinite(column.values).all():
            row = int(np.flatnonzero(~np.isfinite(column.values))[0])
            got = f"{column.values[row]} in row {row}"
            refuse(who, needs=f"atoms with a finite {name}", got=got, remedy="leave out the rows that have none")
    unknown = sorted({str(symbol) for symbol in atoms[SPECIES].values} - {"", *elements.NUMBERS})
    if unknown:
        got = ", ".join(map(repr, unknown))
        refuse(who, needs='species that are symbols of elements, or ""', got=got, remedy='write them as in "Zr"')


def positions(atoms: xr.Dataset) -> Float64:
    """(atom, 3): z, y, x [nm]."""
    return np.stack([np.asarray(atoms[name].values, np.float64) for name in POSITION], axis=1)


def table_of(atoms: "xr.Dataset | Atoms", *, who: str) -> xr.Dataset:
    """A table, checked, from a table or from ASE atoms."""
    made = cast("xr.Dataset", atoms_from_ase(cast("Any", atoms)) if hasattr(atoms, "get_chemical_symbols") else atoms)
    check(made, who=who)
    return made


def atoms_from_ase(atoms: "Atoms", *, recipe: recipes.Recipe | None = None) -> xr.Dataset:
    """A table from ASE atoms, whose positions are x, y, z in Å.

    Arrays of the atoms that have the names of columns, as those of `atoms_to_ase` have, become columns. Cell
    and periodicity are left out.

    Raises
    ------
    SchemaError
        A position is not finite.
    """
    named = [symbol if symbol != _UNKNOWN else "" for symbol in atoms.get_chemical_symbols()]
    places = np.asarray(atoms.get_positions(), np.float64)[:, ::-1] / _ANGSTROMS
    columns = {name: atoms.get_array(name) for name in (*FITTED, *OPTIONAL) if atoms.has(name)}
    if recipe is None:
        token = recipes.digest(places) + recipes.digest(np.asarray(named, np.str_))
        recipe = recipes.record("ase_atoms", {"atoms": len(named), "token": recipes.token({"digest": token})})
    return make(places, recipe=recipe, species=named, **columns)


def from_specimen(specimen: "Specimen") -> xr.Dataset:
    """A table from the atoms of a specimen, which lie where they lie in a volume of it."""
    named = [elements.SYMBOLS[number - 1] for number in specimen.numbers]
    return make(np.asarray(specimen.positions_nm)[:, ::-1], recipe=specimen.recipe, species=named)


def atoms_to_ase(atoms: xr.Dataset) -> "Atoms":
    """ASE atoms from a table: positions x, y, z in Å, the other columns as arrays of their names, as they are.

    Atoms of no known species have the symbol X. There is no cell.

    Raises
    ------
    MissingPackageError
        ASE is not installed.
    """
    check(atoms, who="atoms_to_ase")
    ase = extras.require("ase", who="atoms_to_ase")
    named = [str(symbol) or _UNKNOWN for symbol in atoms[SPECIES].values]
    made: Atoms = ase.Atoms(symbols=named, positions=positions(atoms)[:, ::-1] * _ANGSTROMS)
    for name in (*FITTED, *OPTIONAL):
        if name in atoms.data_vars and np.isfinite(atoms[name].values).any():
            made.set_array(name, np.array(atoms[name].values))
    return made
