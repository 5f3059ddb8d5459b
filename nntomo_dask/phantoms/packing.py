"""Positions of atoms: lattices, real and random, with what is wrong in them; clusters; amorphous packings.

Lengths are in nm, positions are (z, y, x). Atoms have kinds, whose radii add up to the distance of neighbours.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from nntomo_dask.types import Bools, Float64, Integers

Rng = np.random.Generator
_NEAR = 0.8  # of the sum of two radii: atoms of two grains that are closer are one atom
_PACKED = 0.6  # share of space that the spheres of an amorphous packing fill; dense random packing has 0.64
_STEPS = 25  # that push overlapping spheres apart


@dataclass(frozen=True)
class Lattice:
    """A crystal: three cell vectors in rows, and fractional positions and kinds of the atoms of a cell."""

    cell: Float64
    basis: Float64
    kinds: Integers

    def scaled(self, radii: Float64, slack: float = 1.0) -> "Lattice":
        """The crystal whose closest neighbours are as far apart as their radii say, times `slack`."""
        steps = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1).reshape(-1, 3)
        offsets = self.basis[None, :, None] - self.basis[None, None, :] + steps[:, None, None]
        lengths = np.linalg.norm(offsets @ self.cell, axis=-1)
        lengths[lengths < 1e-9] = np.inf
        sums = radii[self.kinds][:, None] + radii[self.kinds][None, :]
        return Lattice(self.cell * (slack / float((lengths / sums).min())), self.basis, self.kinds)

    def atoms(self, turn: Float64, origin: Float64, low: Float64, high: Float64) -> tuple[Float64, Integers]:
        """Positions and kinds of all atoms in a box; the cell is turned by a matrix, and a corner is at `origin`."""
        cell = self.cell @ turn.T
        corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), -1).reshape(-1, 3) - origin
        places = np.linalg.solve(cell.T, corners.T).T
        ranges = (
            np.arange(np.floor(first) - 1, np.ceil(last) + 1)
            for first, last in zip(places.min(axis=0), places.max(axis=0), strict=True)
        )
        cells = np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, 3)
        points = ((cells[:, None] + self.basis) @ cell + origin).reshape(-1, 3)
        kept = ((points >= low) & (points <= high)).all(axis=1)
        return points[kept], np.tile(self.kinds, len(cells))[kept]


_FCC = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
_SHIFTED = (np.array(_FCC) + 0.25).tolist()
_CUBE = np.eye(3)
_HEXAGONAL = np.array([[1, 0, 0], [-0.5, np.sqrt(0.75), 0], [0, 0, np.sqrt(8 / 3)]])

# Structure types of crystals: cell, positions, kinds.
TYPES: dict[str, Lattice] = {
    "simple cubic": Lattice(_CUBE, np.zeros((1, 3)), np.array([0])),
    "face-centred": Lattice(_CUBE, np.array(_FCC), np.zeros(4, int)),
    "body-centred": Lattice(_CUBE, np.array([[0, 0, 0], [0.5] * 3]), np.zeros(2, int)),
    "hexagonal": Lattice(_HEXAGONAL, np.array([[0, 0, 0], [2 / 3, 1 / 3, 0.5]]), np.zeros(2, int)),
    "diamond": Lattice(_CUBE, np.array(_FCC + _SHIFTED), np.zeros(8, int)),
    "caesium chloride": Lattice(_CUBE, np.array([[0, 0, 0], [0.5] * 3]), np.array([0, 1])),
    "rock salt": Lattice(_CUBE, np.array(_FCC + (np.array(_FCC) + 0.5).tolist()), np.repeat([0, 1], 4)),
    "zinc blende": Lattice(_CUBE, np.array(_FCC + _SHIFTED), np.repeat([0, 1], 4)),
    "fluorite": Lattice(_CUBE, np.array(_FCC + _SHIFTED + (np.array(_FCC) + 0.75).tolist()), np.repeat([0, 1, 1], 4)),
    "L1_2": Lattice(_CUBE, np.array(_FCC), np.array([0, 1, 1, 1])),
    "L1_0": Lattice(_CUBE, np.array(_FCC), np.array([0, 1, 1, 0])),
    "perovskite": Lattice(
        _CUBE,
        np.array([[0, 0, 0], [0.5] * 3, [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]),
        np.array([0, 1, 2, 2, 2]),
    ),
}


def random_lattice(rng: Rng, radii: Float64) -> Lattice:
    """A crystal of any cell with one to six atoms that keep away from each other."""
    lengths = rng.uniform(0.7, 1.5, 3)
    angles = np.pi / 2 + (rng.uniform(-0.45, 0.45, 3) if rng.random() < 0.5 else np.zeros(3))
    across = (np.cos(angles[0]) - np.cos(angles[1]) * np.cos(angles[2])) / np.sin(angles[2])
    vectors = [
        [1, 0, 0],
        [np.cos(angles[2]), np.sin(angles[2]), 0],
        [np.cos(angles[1]), across, np.sqrt(max(1 - np.cos(angles[1]) ** 2 - across**2, 0.1))],
    ]
    cell = np.array(vectors) * lengths[:, None]
    steps = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    basis = rng.random((1, 3))
    for _ in range(int(rng.integers(0, 6))):
        tries = rng.random((60, 3))
        away = np.linalg.norm((tries[:, None, None] - basis[None, :, None] + steps) @ cell, axis=-1)
        basis = np.concatenate([basis, tries[away.min(axis=(1, 2)).argmax()][None]])
    return Lattice(cell, basis, rng.integers(0, len(radii), len(basis)))


def icosahedron(shells: int) -> Float64:
    """(atom, 3): a cluster of 20 tetrahedra about a common corner, in shells; unit distance within a shell.

    References
    ----------
    .. [1] A. L. Mackay, Acta Cryst. 15 (1962) 916, doi:10.1107/S0365110X6200239X.
    """
    golden = (1 + np.sqrt(5)) / 2
    corners = np.array([[0, a, b * golden] for a in (-1, 1) for b in (-1, 1)]) / 2
    corners = np.concatenate([np.roll(corners, turn, axis=1) for turn in range(3)])
    near = np.abs(np.linalg.norm(corners[:, None] - corners, axis=-1) - 1) < 1e-6
    faces = [
        (a, b, c) for a in range(12) for b in range(a) for c in range(b) if near[a, b] and near[b, c] and near[a, c]
    ]
    points = [np.zeros((1, 3))]
    for shell in range(1, shells + 1):
        shares = np.array([[a, b, shell - a - b] for a in range(shell + 1) for b in range(shell + 1 - a)])
        points += [shares @ corners[list(face)] for face in faces]
    return np.unique(np.round(np.concatenate(points), 9), axis=0)


def grains(
    rng: Rng, lattice: Lattice, turns: list[Float64], seeds: Float64, low: Float64, high: Float64, radii: Float64
) -> tuple[Float64, Integers]:
    """A polycrystal: each grain is nearest to its seed and has its own orientation; no two atoms overlap."""
    tree = cKDTree(seeds)
    parts = []
    for number, turn in enumerate(turns):
        points, kinds = lattice.atoms(turn, seeds[number] + rng.uniform(-0.1, 0.1, 3), low, high)
        own = tree.query(points)[1] == number if len(points) else np.zeros(0, bool)
        parts.append((points[own], kinds[own]))
    points, kinds = (np.concatenate(each) for each in zip(*parts, strict=True))
    kept = apart(points, kinds, radii)
    return points[kept], kinds[kept]


def twin(
    rng: Rng,
    lattice: Lattice,
    turn: Float64,
    low: Float64,
    high: Float64,
    radii: Float64,
    *,
    planes: tuple[tuple[int, int, int], ...] = ((1, 1, 1), (1, 0, 0), (1, 1, 0), (1, 1, 2)),
) -> tuple[Float64, Integers]:
    """A crystal that is mirrored at one to three parallel planes of its lattice, with indices of one of `planes`."""
    indices = np.array(planes[rng.integers(len(planes))], float) * rng.choice([-1, 1], 3)
    reciprocal = turn @ np.linalg.solve(lattice.cell, indices)
    spacing = 1 / float(np.linalg.norm(reciprocal))
    normal = reciprocal * spacing
    mirror, middle = np.eye(3) - 2 * np.outer(normal, normal), (low + high) / 2
    extent = float((high - low) @ np.abs(normal)) / 2
    places = rng.uniform(-0.6, 0.6) * extent + spacing * np.cumsum([0, *rng.integers(2, 8, rng.integers(0, 3))])
    origin, parts = middle + normal * places[0], []
    for first, last in itertools.pairwise([-np.inf, *places, np.inf]):
        points, kinds = lattice.atoms(turn, origin, low, high)
        height = (points - middle) @ normal
        own = (height > first - 1e-9) & (height <= last + 1e-9)  # atoms of a mirror plane belong to both sides
        parts.append((points[own], kinds[own]))
        if np.isfinite(last):
            turn = mirror @ turn
            origin = origin + 2 * (last - float((origin - middle) @ normal)) * normal
    points, kinds = (np.concatenate(each) for each in zip(*parts, strict=True))
    kept = apart(points, kinds, radii)
    return points[kept], kinds[kept]


def amorphous(
    rng: Rng, shares: Float64, radii: Float64, low: Float64, high: Float64, inside: Callable[[Float64], Bools]
) -> tuple[Float64, Integers]:
    """A dense packing of spheres without order: random points that push each other apart."""
    mean = float(shares @ (4 / 3 * np.pi * radii**3))
    count = int(_PACKED * float(np.prod(high - low)) / mean)
    points = rng.uniform(low, high, (count, 3))
    points = points[inside(points)]
    kinds = rng.choice(len(shares), size=len(points), p=shares)
    start = points.copy()
    for _ in range(_STEPS):
        pairs = cKDTree(points).query_pairs(2 * float(radii.max()), output_type="ndarray")
        between = points[pairs[:, 1]] - points[pairs[:, 0]]
        length = np.maximum(np.linalg.norm(between, axis=1), 1e-6)
        overlap = np.maximum(radii[kinds[pairs]].sum(axis=1) - length, 0)
        push = between * (0.45 * overlap / length)[:, None]
        for axis in range(3):
            points[:, axis] += np.bincount(pairs[:, 1], push[:, axis], len(points))
            points[:, axis] -= np.bincount(pairs[:, 0], push[:, axis], len(points))
        left = ~inside(points)
        points[left] = start[left]
    kept = apart(points, kinds, radii)
    return points[kept], kinds[kept]


def apart(points: Float64, kinds: Integers, radii: Float64, *, near: float = _NEAR) -> Bools:
    """Which atoms stay where, of each two that are too close, the later one goes."""
    kept = np.ones(len(points), bool)
    if len(points) < 2:
        return kept
    pairs = cKDTree(points).query_pairs(2 * near * float(radii.max()), output_type="ndarray")
    length = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    pairs = pairs[length < near * radii[kinds[pairs]].sum(axis=1)]
    for first, second in np.sort(pairs, axis=1)[np.lexsort(np.sort(pairs, axis=1).T[::-1])]:
        if kept[first]:
            kept[second] = False
    return kept


def screw(points: Float64, way: Float64, through: Float64, step: float) -> Float64:
    """The positions about a screw dislocation along a unit vector, whose Burgers vector is `step` long."""
    other = np.cross(way, np.roll(way, 1) + np.array([0.3, 0, 0]))
    other /= np.linalg.norm(other)
    across = (points - through) @ np.stack([other, np.cross(way, other)]).T
    return np.asarray(points + way * (step * np.arctan2(across[:, 1], across[:, 0]) / (2 * np.pi))[:, None])


def proportions(rng: Rng, count: int) -> Float64:
    """Random shares that add up to 1."""
    shares: npt.NDArray[np.float64] = rng.dirichlet(np.full(count, 1.5))
    return shares
