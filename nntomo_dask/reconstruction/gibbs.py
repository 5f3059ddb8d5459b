"""Volumes of a few grey levels, drawn from their distribution given the projections."""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.ndimage

from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import chunking, device, reporting
from nntomo_dask.kernels import discrete, layout
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction.sirt import Sirt
from nntomo_dask.types import Float32, Float64

_PARTS, _FINE_PARTS = 2, 4  # steps from level to level of partial voxels, with much noise and with little
_LITTLE = 0.4  # noise in units of a pixel of the faintest step between levels, below which it is little
_PARTIAL = 0.5  # what a partial voxel costs
_FREE = 0.01  # share of the voxels within bodies that a sweep draws too, so that pores can open
_START_ITERATIONS = 50  # of SIRT, whose volume is the first to be segmented
_WIDTH = 0.5  # [px], standard deviation of the Gaussian that makes partial voxels of the probabilities
_RADIUS = 2

Edges = Literal["partial", "sharp"]


@dataclass(frozen=True)
class Prior:
    """What is expected of a volume before it is compared with its projections.

    Attributes
    ----------
    smoothing
        What a pair of neighbours of different levels costs, divided by their distance in pixels.
    thickness
        Distance of two slices in pixels; infinite where they have nothing in common.
    parts
        Steps from one level to the next: partial voxels have values between, so many less one.
    """

    smoothing: float
    thickness: float
    parts: int

    @classmethod
    def of(cls, smoothing: float, thickness: float, *, edges: Edges, noise: float, levels: Float64) -> "Prior":
        """The prior for specimens with such edges, whose partial voxels are the finer the less noise there is."""
        little = levels.size > 1 and noise < _LITTLE * np.diff(levels).min()
        parts = 1 if edges == "sharp" else _FINE_PARTS if little else _PARTS
        return cls(smoothing, thickness, parts)

    @property
    def weights(self) -> Float64:
        """See `discrete.neighbour_weights`; with more values to choose from, neighbours count more."""
        return discrete.neighbour_weights(self.smoothing * max(self.parts / 2, 1), self.thickness)

    def values(self, levels: Float64) -> Float64:
        """The levels, and those of partial voxels between."""
        places = np.arange((levels.size - 1) * self.parts + 1) / self.parts
        return np.interp(places, np.arange(levels.size), levels)

    def costs(self, levels: Float64) -> Float64:
        """Of neighbours 1 for each level between them; of partial voxels something, as they lie at boundaries alone."""
        places = np.arange((levels.size - 1) * self.parts + 1)
        costs: Float64 = np.abs(places[:, None] - places) / self.parts + np.diag(_PARTIAL * (places % self.parts != 0))
        return costs


class Body:
    """Neighbouring slices in work: their labels (y, x, slice) and what the projections say beyond them."""

    def __init__(self, rows: Float32, pair: Projector, prior: Prior, levels: Float64, noise: float, seed: int) -> None:
        self.rows, self.pair, self.prior, self.noise = rows, pair, prior, noise
        self.count, self.width = len(rows), layout.lane_width(len(rows), chunking.SLAB_SLICES)
        self.number = seed << 20  # of the sweep; a seed has a million of its own
        self.labels: discrete.Labels
        self.residual: Float32
        self.set_levels(levels)

    def set_levels(self, levels: Float64) -> None:
        """Change the values of the labels."""
        self.levels, self.values, self.costs = levels, self.prior.values(levels), self.prior.costs(levels)

    def estimate(self) -> Float32:
        """SIRT, no voxel below the lowest level: (slice, y, x)."""
        start = Sirt(minimum=float(self.levels[0]), tolerance=1e-3, max_iterations=_START_ITERATIONS)
        axis = None if self.pair.axis == Axis.centred(self.pair.size) else self.pair.axis
        with reporting.unheard():
            volume: Float32 = device.to_host(start.slab(self.rows, self.pair.angles_deg, axis=axis))
        return volume

    def start(self, volume: Float32) -> None:
        """Segment a volume (slice, y, x)."""
        between = (self.values[1:] + self.values[:-1]) / 2
        self.labels = np.ascontiguousarray(np.moveaxis(np.searchsorted(between, volume), 0, -1), np.uint8)
        self.compare()

    def project(self, values: Float64) -> Float32:
        """Project the volume in which each label has a value: (angle, detector + pad, lane)."""
        size = self.pair.size
        images = np.zeros((size + 2 * layout.IMAGE_PAD, size + 2 * layout.IMAGE_PAD, self.width), np.float32)
        images[1:-1, 1:-1, : self.count] = values.astype(np.float32)[self.labels]
        projected = self.pair.forward(images.reshape(-1, self.width))
        return projected.reshape(self.pair.angles_deg.size, -1, self.width)

    def share(self, level: int) -> Float64:
        """How much of each label is of a level: 1 or 0, or between in partial voxels."""
        places = np.arange(self.values.size) / self.prior.parts
        shares: Float64 = np.maximum(1 - np.abs(places - level), 0)
        return shares

    def compare(self) -> None:
        """What the projections of the labels lack."""
        measured = layout.sinogram_to_lanes(self.rows, self.width)
        self.residual = measured.reshape(self.pair.angles_deg.size, -1, self.width) - self.project(self.values)

    @property
    def misfit(self) -> tuple[float, int]:
        """Sum of squares, and of how many rays: those that matter may touch."""
        inside = self.residual[:, layout.DETECTOR_FRONT :][:, : self.pair.size, : self.count]
        return float(np.square(inside, dtype=np.float64).sum()), inside.size

    def draw(self, sweeps: int, totals: Float32 | None = None) -> None:
        """Sweep so many times; `totals` gathers the values."""
        for counted in range(sweeps):
            discrete.sweep(
                self.labels,
                self.residual,
                np.empty((0, 0, 0), np.float32) if totals is None else totals,
                levels=self.values,
                precision=1 / self.noise**2,
                weights=self.prior.weights,
                costs=self.costs,
                angles_rad=np.deg2rad(self.pair.angles_deg),
                axis=self.pair.axis,
                free=_FREE,
                number=self.number,
                counted=-1 if totals is None else counted,
            )
            self.number += 1


def partial_voxels(mean: Float32, levels: Float64, thickness: float) -> Float32:
    """Mean values (y, x, slice) to those of a volume whose boundaries are a voxel wide.

    For each step from level to level, a Gaussian smooths the share of a voxel that is above it; its slope at a flat
    boundary, 1 / (σ √(2π)), is brought to 1 a pixel.
    """
    values = np.full(mean.shape, levels[0], np.float32)
    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    for low, high in itertools.pairwise(np.unique(levels.astype(np.float32))):
        share = np.clip((mean - low) / (high - low), 0, 1)
        for place, distance in enumerate((1.0, 1.0, max(thickness, 1.0))):
            if math.isinf(distance):
                continue
            weights = np.exp(-0.5 * (offsets * distance / _WIDTH) ** 2)
            share = scipy.ndimage.correlate1d(
                share, weights / weights.sum(), axis=place, mode="nearest", output=np.float32
            )
        share -= np.float32(0.5)
        share *= np.float32(_WIDTH * math.sqrt(2 * math.pi))
        share += np.float32(0.5)
        values += (high - low) * np.clip(share, 0, 1, out=share)
    return values


def ascending(rows: Float32, angles_deg: Float64) -> tuple[Float32, Float64]:
    """Projections in the order of their angles, so that sums, and with them random choices, do not depend on it."""
    order = np.argsort(angles_deg, kind="stable")
    return np.ascontiguousarray(rows[:, order]), angles_deg[order]
