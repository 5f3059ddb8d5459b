"""The solver of total variation: a primal–dual iteration on a block of slices, from a coarser solution."""

from dataclasses import dataclass, replace

import numpy as np

from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import device, reporting
from nntomo_dask.kernels import layout, project as project_kernel, total_variation as kernel
from nntomo_dask.projection import conditioning
from nntomo_dask.projection.projector import Projector
from nntomo_dask.types import Float32, Float64, Integers

_SMALLEST = 48  # pixels; a slice that is no larger has no coarser level
_LEAST_MATTER = 0.01  # of the voxels; a block of less stops as if it had so much, since noise alone never settles
_RELAXATION = 1.5  # over-relaxation; 1.9 oscillates


NOISY = 0.5  # weight from which on a series is taken for noisy


def automatic_tolerance(weight: float) -> float:
    """With noise, further iterations fit noise; without, they find edges."""
    return 2.5e-3 if weight >= NOISY else 4e-4


@dataclass(frozen=True)
class Problem:
    """What is minimised, in units of the specimen's intensity level; see `tv`."""

    weight: float
    lower: float
    upper: float
    huber: float
    between: float
    tolerance: float
    max_iterations: int

    def coarser(self) -> "Problem":
        """The same problem for bins of two by two by two voxels.

        A ray of such a volume is the mean of four in units twice as long, and its squares count 16 times as much; edges
        have four times the area.
        """
        return replace(self, weight=self.weight / 4)


def solve(rows: Float32, pair: Projector, problem: Problem, projection_weights: Float64) -> Float32:
    """The volume (slice, y, x) of rows (slice, angle, detector), up to 32 slices that are neighbours."""
    state, iterations = _solve(rows, pair, problem, projection_weights)
    reporting.add([iterations], unfinished=[iterations == problem.max_iterations])
    images: Float32 = layout.image_from_lanes(state.images.reshape(-1), (len(rows), pair.size, pair.size))
    within: Float32 = device.namespace(rows).clip(images, problem.lower, problem.upper)
    return within


