"""Training data without end: scenes that are drawn by seed and number, and never stored.

A scene is a block of slices of a phantom with its halo, projected on a grid twice as fine, with noise, and solved with
total variation as a reconstruction does it. Scene 17 of seed 3 always has the same phantom, angles and noise, so that a
training resumes where it was.
"""

import json
from collections.abc import Generator, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np

from nntomo_dask.arrays.geometry import tilt_angles
from nntomo_dask.compute import blas, scripts
from nntomo_dask.networks.unrolled import REACH, Geometry
from nntomo_dask.phantoms import PHANTOMS
from nntomo_dask.phantoms.materials import binned
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import tv_weight
from nntomo_dask.reconstruction.blocks import BLOCK
from nntomo_dask.reconstruction.first_guess import guess
from nntomo_dask.reconstruction.intensity import level_of
from nntomo_dask.types import Float32, Float64

FINER = 2  # how many times finer than the voxels a phantom is drawn and projected
_THREADS = 4  # workers up to which threads of this process make scenes; more are processes

_NOISELESS = 0.25  # share of the scenes, where noise is drawn
_LEAST_NOISE, _MOST_NOISE = 0.003, 0.06  # shares of the brightest ray
_JITTER = 0.25  # deviation of the logarithm of the noise, where it is that of a series
_LEVEL_JITTER = 0.12  # and of the level, which a reconstruction estimates from its series
_FULL_RANGE = 0.25  # share of the scenes over the full range, where angles are drawn
_SHIFT = 0.15  # of an angle, in steps of the series


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


class Scene(NamedTuple):
    """A scene in units of its intensity level, ready to learn from."""

    angles_deg: Float64
    first: Float32  # (slice + 2 · halo, y, x), as the next two
    second: Float32
    descent: Float32
    frequency_steps: Float32  # (angle, frequency), see `projection.conditioning`
    noise: float
    truth: Float32  # (slice, y, x)


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
    """

    phantom: str
    size: int
    geometry: Geometry
    noise: SceneNoise
    seed: int

    def to_json(self) -> str:
        """All fields."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Scenes":
        """Inverse of `to_json`."""
        fields = json.loads(text)
        geometry = Geometry.from_json(json.dumps(fields.pop("geometry")))
        return cls(**fields | {"geometry": geometry, "noise": SceneNoise(**fields.pop("noise"))})

    def measured(self, number: int) -> Measured:
        """What the scene of a number from 0 on is made of."""
        rng = np.random.default_rng([self.seed, number])
        slices = BLOCK + 2 * REACH
        fine = PHANTOMS[self.phantom].for_training().scene_of(self.size, slices, rng, finer=FINER)
        truth, angles = binned(fine, FINER), self._angles(rng)
        rows = self._projected(fine, angles)
        brightest = float(rows.max())
        level = float(level_of(truth))
        if level > 0 and brightest > 0:
            rows = self._with_noise(rows, brightest, rng)
            level *= float(np.exp(_LEVEL_JITTER * rng.standard_normal()))
            rows /= np.float32(level)
            truth /= np.float32(level)
        return Measured(angles, rows, truth)

    def scene(self, number: int) -> Scene:
        """The scene of a number from 0 on."""
        angles, rows, truth = self.measured(number)
        noise = tv_weight.deviation_of(rows, angles)
        pair = Projector(angles, self.size)
        found = guess(rows, pair, noise=noise, between=1.0)
        inside = slice(REACH, REACH + BLOCK)
        steps = pair.frequency_steps(rows)
        return Scene(angles, found.first, found.second, found.descent, steps, noise, truth[inside])

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
                    waiting.append(pool.submit(self.scene, number))
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

    def _projected(self, fine: Float32, angles_deg: Float64) -> Float32:
        """(slice, angle, detector), in pixels of the slices: the means of the rays of the finer grid."""
        pair = Projector(angles_deg, self.size * FINER)
        rows = pair.forward(fine)
        slices = len(fine) // FINER
        return np.asarray(
            rows.reshape(slices, FINER, len(angles_deg), self.size, FINER).mean(axis=(1, 4)) / np.float32(FINER),
            np.float32,
        )

    def _with_noise(self, rows: Float32, brightest: float, rng: np.random.Generator) -> Float32:
        read, gain = self.noise.read, self.noise.gain
        if self.noise.drawn:
            share = 0.0 if rng.random() < _NOISELESS else np.exp(rng.uniform(np.log(_LEAST_NOISE), np.log(_MOST_NOISE)))
            counted = rng.choice([0.0, 1.0, rng.random()], p=[0.5, 0.25, 0.25])  # share of the variance
            read, gain = share * np.sqrt(1 - counted), share**2 * counted
        else:
            factor = float(np.exp(_JITTER * rng.standard_normal()))
            read, gain = read * factor, gain * factor**2
        deviation = np.sqrt(np.float32(read**2) + np.float32(gain) * rows / np.float32(brightest))
        noise = rng.standard_normal(rows.shape, np.float32) * (deviation * np.float32(brightest))
        return np.asarray(rows + noise + np.float32(self.noise.background * brightest), np.float32)


def described(scenes: Scenes) -> dict[str, Any]:
    """What a recipe says of scenes."""
    fields: dict[str, Any] = json.loads(scenes.to_json())
    return fields
