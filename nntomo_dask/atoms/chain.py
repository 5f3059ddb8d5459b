"""From a tilt series to its atoms at low dose, in one call: noise, smoothing, reconstruction, candidates, samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr

from nntomo_dask.arrays import recipes, schema
from nntomo_dask.assessment.assess import assess
from nntomo_dask.atoms import (
    counts as counting,
    elements as element_room,
    measured,
    refine as refining,
    residual,
    sampling,
    table,
)
from nntomo_dask.atoms.counts import Counted
from nntomo_dask.atoms.evidence import Evidence, Likelihood, evidence
from nntomo_dask.atoms.gradients import Gradients
from nntomo_dask.atoms.maxima import maxima
from nntomo_dask.atoms.residual import Residual
from nntomo_dask.atoms.sampling import Sampling
from nntomo_dask.atoms.spacing import spaced
from nntomo_dask.errors import refuse
from nntomo_dask.projection.noise import Noise
from nntomo_dask.projection.smooth import smooth_projections
from nntomo_dask.reconstruction.method import Method, method_of, reconstruct
from nntomo_dask.reconstruction.sirt import Sirt
from nntomo_dask.settings import check_settings, settings_of

Last = Literal["candidates", "samples", "projections"]

ASSESSED = "assess"  # the name of the method that an assessment of the series chooses
_WHO = "atoms_from_series"
_METHOD = Sirt(minimum=0.0, tolerance=1e-3)


class Stage(NamedTuple):
    """A stage of a chain: its name, what was done, and what came of it."""

    name: str
    done: str
    result: str


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
    stages
        One after another.
    residual
        What the atoms leave of the projections; None of candidates, whose heights are those of a volume, and where the
        noise is white in the gradient.
    """

    atoms: xr.Dataset
    candidates: xr.Dataset
    volume: xr.DataArray
    gain: float
    read_counts: float
    background: float
    stages: tuple[Stage, ...] = ()
    residual: Residual | None = None


def atoms_from_series(
    series: xr.DataArray,
    *,
    elements: Sequence[str] = (),
    smoothing: float | None = None,
    method: Method | str | None = None,
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

    The noise is found from the series, its projections are smoothed, a volume is reconstructed, the maxima of that are
    candidates, and `sample_atoms` decides by the projections as they were measured which atoms there are and where.
    Every stage can be replaced. Computes at once.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32, in nm.
    elements
        Symbols of the elements that are seen; they say how high atoms are, and how close they may be.
    smoothing
        Standard deviation of the Gaussian by which projections are smoothed before the reconstruction, [nm]; see
        `smooth_projections`. None: the width of an atom, less where atoms may be so close that they would become one.
        0: none.
    method
        How to reconstruct, or the name of a method. "assess": what `assess` chooses for the smoothed series. None: SIRT
        with values of at least 0, nearly converged.
    volume
        A reconstruction that there is already, dims (z, y, x); then nothing is smoothed or reconstructed.
    candidates
        A table to begin with, such as `find_atoms` makes. None: the maxima of the volume, smoothed by the width of an
        atom, or half of it where the projections were, that are higher than half of the highest.
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
        As `sample_atoms`; the series is empty, a stage is given twice, or the volume has no maxima.
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
        smoothing=smoothing,
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
    smoothing: float | None = None,
    method: Method | str | None = None,
    volume: xr.DataArray | None = None,
    candidates: xr.Dataset | None = None,
    last: Last = "samples",
    noise: Noise | None = None,
    settings: Sampling | None = None,
) -> Chain:
    """`atoms_from_series` with what it finds on the way."""
    chosen = settings or Sampling()
    check_settings(chosen, who=_WHO)
    symbols = element_room.symbols(elements, who=_WHO)
    if last not in ("candidates", "samples", "projections"):
        got = f"{last!r}"
        refuse(_WHO, needs="a last stage of candidates, samples or projections", got=got, remedy="`last=samples`")
    if volume is not None and (method is not None or smoothing is not None):
        given = "`method`" if method is not None else "`smoothing`"
        refuse(_WHO, needs=f"a `volume`, or a {given} to make one", got="both", remedy=f"leave out {given}")
    if candidates is not None:
        table.check(candidates, who=_WHO)
        if candidates.sizes[table.ATOM] == 0:
            refuse(_WHO, needs="one candidate or more", got="a table without rows", remedy="leave out `candidates`")
        if last == "candidates":
            refuse(
                _WHO,
                needs="candidates to look for, or a stage after them",
                got="`candidates` and `last=candidates`",
                remedy="`last=samples`",
            )
    measured.check_geometry(series, who=_WHO)
    if volume is not None:
        counting.check_volume(volume, series, who=_WHO)
    _check_lengths(series, chosen, smoothing)
    how = method_of(method, {}) if method is not None and method != ASSESSED else _METHOD
    how.check(series)
    data = evidence(series, likelihood=chosen.likelihood, noise=noise, who=_WHO)
    if isinstance(data, Gradients) and last == "projections":
        refuse(
            _WHO,
            needs="counts for a refinement to the projections",
            got="`last=projections` and a phase, whose noise is white in the gradient",
            remedy="`last=samples`, whose positions are the means of samples",
        )
    stages = [_stage_of_noise(data, noise)]
    made, sigma = volume, 0.0
    if made is None:
        sigma = _smoothing(smoothing, data, symbols, chosen)
        smooth = smooth_projections(series, width=sigma)
        done = (
            f"Gaussian of {sigma:.3g} nm, {'after the width of an atom' if smoothing is None else 'given'}"
            if sigma
            else "none"
        )
        stages.append(Stage("smoothing of the projections", done, ""))
        if method == ASSESSED:
            how = assess(smooth).method
        made = reconstruct(smooth, how)
    computed = made.compute(scheduler="synchronous")
    told = "given" if volume is not None else _told(how) + (", chosen by assessment" if method == ASSESSED else "")
    highest = f"values from {float(computed.min()):.3g} to {float(computed.max()):.3g}"
    stages.append(Stage("reconstruction", told, highest))
    begun = candidates
    if begun is None:
        begun = maxima(computed, data, symbols, chosen, smoothing=sigma, who=_WHO)
    told = "maxima of the volume" if candidates is None else "given"
    stages.append(Stage("candidates", told, f"{begun.sizes[table.ATOM]}"))
    parameters: dict[str, Any] = {"elements": list(symbols), "last": last, **vars(chosen)}
    parameters["noise"] = None if noise is None else [noise.gain, noise.read_noise, noise.background]
    tables = [] if candidates is None else [candidates.attrs.get("recipe", {"operation": "atoms"})]
    recipe = recipes.record(_WHO, parameters, [series, made, *tables])
    found = begun
    if last != "candidates":
        found = sampling.sampled(data, computed, begun, symbols, chosen, recipe=recipe)
        rounds = f"{chosen.burn_in} rounds, then {chosen.samples} with a sample each, seed {chosen.seed}"
        stages.append(Stage("sampling", rounds, f"{found.sizes[table.ATOM]} atoms"))
    if last == "projections" and isinstance(data, Counted) and found.sizes[table.ATOM] > 0:
        common = {name: found.attrs[name] for name in ("atom_width", "minimum_distance")}
        found = refining.refine_atoms(found.drop_vars(list(table.ERRORS)), series, noise=_noise_of(data)).assign_attrs(
            common
        )
        moved = int((found[table.REFINED].values == 1).sum())
        stages.append(Stage("refinement", "least squares in the projections", f"{moved} atoms moved"))
    return Chain(
        found.assign_attrs(recipe=recipes.Shown(recipe)),
        begun,
        computed,
        *(data.gain, data.read, data.background) if isinstance(data, Counted) else (0.0, 0.0, 0.0),
        tuple(stages),
        residual.of(found, series, data) if last != "candidates" and isinstance(data, Counted) else None,
    )


