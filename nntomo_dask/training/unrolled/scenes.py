"""Training data without end: scenes that are drawn by seed and number, and never stored.

A scene is a block of slices of a phantom with its halo, projected on a grid twice as fine, with noise, and solved with
total variation as a reconstruction does it. Scene 17 of seed 3 always has the same phantom, angles and noise, so that a
training resumes where it was.
"""

import json
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np

from nntomo_dask.arrays.geometry import tilt_angles
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import blas, scripts
from nntomo_dask.networks.unrolled import REACH, Geometry
from nntomo_dask.phantoms import PHANTOMS
from nntomo_dask.phantoms.materials import binned
from nntomo_dask.phantoms.phantom import Phantom
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import tv_weight
from nntomo_dask.reconstruction.blocks import BLOCK
from nntomo_dask.reconstruction.first_guess import guess, solution, weight_of
from nntomo_dask.reconstruction.intensity import level_of
from nntomo_dask.training.unrolled import flaws
from nntomo_dask.training.unrolled.flaws import Flaws
from nntomo_dask.types import Float32, Float64

FINER = 2  # how many times finer than the voxels a phantom is drawn and projected
_THREADS = 4  # workers up to which threads of this process make scenes; more are processes

_NOISELESS = 0.25  # share of the scenes, where noise is drawn
_LEAST_NOISE, _MOST_NOISE = 0.003, 0.06  # shares of the brightest ray
_JITTER = 0.25  # deviation of the logarithm of the noise, where it is that of a series
_LEVEL_JITTER = 0.12  # and of the level, which a reconstruction estimates from its series
_FULL_RANGE = 0.25  # share of the scenes over the full range, where angles are drawn
_SHIFT = 0.15  # of an angle, in steps of the series
_NOISE_JITTER = 0.2  # deviation of the logarithm of the noise that a reconstruction takes for it
_STEP, _STRONGER = 10**0.5, 5  # of weights that may be stronger than the noise asks for, and how many are tried
_FLAWS = 1  # the stream of random numbers for flaws


@dataclass(frozen=True)
class SceneNoise:
    """Of rays v: the variance is ``read² + gain · v``, as shares of the brightest ray and its square.

    Attributes
    ----------
    drawn
        Whether each scene has noise of its own, from none to 6 %; then the others play no part.
    read, gain, background
        Shares of the brightest ray.
    """

    drawn: bool = False
    read: float = 0.0
    gain: float = 0.0
    background: float = 0.0


class Measured(NamedTuple):
    """A scene in units of its intensity level, before it is solved."""

    angles_deg: Float64
    rows: Float32  # (slice + 2 · halo, angle, detector)
    truth: Float32  # (slice + 2 · halo, y, x)
    jitter: float  # what a reconstruction's estimate of the noise is multiplied with


class Scene(NamedTuple):
    """A scene in units of its intensity level, ready to learn from."""

    angles_deg: Float64
    first: Float32  # (slice + 2 · halo, y, x), as the next two
    second: Float32
    descent: Float32
    frequency_steps: Float32  # (angle, frequency), see `projection.conditioning`
    noise: float
    truth: Float32  # (slice, y, x)
    axis: Axis | None = None  # where the tilt axis is; None in the middle


