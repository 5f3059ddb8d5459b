"""Crystals: a table of metal-organic and covalent organic frameworks, files, and checks of both."""

import difflib
import functools
import os
import tomllib
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

import ase.data
import ase.io
import numpy as np
from ase import Atoms
from ase.spacegroup import crystal

from nntomo_dask import extras
from nntomo_dask.errors import refuse
from nntomo_dask.simulation import neighbours

_CIF = (".cif", ".mcif", ".mmcif")
_OTHERS = (".xyz", ".extxyz", ".pdb", ".vasp", ".poscar", ".res", ".gen", ".xsf", ".cfg")  # some that ASE reads
LARGEST_NUMBER = 103  # the last element for which Lobato and Van Dyck give scattering factors
_TOO_CLOSE = 0.6  # Å between two atoms; the shortest bond, H-H, is 0.74 Å
_BONDED = 1.75  # Å, the longest bond of a carbon atom to hydrogen or an element of the second period
_TO_CARBON = 1.0  # Å; with the covalent radius of a heavier element, such as bromine, the longest bond to carbon
_ALIKE = 0.02  # relative difference of the volumes of two crystals that may be the same, at other temperatures
_TRIPLE = 1.25  # Å, the longest triple bond of carbon
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

    def elements(self) -> set[int]:
        """The atomic numbers."""
        return {int(ase.data.atomic_numbers[line.split()[0]]) for line in self.sites.strip().splitlines()}

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


def structure(source: str | os.PathLike[str] | Atoms, *, block: str | int | None = None) -> Atoms:
    """The atoms of one unit cell of a crystal, checked.

    Parameters
    ----------
    source
        A name from `crystals` (``nntomo structures`` lists them), the path of a CIF or of another file that ASE reads,
        or ASE atoms.
    block
        For a file with several structures: the name of the data block of a CIF, or a number from 1.

    Returns
    -------
    The atoms of one cell, positions in Å.

    Raises
    ------
    SchemaError
        The name is unknown, the file cannot be read or has several structures, a CIF leaves the setting or the origin
        of its space group open, there are no atoms or no cell, sites are partly occupied or coincide, or an element has
        no scattering factors.

    Warns
    -----
    UserWarning
        Hydrogen atoms seem to be missing, as in many crystallographic files, or something in a file is odd and was read
        in the way that the warning says.
    """
    if isinstance(source, Atoms):
        atoms: Atoms = source.copy()
        name = "the given atoms"
    else:
        name = os.fspath(source)
        known = _known(name)
        atoms = known.atoms() if known is not None else _read(name, block)
        if known is not None and block is not None:
            _refuse_block(block, f"{known.name}, a structure of the table")
    check_structure(atoms, name=name)
    atoms.info.pop("occupancy", None)
    return atoms


def name_of(source: str | os.PathLike[str] | Atoms) -> str:
    """Name of a structure: that of the table, or that of its file."""
    if isinstance(source, Atoms):
        return "given atoms"
    known = _known(os.fspath(source))
    return Path(source).name if known is None else known.name


def twin(atoms: Atoms) -> Crystal | None:
    """The crystal of the table that some atoms seem to be: of the same composition and density, in any cell."""
    numbers = Counter(atoms.numbers.tolist())
    for entry in crystals().values():
        if sorted(entry.elements()) != sorted(numbers):
            continue
        known = entry.atoms()
        share = len(atoms) / len(known)
        composed = {number: round(count * share, 6) for number, count in Counter(known.numbers.tolist()).items()}
        if composed == dict(numbers) and abs(atoms.get_volume() / (share * known.get_volume()) - 1) < _ALIKE:
            return entry
    return None


def _known(name: str) -> Crystal | None:
    """The entry of the table with that name, alias, or both. Capital letters and punctuation do not matter."""
    wanted = _letters(name)
    for entry in crystals().values():
        words = [_letters(word) for word in (entry.name, *entry.aliases)]
        if wanted in words or wanted in (words[0] + word for word in words[1:]):
            return None if _is_path(name) else entry
    return None


