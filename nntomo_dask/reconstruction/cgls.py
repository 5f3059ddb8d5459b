"""Conjugate gradients for least squares, optionally damped."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import chunking, device, reporting, streams
from nntomo_dask.kernels import layout
from nntomo_dask.projection import engines
from nntomo_dask.projection.engines import ENGINE_HELP, EngineName
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import METHODS, measured as of_series
from nntomo_dask.reconstruction.method import Method, Scalar, reconstruct
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Float64

Iterations = int | Literal["auto"]

_TYPICAL = 10  # iterations, for an estimate of the time
# The automatic stop beside the noise, see docs/theory.md: most iterations; where the misfit falls no faster than this
# power of the iteration; or an iteration lowers it by no more than this share.
_MOST, _FLAT, _LEAST_DECREASE = 100, 0.4, 0.01
_FIRST_STOP = 3  # iterations before which the power says little


@METHODS.register
@dataclass(frozen=True)
class Cgls(Method):
    """Minimise ``‖A x - y‖² + damping² ‖x‖²`` by conjugate gradients; see `cgls`."""

    name: ClassVar[str] = "cgls"
    title: ClassVar[str] = "CGLS"
    summary: ClassVar[str] = "least squares by conjugate gradients, in a few iterations"

    iterations: Iterations = setting(
        "auto",
        help="Iterations from zero. Few of them suppress noise: each one fits finer structure, and more of the noise. "
        "auto: a slice stops when its misfit to the projections is no more than their noise, or flattens out.",
        least=1,
    )
    damping: float = setting(
        0.0, help="Weight of the volume's norm (Tikhonov regularisation); 0 fits the projections alone.", least=0
    )
    engine: EngineName = setting("native", help=ENGINE_HELP)

    def prepare(self, series: xr.DataArray) -> tuple[Scalar, ...]:
        """Gain, read-out noise and background, where they decide when to stop."""
        return of_series.noise(series, who=self.name) if self.iterations == "auto" else ()

    def prepare_at(self, level: float) -> tuple[Scalar, ...]:
        """The noise of a network's inputs is not known: they stop where the misfit flattens out."""
        return (0.0, 0.0, 0.0) if self.iterations == "auto" else ()

    def slab(self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None) -> Float32:
        """Reconstruct rows (slice, angle, detector) to (slice, y, x)."""
        pair = Projector(angles_deg, rows.shape[-1], self.engine, axis)
        solver = partial(
            _solve, pair=pair, iterations=self.iterations, damping=self.damping, noise=prepared or (0.0, 0.0, 0.0)
        )
        need = self.device_bytes_per_slice((len(rows), angles_deg.size, rows.shape[-1]))
        return pair.computed(partial(pair.run, solver), rows, slice_bytes=need, who=self.name)

    def outlook(self, series: xr.DataArray, prepared: Sequence[float]) -> list[str]:
        """That an engine is slow."""
        iterations = _TYPICAL if self.iterations == "auto" else self.iterations
        return engines.outlook(self.engine, series, passes=2 * iterations + 1)

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
        """What stops by itself; then a few iterations, which suppress noise, and more."""
        return [cls(**networks), *(cls(iterations=iterations, **networks) for iterations in (5, 10, 20))]


def cgls(
    series: xr.DataArray, *, iterations: Iterations = "auto", damping: float = 0.0, engine: EngineName = "native"
) -> xr.DataArray:
    """Reconstruct a tilt series by conjugate gradients on the normal equations.

    Minimises ``‖A x - y‖² + damping² ‖x‖²`` over each slice, from zero, with A Joseph's projector. It converges in far
    fewer iterations than SIRT, and fits noise sooner. A slice whose gradient has vanished stays as it is. Lazy.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; angle and detector in one chunk each. Values are line integrals, [u · px].
    iterations
        From zero; the only regularisation where `damping` is 0. "auto": a slice stops at the first one after which
        ``‖A x - y‖`` is no more than the noise of the series would make it (the discrepancy principle [2]_), or that
        lowers it by no more than 1 %, or by 0.4 divided by their number from the third on; at most 100.
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
    .. [2] V. A. Morozov, Soviet Math. Dokl. 7 (1966) 414.
    """
    return reconstruct(series, Cgls(iterations=iterations, damping=damping, engine=engine))


def _solve(
    measured: Float32,
    *,
    pair: Projector,
    iterations: Iterations,
    damping: float,
    noise: Sequence[float],
) -> Float32:
    """CGLS on one lane group (entry, lane); returns the images (pixel, lane)."""
    images, residual = pair.zeros(measured), measured.copy()
    damped = np.float32(damping**2)
    gradient = pair.back(residual)
    direction = gradient.copy()
    power = _squares(gradient)
    stop = _Stop(measured, pair, noise) if iterations == "auto" else None
    counts = 0 * power
    for iteration in range(1, 1 + (_MOST if iterations == "auto" else iterations)):
        active = power > 0 if stop is None else stop.active
        if not active.any():
            break
        counts = counts + active
        projected = pair.forward(direction)
        curvature = _squares(projected) + damped * _squares(direction)
        step = _ratio(power, curvature) * active
        images += step * direction
        residual -= step * projected
        gradient = pair.back(residual) - damped * images
        before, power = power, _squares(gradient)
        direction = gradient + _ratio(power, before) * direction
        if stop is not None:
            stop.look(residual, iteration)
    reporting.add(device.to_host(counts))
    return images


class _Stop:
    """Which lanes of a group go on: those whose misfit is above the noise, and still falls."""

    def __init__(self, measured: Float32, pair: Projector, noise: Sequence[float]) -> None:
        gain, read_noise, background = noise
        # Without the entries beyond the detector, which are padding.
        lanes = measured.reshape(pair.angles_deg.size, -1, measured.shape[1])
        seen = lanes[:, layout.DETECTOR_FRONT : layout.DETECTOR_FRONT + pair.size].reshape(-1, measured.shape[1])
        above = (seen - np.float32(background)).clip(0).sum(axis=0, dtype=np.float64)
        self.noise = len(seen) * read_noise**2 + gain * above
        self.squares = _squares(measured)
        self.active = self.squares > 0

    def look(self, residual: Float32, iteration: int) -> None:
        """After an iteration, counted from 1."""
        least = max(_FLAT / iteration, _LEAST_DECREASE) if iteration >= _FIRST_STOP else _LEAST_DECREASE
        before, self.squares = self.squares, _squares(residual)
        falls = self.squares < (1 - least) ** 2 * before
        self.active = self.active & falls & (self.squares > self.noise)


def _squares(values: Float32) -> Float64:
    """Sum of squares of each lane (…, lane), in double precision."""
    squares: Float64 = (values * values).sum(axis=0, dtype=np.float64)
    return squares


def _ratio(numerator: Float64, denominator: Float64) -> Float32:
    """Of each lane; 0 where a lane has converged or is empty."""
    positive = denominator > 0
    ratio: Float32 = (numerator / (denominator + ~positive) * positive).astype(np.float32)  # where the lanes lie
    return ratio
