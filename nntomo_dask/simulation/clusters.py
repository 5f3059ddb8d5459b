"""Clusters of atoms without order, and ASE atoms of any shape as a specimen."""

import math
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from scipy.spatial import cKDTree

from nntomo_dask.arrays import recipes
from nntomo_dask.errors import refuse
from nntomo_dask.simulation.specimen import Specimen, centred
from nntomo_dask.types import Float64

_VACUUM = 5.0  # Å between the atoms and the faces of their cell
_ROUNDS = 2000  # in which atoms that are too close push each other apart
_FILLED = 0.45  # share of the sphere that atoms as large as their distance may fill; above it they jam


def amorphous_cluster(
    element: str = "Si", *, atoms: int = 200, distance_nm: float = 0.235, density: float = 49.0, seed: int = 0
) -> Atoms:
    """A spherical cluster of atoms of one element, without order.

    Random points in a sphere push each other apart until no two are closer than a distance. The defaults are those of
    amorphous silicon, but for the number of neighbours, which follows from the packing.

    Parameters
    ----------
    element
        Symbol of the chemical element.
    atoms
        Number of atoms.
    distance_nm
        Least distance of two atoms, [nm].
    density
        Atoms per volume, [1/nm³].
    seed
        Another seed gives another cluster.

    Returns
    -------
    ASE atoms, positions in Å, in a cubic cell with 5 Å of vacuum.

    Raises
    ------
    SchemaError
        The element is unknown, a number is not above 0, or so many atoms do not fit that closely.

    References
    ----------
    .. [1] K. Laaziri et al., Phys. Rev. Lett. 82 (1999) 3460, doi:10.1103/PhysRevLett.82.3460 (bonds of amorphous
       silicon).
    """
    who = "amorphous_cluster"
    if element not in atomic_numbers or atomic_numbers[element] == 0:
        refuse(who, needs="the symbol of a chemical element", got=f"{element!r}", remedy='`element="Si"`')
    if not (atoms >= 1 and 0 < distance_nm < math.inf and 0 < density < math.inf):
        refuse(
            who,
            needs="at least 1 atom, and a distance and a density above 0",
            got=f"{atoms}, {distance_nm:g} nm and {density:g} / nm³",
            remedy="`amorphous_cluster()` for silicon",
        )
    filled = density * math.pi / 6 * distance_nm**3
    if filled > _FILLED:
        refuse(
            who,
            needs=f"atoms that fill at most {100 * _FILLED:.0f} % of the space, as spheres that touch",
            got=f"{100 * filled:.0f} %, by {density:g} / nm³ at {distance_nm:g} nm",
            remedy="a lower `density`, or a smaller `distance_nm`",
        )
    rng = np.random.default_rng(seed)
    radius = (3 * atoms / (4 * math.pi * density)) ** (1 / 3)
    directions = rng.standard_normal((atoms, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    points = _apart(directions * radius * rng.random((atoms, 1)) ** (1 / 3), distance_nm, radius, rng)
    positions = 10 * (points - (points.max(axis=0) + points.min(axis=0)) / 2)
    made = Atoms([element] * atoms, positions=positions)
    made.set_cell([2 * (float(np.abs(positions).max()) + _VACUUM)] * 3)
    made.center()
    return made


def _apart(points: Float64, distance: float, radius: float, rng: np.random.Generator) -> Float64:
    """Points within a sphere, moved until no two are closer than a distance."""
    for _ in range(_ROUNDS):
        pairs = cKDTree(points).query_pairs(distance * (1 - 1e-6), output_type="ndarray")
        if len(pairs) == 0:
            return points
        between = points[pairs[:, 1]] - points[pairs[:, 0]]
        length = np.maximum(np.linalg.norm(between, axis=1), 1e-9)
        push = between * (0.5 * (1.02 * distance - length) / length)[:, None]
        for axis in range(3):
            points[:, axis] += np.bincount(pairs[:, 1], push[:, axis], len(points))
            points[:, axis] -= np.bincount(pairs[:, 0], push[:, axis], len(points))
        far = np.linalg.norm(points, axis=1)
        outside = far > radius
        points[outside] *= (radius / far[outside])[:, None]
        # A little shaking, or points that push each other in a ring would never come to rest.
        points += 1e-3 * distance * rng.standard_normal(points.shape)
    refuse(
        "amorphous_cluster",
        needs="atoms that come to rest",
        got=f"{len(points)} of them that do not, {distance:g} nm apart in a sphere of {radius:.3g} nm",
        remedy="a lower `density`, or a smaller `distance_nm`",
    )


def cluster_specimen(atoms: Atoms, *, name: str = "cluster") -> Specimen:
    """ASE atoms as they are, about the tilt axis: no cell is looked at, and nothing is cut.

    Parameters
    ----------
    name
        For the recipe.

    Returns
    -------
    A `Specimen`, whose atoms are centred by the box that holds them.
    """
    if len(atoms) == 0:
        refuse("cluster_specimen", needs="atoms", got="none", remedy="`amorphous_cluster()`")
    positions = np.asarray(atoms.positions, np.float64) / 10
    parameters: dict[str, Any] = {
        "name": name,
        "structure": atoms.get_chemical_formula(),
        "atoms": recipes.digest(np.concatenate([atoms.numbers[:, None], np.round(positions, 6)], axis=1)),
    }
    return Specimen(atoms.numbers.astype(np.int64), centred(positions), recipes.record("cluster_specimen", parameters))
