"""The rows that `truth.py` and `peers/peers.py` write into one CSV file; standard library alone, which both have."""

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Case(NamedTuple):
    """One noisy tilt series of a specimen."""

    specimen: str
    voxels: int  # along each axis
    rays: str  # "fine": projected on a finer grid than the volume's; "grid": on the same
    geometry: str  # "tem8": eight projections in ±70°; "full8": in 180°
    noise: float  # standard deviation, [% of the brightest ray]
    seed: int

    def __str__(self) -> str:
        return f"{self.specimen}_{self.voxels}_{self.rays}_{self.geometry}_noise{self.noise:g}_seed{self.seed}"


class Row(NamedTuple):
    """What one reconstruction of a case is worth."""

    case: Case
    method: str
    choice: str  # the parameter that is not the method's own, "weight=0.1"; empty where all are
    mse: float  # over all voxels
    relative_error: float  # root of it, as a share of the root mean square of the specimen
    seconds: float
    cpu_seconds: float  # of all threads together

    @property
    def key(self) -> tuple[Case, str, str]:
        """What makes it another row."""
        return self.case, self.method, self.choice


COLUMNS = (*Case._fields, *Row._fields[1:])


def read(path: Path) -> list[Row]:
    """The rows of a file, none where there is no file; of two with the same key the later one."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        found = [_row(one) for one in csv.DictReader(file)]
    return list({row.key: row for row in found}.values())


def append(path: Path, row: Row) -> None:
    """Add a row at the end of a file, in one write; a new file gets its heading."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(COLUMNS)
        writer.writerow([*row.case, *row[1:3], *(f"{value:.6g}" for value in row[3:])])


def case_of(texts: Mapping[str, Any]) -> Case:
    """The case of a line of a file."""
    return Case(
        texts["specimen"],
        int(texts["voxels"]),
        texts["rays"],
        texts["geometry"],
        float(texts["noise"]),
        int(texts["seed"]),
    )


def _row(texts: dict[str, Any]) -> Row:
    numbers = (float(texts[name]) for name in Row._fields[3:])
    return Row(case_of(texts), texts["method"], texts["choice"], *numbers)


class Column(NamedTuple):
    """A column of the table: a method as it is, or with the best of the parameters that were tried."""

    method: str
    title: str
    best: bool

    def of(self, rows: Iterable[Row]) -> dict[Case, Row]:
        """Its row of each case: the least error among the choices, or the one without a choice."""
        found: dict[Case, Row] = {}
        for row in rows:
            if row.method != self.method or (not self.best and row.choice):
                continue
            if row.case not in found or row.mse < found[row.case].mse:
                found[row.case] = row
        return found


REFERENCE = "sirt"  # whose error is the unit of the table


def ratios(rows: Sequence[Row], columns: Sequence[Column]) -> dict[tuple[str, ...], dict[Column, list[float]]]:
    """For each (specimen, geometry, noise) and column the errors over seeds, in units of the reference's."""
    reference = Column(REFERENCE, "", best=False).of(rows)
    table: dict[tuple[str, ...], dict[Column, list[float]]] = {}
    for column in columns:
        for case, row in column.of(rows).items():
            if case in reference:
                line = table.setdefault((case.specimen, case.geometry, f"{case.noise:g} %"), {})
                line.setdefault(column, []).append(row.mse / reference[case].mse)
    return table


def markdown(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """The table: the reference's error, and each column's in units of it; mean ± standard deviation over seeds."""
    reference = Column(REFERENCE, "", best=False).of(rows)
    table = ratios(rows, columns)
    used = [column for column in columns if any(column in line for line in table.values())]
    used = [column for column in used if column != Column(REFERENCE, column.title, best=False)]
    lines = [
        "| specimen | projections | noise | SIRT ≥ 0 | " + " | ".join(column.title for column in used) + " |",
        "|---" * (4 + len(used)) + "|",
    ]
    for key, line in table.items():
        own = [row.mse for case, row in reference.items() if (case.specimen, case.geometry, f"{case.noise:g} %") == key]
        least = min((statistics.fmean(line[column]) for column in used if column in line), default=math.inf)
        cells = [spread(line[column], least) if column in line else "" for column in used]
        lines.append(f"| {' | '.join([*key, f'{statistics.fmean(own):.5f}', *cells])} |")
    return "\n".join(lines)


def spread(values: Sequence[float], least: float = math.nan) -> str:
    """Mean ± standard deviation; bold where the mean is the least."""
    mean = statistics.fmean(values)
    text = f"{mean:.2f}" if mean < 10 else f"{mean:.1f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.2f}"
    return f"**{text}**" if mean == least else text
