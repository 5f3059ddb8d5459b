"""Reconstruction by NN-FBP networks, one or an ensemble."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import compute

from nntomo_dask.arrays import geometry, recipes, schema
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import chunking, device, streams
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import cuda, filters
from nntomo_dask.kernels.backproject import NetworkEnd, backproject_network, backproject_statistics
from nntomo_dask.kernels.network_tiles import Statistic
from nntomo_dask.networks.nnfbp import NNFBPNetwork, folded
from nntomo_dask.networks.nnfbp_layout import InputLayout
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import METHODS, consistency as consistency_room, members, training_range
from nntomo_dask.reconstruction.consistency import NOISELESS_HELP, OfCoarse
from nntomo_dask.reconstruction.intensity import Scale, scales_of
from nntomo_dask.reconstruction.method import Method, Scalar, reconstruct
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Float64

_GROUP = 8  # slices whose filtered rows are held at once: as many as the kernel takes


@METHODS.register
@dataclass(frozen=True)
class Nnfbp(Method):
    """One backprojection of a network's filters with its end in the same loop; see `nnfbp`.

    Attributes
    ----------
    networks
        One, or the members of an ensemble.
    statistic
        Of the members' values in each voxel: "mean" or "spread".
    warns
        Whether a slab counts the network's inputs outside its training range, and warns where they are many.
    padding
        Pixels at either end by which projections were extended.
    """

    name: ClassVar[str] = "nnfbp"
    title: ClassVar[str] = "NN-FBP"
    summary: ClassVar[str] = "a small network of learned filters within filtered backprojection; needs --network"
    network: ClassVar[type[Any] | None] = NNFBPNetwork

    networks: tuple[NNFBPNetwork, ...] = ()
    scale: Scale = setting(
        "auto",
        help="Intensity of the specimen, as a multiple of that of the training volumes; auto estimates it. 2 means "
        "twice as intense.",
        above=0,
    )
    consistency: OfCoarse = setting("noiseless", help=NOISELESS_HELP)
    statistic: Statistic = "mean"
    warns: bool = True
    padding: int = 0

    def check(self, series: xr.DataArray) -> None:
        """Raise a SchemaError where the networks do not go together, or were trained for another series."""
        members.check(self.name, self.networks, NNFBPNetwork, self.statistic)
        _check_forms(self.name, self.networks)
        consistency_room.check(self.consistency, who=self.name, words=("auto", "none", "noiseless"))
        schema.check_tilt_series(series, who=self.name)
        self.networks[0].layout.check(series, who=self.name)

    def prepare(self, series: xr.DataArray) -> tuple[Scalar, ...]:
        """A scale for each network; and what consistency needs."""
        levels, of = [network.level for network in self.networks], self.networks[0].layout.level_of
        scales = scales_of(self.name, series, levels, self.scale, of=of)
        level = scales[0] * self.networks[0].level
        more = consistency_room.prepare(series, self.consistency, level=level, pad=self.padding, who=self.name)
        return *scales, *more

    def prepare_at(self, level: float) -> tuple[Scalar, ...]:
        """A scale for each network, for a series of that intensity; and what consistency needs, without noise."""
        scales = (level / network.level for network in self.networks)
        return *scales, *consistency_room.prepare_at(self.consistency, level=level)

    def slab(self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None) -> Float32:
        """Reconstruct rows (slice, angle, detector) to (slice, y, x); `prepared` begins with the networks' scales."""
        volume = self._reconstructed(rows, angles_deg, prepared[: len(self.networks)], axis, both=False)
        return self._finished(volume, rows, angles_deg, prepared, axis) if self.statistic == "mean" else volume

    def mean_and_spread(
        self, rows: Float32, angles_deg: Float64, *prepared: float, axis: Axis | None = None
    ) -> Float32:
        """Reconstruct rows (slice, angle, detector) to (slice, 2, y, x)."""
        both = self._reconstructed(rows, angles_deg, prepared[: len(self.networks)], axis, both=True)
        both[:, 0] = self._finished(both[:, 0], rows, angles_deg, prepared, axis)
        return both

    def _finished(
        self, volume: Float32, rows: Float32, angles_deg: Float64, prepared: Sequence[float], axis: Axis | None
    ) -> Float32:
        """The volume consistent with the measurement."""
        if self.consistency == "none":
            return volume
        own = np.asarray(self.networks[0].layout.series_angles_deg)
        measured, pair = geometry.rows_at(rows, angles_deg, own), Projector(own, rows.shape[-1], axis=axis)
        minimum, *more = prepared[len(self.networks) :]
        if self.consistency == "noiseless":
            return consistency_room.finished_without_noise(
                volume, measured, pair, minimum=minimum, is_noiseless=more[0], who=self.name
            )
        return consistency_room.finished(
            volume,
            measured,
            pair,
            weight=self.consistency,
            minimum=minimum,
            noise=more,
            pad=self.padding,
            who=self.name,
        )

    def _reconstructed(
        self, rows: Float32, angles_deg: Float64, scales: Sequence[float], axis: Axis | None, *, both: bool
    ) -> Float32:
        layout = self.networks[0].layout
        rows = geometry.rows_at(rows, angles_deg, layout.series_angles_deg)
        if self.warns:
            training_range.warn(self.name, training_range.figures_of(rows, scales, self.networks, axis))
        responses, end = folded(self.networks, list(scales), statistic=self.statistic)
        self._check_bounded(rows, responses, end)
        # Of the second statistic, computed and copied.
        image = streams.bordered_image_bytes(rows.shape[-1]) if both else 0
        volume: Float32 = streams.streamed(
            functools.partial(_reconstruct, layout=layout, responses=responses, end=end, axis=axis, both=both),
            rows,
            slice_bytes=self.device_bytes_per_slice((len(rows), 0, rows.shape[-1])) + 4 * image,
            who=self.name,
        )
        return volume

    def _check_bounded(self, rows: Float32, responses: npt.NDArray[Any], end: NetworkEnd) -> None:
        """Raise a SchemaError where numbers may get too large for single precision, which the output would not show."""
        peak = float(max(rows.max(), -rows.min()))
        with np.errstate(over="ignore", invalid="ignore"):
            # A filtered row is at most the mean of its response's magnitudes times the sum of the row.
            of_rows = 2 * np.abs(responses).mean(axis=-1).sum(axis=-1) * rows.shape[-1]
            largest = end.largest((of_rows * peak).reshape(end.n_members, -1))
        for network, bound in zip(self.networks, largest.tolist(), strict=True):
            if not bound <= float(np.finfo(np.float32).max):
                members.refuse_outputs(self.name, [network])

    def host_bytes(self, shape: chunking.SlabShape) -> int:
        """Slab in and out, its spectra; of a group of slices the filtered rows of every hidden node; consistency."""
        slices, _, detector = shape
        angles = self.networks[0].layout.used_angles_deg.size
        image, rows = chunking.image_bytes(detector), chunking.rows_bytes(angles, detector)
        spectrum = chunking.spectrum_bytes(angles, detector)
        in_and_out = slices * (chunking.WRITTEN * image + (chunking.READ + 1) * rows + spectrum)
        finishing = consistency_room.host_bytes(shape) if self.consistency != "none" else 0
        return in_and_out + max(min(slices, _GROUP) * self._hidden * (3 * rows + 2 * spectrum), finishing)

    def device_bytes_per_slice(self, shape: chunking.SlabShape) -> int:
        """Padded rows and their spectra; of every hidden node filtered rows, and spectra before and after."""
        _, _, detector = shape
        angles = self.networks[0].layout.used_angles_deg.size
        row = streams.padded_rows_bytes(angles, detector)
        spectrum = 2 * row
        between = 2 * row + 2 * spectrum + self._hidden * (2 * row + 3 * spectrum)
        return streams.copied_bytes(angles, detector) + between

    def wanted_slices(self, shape: tuple[int, int, int]) -> int:
        """Slices of a default slab: the kernel takes eight at a time."""
        return chunking.slab_slices((shape[0], shape[2], shape[2]))

    def recipe(self, series: xr.DataArray) -> recipes.Recipe:
        """The digests of the networks, the scale and the statistic; the networks' own recipes as inputs."""
        parameters: dict[str, Any]
        if len(self.networks) == 1:
            parameters = {"network": self.networks[0].digest, "scale": self.scale}
        else:
            digests = [member.digest for member in self.networks]
            parameters = {"networks": digests, "scale": self.scale, "statistic": self.statistic}
        if self.statistic == "mean":  # the spread is that of what the networks say
            parameters |= consistency_room.parameters(self.consistency)
        return recipes.record(self.name, parameters, [series, *(member.recipe for member in self.networks)])

    def outlook(self, series: xr.DataArray, prepared: Sequence[float]) -> list[str]:
        """The scale, and the share of the first network's inputs outside its training range."""
        (figures,) = compute(training_range.outside(series, self.networks[0], prepared[0]).mean(axis=1))
        share, mean_square = figures.tolist()
        origin = "estimated" if self.scale == "auto" else "given"
        lines = [
            f"intensity of the specimen, {origin}: {prepared[0]:.5g} times that of the training volumes",
            f"inputs outside the training range: {training_range.told(share, mean_square)}",
        ]
        if training_range.is_far(mean_square):
            lines.append(
                f"warning: beyond {training_range.OUTSIDE_LIMIT:.0%} the network extrapolates; train it on phantoms "
                "more like this specimen, subtract the background at import, or set --scale"
            )
        return lines

    @classmethod
    def as_input(cls, **networks: Any) -> "Nnfbp":
        """What networks say, as those learned that improve it."""
        return cls(**networks, consistency="none")

    def ends(self, prepared: Sequence[float]) -> list[float]:
        """The greatest values of networks with a sigmoid as output."""
        pairs = zip(self.networks, prepared[: len(self.networks)], strict=True)
        return [network.target_high * scale for network, scale in pairs if network.output == "sigmoid"]

    def widened(self, pixels: int) -> "Nnfbp":
        """The same filters for longer rows."""
        longer = (dataclasses.replace(one, layout=one.layout.widened(pixels)) for one in self.networks)
        return dataclasses.replace(self, networks=tuple(longer), padding=self.padding + pixels)

    def for_angles(self, angles_deg: Float64) -> "Nnfbp | None":
        """The same filters for these projections, without warnings; None where these have another kind of wedge.

        They were learned for all projections and fit fewer less well, so that the networks are judged too strictly.
        Where each projection has a filter of its own, those that are missing are interpolated.
        """
        layout = self.networks[0].layout.without(angles_deg)
        if layout is None:
            return None
        fewer = tuple(dataclasses.replace(member, layout=layout) for member in self.networks)
        return dataclasses.replace(self, networks=fewer, warns=False)

    @property
    def _hidden(self) -> int:
        return sum(network.n_hidden for network in self.networks)


