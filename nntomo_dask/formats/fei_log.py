"""The log of FEI's tomography programs, a text beside a stack: what it says that the stack does not."""

import re
from dataclasses import dataclass
from pathlib import Path

from nntomo_dask.formats.images import Said

_MOST_BYTES = 2**24
_PLACES = re.compile(r"^\d\d/\d\d/\d\d \d\d:\d\d:\d\d\s", re.MULTILINE)
_NUMBER = r"\s*\[[^\]]*\]\s*:\s*([+-]?\d+(?:\.\d+)?)"
_AXIS = re.compile(rf"Tilt Axis Angle{_NUMBER}", re.IGNORECASE)
_PIXEL = re.compile(rf"Image pixel size{_NUMBER}", re.IGNORECASE)
_EXPOSURE = re.compile(rf"Exposure Time{_NUMBER}", re.IGNORECASE)


@dataclass(frozen=True)
class Log:
    """What the log of a run says, [degrees], [nm] and [s]."""

    tilt_axis_deg: float | None
    pixel_nm: float | None
    exposure_s: float | None

    def said(self, path: Path, images: int) -> Said:
        """As what a file says of so many images."""
        found = {
            "tilt_axis_deg": self.tilt_axis_deg,
            "pixel_nm": self.pixel_nm,
            "exposure_s": None if self.exposure_s is None else (self.exposure_s,) * images,
        }
        known = {name: value for name, value in found.items() if value is not None}
        return Said(**known, places=dict.fromkeys(known, path.name))  # type: ignore[arg-type]


def read(path: Path) -> Log | None:
    """What a log says; None where a text is none."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        text = path.read_bytes().decode("latin-1")
    except OSError:
        return None
    if "\0" in text or "Used parameters" not in text or not _PLACES.search(text):
        return None
    pixel = _number(_PIXEL, text)
    return Log(
        _number(_AXIS, text),
        pixel if pixel is not None and pixel > 0 else None,
        (exposure := _number(_EXPOSURE, text)) and (exposure if exposure > 0 else None),
    )


def _number(pattern: "re.Pattern[str]", text: str) -> float | None:
    found = pattern.search(text)
    return None if found is None else float(found[1])
