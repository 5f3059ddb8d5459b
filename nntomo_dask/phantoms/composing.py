"""Bodies of specimens at random, and the specimen in the making."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from nntomo_dask.phantoms.shapes import random_rotation
from nntomo_dask.phantoms.solids import Blend, Density, Solid, Stroke, ellipsoid, polyhedron
from nntomo_dask.types import Float64

DISC = 0.95  # no matter lies farther from the tilt axis
TALLEST = 1.6  # half the height of a body that does not go through the whole field

Greys = Literal["one", "several", "smooth"]
Rng = np.random.Generator


@dataclass
class Sketch:
    """A specimen in the making.

    Attributes
    ----------
    rng
        Source of everything random.
    half
        Half the height of what is drawn.
    smallest, largest
        Radii of bodies.
    palette
        Densities of matter, in no order.
    greys
        One density, several, or smooth ones among them.
    """

    rng: Rng
    half: float
    smallest: float
    largest: float
    palette: list[float]
    greys: Greys
    strokes: list[Stroke] = field(default_factory=list)
    used: int = 0

    def add(
        self, solid: Solid, density: float | Density, blend: Blend = "over", *, above: Density | None = None
    ) -> None:
        """Another stroke."""
        self.strokes.append(Stroke(solid, density, blend, above))

    def next_density(self) -> float:
        """The densities of the palette in turn."""
        self.used += 1
        return self.palette[(self.used - 1) % len(self.palette)]

    def size(self, low: float, high: float) -> float:
        """A radius between bounds, within those of the sketch; as many from 0.1 to 0.2 as from 0.2 to 0.4."""
        low, high = (min(max(bound, self.smallest), self.largest) for bound in (low, high))
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def count(self, low: int, high: int) -> int:
        """A number between bounds, both included; as many from 5 to 10 as from 10 to 20."""
        return int(np.exp(self.rng.uniform(np.log(low), np.log(high + 1))))

    def place(self, solid: Solid, *, shown: float = 0.8) -> Solid:
        """The body somewhere in the disc, at a height where the slices cut it."""
        distance = np.sqrt(self.rng.random()) * max(DISC - solid.radius, 0)
        azimuth = self.rng.uniform(0, 2 * np.pi)
        tall = float(solid.high[0] - solid.low[0]) / 2
        height = self.rng.uniform(-1, 1) * (0.8 * tall + (shown - 0.8) * self.half)
        return solid.moved(np.array([height, distance * np.sin(azimuth), distance * np.cos(azimuth)]))

    def chance(self, share: float) -> bool:
        """True in this share of the cases."""
        return bool(self.rng.random() < share)


def ways(rng: Rng, count: int) -> Float64:
    """(way, 3): unit vectors, uniform over the sphere."""
    found = rng.standard_normal((count, 3))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def points_in(rng: Rng, solid: Solid, count: int, *, least: float = 0.0, most: float = 1.0) -> Float64:
    """(point, 3): points in a body, between shares of the way from its centre to its surface."""
    towards = ways(rng, count)
    shares = rng.uniform(least**3, most**3, count) ** (1 / 3)
    return np.asarray(solid.centre + towards * (np.minimum(solid.depth(towards), 2) * shares)[:, None])


# Bodies


def body(sketch: Sketch, radius: float, *, kinds: tuple[str, ...] = ()) -> Solid:
    """A convex body about the origin that extends as far as `radius` within a slice."""
    rng = sketch.rng
    names = kinds or _OFTEN
    solid = BODIES[names[rng.integers(len(names))]](rng, frame(rng))
    tall = float(solid.high[0] - solid.low[0]) / 2
    return solid.scaled(min(radius / solid.radius, TALLEST / tall))


def frame(rng: Rng) -> Float64:
    """A matrix that stretches the unit ball a little, or to a plate or a rod, and turns it."""
    radii = np.exp(rng.normal(0, 0.2, 3))
    form = rng.random()
    if form < 0.1:
        radii[0] *= rng.uniform(0.15, 0.5)
    elif form < 0.18:
        radii[1:] *= rng.uniform(0.2, 0.55)
    return np.asarray(random_rotation(rng) * (radii / radii.max()))


_CUBE = np.concatenate([np.eye(3), -np.eye(3)])
_OCTANTS = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]) / np.sqrt(3)
_EDGES = np.array(
    [[a, b, 0] for a in (-1, 1) for b in (-1, 1)]
    + [[a, 0, b] for a in (-1, 1) for b in (-1, 1)]
    + [[0, a, b] for a in (-1, 1) for b in (-1, 1)]
) / np.sqrt(2)


def _crystal(rng: Rng, stretch: Float64) -> Solid:
    """Facets {100}, {111} and {110} at any distances: cubes, octahedra, dodecahedra, and what lies between."""
    normals = np.concatenate([_CUBE, _OCTANTS, _EDGES])
    sets = rng.uniform([1.0, 1.0, 1.0], [1.75, 1.75, 1.6])
    sets[rng.integers(3)] = 1.0
    spread = rng.choice([0.02, 0.1, 0.3])
    distances = np.repeat(sets, [6, 8, 12]) * rng.uniform(1 - spread, 1 + spread, 26)
    # A crystal keeps its angles: half of them are not stretched.
    return polyhedron(normals, distances, stretch if rng.random() < 0.5 else random_rotation(rng))


def _cuboid(rng: Rng, stretch: Float64) -> Solid:
    """A cuboid, sometimes with its corners cut."""
    normals, distances = _CUBE, np.ones(6)
    if rng.random() < 0.3:
        normals = np.concatenate([_CUBE, _OCTANTS])
        distances = np.concatenate([distances, rng.uniform(1.2, 1.7) * rng.uniform(0.9, 1.1, 8)])
    return polyhedron(normals, distances, stretch)


def _irregular(rng: Rng, stretch: Float64) -> Solid:
    """A polyhedron with facets in any directions, at distances that hardly or greatly differ."""
    normals = np.concatenate([ways(rng, int(rng.integers(4, 22))), _CUBE @ random_rotation(rng)])
    least = rng.uniform(0.25, 0.95)
    return polyhedron(normals, np.concatenate([rng.uniform(least, 1, len(normals) - 6), np.full(6, 1.15)]), stretch)


def _prism(rng: Rng, stretch: Float64) -> Solid:
    """A prism or a pyramid with 3 to 8 sides."""
    sides = int(rng.integers(3, 9))
    turns = 2 * np.pi * (np.arange(sides) + rng.uniform(-0.15, 0.15, sides)) / sides
    slope = rng.choice([0.0, rng.uniform(0, 0.9)])
    walls = np.column_stack([np.full(sides, slope), np.sin(turns), np.cos(turns)])
    ends = rng.uniform(0.4, 1.4)
    normals = np.concatenate([walls, [[1, 0, 0], [-1, 0, 0]]])
    return polyhedron(normals, np.concatenate([np.ones(sides), [ends, ends]]), stretch)


def _round(rng: Rng, stretch: Float64) -> Solid:
    """An ellipsoid."""
    return ellipsoid(stretch)


def _sphere(rng: Rng, stretch: Float64) -> Solid:
    """A ball."""
    return ellipsoid(np.eye(3))


def _cut(rng: Rng, stretch: Float64) -> Solid:
    """An ellipsoid with one to six facets."""
    solid = ellipsoid(stretch)
    normals = ways(rng, int(rng.integers(1, 7)))
    return solid.cut(np.column_stack([normals, solid.depth(normals) * rng.uniform(0.2, 0.9, len(normals))]))


def _rounded(rng: Rng, stretch: Float64) -> Solid:
    """A cuboid or a crystal whose corners are round."""
    solid = (_cuboid if rng.random() < 0.5 else _crystal)(rng, stretch)
    matrix = np.asarray(np.linalg.inv(stretch)) / rng.uniform(0.65, 0.9)
    half = np.linalg.norm(np.linalg.inv(matrix), axis=1)
    return Solid(
        solid.centre,
        np.maximum(solid.low, -half),
        np.minimum(solid.high, half),
        solid.radius,
        solid.planes,
        matrix[None],
    )


BODIES: dict[str, Callable[[Rng, Float64], Solid]] = {
    "crystal": _crystal,
    "cuboid": _cuboid,
    "irregular": _irregular,
    "prism": _prism,
    "round": _round,
    "sphere": _sphere,
    "cut": _cut,
    "rounded": _rounded,
}
_OFTEN = (*BODIES, "crystal", "crystal", "round", "rounded")
ROUND = ("round", "sphere", "cut")
