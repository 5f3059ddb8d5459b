"""Volumes and tilt series: their dims, coordinates, units and dtype, and the checks of all public functions."""

from collections.abc import Hashable, Mapping
from typing import Any, Literal

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import angles as angles_room, grid, labels, order
from nntomo_dask.errors import refuse

Z, Y, X, ANGLE, DETECTOR = "z", "y", "x", "angle", "detector"
VOLUME_DIMS = (Z, Y, X)
SERIES_DIMS = (Z, ANGLE, DETECTOR)
_OTHER_DIMS: dict[tuple[str, ...], tuple[str, ...]] = {VOLUME_DIMS: SERIES_DIMS, SERIES_DIMS: VOLUME_DIMS}
Units = Literal["px", "nm"]
Slices = Literal["square", "any"]
# What to try on the command line where values are not finite.
FILLED = "import the file with --fill VALUE"
# Voxels are at the same place where their positions differ by less than this many pixels, and their sizes by less than
# this share: headers of files round pixel sizes. A length in pixels and one in nm are compared by their pixels alone.
_SAME_PLACE, _SAME_STEP = 0.1, 0.01


def centred(count: int, pixel_size: float = 1.0) -> npt.NDArray[np.float64]:
    """Positions of `count` pixels, with zero at the centre, in the unit of `pixel_size`."""
    return np.asarray((np.arange(count) - (count - 1) / 2) * pixel_size, np.float64)


def volume_coords(shape: tuple[int, ...], pixel_size: float) -> dict[Hashable, npt.NDArray[Any]]:
    """Coordinates (z, y, x) of a volume of that shape."""
    return {dim: centred(size, pixel_size) for dim, size in zip(VOLUME_DIMS, shape, strict=True)}


def series_coords(
    z: npt.ArrayLike, angles_deg: npt.ArrayLike, detector: npt.ArrayLike
) -> dict[Hashable, npt.NDArray[Any]]:
    """Coordinates (z, angle, detector) of a tilt series."""
    return {Z: np.asarray(z), ANGLE: np.asarray(angles_deg, np.float64), DETECTOR: np.asarray(detector)}


def volume(
    data: npt.ArrayLike | da.Array, *, pixel_size: float = 1.0, units: Units = "px", name: str = "volume"
) -> xr.DataArray:
    """Label an array as a volume.

    Parameters
    ----------
    data
        NumPy or Dask array (z, y, x), with y and x of the same size. It is converted to float32.
    pixel_size
        Edge length of a voxel, in `units`.

    Returns
    -------
    Dims (z, y, x), float32.

    Raises
    ------
    SchemaError
        The array does not have three dims, or its slices are not square.
    """
    labelled = _label("volume", data, VOLUME_DIMS, pixel_size, units, name)
    labelled = labels.with_labels(labelled.assign_coords(volume_coords(labelled.shape, pixel_size)))
    check_volume(labelled, who="volume")
    return labelled


def tilt_series(
    data: npt.ArrayLike | da.Array,
    angles_deg: npt.ArrayLike,
    *,
    pixel_size: float = 1.0,
    units: Units = "px",
    name: str = "tilt_series",
) -> xr.DataArray:
    """Label an array as a tilt series.

    Parameters
    ----------
    data
        NumPy or Dask array (z, angle, detector), with z along the tilt axis. It is converted to float32.
    angles_deg
        (angle,), signed tilt angles in degrees, in any order, each of them once.
    pixel_size
        Edge length of a detector pixel, in `units`.

    Returns
    -------
    Dims (z, angle, detector), float32.

    Raises
    ------
    SchemaError
        The array does not have three dims, its projections lie along another axis, the numbers of angles and
        projections differ, or `check_angles` refuses the angles.
    """
    labelled = _label("tilt_series", data, SERIES_DIMS, pixel_size, units, name)
    order.check_order(labelled.shape, angles_deg)
    angles = check_angles(angles_deg, who="tilt_series", count=labelled.sizes[ANGLE])
    coords = series_coords(
        centred(labelled.sizes[Z], pixel_size), angles, centred(labelled.sizes[DETECTOR], pixel_size)
    )
    labelled = labels.with_labels(labelled.assign_coords(coords))
    check_tilt_series(labelled, who="tilt_series")
    return labelled


