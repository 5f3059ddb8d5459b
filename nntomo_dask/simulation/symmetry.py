"""Symmetry of a crystal from the items of a CIF: operations first, then the Hall symbol, then the H-M symbol or number.

gemmi knows the space groups. What two settings or two origins could mean is refused, unless the cell tells them apart.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import gemmi
import numpy as np
import numpy.typing as npt

from nntomo_dask.errors import refuse
from nntomo_dask.types import Float64

_OPERATIONS = ("_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz")
_HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_SYMBOLS = (
    "_space_group_name_h-m_alt",
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m_full",
    "_space_group_name_h-m_ref",
)
_NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number")
_CODE = "_space_group_it_coordinate_system_code"
_MISFIT = 0.01  # relative change of the cell by an operation, from which on the cell does not fit the space group
# Endings of a symbol that name its setting; S and Z are those of the Inorganic Crystal Structure Database.
_ENDINGS = {"1": "1", "2": "2", "H": "H", "R": "R", "S": "1", "Z": "2"}
_READINGS = {
    "1": "origin choice 1",
    "2": "origin choice 2, with a centre of symmetry at the origin",
    "H": "hexagonal axes",
    "R": "rhombohedral axes",
}
_DECIMAL = re.compile(r"\d*\.\d+")


@dataclass(frozen=True)
class Operations:
    """Operations of a cell, on fractional coordinates: ``rotations`` (n, 3, 3) and ``translations`` (n, 3)."""

    rotations: npt.NDArray[np.int64]
    translations: Float64


def operations(items: Mapping[str, Sequence[str]], cell: Float64, *, name: str) -> Operations:
    """The operations that a block of a CIF gives.

    Parameters
    ----------
    items
        Values by tag, in small letters; unknown ones are left out.
    cell
        (3, 3), the cell vectors in rows.
    name
        What messages call the file.

    Raises
    ------
    SchemaError
        They cannot be read, or the symbol and the number leave two settings or origins open.

    Warns
    -----
    UserWarning
        There are none, or they contradict the symbol.
    """
    listed = [text for tag in _OPERATIONS for text in items.get(tag, ()) if text]
    if listed:
        found = _group(listed, name)
        _compare(found, items, name)
    else:
        found = _by_name(items, cell, name)
    made = Operations(
        np.array([op.rot for op in found]) // gemmi.Op.DEN, np.array([op.tran for op in found]) / gemmi.Op.DEN
    )
    if _misfit(made, cell) > _MISFIT:
        _refuse_cell(cell, name)
    return made


def _group(listed: list[str], name: str) -> list[gemmi.Op]:
    """The listed operations, each once; refused where they are no group."""
    found: dict[str, gemmi.Op] = {}
    for text in listed:
        try:
            op = gemmi.Op(_DECIMAL.sub(_as_fraction, text.replace(" ", ""))).wrap()
        except (RuntimeError, ValueError) as error:
            refuse(
                "structure",
                needs="symmetry operations such as -x,y+1/2,z",
                got=f"{text!r} in {name} ({error})",
                remedy="correct the operation in the file",
            )
        found.setdefault(op.triplet(), op)
    given = list(found.values())
    if not _is_closed(given):
        refuse(
            "structure",
            needs="symmetry operations that are a group",
            got=f"{len(given)} in {name}, of which two together are not among them",
            remedy="complete the list in the file, or remove it if the space group is named",
        )
    return given


def _is_closed(given: list[gemmi.Op]) -> bool:
    """Whether the product of any two operations is one of them."""
    rotations = np.array([op.rot for op in given]) // gemmi.Op.DEN
    translations = np.array([op.tran for op in given])
    turned = np.einsum("aij,bjk->abik", rotations, rotations)
    moved = np.einsum("aij,bj->abi", rotations, translations) + translations[:, None]
    known = np.concatenate([rotations.reshape(-1, 9), translations % gemmi.Op.DEN], axis=1)
    products = np.concatenate([turned.reshape(-1, 9), moved.reshape(-1, 3) % gemmi.Op.DEN], axis=1)
    return len(np.unique(np.concatenate([known, products]), axis=0)) == len(given)


def _as_fraction(decimal: re.Match[str]) -> str:
    """A decimal of an operation as a fraction: ``0.333`` as ``8/24``."""
    parts = float(decimal[0]) * gemmi.Op.DEN
    return f"{round(parts)}/{gemmi.Op.DEN}" if abs(parts - round(parts)) < 0.1 else decimal[0]


def _compare(found: list[gemmi.Op], items: Mapping[str, Sequence[str]], name: str) -> None:
    """Warn if the operations are those of another space group than the file names."""
    listed, given = gemmi.find_spacegroup_by_ops(gemmi.GroupOps(found)), None
    for symbol in _values(items, _SYMBOLS):
        given = given or gemmi.find_spacegroup_by_name(_split(symbol)[0])
    if listed is not None and given is not None and listed.number != given.number:
        warnings.warn(
            f"structure: the operations in {name} are those of {listed.xhm()}, and the symbol there is {given.xhm()}; "
            "the operations are taken",
            stacklevel=2,
        )


def _by_name(items: Mapping[str, Sequence[str]], cell: Float64, name: str) -> list[gemmi.Op]:
    """The operations of the space group that the file names."""
    for hall in _values(items, _HALL):
        try:
            return list(gemmi.symops_from_hall(hall))
        except (RuntimeError, ValueError):
            break  # the other symbol may be right
    symbols, numbers = _values(items, _SYMBOLS), _values(items, _NUMBERS)
    if not symbols and not numbers:
        warnings.warn(
            f"structure: {name} names no space group and no operations; its atoms are taken as those of the whole cell",
            stacklevel=2,
        )
        return [gemmi.Op("x,y,z")]
    number = int(numbers[0]) if numbers and numbers[0].isdigit() else None
    code = "".join(items.get(_CODE, ("",))[:1]).upper()
    for symbol in symbols:
        base, ending = _split(symbol)
        group = _find(base, cell)
        if group is None:
            continue
        if number is not None and number != group.number:
            refuse(
                "structure",
                needs="one space group",
                got=f"{symbol!r}, which has number {group.number}, and number {number} in {name}",
                remedy="correct the wrong one in the file, or write the symmetry operations into it",
            )
        return list(_setting(group, ending or code, cell, name).operations())
    if number is None or not 1 <= number <= 230:
        refuse(
            "structure",
            needs="a space group or symmetry operations",
            got=f"{', '.join(map(repr, [*symbols, *numbers]))} in {name}, which is no known space group",
            remedy="write the symmetry operations into the file",
        )
    group = _setting(gemmi.get_spacegroup_reference_setting(number), code, cell, name)
    warnings.warn(
        f"structure: space group {number} of {name} is read in its standard setting, {group.xhm()}", stacklevel=2
    )
    return list(group.operations())


def _values(items: Mapping[str, Sequence[str]], tags: Sequence[str]) -> list[str]:
    return [items[tag][0].strip() for tag in tags if items.get(tag) and items[tag][0].strip()]


def _split(symbol: str) -> tuple[str, str]:
    """A symbol without the ending that names its setting, and that setting; empty where there is none."""
    text = " ".join(symbol.replace("_", " ").split())
    if origin := re.search(r"\(?\s*origin\s*(?:choice)?\s*([12])\s*\)?", text, re.IGNORECASE):
        return text[: origin.start()].strip(" ,:"), origin[1]
    if colon := re.fullmatch(r"(.+?)\s*:\s*([12HRSZ])", text, re.IGNORECASE):
        return colon[1], _ENDINGS[colon[2].upper()]
    if letter := re.fullmatch(r"(.+\S)\s+([HRSZ])", text):
        return letter[1], _ENDINGS[letter[2]]
    if joined := re.fullmatch(r"(R\S+)([HR])", text):
        return joined[1], joined[2]
    if joined := re.fullmatch(r"(\S{2,})([SZ])", text):
        return joined[1], _ENDINGS[joined[2]]
    return (f"R{text[1:]}", "H") if text.upper().startswith("H") else (text, "")


def _find(symbol: str, cell: Float64) -> gemmi.SpaceGroup | None:
    """The space group of a symbol; the cell tells the unique axis of a short monoclinic one."""
    alpha, _, gamma = _angles(cell)
    for spelled in (symbol, symbol.replace(" ", ""), symbol.capitalize()):
        group = gemmi.find_spacegroup_by_name(spelled, alpha, gamma)
        if group is not None:
            return group
    return None


def _setting(group: gemmi.SpaceGroup, ending: str, cell: Float64, name: str) -> gemmi.SpaceGroup:
    """The setting of a space group that is named or that the cell tells; a SchemaError where neither does."""
    readings = {one.ext: one for one in gemmi.spacegroup_table() if one.hm == group.hm and one.number == group.number}
    if ending in readings:
        return readings[ending]
    fitting = {extension: one for extension, one in readings.items() if _misfit(_of(one), cell) <= _MISFIT}
    if not fitting:
        _refuse_cell(cell, name, " or ".join(one.xhm() for one in readings.values()))
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    last = list(fitting.values())[-1]
    refuse(
        "structure",
        needs=f"the setting of space group {group.hm}",
        got=f"no symmetry operations in {name}, and two readings: "
        + " or ".join(f"{one.xhm()} ({_READINGS[extension]})" for extension, one in fitting.items()),
        remedy=f"write the operations into the file, or the whole symbol, _space_group_name_H-M_alt '{last.xhm()}'",
    )


def _of(group: gemmi.SpaceGroup) -> Operations:
    rotations = np.array([op.rot for op in group.operations().sym_ops]) // gemmi.Op.DEN
    return Operations(rotations, np.zeros((len(rotations), 3)))


def _misfit(found: Operations, cell: Float64) -> float:
    """Largest change of a length or an angle of the cell by an operation, as a fraction."""
    metric = cell @ cell.T
    turned = np.einsum("nij,ik,nkl->njl", found.rotations, metric, found.rotations)
    lengths = np.sqrt(np.diag(metric))
    return float(np.abs((turned - metric) / np.outer(lengths, lengths)).max())


def _angles(cell: Float64) -> tuple[float, float, float]:
    """Alpha, beta and gamma, [degrees]."""
    unit = cell / np.linalg.norm(cell, axis=1, keepdims=True)
    cosines = [float(unit[(axis + 1) % 3] @ unit[(axis + 2) % 3]) for axis in range(3)]
    return tuple(float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))) for cosine in cosines)  # type: ignore[return-value]


def _refuse_cell(cell: Float64, name: str, group: str = "its symmetry operations") -> NoReturn:
    lengths = ", ".join(f"{length:g}" for length in np.linalg.norm(cell, axis=1))
    angles = ", ".join(f"{angle:.4g}" for angle in _angles(cell))
    refuse(
        "structure",
        needs=f"a cell that fits {group}",
        got=f"{lengths} Å and {angles}° in {name}",
        remedy="correct the cell, the space group or the operations in the file",
    )