def _check_lengths(series: xr.DataArray, settings: Sampling, smoothing: float | None) -> None:
    """Raise a SchemaError where an atom would be as wide as what is seen, or its neighbours beyond it."""
    detector = np.asarray(series[schema.DETECTOR].values, np.float64)
    field = float(detector.max() - detector.min()) + schema.pixel_size_of(series)
    for name, share in (("width", 0.25), ("minimum_distance", 1.0)):
        given = getattr(settings, name)
        if given is not None and given > share * field:
            refuse(
                _WHO,
                needs=f"a `{name}` of at most {share * field:.3g} nm, of a field of view of {field:.3g} nm",
                got=f"{given:g} nm",
                remedy=f"leave out `{name}`, or give it in nm",
            )
    if smoothing is not None and not 0 <= smoothing < field:
        refuse(
            _WHO,
            needs=f"a `smoothing` of at least 0 and less than the field of view, {field:.3g} nm",
            got=f"{smoothing!r}",
            remedy="leave out `smoothing`: it is the width of an atom then",
        )


def _smoothing(given: float | None, data: Evidence, symbols: tuple[str, ...], settings: Sampling) -> float:
    """The width of an atom [nm], or as much of it as leaves two maxima of two atoms at their least distance."""
    if given is not None:
        return given
    if isinstance(data, Gradients):  # whose noise is smooth, and no smoothing makes less of it
        return 0.0
    width = settings.width or counting.width_of(data)
    if settings.minimum_distance is None and not symbols:
        return width
    # Two equal Gaussians at a distance of two standard deviations become one.
    closest = float(spaced(symbols, settings.minimum_distance, None).min())
    return min(width, math.sqrt(max((closest / 2) ** 2 - width**2, 0.0)))


def _stage_of_noise(data: Evidence, noise: Noise | None) -> Stage:
    source = "found from the series" if noise is None else "given"
    if isinstance(data, Gradients):
        return Stage("noise", source, f"white in the gradient, {data.precision**-0.5:.3g} per nm along each axis")
    said = [f"a count adds {data.gain:.3g}"] if data.gain > 0 else []
    if data.read > 0:
        said.append(f"read-out noise {data.gain * math.sqrt(data.read):.3g}")
    if data.background:
        said.append(f"background {data.background:.3g}")
    said.append(f"{float(data.counts.mean()) - data.read:.3g} counts a pixel")
    return Stage("noise", source, ", ".join(said))


def _told(method: Method) -> str:
    """A method with the settings that differ from its defaults."""
    own = [
        f"{one.name.replace('_', ' ')} {getattr(method, one.name)}"
        for one in settings_of(method)
        if getattr(method, one.name) != one.default
    ]
    return ", ".join([method.title, *own])


def _noise_of(data: Counted) -> Noise:
    """The noise that a refinement weights pixels by."""
    return Noise(gain=data.gain, read_noise=data.gain * data.read**0.5, background=data.background)
