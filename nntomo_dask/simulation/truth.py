"""The volume that a perfect reconstruction of a simulated series would show, calculated from the crystal itself.

In a linear model, an image is the projection of a density, convolved with the probe. A probe that is the same in all
directions can be applied to the density instead: by the Fourier slice theorem, the projection of a radial function in
three dimensions has the same transform as the function itself. So an atom is a radial profile

    g(r) = 4π ∫ f(k) D(k) H(k) k² sinc(2 k r) dk,    0 ≤ k ≤ 2α/λ,

with its form factor f, the thermal broadening D, and the transfer function H of the probe.
"""

import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from ase import Atoms
from ase.data import chemical_symbols

from nntomo_dask.arrays import recipes, slabs
from nntomo_dask.errors import refuse
from nntomo_dask.kernels.place import place
from nntomo_dask.simulation import degrade, multislice, optics
from nntomo_dask.simulation.optics import Imaging, Mode
from nntomo_dask.simulation.specimen import Specimen, specimen
from nntomo_dask.types import Float64

_STEPS = 32  # steps of a profile per voxel
_REACH_NM = 0.8  # radius of a profile; farther out it oscillates below 1e-3 of its maximum
_POINTS = 1024  # points of the integral over k


def ground_truth(
    structure: Specimen | str | os.PathLike[str] | Atoms,
    *,
    mode: Mode,
    imaging: Imaging | None = None,
    exponent: float | None = None,
) -> xr.DataArray:
    """The volume that a perfect reconstruction of a simulated series would show, on the grid of the series.

    Lazy: nothing is computed until the volume is saved.

    Parameters
    ----------
    structure
        As for `simulate`.
    mode
        "idpc": the electrostatic potential, as phase per voxel. "haadf": atoms weighted by what they scatter onto the
        detector.
    imaging
        As for `simulate`. Only the settings of `optics.SETTINGS_OF_TRUTH` play a part. Vibrations (`phonons` above 0),
        the source size and the blur broaden the atoms; noise and aberrations are left out.
    exponent
        For "haadf": weight atoms by this power of their atomic number; the heaviest element keeps the weight that it
        has by default. None: weight them by their scattering factors between the angles of the detector.

    Returns
    -------
    Dims (z, y, x), float32, `pixels` along each; coordinates in nm. Its line integrals, with lengths in pixels, have
    the units of the series: radians, or the fraction of the beam on the detector.

    Raises
    ------
    SchemaError
        As for `simulate`, or an exponent is given for "idpc" or is not finite.
    """
    if exponent is not None and mode != "haadf":
        refuse(
            "ground_truth",
            needs="no exponent for idpc",
            got=f"{exponent:g}",
            remedy='leave out `exponent`, or `mode="haadf"`',
        )
    if exponent is not None and not math.isfinite(exponent):
        refuse(
            "ground_truth", needs="a finite `exponent`", got=f"{exponent:g}", remedy="`exponent=1.7`, or leave it out"
        )
    settings = imaging or Imaging()
    held = structure if isinstance(structure, Specimen) else specimen(structure)
    plan = optics.plan(held, settings, (mode,))
    elements = np.unique(held.numbers)
    radii = np.arange(int(_REACH_NM / plan.pixel_nm * _STEPS) + 1) / _STEPS * plan.pixel_nm * 10
    weights = form_factors(elements, mode, settings, exponent)
    k = frequencies(settings)
    profiles = np.stack(
        [
            profile(radii, weight(k), broadening(number, k, settings), k)
            for number, weight in zip(elements, weights, strict=True)
        ]
    )
    if mode == "haadf":
        profiles = np.stack([without_rings(radii, one) for one in profiles])
    centre = (settings.pixels - 1) / 2
    places = np.concatenate(
        [held.positions_nm / plan.pixel_nm + centre, np.full((len(held.numbers), 1), float(_STEPS))], axis=1
    )
    parameters: dict[str, Any] = {"mode": mode, "exponent": exponent} | {
        name: getattr(settings, name)
        for name in ("energy_ev", "convergence_mrad", "pixels", "source_size_nm", "blur_nm")
    }
    if mode == "haadf":
        parameters |= {"detector_mrad": settings.detector_mrad, "profile": "non-negative"}
    parameters |= {"field_of_view_nm": plan.field_of_view_nm}
    parameters |= {"sigma_nm": settings.sigma_nm if settings.phonons else 0}
    volume = slabs.generate_slabs(
        _slab,
        (settings.pixels,) * 3,
        recipe=recipes.record("ground_truth", parameters, [held.recipe]),
        pixel_size=plan.pixel_nm,
        units="nm",
        positions=places,
        kinds=np.searchsorted(elements, held.numbers),
        profiles=profiles * (10 * plan.pixel_nm),
        size=settings.pixels,
    )
    return volume.assign_attrs(quantity=optics.QUANTITIES[mode], long_name=optics.LONG_NAMES[mode])


