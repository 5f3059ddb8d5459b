"""How the microscope is set, and the grids that follow from it: checked before anything is computed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from ase.data import chemical_symbols

from nntomo_dask.errors import refuse

if TYPE_CHECKING:
    from nntomo_dask.simulation.specimen import Specimen

Mode = Literal["haadf", "idpc"]
Modes = Literal["haadf", "idpc", "both"]
Route = Literal["center-of-mass", "segmented", "py4dstem"]
Algorithm = Literal["prism", "multislice"]
DosePer = Literal["series", "projection"]

MARGIN_NM = 0.1  # of vacuum around the specimen, on each side, that a field of view must leave
_ANGLE_MARGIN_MRAD = 2.0  # between a detector's edge and the grid's cutoff
# Of the window in which PRISM keeps a probe, in units of λ/α: what is chosen, and what is refused. At 15 mrad and 300
# kV 5.9 of them are within 6 % of the full calculation, 3 are 12 % off in the centre of mass.
_WINDOW, _LEAST_WINDOW = 5.2, 3.5
_LARGEST_INTERPOLATION = 10
_LARGEST_ANGLE_MRAD = 400.0  # where small angles, which multislice supposes, end
FOCAL_STEPS = 5  # values of the defocus that stand for its spread


@dataclass(frozen=True, kw_only=True)
class Imaging:
    """A scanning transmission electron microscope and how it is simulated.

    Parameters
    ----------
    energy_ev
        Energy of the electrons, [eV].
    convergence_mrad
        Semi-angle of the probe, [mrad].
    detector_mrad
        Inner and outer angle of the annular dark-field detector, [mrad].
    pixels
        Of a projection, along the detector and along the tilt axis; the scan's positions.
    field_of_view_nm
        Width of a projection; by default the specimen, at every tilt angle, and 0.1 nm on each side.
    slice_thickness_nm
        Of the slices in which the beam is scattered. 0.2 is nearly twice as fast, and as good but where atoms stand in
        rows along the beam.
    algorithm
        "prism", or "multislice" for every probe by itself, which takes ten to a hundred times as long.
    interpolation
        Of PRISM: only every so many-th plane wave is calculated, and a probe lives in a window so many times narrower
        than the field of view. By default as much as leaves the probe room; 1 is as exact as "multislice".
    idpc
        How the phase is found. "center-of-mass": of every diffraction pattern up to twice the convergence angle,
        divided by its intensity, then integrated. "segmented": differences of a detector in four quadrants, integrated.
        "py4dstem": by py4DSTEM's reconstruction of the phase.
    defocus_nm, cs_mm, astigmatism_nm, astigmatism_deg, coma_nm, coma_deg
        Aberrations; a defocus above 0 is towards underfocus, and counted from the tilt axis.
    focal_spread_nm
        Standard deviation of the defocus, from the energy spread and chromatic aberration.
    phonons
        Frozen-phonon configurations to be averaged; 0: the atoms stand still.
    sigma_nm
        Standard deviation of an atom's displacement along each axis; one number, or by element with "other" for the
        rest.
    dose
        Electrons a square ångström, with Poisson noise; None: no noise.
    dose_per
        Whether `dose` is that of the whole series, shared equally, or of every projection.
    source_size_nm
        Full width at half maximum of the electron source at the specimen.
    blur_nm
        Standard deviation of a Gaussian that blurs the images when they are finished, noise included.
    drift_nm
        Standard deviation of each projection's displacement, in both directions: what alignment has left.
    jitter_nm
        Standard deviation of each scan line's displacement along itself.
    seed
        Of all that is random. A projection depends on it and on its own angle, not on the other angles.

    References
    ----------
    .. [1] C. Ophus, Adv. Struct. Chem. Imaging 3 (2017) 13, doi:10.1186/s40679-017-0046-1 (PRISM).
    .. [2] J. Madsen and T. Susi, Open Res. Europe 1 (2021) 24, doi:10.12688/openreseurope.13015.2 (abTEM).
    .. [3] I. Lazić, E. G. T. Bosch, S. Lazar, Ultramicroscopy 160 (2016) 265 (iDPC).
    """

    energy_ev: float = 300e3
    convergence_mrad: float = 15.0
    detector_mrad: tuple[float, float] = (50.0, 80.0)
    pixels: int = 128
    field_of_view_nm: float | None = None
    slice_thickness_nm: float = 0.1
    algorithm: Algorithm = "prism"
    interpolation: int | None = None
    idpc: Route = "center-of-mass"
    defocus_nm: float = 0.0
    cs_mm: float = 0.0
    astigmatism_nm: float = 0.0
    astigmatism_deg: float = 0.0
    coma_nm: float = 0.0
    coma_deg: float = 0.0
    focal_spread_nm: float = 0.0
    phonons: int = 0
    sigma_nm: float | Mapping[str, float] = 0.008
    dose: float | None = None
    dose_per: DosePer = "series"
    source_size_nm: float = 0.0
    blur_nm: float = 0.0
    drift_nm: float = 0.0
    jitter_nm: float = 0.0
    seed: int = 0

    @property
    def wavelength_nm(self) -> float:
        """De Broglie's wavelength of the electrons, relativistic."""
        return wavelength_nm(self.energy_ev)

    def sigma_of(self, symbol: str) -> float:
        """Displacement of an element's atoms along an axis, [nm]."""
        if isinstance(self.sigma_nm, Mapping):
            return float(self.sigma_nm.get(symbol, self.sigma_nm.get("other", 0.0)))
        return float(self.sigma_nm)

    def check(self) -> None:
        """Raise a SchemaError where a setting is out of range, whatever the specimen."""
        for name, choices in (("algorithm", Algorithm), ("idpc", Route), ("dose_per", DosePer)):
            if getattr(self, name) not in get_args(choices):
                got = f"{getattr(self, name)!r}"
                refuse("simulate", needs=f"{name} of {', '.join(get_args(choices))}", got=got, remedy="choose one")
        least: dict[str, float] = {"pixels": 8, "phonons": 0, "seed": 0}
        least |= {"energy_ev": 1e3, "convergence_mrad": 0.1, "slice_thickness_nm": 0.01}
        least |= {field.name: 0 for field in fields(self) if field.name.rpartition("_")[0] in _NOT_NEGATIVE}
        for name, value in least.items():
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= value):
                got = f"{getattr(self, name)}"
                refuse("simulate", needs=f"{name} of at least {value:g}", got=got, remedy=f"raise {name}")
        if self.dose is not None and not (math.isfinite(self.dose) and self.dose > 0):
            refuse(
                "simulate",
                needs="a dose above 0 e/Å²",
                got=f"{self.dose:g}",
                remedy="leave it out for images without noise",
            )
        if self.interpolation is not None and self.interpolation < 1:
            got = f"{self.interpolation}"
            refuse("simulate", needs="interpolation of at least 1", got=got, remedy="leave it out")
        inner, outer = self.detector_mrad
        if not self.convergence_mrad <= inner:
            refuse(
                "simulate",
                needs=f"a dark-field detector from {self.convergence_mrad:g} mrad, where the beam ends, or more",
                got=f"{inner:g} to {outer:g} mrad",
                remedy="detector_mrad=(50, 80)",
            )
        if not inner < outer <= _LARGEST_ANGLE_MRAD:
            refuse(
                "simulate",
                needs=f"a detector from its inner to its outer angle, at most {_LARGEST_ANGLE_MRAD:g} mrad",
                got=f"{inner:g} to {outer:g} mrad",
                remedy="detector_mrad=(50, 80)",
            )
        sigmas = self.sigma_nm.values() if isinstance(self.sigma_nm, Mapping) else [self.sigma_nm]
        if not all(math.isfinite(sigma) and 0 <= sigma < 0.1 for sigma in sigmas):
            refuse(
                "simulate",
                needs="sigma_nm of 0 or more, below 0.1",
                got=f"{self.sigma_nm}",
                remedy="in nm: 0.008 is usual",
            )


