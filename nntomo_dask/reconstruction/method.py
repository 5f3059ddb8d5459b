"""What a method of reconstruction says of itself, and how any method reconstructs a series."""

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import dask.array as da
import numpy as np
import xarray as xr

from nntomo_dask.arrays import detector, geometry, recipes, schema, slabs
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import chunking, reporting
from nntomo_dask.errors import refuse
from nntomo_dask.kernels.backproject import BOTH
from nntomo_dask.networks.network import Network, instead_of
from nntomo_dask.reconstruction import METHODS, members
from nntomo_dask.settings import check_settings, settings_of
from nntomo_dask.types import Float32, Float64

Scalar = float | da.Array  # a number, or a lazy one without dims


class Method(ABC):
    """A reconstruction. Subclasses are frozen dataclasses whose fields, made by `settings.setting`, are its settings.

    All that the package knows of a method follows from its class: the options of ``nntomo reconstruct`` and of networks
    that build on it, recipes, slabs within a memory budget, the tables of the documentation.

    Attributes
    ----------
    name
        What it is called on the command line and in recipes.
    title
        What tables and figures call it.
    summary
        What it is, in a few words; the help lists it.
    halo
        Neighbouring slices on either side that a slab looks at; 0 where slices are independent.
    block
        Slices that are solved together, counted from the first of the series; 0 where any may be in a slab.
    network
        The class of the networks that it needs; None for a method without one. Such a method has a field ``networks``.
    published
        Settings with which Branchut (2024) used it, where they differ from the defaults.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str] = ""
    network: ClassVar[type[Any] | None] = None
    published: ClassVar[Mapping[str, Any]] = {}

    @property
    def halo(self) -> int:
        """Neighbouring slices on either side that a slab looks at."""
        return 0

    @property
    def block(self) -> int:
        """Slices that are solved together, counted from the first of the series; 0 where any may be in a slab.

        A method whose result for a slice depends on others has to have blocks: then chunks change no bytes. `slab` gets
        one or more whole blocks; the last of a series may be lower.
        """
        return 0

    def check(self, series: xr.DataArray) -> None:
        """Raise a SchemaError where the series is none, a setting is out of range, or both do not fit."""
        schema.check_tilt_series(series, who=self.name)
        check_settings(self, who=self.name)

    def prepare(self, series: xr.DataArray) -> tuple[Scalar, ...]:
        """Scalars that every slab needs, such as a scale: numbers, or lazy ones that are computed once."""
        return ()

    def prepare_at(self, level: float) -> tuple[Scalar, ...]:
        """`prepare` for a series whose intensity level is known, where this method makes the input of a network."""
        return ()

    @abstractmethod
    def slab(self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None) -> Float32:
        """Reconstruct rows (slice + 2 · halo, angle, detector) to (slice, y, x).

        Beyond the ends of the volume the halo holds mirrored slices. The values of a slice must not depend on which
        others are in the slab, unless the method has a `block`, nor on the order of the projections. All values are
        finite.

        Parameters
        ----------
        axis
            Where the tilt axis crosses a slice, where that is not in the middle. A method may leave this parameter
            out; it then gets no series whose axis is elsewhere.
        """

    def mean_and_spread(
        self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None
    ) -> Float32:
        """Both statistics of an ensemble in one pass: (slice, 2, y, x); for methods with a field ``statistic``."""
        raise NotImplementedError

    @abstractmethod
    def host_bytes(self, shape: chunking.SlabShape) -> int:
        """Bytes of a slab (slices, angles, detector) in work at its peak, what is read and written included."""

    def device_bytes_per_slice(self, shape: chunking.SlabShape) -> int:
        """Bytes of GPU memory that one slice takes at the peak, its copies included; 0 where only the CPU is used."""
        return 0

    def wanted_slices(self, shape: tuple[int, int, int]) -> int:
        """Slices of a slab beyond which nothing is gained, for a series (z, angle, detector)."""
        return chunking.SLAB_SLICES

    def parameters(self) -> dict[str, Any]:
        """What a recipe says of the settings."""
        return {one.name: getattr(self, one.name) for one in settings_of(self)}

    def recipe(self, series: xr.DataArray) -> recipes.Recipe:
        """How the volume is made, for its attributes."""
        return recipes.record(self.name, self.parameters(), [series])

    def outlook(self, series: xr.DataArray, prepared: Sequence[float]) -> list[str]:
        """What can be said before a run: notes and warnings, a line each. It may read the series once."""
        return []

    @classmethod
    def as_input(cls, **networks: Any) -> Self:
        """The method with the settings that serve best as input of a network; `networks` where it needs some."""
        return cls(**networks)

    @classmethod
    def own_networks(cls, angles_deg: Float64 | None = None) -> "tuple[Any, ...]":
        """Networks that the package has for it, where none is given; of those, what fits a series at some angles."""
        return ()

    @classmethod
    def candidates(cls, **networks: Any) -> Sequence[Self]:
        """The settings that an assessment tries, the one that is preferred among equals first."""
        return (cls(**networks),)

    def strength(self, *prepared: float) -> float | None:
        """How strongly it suppresses noise, by its settings and what was prepared, to compare its own settings by.

        None where their order in `candidates` says it.
        """
        return None

    def widened(self, pixels: int) -> Self:
        """The same method for series whose projections were extended by so many pixels at either end."""
        return self

    def ends(self, prepared: Sequence[float]) -> list[float]:
        """Values that no voxel can exceed whatever the series says, in its units; `prepared` as for `slab`."""
        return []

    def for_angles(self, angles_deg: Float64) -> Self | None:
        """The same method for a series at some of its angles; None where it has to be trained for them."""
        return self if self.network is None else None


@dataclasses.dataclass(frozen=True)
class _Slab:
    """The function of a slab that Dask calls; it has the method's name in graphs."""

    method: Method
    angles_deg: Float64
    axis: Axis | None  # None in the middle
    both: bool = False
    pad: int = 0  # pixels at either end

    @property
    def __name__(self) -> str:
        return self.method.name

    def __call__(self, rows: Float32, *prepared: Any) -> Float32:
        function = self.method.mean_and_spread if self.both else self.method.slab
        where: dict[str, Any] = {} if self.axis is None else {"axis": self.axis}
        with reporting.slab(self.method.name) as figures:
            if self.pad:
                rows = detector.extended_rows(rows, pixels=self.pad)
            volume = function(rows, self.angles_deg, *(float(one) for one in prepared), **where)
            figures.slices = len(volume)
        if self.method.network is not None:
            members.check_outputs(self.method.name, volume, getattr(self.method, "networks", ()))
        if self.pad:
            inside = slice(self.pad, -self.pad)
            volume = np.ascontiguousarray(volume[..., inside, inside])
        return volume


