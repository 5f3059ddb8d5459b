"""The settings of the microscope, and the grids that follow from them. Both are checked before anything is computed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from ase.data import chemical_symbols

from nntomo_dask.errors import refuse
from nntomo_dask.settings import check_settings, setting, settings_of

if TYPE_CHECKING:
    from nntomo_dask.simulation.specimen import Specimen

Mode = Literal["haadf", "idpc"]
Modes = Literal["haadf", "idpc", "both"]
Route = Literal["center-of-mass", "segmented", "py4dstem"]
Algorithm = Literal["prism", "multislice"]
DosePer = Literal["series", "projection"]
QUANTITIES: dict[Mode, str] = {"haadf": "share of the beam on the detector", "idpc": "phase in radians"}
LONG_NAMES: dict[Mode, str] = {"haadf": "HAADF intensity", "idpc": "iDPC phase"}

MARGIN_NM = 0.1  # vacuum on each side of the specimen that a field of view must include
_ANGLE_MARGIN_MRAD = 2.0  # between the outer detector angle and the largest angle of the grid
# Width of the window that PRISM keeps for a probe, in units of λ/α: the automatic choice, and the least allowed one. At
# 15 mrad and 300 kV a window of 5.9 is within 6 % of the full calculation; with 3 the centre of mass is 12 % off.
_WINDOW, _LEAST_WINDOW = 5.2, 3.5
_LARGEST_INTERPOLATION = 10
_LARGEST_ANGLE_MRAD = 400.0  # multislice assumes small angles
FOCAL_STEPS = 5  # number of defocus values that represent the focal spread
# The settings on which `ground_truth` depends. The others describe how the images are calculated, or noise.
SETTINGS_OF_TRUTH = (
    "energy_ev",
    "convergence_mrad",
    "detector_mrad",
    "pixels",
    "field_of_view_nm",
    "phonons",
    "sigma_nm",
    "source_size_nm",
    "blur_nm",
)


@dataclass(frozen=True, kw_only=True)
class Imaging:
    """The settings of a scanning transmission electron microscope, and of its simulation.

    Every field says in its `settings.setting` what it means; ``nntomo simulate --help`` lists them. A few of them in
    more detail:

    - `slice_thickness_nm`: with 0.2 the waves take half as long as with 0.1. The result is as good, except where atoms
      stand in rows along the beam.
    - `algorithm`: "multislice" propagates every probe on its own and takes ten to a hundred times as long as "prism".
    - `interpolation` = n: PRISM calculates every n-th plane wave, and the window of a probe is the n-th part of the
      field of view. By default n is as large as the size of the probe allows; with 1, "prism" is as exact as
      "multislice".
    - `idpc`: how the phase is obtained. "center-of-mass" takes the centre of mass of every diffraction pattern up to
      twice the convergence angle, divided by its intensity, and integrates it. "segmented" does the same with the
      differences between the four quadrants of a detector. "py4dstem" uses the phase reconstruction of py4DSTEM.
    - `defocus_nm` is measured from the tilt axis; positive values are underfocus.
    - `sigma_nm` is one number, or a dict by element in which "other" stands for all elements that are not named.
    - `drift_nm` is the displacement in both directions that remains after alignment.
    - `seed`: a projection depends on the seed and on its own angle, not on the other angles of the series.

    References
    ----------
    .. [1] C. Ophus, Adv. Struct. Chem. Imaging 3 (2017) 13, doi:10.1186/s40679-017-0046-1 (PRISM).
    .. [2] J. Madsen and T. Susi, Open Res. Europe 1 (2021) 24, doi:10.12688/openreseurope.13015.2 (abTEM).
    .. [3] I. Lazić, E. G. T. Bosch, S. Lazar, Ultramicroscopy 160 (2016) 265 (iDPC).
    """

    energy_ev: float = setting(300e3, help="Energy of the electrons.", unit="eV", least=1e3)
    convergence_mrad: float = setting(15.0, help="Convergence semi-angle of the probe.", unit="mrad", least=0.1)
    detector_mrad: tuple[float, float] = setting(
        (60.0, 150.0),
        help="Inner and outer angle of the annular dark-field detector. 60 is four times the default convergence "
        "angle, so that contrast by atomic number prevails; half the outer angle takes a quarter of the time.",
        unit="mrad",
    )
    pixels: int = setting(128, help="Number of pixels of a projection, along the detector and the tilt axis.", least=8)
    field_of_view_nm: float | None = setting(
        None,
        help="Width of a projection. Default: the specimen at every tilt angle, with 0.1 nm of vacuum on each side.",
        unit="nm",
        above=0,
    )
    slice_thickness_nm: float = setting(
        0.1,
        help="Thickness of the slices through which the electron wave is propagated. 0.2 is faster, but too coarse for "
        "HAADF where atoms stand in rows along the beam.",
        unit="nm",
        least=0.01,
    )
    algorithm: Algorithm = setting(
        "prism", help="How probes are propagated. multislice is the reference and takes at least ten times as long."
    )
    interpolation: int | None = setting(
        None,
        help="Interpolation factor of PRISM; 1 is exact. Default: the largest for which a probe fits into its window.",
        least=1,
    )
    idpc: Route = setting(
        "center-of-mass",
        help="How the phase is obtained: from the centre of mass of the diffraction patterns, from a detector of four "
        "segments, or by py4DSTEM.",
    )
    defocus_nm: float = setting(0.0, help="Defocus, measured from the tilt axis; positive is underfocus.", unit="nm")
    cs_mm: float = setting(0.0, help="Spherical aberration.", unit="mm")
    astigmatism_nm: float = setting(0.0, help="Twofold astigmatism.", unit="nm")
    astigmatism_deg: float = setting(0.0, help="Direction of the astigmatism.", unit="degrees")
    coma_nm: float = setting(0.0, help="Axial coma.", unit="nm")
    coma_deg: float = setting(0.0, help="Direction of the coma.", unit="degrees")
    focal_spread_nm: float = setting(
        0.0,
        help="Standard deviation of the defocus, caused by the energy spread and chromatic aberration.",
        unit="nm",
        least=0,
    )
    phonons: int = setting(
        4,
        help="Number of frozen-phonon configurations that are averaged. HAADF is mostly scattering by vibrating atoms. "
        "With 0 the atoms do not vibrate; 1 is a preview, in a quarter of the time.",
        least=0,
    )
    sigma_nm: float | Mapping[str, float] = setting(
        0.008,
        help="Standard deviation of the thermal displacement of an atom along each axis: one number, or one for each "
        "element, such as Zr=0.006,other=0.01. It is used when --phonons is above 0.",
        unit="nm",
    )
    dose: float | None = setting(
        None,
        help="Number of electrons per square ångström; adds Poisson noise. Default: no noise.",
        unit="e/Å²",
        above=0,
    )
    dose_per: DosePer = setting(
        "series", help="Whether --dose is shared by all projections of the series or is given to each projection."
    )
    source_size_nm: float = setting(
        0.0, help="Full width at half maximum of the electron source at the specimen.", unit="nm", least=0
    )
    blur_nm: float = setting(
        0.0,
        help="Standard deviation of a Gaussian blur of the finished images, noise included.",
        unit="nm",
        least=0,
    )
    drift_nm: float = setting(
        0.0,
        help="Standard deviation of a random displacement of each projection, in both directions.",
        unit="nm",
        least=0,
    )
    jitter_nm: float = setting(
        0.0,
        help="Standard deviation of a random displacement of each scan line, along the line.",
        unit="nm",
        least=0,
    )
    seed: int = setting(0, help="Seed of all random numbers. The same seed gives the same images.", least=0)

    @property
    def wavelength_nm(self) -> float:
        """The relativistic de Broglie wavelength of the electrons."""
        return wavelength_nm(self.energy_ev)

    def sigma_of(self, symbol: str) -> float:
        """Standard deviation of the displacement of an element's atoms along an axis, [nm]."""
        if isinstance(self.sigma_nm, Mapping):
            return float(self.sigma_nm.get(symbol, self.sigma_nm.get("other", 0.0)))
        return float(self.sigma_nm)

    def check(self) -> None:
        """Raise a SchemaError if a setting is out of range for any specimen."""
        if self.dose is not None and not (math.isfinite(self.dose) and self.dose > 0):
            refuse(
                "simulate",
                needs="a dose above 0 e/Å²",
                got=f"{self.dose:g}",
                remedy="leave out `dose` for images without noise",
            )
        check_settings(self, who="simulate")
        for one in settings_of(self):
            value = getattr(self, one.name)
            if isinstance(value, float) and not math.isfinite(value):
                refuse("simulate", needs=f"a finite `{one.name}`", got=f"{value}", remedy="give a number")
        inner, outer = self.detector_mrad
        if not self.convergence_mrad <= inner:
            refuse(
                "simulate",
                needs=f"a dark-field detector from {self.convergence_mrad:g} mrad, where the beam ends, or more",
                got=f"{inner:g} to {outer:g} mrad",
                remedy="`detector_mrad=(60, 150)`",
            )
        if not inner < outer <= _LARGEST_ANGLE_MRAD:
            refuse(
                "simulate",
                needs=f"a detector from its inner to its outer angle, at most {_LARGEST_ANGLE_MRAD:g} mrad",
                got=f"{inner:g} to {outer:g} mrad",
                remedy="`detector_mrad=(60, 150)`",
            )
        sigmas = self.sigma_nm.values() if isinstance(self.sigma_nm, Mapping) else [self.sigma_nm]
        if not all(math.isfinite(sigma) and 0 <= sigma < 0.1 for sigma in sigmas):
            refuse(
                "simulate",
                needs="`sigma_nm` of 0 or more, below 0.1",
                got=f"{self.sigma_nm}",
                remedy="give it in nm, such as `sigma_nm=0.008`",
            )


