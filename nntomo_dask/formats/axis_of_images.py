"""Whether the tilt axis runs along the lines or the columns of images, by the mass that tilting leaves where it is.

A tilt moves mass across the axis only. So the sums of an image over all pixels across the axis, a profile along it, are
the same in every projection, but for drift and for what enters the field of view. Source: the argument is that of
alignment along the axis by common lines, Penczek et al., Ultramicroscopy 63 (1996) 205.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nntomo_dask.formats import background
from nntomo_dask.formats.assembling import Window
from nntomo_dask.formats.choosing import Projection
from nntomo_dask.formats.images import Images
from nntomo_dask.types import Float64

_PROJECTIONS = 9  # that are compared
_DRIFT = 0.1  # of the length of a profile, by which projections may be shifted
_LEAST = 0.95  # correlation along the axis
_APART = 2.0  # by which the lack of correlation must be larger across the axis
_TILT_DEG = 20.0  # a narrower range changes too little


@dataclass(frozen=True)
class Found:
    """Mean correlations of profiles along x and y, and the direction; None where it is not clear."""

    axis: Literal["x", "y"] | None
    along_x: float
    along_y: float

    def __str__(self) -> str:
        if self.along_x == self.along_y == 0:
            return f"their angles differ by less than {_TILT_DEG:g}°, or they are flat"
        return f"profiles of mass along x agree to {self.along_x:.3f}, along y to {self.along_y:.3f}"


def found(images: Images, projections: Sequence[Projection], window: Window) -> Found:
    """Compare projections of a series, by a regular part of their pixels."""
    angles = np.array([one.angle_deg for one in projections])
    if np.ptp(angles) < _TILT_DEG:
        return Found(None, 0.0, 0.0)
    places = np.unique(np.linspace(0, angles.size - 1, min(_PROJECTIONS, angles.size)).round().astype(int))
    sampled = [
        _filled(background.sample(images, projections[place].images[0], window.lines, window.columns))
        for place in places
    ]
    middle = int(np.abs(angles[places]).argmin())
    along_x, along_y = (_agreement([image.mean(axis=axis) for image in sampled], middle) for axis in (0, 1))
    return Found(_decided(along_x, along_y), along_x, along_y)


def _filled(image: Float64) -> Float64:
    """An image with its median where values are not finite."""
    finite = np.isfinite(image)
    return image if finite.all() else np.where(finite, image, np.median(image[finite]) if finite.any() else 0.0)


def _decided(along_x: float, along_y: float) -> Literal["x", "y"] | None:
    """A rod along the axis agrees both ways, and tells nothing."""
    best, other = max(along_x, along_y), min(along_x, along_y)
    if best < _LEAST or 1 - other <= _APART * (1 - best) + 1e-6:
        return None
    return "x" if along_x == best else "y"


def _agreement(profiles: list[Float64], middle: int) -> float:
    """Mean correlation of profiles with that at the lowest tilt, each with its best shift."""
    most = max(int(_DRIFT * profiles[0].size), 1)
    reference = profiles[middle]
    return float(
        np.mean(
            [
                max(_correlation(reference, profile, shift) for shift in range(-most, most + 1))
                for place, profile in enumerate(profiles)
                if place != middle
            ]
        )
    )


def _correlation(one: Float64, other: Float64, shift: int) -> float:
    first = one[max(shift, 0) : one.size + min(shift, 0)]
    second = other[max(-shift, 0) : other.size + min(-shift, 0)]
    first, second = first - first.mean(), second - second.mean()
    size = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / size if np.isfinite(size) and size > 0 else 0.0
