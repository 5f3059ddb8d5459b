"""Reconstruction by NN-FBP networks, one or an ensemble, and whether the network may be trusted with a series."""

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import delayed
from skimage.filters import threshold_otsu

from nntomo_dask.arrays import geometry, schema, slabs
from nntomo_dask.compute import chunking, device, streams
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import cuda, filters
from nntomo_dask.kernels.backproject import NetworkEnd, Statistic, backproject_network
from nntomo_dask.networks.nnfbp import InputLayout, NNFBPNetwork, folded, scale_inputs
from nntomo_dask.projection import project as projection
from nntomo_dask.reconstruction.sirt import sirt_slab

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Scale = float | Literal["auto"]

# A share of inputs outside the training range above this makes a reconstruction warn.
OUTSIDE_LIMIT = 0.05
# Voxels of each slice at which the inputs are looked at: their share is then known to ±3 % (one sigma) in a slice, and
# far better in a volume.
_VOXELS_LOOKED_AT = 256
# Intensity is estimated from this many slices, binned to this many detector pixels at most, by so many iterations.
_LEVEL_SLICES, _LEVEL_PIXELS, _LEVEL_ITERATIONS = 16, 128, 50


def nnfbp(
    series: xr.DataArray,
    network: NNFBPNetwork | Sequence[NNFBPNetwork],
    *,
    scale: Scale = "auto",
    statistic: Statistic = "mean",
) -> xr.DataArray:
    """Reconstruct a tilt series with a trained NN-FBP network, or with several.

    One backprojection of the network's filters side by side, with its end in the same loop (report Eq. 9); no volume a
    hidden node is ever held. An ensemble, networks trained with other seeds, is a network with as many times the hidden
    nodes: still one backprojection, no volume a member, and what is written is the members' mean or their spread. The
    spread shows where the result hangs on chance in the training, not errors that all members share. Lazy, chunks along
    z are kept. While it computes, slabs warn where more than 5 % of a network's inputs lie outside the range seen in
    training: the network then extrapolates; see `outside_training_range`.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32, at the angles and with the detector for which the network was trained.
    network
        From `train_nnfbp` or `load_network`; or a sequence of them, alike in layout, hidden nodes and activation.
    scale
        What one unit of the training volumes is in the series' own units. "auto": the ratio of the two
        `intensity_level`, of each network's own; a number fixes it, 1 where the series is in the training's units
        already.
    statistic
        Of the networks' values in each voxel: their "mean", or their standard deviation, "spread" (over all of them,
        divided by their number).

    Returns
    -------
    Dims (z, y, x), float32, in the units of `series`; y and x take the detector's coordinate.

    Raises
    ------
    SchemaError
        `series` is no tilt series or is not what the network was trained for, the scale is not above zero, there is
        no network, the networks differ in their form, or a spread is asked of one network.

    References
    ----------
    .. [1] D. M. Pelt and K. J. Batenburg, IEEE Trans. Image Process. 22 (2013) 5238, doi:10.1109/TIP.2013.2283142.
    """
    networks = _members("nnfbp", network, statistic)
    factors = _checked_scales("nnfbp", series, networks, scale)
    parameters: dict[str, Any]
    if len(networks) == 1:
        parameters = {"network": networks[0].digest, "scale": scale}
    else:
        digests = [member.digest for member in networks]
        parameters = {"networks": digests, "scale": scale, "statistic": statistic}
    return slabs.map_slabs(
        nnfbp_slab,
        series,
        dims=schema.VOLUME_DIMS,
        coords=projection.slice_coords(series),
        recipe=slabs.record("nnfbp", parameters, [series, *(member.recipe for member in networks)]),
        name="volume",
        extra=factors,
        networks=networks,
        statistic=statistic,
    )


def outside_training_range(series: xr.DataArray, network: NNFBPNetwork, *, scale: Scale = "auto") -> xr.DataArray:
    """Share of the network's inputs that lie outside the range seen in training, for each slice.

    Looked at in 256 voxels a slice, on a fixed pattern; a slice without signal counts as inside. Near 0 where a series
    resembles the training set; above 0.05 the network extrapolates, and its output may be far off without looking so.
    Lazy.

    Returns
    -------
    Dims (z), float32, in [0, 1].

    Raises
    ------
    SchemaError
        As `nnfbp`.
    """
    factor = _checked_scales("outside_training_range", series, [network], scale)[0]
    data = slabs.lazy(series).data
    share = da.map_blocks(
        _outside_share,
        data,
        factor,
        drop_axis=[1, 2],
        dtype=np.float32,
        meta=np.empty((0,), np.float32),
        network=network,
    )
    return xr.DataArray(
        share, dims=(schema.Z,), coords={schema.Z: series[schema.Z].values}, name="outside_training_range"
    )