def _label(
    who: str, data: npt.ArrayLike | da.Array, dims: tuple[str, ...], pixel_size: float, units: Units, name: str
) -> xr.DataArray:
    array = data if isinstance(data, da.Array) else np.asarray(data)
    if array.ndim != len(dims):
        refuse(who, needs=f"dims {dims}", got=f"an array of shape {array.shape}", remedy="add or remove an axis")
    if array.dtype.kind not in "buif":
        refuse(
            who, needs="real numbers", got=f"dtype {array.dtype}", remedy="take the real part or the magnitude first"
        )
    check_pixel_size(pixel_size, units, who=who)
    attrs = {"units": units, "pixel_size": float(pixel_size)}
    return xr.DataArray(array.astype(np.float32), dims=dims, attrs=attrs, name=name)


def check_pixel_size(pixel_size: float, units: str, *, who: str) -> None:
    """Raise a SchemaError unless a pixel size is a finite number above zero."""
    if not (np.isfinite(pixel_size) and pixel_size > 0):
        refuse(who, needs="a pixel size above zero", got=f"{pixel_size}", remedy=f"give `pixel_size` in {units}")


def check_angles(angles_deg: npt.ArrayLike, *, who: str, count: int | None = None) -> npt.NDArray[np.float64]:
    """Tilt angles as float64; a SchemaError unless they are `count` different numbers within ±180°, at least two."""
    try:
        angles = np.asarray(angles_deg, np.float64)
    except (TypeError, ValueError):
        is_path = isinstance(angles_deg, str)
        remedy = "read_tilt_angles(path)" if is_path else "give one number for each projection"
        refuse(who, needs="angles in degrees", got=f"{angles_deg!r}", remedy=remedy)
    if angles.ndim != 1 or not np.isfinite(angles).all():
        refuse(
            who, needs="a list of finite angles", got=f"{angles.tolist()}", remedy="give one number for each projection"
        )
    if count is not None and angles.size != count:
        refuse(
            who,
            needs=f"one angle per projection ({count})",
            got=f"{angles.size} angles",
            remedy="check that the angles belong to this series",
        )
    if angles.size < 2:
        refuse(
            who,
            needs="at least 2 projections",
            got=f"{angles.size}",
            remedy="record more; one projection has no depth information",
        )
    if np.abs(angles).max() > 180:
        worst = angles[np.abs(angles).argmax()]
        refuse(who, needs="angles from -180 to 180 degrees", got=f"{worst:g}", remedy="subtract 360 from it")
    values, counts = np.unique(angles, return_counts=True)
    if (counts > 1).any():
        repeated = ", ".join(f"{value:g}" for value in values[counts > 1])
        refuse(
            who,
            needs="every angle once",
            got=f"{repeated} more than once",
            remedy="average the projections of one angle, or keep one of them",
        )
    if angles_room.directions(angles)[0].size < 2:
        refuse(
            who,
            needs="at least 2 directions",
            got="one, seen from both sides",
            remedy="record projections at other angles",
        )
    return angles


def check_volume(array: xr.DataArray, *, who: str, slices: Slices = "square") -> None:
    """Raise a SchemaError unless `array` is a volume: dims, coordinates, units, dtype, chunks, square slices.

    Files and stores hold volumes with "any" slices: other programs reconstruct thin specimens into thin volumes.
    """
    _check(array, VOLUME_DIMS, "volume", who)
    if slices == "square" and array.sizes[Y] != array.sizes[X]:
        size = max(array.sizes[Y], array.sizes[X])
        refuse(
            who,
            needs="square slices (y and x of one size)",
            got=f"y={array.sizes[Y]}, x={array.sizes[X]}",
            remedy=f"pad both to {size} with volume.pad(…), or crop the larger one",
            command=f"pad both to {size}, or crop the larger one, in the program that made the volume",
        )
    steps = [abs(grid.spacing(array[dim].values, array.attrs["pixel_size"])) for dim in (Y, X)]
    if not grid.is_same_length(*steps):
        refuse(
            who,
            needs="square pixels (y and x with one step)",
            got=f"steps of {steps[0]:g} and {steps[1]:g}",
            remedy="bin y and x alike, array.coarsen(y=…, x=…).mean()",
        )


def check_tilt_series(array: xr.DataArray, *, who: str) -> None:
    """Raise a SchemaError unless `array` is a tilt series: dims, coordinates, units, dtype, chunks, angles."""
    _check(array, SERIES_DIMS, "tilt series", who)
    check_angles(array[ANGLE].values, who=who)


