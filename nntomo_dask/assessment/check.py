"""Whether a network that was just trained for a series does better there than a method without one."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from nntomo_dask.arrays import schema
from nntomo_dask.assessment import comparison
from nntomo_dask.assessment.assess import assess
from nntomo_dask.errors import SchemaError
from nntomo_dask.networks.network import Network

_FOLDS, _SLICES = 4, 8  # a look of seconds; an assessment takes more


def _folds(series: xr.DataArray) -> int | None:
    return None if series.sizes[schema.ANGLE] < _FOLDS + 2 else _FOLDS


def told(series: xr.DataArray, network: Network) -> Iterator[str]:
    """What projections that were left out say of a network, in one line; computed at once.

    Of so few projections that none can be left out, or of a series without any signal, that is why they say nothing.
    """
    try:
        found = assess(series, [network.name], networks=[network], folds=_folds(series), slices=_SLICES, noise=0)
    except SchemaError as refused:
        yield f"note: not compared with SIRT at projections that are left out ({refused})"
        return
    own = next(one for one in found.scores if one.network)
    ratio = comparison.ratio(np.array(own.misfits), np.array(found.baseline.misfits))
    text = (
        f"at {len(found.left_out_deg)} projections of this series that were left out, the network has "
        f"{ratio.times:.2g} times the misfit of SIRT with values of at least 0; it was trained for all of them, "
        "so that this is too strict"
    )
    if ratio.is_clear:
        yield f"warning: {text}; compare both volumes, or let nntomo assess compare more methods"
    else:
        yield f"note: {text}"
