"""What projections say of atoms: the Fisher information, and standard errors from its inverse. Plain arrays.

The information of parameters p about which projections m(p) with independent noise of variance σ² are measured is
``Σ ∂m/∂pᵢ ∂m/∂pⱼ / σ²`` over all pixels [1]_. No unbiased estimate has a covariance below its inverse (Cramér and Rao).
For counts alone the formula is exact. Where a pixel has noise of the read-out and of counts, that its variance tells
something of the parameters too is left out.

References
----------
.. [1] A. van den Bos, Parameter Estimation for Scientists and Engineers, Wiley 2007, §4.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.spatial

from nntomo_dask.atoms.least_squares import Gauge, own_changes
from nntomo_dask.atoms.parameters import Atoms, Parameters
from nntomo_dask.atoms.views import ACROSS, ALONG, OF_GAUSSIAN, OF_VIEW, SCALE, Gaussians, OfViews, Views
from nntomo_dask.kernels.gaussians import REACH
from nntomo_dask.types import Bools, Float32, Float64, Integers

_TOGETHER, _BOX = 400, 120  # atoms that are looked at together; where there are more, in boxes of so many
_HALO = 9.0  # widths: how far beyond its box an atom is taken to matter
_BATCH = 4096  # pairs
_RIDGE = 1e-13  # of the diagonal; rounding, where two atoms lie at one place


class Errors(NamedTuple):
    """Standard errors; a position that is not free has NaN."""

    positions: Float64  # (atom, 3): z, y, x, [nm]
    heights: Float64  # (atom,)


def standard_errors(
    views: Views, atoms: Atoms, own: OfViews, weights: list[Float32], parameters: Parameters, free: Bools
) -> Errors:
    """Standard errors of all atoms, with all that is free unknown.

    Up to 400 atoms are looked at together. More are divided into boxes; for those of a box, others that are farther
    away than 9 widths are taken as known.

    Parameters
    ----------
    weights
        One over the variance of each pixel.
    parameters
        What of the atoms is free.
    free
        (4,): what of the views is free.
    """
    found = Errors(np.full((len(atoms.heights), 3), np.nan), np.empty(len(atoms.heights)))
    for box, seen in _boxes(atoms):
        errors = _together(views, atoms.only(seen), own, weights, parameters.only(seen), free)
        inside = np.isin(seen, box)
        found.positions[box] = errors.positions[inside]
        found.heights[box] = errors.heights[inside]
    return found


def _boxes(atoms: Atoms) -> list[tuple[Integers, Integers]]:
    """Numbers of the atoms of each box, and of those that are looked at with them; ascending."""
    everything = np.arange(len(atoms.heights))
    if everything.size <= _TOGETHER:
        return [(everything, everything)]
    boxes, waiting = [], [everything]
    while waiting:
        box = waiting.pop()
        if box.size <= _BOX:
            boxes.append(np.sort(box))
            continue
        places = atoms.positions[box]
        order = np.argsort(places[:, int(np.ptp(places, axis=0).argmax())], kind="stable")
        waiting += [box[order[: box.size // 2]], box[order[box.size // 2 :]]]
    tree = scipy.spatial.cKDTree(atoms.positions)
    reach = _HALO * float(atoms.widths.max())
    return [
        (box, np.unique(np.concatenate([box, *map(np.asarray, tree.query_ball_point(atoms.positions[box], reach))])))
        for box in boxes
    ]


def _together(
    views: Views, atoms: Atoms, own: OfViews, weights: list[Float32], parameters: Parameters, free: Bools
) -> Errors:
    chain, shown = parameters.chain(atoms), atoms.gaussians()
    by_atoms = _of_atoms(views, shown, own, weights, chain)
    with_views, of_views = _of_views(views, shown, own, weights, chain, free)
    basis = _without_gauge(views, free)
    with_views, of_views = with_views @ basis, basis.T @ of_views @ basis
    information = np.block([[by_atoms, with_views], [with_views.T, of_views]])
    count, n_moving = parameters.count, parameters.n_moving
    field = max(abs(step) * size for step, size in zip(views.grid[1:4:2], views.shape, strict=True))
    known = np.zeros(len(information))
    known[: 3 * n_moving] = 1 / field**2  # it is somewhere in view
    variances = inverse_diagonal(information + np.diag(known))[:count]
    positions = np.full((len(atoms.heights), 3), np.nan)
    positions[parameters.moves] = np.sqrt(variances[: 3 * n_moving]).reshape(-1, 3)
    return Errors(positions, np.sqrt(variances[parameters.heights]))


def inverse_diagonal(matrix: Float64) -> Float64:
    """The diagonal of the inverse of a symmetric matrix that is positive definite but for rounding."""
    scale = np.sqrt(np.maximum(matrix.diagonal(), np.finfo(float).tiny))
    scaled = matrix / scale[:, None] / scale + _RIDGE * len(matrix) * np.eye(len(matrix))
    lower = scipy.linalg.cholesky(scaled, lower=True, check_finite=False)
    inverse, _ = scipy.linalg.lapack.dtrtri(lower, lower=1)
    return np.asarray((np.tril(inverse) ** 2).sum(axis=0) / scale**2)


def _of_atoms(
    views: Views, atoms: Gaussians, own: OfViews, weights: list[Float32], chain: scipy.sparse.csr_matrix
) -> Float64:
    """(parameter, parameter) of the atoms."""
    n = len(atoms.heights)
    matrix = np.zeros((n, OF_GAUSSIAN, n, OF_GAUSSIAN))
    pairs = _pairs(atoms)
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]

        def one(view: int, batch: Integers = batch) -> Float64:
            return views.products(atoms, own, view, weights[view], batch)

        total = np.zeros((len(batch), OF_GAUSSIAN, OF_GAUSSIAN))
        for part in views.each(one):
            total += part
        first, second = batch.T
        matrix[second, :, first, :] = np.swapaxes(total, 1, 2)
        matrix[first, :, second, :] = total
    return np.asarray(chain.T @ (chain.T @ matrix.reshape(n * OF_GAUSSIAN, -1)).T)


def _pairs(atoms: Gaussians) -> Integers:
    """(pair, 2): each atom with itself and those behind it that may overlap in a view: as far along the axis."""
    order = np.argsort(atoms.positions[:, 0], kind="stable")
    z, reach = atoms.positions[order, 0], REACH * 2 * float(atoms.widths.max(initial=0)) * 1.01
    ends = np.searchsorted(z, z + reach, side="right")
    first = np.repeat(np.arange(z.size), ends - np.arange(z.size))
    second = first + np.arange(first.size) - np.searchsorted(first, first)
    return np.stack([order[first], order[second]], axis=1).astype(np.int64)


def _of_views(
    views: Views,
    atoms: Gaussians,
    own: OfViews,
    weights: list[Float32],
    chain: scipy.sparse.csr_matrix,
    free: Bools,
) -> tuple[Float64, Float64]:
    """(parameter, view · 4) and (view · 4, view · 4)."""
    count = views.count * OF_VIEW
    with_views, of_views = np.zeros((chain.shape[1], count)), np.zeros((count, count))
    places = np.flatnonzero(free)

    def one(view: int) -> tuple[Float64, Float64]:
        changes = own_changes(views, atoms, own, view, free)
        crossed = [chain.T @ views.sums(atoms, own, view, weights[view] * change)[0].ravel() for change in changes]
        squares = [[float((weights[view] * change * other).sum()) for other in changes] for change in changes]
        return np.reshape(crossed, (places.size, chain.shape[1])), np.reshape(squares, (places.size, places.size))

    for view, (crossed, squares) in enumerate(views.each(one)):
        columns = view * OF_VIEW + places
        with_views[:, columns] = crossed.T
        of_views[np.ix_(columns, columns)] = squares
    return with_views, of_views


def _without_gauge(views: Views, free: Bools) -> Float64:
    """(view · 4, free): orthonormal steps of the views that atoms cannot take."""
    gauge = Gauge.of(views)
    bases = {SCALE: gauge.of_scale, ALONG: gauge.along, ACROSS: gauge.across}
    parts = []
    for place in np.flatnonzero(free):
        columns = np.eye(views.count)
        if place in bases:
            columns = scipy.linalg.null_space(bases[int(place)].T)
        spread = np.zeros((views.count, OF_VIEW, columns.shape[1]))
        spread[:, place] = columns
        parts.append(spread.reshape(views.count * OF_VIEW, -1))
    return np.concatenate([np.zeros((views.count * OF_VIEW, 0)), *parts], axis=1)
