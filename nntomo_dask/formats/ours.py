"""What the files that this package exports say of themselves, read again."""

from dataclasses import replace
from typing import Any

from nntomo_dask.formats import quantities
from nntomo_dask.formats.images import Images, Said
from nntomo_dask.untrusted import MOST_ANGLES, parsed_object

MARK = "nntomo_dask_export"
_PLACE = "nntomo_dask's description in the file"


def apply(images: Images, about: Any) -> None:
    """Put what an export says into images; nothing where it is no such description, or none of these images.

    A series that was exported lies with its tilt axis along y but for the angle that is stated.
    """
    if isinstance(about, str | bytes):
        try:
            about = parsed_object(about)
        except ValueError:
            return
    if not isinstance(about, dict) or about.get("written_by") != "nntomo_dask":
        return
    steps, firsts = (_three(about.get(name)) for name in ("step", "first"))
    is_series = about.get("kind") == "tilt series"
    if steps is None or firsts is None or min(steps[0 if not is_series else 1 :]) <= 0:
        return
    pixel = steps[2] if about.get("units") == "nm" else None
    angles = _angles(about.get("angles_deg"), images.shape[0]) if is_series else None
    if is_series and angles is None:
        return
    detector = about.get("detector")
    said = Said(
        angles_deg=angles,
        tilt_axis_deg=quantities.finite(about.get("tilt_axis_deg", 0.0)) if is_series else None,
        pixel_nm=pixel,
        voltage_kv=quantities.positive(about.get("voltage_kv")),
        magnification=quantities.positive(about.get("magnification")),
        detector=detector if isinstance(detector, str) else None,
        holds="series" if is_series else "volume",
    )
    found = [name for name, value in vars(said).items() if value is not None and name not in ("holds", "places")]
    images.said = replace(said, places=dict.fromkeys(found, _PLACE))
    images.first_line = "bottom" if about.get("first_line") == "bottom" else "top"
    images.zero = (-firsts[1] / steps[1], -firsts[2] / steps[2])
    images.line_step = steps[1] / steps[2]
    if not is_series:
        images.slice_step, images.slice_zero = steps[0] / steps[2], -firsts[0] / steps[0]


def _three(value: Any) -> list[float] | None:
    if not isinstance(value, list) or len(value) != 3:
        return None
    numbers = [number for one in value if (number := quantities.finite(one)) is not None]
    return numbers if len(numbers) == 3 else None


def _angles(value: Any, count: int) -> tuple[float, ...] | None:
    if not isinstance(value, list) or len(value) != count or count > MOST_ANGLES:
        return None
    angles = [angle for one in value if (angle := quantities.finite(one)) is not None]
    return tuple(angles) if len(angles) == count else None
