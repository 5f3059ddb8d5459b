"""Simultaneous iterative reconstruction."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import chunking, device, streams
from nntomo_dask.kernels import iterate, layout
from nntomo_dask.projection.engines import ENGINE_HELP, EngineName
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import METHODS
from nntomo_dask.reconstruction.method import Method, reconstruct
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Float64


@METHODS.register
@dataclass(frozen=True)
class Sirt(Method):
    """``x ← max(x + C Aᵀ R (y - A x), minimum)`` from zero; see `sirt`."""

    name: ClassVar[str] = "sirt"
    title: ClassVar[str] = "SIRT"
    summary: ClassVar[str] = (
        "iterative least squares; with --minimum 0 and a small --tolerance the one to compare others with"
    )

    tolerance: float = setting(
        0.01,
        help="A slice stops when an iteration lowers its misfit to the projections by this share or less: 0.01 is 1 %.",
        least=0,
        below=1,
    )
    max_iterations: int = setting(1000, help="A slice stops after so many iterations in any case.", least=1)
    minimum: float | None = setting(
        None, help="Lower bound of the voxels, kept in every iteration; 0 for matter, which cannot be negative."
    )
    engine: EngineName = setting("native", help=ENGINE_HELP)

    def slab(self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None) -> Float32:
        """Reconstruct rows (slice, angle, detector) to (slice, y, x)."""
        pair = Projector(angles_deg, rows.shape[-1], self.engine, axis)
        solver = partial(
            _solve,
            pair=pair,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            minimum=self.minimum,
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

    @classmethod
    def as_input(cls, **networks: Any) -> "Sirt":
        """Non-negative, and nearly converged."""
        return cls(minimum=0, tolerance=1e-3, **networks)

    @classmethod
    def candidates(cls, **networks: Any) -> "Sequence[Sirt]":
        """With and without a lower bound; stopped early, which suppresses noise, and late."""
        bounded = [cls(minimum=0.0, tolerance=tolerance, **networks) for tolerance in (1e-2, 3e-3, 1e-3, 3e-4)]
        return [*bounded, cls(minimum=None, tolerance=0.01, **networks)]


def sirt(
    series: xr.DataArray,
    *,
    tolerance: float = 0.01,
    max_iterations: int = 1000,
    minimum: float | None = None,
    engine: EngineName = "native",
) -> xr.DataArray:
    """Reconstruct a tilt series by SIRT.

    ``x ← x + C Aᵀ R (y - A x)`` from zero, with A Joseph's projector and C, R the inverses of its column and row sums.
    Each slice stops by itself, at the first iteration that lowers its residual norm ``‖A x - y‖₂`` by no more than
    `tolerance` of it; so chunking never changes a result. Slices without signal are zero. Lazy.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; angle and detector in one chunk each. Values are line integrals, [u · px].
    tolerance
        Relative decrease of the residual at which a slice stops; 0.01 is that of Branchut (2024).
    max_iterations
        A slice stops after so many iterations in any case.
    minimum
        Lower bound of the voxels, [u], kept in every iteration; 0 for matter, which cannot be negative.
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


def _solve(
    measured: Float32, *, pair: Projector, tolerance: float, max_iterations: int, minimum: float | None
) -> Float32:
    """SIRT on one lane group (entry, lane), until its last lane has stopped; returns the images (pixel, lane)."""
    xp = device.namespace(measured)
    row_weights, column_weights = pair.inverse_sums(measured)
    images = pair.zeros(measured)
    weighted = xp.empty_like(measured)
    norms = iterate.residual(measured, xp.zeros_like(measured), row_weights, weighted)
    active = norms > 0
    bound = np.float32(-np.inf if minimum is None else minimum)
    for _ in range(max_iterations):
        if not active.any():
            break
        iterate.step(images, pair.back(weighted), column_weights, active, bound)
        previous = norms
        norms = iterate.residual(measured, pair.forward(images), row_weights, weighted)
        # A lane that has stopped is no longer changed, so its norm stays and this stays false.
        active = active & (previous - norms > tolerance * previous)
    return images
