"""Reconstruction by a Mixed-Scale Dense network: slices of another reconstruction, improved."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from nntomo_dask import extras
from nntomo_dask.arrays import geometry, recipes, schema
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import chunking, device
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import mixed_scale
from nntomo_dask.kernels.network_tiles import Statistic
from nntomo_dask.networks.msdnet import Inputs, MSDNetwork
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import METHODS, consistency as consistency_room, members
from nntomo_dask.reconstruction.consistency import CONSISTENCY_HELP, Consistency
from nntomo_dask.reconstruction.intensity import Scale, scales_of
from nntomo_dask.reconstruction.method import Method, Scalar, checked_axis, reconstruct
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Float64, Integers


@METHODS.register
@dataclass(frozen=True)
class Msdnet(Method):
    """Slices of another reconstruction, improved by a network that looks at their neighbours too; see `msdnet`.

    Attributes
    ----------
    networks
        One, or the members of an ensemble.
    statistic
        Of the members' values in each voxel: "mean" or "spread".
    padding
        Pixels at either end by which projections were extended.
    """

    name: ClassVar[str] = "msdnet"
    title: ClassVar[str] = "MS-D Net"
    summary: ClassVar[str] = "a deep network that improves the slices of another reconstruction; needs --network"
    network: ClassVar[type[Any] | None] = MSDNetwork

    networks: tuple[MSDNetwork, ...] = ()
    scale: Scale = setting(
        "auto",
        help="Intensity of the specimen, as a multiple of that of the training volumes; auto estimates it. 2 means "
        "twice as intense.",
        above=0,
    )
    consistency: Consistency = setting("auto", help=CONSISTENCY_HELP)
    statistic: Statistic = "mean"
    padding: int = 0

    @property
    def halo(self) -> int:
        """Slices on either side that the network looks at."""
        return self.networks[0].inputs.neighbours

    def check(self, series: xr.DataArray) -> None:
        """Raise a SchemaError where the networks do not go together, or were trained for another series."""
        schema.check_tilt_series(series, who=self.name)
        consistency_room.check(self.consistency, who=self.name)
        members.check(self.name, self.networks, MSDNetwork, self.statistic)
        first = self.networks[0]
        for member in self.networks:
            member.check(series, who=self.name)
            checked_axis(input_method(member.inputs), series)
            if self.halo:
                schema.check_even_z(series, who=self.name)
            if (member.inputs.digest, member.level) != (first.inputs.digest, first.level):
                refuse(
                    self.name,
                    needs="networks that were trained on one set",
                    got=f"{first.inputs.digest} and {member.inputs.digest}",
                    remedy="train them alike, with different seeds",
                )

    def prepare(self, series: xr.DataArray) -> tuple[Scalar, ...]:
        """The scale, one for all members; and what consistency needs."""
        first = self.networks[0]
        (scale,) = scales_of(self.name, series, [first.level], self.scale, of=first.inputs.level_of)
        level = scale * self.networks[0].level
        more = consistency_room.prepare(series, self.consistency, level=level, pad=self.padding, who=self.name)
        return scale, *more

    def slab(self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None) -> Float32:
        """Improved slices (slice, y, x), from rows (slice, angle, detector) of them and their neighbours."""
        outputs, scale = self._outputs(rows, angles_deg, prepared[0], axis)
        if self.statistic == "mean":
            return self._finished(np.mean(outputs, axis=0) * scale, rows, angles_deg, prepared, axis)
        whole: Float32 = device.namespace(rows).asarray(np.std(outputs, axis=0) * scale)
        return whole

    def mean_and_spread(
        self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None
    ) -> Float32:
        """Both statistics (slice, 2, y, x) of the members."""
        outputs, scale = self._outputs(rows, angles_deg, prepared[0], axis)
        mean = self._finished(np.mean(outputs, axis=0) * scale, rows, angles_deg, prepared, axis)
        xp = device.namespace(rows)
        both: Float32 = xp.stack([mean, xp.asarray(np.std(outputs, axis=0) * scale)], axis=1)
        return both

    def _finished(
        self, volume: Float32, rows: Float32, angles_deg: Float64, prepared: Sequence[float], axis: Axis | None
    ) -> Float32:
        """The volume consistent with the measurement, where the rows lie."""
        whole: Float32 = device.namespace(rows).asarray(volume)
        if self.consistency == "none":
            return whole
        angles = np.asarray(self.networks[0].inputs.angles_deg)
        own = geometry.rows_at(rows[self.halo : len(rows) - self.halo], angles_deg, angles)
        return consistency_room.finished(
            whole,
            own,
            Projector(angles, rows.shape[-1], axis=axis),
            weight=self.consistency,
            minimum=prepared[1],
            noise=prepared[2:],
            pad=self.padding,
            who=self.name,
        )

    def _outputs(
        self, rows: Float32, angles_deg: Float64, factor: float, axis: Axis | None
    ) -> tuple[list[Float32], np.float32]:
        """The slices of each member, in units of the training volumes, and the scale."""
        scale, first = np.float32(factor), self.networks[0]
        rows = geometry.rows_at(rows, angles_deg, first.inputs.angles_deg)
        parts = input_slab(rows, first.inputs, float(scale), first.level, axis)
        sources = [device.to_host(part) / scale for part in parts]
        outputs: list[Any] = [
            sum(improved(source, member) for source in sources) / np.float32(len(sources)) for member in self.networks
        ]
        for member, output in zip(self.networks, outputs, strict=True):
            members.check_outputs(self.name, output, [member])
        return outputs, scale

    def host_bytes(self, shape: chunking.SlabShape) -> int:
        """The input's reconstruction with the halo, two copies of it and the feature maps, or consistency; the slab."""
        slices, angles, detector = shape
        seen, image = slices + 2 * self.halo, chunking.image_bytes(detector)
        making = input_method(self.networks[0].inputs).host_bytes((seen, angles, detector))
        maps = max(
            mixed_scale.buffer_bytes(member.inputs.channels + member.depth, detector, detector)
            for member in self.networks
        )
        finishing = consistency_room.host_bytes(shape) if self.consistency != "none" else 0
        return max(making + 2 * seen * image + maps, finishing) + (2 + chunking.WRITTEN) * slices * image

    def wanted_slices(self, shape: tuple[int, int, int]) -> int:
        """Slices of a default slab: they are improved one by one."""
        return chunking.slab_slices((shape[0], shape[2], shape[2]))

    def recipe(self, series: xr.DataArray) -> recipes.Recipe:
        """The digests of the networks, the scale and the statistic; the networks' own recipes as inputs."""
        parameters = {
            "networks": [member.digest for member in self.networks],
            "scale": self.scale,
            "statistic": self.statistic,
        }
        if self.statistic == "mean":  # the spread is that of what the networks say
            parameters |= consistency_room.parameters(self.consistency)
        return recipes.record(self.name, parameters, [series, *(member.recipe for member in self.networks)])

    def widened(self, pixels: int) -> "Msdnet":
        """The same method, which knows that the ends were not measured."""
        return dataclasses.replace(self, padding=self.padding + pixels)

    def for_angles(self, angles_deg: Float64) -> "Msdnet | None":
        """The same networks after a reconstruction from these projections; None where that needs a network itself.

        What the networks learned of the streaks of all projections fits those of fewer less well, so that they are
        judged a little too strictly.
        """
        if any(member.inputs.network is not None for member in self.networks):
            return None
        angles = tuple(np.sort(angles_deg).tolist())
        fewer = (
            dataclasses.replace(member, inputs=dataclasses.replace(member.inputs, angles_deg=angles))
            for member in self.networks
        )
        return dataclasses.replace(self, networks=tuple(fewer))


