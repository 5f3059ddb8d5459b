"""Reconstruction by an unrolled iteration: total variation, improved step by step by small networks."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import dask.array as da
import numpy as np
import xarray as xr

from nntomo_dask import extras
from nntomo_dask.arrays import recipes, schema
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import chunking, device, streams
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import layout, unet
from nntomo_dask.kernels.backproject import BOTH
from nntomo_dask.kernels.network_tiles import Statistic
from nntomo_dask.networks.pretrained import pretrained_network
from nntomo_dask.networks.unrolled import REACH, UnrolledNetwork
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import METHODS, consistency as consistency_room, members, tv_weight
from nntomo_dask.reconstruction.blocks import BLOCK, thickness_of
from nntomo_dask.reconstruction.consistency import CONSISTENCY_HELP, Consistency
from nntomo_dask.reconstruction.first_guess import Conditioned, guess
from nntomo_dask.reconstruction.intensity import lazy_level
from nntomo_dask.reconstruction.method import Method, Scalar, reconstruct
from nntomo_dask.reconstruction.tv import TotalVariation
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Float64

NoiseShare = float | Literal["auto"]


@METHODS.register
@dataclass(frozen=True)
class Unrolled(Method):
    """Total variation, improved step by step by networks that see the projections too; see `unrolled`.

    Attributes
    ----------
    networks
        One, or the members of an ensemble.
    statistic
        Of the members' values in each voxel: "mean" or "spread".
    padding
        Pixels at either end by which projections were extended.
    """

    name: ClassVar[str] = "unrolled"
    title: ClassVar[str] = "Unrolled network"
    summary: ClassVar[str] = (
        "total variation, improved by a network that learned what matter looks like; it comes trained"
    )
    network: ClassVar[type[Any] | None] = UnrolledNetwork

    networks: tuple[UnrolledNetwork, ...] = ()
    noise: NoiseShare = setting(
        "auto",
        least=0,
        help="Standard deviation of the noise in a ray, as a share of the intensity level times a pixel; auto "
        "estimates it from the series, with all else that no volume explains.",
    )
    consistency: Consistency = setting("none", help=CONSISTENCY_HELP)
    statistic: Statistic = "mean"
    padding: int = 0

    @property
    def halo(self) -> int:
        """Neighbouring slices that are solved with a block; the networks see them."""
        return REACH

    @property
    def block(self) -> int:
        """Slices that are solved together."""
        return BLOCK

    def check(self, series: xr.DataArray) -> None:
        """Raise a SchemaError where the networks were trained for another series, or a setting is out of range."""
        super().check(series)
        consistency_room.check(self.consistency, who=self.name)
        members.check(self.name, self.networks, UnrolledNetwork, self.statistic)
        for member in self.networks:
            member.check(series, who=self.name)
        if isinstance(self.noise, str):
            if self.noise != "auto":
                refuse(self.name, needs='a noise of at least 0, or "auto"', got=f"{self.noise!r}", remedy="`noise=0`")
        elif not (math.isfinite(self.noise) and self.noise >= 0):
            refuse(self.name, needs='a noise of at least 0, or "auto"', got=f"{self.noise!r}", remedy="`noise=0`")
        schema.check_even_z(series, who=self.name)
        extras.check("torch", who=self.name)

    def prepare(self, series: xr.DataArray) -> tuple[Scalar, ...]:
        """The intensity level, the noise in units of it, a slice's thickness in pixels, and what consistency needs."""
        level = lazy_level(series, who=self.name)
        level = da.where(level > 0, level, np.float32(1))
        noise: Scalar = _unexplained(series, level) if isinstance(self.noise, str) else float(self.noise)
        more = consistency_room.prepare(series, self.consistency, level=level, pad=self.padding, who=self.name)
        return level, noise, thickness_of(series), *more

    def slab(self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None) -> Float32:
        """Reconstruct rows (slice + 2 · halo, angle, detector) to (slice, y, x), block by block."""
        one: Float32 = self._statistics(rows, angles_deg, prepared, axis, (self.statistic,))[:, 0]
        return one

    def mean_and_spread(
        self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None
    ) -> Float32:
        """Both statistics (slice, 2, y, x) of the members."""
        return self._statistics(rows, angles_deg, prepared, axis, BOTH)

    def _statistics(
        self,
        rows: Float32,
        angles_deg: Float64,
        prepared: Sequence[float],
        axis: Axis | None,
        wanted: tuple[Statistic, ...],
    ) -> Float32:
        """The wanted statistics (slice, statistic, y, x) of the members, the mean consistent with the measurement."""
        level, noise, thickness, *more = prepared
        count, size = len(rows) - 2 * self.halo, rows.shape[-1]
        volumes: Float32 = device.namespace(rows).empty((count, len(wanted), size, size), np.float32)
        pair = Projector(angles_deg, size, "native", axis)
        solver = partial(self._block, pair=pair, level=level, noise=noise, between=1 / thickness, wanted=wanted)
        need = self.device_bytes_per_slice((len(rows), angles_deg.size, size))
        for start in range(0, count, self.block):
            part = rows[start : start + self.block + 2 * self.halo]
            solved = pair.computed(solver, part, slice_bytes=need, who=self.name)
            inside = solved[self.halo : len(part) - self.halo]
            volumes[start : start + len(inside)] = inside
        if self.consistency != "none" and self.statistic == "mean":
            volumes[:, 0] = consistency_room.finished(
                volumes[:, 0],
                rows[self.halo : len(rows) - self.halo],
                pair,
                weight=self.consistency,
                minimum=0.0,
                noise=more[1:],
                pad=self.padding,
                who=self.name,
            )
        return volumes

    def _block(
        self,
        rows: Float32,
        *,
        pair: Projector,
        level: float,
        noise: float,
        between: float,
        wanted: tuple[Statistic, ...],
    ) -> Float32:
        """(slice + 2 · halo, statistic, y, x); the halo is empty."""
        from nntomo_dask.kernels import torch_unet

        xp = device.namespace(rows)
        found = guess(rows / np.float32(level), pair, noise=noise, between=between)
        operation = Conditioned(pair).normal
        outputs = []
        for member in self.networks:
            unseen = self.halo - member.reach
            seen = slice(unseen, len(rows) - unseen)
            slices = torch_unet.solved(
                [xp.asarray(step) for step in member.parameters],
                [found.first[seen], found.second[seen], found.descent[seen]],
                operation,
                noise=noise,
                width=member.width,
                neighbours=member.neighbours,
            )
            members.check_outputs(self.name, slices, [member])
            outputs.append(xp.maximum(slices, 0) * np.float32(level))
        volumes: Float32 = xp.zeros((len(rows), len(wanted), pair.size, pair.size), np.float32)
        inside = volumes[self.halo : len(rows) - self.halo]
        for place, statistic in enumerate(wanted):
            if len(outputs) > 1:
                inside[:, place] = {"mean": xp.mean, "spread": xp.std}[statistic](xp.stack(outputs), axis=0)
            elif statistic == "mean":
                inside[:, place] = outputs[0]
        lit = device.to_host(rows.any(axis=(1, 2)))
        for place in range(len(inside)):  # where there is nothing, a network says a little
            if not lit[place : place + 2 * self.halo + 1].any():
                inside[place] = 0
        return volumes

    def host_bytes(self, shape: chunking.SlabShape) -> int:
        """Of a block with its halo: two solutions, their solver, the members' slices, and the maps of one slice."""
        slices, angles, detector = shape
        blocks = -(-slices // self.block)
        image, rows = chunking.image_bytes(detector), chunking.rows_bytes(angles, detector)
        seen = self.block + 2 * self.halo
        lanes = layout.lane_width(seen, chunking.SLAB_SLICES)
        solving = 6 * layout.padded_image_bytes(detector, lanes) + 8 * lanes * rows
        statistics = min(len(self.networks), 2)
        networks = (5 + statistics + len(self.networks)) * seen * image + max(
            unet.buffer_bytes(unet.channel_count(member.neighbours), member.width, detector) for member in self.networks
        )
        finishing = consistency_room.host_bytes(shape) if self.consistency != "none" else 0
        volumes = 1 if statistics == 1 else 3
        kept = blocks * self.block * (volumes * image + chunking.READ * rows)
        return chunking.PYTORCH_BYTES + kept + max(2 * seen * image + max(solving, networks), finishing)

    def device_bytes_per_slice(self, shape: chunking.SlabShape) -> int:
        """Solving, and the volumes of the networks."""
        _, angles, detector = shape
        between = 16 * streams.bordered_image_bytes(detector) + 9 * streams.padded_rows_bytes(angles, detector)
        return streams.copied_bytes(angles, detector) + between

    def wanted_slices(self, shape: tuple[int, int, int]) -> int:
        """A block: slabs are made of whole ones in any case."""
        return self.block

    def recipe(self, series: xr.DataArray) -> recipes.Recipe:
        """The digests of the networks, the settings and the statistic; the networks' own recipes as inputs."""
        parameters = {
            "networks": [member.digest for member in self.networks],
            "noise": self.noise,
            "statistic": self.statistic,
        }
        if self.statistic == "mean":  # the spread is that of what the networks say
            parameters |= consistency_room.parameters(self.consistency)
        return recipes.record(self.name, parameters, [series, *(member.recipe for member in self.networks)])

    def outlook(self, series: xr.DataArray, prepared: Sequence[float]) -> list[str]:
        """What was found as noise."""
        if not isinstance(self.noise, str):
            return []
        found = f"note: noise {float(prepared[1]):.2g}, in units of the specimen's intensity; --noise sets another"
        return [f"{found}; it holds all that no volume explains"]

    def widened(self, pixels: int) -> "Unrolled":
        """The same for projections that were extended: what was not measured has no noise."""
        return dataclasses.replace(self, padding=pixels)

    @classmethod
    def own_networks(cls, angles_deg: Float64 | None = None) -> tuple[UnrolledNetwork, ...]:
        """The pretrained network, if PyTorch is there and it fits the angles."""
        found = pretrained_network()
        fits = angles_deg is None or (extras.is_installed("torch") and found.geometry.fits(angles_deg))
        return (found,) if fits else ()

    def for_angles(self, angles_deg: Float64) -> "Unrolled":
        """The same networks at some of the angles; those for one series are judged a little too strictly."""
        if not any(member.angles_deg for member in self.networks):
            return self
        angles = tuple(np.sort(angles_deg).tolist())
        others = (
            dataclasses.replace(member, geometry=dataclasses.replace(member.geometry, angles_deg=angles))
            for member in self.networks
        )
        return dataclasses.replace(self, networks=tuple(others))


def _unexplained(series: xr.DataArray, level: da.Array) -> da.Array:
    """The noise, and what else no volume explains as far as projections show that are left out in turn."""
    deviation = tv_weight.lazy_deviation(series, level, who=Unrolled.name)
    weight = tv_weight.lazy_choice(TotalVariation(), series, level)
    noise: da.Array = da.maximum(deviation, tv_weight.as_noise(weight, series.sizes[schema.ANGLE]))
    return noise


def unrolled(
    series: xr.DataArray,
    network: UnrolledNetwork | Sequence[UnrolledNetwork] | None = None,
    *,
    noise: NoiseShare = "auto",
    statistic: Statistic = "mean",
    consistency: Consistency = "none",
) -> xr.DataArray:
    """Reconstruct a tilt series with an unrolled iteration: total variation, improved by trained networks.

    Blocks of 24 slices, counted from the first of the series, are solved with total variation twice, with the weight
    that the noise asks for and with another. Then each step sees a slice, its neighbours, both solutions, the noise,
    and ``Aᵀ S (y - A x)``, the direction in which the slice fits its projections better; what it says is added. Lazy.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; slices at equal steps. Values are line integrals, [u · px].
    network
        From `train_unrolled` or `load_network`. Several are an ensemble, whose members are averaged. None: the
        pretrained one, see `pretrained_network`.
    noise
        Standard deviation in a ray, as a share of the `intensity_level` times a pixel. "auto" estimates it, and takes
        more where projections that are left out in turn ask for a higher weight of total variation, see `tv`.
    statistic
        "mean" of the members, or their "spread": the standard deviation, voxel by voxel.
    consistency
        See `msdnet`.

    Returns
    -------
    Dims (z, y, x), float32, at least 0, in [u].

    Raises
    ------
    SchemaError
        `series` is no tilt series, its slices are not at equal steps, or its angles are not those that the network
        learned; a setting is out of range; PyTorch is missing. When it is computed: a value is NaN or infinite.

    References
    ----------
    .. [1] J. Adler and O. Öktem, Learned Primal-Dual Reconstruction, IEEE Trans. Med. Imaging 37 (2018) 1322,
       doi:10.1109/TMI.2018.2799231.
    """
    chosen = pretrained_network() if network is None else network
    networks = tuple(chosen) if isinstance(chosen, Sequence) else (chosen,)
    return reconstruct(series, Unrolled(networks=networks, noise=noise, statistic=statistic, consistency=consistency))
