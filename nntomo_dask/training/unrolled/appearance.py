"""What a tilt series shows of its specimen, and a phantom that looks like it.

Some slices are reconstructed with total variation, as coarsely as its automatic weight is chosen. What they show is no
more than an impression, so what is drawn keeps wide margins. The constants are measured: docs/theory.md.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import xarray as xr
from dask.base import compute
from skimage.filters import threshold_otsu

from nntomo_dask.arrays import finite, geometry, grid, schema, slabs
from nntomo_dask.compute import device
from nntomo_dask.errors import refuse
from nntomo_dask.phantoms.composing import DISC
from nntomo_dask.phantoms.materials import Materials
from nntomo_dask.phantoms.shapes import axis_of
from nntomo_dask.projection.noise import noise as noise_of
from nntomo_dask.reconstruction import tv_weight
from nntomo_dask.reconstruction.tv import TotalVariation
from nntomo_dask.types import Bools, Float32

_PIXELS = 64  # slices are binned as long as this many pixels stay
_BRIGHT, _MATTER = 90, 0.15  # percentile of bright matter that is the top, and the share of it above which matter is
_SPREAD = 5  # percentile of the insides of matter that is the lightest density
_LEAVES = 0.1  # of the brightest ray: an outermost ray above it crosses matter
_INNER, _RIM = 0.8, 0.5  # where the rim of the field begins; the share of it that is matter where matter leaves it
_LOST = 0.1  # share of the matter in bodies that are smaller than the smallest
_EVEN, _UNEVEN = 0.1, 0.16  # relative deviation of the insides: one density below, several or smooth ones above
_LARGER = 2.0  # how much more or less of the field than is seen matter may fill


@dataclass(frozen=True)
class Appearance:
    """What some slices show, with total variation.

    Attributes
    ----------
    least_filled, most_filled
        Share of the field that is matter, of the runs of slices with least and with most of it.
    leaves
        Whether matter leaves the field of view across the tilt axis.
    unevenness
        Relative standard deviation of the density inside matter: below 0.1 mostly one density.
    lightest
        The least density inside matter, as a share of the greatest.
    smallest, largest
        Radii of bodies, as fractions of half the slice width.
    """

    least_filled: float
    most_filled: float
    leaves: bool
    unevenness: float
    lightest: float
    smallest: float
    largest: float

    def describe(self) -> str:
        """One sentence."""
        shares = f"{100 * self.least_filled:.2g} to {100 * self.most_filled:.2g} %"
        kind = "several or smooth densities"
        if self.unevenness < _UNEVEN:
            kind = "one density" if self.unevenness < _EVEN else "one density or several"
        text = (
            f"matter fills {shares} of the field, in bodies with radii from {self.smallest:.2g} to {self.largest:.2g} "
            f"of half its width; its density varies by {100 * self.unevenness:.2g} %, which looks like {kind}, and the "
            f"lightest has {self.lightest:.2g} of the greatest"
        )
        leaves = "; matter leaves the field of view, which no phantom does: reconstruct with `pad`"
        return text + (leaves if self.leaves else "")

    def narrowed(self, phantom: Materials) -> Materials:
        """A phantom whose scenes look like this, and others that might; what its own settings exclude stays so."""
        one, smooth = phantom.one_density, phantom.smooth
        if self.unevenness < _EVEN:
            one, smooth = 0.75, 0.1
        elif self.unevenness > _UNEVEN:
            one, smooth = 0.1, 0.35
        lightest = max(phantom.lightest, min(0.4 * self.lightest, 0.5))
        smallest = max(phantom.smallest, self.smallest / 4)
        largest = max(min(phantom.largest, 1.5 * self.largest), smallest)
        least = max(phantom.least_filled, min(self.least_filled / _LARGER, 0.3))
        most = 1.0 if self.leaves else min(self.most_filled * _LARGER, 1.0)
        return dataclasses.replace(
            phantom,
            one_density=one,
            smooth=smooth,
            lightest=_rounded(lightest),
            smallest=_rounded(smallest),
            largest=_rounded(largest),
            least_filled=_rounded(least),
            most_filled=_rounded(max(min(most, phantom.most_filled), 2 * least, 0.02)),
        )


def _rounded(value: float) -> float:
    """Two digits after the point: the last bits of a reconstruction differ from one processor to the next."""
    return round(float(value), 2)


def appearance(series: xr.DataArray, *, who: str) -> Appearance:
    """What a series shows of its specimen; computed at once, in seconds.

    Up to two runs of 8 neighbouring slices, binned to at most 127 pixels, are reconstructed by `tv` with its automatic
    weight, without the background.

    Raises
    ------
    SchemaError
        The series shows nothing, has too few slices or projections for that, or values that are not finite.
    """
    own = slabs.lazy(geometry.in_order_of_angle(geometry.in_own_pixels(series)))
    found = noise_of(own)
    above = found.brightest - found.background
    if found.is_all_noise or not above > 0:
        refuse(who, needs="a series that shows a specimen", got="one that shows none", remedy="`prior=wide`")
    own = own - np.float32(found.background)
    method = TotalVariation()
    weight, level, thickness = compute(*method.prepare(own), scheduler="synchronous")
    angles, detectors = own[schema.ANGLE].values, own.sizes[schema.DETECTOR]
    factor = max(detectors // _PIXELS, 1)
    axis = grid.in_bins(schema.axis_of(own), detectors, factor)
    starts, length = tv_weight.runs_of(own.sizes[schema.Z], factor)
    volumes, outermost = [], 0.0
    for start in starts:
        rows = own.isel({schema.Z: slice(start, start + length)}).data.compute(scheduler="synchronous")
        finite.check_slab(rows, who=who, dims=schema.SERIES_DIMS, first=start)
        outermost = max(outermost, *(float(rows[..., place].mean()) for place in (0, -1)))
        run = tv_weight.binned(rows, factor)
        seen = run[slabs.mirrored(len(run), method.halo)]
        volumes.append(device.to_host(method.slab(seen, angles, weight / factor**2, level, thickness, axis=axis)))
    return seen_in(volumes, leaves=outermost > _LEAVES * above, who=who)


def seen_in(volumes: list[Float32], *, leaves: bool, who: str = "appearance") -> Appearance:
    """The same of runs of slices (slice, y, x) that are reconstructed."""
    values = np.concatenate([volume.ravel() for volume in volumes])
    if not values.max() > max(values.min(), 0):
        refuse(who, needs="a series that shows a specimen", got="one that shows none", remedy="`prior=wide`")
    top = float(np.percentile(values[values > threshold_otsu(values)], _BRIGHT))
    width = volumes[0].shape[-1]
    across = axis_of(width)
    square = across[:, None] ** 2 + across**2
    disc = square <= DISC**2
    rim = disc & (square >= _INNER**2)
    masks = [(volume > _MATTER * top) & disc for volume in volumes]
    shares = [float(mask.mean() / disc.mean()) for mask in masks]
    insides = np.concatenate(
        [volume[_inside(mask)] / top for volume, mask in zip(volumes, masks, strict=True) if mask.any()]
    )
    return Appearance(
        least_filled=min(shares),
        most_filled=max(shares),
        leaves=leaves or any(float(mask[:, rim].mean()) > _RIM for mask in masks),
        unevenness=float(insides.std() / insides.mean()),
        lightest=min(float(np.percentile(insides, _SPREAD)), 1.0),
        smallest=2 / width * _smallest(masks),
        largest=2 / width * max(_largest(mask) for mask in masks),
    )


def _inside(mask: Bools) -> Bools:
    """The voxels of matter that have none but matter beside them; all, where few have."""
    inside: Bools = scipy.ndimage.binary_erosion(mask, border_value=1)
    return inside if inside.sum() > 0.1 * mask.sum() else mask


def _smallest(masks: list[Bools]) -> float:
    """The radius in pixels up to which an opening, slice by slice, takes a tenth of the matter away."""
    whole = sum(int(mask.sum()) for mask in masks)
    distances = [
        np.stack([scipy.ndimage.distance_transform_edt(np.pad(one, 1))[1:-1, 1:-1] for one in mask]) for mask in masks
    ]
    radius = 1
    while radius < masks[0].shape[-1] // 2:
        kept = 0
        for mask, distance in zip(masks, distances, strict=True):
            core = distance > radius
            away = np.stack(
                [scipy.ndimage.distance_transform_edt(~one) if one.any() else np.inf * ~one for one in core]
            )
            kept += int((mask & (away <= radius)).sum())
        if kept < (1 - _LOST) * whole:
            break
        radius += 1
    return float(radius)


def _largest(mask: Bools) -> float:
    """Half the longest extent of a body within a slice, [px]."""
    labels, _ = scipy.ndimage.label(mask)
    boxes = scipy.ndimage.find_objects(labels)
    extents = (max(one[1].stop - one[1].start, one[2].stop - one[2].start) for one in boxes)
    return max(extents, default=0) / 2
