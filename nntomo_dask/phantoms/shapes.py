"""Shapes that phantoms are made of: spheres, ellipses, polyhedra. Lengths are fractions of half a slice's width."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import recipes, schema, slabs
from nntomo_dask.errors import refuse
from nntomo_dask.types import Float32, Float64, Integers

Shape = int | tuple[int, int, int]
Grey = Literal["binary", "grey"]


def checked_shape(who: str, shape: Shape, count: int, seed: int) -> tuple[int, int, int]:
    """(z, y, x) of a phantom; a SchemaError for a shape, a number of bodies or a seed that it cannot have."""
    sizes = (shape,) * 3 if isinstance(shape, int) else tuple(shape)
    if len(sizes) != 3 or min(sizes) < 1:
        refuse(who, needs="a shape (z, y, x) or one size", got=f"{shape}", remedy="`shape=128`")
    if sizes[1] != sizes[2]:
        refuse(who, needs="square slices", got=f"y={sizes[1]}, x={sizes[2]}", remedy="give y and x one size")
    if count < 1:
        refuse(who, needs="at least one shape in it", got=f"{count}", remedy="raise the number")
    if not isinstance(seed, int | np.integer) or seed < 0:
        refuse(who, needs="a whole number from 0 as seed", got=f"{seed!r}", remedy="`seed=0`")
    return sizes


def axis_of(size: int) -> Float64:
    """Pixel positions of one axis in units of half its width."""
    return schema.centred(size) * (2 / size)


def whole_range(count: int | tuple[int, int]) -> tuple[int, int]:
    """A pair (least, most) from a number or a pair."""
    return (count, count) if isinstance(count, int) else count


def stack(
    operation: str,
    shape: Shape,
    count: tuple[int, int],
    facets: tuple[int, int],
    holes: float,
    kinds: tuple[Grey, ...],
    seed: int,
    pixel_size: float,
) -> xr.DataArray:
    """A lazy stack of slices with ellipses; see `ellipses.ellipse_stack`."""
    shape = checked_shape(operation, shape, count[0], seed)
    parameters: dict[str, Any] = {"count": count, "facets": facets, "holes": holes, "kinds": kinds, "seed": seed}
    recipe = recipes.record(operation, {"shape": shape, "pixel_size": pixel_size, **parameters})
    return slabs.generate_slabs(_stack_slab, shape, recipe=recipe, pixel_size=pixel_size, size=shape[1], **parameters)


def _stack_slab(
    z_indices: Integers,
    size: int,
    count: tuple[int, int],
    facets: tuple[int, int],
    holes: float,
    kinds: tuple[Grey, ...],
    seed: int,
) -> Float32:
    axis = axis_of(size)
    slab = np.zeros((z_indices.size, size, size), np.float32)
    for image, z in zip(slab, z_indices, strict=True):
        rng = np.random.default_rng([seed, int(z)])
        kind = kinds[rng.integers(len(kinds))]
        for drawn in range(rng.integers(count[0], count[1] + 1)):
            window, inside = ellipse(axis, rng, int(rng.integers(facets[0], facets[1] + 1)))
            value = 1.0 if kind == "binary" else rng.uniform(0.2, 1)
            image[window][inside] = 0.0 if drawn > 0 and rng.random() < holes else value
    return slab


def ellipse(
    axis: Float64, rng: np.random.Generator, n_facets: int
) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """A window (y, x), and in it a random ellipse, cut by facets, within the disc that every projection sees."""
    radii = rng.uniform(0.1, 0.9, 2)
    distance = np.sqrt(rng.random()) * (1 - radii.max())
    azimuth, turn = rng.uniform(0, 2 * np.pi, 2)
    window = (
        reach(axis, distance * np.sin(azimuth), np.hypot(radii[0] * np.sin(turn), radii[1] * np.cos(turn))),
        reach(axis, distance * np.cos(azimuth), np.hypot(radii[0] * np.cos(turn), radii[1] * np.sin(turn))),
    )
    x = axis[None, window[1]] - distance * np.cos(azimuth)
    y = axis[window[0], None] - distance * np.sin(azimuth)
    u = (x * np.cos(turn) + y * np.sin(turn)) / radii[0]
    v = (y * np.cos(turn) - x * np.sin(turn)) / radii[1]
    inside: npt.NDArray[np.bool_] = u**2 + v**2 <= 1
    if n_facets >= 3:
        first = rng.uniform(0, 2 * np.pi)
        for facet in range(n_facets):
            normal = first + (facet + rng.uniform(-0.25, 0.25)) * 2 * np.pi / n_facets
            inside &= u * np.cos(normal) + v * np.sin(normal) <= np.cos(np.pi / n_facets) * rng.uniform(0.6, 1)
    return window, inside


def body(
    axis: Float64, heights: npt.NDArray[Any], rng: np.random.Generator
) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """A window (y, x), and in it, at some heights, a random ellipsoid, cut by facets."""
    radii = rng.uniform(0.1, 0.9, 3)
    rotation = random_rotation(rng)
    extent = np.sqrt((rotation**2) @ radii**2)  # half its extent along z, y and x
    distance = np.sqrt(rng.random()) * max(1 - np.hypot(extent[1], extent[2]), 0)
    azimuth = rng.uniform(0, 2 * np.pi)
    centre = rng.uniform(-0.9, 0.9) * extent[0], distance * np.sin(azimuth), distance * np.cos(azimuth)
    window = reach(axis, centre[1], extent[1]), reach(axis, centre[2], extent[2])
    offsets = np.meshgrid(heights - centre[0], axis[window[0]] - centre[1], axis[window[1]] - centre[2], indexing="ij")
    scaled = np.stack(offsets, axis=-1) @ (rotation / radii)
    inside: npt.NDArray[np.bool_] = (scaled**2).sum(axis=-1) <= 1
    if rng.random() < 2 / 3:
        normals = rng.standard_normal((int(rng.integers(6, 17)), 3))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        inside &= (scaled @ normals.T <= rng.uniform(0.5, 0.95, len(normals))).all(axis=-1)
    return window, inside & (axis[window[0], None] ** 2 + axis[None, window[1]] ** 2 <= 1)


def reach(axis: Float64, centre: float, half: float) -> slice:
    """The pixels of an axis within `half` of `centre`, and one more on either side."""
    first, last = np.searchsorted(axis, (centre - half, centre + half))
    return slice(max(int(first) - 1, 0), int(last) + 1)


def random_rotation(rng: np.random.Generator) -> Float64:
    """A rotation matrix, uniform over all orientations: the Q of a Gaussian matrix (Mezzadri 2007)."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return np.asarray(q * np.sign(np.linalg.det(q)))


