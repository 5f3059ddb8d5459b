"""Reconstruction with total variation: the volume with the shortest edges among those that fit the projections."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import dask.array as da
import numpy as np
import xarray as xr

from nntomo_dask.arrays import schema
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import chunking, device, streams
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import layout
from nntomo_dask.projection import engines
from nntomo_dask.projection.engines import ENGINE_HELP, EngineName
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import METHODS, held_out, tv_weight
from nntomo_dask.reconstruction.blocks import BlockMethod, Dimensions, thickness_of
from nntomo_dask.reconstruction.intensity import lazy_level
from nntomo_dask.reconstruction.method import Scalar, reconstruct
from nntomo_dask.reconstruction.tv_solver import Problem, automatic_tolerance, solve
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Float64

Weight = float | Literal["auto"]
Tolerance = float | Literal["auto"]

_TYPICAL = 40  # iterations, for an estimate of the time
_SAME_DEG = 1e-3  # angles this near are one, in a list of weights


@METHODS.register
@dataclass(frozen=True)
class TotalVariation(BlockMethod):
    """``min ½ ‖A x - y‖² + λ TV(x)`` within bounds; see `tv`."""

    name: ClassVar[str] = "tv"
    title: ClassVar[str] = "TV"
    summary: ClassVar[str] = "total variation: smooth bodies with sharp edges, the best of few projections"

    weight: Weight = setting(
        "auto",
        help="Weight of the edges against the projections, without a unit: the same number means the same for counts "
        "and for line integrals. More noise needs more; auto takes it from the noise and from projections that are "
        "left out, and the run tells it.",
    )
    minimum: float | None = setting(0.0, help="Lower bound of the voxels; 0 for matter, which cannot be negative.")
    maximum: float | None = setting(None, help="Upper bound of the voxels, such as the value of the densest matter.")
    dimensions: Dimensions = setting(
        3, help="3: edges between slices count like those within a slice; 2: each slice by itself."
    )
    huber: float = setting(
        0.0,
        help="Gradients below this share of the specimen's intensity are smoothed instead of flattened, so that grey "
        "slopes get no steps; 0 for bodies of one grey each.",
        least=0,
    )
    tolerance: Tolerance = setting(
        "auto",
        help="A block of slices stops when an iteration changes its voxels by this share or less; auto is 0.0025, and "
        "0.0004 for weights below 0.5.",
        above=0,
        below=1,
    )
    max_iterations: int = setting(500, help="A block stops after so many iterations in any case.", least=1)
    projection_weights: tuple[tuple[float, float], ...] = setting(
        (), help="Pairs of a tilt angle and the weight of its projections; all others count as 1.", option=None
    )
    engine: EngineName = setting("native", help=ENGINE_HELP)

    def check(self, series: xr.DataArray) -> None:
        """See `Method.check`; the bounds may not cross, and weights fit the projections."""
        schema.check_tilt_series(series, who=self.name)
        if isinstance(self.weight, str):
            if self.weight != "auto":
                refuse(self.name, needs='a weight, or "auto"', got=f"{self.weight!r}", remedy='`weight="auto"`')
            held_out.folds(series[schema.ANGLE].values, who=f'{self.name} with weight="auto"')
        elif not (isinstance(self.weight, int | float) and math.isfinite(self.weight) and self.weight >= 0):
            needs = 'a weight of at least 0, or "auto"'
            refuse(self.name, needs=needs, got=f"{self.weight!r}", remedy='`weight="auto"`')
        super().check(series)
        lower, upper = self._bounds
        if lower >= upper:
            refuse(
                self.name,
                needs="a minimum below the maximum",
                got=f"{lower:g} and {upper:g}",
                remedy="other `minimum` and `maximum`; None is no bound",
            )
        self._check_projection_weights(series)

    def _check_projection_weights(self, series: xr.DataArray) -> None:
        if not self.projection_weights:
            return
        angles, weights = np.asarray(self.projection_weights, np.float64).T
        if not np.isfinite(weights).all() or weights.min() < 0 or self._per_projection(series.angle.values).max() == 0:
            refuse(
                self.name,
                needs="finite weights of projections of at least 0, and not all of them 0",
                got=f"{weights.tolist()}",
                remedy="`projection_weights=1 / variance`, relative to a usual projection's",
            )
        for angle in angles:
            if np.abs(series[schema.ANGLE].values - angle).min() > _SAME_DEG:
                refuse(
                    self.name,
                    needs="weights for projections of the series",
                    got=f"one for {angle:g}°",
                    remedy=f"its angles: {schema.ANGLE} in {series[schema.ANGLE].values.tolist()}",
                )

    def _per_projection(self, angles_deg: Float64) -> Float64:
        """(angle,): the weight of each projection."""
        weights = np.ones(len(angles_deg))
        for angle, weight in self.projection_weights:
            weights[np.abs(angles_deg - angle) <= _SAME_DEG] = weight
        return weights

    @property
    def _bounds(self) -> tuple[float, float]:
        return (
            -math.inf if self.minimum is None else self.minimum,
            math.inf if self.maximum is None else self.maximum,
        )

    def prepare(self, series: xr.DataArray) -> tuple[Scalar, ...]:
        """The weight, the intensity level of which it is counted, and a slice's thickness in pixels."""
        level = lazy_level(series, who=self.name)
        level = da.where(level > 0, level, np.float32(1))
        thickness = thickness_of(series)
        weight = tv_weight.lazy_choice(self, series, level) if isinstance(self.weight, str) else float(self.weight)
        return weight, level, thickness

    def slab(self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None) -> Float32:
        """Reconstruct rows (slice + 2 · halo, angle, detector) to (slice, y, x), block by block."""
        weight, level, thickness = prepared
        count = len(rows) - 2 * self.halo
        volume: Float32 = device.namespace(rows).empty((count, rows.shape[-1], rows.shape[-1]), np.float32)
        pair = Projector(angles_deg, rows.shape[-1], self.engine, axis)
        solver = partial(self._block, pair=pair, weight=weight, level=level, thickness=thickness)
        need = self.device_bytes_per_slice((len(rows), angles_deg.size, rows.shape[-1]))
        for start in range(0, count, self.block):
            part = rows[start : start + self.block + 2 * self.halo]
            solved = pair.computed(solver, part, slice_bytes=need, who=self.name)
            inside = solved[self.halo : len(part) - self.halo]
            volume[start : start + len(inside)] = inside
        return volume

    def _block(self, rows: Float32, *, pair: Projector, weight: float, level: float, thickness: float) -> Float32:
        lower, upper = self._bounds
        problem = Problem(
            weight=weight,
            lower=lower / level,
            upper=upper / level,
            huber=self.huber,
            between=1 / thickness if self.dimensions == 3 else 0.0,
            tolerance=self._tolerance(weight),
            max_iterations=self.max_iterations,
        )
        factor = np.float32(level)
        volume: Float32 = solve(rows / factor, pair, problem, self._per_projection(pair.angles_deg)) * factor
        return volume

    def _tolerance(self, weight: float) -> float:
        """The setting, or what follows from the weight."""
        return automatic_tolerance(weight) if isinstance(self.tolerance, str) else self.tolerance

    def host_bytes(self, shape: chunking.SlabShape) -> int:
        """Of a block with its halo: six lane groups of images, eight of rows and spectra, and what is written."""
        slices, angles, detector = shape
        blocks = -(-slices // self.block)
        image, rows = chunking.image_bytes(detector), chunking.rows_bytes(angles, detector)
        lanes = layout.lane_width(self.block + 2 * self.halo, chunking.SLAB_SLICES)
        solving = 6 * layout.padded_image_bytes(detector, lanes) + 8 * lanes * rows
        return blocks * self.block * (image + chunking.READ * rows) + solving

    def device_bytes_per_slice(self, shape: chunking.SlabShape) -> int:
        """The same lane groups, and the volume in both orders."""
        _, angles, detector = shape
        between = 9 * streams.bordered_image_bytes(detector) + 9 * streams.padded_rows_bytes(angles, detector)
        return streams.copied_bytes(angles, detector) + between

    def parameters(self) -> dict[str, Any]:
        """What a recipe says of the settings."""
        return super().parameters() | {"projection_weights": [list(pair) for pair in self.projection_weights]}

    def outlook(self, series: xr.DataArray, prepared: Sequence[float]) -> list[str]:
        """That an engine is slow, and the weight that was chosen."""
        lines = engines.outlook(self.engine, series, passes=2 * min(self.max_iterations, _TYPICAL))
        if isinstance(self.weight, str):
            lines.append(f"note: weight {float(prepared[0]):.2g}, which follows from the series; --weight sets another")
        return lines

    def strength(self, *prepared: float) -> float:
        """The weight."""
        return float(prepared[0])

    @classmethod
    def candidates(cls, **networks: Any) -> "Sequence[TotalVariation]":
        """The automatic weight; then weights from much noise to none."""
        return [cls(**networks), *(cls(weight=weight, **networks) for weight in (10.0, 3.0, 1.0, 0.3, 0.1, 0.03))]


def tv(
    series: xr.DataArray,
    *,
    weight: Weight = "auto",
    minimum: float | None = 0.0,
    maximum: float | None = None,
    dimensions: Dimensions = 3,
    huber: float = 0.0,
    tolerance: Tolerance = "auto",
    max_iterations: int = 500,
    projection_weights: Sequence[float] | None = None,
    engine: EngineName = "native",
) -> xr.DataArray:
    """Reconstruct a tilt series with total variation.

    ``min ½ Σ w (A x - y)² + λ TV(x)`` within bounds: A is Joseph's projector, TV(x) the sum over all voxels of the
    length of the gradient, whose components are the differences to the next voxel along z, y and x. Few projections
    leave most of a volume open; of all that fits them, bodies with short edges are taken. Solved by a primal–dual
    iteration, from a solution at half the resolution.

    Slices are solved in blocks of 24, counted from the first of the series, with 4 neighbours on either side. So the
    result has chunks of 24 slices, whatever those of the series are. Lazy.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; angle and detector in one chunk each. Values are line integrals, [u · px].
        Slices at equal steps; where they are thicker than a pixel, differences between them count accordingly.
    weight
        λ in units of the series' `intensity_level` times a pixel: the same number means the same for counts and for
        line integrals, and for pixels of any size. "auto" is 0.85 √n σ for n projections and noise σ, in levels; or, if
        it is more, 1.5 times the weight that predicts projections best which were left out, of some slices.
    minimum, maximum
        Bounds of the voxels, [u], kept in every iteration; None where there is none.
    dimensions
        3, or 2 for the edges within each slice alone.
    huber
        Gradients below this share of the intensity level count by their squares: no steps on slopes.
    tolerance
        A block stops when an iteration moves its voxels by this share of their norm, or less. The norm counts as that
        of a block of which a hundredth is matter, if it is less. "auto" is 2.5e-3, and 4e-4 for weights below 0.5.
    max_iterations
        A block stops after so many iterations in any case.
    projection_weights
        w of each projection of `series`, such as the inverse of its noise's variance relative to a usual one; all 1 by
        default. Projections at one angle have one weight.
    engine
        Whose projector pair; see `project`.

    Returns
    -------
    Dims (z, y, x), float32, in [u].

    Raises
    ------
    SchemaError
        `series` is no tilt series, or its slices are not at equal steps; a parameter is out of range, the bounds cross,
        or there are too few projections for an automatic weight. When it is computed: a value is NaN or infinite.

    References
    ----------
    .. [1] L. I. Rudin, S. Osher and E. Fatemi, Physica D 60 (1992) 259, doi:10.1016/0167-2789(92)90242-F.
    .. [2] E. Y. Sidky, J. H. Jørgensen and X. Pan, Phys. Med. Biol. 57 (2012) 3065,
       doi:10.1088/0031-9155/57/10/3065: the primal–dual iteration for tomography.
    """
    pairs: tuple[tuple[float, float], ...] = ()
    if projection_weights is not None:
        schema.check_tilt_series(series, who="tv")
        angles, weights = series[schema.ANGLE].values, np.asarray(projection_weights, np.float64)
        if weights.shape != angles.shape:
            refuse(
                "tv",
                needs=f"a weight for each of the {angles.size} projections",
                got=f"weights of shape {weights.shape}",
                remedy="`projection_weights=1 / variance`, in the order of the series",
            )
        pairs = tuple(zip(angles.tolist(), weights.tolist(), strict=True))
    return reconstruct(
        series,
        TotalVariation(
            weight=weight,
            minimum=minimum,
            maximum=maximum,
            dimensions=dimensions,
            huber=huber,
            tolerance=tolerance,
            max_iterations=max_iterations,
            projection_weights=pairs,
            engine=engine,
        ),
    )
