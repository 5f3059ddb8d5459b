"""What of the atoms a fit may change, as one vector, and how far from the start it may get without evidence."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse

from nntomo_dask.atoms.views import OF_GAUSSIAN, Gaussians
from nntomo_dask.types import Bools, Float64, Integers

Widths = Literal["fixed", "one", "species", "atom"]
Profile = Literal["gaussian", "tailed"]
TAIL, RATIO = 0.1, 2.0  # where a tail begins: its share of the height, and its width in widths of the atom
_WIDTH_CHANGE, _TAIL_CHANGE, _RATIO_CHANGE = 0.5, 0.2, 0.5  # how far from their start they are expected to be
_LARGEST_MOVE, _LARGEST_CHANGE, _LARGEST_TAIL, _LARGEST_RATIO = 0.5, 0.2, 0.1, 0.2  # of a step
_TAILS, _RATIOS = (-0.4, 0.8), (1.25, 5.0)


class Atoms(NamedTuple):
    """Atoms in space. Each is a Gaussian, or two: with a tail, a wider one around the same place."""

    positions: Float64  # (atom, 3): z, y, x, [nm]
    heights: Float64  # (atom,), in the unit of the volume, of both Gaussians together
    widths: Float64  # (atom,), standard deviation of the first, [nm]
    tails: Float64  # (atom,): the share of the height that the second has
    ratios: Float64  # (atom,): its width in units of that of the first

    @classmethod
    def simple(cls, positions: Float64, heights: Float64, widths: Float64) -> "Atoms":
        """Atoms without tails."""
        return cls(positions, heights, widths, np.zeros(len(widths)), np.full(len(widths), RATIO))

    @property
    def has_tails(self) -> bool:
        """Whether one of them has a tail."""
        return bool(self.tails.any())

    def gaussians(self) -> Gaussians:
        """The first of each atom; where there are tails, the second of each after them."""
        if not self.has_tails:
            return Gaussians(self.positions, self.heights, self.widths)
        return Gaussians(
            np.concatenate([self.positions] * 2),
            np.concatenate([(1 - self.tails) * self.heights, self.tails * self.heights]),
            np.concatenate([self.widths, self.ratios * self.widths]),
        )

    def only(self, kept: Any) -> "Atoms":
        """Some of them."""
        return Atoms(*(values[kept] for values in self))


@dataclass(frozen=True)
class Parameters:
    """The free parameters: z, y, x of the atoms that move, all heights, the widths, and the tails, of groups.

    Attributes
    ----------
    start
        The atoms where the fit begins; all of a group have one width, or one tail.
    moves
        (atom,), which of them have free positions.
    groups
        (atom,), the number of its group; -1 where widths stay.
    tailed
        (atom,), the number of the group with which it shares a tail; -1 where there is none, or it stays.
    expected_shift_nm
        How far an atom is expected to be from its start, a standard deviation along each direction.
    """

    start: Atoms
    moves: Bools
    groups: Integers
    tailed: Integers
    expected_shift_nm: float

    @property
    def count(self) -> int:
        """Number of free parameters."""
        return self._starts[-1]

    @property
    def n_moving(self) -> int:
        """Number of atoms with free positions."""
        return int(self.moves.sum())

    @property
    def heights(self) -> slice:
        """Where the heights are in the vector."""
        return slice(*self._starts[:2])

    def only(self, kept: Integers) -> "Parameters":
        """Those of some atoms."""
        groups, tailed = (_renumbered(numbers[kept]) for numbers in (self.groups, self.tailed))
        return Parameters(self.start.only(kept), self.moves[kept], groups, tailed, self.expected_shift_nm)

    @property
    def _starts(self) -> list[int]:
        """Where heights, widths, tails and ratios begin, and the end."""
        n_tails = _number(self.tailed)
        sizes = [3 * self.n_moving, len(self.groups), _number(self.groups), n_tails, n_tails]
        return [int(end) for end in np.cumsum(sizes)]

    def chain(self, atoms: Atoms) -> scipy.sparse.csr_matrix:
        """(5 · Gaussians, parameters): derivatives of z, y, x, height, width of each Gaussian by the parameters."""
        n, numbers = len(self.groups), np.arange(len(self.groups))
        first = OF_GAUSSIAN * numbers
        heights, widths, tails, ratios, _ = self._starts
        places = (first[self.moves][:, None] + np.arange(3)).ravel()
        wide, long = np.flatnonzero(self.groups >= 0), np.flatnonzero(self.tailed >= 0)
        moving, one = np.arange(places.size), np.ones(n)
        of_width, of_tail, of_ratio = widths + self.groups[wide], tails + self.tailed[long], ratios + self.tailed[long]
        parts = [
            (places, moving, np.ones(places.size)),
            (first + 3, heights + numbers, one - atoms.tails),
            (first[wide] + 4, of_width, one[wide]),
            (first[long] + 3, of_tail, -atoms.heights[long]),
        ]
        size = OF_GAUSSIAN * n
        if atoms.has_tails:
            parts += [
                (size + places, moving, np.ones(places.size)),
                (size + first + 3, heights + numbers, atoms.tails),
                (size + first[wide] + 4, of_width, atoms.ratios[wide]),
                (size + first[long] + 3, of_tail, atoms.heights[long]),
                (size + first[long] + 4, of_ratio, atoms.widths[long]),
            ]
        rows, columns, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        shape = (size * (2 if atoms.has_tails else 1), self.count)
        return scipy.sparse.csr_matrix((values, (rows, columns)), shape=shape)

    def precision(self) -> Float64:
        """(parameter,): one over the variance that is expected about the start; 0 for heights, which are free."""
        heights, widths, tails, ratios, end = self._starts
        found = np.zeros(end)
        found[:heights] = 1 / self.expected_shift_nm**2
        found[widths:tails] = 1 / (_WIDTH_CHANGE * _of_groups(self.start.widths, self.groups)) ** 2
        found[tails:ratios] = 1 / _TAIL_CHANGE**2
        found[ratios:] = 1 / _RATIO_CHANGE**2
        return found

    def away(self, atoms: Atoms) -> Float64:
        """(parameter,): how far atoms are from the start."""
        moved = (atoms.positions - self.start.positions)[self.moves].ravel()
        return np.concatenate(
            [
                moved,
                atoms.heights - self.start.heights,
                _of_groups(atoms.widths - self.start.widths, self.groups),
                _of_groups(atoms.tails - self.start.tails, self.tailed),
                _of_groups(atoms.ratios - self.start.ratios, self.tailed),
            ]
        )

    def moved(self, atoms: Atoms, step: Float64) -> tuple[Atoms, float]:
        """Atoms after a step, which is cut where it is long, and the longest move of an atom in units of its width."""
        heights, widths, tails, ratios, _ = self._starts
        new = Atoms(*(values.copy() for values in atoms))
        by = step[:heights].reshape(-1, 3)
        lengths = np.sqrt((by**2).sum(axis=1)) / atoms.widths[self.moves]
        new.positions[self.moves] += by / np.maximum(lengths / _LARGEST_MOVE, 1)[:, None]
        new.heights[:] += step[heights:widths]
        wide, long = self.groups >= 0, self.tailed >= 0
        change = step[widths:tails][self.groups[wide]] / atoms.widths[wide]
        new.widths[wide] *= 1 + np.clip(change, -_LARGEST_CHANGE, _LARGEST_CHANGE)
        of_tail, of_ratio = (step[part][self.tailed[long]] for part in (slice(tails, ratios), slice(ratios, None)))
        new.tails[long] = np.clip(new.tails[long] + np.clip(of_tail, -_LARGEST_TAIL, _LARGEST_TAIL), *_TAILS)
        new.ratios[long] = np.clip(new.ratios[long] + np.clip(of_ratio, -_LARGEST_RATIO, _LARGEST_RATIO), *_RATIOS)
        return new, float(np.minimum(lengths, _LARGEST_MOVE).max(initial=0))


def grouped(
    atoms: Atoms, species: npt.NDArray[np.str_], widths: Widths, profile: Profile
) -> tuple[Atoms, Integers, Integers]:
    """Atoms whose groups have their median width and tail, and the groups of widths and tails.

    Where a profile has tails, atoms of a species share one.
    """
    n = len(atoms.widths)
    kinds = np.unique(species, return_inverse=True)[1].astype(np.int64)
    groups = {"fixed": np.full(n, -1), "one": np.zeros(n, np.int64), "species": kinds, "atom": np.arange(n)}[widths]
    if widths != "fixed":
        atoms = atoms._replace(widths=_median(atoms.widths, groups))
    if profile == "gaussian":
        return atoms, groups, np.full(n, -1)
    begun = atoms if atoms.has_tails else atoms._replace(tails=np.full(n, TAIL), ratios=np.full(n, RATIO))
    return begun._replace(tails=_median(begun.tails, kinds), ratios=_median(begun.ratios, kinds)), groups, kinds


def _median(values: Float64, groups: Integers) -> Float64:
    return np.array([np.median(values[groups == group]) for group in range(_number(groups))])[groups]


def _number(groups: Integers) -> int:
    return int(groups.max(initial=-1)) + 1


def _of_groups(values: Float64, groups: Integers) -> Float64:
    """(group,): the value that all of a group have."""
    found = np.zeros(_number(groups))
    found[groups[groups >= 0]] = values[groups >= 0]
    return found


def _renumbered(groups: Integers) -> Integers:
    numbers = np.unique(groups[groups >= 0])
    return np.where(groups >= 0, np.searchsorted(numbers, groups), -1)
