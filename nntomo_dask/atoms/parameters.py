"""What of the atoms a fit may change, as one vector, and how far from the start it may get without evidence."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse

from nntomo_dask.atoms.views import OF_GAUSSIAN, Gaussians
from nntomo_dask.types import Bools, Float64, Integers

Widths = Literal["fixed", "one", "species", "atom"]
_WIDTH_CHANGE = 0.5  # of a width: how far it is expected to be from its start
_LARGEST_MOVE, _LARGEST_CHANGE = 0.5, 0.2  # of a step, in widths


@dataclass(frozen=True)
class Parameters:
    """The free parameters: z, y, x of the atoms that move, all heights, and the widths of the groups.

    Attributes
    ----------
    start
        The atoms where the fit begins; all of a group have one width.
    moves
        (atom,), which of them have free positions.
    groups
        (atom,), the number of its group; -1 where widths stay.
    expected_shift_nm
        How far an atom is expected to be from its start, a standard deviation along each direction.
    """

    start: Gaussians
    moves: Bools
    groups: Integers
    expected_shift_nm: float

    @property
    def count(self) -> int:
        """Number of free parameters."""
        return 3 * self.n_moving + len(self.groups) + self.n_groups

    @property
    def n_moving(self) -> int:
        """Number of atoms with free positions."""
        return int(self.moves.sum())

    @property
    def n_groups(self) -> int:
        """Number of free widths."""
        return int(self.groups.max(initial=-1)) + 1

    @property
    def heights(self) -> slice:
        """Where the heights are in the vector."""
        return slice(3 * self.n_moving, 3 * self.n_moving + len(self.groups))

    def chain(self) -> scipy.sparse.csr_matrix:
        """(5 · atoms, parameters): derivatives of z, y, x, height, width of each atom by the parameters."""
        n, first = len(self.groups), OF_GAUSSIAN * np.arange(len(self.groups))
        places = (first[self.moves][:, None] + np.arange(3)).ravel()
        with_width = np.flatnonzero(self.groups >= 0)
        rows = np.concatenate([places, first + 3, first[with_width] + 4])
        moving = np.arange(places.size)
        columns = np.concatenate([moving, places.size + np.arange(n), places.size + n + self.groups[with_width]])
        shape = (OF_GAUSSIAN * n, self.count)
        return scipy.sparse.csr_matrix((np.ones(rows.size), (rows, columns)), shape=shape)

    def precision(self) -> Float64:
        """(parameter,): one over the variance that is expected about the start; 0 for heights, which are free."""
        found = np.zeros(self.count)
        found[: 3 * self.n_moving] = 1 / self.expected_shift_nm**2
        if self.n_groups:
            found[self.heights.stop :] = 1 / (_WIDTH_CHANGE * self._group_widths(self.start)) ** 2
        return found

    def away(self, atoms: Gaussians) -> Float64:
        """(parameter,): how far atoms are from the start."""
        moved = (atoms.positions - self.start.positions)[self.moves].ravel()
        return np.concatenate(
            [
                moved,
                atoms.heights - self.start.heights,
                self._group_widths(atoms) - self._group_widths(self.start),
            ]
        )

    def moved(self, atoms: Gaussians, step: Float64) -> tuple[Gaussians, float]:
        """Atoms after a step, which is cut where it is long, and the longest move of an atom in units of its width."""
        positions, widths = atoms.positions.copy(), atoms.widths.copy()
        by = step[: 3 * self.n_moving].reshape(-1, 3)
        lengths = np.sqrt((by**2).sum(axis=1)) / widths[self.moves]
        positions[self.moves] += by / np.maximum(lengths / _LARGEST_MOVE, 1)[:, None]
        with_width = self.groups >= 0
        if self.n_groups:
            change = step[self.heights.stop :][self.groups[with_width]] / widths[with_width]
            widths[with_width] *= 1 + np.clip(change, -_LARGEST_CHANGE, _LARGEST_CHANGE)
        longest = float(np.minimum(lengths, _LARGEST_MOVE).max(initial=0))
        return Gaussians(positions, atoms.heights + step[self.heights], widths), longest

    def _group_widths(self, atoms: Gaussians) -> Float64:
        found = np.zeros(self.n_groups)
        found[self.groups[self.groups >= 0]] = atoms.widths[self.groups >= 0]
        return found


def grouped(
    atoms: Gaussians, species: np.ndarray[tuple[int], np.dtype[np.str_]], widths: Widths
) -> tuple[Gaussians, Integers]:
    """Atoms whose groups have their median width, and the groups."""
    n = len(atoms.widths)
    if widths == "fixed":
        return atoms, np.full(n, -1)
    if widths == "atom":
        return atoms, np.arange(n)
    groups = np.zeros(n, np.int64) if widths == "one" else np.unique(species, return_inverse=True)[1].astype(np.int64)
    common = np.array([np.median(atoms.widths[groups == group]) for group in range(int(groups.max(initial=-1)) + 1)])
    return atoms._replace(widths=common[groups]), groups
