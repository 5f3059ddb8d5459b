"""Noise that is drawn: of counting, and of a detector that reads. Plain arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nntomo_dask.types import Float64


def counted(signal: npt.NDArray[Any], counts: float, rng: np.random.Generator) -> Float64:
    """The signal as a detector counts it: a value of 1 is so many counts on average, and there are none below 0."""
    return np.asarray(rng.poisson(np.maximum(signal, 0) * counts) / counts, np.float64)


def noisy(
    row: npt.NDArray[Any], *, gain: float, read_noise: float, background: float, streams: tuple[list[int], list[int]]
) -> Float64:
    """A row of values with Poisson noise above the background, and Gaussian noise.

    Parameters
    ----------
    gain
        What one count adds to a value; 0 where nothing is counted.
    read_noise
        Standard deviation of the Gaussian noise.
    background
        Values at and below it have no counts.
    streams
        Seeds of the two kinds of noise. The Gaussian one at a place does not depend on the values.
    """
    values = np.asarray(row, np.float64)
    if gain > 0:
        above = np.maximum(values - background, 0)
        values = values - above + counted(above, 1 / gain, np.random.default_rng(streams[0]))
    if read_noise > 0:
        values = values + read_noise * np.random.default_rng(streams[1]).standard_normal(values.shape)
    return values
