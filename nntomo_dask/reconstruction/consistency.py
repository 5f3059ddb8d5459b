"""Consistency with the measurement: a volume that a network proposes, moved to what the projections say.

``min ‖A x - y‖² + μ ‖x - proposed‖²`` within bounds. What contradicts the projections goes; what they do not determine
stays as it was proposed. See docs/theory.md.

A method with networks has a field ``consistency: Consistency = setting("auto", help=CONSISTENCY_HELP)``, and calls
`check`, `prepare`, `finished` and `host_bytes` where it does the like; its recipe holds `parameters`.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr

from nntomo_dask.arrays import schema
from nntomo_dask.compute import chunking, device, reporting, streams
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import layout, project as kernel
from nntomo_dask.projection import conditioning
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import measured as of_series
from nntomo_dask.reconstruction.method import Scalar
from nntomo_dask.types import Complex64, Float32, Float64

Weight = float | Literal["auto"]
Consistency = float | Literal["auto", "none"]
OfCoarse = float | Literal["auto", "none", "noiseless"]  # of networks whose volumes without noise are coarse

CONSISTENCY_HELP = (
    "How far the network's volume is moved to what the projections say: auto takes away what contradicts them by more "
    "than their noise, none leaves the volume as it is. A number is the variance of a ray's noise divided by that of "
    "the network's error in a voxel, in px²: the larger, the less is moved."
)
NOISELESS_HELP = (
    f"{CONSISTENCY_HELP} noiseless leaves it as it is, unless the series has no noise that can be told: then the fit "
    "begins with half of the volume and meets the projections."
)
ITERATIONS = 10
# Without noise: the share of the network's volume from which the fit begins, and its steps. See docs/theory.md.
_KEPT, _NOISELESS_ITERATIONS = 0.5, 40
_ROUGHNESS = 0.1  # of the intensity level: what rays of a right volume differ by, since a body is no voxels
# Frequencies whose squares are averaged: within this share of a frequency, and so many.
_NEAR, _LEAST_NEAR = 0.5, 1
_SURE = 2  # standard deviations by which squares exceed those of noise before they are a fault of the volume
_OF_A_LINE = 2 / 3  # mean of (1 - w)² + w²: squares of the two weights with which a ray crosses a line of pixels


def check(consistency: Any, *, who: str, words: tuple[str, ...] = ("auto", "none")) -> None:
    """Raise a SchemaError where it is none of the words and no number of at least 0."""
    known = consistency in words if isinstance(consistency, str) else _is_weight(consistency)
    if not known:
        listed = " or ".join(f'"{one}"' for one in words)
        needs, remedy = f"consistency {listed}, or a number of at least 0", '`consistency="auto"`'
        refuse(who, needs=needs, got=f"{consistency!r}", remedy=remedy)


def _is_weight(value: Any) -> bool:
    return (
        isinstance(value, int | float | np.number)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and bool(value >= 0)
    )


def parameters(consistency: OfCoarse) -> dict[str, Any]:
    """What a recipe says of it: nothing where the volume stays as it is, as before there was such a setting."""
    return {} if consistency == "none" else {"consistency": consistency}


def prepare(
    series: xr.DataArray, consistency: OfCoarse, *, level: Scalar, pad: int = 0, who: str
) -> tuple[Scalar, ...]:
    """Lower bound of the voxels, and gain, read-out noise and background, as lazy scalars; none for "none".

    For "noiseless": the lower bound, and whether the series has no noise.

    Parameters
    ----------
    series
        The measured one, with projections that were extended by `pad` pixels at either end.
    level
        The series' intensity level: a share of it counts as noise, so that a fit does not follow surfaces of voxels.
    """
    if consistency == "none":
        return ()
    own = series.isel({schema.DETECTOR: slice(pad, series.sizes[schema.DETECTOR] - pad)})
    if consistency == "noiseless":
        return of_series.least_value_and_whether_noiseless(own, who=who)
    least, gain, read_noise, background = of_series.least_value_and_noise(own, who=who)
    return least, gain, (read_noise**2 + (_ROUGHNESS * level) ** 2) ** 0.5, background


def prepare_at(consistency: OfCoarse, *, level: float) -> tuple[Scalar, ...]:
    """`prepare` for a series whose level alone is known, where the method makes the input of a network: no noise.

    For "noiseless" the volume stays as it is: a network learned from such.
    """
    if consistency == "noiseless":
        return 0.0, 0.0
    return () if consistency == "none" else (0.0, 0.0, _ROUGHNESS * level, 0.0)


def finished(
    volume: Float32,
    rows: Float32,
    pair: Projector,
    *,
    weight: Weight = "auto",
    kept: float = 1.0,
    minimum: float | None = 0.0,
    maximum: float | None = None,
    noise: Sequence[float] = (0.0, 0.0, 0.0),
    pad: int = 0,
    iterations: int = ITERATIONS,
    who: str = "consistency",
) -> Float32:
    """Move a volume to what its projections say: ``min ‖A x - y‖² + μ ‖x - volume‖²`` within bounds.

    Each slice by itself, with bits that depend on no other. Solved in the space of the rays, where the minimum is
    ``x = clip(volume + Aᵀ q)`` and ``μ q = y - A x``: accelerated steps by frequency, a projection and a backprojection
    each. What is returned keeps the bounds after any number of them.

    Parameters
    ----------
    volume
        (slice, y, x), [u].
    rows
        (slice, angle, detector), line integrals in the order of the pair's angles, [u · px].
    pair
        A and its transpose, for slices of this size.
    weight
        μ, [px²]: the variance of a ray's noise divided by that of what is wrong in a voxel. 0 fits the projections
        alone. "auto": by frequency along the detector, from `noise` and from what the projections of this slice
        differ by.
    kept
        What the volume is multiplied with before it is moved.
    minimum, maximum
        Bounds of the voxels, [u]; None where there is none.
    noise
        Gain, read-out noise and background of a ray, for the automatic weight: the variance at a value v is
        ``read² + gain · max(v - background, 0)``. All that a right volume would not explain counts as noise.
    pad
        Pixels at either end of the detector that were not measured, and have no noise.
    iterations
        A projection and a backprojection each.
    who
        Name of the caller, for errors.

    Returns
    -------
    (slice, y, x), [u], where `rows` lie. The squares of the differences are told to `compute.reporting`.

    References
    ----------
    .. [1] A. Beck and M. Teboulle, Oper. Res. Lett. 42 (2014) 1, doi:10.1016/j.orl.2013.10.007: accelerated steps for
       the dual of a strongly convex problem.
    """
    xp = device.namespace(rows)
    # One array, since what is streamed to a GPU is one.
    joined = xp.concatenate([xp.asarray(volume), rows], axis=1)
    solver = partial(
        _of_slab,
        pair=pair,
        weight=weight,
        kept=kept,
        bounds=(-math.inf if minimum is None else minimum, math.inf if maximum is None else maximum),
        noise=noise,
        pad=pad,
        iterations=iterations,
    )
    need = device_bytes_per_slice((len(rows), pair.angles_deg.size, pair.size))
    return pair.computed(solver, joined, slice_bytes=need, who=who)


def finished_without_noise(
    volume: Float32, rows: Float32, pair: Projector, *, minimum: float, is_noiseless: float, who: str
) -> Float32:
    """A coarse network's volume, moved to where projections are met that have no noise; else as it is.

    Without noise all differences are the network's fault. What projections determine is right after enough steps,
    wherever these begin; of what the network alone says, half is kept.
    """
    if not is_noiseless:
        return volume
    steps = _NOISELESS_ITERATIONS
    return finished(volume, rows, pair, weight=0.0, kept=_KEPT, minimum=minimum, iterations=steps, who=who)


def host_bytes(shape: chunking.SlabShape) -> int:
    """Bytes of `finished` beside its arguments: a copy of both, the result, and what a lane group takes."""
    slices, angles, detector = shape
    image, rows = chunking.image_bytes(detector), chunking.rows_bytes(angles, detector)
    lanes = layout.lane_width(slices, kernel.WIDEST)
    return slices * (2 * image + rows) + 3 * layout.padded_image_bytes(detector, lanes) + 12 * lanes * rows


def device_bytes_per_slice(shape: chunking.SlabShape) -> int:
    """Bytes of GPU memory that a slice takes at the peak, its copies included."""
    _, angles, detector = shape
    image, rows = streams.bordered_image_bytes(detector), streams.padded_rows_bytes(angles, detector)
    return streams.copied_bytes(angles, detector) + 6 * image + 14 * rows


def _of_slab(
    joined: Float32,
    *,
    pair: Projector,
    weight: Weight,
    kept: float,
    bounds: tuple[float, float],
    noise: Sequence[float],
    pad: int,
    iterations: int,
) -> Float32:
    """One lane group after the other; `joined` is (slice, y and angle, x and detector)."""
    size, xp = pair.size, device.namespace(joined)
    width = kernel.group_width(joined[:, size:])
    result: Float32 = xp.empty((len(joined), size, size), np.float32)
    for z in range(0, len(joined), width):
        group = joined[z : z + width]
        proposed = layout.image_to_lanes(group[:, :size], width).reshape(-1, width)
        measured = layout.sinogram_to_lanes(group[:, size:], width).reshape(-1, width)
        images = _solved(proposed, measured, pair, weight, kept, bounds, noise, pad, iterations)
        result[z : z + width] = layout.image_from_lanes(images.reshape(-1), (len(group), size, size))
    return result


def _solved(
    proposed: Float32,
    measured: Float32,
    pair: Projector,
    weight: Weight,
    kept: float,
    bounds: tuple[float, float],
    noise: Sequence[float],
    pad: int,
    iterations: int,
) -> Float32:
    """The images (pixel, lane) of one lane group; the spectrum of q is what is iterated."""
    steps = pair.frequency_steps(measured)[:, :, None]
    images = _clipped(proposed.copy(), pair.size, bounds)
    residual = measured - pair.forward(images)
    squares = _squares(residual)
    if kept != 1:
        proposed *= np.float32(kept)
        images = _clipped(proposed.copy(), pair.size, bounds)
        residual = measured - pair.forward(images)
    keep = (
        _kept(conditioning.spectra_of(residual, pair.size), steps, pair, _variance(measured, pair, noise, pad))
        if isinstance(weight, str)
        else 1 / (1 + np.float32(weight) * steps)
    )
    dual: Any = np.complex64(0)
    ahead: Any = dual
    momentum = 1.0
    for iteration in range(1, iterations + 1):
        step = keep * (ahead + steps * conditioning.spectra_of(residual, pair.size))
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        along = np.float32((momentum - 1) / following) if iteration < iterations else np.float32(0)
        dual, ahead, momentum = step, step + along * (step - dual), following
        del images, step
        images = pair.back(conditioning.lanes_of(ahead, pair.size))
        images += proposed
        images = _clipped(images, pair.size, bounds)
        residual = measured - pair.forward(images)
    reporting.add_squares(*(float(one.sum()) for one in (_squares(measured), squares, _squares(residual))))
    return images


def _kept(spectra: Complex64, steps: Float32, pair: Projector, variance: Float64) -> Float32:
    """1 / (1 + μ S) of each projection, frequency and lane, with the automatic μ.

    What the squares of the residual at a frequency exceed those of the noise by is the volume's fault. They are a mean
    over projections and near frequencies, so they vary with a known deviation, and have to exceed the noise by two.
    """
    xp = device.namespace(spectra)
    power = (spectra.real.astype(np.float64) ** 2 + spectra.imag.astype(np.float64) ** 2).mean(axis=0) / pair.size
    frequency = np.arange(len(power))
    reach = (_LEAST_NEAR + _NEAR * frequency).astype(int)
    first, last = np.maximum(frequency - reach, 0), np.minimum(frequency + reach + 1, len(power))
    sums = xp.concatenate([xp.zeros_like(power[:1]), xp.cumsum(power, axis=0)])
    count = xp.asarray((last - first).astype(np.float64))[:, None]
    near = (sums[xp.asarray(last)] - sums[xp.asarray(first)]) / count
    excess = xp.maximum(near - variance * (1 + _SURE / xp.sqrt(count * pair.angles_deg.size)), 0)
    of_voxels = variance * _squares_of_a_ray(pair)
    total = excess + steps * of_voxels
    kept: Float32 = (excess / xp.where(total > 0, total, 1)).astype(np.float32)
    return kept


def _squares_of_a_ray(pair: Projector) -> float:
    """Mean over all rays of the sum of their squared weights, [px²]: what white errors of voxels add up to."""
    angles = np.deg2rad(pair.angles_deg)
    main = np.maximum(np.abs(np.cos(angles)), np.abs(np.sin(angles)))
    return float((_OF_A_LINE * pair.row_sums.astype(np.float64) / main[:, None]).mean())


def _variance(measured: Float32, pair: Projector, noise: Sequence[float], pad: int) -> Float64:
    """(lane,): mean over all rays of the variance of their noise."""
    gain, read_noise, background = noise
    first = layout.DETECTOR_FRONT + pad
    table = measured.reshape(pair.angles_deg.size, -1, measured.shape[1])
    seen = table[:, first : first + pair.size - 2 * pad]
    above = (seen - np.float32(background)).clip(0).mean(axis=(0, 1), dtype=np.float64)
    variance: Float64 = (read_noise**2 + gain * above) * ((pair.size - 2 * pad) / pair.size)
    return variance


def _clipped(images: Float32, size: int, bounds: tuple[float, float]) -> Float32:
    """A lane group of images within bounds, in place; its border stays zero."""
    stride, pad = size + 2 * layout.IMAGE_PAD, layout.IMAGE_PAD
    inside: Any = images.reshape(stride, stride, -1)[pad:-pad, pad:-pad]
    lower, upper = (np.float32(one) for one in bounds)
    inside.clip(lower, upper, out=inside)
    return images


def _squares(values: Float32) -> Float64:
    """Sum of squares of each lane (…, lane), in double precision."""
    squares: Float64 = (values * values).sum(axis=0, dtype=np.float64)
    return squares
