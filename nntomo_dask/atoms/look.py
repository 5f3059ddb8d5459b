"""What a search has to know of a volume before it begins: how wide its atoms are, and how large its noise is.

Both come from a part of the volume that follows from its shape alone, so they do not depend on slabs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import dask.array as da
import numpy as np

from nntomo_dask.atoms import candidates, fitting
from nntomo_dask.atoms.candidates import Filter
from nntomo_dask.atoms.frame import Frame, compute_slices
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import peaks
from nntomo_dask.types import Bools, Float32, Float64, Integers

PART_VOXELS = 2**24  # as much is looked at; a volume of 256³ is looked at whole
_WIDTH_VOXELS = 2**22  # and so much of it for the width
_RUNS, _RUN_SLICES = 4, 32
_SCALES = 0.7 * 2 ** (np.arange(10) / 2)  # smoothings that are tried for the width, [px]
_OF_SMOOTHING = np.sqrt(3 / 2)  # the Laplacian of a Gaussian, times s², is largest at a smoothing s of width √(2/3)
_BRIGHTEST = 64  # atoms whose widths are averaged
_NEARLY = 0.3  # of the mean of the highest tenth of these
_CLEAR = 5.0  # times the noise: no noise
LEAST_WIDTH, _MOST_WIDTH = 0.5, 12.0  # [px]
_TURNS = 3  # of fits for the noise: what is left need not be exact
_TO_DEVIATION = 1.4826  # of the median of magnitudes to the standard deviation of a normal distribution
_ROUNDING = 1e-5  # of the largest value: what float32 leaves of the noise
_FEW = 1000


@dataclass(frozen=True)
class Look:
    """What was seen.

    Attributes
    ----------
    width
        Of the atoms, [px].
    matched, used
        The filter with the least noise, and the one that finds maxima.
    noise, noise_used
        Standard deviation of a height where there is no atom, by either filter.
    """

    width: float
    matched: Filter
    used: Filter
    noise: float
    noise_used: float


def look(
    frame: Frame, *, width: float | None, distance: float | None, threshold: float, faintest: float, who: str
) -> Look:
    """Look at a part of a volume.

    Parameters
    ----------
    width, distance
        Of the atoms, and the least between two of them, [px]; None to estimate the first, and to take the second from
        it.
    threshold
        Least height of an atom in units of the noise.
    faintest
        Least height as a share of the brightest.

    Raises
    ------
    SchemaError
        There are no peaks.
    """
    parts = [_read(part) for part in _parts(frame.shape, frame)]
    largest = max(float(np.abs(part).max()) for part in parts)
    if largest == 0 or all(part.min() == part.max() for part in parts):
        refuse_no_peaks(who, f"the same value, {parts[0].flat[0]:g}, everywhere")
    if width is None:
        width = _width(_cut(parts, _WIDTH_VOXELS), frame.step, largest, who)
    matched = candidates.filter_for(width, width, frame.step)
    used = candidates.filter_for(width, candidates.smoothing_for(width, distance or 2 * width), frame.step)
    least = _ROUNDING * largest
    noise, noise_used = (max(_noise(parts, one, frame.step), least) for one in (matched, used))
    residuals = [_without_atoms(part, frame.step, width, used, threshold * noise_used, faintest) for part in parts]
    left, left_used = (_noise(residuals, one, frame.step, of=parts) for one in (matched, used))
    return Look(width, matched, used, max(min(noise, left), least), max(min(noise_used, left_used), least))


def refuse_no_peaks(who: str, got: str) -> None:
    """Raise a SchemaError about a volume in which nothing is to be found."""
    refuse(who, needs="a volume with peaks above its background", got=got, remedy="look at it first, nntomo show")


def _parts(shape: tuple[int, int, int], frame: Frame) -> list[Frame]:
    """The whole of a small volume; of a large one runs of slices, and of these the middle."""
    depth, height, length = shape
    if depth * height * length <= PART_VOXELS:
        return [frame]
    runs = min(_RUNS, max(depth // _RUN_SLICES, 1))
    slices = min(_RUN_SLICES, depth)
    edge = max(int((PART_VOXELS / (runs * slices)) ** 0.5), 1)
    firsts = np.linspace(0, depth - slices, runs + 2)[1:-1].round().astype(int)
    middle = [slice((size - min(size, edge)) // 2, (size + min(size, edge)) // 2) for size in (height, length)]
    return [frame.part(slice(int(first), int(first) + slices), *middle) for first in firsts]


def _read(frame: Frame) -> Float32:
    (values,) = compute_slices(np.array, frame, [(0, frame.shape[0])], [()])
    block: Float32 = values
    return block


def _cut(parts: Sequence[Float32], voxels: int) -> list[Float32]:
    """The middle of each part, so that they have no more voxels together."""
    share = (voxels / sum(part.size for part in parts)) ** (1 / 3)
    if share >= 1:
        return list(parts)
    cuts = []
    for part in parts:
        sizes = [max(int(size * share), min(size, _RUN_SLICES)) for size in part.shape]
        places = [(size - kept) // 2 for size, kept in zip(part.shape, sizes, strict=True)]
        cuts.append(part[tuple(slice(at, at + kept) for at, kept in zip(places, sizes, strict=True))])
    return cuts


def _magnitudes(part: Float32, used: Filter, step: float, of: Float32) -> Float32:
    """Magnitudes of the filtered values where a constraint such as values ≥ 0 has not set the volume to 0."""
    magnitudes: Float32 = np.abs(used.of(part, step))[of != 0]
    return magnitudes


def _noise(parts: Sequence[Float32], used: Filter, step: float, of: Sequence[Float32] | None = None) -> float:
    """Standard deviation of a height where there is no atom, by the median of magnitudes."""
    found = np.concatenate([_magnitudes(part, used, step, one) for part, one in zip(parts, of or parts, strict=True)])
    if found.size < _FEW:
        found = np.concatenate([np.abs(used.of(part, step)).ravel() for part in parts])
    return _TO_DEVIATION * float(np.median(found))


def _without_atoms(part: Float32, step: float, width: float, used: Filter, least: float, faintest: float) -> Float32:
    """A part less the Gaussians that are found in it."""
    found = _fitted(part, step, width, used, least, faintest)
    left = part.copy()
    peaks.subtract(left, found.gaussians, first=0, step=step)
    return left


def first_guess(
    frame: Frame, used: Filter, least: float, distance: float, width: float, faintest: float
) -> fitting.Fitted:
    """Gaussians of the common width at maxima above a height and a share of the brightest, a distance apart, [px]."""
    places, heights = candidates.maxima(frame, used, least)
    bright = heights >= faintest * brightest(heights)
    places, heights = places[bright], heights[bright]
    kept = candidates.apart(places * frame.scale, heights, distance)
    gaussians = np.column_stack([places[kept], heights[kept], np.full(len(kept), width)]).astype(np.float64)
    return fitting.Fitted(gaussians, gaussians[:, :3].copy())


def brightest(heights: Float64) -> float:
    """Mean of the highest tenth; 0 of none."""
    return float(np.sort(heights)[-max(len(heights) // 10, 1) :].mean()) if len(heights) else 0.0


def _width(parts: Sequence[Float32], step: float, largest: float, who: str) -> float:
    """The width of the brightest atoms, [px].

    A first guess is the smoothing at which maxima rise most above the noise; then the brightest are fitted.
    """
    scores = [_rise(parts, smoothing, step, largest) for smoothing in _SCALES]
    if max(scores) <= 0:
        refuse_no_peaks(who, "none that rises above the noise")
    width = float(_SCALES[int(np.argmax(scores))] * _OF_SMOOTHING)
    for _ in range(8):
        width = min(max(width, LEAST_WIDTH), _MOST_WIDTH)
        fitted = _widths(parts, width, step)
        if fitted.size == 0:
            refuse_no_peaks(who, "none of a width that an atom could have")
        before, width = width, float(np.median(fitted))
        if abs(width - before) < 0.01 * before:
            break
    return float(f"{width:.6g}")


def _rise(parts: Sequence[Float32], smoothing: float, step: float, largest: float) -> float:
    """How far the brightest maxima rise above the noise at a smoothing."""
    unit = Filter(smoothing, smoothing**2)
    sharp = [unit.of(part, step) for part in parts]
    noise = _TO_DEVIATION * float(np.median(np.concatenate([np.abs(one).ravel() for one in sharp])))
    heights = np.concatenate([_maxima(one, 0.0)[1] for one in sharp])
    bright = np.sort(heights[_bright(heights, _CLEAR * noise)])[::-1][:_BRIGHTEST]
    if bright.size == 0 or bright.max() < 10 * _ROUNDING * largest:
        return 0.0
    return float(bright.mean()) - 3 * noise


def _bright(heights: Float64, least: float) -> Bools:
    """Which maxima are above a height and nearly as high as the highest: where atoms are few, the others are none."""
    clear: Bools = heights >= least
    clear &= heights >= _NEARLY * brightest(np.sort(heights[clear])[-_BRIGHTEST:])
    return clear


def _maxima(sharp: Float32, least: float) -> tuple[Integers, Float64]:
    return peaks.maxima(sharp, least, low=0, high=len(sharp), first=0, count=len(sharp))


def _widths(parts: Sequence[Float32], width: float, step: float) -> Float64:
    """Widths of the brightest atoms of all parts, each fitted with those around it."""
    used, found = candidates.filter_for(width, candidates.smoothing_for(width, 2 * width), step), []
    least = _CLEAR * _noise(parts, used, step)
    for part in parts:
        fitted = _fitted(part, step, width, used, least, _NEARLY).gaussians
        inside = np.all((fitted[:, :3] >= 0) & (fitted[:, :3] <= np.array(part.shape) - 1), axis=1)
        # Those at the bounds of a fit are none.
        good = inside & (fitted[:, 3] > 0) & (np.abs(np.log(fitted[:, 4] / width)) < np.log(2.4))
        found.append(fitted[good])
    atoms = np.concatenate(found)
    if len(atoms) == 0:
        return np.zeros(0)
    return np.asarray(atoms[np.argsort(-atoms[:, 3], kind="stable")[:_BRIGHTEST], 4])


def _fitted(part: Float32, step: float, width: float, used: Filter, least: float, faintest: float) -> fitting.Fitted:
    """The Gaussians of a part."""
    frame = Frame(da.from_array(part, chunks=-1), 1.0, step, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    guess = first_guess(frame, used, least, 2 * width, width, faintest)
    return fitting.fit(frame, guess, width, turns=_TURNS)
