"""How close two atoms may be."""

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from nntomo_dask.phantoms.radii import RADII_NM
from nntomo_dask.types import Float64, Integers

_BONDED = 0.85  # of the sum of two covalent radii: the least distance of two atoms


def spaced(symbols: tuple[str, ...], minimum_distance: float | None, atoms: xr.Dataset | None) -> Float64:
    """(kind, kind): how close two atoms may be, [nm]."""
    if minimum_distance is not None:
        return np.full((max(len(symbols), 1),) * 2, minimum_distance)
    if not symbols:
        assert atoms is not None
        known = atoms["width"].values[np.isfinite(atoms["width"].values)]
        width = float(np.median(known)) if known.size else 0.05
        return np.full((1, 1), float(atoms.attrs.get("minimum_distance", 2.5 * width)))
    radii = np.array([RADII_NM.get(symbol, 0.15) for symbol in symbols])
    return np.asarray(_BONDED * (radii[:, None] + radii))


def apart(positions: Float64, kinds: Integers, heights: Float64, distances: Float64) -> Integers:
    """Numbers of atoms of which no two are too close; the higher one of two stays."""
    if len(positions) == 0:
        return np.zeros(0, np.int64)
    near = cKDTree(positions).query_ball_point(positions, float(distances.max()))
    stays, decided = np.ones(len(positions), bool), np.zeros(len(positions), bool)
    for one in np.argsort(-np.nan_to_num(heights), kind="stable"):
        decided[one] = True
        if not stays[one]:
            continue
        others = np.array(near[one], np.int64)
        others = others[~decided[others]]
        away = np.linalg.norm(positions[others] - positions[one], axis=1)
        stays[others[away < distances[kinds[one], kinds[others]]]] = False
    return np.flatnonzero(stays)
