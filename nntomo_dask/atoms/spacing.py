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
    pairs = cKDTree(positions).query_pairs(float(distances.max()), output_type="ndarray")
    one, other = pairs.T
    away = np.linalg.norm(positions[other] - positions[one], axis=1)
    return highest(pairs[away < distances[kinds[one], kinds[other]]], np.nan_to_num(heights))


def highest(pairs: Integers, heights: Float64) -> Integers:
    """Numbers of the points to keep: of each of some pairs (pair, 2) the higher one, the highest first.

    Of two that are equally high the first stays.
    """
    kept = np.ones(len(heights), bool)
    if len(pairs) == 0:
        return np.flatnonzero(kept)
    rank = np.empty(len(heights), np.int64)
    rank[np.argsort(-heights, kind="stable")] = np.arange(len(heights))
    higher = np.where(rank[pairs[:, 0]] < rank[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    lower = pairs.sum(axis=1) - higher
    order = np.lexsort((rank[lower], rank[higher]))
    for one, other in zip(higher[order].tolist(), lower[order].tolist(), strict=True):
        if kept[one]:
            kept[other] = False
    return np.flatnonzero(kept)
