"""Conjugate gradients for least squares, optionally damped."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import chunking, streams
from nntomo_dask.kernels import layout
from nntomo_dask.projection.engines import ENGINE_HELP, EngineName
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import METHODS
from nntomo_dask.reconstruction.method import Method, reconstruct
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Float64


@METHODS.register
@dataclass(frozen=True)
class Cgls(Method):
    """Minimise ``‖A x - y‖² + damping² ‖x‖²`` by conjugate gradients; see `cgls`."""

    name: ClassVar[str] = "cgls"
    title: ClassVar[str] = "CGLS"
    summary: ClassVar[str] = "least squares by conjugate gradients, in a few iterations"

    iterations: int = setting(
        10,
        help="Iterations from zero. Few of them suppress noise: each one fits finer structure, and more of the noise.",
        least=1,
    )
    damping: float = setting(
        0.0, help="Weight of the volume's norm (Tikhonov regularisation); 0 fits the projections alone.", least=0
    )
    engine: EngineName = setting("native", help=ENGINE_HELP)

    def slab(self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None) -> Float32:
        """Reconstruct rows (slice, angle, detector) to (slice, y, x)."""
        pair = Projector(angles_deg, rows.shape[-1], self.engine, axis)
        solver = partial(_solve, pair=pair, iterations=self.iterations, damping=self.damping)
        need = self.device_bytes_per_slice((len(rows), angles_deg.size, rows.shape[-1]))
        return pair.computed(partial(pair.run, solver), rows, slice_bytes=need, who=self.name)

    def host_bytes(self, shape: chunking.SlabShape) -> int:
        """Slab in and out; lane groups of the image, its gradient, direction and a temporary, and of four rows."""
        slices, angles, detector = shape
        image, rows = chunking.image_bytes(detector), chunking.rows_bytes(angles, detector)
        lanes = layout.lane_width(slices, chunking.SLAB_SLICES)
        in_and_out = slices * (chunking.WRITTEN * image + chunking.READ * rows)
        return in_and_out + 5 * layout.padded_image_bytes(detector, lanes) + 5 * lanes * rows

    def device_bytes_per_slice(self, shape: chunking.SlabShape) -> int:
        """The same lane groups, and the volume in both orders."""
        _, angles, detector = shape
        between = 7 * streams.bordered_image_bytes(detector) + 5 * streams.padded_rows_bytes(angles, detector)
        return streams.copied_bytes(angles, detector) + between

    @classmethod
    def candidates(cls, **networks: Any) -> "Sequence[Cgls]":
        """A few iterations, which suppress noise, and more."""
        return [cls(iterations=iterations, **networks) for iterations in (5, 10, 20)]


def cgls(
    series: xr.DataArray, *, iterations: int = 10, damping: float = 0.0, engine: EngineName = "native"
) -> xr.DataArray:
    """Reconstruct a tilt series by conjugate gradients on the normal equations.

    Minimises ``‖A x - y‖² + damping² ‖x‖²`` over each slice, from zero, with A Joseph's projector. It converges in far
    fewer iterations than SIRT, and fits noise sooner. A slice whose gradient has vanished stays as it is. Lazy.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; angle and detector in one chunk each. Values are line integrals, [u · px].
    iterations
        From zero; the only regularisation where `damping` is 0.
    damping
        Weight of the norm of the volume, [px]; Tikhonov regularisation.
    engine
        Whose projector pair; see `project`.

    Returns
    -------
    Dims (z, y, x), float32, in [u].

    Raises
    ------
    SchemaError
        `series` is no tilt series, or a parameter is out of range. When it is computed: a value is NaN or infinite.

    References
    ----------
    .. [1] C. C. Paige and M. A. Saunders, LSQR, ACM Trans. Math. Softw. 8 (1982) 43, doi:10.1145/355984.355989.
    """
    return reconstruct(series, Cgls(iterations=iterations, damping=damping, engine=engine))


def _solve(measured: Float32, *, pair: Projector, iterations: int, damping: float) -> Float32:
    """CGLS on one lane group (entry, lane); returns the images (pixel, lane)."""
    images, residual = pair.zeros(measured), measured.copy()
    damped = np.float32(damping**2)
    gradient = pair.back(residual)
    direction = gradient.copy()
    power = _squares(gradient)
    for _ in range(iterations):
        projected = pair.forward(direction)
        curvature = _squares(projected) + damped * _squares(direction)
        step = _ratio(power, curvature)
        images += step * direction
        residual -= step * projected
        gradient = pair.back(residual) - damped * images
        before, power = power, _squares(gradient)
        direction = gradient + _ratio(power, before) * direction
    return images


def _squares(values: Float32) -> Float64:
    """Sum of squares of each lane (…, lane), in double precision."""
    squares: Float64 = (values * values).sum(axis=0, dtype=np.float64)
    return squares


def _ratio(numerator: Float64, denominator: Float64) -> Float32:
    """Of each lane; 0 where a lane has converged or is empty."""
    positive = denominator > 0
    ratio: Float32 = (numerator / (denominator + ~positive) * positive).astype(np.float32)  # where the lanes lie
    return ratio