def msdnet(
    series: xr.DataArray,
    network: MSDNetwork | Sequence[MSDNetwork],
    *,
    scale: Scale = "auto",
    consistency: Consistency = "auto",
    statistic: Statistic = "mean",
) -> xr.DataArray:
    """Reconstruct a tilt series with a trained Mixed-Scale Dense network, or with several of them.

    The series is reconstructed by the method that the network was trained on, and each slice is improved by the
    network, which looks at its neighbours too; at the ends of the volume they are mirrored. Whole slices, since a voxel
    depends on all others of its slice. Lazy, chunks along z are kept; a slab reconstructs its neighbours' edges again.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32, at the angles for which the network was trained, in any order; any detector,
        unless the input is by NN-FBP, which needs as many pixels. Slices are at equal steps.
    network
        From `train_msdnet` or `load_network`. Several, with the same inputs: an ensemble, whose members are averaged.
    scale
        What one unit of the training volumes is in the series' own units; see `nnfbp`.
    consistency
        How far the volume, of an ensemble the mean, is moved to what the projections say: ``min ‖A x - y‖² + μ ‖x -
        network‖²``, with values of at least 0 unless line integrals are clearly negative. "auto" takes μ from the noise
        of the series and from what the projections of each slice differ by; a number is μ, [px²]; "none" leaves the
        volume as it is. `report` tells the difference before and after.
    statistic
        "mean" of the members, or their "spread": the standard deviation, voxel by voxel, as a measure of how far the
        mean may be trusted. The spread is that of what the networks say, whatever the consistency.

    Returns
    -------
    Dims (z, y, x), float32, in the units of `series`; y and x take the detector's coordinate.

    Raises
    ------
    SchemaError
        `series` is no tilt series or has other angles than the network; the scale is not above zero; the members differ
        in their inputs, or are too few for a spread. When it is computed: a value is NaN or infinite.

    References
    ----------
    .. [1] D. M. Pelt, K. J. Batenburg and J. A. Sethian, J. Imaging 4 (2018) 128, doi:10.3390/jimaging4110128.
    """
    networks = tuple(network) if isinstance(network, Sequence) else (network,)
    return reconstruct(series, Msdnet(networks=networks, scale=scale, consistency=consistency, statistic=statistic))


