"""The projections of a raw series as the estimation of an alignment works on them, and where they are taken to lie."""

import functools
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from nntomo_dask.kernels import warp
from nntomo_dask.types import Bools, Float32, Float64, Integers

Mass = Literal["in view", "beyond"]  # whether matter lies beyond the field across the axis


class Pose(NamedTuple):
    """Where each projection lies: the displacement and the rotation of `table.Alignment`, with the axis in the first.

    Attributes
    ----------
    shifts
        (view, 2): along the tilt axis, and across it with the position of the axis, [px of the raw series].
    rotation_deg
        (view,), [degrees].
    """

    shifts: Float64
    rotation_deg: Float64

    @classmethod
    def at_rest(cls, count: int, rotation_deg: float = 0.0) -> "Pose":
        """No shift, and one rotation."""
        return cls(np.zeros((count, 2)), np.full(count, float(rotation_deg)))

    def moved(self, shifts: Float64) -> "Pose":
        """With these added to the shifts."""
        return self._replace(shifts=self.shifts + shifts)

    def turned(self, by_deg: float | Float64) -> "Pose":
        """Turned further, about the same place of each raw image: what was in the middle stays there."""
        turns = np.deg2rad(np.broadcast_to(np.asarray(by_deg, np.float64), self.rotation_deg.shape))
        along, across = self.shifts.T
        cos, sin = np.cos(turns), np.sin(turns)
        back = np.column_stack([along * cos + across * sin, across * cos - along * sin])
        return Pose(back, self.rotation_deg + np.rad2deg(turns))


@dataclass(frozen=True)
class Views:
    """Projections in ascending order of their angles.

    Attributes
    ----------
    images
        (view, along, across), float32, without background.
    angles_deg
        (view,), ascending.
    step
        Edge of a pixel in pixels of the raw series: 1, or the factor of a binning.
    middle
        Where the middle of the raw image lies, (along, across) in these pixels from the first.
    intensity
        (view,): what values are divided by when they are interpolated; None for nothing.
    """

    images: Float32
    angles_deg: Float64
    step: int = 1
    middle: warp.Middle | None = None
    intensity: Float64 | None = None
    radians: Float64 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """The angles for trigonometry."""
        object.__setattr__(self, "radians", np.deg2rad(self.angles_deg))

    @functools.cached_property
    def splines(self) -> Float32:
        """Coefficients of the images; made once, for all interpolations."""
        return warp.coefficients(self.images)

    @property
    def count(self) -> int:
        """Number of projections."""
        return len(self.images)

    @property
    def along(self) -> Float64:
        """(along,): places of the pixels, from the middle, in these pixels."""
        return self._places(self.images.shape[1])

    @property
    def across(self) -> Float64:
        """(across,): the same."""
        return self._places(self.images.shape[2])

    def at(self, pose: Pose, along: Float64 | None = None, across: Float64 | None = None) -> Float32:
        """(view, along, across): the projections as they lie in a pose, by one interpolation of what was recorded."""
        found = warp.warp(self.splines, *self._grid(along, across), *self._moved(pose), self.middle)
        if self.intensity is not None:
            found /= self.intensity.astype(np.float32)[:, None, None]
        return found

    def measured(self, pose: Pose, along: Float64 | None = None, across: Float64 | None = None) -> Bools:
        """(view, along, across): which of these values lie within the recorded images."""
        shape = self.images.shape[1], self.images.shape[2]
        return warp.measured(shape, *self._grid(along, across), *self._moved(pose), self.middle)

    def rows_in_all(self, pose: Pose) -> Bools:
        """(along,): rows whose middle all projections have recorded."""
        return np.asarray(self.measured(pose, None, np.zeros(1)).all(axis=(0, 2)), bool)

    def binned(self, factor: int) -> "Views":
        """Means of `factor` × `factor` pixels; what is left over at the ends is cut off."""
        if factor == 1:
            return self
        parts = [range((size % factor) // 2, size - factor + 1, factor) for size in self.images.shape[1:]]
        rows, columns = (slice(part[0], part[0] + len(part) * factor) for part in parts)
        blocks = self.images[:, rows, columns].reshape(self.count, len(parts[0]), factor, len(parts[1]), factor)
        middle = self.middle or tuple((size - 1) / 2 for size in self.images.shape[1:])
        places = tuple((place - part[0] + 0.5) / factor - 0.5 for place, part in zip(middle, parts, strict=True))
        means = np.asarray(blocks.mean(axis=(2, 4), dtype=np.float64), np.float32)
        return Views(means, self.angles_deg, self.step * factor, (places[0], places[1]), self.intensity)

    def divided(self, by: Float64) -> "Views":
        """Each projection divided by a number of its own (view,)."""
        divided = replace(self, intensity=by if self.intensity is None else self.intensity * by)
        if "splines" in self.__dict__:  # they are as large as the images
            divided.__dict__["splines"] = self.splines
        return divided

    def only(self, chosen: Integers) -> "Views":
        """Some of the projections, by their places."""
        if chosen.size == self.count and (chosen == np.arange(self.count)).all():
            return self  # without a copy
        intensity = None if self.intensity is None else self.intensity[chosen]
        return replace(self, images=self.images[chosen], angles_deg=self.angles_deg[chosen], intensity=intensity)

    def _grid(self, along: Float64 | None, across: Float64 | None) -> tuple[Float64, Float64]:
        return self.along if along is None else along, self.across if across is None else across

    def _moved(self, pose: Pose) -> tuple[Float64, Float64]:
        return pose.shifts / self.step, pose.rotation_deg

    @staticmethod
    def _places(count: int) -> Float64:
        return np.arange(count) - np.float64((count - 1) / 2)


def harmonics(radians: Float64, order: int = 1) -> Float64:
    """(view, order + 1): an orthonormal basis of ``cosʲ θ · sin^(order - j) θ``.

    The moment of this order across the axis, of whatever object, moves so with the tilt.
    """
    basis = np.stack([np.cos(radians) ** j * np.sin(radians) ** (order - j) for j in range(order + 1)], axis=1)
    found: Float64 = np.linalg.qr(basis)[0]
    return found


def without_gauge(shifts: Float64, radians: Float64) -> Float64:
    """Shifts (view, 2) without what only moves the object: a median along, cos θ and sin θ across the axis."""
    basis = harmonics(radians)
    across = shifts[:, 1] - basis @ (basis.T @ shifts[:, 1])
    return np.column_stack([shifts[:, 0] - np.median(shifts[:, 0]), across])
