"""Discrete tomography: a volume of a few grey levels."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import dask.array as da
import numpy as np
import scipy.ndimage
import xarray as xr
from dask.delayed import delayed
from skimage.filters import threshold_otsu

from nntomo_dask.arrays import finite, grid, schema, slabs
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import chunking, device
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import discrete, layout
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import METHODS
from nntomo_dask.reconstruction.method import Method, Scalar, reconstruct
from nntomo_dask.reconstruction.sirt import Sirt
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Float64

Levels = int | tuple[float, ...] | Literal["auto"]
Noise = float | Literal["auto"]
Edges = Literal["partial", "sharp"]

BLOCK = 24  # slices that are drawn together; with the halo they fill the widest lane group
HALO = 4  # neighbours on either side that are drawn with them and thrown away
MOST = discrete.MOST_LEVELS
_SMOOTHING = 0.7
_PARTS = 2  # steps from level to level of partial voxels
_PARTIAL = 0.5  # what a partial voxel costs
_FREE = 0.01  # share of the voxels within bodies that a sweep draws too, so that pores can open
_START_ITERATIONS = 50  # of SIRT, whose volume is the first to be segmented
_WIDTH = 0.65  # [px], standard deviation of the Gaussian that makes partial voxels of the probabilities; radius 2
_RADIUS = 2

# Levels and noise are estimated from so many groups of neighbouring slices, by so many sweeps.
_GROUPS, _GROUP_SLICES, _ESTIMATE_SWEEPS = 3, 8, 40
_MOST_FOUND = 4  # levels that "auto" tries
_GAIN = 0.1  # a further level has to lower the mean square misfit by this share
_INSIDE = 0.1  # share of a level's voxels that have none but their like beside them; those of a boundary layer have not


@METHODS.register
@dataclass(frozen=True)
class Dart(Method):
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
    iterations: int = setting(60, help="Sweeps over the boundaries; the last two thirds of them are averaged.", least=3)
    seed: int = setting(0, help="Of the random numbers.", least=0)

    @property
    def block(self) -> int:
        """Slices that are drawn together, counted from the first of the series."""
        return BLOCK

    @property
    def halo(self) -> int:
        """Neighbouring slices that are drawn with a block."""
        return HALO

    def check(self, series: xr.DataArray) -> None:
        """See `Method.check`; grey levels are numbers that differ."""
        super().check(series)
        schema.check_even_z(series, who=self.name)
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
            between = min(high - low for low, high in zip(ordered[:-1], ordered[1:], strict=True))
            if between <= 1e-3 * (ordered[-1] - ordered[0]):
                remedy = "each level once"
                refuse(self.name, needs="levels that differ", got=f"{tuple(levels)}", remedy=remedy)
        elif levels != "auto" and not (_is_number(levels) and levels == int(levels) and 2 <= levels <= MOST):
            refuse(self.name, needs=needs, got=f"{levels!r}", remedy='`levels="auto"`')

    def prepare(self, series: xr.DataArray) -> tuple[Scalar, ...]:
        """A slice's thickness in pixels, the noise, and the levels from the lowest; NaN where there are no more."""
        between = abs(grid.spacing(series[schema.Z].values, 1.0) / schema.pixel_size_of(series))
        known = sorted(self.levels) if isinstance(self.levels, tuple | list) else None
        if known is not None and not isinstance(self.noise, str):
            return between, float(self.noise), *known
        chosen = _groups(series.sizes[schema.Z])
        rows = [slabs.lazy(series).isel({schema.Z: slice(*one)}).data for one in chosen]
        found = delayed(_estimated)(
            rows,
            self,
            series[schema.ANGLE].values,
            schema.axis_of(series),
            between,
            [first for first, _ in chosen],
        )
        estimate = da.from_delayed(found, (1 + MOST,), np.float64)
        noise = float(self.noise) if not isinstance(self.noise, str) else estimate[0]
        return between, noise, *(known if known is not None else [estimate[1 + k] for k in range(MOST)])

    def outlook(self, series: xr.DataArray, prepared: Sequence[float]) -> list[str]:
        """The levels and the noise that were estimated, or that there is nothing to see."""
        _, noise, *padded = prepared
        levels = [level for level in padded if not math.isnan(level)]
        if len(levels) < 2:
            return [f"{self.name}: warning: nothing in the series can be told from its noise; the volume will be empty"]
        words = ", ".join(f"{level:.4g}" for level in levels)
        return [f"{self.name}: grey levels {words}; noise {noise:.3g}"]

    def slab(self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None) -> Float32:
        """Reconstruct rows (slice + 2 · halo, angle, detector) to (slice, y, x), block by block, on the CPU."""
        thickness, noise, *padded = prepared
        levels = np.array([level for level in padded if not math.isnan(level)])
        rows, angles_deg = _ascending(device.to_host(rows), angles_deg)
        count, size = len(rows) - 2 * self.halo, rows.shape[-1]
        volume = np.full((count, size, size), levels[0] if levels.size else 0, np.float32)
        if levels.size < 2:
            return volume
        pair = Projector(angles_deg, size, axis=axis)
        for start in range(0, count, self.block):
            part = rows[start : start + self.block + 2 * self.halo]
            inside = slice(self.halo, len(part) - self.halo)
            body = _Body(part, pair, self._prior(thickness), levels, noise, self.seed)
            body.start(body.estimate())
            volume[start : start + len(part) - 2 * self.halo] = np.moveaxis(
                self._drawn(body, thickness)[..., inside], -1, 0
            )
        return volume

    def _prior(self, thickness: float) -> "_Prior":
        parts = _PARTS if self.edges == "partial" else 1
        return _Prior(discrete.neighbour_weights(self.smoothing, thickness), parts)

    def _drawn(self, body: "_Body", thickness: float) -> Float32:
        """The values (y, x, slice) that the projections make probable."""
        body.draw(self.iterations // 3)
        totals = np.zeros((body.values.size - 1, *body.labels.shape), np.float32)
        counted = self.iterations - self.iterations // 3
        body.draw(counted, totals)
        drawn = np.full(body.labels.shape, body.levels[0], np.float32)
        for k, step in enumerate(np.diff(body.values)):
            probable = discrete.means(body.labels, totals[k], k, counted)
            if self.edges == "partial":
                probable = _partial(probable, thickness)
            drawn += np.float32(step) * probable
        return drawn

    def host_bytes(self, shape: chunking.SlabShape) -> int:
        """Of a slab what is read and written; of a block with its halo SIRT, or labels, probabilities and filters."""
        slices, angles, detector = shape
        image, rows = chunking.image_bytes(detector), chunking.rows_bytes(angles, detector)
        lanes = BLOCK + 2 * HALO
        start = Sirt().host_bytes((lanes, angles, detector))
        count = len(self.levels) if isinstance(self.levels, tuple | list) else self.levels
        drawing = lanes * ((_MOST_FOUND if isinstance(count, str) else count) + 4) * image + 4 * lanes * rows
        blocks = -(-slices // BLOCK) * BLOCK
        return blocks * (chunking.WRITTEN * image + chunking.READ * rows) + max(start, drawing)

    def wanted_slices(self, shape: tuple[int, int, int]) -> int:
        """A block: slabs are made of whole ones in any case."""
        return self.block


def dart(
    series: xr.DataArray,
    *,
    levels: Sequence[float] | int | Literal["auto"] = "auto",
    smoothing: float = _SMOOTHING,
    edges: Edges = "partial",
    noise: Noise = "auto",
    iterations: int = 60,
    seed: int = 0,
) -> xr.DataArray:
    """Reconstruct a tilt series by discrete tomography: for specimens of one or a few densities.

    As in DART [1]_, a first reconstruction (SIRT) is segmented into grey levels, and then only voxels at boundaries, and a
    few others at random, are changed to fit the projections. Here they are drawn one by one from their probability given
    the projections, their noise and the 26 voxels around them (a Gibbs sampler [2]_ with the prior of Potts), and the
    mean of many such volumes is the result: it has the least expected square error. Blocks of 24 slices are drawn
    together, with four more on either side. Lazy; the same seed gives the same bytes.

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
    .. [1] K. J. Batenburg and J. Sijbers, DART: a practical reconstruction algorithm for discrete tomography, IEEE Trans.
       Image Process. 20 (2011) 2542, doi:10.1109/TIP.2011.2131661.
    .. [2] S. Geman and D. Geman, Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images,
       IEEE Trans. Pattern Anal. Mach. Intell. 6 (1984) 721, doi:10.1109/TPAMI.1984.4767596.
    """
    known: Any = levels if isinstance(levels, str | int) else tuple(levels)
    return reconstruct(
        series,
        Dart(levels=known, smoothing=smoothing, edges=edges, noise=noise, iterations=iterations, seed=seed),
    )


@dataclass(frozen=True)
class _Prior:
    """What is expected of a volume before it is compared with its projections.

    Attributes
    ----------
    weights
        See `discrete.neighbour_weights`.
    parts
        Steps from one level to the next: partial voxels have values between, so many less one.
    """

    weights: Float64
    parts: int

    def values(self, levels: Float64) -> Float64:
        """The levels, and those of partial voxels between."""
        places = np.arange((levels.size - 1) * self.parts + 1) / self.parts
        return np.interp(places, np.arange(levels.size), levels)

    def costs(self, levels: Float64) -> Float64:
        """Of neighbours 1 for each level between them; of partial voxels something, since there are only at boundaries."""
        places = np.arange((levels.size - 1) * self.parts + 1)
        costs: Float64 = np.abs(places[:, None] - places) / self.parts + np.diag(_PARTIAL * (places % self.parts != 0))
        return costs


class _Body:
    """Neighbouring slices in work: their labels (y, x, slice) and what the projections say beyond them."""

    def __init__(
        self, rows: Float32, pair: Projector, prior: _Prior, levels: Float64, noise: float, seed: int
    ) -> None:
        self.rows, self.pair, self.prior, self.noise = rows, pair, prior, noise
        self.count, self.width = len(rows), layout.lane_width(len(rows), chunking.SLAB_SLICES)
        self.number = seed << 20  # of the sweep; a seed has a million of its own
        self.labels: discrete.Labels
        self.residual: Float32
        self.set_levels(levels)

    def set_levels(self, levels: Float64) -> None:
        """Change the values of the labels."""
        self.levels, self.values, self.costs = levels, self.prior.values(levels), self.prior.costs(levels)

    def estimate(self) -> Float32:
        """SIRT, no voxel below the lowest level: (slice, y, x)."""
        start = Sirt(minimum=float(self.levels[0]), tolerance=1e-3, max_iterations=_START_ITERATIONS)
        axis = None if self.pair.axis == Axis.centred(self.pair.size) else self.pair.axis
        volume: Float32 = device.to_host(start.slab(self.rows, self.pair.angles_deg, axis=axis))
        return volume

    def start(self, volume: Float32) -> None:
        """Segment a volume (slice, y, x)."""
        between = (self.values[1:] + self.values[:-1]) / 2
        self.labels = np.ascontiguousarray(np.moveaxis(np.searchsorted(between, volume), 0, -1), np.uint8)
        self.compare()

    def project(self, values: Float64) -> Float32:
        """Project the volume in which each label has a value: (angle, detector + pad, lane)."""
        size = self.pair.size
        images = np.zeros((size + 2 * layout.IMAGE_PAD, size + 2 * layout.IMAGE_PAD, self.width), np.float32)
        images[1:-1, 1:-1, : self.count] = values.astype(np.float32)[self.labels]
        projected = self.pair.forward(images.reshape(-1, self.width))
        return projected.reshape(self.pair.angles_deg.size, -1, self.width)

    def share(self, level: int) -> Float64:
        """How much of each label is of a level: 1 or 0, or between in partial voxels."""
        places = np.arange(self.values.size) / self.prior.parts
        shares: Float64 = np.maximum(1 - np.abs(places - level), 0)
        return shares

    def compare(self) -> None:
        """What the projections of the labels lack."""
        measured = layout.sinogram_to_lanes(self.rows, self.width)
        self.residual = measured.reshape(self.pair.angles_deg.size, -1, self.width) - self.project(self.values)

    @property
    def misfit(self) -> tuple[float, int]:
        """Sum of squares, and of how many rays: those that matter may touch."""
        inside = self.residual[:, layout.DETECTOR_FRONT :][:, : self.pair.size, : self.count]
        return float(np.square(inside, dtype=np.float64).sum()), inside.size

    def draw(self, sweeps: int, totals: Float32 | None = None) -> None:
        """Sweep so many times; `totals` gathers the probabilities."""
        for counted in range(sweeps):
            discrete.sweep(
                self.labels,
                self.residual,
                np.empty((0, 0, 0, 0), np.float32) if totals is None else totals,
                levels=self.values,
                precision=1 / self.noise**2,
                weights=self.prior.weights,
                costs=self.costs,
                angles_rad=np.deg2rad(self.pair.angles_deg),
                axis=self.pair.axis,
                free=_FREE,
                number=self.number,
                counted=-1 if totals is None else counted,
            )
            self.number += 1


def _partial(probable: Float32, thickness: float) -> Float32:
    """Probabilities (y, x, slice) of being above a level to shares of a voxel that are.

    A Gaussian smooths the steps between voxels; its slope at a flat boundary, 1 / (σ √(2π)), is brought to 1 a pixel.
    """
    for place, width in enumerate((_WIDTH, _WIDTH, _WIDTH / max(thickness, 1))):
        offsets = np.arange(-_RADIUS, _RADIUS + 1)
        weights = np.exp(-0.5 * (offsets / width) ** 2)
        probable = scipy.ndimage.correlate1d(
            probable, weights / weights.sum(), axis=place, mode="nearest", output=np.float32
        )
    probable -= np.float32(0.5)
    probable *= np.float32(_WIDTH * math.sqrt(2 * math.pi))
    probable += np.float32(0.5)
    return np.clip(probable, 0, 1, out=probable)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)


def _ascending(rows: Float32, angles_deg: Float64) -> tuple[Float32, Float64]:
    """Projections in the order of their angles, so that sums, and with them random choices, do not depend on it."""
    order = np.argsort(angles_deg, kind="stable")
    return np.ascontiguousarray(rows[:, order]), angles_deg[order]


def _groups(n_z: int) -> list[tuple[int, int]]:
    """Where the groups of slices begin and end from which levels are estimated: evenly over the volume."""
    if n_z <= _GROUPS * _GROUP_SLICES:
        return [(0, n_z)]
    starts = np.linspace(0, n_z, 2 * _GROUPS + 1)[1::2] - _GROUP_SLICES / 2
    return [(int(first), int(first) + _GROUP_SLICES) for first in starts]


def _estimated(
    groups: list[Float32], method: Dart, angles_deg: Float64, axis: Axis, thickness: float, firsts: list[int]
) -> Float64:
    """Noise and levels, (1 + MOST,): the levels with which the fewest of them explain the projections."""
    for rows, first in zip(groups, firsts, strict=True):
        finite.check_slab(rows, who=method.name, dims=schema.SERIES_DIMS, first=first)
    prior = method._prior(thickness)
    ordered = [_ascending(rows, angles_deg) for rows in groups]
    pair = Projector(ordered[0][1], groups[0].shape[-1], axis=axis)
    bodies = [_Body(rows, pair, dataclasses.replace(prior, parts=1), np.zeros(1), 1.0, method.seed) for rows, _ in ordered]
    volumes = [body.estimate() for body in bodies]
    power = float(np.mean([np.square(rows, dtype=np.float64).mean() for rows in groups]))
    found = np.full(1 + MOST, np.nan)
    found[:2] = math.sqrt(power) or 1.0, 0.0
    if isinstance(method.levels, tuple | list):
        levels = np.sort(np.asarray(method.levels, np.float64))
    else:
        # With whole voxels: partial ones could stand for a level between two others.
        chosen = _chosen_levels(bodies, volumes, method.levels, power)
        if chosen is None:
            return found
        levels = chosen
    for body in bodies:
        body.prior = prior
    found[0] = _fitted(bodies, volumes, levels, fixed=True)[0]
    found[1 : 1 + levels.size] = levels
    return found


def _chosen_levels(
    bodies: list[_Body], volumes: list[Float32], wanted: int | Literal["auto"], power: float
) -> Float64 | None:
    """The levels with which the fewest of them explain the projections, whose mean square is `power`; None without any."""
    misfit, chosen = power, None
    for count in range(2, _MOST_FOUND + 1) if isinstance(wanted, str) else [int(wanted)]:
        fits = [_fitted(bodies, volumes, first, fixed=False) for first in _first_levels(volumes, count)]
        if not fits:
            break
        noise, levels, insides = min(fits, key=lambda fit: fit[0])
        if isinstance(wanted, str) and not (noise**2 < (1 - _GAIN) * misfit and insides):
            break
        misfit, chosen = noise**2, levels
    return chosen


def _first_levels(volumes: list[Float32], count: int) -> list[Float64]:
    """Zero, and among the bright voxels of SIRT as many greys as wanted: some sets of them, none where nothing is bright.

    SIRT shows small bodies fainter than they are, so one set has a brighter highest level.
    """
    values = np.concatenate([volume.ravel() for volume in volumes])
    bright = values[values > threshold_otsu(values)] if values.max() > max(values.min(), 0) else values[:0]
    if not bright.size:
        return []
    shares = (np.arange(count - 1) + 0.5) / (count - 1)
    levels = np.concatenate([[0.0], np.quantile(bright, shares)])
    if not (np.diff(levels) > 0).all():
        return []
    return [levels] if count == 2 else [levels, np.append(levels[:-1], 2 * levels[-1])]


def _fitted(
    bodies: list[_Body], volumes: list[Float32], levels: Float64, *, fixed: bool
) -> tuple[float, Float64, bool]:
    """Noise and levels, means over sweeps in which labels are drawn with both, and both are fitted to the labels.

    Also whether each level is that of bodies: see `_have_insides`.
    """
    levels, kept = levels.copy(), []
    for body, volume in zip(bodies, volumes, strict=True):
        body.set_levels(levels)
        body.number = 0
        body.start(volume)
    for sweep in range(_ESTIMATE_SWEEPS):
        if not fixed:
            levels = _least_squares(bodies, levels)
        for body in bodies:
            body.set_levels(levels)
            body.compare()
        squares, rays = (sum(part) for part in zip(*(body.misfit for body in bodies), strict=True))
        noise = math.sqrt(squares / rays)
        if noise == 0:
            return float(np.finfo(np.float32).tiny), levels, True
        for body in bodies:
            body.noise = noise
            body.draw(1)
        kept.append([noise**2, *levels])
    square, *mean = np.mean(kept[_ESTIMATE_SWEEPS // 2 :], axis=0)
    return math.sqrt(square), np.array(mean), _have_insides(bodies)


def _have_insides(bodies: list[_Body]) -> bool:
    """Whether each level is that of bodies, and none that of the partial voxels between two others."""
    for k in range(1, bodies[0].levels.size):
        held = inside = 0
        for body in bodies:
            mask = body.labels == k * body.prior.parts
            held += int(mask.sum())
            inside += int(scipy.ndimage.binary_erosion(mask, border_value=1).sum())
        if inside <= _INSIDE * held:
            return False
    return True


def _least_squares(bodies: list[_Body], levels: Float64) -> Float64:
    """The levels above the lowest with which the labels fit the projections best; one that no voxel has stays."""
    count = levels.size
    normal, right = np.zeros((count - 1, count - 1)), np.zeros(count - 1)
    for body in bodies:
        projected = [body.project(body.share(k)).ravel().astype(np.float64) for k in range(count)]
        columns = np.stack(projected[1:], axis=1)
        measured = layout.sinogram_to_lanes(body.rows, body.width).ravel() - levels[0] * projected[0]
        normal += columns.T @ columns
        right += columns.T @ measured
    held = np.diag(normal) > 0
    fitted = levels.copy()
    fitted[1:][held] = np.linalg.lstsq(normal[np.ix_(held, held)], right[held], rcond=None)[0]
    return np.sort(fitted)
