"""Simultaneous iterative reconstruction."""

import functools
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import schema, slabs
from nntomo_dask.compute import device, streams
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import astra as astra_engine
from nntomo_dask.kernels import iterate, layout
from nntomo_dask.kernels import project as kernel
from nntomo_dask.projection import project as projection

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# A ray or a pixel whose weights sum to less lies outside the field of view and has no part in the iteration.
_LEAST_WEIGHT = 1e-6


def sirt(
    series: xr.DataArray,
    *,
    tolerance: float = 0.01,
    max_iterations: int = 1000,
    minimum: float | None = None,
    engine: projection.Engine = "native",
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
        Relative decrease of the residual at which a slice stops; 0.01 is the report's.
    max_iterations
        After which a slice stops anyway.
    minimum
        Lower bound of the voxels, [u], enforced in every iteration; 0 for matter that cannot be negative.
    engine
        Whose projector pair; see `projection.project`.

    Returns
    -------
    Dims (z, y, x), float32, in [u].

    Raises
    ------
    SchemaError
        `series` is no tilt series, or a parameter is out of range.

    References
    ----------
    .. [1] A. van der Sluis and H. A. van der Vorst, Linear Algebra Appl. 130 (1990) 257.
    .. [2] A. Branchut, Machine Learning for Transmission Electron Microscopy Tomography, 2024, Eqs. 7 and 11 (there
       with the sign of the decrease turned).
    """
    schema.check_tilt_series(series, who="sirt")
    projection.check_engine("sirt", engine)
    if not 0 <= tolerance < 1:
        refuse("sirt", needs="a tolerance in [0, 1)", got=f"{tolerance}", remedy="tolerance=0.01")
    if max_iterations < 1:
        refuse("sirt", needs="at least 1 iteration", got=f"{max_iterations}", remedy="max_iterations=1000")
    parameters: dict[str, Any] = {
        "tolerance": tolerance,
        "max_iterations": max_iterations,
        "minimum": minimum,
        "engine": engine,
    }
    return slabs.map_slabs(
        sirt_slab,
        series,
        dims=schema.VOLUME_DIMS,
        coords=projection.slice_coords(series),
        recipe=slabs.record("sirt", parameters, [series]),
        name="volume",
        angles_deg=series[schema.ANGLE].values,
        **parameters,
    )


class _Operator(Protocol):
    """A projector pair on lane groups: images (pixel, lane) and sinograms (entry, lane), padded as `layout` says."""

    def forward(self, images: Float32) -> Float32: ...
    def back(self, sinograms: Float32) -> Float32: ...


class _NativeOperator:
    def __init__(self, angles_deg: Float64, n: int) -> None:
        self.angles_rad, self.n = np.deg2rad(angles_deg), n

    def forward(self, images: Float32) -> Float32:
        width = images.shape[1]
        return kernel.forward_lanes(images.reshape(-1), self.angles_rad, self.n, width).reshape(-1, width)

    def back(self, sinograms: Float32) -> Float32:
        width = sinograms.shape[1]
        return kernel.back_lanes(sinograms.reshape(-1), self.angles_rad, self.n, width).reshape(-1, width)


class _AstraOperator:
    def __init__(self, angles_deg: Float64, n: int) -> None:
        self.angles_deg, self.n = angles_deg, n

    def forward(self, images: Float32) -> Float32:
        width = images.shape[1]
        slices = layout.image_from_lanes(images.reshape(-1), (width, self.n, self.n))
        return layout.sinogram_to_lanes(astra_engine.forward(slices, self.angles_deg), width).reshape(-1, width)

    def back(self, sinograms: Float32) -> Float32:
        width = sinograms.shape[1]
        rows = layout.sinogram_from_lanes(sinograms.reshape(-1), (width, self.angles_deg.size, self.n))
        return layout.image_to_lanes(astra_engine.back(rows, self.angles_deg), width).reshape(-1, width)


def sirt_slab(
    slab: Float32,
    *,
    angles_deg: Float64,
    tolerance: float,
    max_iterations: int,
    minimum: float | None,
    engine: projection.Engine,
) -> Float32:
    """`sirt` of a plain (slice, angle, detector)."""
    run = functools.partial(
        _sirt,
        angles_deg=angles_deg,
        tolerance=tolerance,
        max_iterations=max_iterations,
        minimum=minimum,
        engine=engine,
    )
    if engine == "astra":
        return run(device.on_host(slab, who='sirt with engine="astra"'))
    volume: Float32 = streams.streamed(
        run,
        slab,
        slice_bytes=streams.bytes_of_slice("sirt", angles=angles_deg.size, detector=slab.shape[-1]),
        who="sirt",
    )
    return volume


def _sirt(
    slab: Float32,
    *,
    angles_deg: Float64,
    tolerance: float,
    max_iterations: int,
    minimum: float | None,
    engine: projection.Engine,
) -> Float32:
    xp = device.namespace(slab)
    n_slices, _, n = slab.shape
    operator: _Operator = (_NativeOperator if engine == "native" else _AstraOperator)(angles_deg, n)
    row_weights, column_weights = (xp.asarray(one) for one in _weights(engine, tuple(angles_deg.tolist()), n))
    width = kernel.group_width(slab)
    volume: Float32 = xp.empty((n_slices, n, n), np.float32)
    for z in range(0, n_slices, width):
        group = slab[z : z + width]
        measured = layout.sinogram_to_lanes(group, width).reshape(-1, width)
        images = _iterate(operator, measured, row_weights, column_weights, tolerance, max_iterations, minimum)
        volume[z : z + width] = layout.image_from_lanes(images.reshape(-1), (len(group), n, n))
    return volume


def _iterate(
    operator: _Operator,
    measured: Float32,
    row_weights: Float32,
    column_weights: Float32,
    tolerance: float,
    max_iterations: int,
    minimum: float | None,
) -> Float32:
    """SIRT on one lane group until its last lane has stopped; gives the images."""
    xp = device.namespace(measured)
    images: Float32 = xp.zeros((column_weights.size, measured.shape[1]), np.float32)
    weighted = xp.empty_like(measured)
    norms = iterate.residual(measured, xp.zeros_like(measured), row_weights, weighted)
    active = norms > 0
    bound = np.float32(-np.inf if minimum is None else minimum)
    for _ in range(max_iterations):
        if not active.any():
            break
        iterate.step(images, operator.back(weighted), column_weights, active, bound)
        previous = norms
        norms = iterate.residual(measured, operator.forward(images), row_weights, weighted)
        # A lane that has stopped is no longer changed, so its norm stays and this stays false.
        active = active & (previous - norms > tolerance * previous)
    return images


@functools.lru_cache(maxsize=8)
def _weights(engine: projection.Engine, angles_deg: tuple[float, ...], n: int) -> tuple[Float32, Float32]:
    """Diagonals of R (entry,) and C (pixel,): the inverses of A's row sums and column sums."""
    operator: _Operator = (_NativeOperator if engine == "native" else _AstraOperator)(np.asarray(angles_deg), n)
    width = 8
    ones = layout.image_to_lanes(np.ones((1, n, n), np.float32), width).reshape(-1, width)
    rows = operator.forward(ones)[:, 0]
    ones = layout.sinogram_to_lanes(np.ones((1, len(angles_deg), n), np.float32), width).reshape(-1, width)
    columns = operator.back(ones)[:, 0]
    return _inverse(rows), _inverse(columns)


def _inverse(sums: Float32) -> Float32:
    inverse = np.zeros_like(sums)
    np.divide(1, sums, out=inverse, where=sums > _LEAST_WEIGHT)
    return inverse
