"""Stacks of slices of every kind."""

from dataclasses import dataclass
from typing import ClassVar

import xarray as xr

from nntomo_dask.phantoms import PHANTOMS
from nntomo_dask.phantoms.phantom import Phantom
from nntomo_dask.phantoms.shapes import (
    Shape,
    stack,
)


@PHANTOMS.register
@dataclass(frozen=True)
class Mixed(Phantom):
    """See `mixed_stack`."""

    name: ClassVar[str] = "mixed"
    summary: ClassVar[str] = "unrelated slices of every kind: round and faceted, binary and grey, few and many shapes"

    @property
    def scene(self) -> int | None:
        """Slices have nothing in common."""
        return 1

    def volume(self, shape: Shape, *, seed: int = 0, pixel_size: float = 1.0) -> xr.DataArray:
        """The phantom, lazy."""
        return mixed_stack(shape, seed=seed, pixel_size=pixel_size)


def mixed_stack(shape: Shape, *, seed: int = 0, pixel_size: float = 1.0) -> xr.DataArray:
    """Slices of every kind, for a specimen nothing is known of: round or faceted, binary or grey, 1 to 20 shapes."""
    return stack("mixed_stack", shape, (1, 20), (0, 8), 0.3, ("binary", "grey"), seed, pixel_size)
