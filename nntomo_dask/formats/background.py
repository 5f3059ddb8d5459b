"""The counts where there is no specimen, decided from the images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nntomo_dask.formats.images import Images
from nntomo_dask.types import Float64

Kind = Literal["dark field", "bright field", "unclear", "empty"]

_IMAGES, _PIXELS = 16, 2**16  # that are looked at, and of each image
_BAND_BYTES = 2**22
_BINS = 256
_LOW, _HIGH = 0.4, 0.6  # where the most frequent value lies between the darkest and the brightest
_BROAD = 0.4  # of the range of the values; a wider peak is of the specimen
_BELOW = 0.2  # of the pixels; noise about a background leaves 12 % below half the height of its peak
_NOTHING = 0.005  # of the range of the values; a background below that share is none


@dataclass(frozen=True)
class Background:
    """What was found.

    Attributes
    ----------
    kind
        Where most pixels lie: near the dark end, so that the specimen is bright; near the bright end; or neither.
    counts
        To be subtracted.
    low, high
        What the darkest and the brightest 0.5 % of the pixels reach.
    """

    kind: Kind
    counts: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.kind == "empty":
            return "nothing subtracted: all pixels looked at have one value"
        if self.kind == "bright field":
            return (
                f"nothing subtracted: the background is bright (most pixels have about {self.counts_of_most:g} counts, "
                f"{self.low:g} to {self.high:g} in all), so this is bright field; --contrast bright-field makes line "
                "integrals of it"
            )
        if self.kind == "unclear":
            if self.counts:
                return (
                    f"{self.counts:g} counts subtracted, the darkest there are; no background stands out, --background "
                    "gives it"
                )
            return (
                "nothing subtracted: no background stands out, so the specimen may fill the view; --background gives "
                "the counts where there is none"
            )
        if not self.counts:
            return "nothing subtracted: it is near zero"
        return f"{self.counts:g} counts subtracted, the most frequent value at the dark end"

    counts_of_most: float = 0.0


def found(images: Images, chosen: Sequence[int], lines: slice, columns: slice) -> Background:
    """Decide from up to 16 images of a series, a regular part of the pixels of each."""
    places = np.unique(np.linspace(0, len(chosen) - 1, min(_IMAGES, len(chosen))).round().astype(int))
    values = np.concatenate([sample(images, chosen[place], lines, columns).ravel() for place in places])
    return of_values(values)


def value_of_all(images: Images, chosen: Sequence[int], lines: slice, columns: slice) -> float | None:
    """The one value of all pixels in up to 16 images, a regular part of each; None where they differ."""
    first: float | None = None
    for place in np.unique(np.linspace(0, len(chosen) - 1, min(_IMAGES, len(chosen))).round().astype(int)):
        values = sample(images, chosen[place], lines, columns)
        first = float(values.flat[0]) if first is None else first
        if not np.array_equal(values, np.full_like(values, first), equal_nan=True):
            return None
    return first


def sample(images: Images, image: int, lines: slice, columns: slice) -> Float64:
    """Every n-th line and column of a part of an image, about 2¹⁶ pixels; lines are read a band at a time."""
    height, width = lines.stop - lines.start, columns.stop - columns.start
    step = max(int(np.ceil(np.sqrt(height * width / _PIXELS))), 1)
    if images.reads == "images":
        return np.asarray(images.read(image, lines, columns)[::step, ::step], np.float64)
    band = max(_BAND_BYTES // max(width * images.dtype.itemsize, 1) // step, 1) * step
    parts = [
        images.read(image, slice(first, min(first + band, lines.stop)), columns)[::step, ::step]
        for first in range(lines.start, lines.stop, band)
    ]
    return np.concatenate(parts).astype(np.float64)


def of_values(values: Float64) -> Background:
    """Decide from values.

    Where a specimen does not fill the images, the pixels beside it make a peak in the histogram. It lies at the dark
    end in dark field, at the bright end in bright field. Its place is the mean of the values in it, so that noise about
    the background stays noise about zero. A specimen that fills the images has a peak of its own: it is broad, or many
    pixels are darker.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Background("empty", 0.0, 0.0, 0.0)
    low, high = (float(one) for one in np.percentile(finite, [0.5, 99.5]))
    if not high > low:
        low, high = float(finite.min()), float(finite.max())
        if not high > low:
            return Background("empty", 0.0, low, high)
    # Whole numbers get bins that each hold as many of them.
    width = (high - low) / _BINS
    if (finite == np.round(finite)).all():
        width = max(np.ceil(width), 1.0)
    counts, edges = np.histogram(finite, np.arange(low - width / 2, high + 1.5 * width, width))
    smooth = np.convolve(counts, np.ones(5) / 5, "same")
    peak = int(smooth.argmax())
    first = last = peak  # where the peak has half its height
    while first > 0 and smooth[first - 1] >= smooth[peak] / 2:
        first -= 1
    while last < counts.size - 1 and smooth[last + 1] >= smooth[peak] / 2:
        last += 1
    near = finite[(finite >= edges[first]) & (finite < edges[last + 1])]
    most = float(near.mean())
    place = (most - low) / (high - low)
    if place > _HIGH:
        return Background("bright field", 0.0, low, high, most)
    is_broad = edges[last + 1] - edges[first] > _BROAD * (high - low)
    if place > _LOW or is_broad or np.mean(finite < edges[first]) > _BELOW:
        return Background("unclear", low if low < 0 else 0.0, low, high, most)
    if abs(most) <= _NOTHING * (high - low):
        return Background("dark field", 0.0, low, high, most)
    return Background("dark field", float(np.round(most, 6)), low, high, most)
