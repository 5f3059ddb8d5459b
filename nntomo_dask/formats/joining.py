"""Several files of images as one series."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nntomo_dask.errors import refuse
from nntomo_dask.formats.images import Images, Said

_EACH = ("angles_deg", "exposure_s", "dose_e_per_a2")
_ALL = ("tilt_axis_deg", "pixel_nm", "voltage_kv", "magnification", "detector", "holds")
_ROUNDED = 0.01  # what files say of one thing may differ by this share


class Joined(Images):
    """The images of several files, one file after the other.

    Attributes
    ----------
    counts
        Images of each file.

    Raises
    ------
    SchemaError
        The images are of several sizes, or pixels of several sizes, axes or voltages.
    """

    def __init__(self, parts: Sequence[Images]) -> None:
        first = parts[0]
        for part in parts[1:]:
            if part.shape[1:] != first.shape[1:] or part.first_line != first.first_line:
                got = " and ".join(f"{_name(one)} of {one.shape[2]} x {one.shape[1]} pixels" for one in (first, part))
                refuse("import", needs="images of one size", got=got, remedy="give the files of one series")
        self.parts = list(parts)
        self.counts = [part.shape[0] for part in parts]
        self._firsts = np.cumsum([0, *self.counts])
        self.shape = (int(self._firsts[-1]), *first.shape[1:])
        self.dtype = np.result_type(*(part.dtype for part in parts))
        self.first_line = first.first_line
        self.reads = "images" if any(part.reads == "images" for part in parts) else "lines"
        self.sources = [source for part in parts for source in part.sources]
        self.zero, self.line_step = first.zero, first.line_step
        self.said = _said(self.parts)

    def read(self, image: int, lines: slice, columns: slice) -> npt.NDArray[Any]:
        """See `Images.read`."""
        part = int(np.searchsorted(self._firsts, image, side="right")) - 1
        return self.parts[part].read(image - int(self._firsts[part]), lines, columns).astype(self.dtype, copy=False)


def _name(images: Images) -> str:
    return Path(images.sources[0].path).name if images.sources else "a file"


def _said(parts: Sequence[Images]) -> Said:
    found: dict[str, Any] = {}
    places: dict[str, str] = {}
    for name in _EACH:
        each = [getattr(part.said, name) for part in parts]
        if all(values is not None for values in each):
            found[name] = tuple(value for values in each for value in values)
            places[name] = _place(parts, name)
    for name in _ALL:
        known = [part for part in parts if getattr(part.said, name) is not None]
        if not known:
            continue
        first = known[0]
        for part in known[1:]:
            if not _agree(getattr(first.said, name), getattr(part.said, name)):
                got = " and ".join(f"{_name(one)} with {getattr(one.said, name)}" for one in (first, part))
                refuse("import", needs=f"files of one series, with one {_WORDS[name]}", got=got, remedy="other files")
        found[name], places[name] = getattr(first.said, name), _place(known, name)
    times = [part.said.acquired for part in parts]
    if all(time is not None for time in times):
        flat = np.array([one for time in times for one in (time or ())])
        ranks = np.argsort(np.argsort(flat, kind="stable"), kind="stable")
        found["order"], places["order"] = tuple(map(int, ranks)), _place(parts, "acquired")
        found["acquired"] = tuple(map(float, flat))
    elif all(part.said.order is None for part in parts):
        pass
    return Said(**found, places=places)


_WORDS = {
    "tilt_axis_deg": "direction of the tilt axis",
    "pixel_nm": "pixel size",
    "voltage_kv": "voltage",
    "magnification": "magnification",
    "detector": "detector",
    "holds": "kind of content",
}


def _agree(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= _ROUNDED * max(abs(one), abs(other), 1e-12)
    return bool(one == other)


def _place(parts: Sequence[Images], name: str) -> str:
    places = list(dict.fromkeys(part.said.places.get(name, "") for part in parts))
    return places[0] if len(places) == 1 else f"{places[0]} and {len(places) - 1} more"
