"""Solid spheres."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from nntomo_dask.arrays import recipes, slabs
from nntomo_dask.phantoms import PHANTOMS
from nntomo_dask.phantoms.phantom import Phantom
from nntomo_dask.phantoms.shapes import (
    Grey,
    Shape,
    checked_shape,
    sphere_slab,
)
from nntomo_dask.settings import setting


@PHANTOMS.register
@dataclass(frozen=True)
class Spheres(Phantom):
    """See `random_spheres`."""

    name: ClassVar[str] = "spheres"
    summary: ClassVar[str] = "solid spheres at random places, the first training phantom of Branchut (2024)"

    n_spheres: int = setting(40, help="Number of spheres in the whole volume.", least=1, option="number")

    def volume(self, shape: Shape, *, seed: int = 0, pixel_size: float = 1.0) -> xr.DataArray:
        """The phantom, lazy."""
        return random_spheres(shape, n_spheres=self.n_spheres, seed=seed, pixel_size=pixel_size)


def random_spheres(
    shape: Shape, *, n_spheres: int = 40, grey: Grey = "binary", seed: int = 0, pixel_size: float = 1.0
) -> xr.DataArray:
    """A volume of solid spheres, the first training phantom of Branchut (2024).

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
    shape = checked_shape("random_spheres", shape, n_spheres, seed)
    rng = np.random.default_rng(seed)
    radius = rng.uniform(0.04, 0.25, n_spheres)
    distance = (1 - radius) * np.sqrt(rng.uniform(0, 1, n_spheres))
    azimuth = rng.uniform(0, 2 * np.pi, n_spheres)
    height = shape[0] / shape[2]
    z = rng.uniform(-1, 1, n_spheres) * np.maximum(height - radius, 0)
    value = np.ones(n_spheres) if grey == "binary" else rng.uniform(0.2, 1, n_spheres)
    spheres = np.stack([z, distance * np.sin(azimuth), distance * np.cos(azimuth), radius, value], axis=1)
    parameters = {"shape": shape, "n_spheres": n_spheres, "grey": grey, "seed": seed, "pixel_size": pixel_size}
    recipe = recipes.record("random_spheres", parameters)
    return slabs.generate_slabs(sphere_slab, shape, recipe=recipe, pixel_size=pixel_size, shape=shape, spheres=spheres)
