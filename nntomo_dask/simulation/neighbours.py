"""Neighbours in a periodic crystal."""

import numpy as np
from ase import Atoms
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from nntomo_dask.types import Float64


def pairs(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs closer than `cutoff` [Å] in the periodic crystal, each pair once: first, second atom, distance [Å]."""
    first, second, offset = periodic_pairs(atoms, cutoff)
    distance = np.linalg.norm(atoms.positions[second] + offset @ atoms.cell.array - atoms.positions[first], axis=1)
    return first, second, distance


def periodic_pairs(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Like `pairs`, but with the cells (pair, 3) between the two atoms in place of their distance."""
    return pairs_of(atoms.get_scaled_positions(wrap=False), atoms.cell.array, cutoff)


def pairs_of(scaled: Float64, cell: Float64, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`periodic_pairs` of fractional coordinates (atom, 3) in a cell (3, 3), in [Å]."""
    # Width of the margin around the cell, in fractional coordinates, whose periodic images can be reached.
    margin = cutoff * np.linalg.norm(np.linalg.inv(cell), axis=0) + 1e-9
    reach = np.ceil(margin).astype(int)
    home = np.floor(scaled)
    inside = scaled - home
    images, cells = np.arange(len(scaled)), np.zeros((len(scaled), 3), int)
    for axis in range(3):
        shifted = [(images, cells)]
        for shift in range(-reach[axis], reach[axis] + 1):
            place = inside[images, axis] + shift
            near = np.flatnonzero((place > -margin[axis]) & (place < 1 + margin[axis]))
            if shift:
                moved = cells[near]
                moved[:, axis] += shift
                shifted.append((images[near], moved))
        images, cells = (np.concatenate(parts) for parts in zip(*shifted, strict=True))
    found = cKDTree(inside @ cell).query_ball_tree(cKDTree((inside[images] + cells) @ cell), cutoff)
    first = np.repeat(np.arange(len(scaled)), [len(row) for row in found])
    image = np.concatenate([np.asarray(row, int) for row in found])
    second, between = images[image], cells[image]
    once = (second > first) | ((second == first) & _is_positive(between))
    first, second, between = first[once], second[once], between[once]
    return first, second, between + (home[first] - home[second]).astype(int)


def _is_positive(cells: np.ndarray) -> np.ndarray:
    """Whether the first component that is not zero is positive. This holds for one of a vector and its opposite."""
    a, b, c = cells.T
    return np.asarray((a > 0) | ((a == 0) & (b > 0)) | ((a == 0) & (b == 0) & (c > 0)))


def merged(
    scaled: Float64, cell: Float64, tolerance: float, *, kinds: np.ndarray
) -> tuple[Float64, np.ndarray, Float64]:
    """One point for all that are closer than a tolerance and of one kind: at their mean.

    Parameters
    ----------
    scaled
        (point, 3), fractional coordinates.
    tolerance
        [Å].
    kinds
        (point,).

    Returns
    -------
    Fractional coordinates in [0, 1), the number of the first of the points that became one, and how far that one moved,
    [Å]. They are in the order of the first points.
    """
    first, second, cells = pairs_of(scaled, cell, tolerance)
    alike = kinds[first] == kinds[second]
    first, second, cells = first[alike], second[alike], cells[alike]
    graph = coo_matrix((np.ones(first.size), (first, second)), shape=(len(scaled),) * 2)
    count, group = connected_components(graph, directed=False)
    leader = np.full(count, len(scaled))
    np.minimum.at(leader, group, np.arange(len(scaled)))
    # Each point beside its leader: the nearest of its periodic images, which `tolerance` makes unambiguous.
    away = scaled - scaled[leader[group]]
    away -= np.round(away)
    total = np.zeros((count, 3))
    np.add.at(total, group, away)
    shift = total / np.bincount(group)[:, None]
    order = np.argsort(leader)
    chosen = leader[order]
    moved = np.linalg.norm(shift[order] @ cell, axis=1)
    places = scaled[chosen] + np.where(moved[:, None] > 1e-9, shift[order], 0)
    places -= np.floor(places)
    return np.where(places < 1, places, 0.0), chosen, moved
