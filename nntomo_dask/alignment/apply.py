"""An alignment applied to a raw series: one interpolation of each projection, lazily, a slab of slices at a time."""

import math
from collections.abc import Hashable
from dataclasses import replace
from typing import Any, Literal, get_args

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import delayed

from nntomo_dask.alignment.table import COLUMNS, Alignment
from nntomo_dask.arrays import finite, grid, recipes, schema, slabs
from nntomo_dask.compute import chunking, configuration, device
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import bands
from nntomo_dask.types import Float32, Float64, Integers

Fill = float | Literal["edge"]
Crop = tuple[int, int] | Literal["none", "seen"]
Angles = Literal["corrected", "nominal"]
_WHO = "apply_alignment"
_TO_BE_TURNED = "tilt_axis_deg"  # attribute of a raw series: what its images are still to be rotated by


@configuration.ours()
def apply_alignment(
    series: xr.DataArray,
    alignment: Alignment,
    *,
    fill: Fill = "edge",
    crop: Crop = "none",
    angles: Angles = "corrected",
    scale: float | None = None,
) -> xr.DataArray:
    """Shift and turn the projections of a raw series by an alignment, in one interpolation.

    Values are those of cubic B-splines through the raw pixels. Projections that the alignment flags are left out. The
    result has its tilt axis in the middle of the detector. Lazy, and larger than memory: a slab is computed from a band
    of the raw slices, as wide as shifts and rotations need. The values do not depend on the chunks.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32: the series that was aligned, or another channel of the same specimen with
        the same tilt angles, such as the iDPC of a HAADF series, or a map of an element. It may hold fewer projections
        than the alignment.
    alignment
        Rows are found by the nominal tilt angles.
    fill
        Value where nothing was measured, beyond the edges of a raw image; 0 suits images of which the background was
        subtracted. "edge": that of the nearest pixel, so that there is no step.
    crop
        "none": the size of the raw images. "seen": to the largest part, about the middle, that all projections show.
        Or sizes (z, detector), about the middle.
    angles
        "corrected": with the corrections of the alignment. "nominal": as the series has them.
    scale
        How many pixels of this series one of the alignment's is: 0.5 where the alignment was found on pixels half as
        large. By default it follows from the pixel sizes of both, where they are known in one unit of length, and is 1
        otherwise.

    Returns
    -------
    Dims (z, angle, detector), float32; coordinates of the detector from the tilt axis.

    Raises
    ------
    SchemaError
        The series is none, or has a projection of which the alignment says nothing; a projection is shifted out of its
        image; pixels are not square where images are turned; fewer than 2 projections are left; no part is seen by all
        projections; or `crop` is larger than the images, or leaves unlike margins. When it is computed: a value is NaN
        or infinite.
    """
    rows = rows_for(series, alignment, scale=scale)
    _check_choices(fill, crop, angles)
    kept = rows.kept
    wanted = rows.corrected_deg[kept] if angles == "corrected" else rows.angles_deg[kept]
    schema.check_angles(wanted, who=_WHO)
    lines, columns = series.sizes[schema.Z], series.sizes[schema.DETECTOR]
    size = _size(rows, (lines, columns), crop)
    starts = (lines - size[0]) // 2, (columns - size[1]) // 2
    names = ("angles_deg", *COLUMNS, "flagged", "axis_px", "pixel_size", "units")
    parameters = {name: getattr(rows, name) for name in names}
    chosen = {"fill": fill, "crop": list(crop) if isinstance(crop, tuple) else crop, "angles": angles}
    step = grid.spacing(series[schema.DETECTOR].values, float(series.attrs["pixel_size"]))
    coords: dict[Hashable, Any] = {
        **schema.series_coords(
            series[schema.Z].values[starts[0] : starts[0] + size[0]], wanted, schema.centred(size[1]) * step
        ),
        **{
            name: (schema.ANGLE, one.values[kept])
            for name, one in series.coords.items()
            if one.dims == (schema.ANGLE,) and name != schema.ANGLE
        },
    }
    attrs = {key: value for key, value in series.attrs.items() if key != "recipe"}
    if _TO_BE_TURNED in attrs:
        attrs[_TO_BE_TURNED] = 0.0
    return slabs.label(
        _slabs(slabs.lazy(series).data, rows, size, None if fill == "edge" else float(fill)),
        dims=schema.SERIES_DIMS,
        coords=coords,
        attrs=attrs,
        recipe=recipes.record("apply_alignment", {**parameters, **chosen}, [series]),
        name="tilt_series",
    )


