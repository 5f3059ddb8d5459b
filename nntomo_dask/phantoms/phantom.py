"""What a phantom says of itself."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Self

import numpy as np
import xarray as xr

from nntomo_dask.arrays import recipes, schema, slabs
from nntomo_dask.compute import chunking
from nntomo_dask.phantoms import PHANTOMS
from nntomo_dask.phantoms.shapes import Shape, checked_shape
from nntomo_dask.settings import check_settings, settings_of
from nntomo_dask.types import Float32


class Phantom(ABC):
    """A kind of known volume. Subclasses are frozen dataclasses whose fields, made by `settings.setting`, are settings.

    The options of ``nntomo phantom``, and the choices of ``nntomo train --phantom``, follow from the class.

    Attributes
    ----------
    name
        What it is called on the command line.
    summary
        What it is, in a few words; the help lists it.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    @property
    def scene(self) -> int | None:
        """Slices that show the same bodies, so that they are neighbours; None where all of them do."""
        return None

    @abstractmethod
    def volume(self, shape: Shape, *, seed: int = 0, pixel_size: float = 1.0) -> xr.DataArray:
        """The phantom, lazy: dims (z, y, x), float32, values from 0 to about 1, the same voxels whatever the chunks.

        Another seed must give another phantom.
        """

    def scene_of(self, size: int, slices: int, rng: np.random.Generator, *, finer: int) -> Float32:
        """Neighbouring slices of one specimen, (slice · finer, y, x), drawn on a finer grid; for training without end.

        Parameters
        ----------
        size, slices
            Pixels along a slice, and slices, before they are made finer.
        rng
            Says which specimen it is.
        finer
            How many times finer it is drawn along each axis.
        """
        count = finer * slices
        seed = int(rng.integers(2**31))
        lazy = self.volume((max(count, self.scene or 0), finer * size, finer * size), seed=seed)
        return np.asarray(lazy[:count].compute(scheduler="synchronous").values, np.float32)

    def host_bytes(self, shape: chunking.SlabShape) -> int:
        """Bytes of a slab (slices, y, x) in work at its peak, what is written included."""
        return slab_bytes(shape)

    def parameters(self) -> dict[str, object]:
        """What a recipe says of the settings."""
        return {one.name: getattr(self, one.name) for one in settings_of(self)}

    def check(self) -> None:
        """Raise a SchemaError where settings are out of range or contradict each other."""
        check_settings(self, who=f"phantom {self.name}")

    @classmethod
    def for_training(cls) -> Self:
        """The phantom with the settings that networks are trained on."""
        return cls()

    def for_single_slices(self) -> Self:
        """The same for what looks at slices one by one: with as many kinds of them as there can be."""
        return self

    def with_pixels_of(self, pixel_size_nm: float) -> Self:
        """The same for a series whose pixels are known, where the settings leave the size of voxels open."""
        return self


def volume_of_scenes(
    settings: Phantom, slab: Callable[..., Float32], shape: Shape, *, seed: int, pixel_size: float
) -> xr.DataArray:
    """A phantom whose slabs are ``slab(z_indices, size, seed, settings)``, (slice, y, x); lazy.

    Raises
    ------
    SchemaError
        The shape is not that of a volume with square slices, or a setting is out of range.
    """
    shape = checked_shape(settings.name, shape, 1, seed)
    settings.check()
    parameters = {"shape": shape, "seed": seed, "pixel_size": pixel_size, **settings.parameters()}
    return slabs.generate_slabs(
        slab,
        shape,
        recipe=recipes.record(settings.name, parameters),
        pixel_size=pixel_size,
        size=shape[1],
        seed=seed,
        settings=settings,
    )


def slab_bytes(shape: chunking.SlabShape) -> int:
    """Bytes of a slab (slices, y, x) that is made and written: its copies, and what making a slice takes."""
    slices, _, size = shape
    return (slices * chunking.WRITTEN + 12) * chunking.image_bytes(size)


def phantom(
    kind: str | Phantom, shape: Shape, *, seed: int = 0, pixel_size: float = 1.0, **settings: object
) -> xr.DataArray:
    """Make a phantom volume of any kind. Lazy.

    Parameters
    ----------
    kind
        The name of a phantom, or a `Phantom` with its settings.
    shape
        (z, y, x), or one size for all three.
    seed
        Another seed gives another phantom of the same kind.
    pixel_size
        Edge of a voxel, [px].
    settings
        Of the phantom, where it is given by name.

    Returns
    -------
    Dims (z, y, x), float32.

    Raises
    ------
    SchemaError
        There is no such phantom, a setting is out of range, or the shape is not that of a volume.
    """
    chosen = kind if isinstance(kind, Phantom) else PHANTOMS.choose(kind, who="phantom")(**settings)
    chosen.check()
    return chosen.volume(shape, seed=seed, pixel_size=pixel_size)


def for_training(kind: str | Phantom, series: xr.DataArray | None = None, *, who: str) -> Phantom:
    """A phantom that a network learns from: that of a name as `Phantom.for_training` has it, or one with its settings.

    Parameters
    ----------
    series
        The tilt series that the network is for. Where its pixels are in nm, so are those of the phantom.

    Raises
    ------
    SchemaError
        There is no such phantom, or a setting is out of range.
    """
    chosen = kind if isinstance(kind, Phantom) else PHANTOMS.choose(kind, who=who).for_training()
    if series is not None and series.attrs["units"] == "nm":
        chosen = chosen.with_pixels_of(schema.pixel_size_of(series))
    chosen.check()
    return chosen
