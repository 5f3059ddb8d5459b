"""The noise of the phantoms that networks learn from: that of the series for which they are trained."""

import math
from collections.abc import Callable
from typing import Literal, NoReturn

import dask.array as da
import numpy as np
import xarray as xr

from nntomo_dask.arrays import geometry
from nntomo_dask.errors import refuse
from nntomo_dask.projection import add_noise as adding
from nntomo_dask.projection.noise import Noise, noise as noise_of
from nntomo_dask.reconstruction.intensity import Level, intensity_level

PhantomNoise = float | Literal["auto", "none"]

HELP = (
    "The noise of the phantoms' projections: that of the series, with its background (auto), none, or Gaussian noise "
    "with this standard deviation as a share of their brightest ray."
)
SPREAD_HELP = (
    "Each slice of the phantom has its own level of the noise: that of --noise times a factor from 1 / this to this, "
    "uniform on a logarithmic scale; 1 gives all slices the same."
)
_DIGITS = 6


def like(
    series: xr.DataArray, noise: PhantomNoise, *, who: str, of: Level = "median", spread: float = 1.0
) -> Callable[[xr.DataArray, int], xr.DataArray]:
    """What adds noise to the projections of a phantom, given a seed, as they would be without it.

    With "auto" the noise and the intensity of `series` are estimated at once; the series may be far more intense than a
    phantom, and the noise is scaled by the ratio of the two levels, see `reconstruction.intensity_level`. For `spread`
    see `add_noise.add_noises`.
    """
    if not (math.isfinite(spread) and spread >= 1):
        refuse(who, needs="a noise spread of at least 1", got=f"{spread!r}", remedy="`noise_spread=1`")
    if isinstance(noise, str):
        if noise not in ("auto", "none"):
            got = repr(noise)
            refuse(
                who, needs='a noise "auto" or "none", or a share of the brightest ray', got=got, remedy="`noise=auto`"
            )
        if noise == "none":
            return _unchanged
        return _measured(series, who, of, spread)
    adding.check(noise, None, 0, who=who)
    return lambda projected, seed: adding.add_noises(projected, noise=noise, spread=spread, seed=seed)


def noise_to_add(own: xr.DataArray, *, who: str) -> Noise | None:
    """The noise of a series in its own pixels and in order of angle; None where phantoms need none.

    Raises
    ------
    SchemaError
        The series is all noise, too small for an estimate, or not finite.
    """
    found = noise_of(own)
    if found.is_all_noise:
        got = f"one that varies no more than its noise, {found.read_noise:.3g}"
        refuse(who, needs="a series that shows a specimen", got=got, remedy="another series; or `noise=none`")
    # Of one value: made for its angles and its size alone.
    is_template = found.is_noiseless and found.brightest <= found.background
    return None if is_template or found.is_negligible else found


def refuse_empty(who: str) -> NoReturn:
    """Raise a SchemaError: nothing in a series is above its background."""
    needs, remedy = "a series that shows a specimen", "another series; or `noise=none`"
    refuse(who, needs=needs, got="none above the background", remedy=remedy)


def _measured(series: xr.DataArray, who: str, of: Level, spread: float) -> Callable[[xr.DataArray, int], xr.DataArray]:
    own = geometry.in_order_of_angle(geometry.in_own_pixels(series))
    found = noise_to_add(own, who=who)
    if found is None:
        return _unchanged
    level = float(f"{float(intensity_level(own - np.float32(found.background), of=of)):.{_DIGITS}g}")
    if not level > 0:
        refuse_empty(who)

    def add(projected: xr.DataArray, seed: int) -> xr.DataArray:
        ratio: da.Array = intensity_level(projected, of=of).data / np.float32(level)
        return adding.add_noise_and_background(projected, found, ratio=ratio, level=level, seed=seed, spread=spread)

    return add


def _unchanged(projected: xr.DataArray, seed: int) -> xr.DataArray:
    return projected
