"""Tables of atoms in files: CSV with all columns, and through ASE xyz, extended xyz and CIF."""

import contextlib
import csv
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nntomo_dask import aside, extras
from nntomo_dask.arrays import recipes
from nntomo_dask.atoms import elements, table
from nntomo_dask.errors import SchemaError, refuse

_NM = "_nm"  # behind the name of a column in nm
_LONGEST = 2**30  # bytes of a file that is read
_MARGIN = 3.0  # Å between the atoms and the faces of the cell of a CIF


def write_atoms(atoms: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a table of atoms to a file; the suffix says in which form.

    - ``.csv``: a row an atom, all columns; names of lengths end in ``_nm``. Numbers are written so that they come back
      as they were.
    - ``.extxyz``: positions x, y, z in Å, with the other columns; ``.xyz``: positions and symbols alone. Both have the
      origin of the volume, and X for an unknown element.
    - ``.cif``: in a cell around the atoms, so that only their distances are kept. Each has to have an element.

    The last three need ASE. The file appears whole or not at all.

    Raises
    ------
    SchemaError
        `atoms` is no table or has no rows, the suffix is none of these, or an element is missing for a CIF.
    MissingPackageError
        ASE is not installed.
    """
    table.check(atoms, who="write_atoms")
    check_suffix(path, who="write_atoms")
    if atoms.sizes[table.ATOM] == 0:
        refuse("write_atoms", needs="atoms", got="an empty table", remedy="a table with atoms")
    with aside.written(path) as partial:
        _WRITERS[_suffix(path)](atoms, partial)


def read_atoms(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read a table of atoms from a file that `write_atoms` wrote, or from another one of these forms.

    Columns that a file does not have are NaN; what another program has added is left out. Positions of xyz files and
    CIFs are in Å as x, y, z; those of a CIF from the origin of its cell.

    Raises
    ------
    SchemaError
        The suffix is none of these, or the file cannot be read as what it says.
    MissingPackageError
        ASE is not installed, and the file is no CSV.
    FileNotFoundError
        There is no such file.
    """
    check_suffix(path, who="read_atoms")
    place = Path(path)
    if not place.is_file():
        raise FileNotFoundError(2, "No such file", str(path))
    if place.stat().st_size > _LONGEST:
        refuse("read_atoms", needs="a file of atoms below 1 GiB", got=f"{path}", remedy="another file")
    with _reading(path):
        return _READERS[_suffix(path)](place, _recipe(place))


def check_suffix(path: str | os.PathLike[str], *, who: str) -> None:
    """Raise a SchemaError unless the suffix of a path is that of a table of atoms."""
    if _suffix(path) not in _WRITERS:
        known = ", ".join(_WRITERS)
        refuse(who, needs=f"a file that ends in {known}", got=f"{Path(path).name}", remedy="give it such a suffix")


def _suffix(path: str | os.PathLike[str]) -> str:
    return Path(path).suffix.lower()


def _recipe(path: Path) -> recipes.Recipe:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return recipes.record("read_atoms", {"file": path.name, "size": path.stat().st_size, "sha256": digest})


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """A refusal in place of what a parser raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except SchemaError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # ASE has errors of this kind about what it reads
            raise
        got = f"{Path(path).name}, which cannot be read: {str(error)[:200] or type(error).__name__}"
        refuse("read_atoms", needs=f"a file of atoms, {_suffix(path)[1:]}", got=got, remedy="another file")


def _header(name: str) -> str:
    return name + _NM if name in table.IN_NM else name


def _write_csv(atoms: xr.Dataset, path: Path) -> None:
    names = [name for name in (*table.REQUIRED, *table.OPTIONAL) if name in atoms.data_vars]
    columns = [atoms[name].values.tolist() for name in names]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([_header(name) for name in names])
        writer.writerows(["" if one != one else one for one in row] for row in zip(*columns, strict=True))


def _read_csv(path: Path, recipe: recipes.Recipe) -> xr.Dataset:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        refuse(
            "read_atoms", needs="a header and a row an atom", got=f"{path.name}, which is empty", remedy="another file"
        )
    header = [name.strip() for name in rows[0]]
    missing = [_header(name) for name in table.POSITION if _header(name) not in header]
    if missing:
        got = f"{path.name} without {', '.join(missing)}"
        refuse("read_atoms", needs="columns z_nm, y_nm and x_nm", got=got, remedy="name them so, and give them in nm")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            got = f"{len(row)} in line {number} of {path.name}"
            refuse("read_atoms", needs=f"{len(header)} values in each line", got=got, remedy="one for each column")
    values = (
        dict(zip(header, zip(*rows[1:], strict=True), strict=True)) if len(rows) > 1 else {name: () for name in header}
    )
    columns = {
        name: np.array([float(one) if one.strip() else np.nan for one in values[_header(name)]])
        for name in (*table.POSITION, *table.FITTED, *table.OPTIONAL)
        if _header(name) in values
    }
    places = np.stack([columns.pop(name) for name in table.POSITION], axis=1)
    named = [one.strip() for one in values.get(table.SPECIES, ("",) * len(places))]
    return table.make(places, recipe=recipe, species=[_symbol(one) for one in named], **columns)


def _symbol(name: str) -> str:
    return "" if name in ("", "X") else elements.symbols([name], who="read_atoms")[0]


def _ase() -> Any:
    return extras.require("ase.io", who="read_atoms and write_atoms of xyz and CIF")


def _write_xyz(atoms: xr.Dataset, path: Path) -> None:
    _ase().write(path, table.atoms_to_ase(atoms), format="xyz", fmt="%22.15f")


def _write_extxyz(atoms: xr.Dataset, path: Path) -> None:
    _ase().write(path, table.atoms_to_ase(atoms), format="extxyz")


def _write_cif(atoms: xr.Dataset, path: Path) -> None:
    unknown = int((np.asarray(atoms[table.SPECIES].values) == "").sum())
    if unknown:
        got = f"{unknown} atoms without"
        refuse("write_atoms", needs="an element of each atom for a CIF", got=got, remedy="find them with `species`")
    held = table.atoms_to_ase(atoms)
    low, high = held.positions.min(axis=0) - _MARGIN, held.positions.max(axis=0) + _MARGIN
    held.set_cell(high - low)
    held.positions -= low
    held.pbc = True
    _ase().write(path, held, format="cif")


def _read_ase(form: str) -> Callable[[Path, recipes.Recipe], xr.Dataset]:
    def read(path: Path, recipe: recipes.Recipe) -> xr.Dataset:
        held = _ase().read(path, index=0, format=form)
        return table.atoms_from_ase(held, recipe=recipe)

    return read


_WRITERS: dict[str, Callable[[xr.Dataset, Path], None]] = {
    ".csv": _write_csv,
    ".xyz": _write_xyz,
    ".extxyz": _write_extxyz,
    ".cif": _write_cif,
}
_READERS: dict[str, Callable[[Path, recipes.Recipe], xr.Dataset]] = {
    ".csv": _read_csv,
    ".xyz": _read_ase("extxyz"),  # which reads plain files too
    ".extxyz": _read_ase("extxyz"),
    ".cif": _read_ase("cif"),
}
