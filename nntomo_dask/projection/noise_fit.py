"""The noise of plain rows: from high frequencies, from repeated projections, and from sums that no tilt can change.

Three things are known of the noise of neighbouring pixels that a specimen does not share. Differences of high order of
the values hold it and little else; so does the difference of two projections at one angle. And the sum of a slice's
projection is the slice's mass, whatever the angle [1]_, so what it varies by is noise. Surfaces of voxels are rough at
the scale of a pixel: the first reads that as noise, and the last does not.

References
----------
.. [1] F. Natterer, The Mathematics of Computerized Tomography, SIAM, 2001, §II.4.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nntomo_dask.types import Float64, Integers

LEAST_VALUES = 256  # of high frequencies: their deviation is then known within a tenth
LEAST_DETECTOR = 8  # pixels, which the filters along the detector need

_SECOND, _FOURTH = (1.0, -2.0, 1.0), (1.0, -4.0, 6.0, -4.0, 1.0)
_PART, _PART_OF_NORMAL = 1 / 3, 0.430727  # a third of normal values lies within so many deviations
_SMOOTH = 0.3  # of the values of a bin: those where the local slope is least
_BINS, _LEAST_IN_BIN = 24, 200
_LEAST_REPEATED = 1000  # values of repeated projections that are worth more than those of all projections
_FLAT = 0.05  # of all values lie at the background, else the specimen leaves none
_MEDIAN_SQUARE = 0.454936  # of a normal value
_MEDIAN_OF_THREE = 0.67  # deviation of the median of three normal values
_HIGH_PASS_FREEDOM = 1.94  # neighbouring second differences are correlated: one in so many is a value of its own


class Fit(NamedTuple):
    """A noise model: variance(v) = read_noise² + gain · max(v - background, 0)."""

    gain: float
    read_noise: float
    background: float
    brightest: float
    signal: float  # deviation of the values that is no noise
    noise: float  # root of the mean variance of the noise
    all_noise: bool


class _Model(NamedTuple):
    """variance(v) = offset + gain · max(v - background, 0), and whether a background is seen."""

    gain: float
    offset: float
    background: float
    is_seen: bool

    def mean_variance(self, means: Float64) -> float:
        """Over places with these values."""
        return self.offset + self.gain * float(np.mean(np.maximum(means - self.background, 0)))


class _Values(NamedTuple):
    """Of each place: the high frequencies, the local mean, and how much the values change around it."""

    residual: Float64
    mean: Float64
    slope: Float64


def enough(n_places: int, height: int, n_angles: int, n_detector: int) -> bool:
    """Whether that many blocks of neighbouring slices have enough values."""
    along_z = height - 2 if height >= 3 else height
    return n_detector >= LEAST_DETECTOR and n_places * along_z * n_angles * (n_detector - 4) >= LEAST_VALUES


def fit(blocks: Sequence[Float64], repeats: Sequence[tuple[int, int]]) -> Fit:
    """The noise model of blocks (slice, angle, detector) of neighbouring slices.

    Parameters
    ----------
    repeats
        Pairs of projections at one angle, by their places.
    """
    found = [_values(blocks, filters) for filters in _filters(blocks[0].shape[0])]
    twins = _repeated(blocks, repeats)
    # What is too large holds more of the specimen: slices that do not belong together, a drift between repeats.
    candidates = [_model(values) for values in (*found, *twins)]
    model = _bounded(blocks, min(candidates, key=lambda one: one.mean_variance(found[0].mean)))
    values = np.concatenate([block.ravel() for block in blocks])
    variance = model.mean_variance(values)
    return Fit(
        model.gain,
        float(np.sqrt(model.offset)),
        model.background,
        _brightest(blocks, model),
        float(np.sqrt(max(float(values.var()) - variance, 0.0))),
        float(np.sqrt(variance)),
        _is_all_noise(blocks, variance),
    )


def _brightest(blocks: Sequence[Float64], model: _Model) -> float:
    """The largest median of three pixels along the detector, less what noise adds to the largest of many."""
    medians = np.concatenate(
        [np.median(np.lib.stride_tricks.sliding_window_view(block, 3, axis=2), axis=3).ravel() for block in blocks]
    )
    most = float(medians.max())
    deviation = _MEDIAN_OF_THREE * np.sqrt(model.mean_variance(np.array([most])))
    return max(most - 3 * float(deviation), float(np.quantile(medians, 0.999)))


def _filters(height: int) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """High passes along z and along the detector."""
    along_detector: list[tuple[tuple[float, ...], tuple[float, ...]]] = [((), _FOURTH)]
    return [(_SECOND, _SECOND), *along_detector] if height >= 3 else along_detector


def _values(blocks: Sequence[Float64], filters: tuple[tuple[float, ...], tuple[float, ...]]) -> _Values:
    parts = [_filtered(block, block, filters) for block in blocks]
    return _Values(*(np.concatenate([part[field].ravel() for part in parts]) for field in range(3)))


def _repeated(blocks: Sequence[Float64], repeats: Sequence[tuple[int, int]]) -> list[_Values]:
    """Values of the differences of repeats, where there are enough of them."""
    if not repeats:
        return []
    first, second = (list(places) for places in zip(*repeats, strict=True))
    filters = _filters(blocks[0].shape[0])[0]
    parts = [
        _filtered((block[:, first] - block[:, second]) / np.sqrt(2), (block[:, first] + block[:, second]) / 2, filters)
        for block in blocks
    ]
    values = _Values(*(np.concatenate([part[field].ravel() for part in parts]) for field in range(3)))
    copied = not values.residual.any()  # the same projection twice
    return [] if copied or values.residual.size < _LEAST_REPEATED else [values]


def _filtered(noisy: Float64, shown: Float64, filters: tuple[tuple[float, ...], tuple[float, ...]]) -> _Values:
    """The high frequencies of `noisy`, and what `shown` is around each of them.

    The mean and the slopes have kernels that are orthogonal to those of the high pass: what is chosen by them is not
    chosen by its noise.
    """
    residual, mean = noisy, shown
    axes = [(axis, np.asarray(kernel)) for axis, kernel in zip((0, 2), filters, strict=True) if len(kernel)]
    slope = np.zeros(())
    for axis, kernel in axes:
        residual = _correlated(residual, kernel / np.sqrt((kernel**2).sum()), axis)
        mean = _correlated(mean, np.full(kernel.size, 1 / kernel.size), axis)
        along = shown
        for other, its_kernel in axes:
            ramp = np.arange(its_kernel.size) - (its_kernel.size - 1) / 2
            box = np.full(its_kernel.size, 1 / np.sqrt(its_kernel.size))
            along = _correlated(along, ramp / np.sqrt((ramp**2).sum()) if other == axis else box, other)
        slope = slope + along**2
    rounding = 2 * np.finfo(np.float32).eps * np.abs(shown).max()  # of the values, which were float32
    return _Values(np.where(np.abs(residual) <= rounding, 0, residual), mean, slope)


def _correlated(values: Float64, kernel: Float64, axis: int) -> Float64:
    """Only where the kernel lies within the values."""
    windows = np.lib.stride_tricks.sliding_window_view(values, kernel.size, axis=axis)
    return np.asarray(windows @ kernel)


def _model(values: _Values) -> _Model:
    """The model of high frequencies."""
    low, high = np.quantile(values.mean, [0.01, 0.995])
    scale = _deviation(values.residual) / 3  # of the mean of 3 x 3 values
    near = values.mean <= low + max(0.1 * (high - low), 4 * scale)
    background = float(np.median(values.mean[near]))
    width = 3 * scale + 0.005 * (high - low)
    flat = np.abs(values.mean - background) <= width
    seen = bool(flat.mean() >= _FLAT)
    if seen:
        background = float(values.mean[flat].mean())
        offset = _deviation(values.residual[flat]) ** 2
    else:
        background = float(low)
    means, variances, counts = _binned(values, background + max(width, 0.02 * (high - low)), high)
    if means.size == 0 or not variances.any():
        return _Model(0.0, offset if seen else _deviation(values.residual) ** 2, background, is_seen=True)
    above, gain = means - background, 0.0
    # A variance estimate scatters by itself, so bins weigh by what the model says of them, not by what they show.
    if seen:
        expected = above
        for _ in range(3):
            weights = counts * (above / expected) ** 2
            gain = max(_weighted_median((variances - offset) / above, weights), 0.0)
            expected = offset + gain * above if gain > 0 else np.ones(above.size)
        return _Model(gain, offset, background, is_seen=True)
    weights = np.sqrt(counts)
    for _ in range(3):
        columns = np.column_stack([np.ones(above.size), above]) * weights[:, None]
        from scipy.optimize import nnls  # tens of milliseconds, which no help text has to wait for

        (offset, gain), _ = nnls(columns, variances * weights)
        weights = np.sqrt(counts) / (offset + gain * above)
    return _Model(float(gain), float(offset), background, is_seen=False)


def _binned(values: _Values, start: float, stop: float) -> tuple[Float64, Float64, Integers]:
    """Mean, variance and number of the smoothest values, by their local mean."""
    places = np.digitize(values.mean, np.linspace(start, max(stop, start), _BINS + 1)[:-1])
    means: list[float] = []
    variances: list[float] = []
    counts: list[int] = []
    waiting: list[npt.NDArray[np.intp]] = []
    for number in range(1, _BINS + 1):
        waiting.append(np.flatnonzero(places == number))
        chosen = np.concatenate(waiting)
        if chosen.size * _SMOOTH < _LEAST_IN_BIN and (number < _BINS or means or chosen.size * _SMOOTH < 16):
            continue
        slopes = values.slope[chosen]
        smooth = chosen[slopes <= np.quantile(slopes, _SMOOTH)]
        means.append(float(values.mean[smooth].mean()))
        variances.append(_deviation(values.residual[smooth]) ** 2)
        counts.append(smooth.size)
        waiting = []
    return np.array(means), np.array(variances), np.array(counts)


def _deviation(residuals: Float64) -> float:
    """Root of the mean square, without what lies beyond four deviations of the third that is least."""
    sizes = np.abs(residuals)
    typical = float(np.quantile(sizes, _PART)) / _PART_OF_NORMAL
    return float(np.sqrt(np.mean(residuals[sizes <= 4 * typical] ** 2)))


def _weighted_median(values: Float64, weights: Float64) -> float:
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(sums, sums[-1] / 2)])


def _bounded(blocks: Sequence[Float64], model: _Model) -> _Model:
    """The model as far as the sums of the projections allow.

    A slice's sum has the variance ``n_detector · (offset + gain · mean)``. What changes all slices alike is no noise of
    theirs: a beam that grows weaker. Nor is what changes neighbours alike: a drift, or what leaves the detector.
    """
    n_angles, n_detector = blocks[0].shape[1:]
    masses = np.concatenate([block.sum(axis=2) for block in blocks])
    means = masses.mean(axis=1)
    above = np.maximum(means / n_detector - model.background, 0)
    changes = masses - means[:, None]
    power = float((means**2).sum())
    if len(masses) >= 2 and power > 0:
        changes = changes - means[:, None] * ((changes * means[:, None]).sum(axis=0) / power)
        changes *= np.sqrt(len(masses) / (len(masses) - 1))
    changes *= np.sqrt(n_angles / (n_angles - 1) / n_detector)
    freedom = changes.size * (n_angles - 1) / n_angles
    bounded = _within(changes, above, freedom, model)
    if blocks[0].shape[0] < 3:
        return bounded
    starts = np.cumsum([0, *(len(block) for block in blocks)])
    cuts = [slice(start, stop) for start, stop in itertools.pairwise(starts)]
    passed = [_correlated(changes[cut], np.asarray(_SECOND) / np.sqrt(6), 0) for cut in cuts]
    weighed = [_correlated(above[cut], np.asarray(_SECOND) ** 2 / 6, 0) for cut in cuts]
    return _within(np.concatenate(passed), np.concatenate(weighed), freedom / _HIGH_PASS_FREEDOM, bounded)


def _within(changes: Float64, above: Float64, freedom: float, model: _Model) -> _Model:
    """The largest gain with which changes of variance ``offset + gain · above`` are likely, within a standard error.

    Where no background is seen, the variance there is lowered alike.
    """
    error = 1 + np.sqrt(2 / max(freedom, 1.0))
    bright = above > 1e-3 * above.max(initial=0)  # an empty slice says nothing of the gain
    if (model.gain == 0 and model.offset == 0) or not bright.any():
        return model

    def ratio(gain: float) -> float:
        expected = np.maximum(model.offset + gain * above[bright], np.finfo(float).tiny)
        squares = (changes[bright] ** 2 / expected[:, None]).ravel()
        typical = np.median(squares) / _MEDIAN_SQUARE
        return float(np.mean(squares[squares <= 16 * typical]) * error)

    now = ratio(model.gain)
    if now >= 1:
        return model
    if not model.is_seen:
        return model._replace(gain=model.gain * now, offset=model.offset * now)
    if model.gain == 0 or (model.offset > 0 and ratio(0.0) <= 1):
        return model._replace(gain=0.0)
    low, high = 0.0, model.gain
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if ratio(middle) > 1 else (low, middle)
    return model._replace(gain=high)


def _is_all_noise(blocks: Sequence[Float64], variance: float) -> bool:
    """Whether means over pieces of slices and detector vary no more than noise alone would."""
    if variance == 0:
        return False
    across = max(blocks[0].shape[2] // 12, 2)
    pieces = []
    for block in blocks:
        along = min(block.shape[0], across)
        cut = block[: block.shape[0] // along * along, :, : block.shape[2] // across * across]
        n_z, n_angles, n_detector = cut.shape
        shaped = cut.reshape(n_z // along, along, n_angles, n_detector // across, across)
        pieces.append(shaped.mean(axis=(1, 4)).ravel() * np.sqrt(along * across))
    means = np.concatenate(pieces)
    return bool(means.var() < variance * (1 + max(0.5, 5 * np.sqrt(2 / means.size))))
