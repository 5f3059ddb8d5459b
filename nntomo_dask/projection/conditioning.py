"""Steps by frequency for the dual variables of rays, which make a primal–dual iteration fast.

A projection holds the frequencies of a slice on one line through the origin. What few projections measure far from the
origin is on one line each; close to it all lines overlap. So Aᵀ A of n projections is n times as large at the lowest
frequencies as at most others, and steps that suit the lowest make all others slow. Steps by the frequency along the
detector make Aᵀ S A about as large everywhere.
"""

from collections.abc import Callable

import numpy as np

from nntomo_dask.compute import device
from nntomo_dask.kernels import layout
from nntomo_dask.types import Complex64, Float32, Float64

_LANES = 8  # random images at once
_PASSES = 24  # of the power method
_MARGIN = 1.2  # after so many passes it was up to 13 % short, with 8, 15 and 29 projections of 128 and 256 pixels

Apply = Callable[[Float32], Float32]


def frequency_steps(angles_deg: Float64, size: int, forward: Apply, back: Apply) -> Float32:
    """S with ``‖Aᵀ S A‖ ≤ 1``, as factors of the frequencies of each projection.

    Lines of frequencies are as thick as the inverse of the slice's width, so that they overlap by about
    ``1 / (1 + (size · f · sin Δθ)²)`` at the frequency f, [cycles/px]. S is the inverse of the sum of these, scaled by
    the norm that the power method finds.

    Parameters
    ----------
    angles_deg
        (angle,), in degrees.
    size
        Pixels of the detector.
    forward, back
        A and its transpose, from lane group to lane group.

    Returns
    -------
    (angle, frequency), for the frequencies of a real transform along the detector.
    """
    frequency = np.fft.rfftfreq(size)
    apart = np.abs(np.sin(np.deg2rad(angles_deg[:, None] - angles_deg)))
    overlap = np.zeros((angles_deg.size, frequency.size))
    for one in apart.T:  # not at once: a thousand projections would take gigabytes
        overlap += 1 / (1 + (size * frequency * one[:, None]) ** 2)
    steps = 1 / (size * overlap)
    return np.asarray(steps / (_MARGIN * _norm(steps, size, forward, back)), np.float32)


def _norm(steps: Float64, size: int, forward: Apply, back: Apply) -> float:
    """The largest eigenvalue of Aᵀ S A, by the power method from random images."""
    images = np.random.default_rng(0).random((_LANES, size, size), np.float32)
    lanes = layout.image_to_lanes(images, _LANES).reshape(-1, _LANES)
    factors = np.asarray(steps, np.float32)[:, :, None]
    largest = 0.0
    for _ in range(_PASSES):
        length = np.sqrt(np.einsum("pl,pl->l", lanes, lanes, dtype=np.float64))
        spectra = spectra_of(forward((lanes / length).astype(np.float32)), size)
        lanes = back(lanes_of(spectra * factors, size))
        largest = float(np.sqrt(np.einsum("pl,pl->l", lanes, lanes, dtype=np.float64)).max())
    return largest


def spectra_of(lanes: Float32, size: int) -> Complex64:
    """The transform along the detector of a lane group of sinograms, (angle, frequency, lane)."""
    table = lanes.reshape(-1, size + layout.DETECTOR_PAD, lanes.shape[1])
    inside = table[:, layout.DETECTOR_FRONT : layout.DETECTOR_FRONT + size]
    spectra: Complex64 = device.fft(lanes).rfft(inside, size, axis=1)
    return spectra


def lanes_of(spectra: Complex64, size: int) -> Float32:
    """Inverse of `spectra_of`: (entry, lane), zero beside the detector."""
    width = spectra.shape[2]
    xp = device.namespace(spectra)
    lanes: Float32 = layout.aligned_zeros(len(spectra) * (size + layout.DETECTOR_PAD) * width, xp).reshape(-1, width)
    table = lanes.reshape(len(spectra), -1, width)
    inside = table[:, layout.DETECTOR_FRONT : layout.DETECTOR_FRONT + size]
    inside[...] = device.fft(spectra).irfft(spectra, size, axis=1)
    return lanes