def reconstruct(
    series: xr.DataArray,
    method: "Method | str | Network | Sequence[Network]",
    *,
    pad: detector.Pad = 0,
    prepared: Sequence[Scalar] | None = None,
    **settings: Any,
) -> xr.DataArray:
    """Reconstruct a tilt series by any method.

    Lazy: nothing is computed until the result is saved. Chunks along z are kept.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; angle and detector in one chunk each.
    method
        A `Method` with its settings, such as ``METHODS["sirt"](minimum=0)``; the name of one; or a network, or several
        of one kind, from `load_network` or a training.
    pad
        For a specimen that is larger than the field of view across the tilt axis: pixels by which the projections are
        extended at either end, from the mean of their last 64th to zero, as a squared cosine. The slices are
        reconstructed as much larger, and cropped. "auto": half of the detector. 0 where all matter is in view.
    prepared
        What `prepared_for` gave, computed already; left out, it is prepared here.
    settings
        Of the method, where it is given by name or by its network.

    Returns
    -------
    Dims (z, y, x), float32; y and x take the detector's coordinate, whose zero is the tilt axis. Where the axis lies
    beyond the detector, y lies about zero instead.

    Raises
    ------
    SchemaError
        There is no such method, a setting is out of range, or the method does not fit the series. When it is computed:
        a value is NaN or infinite.
    """
    chosen = method_of(method, settings)
    chosen.check(series)
    source = slabs.lazy(geometry.in_own_pixels(series))
    axis, pixels = checked_axis(chosen, source), detector.padding(pad, source, who=chosen.name)
    scalars = prepared_for(source, chosen, pad=pixels) if prepared is None else tuple(prepared)
    return slabs.map_slabs(
        _Slab(chosen.widened(pixels), source[schema.ANGLE].values, _shifted(axis, pixels), pad=pixels),
        source,
        dims=schema.VOLUME_DIMS,
        coords=schema.slice_coords(source),
        recipe=_padded(chosen.recipe(source), pixels),
        name="volume",
        extra=scalars,
        halo=chosen.halo,
        block=chosen.block,
    )


def prepared_for(series: xr.DataArray, method: Method, *, pad: detector.Pad = 0) -> tuple[Scalar, ...]:
    """What a method prepares of a series, with its projections extended as `reconstruct` does."""
    pixels = detector.padding(pad, series, who=method.name)
    return method.widened(pixels).prepare(detector.extended(geometry.in_own_pixels(series), pixels))


def padded_host_bytes(method: Method, shape: chunking.SlabShape, pad: int) -> int:
    """Bytes of a slab in work at its peak, with projections that are extended by so many pixels at either end."""
    slices, angles, count = shape
    wide = slices, angles, count + 2 * pad
    extra = slices * (chunking.image_bytes(count) + 2 * chunking.rows_bytes(*wide[1:])) if pad else 0
    return method.widened(pad).host_bytes(wide) + extra


def _shifted(axis: Axis | None, pixels: int) -> Axis | None:
    return None if axis is None else Axis(axis.y + pixels, axis.x + pixels)


