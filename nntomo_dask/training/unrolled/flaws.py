"""What measured projections have and perfect ones have not: small shifts, unequal brightness, blur."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nntomo_dask.types import Float32, Float64

# Of a scene with flaws, each kind is in half of the scenes; the greatest standard deviations, drawn from zero on.
_SHIFT = 0.6  # of a projection along the detector and along z, in pixels
_AXIS = 0.7  # of the tilt axis, in pixels
_TILT = 0.5  # of an angle, in degrees
_BRIGHTNESS = 0.04  # of the intensity of a projection
_SHADOW = 0.06  # of the intensity, from one end of the series to the other
_OFFSET = 0.02  # of the background of a projection, of the brightest ray
_UNSHARP = 1.5  # standard deviation of a point of the specimen, in pixels
_BENT = 0.25  # share by which the brightest ray is too dark, or too bright


@dataclass(frozen=True)
class Flaws:
    """What is wrong with a scene's projections; all zero where nothing is.

    Attributes
    ----------
    tilts_deg
        Errors of the angles.
    shifts
        (angle, 2), along z and along the detector, in pixels of the projections.
    brightness
        Factors of the projections.
    offsets
        Added to the projections, as shares of the brightest ray.
    unsharp
        Standard deviation of a point of the specimen, in pixels: surfaces are rough, and what is reconstructed is the
        specimen as the microscope sees it. Sharper than its projections it cannot be compared with any.
    bent
        Share of the brightest ray that is missing there; of a ray v the share is v / brightest as large.
    """

    tilts_deg: Float64
    shifts: Float64
    brightness: Float64
    offsets: Float64
    unsharp: float
    bent: float

    def soften(self, volume: Float32, finer: int) -> Float32:
        """The specimen (slice, y, x) on a grid that is finer than pixels, as unsharp as it is."""
        if not self.unsharp:
            return volume
        return np.asarray(ndimage.gaussian_filter(volume, self.unsharp * finer, mode="nearest"), np.float32)

    def apply(self, rows: Float32, finer: int) -> Float32:
        """The projections (slice, angle, detector), on a grid that is finer than pixels, as they would be measured."""
        flawed = rows.astype(np.float32)
        for number in range(rows.shape[1]):
            image = flawed[:, number]
            if self.shifts[number].any():
                image = ndimage.shift(image, self.shifts[number] * finer, order=1, mode="nearest")
            flawed[:, number] = image
        brightest = flawed.max()
        if brightest > 0:
            whole = np.square(flawed, dtype=np.float64).sum()
            straight = flawed.copy()
            flawed *= 1 - np.float32(self.bent) * flawed / brightest
            flawed *= self.brightness.astype(np.float32)[:, None]
            # Nobody can know the unit of the specimen but from its projections: on the whole they keep it.
            flawed *= np.float32(whole / np.einsum("zad,zad", flawed, straight, dtype=np.float64))
            flawed += self.offsets.astype(np.float32)[:, None] * brightest
        return flawed


def drawn(angles_deg: Float64, rng: np.random.Generator) -> Flaws:
    """The flaws of one series: each kind in half of the cases, small ones as often as large ones."""
    count = len(angles_deg)

    def size(most: float) -> float:
        return float(most * rng.random() ** 2) if rng.random() < 0.5 else 0.0

    along = size(_SHIFT) * rng.standard_normal((count, 2)) + [0.0, size(_AXIS) * rng.standard_normal()]
    slope = angles_deg / max(float(np.abs(angles_deg).max()), 1.0)
    brightness = size(_BRIGHTNESS) * rng.standard_normal(count) + size(_SHADOW) * rng.standard_normal() * slope
    offsets = size(_OFFSET) * rng.standard_normal(count) + size(_OFFSET) * rng.standard_normal()
    return Flaws(
        tilts_deg=size(_TILT) * rng.standard_normal(count),
        shifts=along,
        brightness=np.exp(brightness),
        offsets=offsets,
        unsharp=size(_UNSHARP),
        bent=size(_BENT) * float(rng.choice([1.0, 1.0, -1.0])),
    )
