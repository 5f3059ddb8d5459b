"""A faceted particle of two densities."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from nntomo_dask.arrays import recipes, slabs
from nntomo_dask.phantoms import PHANTOMS
from nntomo_dask.phantoms.phantom import Phantom
from nntomo_dask.phantoms.shapes import (
    Shape,
    checked_shape,
    facets,
    polyhedron_slab,
)
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Float64, Integers


@PHANTOMS.register
@dataclass(frozen=True)
class CoreShell(Phantom):
    """A faceted core in a faceted shell of another density, both in one random orientation."""

    name: ClassVar[str] = "coreshell"
    summary: ClassVar[str] = "one faceted particle with a core of another density"

    radius: float = setting(
        0.5,
        help="Mean distance of the {111} facets from the centre, as a fraction of half the slice width.",
        above=0,
        most=0.7,
    )
    core: float = setting(0.55, help="Size of the core, as a share of the particle's.", above=0, below=1)
    core_density: float = setting(1.0, help="Value of the core's voxels.")
    shell_density: float = setting(0.45, help="Value of the shell's voxels.")

    def volume(self, shape: Shape, *, seed: int = 0, pixel_size: float = 1.0) -> xr.DataArray:
        """The phantom, lazy."""
        shape = checked_shape(self.name, shape, 1, seed)
        planes = facets(np.random.default_rng(seed), self.radius)
        parameters = {"shape": shape, "seed": seed, "pixel_size": pixel_size, **self.parameters()}
        return slabs.generate_slabs(
            _core_shell_slab,
            shape,
            recipe=recipes.record(self.name, parameters),
            pixel_size=pixel_size,
            shape=shape,
            planes=planes,
            densities=(self.shell_density, self.core_density),
            core=self.core,
        )


def _core_shell_slab(
    z_indices: Integers, shape: tuple[int, int, int], planes: Float64, densities: tuple[float, float], core: float
) -> Float32:
    inner = planes * np.array([1, 1, 1, core])
    shell, kernel = (polyhedron_slab(z_indices, shape, one) for one in (planes, inner))
    return np.where(kernel > 0, np.float32(densities[1]), shell * np.float32(densities[0]))
