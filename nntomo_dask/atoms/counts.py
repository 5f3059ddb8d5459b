"""A tilt series as counts: what the likelihood of atoms is calculated from."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import finite, schema, slabs
from nntomo_dask.atoms import measured
from nntomo_dask.errors import refuse
from nntomo_dask.kernels.atom_grid import Rays
from nntomo_dask.projection.noise import Noise, noise as noise_of
from nntomo_dask.types import Bools, Float64

_LEAST_ZEROS = 0.01  # share of values of zero in a series that is looked at for steps
_WHOLE = 0.02  # distance from a whole number that rounding leaves
_GAUSSIAN = 0.02  # of the read-out's variance: what counting adds to it where there is none, so that there are counts
_NOISELESS = 1e-3  # of the brightest ray: the noise that is assumed of a series that has none
_UNSEEN = 1e-4  # of the brightest ray: less noise is what smooth projections without any look like
_NEAR = 0.16  # nm; of the autocorrelation within it the width of an atom is told
_WIDTHS = 0.015, 0.1  # nm, between which it is looked for


class Counted(NamedTuple):
    """Counts and where they were counted; projections in ascending order of their angles."""

    counts: Float64  # (view, detector, z), at least 0
    read: float  # counts that are added, so that their variance is that of the read-out noise
    gain: float  # what a count adds to a value of the series
    background: float  # of the series
    rays: Rays
    pixel: float  # [nm]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(view, detector, z)."""
        views, detectors, slices = self.counts.shape
        return views, detectors, slices

    def seen(self, margin: float) -> Bools:
        """(z, y, x): voxels that are farther than a margin [nm] from the edges of every projection."""
        return seen(self.rays, self.shape, margin)


def seen(rays: Rays, shape: tuple[int, int, int], margin: float) -> Bools:
    """(z, y, x): voxels that are farther than a margin [nm] from the edges of projections (view, detector, z)."""
    _, detectors, slices = shape
    z = rays.first_z + rays.step_z * np.arange(slices)
    t = rays.first_t + rays.step_t * np.arange(detectors)
    along = (z >= z.min() + margin) & (z <= z.max() - margin)
    across = np.ones((detectors, detectors), bool)
    for cosine, sine in zip(rays.cosines, rays.sines, strict=True):
        place = t[None, :] * cosine + t[:, None] * sine
        across &= (place >= t.min() + margin) & (place <= t.max() - margin)
    return np.asarray(along[:, None, None] & across)


def refuse_unseen(who: str, margin: float) -> None:
    """Raise a SchemaError about projections that end within a margin [nm] everywhere."""
    refuse(
        who,
        needs=f"projections of more than {2 * margin:.3g} nm along each axis, the surroundings of an atom",
        got="fewer slices or pixels",
        remedy="the whole series, or a smaller `width`",
    )


def check_volume(volume: xr.DataArray, series: xr.DataArray, *, who: str) -> None:
    """Raise a SchemaError unless a volume is on the grid of a series."""
    schema.check_volume(volume, who=who)
    schema.check_tilt_series(series, who=who)
    pairs = ((schema.Z, schema.Z), (schema.Y, schema.DETECTOR), (schema.X, schema.DETECTOR))
    if any(
        volume.sizes[one] != series.sizes[other] or not np.allclose(volume[one].values, series[other].values)
        for one, other in pairs
    ):
        refuse(
            who,
            needs="a volume on the grid of the series",
            got=f"sizes {tuple(volume.shape)} and {tuple(series.shape)}, or other positions",
            remedy="a reconstruction of this series",
        )


def counting_step(values: npt.ArrayLike) -> float | None:
    """What one count adds to a series that was counted without any other noise; None where it was not.

    Such a series has zeros, and all its values are multiples of the smallest one above them.
    """
    flat = np.asarray(values, np.float64).ravel()
    if flat.min(initial=np.inf) < 0 or (flat == 0).mean() < _LEAST_ZEROS or not (flat > 0).any():
        return None
    step = float(flat[flat > 0].min())
    multiples = flat / step
    if multiples.max() > _WHOLE / np.finfo(np.float32).eps or np.abs(multiples - np.rint(multiples)).max() > _WHOLE:
        return None
    return step


def counted(series: xr.DataArray, *, noise: Noise | None, who: str) -> Counted:
    """Counts from a series. Computes.

    Parameters
    ----------
    noise
        None: found from the series; exactly, where its values are multiples of a step.

    Raises
    ------
    SchemaError
        `series` is no tilt series, its pixels have no length, its slices are not at equal steps, a value is NaN, all
        are the same, or none is above the background.
    """
    values, rays, pixel = values_and_rays(series, who=who)
    _check_specimen(values, noise, who)
    found = noise
    if found is None:
        step = counting_step(values)
        found = noise_of(series) if step is None else Noise(gain=step, brightest=float(values.max()))
    gain, read = _as_counts(found, values)
    above = (values.astype(np.float64) - found.background) / gain + read
    counts = np.ascontiguousarray(np.maximum(above, 0).transpose(1, 2, 0))
    return Counted(counts, read, gain, found.background, rays, pixel)


