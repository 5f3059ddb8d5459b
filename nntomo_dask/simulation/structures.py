"""Crystals: a table of metal-organic and covalent organic frameworks, files that ASE reads, and checks of both."""

import difflib
import functools
import os
import tomllib
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.data
import ase.io
import numpy as np
from ase import Atoms
from ase.spacegroup import crystal
from scipy.spatial import cKDTree

from nntomo_dask.errors import refuse

LARGEST_NUMBER = 103  # the last element for which Lobato and Van Dyck give scattering factors
_TOO_CLOSE = 0.6  # Å between two atoms; the shortest bond, H-H, is 0.74 Å
_BONDED = 1.75  # Å, the longest bond of a carbon atom to an element of the second period
_LINEAR_DEG = 150.0  # a carbon atom with two neighbours at a larger angle has a triple bond and no hydrogen


@dataclass(frozen=True)
class Crystal:
    """An entry of the table."""

    name: str
    group: int
    setting: int
    cell: tuple[float, ...]  # a, b, c [Å], alpha, beta, gamma [degrees]
    reference: str
    sites: str
    note: str = ""
    aliases: tuple[str, ...] = field(default=())

    def atoms(self) -> Atoms:
        """The atoms of the conventional unit cell."""
        rows = [line.split() for line in self.sites.strip().splitlines()]
        basis = [tuple(float(value) for value in row[1:]) for row in rows]
        atoms: Atoms = crystal(
            [row[0] for row in rows], basis, spacegroup=self.group, setting=self.setting, cellpar=list(self.cell)
        )
        atoms.info.clear()
        return atoms


@functools.cache
def crystals() -> dict[str, Crystal]:
    """The table, by name."""
    text = Path(__file__).with_name("crystals.toml").read_text(encoding="utf-8")
    entries: dict[str, dict[str, Any]] = tomllib.loads(text)
    return {
        name: Crystal(
            name=name,
            cell=tuple(entry.pop("cell")),
            aliases=tuple(entry.pop("aliases", ())),
            **entry,
        )
        for name, entry in entries.items()
    }


def structure(source: str | os.PathLike[str] | Atoms) -> Atoms:
    """The atoms of one unit cell of a crystal, checked.

    Parameters
    ----------
    source
        A name from `crystals` (``nntomo structures`` lists them), the path of a CIF or of another file that ASE reads,
        or ASE atoms.

    Returns
    -------
    The atoms of one cell, positions in Å.

    Raises
    ------
    SchemaError
        The name is unknown, the file cannot be read, there are no atoms or no cell, sites are partly occupied or
        coincide, or an element has no scattering factors.

    Warns
    -----
    UserWarning
        Hydrogen atoms seem to be missing, as in many crystallographic files.
    """
    if isinstance(source, Atoms):
        atoms: Atoms = source.copy()
        name = "the given atoms"
    else:
        name = os.fspath(source)
        known = _known(name)
        atoms = known.atoms() if known is not None else _read(name)
    check_structure(atoms, name=name)
    atoms.info.pop("occupancy", None)
    return atoms


def name_of(source: str | os.PathLike[str] | Atoms) -> str:
    """Name of a structure: that of the table, or that of its file."""
    if isinstance(source, Atoms):
        return "given atoms"
    known = _known(os.fspath(source))
    return Path(source).name if known is None else known.name


def _known(name: str) -> Crystal | None:
    """The entry of the table with that name or alias. Capital letters and punctuation do not matter."""
    wanted = _letters(name)
    for entry in crystals().values():
        if wanted in (_letters(word) for word in (entry.name, *entry.aliases)):
            return entry
    return None


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _read(name: str) -> Atoms:
    path = Path(name)
    if not path.exists():
        refuse(
            "structure",
            needs="a structure of the table, or a file of one",
            got=f"{name!r}, which is neither",
            remedy=" or ".join(_similar_names(name)) or "one of the names that nntomo structures lists",
        )
    try:
        # Warnings about a CIF concern settings that are given twice. The atoms themselves are checked below.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            atoms = ase.io.read(path)
    except Exception as error:  # the readers of ASE raise exceptions of many kinds
        refuse(
            "structure",
            needs="a file that ASE reads",
            got=f"{path} ({error!r})",
            remedy="check that the file is complete and has the suffix of its format",
        )
    return atoms if isinstance(atoms, Atoms) else atoms[-1]


def _similar_names(name: str) -> list[str]:
    """The names of the table that the user may have meant: one inside the given text, or those that are most alike."""
    names = {word.casefold(): word for entry in crystals().values() for word in (entry.name, *entry.aliases)}
    given = name.casefold()
    inside = [word for word in names if word in given]
    if inside:
        return [names[max(inside, key=len)]]
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    likeness = [difflib.SequenceMatcher(None, word, given).ratio() for word in near]
    return [names[word] for word, ratio in zip(near, likeness, strict=True) if ratio == max(likeness)]


