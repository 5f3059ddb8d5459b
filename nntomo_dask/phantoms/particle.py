"""A faceted nanoparticle."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from nntomo_dask.arrays import recipes, slabs
from nntomo_dask.errors import refuse
from nntomo_dask.phantoms import PHANTOMS
from nntomo_dask.phantoms.phantom import Phantom
from nntomo_dask.phantoms.shapes import (
    Shape,
    checked_shape,
    facets,
    polyhedron_slab,
    sphere_slab,
)
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Float64, Integers


@PHANTOMS.register
@dataclass(frozen=True)
class Particle(Phantom):
    """See `nanoparticle`."""

    name: ClassVar[str] = "particle"
    summary: ClassVar[str] = "one faceted nanoparticle, optionally with pores"

    radius: float = setting(
        0.5,
        help="Mean distance of the {111} facets from the centre, as a fraction of half the slice width.",
        above=0,
        most=0.7,
    )
    n_pores: int = setting(0, help="Number of spherical pores in the particle.", least=0, option="number")
    pore_radius: float = setting(0.1, help="Radius of a pore, as a fraction of half the slice width.", above=0)

    def volume(self, shape: Shape, *, seed: int = 0, pixel_size: float = 1.0) -> xr.DataArray:
        """The phantom, lazy."""
        return nanoparticle(
            shape,
            radius=self.radius,
            n_pores=self.n_pores,
            pore_radius=self.pore_radius,
            seed=seed,
            pixel_size=pixel_size,
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
    shape = checked_shape("nanoparticle", shape, 1, seed)
    if n_pores < 0:
        refuse("nanoparticle", needs="a number of pores", got=f"{n_pores}", remedy="`n_pores=0`")
    if not 0 < radius <= 0.7:
        refuse("nanoparticle", needs="a radius in (0, 0.7]", got=f"{radius}", remedy="`radius=0.5`")
    rng = np.random.default_rng(seed)
    planes = facets(rng, radius)
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
        recipe=recipes.record("nanoparticle", parameters),
        pixel_size=pixel_size,
        shape=shape,
        planes=planes,
        pores=pores,
    )


def _particle_slab(z_indices: Integers, shape: tuple[int, int, int], planes: Float64, pores: Float64) -> Float32:
    slab = polyhedron_slab(z_indices, shape, planes)
    if len(pores):
        slab[sphere_slab(z_indices, shape, pores + np.array([0, 0, 0, 0, 1])) > 0] = 0
    return slab
