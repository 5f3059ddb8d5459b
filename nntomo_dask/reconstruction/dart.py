"""Discrete tomography: a volume of a few grey levels."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed

from nntomo_dask.arrays import schema, slabs
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import chunking, device
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import discrete
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import METHODS, grey_levels
from nntomo_dask.reconstruction.blocks import BLOCK, HALO, BlockMethod, Dimensions, thickness_of
from nntomo_dask.reconstruction.gibbs import Body, Edges, Prior, ascending, partial_voxels
from nntomo_dask.reconstruction.grey_levels import MOST
from nntomo_dask.reconstruction.method import Scalar, reconstruct
from nntomo_dask.reconstruction.sirt import Sirt
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Float64

Levels = int | tuple[float, ...] | Literal["auto"]
Noise = float | Literal["auto"]

_SMOOTHING = 0.7
_BADLY = 3  # times what SIRT leaves unexplained


@METHODS.register
@dataclass(frozen=True)
class Dart(BlockMethod):
    """Voxels of a few grey levels, drawn from their distribution given the projections; see `dart`."""

    name: ClassVar[str] = "dart"
    title: ClassVar[str] = "DART"
    summary: ClassVar[str] = "discrete tomography, for specimens of one or a few densities"

    levels: Levels = setting(
        "auto",
        help="Grey levels of the specimen, that of its surroundings included: their number (2 for one material), their "
        "values (0,0.45,1), or auto, which estimates both.",
    )
    smoothing: float = setting(
        _SMOOTHING,
        help="What two neighbouring voxels of different levels cost, against the projections: more makes boundaries "
        "smoother; 0 is none.",
        least=0,
    )
    edges: Edges = setting(
        "partial",
        help="Voxels at a boundary: partial, the mean of what lies in them, as in a real specimen; sharp, of one level "
        "each, as in a phantom that was drawn so.",
    )
    noise: Noise = setting(
        "auto", help="Standard deviation of the noise, in the units of the series; auto estimates it.", above=0
    )
    dimensions: Dimensions = setting(3, help="3: boundaries are smooth across slices too; 2: each slice by itself.")
    iterations: int = setting(60, help="Sweeps over the boundaries; the last two thirds of them are averaged.", least=3)
    seed: int = setting(0, help="Of the random numbers.", least=0, most=1_000_000)

    def check(self, series: xr.DataArray) -> None:
        """See `Method.check`; grey levels are numbers that differ."""
        super().check(series)
        if isinstance(self.noise, str) and self.noise != "auto":
            refuse(self.name, needs='a noise above 0, or "auto"', got=f"{self.noise!r}", remedy='`noise="auto"`')
        self._check_levels()

    def _check_levels(self) -> None:
        levels = self.levels
        needs = f'levels: a number from 2 to {MOST}, values such as (0, 0.45, 1), or "auto"'
        if isinstance(levels, tuple | list):
            if not 2 <= len(levels) <= MOST:
                refuse(self.name, needs=needs, got=f"{len(levels)} values", remedy="0 for the surroundings is one too")
            if not all(_is_number(one) for one in levels):
                refuse(self.name, needs="levels that are finite numbers", got=f"{tuple(levels)}", remedy="`levels=2`")
            ordered = sorted(levels)
            between = min(high - low for low, high in itertools.pairwise(ordered))
            if between <= 1e-3 * (ordered[-1] - ordered[0]):
                remedy = "each level once"
                refuse(self.name, needs="levels that differ", got=f"{tuple(levels)}", remedy=remedy)
        elif levels != "auto" and not (_is_number(levels) and levels == int(levels) and 2 <= levels <= MOST):
            refuse(self.name, needs=needs, got=f"{levels!r}", remedy='`levels="auto"`')

    def prepare(self, series: xr.DataArray) -> tuple[Scalar, ...]:
        """Distance of slices, what SIRT leaves of the projections, noise, and levels from the lowest.

        The distance is in pixels, and infinite where each slice is drawn by itself. NaN is what is not known, and
        stands where there are no more levels.
        """
        between = thickness_of(series) if self.dimensions == 3 else math.inf
        known = sorted(self.levels) if isinstance(self.levels, tuple | list) else None
        if known is not None and not isinstance(self.noise, str):
            return between, math.nan, float(self.noise), *known
        chosen = grey_levels.groups_of(series.sizes[schema.Z])
        found = delayed(grey_levels.estimated)(
            [slabs.lazy(series).isel({schema.Z: slice(*one)}).data for one in chosen],
            [first for first, _ in chosen],
            series[schema.ANGLE].values,
            schema.axis_of(series),
            wanted=self.levels if known is None else known,
            smoothing=self.smoothing,
            thickness=between,
            edges=self.edges,
            seed=self.seed,
            who=self.name,
        )
        estimate = da.from_delayed(found, (2 + MOST,), np.float64)
        noise = float(self.noise) if not isinstance(self.noise, str) else estimate[1]
        return between, estimate[0], noise, *(known if known is not None else [estimate[2 + k] for k in range(MOST)])

    def outlook(self, series: xr.DataArray, prepared: Sequence[float]) -> list[str]:
        """The levels and the noise, whether they explain the projections, or that there is nothing to see."""
        _, left, noise, *padded = prepared
        levels = [level for level in padded if not math.isnan(level)]
        if len(levels) < 2:
            return [f"{self.name}: warning: nothing in the series can be told from its noise; the volume will be empty"]
        words = ", ".join(f"{level:.4g}" for level in levels)
        lines = [f"{self.name}: grey levels {words}; noise {noise:.3g}"]
        if noise > max(_BADLY * left, levels[-1] - levels[0]):
            text = f"the levels leave {noise:.3g} of the projections unexplained, SIRT {left:.3g}; there may be others"
            alike = ", or neighbouring slices have nothing in common: see dimensions" if self.dimensions == 3 else ""
            lines.append(f"{self.name}: warning: {text}{alike}")
        return lines

    def slab(self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None) -> Float32:
        """Reconstruct rows (slice + 2 · halo, angle, detector) to (slice, y, x), block by block, on the CPU."""
        thickness, _, noise, *padded = prepared
        levels = np.array([level for level in padded if not math.isnan(level)])
        rows, angles_deg = ascending(device.to_host(rows), angles_deg)
        count, size = len(rows) - 2 * self.halo, rows.shape[-1]
        volume = np.full((count, size, size), levels[0] if levels.size else 0, np.float32)
        if levels.size < 2:
            return volume
        pair = Projector(angles_deg, size, axis=axis)
        prior = Prior.of(self.smoothing, thickness, edges=self.edges, noise=noise, levels=levels)
        for start in range(0, count, self.block):
            part = rows[start : start + self.block + 2 * self.halo]
            inside = slice(self.halo, len(part) - self.halo)
            body = Body(part, pair, prior, levels, noise, self.seed)
            body.start(body.estimate())
            volume[start : start + len(part) - 2 * self.halo] = np.moveaxis(
                self._drawn(body, thickness)[..., inside], -1, 0
            )
        return volume

    def _drawn(self, body: Body, thickness: float) -> Float32:
        """The values (y, x, slice) that are expected, given the projections."""
        body.draw(self.iterations // 3)
        totals = np.zeros(body.labels.shape, np.float32)
        counted = self.iterations - self.iterations // 3
        body.draw(counted, totals)
        mean = discrete.means(body.labels, totals, body.values, counted)
        return mean if self.edges == "sharp" else partial_voxels(mean, body.levels, thickness)

    def host_bytes(self, shape: chunking.SlabShape) -> int:
        """Of a slab what is read and written; of a block with its halo SIRT's memory, or labels, means and filters."""
        slices, angles, detector = shape
        image, rows = chunking.image_bytes(detector), chunking.rows_bytes(angles, detector)
        lanes = BLOCK + 2 * HALO
        drawing = lanes * (6 * image + 4 * rows)
        blocks = -(-slices // BLOCK) * BLOCK
        return blocks * (chunking.WRITTEN * image + chunking.READ * rows) + max(
            Sirt().host_bytes((lanes, angles, detector)), drawing
        )


def dart(
    series: xr.DataArray,
    *,
    levels: Sequence[float] | int | Literal["auto"] = "auto",
    smoothing: float = _SMOOTHING,
    edges: Edges = "partial",
    noise: Noise = "auto",
    dimensions: Dimensions = 3,
    iterations: int = 60,
    seed: int = 0,
) -> xr.DataArray:
    """Reconstruct a tilt series by discrete tomography: for specimens of one or a few densities.

    As in DART [1]_, a first reconstruction (SIRT) is segmented into grey levels, and then only voxels at boundaries,
    and a few others at random, are changed to fit the projections. Here they are drawn one by one from their
    probability given the projections, their noise and the 26 voxels around them (a Gibbs sampler [2]_), and the mean of
    many such volumes is the result: it has the least expected square error. Blocks of 24 slices are drawn together,
    with four more on either side, on the CPU. Lazy; the same seed gives the same bytes.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; angle and detector in one chunk each. Values are line integrals, [u · px].
    levels
        The grey levels, [u], that of the surroundings included: their values; or their number, with which they are
        estimated; or "auto", where the number is estimated too, 4 at most. Where it is estimated, the lowest is 0.
    smoothing
        What a pair of neighbours of different levels costs, divided by their distance in pixels. No unit.
    edges
        "partial": a voxel at a boundary has the mean of what lies in it, as in a real specimen. "sharp": each has one
        level, as in a phantom that was drawn so; the result is the mean over what is probable.
    noise
        Standard deviation of the projections' noise, [u · px]; "auto" estimates it. More noise trusts them less.
    dimensions
        3, or 2 where neighbouring slices have nothing in common.
    iterations
        Sweeps over the boundaries; the last two thirds are averaged.
    seed
        Of the random numbers.

    Returns
    -------
    Dims (z, y, x), float32, in [u].

    Raises
    ------
    SchemaError
        `series` is no tilt series or has uneven steps along z, or a parameter is out of range; levels are fewer than
        two, coincide, or are not finite. When it is computed: a value is NaN or infinite.

    References
    ----------
    .. [1] K. J. Batenburg and J. Sijbers, DART: a practical reconstruction algorithm for discrete tomography,
       IEEE Trans. Image Process. 20 (2011) 2542, doi:10.1109/TIP.2011.2131661.
    .. [2] S. Geman and D. Geman, Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images,
       IEEE Trans. Pattern Anal. Mach. Intell. 6 (1984) 721, doi:10.1109/TPAMI.1984.4767596.
    """
    known: Any = levels if isinstance(levels, str | int) else tuple(levels)
    return reconstruct(
        series,
        Dart(
            levels=known,
            smoothing=smoothing,
            edges=edges,
            noise=noise,
            dimensions=dimensions,
            iterations=iterations,
            seed=seed,
        ),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)
