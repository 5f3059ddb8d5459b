"""Simultaneous iterative reconstruction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import chunking, device, reporting, streams
from nntomo_dask.kernels import iterate, layout
from nntomo_dask.projection import engines
from nntomo_dask.projection.engines import ENGINE_HELP, EngineName
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import METHODS
from nntomo_dask.reconstruction.measured import least_value
from nntomo_dask.reconstruction.method import Method, Scalar, reconstruct
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Float64

Tolerance = float | Literal["auto"]
Minimum = float | Literal["auto"] | None

# The automatic stop, see docs/theory.md: where the misfit falls no faster than this power of the iteration, or an
# iteration lowers it by no more than this share.
_FLAT, _LEAST_DECREASE = 0.12, 5e-4
_TYPICAL = 65  # iterations, for an estimate of the time
_FIRST_STOP = 5  # iterations before which a slice is not stopped by itself


@METHODS.register
@dataclass(frozen=True)
class Sirt(Method):
    """``x ← max(x + C Aᵀ R (y - A x), minimum)`` from zero; see `sirt`."""

    name: ClassVar[str] = "sirt"
    title: ClassVar[str] = "SIRT"
    summary: ClassVar[str] = "iterative least squares with values of at least 0; the one to compare others with"
    published: ClassVar[Mapping[str, Any]] = {"tolerance": 0.01, "minimum": None}

    tolerance: Tolerance = setting(
        "auto",
        help="A slice stops when an iteration lowers its misfit to the projections by this share or less: 0.01 is 1 %. "
        "auto: when the misfit flattens out, which comes sooner the more noise there is.",
        least=0,
        below=1,
    )
    max_iterations: int = setting(1000, help="A slice stops after so many iterations in any case.", least=1)
    minimum: Minimum = setting(
        "auto",
        help="Lower bound of the voxels, kept in every iteration. auto: 0, unless line integrals are negative by more "
        "than noise. none: no bound.",
    )
    engine: EngineName = setting("native", help=ENGINE_HELP)

    def prepare(self, series: xr.DataArray) -> tuple[Scalar, ...]:
        """The lower bound, where the series decides."""
        return (least_value(series, who=self.name),) if self.minimum == "auto" else ()

    def prepare_at(self, level: float) -> tuple[Scalar, ...]:
        """The lower bound for phantoms, whose values are not negative."""
        return (0.0,) if self.minimum == "auto" else ()

    def slab(self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None) -> Float32:
        """Reconstruct rows (slice, angle, detector) to (slice, y, x)."""
        pair = Projector(angles_deg, rows.shape[-1], self.engine, axis)
        given = (prepared[0] if prepared else 0.0) if self.minimum == "auto" else self.minimum
        solver = partial(
            _solve,
            pair=pair,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            minimum=-np.inf if given is None else given,
        )
        need = self.device_bytes_per_slice((len(rows), angles_deg.size, rows.shape[-1]))
        return pair.computed(partial(pair.run, solver), rows, slice_bytes=need, who=self.name)

    def host_bytes(self, shape: chunking.SlabShape) -> int:
        """Slab in and out; three lane groups of images, four of rows."""
        slices, angles, detector = shape
        image, rows = chunking.image_bytes(detector), chunking.rows_bytes(angles, detector)
        lanes = layout.lane_width(slices, chunking.SLAB_SLICES)
        in_and_out = slices * (chunking.WRITTEN * image + chunking.READ * rows)
        return in_and_out + 3 * layout.padded_image_bytes(detector, lanes) + 4 * lanes * rows

    def device_bytes_per_slice(self, shape: chunking.SlabShape) -> int:
        """Image, gradient and the volume in both orders; measured, projected and weighted rows."""
        _, angles, detector = shape
        between = 4 * streams.bordered_image_bytes(detector) + 5 * streams.padded_rows_bytes(angles, detector)
        return streams.copied_bytes(angles, detector) + between

    def outlook(self, series: xr.DataArray, prepared: Sequence[float]) -> list[str]:
        """That voxels may be negative, where the series decided so; and that an engine is slow."""
        lines = engines.outlook(self.engine, series, passes=2 * self._expected_iterations)
        if self.minimum == "auto" and prepared[0] < 0:
            lines.append(
                "note: line integrals are negative by more than noise, so voxels may be negative too; --minimum 0 does "
                "not allow it"
            )
        return lines

    @property
    def _expected_iterations(self) -> int:
        return self.max_iterations if self.tolerance == 0 else min(self.max_iterations, _TYPICAL)

    @classmethod
    def as_input(cls, **networks: Any) -> "Sirt":
        """Non-negative, and nearly converged."""
        return cls(minimum=0, tolerance=1e-3, **networks)

    @classmethod
    def candidates(cls, **networks: Any) -> "Sequence[Sirt]":
        """What stops by itself; then with a lower bound, stopped early, which suppresses noise, and late; or none."""
        bounded = [cls(minimum=0.0, tolerance=tolerance, **networks) for tolerance in (1e-2, 3e-3, 1e-3, 3e-4)]
        return [cls(**networks), *bounded, cls(minimum=None, tolerance=0.01, **networks)]


def sirt(
    series: xr.DataArray,
    *,
    tolerance: Tolerance = "auto",
    max_iterations: int = 1000,
    minimum: Minimum = "auto",
    engine: EngineName = "native",
) -> xr.DataArray:
    """Reconstruct a tilt series by SIRT.

    ``x ← max(x + C Aᵀ R (y - A x), minimum)`` from zero, with A Joseph's projector and C, R the inverses of its column
    and row sums. Each slice stops by itself, by its own residual norm ``‖A x - y‖₂``; so chunking never changes a
    result. Slices without signal are zero. Lazy. ``tolerance=0.01, minimum=None`` are the settings of [2]_.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; angle and detector in one chunk each. Values are line integrals, [u · px].
    tolerance
        Relative decrease of the residual norm by an iteration at which a slice stops. "auto": 0.12 divided by the
        number of the iteration, from the fifth on, or 5e-4: the residual then falls no faster than the power -0.12 of
        the iterations, as it does where only noise is left to be fitted. See docs/theory.md for what that gains.
    max_iterations
        A slice stops after so many iterations in any case.
    minimum
        Lower bound of the voxels, [u], kept in every iteration; None for no bound. "auto": 0, unless line integrals are
        negative by more than noise (in up to 16 slices, those beyond four deviations have over 1 % of all squares).
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
    .. [1] A. van der Sluis and H. A. van der Vorst, Linear Algebra Appl. 130 (1990) 257.
    .. [2] A. Branchut, Machine Learning for Transmission Electron Microscopy Tomography, 2024, Eqs. 7 and 11 (there
       the sign of the decrease is reversed).
    """
    return reconstruct(series, Sirt(tolerance=tolerance, max_iterations=max_iterations, minimum=minimum, engine=engine))


def _solve(measured: Float32, *, pair: Projector, tolerance: Tolerance, max_iterations: int, minimum: float) -> Float32:
    """SIRT on one lane group (entry, lane), until its last lane has stopped; returns the images (pixel, lane)."""
    xp = device.namespace(measured)
    row_weights, column_weights = pair.inverse_sums(measured)
    images = pair.zeros(measured)
    weighted = xp.empty_like(measured)
    norms = iterate.residual(measured, xp.zeros_like(measured), row_weights, weighted)
    active = norms > 0
    bound = np.float32(minimum)
    counts = xp.zeros(active.shape, np.int32)
    for iteration in range(1, max_iterations + 1):
        if not active.any():
            break
        counts += active
        iterate.step(images, pair.back(weighted), column_weights, active, bound)
        previous = norms
        norms = iterate.residual(measured, pair.forward(images), row_weights, weighted)
        # A lane that has stopped is no longer changed, so its norm stays and so does this.
        active = active & ~stops(tolerance, iteration, previous, norms)
    reporting.add(device.to_host(counts), unfinished=device.to_host(active))
    return images


def stops(tolerance: Tolerance, iteration: int, before: Float64, after: Float64) -> npt.NDArray[np.bool_]:
    """Which slices (slice,) stop after an iteration, counted from 1, by their residual norms before and after it."""
    least = float(tolerance) if tolerance != "auto" else max(_FLAT / iteration, _LEAST_DECREASE)
    if tolerance == "auto" and iteration < _FIRST_STOP:
        least = 0.0
    stopped: npt.NDArray[np.bool_] = ~(before - after > least * before)
    return stopped