def _is_path(name: str) -> bool:
    """Whether a text can only be a path: it has a folder in it."""
    return len(Path(name).parts) > 1 or name.startswith((".", "/"))


def _is_file_name(name: str) -> bool:
    """Whether a text is meant as a file: it has a folder in it, or the suffix of a file with a structure."""
    return _is_path(name) or Path(name).suffix.lower() in (*_CIF, *_OTHERS)


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _read(name: str, block: str | int | None) -> Atoms:
    path = Path(name)
    if not path.exists() and _is_file_name(name):
        refuse("structure", needs="a file of a structure", got=f"nothing at {path}", remedy="check the path")
    if not path.is_file():
        refuse(
            "structure",
            needs="a structure of the table, or a file of one",
            got=f"{name!r}, which is {'a folder' if path.is_dir() else 'neither'}",
            remedy=" or ".join(_similar_names(name)) or "one of the names that nntomo structures lists",
        )
    if path.suffix.lower() in _CIF:
        extras.check("gemmi", who=f"structure from {path.name}")
        from nntomo_dask.simulation import cif

        return cif.read(path, block=block)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            frames = ase.io.read(path, index=":")
    except Exception as error:  # the readers of ASE raise exceptions of many kinds
        refuse(
            "structure",
            needs="a file that ASE reads",
            got=f"{path} ({error!r})",
            remedy="check that the file is complete and has the suffix of its format",
        )
    for text in dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning)):
        warnings.warn(f"structure: of {path} ASE says: {text}", stacklevel=3)
    if block is None and len(frames) == 1:
        return cast("Atoms", frames[0])
    if block is None:
        refuse("structure", needs="one crystal", got=f"{len(frames)} structures in {path}", remedy="`block=1`")
    if not str(block).isdigit() or not 1 <= int(block) <= len(frames):
        _refuse_block(block, f"{path}, which has {len(frames)}")
    return cast("Atoms", frames[int(block) - 1])


def _refuse_block(block: str | int, what: str) -> NoReturn:
    refuse(
        "structure", needs="`block` of a file that has several", got=f"{block!r} of {what}", remedy="leave out `block`"
    )


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
            command="a file with a cell, such as a CIF",
        )
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        refuse(
            "structure",
            needs="finite positions and a finite cell",
            got=f"NaN or infinity in {name}",
            remedy="correct the coordinates",
        )
    # Of a thinner cell an atom would be closer to its own image than any two atoms are.
    thinnest = float((1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)).min())
    if thinnest < _TOO_CLOSE:
        refuse(
            "structure",
            needs=f"a cell at least {_TOO_CLOSE} Å thick",
            got=f"{thinnest:.2g} Å in {name}",
            remedy="correct the cell; lengths are in Å",
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
    first, second, distance = neighbours.pairs(atoms, _TOO_CLOSE)
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


def carbons_without_hydrogen(atoms: Atoms) -> int:
    """Number of carbon atoms that have too few neighbours; triple bonds and carbon monoxide are not counted."""
    carbon = atoms.numbers == 6
    limits = np.where(atoms.numbers <= 10, _BONDED, ase.data.covalent_radii[atoms.numbers] + _TO_CARBON)
    first, second, cells = neighbours.periodic_pairs(atoms, float(limits.max()))
    vectors = atoms.positions[second] + cells @ atoms.cell.array - atoms.positions[first]
    both, others = np.concatenate([first, second]), np.concatenate([second, first])
    outward = np.concatenate([vectors, -vectors])
    length = np.linalg.norm(outward, axis=1)
    bonds = carbon[both] & (length < limits[others])
    order = np.argsort(both[bonds], kind="stable")
    centre, outward, length = both[bonds][order], outward[bonds][order], length[bonds][order]
    start, count = np.unique(centre, return_index=True, return_counts=True)[1:]
    alone, two = start[count == 1], start[count == 2]
    cosine = (outward[two] * outward[two + 1]).sum(axis=1) / (length[two] * length[two + 1])
    bent = np.degrees(np.arccos(np.clip(cosine, -1, 1))) < _LINEAR_DEG
    return int(bent.sum()) + int((length[alone] > _TRIPLE).sum())