_NOT_NEGATIVE = ("focal_spread", "source_size", "blur", "drift", "jitter")


@dataclass(frozen=True)
class Plan:
    """Grids of a simulation, the same at every tilt angle.

    Parameters
    ----------
    field_of_view_nm, pixel_nm
        Of a projection.
    grid
        Points of a wave along each axis of the field of view.
    interpolation
        Of PRISM.
    window
        Points of a probe's window along each axis, after waves are sampled only as far as the cutoff.
    cutoff_mrad
        Largest angle that the grid holds.
    """

    field_of_view_nm: float
    pixel_nm: float
    grid: int
    interpolation: int
    window: int
    cutoff_mrad: float

    @property
    def wave_points(self) -> int:
        """Points of a wave along an axis, sampled as far as the cutoff."""
        return self.window * self.interpolation


def wavelength_nm(energy_ev: float) -> float:
    """De Broglie's wavelength of an electron, relativistic."""
    rest_ev, hc_ev_nm = 510_998.95, 1239.84198
    return hc_ev_nm / math.sqrt(energy_ev * (2 * rest_ev + energy_ev))


def plan(specimen: "Specimen", imaging: Imaging, modes: tuple[Mode, ...]) -> Plan:
    """Choose the grids; a SchemaError where specimen and settings do not go together.

    The grid is as fine as the largest detector angle needs. Its window is a multiple of four of small prime factors,
    and so is the grid, which FFTs like.
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
            remedy="raise field_of_view_nm, or take a smaller specimen",
        )
    pixel, wavelength = field / imaging.pixels, imaging.wavelength_nm
    coarsest = wavelength / (4 * imaging.convergence_mrad * 1e-3)
    if pixel > coarsest * (1 + 1e-9):
        refuse(
            "simulate",
            needs=f"pixels of at most {coarsest:.3g} nm, which resolve a probe of {imaging.convergence_mrad:g} mrad",
            got=f"{pixel:.3g} nm",
            remedy=f"pixels={math.ceil(field / coarsest - 1e-9)}, or a smaller convergence angle",
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
    """Refuse displacements by element that name none, or leave one out."""
    if not isinstance(imaging.sigma_nm, Mapping):
        return
    given = set(imaging.sigma_nm)
    unknown = given - set(chemical_symbols[1:]) - {"other"}
    lacking = {chemical_symbols[number] for number in specimen.numbers} - given if "other" not in given else set()
    if unknown or lacking:
        what = f"no element called {', '.join(sorted(unknown))}" if unknown else f"none of {', '.join(sorted(lacking))}"
        refuse("simulate", needs="sigma_nm by element", got=what, remedy='name the others too, or "other"')


def _interpolation(imaging: Imaging, field: float, radius: float) -> int:
    """PRISM's interpolation: the wanted one if its window holds the probe, or as much as does."""
    if imaging.algorithm == "multislice":
        return 1
    waist = imaging.wavelength_nm / (imaging.convergence_mrad * 1e-3)
    # At the specimen's faces the probe is a disc of the convergence angle.
    spread = 2 * imaging.convergence_mrad * 1e-3 * (radius + abs(imaging.defocus_nm) + 2 * imaging.focal_spread_nm)
    if imaging.interpolation is None:
        return int(max(1, min(_LARGEST_INTERPOLATION, field // (_WINDOW * waist + spread))))
    room = _LEAST_WINDOW * waist + spread
    if imaging.interpolation > 1 and field / imaging.interpolation < room:
        refuse(
            "simulate",
            needs=f"a window of at least {room:.2g} nm for PRISM's probe",
            got=f"{field / imaging.interpolation:.2g} nm, by interpolation {imaging.interpolation}",
            remedy=f"interpolation={max(1, int(field // room))} or less, or leave it out",
        )
    return imaging.interpolation


def _smooth_multiple_of_four(least: float) -> int:
    """The least multiple of 4 with no prime factor above 7 that is at least so large."""
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
    """How many plane waves PRISM propagates: of every `interpolation`-th frequency, those that the aperture lets pass.

    Its edge is soft, by half a step on either side.
    """
    step = plan.interpolation * imaging.wavelength_nm / plan.field_of_view_nm * 1e3
    limit = imaging.convergence_mrad + step / 2
    reach = np.arange(-math.ceil(limit / step), math.ceil(limit / step) + 1) * step
    return int((np.hypot(reach[:, None], reach[None]) < limit).sum())
