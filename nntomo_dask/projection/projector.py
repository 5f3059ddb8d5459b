"""The projector pair as an object: what an iterative reconstruction is written with."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nntomo_dask.arrays import schema
from nntomo_dask.arrays.grid import Axis, axis_or_centre
from nntomo_dask.compute import device
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import layout, project as kernel
from nntomo_dask.projection import conditioning, engines
from nntomo_dask.types import Float32, Float64

# A ray or a pixel whose weights sum to less lies outside the field of view and has no part in an iteration.
LEAST_WEIGHT = 1e-6


def projector(
    angles_deg: npt.ArrayLike,
    size: int,
    *,
    axis: tuple[float, float] | None = None,
    engine: engines.EngineName = "native",
) -> "Projector":
    """The projector pair for some tilt angles and slices of size × size pixels.

    Parameters
    ----------
    angles_deg
        (angle,), tilt angles in degrees.
    size
        Pixels along an edge of a slice, and of the detector.
    axis
        Where the tilt axis crosses a slice, (y, x) in pixels from the first; on the detector it lies at x too. By
        default in the middle, ((size - 1) / 2, (size - 1) / 2).
    engine
        See `project`.

    Returns
    -------
    A `Projector`. docs/howto/own_solver.md writes a reconstruction with it.

    Raises
    ------
    SchemaError
        The angles cannot be those of a tilt series, the size is below 1, the axis is not two finite numbers, or there
        is no such engine.
    """
    angles = schema.check_angles(angles_deg, who="projector")
    if size < 1:
        refuse("projector", needs="a size of at least 1 pixel", got=f"{size}", remedy="`size=128`")
    if axis is not None and not (len(axis) == 2 and np.isfinite(axis).all()):
        remedy = "leave out `axis` where it is in the middle"
        refuse("projector", needs="an axis of two finite numbers (y, x)", got=f"{axis}", remedy=remedy)
    return Projector(angles, int(size), engine, None if axis is None else Axis(*axis))


class Projector:
    """A projector A and its transpose, on plain arrays or on lane groups.

    Plain arrays are images (slice, y, x) and sinograms (slice, angle, detector), float32. A lane group holds some
    slices side by side for the kernels: images (pixel, lane) and sinograms (entry, lane). `run` packs and unpacks them.

    Attributes
    ----------
    angles_deg
        (angle,), in degrees.
    size
        Pixels along an edge of a slice.
    axis
        Where the tilt axis crosses a slice, (y, x) in pixels from the first.
    """

    def __init__(self, angles_deg: Float64, size: int, engine: str = "native", axis: Axis | None = None) -> None:
        self.angles_deg, self.size, self._name = np.asarray(angles_deg, np.float64), size, engine
        self.axis = axis_or_centre(axis, size)
        self._engine = engines.engine(engine, who="projector")

    def forward(self, images: Float32) -> Float32:
        """``A x``: project (slice, y, x) to (slice, angle, detector), or (pixel, lane) to (entry, lane)."""
        if images.ndim == 2:
            return self._engine.forward_lanes(images, self.angles_deg, self.size, self.axis)
        return self._engine.forward(images, self.angles_deg, self.axis)

    def back(self, sinograms: Float32) -> Float32:
        """``Aᵀ y``: backproject (slice, angle, detector) to (slice, y, x), or (entry, lane) to (pixel, lane)."""
        if sinograms.ndim == 2:
            return self._engine.back_lanes(sinograms, self.angles_deg, self.size, self.axis)
        return self._engine.back(sinograms, self.angles_deg, self.axis)

    @property
    def row_sums(self) -> Float32:
        """(angle, detector): ``A 1``, the length of each ray within the slice, [px]."""
        shape = (1, self.angles_deg.size, self.size)
        sums: Float32 = layout.sinogram_from_lanes(np.repeat(self._sums[0], 8), shape)[0]
        return sums

    @property
    def column_sums(self) -> Float32:
        """(y, x): ``Aᵀ 1``, how much all rays together weigh each pixel."""
        sums: Float32 = layout.image_from_lanes(np.repeat(self._sums[1], 8), (1, self.size, self.size))[0]
        return sums

    def resized(self, size: int, axis: Axis) -> "Projector":
        """The pair for slices of another size, with the tilt axis elsewhere: the same angles and engine."""
        return Projector(self.angles_deg, size, self._name, axis)

    def inverse_sums(self, like: Any) -> tuple[Float32, Float32]:
        """(entry,) and (pixel,): inverses of the row and column sums for lane groups, zero outside the field of view.

        They lie where `like` does, in host memory or on a GPU.
        """
        xp = device.namespace(like)
        rows, columns = (xp.asarray(_inverse(one)) for one in self._sums)
        return rows, columns

    def frequency_steps(self, like: Any) -> Float32:
        """(angle, frequency), where `like` lies; see `conditioning.frequency_steps`."""
        steps: Float32 = device.namespace(like).asarray(
            _frequency_steps(self._name, tuple(self.angles_deg.tolist()), self.size, self.axis)
        )
        return steps

    def zeros(self, measured: Float32) -> Float32:
        """Images (pixel, lane) of zeros for a lane group of sinograms."""
        pixels = (self.size + 2 * layout.IMAGE_PAD) ** 2
        images: Float32 = device.namespace(measured).zeros((pixels, measured.shape[1]), np.float32)
        return images

    def run(self, solver: Callable[[Float32], Float32], rows: Float32) -> Float32:
        """Reconstruct rows (slice, angle, detector) to (slice, y, x), one lane group after the other.

        Parameters
        ----------
        solver
            From a lane group of sinograms (entry, lane) to one of images (pixel, lane). Lanes are slices, independent
            of each other; those beyond the last slice are zero. What it computes for a lane must not depend on the
            others.
        """
        n_slices = len(rows)
        width = kernel.group_width(rows)
        volume: Float32 = device.namespace(rows).empty((n_slices, self.size, self.size), np.float32)
        for z in range(0, n_slices, width):
            group = rows[z : z + width]
            images = solver(layout.sinogram_to_lanes(group, width).reshape(-1, width))
            volume[z : z + width] = layout.image_from_lanes(images.reshape(-1), (len(group), self.size, self.size))
        return volume

    def computed(self, function: Callable[[Float32], Float32], rows: Float32, *, slice_bytes: int, who: str) -> Float32:
        """``function(rows)`` on the device that this engine and this process compute on: see `compute.streams`."""
        return self._engine.computed(function, rows, slice_bytes=slice_bytes, who=who)

    @property
    def _sums(self) -> tuple[Float32, Float32]:
        return _sums(self._name, tuple(self.angles_deg.tolist()), self.size, self.axis)


@functools.lru_cache(maxsize=8)
def _sums(engine: str, angles_deg: tuple[float, ...], size: int, axis: Axis) -> tuple[Float32, Float32]:
    """A's row sums (entry,) and column sums (pixel,), laid out as lane groups."""
    pair = Projector(np.asarray(angles_deg), size, engine, axis)
    width = 8
    ones = layout.image_to_lanes(np.ones((1, size, size), np.float32), width).reshape(-1, width)
    rows = np.ascontiguousarray(pair.forward(ones)[:, 0])
    ones = layout.sinogram_to_lanes(np.ones((1, len(angles_deg), size), np.float32), width).reshape(-1, width)
    columns = np.ascontiguousarray(pair.back(ones)[:, 0])
    return rows, columns


@functools.lru_cache(maxsize=32)
def _frequency_steps(engine: str, angles_deg: tuple[float, ...], size: int, axis: Axis) -> Float32:
    pair = Projector(np.asarray(angles_deg), size, engine, axis)
    return conditioning.frequency_steps(pair.angles_deg, size, pair.forward, pair.back)


def _inverse(sums: Float32) -> Float32:
    inverse = np.zeros_like(sums)
    np.divide(1, sums, out=inverse, where=sums > LEAST_WEIGHT)
    return inverse
