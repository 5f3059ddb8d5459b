"""Tables of alignments as files: CSV that people edit, JSON that programs read, and IMOD's transforms.

Both of the first two hold all of an alignment exactly. Rows are known by their angles, not by their order.
"""

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from nntomo_dask import aside
from nntomo_dask.alignment import imod
from nntomo_dask.alignment.table import COLUMNS, MOST_PX, Alignment
from nntomo_dask.errors import SchemaError, refuse
from nntomo_dask.untrusted import LONGEST_JSON, MOST_ANGLES, finite_number, parsed_object, printable

_FORM = "nntomo alignment"
_VERSION = 1
_HEAD = ("angle_deg", *COLUMNS, "flagged")
_MEANT = {
    "angle_deg": "nominal tilt angle [degrees] of the raw projection; it names the row, so leave it as it is",
    "along_px": "shift along the tilt axis (z) [px of the raw series]: the pixel at u is read at u + shift",
    "across_px": "the same across the tilt axis (detector)",
    "rotation_deg": "rotation of the image about its middle [degrees], from z towards detector",
    "correction_deg": "what is added to the tilt angle [degrees]",
    "flagged": "1: the projection is left out; 0: it is kept",
}
_SETTINGS = {
    "axis_px": "position of the tilt axis across the rotated image, from its middle [px]; added to every across_px",
    "pixel_size": "edge of a pixel of the raw series, in units; empty where it is not known",
    "units": "of pixel_size",
}
_TRUE, _FALSE = ("1", "true", "yes", "x"), ("0", "false", "no", "")


def write_alignment(alignment: Alignment, path: str | os.PathLike[str]) -> Path:
    """Write the table of an alignment; the file appears when it is complete.

    Parameters
    ----------
    path
        The suffix chooses the form: .json; IMOD's .xf, .xg and .prexg, which hold no angles, axis or flags
        (`write_tilt_angles` writes ``alignment.corrected_deg`` as .tlt), and .prexf, each view relative to the one
        before; with any other suffix it is CSV, with comments that say what the columns are.

    Raises
    ------
    SchemaError
        `path` is a folder or a device, or lies inside a store.
    OSError
        The place cannot be written.
    """
    with aside.written(path) as partial:
        partial.write_text(text_of(alignment, Path(path).suffix), encoding="utf-8")
    return Path(path)


def text_of(alignment: Alignment, suffix: str) -> str:
    """What `write_alignment` writes into a file with a suffix."""
    kind = suffix.lower()
    if kind in imod.SUFFIXES:
        return imod.text_of(alignment, relative=kind == imod.RELATIVE)
    if kind == ".json":
        return json.dumps(_as_json(alignment), indent=1, allow_nan=False) + "\n"
    return _as_csv(alignment)


def read_alignment(
    path: str | os.PathLike[str],
    *,
    angles_deg: npt.ArrayLike | None = None,
    corrected_deg: npt.ArrayLike | None = None,
    stretch: imod.Stretch = "refuse",
) -> Alignment:
    """Read the table of an alignment: CSV or JSON as `write_alignment` makes them, or transforms of IMOD.

    Of IMOD are .xf, .xg and .prexg, the transforms of whole images, and .prexf, each relative to the view before. The
    images are those of a series whose tilt axis was taken along their y. Their lines hold no angles: these are given,
    or read from the .rawtlt, and the corrected ones from the .tlt, of the same name beside it.

    Parameters
    ----------
    angles_deg
        Of transforms of IMOD: nominal tilt angles in the order of the lines, [degrees].
    corrected_deg
        Of transforms of IMOD: tilt angles that IMOD found, in the same order.
    stretch
        Of transforms of IMOD: "refuse" those that stretch images; "ignore" takes the nearest rotation instead, and
        keeps the largest stretch in the provenance.

    Raises
    ------
    SchemaError
        There is no such file, or it is no table of an alignment: of another program, too large, cut short; a column is
        missing; a value is no finite number; an angle stands twice; or angles are needed and not known.
    """
    source = Path(path)
    content = _content(source)
    if source.suffix.lower() in imod.SUFFIXES:
        return imod.parsed(content, source, angles_deg=angles_deg, corrected_deg=corrected_deg, stretch=stretch)
    if angles_deg is not None or corrected_deg is not None:
        refuse(
            "read_alignment", needs="no angles for a table that has them", got="some", remedy="leave `angles_deg` out"
        )
    parse = _from_json if content.lstrip()[:1] == "{" else _from_csv
    try:
        return parse(content)
    except SchemaError as error:
        raise SchemaError(f"{source}: {error.args[0]}") from error
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        _refuse_file(source, str(error) if isinstance(error, ValueError) else "parts are missing, or of another kind")


