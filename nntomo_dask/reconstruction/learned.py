"""Reconstruction by a network of whatever kind."""

from collections.abc import Callable, Sequence
from typing import Any

import xarray as xr

from nntomo_dask.errors import refuse
from nntomo_dask.networks import files
from nntomo_dask.reconstruction.msdnet import msdnet
from nntomo_dask.reconstruction.nnfbp import nnfbp

Reconstruct = Callable[..., xr.DataArray]  # of a series, a network, and options

# By the kind of network: the functions of this package, and those that were registered.
_HERE: dict[str, Reconstruct] = {"nntomo_dask.nnfbp": nnfbp, "nntomo_dask.msdnet": msdnet}
_registered: dict[str, Reconstruct] = {}


def reconstruct(series: xr.DataArray, network: files.Network | Sequence[files.Network], **options: Any) -> xr.DataArray:
    """Reconstruct a tilt series with a trained network of any kind.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32.
    network
        From `load_network`, or from the function that trained it; several of one kind, where its function takes them.
    options
        Of the function for this kind: `nnfbp`, `msdnet`, or what was given to `register_network`.

    Returns
    -------
    Dims (z, y, x), float32; lazy.

    Raises
    ------
    SchemaError
        Nobody knows such a network, or it was made for another series.
    """
    first = network[0] if isinstance(network, Sequence) and network else network
    kind = getattr(first, "FORMAT", type(first).__name__)
    known = _HERE | _registered
    if kind not in known:
        refuse(
            "reconstruct",
            needs=f"a network of a known kind ({', '.join(known)})",
            got=str(kind),
            remedy="register_network(kind, function) first",
        )
    return known[kind](series, network, **options)


def register_network(kind: type[files.Network], function: Reconstruct) -> None:
    """Let `load_network` and `reconstruct` know another kind of network; docs/add_a_network.md shows one.

    Parameters
    ----------
    kind
        A class that fulfils `networks.files.Network`.
    function
        Of a series and a network of this kind, to a lazy volume (z, y, x), as `slabs.map_slabs` makes it.

    Raises
    ------
    SchemaError
        The kind has the name of one that this package has.
    """
    if kind.FORMAT in _HERE:
        refuse("register_network", needs="a FORMAT of its own", got=kind.FORMAT, remedy="choose another name")
    files.register(kind)
    _registered[kind.FORMAT] = function