def values_and_rays(series: xr.DataArray, *, who: str) -> tuple[npt.NDArray[np.float32], Rays, float]:
    """Values (z, view, detector) in ascending order of angles, where they lie, and the pixel size [nm]. Computes.

    Raises
    ------
    SchemaError
        As `counted`.
    """
    measured.check_geometry(series, who=who)
    ordered = series.sortby(schema.ANGLE)
    values = np.asarray(slabs.lazy(ordered).data.compute(scheduler="synchronous"), np.float32)
    finite.check_slab(values, who=who, dims=schema.SERIES_DIMS, first=0)
    angles = np.deg2rad(ordered[schema.ANGLE].values)
    z, t = (np.asarray(ordered[dim].values, np.float64) for dim in (schema.Z, schema.DETECTOR))
    rays = Rays(np.cos(angles), np.sin(angles), float(z[0]), _step(z), float(t[0]), _step(t))
    return values, rays, schema.pixel_size_of(series)


def _check_specimen(values: npt.NDArray[np.float32], noise: Noise | None, who: str) -> None:
    low, high = float(values.min()), float(values.max())
    if low == high:
        needs, remedy = "a tilt series with a specimen in it", "another series"
        refuse(who, needs=needs, got=f"{low:g} in every pixel", remedy=remedy)
    background = 0.0 if noise is None else noise.background
    if high <= background:
        refuse(
            who,
            needs="a tilt series in which matter is brighter than the background",
            got=f"no value above {background:g}",
            remedy="-series, where matter is dark" if noise is None else "a `background` below the brightest value",
            command="import the images with matter bright" if noise is None else None,
        )


def _as_counts(noise: Noise, values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """The gain, and the counts whose variance is that of the read-out.

    Where nothing is counted, a gain is chosen that adds little to the variance of the brightest ray.
    """
    above = float(values.max()) - noise.background
    above = above if above > 0 else 1.0
    read = noise.read_noise
    if math.hypot(read, math.sqrt(noise.gain * above)) <= _UNSEEN * above:
        read = _NOISELESS * above
    gain = max(noise.gain, _GAUSSIAN * read**2 / above)
    return gain, (read / gain) ** 2


def width_of(data: Counted) -> float:
    """The standard deviation of an atom in a projection [nm], from the autocorrelation of the projections."""
    return width_and_spread_of(data)[0]


def width_and_spread_of(data: Counted) -> tuple[float, float]:
    """The standard deviation of an atom in a projection [nm], and how uncertain its logarithm is.

    From the autocorrelation of the projections: an atom with itself gives a Gaussian of √2 times its width; pairs of
    atoms give what varies slowly within that distance, a constant and a parabola. White noise is at a lag of zero
    alone, which is left out. So no atom has to be found first. What the fit leaves is the noise, and tells how probable
    each width is; the mean and the deviation of the logarithm are those of all widths that are looked at.
    """
    _, detectors, slices = data.shape
    summed = np.zeros((2 * detectors, slices + 1))
    for view in data.counts:
        spectrum = np.fft.rfft2(view - view.mean(), (2 * detectors, 2 * slices))
        summed += np.abs(spectrum) ** 2
    correlation = np.fft.irfft2(summed, (2 * detectors, 2 * slices))
    t = np.fft.fftfreq(2 * detectors, 1 / (2 * detectors)) * data.rays.step_t
    z = np.fft.fftfreq(2 * slices, 1 / (2 * slices)) * data.rays.step_z
    square = t[:, None] ** 2 + z**2
    near = (square > 0) & (square <= max(_NEAR, 5 * data.pixel) ** 2)
    values, square = correlation[near], square[near]
    widths = np.geomspace(max(_WIDTHS[0], 0.5 * data.pixel), max(_WIDTHS[1], 2 * data.pixel), 80)
    misfits = np.full(widths.size, math.inf)
    for number, width in enumerate(widths):
        parts = np.stack([np.exp(-square / (4 * width**2)), np.ones_like(square), square], axis=1)
        factors, *_ = np.linalg.lstsq(parts, values, rcond=None)
        if factors[0] > 0:
            misfits[number] = float(((parts @ factors - values) ** 2).sum())
    best = float(misfits.min())
    if not math.isfinite(best):
        return max(1.5 * data.pixel, 0.03), math.log(2)
    # A lag and its opposite are one value: half as many are independent, less four that are fitted.
    variance = max(best, 1e-12 * float(values @ values)) / max(values.size - 8, 1)
    weights = np.exp(-(misfits - best) / (4 * variance))
    logarithms = np.log(widths)
    mean = float(weights @ logarithms / weights.sum())
    spread = math.sqrt(float(weights @ (logarithms - mean) ** 2 / weights.sum()))
    return math.exp(mean), spread


def _step(positions: Float64) -> float:
    return float(positions[-1] - positions[0]) / (positions.size - 1) if positions.size > 1 else 1.0