@dataclass(frozen=True)
class Scenes:
    """Where scenes come from.

    Attributes
    ----------
    phantom
        Name of the phantom.
    size
        Pixels of the detector and of a slice.
    geometry
        Their angles, or the bounds within which they are drawn.
    noise
        Of their rays.
    seed
        Another one gives other scenes.
    flawed
        Share of the scenes whose projections have flaws: see `flaws`.
    settings
        Of the phantom, where they are not those of `Phantom.for_training`: names and values.
    """

    phantom: str
    size: int
    geometry: Geometry
    noise: SceneNoise
    seed: int
    flawed: float = 0.0
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def largest(self) -> int:
        """The most pixels of a scene along a slice."""
        return self.size

    @property
    def drawn(self) -> Phantom:
        """The phantom with its settings."""
        usual: Any = PHANTOMS[self.phantom].for_training()
        chosen: Phantom = replace(usual, **dict(self.settings))
        return chosen

    def to_json(self) -> str:
        """All fields, but for settings where there are none."""
        fields = asdict(self)
        if not fields["settings"]:
            del fields["settings"]
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> "Scenes":
        """Inverse of `to_json`."""
        fields = json.loads(text)
        geometry = Geometry.from_json(json.dumps(fields.pop("geometry")))
        settings = tuple((name, value) for name, value in fields.pop("settings", ()))
        return cls(**fields | {"geometry": geometry, "noise": SceneNoise(**fields.pop("noise")), "settings": settings})

    def measured(self, number: int) -> Measured:
        """What the scene of a number from 0 on is made of."""
        rng = np.random.default_rng([self.seed, number])
        slices = BLOCK + 2 * REACH
        fine = self.drawn.scene_of(self.size, slices, rng, finer=FINER)
        angles = self._angles(rng)
        wrong = self._flaws(angles, number)
        if wrong is not None:
            fine = wrong.soften(fine, FINER)
        truth = binned(fine, FINER)
        rows = self._projected(fine, angles, wrong)
        brightest = float(rows.max())
        level = float(level_of(truth))
        if level > 0 and brightest > 0:
            rows = self.with_noise(rows, brightest, rng)
            level = jittered(level, rng)
            rows /= np.float32(level)
            truth /= np.float32(level)
        return Measured(angles, rows, truth, jitter_of_noise(rng))

    def scene(self, number: int) -> Scene:
        """The scene of a number from 0 on."""
        angles, rows, truth, jitter = self.measured(number)
        return solved(rows, truth[REACH : REACH + BLOCK], angles, jitter=jitter)

    def work(self, number: int) -> tuple[Callable[..., Scene], tuple[Any, ...]]:
        """A function and its arguments: what a worker does to make the scene of a number."""
        return self.scene, (number,)

    def scenes(self, numbers: Iterable[int], *, workers: int) -> Generator[Scene, None, None]:
        """The scenes of some numbers in their order; the next ones are made while one is worked on."""
        pool: Executor
        if workers <= _THREADS:
            pool = ThreadPoolExecutor(workers)
        else:
            scripts.check_guard()
            pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=blas.limit_to_one)
        with pool:
            waiting: list[Future[Scene]] = []
            try:
                for number in numbers:
                    function, arguments = self.work(number)
                    waiting.append(pool.submit(function, *arguments))
                    if len(waiting) > 2 * workers:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                for one in waiting:
                    one.cancel()

    def _angles(self, rng: np.random.Generator) -> Float64:
        """Those of the series; or an even series within the bounds, each angle a little aside, ascending."""
        if self.geometry.angles_deg:
            return np.asarray(self.geometry.angles_deg)
        least, most = self.geometry.projections
        inner, outer = self.geometry.reach_deg
        count = int(np.exp(rng.uniform(np.log(least), np.log(most + 1))))
        if rng.random() < _FULL_RANGE:
            angles = tilt_angles("full", count)
            aside = 180 / count
        else:
            reach = rng.uniform(inner, min(outer, 90 - 90 / count))
            angles = np.linspace(-reach, reach, count)
            aside = 2 * reach / (count - 1)
        if rng.random() < 0.5:
            angles = angles + aside * _SHIFT * rng.uniform(-1, 1, count)
        return np.sort(angles)

    def _flaws(self, angles_deg: Float64, number: int) -> Flaws | None:
        """Drawn apart from all else: the phantoms, angles and noise of a seed do not depend on the share."""
        rng = np.random.default_rng([self.seed, number, _FLAWS])
        return flaws.drawn(angles_deg, rng) if rng.random() < self.flawed else None

    def _projected(self, fine: Float32, angles_deg: Float64, wrong: Flaws | None) -> Float32:
        """(slice, angle, detector), in pixels of the slices: the means of the rays of the finer grid."""
        tilted = angles_deg if wrong is None else angles_deg + wrong.tilts_deg
        rows = Projector(tilted, self.size * FINER).forward(fine)
        if wrong is not None:
            rows = wrong.apply(rows, FINER)
        slices = len(fine) // FINER
        return np.asarray(
            rows.reshape(slices, FINER, len(angles_deg), self.size, FINER).mean(axis=(1, 4)) / np.float32(FINER),
            np.float32,
        )

    def with_noise(self, rows: Float32, brightest: float, rng: np.random.Generator) -> Float32:
        """Rays with the noise of a scene, and its background; shares are those of the brightest ray."""
        read, gain = self.noise.read, self.noise.gain
        if self.noise.drawn:
            share = 0.0 if rng.random() < _NOISELESS else np.exp(rng.uniform(np.log(_LEAST_NOISE), np.log(_MOST_NOISE)))
            counted = rng.choice([0.0, 1.0, rng.random()], p=[0.5, 0.25, 0.25])  # share of the variance
            read, gain = share * np.sqrt(1 - counted), share**2 * counted
        else:
            factor = float(np.exp(_JITTER * rng.standard_normal()))
            read, gain = read * factor, gain * factor**2
        deviation = np.sqrt(np.float32(read**2) + np.float32(gain) * np.maximum(rows, 0) / np.float32(brightest))
        noise = rng.standard_normal(rows.shape, np.float32) * (deviation * np.float32(brightest))
        return np.asarray(rows + noise + np.float32(self.noise.background * brightest), np.float32)


