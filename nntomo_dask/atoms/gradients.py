"""A tilt series of integrated gradients, as iDPC: what the likelihood of atoms is calculated from.

The noise of each component of the gradient is white. Integrated, it has a power of s² / 4π²k² at the frequency k, so
the inverse of its covariance is ``-∇² / s²``, and the noise of low frequencies, which looks like a slow drift, is
told from atoms.
"""

import math
from typing import NamedTuple

import numpy as np
import xarray as xr

from nntomo_dask.atoms.counts import seen, values_and_rays
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import atom_moves, gradient_evidence
from nntomo_dask.kernels.atom_grid import Rays
from nntomo_dask.projection.noise import Noise
from nntomo_dask.types import Bools, Float64, Integers

_LEAST_PIXELS = 8  # along each axis
_WIDTH = 0.045  # nm, where nothing is known
_WIDTH_SPREAD = 0.15  # of its logarithm
_WIDTH_STEP = 0.05
_SPREAD, _MOST = 0.3, 3.0  # of the factor of all heights; and at most
_BRIGHTEST = 20, 8  # one maximum in so many is of the heaviest element, and at least so many are
_INTERACTION = 7e-4  # phase of an electron of 200 to 300 keV, [rad / V Å]
_WIDTHS = 0.025, 0.08  # nm, between which it is looked for
_FREQUENCIES = 2.5, 15.0  # 1/nm
_LARGEST = 0.5 / _FREQUENCIES[0]  # nm: of larger pixels no frequency is left
_MEDIAN = math.log(2)  # of the square of a complex Gaussian of variance 1


class Gradients(NamedTuple):
    """What is left of a series where white noise of its gradient is weighted; projections in ascending order."""

    curvature: Float64  # (view, detector, z): -∇² of the values, times the precision
    precision: float  # one over the variance of each component of the gradient, per nm
    rays: Rays
    pixel: float  # [nm]
    in_radians: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """(view, detector, z)."""
        views, detectors, slices = self.curvature.shape
        return views, detectors, slices

    def seen(self, margin: float) -> Bools:
        """(z, y, x): voxels that are farther than a margin [nm] from the edges of every projection."""
        return seen(self.rays, self.shape, margin)


def gradients(series: xr.DataArray, *, noise: Noise | None, who: str) -> Gradients:
    """Curvatures from a series. Computes.

    Parameters
    ----------
    noise
        Its read-out noise is the deviation of each component of the gradient, in units of the series per nm. None:
        found from the highest frequencies of the series, beyond any atom.

    Raises
    ------
    SchemaError
        As `counts.counted`; projections are smaller than 8 pixels, pixels are too large for
        atoms, or there is no noise.
    """
    values, rays, pixel = values_and_rays(series, who=who)
    images = np.asarray(values, np.float64).transpose(1, 2, 0)
    if min(images.shape[1:]) < _LEAST_PIXELS:
        refuse(
            who,
            needs=f"projections of at least {_LEAST_PIXELS} pixels along each axis",
            got=f"{images.shape[1]} × {images.shape[2]}",
            remedy="the whole series",
        )
    if noise is not None and noise.read_noise == 0:
        refuse(
            who,
            needs="a noise of the gradient, its read-out noise",
            got=noise.described(),
            remedy="`noise=Noise(read_noise=…)`, per nm, or none",
        )
    if pixel >= _LARGEST:
        refuse(
            who,
            needs=f"pixels of less than {_LARGEST:g} nm, in which atoms can be told",
            got=f"{pixel:g} nm",
            remedy="a series of higher magnification, or the right `pixel_size`",
        )
    spectrum = np.fft.rfft2(images)
    square = squared_frequencies(images.shape[1:], rays)
    deviation = noise.read_noise if noise is not None else deviation_of(spectrum, square, images.shape[2])
    floor = 1e-4 * float(np.std(np.fft.irfft2(spectrum * np.sqrt(square), images.shape[1:])))
    deviation = max(deviation, floor)  # of a series without noise
    if deviation <= 0:
        refuse(who, needs="a series with a specimen in it", got="one without", remedy="the series as it was measured")
    precision = 1 / deviation**2
    curvature = np.fft.irfft2(spectrum * (square * precision), images.shape[1:])
    return Gradients(
        np.ascontiguousarray(curvature), precision, rays, pixel, "radian" in str(series.attrs.get("quantity", ""))
    )


def residual(data: Gradients, positions: Float64, kinds: Integers, heights: Float64, width: float) -> Float64:
    """(view, detector, z): what atoms leave of the curvature."""
    curves = gradient_evidence.curvatures(
        positions, kinds, heights, width, data.rays, data.shape, precision=data.precision
    )
    return np.asarray(data.curvature - curves)


def squared_frequencies(shape: tuple[int, ...], rays: Rays) -> Float64:
    """``(2πk)²`` of a half-plane of frequencies, (detector, z // 2 + 1), [1/nm²]: the transform of -∇²."""
    t = np.fft.fftfreq(shape[0], abs(rays.step_t))
    z = np.fft.rfftfreq(shape[1], abs(rays.step_z))
    return np.asarray((2 * math.pi) ** 2 * (t[:, None] ** 2 + z**2))