def rows_for(series: xr.DataArray, alignment: Alignment, *, scale: float | None = None) -> Alignment:
    """The rows of an alignment for the projections of a series, in its order and pixels; checked.

    `scale` and errors are those of `apply_alignment`.
    """
    schema.check_tilt_series(series, who=_WHO)
    schema.check_even_z(series, who=_WHO)
    if not isinstance(alignment, Alignment):
        refuse(_WHO, needs="an alignment", got=type(alignment).__name__, remedy="read_alignment(path)")
    pixel = schema.pixel_size_of(series)
    if scale is None:
        known = alignment.pixel_size is not None and alignment.units == series.attrs["units"] != "px"
        scale = float(alignment.pixel_size or 1) / pixel if known else 1.0
        if abs(scale - 1) < 1e-3:  # headers round pixel sizes
            scale = 1.0
    rows = alignment.of(series[schema.ANGLE].values, who=_WHO)
    rows = replace(rows if scale == 1 else rows.scaled(scale), pixel_size=pixel, units=str(series.attrs["units"]))
    if rows.kept.size < 2:
        got = f"{rows.kept.size} of {rows.angles_deg.size} that are not flagged"
        refuse(_WHO, needs="2 projections or more", got=got, remedy="change `flagged` of the alignment")
    _check_overlap(rows, series.sizes[schema.Z], series.sizes[schema.DETECTOR])
    step_z = abs(grid.spacing(series[schema.Z].values, pixel))
    if not grid.is_same_length(step_z, pixel) and rows.rotation_deg[rows.kept].any():
        got = f"{step_z:g} along and {pixel:g} across the tilt axis"
        refuse(_WHO, needs="square pixels, to turn images", got=got, remedy="bin both alike, or set the rotations to 0")
    return rows


