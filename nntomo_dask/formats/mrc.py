"""MRC files: aligned stacks in, volumes and series out."""

import mmap
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import dask.array as da
import mrcfile
import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import recipes, schema, slabs
from nntomo_dask.compute import chunking, configuration
from nntomo_dask.errors import refuse
from nntomo_dask.formats import FORMATS
from nntomo_dask.formats.format import Format, TiltAxis
from nntomo_dask.formats.tilt_angles import write_tilt_angles
from nntomo_dask.types import Float32

MrcPath = str | os.PathLike[str]

_ANGSTROM_PER_NM = 10.0
# Axes of an MRC stack (tilt, y, x) that become ours (z, angle, detector).
_SERIES_AXES: dict[TiltAxis, tuple[int, int, int]] = {"x": (2, 0, 1), "y": (1, 0, 2)}


@FORMATS.register
class Mrc(Format):
    """MRC2014 and its dialects: an image stack, or a volume, with a header of 1024 bytes."""

    name: ClassVar[str] = "mrc"
    title: ClassVar[str] = "MRC"
    suffixes: ClassVar[tuple[str, ...]] = (".mrc", ".mrcs", ".map", ".rec", ".st", ".ali")

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the map label in the header; older files have none."""
        try:
            with path.open("rb") as file:
                return file.read(212)[208:212] == b"MAP "
        except OSError:
            return False

    @classmethod
    def read_series(
        cls,
        path: Path,
        angles_deg: npt.ArrayLike,
        *,
        tilt_axis: TiltAxis,
        keep_deg: npt.ArrayLike | None,
        background: float,
        fill: float | None,
    ) -> xr.DataArray:
        """See `read_mrc_series`."""
        return read_mrc_series(
            path, angles_deg, tilt_axis=tilt_axis, keep_deg=keep_deg, background=background, fill=fill
        )

    @classmethod
    def read_volume(cls, path: Path) -> xr.DataArray:
        """See `read_mrc_volume`."""
        return read_mrc_volume(path)

    @classmethod
    def write(cls, array: xr.DataArray, path: Path) -> list[Path]:
        """The array, and of a series its angles beside it."""
        if schema.ANGLE not in array.dims:
            return [write_mrc(array, path)]
        angles = _angle_file(path)
        is_new = not angles.exists()
        write_tilt_angles(array[schema.ANGLE].values, angles)
        try:
            return [write_mrc(array, path), angles]
        except BaseException:
            if is_new:  # both files, or none: a rerun must find the place as it was
                angles.unlink(missing_ok=True)
            raise

    @classmethod
    def outputs(cls, array: xr.DataArray, path: Path) -> list[Path]:
        """The file, and of a series the file of its angles."""
        return [path, _angle_file(path)] if schema.ANGLE in array.dims else [path]


def _angle_file(path: Path) -> Path:
    return path.with_suffix(".rawtlt")


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
        No file, no MRC, a truncated or complex one, no stack; or angles that do not fit it.
    """
    with _mapped(path, "read_mrc_series") as mrc:
        shape, pixel_size, units = mrc.data.shape, *_pixel_size(mrc)
    if len(shape) != 3 or shape[0] < 2:
        refuse(
            "read_mrc_series",
            needs="a stack of at least 2 projections",
            got=f"an image of shape {shape} in {path}",
            remedy="join the projections into one stack",
        )
    if tilt_axis not in _SERIES_AXES:
        refuse("read_mrc_series", needs='tilt_axis "x" or "y"', got=f"{tilt_axis!r}", remedy='`tilt_axis="y"`')
    angles = schema.check_angles(angles_deg, who="read_mrc_series", count=shape[0])
    kept = np.arange(angles.size) if keep_deg is None else _nearest(angles, np.asarray(keep_deg, np.float64))
    angles = schema.check_angles(angles[kept], who="read_mrc_series")
    axes = _SERIES_AXES[tilt_axis]
    n_z, _, n_detectors = (shape[axis] for axis in axes)
    coords = schema.series_coords(schema.centred(n_z, pixel_size), angles, schema.centred(n_detectors, pixel_size))
    parameters = {"tilt_axis": tilt_axis, "angles_deg": angles, "background": background, "fill": fill}
    return _lazy(
        path, axes, parameters, dims=schema.SERIES_DIMS, coords=coords, units=units, name="tilt_series",
        shape=(n_z, angles.size, n_detectors), pixel_size=pixel_size, projections=kept, background=background,
        fill=fill,
    )  # fmt: skip