def _content(source: Path) -> str:
    if not source.is_file():
        got = f"nothing at {source}" if not source.exists() else f"{source}, which is a folder"
        refuse("read_alignment", needs="a table of an alignment", got=got, remedy="check the path")
    if source.stat().st_size > LONGEST_JSON:
        got = f"{source} of {source.stat().st_size} bytes"
        refuse("read_alignment", needs="a table of some kilobytes", got=got, remedy="give the table of the alignment")
    try:
        content = source.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        _refuse_file(source, "it is no text")
    if "\0" in content:
        _refuse_file(source, "it is no text")
    return content


def _refuse_file(source: Path, why: str) -> NoReturn:
    refuse(
        "read_alignment",
        needs=f"a table as nntomo align writes it, or IMOD's {', '.join(imod.SUFFIXES)}",
        got=f"{source}: {printable(why)[:200]}",
        remedy="the table that nntomo align wrote beside the aligned series, with edited values",
    )


# JSON.


def _as_json(alignment: Alignment) -> dict[str, Any]:
    columns = {"angle_deg": alignment.angles_deg, **{name: getattr(alignment, name) for name in COLUMNS}}
    rows = [
        {**{name: float(values[row]) for name, values in columns.items()}, "flagged": bool(alignment.flagged[row])}
        for row in range(alignment.angles_deg.size)
    ]
    settings = {name: getattr(alignment, name) for name in _SETTINGS}
    return {"form": _FORM, "version": _VERSION, **settings, "rows": rows, "provenance": alignment.provenance}


def _from_json(content: str) -> Alignment:
    value = parsed_object(content)
    if value.get("form") != _FORM:
        raise ValueError("it is JSON of something else")
    _check_version(value.get("version"))
    rows = value["rows"]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("its rows are none")
    if not all(isinstance(row["flagged"], bool) for row in rows):
        raise ValueError("a flag is neither true nor false")
    if not isinstance(value["provenance"], dict):
        raise ValueError("its provenance is none")
    columns = {name: [_number(row[name], name) for row in rows] for name in _HEAD[:-1]}
    size = value.get("pixel_size")
    return _made(
        columns,
        [row["flagged"] for row in rows],
        axis_px=_number(value["axis_px"], "axis_px"),
        pixel_size=None if size is None else _number(size, "pixel_size"),
        units=_unit(value.get("units", "px")),
        provenance=value["provenance"],
    )


# CSV.


def _as_csv(alignment: Alignment) -> str:
    text = io.StringIO()
    notes = [
        f"{_FORM}, version {_VERSION}",
        "Where each projection of a raw series lies. Edit values, then: nntomo align RAW.zarr --table THIS.csv -o …",
        "The pixel at u = (z, detector), from the middle of the aligned image, is read from the raw one at",
        "R(rotation) (u + (along, across + axis)), R(p)(a, c) = (a cos p - c sin p, a sin p + c cos p).",
        *(f"{name}: {meaning}" for name, meaning in (*_SETTINGS.items(), *_MEANT.items())),
        f"provenance: {json.dumps(alignment.provenance, allow_nan=False)}",
    ]
    for note in notes:
        text.write(f"# {note}\n")
    writer = csv.writer(text, lineterminator="\n")
    for name in _SETTINGS:
        value = getattr(alignment, name)
        writer.writerow([name, "" if value is None else value if isinstance(value, str) else repr(float(value))])
    writer.writerow(_HEAD)
    columns = [getattr(alignment, name) for name in COLUMNS]
    for row, angle in enumerate(alignment.angles_deg):
        values = [repr(float(one)) for one in (angle, *(column[row] for column in columns))]
        writer.writerow([*values, int(alignment.flagged[row])])
    return text.getvalue()


def _from_csv(content: str) -> Alignment:
    """A table with commas, semicolons or tabs between values, as spreadsheets write them; decimal commas too."""
    delimiter, number = _spelling(content)
    settings: dict[str, str] = {}
    head: list[str] | None = None
    provenance: dict[str, Any] = {}
    known = False
    columns: dict[str, list[float]] = {name: [] for name in _HEAD[:-1]}
    flags: list[bool] = []
    for line in content.splitlines():
        cells = _stripped(next(csv.reader([line], delimiter=delimiter), []))
        if not cells:
            continue
        if cells[0].startswith("#"):
            note = line.strip("# " + delimiter)
            if note.startswith(_FORM):
                known = True
                _check_version(note.rpartition("version")[2].strip())
            if cells[0].lstrip("# ").startswith("provenance:"):
                provenance = _provenance(line, delimiter)
        elif head is None and cells[0] in _SETTINGS:
            if cells[0] in settings:
                raise ValueError(f"{cells[0]} stands twice")
            settings[cells[0]] = cells[1] if len(cells) > 1 else ""
        elif head is None:
            head = _head(cells)
        else:
            _add(cells, head, number, columns, flags)
    if head is None or (not known and set(head) != set(_HEAD)):
        raise ValueError("it has no line of the names of the columns")
    if "axis_px" not in settings:
        raise ValueError("it has no axis_px")
    return _made(
        columns,
        flags,
        axis_px=number(settings["axis_px"], "axis_px"),
        pixel_size=number(settings["pixel_size"], "pixel_size") if settings.get("pixel_size") else None,
        units=_unit(settings.get("units", "px")),
        provenance=provenance,
    )


