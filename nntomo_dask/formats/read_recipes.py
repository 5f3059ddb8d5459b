"""Recipes of what is read from images."""

from typing import Any

import numpy.typing as npt

from nntomo_dask.arrays import recipes
from nntomo_dask.formats.assembling import Arranged, Stacked, Window
from nntomo_dask.formats.mrc_images import MrcImages


def of_series(arranged: Arranged, angles_deg: npt.NDArray[Any], byte_kind: Any) -> recipes.Recipe:
    """How a series was read: as `read_mrc_series` has it where that function reads the same."""
    images, placed = arranged.images, arranged.orientation
    in_order = [group[0] for group in arranged.groups]
    is_plain = (
        isinstance(images, MrcImages)
        and images.dtype.itemsize * images.shape[2] == images.line_bytes
        and arranged.window.is_whole(images)
        and all(len(group) == 1 for group in arranged.groups)
        and in_order == sorted(in_order)
        and byte_kind is None
        and arranged.bright is None
    )
    turned = {(False, False, False): "y", (True, False, False): "x"}.get(
        (placed.transposed, placed.reversed_along, placed.reversed_across)
    )
    if is_plain and turned is not None:
        parameters: dict[str, Any] = {"tilt_axis": turned, "angles_deg": angles_deg}
        parameters |= {"background": arranged.background, "fill": arranged.fill}
        return recipes.record("read_mrc", images.sources[0].identity() | parameters)
    parameters = {
        "sources": [source.identity() for source in images.sources],
        "images": [list(group) for group in arranged.groups],
        "together": "mean" if arranged.means else "sum",
        "angles_deg": angles_deg,
        "turned": [placed.transposed, placed.reversed_along, placed.reversed_across],
        "window": _window(arranged.window),
        "background": arranged.background,
        "fill": arranged.fill,
        "dtype": str(images.dtype),
    }
    if arranged.bright is not None:
        parameters["bright"] = arranged.bright
    return recipes.record("read", parameters)


def of_volume(stacked: Stacked) -> recipes.Recipe:
    """How a volume was read."""
    images = stacked.images
    parameters = {
        "sources": [source.identity() for source in images.sources],
        "window": _window(stacked.window),
        "background": stacked.background,
        "fill": stacked.fill,
        "first_line": images.first_line,
        "dtype": str(images.dtype),
    }
    return recipes.record("read_volume", parameters)


def _window(window: Window) -> dict[str, Any]:
    return {
        "lines": [window.lines.start, window.lines.stop],
        "columns": [window.columns.start, window.columns.stop],
        "bin": window.bin,
    }
