"""Candidates for atoms at low dose: the bright maxima of a reconstruction, smoothed by the width of an atom."""

import numpy as np
import scipy.ndimage
import xarray as xr

from nntomo_dask.arrays import recipes, schema
from nntomo_dask.atoms import counts, gradients, table
from nntomo_dask.atoms.evidence import Evidence
from nntomo_dask.atoms.gradients import Gradients
from nntomo_dask.atoms.sampling import Sampling
from nntomo_dask.atoms.spacing import apart, spaced
from nntomo_dask.errors import refuse
from nntomo_dask.types import Float64, Integers

_LEAST_WIDTH = 0.7  # pixels; of the filter that candidates are looked for with
_AGAIN = 0.5  # of the width: that filter where the projections were smoothed
_BRIGHT = 0.5  # of the brightest maxima's mean: candidates; too few of them are better than too many
_BRIGHTEST = 20, 8  # one maximum in so many is among the brightest, and at least so many are


def maxima(
    volume: xr.DataArray, data: Evidence, symbols: tuple[str, ...], settings: Sampling, *, smoothing: float, who: str
) -> xr.Dataset:
    """Candidates: the bright maxima of the smoothed volume within all projections, at least a bond apart.

    Parameters
    ----------
    smoothing
        By which the projections were smoothed already, [nm]; above 0 the volume is by less.

    Raises
    ------
    SchemaError
        There are none.
    """
    pixel = data.pixel
    sigma = max((settings.width or width_of(data)) / pixel, _LEAST_WIDTH)
    again = max(_AGAIN * sigma, _LEAST_WIDTH) if smoothing > 0 else sigma
    smooth = scipy.ndimage.gaussian_filter(np.asarray(volume.values, np.float64), again)
    if settings.minimum_distance is not None or symbols:
        distance = float(spaced(symbols, settings.minimum_distance, None).min())
    else:
        distance = 2.5 * sigma * pixel
    highest = scipy.ndimage.maximum_filter(smooth, 3)
    margin = min(2 * sigma * pixel, distance)
    seen = data.seen(margin)
    if not seen.any():
        counts.refuse_unseen(who, margin)
    places = np.argwhere((smooth == highest) & (smooth > 0) & seen)
    if len(places) == 0:
        refuse(who, needs="a volume with maxima", got="one without", remedy="a series with a specimen in it")
    values = smooth[tuple(places.T)]
    # Not by a wider filter: beside a bright atom its own slope would hide a weaker one.
    places_nm = np.asarray(places * pixel, np.float64)
    first = apart(places_nm, np.zeros(len(places), np.int64), values, np.array([[distance]]))
    places, values = places[first], values[first]
    brightest = np.sort(values)[::-1][: max(len(values) // _BRIGHTEST[0], _BRIGHTEST[1])]
    kept = values >= _BRIGHT * float(brightest.mean())
    positions = vertices(smooth, places[kept])
    coordinates = np.stack(
        [
            np.interp(positions[:, axis], np.arange(volume.sizes[dim]), volume[dim].values)
            for axis, dim in enumerate(schema.VOLUME_DIMS)
        ],
        axis=1,
    )
    noise = float(np.median(np.abs(values - np.median(values)))) or 1.0
    made = table.make(
        coordinates,
        recipe=recipes.record(
            "maxima", {"distance": distance, "width": sigma * pixel, "smoothing": again * pixel}, [volume]
        ),
        height=values[kept],
        width=np.full(int(kept.sum()), sigma * pixel),
        background=np.zeros(int(kept.sum())),
        confidence=values[kept] / noise,
    )
    return made.assign_attrs(atom_width=sigma * pixel, minimum_distance=distance)


def width_of(data: Evidence) -> float:
    """The standard deviation of an atom in a projection [nm], before any is found."""
    return gradients.width_of(data) if isinstance(data, Gradients) else counts.width_of(data)


def vertices(smooth: Float64, places: Integers) -> Float64:
    """(atom, 3): maxima to a fraction of a voxel, by a parabola along each axis."""
    found = np.asarray(places, np.float64).copy()
    for axis in range(3):
        inner = (places[:, axis] > 0) & (places[:, axis] < smooth.shape[axis] - 1)
        here = places[inner]
        step = np.eye(3, dtype=int)[axis]
        low, middle, high = (smooth[tuple((here + sign * step).T)] for sign in (-1, 0, 1))
        curvature = np.minimum(low - 2 * middle + high, -1e-30)
        found[inner, axis] += np.clip(0.5 * (low - high) / curvature, -0.5, 0.5)
    return found
