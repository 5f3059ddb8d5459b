"""What an assessment found: scores of all candidates, the choice, and the advice."""

import shlex
from dataclasses import dataclass

import numpy as np

from nntomo_dask.assessment.candidates import options_of
from nntomo_dask.reconstruction.method import Method
from nntomo_dask.types import Float32


@dataclass(frozen=True)
class Score:
    """What the assessment found of one candidate.

    Attributes
    ----------
    title
        Method and settings in words.
    method
        The method with its settings.
    network
        The name of its network, such as its file; empty where there is none.
    misfits
        At the projections of each fold, in the order of `Assessment.left_out_deg`: the mean square error of the volume
        as far as these show it, [u²]; see `held_out.misfit`.
    misfit
        Their geometric mean.
    beyond_noise
        That less the noise's own part; about 0 for a perfect prediction. NaN where the noise is not known.
    against_best
        How many times larger the misfits are than those of the best, projection by projection: a geometric mean.
    standard_error
        Of `against_best`.
    tied
        Whether that is 1 within about one standard error.
    seconds
        Of one processor core, for the whole volume, about.
    """

    title: str
    method: Method
    network: str
    misfits: tuple[float, ...]
    misfit: float
    beyond_noise: float
    against_best: float
    standard_error: float
    tied: bool
    seconds: float


@dataclass(frozen=True)
class Shown:
    """For figures: a projection that was left out, and what candidates predict of it.

    Attributes
    ----------
    angle_deg
        Its tilt angle.
    measured
        (slice, detector), the slices that were looked at side by side.
    predicted
        The same of candidates, by title: of each method that which predicts best.
    """

    angle_deg: float
    measured: Float32
    predicted: dict[str, Float32]


@dataclass(frozen=True)
class Assessment:
    """How well methods predict projections of a series that were left out.

    Attributes
    ----------
    scores
        Of all candidates, the least misfit first.
    recommended
        The one to use: see `advice`.
    baseline
        SIRT with values of at least 0.
    left_out_deg
        Tilt angles of each fold.
    slices
        Places (start, stop) of the slices that were looked at.
    noise_variance
        Mean variance of the noise at the projections of each fold; None where it is not known.
    noise_part
        What noise of that variance adds to each misfit; None where it is not known.
    empty
        Misfit of predicting nothing, or the mean value, whichever is less.
    shown
        Predictions for figures.
    """

    scores: tuple[Score, ...]
    recommended: Score
    baseline: Score
    left_out_deg: tuple[tuple[float, ...], ...]
    slices: tuple[tuple[int, int], ...]
    noise_variance: tuple[float, ...] | None
    noise_part: float | None
    empty: float
    shown: Shown

    @property
    def method(self) -> Method:
        """The recommended method: ``reconstruct(series, assessment.method)``."""
        return self.recommended.method

    @property
    def empty_beyond_noise(self) -> float:
        """The misfit of predicting nothing, less the noise's part."""
        return self.empty - (self.noise_part or 0.0)

    @property
    def best(self) -> Score:
        """The candidate with the least misfit."""
        return self.scores[0]

    @property
    def ties(self) -> tuple[Score, ...]:
        """Candidates that cannot be told from the best, without itself."""
        return tuple(one for one in self.scores[1:] if one.tied)

    def words(self, series: str, output: str = "volume.zarr") -> list[str]:
        """The command that reconstructs as recommended."""
        one = self.recommended
        network = ["--network", one.network] if one.network else []
        options = ["--method", one.method.name, *network, *options_of(one.method)]
        return ["nntomo", "reconstruct", series, *options, "-o", output]

    def advice(self, series: str) -> str:
        """What to do, in one sentence, and why."""
        one, command = self.recommended, shlex.join(self.words(series))
        if one is self.baseline and self.best is not self.baseline:
            why = (
                f"no method is clearly better than {_inline(one.title)}, whose misfit is {one.against_best:.3g} ± "
                f"{one.standard_error:.1g} times the least, that of {_inline(self.best.title)}"
            )
        elif one is self.baseline:
            why = f"{_inline(one.title)} predicts the projections that were left out best"
        else:
            why = (
                f"{_inline(one.title)} predicts the projections that were left out better: its misfit is "
                f"{self._share(one):.2g} times that of {_inline(self.baseline.title)}"
            )
            near = [self.best] if one is not self.best else list(self.ties[:3])
            if near:
                listed = " and ".join(_inline(other.title) for other in near)
                why += f", and within one standard error of that of {listed}"
        return f"{why[0].upper()}{why[1:]}; run: {command}"

    def _share(self, score: Score) -> float:
        """The misfit of a candidate as a multiple of the baseline's; beyond noise where that can be said."""
        known = np.isfinite([score.beyond_noise, self.baseline.beyond_noise]).all()
        if known and self.baseline.beyond_noise > 0 and score.beyond_noise > 0:
            return score.beyond_noise / self.baseline.beyond_noise
        return score.misfit / self.baseline.misfit


def _inline(title: str) -> str:
    """A title within a sentence: its settings in brackets, so that the sentence's commas are its own."""
    name, _, settings = title.partition(", ")
    return f"{name} ({settings})" if settings else name