def read_mrc_volume(path: MrcPath) -> xr.DataArray:
    """Read a volume from an MRC file (z, y, x). Lazy.

    Returns
    -------
    Dims (z, y, x), float32; in nm where the file says how large a voxel is, else in px.

    Raises
    ------
    SchemaError
        No file, no MRC, a truncated or complex one; or slices that are not square.
    """
    with _mapped(path, "read_mrc_volume") as mrc:
        shape, pixel_size, units = mrc.data.shape, *_pixel_size(mrc)
    if len(shape) != 3:
        refuse("read_mrc_volume", needs="three axes", got=f"shape {shape} in {path}", remedy="give a volume")
    volume = _lazy(
        path, (0, 1, 2), {}, dims=schema.VOLUME_DIMS, coords=schema.volume_coords(shape, pixel_size), units=units,
        name="volume", shape=shape, pixel_size=pixel_size, projections=None, background=0.0, fill=None,
    )  # fmt: skip
    schema.check_volume(volume, who="read_mrc_volume")
    return volume


def write_mrc(array: xr.DataArray, path: MrcPath) -> Path:
    """Write a volume (z, y, x) or a tilt series (tilt, y, x) with the tilt axis along y to an MRC file, slab by slab.

    The file appears when it is complete; one that was there is replaced.

    Parameters
    ----------
    array
        Volume or tilt series, float32. Where its units are nm the header gets the pixel size in Å.

    Raises
    ------
    SchemaError
        `array` is neither.
    OSError
        The place cannot be written.
    """
    target = Path(path)
    if isinstance(array, xr.DataArray) and schema.ANGLE in array.dims:
        schema.check_tilt_series(array, who="write_mrc")
        shape = (array.sizes[schema.ANGLE], array.sizes[schema.Z], array.sizes[schema.DETECTOR])
    else:
        schema.check_volume(array, who="write_mrc")
        shape = (array.sizes[schema.Z], array.sizes[schema.Y], array.sizes[schema.X])
    is_series = schema.ANGLE in array.dims
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with mrcfile.new_mmap(partial, shape=shape, mrc_mode=2, overwrite=True) as mrc:
            _take_room(partial)
            first = 0
            statistics = _Statistics()
            for slices in slabs.lazy(array).data.chunks[0]:
                slab = array.isel({schema.Z: slice(first, first + slices)}).values
                if is_series:
                    mrc.data[:, first : first + slices] = np.moveaxis(slab, 0, 1)
                else:
                    mrc.data[first : first + slices] = slab
                statistics.add(slab)
                _let_go(mrc.data)
                first += slices
            if is_series:
                mrc.set_image_stack()
            if array.attrs["units"] == "nm":
                mrc.voxel_size = array.attrs["pixel_size"] * _ANGSTROM_PER_NM
            statistics.write(mrc.header)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


class _Statistics:
    """Least, largest and mean value and standard deviation, slab by slab: mrcfile would copy the file for them."""

    def __init__(self) -> None:
        self.least, self.largest, self.sums = np.inf, -np.inf, np.zeros(3)  # of ones, values and squares

    def add(self, slab: Float32) -> None:
        """Take in a slab."""
        with np.errstate(all="ignore"):  # values that are not finite make statistics that are not
            self.least, self.largest = np.minimum(self.least, slab.min()), np.maximum(self.largest, slab.max())
            for image in slab:  # one at a time in double precision
                values = image.astype(np.float64).ravel()
                self.sums += values.size, values.sum(), values @ values

    def write(self, header: Any) -> None:
        """Write them into a header."""
        with np.errstate(all="ignore"):
            mean, square = self.sums[1:] / self.sums[0]
            header.dmin, header.dmax, header.dmean = (np.float32(one) for one in (self.least, self.largest, mean))
            header.rms = np.float32(np.sqrt(np.maximum(square - mean**2, 0)))