@dataclass(frozen=True)
class Plan:
    """The grids of a simulation. They are the same at every tilt angle.

    Parameters
    ----------
    field_of_view_nm, pixel_nm
        Width of a projection, and of one of its pixels.
    grid
        Points of a wave along each axis of the field of view.
    interpolation
        Interpolation factor of PRISM.
    window
        Points of a probe's window along each axis, for waves that are sampled up to the cutoff.
    cutoff_mrad
        Largest angle that the grid can represent.
    """

    field_of_view_nm: float
    pixel_nm: float
    grid: int
    interpolation: int
    window: int
    cutoff_mrad: float

    @property
    def wave_points(self) -> int:
        """Points of a wave along an axis, sampled up to the cutoff."""
        return self.window * self.interpolation


def wavelength_nm(energy_ev: float) -> float:
    """The relativistic de Broglie wavelength of an electron."""
    rest_ev, hc_ev_nm = 510_998.95, 1239.84198
    return hc_ev_nm / math.sqrt(energy_ev * (2 * rest_ev + energy_ev))


def plan(specimen: "Specimen", imaging: Imaging, modes: tuple[Mode, ...]) -> Plan:
    """Choose the grids.

    The grid is as fine as the largest detector angle requires. The sizes of the window and of the grid have only small
    prime factors, which makes Fourier transforms fast; the window is a multiple of four.

    Raises
    ------
    SchemaError
        The settings do not fit the specimen.
    """
    imaging.check()
    _check_sigmas(specimen, imaging)
    needed = 2 * max(specimen.radius_nm, specimen.half_height_nm) + 2 * MARGIN_NM
    field = needed if imaging.field_of_view_nm is None else imaging.field_of_view_nm
    if field < needed - 1e-9:
        refuse(
            "simulate",
            needs=f"a field of view of at least {needed:.3g} nm, for all of the specimen at every tilt angle",
            got=f"{field:g} nm",
            remedy="raise `field_of_view_nm`, leave it out, or simulate a smaller specimen",
        )
    pixel, wavelength = field / imaging.pixels, imaging.wavelength_nm
    coarsest = wavelength / (4 * imaging.convergence_mrad * 1e-3)
    if pixel > coarsest * (1 + 1e-9):
        refuse(
            "simulate",
            needs=f"pixels of at most {coarsest:.3g} nm, which resolve a probe of {imaging.convergence_mrad:g} mrad",
            got=f"{pixel:.3g} nm",
            remedy=f"`pixels={math.ceil(field / coarsest - 1e-9)}`, or a smaller `convergence_mrad`",
        )
    interpolation = _interpolation(imaging, field, specimen.radius_nm)
    outer = max(
        imaging.detector_mrad[1] if "haadf" in modes else 0.0, 2 * imaging.convergence_mrad if "idpc" in modes else 0.0
    )
    # The grid's cutoff is 2/3 of its Nyquist frequency: k = 2/3 · grid / (2 field).
    least = 3 * field * (outer + _ANGLE_MARGIN_MRAD) * 1e-3 / wavelength
    window = _smooth_multiple_of_four(least / 1.5 / interpolation)
    grid = window * interpolation * 3 // 2
    return Plan(field, pixel, grid, interpolation, window, wavelength * grid / (3 * field) * 1e3)