def _padded(recipe: recipes.Recipe, pixels: int) -> recipes.Recipe:
    """The recipe of a volume from extended projections; without any, it is what it was."""
    return recipe if pixels == 0 else recipe | {"parameters": recipe["parameters"] | {"pad": pixels}}


def mean_and_spread(
    series: xr.DataArray,
    method: Method,
    *,
    pad: detector.Pad = 0,
    prepared: Sequence[Scalar] | None = None,
) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean and standard deviation of an ensemble's members, from one computation.

    The two volumes are those that the method gives alone with ``statistic="mean"`` and ``"spread"``, with the same
    recipes; `store.save_together` writes both and computes every slab once. Lazy.

    Parameters
    ----------
    series, pad, prepared
        See `reconstruct`.
    method
        A method with networks, two or more.

    Raises
    ------
    SchemaError
        See `reconstruct`; or the method has no ensembles.
    """
    if "statistic" not in {field.name for field in dataclasses.fields(method)}:  # type: ignore[arg-type]
        refuse("mean_and_spread", needs="a method with ensembles of networks", got=method.name, remedy="reconstruct")
    statistics = tuple(dataclasses.replace(method, statistic=name) for name in BOTH)  # type: ignore[type-var]
    for one in statistics:
        one.check(series)
    source = slabs.lazy(geometry.in_own_pixels(series))
    axis, pixels = checked_axis(method, source), detector.padding(pad, source, who=method.name)
    scalars = prepared_for(source, method, pad=pixels) if prepared is None else tuple(prepared)
    size = source.sizes[schema.DETECTOR]
    function = _Slab(method.widened(pixels), source[schema.ANGLE].values, _shifted(axis, pixels), both=True, pad=pixels)
    both = slabs.map_blocks(
        function,
        source.data,
        (2, size, size),
        who=method.name,
        dims=schema.SERIES_DIMS,
        extra=scalars,
        halo=method.halo,
        block=method.block,
    )
    mean, spread = (
        slabs.label(
            da.map_blocks(_take, both, place=place, drop_axis=1, dtype=np.float32, meta=np.empty((0,) * 3, np.float32)),
            dims=schema.VOLUME_DIMS,
            coords=schema.slice_coords(source),
            attrs={key: value for key, value in source.attrs.items() if key != "recipe"},
            recipe=_padded(one.recipe(source), pixels),
            name="volume",
        )
        for place, one in enumerate(statistics)
    )
    return mean, spread


def checked_axis(method: Method, series: xr.DataArray) -> Axis | None:
    """Where the tilt axis of a series lies; None in the middle of the detector.

    Raises
    ------
    SchemaError
        It is elsewhere, and the method takes no other place.
    """
    axis = schema.axis_of(series)
    size = series.sizes[schema.DETECTOR]
    if axis == Axis.centred(size):
        return None
    parameters = inspect.signature(method.slab).parameters
    if "axis" not in parameters and all(one.kind != one.VAR_KEYWORD for one in parameters.values()):
        refuse(
            method.name,
            needs="a series with the tilt axis, where the coordinate is zero, in the middle of the detector",
            got=f"it at pixel {axis.x:g} of {size}",
            remedy="give the method's slab a parameter axis; or pad or crop the series alike on both sides of the axis",
        )
    return axis


def _take(block: Float32, *, place: int) -> Float32:
    return block[:, place]


def method_of(method: "Method | str | Network | Sequence[Network]", settings: dict[str, Any]) -> Method:
    """The method that is given by itself, by its name or by its networks."""
    if isinstance(method, Method):
        if settings:
            names = ", ".join(settings)
            refuse(
                "reconstruct",
                needs="the settings within the method",
                got=f"{names} beside it",
                remedy=f"{method.name} with these settings",
            )
        return method
    if isinstance(method, str):
        found = METHODS.choose(method, who="reconstruct")
        _check_names(found, settings)
        own = {} if found.network is None or "networks" in settings else {"networks": found.own_networks()}
        return found(**own, **settings)
    networks = tuple(method) if isinstance(method, Sequence) else (method,)
    if not networks:
        refuse("reconstruct", needs="a network or several", got="an empty sequence", remedy="load_network(path)")
    kind = type(networks[0])
    name = str(getattr(kind, "name", ""))
    if name not in METHODS or METHODS[name].network is not kind:
        known = ", ".join(one for one in METHODS if METHODS[one].network is not None)
        refuse(
            "reconstruct",
            needs=f"a method, or a network of a known kind ({known})",
            got=f"{kind.__name__}",
            remedy=instead_of(networks[0], "register_network(kind, method) first"),
        )
    found = METHODS[name]
    _check_names(found, settings)
    return found(networks=networks, **settings)  # type: ignore[call-arg]


def _check_names(method: type[Method], settings: dict[str, Any]) -> None:
    known = {field.name for field in dataclasses.fields(method)}  # type: ignore[arg-type]
    for name in settings:
        if name not in known:
            refuse(method.name, needs=f"settings that it has: {', '.join(known)}", got=name, remedy="one of them")
