"""Sets of scenes: what a training of an unrolled iteration learns from, as descriptions without data."""

from typing import Any, Literal

import numpy as np
import xarray as xr

from nntomo_dask.arrays import geometry, recipes, schema
from nntomo_dask.arrays.angles import extent_deg
from nntomo_dask.errors import refuse
from nntomo_dask.networks.unrolled import Geometry
from nntomo_dask.phantoms.materials import Materials
from nntomo_dask.phantoms.phantom import Phantom, for_training
from nntomo_dask.settings import settings_of
from nntomo_dask.training.noise import PhantomNoise, noise_to_add, refuse_empty
from nntomo_dask.training.unrolled.appearance import appearance
from nntomo_dask.training.unrolled.scenes import SceneNoise, Scenes, described

Prior = Literal["wide", "series"]

VALIDATED = 32  # scenes of a validation set
LARGEST = 128  # pixels of a scene, where the series has more
FLAWED = 0.5  # share of the scenes with flaws
_DIGITS = 4


def phantom_scenes(
    series: xr.DataArray,
    *,
    phantom: str | Phantom = Materials.name,
    prior: Prior = "wide",
    noise: PhantomNoise = "auto",
    flawed: float = FLAWED,
    size: int | None = None,
    validated: int = VALIDATED,
    seed: int = 0,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Training and validation scenes for exactly this series, without end and without data: phantoms by number.

    Of `series` the angles, in any order, the number of detector pixels, and noise and background are used.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32.
    phantom
        Its name, or a `Phantom` with settings of your own: ``PHANTOMS["atomic"](elements="Zr,O,C")``. Where the pixels
        of `series` are in nm, so are those of atoms.
    prior
        "wide": matter of any kind. "series": of `materials` what looks like `series`, and more: how much of the field
        it fills, how large its bodies are, and how its densities vary, as total variation shows them in some slices.
        Computed at once, in seconds; ``attrs["appearance"]`` says what was found.
    noise
        Of the phantoms' rays. "auto": that of the series, see `noise`, varied from scene to scene by a quarter, with
        its background; estimated at once, and left out where it is below 0.3 % of the brightest ray. "none". Or the
        standard deviation of Gaussian noise, as a share of the brightest ray.
    flawed
        Share of the scenes whose projections have what measured ones have: small shifts, errors of the angles and of
        the tilt axis, unequal brightness, rests of a background, blur, and rays that are no exact line integrals.
    size
        Pixels along a slice; by default those of the series, at most 128: what matter looks like hardly depends on the
        size, and the time does.
    validated
        Scenes of the validation set, which are the same in every epoch.
    seed
        Of the scenes.

    Returns
    -------
    Two datasets without variables, for `train_unrolled`.

    Raises
    ------
    SchemaError
        `series` is no tilt series, or a parameter is out of range. With ``prior="series"``: it shows nothing, or the
        phantom is another one than `materials`. With ``noise="auto"``: the series is all noise, too
        small for an estimate, or not finite.
    """
    who = "phantom_scenes"
    schema.check_tilt_series(series, who=who)
    angles = tuple(np.sort(series[schema.ANGLE].values).tolist())
    pixels = min(series.sizes[schema.DETECTOR], LARGEST) if size is None else size
    found = _noise(series, noise, who)
    chosen, text = _like(series, for_training(phantom, series, who=who), prior, who)
    both = drawn_scenes(
        Geometry(angles, (len(angles),) * 2, (extent_deg(angles) / 2,) * 2),
        phantom=chosen,
        noise=found,
        flawed=flawed,
        size=pixels,
        validated=validated,
        seed=seed,
        who=who,
    )
    return both if text is None else (both[0].assign_attrs(appearance=text), both[1].assign_attrs(appearance=text))


def _like(series: xr.DataArray, phantom: Phantom, prior: Prior, who: str) -> tuple[Phantom, str | None]:
    """The phantom for a prior, and what was found in the series for it."""
    if prior not in ("wide", "series"):
        refuse(who, needs='a prior "wide" or "series"', got=repr(prior), remedy='`prior="wide"`')
    if prior == "wide":
        return phantom, None
    if not isinstance(phantom, Materials):
        needs, remedy = f"the phantom {Materials.name} for a prior from the series", '`prior="wide"`'
        refuse(who, needs=needs, got=phantom.name, remedy=remedy)
    found = appearance(series, who=who)
    return found.narrowed(phantom), found.describe()


def drawn_scenes(
    wanted: Geometry,
    *,
    phantom: str | Phantom,
    noise: SceneNoise,
    size: int,
    flawed: float = 0.0,
    validated: int = VALIDATED,
    seed: int = 0,
    who: str = "drawn_scenes",
) -> tuple[xr.Dataset, xr.Dataset]:
    """The same for any series within some bounds, or with noise that is drawn: how pretrained networks are made."""
    chosen = for_training(phantom, who=who)
    changed = _changed(chosen)
    if size < 16:
        refuse(who, needs="scenes of at least 16 pixels", got=f"{size}", remedy="`size=96`")
    if not 0 <= flawed <= 1:
        refuse(who, needs="a share of flawed scenes from 0 to 1", got=f"{flawed}", remedy=f"`flawed={FLAWED}`")
    if validated < 1:
        refuse(who, needs="at least 1 scene to validate with", got=f"{validated}", remedy=f"`validated={VALIDATED}`")
    return (
        _described(Scenes(chosen.name, size, wanted, noise, 2 * seed + 1, flawed, changed)),
        _described(Scenes(chosen.name, size, wanted, noise, 2 * seed + 2, flawed, changed), count=validated),
    )


def _changed(phantom: Phantom) -> tuple[tuple[str, Any], ...]:
    """Settings that are not those that networks are trained on by default."""
    usual = type(phantom).for_training()
    pairs = ((one.name, getattr(phantom, one.name)) for one in settings_of(phantom))
    return tuple((name, value) for name, value in pairs if value != getattr(usual, name))


def _described(scenes: Scenes, **attributes: int) -> xr.Dataset:
    recipe = recipes.record("phantom_scenes", described(scenes) | attributes)
    attrs = {"scenes": scenes.to_json(), "recipe": recipes.Shown(recipe), **attributes}
    return xr.Dataset(attrs=attrs)


def _noise(series: xr.DataArray, noise: PhantomNoise, who: str) -> SceneNoise:
    if isinstance(noise, str):
        if noise not in ("auto", "none"):
            needs = 'a noise "auto" or "none", or a share of the brightest ray'
            refuse(who, needs=needs, got=repr(noise), remedy="`noise=auto`")
        if noise == "none":
            return SceneNoise()
    elif not (isinstance(noise, int | float) and np.isfinite(noise) and noise >= 0):
        needs = "a noise of at least 0, a share of the brightest ray"
        refuse(who, needs=needs, got=f"{noise!r}", remedy="`noise=0.02`")
    else:
        return SceneNoise(read=float(noise))
    found = noise_to_add(geometry.in_order_of_angle(geometry.in_own_pixels(series)), who=who)
    if found is None:
        return SceneNoise()
    above = found.brightest - found.background
    if not above > 0:
        refuse_empty(who)
    shares = found.read_noise / above, found.gain / above, found.background / above
    read, gain, background = (float(f"{share:.{_DIGITS}g}") for share in shares)
    return SceneNoise(read=read, gain=gain, background=background)
