"""Volumes to train on and to test with: spheres, stacks of ellipses, a faceted nanoparticle.

Every phantom is lazy, made slab by slab, and has the same voxels whatever the chunks: what is random is drawn either
once for the volume or from a generator of each slice's own. Lengths are fractions of half the slice's width, so a
phantom looks alike at every size.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import schema, slabs
from nntomo_dask.errors import refuse

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Shape = int | tuple[int, int, int]
Grey = Literal["binary", "grey"]

SCENE = 8  # slices through the same bodies in `body_stack`


def random_spheres(
    shape: Shape, *, n_spheres: int = 40, grey: Grey = "binary", seed: int = 0, pixel_size: float = 1.0
) -> xr.DataArray:
    """A volume of solid spheres, the report's first training phantom.

    Radii are 4 to 25 % of half the width; centres lie so that every sphere stays inside the cylinder that all
    projections see. Where spheres overlap the last one drawn counts.

    Parameters
    ----------
    shape
        (z, y, x), or one size for all three.
    grey
        "binary": every sphere is 1. "grey": each has its own value in [0.2, 1].

    Returns
    -------
    Dims (z, y, x), float32, values in [0, 1].

    Raises
    ------
    SchemaError
        A shape that is no volume's, or no spheres.
    """
    shape = _shape("random_spheres", shape, n_spheres, seed)
    rng = np.random.default_rng(seed)
    radius = rng.uniform(0.04, 0.25, n_spheres)
    distance = (1 - radius) * np.sqrt(rng.uniform(0, 1, n_spheres))
    azimuth = rng.uniform(0, 2 * np.pi, n_spheres)
    height = shape[0] / shape[2]
    z = rng.uniform(-1, 1, n_spheres) * np.maximum(height - radius, 0)
    value = np.ones(n_spheres) if grey == "binary" else rng.uniform(0.2, 1, n_spheres)
    spheres = np.stack([z, distance * np.sin(azimuth), distance * np.cos(azimuth), radius, value], axis=1)
    parameters = {"shape": shape, "n_spheres": n_spheres, "grey": grey, "seed": seed, "pixel_size": pixel_size}
    recipe = slabs.record("random_spheres", parameters)
    return slabs.generate_slabs(_sphere_slab, shape, recipe=recipe, pixel_size=pixel_size, shape=shape, spheres=spheres)


def ellipse_stack(
    shape: Shape,
    *,
    n_ellipses: int | tuple[int, int] = 7,
    n_facets: int | tuple[int, int] = 0,
    holes: float = 0.3,
    grey: Grey = "binary",
    seed: int = 0,
    pixel_size: float = 1.0,
) -> xr.DataArray:
    """A stack of slices, each with random ellipses of its own; the report's second training phantom.

    Neighbouring slices have nothing in common, so a few of them hold as much variety as a large volume.

    Parameters
    ----------
    n_ellipses
        Of each slice; a pair is the range, both ends included, from which each slice draws its number.
    n_facets
        Straight cuts around each ellipse, which make it a polygon; a pair is the range from which each ellipse draws.
        With fewer than 3 it stays round.
    holes
        Probability that an ellipse takes matter away instead; never the first one of a slice.
    grey
        "binary": every ellipse is 1. "grey": each has its own value in [0.2, 1].

    Returns
    -------
    Dims (z, y, x), float32, values in [0, 1].

    Raises
    ------
    SchemaError
        A shape that is no volume's, or no ellipses.
    """
    kinds: tuple[Grey, ...] = (grey,)
    return _stack("ellipse_stack", shape, _range(n_ellipses), _range(n_facets), holes, kinds, seed, pixel_size)


def training_stack(shape: Shape, *, seed: int = 0, pixel_size: float = 1.0) -> xr.DataArray:
    """The ellipse stack to train on for a specimen of one material: 1 to 4 shapes a slice, round and faceted."""
    return ellipse_stack(shape, n_ellipses=(1, 4), n_facets=(0, 8), seed=seed, pixel_size=pixel_size)


def mixed_stack(shape: Shape, *, seed: int = 0, pixel_size: float = 1.0) -> xr.DataArray:
    """Slices of every kind, for a specimen nothing is known of: round or faceted, binary or grey, 1 to 20 shapes."""
    return _stack("mixed_stack", shape, (1, 20), (0, 8), 0.3, ("binary", "grey"), seed, pixel_size)


def body_stack(shape: Shape, *, scene: int = SCENE, seed: int = 0, pixel_size: float = 1.0) -> xr.DataArray:
    """Slices through solid bodies, `scene` neighbouring ones through the same: to train what looks at neighbours.

    Each scene has 1 to 4 ellipsoids in general orientation, two thirds of them cut into polyhedra; some take matter
    away. So a few hundred slices hold dozens of scenes, where one volume would be a single one.

    Parameters
    ----------
    scene
        Slices of a scene; the last one may have fewer.

    Returns
    -------
    Dims (z, y, x), float32, 0 or 1.

    Raises
    ------
    SchemaError
        A shape that is no volume's, or no slices in a scene.
    """
    shape = _shape("body_stack", shape, 1, seed)
    if scene < 1:
        refuse("body_stack", needs="at least 1 slice in a scene", got=f"{scene}", remedy=f"scene={SCENE}")
    recipe = slabs.record("body_stack", {"shape": shape, "scene": scene, "seed": seed, "pixel_size": pixel_size})
    return slabs.generate_slabs(
        _body_slab, shape, recipe=recipe, pixel_size=pixel_size, size=shape[1], scene=scene, seed=seed
    )


def nanoparticle(
    shape: Shape,
    *,
    radius: float = 0.5,
    n_pores: int = 0,
    pore_radius: float = 0.1,
    seed: int = 0,
    pixel_size: float = 1.0,
) -> xr.DataArray:
    """A faceted particle: a truncated octahedron in general orientation, optionally with spherical pores.

    The 8 {111} and 6 {100} facets lie at distances that vary by ±12 %, as growth leaves them.

    Parameters
    ----------
    radius
        Mean distance of the {111} facets, as a fraction of half the width.
    n_pores, pore_radius
        Spherical pores inside the particle, radius likewise.

    Returns
    -------
    Dims (z, y, x), float32, 0 outside and in pores, 1 inside.

    Raises
    ------
    SchemaError
        A shape that is no volume's, or a particle that is larger than what every projection sees.
    """
    shape = _shape("nanoparticle", shape, 1, seed)
    if n_pores < 0:
        refuse("nanoparticle", needs="a number of pores", got=f"{n_pores}", remedy="n_pores=0")
    if not 0 < radius <= 0.7:
        refuse("nanoparticle", needs="a radius in (0, 0.7]", got=f"{radius}", remedy="radius=0.5")
    rng = np.random.default_rng(seed)
    rotation = _random_rotation(rng)
    cubes = np.concatenate([np.eye(3), -np.eye(3)])
    octants = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]) / np.sqrt(3)
    normals = np.concatenate([octants, cubes]) @ rotation.T
    facets = np.concatenate([np.full(8, radius), np.full(6, 1.25 * radius)]) * rng.uniform(0.88, 1.12, 14)
    pores = np.concatenate(
        [rng.uniform(-0.55, 0.55, (n_pores, 3)) * radius, np.full((n_pores, 1), pore_radius), np.zeros((n_pores, 1))],
        axis=1,
    )
    parameters = {
        "shape": shape,
        "radius": radius,
        "n_pores": n_pores,
        "pore_radius": pore_radius,
        "seed": seed,
        "pixel_size": pixel_size,
    }
    return slabs.generate_slabs(
        _particle_slab,
        shape,
        recipe=slabs.record("nanoparticle", parameters),
        pixel_size=pixel_size,
        shape=shape,
        planes=np.concatenate([normals, facets[:, None]], axis=1),
        pores=pores,
    )


def _stack(
    operation: str,
    shape: Shape,
    count: tuple[int, int],
    facets: tuple[int, int],
    holes: float,
    kinds: tuple[Grey, ...],
    seed: int,
    pixel_size: float,
) -> xr.DataArray:
    shape = _shape(operation, shape, count[0], seed)
    parameters: dict[str, Any] = {"count": count, "facets": facets, "holes": holes, "kinds": kinds, "seed": seed}
    recipe = slabs.record(operation, {"shape": shape, "pixel_size": pixel_size, **parameters})
    return slabs.generate_slabs(_stack_slab, shape, recipe=recipe, pixel_size=pixel_size, size=shape[1], **parameters)


def _range(count: int | tuple[int, int]) -> tuple[int, int]:
    return (count, count) if isinstance(count, int) else count


def _shape(who: str, shape: Shape, count: int, seed: int) -> tuple[int, int, int]:
    sizes = (shape,) * 3 if isinstance(shape, int) else tuple(shape)
    if len(sizes) != 3 or min(sizes) < 1:
        refuse(who, needs="a shape (z, y, x) or one size", got=f"{shape}", remedy="shape=128")
    if sizes[1] != sizes[2]:
        refuse(who, needs="square slices", got=f"y={sizes[1]}, x={sizes[2]}", remedy="give y and x one size")
    if count < 1:
        refuse(who, needs="at least one shape in it", got=f"{count}", remedy="raise the number")
    if not isinstance(seed, int | np.integer) or seed < 0:
        refuse(who, needs="a whole number as seed", got=f"{seed!r}", remedy="seed=0")
    return sizes


def _axis(size: int) -> Float64:
    """Pixel positions of one axis in units of half its width."""
    return schema.centred(size) * (2 / size)


def _sphere_slab(z_indices: Integers, shape: tuple[int, int, int], spheres: Float64) -> Float32:
    size = shape[2]
    axis = _axis(size)
    heights = schema.centred(shape[0])[z_indices] * (2 / size)
    slab = np.zeros((z_indices.size, size, size), np.float32)
    for z, y, x, radius, value in spheres:
        in_plane = (axis[:, None] - y) ** 2 + (axis[None, :] - x) ** 2
        for index in np.flatnonzero(np.abs(heights - z) < radius):
            slab[index][in_plane <= radius**2 - (heights[index] - z) ** 2] = value
    return slab


def _particle_slab(z_indices: Integers, shape: tuple[int, int, int], planes: Float64, pores: Float64) -> Float32:
    size = shape[2]
    axis = _axis(size)
    slab = np.empty((z_indices.size, size, size), np.float32)
    for index, height in enumerate(schema.centred(shape[0])[z_indices] * (2 / size)):
        inside = np.ones((size, size), bool)
        for normal_z, normal_y, normal_x, distance in planes:
            inside &= normal_z * height + normal_y * axis[:, None] + normal_x * axis[None, :] <= distance
        slab[index] = inside
    if len(pores):
        slab[_sphere_slab(z_indices, shape, pores + np.array([0, 0, 0, 0, 1])) > 0] = 0
    return slab


def _stack_slab(
    z_indices: Integers,
    size: int,
    count: tuple[int, int],
    facets: tuple[int, int],
    holes: float,
    kinds: tuple[Grey, ...],
    seed: int,
) -> Float32:
    axis = _axis(size)
    slab = np.zeros((z_indices.size, size, size), np.float32)
    for image, z in zip(slab, z_indices, strict=True):
        rng = np.random.default_rng([seed, int(z)])
        kind = kinds[rng.integers(len(kinds))]
        for drawn in range(rng.integers(count[0], count[1] + 1)):
            window, inside = _ellipse(axis, rng, int(rng.integers(facets[0], facets[1] + 1)))
            value = 1.0 if kind == "binary" else rng.uniform(0.2, 1)
            image[window][inside] = 0.0 if drawn > 0 and rng.random() < holes else value
    return slab


def _ellipse(
    axis: Float64, rng: np.random.Generator, n_facets: int
) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """A window (y, x), and in it a random ellipse, cut by facets, within the disc that every projection sees."""
    radii = rng.uniform(0.1, 0.9, 2)
    distance = np.sqrt(rng.random()) * (1 - radii.max())
    azimuth, turn = rng.uniform(0, 2 * np.pi, 2)
    window = (
        _reach(axis, distance * np.sin(azimuth), np.hypot(radii[0] * np.sin(turn), radii[1] * np.cos(turn))),
        _reach(axis, distance * np.cos(azimuth), np.hypot(radii[0] * np.cos(turn), radii[1] * np.sin(turn))),
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


def _body_slab(z_indices: Integers, size: int, scene: int, seed: int) -> Float32:
    axis = _axis(size)
    slab = np.zeros((z_indices.size, size, size), np.float32)
    for number in np.unique(z_indices // scene):
        rng = np.random.default_rng([seed, int(number)])
        slices = np.flatnonzero(z_indices // scene == number)
        heights = (z_indices[slices] % scene - (scene - 1) / 2) * (2 / size)
        for drawn in range(rng.integers(1, 5)):
            window, inside = _body(axis, heights, rng)
            value = 0.0 if drawn > 0 and rng.random() < 0.3 else 1.0
            for index, z in enumerate(slices):
                slab[z][window][inside[index]] = value
    return slab


def _body(
    axis: Float64, heights: npt.NDArray[Any], rng: np.random.Generator
) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """A window (y, x), and in it, at some heights, a random ellipsoid, cut by facets."""
    radii = rng.uniform(0.1, 0.9, 3)
    rotation = _random_rotation(rng)
    reach = np.sqrt((rotation**2) @ radii**2)  # half its extent along z, y and x
    distance = np.sqrt(rng.random()) * max(1 - np.hypot(reach[1], reach[2]), 0)
    azimuth = rng.uniform(0, 2 * np.pi)
    centre = rng.uniform(-0.9, 0.9) * reach[0], distance * np.sin(azimuth), distance * np.cos(azimuth)
    window = _reach(axis, centre[1], reach[1]), _reach(axis, centre[2], reach[2])
    offsets = np.meshgrid(heights - centre[0], axis[window[0]] - centre[1], axis[window[1]] - centre[2], indexing="ij")
    scaled = np.stack(offsets, axis=-1) @ (rotation / radii)
    inside: npt.NDArray[np.bool_] = (scaled**2).sum(axis=-1) <= 1
    if rng.random() < 2 / 3:
        normals = rng.standard_normal((int(rng.integers(6, 17)), 3))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        inside &= (scaled @ normals.T <= rng.uniform(0.5, 0.95, len(normals))).all(axis=-1)
    return window, inside & (axis[window[0], None] ** 2 + axis[None, window[1]] ** 2 <= 1)


def _reach(axis: Float64, centre: float, half: float) -> slice:
    """The pixels of an axis within `half` of `centre`, and one more on either side."""
    first, last = np.searchsorted(axis, (centre - half, centre + half))
    return slice(max(int(first) - 1, 0), int(last) + 1)


def _random_rotation(rng: np.random.Generator) -> Float64:
    """A rotation matrix, uniform over all orientations: the Q of a Gaussian matrix (Mezzadri 2007)."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return np.asarray(q * np.sign(np.linalg.det(q)))
