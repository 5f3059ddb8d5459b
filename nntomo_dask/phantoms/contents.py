"""What is in a body: cores, cavities, pores, layers, grains, densities that vary; and bodies that are not convex."""

from dataclasses import replace

import numpy as np

from nntomo_dask.phantoms.composing import ROUND, TALLEST, Sketch, body, frame, points_in, ways
from nntomo_dask.phantoms.shapes import random_rotation
from nntomo_dask.phantoms.solids import Grains, Shells, Slope, Solid, Waves, ellipsoid, rod, slab
from nntomo_dask.types import Float64

_KNOTS = 0.05  # least step between the knots of a smooth density


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
    top, surface = max(sketch.palette), sketch.rng.uniform(0.1, 0.5)
    waves = _clouds(sketch, solid)
    if sketch.chance(0.35):
        knots, surface = (surface + (1 - surface) * waves.knots) * top, 0.0
    else:
        knots = waves.knots * top
    density = Waves(knots.astype(np.float32), waves.first, waves.step, surface * top)
    sketch.add(_all_of(solid), density, "matter")


def cloudy(sketch: Sketch, radius: float) -> Solid:
    """A rounded body of Gaussian clouds is drawn, which ends where they are thin; returns a body around it."""
    rng, top = sketch.rng, max(sketch.palette)
    solid = ellipsoid(frame(rng))
    solid = sketch.place(solid.scaled(min(radius / solid.radius, TALLEST)))
    waves = _clouds(sketch, solid.scaled(0.85))
    density = Waves((waves.knots * top).astype(np.float32), waves.first, waves.step, rng.uniform(0.1, 0.45) * top)
    sketch.add(solid, density)
    return solid


def _clouds(sketch: Sketch, solid: Solid) -> Waves:
    """Gaussian clouds about points in a body; the densest place is 1."""
    rng = sketch.rng
    count = int(rng.integers(2, 19))
    centres = points_in(rng, solid, count, most=0.85)
    widths = rng.uniform(0.12, 0.45, (count, 3)) * solid.radius * min(1.0, 2.2 / count ** (1 / 3))
    waves = _knots(sketch, max(0.6 * float(widths.min()), _KNOTS))
    points, total = _places(waves), np.zeros(waves.knots.shape)
    for centre, width, weight in zip(centres, np.maximum(widths, _KNOTS), rng.uniform(0.3, 1, count), strict=True):
        total += weight * np.exp(-0.5 * (((points - centre) @ (random_rotation(rng) / width)) ** 2).sum(axis=-1))
    return replace(waves, knots=(total / max(float(total.max()), 0.3)).astype(np.float32))


def texture(sketch: Sketch, solid: Solid) -> None:
    """What is there varies weakly, over some length."""
    rng = sketch.rng
    waves = _noise(sketch, rng.uniform(0.08, 0.4))
    depth = rng.uniform(0.1, 0.5)
    knots = 1 - depth / 2 + depth / 2 * np.clip(waves.knots, -1, 1)
    sketch.add(_all_of(solid), Waves(knots.astype(np.float32), waves.first, waves.step), "times")


def sponge(sketch: Sketch, solid: Solid) -> None:
    """Winding pores: what lies on one side of a random surface is taken away, or of another density."""
    waves = _noise(sketch, max(sketch.rng.uniform(0.12, 0.35) * solid.radius, _KNOTS))
    shift = np.float32(sketch.rng.uniform(-0.35, 0.15))
    other = sketch.greys != "one" and sketch.chance(0.4)
    density = sketch.next_density() if other else 0.0
    above = Waves(waves.knots + shift, waves.first, waves.step)
    sketch.add(_all_of(solid), density, "matter", above=above)


def rough(sketch: Sketch, radius: float, density: float) -> Solid:
    """A body with dents and bulges is drawn, whose surface is a random one; returns a body around it."""
    rng = sketch.rng
    solid = ellipsoid(frame(rng))
    solid = sketch.place(solid.scaled(min(radius / solid.radius, TALLEST)))
    waves = _noise(sketch, max(rng.uniform(0.3, 0.8) * radius, _KNOTS))
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