def _check(array: Any, dims: tuple[str, ...], kind: str, who: str) -> None:
    if isinstance(array, xr.Dataset) and array.data_vars:
        names = [str(name) for name in array]
        refuse(
            who,
            needs=f"one {kind}",
            got=f"a dataset of {', '.join(names)}",
            remedy=f'dataset["{names[0]}"]',
            command=f"STORE/{names[0]} in place of STORE",
        )
    if not isinstance(array, xr.DataArray):
        refuse(who, needs=f"a {kind} as xarray.DataArray", got=type(array).__name__, remedy=_maker(kind))
    if array.dims == _OTHER_DIMS[dims]:
        other = "volume" if kind == "tilt series" else "tilt series"
        refuse(who, needs=f"a {kind}", got=f"a {other}", remedy=f"give the {kind} instead")
    if array.dims != dims:
        refuse(who, needs=f"a {kind} with dims {dims}", got=f"dims {array.dims}", remedy=_dims_remedy(array.dims, dims))
    if array.dtype != np.float32:
        refuse(who, needs=f"a {kind} of float32", got=f"{array.dtype}", remedy='array.astype("float32")')
    empty = [dim for dim in dims if array.sizes[dim] == 0]
    if empty:
        refuse(
            who,
            needs=f"a {kind} that holds something",
            got=f'nothing along "{empty[0]}"',
            remedy="select a range that is not empty",
        )
    missing = [dim for dim in dims if dim not in array.coords]
    if missing:
        refuse(
            who,
            needs=f'a {kind} with a coordinate "{missing[0]}"',
            got="none",
            remedy=f"add it with array.assign_coords({missing[0]}=…), or label the data with {_maker(kind)}",
        )
    for attribute in ("units", "pixel_size"):
        if attribute not in array.attrs:
            refuse(
                who,
                needs=f'a {kind} with attrs["{attribute}"]',
                got="none",
                remedy=f"label the data with {_maker(kind)}",
            )
    size = array.attrs["pixel_size"]
    if not (isinstance(size, int | float | np.number) and np.isfinite(size) and size > 0):
        remedy = "array.assign_attrs(pixel_size=…)"
        refuse(who, needs=f"a {kind} with a pixel size above zero", got=f"{size!r}", remedy=remedy)
    for dim in dims:
        if dim != ANGLE:
            grid.check_positions(array[dim].values, dim=dim, kind=kind, who=who, even=dim != Z)
    _check_unit(array, dims[-1], kind, who)
    for dim in dims[1:]:
        chunks = chunks_of(array, dim)
        if len(chunks) > 1:
            refuse(
                who,
                needs=f'a {kind} with dim "{dim}" in one chunk',
                got=f"{len(chunks)} chunks",
                remedy=f"array.chunk({dim}=-1)",
            )


def _dims_remedy(there: tuple[Hashable, ...], dims: tuple[str, ...]) -> str:
    """What makes the dims of an array those of a volume or a series."""
    if set(there) == set(dims):
        return f"array.transpose({', '.join(map(repr, dims))})"
    lost = [dim for dim in dims if dim not in there]
    if len(there) < len(dims):
        return f"array.isel({lost[0]}=[0]), a selection by a list or a slice, which keeps the dim"
    return "array.rename(…), or a selection by numbers along the dims that are too many"


def _check_unit(array: xr.DataArray, dim: str, kind: str, who: str) -> None:
    """Raise a SchemaError where units and pixel size of an array were set, and its coordinates were not."""
    unit, units = array[dim].attrs.get("units"), array.attrs["units"]
    step = abs(grid.spacing(array[dim].values, float(array.attrs["pixel_size"])))
    if unit is not None and unit != units and not grid.is_same_length(step, float(array.attrs["pixel_size"])):
        refuse(
            who,
            needs=f'a {kind} with one unit in attrs["units"] and in its coordinate "{dim}"',
            got=f"pixels of {array.attrs['pixel_size']:g} {units}, {step:g} {unit} apart",
            remedy=f"set the coordinates too: {_maker(kind)} with pixel_size and units, or assign_coords({dim}=…)",
        )


def _maker(kind: str) -> str:
    """The call that labels data as a volume or as a tilt series."""
    return "nntomo_dask.volume(data)" if kind == "volume" else "nntomo_dask.tilt_series(data, angles_deg)"


