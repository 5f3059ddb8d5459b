"""Where the tilt angles of a series come from: a file that was given, a file beside the images, or their metadata.

All that say something must agree; the first in this order is used. One angle for all images says nothing.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nntomo_dask.errors import SchemaError, refuse
from nntomo_dask.formats import fei_log, folders
from nntomo_dask.formats.images import Images, Said
from nntomo_dask.formats.joining import Joined
from nntomo_dask.formats.tilt_angles import read_tilt_angles
from nntomo_dask.types import Float64

Disagreement = Literal["refuse", "ignore"]
Given = str | os.PathLike[str] | npt.ArrayLike | None

TOLERANCE_DEG = 0.5  # by which sources may differ: stages report what they reached, lists what was asked for
SUFFIXES = (".rawtlt", ".tlt", ".txt", ".csv")
_ALIGNED = (".tlt", ".rawtlt", ".txt", ".csv")  # of IMOD's .ali, whose angles may have been refined
_LOOSE = (".txt", ".csv")  # which may hold something else
PACKED = (".gz", ".bz2")


@dataclass(frozen=True)
class Source:
    """Angles, [degrees], and where they stand."""

    angles_deg: Float64
    place: str


@dataclass(frozen=True)
class Beside:
    """What lies beside images: angles, other metadata, and the files that were looked for or left out."""

    angles: Source | None
    said: Said
    notes: tuple[str, ...]


def beside(path: Path, images: int) -> Beside:
    """Look for files of the name of `path` with another suffix: of angles, or the log of a microscope.

    A .txt or .csv that holds no angles is left out with a note, since it may be anything.
    """
    notes: list[str] = []
    if path.is_dir():
        candidates = _in_folder(path, notes)
    else:
        base = path.with_suffix("") if path.suffix.lower() in PACKED else path
        suffixes = _ALIGNED if base.suffix.lower() == ".ali" else SUFFIXES
        names = [f"{name}{suffix}" for suffix in suffixes for name in dict.fromkeys((base.stem, base.name))]
        there = _listed(path.parent)
        candidates = [there[name.lower()] for name in names if name.lower() in there]
    angles: Source | None = None
    said = Said()
    for candidate in candidates:
        log = fei_log.read(candidate)
        if log is not None:
            said = log.said(candidate, images)
            continue
        if angles is not None:
            continue
        try:
            angles = Source(read_tilt_angles(candidate), candidate.name)
        except SchemaError as error:
            if candidate.suffix.lower() not in _LOOSE:
                raise
            notes.append(f"{candidate.name} beside it is left out: {error}")
    return Beside(angles, said, tuple(notes))


def chosen(
    images: Images,
    given: Given,
    found: Source | None,
    *,
    disagreement: Disagreement,
    who: str,
) -> Source | None:
    """The angles of a series; None where no source says any.

    Raises
    ------
    SchemaError
        A source has other than one angle for each image, or two differ by more than `TOLERANCE_DEG`.
    """
    sources: list[Source] = []
    if given is not None:
        sources.append(_of_given(images, given, who))
    if found is not None:
        sources.append(found)
    if images.said.angles_deg is not None:
        place = images.said.places.get("angles_deg", "the file")
        sources.append(Source(np.asarray(images.said.angles_deg, np.float64), place))
    if not sources:
        return None
    first = sources[0]
    if first.angles_deg.size != images.shape[0]:
        refuse(
            who,
            needs=f"one angle for each image ({images.shape[0]})",
            got=f"{first.angles_deg.size} angles in {first.place}",
            remedy="check that the angles belong to this file; or give others by `angles=FILE`",
        )
    place = first.place
    for other in sources[1:]:
        if other.angles_deg.size > 1 and np.ptp(other.angles_deg) == 0 < np.ptp(first.angles_deg):
            place += f"; {other.place} has {other.angles_deg[0]:g}° for all images, which is left out"
        elif disagreement == "refuse":
            _check_agree(first, other, who)
    return replace(first, place=place)


def _of_given(images: Images, given: Any, who: str) -> Source:
    if isinstance(given, str | os.PathLike):
        source = Source(read_tilt_angles(given), Path(given).name)
    else:
        try:
            source = Source(np.atleast_1d(np.asarray(given, np.float64)), "`angles`")
        except (TypeError, ValueError):
            refuse(who, needs="angles in degrees", got=f"{given!r:.80}", remedy="one number for each image, or a file")
        if source.angles_deg.ndim != 1 or not np.isfinite(source.angles_deg).all():
            refuse(who, needs="a list of finite angles", got=f"{given!r:.80}", remedy="one number for each image")
    if isinstance(images, Joined) and source.angles_deg.size == len(images.counts) != images.shape[0]:
        return replace(source, angles_deg=np.repeat(source.angles_deg, images.counts))  # of each file of frames
    return source


def _check_agree(one: Source, other: Source, who: str) -> None:
    if other.angles_deg.size != one.angles_deg.size:
        got = f"{one.angles_deg.size} angles in {one.place}, {other.angles_deg.size} in {other.place}"
    else:
        apart = np.abs(one.angles_deg - other.angles_deg)
        worst = int(apart.argmax())
        if apart[worst] <= TOLERANCE_DEG:
            return
        got = (
            f"{one.angles_deg[worst]:g}° in {one.place} and {other.angles_deg[worst]:g}° in {other.place} for image "
            f"{worst + 1} ({int((apart > TOLERANCE_DEG).sum())} of {apart.size} differ)"
        )
    refuse(
        who,
        needs=f"sources of angles that agree within {TOLERANCE_DEG:g}°",
        got=got,
        remedy="remove the wrong one, or `disagreement=ignore` to take the first",
    )


def _listed(folder: Path) -> dict[str, Path]:
    """The files of a folder by name in lower case."""
    try:
        return {one.name.lower(): one for one in sorted(folder.iterdir()) if one.suffix.lower() in SUFFIXES}
    except OSError:
        return {}


def _in_folder(folder: Path, notes: list[str]) -> Sequence[Path]:
    """The files of angles in a folder of one series: by its name or that of its images, else the only one.

    Where there is none, that of the folder's name beside it.
    """
    name = folder.resolve().name
    inside = [one for one in _listed(folder).values() if one.is_file()]
    images = [one for files in folders.images_in(folder).values() for one in files]
    stems = {name.casefold(), _common([one.stem.casefold() for one in images])}
    named = [one for one in inside if one.stem.casefold() in stems]
    named.sort(key=lambda one: SUFFIXES.index(one.suffix.lower()))
    certain = [one for one in inside if one.suffix.lower() not in _LOOSE]
    if len(certain) == 1 or (not certain and len(inside) == 1):
        return [*named, *certain] if certain else inside
    if named:
        return named
    if certain:
        names = ", ".join(one.name for one in certain)
        notes.append(f"none of {names} is taken: they do not have the name of the folder or of its images")
    there = _listed(folder.resolve().parent)
    return [there[name] for suffix in SUFFIXES if (name := f"{folder.resolve().name}{suffix}".lower()) in there]


def _common(stems: Sequence[str]) -> str:
    """The name of a series: that of its only file, or what the names of all have in common, without the number."""
    if len(stems) == 1:
        return stems[0]
    common = min(stems, default="")
    while not all(one.startswith(common) for one in stems):
        common = common[:-1]
    return common.rstrip("0123456789").rstrip("_-. (")
