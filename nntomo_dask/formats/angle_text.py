"""Tilt angles in text: one number a line, tables of two columns or with named columns, and SerialEM's metadata.

What is ambiguous is refused: a wrong angle spoils a reconstruction without a sign of it.
"""

import re

import numpy as np

from nntomo_dask.errors import refuse
from nntomo_dask.types import Float64

_WHO = "read_tilt_angles"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"([+-]?\d+),(\d+)°?", re.ASCII)
_NAME = re.compile(r"(?!nan|inf)[a-z]", re.IGNORECASE)  # of a column, in the first line
_COMMENT = re.compile(r"[#;%]")
_NAMES = ("tilt", "tiltangle", "tilt_angle", "rlntomonominalstagetiltangle")  # of a column of angles, in lower case
_SECTION = re.compile(r"^\s*\[\s*ZValue\s*=\s*(\S+?)\s*\]\s*$", re.MULTILINE | re.IGNORECASE)
_TILT = re.compile(r"^\s*TiltAngle\s*=\s*(\S+)", re.MULTILINE | re.IGNORECASE)
_MOST_RADIANS = np.pi / 2 + 0.01


def angles_in(text: str, source: object) -> Float64:
    """The tilt angles in the text of a file, (angle,), [degrees], in the order of the images.

    Parameters
    ----------
    text
        One number a line or all in one line, with decimal points or commas; two columns, of which one is the number of
        the image or a dose; columns with a name in a comment above them; or SerialEM's .mdoc, whose sections may stand
        in any order.
    source
        The file, for errors.

    Raises
    ------
    SchemaError
        There are no angles, something is no number, the column of the angles cannot be told, or the numbers look like
        radians.
    """
    text = text.removeprefix("\ufeff")
    angles = _of_sections(text, source) if _TILT.search(text) else _of_table(text, source)
    if angles.size == 0:
        refuse(_WHO, needs="at least one angle", got=f"none in {source}", remedy="check the file")
    steps = np.abs(np.diff(np.sort(angles)))
    if angles.size > 2 and 0 < np.abs(angles).max() <= _MOST_RADIANS and np.median(steps) < 0.5:
        refuse(
            _WHO,
            needs="angles in degrees",
            got=f"angles from {angles.min():g} to {angles.max():g} in {source}, which look like radians",
            remedy="convert them to degrees",
        )
    return angles


def _of_sections(text: str, source: object) -> Float64:
    """The angle of each section, by the number of the image that the section is about."""
    parts = _SECTION.split(text)
    if len(parts) == 1:
        return np.array([_number(word, source) for word in _TILT.findall(text)])
    found: dict[float, float] = {}
    for image, section in zip(parts[1::2], parts[2::2], strict=True):
        place, angles = _number(image, source), _TILT.findall(section)
        if len(angles) != 1 or place in found:
            got = f"{len(angles)} of ZValue = {image} in {source}" if place not in found else f"ZValue = {image} twice"
            refuse(_WHO, needs="one TiltAngle for each ZValue", got=got, remedy="correct that section")
        found[place] = _number(angles[0], source)
    return np.array([found[place] for place in sorted(found)])


def _of_table(text: str, source: object) -> Float64:
    lines = [_COMMENT.split(line, maxsplit=1)[0].strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    rows = _with_decimal_commas(lines) or [line.replace(",", " ").replace("°", " ").split() for line in lines]
    if rows and all(_NAME.match(word) for word in rows[0]):
        rows = rows[1:]
    if not rows:
        return np.empty(0)
    widths = {len(row) for row in rows}
    if len(rows) == 1 or widths == {1}:
        return np.array([_number(word, source) for row in rows for word in row])
    if len(widths) > 1:
        for word in (word for row in rows for word in row):
            _number(word, source)  # a word that is no number is the likelier fault
        got = f"lines of {min(widths)} and of {max(widths)} numbers in {source}"
        refuse(_WHO, needs="as many numbers in each line", got=got, remedy="write one angle a line")
    named = _named_column(text, widths.pop())
    if named is not None:
        return np.array([_number(row[named], source) for row in rows])
    table = np.array([[_number(word, source) for word in row] for row in rows])
    return _angles_of_two(table, source)


def _with_decimal_commas(lines: list[str]) -> list[list[str]] | None:
    """One number a line, with a comma in place of the decimal point; None where lines are not of that kind."""
    found = [_DECIMAL_COMMA.fullmatch(line) for line in lines]
    digits = {len(match[2]) for match in found if match}
    if not found or not all(found) or len(digits) > 1:
        return None
    if _is_index(np.array([float(match[1]) for match in found if match])):
        return None  # numbers of images, and angles
    return [[f"{match[1]}.{match[2]}"] for match in found if match]


def _named_column(text: str, width: int) -> int | None:
    """Which column a comment calls the tilt angle, where it has a name for each column."""
    for line in reversed([line.lstrip("#;% ") for line in text.splitlines() if line.strip()]):
        names = [name.lower() for name in line.replace(",", " ").split()]
        if len(names) == width:
            places = [place for place, name in enumerate(names) if name in _NAMES]
            if len(places) == 1:
                return places[0]
    return None


def _angles_of_two(table: Float64, source: object) -> Float64:
    """The angles of a table whose other column is the number of the image, or a dose."""
    if table.shape[1] == 2:
        first: Float64 = table[:, 0]
        second: Float64 = table[:, 1]
        numbered, dosed = _is_index(first), _is_dose(second)
        if numbered and not dosed:
            return second
        if dosed and not numbered:
            return first
    refuse(
        _WHO,
        needs="one angle a line",
        got=f"{table.shape[1]} columns in {source}, and it is not clear which one holds the angles",
        remedy="keep only the column of the angles",
    )


def _is_index(column: Float64) -> bool:
    """Whether a column numbers the images: 0, 1, 2 … or 1, 2, 3 …."""
    return bool(column.size > 1 and column[0] in (0, 1) and (np.diff(column) == 1).all())


def _is_dose(column: Float64) -> bool:
    """Whether a column can be a dose: of each image, or accumulated in some order; never below zero."""
    return bool(column.min() >= 0)


def _number(word: str, source: object) -> float:
    if not _NUMBER.fullmatch(word):
        refuse(_WHO, needs="one angle in degrees a line", got=f"{word[:40]!r} in {source}", remedy="correct that line")
    return float(word)
