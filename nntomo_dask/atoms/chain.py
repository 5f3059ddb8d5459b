"""From a tilt series to its atoms at low dose, in one call: noise, reconstruction, candidates, samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.ndimage
import xarray as xr

from nntomo_dask.arrays import recipes, schema
from nntomo_dask.atoms import counts as counting, elements as element_room, refine as refining, sampling, table
from nntomo_dask.atoms.evidence import Evidence, Likelihood, evidence
from nntomo_dask.atoms.gradients import Gradients, width_of as width_of_gradients
from nntomo_dask.atoms.sampling import Sampling
from nntomo_dask.atoms.spacing import apart
from nntomo_dask.errors import refuse
from nntomo_dask.projection.noise import Noise
from nntomo_dask.reconstruction.method import Method, reconstruct
from nntomo_dask.reconstruction.sirt import Sirt
from nntomo_dask.types import Float64, Integers

Last = Literal["candidates", "samples", "projections"]

_WHO = "atoms_from_series"
_LEAST_WIDTH = 0.7  # pixels; of the filter that candidates are looked for with
_BRIGHT = 0.5  # of the brightest maxima's mean: candidates; too few of them are better than too many
_BRIGHTEST = 20, 8  # one maximum in so many is among the brightest, and at least so many are


@dataclass(frozen=True)
class Chain:
    """What a chain found, and on the way.

    Attributes
    ----------
    atoms
        The table.
    candidates
        The table that sampling began with.
    volume
        The reconstruction, dims (z, y, x), computed.
    gain, read_counts, background
        What a count adds to a value; counts with the variance of the read-out noise; the level without a specimen. All
        0 where the noise is white in the gradient.
    """

    atoms: xr.Dataset
    candidates: xr.Dataset
    volume: xr.DataArray
    gain: float
    read_counts: float
    background: float


def atoms_from_series(
    series: xr.DataArray,
    *,
    elements: Sequence[str] = (),
    method: Method | None = None,
    volume: xr.DataArray | None = None,
    candidates: xr.Dataset | None = None,
    last: Last = "samples",
    noise: Noise | None = None,
    width: float | None = None,
    exponent: float | None = None,
    likelihood: Likelihood = "auto",
    minimum_distance: float | None = None,
    agreement: float | None = None,
    burn_in: int = 25,
    samples: int = 40,
    seed: int = 0,
) -> xr.Dataset:
    """Find the atoms of a tilt series of low dose.

    The noise is found from the series, a volume is reconstructed, its maxima are candidates, and `sample_atoms` decides
    by the projections themselves which atoms there are and where. Every stage can be replaced: the noise, the method or
    the whole volume, and the candidates. Computes at once.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32, in nm.
    elements
        Symbols of the elements that are seen; they say how high atoms are, and how close they may be.
    method
        How to reconstruct. None: SIRT with values of at least 0.
    volume
        A reconstruction that there is already, dims (z, y, x); then no method is used.
    candidates
        A table to begin with, such as `find_atoms` makes. None: the maxima of the volume, smoothed by the width of an
        atom, that are higher than half of the highest.
    last
        The last stage. "candidates": nothing is sampled. "samples": see `sample_atoms`. "projections": after that,
        `refine_atoms`.
    noise, width, exponent, likelihood, minimum_distance, agreement, burn_in, samples, seed
        See `sample_atoms`.

    Returns
    -------
    A table of atoms; see `sample_atoms` for its columns.

    Raises
    ------
    SchemaError
        As `sample_atoms`; or the volume has no maxima.
    """
    settings = Sampling(
        width=width,
        exponent=exponent,
        likelihood=likelihood,
        minimum_distance=minimum_distance,
        agreement=agreement,
        burn_in=burn_in,
        samples=samples,
        seed=seed,
    )
    return run(
        series,
        elements=elements,
        method=method,
        volume=volume,
        candidates=candidates,
        last=last,
        noise=noise,
        settings=settings,
    ).atoms


def run(
    series: xr.DataArray,
    *,
    elements: Sequence[str] = (),
    method: Method | None = None,
    volume: xr.DataArray | None = None,
    candidates: xr.Dataset | None = None,
    last: Last = "samples",
    noise: Noise | None = None,
    settings: Sampling | None = None,
) -> Chain:
    """`atoms_from_series` with what it finds on the way."""
    chosen = settings or Sampling()
    sampling.check(chosen, who=_WHO)
    symbols = element_room.symbols(elements, who=_WHO)
    if last not in ("candidates", "samples", "projections"):
        got = f"{last!r}"
        refuse(_WHO, needs="a last stage of candidates, samples or projections", got=got, remedy='`last="samples"`')
    if volume is not None and method is not None:
        refuse(_WHO, needs="a method or a volume", got="both", remedy="leave out `method`")
    if candidates is not None:
        table.check(candidates, who=_WHO)
    if volume is not None:
        counting.check_volume(volume, series, who=_WHO)
    data = evidence(series, likelihood=chosen.likelihood, noise=noise, who=_WHO)
    made = reconstruct(series, method or Sirt(minimum=0.0)) if volume is None else volume
    computed = made.compute(scheduler="synchronous")
    begun = candidates if candidates is not None else maxima(computed, data, symbols, chosen)
    parameters: dict[str, Any] = {"elements": list(symbols), "last": last, **vars(chosen)}
    parameters["noise"] = None if noise is None else [noise.gain, noise.read_noise, noise.background]
    tables = [] if candidates is None else [candidates.attrs.get("recipe", {"operation": "atoms"})]
    recipe = recipes.record(_WHO, parameters, [series, made, *tables])
    found = begun
    if last != "candidates":
        found = sampling.sampled(data, computed, begun, symbols, chosen, recipe=recipe)
    if last == "projections" and found.sizes[table.ATOM] > 0:
        found = refining.refine_atoms(found.drop_vars(list(table.ERRORS)), series, noise=_noise_of(data))
    told = (0.0, 0.0, 0.0) if isinstance(data, Gradients) else (data.gain, data.read, data.background)
    return Chain(found.assign_attrs(recipe=recipes.Shown(recipe)), begun, computed, *told)


def maxima(volume: xr.DataArray, data: Evidence, symbols: tuple[str, ...], settings: Sampling) -> xr.Dataset:
    """Candidates: the bright maxima of the smoothed volume within all projections, at least a bond apart.

    Raises
    ------
    SchemaError
        There are none.
    """
    pixel = data.pixel
    sigma = max((settings.width or width_of(data)) / pixel, _LEAST_WIDTH)
    smooth = scipy.ndimage.gaussian_filter(np.asarray(volume.values, np.float64), sigma)
    if settings.minimum_distance is not None or symbols:
        distance = float(sampling.least_distances(symbols, settings, None).min())
    else:
        distance = 2.5 * sigma * pixel
    highest = scipy.ndimage.maximum_filter(smooth, 3)
    places = np.argwhere((smooth == highest) & (smooth > 0) & data.seen(min(2 * sigma * pixel, distance)))
    if len(places) == 0:
        refuse(_WHO, needs="a volume with maxima", got="one without", remedy="a series with a specimen in it")
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
        recipe=recipes.record("maxima", {"distance": distance, "sigma": sigma}, [volume]),
        height=values[kept],
        width=np.full(int(kept.sum()), sigma * pixel),
        background=np.zeros(int(kept.sum())),
        confidence=values[kept] / noise,
    )
    return made.assign_attrs(atom_width=sigma * pixel, minimum_distance=distance)


def _noise_of(data: Evidence) -> Noise | Literal["auto"]:
    """The noise that a refinement weights pixels by."""
    if isinstance(data, Gradients):
        return "auto"
    return Noise(gain=data.gain, read_noise=data.gain * data.read**0.5, background=data.background)


def width_of(data: Evidence) -> float:
    """The standard deviation of an atom in a projection [nm], before any is found."""
    return width_of_gradients(data) if isinstance(data, Gradients) else counting.width_of(data)


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
