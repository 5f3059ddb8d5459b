"""The noise of a tilt series: how large it is at a value, estimated from the series alone."""

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import compute

from nntomo_dask.arrays import angles as angles_room, finite, schema, slabs
from nntomo_dask.errors import refuse
from nntomo_dask.projection import noise_fit
from nntomo_dask.settings import check_settings, setting
from nntomo_dask.types import Float64

# As much is read of a series: so many groups of neighbouring slices, and values.
_PLACES, _HEIGHT, _MOST_VALUES = 8, 8, 2**20
# Less noise than this, as a share of the brightest ray, cannot be told from rough surfaces of voxels, see
# docs/theory.md; nor so low a background.
LEAST_SHARE, LEAST_BACKGROUND = 0.003, 0.005
_DIGITS = 6  # of an estimate; more would differ from one processor to the next


@dataclass(frozen=True, kw_only=True)
class Noise:
    """A Poisson–Gaussian model of the noise of a tilt series.

    The variance at a value v is ``read_noise² + gain · max(v - background, 0)``, all in the units of the series.

    Attributes
    ----------
    gain
        What one count adds to a value; 0 where the noise does not grow with the value.
    read_noise
        Standard deviation at the background: of the read-out, and of what the background itself counts.
    background
        Mean value where there is no specimen; where no such place is seen, the lowest values.
    brightest
        The brightest ray, without its noise: the largest median of three neighbours on the detector, less three of
        the standard deviations that it has there.
    signal_to_noise
        Standard deviation of the values that is no noise, divided by that of the noise; infinite without noise.
    is_all_noise
        Whether the values vary no more than noise alone would.
    """

    gain: float = setting(0.0, option=None, help="What one count adds to a value.", least=0)
    read_noise: float = setting(0.0, option=None, help="Standard deviation at the background.", least=0)
    background: float = setting(0.0, option=None, help="Mean value where there is no specimen.")
    brightest: float = setting(1.0, option=None, help="The brightest ray, without its noise.")
    signal_to_noise: float = float("inf")
    is_all_noise: bool = False

    def __post_init__(self) -> None:
        check_settings(self, who="Noise")

    @property
    def is_noiseless(self) -> bool:
        """Whether there is no noise at any value."""
        return self.gain == 0 and self.read_noise == 0

    @property
    def share(self) -> float:
        """Standard deviation at the brightest ray, as a share of that ray above the background."""
        above = self.brightest - self.background
        return float(self.deviation(self.brightest)) / above if above > 0 else 0.0

    @property
    def is_negligible(self) -> bool:
        """Whether noise and background are less than what rough surfaces of voxels may look like; something is seen."""
        above = self.brightest - self.background
        return above > 0 and self.share < LEAST_SHARE and abs(self.background) <= LEAST_BACKGROUND * above

    def variance(self, values: npt.ArrayLike) -> Float64:
        """Variance of the noise at some values, which are as they would be without noise; the shape is kept."""
        above = np.maximum(np.asarray(values, np.float64) - self.background, 0)
        return np.asarray(self.read_noise**2 + self.gain * above)

    def deviation(self, values: npt.ArrayLike) -> Float64:
        """Standard deviation of the noise at some values, see `variance`."""
        return np.asarray(np.sqrt(self.variance(values)))

    def times(self, factor: float) -> "Noise":
        """The model of a series whose values are multiplied by a factor above zero."""
        if not (np.isfinite(factor) and factor > 0):
            refuse("Noise.times", needs="a factor above zero", got=f"{factor}", remedy="`factor=1`")
        return Noise(
            gain=self.gain * factor,
            read_noise=self.read_noise * factor,
            background=self.background * factor,
            brightest=self.brightest * factor,
            signal_to_noise=self.signal_to_noise,
            is_all_noise=self.is_all_noise,
        )

    def described(self) -> str:
        """The model in one line."""
        if self.is_noiseless:
            return "no noise"
        text = (
            f"noise of {100 * self.share:.2g} % of the brightest ray: read-out {self.read_noise:.3g}, "
            f"gain {self.gain:.3g} a count, background {self.background:.3g}"
        )
        return f"{text}; the series is all noise" if self.is_all_noise else text


