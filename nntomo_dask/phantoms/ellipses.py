"""Stacks of slices with ellipses and polygons."""

from dataclasses import dataclass
from typing import ClassVar

import xarray as xr

from nntomo_dask.phantoms import PHANTOMS
from nntomo_dask.phantoms.phantom import Phantom
from nntomo_dask.phantoms.shapes import (
    Grey,
    Shape,
    stack,
    whole_range,
)
from nntomo_dask.settings import setting


@PHANTOMS.register
@dataclass(frozen=True)
class Ellipses(Phantom):
    """See `training_stack` and `ellipse_stack`."""

    name: ClassVar[str] = "ellipses"
    summary: ClassVar[str] = "unrelated slices of a few round and faceted ellipses, of one material"

    n_ellipses: int | None = setting(
        None, help="Number of ellipses in each slice. Default: 1 to 4, at random.", least=1, option="number"
    )
    n_facets: int | None = setting(
        None,
        help="Straight cuts around each ellipse, which make it a polygon; 0 leaves it round. By default each ellipse "
        "has 0 to 8, at random.",
        least=0,
        option="facets",
    )

    @property
    def scene(self) -> int | None:
        """Slices have nothing in common."""
        return 1

    def volume(self, shape: Shape, *, seed: int = 0, pixel_size: float = 1.0) -> xr.DataArray:
        """The phantom, lazy."""
        count = (1, 4) if self.n_ellipses is None else self.n_ellipses
        facets = (0, 8) if self.n_facets is None else self.n_facets
        return ellipse_stack(shape, n_ellipses=count, n_facets=facets, seed=seed, pixel_size=pixel_size)


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
    """A stack of slices, each with random ellipses of its own; the second training phantom of Branchut (2024).

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
    return stack("ellipse_stack", shape, whole_range(n_ellipses), whole_range(n_facets), holes, kinds, seed, pixel_size)


def training_stack(shape: Shape, *, seed: int = 0, pixel_size: float = 1.0) -> xr.DataArray:
    """The ellipse stack to train on for a specimen of one material: 1 to 4 shapes a slice, round and faceted."""
    return ellipse_stack(shape, n_ellipses=(1, 4), n_facets=(0, 8), seed=seed, pixel_size=pixel_size)