def host_bytes(series: xr.DataArray, rows: Alignment) -> chunking.HostBytes:
    """Bytes of a slab of the result, by its shape (slices, angles, detector), at the peak of `apply_alignment`.

    Parameters
    ----------
    series
        The raw series, whose chunks are read whole.
    rows
        From `rows_for`.
    """
    lines, detector = series.sizes[schema.Z], series.sizes[schema.DETECTOR]
    line, kept = (chunking.rows_bytes(count, detector) for count in (series.sizes[schema.ANGLE], rows.kept.size))
    chunk = max(schema.chunks_of(slabs.lazy(series), schema.Z))

    def of(shape: chunking.SlabShape) -> int:
        slices, _, columns = shape
        band = _band(rows, slices, (lines, detector))
        read = min(
            -(-band // chunk) * chunk + 2 * chunk, lines + chunk
        )  # those of a band, and one while it is unpacked
        return (
            (read + band) * line
            + band * kept
            + slices * (kept + (chunking.WRITTEN - 1) * chunking.rows_bytes(rows.kept.size, columns))
            + 3 * 4 * band * detector  # an image and its coefficients
        )

    return of


def _check_choices(fill: Any, crop: Any, angles: Any) -> None:
    if not (fill == "edge" or (isinstance(fill, int | float) and not isinstance(fill, bool) and math.isfinite(fill))):
        refuse(_WHO, needs='`fill`: "edge", or a finite number', got=f"{fill!r}", remedy='`fill="edge"`')
    are_sizes = isinstance(crop, tuple) and len(crop) == 2 and all(isinstance(one, int) and one > 0 for one in crop)
    if not are_sizes and crop not in ("none", "seen"):
        needs = '`crop`: "none", "seen", or the sizes (z, detector)'
        refuse(_WHO, needs=needs, got=f"{crop!r}", remedy='`crop="none"`')
    if angles not in get_args(Angles):
        refuse(_WHO, needs='"corrected" or "nominal"', got=f"{angles!r}", remedy='`angles="corrected"`')


def _check_overlap(rows: Alignment, lines: int, columns: int) -> None:
    """Raise a SchemaError where a projection that is kept would show nothing of its image."""
    displaced = np.abs(rows.displacement_px)
    outside = (displaced[:, 0] >= max(lines, 2)) | (displaced[:, 1] >= max(columns, 2))
    bad = np.flatnonzero(outside & ~rows.flagged)
    if bad.size:
        along, across = rows.displacement_px[bad[0]]
        refuse(
            _WHO,
            needs=f"shifts within the images, {lines} × {columns} pixels",
            got=f"{along:.4g} along and {across:.4g} across, with the axis, at {rows.angles_deg[bad[0]]:g}°",
            remedy="flag that projection, or give the `scale` of the alignment's pixels",
        )


def check_crop(series: xr.DataArray, crop: Crop) -> None:
    """Raise a SchemaError where a crop does not fit a series, before an alignment for it is looked for."""
    _check_choices("edge", crop, "corrected")
    _check_sizes((series.sizes[schema.Z], series.sizes[schema.DETECTOR]), crop)


def _size(rows: Alignment, whole: tuple[int, int], crop: Crop) -> tuple[int, int]:
    """Slices and detector pixels of the result."""
    if crop == "none":
        return whole
    if crop == "seen":
        return seen(rows, whole)
    assert isinstance(crop, tuple)
    _check_sizes(whole, crop)
    return crop


def _check_sizes(whole: tuple[int, int], crop: Crop) -> None:
    if not isinstance(crop, tuple):
        return
    for one, all_of_it, dim in zip(crop, whole, (schema.Z, schema.DETECTOR), strict=True):
        if one > all_of_it or (all_of_it - one) % 2:
            needs = f"a crop of {dim} to at most {all_of_it} pixels, with as many left out at both ends"
            nearest = tuple(
                min(size, most) - (most - min(size, most)) % 2 or most for size, most in zip(crop, whole, strict=True)
            )
            refuse(_WHO, needs=needs, got=f"{one}", remedy=f"`crop=({nearest[0]}, {nearest[1]})`")


def seen(rows: Alignment, whole: tuple[int, int]) -> tuple[int, int]:
    """Sizes (z, detector) of the largest part, about the middle, that all projections that are kept show.

    A rectangle lies within a turned image where its corners do: at each width, the height follows from the corners.
    """
    lines, columns = whole
    widths = np.arange(columns, 0, -2)
    turns = np.deg2rad(rows.rotation_deg[rows.kept])[:, None]
    cos, sin = np.cos(turns), np.sin(turns)
    along, across = (one[:, None] for one in rows.displacement_px[rows.kept].T)
    reach = np.full(widths.size, (lines - 1) / 2)
    for side in (-1, 1):
        place = side * (widths - 1) / 2 + across
        for slope, offset, half in (
            (cos, along * cos - place * sin, lines / 2),
            (sin, along * sin + place * cos, columns / 2),
        ):
            # |slope · a + offset| ≤ half for all a within ±reach.
            slopes = np.broadcast_to(np.abs(slope), offset.shape)
            with np.errstate(divide="ignore", invalid="ignore"):
                most = np.where(slopes > 1e-12, (half - np.abs(offset)) / slopes, np.inf)
            most = np.where(np.abs(offset) <= half, most, -1.0)
            reach = np.minimum(reach, most.min(axis=0))
    left_out = np.ceil((lines - 1) / 2 - reach - 1e-9)
    heights = np.where(reach >= 0, lines - 2 * left_out, 0)
    heights = np.where(heights > 0, heights, 0)
    best = int(np.argmax(heights * widths))
    if heights[best] < 1:
        needs = "a part of the images that all projections show"
        refuse(_WHO, needs=needs, got="none", remedy='flag the projections that are shifted most, or `crop="none"`')
    return int(heights[best]), int(widths[best])


def _band(rows: Alignment, height: int, whole: tuple[int, int]) -> int:
    """How many raw slices a slab of this height needs at most, wherever it lies."""
    last = max(whole[0] - height, 0)
    shifts, turns = rows.displacement_px[rows.kept], rows.rotation_deg[rows.kept]
    return max(
        len(bands.lines_needed((first, first + height), whole, shifts, turns))
        for first in (*range(0, last, max(height, 1)), last)
    )


def _slabs(data: da.Array, rows: Alignment, size: tuple[int, int], fill: float | None) -> da.Array:
    """The aligned series, a task for each slab, which reads what it needs and no other slab."""
    lines, _, columns = data.shape
    kept = rows.kept
    shifts, turns = rows.displacement_px[kept], rows.rotation_deg[kept]
    start, first_column = (lines - size[0]) // 2, (columns - size[1]) // 2
    highest = chunking.slab_slices((size[0], kept.size, size[1]))
    heights = data.chunks[0]
    if size[0] < lines or max(heights) > highest:
        heights = chunking.slab_chunks(size[0], min(max(heights), highest))
    blocks, first = [], start
    for height in heights:
        needed = bands.lines_needed((first, first + height), (lines, columns), shifts, turns)
        block = delayed(_slab)(
            data[needed.start : needed.stop],
            needed.start,
            lines,
            (first, first + height),
            kept,
            shifts,
            turns,
            fill,
            (first_column, first_column + size[1]),
        )
        blocks.append(da.from_delayed(block, (height, kept.size, size[1]), np.float32))
        first += height
    joined: da.Array = da.concatenate(blocks)
    return joined


def _slab(
    band: Any,
    first: int,
    lines: int,
    rows: tuple[int, int],
    kept: Integers,
    shifts: Float64,
    turns: Float64,
    fill: float | None,
    columns: tuple[int, int],
) -> Float32:
    host: npt.NDArray[Any] = device.to_host(band)
    if kept.size < host.shape[1]:
        host = host[:, kept]
    finite.check_slab(host, who=_WHO, dims=schema.SERIES_DIMS, first=first)
    values = bands.warped(host, first, lines, rows, shifts, turns, fill)
    if columns[1] - columns[0] < values.shape[2]:
        values = np.ascontiguousarray(values[:, :, columns[0] : columns[1]])
    return values


def of_recipe(recipe: recipes.Recipe) -> tuple[Alignment, dict[str, Any]]:
    """The alignment in the recipe of `apply_alignment`, and the choices with which it was applied.

    Raises
    ------
    SchemaError
        The recipe is damaged.
    """
    parameters = recipe["parameters"]
    try:
        columns = {name: parameters[name] for name in ("angles_deg", *COLUMNS, "axis_px", "pixel_size", "units")}
        alignment = Alignment(**columns, flagged=np.array(parameters["flagged"], bool))
        crop = parameters["crop"]
        chosen = {"fill": parameters["fill"], "crop": tuple(crop) if isinstance(crop, list) else crop}
        return alignment, {**chosen, "angles": parameters["angles"]}
    except (KeyError, TypeError, ValueError) as error:
        refuse(_WHO, needs="the recipe of an aligned series", got=f"a damaged one ({error})", remedy="a table")
