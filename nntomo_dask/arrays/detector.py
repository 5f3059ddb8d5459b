"""The detector: where the tilt axis lies on it, and projections that go on beyond its ends."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import grid, recipes, schema, slabs
from nntomo_dask.errors import refuse

Pad = int | Literal["auto"]

_FARTHEST = 10  # detectors that the tilt axis may lie away from one
# Of the padding: at most so many detectors on either side; which part of a detector has the mean that stands beyond its
# end; and the share of the brightest pixels above which that is matter.
_WIDEST, _NEAR, _LEAST_END = 4, 64, 0.05


def with_axis_position(series: xr.DataArray, axis_position: float) -> xr.DataArray:
    """The series with its tilt axis at another place of the detector: only its coordinate changes.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32.
    axis_position
        In pixels from the middle of the first detector pixel; (count - 1) / 2 is the middle. It may
        lie beyond the detector. Volumes keep the field of view, and y and x are zero at the axis.

    Raises
    ------
    SchemaError
        `series` is no tilt series, or the position is not finite, or more than ten detectors away.
    """
    schema.check_tilt_series(series, who="with_axis_position")
    count = series.sizes[schema.DETECTOR]
    if not (np.isfinite(axis_position) and abs(axis_position) <= _FARTHEST * count):
        refuse(
            "with_axis_position",
            needs=f"a position in pixels of the detector, which has {count}",
            got=f"{axis_position}",
            remedy=f"`axis_position={(count - 1) / 2:g}`, the middle",
        )
    step = grid.spacing(series[schema.DETECTOR].values, float(series.attrs["pixel_size"]))
    detector = (np.arange(count) - float(axis_position)) * step
    return slabs.label(
        slabs.lazy(series).data,
        dims=schema.SERIES_DIMS,
        coords=schema.series_coords(series[schema.Z], series[schema.ANGLE], detector),
        attrs={key: value for key, value in series.attrs.items() if key != "recipe"},
        recipe=recipes.record("with_axis_position", {"axis_position": float(axis_position)}, [series]),
        name=str(series.name or "tilt_series"),
    )


def padding(pad: Pad, series: xr.DataArray, *, who: str) -> int:
    """Pixels by which projections are extended at either end of the detector.

    Raises
    ------
    SchemaError
        `pad` is neither "auto" nor a number from 0 to four times the detector.
    """
    count = series.sizes[schema.DETECTOR]
    if pad == "auto":
        return count // 2
    if isinstance(pad, int | np.integer) and not isinstance(pad, bool) and 0 <= pad <= _WIDEST * count:
        return int(pad)
    refuse(
        who,
        needs=f'a padding of 0 to {_WIDEST * count} pixels, or "auto"',
        got=f"{pad!r}",
        remedy='`pad="auto"`, half of the detector on either side',
    )


def extended(series: xr.DataArray, pixels: int) -> xr.DataArray:
    """The series with its projections extended at both ends of the detector by `extended_rows`; itself for 0. Lazy."""
    if pixels == 0:
        return series
    detector = series[schema.DETECTOR].values
    step = grid.spacing(detector, float(series.attrs["pixel_size"]))
    places = detector[0] + (np.arange(detector.size + 2 * pixels) - pixels) * step
    return slabs.map_slabs(
        extended_rows,
        series,
        dims=schema.SERIES_DIMS,
        coords=schema.series_coords(series[schema.Z], series[schema.ANGLE], places),
        recipe=recipes.record("extended", {"pixels": pixels}, [series]),
        name="tilt_series",
        pixels=pixels,
    )


def extended_rows(rows: npt.NDArray[np.float32], *, pixels: int) -> npt.NDArray[np.float32]:
    """Rows (slice, angle, detector) that go on beyond both ends for so many pixels, and fall to zero there.

    Beyond an end stands the mean of the last 64th of the detector times ``cos²(π/2 · d / (pixels + 1))``, d pixels from
    the last one. Where a projection ends at zero, it goes on with zeros.
    """
    count = rows.shape[-1]
    near = max(count // _NEAR, 1)
    fall = np.cos(np.pi / 2 * np.arange(1, pixels + 1) / (pixels + 1)).astype(np.float32) ** 2
    first, last = (part.mean(axis=-1, keepdims=True) for part in (rows[..., :near], rows[..., -near:]))
    return np.concatenate([first * fall[::-1], rows, last * fall], axis=-1, dtype=np.float32)


def reaches_the_ends(rows: npt.NDArray[np.float32]) -> bool:
    """Whether matter goes on beyond the detector: the ends have a twentieth of what the brightest pixels have."""
    near = max(rows.shape[-1] // _NEAR, 1)
    ends = max(float(np.abs(part.mean(axis=(0, 2))).max()) for part in (rows[..., :near], rows[..., -near:]))
    return ends > _LEAST_END * float(np.quantile(np.abs(rows), 0.99))
