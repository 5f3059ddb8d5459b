"""What a tilt series shows of Gaussians, view by view, and the derivatives of that. Plain arrays.

A view shows ``background + scale · Σ F``, with F the projection of a Gaussian whose place is moved by the view's shift.
Derivatives of a Gaussian are by z, y, x, height and width, those of a view by background, scale, shift along the axis
and shift across it; in this order.
"""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import xarray as xr

from nntomo_dask.arrays import finite, grid as grid_room, schema
from nntomo_dask.compute import cluster
from nntomo_dask.kernels import gaussians as kernel
from nntomo_dask.types import Float32, Float64, Integers

Pixels = Literal["points", "means"]
BACKGROUND, SCALE, ALONG, ACROSS = range(4)
OF_GAUSSIAN, OF_VIEW = 5, 4  # derivatives
HEIGHT = 3  # place of the height among the derivatives of a Gaussian
_Result = TypeVar("_Result")


class Gaussians(NamedTuple):
    """Gaussians in space."""

    positions: Float64  # (Gaussian, 3): z, y, x, [nm]
    heights: Float64  # (Gaussian,), in the unit of the volume
    widths: Float64  # (Gaussian,), standard deviations, [nm]


class OfViews(NamedTuple):
    """What is a view's own."""

    background: Float64  # (view,), in the unit of the series
    scale: Float64  # (view,)
    shift: Float64  # (view, 2): along the axis and across it, [nm]

    @classmethod
    def ideal(cls, count: int) -> "OfViews":
        """Views without a background and a shift."""
        return cls(np.zeros(count), np.ones(count), np.zeros((count, 2)))

    def moved(self, by: Float64) -> "OfViews":
        """After a step (view, 4)."""
        return OfViews(self.background + by[:, BACKGROUND], self.scale + by[:, SCALE], self.shift + by[:, ALONG:])


