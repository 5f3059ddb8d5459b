"""The tilt series that atoms would have."""

from dataclasses import dataclass
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr

from nntomo_dask.arrays import recipes, schema, slabs
from nntomo_dask.atoms import measured
from nntomo_dask.atoms.views import Gaussians, OfViews, Pixels, Views
from nntomo_dask.settings import check_settings, setting
from nntomo_dask.types import Float32, Integers

Projections = Literal["fitted", "ideal"]
_WHO = "project_atoms"


@dataclass(frozen=True, kw_only=True)
class _Settings:
    projections: Projections = setting("fitted", help="Whether projections have what is their own.")
    pixels: Pixels = setting("points", help="What a pixel is.")


def project_atoms(
    atoms: xr.Dataset, *, like: xr.DataArray, projections: Projections = "fitted", pixels: Pixels = "points"
) -> xr.DataArray:
    """Project a table of atoms, each a Gaussian, to the geometry of a tilt series.

    ``series - project_atoms(refined, like=series)`` is what a refinement leaves. Lazy, slab by slab; the values of
    `like` are not read.

    Parameters
    ----------
    atoms
        A table with heights and widths.
    like
        Dims (z, angle, detector), float32, in nm; slices at equal steps.
    projections
        "fitted": with the background, scale and shift that `refine_atoms` found for each projection, where the table
        has them. "ideal": without.
    pixels
        As for `refine_atoms`.

    Returns
    -------
    Dims (z, angle, detector), float32: line integrals, in the unit of `like`.

    Raises
    ------
    SchemaError
        `atoms` is no table with heights and widths, an atom lies out of view, or `like` is no tilt series in nm.
    """
    check_settings(_Settings(projections=projections, pixels=pixels), who=_WHO)
    measured.check(atoms, like, who=_WHO)
    views = Views.of(like, pixels)
    own = measured.own_of(atoms, views) if projections == "fitted" else OfViews.ideal(views.count)
    data = slabs.lazy(like).data
    made = da.map_blocks(
        _slab,
        da.arange(like.sizes[schema.Z], chunks=(data.chunks[0],)),
        new_axis=[1, 2],
        chunks=data.chunks,
        dtype=np.float32,
        meta=np.empty((0,) * 3, np.float32),
        views=views,
        atoms=measured.atoms_of(atoms).gaussians(),
        own=own,
        places=np.argsort(np.argsort(like[schema.ANGLE].values, kind="stable"), kind="stable"),
    )
    said: dict[str, Any] = {"projections": projections, "pixels": pixels}
    said |= {"angles_deg": like[schema.ANGLE].values, "atoms": measured.digest(atoms)}
    return slabs.label(
        made,
        dims=schema.SERIES_DIMS,
        coords=schema.series_coords(*(like[dim] for dim in schema.SERIES_DIMS)),
        attrs={key: value for key, value in like.attrs.items() if key != "recipe"},
        recipe=recipes.record(_WHO, said, [atoms.attrs["recipe"]]),
        name="tilt_series",
    )


def _slab(numbers: Integers, *, views: Views, atoms: Gaussians, own: OfViews, places: Integers) -> Float32:
    """The slices of one slab. A pixel is the sum over the atoms in their order, whatever the slab."""
    part = views.slices(int(numbers[0]), len(numbers))
    images = [own.background[view] + own.scale[view] * part.shown(atoms, own, view) for view in range(part.count)]
    return np.stack([images[place] for place in places], axis=1).astype(np.float32)
