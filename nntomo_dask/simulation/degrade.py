"""What an experiment does to a perfect signal: source size, jitter of the scan lines, counting noise, blur.

Signals are (x, z, …) with x along the detector and along the scan lines. They are periodic, like the scanned box.
"""

import numpy as np
import scipy.ndimage

from nntomo_dask.kernels import counting
from nntomo_dask.types import Float32, Float64

FWHM = 2 * np.sqrt(2 * np.log(2))  # full width at half maximum of a Gaussian, in standard deviations


def blurred(signal: Float32, sigma_px: float) -> Float32:
    """The signal convolved with a Gaussian over the positions. The sum is unchanged."""
    if sigma_px == 0:
        return signal
    return np.asarray(scipy.ndimage.gaussian_filter(signal, sigma_px, mode="wrap", axes=(0, 1), truncate=5), np.float32)


def jittered(signal: Float32, shifts_px: Float64) -> Float32:
    """The signal with its lines displaced along x by `shifts_px` (z,), in Fourier space; negative values become 0."""
    if not shifts_px.any():
        return signal
    phase = np.exp(-2j * np.pi * np.outer(np.fft.rfftfreq(len(signal)), shifts_px))
    spectrum = np.fft.rfft(signal, axis=0) * phase.reshape(*phase.shape, *(1,) * (signal.ndim - 2))
    moved = np.fft.irfft(spectrum, n=len(signal), axis=0)
    return np.maximum(moved, 0).astype(np.float32)


def counted(signal: Float32, electrons: float | None, rng: np.random.Generator) -> Float32:
    """The signal, a fraction of the beam, with the noise of so many electrons per position; None adds no noise."""
    if electrons is None:
        return signal
    return counting.counted(signal, electrons, rng).astype(np.float32)