def check_structure(atoms: Atoms, *, name: str) -> None:
    """Raise a SchemaError, or warn, as described in `structure`."""
    if len(atoms) == 0:
        refuse("structure", needs="atoms", got=f"none in {name}", remedy="check that the file lists atoms")
    if atoms.cell.rank < 3:
        refuse(
            "structure",
            needs="a cell",
            got=f"none in {name}",
            remedy="set one with atoms.center(vacuum=5) or atoms.set_cell(…)",
        )
    heavy = sorted({int(number) for number in atoms.numbers if not 1 <= number <= LARGEST_NUMBER})
    if heavy:
        symbols = ", ".join(ase.data.chemical_symbols[number] for number in heavy)
        refuse(
            "structure",
            needs=f"elements of numbers 1 to {LARGEST_NUMBER}, which have scattering factors",
            got=f"{symbols} in {name}",
            remedy="replace or remove these atoms",
        )
    _check_occupancy(atoms, name)
    _check_distances(atoms, name)
    lacking = carbons_without_hydrogen(atoms)
    if lacking:
        warnings.warn(
            f"structure: {lacking} carbon atoms of {name} seem to lack their hydrogen, as in many crystallographic "
            "files; the images will lack it too",
            stacklevel=3,
        )


def _check_occupancy(atoms: Atoms, name: str) -> None:
    occupancy = atoms.info.get("occupancy") or {}
    partly = [
        f"{symbol} {share:g}" for site in occupancy.values() for symbol, share in site.items() if share < 1 - 1e-3
    ]
    if partly:
        listed = ", ".join(partly[:6]) + (", …" if len(partly) > 6 else "")
        refuse(
            "structure",
            needs="sites that are fully occupied",
            got=f"occupancies of {listed} in {name}",
            remedy="keep one of the alternatives in the file and set its occupancy to 1",
        )


def _check_distances(atoms: Atoms, name: str) -> None:
    first, second, distance = pairs(atoms, _TOO_CLOSE)
    if first.size:
        nearest = int(distance.argmin())
        one, other = (f"{atoms.symbols[index]} {index}" for index in (first[nearest], second[nearest]))
        count = "1 pair that is" if first.size == 1 else f"{first.size} pairs that are"
        refuse(
            "structure",
            needs=f"atoms at least {_TOO_CLOSE} Å apart",
            got=f"{count} closer in {name}, {one} and {other} at {distance[nearest]:.2f} Å",
            remedy="remove duplicate or alternative sites from the file",
        )


def pairs(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs closer than `cutoff` [Å] in the periodic crystal, each pair once: first, second atom, distance [Å]."""
    first, second, offset = periodic_pairs(atoms, cutoff)
    distance = np.linalg.norm(atoms.positions[second] + offset @ atoms.cell.array - atoms.positions[first], axis=1)
    return first, second, distance


def periodic_pairs(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Like `pairs`, but with the cells (pair, 3) between the two atoms in place of their distance."""
    cell = atoms.cell.array
    # Periodic images of the cell, as many as the cutoff can reach across each face.
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = np.ceil(cutoff / heights).astype(int)
    shifts = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1).reshape(-1, 3)
    scaled = atoms.get_scaled_positions(wrap=False)
    home = np.floor(scaled)
    wrapped = (scaled - home) @ cell
    images = (wrapped[None] + (shifts @ cell)[:, None]).reshape(-1, 3)
    found = cKDTree(wrapped).query_ball_tree(cKDTree(images), cutoff)
    first = np.repeat(np.arange(len(atoms)), [len(row) for row in found])
    image = np.concatenate([np.asarray(row, int) for row in found])
    second, cells = image % len(atoms), shifts[image // len(atoms)]
    once = (second > first) | ((second == first) & _is_positive(cells))
    first, second, cells = first[once], second[once], cells[once]
    return first, second, cells + (home[first] - home[second]).astype(int)


def _is_positive(cells: np.ndarray) -> np.ndarray:
    """Whether the first component that is not zero is positive. This holds for one of a vector and its opposite."""
    a, b, c = cells.T
    return np.asarray((a > 0) | ((a == 0) & (b > 0)) | ((a == 0) & (b == 0) & (c > 0)))


def carbons_without_hydrogen(atoms: Atoms) -> int:
    """Number of carbon atoms that have too few neighbours; triple bonds and carbon monoxide are not counted."""
    first, second, cells = periodic_pairs(atoms, _BONDED)
    vectors = atoms.positions[second] + cells @ atoms.cell.array - atoms.positions[first]
    both = np.concatenate([first, second])
    outward = np.concatenate([vectors, -vectors])
    count = 0
    for index in np.flatnonzero(atoms.numbers == 6):
        around = outward[both == index]
        if len(around) == 2:
            one, other = around / np.linalg.norm(around, axis=1, keepdims=True)
            count += int(np.degrees(np.arccos(np.clip(one @ other, -1, 1))) < _LINEAR_DEG)
        elif len(around) == 1:
            count += int(np.linalg.norm(around) > 1.25)
    return count