def _solve(rows: Float32, pair: Projector, problem: Problem, projection_weights: Float64) -> tuple[kernel.State, int]:
    """From zero on the coarsest level, on each finer one from the level before; and the iterations on the finest."""
    xp = device.namespace(rows)
    width = project_kernel.group_width(rows)
    measured = layout.sinogram_to_lanes(rows, width).reshape(-1, width)
    state = _start(rows, measured, pair, problem, projection_weights)
    ray_step, edge_step = _step_sizes(problem.weight)
    sigma = (np.float32(ray_step) * pair.frequency_steps(measured)).reshape(-1)
    weights = xp.asarray(np.repeat(projection_weights, pair.size // 2 + 1).astype(np.float32))
    keep = weights / (weights + sigma)
    tau = xp.full(len(state.images), 1 / (ray_step + edge_step * (4 + 2 * problem.between)), np.float32)
    steps = kernel.Steps(
        weight=problem.weight,
        sigma=edge_step / 2,
        shrink=1 / (1 + edge_step / 2 * problem.huber / problem.weight) if problem.weight > 0 else 1.0,
        relaxation=_RELAXATION,
        lower=problem.lower,
        upper=problem.upper,
        between=problem.between,
    )
    iterations = 0
    least = _LEAST_MATTER * len(rows) * pair.size**2
    spectra, wanted = state.rows, _spectra(measured, pair.size)
    for iterations in range(1, problem.max_iterations + 1):  # noqa: B007
        kernel.dual(spectra, _spectra(pair.forward(state.extrapolated), pair.size), wanted, sigma, keep, _RELAXATION)
        moved = kernel.step(state, pair.back(_rows(spectra, pair)), tau, pair.size, len(rows), steps, least)
        if moved <= problem.tolerance:
            break
    return state, iterations


def _step_sizes(weight: float) -> tuple[float, float]:
    """Steps of the rays' and the edges' dual variables, which with `tau` meet the condition of Chambolle and Pock.

    Any pair converges. These took the fewest iterations for particles of 128³ voxels with 8 and 15 projections and
    weights from 0.03 to 5; steps twice as large or half as large take up to half more.
    """
    known = max(weight, 1e-3)
    return 10 * known**0.6, 4.5 * known**0.9


def _start(
    rows: Float32, measured: Float32, pair: Projector, problem: Problem, projection_weights: Float64
) -> kernel.State:
    """Zero, or the solution for pixels that are twice as large, which takes an eighth of the time an iteration."""
    xp = device.namespace(rows)
    images = pair.zeros(measured)
    dual = xp.zeros((3, *images.shape), np.float32)
    residual = xp.zeros_like(measured)
    if pair.size > _SMALLEST:
        binned, coarse_pair, coarse_problem = _coarser(rows, pair, problem)
        coarse, _ = _solve(binned, coarse_pair, coarse_problem, projection_weights)
        lanes = xp.asarray(np.arange(len(rows)) // (2 if problem.between else 1))
        for fine, rough, factor in ((images, coarse.images, 1), *zip(dual, coarse.dual, (4, 4, 4), strict=True)):
            _refine(fine, rough, pair.size, lanes, factor)
        _close(dual, pair.size, len(rows))
        _refine_rows(residual, _rows(coarse.rows, coarse_pair), pair.size, lanes)
        del coarse
    return kernel.State(images, images.copy(), dual, _spectra(residual, pair.size))


def _spectra(rows: Float32, size: int) -> Float32:
    """A lane group of sinograms as (angle and frequency, real and imaginary part of each lane)."""
    spectra = conditioning.spectra_of(rows, size)
    parts: Float32 = device.namespace(rows).ascontiguousarray(spectra).view(np.float32)
    return parts.reshape(-1, parts.shape[2])


def _rows(spectra: Float32, pair: Projector) -> Float32:
    """Inverse of `_spectra`."""
    parts = spectra.reshape(-1, pair.size // 2 + 1, spectra.shape[1]).view(np.complex64)
    return conditioning.lanes_of(parts, pair.size)


def _coarser(rows: Float32, pair: Projector, problem: Problem) -> tuple[Float32, Projector, Problem]:
    """The same problem in bins of 2 × 2 × 2 voxels, or of 2 × 2 where slices are independent."""
    xp = device.namespace(rows)
    if rows.shape[2] % 2:
        rows = xp.concatenate([rows, rows[:, :, -1:]], axis=2)
    if problem.between and len(rows) % 2:
        rows = xp.concatenate([rows, rows[-1:]])
    binned = (rows[:, :, ::2] + rows[:, :, 1::2]) / np.float32(4)  # a mean, of lengths in units of two pixels
    if problem.between:
        binned = (binned[::2] + binned[1::2]) / np.float32(2)
    axis = Axis(*((place + 0.5) / 2 - 0.5 for place in pair.axis))
    return binned, pair.resized(binned.shape[2], axis), problem.coarser()


def _refine(fine: Float32, rough: Float32, size: int, lanes: Integers, factor: int) -> None:
    """Give each pixel of a lane group what the pixel twice as large there has, in these lanes, times a factor."""
    pad, half = layout.IMAGE_PAD, (size + 1) // 2
    xp = device.namespace(fine)
    target = fine.reshape(size + 2 * pad, size + 2 * pad, -1)
    source = rough.reshape(half + 2 * pad, half + 2 * pad, -1)
    for y in range(size):
        line = source[pad + y // 2, pad:-pad][:, lanes] * np.float32(factor)
        target[pad + y, pad:-pad, : lanes.size] = xp.repeat(line, 2, axis=0)[:size]


def _refine_rows(fine: Float32, rough: Float32, size: int, lanes: Integers) -> None:
    """Give each ray what the one twice as wide has; it is in units twice as long, so that it counts twice."""
    front, half, width = layout.DETECTOR_FRONT, (size + 1) // 2, fine.shape[1]
    target = fine.reshape(-1, size + layout.DETECTOR_PAD, width)
    source = rough.reshape(len(target), half + layout.DETECTOR_PAD, -1)[:, front : front + half][:, :, lanes]
    doubled = device.namespace(fine).repeat(source, 2, axis=1)[:, :size]
    target[:, front : front + size, : lanes.size] = np.float32(2) * doubled


def _close(dual: Float32, size: int, count: int) -> None:
    """Zero where there is no difference: at the last slice, row and column."""
    stride = size + 2 * layout.IMAGE_PAD
    along_z, along_y, along_x = (one.reshape(stride, stride, -1) for one in dual)
    along_z[:, :, count - 1 :] = 0
    along_y[size] = 0
    along_x[:, size] = 0