def nnfbp(
    series: xr.DataArray,
    network: NNFBPNetwork | Sequence[NNFBPNetwork],
    *,
    scale: Scale = "auto",
    consistency: OfCoarse = "noiseless",
    statistic: Statistic = "mean",
) -> xr.DataArray:
    """Reconstruct a tilt series with a trained NN-FBP network, or with several.

    One backprojection of the network's filters side by side, with its end in the same loop (Branchut 2024, Eq. 9);
    there is never a volume for each hidden node. An ensemble, networks trained with other seeds, is a network with as
    many times the hidden nodes: still one backprojection, without a volume for each member. The result is the members'
    mean or their spread. The spread shows where the result depends on the random initialisation of the training, not
    errors that all members share. Lazy, chunks along z are kept. While it computes, slabs warn where a network's
    inputs lie far outside the range seen in training: it then extrapolates; see `outside_training_range`.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32, at the angles, in any order, and with the number of detector pixels for
        which the network was trained. The tilt axis may lie anywhere on the detector: the filters are the same at every
        place.
    network
        From `train_nnfbp` or `load_network`; or a sequence of them, alike in layout, hidden nodes and activation.
    scale
        What one unit of the training volumes is in the series' own units. "auto": the ratio of the two
        `intensity_level`, of each network's own; a number fixes it, 1 where the series is in the training's units
        already.
    consistency
        How far the volume, of an ensemble the mean, is moved to what the projections say; see `msdnet`. "none" leaves
        it as it is. "noiseless" does so too, unless the series has no noise that can be told (less than 0.3 % of the
        brightest ray) and no background: then the fit begins with half of the volume, takes forty projections and
        backprojections, and meets the projections. "auto" or a number takes ten of each.
    statistic
        Of the networks' values in each voxel: their "mean", or their standard deviation, "spread" (over all of them,
        divided by their number). The spread is that of what the networks say, whatever the consistency.

    Returns
    -------
    Dims (z, y, x), float32, in the units of `series`; y and x take the detector's coordinate.

    Raises
    ------
    SchemaError
        `series` is no tilt series or is not what the network was trained for, the scale is not above zero, there is
        no network, the networks differ in their form, or a spread is asked of one network. When it is computed: a value
        is NaN or infinite.

    References
    ----------
    .. [1] D. M. Pelt and K. J. Batenburg, IEEE Trans. Image Process. 22 (2013) 5238, doi:10.1109/TIP.2013.2283142.
    """
    networks = tuple(network) if isinstance(network, Sequence) else (network,)
    return reconstruct(series, Nnfbp(networks=networks, scale=scale, consistency=consistency, statistic=statistic))


