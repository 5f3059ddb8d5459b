"""The two steps of a primal–dual iteration for total variation on a lane group, each in one pass over the memory.

The problem is ``min ½ Σ w (A x - y)² + λ TV(x)`` within bounds; TV is the sum of the lengths of the gradient. The
gradient is the forward difference along z, y and x, zero at the last slice, row and column. With dual variables p
(entry, lane) and q (three of pixel, lane), an iteration of Chambolle and Pock with over-relaxation ρ is

    p ← p + ρ (p̃ - p),  p̃ = (p + Σ (A x̄ - y)) / (1 + Σ/w)
    q ← q + ρ (q̃ - q),  q̃ = (q + σ ∇x̄) shortened to the length λ
    x̃ = clip(x - T (Aᵀ p + ∇ᵀ q)),  x̄ ← 2 x̃ - x,  x ← x + ρ (x̃ - x)

`dual` is the first line. `step` is the other two in one sweep over the pixels: what a pixel needs of x̄ lies at it and
behind it, and what it needs of q at it and before it, so both are overwritten in place.

References
----------
.. [1] A. Chambolle and T. Pock, J. Math. Imaging Vis. 40 (2011) 120, doi:10.1007/s10851-010-0251-1.
.. [2] T. Pock and A. Chambolle, ICCV 2011, 1762, doi:10.1109/ICCV.2011.6126441: diagonal step sizes.
.. [3] L. Condat, J. Optim. Theory Appl. 158 (2013) 460, doi:10.1007/s10957-012-0245-9: over-relaxation.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from nntomo_dask.compute import device
from nntomo_dask.kernels import cuda, layout
from nntomo_dask.kernels.compiling import njit
from nntomo_dask.kernels.lanes import add, clip, divide, fill, fma, load, multiply, sqrt, store, subtract
from nntomo_dask.types import Float32

_PART = 8  # lanes in work at once: more would not keep all operands in registers
_LEAST_SQUARE = 1e-30  # of a length, so that a weight of zero shortens vectors to nothing
_WARPS = 8  # warps of a block on a GPU
_PIXELS = 256  # pixels whose squares one block of threads sums on a GPU; it fixes the order of summation
_MACROS = {"PIXELS": _PIXELS, "WARPS": _WARPS}


@dataclass(frozen=True)
class Steps:
    """Numbers of an iteration.

    Attributes
    ----------
    weight
        λ, the longest that a vector of q may be.
    sigma
        Step of q.
    shrink
        1 for total variation; ``1 / (1 + sigma · width / weight)`` for Huber's, quadratic below gradients of `width`.
    relaxation
        ρ, from 1 to below 2.
    lower, upper
        Bounds of a voxel; may be infinite.
    between
        Weight of differences between slices: 0 for total variation within slices.
    """

    weight: float
    sigma: float
    shrink: float
    relaxation: float
    lower: float
    upper: float
    between: float


@dataclass
class State:
    """Variables of the iteration on one lane group.

    Attributes
    ----------
    images, extrapolated
        (pixel, lane): x and x̄, zero in the border.
    dual
        (3, pixel, lane): q along z, y and x.
    rows
        (entry, lane): p.
    """

    images: Float32
    extrapolated: Float32
    dual: Float32
    rows: Float32


def dual_reference(
    rows: Float32, projected: Float32, measured: Float32, sigma: Float32, keep: Float32, relaxation: float
) -> None:
    """Reference implementation of `dual`."""
    proposed = (rows + sigma[:, None] * (projected - measured)) * keep[:, None]
    rows += np.float32(relaxation) * (proposed - rows)


def step_reference(
    state: State, backprojected: Float32, tau: Float32, size: int, lanes: int, steps: Steps, least: float = 0.0
) -> float:
    """Reference implementation of `step`."""
    width = state.images.shape[1]
    inside = np.s_[layout.IMAGE_PAD : -layout.IMAGE_PAD, layout.IMAGE_PAD : -layout.IMAGE_PAD, :lanes]
    stride = size + 2 * layout.IMAGE_PAD
    x, bar, gradient = (
        one.reshape(stride, stride, width)[inside] for one in (state.images, state.extrapolated, backprojected)
    )
    q = np.stack([one.reshape(stride, stride, width)[inside] for one in state.dual]).astype(np.float64)
    differences = np.zeros_like(q)
    differences[0, :, :, :-1] = steps.between * np.diff(bar, axis=2)
    differences[1, :-1] = np.diff(bar, axis=0)
    differences[2, :, :-1] = np.diff(bar, axis=1)
    proposed = (q + steps.sigma * differences) * steps.shrink
    proposed *= steps.weight / np.sqrt(np.maximum((proposed**2).sum(axis=0), max(steps.weight**2, _LEAST_SQUARE)))
    q += steps.relaxation * (proposed - q)
    divergence = steps.between * q[0] + q[1] + q[2]
    divergence[:, :, 1:] -= steps.between * q[0, :, :, :-1]
    divergence[1:] -= q[1, :-1]
    divergence[:, 1:] -= q[2, :, :-1]
    moved = x - tau.reshape(stride, stride)[inside[:2]][..., None] * (gradient - divergence)
    moved = np.clip(moved, steps.lower, steps.upper)
    change, total = ((moved - x) ** 2).sum(), (moved**2).sum()
    bar[...] = 2 * moved - x
    x += steps.relaxation * (moved - x)
    for one, value in zip(state.dual, q, strict=True):
        one.reshape(stride, stride, width)[inside] = value
    return _relative(float(change), float(total), least)


def dual(
    rows: Float32, projected: Float32, measured: Float32, sigma: Float32, keep: Float32, relaxation: float
) -> None:
    """Update p in place.

    Parameters
    ----------
    rows, projected, measured
        (entry, lane): p, A x̄ and y; or their spectra along the detector, real and imaginary parts side by side.
    sigma, keep
        (entry,): Σ, and ``1 / (1 + Σ/w)``, which is zero for a projection of no weight.
    """
    if device.is_on_gpu(rows):
        _dual_on_gpu(rows, projected, measured, sigma, keep, relaxation)
    else:
        _dual(rows, projected, measured, sigma, keep, np.float32(relaxation))


def step(
    state: State, backprojected: Float32, tau: Float32, size: int, lanes: int, steps: Steps, least: float = 0.0
) -> float:
    """Update q, x and x̄ in place; returns how far x moved, ``‖x̃ - x‖ / ‖x̃‖``.

    Parameters
    ----------
    backprojected
        (pixel, lane): ``Aᵀ p``.
    tau
        (pixel,): T.
    size
        Pixels along an edge of a slice.
    lanes
        Slices in the group; the other lanes stay zero.
    least
        What ``‖x̃‖²`` counts as where it is less.
    """
    width = state.images.shape[1]
    between = np.full(width, steps.sigma * steps.between, np.float32)
    between[lanes - 1 :] = 0
    if device.is_on_gpu(state.images):
        return _step_on_gpu(state, backprojected, tau, size, between, steps, least)
    change, total = _step_kernel(width)(
        state.images.reshape(-1),
        state.extrapolated.reshape(-1),
        state.dual.reshape(3, -1),
        backprojected.reshape(-1),
        tau,
        between,
        size,
        np.float32(steps.between),
        np.float32(steps.weight),
        np.float32(steps.sigma),
        np.float32(steps.shrink),
        np.float32(steps.relaxation),
        np.float32(steps.lower),
        np.float32(steps.upper),
    )
    return _relative(change, total, least)


def _relative(change: float, total: float, least: float) -> float:
    return float(np.sqrt(change / max(total, least))) if change > 0 else 0.0


@njit(nogil=True, cache=True, error_model="numpy")
def _dual(
    rows: Float32, projected: Float32, measured: Float32, sigma: Float32, keep: Float32, relaxation: np.float32
) -> None:
    n_entries, width = rows.shape
    for entry in range(n_entries):
        for lane in range(width):
            old = rows[entry, lane]
            proposed = (old + sigma[entry] * (projected[entry, lane] - measured[entry, lane])) * keep[entry]
            rows[entry, lane] = old + relaxation * (proposed - old)


@functools.cache
def _step_kernel(width: int) -> Any:
    @njit(nogil=True, cache=True, error_model="numpy")
    def kernel(
        x: Float32,
        bar: Float32,
        q: Float32,
        gradient: Float32,
        tau: Float32,
        between: Float32,
        n: int,
        ratio: np.float32,
        weight: np.float32,
        sigma: np.float32,
        shrink: np.float32,
        relaxation: np.float32,
        lower: np.float32,
        upper: np.float32,
    ) -> tuple[float, float]:
        stride = n + 2 * layout.IMAGE_PAD
        along_z, along_y, along_x = q[0], q[1], q[2]
        squares = np.empty(2 * _PART, np.float32)
        change, total = 0.0, 0.0
        square = max(weight * weight, np.float32(_LEAST_SQUARE))
        for y in range(n):
            sigma_y = sigma if y < n - 1 else np.float32(0)
            changes = fill(np.float32(0), _PART)
            totals = fill(np.float32(0), _PART)
            for column in range(n):
                sigma_x = sigma if column < n - 1 else np.float32(0)
                pixel = (y + layout.IMAGE_PAD) * stride + column + layout.IMAGE_PAD
                first = pixel * width
                for lane in range(0, width, _PART):
                    place = first + lane
                    here = load(bar, place, _PART)
                    old_z = load(along_z, place, _PART)
                    old_y = load(along_y, place, _PART)
                    old_x = load(along_x, place, _PART)
                    step_z = subtract(load(bar, place + 1, _PART), here)
                    step_y = subtract(load(bar, place + stride * width, _PART), here)
                    step_x = subtract(load(bar, place + width, _PART), here)
                    new_z = multiply(shrink, fma(load(between, lane, _PART), step_z, old_z))
                    new_y = multiply(shrink, fma(sigma_y, step_y, old_y))
                    new_x = multiply(shrink, fma(sigma_x, step_x, old_x))
                    length = fma(new_x, new_x, fma(new_y, new_y, multiply(new_z, new_z)))
                    short = divide(weight, sqrt(clip(length, square, np.float32(np.inf))))
                    new_z = fma(relaxation, subtract(multiply(short, new_z), old_z), old_z)
                    new_y = fma(relaxation, subtract(multiply(short, new_y), old_y), old_y)
                    new_x = fma(relaxation, subtract(multiply(short, new_x), old_x), old_x)
                    store(along_z, place, new_z)
                    store(along_y, place, new_y)
                    store(along_x, place, new_x)
                for lane in range(0, width, _PART):
                    place = first + lane
                    divergence = multiply(ratio, subtract(load(along_z, place, _PART), load(along_z, place - 1, _PART)))
                    divergence = add(
                        divergence,
                        subtract(load(along_y, place, _PART), load(along_y, place - stride * width, _PART)),
                    )
                    divergence = add(
                        divergence, subtract(load(along_x, place, _PART), load(along_x, place - width, _PART))
                    )
                    old = load(x, place, _PART)
                    down = subtract(divergence, load(gradient, place, _PART))
                    new = clip(fma(tau[pixel], down, old), lower, upper)
                    moved = subtract(new, old)
                    changes = fma(moved, moved, changes)
                    totals = fma(new, new, totals)
                    store(bar, place, add(new, moved))
                    store(x, place, fma(relaxation, moved, old))
            store(squares, 0, changes)
            store(squares, _PART, totals)
            for lane in range(_PART):
                change += squares[lane]
                total += squares[_PART + lane]
        return change, total

    return kernel


def _dual_on_gpu(rows: Any, projected: Any, measured: Any, sigma: Any, keep: Any, relaxation: float) -> None:
    n_entries, width = rows.shape
    cuda.get_function("total_variation", "dual", **_MACROS)(
        (-(-n_entries // _WARPS), width // cuda.WARP),
        (cuda.WARP, _WARPS),
        (rows, projected, measured, sigma, keep, np.float32(relaxation), np.int64(n_entries), np.int32(width)),
    )


def _step_on_gpu(
    state: State, backprojected: Any, tau: Any, size: int, between: Float32, steps: Steps, least: float
) -> float:
    xp = device.namespace(state.images)
    n_pixels, width = state.images.shape
    where = np.int64(n_pixels), np.int32(size), np.int32(width)
    cuda.get_function("total_variation", "edges", **_MACROS)(
        (-(-n_pixels // _WARPS), width // cuda.WARP),
        (cuda.WARP, _WARPS),
        (
            state.extrapolated,
            *state.dual,
            xp.asarray(between),
            *(np.float32(one) for one in (steps.weight, steps.sigma, steps.shrink, steps.relaxation)),
            *where,
        ),
    )
    n_parts = -(-n_pixels // _PIXELS)
    parts = xp.empty((2, n_parts, width))
    cuda.get_function("total_variation", "step", **_MACROS)(
        (n_parts, width // cuda.WARP),
        (cuda.WARP, _WARPS),
        (
            state.images,
            state.extrapolated,
            *state.dual,
            backprojected,
            tau,
            *(np.float32(one) for one in (steps.between, steps.relaxation, steps.lower, steps.upper)),
            *where,
            parts,
        ),
    )
    change, total = device.to_host(parts).sum(axis=(1, 2))
    return _relative(change, total, least)
