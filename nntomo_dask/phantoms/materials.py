"""Matter as microscopes see it: the wide prior of networks."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from nntomo_dask.arrays import schema
from nntomo_dask.compute import chunking
from nntomo_dask.errors import refuse
from nntomo_dask.phantoms import PHANTOMS
from nntomo_dask.phantoms.composing import DISC, Rng
from nntomo_dask.phantoms.layouts import sketched
from nntomo_dask.phantoms.phantom import Phantom, volume_of_scenes
from nntomo_dask.phantoms.shapes import Shape, axis_of
from nntomo_dask.phantoms.solids import draw
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Float64, Integers

FINER = 2  # how many times finer than voxels matter is drawn along each axis
_STROKES_AT_ONCE = 6  # images of a slice, on the fine grid, that drawing it takes


@PHANTOMS.register
@dataclass(frozen=True)
class Materials(Phantom):
    """Scenes of matter of one to five densities, in three dimensions, each with its own bodies.

    Voxels at boundaries have the mean of what lies in them.
    """

    name: ClassVar[str] = "materials"
    summary: ClassVar[str] = (
        "scenes of matter of every kind: facets, pores, cores, layers, grains, gradients, particles, needles"
    )

    slices: int = setting(32, help="Number of neighbouring slices that show the same matter.", least=1, option="scene")
    smallest: float = setting(
        0.03, help="Radius of the smallest bodies and pores, as a fraction of half the slice width.", above=0, most=0.5
    )
    largest: float = setting(
        0.9, help="Radius of the largest bodies, as a fraction of half the slice width.", above=0, most=0.9
    )
    densities: int = setting(5, help="The most densities of matter in a scene.", least=1, most=8)
    lightest: float = setting(0.1, help="The least density of matter, as a share of the greatest.", above=0, most=0.9)
    one_density: float = setting(0.34, help="Share of the scenes in which all matter has one density.", least=0, most=1)
    smooth: float = setting(0.25, help="Share of the scenes in which densities vary smoothly.", least=0, most=1)
    least_filled: float = setting(
        0.0, help="The least share of the field that matter fills; scenes with less are drawn anew.", least=0, most=0.5
    )
    most_filled: float = setting(1.0, help="The greatest share of the field that matter fills.", least=0.02, most=1)

    @property
    def scene(self) -> int | None:
        """Neighbouring slices of a scene."""
        return self.slices

    def parameters(self) -> dict[str, object]:
        """What a recipe says of the settings; of those that are newer than the phantom, what is not the default."""
        usual = Materials()
        newer = {name for name in ("least_filled", "most_filled") if getattr(self, name) == getattr(usual, name)}
        return {name: value for name, value in super().parameters().items() if name not in newer}

    def for_single_slices(self) -> "Materials":
        """Scenes of two slices, which take little longer to draw than one."""
        return dataclasses.replace(self, slices=2)

    def volume(self, shape: Shape, *, seed: int = 0, pixel_size: float = 1.0) -> xr.DataArray:
        """The phantom, lazy."""
        return volume_of_scenes(self, _slab, shape, seed=seed, pixel_size=pixel_size)

    def scene_of(self, size: int, slices: int, rng: Rng, *, finer: int) -> Float32:
        """See `scene`."""
        return scene(size, slices, rng, finer=finer, settings=self)

    def check(self) -> None:
        """Raise a SchemaError where settings are out of range or contradict each other."""
        super().check()
        who = f"phantom {self.name}"
        if self.smallest > self.largest:
            refuse(
                who,
                needs="`smallest` up to `largest`",
                got=f"{self.smallest:g}",
                remedy=f"`smallest={self.largest / 10:g}`",
            )
        if self.least_filled * 2 > self.most_filled:
            got = f"{self.least_filled:g} and {self.most_filled:g}"
            remedy = f"`least_filled={self.most_filled / 4:g}`"
            refuse(who, needs="`least_filled` of at most half of `most_filled`", got=got, remedy=remedy)
        if self.one_density + self.smooth > 1:
            got = f"{self.one_density:g} and {self.smooth:g}"
            refuse(who, needs="`one_density` and `smooth` that add up to 1 at most", got=got, remedy="`smooth=0.25`")

    def host_bytes(self, shape: chunking.SlabShape) -> int:
        """Bytes of a slab (slices, y, x) in work at its peak, what is written included."""
        slices, _, size = shape
        fine = FINER**3 * _STROKES_AT_ONCE
        return (slices * chunking.WRITTEN + fine) * chunking.image_bytes(size)


def scene(size: int, slices: int, rng: Rng, *, finer: int = FINER, settings: Materials | None = None) -> Float32:
    """A scene on a grid that is `finer` times finer than its voxels along each axis, without partial voxels.

    Parameters
    ----------
    size
        Voxels along y and along x; half of that is the unit of lengths.
    slices
        Of the scene, in voxels.
    rng
        Of everything that is random.
    finer
        Points of the grid along the edge of a voxel. The means of blocks of `finer`³ are voxels.
    settings
        By default those of `Materials()`.

    Returns
    -------
    (slices · finer, size · finer, size · finer), values from 0 to 1.

    Raises
    ------
    SchemaError
        A setting is out of range.
    """
    chosen = settings or Materials()
    chosen.check()
    strokes = sketched(rng, slices / size, chosen).strokes
    axis, heights = axis_of(size * finer), _heights(size, slices, finer)
    drawn = np.empty((slices * finer, size * finer, size * finer), np.float32)
    for first in range(0, slices * finer, finer):
        drawn[first : first + finer] = draw(strokes, heights[first : first + finer], axis, DISC)
    return drawn


def _heights(size: int, slices: int, finer: int) -> Float64:
    return np.asarray(schema.centred(slices * finer) * (2 / (size * finer)))


def _slab(z_indices: Integers, size: int, seed: int, settings: Materials) -> Float32:
    axis, heights = axis_of(size * FINER), _heights(size, settings.slices, FINER)
    slab = np.empty((z_indices.size, size, size), np.float32)
    for number in np.unique(z_indices // settings.slices):
        rng = np.random.default_rng([seed, int(number)])
        strokes = sketched(rng, settings.slices / size, settings).strokes
        for index in np.flatnonzero(z_indices // settings.slices == number):
            first = int(z_indices[index] % settings.slices) * FINER
            slab[index] = binned(draw(strokes, heights[first : first + FINER], axis, DISC), FINER)[0]
    return slab


def binned(array: Float32, factor: int) -> Float32:
    """Means of blocks of `factor`³ points."""
    blocks = (part for count in array.shape for part in (count // factor, factor))
    return np.asarray(array.reshape(*blocks).mean(axis=(1, 3, 5), dtype=np.float32))
