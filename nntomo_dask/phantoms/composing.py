"""Specimens as strokes: bodies, what is in them, and how they lie; drawn at random for the phantom of materials."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from nntomo_dask.phantoms.shapes import random_rotation
from nntomo_dask.phantoms.solids import (
    Blend,
    Density,
    Grains,
    Shells,
    Slope,
    Solid,
    Stroke,
    Waves,
    ellipsoid,
    polyhedron,
    rod,
    slab,
)
from nntomo_dask.types import Float64

DISC = 0.95  # no matter lies farther from the tilt axis
_TALLEST = 1.6  # half the height of a body that does not go through the whole field
_BLOBS = 0.12  # least step between the knots of a smooth density, beside the size of what is in it

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
    solid = BODIES[names[rng.integers(len(names))]](rng, _frame(rng))
    tall = float(solid.high[0] - solid.low[0]) / 2
    return solid.scaled(min(radius / solid.radius, _TALLEST / tall))


def _frame(rng: Rng) -> Float64:
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


def _crystal(rng: Rng, frame: Float64) -> Solid:
    """Facets {100}, {111} and {110} at any distances: cubes, octahedra, dodecahedra, and what lies between."""
    normals = np.concatenate([_CUBE, _OCTANTS, _EDGES])
    sets = rng.uniform([1.0, 1.0, 1.0], [1.75, 1.75, 1.6])
    sets[rng.integers(3)] = 1.0
    spread = rng.choice([0.02, 0.1, 0.3])
    distances = np.repeat(sets, [6, 8, 12]) * rng.uniform(1 - spread, 1 + spread, 26)
    # A crystal keeps its angles: half of them are not stretched.
    return polyhedron(normals, distances, frame if rng.random() < 0.5 else random_rotation(rng))


def _cuboid(rng: Rng, frame: Float64) -> Solid:
    """A cuboid, sometimes with its corners cut."""
    normals, distances = _CUBE, np.ones(6)
    if rng.random() < 0.3:
        normals = np.concatenate([_CUBE, _OCTANTS])
        distances = np.concatenate([distances, rng.uniform(1.2, 1.7) * rng.uniform(0.9, 1.1, 8)])
    return polyhedron(normals, distances, frame)


def _irregular(rng: Rng, frame: Float64) -> Solid:
    """A polyhedron with facets in any directions, at distances that hardly or greatly differ."""
    normals = np.concatenate([ways(rng, int(rng.integers(4, 22))), _CUBE @ random_rotation(rng)])
    least = rng.uniform(0.25, 0.95)
    return polyhedron(normals, np.concatenate([rng.uniform(least, 1, len(normals) - 6), np.full(6, 1.15)]), frame)


def _prism(rng: Rng, frame: Float64) -> Solid:
    """A prism or a pyramid with 3 to 8 sides."""
    sides = int(rng.integers(3, 9))
    turns = 2 * np.pi * (np.arange(sides) + rng.uniform(-0.15, 0.15, sides)) / sides
    slope = rng.choice([0.0, rng.uniform(0, 0.9)])
    walls = np.column_stack([np.full(sides, slope), np.sin(turns), np.cos(turns)])
    ends = rng.uniform(0.4, 1.4)
    normals = np.concatenate([walls, [[1, 0, 0], [-1, 0, 0]]])
    return polyhedron(normals, np.concatenate([np.ones(sides), [ends, ends]]), frame)


def _round(rng: Rng, frame: Float64) -> Solid:
    """An ellipsoid."""
    return ellipsoid(frame)


def _sphere(rng: Rng, frame: Float64) -> Solid:
    """A ball."""
    return ellipsoid(np.eye(3))


def _cut(rng: Rng, frame: Float64) -> Solid:
    """An ellipsoid with one to six facets."""
    solid = ellipsoid(frame)
    normals = ways(rng, int(rng.integers(1, 7)))
    return solid.cut(np.column_stack([normals, solid.depth(normals) * rng.uniform(0.2, 0.9, len(normals))]))


def _rounded(rng: Rng, frame: Float64) -> Solid:
    """A cuboid or a crystal whose corners are round."""
    solid = (_cuboid if rng.random() < 0.5 else _crystal)(rng, frame)
    matrix = np.asarray(np.linalg.inv(frame)) / rng.uniform(0.65, 0.9)
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


# What is in a body


def core(sketch: Sketch, solid: Solid) -> None:
    """One to three cores, each in the one before, with the same facets or round."""
    size, inner = 1.0, solid
    for _ in range(min(int(sketch.rng.integers(1, 4)), max(len(sketch.palette) - 1, 1))):
        size *= sketch.rng.uniform(0.4, 0.85)
        inner = solid.scaled(size) if sketch.chance(0.6) else _inscribed(sketch, solid, size)
        if sketch.chance(0.3):
            inner = inner.moved(points_in(sketch.rng, solid, 1, most=0.6 * (1 - size))[0] - solid.centre)
        sketch.add(inner, sketch.next_density(), "matter")


def _inscribed(sketch: Sketch, solid: Solid, size: float) -> Solid:
    """Another body in the middle of one."""
    room = float(solid.depth(ways(sketch.rng, 40)).min())
    other = body(sketch, room * size)
    return other.scaled(min(1.0, room * size / float(other.depth(ways(sketch.rng, 20)).max()))).moved(solid.centre)


def hollow(sketch: Sketch, solid: Solid) -> None:
    """A cavity that leaves a shell, sometimes with another body in it."""
    thickness = max(sketch.rng.uniform(0.08, 0.4), 1.2 * sketch.smallest / max(solid.radius, 1e-6))
    cavity = solid.scaled(max(1 - thickness, 0.3))
    sketch.add(cavity, 0.0)
    if sketch.chance(0.3):
        yolk = body(sketch, cavity.radius * sketch.rng.uniform(0.3, 0.7))
        sketch.add(yolk.moved(points_in(sketch.rng, cavity, 1, most=0.3)[0]), sketch.next_density())


def pores(sketch: Sketch, solid: Solid) -> None:
    """Pores, one to many, round or with facets; in matter of several densities some of them are filled."""
    rng, radius = sketch.rng, solid.radius
    most = rng.uniform(0.06, 0.4) * radius
    kinds = ("sphere",) if sketch.chance(0.5) else ROUND if sketch.chance(0.5) else ()
    count = sketch.count(1, 60) if most < 0.2 * radius else sketch.count(1, 12)
    filled = sketch.greys != "one" and sketch.chance(0.4)
    density = sketch.next_density() if filled else 0.0
    for point in points_in(rng, solid, count, most=0.95):
        sketch.add(body(sketch, sketch.size(most / 3, most), kinds=kinds).moved(point), density, "matter")


def channels(sketch: Sketch, solid: Solid) -> None:
    """Straight channels through a body, side by side or in any directions."""
    rng, length = sketch.rng, 2.5 * max(solid.radius, float(solid.high[0] - solid.low[0]) / 2)
    parallel = ways(rng, 1)[0] if sketch.chance(0.5) else None
    radius = sketch.size(0.05 * solid.radius, 0.3 * solid.radius)
    for point in points_in(rng, solid, sketch.count(1, 15), most=0.85):
        way = ways(rng, 1)[0] if parallel is None else parallel
        sketch.add(rod(point - way * length, point + way * length, radius * rng.uniform(0.7, 1.3)), 0.0, "matter")


def layers(sketch: Sketch, solid: Solid) -> None:
    """Parallel layers in any orientation; two halves where there are two."""
    rng = sketch.rng
    normal = ways(rng, 1)[0]
    ends = normal @ solid.centre + np.array([-1, 1]) * float(solid.depth(np.stack([normal, -normal])).max())
    thickest = rng.uniform(0.08, 1) * (ends[1] - ends[0])
    edge = ends[0] + rng.uniform(0, thickest)
    while edge < ends[1]:
        top = edge + max(rng.uniform(0.3, 1) * thickest, 1.5 * sketch.smallest)
        sketch.add(slab(normal, edge, top), sketch.next_density(), "matter")
        edge = top


def grains(sketch: Sketch, solid: Solid) -> None:
    """Grains of a polycrystal, each of a density of the palette."""
    rng = sketch.rng
    seeds = points_in(rng, solid, sketch.count(4, 30))
    palette = np.array(sketch.palette)
    sketch.add(_all_of(solid), Grains(seeds, palette[rng.integers(len(palette), size=len(seeds))]), "matter")


def slope(sketch: Sketch, solid: Solid) -> None:
    """A density that rises along a direction."""
    normal = ways(sketch.rng, 1)[0]
    low, high = sorted(sketch.rng.uniform(0.25, 1, 2)) if sketch.chance(0.5) else (sketch.rng.uniform(0.2, 0.5), 1.0)
    reach = float(solid.depth(np.stack([normal, -normal])).min())
    rate = (high - low) / (2 * reach)
    top = max(sketch.palette)
    offset = (low + high) / 2 - rate * float(normal @ solid.centre)
    sketch.add(_all_of(solid), Slope(normal * rate * top, offset * top, low * top, high * top), "matter")


def shells(sketch: Sketch, solid: Solid) -> None:
    """A density that falls, or rises, from the middle of a body to its surface."""
    rng, top = sketch.rng, max(sketch.palette)
    inner, outer = top, top * rng.uniform(0.2, 0.7)
    if sketch.chance(0.3):
        inner, outer = outer, inner
    half = (solid.high - solid.low) / 2
    matrix = solid.quadrics[0] if len(solid.quadrics) else np.diag(1 / half)
    sketch.add(_all_of(solid), Shells(solid.centre, matrix, inner, outer, rng.uniform(0.8, 4)), "matter")


def clouds(sketch: Sketch, solid: Solid) -> None:
    """Some Gaussian clouds in a body; where they are thin, there is nothing, or matter of the least density."""
    rng, radius = sketch.rng, solid.radius
    count = int(rng.integers(2, 16))
    centres = points_in(rng, solid, count, most=0.75)
    widths = rng.uniform(0.12, 0.4, (count, 3)) * radius
    frames = [random_rotation(rng) / np.maximum(one, _BLOBS / 2)[None, :] for one in widths]
    weights = rng.uniform(0.3, 1, count)
    waves = _knots(sketch, max(_BLOBS, 0.1 * radius))
    points = _places(waves)
    total = sum(
        weight * np.exp(-0.5 * (((points - centre) @ frame) ** 2).sum(axis=-1))
        for weight, centre, frame in zip(weights, centres, frames, strict=True)
    )
    top, surface = max(sketch.palette), rng.uniform(0.12, 0.5)
    densest = max(float(np.max(total)), 0.3)
    if sketch.chance(0.65):
        density = Waves((total / densest * top).astype(np.float32), waves.first, waves.step, surface * top)
        sketch.add(_all_of(solid), density, "matter")
    else:
        base = (surface + (1 - surface) * total / densest) * top
        sketch.add(_all_of(solid), Waves(base.astype(np.float32), waves.first, waves.step), "matter")


def texture(sketch: Sketch, solid: Solid) -> None:
    """What is there varies weakly, over some length."""
    rng = sketch.rng
    waves = _noise(sketch, rng.uniform(0.08, 0.4))
    depth = rng.uniform(0.1, 0.5)
    knots = 1 - depth / 2 + depth / 2 * np.clip(waves.knots, -1, 1)
    sketch.add(_all_of(solid), Waves(knots.astype(np.float32), waves.first, waves.step), "times")


def sponge(sketch: Sketch, solid: Solid) -> None:
    """Winding pores: what lies on one side of a random surface is taken away, or of another density."""
    waves = _noise(sketch, max(sketch.rng.uniform(0.12, 0.35) * solid.radius, 0.06))
    shift = np.float32(sketch.rng.uniform(-0.35, 0.15))
    other = sketch.greys != "one" and sketch.chance(0.4)
    density = sketch.next_density() if other else 0.0
    above = Waves(waves.knots + shift, waves.first, waves.step)
    sketch.add(_all_of(solid), density, "matter", above=above)


def rough(sketch: Sketch, radius: float, density: float) -> Solid:
    """A body with dents and bulges is drawn, whose surface is a random one; returns a body around it."""
    rng = sketch.rng
    solid = ellipsoid(_frame(rng))
    solid = sketch.place(solid.scaled(min(radius / solid.radius, _TALLEST)))
    waves = _noise(sketch, max(rng.uniform(0.3, 0.8) * radius, 0.08))
    inward = 1 - np.linalg.norm((_places(waves) - solid.centre) @ solid.quadrics[0].T, axis=-1)
    knots = (inward - 0.2 + rng.uniform(0.15, 0.5) * waves.knots).astype(np.float32)
    sketch.add(solid, density, above=Waves(knots, waves.first, waves.step))
    return solid


def _all_of(solid: Solid) -> Solid:
    """What strokes within matter cover: a body and what little sticks out of it."""
    return replace(solid.scaled(1.02), low=solid.low - 0.01, high=solid.high + 0.01)


def _knots(sketch: Sketch, step: float) -> Waves:
    """Knots all over what is drawn, each zero."""
    far = np.array([sketch.half, 1.0, 1.0])
    counts = np.ceil(2 * far / step).astype(int) + 4
    return Waves(np.zeros(counts, np.float32), -(counts - 1) / 2 * step, step)


def _places(waves: Waves) -> Float64:
    """(z, y, x, 3): where the knots lie."""
    axes = [start + np.arange(count) * waves.step for start, count in zip(waves.first, waves.knots.shape, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def _noise(sketch: Sketch, step: float) -> Waves:
    """A smooth random quantity about 0, of deviation 0.5 or so, that varies over about twice `step`."""
    waves = _knots(sketch, step)
    knots = sketch.rng.standard_normal(waves.knots.shape).astype(np.float32)
    return Waves(knots, waves.first, waves.step)