def _let_go(mapped: Any) -> None:
    """Take what was written to a mapped file out of this process's memory; the system writes it to the disk."""
    pages = getattr(mapped, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def _take_room(path: Path) -> None:
    """Take the room on the disk that a file says it has; writing to a map of a file on a full disk kills a process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _nearest(angles_deg: npt.NDArray[np.float64], wanted_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Indices of the angles nearest to some, in the order of the file, none twice."""
    return np.unique(np.abs(angles_deg[:, None] - wanted_deg).argmin(axis=0))


def _fingerprint(path: Path) -> int:
    """Checksum of 64 KiB at 256 places of a file, all of a small one: tells recordings apart without reading them."""
    checksum, size = 0, path.stat().st_size
    with path.open("rb") as file:
        for place in range(256):
            file.seek(size * place // 256)
            checksum = zlib.crc32(file.read(2**16), checksum)
    return checksum


@contextmanager
def _mapped(path: MrcPath, who: str) -> Iterator[Any]:
    """An MRC file over a memory map, or a SchemaError that says what is wrong with it."""
    source = Path(path)
    if not source.is_file():
        refuse(who, needs="an MRC file", got=f"nothing at {source}", remedy="check the path")
    try:
        mrc = mrcfile.mmap(source, mode="r")
    except ValueError as error:
        refuse(
            who, needs="a whole MRC2014 file", got=f"{source} ({error})", remedy="copy the file again, or convert it"
        )
    with mrc:
        if mrc.data.dtype.kind == "c":
            refuse(who, needs="real values", got=f"complex ones in {source}", remedy="save the magnitude instead")
        yield mrc


def _pixel_size(mrc: Any) -> tuple[float, schema.Units]:
    with np.errstate(divide="ignore", invalid="ignore"):  # a header may leave the number of pixels at zero
        angstrom = float(mrc.voxel_size.x)
    return (angstrom / _ANGSTROM_PER_NM, "nm") if np.isfinite(angstrom) and angstrom > 0 else (1.0, "px")


@configuration.ours()
def _lazy(
    path: MrcPath,
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
) -> xr.DataArray:
    source = Path(path).resolve()
    status = source.stat()
    chunks = chunking.slab_chunks(shape[0], chunking.slab_slices(shape))
    data = da.arange(shape[0], chunks=(chunks,)).map_blocks(
        _read_slab,
        dtype=np.float32,
        new_axis=[1, 2],
        chunks=(chunks, *((size,) for size in shape[1:])),
        meta=np.empty((0,) * 3, np.float32),
        path=str(source),
        axes=axes,
        projections=projections,
        background=background,
        fill=fill,
    )
    identity = {"file": source.name, "bytes": status.st_size, "crc32": _fingerprint(source)}
    return slabs.label(
        data,
        dims=dims,
        coords=coords,
        attrs={"units": units, "pixel_size": pixel_size},
        recipe=recipes.record("read_mrc", identity | parameters),
        name=name,
    )


def _read_slab(
    z_indices: npt.NDArray[np.int64],
    *,
    path: str,
    axes: tuple[int, int, int],
    projections: npt.NDArray[np.intp] | None,
    background: float,
    fill: float | None,
) -> Float32:
    with mrcfile.mmap(path, mode="r") as mrc:
        slab = np.transpose(mrc.data, axes)[int(z_indices[0]) : int(z_indices[-1]) + 1]
        slab = slab if projections is None else slab[:, projections]
        values = np.ascontiguousarray(slab, np.float32) - np.float32(background)
    return values if fill is None else np.where(np.isfinite(values), values, np.float32(fill))