def input_method(inputs: Inputs, *, who: str = "input of a network") -> Method:
    """The method whose reconstruction a network improves, with its settings.

    Raises
    ------
    SchemaError
        There is no such method, it needs a network that is not given, or it looks at neighbouring slices itself.
    """
    found = METHODS.choose(inputs.method, who=who)
    networks: dict[str, Any] = {} if inputs.network is None else {"networks": (inputs.network,)}
    if (found.network is not None) != bool(networks):
        refuse(
            who,
            needs=f"a network for {found.title}" if not networks else f"no network for {found.title}",
            got="none" if not networks else type(inputs.network).__name__,
            remedy="`network=load_network(path)`",
        )
    try:
        method = found.as_input(**networks) if inputs.settings is None else found(**networks, **inputs.settings)
    except TypeError as error:
        refuse(who, needs=f"settings of {found.title}", got=f"others ({error})", remedy="train the network again")
    if getattr(method, "consistency", None) == "noiseless":  # the series would decide what a network gets to see
        method = dataclasses.replace(method, consistency="none")  # type: ignore[type-var]
    if method.halo:
        refuse(who, needs="a method of single slices", got=found.title, remedy="another method")
    return method


def input_slab(rows: Float32, inputs: Inputs, factor: float, level: float, axis: Axis | None = None) -> list[Float32]:
    """The reconstructions (slice, y, x) of rows (slice, angle, detector) that a network improves, one for each split.

    Rows are in the order of the network's angles. `factor` is what one unit of the training volumes is here, `level`
    the training series' intensity, `axis` where the tilt axis is unless it is in the middle.
    """
    angles = np.asarray(inputs.angles_deg)
    method = input_method(inputs)
    scalars = [float(one) for one in method.prepare_at(factor * level)]
    where: dict[str, Any] = {} if axis is None else {"axis": axis}
    return [
        method.slab(rows[:, kept], angles[kept], *scalars, **where)
        for kept in kept_projections(angles.size, inputs.splits)
    ]


def kept_projections(count: int, splits: int) -> list[Integers]:
    """Of each split, the projections that its input is made of: all, or those that are not its own.

    Projections are dealt out one by one. Training puts them in ascending order of angle first, so that every split has
    all directions; networks of version 0.1.0 have the order of their series.
    """
    if splits == 1:
        return [np.arange(count)]
    return [np.flatnonzero(np.arange(count) % splits != split) for split in range(splits)]


def improved(slices: Float32, network: MSDNetwork) -> Float32:
    """Improve slices (slice, y, x), in units of the training volumes; the outermost are neighbours only."""
    channels = network.inputs.channels
    scaled = (slices - np.float32(network.input_mean)) / np.float32(network.input_deviation)
    windows = [scaled[z : z + channels] for z in range(len(scaled) - channels + 1)]
    if device.computes_on_gpu():
        extras.check("torch", who=f"{network.name} on a GPU")
        from nntomo_dask.kernels import torch_layers

        output = torch_layers.on_gpu(windows, network.parameters, network.depth)
    else:
        maps = mixed_scale.buffer(channels + network.depth, *slices.shape[1:])
        output = np.stack([mixed_scale.forward(one, network.parameters, network.depth, maps)[0] for one in windows])
    result: Float32 = output * np.float32(network.target_deviation) + np.float32(network.target_mean)
    return result
