"""What an assessment will compare, and on what; all that can be refused without work is refused here."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from nntomo_dask.arrays import geometry, recipes, schema, slabs
from nntomo_dask.assessment import stack
from nntomo_dask.assessment.candidates import WHO, Candidate, candidates
from nntomo_dask.compute import chunking
from nntomo_dask.errors import refuse
from nntomo_dask.networks.network import Network
from nntomo_dask.projection.noise import Noise
from nntomo_dask.reconstruction import held_out
from nntomo_dask.reconstruction.held_out import Fold
from nntomo_dask.reconstruction.method import Method, checked_axis
from nntomo_dask.types import Float64

# What is looked at unless told otherwise: of up to so many detector pixels, and of more, which then takes minutes too.
SLICES, FOLDS, PIXELS = 16, 8, 512
FEW_SLICES, FEW_FOLDS = 8, 4


@dataclass(frozen=True)
class Plan:
    """What will be compared, on what; all that can be refused without work is refused by then."""

    series: xr.DataArray
    compared: tuple[Candidate, ...]
    folds: tuple[Fold, ...]
    slices: int
    noise: float | Noise | Literal["auto"]

    @property
    def tasks(self) -> int:
        """Reconstructions of a run of slices, at most."""
        return len(self.compared) * len(self.folds) * max(self.slices // stack.RUN, 1)

    def host_bytes(self, shape: chunking.SlabShape) -> int:
        """Bytes of one of them at its peak, in series of that shape; the number of slices plays no part."""
        _, angles, detector = shape
        height = min(stack.RUN, self.slices)
        return max(
            one.method.host_bytes((height + 2 * one.method.halo, angles, detector)) for one in self.compared
        ) + height * chunking.image_bytes(detector)

    def recipe(self) -> recipes.Recipe:
        """What the assessment depends on."""
        series = recipes.without_versions(recipes.recipe_of(self.series))
        compared = [[one.title, one.method.recipe(self.series)["parameters"]] for one in self.compared]
        angles = self.series[schema.ANGLE].values
        parameters = {
            "candidates": compared,
            "left_out_deg": [np.sort(angles[fold.left_out]).tolist() for fold in self.folds],
            "slices": self.slices,
            "noise": self.noise if isinstance(self.noise, str | float | int) else dataclasses.asdict(self.noise),
        }
        return recipes.record(WHO, parameters, [series])


def planned(
    series: xr.DataArray,
    methods: Sequence[str | Method] | None = None,
    *,
    networks: Mapping[str, Network] | Sequence[Network] = (),
    folds: int | Literal["all"] | None = None,
    slices: int | None = None,
    noise: float | Noise | Literal["auto"] = "auto",
) -> Plan:
    """Check what `assess` is given, and say what it will do; nothing is computed."""
    schema.check_tilt_series(series, who=WHO)
    many = series.sizes[schema.DETECTOR] <= PIXELS
    if slices is None:
        slices = SLICES if many else FEW_SLICES
    if not (isinstance(slices, int | np.integer) and slices >= 1):
        refuse(WHO, needs="a whole number of slices, 1 or more", got=f"{slices!r}", remedy=f"`slices={SLICES}`")
    if not (isinstance(noise, Noise) or noise == "auto"):
        number = noise if isinstance(noise, int | float | np.number) else np.nan
        if not (np.isfinite(number) and number >= 0):
            got = f"{noise!r}"
            refuse(WHO, needs="a deviation of the noise of 0 or more", got=got, remedy='`noise="auto"`')
        noise = float(number)
    source = slabs.lazy(geometry.in_own_pixels(series))
    angles = source[schema.ANGLE].values
    chosen = _folds(angles, folds, FOLDS if many else FEW_FOLDS)
    named = networks if isinstance(networks, Mapping) else {f"network {k + 1}": one for k, one in enumerate(networks)}
    for network in named.values():
        network.check(source, who=WHO)
    compared = candidates(methods, named, angles, chosen)
    for candidate in compared:
        candidate.method.check(source)
        checked_axis(candidate.method, source)
    return Plan(source, tuple(compared), chosen, int(slices), noise)


def _folds(angles_deg: Float64, count: int | str | None, most: int) -> tuple[Fold, ...]:
    if count is None:
        return held_out.at_most(angles_deg, most, who=WHO)
    return held_out.folds(angles_deg, None if count == "all" else count, who=WHO)  # type: ignore[arg-type]
