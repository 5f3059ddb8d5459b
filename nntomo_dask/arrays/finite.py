"""NaN and infinity: what computes refuses them where it meets them, and names the place.

A value that is not finite spreads to a whole slice or is lost in a comparison, so a result may look sound and be wrong.
Operations are lazy: the values are looked at slab by slab when they are computed. What only keeps or copies values
(stores, selections, files) leaves them as they are.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np

from nntomo_dask.arrays import schema
from nntomo_dask.compute import device
from nntomo_dask.errors import refuse


def is_finite(values: Any) -> bool:
    """Whether all values of an array are finite, on the device of the array.

    A sum tells it in one pass without a copy; where the sum itself is too large, each value is looked at.
    """
    xp = device.namespace(values)
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(float(values.sum())):
            return True
    return bool(xp.isfinite(values).all())


def check_slab(values: Any, *, who: str, dims: tuple[str, ...], first: int = 0) -> None:
    """Raise a SchemaError that names the first value of a slab that is not finite.

    Parameters
    ----------
    first
        Number of the slab's first slice in the whole array.
    """
    if is_finite(values):
        return
    host = device.to_host(values)
    bad = np.argwhere(~np.isfinite(host))[0]
    place = ", ".join(f"{dim}={index}" for dim, index in zip(dims, (bad[0] + first, *bad[1:]), strict=True))
    refuse(
        who,
        needs="finite values",
        got=f"{host[tuple(bad)]} at index {place}",
        remedy="replace what is not finite: array.where(np.isfinite(array), value)",
        command=schema.FILLED,
    )


@dataclass(frozen=True)
class Checked:
    """``function(slab, …)`` that looks at the slab first; it has the function's name in graphs."""

    function: Any
    who: str
    dims: tuple[str, ...]
    starts: tuple[int, ...]  # number of the first slice of each slab

    @property
    def __name__(self) -> str:
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def __call__(self, slab: Any, *extra: Any, block_id: tuple[int, ...], **parameters: Any) -> Any:
        """Refuse the slab, or apply the function to it."""
        check_slab(slab, who=self.who, dims=self.dims, first=self.starts[block_id[0]])
        return self.function(slab, *extra, **parameters)


def checked_data(data: da.Array, *, who: str, dims: tuple[str, ...]) -> da.Array:
    """The same lazy array, refused where it is computed and holds a value that is not finite."""
    function = Checked(_identity, who, dims, starts(data))
    same: da.Array = da.map_blocks(function, data, dtype=data.dtype, meta=data._meta)
    return same


def starts(data: da.Array) -> tuple[int, ...]:
    """The number of the first slice of each slab of a lazy array."""
    return tuple(itertools.accumulate(data.chunks[0][:-1], initial=0))


def _identity(block: Any) -> Any:
    return block