def _check_forms(who: str, networks: Sequence[NNFBPNetwork]) -> None:
    """Raise a SchemaError where the networks do not go together."""
    forms = [
        {
            "n_hidden": member.n_hidden,
            "n_second": member.n_second,
            "activation": member.activation,
            "output": member.output,
            **dataclasses.asdict(member.layout),
        }
        for member in networks
    ]
    for name in forms[0]:
        values = list(dict.fromkeys(form[name] for form in forms))
        if len(values) > 1:
            got = " and ".join(str(np.asarray(value).tolist()) for value in values)
            remedy = "train them alike, with different seeds"
            refuse(who, needs=f"networks with the same {name}", got=got, remedy=remedy)


def _reconstruct(
    slab: Float32, *, layout: InputLayout, responses: Float64, end: NetworkEnd, axis: Axis | None, both: bool
) -> Float32:
    rows, angles_rad = layout.rows(slab, axis), np.deg2rad(layout.used_angles_deg)
    xp, shape = device.namespace(slab), (len(slab), slab.shape[-1], slab.shape[-1])
    volume: Float32 = xp.empty((2, *shape) if both else shape, np.float32)
    # Filtered rows of few slices at a time, as many as a kernel takes: they are hidden nodes × the input.
    group = cuda.WARP if device.is_on_gpu(slab) else _GROUP
    for z in range(0, len(slab), group):
        filtered = filters.filter_rows(rows[z : z + group], responses)
        if both:
            backproject_statistics(filtered, angles_rad, end, axis=axis, out=volume[:, z : z + group])
        else:
            backproject_network(filtered, angles_rad, end, axis=axis, out=volume[z : z + group])
    return xp.ascontiguousarray(xp.moveaxis(volume, 0, 1)) if both else volume
