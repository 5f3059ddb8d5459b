"""Crystals from CIFs, by gemmi: one block, its cell, its symmetry, and its sites.

What a file leaves open in a way that changes the crystal is refused, with the readings and the remedy; what is only
odd is read, with a warning.
"""

import math
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import gemmi
import numpy as np
from ase import Atoms
from ase.cell import Cell

from nntomo_dask.errors import refuse
from nntomo_dask.simulation import elements, neighbours, symmetry
from nntomo_dask.types import Float64

_ONE_ATOM = 0.1  # Å, below which two places of one element are one atom: a rounded special position, a repeated site
_MOVED = 0.02  # Å, from which on a move onto a special position is told
_LARGEST = 1e6  # number in a file; a larger one is damage
_FULL = (1 - 1e-3, 1 + 1e-2)  # shares that count as 1
_TRIES = 100  # items that are left out of a file before it is given up
_LENGTHS = ("_cell_length_a", "_cell_length_b", "_cell_length_c")
_ANGLES = ("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma")
_FRACTIONAL = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
_CARTESIAN = ("_atom_site_cartn_x", "_atom_site_cartn_y", "_atom_site_cartn_z")
_OF_SITES = tuple(
    f"_atom_site_{name}"
    for name in ("label", "type_symbol", "occupancy", "calc_flag", "disorder_group", "disorder_assembly")
)
_NEEDED = ("_cell", "_atom_site", "_atom_type", "_symmetry", "_space_group", "_chemical_formula")
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?:\(\d*\))?")
_FRACTION = re.compile(r"([+-]?\d+)/(\d+)")

_Items = Mapping[str, Sequence[str]]


def read(path: Path, *, block: str | int | None = None) -> Atoms:
    """The atoms of one cell of a crystal.

    Parameters
    ----------
    block
        Name, or number from 1, of the data block, where several have atoms.

    Returns
    -------
    Positions in Å. ``info["occupancy"]`` has the share of each element on the sites that are partly occupied, by site.

    Raises
    ------
    SchemaError
        The file is no CIF, or it leaves open what the crystal is.

    Warns
    -----
    UserWarning
        Something in it is odd, and was read in the way that the warning says.
    """
    items = _chosen(_blocks(path), block, path)
    name = str(path)
    cell = _cell(items, name)
    return _atoms(items, cell, name)


def _blocks(path: Path) -> list[tuple[str, _Items]]:
    """Names of the data blocks that have atoms, and their items."""
    lines = _lines(path.read_bytes())
    for _ in range(_TRIES):
        document = gemmi.cif.Document()
        try:
            document.parse_string("\n".join(lines) + "\n")
            break
        except (ValueError, RuntimeError) as error:
            place = re.search(r":(\d+)[:(]", str(error))
            if place is None or not _leave_out(lines, int(place[1]) - 1):
                _refuse_file(path, str(error).removeprefix("string:"))
    else:
        _refuse_file(path, "too many lines that are not in the format")
    found = [(block.name.strip() or "(no name)", _items(block, path)) for block in document]
    if not found:
        _refuse_file(path, "no data block")
    return [one for one in found if any(tag in one[1] for tag in (_FRACTIONAL[0], _CARTESIAN[0]))]


def _refuse_file(path: Path, why: str) -> NoReturn:
    refuse(
        "structure",
        needs="a CIF, which begins with data_ and has a cell and atoms",
        got=f"{path} ({why})",
        remedy="check that the file is complete, or export it again from the program that made it",
    )


