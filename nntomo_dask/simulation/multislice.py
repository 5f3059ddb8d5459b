"""Electrons through a specimen, by abTEM: the only room that imports it.

abTEM is called eagerly, inside a task of ours: its own graphs would be submitted to the cluster again. What it is
configured with is set in the task as well, since a worker does not see the configuration of the program.
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

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_DEPTH_MARGIN = 1.0  # Å of vacuum before and behind the atoms


@dataclass(frozen=True)
class Signals:
    """What the detectors of a projection saw, averaged over frozen phonons, before noise.

    Parameters
    ----------
    dark_field
        (x, z), intensity on the annular detector as a share of the beam; None where it was not asked for.
    patterns
        (x, z, kx, kz), intensity of the diffraction pattern up to twice the convergence angle, or (x, z, 1, 4) on the
        quadrants of a segmented detector.
    spatial_step
        Of the patterns, [1/Å].
    """

    dark_field: Float32 | None
    patterns: Float32 | None
    spatial_step: tuple[float, float]


class ExactProjection(ScatteringFactorProjectionIntegrals):
    """Projected potential in which every atom lies exactly where it is, not on the nearest points of the grid.

    An atom's place is a phase factor in reciprocal space, separable in x and y, so the sum over atoms is a matrix
    product. The potential is limited to the band that multislice keeps. abTEM's own integrator spreads an atom over
    four points, which weakens it by up to 40 % halfway between them; in a tilt series that breaks the agreement between
    projections.
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


def configure(device: str) -> None:
    """Configure abTEM for a task: eager, one thread, transforms of the same bits every time.

    abTEM knows three libraries for transforms. NumPy's does not use vector instructions; FFTW is fast with plans that
    it times, and two workers may then choose different ones, whose last bits differ; without timing it is up to four
    times slower. SciPy's is as fast as the best and always the same, so it takes the place of MKL's.
    """
    abtem.core.fft._mkl_fft_dispatch = _scipy_transform
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
        (2,), by which the scan is displaced.
    rng
        For the frozen phonons.
    device
        abTEM's: "cpu" or "gpu".
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
    """Positions of every frozen-phonon configuration, or those of atoms that stand still."""
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
    """Measurements of the detectors at every position, pixels' centres being the positions."""
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
    """In the names and units of abTEM, Å and radians; the focus is on the tilt axis, in the middle of the box."""
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
    """(x, z), the image whose gradient is given as x + i z, periodic, its least value 0, in [1/nm] times [nm]."""
    image = abtem.Images(gradient, sampling=pixel_nm).integrate_gradient()
    return np.asarray(image.array, np.float32)


def scattering_factor(symbol: str, k: Float64) -> Float64:
    """Fourier transform of an atom's potential at spatial frequencies k [1/Å], [V Å³]; Lobato and Van Dyck's."""
    factor: Any = ExactProjection().parametrization.projected_scattering_factor(symbol)
    return np.asarray(factor(k**2), np.float64)


def interaction(energy_ev: float) -> float:
    """Phase of an electron for a projected potential, [1/(V Å)]."""
    return float(energy2sigma(energy_ev))