def deviation_of(spectrum: np.ndarray, square: Float64, slices: int) -> float:
    """The deviation of each component of the gradient, from frequencies beyond the largest circle.

    No probe transfers these, but where pixels are too large for it. The median is not moved by a few that are bright.
    """
    detectors = spectrum.shape[1]
    t, z = np.abs(np.fft.fftfreq(detectors)), np.fft.rfftfreq(slices)
    beyond = (t[:, None] ** 2 + z**2 > 0.25) & (t[:, None] < 0.5) & (z < 0.5)
    power = np.abs(spectrum[:, beyond]) ** 2 * square[beyond]
    return float(np.sqrt(np.median(power) / _MEDIAN / (detectors * slices)))


def width_of(data: Gradients) -> float:
    """The standard deviation of an atom in a projection [nm], from what the spectrum has above the noise.

    Of atoms at random the square of the gradient has the spectrum of one atom. Frequencies are those at which atoms
    differ from what is larger.
    """
    spectrum = np.fft.rfft2(data.curvature)
    square = squared_frequencies(data.shape[1:], data.rays)
    square[0, 0] = np.inf
    # In units of the noise.
    power = (np.abs(spectrum) ** 2).mean(axis=0) / square / data.precision / (data.shape[1] * data.shape[2]) - 1
    k = np.sqrt(square) / (2 * math.pi)
    near = (k > _FREQUENCIES[0]) & (k < min(_FREQUENCIES[1], 0.5 / data.pixel))
    power, k = power[near], k[near]
    if k.size == 0:  # too few pixels
        return _WIDTH
    best = (-math.inf, _WIDTH)
    for width in np.geomspace(*_WIDTHS, 60):
        one = k**2 * np.exp(-4 * math.pi**2 * width**2 * k**2)
        explained = max(float(one @ power), 0) / math.sqrt(float(one @ one))
        # Means of so many squares of the noise, and what is known of atoms.
        gained = 0.5 * data.shape[0] * explained**2 - _unlikely(float(width))
        if gained > best[0]:
            best = gained, float(width)
    return best[1]


def expected_heights(
    data: Gradients, places: Float64, weights: Float64, highest: float | None, width: float
) -> Float64:
    """(kind,): heights before any atom is found.

    Of a phase in radians they follow from the highest potential [V Å]. Of others they are those that the brightest
    maxima would have alone; overlap and noise make these too high.
    """
    if data.in_radians and highest is not None:
        return weights * highest * _INTERACTION
    alone = np.sort([_height_alone(data, place, width) for place in places])[::-1]
    scale = float(np.median(alone[: max(len(alone) // _BRIGHTEST[0], _BRIGHTEST[1])]))
    return weights * max(scale, 1e-3 / math.sqrt(_energy(data)))


def _energy(data: Gradients) -> float:
    """Twice what an atom of height 1 adds to the logarithm of the likelihood, of any width: π in a plane."""
    return data.shape[0] * math.pi * data.precision / abs(data.rays.step_z * data.rays.step_t)


def _height_alone(data: Gradients, place: Float64, width: float) -> float:
    gained = atom_moves.change(data.curvature, data.curvature, place, 1.0, width, data.rays, precision=data.precision)
    return gained / _energy(data) + 0.5


def strength(data: Gradients, heights: Float64) -> float:
    """What an atom of the highest kind adds to twice the logarithm of the likelihood."""
    return float(heights.max()) ** 2 * _energy(data)


def heights_of(data: Gradients, positions: Float64, kinds: Integers, expected: Float64, width: float) -> Float64:
    """(kind,): the heights that fit best, given what was expected."""
    return _fit(data, positions, kinds, expected, width)[0]


def better_width(data: Gradients, positions: Float64, kinds: Integers, expected: Float64, width: float) -> float:
    """A width with which atoms fit better, if there is one near: the vertex of a parabola, within its outer points."""
    step = _WIDTH_STEP
    factors = 1 - step, 1.0, 1 + step
    low, middle, high = (
        _fit(data, positions, kinds, expected, width * one)[1] - _unlikely(width * one) for one in factors
    )
    if low - 2 * middle + high >= 0:
        return width * factors[int(np.argmax([low, middle, high]))]
    return width * (1 + step * float(np.clip(0.5 * (low - high) / (low - 2 * middle + high), -1, 1)))


def _unlikely(width: float) -> float:
    """Minus the logarithm of what is known of widths."""
    return 0.5 * (math.log(width / _WIDTH) / _WIDTH_SPREAD) ** 2


def _fit(
    data: Gradients, positions: Float64, kinds: Integers, expected: Float64, width: float
) -> tuple[Float64, float]:
    """The most probable heights, and the logarithm of their probability but for a constant."""
    scene = positions, kinds, expected, width, data.rays, data.shape
    image = atom_moves.render(*scene)
    curve = gradient_evidence.curvatures(*scene, precision=data.precision)
    # A factor of 1 is what is known.
    known = 1 / _SPREAD**2
    square, right = float((image * curve).sum()) + known, float((image * data.curvature).sum()) + known
    factor = min(max(right / square, 1 / _MOST), _MOST)
    return factor * expected, factor * right - factor**2 * square / 2
