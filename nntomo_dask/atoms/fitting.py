"""Gaussians fitted to the voxels around candidates: neighbours that overlap together, all others taken as they are.

The fit of a group needs the Gaussians around it, which other groups fit. So all groups are fitted in turns: each sees
its neighbours as they were after the turn before, and takes a share of the step where many overlap. What a turn gives
depends on the turn before and on the voxels alone, never on the slabs.
"""

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from dask.base import compute
from dask.delayed import delayed
from scipy.spatial import cKDTree

from nntomo_dask.atoms.frame import Frame, compute_slices
from nntomo_dask.compute import configuration
from nntomo_dask.kernels import peak_fits
from nntomo_dask.types import Bools, Float32, Float64, Integers

RADIUS = 2.5  # widths around an atom whose voxels are fitted
_TOGETHER = 3.0  # widths within which two atoms are fitted together, as far as groups have room
_SEEN = 4.5  # widths beyond the radius up to which a neighbour is subtracted: there it is below 4e-5 of its height
_MOST_TURNS = 20
_AT_ONCE = 1024  # groups of a task whose voxels are held
_BATCH_BYTES = 2**26  # of voxels that come back together
_ENTRY_BYTES = 400  # of what is held for a group, beside its voxels
HELD_BYTES = 2**28
_STILL = 1e-3  # of a width, and of a height: what moved less has not moved

Read = Literal["held", "used once"]  # what comes of voxels that are read


@dataclass(eq=False)
class Fitted:
    """Gaussians, as `peak_fits.fit` takes them.

    Attributes
    ----------
    gaussians
        (atom, 5): z, y, x [voxels], height, width [px].
    origins
        (atom, 3): where each was seen first, [voxels].
    background
        (atom,): of its group.
    moving
        (atom,): not fitted yet, or something around it has changed since.
    """

    gaussians: Float64
    origins: Float64
    background: Float64 = field(default_factory=lambda: np.zeros(0))
    moving: Bools = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        if len(self.background) != len(self.gaussians):
            self.background = np.zeros(len(self.gaussians))
        if len(self.moving) != len(self.gaussians):
            self.moving = np.ones(len(self.gaussians), bool)

    def without(self, dropped: Bools, *, scale: Float64, reach: float) -> "Fitted":
        """The others; those within reach of what is dropped, [px], have to be fitted again."""
        kept, moving = ~dropped, self.moving.copy()
        if dropped.any() and kept.any():
            tree = cKDTree(self.gaussians[dropped, :3] * scale)
            distance, _ = tree.query(self.gaussians[:, :3] * scale, distance_upper_bound=reach)
            moving |= np.isfinite(distance)
        return Fitted(self.gaussians[kept], self.origins[kept], self.background[kept], moving[kept])

    def joined(self, others: "Fitted", *, scale: Float64, reach: float) -> "Fitted":
        """With others, which are fitted with all that is within reach of them, [px]."""
        distance, _ = cKDTree(others.gaussians[:, :3] * scale).query(
            self.gaussians[:, :3] * scale, distance_upper_bound=reach
        )
        return Fitted(
            np.concatenate([self.gaussians, others.gaussians]),
            np.concatenate([self.origins, others.origins]),
            np.concatenate([self.background, others.background]),
            np.concatenate([self.moving | np.isfinite(distance), others.moving]),
        )


@dataclass(frozen=True, eq=False)
class Groups:
    """Atoms that are fitted together, and those around each group.

    Attributes
    ----------
    members, begins
        Numbers of the atoms of all groups in turn, and where each group begins, (group + 1,).
    others, other_begins
        The same of the atoms around.
    share
        (group,): share of a step that a group takes.
    """

    members: Integers
    begins: Integers
    others: Integers
    other_begins: Integers
    share: Float64

    def of(self, group: int) -> Integers:
        """Numbers of the members of a group."""
        return self.members[self.begins[group] : self.begins[group + 1]]

    def around(self, group: int) -> Integers:
        """Numbers of the atoms around a group."""
        return self.others[self.other_begins[group] : self.other_begins[group + 1]]


def reach(width: float) -> float:
    """Distance within which an atom plays a part in the fit of another, [px]."""
    return (RADIUS + _SEEN) * width


