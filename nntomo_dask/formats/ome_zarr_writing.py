"""OME-Zarr 0.5, written slab by slab: an image in Zarr's format 3 at several scales, for napari, Fiji and neuroglancer.

All levels are written in one pass over the array. Two neighbouring slices of a level make one of the next, whose voxels
are the means of 2 × 2 × 2; of a series 2 × 2 pixels, the angles stay. Each level gathers the slices of a row of chunks.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask import aside
from nntomo_dask.arrays import schema
from nntomo_dask.arrays.blocks import block_slices, halved, slabs_of
from nntomo_dask.errors import refuse
from nntomo_dask.formats import writing
from nntomo_dask.formats.format import Format
from nntomo_dask.formats.numbers import Numbers, Stored
from nntomo_dask.settings import check_settings, setting
from nntomo_dask.store import zarr_settings
from nntomo_dask.types import Float32

SUFFIXES = (".ome.zarr",)
_MARK = "nntomo_dask_export"
_TILE = 256  # pixels of a chunk along y and x
_SMALLEST = 128  # pixels of the longest side at which a pyramid ends
_MOST_LEVELS = 12


@dataclass(frozen=True)
class OmeZarrSettings(Numbers):
    """How an OME-Zarr is written.

    Parameters
    ----------
    levels
        How many scales it has.
    """

    levels: int | None = setting(
        None,
        least=1,
        most=_MOST_LEVELS,
        help="Number of scales of the image, the whole one and halves of it. Default: until its longest side has at "
        f"most {_SMALLEST} pixels.",
    )


class OmeZarrWriting(Format):
    """How the format is written; its reader derives from this."""

    writing: ClassVar[type | None] = OmeZarrSettings

    @classmethod
    def write(cls, array: xr.DataArray, path: Path, *, how: OmeZarrSettings | None = None) -> list[Path]:
        """The array at all levels; the angles of a series stand in the attributes."""
        chosen = how or OmeZarrSettings()
        check_settings(chosen, who="export")
        stored = writing.as_written(array, who="export")
        shapes = _shapes(writing.file_shape(stored), chosen.levels, is_series=writing.is_series(stored))
        numbers = chosen.stored(stored, who="export")
        with aside.written_folder(path) as folder:
            _write(stored, folder, path.name, shapes, numbers)
        return [path]

    @classmethod
    def is_folder(cls, path: Path) -> bool:
        """It is always a folder."""
        return True

    @classmethod
    def may_replace(cls, path: Path) -> bool:
        """Whether the folder was written here."""
        try:
            return _MARK in json.loads((path / "zarr.json").read_bytes())["attributes"]
        except (OSError, ValueError, KeyError, TypeError):
            return False


def _shapes(shape: tuple[int, int, int], levels: int | None, *, is_series: bool) -> list[tuple[int, int, int]]:
    """Of all levels, each a half of the one before, rounded up; angles are not halved."""
    halved = shape[1:] if is_series else shape
    if levels is None:
        levels = 1
        while -(-max(halved) // 2 ** (levels - 1)) > _SMALLEST and levels < _MOST_LEVELS:
            levels += 1
    if 2 ** (levels - 1) > max(halved):
        most = int(np.log2(max(halved))) + 1
        refuse("export", needs=f"at most {most} levels of this size", got=f"{levels}", remedy=f"`levels={most}`")
    found = []
    for level in range(levels):
        small = [-(-size // 2**level) for size in shape]
        found.append((shape[0] if is_series else small[0], small[1], small[2]))
    return found


def metadata(array: xr.DataArray, name: str, shapes: list[tuple[int, int, int]], window: Any) -> dict[str, Any]:
    """The attribute ``ome`` of the group, validated by yaozarrs."""
    import yaozarrs

    places = writing.places(array)
    units = {"nm": "nanometer", "degree": "degree"}
    # A series is images of two axes in space, with their angles along an axis of its own kind.
    axes: list[dict[str, Any]] = []
    for place, label in zip(places, writing.file_names(array), strict=True):
        axis = {"name": label, "type": "angle" if place.dim == schema.ANGLE else "space"}
        axes.append(axis | ({"unit": units[place.unit]} if place.unit in units else {}))
    datasets = []
    for level, shape in enumerate(shapes):
        factors = [1 if place.dim == schema.ANGLE else 2**level for place in places]
        scale = [place.step * factor for place, factor in zip(places, factors, strict=True)]
        # A voxel lies where the middle of those lies of which it is the mean.
        moved = [place.first + place.step * (factor - 1) / 2 for place, factor in zip(places, factors, strict=True)]
        transformations = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": moved}]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
        assert len(shape) == len(axes)
    multiscale = {
        "name": name,
        "axes": axes,
        "datasets": datasets,
        "type": "mean",
        "metadata": {"description": "means of 2 voxels along each axis that is halved"},
    }
    channel = {"label": str(array.name), "color": "FFFFFF", "active": True, "window": window}
    omero = {"channels": [channel], "rdefs": {"model": "greyscale"}}
    found = {"version": "0.5", "multiscales": [multiscale], "omero": omero}
    yaozarrs.validate_ome_object({"zarr_format": 3, "node_type": "group", "attributes": {"ome": found}})
    return found


@zarr_settings.ours()
def _write(array: xr.DataArray, folder: Path, name: str, shapes: list[tuple[int, int, int]], numbers: Stored) -> None:
    import zarr

    is_series = writing.is_series(array)
    levels: list[_Level] = []
    for number, shape in reversed(list(enumerate(shapes))):
        levels.insert(0, _Level(folder / str(number), shape, numbers, array, levels[0] if levels else None))
    least, largest = np.inf, -np.inf
    for _, slab in slabs_of(array):
        with np.errstate(invalid="ignore"):
            least, largest = float(np.fmin(least, slab.min())), float(np.fmax(largest, slab.max()))
        levels[0].add(np.moveaxis(slab, 0, 1) if is_series else slab)
    levels[0].end()
    window = _window(least, largest, numbers)
    said = writing.about(array) | ({"values": numbers.text} if numbers.text else {})
    attributes: Any = {"ome": metadata(array, name.removesuffix(SUFFIXES[0]), shapes, window), _MARK: said}
    root: Any = str(folder)
    zarr.open_group(root, mode="a", zarr_format=3, attributes=attributes)


def _window(least: float, largest: float, numbers: Stored) -> dict[str, float]:
    """What is shown as black and white at first, in stored values."""
    if numbers.scaled:
        kind = np.iinfo(numbers.type)
        least, largest = float(kind.min), float(kind.max)
    if not (np.isfinite(least) and np.isfinite(largest) and least < largest):
        least, largest = 0.0, 1.0
    return {"min": least, "max": largest, "start": least, "end": largest}


class _Level:
    """One scale: it gathers slices until they make a row of chunks, and hands halves of them to the next."""

    def __init__(
        self, place: Path, shape: tuple[int, int, int], numbers: Stored, array: xr.DataArray, following: "_Level | None"
    ) -> None:
        import zarr

        self.is_series, self.following, self.numbers = writing.is_series(array), following, numbers
        self.along = 1 if self.is_series else 0  # the axis of the slices
        self.halved = (1, 2) if self.is_series else (0, 1, 2)
        slices = block_slices([shape[self.along], *np.delete(shape, self.along)])
        self.block = np.empty([slices if axis == self.along else size for axis, size in enumerate(shape)], np.float32)
        self.filled, self.first, self.count = 0, 0, shape[self.along]
        self.left: Float32 | None = None  # a slice that waits for its neighbour
        chunks = [min(size, _TILE) for size in shape]
        chunks[self.along] = slices
        if self.is_series:
            chunks[0] = 1
        store: Any = str(place)
        self.stored: Any = zarr.create_array(
            store,
            shape=shape,
            dtype=numbers.type,
            chunks=tuple(chunks),
            compressors=zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
            dimension_names=writing.file_names(array),
            zarr_format=3,
            config={"write_empty_chunks": True},
        )

    def add(self, slab: Float32) -> None:
        """Take slices (…) of this level."""
        taken, total = 0, slab.shape[self.along]
        while taken < total:
            part = min(total - taken, self.block.shape[self.along] - self.filled)
            self._of_block(self.filled, self.filled + part)[...] = _cut(slab, self.along, taken, taken + part)
            taken, self.filled = taken + part, self.filled + part
            if self.filled == self.block.shape[self.along]:
                self._write()
        if self.following is not None:
            joined = slab if self.left is None else np.concatenate([self.left, slab], axis=self.along)
            even = joined.shape[self.along] // 2 * 2
            self.left = None if even == joined.shape[self.along] else _cut(joined, self.along, even, even + 1).copy()
            if even:
                self.following.add(halved(_cut(joined, self.along, 0, even), axes=self.halved))

    def end(self) -> None:
        """Write what is left, here and in the levels that follow."""
        if self.filled:
            self._write()
        if self.following is not None:
            if self.left is not None:
                self.following.add(halved(self.left, axes=self.halved))
            self.following.end()

    def _of_block(self, begin: int, end: int) -> Any:
        return _cut(self.block, self.along, begin, end)

    def _write(self) -> None:
        block = self._of_block(0, self.filled)
        values = self.numbers.convert(block, self.first if self.along == 0 else 0)
        end = self.first + self.filled
        if self.is_series:
            self.stored[:, self.first : end] = values
        else:
            self.stored[self.first : end] = values
        self.first, self.filled = end, 0


def _cut(array: npt.NDArray[Any], axis: int, begin: int, end: int) -> Any:
    return array[:, begin:end] if axis == 1 else array[begin:end]
