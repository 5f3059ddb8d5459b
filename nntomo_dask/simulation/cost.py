"""Time and memory of a projection, predicted from its grids before it is computed."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft

from nntomo_dask.compute import chunking
from nntomo_dask.simulation import optics
from nntomo_dask.simulation.optics import Imaging, Mode, Plan
from nntomo_dask.simulation.specimen import Specimen

# Measured time divided by the time of the transforms, or products, alone (abTEM 1.0.11). The rest is multiplications
# between them, checks and copies.
_PER_TRANSFORM = 1.6
_PER_PRODUCT = 2.5


@dataclass(frozen=True)
class Cost:
    """What one projection needs.

    Parameters
    ----------
    transforms
        Fourier transforms of waves on the whole grid.
    products
        Complex multiply-adds that form the probes from the scattering matrix.
    grid
        Points of a wave along an axis.
    worker_bytes
        Peak memory of a worker, without the program itself.
    """

    transforms: int
    products: int
    grid: int
    worker_bytes: int

    def seconds(self) -> float:
        """Seconds on one core, from the present speed of this machine, which is measured."""
        rng = np.random.default_rng(0)
        waves = (rng.random((4, self.grid, self.grid)) + 0j).astype(np.complex64)
        left = (rng.random((128, 128)) + 0j).astype(np.complex64)
        right = (rng.random((128, 4096)) + 0j).astype(np.complex64)
        transform = min(_seconds(lambda: scipy.fft.fft2(waves, workers=1)) for _ in range(3)) / len(waves)
        product = min(_seconds(lambda: left @ right) for _ in range(3)) / (128 * 128 * 4096)
        return _PER_TRANSFORM * self.transforms * transform + _PER_PRODUCT * self.products * product


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def cost(held: Specimen, plan: Plan, imaging: Imaging, modes: tuple[Mode, ...]) -> Cost:
    """Count what a projection needs at the tilt angle at which the specimen is thickest."""
    slices = math.ceil((2 * held.radius_nm + 0.2) / imaging.slice_thickness_nm)
    positions = imaging.pixels**2 * (optics.FOCAL_STEPS if imaging.focal_spread_nm > 0 else 1)
    repeats = max(imaging.phonons, 1)
    pattern = math.ceil(2 * imaging.convergence_mrad / plan.cutoff_mrad * plan.window / 2) * 2 + 2
    if imaging.algorithm == "multislice":
        waves, products, matrix = positions, 0, 0
    else:
        waves = optics.plane_waves(plan, imaging)
        products = positions * waves * plan.window**2
        matrix = 8 * waves * plan.wave_points**2
    needed = chunking.simulation_bytes(
        grid=plan.grid,
        slices=slices,
        matrix=matrix,
        window=plan.window,
        positions=positions,
        pattern=pattern if "idpc" in modes and imaging.idpc != "segmented" else 2,
    )
    return Cost(repeats * waves * slices * 2, repeats * products, plan.grid, needed)
