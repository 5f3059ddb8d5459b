"""MRC files that are aligned stacks or volumes, as lazy arrays."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import recipes, schema, slabs
from nntomo_dask.compute import chunking, configuration
from nntomo_dask.errors import refuse
from nntomo_dask.formats import mrc_bytes, mrc_grid, mrc_header
from nntomo_dask.formats.format import TiltAxis
from nntomo_dask.formats.mrc_header import Header
from nntomo_dask.formats.source import Source
from nntomo_dask.types import Float32

MrcPath = str | os.PathLike[str]

# Axes of an MRC stack (tilt, y, x) that become ours (z, angle, detector).
_SERIES_AXES: dict[TiltAxis, tuple[int, int, int]] = {"x": (2, 0, 1), "y": (1, 0, 2)}


def read_mrc_series(
    path: MrcPath,
    angles_deg: npt.ArrayLike,
    *,
    tilt_axis: TiltAxis = "y",
    keep_deg: npt.ArrayLike | None = None,
    background: float = 0.0,
    fill: float | None = None,
) -> xr.DataArray:
    """Read an aligned tilt series from an MRC stack (tilt, y, x).

    Lazy: the file is read slab by slab when the series is saved.

    Parameters
    ----------
    path
        An MRC2014 file of any real mode.
    angles_deg
        One for each projection, in degrees.
    tilt_axis
        Image axis along which the specimen was tilted: "y" as in IMOD, or "x".
    keep_deg
        Keep only the projections nearest to these angles.
    background
        Counts where there is no specimen, [counts]; subtracted.
    fill
        Replaces values that are not finite, after the background is subtracted; without it they stay.

    Returns
    -------
    Dims (z, angle, detector), float32; in nm where the file says how large a pixel is, else in px.

    Raises
    ------
    SchemaError
        No file, no MRC, a truncated or complex one, no stack; pixels that are not square; or angles that do not fit it.
    """
    header, source = _stored(path, "read_mrc_series")
    mrc_grid.check_square(header, path, who="read_mrc_series")
    shape, pixel_size, units = header.shape, *mrc_grid.pixel_size(header)
    places = [mrc_grid.positions(header, axis, pixel_size) for axis in range(3)] if len(shape) == 3 else []
    if len(shape) != 3 or shape[0] < 2:
        refuse(
            "read_mrc_series",
            needs="a stack of at least 2 projections",
            got=f"{'an image' if len(shape) == 2 else 'data'} of shape {shape} in {path}",
            remedy="save one of the stacks to a file of its own"
            if len(shape) > 3
            else "join the projections into one stack",
        )
    if tilt_axis not in _SERIES_AXES:
        refuse("read_mrc_series", needs='tilt_axis "x" or "y"', got=f"{tilt_axis!r}", remedy='`tilt_axis="y"`')
    angles = schema.check_angles(angles_deg, who="read_mrc_series", count=shape[0])
    kept = np.arange(angles.size) if keep_deg is None else _nearest(angles, np.asarray(keep_deg, np.float64))
    if kept.size < 2:
        refuse(
            "read_mrc_series",
            needs="at least 2 projections near the angles to keep",
            got=f"one, at {angles[kept][0]:g}°",
            remedy="other `keep_deg`, or leave it out to keep all",
            command="a wider --keep START:STOP:STEP, or leave it out to keep all",
        )
    angles = schema.check_angles(angles[kept], who="read_mrc_series")
    axes = _SERIES_AXES[tilt_axis]
    n_z, _, n_detectors = (shape[axis] for axis in axes)
    coords = schema.series_coords(places[axes[0]], angles, places[axes[2]])
    parameters = {"tilt_axis": tilt_axis, "angles_deg": angles, "background": background, "fill": fill}
    return _lazy(
        source, axes, parameters, dims=schema.SERIES_DIMS, coords=coords, units=units, name="tilt_series",
        shape=(n_z, angles.size, n_detectors), pixel_size=pixel_size, projections=kept, background=background,
        fill=fill,
    )  # fmt: skip


def read_mrc_volume(path: MrcPath) -> xr.DataArray:
    """Read a volume from an MRC file (z, y, x). Lazy.

    Returns
    -------
    Dims (z, y, x), float32; in nm where the file says how large a voxel is, else in px. Slices that are further apart,
    or closer, than pixels are wide keep their own distance, and a warning says so.

    Raises
    ------
    SchemaError
        No file, no MRC, a truncated or complex one; or slices or pixels that are not square.
    """
    header, source = _stored(path, "read_mrc_volume")
    mrc_grid.check_square(header, path, who="read_mrc_volume")
    mrc_grid.warn_of_slices(header, path)
    shape, pixel_size, units = header.shape, *mrc_grid.pixel_size(header)
    places = [mrc_grid.positions(header, axis, pixel_size) for axis in range(3)] if len(shape) == 3 else []
    if len(shape) != 3:
        remedy = "give a file of one volume, or the stack of a tilt series with its angles"
        refuse("read_mrc_volume", needs="three axes", got=f"shape {shape} in {path}", remedy=remedy)
    descends = mrc_grid.is_from_the_viewer(header)
    coords = dict(zip(schema.VOLUME_DIMS, places, strict=True))
    volume = _lazy(
        source, (0, 1, 2), {}, dims=schema.VOLUME_DIMS, coords=coords, units=units, name="volume",
        shape=shape, pixel_size=pixel_size, projections=None, background=0.0, fill=None, descends=descends,
    )  # fmt: skip
    schema.check_volume(volume, who="read_mrc_volume", slices="any")
    return volume


def _nearest(angles_deg: npt.NDArray[np.float64], wanted_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Indices of the angles nearest to some, in the order of the file, none twice."""
    return np.unique(np.abs(angles_deg[:, None] - wanted_deg).argmin(axis=0))