def noise(series: xr.DataArray) -> Noise:
    """Estimate the noise of a tilt series from the series itself.

    The deviation at the background, and how the variance grows with the value, come from differences of high order
    along the tilt axis and the detector, by local mean, where the values are smoothest [1]_; from the differences of
    projections at one angle, where there are such and they say less. Rough surfaces look like noise there; so the mean
    variance is bounded by what the sums of the projections vary, which are the mass of a slice at any angle. Noise that
    was smoothed, by interpolation for instance, is larger than this says. Computes at once, from up to 64 slices in 8
    places and 2²⁰ values.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; projections in any order.

    Returns
    -------
    A `Noise`, in the units of the series. A constant series has none, whatever its size.

    Raises
    ------
    SchemaError
        `series` is no tilt series, has fewer than 8 detector pixels or too few values, or one of those that are read is
        NaN or infinite.

    References
    ----------
    .. [1] J. Immerkær, Fast Noise Variance Estimation, Computer Vision and Image Understanding 64 (1996) 300,
       doi:10.1006/cviu.1996.0060.
    """
    who = "noise"
    schema.check_tilt_series(series, who=who)
    n_z, n_angles, n_detector = series.shape
    starts, height, kept = _chosen(n_z, n_angles, n_detector)
    places = np.argsort(series[schema.ANGLE].values, kind="stable")[kept]
    angles = series[schema.ANGLE].values[places]
    blocks = _read(slabs.lazy(series).data, starts, height, places)
    for start, block in zip(starts, blocks, strict=True):
        finite.check_slab(block, who=who, dims=schema.SERIES_DIMS, first=start)
    if all(block.min() == block.max() == blocks[0].min() for block in blocks):
        value = _rounded(float(blocks[0].min()))
        return Noise(background=value, brightest=value)
    if not noise_fit.enough(len(starts), height, kept.size, n_detector):
        refuse(
            who,
            needs=f"at least {noise_fit.LEAST_DETECTOR} detector pixels, and {noise_fit.LEAST_VALUES} values within",
            got=f"{n_z} slices, {n_angles} projections, {n_detector} detector pixels",
            remedy="the whole series; where a network is trained for it, say what the noise is, `noise=none`",
        )
    found = noise_fit.fit(blocks, _repeats(angles))
    return Noise(
        gain=_rounded(found.gain),
        read_noise=_rounded(found.read_noise),
        background=_rounded(found.background),
        brightest=_rounded(found.brightest),
        signal_to_noise=_rounded(found.signal / found.noise) if found.noise > 0 else float("inf"),
        is_all_noise=found.all_noise,
    )


def _chosen(n_z: int, n_angles: int, n_detector: int) -> tuple[list[int], int, npt.NDArray[np.intp]]:
    """First slices of the groups that are read, slices of a group, and the projections in ascending order of angle."""
    kept = np.arange(n_angles)
    most = max(_MOST_VALUES // (3 * n_detector), 2)
    if n_angles > most:
        kept = np.unique(np.linspace(0, n_angles - 1, most).round().astype(np.intp))
    slices = max(_MOST_VALUES // (kept.size * n_detector), 3)
    if n_z <= min(slices, _PLACES * _HEIGHT):
        return [0], n_z, kept
    height = min(_HEIGHT, slices, n_z)
    places = max(min(_PLACES, slices // height, n_z // height), 1)
    ends = np.linspace(0, n_z - height, places + 2)[1:-1] if n_z > 3 * places * height else None
    starts = np.linspace(0, n_z - height, places) if ends is None else ends
    return [int(start) for start in starts.round()], height, kept


def _read(data: da.Array, starts: list[int], height: int, places: npt.NDArray[np.intp]) -> list[Any]:
    groups = [data[start : start + height][:, places] for start in starts]
    return [np.asarray(block, np.float64) for block in compute(*groups)]


def _repeats(angles_deg: Float64) -> list[tuple[int, int]]:
    """Neighbours in a list of ascending angles that are one direction, seen from one side."""
    _, member = angles_room.directions(angles_deg)
    near = np.diff(angles_deg) <= angles_room.TOLERANCE_DEG
    return [(int(k), int(k) + 1) for k in np.flatnonzero(near & (member[:-1] == member[1:]))]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