def intensity_level(series: xr.DataArray) -> xr.DataArray:
    """How intense the matter in a tilt series is, [value of a voxel], robustly and without a volume to compare with.

    Up to 16 evenly spaced slices, binned to at most 255 detector pixels, are reconstructed by 50 iterations of
    non-negative SIRT; the level is the median of the voxels above Otsu's threshold. What limits such a reconstruction
    limits it in training and at use alike, so the ratio of two levels is a ratio of intensities. A series with twice
    the intensity has twice the level. Lazy.

    Returns
    -------
    No dims, float32; 0 where the series is empty.

    References
    ----------
    .. [1] N. Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979) 62.
    """
    schema.check_tilt_series(series, who="intensity_level")
    n_z = series.sizes[schema.Z]
    chosen = np.arange(n_z)
    if n_z > _LEVEL_SLICES:
        chosen = np.unique(np.linspace(0, n_z - 1, _LEVEL_SLICES + 2).round().astype(int)[1:-1])
    rows = slabs.lazy(series).isel({schema.Z: chosen}).data
    level = delayed(_level)(rows, series[schema.ANGLE].values)
    return xr.DataArray(da.from_delayed(level, (), np.float32), name="intensity_level")


def _level(rows: Float32, angles_deg: Float64) -> np.float32:
    n_detectors = rows.shape[-1]
    factor = max(n_detectors // _LEVEL_PIXELS, 1)
    binned = rows[..., : n_detectors // factor * factor].reshape(*rows.shape[:2], -1, factor).mean(axis=-1)
    # A binned pixel is `factor` pixels wide, and the line integrals are counted in the original ones.
    volume = sirt_slab(
        binned / np.float32(factor),
        angles_deg=angles_deg,
        tolerance=0,
        max_iterations=_LEVEL_ITERATIONS,
        minimum=0,
        engine="native",
    )
    volume = device.to_host(volume)
    if volume.max() <= 0:
        return np.float32(0)
    bright = volume[volume > threshold_otsu(volume)]
    return np.float32(np.median(bright) if bright.size else volume.max())


def _members(
    who: str, network: NNFBPNetwork | Sequence[NNFBPNetwork], statistic: Statistic
) -> tuple[NNFBPNetwork, ...]:
    """The networks, checked against each other and for what is asked of them."""
    members = tuple(network) if isinstance(network, Sequence) else (network,)
    for member in members:
        if getattr(member, "FORMAT", None) != NNFBPNetwork.FORMAT:
            got = type(member).__name__
            refuse(who, needs="networks from train_nnfbp", got=got, remedy="reconstruct(series, network)")
    if not members:
        refuse(who, needs="a network or several", got="an empty sequence", remedy="load_network(…)")
    if statistic not in get_args(Statistic):
        refuse(who, needs='statistic "mean" or "spread"', got=f"{statistic!r}", remedy='statistic="mean"')
    if statistic == "spread" and len(members) == 1:
        refuse(who, needs="two networks or more for a spread", got="one", remedy="train others with other seeds")
    forms = [
        {"n_hidden": member.n_hidden, "activation": member.activation, **dataclasses.asdict(member.layout)}
        for member in members
    ]
    for name in forms[0]:
        values = list(dict.fromkeys(form[name] for form in forms))
        if len(values) > 1:
            got = " and ".join(str(np.asarray(value).tolist()) for value in values)
            refuse(who, needs=f"networks with the same {name}", got=got, remedy="train them alike but for the seed")
    return members


def _checked_scales(
    who: str, series: xr.DataArray, networks: Sequence[NNFBPNetwork], scale: Scale
) -> list[float] | list[da.Array]:
    """Check a series against networks; a scale for each, as numbers, or as lazy ones where they are estimated."""
    schema.check_tilt_series(series, who=who)
    networks[0].layout.check(series, who=who)
    return scales_of(who, series, [network.level for network in networks], scale)


def scales_of(who: str, series: xr.DataArray, levels: Sequence[float], scale: Scale) -> list[float] | list[da.Array]:
    """What one unit of training sets with these levels is in a series: as numbers, or lazy where it is estimated."""
    if scale == "auto":
        if not all(level > 0 for level in levels):
            refuse(who, needs="a scale: the training set has no level", got='"auto"', remedy="scale=1, or another")
        found = intensity_level(series).data
        ratios = [found / np.float32(level) for level in levels]
        return [da.where(ratio > 0, ratio, np.float32(1)) for ratio in ratios]
    if not (isinstance(scale, int | float) and np.isfinite(scale) and scale > 0):
        refuse(who, needs='a scale above zero, or "auto"', got=f"{scale!r}", remedy='scale="auto"')
    return [float(scale)] * len(levels)


def nnfbp_slab(slab: Float32, *scales: float, networks: tuple[NNFBPNetwork, ...], statistic: Statistic) -> Float32:
    """`nnfbp` of a plain (slice, angle, detector)."""
    share = float(_outside_shares(slab, scales, networks).mean(axis=1).max())
    if share > OUTSIDE_LIMIT:
        warnings.warn(
            f"nnfbp: {share:.0%} of the network's inputs lie outside the range it saw in training, so it extrapolates; "
            "train it on phantoms or structures more like this specimen, or check the scale",
            stacklevel=2,
        )
    angles = networks[0].layout.used_angles_deg.size
    responses, end = folded(networks, [float(scale) for scale in scales], statistic=statistic)
    volume: Float32 = streams.streamed(
        functools.partial(_reconstruct, layout=networks[0].layout, responses=responses, end=end),
        slab,
        slice_bytes=streams.bytes_of_slice("nnfbp", angles=angles, detector=slab.shape[-1], hidden=len(responses)),
        who="nnfbp",
    )
    return volume


def _reconstruct(slab: Float32, *, layout: InputLayout, responses: Float64, end: NetworkEnd) -> Float32:
    rows, angles_rad = layout.rows(slab), np.deg2rad(layout.used_angles_deg)
    shape = (len(slab), slab.shape[-1], slab.shape[-1])
    volume: Float32 = device.namespace(slab).empty(shape, np.float32)
    # Filtered rows of few slices at a time, as many as a kernel takes: they are hidden nodes × the input.
    group = cuda.WARP if device.is_on_gpu(slab) else chunking.NETWORK_GROUP
    for z in range(0, len(slab), group):
        filtered = filters.filter_rows(rows[z : z + group], responses)
        backproject_network(filtered, angles_rad, end, out=volume[z : z + group])
    return volume


def _outside_share(slab: Float32, scale: float, *, network: NNFBPNetwork) -> Float32:
    """(slice,), see `outside_training_range`."""
    return np.asarray(_outside_shares(slab, [scale], [network])[0])


def _outside_shares(slab: Float32, scales: Sequence[float], networks: Sequence[NNFBPNetwork]) -> Float32:
    """(network, slice), of networks of one layout."""
    layout = networks[0].layout
    z = np.repeat(np.arange(len(slab)), _VOXELS_LOOKED_AT)
    voxels = np.column_stack([z, np.tile(_looked_at(layout.detector_count), (len(slab), 1))]).astype(np.int64)
    inputs = device.to_host(layout.inputs(slab, voxels))
    shares = []
    for network, scale in zip(networks, scales, strict=True):
        scaled = scale_inputs(inputs / np.float32(scale), network.input_low, network.input_high)
        outside = np.abs(scaled) > 1 + 1e-6
        shares.append(outside.reshape(len(slab), -1).mean(axis=1))
    return np.asarray(np.array(shares) * device.to_host(slab.any(axis=(1, 2))), np.float32)


@functools.lru_cache(maxsize=8)
def _looked_at(detector_count: int) -> Integers:
    """(voxel, 2): y and x of the voxels of a slice at which the inputs are looked at."""
    seen = np.argwhere(geometry.seen_by_all(detector_count))
    return np.asarray(seen[np.random.default_rng(0).integers(0, len(seen), _VOXELS_LOOKED_AT)])
