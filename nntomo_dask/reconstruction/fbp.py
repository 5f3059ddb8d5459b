"""Filtered backprojection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from nntomo_dask.arrays import geometry, schema
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import chunking, device, streams
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import astra, backproject as kernel, filters, layout
from nntomo_dask.projection import engines
from nntomo_dask.projection.engines import ENGINE_HELP, EngineName
from nntomo_dask.reconstruction import METHODS
from nntomo_dask.reconstruction.method import Method, reconstruct
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Float64


@METHODS.register
@dataclass(frozen=True)
class Fbp(Method):
    """Filter every projection by a windowed ramp, and backproject; see `fbp`."""

    name: ClassVar[str] = "fbp"
    title: ClassVar[str] = "FBP"
    summary: ClassVar[str] = "filtered backprojection: fast, with streaks where projections are few"
    published: ClassVar[Mapping[str, Any]] = {"window": "ram-lak"}

    window: filters.Window = setting(
        "hann", help="Window of the ramp filter: ram-lak is the sharpest, hann suppresses noise and streaks most."
    )
    engine: EngineName = setting("native", help=ENGINE_HELP)

    def check(self, series: xr.DataArray) -> None:
        """Raise a SchemaError where the series is none, a setting is out of range, or both do not fit."""
        super().check(series)
        axis, size = schema.axis_of(series), series.sizes[schema.DETECTOR]
        if self.engine == "astra" and axis != Axis.centred(size):
            refuse(
                self.name,
                needs='the tilt axis in the middle of the detector for engine="astra"',
                got=f"it at pixel {axis.x:g} of {size}",
                remedy='`engine="native"`',
            )

    def slab(self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None) -> Float32:
        """Reconstruct rows (slice, angle, detector) to (slice, y, x)."""
        # ASTRA filters by itself, so that the two engines differ in more than the projector.
        kernels = _native if self.engine == "native" else _astra
        function = partial(kernels, angles_deg=angles_deg, window=self.window, axis=axis)
        need = self.device_bytes_per_slice((len(rows), angles_deg.size, rows.shape[-1]))
        chosen = engines.engine(self.engine, who=self.name)
        return chosen.computed(function, rows, slice_bytes=need, who=self.name)

    def host_bytes(self, shape: chunking.SlabShape) -> int:
        """Slab in and out; rows weighted and filtered, their spectra before and after."""
        slices, angles, detector = shape
        image, rows = chunking.image_bytes(detector), chunking.rows_bytes(angles, detector)
        each = chunking.WRITTEN * image + (chunking.READ + 2) * rows + 2 * chunking.spectrum_bytes(angles, detector)
        return slices * each + layout.lane_width(slices, chunking.SLAB_SLICES) * rows

    def device_bytes_per_slice(self, shape: chunking.SlabShape) -> int:
        """Spectra before and after the filter, padded rows before and after, the transform's own; rows as lanes."""
        _, angles, detector = shape
        row = streams.padded_rows_bytes(angles, detector)
        return streams.copied_bytes(angles, detector) + 2 * row + 5 * 2 * row

    def outlook(self, series: xr.DataArray, prepared: Sequence[float]) -> list[str]:
        """That an engine is slow."""
        return engines.outlook(self.engine, series, passes=1)

    @classmethod
    def candidates(cls, **networks: Any) -> "Sequence[Fbp]":
        """The smoothest window and the sharpest one."""
        windows: tuple[filters.Window, ...] = ("hann", "ram-lak")
        return [cls(window=window, **networks) for window in windows]

    @classmethod
    def as_input(cls, **networks: Any) -> "Fbp":
        """As sharp as can be; the network suppresses noise by itself."""
        return cls(window="ram-lak", **networks)


def fbp(series: xr.DataArray, *, window: filters.Window = "hann", engine: EngineName = "native") -> xr.DataArray:
    """Reconstruct a tilt series by filtered backprojection.

    Lazy: nothing is computed until the result is saved. Chunks along z are kept. A projection counts with the width of
    its angular cell, so that unequal steps do no harm; a missing wedge is left missing.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; angle and detector in one chunk each. Values are line integrals, [u · px].
    window
        Window of the ramp filter, from the sharpest: "ram-lak" (of [1]_), "shepp-logan", "cosine", "hamming", "hann".
        The last has the least error where projections are few or noisy; see docs/theory.md.
    engine
        "native": the package's kernels. "astra": the ASTRA toolbox, whose backprojector interpolates in the image.

    Returns
    -------
    Dims (z, y, x), float32, in [u]; y and x take the detector's coordinate.

    Raises
    ------
    SchemaError
        `series` is no tilt series, there is no such window or engine, or ASTRA's filtered backprojection is asked for
        with the tilt axis elsewhere than in the middle of the detector. When it is computed: a value is NaN or
        infinite.

    References
    ----------
    .. [1] Kak & Slaney, Principles of Computerized Tomographic Imaging, SIAM, 2001, §3.3.
    """
    return reconstruct(series, Fbp(window=window, engine=engine))


def _astra(rows: Float32, *, angles_deg: Float64, window: filters.Window, axis: Axis | None) -> Float32:
    shares = geometry.angular_cells(angles_deg).astype(np.float32)
    weighted = rows * (shares * np.float32(angles_deg.size))[None, :, None]  # ASTRA itself multiplies by π / count
    return astra.fbp(weighted, angles_deg, window=window, axis=axis)


def _native(rows: Float32, *, angles_deg: Float64, window: filters.Window, axis: Axis | None) -> Float32:
    shares = geometry.angular_cells(angles_deg).astype(np.float32)
    weighted = rows * device.namespace(rows).asarray(np.float32(np.pi) * shares)[None, :, None]
    filtered = filters.filter_rows(weighted, filters.ramp(rows.shape[-1], window=window)[None, None])[:, 0]
    return kernel.backproject(filtered, np.deg2rad(angles_deg), axis)
