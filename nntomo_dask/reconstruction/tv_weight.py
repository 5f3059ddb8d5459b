"""The weight of total variation, from the noise of a series and by projections that are left out in turn.

What the projections cannot tell from noise is to be flat. Backprojected noise grows with the root of the number of
projections, and so does the weight. Projections that are left out tell of everything else that a volume cannot explain:
what a body is within voxels, drift, alignment, intensities that are no line integrals. The weight that predicts them
best is a little too small for sharp bodies, and in bins, where voxels show less of a body, a little too large. Of the
two weights the larger one is taken. The constants are measured; see docs/theory.md.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed

from nntomo_dask.arrays import finite, grid, schema, slabs
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.projection import noise_fit
from nntomo_dask.reconstruction import held_out
from nntomo_dask.reconstruction.blocks import thickness_of
from nntomo_dask.types import Float32, Float64

if TYPE_CHECKING:
    from nntomo_dask.reconstruction.tv import TotalVariation

_PIXELS = 64  # a slice is binned as long as this many pixels stay
_RUNS, _RUN_SLICES = 2, 8  # runs of neighbouring slices, spread over the volume, and slices of each after binning
_NOISE_SLICES = 24  # in the middle of a run that tell its noise, at most
_FOLDS = 4  # projections that are left out, at most
_STEP = 10**0.5  # from one weight of the search to the next
_LOWEST, _HIGHEST = -9, 8  # half steps from 1
_TOLERANCE, _ITERATIONS = 1e-3, 200  # a rougher solution ranks the weights as a fine one does
_OF_NOISE = 0.85  # weight for a standard deviation of one intensity level and one projection
_ROUGHNESS = 0.05  # standard deviation up to which surfaces of voxels look like noise, in intensity levels
_OF_HELD_OUT = 1.5  # weight for one that predicts best, in bins of one pixel
_BRIGHT = 0.1  # of the brightest ray: rays above it show the specimen


def lazy_choice(method: "TotalVariation", series: xr.DataArray, level: da.Array) -> da.Array:
    """The weight for a series in its own pixels, as a lazy number.

    Some runs of neighbouring slices, in bins, are reconstructed without one projection each time, and predict it. The
    weight with the least squares over all predictions is searched for in steps of √10 from 1 on, then of half that.
    The noise may ask for more than that.
    """
    factor = max(series.sizes[schema.DETECTOR] // _PIXELS, 1)
    starts, length = runs_of(series.sizes[schema.Z], factor)
    source = slabs.lazy(series)
    runs = [source.isel({schema.Z: slice(start, start + length)}).data for start in starts]
    angles, axis, thickness = source[schema.ANGLE].values, schema.axis_of(source), thickness_of(source)
    chosen = delayed(_choose)(method, runs, starts, angles, level, axis, thickness, factor)
    weight: da.Array = da.from_delayed(chosen, (), np.float64)
    return weight


def runs_of(count: int, factor: int) -> tuple[list[int], int]:
    """First slices of the runs, and their length: all slices in one run where there are no more."""
    length = _RUN_SLICES * factor
    if count <= _RUNS * length:
        return [0], count
    between = (count - _RUNS * length) / (_RUNS + 1)
    return [round((run + 1) * between) + run * length for run in range(_RUNS)], length


def _choose(
    method: "TotalVariation",
    runs: list[Float32],
    starts: list[int],
    angles_deg: Float64,
    level: float,
    axis: Axis,
    thickness: float,
    factor: int,
) -> np.float64:
    for run, start in zip(runs, starts, strict=True):
        finite.check_slab(run, who=method.name, dims=schema.SERIES_DIMS, first=start)
    deviation = max(deviation_of(run, angles_deg) for run in runs) / level
    least = of_noise(deviation, angles_deg.size)
    where = grid.in_bins(axis, runs[0].shape[-1], factor)
    solver = replace(method, tolerance=_TOLERANCE, max_iterations=_ITERATIONS)
    coarse = [binned(run, factor) for run in runs]
    seen = [run[slabs.mirrored(len(run), method.halo)] for run in coarse]
    folds = held_out.at_most(angles_deg, _FOLDS, who=method.name)

    def misfit(weight: float) -> float:
        """Of all runs and folds. Bins have as many slices as pixels, so their thickness in bins is that of a slice."""
        prepared = (weight / factor**2, float(level), thickness)
        found = (held_out.misfits(solver, run, angles_deg, folds=folds, prepared=prepared, axis=where) for run in seen)
        return float(sum(one.sum() for one in found))

    return np.float64(max(least, _OF_HELD_OUT / np.sqrt(factor) * _minimum(misfit)))


def of_noise(deviation: float, count: int) -> float:
    """The weight for noise of a standard deviation, in intensity levels, in each of `count` projections."""
    return float(_OF_NOISE * np.sqrt(count * max(deviation**2 - _ROUGHNESS**2, 0)))


def as_noise(weight: Any, count: int) -> Any:
    """The standard deviation for which `of_noise` has a weight, in intensity levels; of a lazy one too."""
    return ((weight / _OF_NOISE) ** 2 / count + _ROUGHNESS**2) ** 0.5


def lazy_deviation(series: xr.DataArray, level: da.Array, *, who: str) -> da.Array:
    """Standard deviation of the noise in rays that cross the specimen, in intensity levels; lazy, without dims."""
    starts, length = runs_of(series.sizes[schema.Z], 1)
    source = slabs.lazy(series)
    runs = [source.isel({schema.Z: slice(start, start + length)}).data for start in starts]
    deviation: da.Array = da.from_delayed(
        delayed(_largest_deviation)(runs, starts, source[schema.ANGLE].values, level, who), (), np.float64
    )
    return deviation


def _largest_deviation(
    runs: list[Float32], starts: list[int], angles_deg: Float64, level: float, who: str
) -> np.float64:
    for run, start in zip(runs, starts, strict=True):
        finite.check_slab(run, who=who, dims=schema.SERIES_DIMS, first=start)
    return np.float64(max(deviation_of(run, angles_deg) for run in runs) / level)


def deviation_of(rows: Float32, angles_deg: Float64) -> float:
    """Root mean square of the noise in the rays that cross the specimen; 0 where too few are known to tell."""
    middle = rows[max(len(rows) - _NOISE_SLICES, 0) // 2 :][:_NOISE_SLICES]
    if not noise_fit.enough(1, *middle.shape):
        return 0.0
    ascending = np.asarray(middle, np.float64)[:, np.argsort(angles_deg, kind="stable")]
    found = noise_fit.fit([ascending], [])
    above = np.maximum(ascending - found.background, 0)
    bright = above[above >= _BRIGHT * (found.brightest - found.background)]
    return float(np.sqrt(found.read_noise**2 + found.gain * bright.mean())) if bright.size else 0.0


def binned(rows: Float32, factor: int) -> Float32:
    """(slice, angle, detector) in bins of `factor` slices by `factor` pixels, line integrals counted in bins."""
    height = min(factor, len(rows))
    slices, detectors = len(rows) // height * height, rows.shape[-1] // factor * factor
    whole = rows[:slices, :, :detectors].reshape(slices // height, height, rows.shape[1], -1, factor)
    means: Float32 = (whole.mean(axis=(1, 4)) / np.float32(factor)).astype(np.float32)
    return means


def _minimum(function: Callable[[float], float]) -> float:
    """The weight with the least value of a function that falls and then rises."""
    known: dict[int, float] = {}

    def at(place: int) -> float:
        """By the logarithm, in half steps, since the function rises steeply on one side."""
        if place not in known:
            known[place] = float(np.log(max(function(_STEP ** (place / 2)), np.finfo(np.float64).tiny)))
        return known[place]

    place = 0
    while place < _HIGHEST and at(place + 2) < at(place):
        place += 2
    while place > _LOWEST and at(place - 2) < at(place):
        place -= 2
    place = min(place - 1, place, place + 1, key=at)
    left, middle, right = (at(place + step) for step in (-1, 0, 1))
    curvature = left - 2 * middle + right
    shift = (left - right) / (2 * curvature) if curvature > 0 else 0.0
    return float(_STEP ** ((place + min(max(shift, -0.5), 0.5)) / 2))
