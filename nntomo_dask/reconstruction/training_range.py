"""The training range of NN-FBP networks: how many inputs of a series lie outside of it, and how far."""

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

# Inputs that lie farther outside than this make a reconstruction warn: the root mean square over all inputs, within the
# range or not, in units of each input's range. See docs/theory.md for what gives how much.
OUTSIDE_LIMIT = 0.02
# Voxels of each slice at which the inputs are looked at: their share is then known to ±3 % (one sigma) in a slice, and
# far better in a volume.
_VOXELS_LOOKED_AT = 256


def outside_training_range(series: xr.DataArray, network: NNFBPNetwork, *, scale: Scale = "auto") -> xr.DataArray:
    """Share of the network's inputs that lie outside the range seen in training, for each slice.

    Looked at in 256 voxels a slice, on a fixed pattern; a slice without signal counts as inside. Near 0 where a series
    resembles the training set. More noise than in training brings some percent of the inputs a little outside, which
    does no harm; `nnfbp` warns where they lie far outside. Lazy.

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
    share = outside(source, network, factor)[0]
    return xr.DataArray(
        share, dims=(schema.Z,), coords={schema.Z: series[schema.Z].values}, name="outside_training_range"
    )


def outside(series: xr.DataArray, network: NNFBPNetwork, scale: Scalar) -> da.Array:
    """Lazy (2, z): shares, see `outside_training_range`, and mean squares of how far, in units of an input's range."""
    rows = slabs.lazy(series).data
    figures: da.Array = da.map_blocks(
        finite.Checked(_outside_of, "outside_training_range", schema.SERIES_DIMS, finite.starts(rows)),
        rows,
        scale,
        drop_axis=[1, 2],
        new_axis=0,
        chunks=((2,), rows.chunks[0]),
        dtype=np.float32,
        meta=np.empty((0, 0), np.float32),
        network=network,
        angles_deg=series[schema.ANGLE].values,
        axis=schema.axis_of(series),
    )
    return figures


def told(share: float, mean_square: float) -> str:
    """How many inputs lie outside, and how far, in words."""
    distance = f", by {np.sqrt(mean_square):.1%} of that range over all inputs (root mean square)" if share else ""
    return f"{share:.1%}{distance}"


def is_far(mean_square: float) -> bool:
    """Whether inputs lie so far outside that the network's answer is no interpolation any more."""
    return mean_square > OUTSIDE_LIMIT**2


def warn(who: str, figures: Float32) -> None:
    """Warn, in the name of a method, where a network extrapolates; `figures` of `figures_of`."""
    shares, squares = figures.mean(axis=2)
    worst = int(squares.argmax())
    if is_far(float(squares[worst])):
        warnings.warn(
            f"{who}: inputs of the network outside the range it saw in training: "
            f"{told(float(shares[worst]), float(squares[worst]))}, so it extrapolates; train it on phantoms or "
            "structures more like this specimen, or check the scale",
            stacklevel=2,
        )


def _outside_of(
    slab: Float32, scale: float, *, network: NNFBPNetwork, angles_deg: Float64, axis: Axis | None
) -> Float32:
    """(2, slice), see `outside`."""
    rows = geometry.rows_at(slab, angles_deg, network.layout.series_angles_deg)
    return np.asarray(figures_of(rows, [scale], [network], axis)[:, 0])


def figures_of(slab: Float32, scales: Sequence[float], networks: Sequence[NNFBPNetwork], axis: Axis | None) -> Float32:
    """(2, network, slice), see `outside`, of networks of one layout; rows in their order.

    Both are means over inputs, so that networks with many of them are judged as others are.
    """
    layout = networks[0].layout
    z = np.repeat(np.arange(len(slab)), _VOXELS_LOOKED_AT)
    voxels = np.column_stack([z, np.tile(_looked_at(layout.detector_count, axis), (len(slab), 1))]).astype(np.int64)
    inputs = device.to_host(layout.inputs(slab, voxels, axis))
    figures = []
    for network, scale in zip(networks, scales, strict=True):
        scaled = scale_inputs(inputs / np.float32(scale), network.input_low, network.input_high)
        beyond = np.abs(scaled).reshape(len(slab), -1)
        shares = (beyond > 1 + 1e-6).mean(axis=1)
        squares = (np.maximum(beyond - 1, 0) ** 2).mean(axis=1) / 4  # the range is two wide
        figures.append((shares, squares))
    return np.asarray(np.array(figures).swapaxes(0, 1) * device.to_host(slab.any(axis=(1, 2))), np.float32)


@functools.lru_cache(maxsize=8)
def _looked_at(detector_count: int, axis: Axis | None) -> Integers:
    """(voxel, 2): y and x of the voxels of a slice at which the inputs are looked at."""
    seen = np.argwhere(geometry.seen_by_all(detector_count, axis))
    if not len(seen):  # the tilt axis is beyond the detector
        seen = np.argwhere(np.ones((detector_count, detector_count), bool))
    return np.asarray(seen[np.random.default_rng(0).integers(0, len(seen), _VOXELS_LOOKED_AT)])
