"""A volume as the search sees it: voxels counted in pixels along y and x, and tasks for groups of slices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import compute
from dask.delayed import delayed

from nntomo_dask.arrays import finite, grid, schema, slabs
from nntomo_dask.compute import configuration
from nntomo_dask.errors import refuse
from nntomo_dask.types import Float64


@dataclass(frozen=True, eq=False)
class Frame:
    """A volume without labels.

    Attributes
    ----------
    data
        (z, y, x), float32.
    pixel
        Edge of a pixel along y and x, [nm].
    step
        Distance of slices, [px].
    starts, steps
        Position of the first voxel along z, y, x, and the signed distances of voxels, [nm].
    slab
        Least slices that a task is for, where there are so many; a chunk has them anyway.
    """

    data: da.Array
    pixel: float
    step: float
    starts: tuple[float, float, float]
    steps: tuple[float, float, float]
    slab: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        depth, height, length = self.data.shape
        return depth, height, length

    @property
    def scale(self) -> Float64:
        """Pixels in a voxel along z, y, x."""
        return np.array([self.step, 1.0, 1.0])

    def positions(self, places: Float64) -> Float64:
        """(atom, 3), [nm], of places (atom, 3) in voxels from the first."""
        return np.asarray(np.array(self.starts) + places * np.array(self.steps))

    def slabs(self) -> list[tuple[int, int]]:
        """First and last slice, excluded, of each group of chunks that is searched at once."""
        ends = np.cumsum(self.data.chunks[0])
        found, first = [], 0
        for end in ends:
            if end - first >= self.slab or end == ends[-1]:
                found.append((first, int(end)))
                first = int(end)
        return found

    def part(self, *cuts: slice) -> "Frame":
        """A block of it, by its own voxels."""
        return Frame(self.data[cuts], self.pixel, self.step, self.starts, self.steps)


def frame_of(volume: xr.DataArray, *, who: str) -> Frame:
    """The frame of a volume, checked.

    Raises
    ------
    SchemaError
        It is no volume, its slices have no equal steps, or its voxels have no length in nm.
    """
    schema.check_volume(volume, who=who, slices="any")
    schema.check_even_z(volume, who=who)
    if volume.attrs["units"] != "nm":
        refuse(
            who,
            needs="voxels with a length in nm, since atoms have a width and a distance",
            got=f'units "{volume.attrs["units"]}"',
            remedy='volume(data, pixel_size=…, units="nm")',
            command="import the file with --pixel-size NM",
        )
    pixel = schema.pixel_size_of(volume)
    steps = _of_dims([grid.spacing(volume[dim].values, pixel) for dim in schema.VOLUME_DIMS])
    starts = _of_dims([float(volume[dim].values[0]) for dim in schema.VOLUME_DIMS])
    ratio = abs(steps[0]) / pixel
    step = 1.0 if grid.is_same_length(ratio, 1.0) else ratio
    return Frame(slabs.lazy(volume).data, pixel, step, starts, steps)


def _of_dims(values: list[float]) -> tuple[float, float, float]:
    z, y, x = values
    return z, y, x


def compute_slices(
    function: Callable[..., Any], frame: Frame, ranges: Sequence[tuple[int, int]], arguments: Sequence[Any]
) -> list[Any]:
    """``function(slices, *arguments)`` for each range of slices, computed where the session computes.

    Each is one task with slices of its own, which it may change; a chunk is read once for all of them. Values that are
    not finite are refused.
    """
    if not ranges:
        return []
    ends = np.cumsum(frame.data.chunks[0])
    with configuration.ours():
        chunks = frame.data.to_delayed().ravel()
        tasks = []
        for (low, high), extra in zip(ranges, arguments, strict=True):
            first, last = np.searchsorted(ends, [low, high - 1], side="right")
            begin = int(ends[first]) - frame.data.chunks[0][first]
            tasks.append(delayed(_call)(function, chunks[first : last + 1].tolist(), begin, low, high, *extra))
        return list(compute(*tasks))


def _call(function: Callable[..., Any], chunks: list[Any], begin: int, low: int, high: int, *extra: Any) -> Any:
    rows, at = np.empty((high - low, *chunks[0].shape[1:]), np.float32), begin
    for chunk in chunks:
        part = chunk[max(low - at, 0) : high - at]
        finite.check_slab(part, who="find_atoms", dims=tuple(schema.VOLUME_DIMS), first=max(low, at))
        rows[max(at - low, 0) : max(at - low, 0) + len(part)] = part
        at += len(chunk)
    return function(rows, *extra)
