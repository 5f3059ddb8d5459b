"""How sure a volume is: the standard error of every voxel by leaving out each projection once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from nntomo_dask.arrays import detector, recipes, schema
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import chunking, device
from nntomo_dask.errors import refuse
from nntomo_dask.reconstruction import held_out
from nntomo_dask.reconstruction.held_out import Fold
from nntomo_dask.reconstruction.method import Method, Scalar, checked_axis, method_of, reconstruct
from nntomo_dask.types import Float32, Float64

_LEAST = 3  # projections, so that two are left


@dataclass(frozen=True)
class Jackknife(Method):
    """The jackknife's standard error of a method's volume; see `jackknife`. It is no method of the registry."""

    name: ClassVar[str] = "jackknife"
    title: ClassVar[str] = "Jackknife"

    method: Method

    @property
    def halo(self) -> int:
        """Neighbouring slices that the method looks at."""
        return self.method.halo

    @property
    def block(self) -> int:
        """Slices that the method solves together."""
        return self.method.block

    def check(self, series: xr.DataArray) -> None:
        """Raise a SchemaError where the method does not fit the series, or not that without a projection."""
        self.method.check(series)
        checked_axis(self.method, series)
        if self.method.network is not None:
            refuse(
                self.name,
                needs="a method without networks, which know a fixed number of projections",
                got=self.method.name,
                remedy="volume_and_spread, which judges it beside such a method",
            )
        count = series.sizes[schema.ANGLE]
        if count < _LEAST:
            refuse(
                self.name,
                needs=f"at least {_LEAST} projections",
                got=f"{count}",
                remedy="a volume alone, without its spread",
            )

    def prepare(self, series: xr.DataArray) -> tuple[Scalar, ...]:
        """What the method prepares, of the whole series."""
        return self.method.prepare(series)

    def widened(self, pixels: int) -> "Jackknife":
        """Of the method for longer rows."""
        return Jackknife(self.method.widened(pixels))

    def slab(self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None) -> Float32:
        """Standard errors (slice, y, x) of rows (slice, angle, detector), one reconstruction after the other."""
        xp, count = device.namespace(rows), len(angles_deg)
        ascending = np.argsort(angles_deg, kind="stable")  # in any order of the projections
        folds = [Fold(np.array([one]), np.delete(np.arange(count), one)) for one in ascending]
        volumes = held_out.reconstructions(self.method, rows, angles_deg, folds=folds, prepared=prepared, axis=axis)
        for number, volume in enumerate(volumes):
            if number == 0:
                mean, squares = volume, xp.zeros_like(volume)
                continue
            # Welford's update, in place: mean and sum of squared deviations of the volumes so far.
            volume -= mean
            squares += np.float32(number / (number + 1)) * volume * volume
            volume *= np.float32(1 / (number + 1))
            mean += volume
        squares *= np.float32((count - 1) / count)
        errors: Float32 = xp.sqrt(squares, out=squares)
        return errors

    def host_bytes(self, shape: chunking.SlabShape) -> int:
        """Those of the method, the rows that are left, and mean, squares and two temporary volumes."""
        slices, angles, pixels = shape
        kept = slices * chunking.rows_bytes(angles, pixels)
        return self.method.host_bytes(shape) + kept + 4 * slices * chunking.image_bytes(pixels)

    def device_bytes_per_slice(self, shape: chunking.SlabShape) -> int:
        """Those of the method, which puts its volumes back into host memory."""
        return self.method.device_bytes_per_slice(shape)

    def wanted_slices(self, shape: tuple[int, int, int]) -> int:
        """Slices of a slab that the method wants."""
        return self.method.wanted_slices(shape)

    def recipe(self, series: xr.DataArray) -> recipes.Recipe:
        """The method and its settings."""
        return recipes.record(self.name, {"method": self.method.name, **self.method.parameters()}, [series])

    def outlook(self, series: xr.DataArray, prepared: Sequence[float]) -> list[str]:
        """How much longer it takes."""
        count = series.sizes[schema.ANGLE]
        return [f"note: the spread takes {count} reconstructions more, one without each projection"]


def jackknife(
    series: xr.DataArray,
    method: Method | str,
    *,
    pad: detector.Pad = 0,
    prepared: Sequence[Scalar] | None = None,
    **settings: Any,
) -> xr.DataArray:
    """How far each voxel of a reconstruction depends on single projections: its standard error by the jackknife.

    The series is reconstructed N times, without each of its N projections in turn: ``x₁ … x_N`` with the mean ``m``.
    The standard error is ``√((N - 1)/N · Σ (x_i - m)²)``, voxel by voxel [1]_. It shows noise and streaks, and where
    few projections decide. It does not show what all projections lack alike, such as the missing wedge, nor what the
    method gets wrong with any of them: docs/theory.md tells how well it ranks the true error. Lazy, slab by slab, in
    the memory of a few volumes more than the method.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32, as for `reconstruct`; 3 projections or more.
    method
        A `Method` without networks, or the name of one. For networks see `volume_and_spread`.
    pad, prepared, settings
        See `reconstruct`.

    Returns
    -------
    Dims (z, y, x), float32, in the units of the volume that the method gives.

    Raises
    ------
    SchemaError
        As `reconstruct`; the method has networks, or there are fewer than 3 projections.

    References
    ----------
    .. [1] B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, Chapman & Hall, 1993, Eq. 11.5.
    """
    return reconstruct(series, Jackknife(method_of(method, settings)), pad=pad, prepared=prepared)
