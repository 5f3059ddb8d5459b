"""Solids and densities that are drawn slice by slice, at the cost of what they cover.

A specimen is a list of strokes: each gives the voxels of a solid a density. Lengths are fractions of half a slice's
width, coordinates are (z, y, x) from the tilt axis and the middle of the slices that are drawn.

A row of voxels along x meets a convex solid in one interval, whose ends follow from its planes and quadrics; so a mask
needs two comparisons a voxel, however many facets there are.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull

from nntomo_dask.phantoms.shapes import reach
from nntomo_dask.types import Bools, Float32, Float64

_PARALLEL = 1e-9  # least component of a normal along x, so that no plane is parallel to the rows
_FAR = 100.0  # beyond all that is drawn

Blend = Literal["over", "matter", "empty", "times"]


@dataclass(frozen=True)
class Solid:
    """A convex body: the points on the inner side of all planes and within all quadrics.

    Attributes
    ----------
    centre
        (z, y, x).
    low, high
        (z, y, x), corners of a box around it.
    radius
        How far it extends from its centre within a slice, or a bound of that.
    planes
        (plane, 4): normals (z, y, x) and distances; inside is ``normal · p <= distance``.
    quadrics
        (quadric, 3, 3): matrices M; inside is ``|M (p - centre)| <= 1``. A matrix of rank 2 is a cylinder.
    """

    centre: Float64
    low: Float64
    high: Float64
    radius: float
    planes: Float64 = field(default_factory=lambda: np.zeros((0, 4)))
    quadrics: Float64 = field(default_factory=lambda: np.zeros((0, 3, 3)))

    def moved(self, by: Float64) -> "Solid":
        """The same body elsewhere."""
        planes = self.planes.copy()
        planes[:, 3] += planes[:, :3] @ by
        return replace(self, centre=self.centre + by, low=self.low + by, high=self.high + by, planes=planes)

    def scaled(self, factor: float) -> "Solid":
        """The same body, larger or smaller about its centre."""
        planes = self.planes.copy()
        middle = planes[:, :3] @ self.centre
        planes[:, 3] = middle + factor * (planes[:, 3] - middle)
        low, high = (self.centre + factor * (corner - self.centre) for corner in (self.low, self.high))
        quadrics = self.quadrics / factor
        return replace(self, low=low, high=high, radius=self.radius * factor, planes=planes, quadrics=quadrics)

    def cut(self, planes: Float64) -> "Solid":
        """What of the body is on the inner side of further planes."""
        return replace(self, planes=np.concatenate([self.planes, planes]))

    def contains(self, points: Float64) -> Bools:
        """Which of the points (point, 3) lie in the body."""
        found = ((points >= self.low) & (points <= self.high)).all(axis=1)
        found &= (points @ self.planes[:, :3].T <= self.planes[:, 3]).all(axis=1)
        for matrix in self.quadrics:
            found &= (((points - self.centre) @ matrix.T) ** 2).sum(axis=1) <= 1
        return np.asarray(found)

    def depth(self, ways: Float64) -> Float64:
        """How far its surface is from its centre, along unit vectors (way, 3)."""
        depths = np.full(len(ways), np.inf)
        if len(self.planes):
            steepness = ways @ self.planes[:, :3].T
            room = self.planes[:, 3] - self.planes[:, :3] @ self.centre
            towards = steepness > _PARALLEL
            depths = np.where(towards, room / np.where(towards, steepness, 1), np.inf).min(axis=1)
        for matrix in self.quadrics:
            depths = np.minimum(depths, 1 / np.maximum(np.linalg.norm(ways @ matrix.T, axis=1), _PARALLEL))
        return depths

    def spans(self, z: Float64, y: Float64) -> tuple[Float64, Float64]:
        """Where each row (z, y) along x enters and leaves the body; the second is below the first where it misses."""
        first = np.full((z.size, y.size), self.low[2])
        last = np.full((z.size, y.size), self.high[2])
        if len(self.planes):
            slopes = np.where(np.abs(self.planes[:, 2]) < _PARALLEL, _PARALLEL, self.planes[:, 2])
            rest = self.planes[:, 3] - np.multiply.outer(z, self.planes[:, 0])
            ends = (rest[:, None] - np.multiply.outer(y, self.planes[:, 1])) / slopes
            ahead = slopes > 0
            if ahead.any():
                np.minimum(last, ends[..., ahead].min(axis=-1), out=last)
            if not ahead.all():
                np.maximum(first, ends[..., ~ahead].max(axis=-1), out=first)
        for matrix in self.quadrics:
            form = matrix.T @ matrix
            v, w = (z - self.centre[0])[:, None], (y - self.centre[1])[None, :]
            square = max(form[2, 2], _PARALLEL)
            half = form[2, 0] * v + form[2, 1] * w
            rest = form[0, 0] * v**2 + 2 * form[0, 1] * v * w + form[1, 1] * w**2 - 1
            root = half**2 - square * rest
            width = np.where(root >= 0, np.sqrt(np.maximum(root, 0)), -np.inf) / square
            middle = self.centre[2] - half / square
            np.maximum(first, middle - width, out=first)
            np.minimum(last, middle + width, out=last)
        return first, last


class Density(Protocol):
    """A density that varies within a body."""

    def values(self, z: Float64, y: Float64, x: Float64) -> Float32:
        """(z, y, x) of the density on a grid."""


@dataclass(frozen=True)
class Slope:
    """A density that changes linearly along a direction, within bounds."""

    normal: Float64
    offset: float
    least: float
    most: float

    def values(self, z: Float64, y: Float64, x: Float64) -> Float32:
        """(z, y, x) of the density on a grid."""
        rising = _linear(self.normal, self.offset, z, y, x)
        return np.clip(rising, np.float32(self.least), np.float32(self.most), out=rising)


@dataclass(frozen=True)
class Shells:
    """A density that goes from one value in the middle of a body to another one at its surface, within an ellipsoid."""

    centre: Float64
    matrix: Float64
    inner: float
    outer: float
    power: float

    def values(self, z: Float64, y: Float64, x: Float64) -> Float32:
        """(z, y, x) of the density on a grid."""
        form = self.matrix.T @ self.matrix
        v, w, u = z - self.centre[0], y - self.centre[1], x - self.centre[2]
        rows = form[0, 0] * v[:, None] ** 2 + 2 * form[0, 1] * v[:, None] * w + form[1, 1] * w**2
        slopes = 2 * (form[0, 2] * v[:, None] + form[1, 2] * w)
        square = slopes.astype(np.float32)[..., None] * u.astype(np.float32)
        square += rows.astype(np.float32)[..., None]
        square += (form[2, 2] * u**2).astype(np.float32)
        share = np.clip(square, 0, 1) ** np.float32(self.power / 2)
        return np.asarray(np.float32(self.inner) + np.float32(self.outer - self.inner) * share)


@dataclass(frozen=True)
class Waves:
    """A smooth density: cubic B-splines on a grid of knots, so that no value exceeds those at the knots.

    Attributes
    ----------
    knots
        (z, y, x), float32.
    first
        (z, y, x), where the first knot lies.
    step
        Between knots, along every axis.
    surface
        Values below this one are no matter.
    """

    knots: Float32
    first: Float64
    step: float
    surface: float = 0.0

    def values(self, z: Float64, y: Float64, x: Float64) -> Float32:
        """(z, y, x) of the density on a grid."""
        along = [
            _splines((places - start) / self.step, count)
            for places, start, count in zip((z, y, x), self.first, self.knots.shape, strict=True)
        ]
        slices = np.tensordot(along[0], self.knots, 1)
        found: Float32 = np.matmul(along[1], np.matmul(slices, along[2].T))
        if self.surface > 0:
            found[found < np.float32(self.surface)] = 0
        return found


@dataclass(frozen=True)
class Grains:
    """Densities of grains: each point has that of the nearest seed, as in a Voronoi diagram."""

    seeds: Float64
    densities: Float64

    def values(self, z: Float64, y: Float64, x: Float64) -> Float32:
        """(z, y, x) of the density on a grid."""
        nearest = np.full((z.size, y.size, x.size), np.inf, np.float32)
        found = np.empty(nearest.shape, np.float32)
        for seed, density in zip(self.seeds, self.densities, strict=True):
            # Less the square of the point's own distance from the origin, which all seeds share.
            distance = _linear(-2 * seed, float(seed @ seed), z, y, x)
            np.copyto(found, np.float32(density), where=distance < nearest)
            np.minimum(nearest, distance, out=nearest)
        return found


@dataclass(frozen=True)
class Stroke:
    """The voxels of a solid get a density.

    Attributes
    ----------
    solid
        Where.
    density
        A number, or a density that varies.
    blend
        "over": in the whole solid. "matter": only where matter is already. "empty": only where none is. "times": what
        is there is multiplied.
    above
        The stroke counts only where this varying quantity exceeds 0: solids that are not convex.
    """

    solid: Solid
    density: float | Density
    blend: Blend = "over"
    above: Density | None = None


def draw(strokes: list[Stroke], heights: Float64, axis: Float64, disc: float) -> Float32:
    """Slices (z, y, x) with all strokes, one after the other, of points at `heights` and on `axis` along y and x.

    No matter lies farther than `disc` from the tilt axis. Values are from 0 to 1.
    """
    slices = np.zeros((heights.size, axis.size, axis.size), np.float32)
    step, numbers = axis[1] - axis[0], np.arange(axis.size, dtype=np.int16)
    for stroke in strokes:
        solid = stroke.solid
        if solid.high[0] < heights[0] or solid.low[0] > heights[-1]:
            continue
        middle, half = (solid.high + solid.low) / 2, (solid.high - solid.low) / 2
        rows = reach(axis, middle[1], half[1])
        first, last = solid.spans(heights, axis[rows])
        first = np.ceil((first - axis[0]) / step)
        last = np.floor((last - axis[0]) / step) + 1
        hit = last > first
        if not hit.any():
            continue
        columns = slice(max(int(first[hit].min()), 0), min(int(last[hit].max()), axis.size))
        bounds = [np.clip(ends, -1, axis.size + 1).astype(np.int16)[..., None] for ends in (first, last)]
        inside = (numbers[columns] >= bounds[0]) & (numbers[columns] < bounds[1])
        _paint(slices[:, rows, columns], inside, stroke, heights, axis[rows], axis[columns])
    slices *= axis[:, None] ** 2 + axis[None, :] ** 2 <= disc**2
    return np.clip(slices, 0, 1, out=slices)


def _paint(window: Float32, inside: Bools, stroke: Stroke, z: Float64, y: Float64, x: Float64) -> None:
    if stroke.blend == "matter":
        inside &= window > 0
    elif stroke.blend == "empty":
        inside &= window == 0
    if not inside.any():
        return
    if stroke.above is not None:
        inside &= stroke.above.values(z, y, x) > 0
    density = stroke.density
    values: Float32 | np.float32 = np.float32(density) if isinstance(density, float) else density.values(z, y, x)
    if stroke.blend == "times":
        np.multiply(window, values, out=window, where=inside)
    else:
        np.copyto(window, values, where=inside)


def ellipsoid(matrix: Float64) -> Solid:
    """The image of the unit ball under a matrix, about the origin."""
    half = np.linalg.norm(matrix, axis=1)
    radius = float(np.linalg.norm(matrix[1:], 2))
    return Solid(np.zeros(3), -half, half, radius, quadrics=np.asarray(np.linalg.inv(matrix))[None])


def ball(centre: npt.ArrayLike, radius: float) -> Solid:
    """A ball."""
    return ellipsoid(np.eye(3) * radius).moved(np.asarray(centre, float))


def polyhedron(normals: Float64, distances: Float64, matrix: Float64) -> Solid:
    """The image under a matrix of the points u with ``normals · u <= distances``; its farthest corner is at 1.

    Distances are above 0, and the normals have to close it.
    """
    hull = ConvexHull(normals / distances[:, None])  # of the dual points: its facets are the corners
    corners = -hull.equations[:, :3] / hull.equations[:, 3:]
    size = float(np.linalg.norm(corners, axis=1).max())
    corners = corners / size @ matrix.T
    planes = np.column_stack([normals @ np.linalg.inv(matrix), distances / size])
    radius = float(np.hypot(corners[:, 1], corners[:, 2]).max())
    return Solid(np.zeros(3), corners.min(axis=0), corners.max(axis=0), radius, planes)


def rod(start: Float64, end: Float64, radius: float) -> Solid:
    """A cylinder from one point to another, with flat ends."""
    centre, way = (start + end) / 2, end - start
    length = float(np.linalg.norm(way))
    way = way / length
    across = (np.eye(3) - np.outer(way, way)) / radius
    planes = np.array([[*way, way @ end], [*-way, -way @ start]])
    half = np.abs(way) * length / 2 + radius * np.sqrt(np.maximum(1 - way**2, 0))
    return Solid(centre, centre - half, centre + half, float(np.hypot(half[1], half[2])), planes, across[None])


def slab(normal: Float64, low: float, high: float) -> Solid:
    """All points between two parallel planes."""
    planes = np.array([[*normal, high], [*-normal, -low]])
    return Solid(normal * (low + high) / 2, np.full(3, -_FAR), np.full(3, _FAR), _FAR, planes)


def _linear(normal: Float64, offset: float, z: Float64, y: Float64, x: Float64) -> Float32:
    rows = (normal[0] * z[:, None] + normal[1] * y + offset).astype(np.float32)
    return np.asarray(rows[..., None] + (normal[2] * x).astype(np.float32))


def _splines(places: Float64, count: int) -> Float32:
    """(place, knot): values of the cubic B-splines about the knots 0, 1, …, at places that are counted in knots."""
    away = np.abs(places[:, None] - np.arange(count))
    near, far = 2 / 3 - away**2 + away**3 / 2, np.clip(2 - away, 0, None) ** 3 / 6
    return np.where(away < 1, near, far).astype(np.float32)