class Stored(NamedTuple):
    """The array that lies in a file: where, of which type, and how large."""

    source: Source
    dtype: str
    offset: int
    shape: tuple[int, int, int]


def header_of(path: MrcPath, who: str) -> Header:
    """The header of an MRC file of real values, or a SchemaError that says what is wrong with it."""
    source = Path(path)
    if not source.is_file():
        refuse(who, needs="an MRC file", got=f"nothing at {source}", remedy="check the path")
    try:
        header = mrc_header.read(source)
    except mrc_header.SizeError as error:
        remedy = "copy the file again, or save it as MRC again by the program that made it"
        refuse(who, needs="a whole MRC2014 file", got=f"{source} ({error})", remedy=remedy)
    except mrc_header.HeaderError as error:
        remedy = "check the path, or save the file as MRC again by the program that made it"
        refuse(who, needs="an MRC2014 file", got=f"{source} ({error})", remedy=remedy)
    if header.is_complex:
        refuse(who, needs="real values", got=f"complex ones in {source}", remedy="save the magnitude instead")
    return header


def _stored(path: MrcPath, who: str) -> tuple[Header, Stored]:
    header = header_of(path, who)
    if header.mode == mrc_header.HALF_BYTES:
        refuse(who, needs="pixels of whole bytes", got=f"4-bit ones in {path}", remedy="nntomo_dask.read(path)")
    source = Source.of(path)
    return header, Stored(source, mrc_bytes.dtype_of(Path(path), header), header.offset, header.shape)  # type: ignore[arg-type]


@configuration.ours()
def _lazy(
    stored: Stored,
    axes: tuple[int, int, int],
    parameters: dict[str, Any],
    *,
    dims: tuple[str, ...],
    coords: Any,
    units: schema.Units,
    name: str,
    shape: tuple[int, ...],
    pixel_size: float,
    projections: npt.NDArray[np.intp] | None,
    background: float,
    fill: float | None,
    descends: bool = False,
) -> xr.DataArray:
    chunks = chunking.slab_chunks(shape[0], chunking.slab_slices(shape))
    data = da.arange(shape[0], chunks=(chunks,)).map_blocks(
        _read_slab,
        dtype=np.float32,
        new_axis=[1, 2],
        chunks=(chunks, *((size,) for size in shape[1:])),
        meta=np.empty((0,) * 3, np.float32),
        stored=stored,
        axes=axes,
        projections=projections,
        background=background,
        fill=fill,
        descends=descends,
    )
    return slabs.label(
        data,
        dims=dims,
        coords=coords,
        attrs={"units": units, "pixel_size": pixel_size},
        recipe=recipes.record("read_mrc", stored.source.identity() | parameters),
        name=name,
    )


def _read_slab(
    z_indices: npt.NDArray[np.int64],
    *,
    stored: Stored,
    axes: tuple[int, int, int],
    projections: npt.NDArray[np.intp] | None,
    background: float,
    fill: float | None,
    descends: bool,
) -> Float32:
    rows = slice(int(z_indices[0]), int(z_indices[-1]) + 1)
    slab = stored.source.slab(stored.dtype, stored.offset, stored.shape, axes, rows, projections)
    values = (slab[:, ::-1] if descends else slab) - np.float32(background)
    return values if fill is None else np.where(np.isfinite(values), values, np.float32(fill))
