"""What methods share that solve neighbouring slices together: blocks with a halo, where chunks do not matter."""

from typing import Literal

import xarray as xr

from nntomo_dask.arrays import grid, schema
from nntomo_dask.reconstruction.method import Method

Dimensions = Literal[2, 3]

BLOCK = 24  # slices that are solved together; with the halo they fill the widest lane group
HALO = 4  # neighbours on either side that are solved with them and thrown away


class BlockMethod(Method):
    """A method with a setting ``dimensions``: 3, where neighbouring slices are solved together, or 2."""

    dimensions: Dimensions

    @property
    def block(self) -> int:
        """Slices that are solved together, counted from the first of the series."""
        return BLOCK

    @property
    def halo(self) -> int:
        """Neighbouring slices that are solved with a block; none where slices are independent."""
        return HALO if self.dimensions == 3 else 0

    def check(self, series: xr.DataArray) -> None:
        """See `Method.check`; neighbouring slices are at equal steps."""
        super().check(series)
        if self.halo:
            schema.check_even_z(series, who=self.name)

    def wanted_slices(self, shape: tuple[int, int, int]) -> int:
        """A block: slabs are made of whole ones in any case."""
        return self.block


def thickness_of(series: xr.DataArray) -> float:
    """The distance of two slices in pixels."""
    return abs(grid.spacing(series[schema.Z].values, 1.0)) / schema.pixel_size_of(series)
