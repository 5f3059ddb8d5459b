"""Chemical elements from the symbols and labels of crystallographic files, in letters of any case."""

import re
import warnings
from collections.abc import Collection, Sequence

from ase.data import atomic_numbers

from nntomo_dask.errors import refuse

_BY_SYMBOL = {symbol.upper(): number for symbol, number in atomic_numbers.items() if number > 0}
_BY_SYMBOL |= {"D": 1, "T": 1}
# Labels of a molecule that stand for its heavy atom, in files that leave hydrogen out.
_MOLECULES = dict.fromkeys(("WAT", "OH", "OH2", "H2O", "HOH", "OW"), 8)
_TYPE = re.compile(r"\d*([A-Za-z]+)\d*[+-]?\d*[+-]?")  # an isotope, the symbol, a number or a charge


def numbers_of(types: Sequence[str], labels: Sequence[str], *, formula: Collection[int] = (), name: str) -> list[int]:
    """Atomic number of each site.

    Parameters
    ----------
    types
        ``_atom_site_type_symbol`` of each site; empty where it is unknown, so that the label counts.
    labels
        ``_atom_site_label`` of each site.
    formula
        Atomic numbers of the chemical formula, which tell "CA1" of carbon from that of calcium; empty if unknown.
    name
        What messages call the file.

    Raises
    ------
    SchemaError
        A symbol or a label is of no element, or could be of two.

    Warns
    -----
    UserWarning
        A label was read in one of two ways, or stands for a molecule.
    """
    found: list[int] = []
    molecules, readings, unknown = [], [], []
    for kind, label in zip(types, labels, strict=True):
        word = kind or label
        number = _of_type(kind) if kind else None
        if kind and number is None and kind.upper() in _MOLECULES:
            number = _MOLECULES[kind.upper()]
            molecules.append(word)
        elif not kind:
            candidates = _of_label(label)
            if len(candidates) > 1 and len(named := [one for one in candidates if one in formula]) == 1:
                candidates = named
            if candidates and re.sub(r"\d+[A-Za-z]*$", "", label).upper() in _MOLECULES:
                molecules.append(word)
            elif len(candidates) > 1:
                readings.append(word)
            number = candidates[0] if candidates else None
        if number is None:
            unknown.append(f"{kind or label!r}" + (f", the type of site {label}," if kind and label else ""))
        else:
            found.append(number)
    if unknown:
        listed = " and ".join(unknown[:4]) + (f" and {len(unknown) - 4} more" if len(unknown) > 4 else "")
        refuse(
            "structure",
            needs="atoms of chemical elements",
            got=f"{listed} in {name}".replace(",,", ","),
            remedy="remove what is no atom, or correct _atom_site_type_symbol",
        )
    if molecules:
        warnings.warn(
            f"structure: {', '.join(dict.fromkeys(molecules))} in {name} stand for molecules; their oxygen is taken "
            "and their hydrogen is missing",
            stacklevel=3,
        )
    if readings:
        symbols = {number: symbol for symbol, number in atomic_numbers.items()}
        first = readings[0]
        one, other = (symbols[number] for number in _of_label(first)[:2])
        warnings.warn(
            f"structure: {name} gives no element symbols, and {first} is read as {one}, not {other}; if that is wrong, "
            "add _atom_site_type_symbol",
            stacklevel=3,
        )
    return found


def of_formula(text: str) -> set[int]:
    """The elements of a chemical formula such as ``C24 H12 Zn4 O13``; empty where it cannot be read."""
    words = re.findall(r"([A-Z][a-z]?)[\d.]*", text)
    return {_BY_SYMBOL[word.upper()] for word in words if word.upper() in _BY_SYMBOL}


def _of_type(kind: str) -> int | None:
    match = _TYPE.fullmatch(kind)
    return _BY_SYMBOL.get(match[1].upper()) if match else None


def _of_label(label: str) -> list[int]:
    """Atomic numbers that a label may stand for, the likeliest first."""
    match = re.match(r"[A-Za-z]+", label)
    if match is None:
        return []
    letters = match[0]
    if letters.upper() in _MOLECULES:
        return [_MOLECULES[letters.upper()]]
    one, two = _BY_SYMBOL.get(letters[:1].upper()), _BY_SYMBOL.get(letters[:2].upper())
    if len(letters) == 1:
        return [one] if one else []
    mixed = letters[0].isupper() and letters[1].islower()
    if two and mixed:
        return [two]
    if mixed and len(letters) > 2:  # a word
        return []
    both = [two, one] if len(letters) == 2 else [one, two]
    return [number for number in both if number]
