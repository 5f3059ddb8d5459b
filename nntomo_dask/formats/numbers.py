"""The type of the values in a file: as they are, or scaled to integers by a range that the file states."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import finite, schema, slabs
from nntomo_dask.errors import refuse
from nntomo_dask.formats import writing
from nntomo_dask.plotting.grey import range_of, window_of
from nntomo_dask.settings import check_settings, setting
from nntomo_dask.types import Float32

NumberType = Literal["float32", "int16", "uint16", "uint8"]
RangeWord = Literal["minmax", "percentiles", "none"]


@dataclass(frozen=True)
class Numbers:
    """How values are stored.

    Parameters
    ----------
    type
        Of a stored value.
    range
        The values that become the least and the largest integer.
    """

    type: NumberType = setting(
        "float32",
        help="Type of the stored values. Integers are scaled by --range; float32 keeps the values as they are.",
    )
    range: float | tuple[float, float] | RangeWord = setting(
        "minmax",
        help="Values that become the least and the largest integer; what lies outside becomes one of these. LOW,HIGH; "
        "minmax: the least and the largest of all values; percentiles: a thousandth of all values lies below and a "
        "thousandth above; none: values are rounded, not scaled. The file says how values follow from its integers.",
    )

    def stored(self, array: xr.DataArray, *, who: str) -> "Stored":
        """How the values of an array are converted; reads the array where the range follows from it.

        Raises
        ------
        SchemaError
            A setting is none, the range is empty, or values that are not scaled do not fit the type.
        """
        check_settings(self, who=who)
        if self.type == "float32":
            if self.range != "minmax":
                remedy = '`type="uint16"`, or leave `range` out'
                refuse(who, needs="a type of integers for a range", got="float32", remedy=remedy)
            return Stored("float32", 1.0, 0.0, -np.inf, np.inf, scaled=False)
        kind = np.iinfo(self.type)
        if self.range == "none":
            low, high = range_of(slabs.lazy(array).data)
            if np.rint(low) < kind.min or np.rint(high) > kind.max:
                refuse(
                    who,
                    needs=f"values from {kind.min} to {kind.max} where they are not scaled",
                    got=f"values from {low:g} to {high:g}",
                    remedy='`range="minmax"`, which scales them',
                )
            return Stored(self.type, 1.0, 0.0, low, high, scaled=False)
        if isinstance(self.range, tuple):
            if len(self.range) != 2:
                refuse(who, needs="a range LOW,HIGH", got=f"{len(self.range)} values", remedy="`range=(0, 1)`")
            low, high = self.range
            writing.check_finite_range(low, high, who=who)
        elif self.range == "minmax":
            low, high = range_of(slabs.lazy(array).data)
        elif self.range == "percentiles":
            low, high = window_of(slabs.lazy(array).data)
        else:
            refuse(who, needs="a range LOW,HIGH", got=f"{self.range}", remedy="`range=(0, 1)`, two values")
        if not low < high:  # one value everywhere
            high = low + 1.0
        step = (high - low) / (kind.max - kind.min)
        return Stored(self.type, step, low - step * kind.min, low, high, scaled=True)


@dataclass(frozen=True)
class Stored:
    """How values are converted.

    Attributes
    ----------
    type
        Of a stored value.
    step, zero
        A value is ``zero + step * stored``.
    low, high
        The range of values that the type holds.
    scaled
        Whether they are.
    """

    type: NumberType
    step: float
    zero: float
    low: float
    high: float
    scaled: bool

    @property
    def dtype(self) -> "np.dtype[Any]":
        """Little-endian, as files have it."""
        return np.dtype(self.type).newbyteorder("<")

    def convert(self, slab: Float32, first: int = 0) -> npt.NDArray[Any]:
        """Values of a slab (z, …) as they are stored; integers are made of finite ones. `first` is for errors."""
        if self.type == "float32":
            return slab
        finite.check_slab(slab, who="export", dims=(schema.Z, "row", "column"), first=first)
        kind = np.iinfo(self.type)
        out = np.empty(slab.shape, self.type)
        for image, place in zip(slab, out, strict=True):  # one at a time in double precision
            values = (image.astype(np.float64) - self.zero) / self.step
            place[...] = np.clip(np.rint(values), kind.min, kind.max)
        return out

    @property
    def text(self) -> str:
        """What a file says of it; empty where values are as they were."""
        if not self.scaled:
            return ""
        return f"value = {self.zero:.9g} + {self.step:.9g} * stored, from {self.low:.6g} to {self.high:.6g}"
