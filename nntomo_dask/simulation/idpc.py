"""Integrated differential phase contrast (iDPC): from diffraction patterns to the phase.

The centre of mass of a diffraction pattern is the gradient of the phase of the specimen, weighted by the intensity of
the probe. Integrated over the probe positions, it gives the phase up to a constant. The scan is periodic, so the
integration has no edges to deal with.

This is the only module that imports py4DSTEM.
"""

import contextlib
import io
import threading
import warnings

import numpy as np
import numpy.typing as npt

from nntomo_dask import extras
from nntomo_dask.simulation import multislice
from nntomo_dask.simulation.optics import Imaging
from nntomo_dask.types import Float32

# If a uniform disc of radius r is displaced by d, the difference between opposite quadrants is 2√2 d / (π r) of its
# intensity: the part of the disc that crosses the 45° lines between the quadrants.
_QUADRANT = np.pi / (2 * np.sqrt(2))
# The inverse gradient of py4DSTEM includes this factor, which damps its iteration.
_DAMPING = 0.25
_silence = threading.Lock()


def phase(patterns: Float32, step: tuple[float, float], pixel_nm: float, imaging: Imaging) -> Float32:
    """Phase (x, z) in radians, up to an unknown constant.

    Parameters
    ----------
    patterns
        Intensities (x, z, kx, kz), or (x, z, 1, 4) for a segmented detector.
    step
        Step of kx and of kz, [1/Å].
    """
    if imaging.idpc == "py4dstem":
        return by_py4dstem(patterns, step, pixel_nm, imaging.energy_ev)
    if imaging.idpc == "segmented":
        gradient = quadrant_gradient(patterns, imaging.convergence_mrad * 1e-3 / (10 * imaging.wavelength_nm))
    else:
        gradient = centre_of_mass(patterns, step)
    # The gradient is in 1/Å, without the factor 2π of the phase: 2π · 10 per nm.
    return np.float32(20 * np.pi) * multislice.integrate_gradient(gradient, pixel_nm)


def centre_of_mass(patterns: Float32, step: tuple[float, float]) -> npt.NDArray[np.complex64]:
    """Centre of mass x + i z of every pattern (x, z), [1/Å]; 0 for a pattern without electrons."""
    kx, kz = (
        ((np.arange(count) - count // 2) * size).astype(np.float32)
        for count, size in zip(patterns.shape[2:], step, strict=True)
    )
    total = patterns.sum(axis=(2, 3), dtype=np.float64)
    first = np.einsum("xzij,i->xz", patterns, kx, optimize=True) + 1j * np.einsum(
        "xzij,j->xz", patterns, kz, optimize=True
    )
    centre = np.divide(first, total, out=np.zeros(total.shape, complex), where=total > 0)
    return np.asarray(centre, np.complex64)


def quadrant_gradient(quadrants: Float32, radius: float) -> npt.NDArray[np.complex64]:
    """Centre of mass x + i z, estimated from four quadrants for a uniform disc of that radius [1/Å]."""
    right, up, left, down = np.moveaxis(quadrants[:, :, 0], -1, 0).astype(np.float64)
    total = right + up + left + down
    difference = (right - left) + 1j * (up - down)
    scaled = np.divide(difference, total, out=np.zeros(total.shape, complex), where=total > 0)
    return np.asarray(scaled * radius * _QUADRANT, np.complex64)


def by_py4dstem(patterns: Float32, step: tuple[float, float], pixel_nm: float, energy_ev: float) -> Float32:
    """The phase by the reconstruction of py4DSTEM: one step from the centre of mass, without its fits and filters."""
    extras.check("py4DSTEM", who='idpc="py4dstem"')
    # Warnings and stdout belong to the process, not to the thread. With two threads at once, the wrong ones would be
    # restored.
    with _silence, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        import py4DSTEM

        cube = py4DSTEM.DataCube(data=patterns)
        cube.calibration.set_R_pixel_size(10 * pixel_nm)
        cube.calibration.set_R_pixel_units("A")
        cube.calibration.set_Q_pixel_size(step[0])
        cube.calibration.set_Q_pixel_units("A^-1")
        dpc = py4DSTEM.process.phase.DPC(datacube=cube, energy=energy_ev, verbose=False, device="cpu")
        dpc.preprocess(
            force_com_rotation=0,
            force_com_transpose=False,
            force_com_shifts=[patterns.shape[2] // 2, patterns.shape[3] // 2],  # the known centre: no fit
            padding_factor=1,
            plot_center_of_mass=False,
            plot_rotation=False,
        )
        dpc.reconstruct(max_iter=1, step_size=1, reset=True, progress_bar=False)
    return np.asarray(dpc.object_phase / _DAMPING, np.float32)
