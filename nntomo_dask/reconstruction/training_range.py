"""The training range of NN-FBP networks: how many inputs of a series lie outside of it."""

import functools
import warnings
from collections.abc import Sequence

import dask.array as da
import numpy as np
import xarray as xr

from nntomo_dask.arrays import finite, geometry, schema, slabs
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import device
from nntomo_dask.networks.nnfbp import NNFBPNetwork, scale_inputs
from nntomo_dask.reconstruction.intensity import Scale, scales_of
from nntomo_dask.reconstruction.method import Scalar
from nntomo_dask.types import Float32, Float64, Integers

# A share of inputs outside the training range above this makes a reconstruction warn.
OUTSIDE_LIMIT = 0.05
# Voxels of each slice at which the inputs are looked at: their share is then known to ±3 % (one sigma) in a slice, and
# far better in a volume.
_VOXELS_LOOKED_AT = 256


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
    schema.check_tilt_series(series, who="outside_training_range")
    network.check(series, who="outside_training_range")
    source = geometry.in_own_pixels(series)
    factor = scales_of("outside_training_range", source, [network.level], scale, of=network.layout.level_of)[0]
    share = shares_outside(source, network, factor)
    return xr.DataArray(
        share, dims=(schema.Z,), coords={schema.Z: series[schema.Z].values}, name="outside_training_range"
    )


def shares_outside(series: xr.DataArray, network: NNFBPNetwork, scale: Scalar) -> da.Array:
    """Lazy (z,), see `outside_training_range`."""
    rows = slabs.lazy(series).data
    shares: da.Array = da.map_blocks(
        finite.Checked(_share_of, "outside_training_range", schema.SERIES_DIMS, finite.starts(rows)),
        rows,
        scale,
        drop_axis=[1, 2],
        dtype=np.float32,
        meta=np.empty((0,), np.float32),
        network=network,
        angles_deg=series[schema.ANGLE].values,
        axis=schema.axis_of(series),
    )
    return shares


def warn(who: str, share: float) -> None:
    """Warn, in the name of a method, where a network extrapolates."""
    if share > OUTSIDE_LIMIT:
        warnings.warn(
            f"{who}: {share:.0%} of the network's inputs lie outside the range it saw in training, so it extrapolates; "
            "train it on phantoms or structures more like this specimen, or check the scale",
            stacklevel=2,
        )


def _share_of(slab: Float32, scale: float, *, network: NNFBPNetwork, angles_deg: Float64, axis: Axis | None) -> Float32:
    """(slice,), see `outside_training_range`."""
    rows = geometry.rows_at(slab, angles_deg, network.layout.series_angles_deg)
    return np.asarray(shares_of(rows, [scale], [network], axis)[0])


def shares_of(slab: Float32, scales: Sequence[float], networks: Sequence[NNFBPNetwork], axis: Axis | None) -> Float32:
    """(network, slice), of networks of one layout; rows in their order."""
    layout = networks[0].layout
    z = np.repeat(np.arange(len(slab)), _VOXELS_LOOKED_AT)
    voxels = np.column_stack([z, np.tile(_looked_at(layout.detector_count, axis), (len(slab), 1))]).astype(np.int64)
    inputs = device.to_host(layout.inputs(slab, voxels, axis))
    shares = []
    for network, scale in zip(networks, scales, strict=True):
        scaled = scale_inputs(inputs / np.float32(scale), network.input_low, network.input_high)
        outside = np.abs(scaled) > 1 + 1e-6
        shares.append(outside.reshape(len(slab), -1).mean(axis=1))
    return np.asarray(np.array(shares) * device.to_host(slab.any(axis=(1, 2))), np.float32)


@functools.lru_cache(maxsize=8)
def _looked_at(detector_count: int, axis: Axis | None) -> Integers:
    """(voxel, 2): y and x of the voxels of a slice at which the inputs are looked at."""
    seen = np.argwhere(geometry.seen_by_all(detector_count, axis))
    if not len(seen):  # the tilt axis is beyond the detector
        seen = np.argwhere(np.ones((detector_count, detector_count), bool))
    return np.asarray(seen[np.random.default_rng(0).integers(0, len(seen), _VOXELS_LOOKED_AT)])
