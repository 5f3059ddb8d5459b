"""Slices through solid bodies."""

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
    axis_of,
    body,
    checked_shape,
)
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Integers

SCENE = 8  # slices through the same bodies


@PHANTOMS.register
@dataclass(frozen=True)
class Bodies(Phantom):
    """See `body_stack`."""

    name: ClassVar[str] = "bodies"
    summary: ClassVar[str] = "slices through solid bodies, eight neighbouring ones through the same, of one material"

    slices: int = setting(
        SCENE, help="Number of neighbouring slices that show the same bodies.", least=1, option="scene"
    )

    @property
    def scene(self) -> int | None:
        """Neighbouring slices through the same bodies."""
        return self.slices

    def volume(self, shape: Shape, *, seed: int = 0, pixel_size: float = 1.0) -> xr.DataArray:
        """The phantom, lazy."""
        return body_stack(shape, scene=self.slices, seed=seed, pixel_size=pixel_size)


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
    shape = checked_shape("body_stack", shape, 1, seed)
    if scene < 1:
        refuse("body_stack", needs="at least 1 slice in a scene", got=f"{scene}", remedy=f"`scene={SCENE}`")
    recipe = recipes.record("body_stack", {"shape": shape, "scene": scene, "seed": seed, "pixel_size": pixel_size})
    return slabs.generate_slabs(
        _body_slab, shape, recipe=recipe, pixel_size=pixel_size, size=shape[1], scene=scene, seed=seed
    )


def _body_slab(z_indices: Integers, size: int, scene: int, seed: int) -> Float32:
    axis = axis_of(size)
    slab = np.zeros((z_indices.size, size, size), np.float32)
    for number in np.unique(z_indices // scene):
        rng = np.random.default_rng([seed, int(number)])
        slices = np.flatnonzero(z_indices // scene == number)
        heights = (z_indices[slices] % scene - (scene - 1) / 2) * (2 / size)
        for drawn in range(rng.integers(1, 5)):
            window, inside = body(axis, heights, rng)
            value = 0.0 if drawn > 0 and rng.random() < 0.3 else 1.0
            for index, z in enumerate(slices):
                slab[z][window][inside[index]] = value
    return slab