def _check_sigmas(specimen: "Specimen", imaging: Imaging) -> None:
    """Refuse displacements by element if a name is no element, or an element of the specimen is missing."""
    if not isinstance(imaging.sigma_nm, Mapping):
        return
    given = set(imaging.sigma_nm)
    unknown = given - set(chemical_symbols[1:]) - {"other"}
    lacking = {chemical_symbols[number] for number in specimen.numbers} - given if "other" not in given else set()
    if unknown or lacking:
        what = f"no element called {', '.join(sorted(unknown))}" if unknown else f"none of {', '.join(sorted(lacking))}"
        refuse("simulate", needs="`sigma_nm` by element", got=what, remedy='name every element, or add "other"')


def _interpolation(imaging: Imaging, field: float, radius: float) -> int:
    """The interpolation factor of PRISM: the given one if its window holds the probe, or the largest that does."""
    if imaging.algorithm == "multislice":
        return 1
    waist = imaging.wavelength_nm / (imaging.convergence_mrad * 1e-3)
    # At the faces of the specimen the probe is a disc, whose radius follows from the convergence angle.
    spread = 2 * imaging.convergence_mrad * 1e-3 * (radius + abs(imaging.defocus_nm) + 2 * imaging.focal_spread_nm)
    if imaging.interpolation is None:
        return int(max(1, min(_LARGEST_INTERPOLATION, field // (_WINDOW * waist + spread))))
    room = _LEAST_WINDOW * waist + spread
    if imaging.interpolation > 1 and field / imaging.interpolation < room:
        refuse(
            "simulate",
            needs=f"a window of at least {room:.2g} nm for PRISM's probe",
            got=f"{field / imaging.interpolation:.2g} nm, by interpolation {imaging.interpolation}",
            remedy=f"`interpolation={max(1, int(field // room))}` or less, or leave it out",
        )
    return imaging.interpolation


def _smooth_multiple_of_four(least: float) -> int:
    """The smallest multiple of 4 that is at least `least` and has no prime factor above 7."""
    candidate = 4 * math.ceil(least / 4 - 1e-9)
    while not _is_smooth(candidate):
        candidate += 4
    return candidate


def _is_smooth(number: int) -> bool:
    for prime in (2, 3, 5, 7):
        while number % prime == 0:
            number //= prime
    return number == 1


def plane_waves(plan: Plan, imaging: Imaging) -> int:
    """Number of plane waves that PRISM propagates: every `interpolation`-th frequency that passes the aperture.

    The edge of the aperture is soft, half a step wide on either side.
    """
    step = plan.interpolation * imaging.wavelength_nm / plan.field_of_view_nm * 1e3
    limit = imaging.convergence_mrad + step / 2
    reach = np.arange(-math.ceil(limit / step), math.ceil(limit / step) + 1) * step
    return int((np.hypot(reach[:, None], reach[None]) < limit).sum())
