"""SerialEM's metadata, .mdoc: a section for each image of a stack, or for each file of frames.

Keys and values are text, ``key = value``, in sections ``[ZValue = 3]`` or ``[FrameSet = 0]``; titles are
``[T = …]``. Source: SerialEM's page on file formats.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from nntomo_dask.errors import refuse
from nntomo_dask.formats.images import Said
from nntomo_dask.untrusted import printable

_MOST_BYTES = 2**25  # about a kilobyte for each image
_MOST_IMAGES = 2**16
_SECTION = re.compile(r"\s*\[\s*(ZValue|FrameSet|Image)\s*=\s*(.*?)\s*\]\s*$", re.IGNORECASE)
_TITLE = re.compile(r"\s*\[\s*T\s*=\s*(.*?)\s*\]\s*$", re.IGNORECASE)
_PAIR = re.compile(r"\s*([A-Za-z]\w*)\s*=\s*(.*?)\s*$")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", re.ASCII)
_AXIS = re.compile(r"tilt\s*axis\s*(?:angle|rotation)\s*=\s*([+-]?\d+(?:\.\d*)?)", re.IGNORECASE)
_MONTHS = {name: number for number, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
_DATE = re.compile(r"(\d{1,2})-([A-Za-z]{3})-(\d{2}|\d{4})\s+(\d{1,2}):(\d{2}):(\d{2})")
_ISO = re.compile(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})[T\s]+(\d{1,2}):(\d{2}):(\d{2})")


@dataclass(frozen=True)
class Section:
    """What a file says of an image: its number in the stack, None of a file of frames; and the values by lower key."""

    image: int | None
    values: dict[str, str]


@dataclass(frozen=True)
class Mdoc:
    """A file of metadata.

    Attributes
    ----------
    path
        The file.
    general
        Values that stand before the first section, by key in lower case.
    titles
        Texts of ``[T = …]``.
    sections
        By the number of the image, or in the order of the file where they are of frames.
    """

    path: Path
    general: dict[str, str]
    titles: tuple[str, ...]
    sections: tuple[Section, ...]

    @property
    def image_file(self) -> str | None:
        """The name that the stack had when it was recorded; often it has another now."""
        name = self.general.get("imagefile")
        return None if name is None else _base(name)

    @property
    def frame_files(self) -> tuple[str, ...] | None:
        """Names of the files of frames, one for each section; None where a section names none."""
        paths = [section.values.get("subframepath") for section in self.sections]
        return tuple(_base(path) for path in paths if path) if paths and all(paths) else None

    def said(self) -> Said:
        """What it says of the images, in the order of the sections."""
        found: dict[str, Any] = {
            "angles_deg": self._each("tiltangle"),
            "exposure_s": self._each("exposuretime", _above_zero),
            "dose_e_per_a2": self._each("exposuredose", _above_zero),
            "tilt_axis_deg": axis_in(self.titles),
            "pixel_nm": self._common("pixelspacing", 0.1),
            "voltage_kv": self._common("voltage"),
            "magnification": self._common("magnification"),
            "detector": next((text for text in self._texts("channelname", "cameraname") if text), None),
            "acquired": self._acquired(),
        }
        if found["acquired"] is not None:
            ranks = np.argsort(np.argsort(found["acquired"], kind="stable"), kind="stable")
            found["order"] = tuple(int(rank) for rank in ranks)
        places = {name: f"{self.path.name}" for name, value in found.items() if value is not None}
        if found["tilt_axis_deg"] is None and (turned := self._rotation()) is not None:
            # SerialEM's RotationAngle is a quarter turn ahead of its "Tilt axis angle".
            found["tilt_axis_deg"] = (turned - 90 + 180) % 360 - 180
            places["tilt_axis_deg"] = f"RotationAngle - 90° in {self.path.name}"
        return Said(**{name: value for name, value in found.items() if value is not None}, places=places)

    def check_fits(self, shape: tuple[int, int, int], stack: Path) -> None:
        """Raise a SchemaError where it is about another stack than one of this shape (image, line, column)."""
        images = [section.image for section in self.sections]
        if images != list(range(shape[0])):
            got = f"{len(images)} sections in {self.path} and {shape[0]} images in {stack}"
            if len(images) == shape[0]:
                odd = next(number for place, number in enumerate(images) if place != number)
                got = f"ZValue = {odd} in {self.path}, and images 0 to {shape[0] - 1} in {stack}"
            self._refuse_other(got)
        size = self.general.get("imagesize", "").split()
        if len(size) == 2 and all(_NUMBER.fullmatch(word) for word in size):
            lines, columns = shape[1:]
            if [int(float(word)) for word in size] != [columns, lines]:
                there = f"images of {' x '.join(size)} in {self.path}"
                self._refuse_other(f"{there}, and of {columns} x {lines} in {stack}")

    def _refuse_other(self, got: str) -> NoReturn:
        refuse(
            "import",
            needs="an .mdoc that is about the stack beside it",
            got=got,
            remedy="the .mdoc that was written with the stack; or move it elsewhere and give `angles=FILE`",
        )

    def _each(self, key: str, accepted: Callable[[float], bool] = np.isfinite) -> tuple[float, ...] | None:
        values = [self._number(section.values, key) for section in self.sections]
        if not values or any(value is None or not accepted(value) for value in values):
            if key == "tiltangle" and any(value is not None for value in values):
                place = next(k for k, value in enumerate(values) if value is None)
                number = self.sections[place].image
                refuse(
                    "import",
                    needs="one TiltAngle for each section",
                    got=f"0 of ZValue = {place if number is None else number} in {self.path}",
                    remedy="correct that section",
                )
            return None
        return tuple(float(value) for value in values if value is not None)

    def _common(self, key: str, unit: float = 1.0) -> float | None:
        """A number above zero that all sections share with the general values, as far as they have it."""
        found = {self._number(values, key) for values in (self.general, *(one.values for one in self.sections))}
        numbers = {value for value in found if value is not None and 0 < value < 1e12}
        if len(numbers) != 1:
            return None
        return float(f"{numbers.pop() * unit:.9g}")

    def _texts(self, *keys: str) -> list[str]:
        return [
            value
            for key in keys
            for values in (*(one.values for one in self.sections[:1]), self.general)
            if (value := printable(values.get(key, ""))[:100])
        ]

    def _rotation(self) -> float | None:
        values = {self._number(one.values, "rotationangle") for one in self.sections}
        turned = values.pop() if len(values) == 1 else None
        return turned if turned is not None and abs(turned) <= 360 else None

    def _acquired(self) -> tuple[float, ...] | None:
        times = [_time(one.values.get("datetime", "")) for one in self.sections]
        if not times or any(time is None for time in times):
            return None
        return tuple((time - datetime(2000, 1, 1)).total_seconds() for time in times if time is not None)

    def _number(self, values: dict[str, str], key: str) -> float | None:
        text = values.get(key)
        if text is None:
            return None
        if not _NUMBER.fullmatch(text):
            if key == "tiltangle":
                refuse(
                    "import",
                    needs="one TiltAngle for each section",
                    got=f"{text[:40]!r} in {self.path}",
                    remedy="correct that section",
                )
            return None
        return float(text)


def is_mdoc(path: Path) -> bool:
    """Whether a file is SerialEM's metadata by its content."""
    try:
        with path.open("rb") as file:
            start = file.read(2**16)
    except OSError:
        return False
    if b"\0" in start:
        return False
    return any(_SECTION.match(line) for line in start.decode("utf-8", "replace").splitlines())