def chunks_of(array: xr.DataArray, dim: str) -> tuple[int, ...]:
    """Chunk sizes along a dim; for an array without chunks, the size of the dim."""
    if array.chunks is None:
        return (array.sizes[dim],)
    sizes: Mapping[Hashable, tuple[int, ...]] = array.chunksizes
    return sizes[dim]


def pixel_size_of(array: xr.DataArray) -> float:
    """Edge of a pixel across the tilt axis: the step of the coordinate "detector", or of "x" of a volume."""
    across = DETECTOR if DETECTOR in array.dims else X
    return abs(grid.spacing(array[across].values, float(array.attrs["pixel_size"])))


def lengths_in_pixels(series: xr.DataArray) -> float:
    """What the values of a series must be multiplied with, so that their lengths are counted in its own pixels.

    Line integrals are counted in ``attrs["pixel_size"]``. The mean of two neighbouring pixels is an integral in the
    same unit, but stands for a pixel of twice the size.
    """
    return float(series.attrs["pixel_size"]) / pixel_size_of(series)


def axis_of(array: xr.DataArray) -> grid.Axis:
    """Where the tilt axis crosses a slice of a volume, or of the reconstruction of a series."""
    size = float(array.attrs["pixel_size"])
    if DETECTOR not in array.dims:
        return grid.Axis(*(grid.zero(array[dim].values, size) for dim in (Y, X)))
    place = grid.zero(array[DETECTOR].values, size)
    return grid.Axis(grid.depth_zero(place, array.sizes[DETECTOR]), place)


def slice_coords(series: xr.DataArray) -> dict[Hashable, npt.NDArray[Any]]:
    """Coordinates (z, y, x) of a reconstruction of a series.

    y and x are those of the detector; where the tilt axis lies beyond the detector, y lies about zero.
    """
    detector, axis = series[DETECTOR].values, axis_of(series)
    step = grid.spacing(detector, float(series.attrs["pixel_size"]))
    y = detector if axis.y == axis.x else (np.arange(detector.size) - axis.y) * step
    return {Z: series[Z].values, Y: y, X: detector}


def check_even_z(array: xr.DataArray, *, who: str) -> None:
    """Raise a SchemaError where slices are not neighbours at equal steps, for what looks at several slices."""
    kind = "tilt series" if DETECTOR in array.dims else "volume"
    grid.check_positions(array[Z].values, dim=Z, kind=kind, who=who)


def check_same_grid(first: xr.DataArray, second: xr.DataArray, *, who: str) -> None:
    """Raise a SchemaError if two volumes differ in shape, or their voxels lie at other places."""
    if first.shape != second.shape:
        refuse(
            who,
            needs="two volumes of one shape",
            got=f"{first.shape} and {second.shape}",
            remedy="crop or resize one of them",
            command="volumes of one size; nntomo info STORE shows it",
        )
    same_unit = first.attrs["units"] == second.attrs["units"]
    for dim in first.dims:
        steps = [grid.spacing(array[dim].values, float(array.attrs["pixel_size"])) for array in (first, second)]
        one, other = (array[dim].values / step for array, step in zip((first, second), steps, strict=True))
        ratio = steps[0] / steps[1]
        if np.abs(one - other).max() > _SAME_PLACE or ratio < 0 or (same_unit and abs(ratio - 1) > _SAME_STEP):
            ends = [f"{array[dim].values[0]:g} to {array[dim].values[-1]:g}" for array in (first, second)]
            refuse(
                who,
                needs=f'two volumes with the same coordinate "{dim}"',
                got=" and ".join(ends),
                remedy=f"select the part that both have, volume.sel({dim}=…); or assign_coords({dim}=…) where one of "
                "them is wrong",
                command="volumes of one specimen on the same voxels, such as reconstructions of one series",
            )


def check_finite(array: xr.DataArray, *, who: str) -> None:
    """Read the whole array. A SchemaError names the first place where it is NaN or infinite."""
    bad: Any = ~np.isfinite(array)
    count = int(bad.sum())
    if count == 0:
        return
    first_slice = int(np.argmax(bad.any(dim=list(array.dims[1:])).values))
    within = np.argwhere(bad.isel({array.dims[0]: first_slice}).values)[0]
    place = ", ".join(f"{dim}={index}" for dim, index in zip(array.dims, (first_slice, *within), strict=True))
    refuse(
        who,
        needs="finite values",
        got=f"{count} NaN or infinite, the first at index {place}",
        remedy="replace them with array.where(np.isfinite(array), value)",
        command=FILLED,
    )