def groups_of(places: Float64, width: float) -> Groups:
    """Groups of at most `peak_fits.MOST_TOGETHER` atoms, the nearest pairs first.

    Parameters
    ----------
    places
        (atom, 3), [px].
    """
    count = len(places)
    tree = cKDTree(places)
    pairs = tree.query_pairs(reach(width), output_type="ndarray")
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    distance = np.sqrt(((places[pairs[:, 0]] - places[pairs[:, 1]]) ** 2).sum(axis=1))
    group, members = list(range(count)), [[one] for one in range(count)]
    near = np.flatnonzero(distance < _TOGETHER * width)
    for one, other in pairs[near[np.argsort(distance[near], kind="stable")]].tolist():
        first, second = sorted((group[one], group[other]))
        if first != second and len(members[first]) + len(members[second]) <= peak_fits.MOST_TOGETHER:
            for moved in members[second]:
                group[moved] = first
            members[first] += members[second]
            members[second] = []
    kept = [sorted(one) for one in members if one]
    number = np.empty(count, np.int64)
    for place, one in enumerate(kept):
        number[one] = place
    across = number[pairs[:, 0]] != number[pairs[:, 1]]
    pairs, distance = pairs[across], distance[across]
    seen = np.unique(
        np.concatenate(
            [
                np.stack([number[pairs[:, 0]], pairs[:, 1]], axis=1),
                np.stack([number[pairs[:, 1]], pairs[:, 0]], axis=1),
            ]
        ),
        axis=0,
    )
    coupled = np.zeros(count)
    overlap = np.exp(-((distance / (2 * width)) ** 2))  # of two Gaussians, relative to one with itself
    np.add.at(coupled, pairs[:, 0], overlap)
    np.add.at(coupled, pairs[:, 1], overlap)
    sizes = [len(one) for one in kept]
    return Groups(
        members=np.concatenate([np.asarray(one, np.int64) for one in kept]) if kept else np.zeros(0, np.int64),
        begins=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]),
        others=seen[:, 1],
        other_begins=np.searchsorted(seen[:, 0], np.arange(len(kept) + 1)),
        share=np.array([1 / (1 + max(coupled[one] for one in group)) for group in kept]),
    )


@dataclass(eq=False)
class Held:
    """Voxels around groups, by the places where their members were seen first: what is held is not read again."""

    of: dict[bytes, Float32] = field(default_factory=dict)
    taken: int = 0

    def keep(self, name: bytes, voxels: Float32) -> None:
        """Hold the voxels of a group, where there is room."""
        size = voxels.nbytes + _ENTRY_BYTES
        if self.taken + size <= HELD_BYTES:
            self.of[name] = voxels.copy()
            self.taken += size

    def forget(self, wanted: set[bytes]) -> None:
        """Leave out all but some groups."""
        for name in [one for one in self.of if one not in wanted]:
            self.taken -= self.of.pop(name).nbytes + _ENTRY_BYTES


def fit(frame: Frame, fitted: Fitted, width: float, *, turns: int = _MOST_TURNS, held: Held | None = None) -> Fitted:
    """All Gaussians that are moving, and those around them, fitted until they are still.

    Parameters
    ----------
    width
        The common one, [px].
    turns
        At most so many.
    held
        Voxels that were read before; they are added to.
    """
    if len(fitted.gaussians) == 0:
        return fitted
    held = Held() if held is None else held
    groups = groups_of(fitted.gaussians[:, :3] * frame.scale, width)
    gaussians, background, moving = fitted.gaussians.copy(), fitted.background.copy(), fitted.moving.copy()
    count = len(groups.begins) - 1
    names = [fitted.origins[groups.of(one)].tobytes() for one in range(count)]
    held.forget(set(names))
    owner = np.repeat(np.arange(count), np.diff(groups.begins))
    viewer = np.repeat(np.arange(count), np.diff(groups.other_begins))
    alone = np.diff(groups.other_begins) == 0
    for _ in range(turns):
        wanted = np.zeros(count, bool)
        np.logical_or.at(wanted, owner, moving[groups.members])
        np.logical_or.at(wanted, viewer, moving[groups.others])
        if not wanted.any():
            break
        turn = _Turn(frame, gaussians, fitted.origins, groups, width, names, held)
        found, levels = turn.of(np.flatnonzero(wanted))
        atoms, one = groups.members[wanted[owner]], owner[wanted[owner]]
        before = gaussians[atoms]
        step = groups.share[one, None] * (found[atoms] - before)
        gaussians[atoms] = before + step
        background[atoms] = levels[one]
        far = np.abs(step[:, [0, 1, 2, 4]]).max(axis=1) > _STILL * width
        moving = np.zeros(len(gaussians), bool)
        moving[atoms] = (far | (np.abs(step[:, 3]) > _STILL * np.abs(before[:, 3]))) & ~alone[one]
    return Fitted(gaussians, fitted.origins, background, np.zeros(len(gaussians), bool))


