"""Scattering of electrons in a specimen, by abTEM. This is the only module that imports abTEM.

abTEM computes at once (not lazily) inside a Dask task of this package. Its own task graphs would be submitted to the
cluster a second time. Its configuration is set in the task too, because a worker does not see the configuration of the
main program.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import abtem
import abtem.core.fft
import numpy as np
import numpy.typing as npt
import scipy.fft
from abtem.antialias import antialias_aperture
from abtem.core.backend import copy_to_device, get_array_module
from abtem.core.energy import energy2sigma
from abtem.distributions import gaussian
from abtem.integrals import ScatteringFactorProjectionIntegrals
from ase import Atoms
from ase.data import chemical_symbols

from nntomo_dask.compute.chunking import SIMULATED_BATCH_BYTES, SIMULATED_PROBES
from nntomo_dask.simulation.optics import FOCAL_STEPS, Imaging, Plan
from nntomo_dask.types import Float32, Float64

_DEPTH_MARGIN = 1.0  # Å of vacuum before and after the atoms, along the beam


@dataclass(frozen=True)
class Signals:
    """The signals of the detectors for one projection, averaged over the frozen phonons, without noise.

    Parameters
    ----------
    dark_field
        (x, z), intensity on the annular detector as a fraction of the beam; None if it was not asked for.
    patterns
        (x, z, kx, kz), the diffraction patterns up to twice the convergence angle; or (x, z, 1, 4), the intensity on
        the quadrants of a segmented detector. None if they were not asked for.
    spatial_step
        Step of kx and kz, [1/Å].
    """

    dark_field: Float32 | None
    patterns: Float32 | None
    spatial_step: tuple[float, float]


class ExactProjection(ScatteringFactorProjectionIntegrals):
    """Projected potential in which every atom is at its exact position, not on the nearest points of the grid.

    The position of an atom is a phase factor in reciprocal space. This factor is separable in x and y, so the sum over
    the atoms is a matrix product. The potential is limited to the frequencies that multislice keeps.

    abTEM's own integrator spreads an atom over four grid points. Halfway between them the atom is weaker by up to 40 %,
    so the same atom would differ in brightness from one projection of a tilt series to the next.
    """

    def integrate_on_grid(
        self,
        atoms: Atoms,
        a: float,
        b: float,
        gpts: tuple[int, int],
        sampling: tuple[float, float],
        device: str = "cpu",
    ) -> Any:
        """(x, y), the potential between depths `a` and `b` along the beam, [V Å]."""
        del a, b
        xp = get_array_module(device)
        if len(atoms) == 0:
            return xp.zeros(gpts, np.float32)
        spectrum = xp.zeros(gpts, np.complex64)
        kx, ky = (np.fft.fftfreq(count, step) for count, step in zip(gpts, sampling, strict=True))
        for number in np.unique(atoms.numbers):
            factor = self.get_scattering_factor(  # type: ignore[no-untyped-call]
                chemical_symbols[number], gpts, sampling, device
            )
            x, y, _ = atoms.positions[atoms.numbers == number].T
            along = xp.asarray(np.exp(-2j * np.pi * np.outer(kx, x)), np.complex64)
            across = xp.asarray(np.exp(-2j * np.pi * np.outer(y, ky)), np.complex64)
            spectrum += factor * (along @ across)
        spectrum *= antialias_aperture(gpts, sampling, xp) / np.float32(sampling[0] * sampling[1])
        return xp.fft.ifft2(spectrum).real.astype(np.float32)


def _scipy_transform(x: Any, func_name: str, overwrite_x: bool, **keywords: Any) -> Any:  # noqa: FBT001
    return getattr(scipy.fft, func_name)(x, overwrite_x=overwrite_x, **keywords)


def use_scipy_transforms() -> None:
    """Make abTEM's setting ``fft: mkl`` use the Fourier transforms of SciPy.

    abTEM offers NumPy, FFTW and MKL. NumPy does not use vector instructions. FFTW is fast only if it times its plans;
    two workers may then choose different plans, whose results differ in the last bits. SciPy is as fast as the best of
    the three, and its results are always the same. abTEM has no setting for it, so this function replaces
    ``abtem.core.fft._mkl_fft_dispatch``, a private function of abTEM.

    Raises
    ------
    RuntimeError
        The installed abTEM has no such function. Otherwise the replacement would have no effect.
    """
    if not hasattr(abtem.core.fft, "_mkl_fft_dispatch"):
        raise RuntimeError("abTEM has changed: abtem.core.fft._mkl_fft_dispatch does not exist; use abtem 1.0.11")
    abtem.core.fft._mkl_fft_dispatch = _scipy_transform


def configure(device: str) -> None:
    """Configure abTEM for a task: computed at once, in one thread, with reproducible Fourier transforms."""
    use_scipy_transforms()
    abtem.config.set(
        {
            "device": device,
            "precision": "float32",
            "fft": "mkl",
            "dask.lazy": False,
            "dask.chunk-size": f"{SIMULATED_BATCH_BYTES} B",
            "diagnostics.progress_bar": False,
            "diagnostics.task_progress": False,
            "warnings.overspecified-grid": False,
        }
    )


def detect(
    numbers: npt.NDArray[np.int64],
    positions_nm: Float64,
    plan: Plan,
    imaging: Imaging,
    *,
    dark_field: bool,
    diffraction: bool,
    offset_nm: Float64,
    rng: np.random.Generator,
    device: str = "cpu",
) -> Signals:
    """Scan a probe over a projection.

    Parameters
    ----------
    positions_nm
        (atom, 3): detector, z and depth along the beam, zero on the tilt axis.
    offset_nm
        (2,), displacement of the scan.
    rng
        Random numbers for the frozen phonons.
    device
        Device of abTEM: "cpu" or "gpu".
    """
    configure(device)
    configurations = list(_displaced(numbers, positions_nm * 10, imaging, rng))
    field = 10 * plan.field_of_view_nm
    depth = 2 * max(float(np.abs(positions[:, 2]).max()) for positions in configurations) + 2 * _DEPTH_MARGIN
    slices = int(np.ceil(depth / (10 * imaging.slice_thickness_nm) - 1e-9))
    depth = slices * 10 * imaging.slice_thickness_nm
    sums: list[Any] = []
    step = (1.0, 1.0)
    for positions in configurations:
        atoms = Atoms(
            numbers, positions + np.array([field / 2, field / 2, depth / 2]), cell=[field, field, depth], pbc=True
        )
        potential = abtem.Potential(
            atoms,
            gpts=plan.grid,
            slice_thickness=10 * imaging.slice_thickness_nm,
            integrator=ExactProjection(),
            device=device,
        ).build(lazy=False)
        measured = _scan(potential, plan, imaging, depth, offset_nm * 10, _detectors(imaging, dark_field, diffraction))
        if diffraction and imaging.idpc != "segmented":
            step = float(measured[-1].sampling[0]), float(measured[-1].sampling[1])
        arrays = [np.asarray(copy_to_device(one.array, "cpu"), np.float32) for one in measured]
        sums = arrays if not sums else [total + array for total, array in zip(sums, arrays, strict=True)]
    means = [total / np.float32(len(configurations)) for total in sums]
    patterns = means[-1] if diffraction else None
    return Signals(means[0] if dark_field else None, patterns, step)


def _displaced(
    numbers: npt.NDArray[np.int64], positions: Float64, imaging: Imaging, rng: np.random.Generator
) -> Iterator[Float64]:
    """Positions of the atoms in every frozen-phonon configuration; without phonons, the given positions once."""
    if imaging.phonons == 0:
        yield positions
        return
    sigma = np.array([10 * imaging.sigma_of(chemical_symbols[number]) for number in numbers])
    for _ in range(imaging.phonons):
        yield positions + sigma[:, None] * rng.standard_normal(positions.shape)


def _detectors(imaging: Imaging, dark_field: bool, diffraction: bool) -> list[Any]:  # noqa: FBT001
    inner, outer = imaging.detector_mrad
    detectors: list[Any] = [abtem.AnnularDetector(inner=inner, outer=outer)] if dark_field else []
    if diffraction and imaging.idpc == "segmented":
        detectors.append(
            abtem.SegmentedDetector(
                nbins_radial=1,
                nbins_azimuthal=4,
                inner=0,
                outer=2 * imaging.convergence_mrad,
                rotation=-np.pi / 4,
            )
        )
    elif diffraction:
        detectors.append(abtem.PixelatedDetector(max_angle=2 * imaging.convergence_mrad))
    return detectors


def _scan(
    potential: Any, plan: Plan, imaging: Imaging, depth: float, offset: Float64, detectors: list[Any]
) -> list[Any]:
    """Measurements of the detectors with the probe at the centre of every pixel."""
    field, pixel = 10 * plan.field_of_view_nm, 10 * plan.pixel_nm
    start = np.full(2, pixel / 2) + offset
    scan = abtem.GridScan(
        start=tuple(start), end=tuple(start + field), gpts=(imaging.pixels, imaging.pixels), endpoint=False
    )
    optics = {"energy": imaging.energy_ev, "semiangle_cutoff": imaging.convergence_mrad} | _aberrations(imaging, depth)
    if imaging.algorithm == "multislice":
        probe = abtem.Probe(gpts=plan.grid, extent=field, **optics)
        measured = probe.scan(potential, scan=scan, detectors=detectors, max_batch=SIMULATED_PROBES, lazy=False)
    else:
        matrix = abtem.SMatrix(
            semiangle_cutoff=imaging.convergence_mrad,
            energy=imaging.energy_ev,
            potential=potential,
            interpolation=plan.interpolation,
        ).build(lazy=False)
        measured = matrix.reduce(
            scan=scan, ctf=abtem.CTF(**optics), detectors=detectors, max_batch_reduction=SIMULATED_PROBES
        )
    return list(measured) if isinstance(measured, list | tuple) else [measured]


def _aberrations(imaging: Imaging, depth: float) -> dict[str, Any]:
    """Aberrations in the names and units of abTEM (Å, radians). The focus is on the tilt axis, in mid-box."""
    centre = depth / 2 + 10 * imaging.defocus_nm
    spread = 10 * imaging.focal_spread_nm
    defocus = gaussian(spread, num_samples=FOCAL_STEPS, center=centre, ensemble_mean=True) if spread > 0 else centre
    return {
        "defocus": defocus,
        "C30": 1e7 * imaging.cs_mm,
        "C12": 10 * imaging.astigmatism_nm,
        "phi12": np.deg2rad(imaging.astigmatism_deg),
        "C21": 10 * imaging.coma_nm,
        "phi21": np.deg2rad(imaging.coma_deg),
    }


def integrate_gradient(gradient: npt.NDArray[np.complex64], pixel_nm: float) -> Float32:
    """The image (x, z) whose gradient is given as x + i z, in [1/nm]. It is periodic, and its minimum is 0."""
    image = abtem.Images(gradient, sampling=pixel_nm).integrate_gradient()
    return np.asarray(image.array, np.float32)


def scattering_factor(symbol: str, k: Float64) -> Float64:
    """Fourier transform of an atom's potential (Lobato and Van Dyck) at spatial frequencies k [1/Å], in [V Å³]."""
    factor: Any = ExactProjection().parametrization.projected_scattering_factor(symbol)
    return np.asarray(factor(k**2), np.float64)


def interaction(energy_ev: float) -> float:
    """Interaction constant: the phase shift of an electron per projected potential, [1/(V Å)]."""
    return float(energy2sigma(energy_ev))