def _lines(raw: bytes) -> list[str]:
    """The lines from the first data block on. Text before it is left out; a block line that is missing is added."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = raw.decode("utf-16", errors="replace")
    else:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = re.sub(r"[^\S\n]|[\x00-\x08\x0b-\x1f\x7f]", " ", text).split("\n")
    for index, line in enumerate(lines):
        if line.lstrip().lower().startswith("data_"):
            return lines[index:]
        if line.lstrip().lower().startswith(("loop_", "_")):
            return ["data_", *lines[index:]]
    return []


def _leave_out(lines: list[str], number: int) -> bool:
    """Empty the item or the loop that a line belongs to; False if it is needed, or if there is nothing to leave out."""
    if not 0 <= number < len(lines) or not any(lines[number:]):
        return False
    first = number
    while first > 0 and not _starts(lines[first], "_", "loop_", "data_"):
        first -= 1
    head = first
    while head > 0 and _starts(lines[head], "_") and len(lines[head].split()) == 1:
        head -= 1
    first = head if _starts(lines[head], "loop_") else first
    last = first + 1
    if _starts(lines[first], "loop_"):
        while last < len(lines) and (_starts(lines[last], "_") or not lines[last].strip()):
            last += 1
    while last < len(lines) and not _starts(lines[last], "_", "loop_", "data_"):
        last += 1
    item = [line for line in lines[first:last] if line.strip()]
    if not item or any(_starts(line, *_NEEDED, "data_") for line in item):
        return False
    lines[first:last] = [""] * (last - first)
    return True


def _starts(line: str, *words: str) -> bool:
    return line.lstrip().lower().startswith(words)


def _items(block: gemmi.cif.Block, path: Path) -> _Items:
    """Values by tag, in small letters, with an underscore for the dot of newer dictionaries; unknown ones are empty."""
    found: dict[str, list[str]] = {}
    for item in block:
        pair, loop = item.pair, item.loop
        columns: dict[str, list[str]] = {}
        if isinstance(pair, list | tuple):
            columns = {pair[0]: [pair[1]]}
        elif isinstance(loop, gemmi.cif.Loop):
            columns = {tag: list(loop.values[place :: loop.width()]) for place, tag in enumerate(loop.tags)}
        for tag, values in columns.items():
            plain = tag.lower().replace(".", "_")
            if not plain.startswith(_NEEDED):
                continue
            texts = ["" if value in (".", "?") else gemmi.cif.as_string(value).strip() for value in values]
            if found.setdefault(plain, texts) != texts:
                refuse(
                    "structure",
                    needs=f"one {tag} in a data block",
                    got=f"two that differ in block {block.name} of {path}",
                    remedy="remove the wrong one from the file",
                )
    return found


def _chosen(blocks: list[tuple[str, _Items]], block: str | int | None, path: Path) -> _Items:
    """The block that is asked for, or the only one with atoms."""
    names = [name for name, _ in blocks]
    if not blocks:
        refuse("structure", needs="atoms", got=f"none in {path}", remedy="check that the file lists atoms")
    if block is None and len(blocks) == 1:
        return blocks[0][1]
    listed = " and ".join(f"{name} ({number})" for number, name in enumerate(names, 1))
    if block is None:
        refuse(
            "structure",
            needs="one crystal",
            got=f"{len(blocks)} data blocks with atoms in {path}: {listed}",
            remedy=f"`block={names[0]!r}`" if names.count(names[0]) == 1 else "`block=1`",
        )
    if names.count(str(block)) == 1:
        return blocks[names.index(str(block))][1]
    if str(block).isdigit() and 1 <= int(block) <= len(blocks):
        return blocks[int(block) - 1][1]
    refuse(
        "structure",
        needs="the name or the number of a data block with atoms",
        got=f"{block!r}; {path} has {listed}",
        remedy="`block=1`",
    )


def number(text: str, *, what: str, name: str) -> float | None:
    """A number, with or without its uncertainty, or a fraction; None for an unknown one."""
    if not text:
        return None
    if (match := _NUMBER.fullmatch(text)) and abs(value := float(match[1])) < _LARGEST:
        return value
    if (match := _FRACTION.fullmatch(text)) and int(match[2]):
        return int(match[1]) / int(match[2])
    refuse(
        "structure",
        needs=f"a number as {what}",
        got=f"{text!r} in {name}",
        remedy="correct the number in the file; its decimal sign is a point",
    )


def _cell(items: _Items, name: str) -> Float64:
    """(3, 3), the cell vectors in rows, [Å]."""
    lengths = [number("".join(items.get(tag, ("",))[:1]), what=tag, name=name) for tag in _LENGTHS]
    angles = [number("".join(items.get(tag, ("",))[:1]), what=tag, name=name) for tag in _ANGLES]
    known = [90.0 if angle is None else angle for angle in angles]
    if any(length is None for length in lengths):
        refuse("structure", needs="a cell", got=f"none in {name}", remedy="write the lengths of the cell into the file")
    a, b, c = (math.cos(math.radians(angle)) for angle in known)
    if min(float(length or 0) for length in lengths) <= 0 or 1 - a * a - b * b - c * c + 2 * a * b * c <= 1e-6:
        refuse(
            "structure",
            needs="a cell with a volume",
            got=f"{', '.join(f'{length:g}' for length in lengths)} Å, {', '.join(f'{angle:g}' for angle in known)}° "
            f"in {name}",
            remedy="correct the cell in the file",
        )
    return np.asarray(Cell.fromcellpar([*lengths, *known]).array)


def _atoms(items: _Items, cell: Float64, name: str) -> Atoms:
    tags = _FRACTIONAL if any(items.get(_FRACTIONAL[0], ())) or _CARTESIAN[0] not in items else _CARTESIAN
    count = max(len(items.get(tag, ())) for tag in tags)
    uneven = [
        tag
        for tag, values in items.items()
        if tag.startswith("_atom_site_") and tag in (*tags, *_OF_SITES) and len(values) != count
    ]
    if uneven:
        refuse(
            "structure",
            needs=f"a value of {uneven[0]} for each of {count} sites",
            got=f"{len(items[uneven[0]])} in {name}",
            remedy="write the sites into one loop of the file",
        )
    columns = {tag.removeprefix("_atom_site_"): list(items.get(tag, [""] * count)) for tag in _OF_SITES}
    others = items.get("_atom_site_label_atom_id", items.get("_atom_site_id", ()))
    if not any(columns["label"]) and len(others) == count:
        columns["label"] = list(others)
    labels = [label or f"site {place + 1}" for place, label in enumerate(columns["label"])]
    rows, lost, dummies = [], [], []
    places = np.full((count, 3), np.nan)
    for row in range(count):
        values = [
            number(items[tag][row] if tag in items else "", what=f"coordinate of {labels[row]}", name=name)
            for tag in tags
        ]
        if columns["calc_flag"][row].lower() == "dum":
            dummies.append(labels[row])
        elif any(value is None for value in values):
            lost.append(labels[row])
        else:
            places[row] = values
            rows.append(row)
    for words, why in ((lost, "no coordinates"), (dummies, "the mark of a dummy")):
        if words:
            warnings.warn(
                f"structure: {_listed(words)} in {name} {'has' if len(words) == 1 else 'have'} {why} and "
                f"{'is' if len(words) == 1 else 'are'} left out",
                stacklevel=2,
            )
    if not rows:
        refuse("structure", needs="atoms", got=f"none with coordinates in {name}", remedy="check the file's atoms")
    chosen = {tag: [values[row] for row in rows] for tag, values in columns.items()}
    labels = [labels[row] for row in rows]
    numbers = np.array(
        elements.numbers_of(
            chosen["type_symbol"],
            labels,
            formula=elements.of_formula("".join(items.get("_chemical_formula_sum", ("",))[:1])),
            name=name,
        )
    )
    shares = _shares(chosen["occupancy"], labels, name)
    _check_disorder(chosen, shares, name)
    fractional = places[rows] if tags is _FRACTIONAL else np.linalg.solve(cell.T, places[rows].T).T
    found = symmetry.operations(items, cell, name=name)
    sites, positions = _expanded(fractional, numbers, found, cell, labels, name)
    atoms = Atoms(numbers[sites], cell=cell, pbc=True)
    atoms.set_scaled_positions(positions)
    atoms.info["occupancy"] = {
        str(site): {Atoms([numbers[site]]).get_chemical_symbols()[0]: float(shares[site])}
        for site in np.flatnonzero(shares < _FULL[0])
    }
    return atoms


def _shares(texts: list[str], labels: list[str], name: str) -> Float64:
    """Occupancy of each site, 1 where it is unknown."""
    shares = np.ones(len(texts))
    for row, text in enumerate(texts):
        share = number(text, what=f"occupancy of {labels[row]}", name=name)
        if share is not None and not 0 <= share <= _FULL[1]:
            refuse(
                "structure",
                needs="occupancies from 0 to 1",
                got=f"{share:g} of {labels[row]} in {name}",
                remedy="correct the occupancy in the file",
            )
        shares[row] = 1.0 if share is None else share
    return shares


def _check_disorder(columns: dict[str, list[str]], shares: Float64, name: str) -> None:
    """Refuse alternatives of which each is said to be there wholly."""
    groups: dict[str, Counter[str]] = {}
    for row, group in enumerate(columns["disorder_group"]):
        if group and group != "0" and shares[row] >= _FULL[0]:
            groups.setdefault(columns["disorder_assembly"][row], Counter())[group] += 1
    for assembly, counted in groups.items():
        if len(counted) > 1:
            where = f" of assembly {assembly}" if assembly else ""
            refuse(
                "structure",
                needs="one of the alternatives of a disordered structure",
                got=f"disorder groups {', '.join(sorted(counted))}{where} in {name}",
                remedy="remove all but one of them from the file",
            )


def _expanded(
    fractional: Float64, numbers: Float64, found: symmetry.Operations, cell: Float64, labels: list[str], name: str
) -> tuple[np.ndarray, Float64]:
    """Site and fractional coordinates of every atom of the cell, each once, site by site."""
    images = np.einsum("nij,sj->sni", found.rotations, fractional) + found.translations
    sites = np.repeat(np.arange(len(fractional)), len(found.translations))
    # Sites of equal elements that coincide are one atom, those of different ones are refused with all others.
    places, first, moved = neighbours.merged(images.reshape(-1, 3), cell, _ONE_ATOM, kinds=numbers[sites])
    sites = sites[first]
    lost = sorted(set(range(len(labels))) - set(sites.tolist()))
    if lost:
        warnings.warn(
            f"structure: {_listed([labels[site] for site in lost])} in {name} "
            f"{'repeats another site' if len(lost) == 1 else 'repeat other sites'} and "
            f"{'is' if len(lost) == 1 else 'are'} left out",
            stacklevel=2,
        )
    far = sorted(set(sites[moved > _MOVED].tolist()))
    if far:
        warnings.warn(
            f"structure: {_listed([labels[site] for site in far])} in {name} moved by up to {moved.max():.2f} Å onto "
            "the symmetry element that lies there",
            stacklevel=2,
        )
    return sites, places


def _listed(words: list[str]) -> str:
    return ", ".join(words[:6]) + (f" and {len(words) - 6} more" if len(words) > 6 else "")
