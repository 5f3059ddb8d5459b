"""What the files that this package exports say of themselves, read again."""

from typing import Any

from nntomo_dask.formats import quantities
from nntomo_dask.formats.images import FirstLine, Said
from nntomo_dask.untrusted import MOST_ANGLES, parsed_object

MARK = "nntomo_dask_export"
_PLACE = "nntomo_dask's description in the file"


def said_of(about: Any, shape: tuple[int, int, int]) -> tuple[Said, FirstLine] | None:
    """What an export says of its axes, and where its first line belongs; None where it is no such description.

    A series that was exported lies with its tilt axis along y but for the angle that is stated.
    """
    if isinstance(about, str | bytes):
        try:
            about = parsed_object(about)
        except ValueError:
            return None
    if not isinstance(about, dict) or about.get("written_by") != "nntomo_dask":
        return None
    is_series = about.get("kind") == "tilt series"
    found: dict[str, Any] = {"holds": "series" if is_series else "volume"}
    steps = about.get("step")
    if about.get("units") == "nm" and isinstance(steps, list) and len(steps) == 3:
        found["pixel_nm"] = quantities.positive(steps[2])
    angles = about.get("angles_deg")
    if is_series and isinstance(angles, list) and len(angles) == shape[0] <= MOST_ANGLES:
        values = [quantities.finite(angle) for angle in angles]
        if all(value is not None for value in values):
            found["angles_deg"] = tuple(value for value in values if value is not None)
    if is_series:
        found["tilt_axis_deg"] = quantities.finite(about.get("tilt_axis_deg", 0.0))
    for name in ("voltage_kv", "magnification"):
        found[name] = quantities.positive(about.get(name))
    if isinstance(about.get("detector"), str):
        found["detector"] = about["detector"]
    kept = {name: value for name, value in found.items() if value is not None}
    said = Said(**kept, places={name: _PLACE for name in kept if name != "holds"})
    return said, "top" if about.get("first_line") == "top" else "bottom"