def _provenance(line: str, delimiter: str) -> dict[str, Any]:
    """What a comment says of it: as it was written, or in the cells into which a spreadsheet has cut it."""
    # A spreadsheet reads commas, whatever it writes between cells.
    cut = ",".join(next(csv.reader([line], delimiter=delimiter)))
    for text in (line, cut.rstrip(",")):
        try:
            return parsed_object(text.partition("provenance:")[2].strip())
        except ValueError as error:
            fault = error
    raise fault


def _add(
    cells: list[str],
    head: list[str],
    number: Callable[[str, str], float],
    columns: dict[str, list[float]],
    flags: list[bool],
) -> None:
    """Add a row of the table."""
    if len(flags) >= MOST_ANGLES:
        raise ValueError(f"it has more than {MOST_ANGLES} rows")
    if len(cells) != len(head):
        raise ValueError(f"a row has {len(cells)} values for {len(head)} columns: {','.join(cells)[:60]}")
    values = dict(zip(head, cells, strict=True))
    for name, column in columns.items():
        column.append(number(values[name], name))
    flag = values["flagged"].lower()
    if flag not in (*_TRUE, *_FALSE):
        raise ValueError(f"flagged is {values['flagged'][:20]!r} at {values['angle_deg'][:20]}°; write 1 or 0")
    flags.append(flag in _TRUE)


def _spelling(content: str) -> tuple[str, Callable[[str, str], float]]:
    """What stands between values, told by the line of names, and what reads a number there."""
    for line in content.splitlines():
        for delimiter in ("\t", ";", ","):
            if _HEAD[0] in [cell.strip(' "') for cell in line.split(delimiter)] and delimiter in line:
                return delimiter, _number if delimiter == "," else _number_with_comma
    raise ValueError(f"it has no line of the names of the columns, {','.join(_HEAD)}")


def _head(cells: list[str]) -> list[str]:
    missing = [name for name in _HEAD if name not in cells]
    if missing or len(set(cells)) < len(cells):
        fault = f"{', '.join(missing)} missing" if missing else "one of them twice"
        raise ValueError(f"columns are {', '.join(cells)[:80]}, with {fault}")
    unknown = [name for name in cells if name not in _HEAD]
    if unknown:
        raise ValueError(f"the column {unknown[0][:40]!r} is not known")
    return cells


def _stripped(cells: list[str]) -> list[str]:
    """Cells without the empty ones at the end that spreadsheets add, but for the one of the flag."""
    cells = [cell.strip() for cell in cells]
    while cells and not cells[-1] and len(cells) != len(_HEAD):
        cells.pop()
    return [] if not any(cells) else cells


def _number(value: Any, name: str) -> float:
    try:
        number = finite_number(value)
    except ValueError:
        raise ValueError(f"{name} is {str(value)[:40]!r}, which is no finite number") from None
    if abs(number) > MOST_PX:
        raise ValueError(f"{name} is {number:g}, which is none of an image")
    return number


def _number_with_comma(value: Any, name: str) -> float:
    return _number(value.replace(",", ".") if value.count(",") == 1 and "." not in value else value, name)


def _unit(value: Any) -> str:
    if value not in ("px", "nm"):
        raise ValueError(f"units are {str(value)[:20]!r}; write px or nm")
    return str(value)


def _check_version(value: Any) -> None:
    if str(value) != str(_VERSION):
        raise ValueError(f"it is of version {str(value)[:20]}, and this program reads version {_VERSION}")


def _made(columns: dict[str, list[float]], flags: list[bool], **settings: Any) -> Alignment:
    if not flags:
        raise ValueError("it has no rows")
    arrays: dict[str, Any] = {name: np.array(columns[name], np.float64) for name in COLUMNS}
    return Alignment(np.array(columns["angle_deg"], np.float64), flagged=np.array(flags, bool), **arrays, **settings)
