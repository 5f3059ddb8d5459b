"""Lengths and angles with the units that files state."""

import math
import re
from collections.abc import Sequence

import numpy as np

from nntomo_dask.formats.faults import FaultError

_NM = {
    "m": 1e9, "meter": 1e9, "meters": 1e9, "metre": 1e9, "metres": 1e9, "cm": 1e7, "mm": 1e6, "millimeter": 1e6,
    "um": 1e3, "µm": 1e3, "micron": 1e3, "microns": 1e3, "micrometer": 1e3, "micrometers": 1e3, "micrometre": 1e3,
    "nm": 1.0, "nanometer": 1.0, "nanometers": 1.0, "nanometre": 1.0,
    "å": 0.1, "a": 0.1, "angstrom": 0.1, "angstroms": 0.1, "ångström": 0.1, "ang": 0.1,
    "pm": 1e-3, "picometer": 1e-3, "picometre": 1e-3,
}  # fmt: skip
_DEGREES = {"deg": 1.0, "degree": 1.0, "degrees": 1.0, "°": 1.0, "rad": 180 / math.pi, "radian": 180 / math.pi,
            "radians": 180 / math.pi}  # fmt: skip
_NONE = {"", "px", "pixel", "pixels", "none", "_none_", "<undefined>", "undefined"}
_EQUAL = 1e-3  # relative: sizes along both axes that differ by less are equal


def plain_unit(unit: object) -> str:
    """A unit as files spell it, in lower case, without brackets, and with one spelling of µ."""
    text = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else str(unit)
    text = text.replace("\\u00B5", "µ").replace("\\u00b5", "µ").strip().strip("[]()").replace("_", "")
    return text.replace("μ", "µ").replace("\u212b", "å").casefold().replace("μ", "µ")


def nm_of(value: float, unit: object) -> float | None:
    """A length in nm; None where the unit says that it is none, or where there is no positive length.

    Raises
    ------
    FaultError
        The unit is another one, such as that of a diffraction pattern.
    """
    name = plain_unit(unit)
    if name in _NONE:
        return None
    if name not in _NM:
        raise FaultError(
            f"its pixels are in {str(unit)[:20]!r}, which is no unit of length",
            remedy="give images, not diffraction patterns; or save them with a pixel size in nm",
        )
    length = float(value) * _NM[name]
    return length if math.isfinite(length) and length > 0 else None


def is_length(unit: object) -> bool:
    """Whether a unit is one of length."""
    return plain_unit(unit) in _NM


def degrees_of(values: Sequence[float], unit: object) -> tuple[float, ...] | None:
    """Angles in degrees; None where the unit is none of angles, or where they are not finite."""
    factor = _DEGREES.get(plain_unit(unit))
    if factor is None or not np.all(np.isfinite(values)):
        return None
    return tuple(round(float(value) * factor, 9) for value in values)


def square(across: float | None, down: float | None) -> float | None:
    """The edge of a pixel of a width and a height.

    Raises
    ------
    FaultError
        They differ.
    """
    if across is None or down is None:
        return across if down is None else down
    if abs(across - down) > _EQUAL * max(across, down):
        raise FaultError(
            f"its pixels are {across:g} nm wide and {down:g} nm high; they have to be square",
            remedy="resample the images to square pixels by the program that made them",
        )
    return across


def ratio(apart: float | None, pixel: float | None) -> float:
    """The distance of slices over that of pixels; 1 where one of them is not known, or where they are equal."""
    if apart is None or pixel is None or abs(apart - pixel) <= _EQUAL * pixel:
        return 1.0
    return apart / pixel


def positive(value: object) -> float | None:
    """A number above zero, or a text that begins with one ("300kV"); None where it is none."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        found = re.match(r"\s*[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", value[:40])
        value = found[0] if found else None
    if value is None or isinstance(value, bool) or not isinstance(value, int | float | str | np.number):
        return None
    number = float(value)
    return number if math.isfinite(number) and number > 0 else None


def finite(value: object) -> float | None:
    """A finite number, or a text that is one; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | np.number):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def order_of(times: Sequence[float | None]) -> tuple[int, ...] | None:
    """The place of each image in the order of acquisition; None where times are missing or all equal."""
    if len(times) < 2 or any(time is None for time in times) or len(set(times)) == 1:
        return None
    places = np.empty(len(times), int)
    places[np.argsort(np.asarray(times, np.float64), kind="stable")] = np.arange(len(times))
    return tuple(int(place) for place in places)
