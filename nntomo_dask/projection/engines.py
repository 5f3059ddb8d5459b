"""Who projects: the package's own kernels, or the ASTRA toolbox. Both have the same interface.

Plain arrays are images (slice, y, x) and sinograms (slice, angle, detector). *Lane groups* are what the kernels work
on: images (pixel, lane) and sinograms (entry, lane), packed and padded as `kernels.layout` says, the slice innermost.
"""

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
import xarray as xr

from nntomo_dask.arrays import schema
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import cluster, device, streams
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import astra, layout, project as kernel
from nntomo_dask.types import Float32, Float64

EngineName = Literal["native", "astra"]
ENGINE_HELP = "Whose projector is used: that of nntomo_dask (native), or that of the ASTRA toolbox (astra)."

# Seconds of one core for a voxel and an angle, projected or backprojected on a CPU; measured at 256² to 1024² pixels.
_SECONDS = {"native": 4e-10, "astra": 5e-9}
_LONG = 60.0  # seconds from which an engine is warned of that is slower than another


class Engine(Protocol):
    """A pair of projector and transpose, for given angles; the tilt axis is in the middle unless it is given."""

    def forward(self, images: Float32, angles_deg: Float64, axis: Axis | None = None) -> Float32:
        """Project (slice, y, x) to (slice, angle, detector)."""
        ...

    def back(self, sinograms: Float32, angles_deg: Float64, axis: Axis | None = None) -> Float32:
        """Backproject (slice, angle, detector) to (slice, y, x): the transpose of `forward`."""
        ...

    def forward_lanes(self, images: Float32, angles_deg: Float64, size: int, axis: Axis | None = None) -> Float32:
        """`forward` of a lane group (pixel, lane)."""
        ...

    def back_lanes(self, sinograms: Float32, angles_deg: Float64, size: int, axis: Axis | None = None) -> Float32:
        """`back` of a lane group (entry, lane)."""
        ...

    def computed(self, function: Callable[[Float32], Float32], slab: Float32, *, slice_bytes: int, who: str) -> Float32:
        """``function(slab)``, on the device that this engine and this process compute on."""
        ...


class Native:
    """The package's own kernels: Joseph's projector and its exact transpose."""

    def forward(self, images: Float32, angles_deg: Float64, axis: Axis | None = None) -> Float32:
        """Project (slice, y, x) to (slice, angle, detector)."""
        return kernel.forward(images, np.deg2rad(angles_deg), axis)

    def back(self, sinograms: Float32, angles_deg: Float64, axis: Axis | None = None) -> Float32:
        """Backproject (slice, angle, detector) to (slice, y, x)."""
        return kernel.back(sinograms, np.deg2rad(angles_deg), axis)

    def forward_lanes(self, images: Float32, angles_deg: Float64, size: int, axis: Axis | None = None) -> Float32:
        """Project a lane group (pixel, lane)."""
        width = images.shape[1]
        return kernel.forward_lanes(images.reshape(-1), np.deg2rad(angles_deg), size, width, axis).reshape(-1, width)

    def back_lanes(self, sinograms: Float32, angles_deg: Float64, size: int, axis: Axis | None = None) -> Float32:
        """Backproject a lane group (entry, lane)."""
        width = sinograms.shape[1]
        return kernel.back_lanes(sinograms.reshape(-1), np.deg2rad(angles_deg), size, width, axis).reshape(-1, width)

    def computed(self, function: Callable[[Float32], Float32], slab: Float32, *, slice_bytes: int, who: str) -> Float32:
        """``function(slab)`` where the slab lies, or through the GPU of this process: see `compute.streams`."""
        volume: Float32 = streams.streamed(function, slab, slice_bytes=slice_bytes, who=who)
        return volume


class Astra:
    """The ASTRA toolbox; blocks in host memory only."""

    def forward(self, images: Float32, angles_deg: Float64, axis: Axis | None = None) -> Float32:
        """Project (slice, y, x) to (slice, angle, detector)."""
        return astra.forward(images, angles_deg, axis)

    def back(self, sinograms: Float32, angles_deg: Float64, axis: Axis | None = None) -> Float32:
        """Backproject (slice, angle, detector) to (slice, y, x)."""
        return astra.back(sinograms, angles_deg, axis)

    def forward_lanes(self, images: Float32, angles_deg: Float64, size: int, axis: Axis | None = None) -> Float32:
        """Project a lane group (pixel, lane): unpacked, projected, packed again."""
        width = images.shape[1]
        slices = layout.image_from_lanes(images.reshape(-1), (width, size, size))
        return layout.sinogram_to_lanes(self.forward(slices, angles_deg, axis), width).reshape(-1, width)

    def back_lanes(self, sinograms: Float32, angles_deg: Float64, size: int, axis: Axis | None = None) -> Float32:
        """Backproject a lane group (entry, lane)."""
        width = sinograms.shape[1]
        rows = layout.sinogram_from_lanes(sinograms.reshape(-1), (width, angles_deg.size, size))
        return layout.image_to_lanes(self.back(rows, angles_deg, axis), width).reshape(-1, width)

    def computed(self, function: Callable[[Float32], Float32], slab: Float32, *, slice_bytes: int, who: str) -> Float32:
        """``function(slab)`` on the CPU; ASTRA itself uses a GPU where it sees one."""
        return function(device.on_host(slab, who=f'{who} with engine="astra"'))


ENGINES: dict[str, Engine] = {"native": Native(), "astra": Astra()}


def engine(name: str, *, who: str) -> Engine:
    """The engine of that name.

    Raises
    ------
    SchemaError
        There is no such engine.
    """
    if name not in ENGINES:
        refuse(who, needs='engine "native" or "astra"', got=f"{name!r}", remedy='`engine="native"`')
    return ENGINES[name]


def outlook(name: str, series: xr.DataArray, *, passes: float) -> list[str]:
    """A warning where the chosen engine takes long for so many projections and backprojections of a series."""
    if name != "astra" or astra.uses_gpu():
        return []
    count = passes * series.size * series.sizes[schema.DETECTOR] / cluster.current_workers()
    seconds = {one: count * each for one, each in _SECONDS.items()}
    if seconds[name] < _LONG:
        return []
    return [
        f"warning: --engine {name} computes on the CPU here and takes {_duration(seconds[name])}, --engine native "
        f"{_duration(seconds['native'])}"
    ]


def _duration(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"
