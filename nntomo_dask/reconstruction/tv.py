"""Reconstruction with total variation: the volume with the shortest edges among those that fit the projections."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import dask.array as da
import numpy as np
import xarray as xr

from nntomo_dask.arrays import geometry, grid, schema
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import chunking, device, streams
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import layout, total_variation as kernel
from nntomo_dask.projection.engines import ENGINE_HELP, EngineName
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import METHODS
from nntomo_dask.reconstruction.intensity import intensity_level
from nntomo_dask.reconstruction.method import Method, Scalar, reconstruct
from nntomo_dask.settings import setting
from nntomo_dask.types import Float32, Float64

Weight = float | Literal["auto"]
Dimensions = Literal[2, 3]

BLOCK = 24  # slices that are solved together; with the halo they fill the widest lane group
HALO = 4  # neighbours on either side that are solved with them and thrown away
_SMALLEST = 48  # pixels; a slice that is no larger has no coarser level
_RELAXATION = 1.5  # over-relaxation; 1.9 oscillates


@METHODS.register
@dataclass(frozen=True)
class TotalVariation(Method):
    """``min ½ ‖A x - y‖² + λ TV(x)`` within bounds; see `tv`."""

    name: ClassVar[str] = "tv"
    title: ClassVar[str] = "TV"
    summary: ClassVar[str] = "total variation: smooth bodies with sharp edges, the best of few projections"

    weight: Weight = setting(
        "auto",
        help="Weight of the edges against the projections, without a unit: the same number means the same for counts "
        "and for line integrals. More noise needs more: 0.1 without noise, 3 with a noise of 2 %. "
        "auto chooses it by projections that are left out.",
    )
    minimum: float | None = setting(0.0, help="Lower bound of the voxels; 0 for matter, which cannot be negative.")
    maximum: float | None = setting(None, help="Upper bound of the voxels, such as the value of the densest matter.")
    dimensions: Dimensions = setting(
        3, help="3: edges between slices count like those within a slice; 2: each slice by itself."
    )
    huber: float = setting(
        0.0,
        help="Gradients below this share of the specimen's intensity are smoothed instead of flattened, so that grey "
        "slopes get no steps; 0 for bodies of one grey each.",
        least=0,
    )
    tolerance: float = setting(
        5e-4,
        help="A block of slices stops when an iteration changes its voxels by this share or less.",
        above=0,
        below=1,
    )
    max_iterations: int = setting(500, help="A block stops after so many iterations in any case.", least=1)
    projection_weights: tuple[float, ...] | None = setting(None, help="", option=None)
    engine: EngineName = setting("native", help=ENGINE_HELP)

    @property
    def block(self) -> int:
        """Slices that are solved together, counted from the first of the series."""
        return BLOCK

    @property
    def halo(self) -> int:
        """Neighbouring slices that are solved with a block; none where slices are independent."""
        return HALO if self.dimensions == 3 else 0
