"""From images to a labelled lazy tilt series or volume: the part that is wanted, turned, binned and stacked.

A slab of slices is read from all images. Where the tilt axis runs along the lines of the file, that is a band of lines
of each image, and the file is read once. Where it runs across them, or images are compressed, every slab needs whole
images; slabs are taller then (`chunking.tall_slab_slices`), so that the file is read a few times at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import recipes, schema, slabs
from nntomo_dask.compute import chunking, configuration
from nntomo_dask.errors import refuse
from nntomo_dask.formats.choosing import Projection
from nntomo_dask.formats.images import Images
from nntomo_dask.formats.orientation import Orientation
from nntomo_dask.types import Float32, Float64

Crop = tuple[tuple[int, int], tuple[int, int]]

_DARKEST = 1e-4  # of the counts without a specimen, below which a bright-field image says no more
_BAND_BYTES = 2**22  # of lines that are read together where columns are wanted


@dataclass(frozen=True)
class Window:
    """The part of an image that is used: lines and columns as they are stored, whole bins of them."""

    lines: slice
    columns: slice
    bin: int = 1

    @classmethod
    def of(cls, images: Images, crop: Crop | None, factor: int, who: str) -> "Window":
        """Check a crop, ((first column, end), (first line, end)), and a binning.

        Raises
        ------
        SchemaError
            They are no part of an image.
        """
        if isinstance(factor, bool) or not isinstance(factor, int | np.integer) or factor < 1:
            refuse(who, needs="a binning of at least 1", got=f"{factor!r}", remedy="`bin=2`")
        parts = []
        names = ("columns", "lines")
        sizes = (images.shape[2], images.shape[1])
        for name, size, part in zip(names, sizes, crop or ((0, size) for size in sizes), strict=True):
            first, end = part
            if not 0 <= first < end <= size:
                refuse(
                    who,
                    needs=f"{name} from 0 to {size} to crop to",
                    got=f"{first}:{end}",
                    remedy="`crop=0:200,0:200`, columns and lines",
                )
            whole = (end - first) // factor
            if whole < 2:
                needs = f"at least 2 bins along the {name}"
                refuse(who, needs=needs, got=f"{end - first} {name} in bins of {factor}", remedy="a lower `bin`")
            parts.append(slice(int(first), int(first + whole * factor)))
        return cls(parts[1], parts[0], int(factor))

    @property
    def shape(self) -> tuple[int, int]:
        """Lines and columns after binning."""
        return (
            (self.lines.stop - self.lines.start) // self.bin,
            (self.columns.stop - self.columns.start) // self.bin,
        )

    def is_whole(self, images: Images) -> bool:
        """Whether all pixels are used as they are."""
        return self.bin == 1 and self.shape == tuple(images.shape[1:])


@dataclass(frozen=True)
class Arranged:
    """Projections of images, as a slab of slices is read from them.

    Attributes
    ----------
    images
        Where they are read.
    groups
        The images of each projection; several are summed, or averaged.
    window, orientation
        The part of an image, and how it becomes a projection.
    background, fill
        Counts to be subtracted; a value for what is not finite, None to leave it.
    bright
        Counts without a specimen where projections become ``ln(bright / counts)``, by Beer and Lambert; None where
        they stay.
    """

    images: Images
    groups: tuple[tuple[int, ...], ...]
    means: bool
    window: Window
    orientation: Orientation
    background: float
    fill: float | None
    bright: float | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, angle, detector)."""
        along, across = self.orientation.shape(*self.window.shape)
        return (along, len(self.groups), across)

    def slab(self, z_indices: npt.NDArray[np.int64]) -> Float32:
        """Slices (z, angle, detector)."""
        rows = slice(int(z_indices[0]), int(z_indices[-1]) + 1)
        found = np.empty((rows.stop - rows.start, *self.shape[1:]), np.float32)
        for place, group in enumerate(self.groups):
            found[:, place] = self._projection(group, rows)
        return found

    def _projection(self, group: Sequence[int], rows: slice) -> Float32:
        """Rows (z, detector) of one projection."""
        background = np.float32(self.background)
        if self.bright is not None:
            values = _attenuation(self._mean(group, rows), self.bright)
        elif len(group) == 1:
            values = self._image(group[0], rows) - background
        elif self.means:
            values = self._mean(group, rows).astype(np.float32) - background
        else:
            values = ((self._mean(group, rows) - np.float64(background)) * len(group)).astype(np.float32)
        return values if self.fill is None else np.where(np.isfinite(values), values, np.float32(self.fill))

    def _mean(self, group: Sequence[int], rows: slice) -> Float64:
        total = np.zeros((rows.stop - rows.start, self.shape[2]), np.float64)
        for image in group:
            total += self._image(image, rows)
        return total / len(group)

    def _image(self, image: int, rows: slice) -> Float32:
        height, width = self.window.shape
        lines, columns = self.orientation.window(rows, slice(0, self.shape[2]), lines=height, columns=width)
        return self.orientation.projection(self._binned(image, lines, columns))

    def _binned(self, image: int, lines: slice, columns: slice) -> Float32:
        """A part of an image, (line, column), counted in bins of the window."""
        factor = self.window.bin
        stored_columns = _unbinned(columns, self.window.columns.start, factor)
        if self.images.reads == "images" or not self.orientation.transposed:
            stored = self.images.read(image, _unbinned(lines, self.window.lines.start, factor), stored_columns)
            return binned(stored, factor)
        line_bytes = self.images.shape[2] * self.images.dtype.itemsize * factor
        band = max(_BAND_BYTES // line_bytes, 1)
        parts = []
        for first in range(lines.start, lines.stop, band):
            part = slice(first, min(first + band, lines.stop))
            stored = self.images.read(image, _unbinned(part, self.window.lines.start, factor), stored_columns)
            parts.append(binned(stored, factor))
        return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _attenuation(counts: Float64, bright: float) -> Float32:
    """``ln(bright / counts)``; counts are at least a ten thousandth of the bright ones."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.log(bright / np.maximum(counts, bright * _DARKEST)), np.float32)


def _unbinned(part: slice, start: int, factor: int) -> slice:
    return slice(start + part.start * factor, start + part.stop * factor)


def binned(image: npt.NDArray[Any], factor: int) -> Float32:
    """Means of squares of pixels, float32; the same whatever part of an image is binned."""
    if factor == 1:
        return np.asarray(image, np.float32)
    total = np.zeros((image.shape[0] // factor, image.shape[1] // factor), np.float64)
    for line in range(factor):
        for column in range(factor):
            total += image[line::factor, column::factor]
    return np.asarray(total / factor**2, np.float32)


@configuration.ours()
def series(
    arranged: Arranged,
    projections: Sequence[Projection],
    *,
    pixel_size: float,
    units: schema.Units,
    attrs: dict[str, Any],
    beside: dict[str, Any],
    recipe: recipes.Recipe,
) -> xr.DataArray:
    """A lazy tilt series.

    Parameters
    ----------
    pixel_size
        Edge of a pixel of the file.
    attrs
        Further attributes.
    beside
        Coordinates along the angles, by name.
    """
    images, window, orientation = arranged.images, arranged.window, arranged.orientation
    lines = positions(images.shape[1], None if images.zero is None else images.zero[0], window.lines, window.bin)
    columns = positions(images.shape[2], None if images.zero is None else images.zero[1], window.columns, window.bin)
    lines = lines * images.line_step
    along, across = (columns, lines) if orientation.transposed else (lines, columns)
    z = (0.0 - along[::-1] if orientation.reversed_along else along) * pixel_size
    detector = (0.0 - across[::-1] if orientation.reversed_across else across) * pixel_size
    angles = [one.angle_deg for one in projections]
    coords: dict[Any, Any] = schema.series_coords(z, angles, detector)
    coords |= {name: (schema.ANGLE, np.asarray(values)) for name, values in beside.items()}
    shape = arranged.shape
    whole = orientation.transposed or images.reads == "images"
    slices = chunking.tall_slab_slices(shape) if whole else chunking.slab_slices(shape)
    return slabs.label(
        _mapped(arranged.slab, shape, slices),
        dims=schema.SERIES_DIMS,
        coords=coords,
        attrs={"units": units, "pixel_size": pixel_size * window.bin, **attrs},
        recipe=recipe,
        name="tilt_series",
    )


@dataclass(frozen=True)
class Stacked:
    """A volume whose slices are images."""

    images: Images
    window: Window
    background: float
    fill: float | None

    def slab(self, z_indices: npt.NDArray[np.int64]) -> Float32:
        """Slices (z, y, x); y rises as images are shown."""
        factor, window = self.window.bin, self.window
        found = np.zeros((z_indices.size, *window.shape), np.float32)
        for place, z in enumerate(z_indices):
            total = np.zeros(window.shape, np.float64 if factor > 1 else np.float32)
            for image in range(int(z) * factor, (int(z) + 1) * factor):
                total += binned(self.images.read(image, window.lines, window.columns), factor)
            found[place] = total / factor if factor > 1 else total
        if self.images.first_line == "top":
            found = found[:, ::-1]
        values = found - np.float32(self.background)
        return values if self.fill is None else np.where(np.isfinite(values), values, np.float32(self.fill))


@configuration.ours()
def volume(
    stacked: Stacked, *, pixel_size: float, units: schema.Units, attrs: dict[str, Any], recipe: recipes.Recipe
) -> xr.DataArray:
    """A lazy volume of images (z, y, x)."""
    images, window = stacked.images, stacked.window
    depth = images.shape[0] // window.bin
    shape = (depth, *window.shape)
    zeros = images.zero or (None, None)
    z = positions(images.shape[0], images.slice_zero, slice(0, depth * window.bin), window.bin) * images.slice_step
    y = positions(images.shape[1], zeros[0], window.lines, window.bin)
    coords: dict[Any, Any] = {
        schema.Z: z * pixel_size,
        schema.Y: (0.0 - y[::-1] if images.first_line == "top" else y) * pixel_size,
        schema.X: positions(images.shape[2], zeros[1], window.columns, window.bin) * pixel_size,
    }
    return slabs.label(
        _mapped(stacked.slab, shape, chunking.slab_slices(shape)),
        dims=schema.VOLUME_DIMS,
        coords=coords,
        attrs={"units": units, "pixel_size": pixel_size * window.bin, **attrs},
        recipe=recipe,
        name="volume",
    )


def positions(count: int, zero: float | None, part: slice, factor: int) -> Float64:
    """Positions of the bins of a part of `count` pixels, [px], from `zero`, by default the middle of the pixels."""
    firsts = np.arange(part.start, part.stop, factor, dtype=np.float64)
    return firsts + (factor - 1) / 2 - ((count - 1) / 2 if zero is None else zero)


def _mapped(function: Any, shape: tuple[int, int, int], slices: int) -> da.Array:
    chunks = chunking.slab_chunks(shape[0], slices)
    data: da.Array = da.arange(shape[0], chunks=(chunks,)).map_blocks(
        function,
        dtype=np.float32,
        new_axis=[1, 2],
        chunks=(chunks, *((size,) for size in shape[1:])),
        meta=np.empty((0,) * 3, np.float32),
    )
    return data
