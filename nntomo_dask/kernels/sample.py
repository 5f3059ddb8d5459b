"""The inputs of NN-FBP at chosen voxels (Branchut 2024, Eq. 8, binned).

Input k of a voxel is the mean of ``Σ_θ weight_θ P_θ(t_θ - p)`` over the offsets p of bin k, on both sides, with linear
interpolation. Interpolation and summation commute, so the sum over a bin is the difference between two values of the
running sum of the row. The cost is O(bins) for each voxel and angle, not O(detector pixels). With ``sides="apart"`` the
two sides are inputs of their own: {0}, then the bins of positive p, then those of negative p.

References
----------
.. [1] A. Branchut, Machine Learning for Transmission Electron Microscopy Tomography, 2024.
"""

import itertools
from typing import Any, Literal

import numpy as np

from nntomo_dask.arrays.grid import Axis, axis_or_centre
from nntomo_dask.compute import device
from nntomo_dask.kernels import cuda
from nntomo_dask.kernels.compiling import njit
from nntomo_dask.types import Float32, Float64, Integers

Sides = Literal["together", "apart"]

_THREADS = 256  # threads of a block on a GPU


def sample_reference(
    sinograms: Float32,
    angles_rad: Float64,
    weights: Float64,
    edges: Integers,
    voxels: Integers,
    axis: Axis | None = None,
    *,
    sides: Sides = "together",
) -> Float32:
    """Reference implementation of `sample`: a loop over the offsets."""
    _, n_angles, n = sinograms.shape
    middle = axis_or_centre(axis, n)
    z, y, x = voxels.T
    padded = np.pad(sinograms.astype(float), ((0, 0), (0, 0), (2 * n, 2 * n)))
    bins = [np.arange(start, stop) for start, stop in itertools.pairwise(edges)]
    if sides == "apart":
        bins = [*bins, *(-one for one in bins[1:])]
    else:
        bins = [np.unique(np.concatenate([one, -one])) for one in bins]
    inputs = np.zeros((len(voxels), len(bins)))
    for a in range(n_angles):
        t = (x - middle.x) * np.cos(angles_rad[a]) + (y - middle.y) * np.sin(angles_rad[a]) + middle.x
        for k, offsets in enumerate(bins):
            for p in offsets:
                lower = np.floor(t - p).astype(int)
                weight = t - p - lower
                left, right = padded[z, a, lower + 2 * n], padded[z, a, lower + 1 + 2 * n]
                inputs[:, k] += weights[a] * ((1 - weight) * left + weight * right) / len(offsets)
    return inputs.astype(np.float32)


@njit(nogil=True, cache=True, error_model="numpy")
def _sample(
    running: Float64,
    cos: Float64,
    sin: Float64,
    weights: Float64,
    edges: Integers,
    voxels: Integers,
    axis_y: float,
    axis_x: float,
    apart: bool,  # noqa: FBT001
    inputs: Float32,
) -> None:
    n = running.shape[2] - 1
    n_bins = edges.size - 1
    above = np.empty(edges.size)
    below = np.empty(edges.size)
    sums = np.empty(n_bins)
    others = np.empty(n_bins)
    for v in range(len(voxels)):
        z, y, x = voxels[v]
        sums[:] = 0
        others[:] = 0
        for a in range(cos.size):
            t = (x - axis_x) * cos[a] + (y - axis_y) * sin[a] + axis_x
            lower = np.int64(np.floor(t))
            weight = t - lower
            row = running[z, a]
            for e in range(edges.size):
                up, down = lower + edges[e], lower - edges[e] + 1
                above[e] = (1 - weight) * row[min(max(up, 0), n)] + weight * row[min(max(up + 1, 0), n)]
                below[e] = (1 - weight) * row[min(max(down, 0), n)] + weight * row[min(max(down + 1, 0), n)]
            sums[0] += weights[a] * (above[1] - below[1])
            if apart:
                for k in range(1, n_bins):
                    sums[k] += weights[a] * (below[k] - below[k + 1])
                    others[k] += weights[a] * (above[k + 1] - above[k])
            else:
                for k in range(1, n_bins):
                    sums[k] += weights[a] * (above[k + 1] - above[k] + below[k] - below[k + 1])
        inputs[v, 0] = sums[0] / (2 * edges[1] - 1)
        for k in range(1, n_bins):
            if apart:
                inputs[v, k] = sums[k] / (edges[k + 1] - edges[k])
                inputs[v, n_bins - 1 + k] = others[k] / (edges[k + 1] - edges[k])
            else:
                inputs[v, k] = sums[k] / (2 * (edges[k + 1] - edges[k]))


def sample(
    sinograms: Float32,
    angles_rad: Float64,
    weights: Float64,
    edges: Integers,
    voxels: Integers,
    axis: Axis | None = None,
    *,
    sides: Sides = "together",
) -> Float32:
    """Inputs of NN-FBP at chosen voxels.

    Parameters
    ----------
    sinograms
        (slice, angle, detector).
    angles_rad, weights
        (angle,).
    edges
        (bin + 1,): bin k holds the offsets p with ``edges[k] <= |p| < edges[k + 1]``; edges[0] is 0.
    voxels
        (voxel, 3): slice, y and x index.
    axis
        Where the tilt axis crosses the slices; in the middle unless it is given.
    sides
        "together": a bin is one input. "apart": one for each sign of the offset.

    Returns
    -------
    (voxel, bin), or (voxel, 2 bins - 1).
    """
    n_slices, n_angles, n = sinograms.shape
    middle = axis_or_centre(axis, n)
    if device.is_on_gpu(sinograms):
        return _on_gpu(sinograms, angles_rad, weights, edges, voxels, middle, sides)
    running = np.zeros((n_slices, n_angles, n + 1))
    np.cumsum(sinograms, axis=2, dtype=np.float64, out=running[:, :, 1:])
    inputs = np.empty((len(voxels), _count(edges, sides)), np.float32)
    apart = sides == "apart"
    _sample(running, np.cos(angles_rad), np.sin(angles_rad), weights, edges, voxels, *middle, apart, inputs)
    return inputs


def _count(edges: Integers, sides: Sides) -> int:
    """Inputs of a voxel."""
    return 2 * len(edges) - 3 if sides == "apart" else len(edges) - 1


def _on_gpu(
    sinograms: Any,
    angles_rad: Float64,
    weights: Float64,
    edges: Integers,
    voxels: Integers,
    axis: Axis,
    sides: Sides,
) -> Any:
    xp = device.namespace(sinograms)
    n_slices, n_angles, n = sinograms.shape
    running = xp.zeros((n_slices, n_angles, n + 1))
    running[:, :, 1:] = xp.cumsum(sinograms, axis=2, dtype=np.float64)
    inputs = xp.empty((len(voxels), _count(edges, sides)), np.float32)
    if inputs.size == 0:  # no voxel of the slab was chosen; a launch without threads is an error
        return inputs
    cuda.get_function("sample", "sample", APART=sides == "apart")(
        (-(-inputs.size // _THREADS),),
        (_THREADS,),
        (
            running,
            *(cuda.on_device(values, sinograms) for values in (np.cos(angles_rad), np.sin(angles_rad), weights)),
            *(xp.asarray(np.ascontiguousarray(values, np.int64)) for values in (edges, voxels)),
            *(np.int32(size) for size in (n_angles, n, len(edges) - 1)),
            np.int64(inputs.size),
            *(np.float64(place) for place in axis),
            inputs,
        ),
    )
    return inputs
