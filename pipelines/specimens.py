"""Specimens on which methods are judged: of one density and of several, smooth and sharp, compact and scattered.

``specimen("porous", 96, seed=5)`` is a volume; another seed has another shape, orientation and place. Lengths are
fractions of half a slice's width, as in `nntomo_dask.phantoms.shapes`, whose bodies are used. Values are from 0 to 1.
"""

from collections.abc import Callable

import numpy as np

from nntomo_dask.arrays import schema
from nntomo_dask.phantoms.shapes import axis_of, facets, polyhedron_slab, random_rotation, sphere_slab
from nntomo_dask.types import Float32, Float64, Integers

FINER = 2  # how many times finer than the voxels a specimen is drawn along each axis
REACH = 0.9  # no matter lies farther from the tilt axis
SHELL, SUPPORT, SURFACE = 0.45, 0.3, 0.25  # densities beside that of 1

# From numbers of slices and the size of the volume, the slices (slice, y, x).
Draw = Callable[[Integers, int], Float32]


def specimen(name: str, size: int, seed: int = 0, *, finer: int = FINER) -> Float32:
    """A specimen (z, y, x) of `size`³ voxels; a voxel at a boundary has the mean of what lies in it."""
    return binned(fine_specimen(name, size, seed, finer=finer), finer)


def fine_specimen(name: str, size: int, seed: int = 0, *, finer: int = FINER) -> Float32:
    """The same specimen on a grid that is `finer` times finer along each axis, without partial voxels."""
    # The name is part of the seed, so that a porous particle is not a faceted one with holes.
    draw = SPECIMENS[name](np.random.default_rng([seed, *name.encode()]))
    return draw(np.arange(size * finer), size * finer)


