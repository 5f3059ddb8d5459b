"""What a reader found in a file and where, in lines."""

from typing import Any

_TITLES = {
    "warning": "warning",
    "files": "files",
    "pixels": "pixels",
    "angles": "tilt angles",
    "tilt_axis": "tilt axis",
    "pixel_size": "pixel size",
    "background": "background",
    "order": "order of acquisition",
    "notes": "note",
}
_LONGEST = 2000  # characters


def lines(found: Any) -> list[str]:
    """A line for each entry of ``attrs["found"]``, whatever a store says it is."""
    if not isinstance(found, dict):
        return []
    known = [(title, found.get(key)) for key, title in _TITLES.items()]
    return [f"{title}: {text[:_LONGEST]}" for title, text in known if isinstance(text, str)]