def _slab(z_indices: npt.NDArray[np.int64], **arguments: Any) -> Any:
    return place(z_indices, **arguments)


def frequencies(imaging: Imaging) -> Float64:
    """Spatial frequencies up to the limit of the probe, [1/Å]."""
    limit = 2 * imaging.convergence_mrad * 1e-3 / (10 * imaging.wavelength_nm)
    return (np.arange(_POINTS) + 0.5) / _POINTS * limit


def transfer(share: Float64) -> Float64:
    """Transfer function of an ideal probe at a fraction of its limit 2α/λ: the autocorrelation of the aperture."""
    inside = np.clip(share, 0, 1)
    return np.asarray(2 / np.pi * (np.arccos(inside) - inside * np.sqrt(1 - inside**2)))


def profile(radii: Float64, factor: Float64, broadening: Float64, k: Float64) -> Float64:
    """g(r) of the formula above, by the midpoint rule, in [unit of the factor / Å³]."""
    limit = k[-1] + k[0]
    spectrum = factor * broadening * transfer(k / limit) * k**2
    return np.asarray(4 * np.pi * np.sinc(2 * radii[:, None] * k) @ spectrum * (limit / len(k)))


def without_rings(radii: Float64, values: Float64) -> Float64:
    """A profile that is nowhere below zero, with the same total and the same core.

    What scatters to high angles is a point to the probe, and the sharp edge of the aperture then leaves rings around
    it, the first of them negative: 0.4 to 0.8 % of the maximum. No matter scatters less than nothing. The negative
    rings are set to 0, and the positive ones beyond them are lowered until the total is what it was. Projections change
    by 1 % with vibrations and 2 % without.
    """
    negative = values < 0
    if not negative.any():
        return values
    tail = np.arange(len(values)) >= int(negative.argmax())
    weight = radii**2
    weight[-1] /= 2  # the trapezoidal rule, for equal steps
    kept = np.maximum(values, 0)
    total, core, rings = (float(weight @ part) for part in (values, np.where(tail, 0, kept), np.where(tail, kept, 0)))
    share = min(max((total - core) / rings, 0.0), 1.0) if rings > 0 else 1.0
    return np.where(tail, share * kept, kept)


def broadening(number: int, k: Float64, imaging: Imaging) -> Float64:
    """Transfer function of thermal vibrations, source size and blur together."""
    vibration = imaging.sigma_of(chemical_symbols[number]) if imaging.phonons else 0.0
    variance = vibration**2 + (imaging.source_size_nm / degrade.FWHM) ** 2 + imaging.blur_nm**2
    return np.asarray(np.exp(-2 * np.pi**2 * 100 * variance * k**2))


def form_factors(elements: Any, mode: Mode, imaging: Imaging, exponent: float | None) -> list[Any]:
    """For every element its form factor as a function of k [1/Å], in [Å²] of phase or of the fraction of the beam."""
    sigma = multislice.interaction(imaging.energy_ev)
    if mode == "idpc":
        return [
            lambda k, symbol=chemical_symbols[number]: sigma * multislice.scattering_factor(symbol, k)
            for number in elements
        ]
    sections = [_cross_section(number, imaging) for number in elements]
    if exponent is not None:
        sections = [sections[-1] * (number / elements[-1]) ** exponent for number in elements]
    return [lambda k, section=section: np.full(k.shape, section) for section in sections]


def _cross_section(number: int, imaging: Imaging) -> float:
    """Scattering cross-section of an atom between the angles of the detector, [Å²].

    In first order, the scattered wave is the Fourier transform of σ times the projected potential. Its intensity is
    integrated over the annulus.
    """
    inner, outer = (angle * 1e-3 / (10 * imaging.wavelength_nm) for angle in imaging.detector_mrad)
    k = np.linspace(inner, outer, 257)
    scattered = (
        multislice.interaction(imaging.energy_ev) * multislice.scattering_factor(chemical_symbols[number], k)
    ) ** 2
    return float(np.trapezoid(scattered * 2 * np.pi * k, k))