@dataclass(frozen=True)
class Views:
    """The geometry of a series, its views in ascending order of angle."""

    angles_deg: Float64
    grid: kernel.Grid
    shape: tuple[int, int]  # z, detector
    _pool: list[ThreadPoolExecutor] = field(default_factory=list)

    @classmethod
    def of(cls, series: xr.DataArray, pixels: Pixels) -> "Views":
        """Those of a tilt series that was checked."""
        size = float(series.attrs["pixel_size"])
        z, t = (np.asarray(series[dim].values, np.float64) for dim in (schema.Z, schema.DETECTOR))
        steps = [grid_room.spacing(values, size) for values in (z, t)]
        half_z, half_t = (abs(step) / 2 if pixels == "means" else 0.0 for step in steps)
        grid = kernel.Grid(float(z[0]), steps[0], float(t[0]), steps[1], size, half_z, half_t)
        return cls(np.sort(np.asarray(series[schema.ANGLE].values, np.float64)), grid, (z.size, t.size))

    def slices(self, first: int, count: int) -> "Views":
        """The same views of some slices."""
        return replace(self, grid=self.grid._replace(skipped=first), shape=(count, self.shape[1]))

    @property
    def count(self) -> int:
        """Number of views."""
        return int(self.angles_deg.size)

    @property
    def directions(self) -> Float64:
        """(view, 2): the derivatives of the place on the detector by y and x."""
        angles = np.deg2rad(self.angles_deg)
        return np.stack([np.sin(angles), np.cos(angles)], axis=1)

    @contextlib.contextmanager
    def threads(self) -> Iterator[None]:
        """Within this, `each` runs on the cores that the session has."""
        workers = min(cluster.current_workers(), self.count)
        if workers == 1:
            yield
            return
        with ThreadPoolExecutor(workers) as pool:
            self._pool.append(pool)
            try:
                yield
            finally:
                self._pool.pop()

    def each(self, function: Callable[[int], _Result]) -> list[_Result]:
        """``function(view)`` of all views, in their order."""
        numbers = range(self.count)
        return list(self._pool[-1].map(function, numbers) if self._pool else map(function, numbers))

    def centres(self, positions: Float64, shift: Float64, view: int) -> Float64:
        """(Gaussian, 2): places along and across the axis in a view."""
        across = positions[:, 1:] @ self.directions[view]
        return np.stack([positions[:, 0] + shift[view, 0], across + shift[view, 1]], axis=1)

    def shown(self, atoms: Gaussians, own: OfViews, view: int) -> Float64:
        """(z, detector): the Gaussians in a view, without its scale and background."""
        image = np.zeros(self.shape)
        coefficients = np.zeros((len(atoms.heights), 4))
        coefficients[:, kernel.HEIGHT] = atoms.heights
        kernel.add(self.centres(atoms.positions, own.shift, view), atoms.widths, coefficients, self.grid, image)
        return image

    def change(self, atoms: Gaussians, own: OfViews, view: int, by: Float64, by_own: Float64) -> Float64:
        """(z, detector): how a view changes with a small step (Gaussian, 5) of the Gaussians and (4,) of its own."""
        scaled = own.scale[view] * atoms.heights
        across = by[:, 1:3] @ self.directions[view]
        coefficients = np.empty((len(scaled), 4))
        coefficients[:, kernel.HEIGHT] = own.scale[view] * by[:, 3] + atoms.heights * by_own[SCALE]
        coefficients[:, kernel.ALONG] = scaled * (by[:, 0] + by_own[ALONG])
        coefficients[:, kernel.ACROSS] = scaled * (across + by_own[ACROSS])
        coefficients[:, kernel.WIDTH] = scaled * by[:, 4]
        image = np.full(self.shape, by_own[BACKGROUND])
        kernel.add(self.centres(atoms.positions, own.shift, view), atoms.widths, coefficients, self.grid, image)
        return image

    def sums(self, atoms: Gaussians, own: OfViews, view: int, image: Float64) -> tuple[Float64, Float64]:
        """(Gaussian, 5) and (4,): sums over an image times the derivatives; the transpose of `change`."""
        places = self.centres(atoms.positions, own.shift, view)
        found = kernel.correlate(places, atoms.widths, self.grid, image)
        scaled = own.scale[view] * atoms.heights
        by_place = scaled[:, None] * found[:, kernel.ALONG : kernel.ACROSS + 1]
        by_atom = np.empty((len(scaled), OF_GAUSSIAN))
        by_atom[:, 0] = by_place[:, 0]
        by_atom[:, 1:3] = by_place[:, 1:] * self.directions[view]
        by_atom[:, 3] = own.scale[view] * found[:, kernel.HEIGHT]
        by_atom[:, 4] = scaled * found[:, kernel.WIDTH]
        by_own = [float(image.sum()), float(atoms.heights @ found[:, kernel.HEIGHT]), *by_place.sum(axis=0)]
        return by_atom, np.array(by_own)

    def products(
        self, atoms: Gaussians, own: OfViews, view: int, weights: Float32, pairs: Integers | None = None
    ) -> Float64:
        """(pair, 5, 5): weighted sums of the products of derivatives of two Gaussians; without pairs, of each alone."""
        places = self.centres(atoms.positions, own.shift, view)
        if pairs is None:
            pairs = np.repeat(np.arange(len(places))[:, None], 2, axis=1)
        found = kernel.cross_products(places, atoms.widths, pairs, self.grid, weights)
        maps = self._maps(atoms, own, view)
        return np.asarray(np.swapaxes(maps[pairs[:, 0]], 1, 2) @ found @ maps[pairs[:, 1]])

    def _maps(self, atoms: Gaussians, own: OfViews, view: int) -> Float64:
        """(Gaussian, 4, 5): from a step in space to the coefficients of the kernel."""
        maps = np.zeros((len(atoms.heights), 4, OF_GAUSSIAN))
        scaled = own.scale[view] * atoms.heights
        maps[:, kernel.HEIGHT, 3] = own.scale[view]
        maps[:, kernel.ALONG, 0] = maps[:, kernel.WIDTH, 4] = scaled
        maps[:, kernel.ACROSS, 1:3] = scaled[:, None] * self.directions[view]
        return maps


def values(series: xr.DataArray, *, who: str) -> Float32:
    """(view, z, detector): the projections in ascending order of angle; a SchemaError where one is not finite."""
    rows = np.asarray(series.values, np.float32)
    finite.check_slab(rows, who=who, dims=schema.SERIES_DIMS)
    order = np.argsort(series[schema.ANGLE].values, kind="stable")
    return np.ascontiguousarray(rows[:, order].transpose(1, 0, 2))
