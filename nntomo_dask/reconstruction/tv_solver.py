"""The solver of total variation: a primal–dual iteration on a block of slices, from a coarser solution."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import device, reporting
from nntomo_dask.kernels import layout, project as project_kernel, total_variation as kernel
from nntomo_dask.projection.projector import LEAST_WEIGHT, Projector
from nntomo_dask.types import Float32, Float64, Integers

_SMALLEST = 48  # pixels; a slice that is no larger has no coarser level
_LEAST_MATTER = 0.01  # of the voxels; a block of less stops as if it had so much, since noise alone never settles
_RELAXATION = 1.5  # over-relaxation; 1.9 oscillates


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
    data_step, edge_step = _step_sizes(problem.weight)
    row_sums, column_sums = pair.sums(measured)
    sigma = _divided(np.float32(data_step), row_sums, least=LEAST_WEIGHT)
    entry_weights = np.repeat(projection_weights, pair.size + layout.DETECTOR_PAD).astype(np.float32)
    weights = xp.asarray(entry_weights) * (sigma > 0)
    keep = _divided(weights, weights + sigma, least=0)
    edges = edge_step * (4 + 2 * problem.between)
    tau = (1 / (data_step * column_sums + edges)).astype(np.float32)
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
    for iterations in range(1, problem.max_iterations + 1):  # noqa: B007
        kernel.dual(state.rows, pair.forward(state.extrapolated), measured, sigma, keep, _RELAXATION)
        moved = kernel.step(state, pair.back(state.rows), tau, pair.size, len(rows), steps, least)
        if moved <= problem.tolerance:
            break
    return state, iterations


def _step_sizes(weight: float) -> tuple[float, float]:
    """Steps of the rows' and the edges' dual variables, which meet Pock and Chambolle's condition with `tau`.

    Any pair converges. These took the fewest iterations for particles of 64³ and 96³ voxels with 8 projections, with
    weights from 0.03 to 10; twice as large or half as large steps take up to a third more.
    """
    known = max(weight, 1e-3)
    return 1.7 * known**0.25, 1.3 * known ** (0.8 if known > 1 else 0.65)


def _start(
    rows: Float32, measured: Float32, pair: Projector, problem: Problem, projection_weights: Float64
) -> kernel.State:
    """Zero, or the solution for pixels that are twice as large, which takes an eighth of the time an iteration."""
    xp = device.namespace(rows)
    images = pair.zeros(measured)
    dual = xp.zeros((3, *images.shape), np.float32)
    if pair.size > _SMALLEST:
        coarse, _ = _solve(*_coarser(rows, pair, problem), projection_weights)
        lanes = np.arange(len(rows)) // (2 if problem.between else 1)
        for fine, rough, factor in ((images, coarse.images, 1), *zip(dual, coarse.dual, (4, 4, 4), strict=True)):
            _refine(fine, rough, pair.size, lanes, factor)
        del coarse
        _close(dual, pair.size, len(rows))
    return kernel.State(images, images.copy(), dual, xp.zeros_like(measured))


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
    chosen = xp.asarray(lanes)
    for y in range(size):
        line = source[pad + y // 2, pad:-pad][:, chosen] * np.float32(factor)
        target[pad + y, pad:-pad, : lanes.size] = xp.repeat(line, 2, axis=0)[:size]


def _close(dual: Float32, size: int, count: int) -> None:
    """Zero where there is no difference: at the last slice, row and column."""
    stride = size + 2 * layout.IMAGE_PAD
    along_z, along_y, along_x = (one.reshape(stride, stride, -1) for one in dual)
    along_z[:, :, count - 1 :] = 0
    along_y[size] = 0
    along_x[:, size] = 0


def _divided(dividend: Any, divisor: Float32, *, least: float) -> Float32:
    """The quotient; 0 where the divisor is `least` or less."""
    xp = device.namespace(divisor)
    quotient: Float32 = xp.where(divisor > least, dividend / xp.maximum(divisor, np.float32(1e-30)), np.float32(0))
    return quotient