def sphere_slab(z_indices: Integers, shape: tuple[int, int, int], spheres: Float64) -> Float32:
    """(slice, y, x) with solid spheres (z, y, x, radius, value); where they overlap, the last one counts."""
    size = shape[2]
    axis = axis_of(size)
    heights = schema.centred(shape[0])[z_indices] * (2 / size)
    slab = np.zeros((z_indices.size, size, size), np.float32)
    for z, y, x, radius, value in spheres:
        in_plane = (axis[:, None] - y) ** 2 + (axis[None, :] - x) ** 2
        for index in np.flatnonzero(np.abs(heights - z) < radius):
            slab[index][in_plane <= radius**2 - (heights[index] - z) ** 2] = value
    return slab


def facets(rng: np.random.Generator, radius: float) -> Float64:
    """(facet, 4): normals (z, y, x) and distances of a truncated octahedron in general orientation.

    The 8 {111} facets lie at `radius`, the 6 {100} facets at 1.25 of it, each varied by ±12 %, as growth leaves them.
    """
    rotation = random_rotation(rng)
    cubes = np.concatenate([np.eye(3), -np.eye(3)])
    octants = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]) / np.sqrt(3)
    normals = np.concatenate([octants, cubes]) @ rotation.T
    distances = np.concatenate([np.full(8, radius), np.full(6, 1.25 * radius)]) * rng.uniform(0.88, 1.12, 14)
    return np.concatenate([normals, distances[:, None]], axis=1)


def polyhedron_slab(z_indices: Integers, shape: tuple[int, int, int], planes: Float64) -> Float32:
    """(slice, y, x): 1 on the inner side of all planes (normal z, y, x, distance), 0 elsewhere."""
    size = shape[2]
    axis = axis_of(size)
    slab = np.empty((z_indices.size, size, size), np.float32)
    for index, height in enumerate(schema.centred(shape[0])[z_indices] * (2 / size)):
        inside = np.ones((size, size), bool)
        for normal_z, normal_y, normal_x, distance in planes:
            inside &= normal_z * height + normal_y * axis[:, None] + normal_x * axis[None, :] <= distance
        slab[index] = inside
    return slab
