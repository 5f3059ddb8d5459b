"""Signs that a network's volume is not to be trusted, which it shows without the truth."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from nntomo_dask.arrays import schema
from nntomo_dask.reconstruction.method import reconstruct
from nntomo_dask.reconstruction.report import Misfit, misfit_of, slices_of
from nntomo_dask.reconstruction.sirt import Sirt
from nntomo_dask.types import Float32, Float64

# Networks that serve a series were at 1.05 to 1.25 times its noise, or at 0.03 to 0.065 of its values without noise;
# those that painted two densities in one grey at 2.7 to 4.1 times, or at 0.23 to 0.32.
_BEYOND_NOISE, _BEYOND_SHARE = 1.5, 0.08
_BEYOND_SIRT, _ITERATIONS = 1.5, 20  # times the misfit of SIRT after so many iterations: no method meets what drifted
_MATTER = 0.5  # of the brightest matter
_NEAR, _MANY = 0.02, 0.2  # of the range from an end of it; share of the matter that piles up
_BINS = 50  # of one width over the brightness of the matter
_ONE_GREY = 0.6  # share of the matter within three of them


def signs(
    volume: xr.DataArray,
    series: xr.DataArray,
    *,
    ends: Sequence[float] = (),
    known: tuple[Misfit, Float32] | None = None,
) -> list[str]:
    """What is wrong with the volume of a network, in lines; it computes at once.

    A network does not look at its own volume again. Up to 8 evenly spaced slices are projected: where they differ from
    the series by more than 1.5 times its noise and 8 % of its values (the root of both squares), and by more than 1.5
    times as much as after 20 iterations of non-negative SIRT, the volume is not what was measured, whatever it looks
    like. Then its greys may say why: many that lie at an end of the training range were cut off there; most of the
    matter in one grey is what a network paints that has seen nothing else.

    Parameters
    ----------
    volume
        Dims (z, y, x), a network's reconstruction of `series`.
    series
        Dims (z, angle, detector).
    ends
        Values that the network cannot leave, in the units of the volume.
    known
        What `report.misfit_of` gave for both; None to compute it here.

    Returns
    -------
    No lines where there is no sign.
    """
    found, slices = misfit_of(volume, series) if known is None else known
    if not _is_beyond(found):
        return []
    chosen = series.isel({schema.Z: slices_of(series)})
    usual, _ = misfit_of(reconstruct(chosen, Sirt(tolerance=0, max_iterations=_ITERATIONS, minimum=0)), chosen)
    if found.norm < _BEYOND_SIRT * usual.norm:
        return []
    against = f"{100 * found.share:.2g} %, those of SIRT after {_ITERATIONS} iterations by {100 * usual.share:.2g} %"
    text = f"the network's volume does not agree with the series: its projections differ by {against}"
    values = np.asarray(slices, np.float64)
    brightest = float(np.percentile(values, 99.9))
    matter = values[values > _MATTER * brightest]
    remedy = "let nntomo assess compare it with other methods, or train one on phantoms more like this specimen"
    if brightest <= 0 or not matter.size:
        return [f"warning: {text}; {remedy}"]
    reasons = []
    for end in ends:
        share = float((np.abs(matter - end) <= _NEAR * abs(end)).mean())
        if share > _MANY:
            reasons.append(f"{share:.0%} of its matter has the greatest value that the network can give, {end:.3g}")
    grey = _largest_share(matter)
    if not reasons and grey > _ONE_GREY:
        reasons.append(f"{grey:.0%} of its matter has one grey")
    return [f"warning: {'; '.join([text, *reasons])}; {remedy}"]


def _is_beyond(found: Misfit) -> bool:
    return found.norm > float(np.hypot(_BEYOND_NOISE * (found.expected or 0.0), _BEYOND_SHARE * found.size))


def _largest_share(matter: Float64) -> float:
    """The largest share of matter that three neighbouring bins hold."""
    counts, _ = np.histogram(matter, _BINS)
    return float(np.convolve(counts, np.ones(3), "same").max() / matter.size)