@dataclass(frozen=True, eq=False)
class _Turn:
    """One turn: groups are fitted to their voxels, slab by slab."""

    frame: Frame
    gaussians: Float64
    origins: Float64
    groups: Groups
    width: float
    names: list[bytes]
    held: Held

    def of(self, chosen: Integers) -> tuple[Float64, Float64]:
        """(atom, 5) and (group,): the Gaussians of chosen groups, fitted, the others as they were; and backgrounds."""
        found, levels = self.gaussians.copy(), np.zeros(len(self.names))
        is_held = np.array([self.names[one] in self.held.of for one in chosen])
        ready, read = chosen[is_held], chosen[~is_held]
        parts = [ready[at : at + _AT_ONCE] for at in range(0, len(ready), _AT_ONCE)]
        voxels = [[self.held.of[self.names[one]] for one in part] for part in parts]
        with configuration.ours():
            tasks = [delayed(_fit)(these, *self._given(part)) for these, part in zip(voxels, parts, strict=True)]
            results = list(compute(*tasks))
        for slabs, then in self._batches(read):
            ranges = [self._range(part) for part in slabs]
            arguments = [(low, then, *self._given(part)) for (low, _), part in zip(ranges, slabs, strict=True)]
            for part, (fitted, level, values, begins) in zip(
                slabs, compute_slices(_gather_and_fit, self.frame, ranges, arguments), strict=True
            ):
                for place, one in enumerate(part if then == "held" else []):
                    self.held.keep(self.names[one], values[begins[place] : begins[place + 1]])
                parts.append(part)
                results.append((fitted, level))
        for part, (fitted, level) in zip(parts, results, strict=True):
            found[np.concatenate([self.groups.of(one) for one in part])] = fitted
            levels[part] = level
        return found, levels

    def _batches(self, chosen: Integers) -> Iterator[tuple[list[Integers], Read]]:
        """Groups by the slab that the first of them was seen in, some slabs at a time; what comes of voxels."""
        first = np.array([self.origins[self.groups.of(one), 0].min() for one in chosen])
        ends = np.array([end for _, end in self.frame.slabs()])
        slab = np.searchsorted(ends, np.clip(first, 0, ends[-1] - 1), side="right")
        around = 4 / 3 * np.pi * (RADIUS * self.width) ** 3 / self.frame.step * 4
        batch: list[Integers] = []
        size, room = 0.0, float(HELD_BYTES - self.held.taken)
        for number in np.unique(slab):
            part = chosen[slab == number]
            more = sum(len(self.groups.of(one)) * around + _ENTRY_BYTES for one in part)
            if batch and size <= room and size + more > min(_BATCH_BYTES, room):
                yield batch, "held"
                batch, size, room = [], 0.0, float(HELD_BYTES - self.held.taken)
            batch.append(part)
            size += more
        if batch:
            yield batch, "held" if size <= room else "used once"

    def _range(self, part: Integers) -> tuple[int, int]:
        """Slices that have all voxels of some groups."""
        z = self.origins[np.concatenate([self.groups.of(one) for one in part]), 0]
        half = RADIUS * self.width / self.frame.step
        return max(int(np.floor(z.min() - half)), 0), min(int(np.ceil(z.max() + half)) + 1, self.frame.shape[0])

    def _given(self, part: Integers) -> tuple[Any, ...]:
        """What the fit of some groups needs beside their voxels."""
        members, others = [self.groups.of(one) for one in part], [self.groups.around(one) for one in part]
        inside = np.concatenate(members)
        return (
            peak_fits.Region(RADIUS * self.width, self.frame.step, *self.frame.shape),
            _begins(members),
            self.gaussians[inside],
            self.origins[inside],
            _begins(others),
            self.gaussians[np.concatenate(others)],
            self.width,
        )


def _begins(parts: Sequence[Sized]) -> Integers:
    return np.concatenate([[0], np.cumsum([len(one) for one in parts], dtype=np.int64)]).astype(np.int64)


def _gather_and_fit(
    rows: Float32,
    first: int,
    then: Read,
    region: peak_fits.Region,
    groups: Integers,
    start: Float64,
    origin: Float64,
    *rest: Any,
) -> tuple[Float64, Float64, Float32, Integers]:
    values, begins = peak_fits.gathered(rows, region, groups, origin, first=first)
    fitted = _fitted(values, begins, region, groups, start, origin, *rest)
    return *fitted, values if then == "held" else values[:0].copy(), begins


def _fit(voxels: list[Float32], *given: Any) -> tuple[Float64, Float64]:
    return _fitted(np.concatenate(voxels), _begins(voxels), *given)


def _fitted(
    values: Float32,
    begins: Integers,
    region: peak_fits.Region,
    groups: Integers,
    start: Float64,
    origin: Float64,
    others: Integers,
    fixed: Float64,
    width: float,
) -> tuple[Float64, Float64]:
    return peak_fits.fit(
        values,
        begins,
        region,
        groups=groups,
        start=start,
        origin=origin,
        others=others,
        fixed=fixed,
        width=width,
    )
