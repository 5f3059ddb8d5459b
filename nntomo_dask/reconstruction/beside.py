"""How far a volume may be off: its difference from another method's volume, and how sure that one is."""

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from nntomo_dask.arrays import detector, recipes, schema, slabs
from nntomo_dask.compute import device
from nntomo_dask.networks.network import Network
from nntomo_dask.reconstruction.jackknife import Jackknife
from nntomo_dask.reconstruction.method import Method, method_of, prepared_for, reconstruct
from nntomo_dask.reconstruction.tv import TotalVariation
from nntomo_dask.types import Float32

_EMPTY = np.empty((0,) * 3, np.float32)


def volume_and_spread(
    series: xr.DataArray,
    method: Method | str | Network | Sequence[Network],
    *,
    beside: Method | str = TotalVariation.name,
    pad: detector.Pad = 0,
    **settings: Any,
) -> tuple[xr.DataArray, xr.DataArray]:
    """A volume by any method, and how far each voxel may be off, judged beside a method without networks.

    The spread is ``√(d² + s²)``: d is the difference of the two methods' volumes, s the standard error of the other one
    by the `jackknife`. It needs one network only, and sees what all members of an ensemble get wrong alike. On known
    specimens the error of networks was 0.8 to 1.5 times their spread beside total variation, and 1.7 to 21 times the
    spread of ensembles: docs/theory.md. Where the method is much better than the other, the spread is that of the
    other, too large. What both get wrong alike does not show, such as matter that only the missing wedge would tell.
    Lazy, slab by slab, in the memory of the three reconstructions together; the other method computes as many volumes
    as there are projections, and one.

    Parameters
    ----------
    series, method, pad, settings
        See `reconstruct`.
    beside
        The other method, or its name: one without networks.

    Returns
    -------
    The volume, as `reconstruct` gives it, and the spread, with the same dims, coordinates and units, in host memory.
    `save_together` writes both.

    Raises
    ------
    SchemaError
        As `reconstruct` and `jackknife`.
    """
    chosen, other = method_of(method, settings), method_of(beside, {})
    volume = reconstruct(series, chosen, pad=pad)
    prepared = prepared_for(series, other, pad=pad)  # once, for both
    reference, error = (reconstruct(series, one, pad=pad, prepared=prepared) for one in (other, Jackknife(other)))
    data = da.map_blocks(
        _combined,
        volume.data,
        *(one.data.rechunk(volume.data.chunks) for one in (reference, error)),
        dtype=np.float32,
        meta=_EMPTY,
    )
    spread = slabs.label(
        data,
        dims=schema.VOLUME_DIMS,
        coords=volume.coords,
        attrs={key: value for key, value in volume.attrs.items() if key != "recipe"},
        recipe=recipes.record("spread_beside", {}, [volume, reference, error]),
        name="volume",
    )
    return volume, spread


def _combined(volume: Any, reference: Any, error: Any) -> Float32:
    ours, others, errors = (device.to_host(block) for block in (volume, reference, error))
    spread: Float32 = np.hypot(ours - others, errors)
    return spread
