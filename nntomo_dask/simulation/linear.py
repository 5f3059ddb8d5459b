"""The tilt series of a linear model: every atom adds the projection of its profile, and the beam is not weakened.

It is the series of which `ground_truth` is the volume, in seconds instead of hours. The projection of a radial function
g(r) is the radial function with the same transform,

    p(R) = 2π ∫ f(k) D(k) H(k) k J₀(2π k R) dk,    0 ≤ k ≤ 2α/λ,

and it is evaluated at the centres of pixels, not through any projector.
"""

import os

import dask.array as da
import numpy as np
import numpy.typing as npt
import scipy.special
import xarray as xr
from ase import Atoms

from nntomo_dask.arrays import recipes, schema, slabs
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import counting
from nntomo_dask.kernels.place import place
from nntomo_dask.simulation import multislice, optics, truth
from nntomo_dask.simulation.optics import Imaging, Mode, Plan
from nntomo_dask.simulation.specimen import Specimen, specimen
from nntomo_dask.types import Float32, Float64

_STEPS = 32  # steps of a profile per pixel
_REACH_NM = 0.8  # radius of a profile


def linear_series(
    structure: Specimen | str | os.PathLike[str] | Atoms,
    angles_deg: npt.ArrayLike,
    *,
    mode: Mode,
    imaging: Imaging | None = None,
) -> xr.DataArray:
    """The tilt series of a crystal by the linear model of `ground_truth`, with the noise of a dose.

    Lazy. It takes no account of multiple scattering, of the depth of focus or of aberrations; `simulate` does.

    Parameters
    ----------
    structure
        As for `simulate`.
    angles_deg
        (angle,), [degrees].
    mode
        "haadf" or "idpc".
    imaging
        As for `simulate`; of its settings those of `ground_truth`, `dose`, `dose_per` and `seed` play a part.

    Returns
    -------
    Dims (z, angle, detector), float32, coordinates in nm, in the units of `simulate`. With a dose, HAADF has Poisson
    noise. iDPC has the noise of a centre of mass, integrated: N electrons of a uniform disc of radius q have a variance
    of q² / 4N along each axis.

    Raises
    ------
    SchemaError
        As for `ground_truth`.
    """
    if mode not in ("haadf", "idpc"):
        refuse("linear_series", needs="mode haadf or idpc", got=f"{mode!r}", remedy='`mode="haadf"`')
    settings = imaging or Imaging()
    held = structure if isinstance(structure, Specimen) else specimen(structure)
    angles = schema.check_angles(angles_deg, who="linear_series")
    plan = optics.plan(held, settings, (mode,))
    parameters = {name: getattr(settings, name) for name in (*optics.SETTINGS_OF_TRUTH, "dose", "dose_per", "seed")}
    parameters |= {"mode": mode, "angles_deg": angles, "field_of_view_nm": plan.field_of_view_nm}
    made_by = recipes.record("linear_series", parameters, [held.recipe])
    projections = da.map_blocks(
        _projection,
        da.arange(len(angles), chunks=1),
        new_axis=[1, 2],
        chunks=((1,) * len(angles), (settings.pixels,), (settings.pixels,)),
        dtype=np.float32,
        meta=np.empty((0,) * 3, np.float32),
        name=f"linear-series-{recipes.token(made_by)}",
        held=held,
        angles=angles,
        plan=plan,
        imaging=settings,
        mode=mode,
    )
    positions = schema.centred(settings.pixels, plan.pixel_nm)
    return slabs.label(
        projections.transpose(1, 0, 2),
        dims=schema.SERIES_DIMS,
        coords=schema.series_coords(positions, angles, positions),
        attrs={
            "units": "nm",
            "pixel_size": plan.pixel_nm,
            "quantity": optics.QUANTITIES[mode],
            "long_name": optics.LONG_NAMES[mode],
        },
        recipe=made_by,
        name=mode,
    )


def _projection(
    index: npt.NDArray[np.int64], *, held: Specimen, angles: Float64, plan: Plan, imaging: Imaging, mode: Mode
) -> Float32:
    """The block (1, z, detector) of one tilt angle."""
    angle = float(angles[index[0]])
    image = clean_projection(held, angle, plan, imaging, mode)
    if imaging.dose is None:
        return image[None]
    rng = np.random.default_rng([imaging.seed, round((angle + 360) * 1000), mode == "idpc"])
    electrons = imaging.dose * (10 * plan.pixel_nm) ** 2
    if imaging.dose_per == "series":
        electrons /= len(angles)
    if mode == "haadf":
        return np.asarray(counting.counted(image, electrons, rng), np.float32)[None]
    radius = imaging.convergence_mrad * 1e-3 / (10 * imaging.wavelength_nm)
    deviation = radius / 2 / np.sqrt(electrons)
    gradient = deviation * (rng.standard_normal(image.shape) + 1j * rng.standard_normal(image.shape))
    noise = 20 * np.pi * multislice.integrate_gradient(gradient.T.astype(np.complex64), plan.pixel_nm).T
    return np.asarray(image + noise - noise.mean(), np.float32)[None]


def clean_projection(held: Specimen, angle_deg: float, plan: Plan, imaging: Imaging, mode: Mode) -> Float32:
    """The image (z, detector) of one tilt angle, without noise."""
    size = imaging.pixels
    elements = np.unique(held.numbers)
    profiles = projected_profiles(elements, plan.pixel_nm, imaging, mode)
    detector, z, _ = held.tilted(angle_deg).T / plan.pixel_nm + (size - 1) / 2
    # One slice of a volume, in which all atoms lie.
    places = np.stack([detector, z, np.zeros_like(z), np.full_like(z, _STEPS)], axis=1)
    image: Float32 = place(np.zeros(1, np.int64), size, places, np.searchsorted(elements, held.numbers), profiles)[0]
    return image


def projected_profiles(elements: npt.NDArray[np.int64], pixel_nm: float, imaging: Imaging, mode: Mode) -> Float64:
    """(element, step): the projections of the profiles of atoms, `_STEPS` a pixel, per unit of the series."""
    steps = int(_REACH_NM / pixel_nm * _STEPS) + 1
    radii = np.arange(steps + 1) / _STEPS * pixel_nm * 10
    k, weights = truth.frequencies(imaging), truth.form_factors(elements, mode, imaging, None)
    spectra = np.stack(
        [
            weight(k) * truth.broadening(number, k, imaging) * truth.transfer(k / (k[-1] + k[0])) * k
            for number, weight in zip(elements, weights, strict=True)
        ]
    )
    kernel = scipy.special.j0(2 * np.pi * np.outer(k, radii)) * (2 * np.pi * (k[1] - k[0]))
    return np.asarray(spectra @ kernel, np.float64)
