"""Filters for filtered backprojection: the ramp with a window, and the binned filters of NN-FBP."""

import itertools
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import scipy.fft

from nntomo_dask.compute import device
from nntomo_dask.types import Float32, Float64, Integers

Window = Literal["ram-lak", "shepp-logan", "cosine", "hamming", "hann"]
Binning = Literal["exponential", "none"]

WINDOWS: tuple[str, ...] = get_args(Window)


def fft_length(detector_count: int) -> int:
    """Length to which a row is padded: the next fast length for which a convolution does not wrap around."""
    return int(scipy.fft.next_fast_len(2 * detector_count, real=True))


def ramp(detector_count: int, *, window: Window = "ram-lak") -> Float64:
    """Frequency response of the ramp filter, for rows padded to `fft_length`.

    The band-limited ramp is computed from its samples in real space, ``h(0) = 1/4``, ``h(n) = -1/(π n)²`` for odd n and
    zero for even n. This gives the correct mean of a reconstruction (Kak & Slaney 2001, §3.3, eq. 61).

    Returns
    -------
    (frequency,), for frequencies ``scipy.fft.rfftfreq(fft_length(detector_count))``.
    """
    length = fft_length(detector_count)
    distance = np.minimum(np.arange(length), length - np.arange(length))
    odd = distance % 2 == 1
    samples = np.zeros(length)
    samples[0] = 0.25
    samples[odd] = -1 / (np.pi * distance[odd]) ** 2
    frequency = scipy.fft.rfftfreq(length)  # cycles per pixel, up to 1/2
    windows = {
        "ram-lak": np.ones_like(frequency),
        "shepp-logan": np.sinc(frequency),
        "cosine": np.cos(np.pi * frequency),
        "hamming": 0.54 + 0.46 * np.cos(2 * np.pi * frequency),
        "hann": 0.5 + 0.5 * np.cos(2 * np.pi * frequency),
    }
    return np.asarray(scipy.fft.rfft(samples).real * windows[window])


def bin_edges(detector_count: int, *, binning: Binning = "exponential", n_linear: int = 2) -> Integers:
    """Edges of the bins of |offset| in which a learned filter is constant.

    Bin k contains the offsets with ``edges[k] <= |offset| < edges[k + 1]``, up to half the detector. Exponential bins
    are {0}, then `n_linear` single offsets, then bins of width 2, 4, 8, …. With "none" every |offset| is a bin.

    Returns
    -------
    (bin + 1,).

    References
    ----------
    .. [1] D. M. Pelt and K. J. Batenburg, IEEE Trans. Image Process. 22 (2013) 5238, §III-C.
    """
    end = detector_count // 2 + 1
    if binning == "none":
        return np.arange(end + 1)
    edges = list(range(min(n_linear + 2, end + 1)))
    width = 2
    while edges[-1] < end:
        edges.append(min(edges[-1] + width, end))
        width *= 2
    return np.asarray(edges, np.int64)


def binned_filter(weights: Float64, edges: Integers, detector_count: int) -> Float64:
    """Frequency responses of filters that are constant in each bin.

    Parameters
    ----------
    weights
        (bin, filter): the weight of the **mean** over the elements of a bin.
    edges
        (bin + 1,), from `bin_edges`.

    Returns
    -------
    (filter, frequency), for rows padded to `fft_length`.
    """
    length = fft_length(detector_count)
    samples = np.zeros((weights.shape[1], length))
    for k, (start, stop) in enumerate(itertools.pairwise(edges)):
        offsets = np.arange(start, stop)
        both_sides = np.unique(np.concatenate([offsets, -offsets]))
        samples[:, both_sides] = weights[k, :, None] / both_sides.size
    return np.asarray(scipy.fft.rfft(samples, axis=-1).real)


def two_sided_filter(weights: Float64, edges: Integers, detector_count: int) -> npt.NDArray[np.complex128]:
    """Frequency responses of filters that are constant in each side of a bin.

    Parameters
    ----------
    weights
        (2 bins - 1, filter): of the **mean** over {0}, over each bin of positive offsets, and over each of negative
        ones; the order of `sample` with ``sides="apart"``.
    edges
        (bin + 1,), from `bin_edges`.

    Returns
    -------
    (filter, frequency), for rows padded to `fft_length`.
    """
    samples = np.zeros((weights.shape[1], fft_length(detector_count)))
    bins = list(itertools.pairwise(edges))
    if bins[0] != (0, 1):
        raise ValueError("the first bin of a filter with two sides holds the offset 0 alone")
    samples[:, 0] = weights[0]
    for k, (start, stop) in enumerate(bins[1:], start=1):
        offsets = np.arange(start, stop)
        samples[:, offsets] = weights[k, :, None] / offsets.size
        samples[:, -offsets] = weights[len(bins) - 1 + k, :, None] / offsets.size
    return np.asarray(scipy.fft.rfft(samples, axis=-1))


def filter_rows(rows: Float32, responses: npt.NDArray[Any]) -> Float32:
    """Convolve detector rows with each of several filters, on the device of the rows.

    Parameters
    ----------
    rows
        (slice, angle, detector).
    responses
        (filter, angle or 1, frequency), for rows padded to `fft_length`; real where the filters are even in the offset.

    Returns
    -------
    (slice, filter, angle, detector).
    """
    detector_count = rows.shape[-1]
    length = fft_length(detector_count)
    xp, fft = device.namespace(rows), device.fft(rows)
    spectrum = fft.rfft(rows, n=length, axis=-1)
    precision = np.complex64 if np.iscomplexobj(responses) else np.float32
    filtered = spectrum[:, None] * xp.asarray(responses.astype(precision))
    convolved: Float32 = xp.ascontiguousarray(fft.irfft(filtered, n=length, axis=-1)[..., :detector_count])
    return convolved
