"""Reconstruction by a Mixed-Scale Dense network: slices of another reconstruction, improved."""

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import delayed

from nntomo_dask import extras
from nntomo_dask.arrays import schema, slabs
from nntomo_dask.compute import device
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import mixed_scale
from nntomo_dask.kernels.backproject import Statistic
from nntomo_dask.networks import msdnet as networks
from nntomo_dask.networks.msdnet import MSDNetwork
from nntomo_dask.projection import project as projection
from nntomo_dask.reconstruction import fbp as fbp_room
from nntomo_dask.reconstruction import nnfbp as nnfbp_room
from nntomo_dask.reconstruction.sirt import sirt_slab

Float32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def msdnet(
    series: xr.DataArray,
    network: MSDNetwork | Sequence[MSDNetwork],
    *,
    scale: nnfbp_room.Scale = "auto",
    statistic: Statistic = "mean",
) -> xr.DataArray:
    """Reconstruct a tilt series with a trained Mixed-Scale Dense network, or with several of them.

    The series is reconstructed by the method that the network was trained on, and each slice is improved by the
    network, which looks at its neighbours too; at the ends of the volume they are mirrored. Whole slices, since a voxel
    depends on all others of its slice. Lazy, chunks along z are kept; a slab reconstructs its neighbours' edges again.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32, at the angles for which the network was trained; any detector, unless the
        input is by NN-FBP.
    network
        From `train_msdnet` or `load_network`. Several, with the same inputs: an ensemble, whose members are averaged.
    scale
        What one unit of the training volumes is in the series' own units; see `nnfbp`.
    statistic
        "mean" of the members, or their "spread": the standard deviation, voxel by voxel, as a measure of how far the
        mean may be trusted.

    Returns
    -------
    Dims (z, y, x), float32, in the units of `series`; y and x take the detector's coordinate.

    Raises
    ------
    SchemaError
        `series` is no tilt series or has other angles than the network; the scale is not above zero; the members differ
        in their inputs, or are too few for a spread.

    References
    ----------
    .. [1] D. M. Pelt, K. J. Batenburg and J. A. Sethian, J. Imaging 4 (2018) 128, doi:10.3390/jimaging4110128.
    """
    members = list(network) if isinstance(network, Sequence) else [network]
    _check(series, members, statistic)
    source = slabs.lazy(series)
    neighbours = members[0].inputs.neighbours
    n_z, size = source.sizes[schema.Z], source.sizes[schema.DETECTOR]
    (factor,) = nnfbp_room.scales_of("msdnet", source, [members[0].level], scale)
    with_neighbours = mixed_scale.mirrored(n_z, neighbours)  # beyond its ends the volume is mirrored
    blocks, first = [], 0
    for height in source.data.chunks[0]:
        seen = with_neighbours[first : first + height + 2 * neighbours]
        low, high = int(seen.min()), int(seen.max()) + 1
        block = delayed(_msdnet_slab)(source.data[low:high], factor, seen - low, members, statistic)
        blocks.append(da.from_delayed(block, (height, size, size), np.float32))
        first += height
    parameters = {"networks": [member.digest for member in members], "scale": scale, "statistic": statistic}
    return slabs.label(
        da.concatenate(blocks),
        dims=schema.VOLUME_DIMS,
        coords=projection.slice_coords(series),
        attrs={key: value for key, value in series.attrs.items() if key != "recipe"},
        recipe=slabs.record("msdnet", parameters, [source, *(member.recipe for member in members)]),
        name="volume",
    )


def _check(series: xr.DataArray, members: list[MSDNetwork], statistic: str) -> None:
    who = "msdnet"
    schema.check_tilt_series(series, who=who)
    if statistic not in ("mean", "spread"):
        refuse(who, needs="statistic mean or spread", got=f"{statistic!r}", remedy="choose one")
    least = 2 if statistic == "spread" else 1
    if len(members) < least:
        refuse(who, needs=f"at least {least} networks", got=f"{len(members)}", remedy="train others, by other seeds")
    for member in members:
        if not isinstance(member, MSDNetwork):
            refuse(
                who,
                needs="networks from train_msdnet",
                got=type(member).__name__,
                remedy="reconstruct(series, network)",
            )
        member.check(series, who=who)
        first = members[0]
        if (member.inputs.digest, member.level) != (first.inputs.digest, first.level):
            refuse(
                who,
                needs="networks that were trained on one set",
                got=f"{first.inputs.digest} and {member.inputs.digest}",
                remedy="train them with other seeds alone",
            )


def input_slab(rows: Float32, inputs: networks.Inputs, factor: float, level: float) -> list[Float32]:
    """The reconstructions (slice, y, x) of rows (slice, angle, detector) that a network improves, one a split.

    `factor` is what one unit of the training volumes is here, `level` the training series' intensity.
    """
    angles = np.asarray(inputs.angles_deg)
    return [
        _reconstructed(rows[:, kept], angles[kept], inputs, factor, level)
        for kept in kept_projections(angles.size, inputs.splits)
    ]


def kept_projections(count: int, splits: int) -> list[Integers]:
    """Of each split, the projections that its input is made of: all, or those that are not its own."""
    if splits == 1:
        return [np.arange(count)]
    return [np.flatnonzero(np.arange(count) % splits != split) for split in range(splits)]


def _reconstructed(rows: Float32, angles: Any, inputs: networks.Inputs, factor: float, level: float) -> Float32:
    if inputs.method == "nnfbp":
        assert inputs.network is not None
        scale = factor * level / inputs.network.level
        return nnfbp_room.nnfbp_slab(rows, scale, networks=(inputs.network,), statistic="mean")
    if inputs.method == "fbp":
        return fbp_room.fbp_slab(rows, angles_deg=angles, window="ram-lak", engine="native")
    return sirt_slab(
        rows,
        angles_deg=angles,
        engine="native",
        **networks.SIRT,
    )


def _msdnet_slab(
    rows: Float32, factor: Any, seen: Integers, members: list[MSDNetwork], statistic: Statistic
) -> Float32:
    """Improved slices (slice, y, x), from rows (slice, angle, detector) of them and their neighbours."""
    scale, first = np.float32(factor), members[0]
    parts = input_slab(rows, first.inputs, float(scale), first.level)
    sources = [device.to_host(part)[seen] / scale for part in parts]
    outputs = [sum(improved(source, member) for source in sources) / np.float32(len(sources)) for member in members]
    of_members = np.mean if statistic == "mean" else np.std
    whole: Float32 = device.namespace(rows).asarray(of_members(outputs, axis=0) * scale)
    return whole


def improved(slices: Float32, network: MSDNetwork) -> Float32:
    """Improve slices (slice, y, x), in units of the training volumes; the outermost are neighbours only."""
    channels = network.inputs.channels
    scaled = (slices - np.float32(network.input_mean)) / np.float32(network.input_deviation)
    windows = [scaled[z : z + channels] for z in range(len(scaled) - channels + 1)]
    if device.computes_on_gpu():
        extras.check("torch", who="msdnet on a GPU")
        from nntomo_dask.kernels import torch_layers as torch_engine

        output = torch_engine.on_gpu(windows, network.parameters, network.depth)
    else:
        maps = mixed_scale.buffer(channels + network.depth, *slices.shape[1:])
        output = np.stack([mixed_scale.forward(one, network.parameters, network.depth, maps)[0] for one in windows])
    result: Float32 = output * np.float32(network.target_deviation) + np.float32(network.target_mean)
    return result
