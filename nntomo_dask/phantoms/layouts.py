"""How bodies lie in a scene of matter: alone, side by side, in crowds, on a support, along the tilt axis."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from nntomo_dask.phantoms import contents
from nntomo_dask.phantoms.composing import BODIES, DISC, Greys, Rng, Sketch, body, points_in, ways
from nntomo_dask.phantoms.shapes import axis_of
from nntomo_dask.phantoms.solids import Blend, Solid, ball, draw, ellipsoid, rod, slab
from nntomo_dask.types import Float64

_TRIES = 12
_MORE_TRIES = 60  # where scenes have to fill some share of the field
_VIEW, _VIEW_SLICES = 48, 17  # what a scene is judged by before it is drawn
_CLOUDY = 0.3  # share of smooth scenes that are clouds alone
_SCARCE = 0.006  # share of what is drawn that has to be matter


class Prior(Protocol):
    """What scenes are drawn from; see the settings of `materials.Materials`."""

    @property
    def smallest(self) -> float:
        """Radius of the smallest bodies."""

    @property
    def largest(self) -> float:
        """Radius of the largest bodies."""

    @property
    def densities(self) -> int:
        """The most densities of a scene."""

    @property
    def lightest(self) -> float:
        """The least density, as a share of the greatest."""

    @property
    def one_density(self) -> float:
        """Share of scenes of one density."""

    @property
    def smooth(self) -> float:
        """Share of scenes whose densities vary smoothly."""

    @property
    def least_filled(self) -> float:
        """The least share of the field that is matter."""

    @property
    def most_filled(self) -> float:
        """The greatest share of it."""


def sketched(rng: Rng, half: float, prior: Prior) -> Sketch:
    """A specimen at random, of which `half` above and below the middle is drawn."""
    share = rng.random() - prior.one_density
    greys: Greys = "one" if share < 0 or (share >= prior.smooth and prior.densities == 1) else "several"
    if 0 <= share < prior.smooth:
        greys = "smooth"
    shares = np.array(list(_LAYOUTS.values()))
    axis = axis_of(_VIEW)
    field = _VIEW_SLICES * int((axis[:, None] ** 2 + axis**2 <= DISC**2).sum())
    any_filling = prior.least_filled <= 0 and prior.most_filled >= 1
    for _ in range(_TRIES if any_filling else _MORE_TRIES):
        top, palette = _palette(rng, greys, prior)
        sketch = Sketch(rng, half, prior.smallest, prior.largest, palette, greys)
        if greys == "smooth" and sketch.chance(_CLOUDY):
            _cloudy(sketch)
        else:
            list(_LAYOUTS)[int(rng.choice(shares.size, p=shares / shares.sum()))](sketch)
        view = draw(sketch.strokes, np.linspace(-half, half, _VIEW_SLICES), axis, DISC)
        matter, densest = view[view > 0], float(view.max())
        scarce = matter.size < min(_SCARCE, 0.3 * prior.largest**2) * view.size
        fits = any_filling or prior.least_filled <= matter.size / field <= prior.most_filled
        if fits and not scarce and not (greys == "several" and (matter > densest - 0.02).mean() > 0.97):
            break
    if scarce:
        sketch.add(ball(np.zeros(3), prior.largest), top, "empty")
        densest = max(densest, top)
    if greys != "one":
        sketch.add(slab(np.array([1.0, 0, 0]), -half - 1, half + 1), top / densest, "times")
    return sketch


def _palette(rng: Rng, greys: Greys, prior: Prior) -> tuple[float, list[float]]:
    """The greatest density, near 1, and all of them in any order."""
    count = 1 if greys == "one" else int(rng.integers(2, prior.densities + 1)) if prior.densities > 1 else 1
    if greys == "smooth":
        count = min(count, 3)
    top = rng.uniform(0.8, 1)
    found = [top]
    if rng.random() < 0.2:  # phases that hardly differ
        found += [top * value for value in rng.uniform(0.7, 0.95, count - 1)]
    for _ in range(count - len(found)):
        tries = top * rng.uniform(prior.lightest, 0.93, 20)
        # The first that differs from the others by a tenth of the greatest; else one that is as it is.
        apart = np.abs(tries[:, None] - np.array(found)).min(axis=1) > 0.1 * top
        found.append(float(tries[int(apart.argmax())]))
    return top, [float(value) for value in rng.permutation(found)]


def _filled(sketch: Sketch, solid: Solid) -> None:
    """A body of one density, and then what is in it."""
    sketch.add(solid, sketch.next_density())
    _inside(sketch, solid)


def _inside(sketch: Sketch, solid: Solid) -> None:
    rng = sketch.rng
    if sketch.greys == "one":
        inner = [None, contents.pores, contents.channels, contents.hollow, contents.sponge]
        chosen = inner[int(rng.choice(5, p=(0.42, 0.24, 0.1, 0.14, 0.1)))]
        if chosen is not None:
            chosen(sketch, solid)
        return
    if sketch.greys == "several":
        kinds = (
            contents.core,
            contents.layers,
            contents.grains,
            contents.pores,
            contents.sponge,
            contents.hollow,
        )
        for kind in rng.choice(
            len(kinds), size=1 + sketch.chance(0.35), replace=False, p=(0.3, 0.22, 0.2, 0.14, 0.07, 0.07)
        ):
            kinds[int(kind)](sketch, solid)
        return
    if sketch.chance(0.3):
        contents.core(sketch, solid)
        contents.texture(sketch, solid)
    else:
        smooth = (contents.slope, contents.shells, contents.clouds, contents.texture)
        smooth[int(rng.choice(4, p=(0.2, 0.2, 0.4, 0.2)))](sketch, solid)
    if sketch.chance(0.25):
        contents.pores(sketch, solid)


def _single(sketch: Sketch) -> None:
    """One body."""
    radius = sketch.largest * sketch.rng.uniform(0.55, 1) if sketch.chance(0.88) else sketch.size(0, 0.3)
    _filled(sketch, sketch.place(body(sketch, radius)))


def _rough(sketch: Sketch) -> None:
    """One body with a random surface."""
    radius = sketch.largest * sketch.rng.uniform(0.6, 1)
    solid = contents.rough(sketch, radius, sketch.next_density())
    _inside(sketch, solid)


def _cloudy(sketch: Sketch) -> None:
    """One body, or a few, without facets, whose density rises from their surface."""
    count = 1 if sketch.chance(0.75) else sketch.count(2, 4)
    for _ in range(count):
        solid = contents.cloudy(sketch, sketch.largest * sketch.rng.uniform(0.75, 1.05) / np.sqrt(count))
    if sketch.chance(0.3):
        contents.pores(sketch, solid)


def _joined(sketch: Sketch) -> None:
    """Bodies that touch or overlap: twins, agglomerates, what is concave."""
    rng = sketch.rng
    count, radius = sketch.count(2, 9), sketch.largest * rng.uniform(0.5, 1)
    alike = (list(BODIES)[int(rng.integers(len(BODIES)))],) if sketch.chance(0.5) else ()
    whole = sketch.place(ball(np.zeros(3), radius))
    one = sketch.next_density()
    same = sketch.greys != "several" or sketch.chance(0.3)
    at = whole.centre
    solids = []
    for index in range(count):
        part = body(sketch, sketch.size(0.35 * radius, 0.9 * radius / (1 + 0.05 * count)), kinds=alike)
        part = part.moved(at)
        solids.append(part)
        sketch.add(
            part, one if same or index == 0 else sketch.next_density(), "over" if sketch.chance(0.5) else "empty"
        )
        # The next one begins near the surface of one that is there, towards the middle if it would leave.
        last = solids[int(rng.integers(len(solids)))]
        at = points_in(rng, last, 1, least=0.75, most=1.25)[0]
        if np.linalg.norm(at - whole.centre) > radius * 0.7:
            at = whole.centre + (at - whole.centre) * 0.5
    if sketch.greys != "one" or sketch.chance(0.25):
        _inside(sketch, solids[0] if sketch.greys == "one" else whole)


def _apart(sketch: Sketch) -> None:
    """Bodies side by side, each with something in it."""
    count = sketch.count(2, 8)
    for _ in range(count):
        solid = sketch.place(body(sketch, sketch.size(0.2, 1.05 / np.sqrt(count))), shown=1.3)
        _filled(sketch, solid)


def _crowd(sketch: Sketch) -> None:
    """Many small bodies anywhere in the field, or about its middle."""
    rng = sketch.rng
    radius = sketch.size(0.04, 0.16)
    field = (
        ball(np.zeros(3), 1.0)
        if sketch.chance(0.5)
        else sketch.place(body(sketch, sketch.largest * rng.uniform(0.4, 1)))
    )
    count = min(sketch.count(10, 160), int(0.3 * (0.9 / radius) ** 2) + 6)
    one, alike = sketch.next_density(), sketch.greys != "several"
    rows = int(count * min(2.0, 1.0 + sketch.half)) if sketch.half < 0.5 else count
    kinds = ("sphere",) if sketch.chance(0.3) else ()
    for _ in range(rows):
        part = body(sketch, radius * rng.uniform(0.6, 1.3), kinds=kinds)
        at = points_in(rng, field, 1)[0]
        at[0] = rng.uniform(-1, 1) * (sketch.half + radius)
        at = _within_disc(at, part.radius)
        sketch.add(part.moved(at), one if alike else sketch.next_density())
    if sketch.greys == "smooth":
        _vary(sketch)


def _vary(sketch: Sketch) -> None:
    """What is everywhere varies smoothly."""
    everything = ball(np.zeros(3), 1.0 + sketch.half)
    (contents.texture if sketch.chance(0.5) else contents.slope)(sketch, everything)


def _within_disc(at: Float64, radius: float) -> Float64:
    """The place, moved towards the axis where a body there would leave the disc."""
    away = float(np.hypot(at[1], at[2]))
    most = max(DISC - radius, 0)
    return at if away <= most else at * np.array([1, most / away, most / away])


def _supported(sketch: Sketch) -> None:
    """A support, of low density or of that of all, with particles on it or in it."""
    rng, tall = sketch.rng, sketch.half + 0.3
    sketch.palette.sort()
    density = sketch.next_density()
    form = rng.random()
    across, normal = np.zeros(3), np.zeros(3)
    if form < 0.55:
        support, normal, across = _film(sketch, sketch.size(0.02, 0.16), tall)
    elif form < 0.75:
        support = pole(sketch, sketch.size(0.12, 0.5), tall)
    else:
        support = sketch.place(body(sketch, sketch.size(0.3, 0.8)))
    sketch.add(support, density)
    if sketch.greys != "one" and sketch.chance(0.3):
        _inside(sketch, support)
    radius = sketch.size(0.03, 0.15)
    count = min(sketch.count(6, 140), int(1.2 / radius**2 * max(sketch.half, 0.2)) + 4)
    within, one_side = sketch.chance(0.25), sketch.chance(0.4)
    kinds = ("sphere",) if sketch.chance(0.35) else ()
    for _ in range(count):
        height = np.array([rng.uniform(-1, 1) * (sketch.half + radius), 0, 0])
        if normal.any():
            side = rng.uniform(-1, 1) if within else 1 if one_side or sketch.chance(0.5) else -1
            at = support.centre + across * rng.uniform(-1, 1) + height
            at += normal * (side * float(support.depth(normal[None])[0]) + normal @ (support.centre - at))
        elif form < 0.75:
            turn = rng.uniform(0, 2 * np.pi)
            way = np.array([[0, np.sin(turn), np.cos(turn)]])
            share = np.sqrt(rng.random()) if within else 1.0
            at = support.centre * np.array([0, 1, 1]) + way[0] * share * support.depth(way)[0] + height
        else:
            at = points_in(rng, support, 1, least=0.0 if within else 0.999)[0]
        part = body(sketch, radius * rng.uniform(0.55, 1.4), kinds=kinds)
        at = _within_disc(at, part.radius)
        heavy = sketch.greys != "several" or sketch.chance(0.6)
        blend: Blend = "over" if sketch.chance(0.7) else "empty"
        sketch.add(part.moved(at), sketch.palette[-1] if heavy else sketch.next_density(), blend)
    if sketch.greys == "smooth":
        _vary(sketch)


def _film(sketch: Sketch, thickness: float, tall: float) -> tuple[Solid, Float64, Float64]:
    """A film, about along the tilt axis; its normal, and the way from its middle to its edge across the tilt axis."""
    rng = sketch.rng
    turn = rng.normal(0, 0.35) if sketch.chance(0.6) else rng.uniform(-np.pi / 2, np.pi / 2)
    normal = np.array([rng.normal(0, 0.08), np.cos(turn), np.sin(turn)])
    normal /= np.linalg.norm(normal)
    way = np.array([0.0, -normal[2], normal[1]])
    way /= np.linalg.norm(way)
    offset = rng.uniform(-0.55, 0.55) if sketch.chance(0.5) else rng.uniform(-0.15, 0.15)
    length = float(np.sqrt(max(DISC**2 - (abs(offset) + thickness) ** 2, 0.05)) * rng.uniform(0.55, 0.98))
    centre = offset * normal
    planes = [[*normal, offset + thickness / 2], [*-normal, -offset + thickness / 2]]
    planes += [[*way, length + way @ centre], [*-way, length - way @ centre], [1, 0, 0, tall], [-1, 0, 0, tall]]
    half = np.array([tall, *(np.abs(way) * length + np.abs(normal) * (thickness + tall))[1:]])
    return Solid(centre, centre - half, centre + half, length, np.array(planes)), normal, way * length


def _lamella(sketch: Sketch) -> None:
    """A thick film, or several on each other, that goes through the whole height."""
    film, *_ = _film(sketch, sketch.size(0.15, 0.9), sketch.half + 0.3)
    sketch.add(film, sketch.next_density())
    _inside(sketch, film)


def _needle(sketch: Sketch) -> None:
    """A needle or rods along the tilt axis, through the whole height or up to a tip."""
    tall = sketch.half + 0.3
    count = 1 if sketch.chance(0.7) else sketch.count(2, 12)
    for _ in range(count):
        radius = sketch.size(0.25, 0.8) if count == 1 else sketch.size(0.05, 0.6 / np.sqrt(count))
        solid = pole(sketch, radius, tall)
        sketch.add(solid, sketch.next_density())
        if count == 1 or sketch.chance(0.3):
            _inside(sketch, solid)
    if count > 1 and sketch.greys == "smooth":
        _vary(sketch)


def pole(sketch: Sketch, radius: float, tall: float) -> Solid:
    """A rod with flat sides or round, that may lean, taper and end in a tip."""
    rng = sketch.rng
    lean = rng.uniform(-0.12, 0.12, 2) if sketch.chance(0.7) else np.zeros(2)
    room = max(DISC - radius - 0.17 * tall, 0)
    azimuth, away = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random()) * room
    at = np.array([0.0, away * np.sin(azimuth), away * np.cos(azimuth)])
    way = np.array([tall, *(lean * tall)])
    if sketch.chance(0.4):
        solid = rod(at - way, at + way, radius)
    elif sketch.chance(0.35):  # the tip of a long ellipsoid
        length = rng.uniform(1.5, 4) * radius + tall
        matrix = np.diag([length, radius, radius * rng.uniform(0.6, 1)])
        matrix[1:, 0] = lean * length
        foot = at + np.array([rng.uniform(-0.6, 0.6) * sketch.half - length, 0, 0])
        return ellipsoid(matrix).moved(foot if sketch.chance(0.6) else at)
    else:
        sides = int(rng.integers(3, 9))
        turns = 2 * np.pi * (np.arange(sides) + rng.uniform(-0.2, 0.2, sides)) / sides + rng.uniform(0, 2 * np.pi)
        taper = rng.uniform(0, 0.35) if sketch.chance(0.5) else 0.0
        walls = np.column_stack([np.full(sides, taper), np.sin(turns), np.cos(turns)])
        walls[:, 0] -= walls[:, 1:] @ lean
        distances = radius * rng.uniform(0.6, 0.95, sides)
        ends = np.array([[1, 0, 0, tall], [-1, 0, 0, tall]])
        half = np.array([tall, radius * 1.8, radius * 1.8]) + np.array([0, *np.abs(lean)]) * tall
        planes = np.concatenate([np.column_stack([walls, distances + walls @ at]), ends])
        quadric = rod(at - way, at + way, radius * 1.15).quadrics
        return Solid(at, at - half, at + half, radius * 1.15, planes, quadric)
    if sketch.chance(0.3):
        top = rng.uniform(-0.9, 0.9) * sketch.half
        solid = solid.cut(np.array([[1, *rng.uniform(-0.6, 0.6, 2), top]]))
    return solid


def _fibres(sketch: Sketch) -> None:
    """A network of thin rods in all directions."""
    rng, radius = sketch.rng, sketch.size(0.025, 0.09)
    one = sketch.next_density()
    for _ in range(sketch.count(3, 24)):
        at = np.array([rng.uniform(-1, 1) * sketch.half, *rng.uniform(-0.6, 0.6, 2)])
        way = ways(rng, 1)[0] * rng.uniform(0.3, 0.9)
        ends = [_within_disc(at + sign * way, radius) for sign in (-1, 1)]
        density = one if sketch.greys != "several" else sketch.next_density()
        sketch.add(rod(ends[0], ends[1], radius * rng.uniform(0.7, 1.3)), density)
    if sketch.greys == "smooth":
        _vary(sketch)


_LAYOUTS: dict[Callable[[Sketch], None], float] = {
    _single: 0.3,
    _rough: 0.12,
    _joined: 0.16,
    _apart: 0.1,
    _crowd: 0.06,
    _supported: 0.12,
    _lamella: 0.05,
    _needle: 0.09,
    _fibres: 0.02,
}
