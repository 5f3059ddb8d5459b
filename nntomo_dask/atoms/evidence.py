"""What a series says of atoms, by the noise that it has."""

from typing import Literal

import xarray as xr

from nntomo_dask.atoms.counts import Counted, counted
from nntomo_dask.atoms.gradients import Gradients, gradients
from nntomo_dask.projection.noise import Noise

Likelihood = Literal["auto", "counts", "gradient"]
Evidence = Counted | Gradients

_PHASE = "phase"  # of the quantity of a series that is an integrated gradient


def evidence(series: xr.DataArray, *, likelihood: Likelihood, noise: Noise | None, who: str) -> Evidence:
    """The counts of a series, or its curvature where its noise is white in the gradient. Computes.

    Raises
    ------
    SchemaError
        As `counted` and `gradients`.
    """
    if likelihood == "gradient" or (likelihood == "auto" and is_phase(series)):
        return gradients(series, noise=noise, who=who)
    return counted(series, noise=noise, who=who)


def is_phase(series: xr.DataArray) -> bool:
    """Whether the series says that it is a phase, as iDPC is."""
    return str(series.attrs.get("quantity", "")).startswith(_PHASE)