def read(path: Path) -> Mdoc:
    """Read a file of metadata.

    Raises
    ------
    SchemaError
        It is none, its numbers are none, or an image has two sections.
    """
    size = path.stat().st_size
    if size > _MOST_BYTES:
        remedy = "the .mdoc of one stack"
        refuse("import", needs="an .mdoc of some kilobytes", got=f"one of {size} bytes, {path}", remedy=remedy)
    text = path.read_bytes().decode("utf-8-sig", "replace")
    if "\0" in text:
        refuse("import", needs="a text file", got=f"a binary one, {path}", remedy="the .mdoc of the stack")
    general: dict[str, str] = {}
    titles: list[str] = []
    sections: list[Section] = []
    values = general
    for line in text.splitlines():
        if title := _TITLE.match(line):
            titles.append(title[1])
        elif section := _SECTION.match(line):
            number = section[2] if section[1].lower() == "zvalue" else None
            if number is not None and not (number.isascii() and number.isdecimal()):
                got = f"ZValue = {number[:40]!r} in {path}"
                refuse("import", needs="numbers of images", got=got, remedy="correct the file")
            values = {}
            sections.append(Section(None if number is None else min(int(number[:9]), 2**31), values))
        elif pair := _PAIR.match(line):
            values.setdefault(pair[1].lower(), pair[2])
    if not sections or len(sections) > _MOST_IMAGES:
        got = f"{len(sections) or 'none'} in {path}"
        refuse("import", needs="sections, [ZValue = 0] and so on, in an .mdoc", got=got, remedy="check the file")
    numbered = [one for one in sections if one.image is not None]
    if numbered:  # a file may have sections of both kinds; those of images count
        numbered.sort(key=lambda one: one.image or 0)
        for one, other in pairwise(numbered):
            if one.image == other.image:
                got = f"ZValue = {one.image} twice in {path}"
                refuse("import", needs="one section for each image", got=got, remedy="correct the file")
    return Mdoc(path, general, tuple(titles), tuple(numbered or sections))


def axis_in(titles: Sequence[str]) -> float | None:
    """The direction of the tilt axis that SerialEM writes into titles, [degrees] from the vertical."""
    for title in titles:
        if found := _AXIS.search(title):
            return float(found[1])
    return None


def _above_zero(value: float) -> bool:
    return 0 < value < 1e12


def _base(path: str) -> str:
    """The name of a file by its path on Windows or elsewhere."""
    return re.split(r"[\\/]", path)[-1]


def _time(text: str) -> datetime | None:
    try:
        if found := _DATE.search(text):
            year = int(found[3])
            month = _MONTHS[found[2].lower()]
            hour, minute, second = (int(one) for one in found.groups()[3:])
            return datetime(year + 2000 if year < 100 else year, month, int(found[1]), hour, minute, second)
        if found := _ISO.search(text):
            return datetime(*map(int, found.groups()))  # type: ignore[arg-type]
    except (ValueError, KeyError):
        pass
    return None