def binned(array: Float32, factor: int) -> Float32:
    """The means of blocks of `factor`³ voxels."""
    blocks = (part for count in array.shape for part in (count // factor, factor))
    return np.asarray(array.reshape(*blocks).mean(axis=(1, 3, 5), dtype=np.float64), np.float32)


def faceted(rng: np.random.Generator) -> Draw:
    """One truncated octahedron of one material."""
    planes = _planes(rng)
    return lambda z, size: polyhedron_slab(z, (size,) * 3, planes)


def porous(rng: np.random.Generator) -> Draw:
    """A truncated octahedron with 12 spherical pores."""
    centre, planes = _placed(rng)
    places = rng.uniform(-0.27, 0.27, (12, 3)) + centre
    pores = np.column_stack([places, rng.uniform(0.06, 0.11, 12), np.ones(12)])

    def draw(z: Integers, size: int) -> Float32:
        shape = (size,) * 3
        return np.where(sphere_slab(z, shape, pores) > 0, np.float32(0), polyhedron_slab(z, shape, planes))

    return draw


def coreshell(rng: np.random.Generator) -> Draw:
    """A truncated octahedron of 0.45 with a core of 1.0, which has the same facets."""
    centre, planes = _placed(rng)
    core = planes * np.array([1, 1, 1, 0])
    middle = planes[:, :3] @ centre
    core[:, 3] = middle + (planes[:, 3] - middle) * rng.uniform(0.45, 0.65)

    def draw(z: Integers, size: int) -> Float32:
        inside, shell = (polyhedron_slab(z, (size,) * 3, one) for one in (core, planes))
        return np.where(inside > 0, np.float32(1), shell * np.float32(SHELL))

    return draw


def smooth(rng: np.random.Generator) -> Draw:
    """A rounded body, the sum of ten Gaussian clouds: its density rises smoothly from 0.25 at its surface to 1."""
    centres = rng.standard_normal((10, 3))
    centres *= 0.45 * rng.random((10, 1)) ** (1 / 3) / np.linalg.norm(centres, axis=1, keepdims=True)
    scales = [random_rotation(rng) / rng.uniform(0.07, 0.2, 3) for _ in centres]
    heights = rng.uniform(0.3, 1, 10)

    def clouds(points: Float64) -> Float64:
        return sum(
            height * np.exp(-0.5 * (((points - centre) @ scale) ** 2).sum(axis=-1))
            for height, centre, scale in zip(heights, centres, scales, strict=True)
        )

    grid = np.stack(np.meshgrid(*[axis_of(48)] * 3, indexing="ij"), axis=-1)
    densest = clouds(grid).max()

    def draw(z: Integers, size: int) -> Float32:
        axis = axis_of(size)
        within = axis[:, None] ** 2 + axis[None, :] ** 2 <= REACH**2
        slices = np.zeros((z.size, size, size), np.float32)
        for image, height in zip(slices, _heights(z, size), strict=True):
            y, x = np.meshgrid(axis, axis, indexing="ij")
            density = clouds(np.stack([np.full_like(y, height), y, x], axis=-1)[within]) / densest
            image[within] = np.where(density >= SURFACE, density, 0)
        return slices

    return draw


def particles(rng: np.random.Generator) -> Draw:
    """Fifty small balls of 1.0 on the surface of a faceted support of 0.3."""
    centre, planes = _placed(rng)
    ways = rng.standard_normal((50, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    steepness = ways @ planes[:, :3].T
    depths = planes[:, 3] - planes[:, :3] @ centre
    # Where a ray from the centre leaves the support: at the first of the facets that it goes towards.
    lengths = np.where(steepness > 0, depths / np.where(steepness > 0, steepness, 1), np.inf).min(axis=1)
    balls = np.column_stack([centre + ways * lengths[:, None], rng.uniform(0.035, 0.08, 50), np.ones(50)])

    def draw(z: Integers, size: int) -> Float32:
        shape = (size,) * 3
        return np.maximum(sphere_slab(z, shape, balls), polyhedron_slab(z, shape, planes) * np.float32(SUPPORT))

    return draw


def needle(rng: np.random.Generator) -> Draw:
    """A needle about along the tilt axis, with a round tip, in oblique layers; its foot is outside the volume."""
    lean, place = rng.uniform(-0.08, 0.08, (2, 2))
    tip, widest = rng.uniform(0.7, 0.85), rng.uniform(0.4, 0.5)
    normal = np.array([1.0, *rng.uniform(-0.5, 0.5, 2)])
    normal /= np.linalg.norm(normal)
    edges = np.cumsum(rng.uniform(0.08, 0.4, 30)) - 1.5
    values = rng.uniform(0.3, 0.6, 31)
    values[::2] += 0.4  # every second layer is dense, so that no boundary is faint

    def draw(z: Integers, size: int) -> Float32:
        axis = axis_of(size)
        slices = np.zeros((z.size, size, size), np.float32)
        for image, height in zip(slices, _heights(z, size), strict=True):
            if height >= tip:
                continue
            radius = widest * np.sqrt((tip - height) / (tip + 1))
            y, x = (axis - start - slope * height for start, slope in zip(place, lean, strict=True))
            inside = y[:, None] ** 2 + x[None, :] ** 2 <= radius**2
            along = normal[0] * height + normal[1] * axis[:, None] + normal[2] * axis[None, :]
            image[inside] = values[np.searchsorted(edges, along)][inside]
        return slices

    return draw


SPECIMENS: dict[str, Callable[[np.random.Generator], Draw]] = {
    one.__name__: one for one in (faceted, porous, coreshell, smooth, particles, needle)
}


def _placed(rng: np.random.Generator) -> tuple[Float64, Float64]:
    """A centre (z, y, x), and about it the facets (facet, 4) of a particle."""
    planes = facets(rng, rng.uniform(0.42, 0.5))
    centre = rng.uniform(-0.08, 0.08, 3)
    planes[:, 3] += planes[:, :3] @ centre
    return centre, planes


def _planes(rng: np.random.Generator) -> Float64:
    return _placed(rng)[1]


def _heights(z: Integers, size: int) -> Float64:
    """Where slices lie along the tilt axis."""
    return np.asarray(schema.centred(size)[z] * (2 / size))