def solved(
    rows: Float32,
    truth: Float32,
    angles_deg: Float64,
    axis: Axis | None = None,
    thickness: float = 1.0,
    *,
    jitter: float = 1.0,
) -> Scene:
    """A scene of projections (slice + 2 · halo, angle, detector): what a network sees of them, beside the truth.

    `jitter` is what the noise is multiplied with, since a reconstruction only estimates it.
    """
    pair = Projector(angles_deg, rows.shape[-1], axis=axis)
    noise = jitter * _explained(rows, pair, truth, tv_weight.deviation_of(rows, angles_deg), 1 / thickness)
    found = guess(rows, pair, noise=noise, between=1 / thickness)
    steps = pair.frequency_steps(rows)
    return Scene(angles_deg, found.first, found.second, found.descent, steps, noise, truth, axis)


def jittered(level: float, rng: np.random.Generator) -> float:
    """A level as far off as a reconstruction's own estimate may be."""
    return level * float(np.exp(_LEVEL_JITTER * rng.standard_normal()))


def jitter_of_noise(rng: np.random.Generator) -> float:
    """How far off its estimate of the noise may be."""
    return float(np.exp(_NOISE_JITTER * rng.standard_normal()))


def _explained(rows: Float32, pair: Projector, truth: Float32, noise: float, between: float) -> float:
    """The noise for which total variation comes closest to the truth, if it is more than that of the rays.

    A reconstruction asks projections that are left out in turn; here it is known.
    """
    count = len(pair.angles_deg)

    def error(weight: float) -> float:
        """Of total variation with this weight."""
        found = solution(rows, pair, weight=weight, between=between)
        return float(np.square(found[REACH : len(rows) - REACH] - truth).mean())

    best = weight = weight_of(noise, count)
    least = error(weight)
    for _ in range(_STRONGER):
        weight *= _STEP
        found = error(weight)
        if found >= least:
            break
        best, least = weight, found
    return float(max(noise, tv_weight.as_noise(best, count)))


def described(scenes: Scenes) -> dict[str, Any]:
    """What a recipe says of scenes."""
    fields: dict[str, Any] = json.loads(scenes.to_json())
    return fields
