"""Gaussians fitted to the voxels around candidates: neighbours that overlap together, all others taken as they are.

The fit of a group needs the Gaussians around it, which other groups fit. So all groups are fitted in turns: each sees
its neighbours as they were after the turn before, and takes a share of the step where many overlap. What a turn gives
depends on the turn before and on the voxels alone, never on the slabs.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from nntomo_dask.atoms.frame import Frame, compute_slices
from nntomo_dask.kernels import peaks
from nntomo_dask.types import Bools, Float64, Integers

RADIUS = 2.5  # widths around an atom whose voxels are fitted
_TOGETHER = 3.0  # widths within which two atoms are fitted together, as far as groups have room
_SEEN = 4.5  # widths beyond the radius up to which a neighbour is subtracted: there it is below 4e-5 of its height
_MOST_TURNS = 20
_STILL = 1e-3  # of a width, and of a height: what moved less has not moved


@dataclass(eq=False)
class Fitted:
    """Gaussians, as `peaks.fit` takes them.

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


def reach(width: float) -> float:
    """Distance within which an atom plays a part in the fit of another, [px]."""
    return (RADIUS + _SEEN) * width


def groups_of(places: Float64, width: float) -> Groups:
    """Groups of at most `peaks.MOST_TOGETHER` atoms, the nearest pairs first.

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
        if first != second and len(members[first]) + len(members[second]) <= peaks.MOST_TOGETHER:
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


def fit(frame: Frame, fitted: Fitted, width: float, *, turns: int = _MOST_TURNS) -> Fitted:
    """All Gaussians that are moving, and those around them, fitted until they are still.

    Parameters
    ----------
    width
        The common one, [px].
    turns
        At most so many.
    """
    if len(fitted.gaussians) == 0:
        return fitted
    groups = groups_of(fitted.gaussians[:, :3] * frame.scale, width)
    gaussians, background, moving = fitted.gaussians.copy(), fitted.background.copy(), fitted.moving.copy()
    count = len(groups.begins) - 1
    owner = np.repeat(np.arange(count), np.diff(groups.begins))
    viewer = np.repeat(np.arange(count), np.diff(groups.other_begins))
    for _ in range(turns):
        wanted = np.zeros(count, bool)
        np.logical_or.at(wanted, owner, moving[groups.members])
        np.logical_or.at(wanted, viewer, moving[groups.others])
        if not wanted.any():
            break
        chosen = np.flatnonzero(wanted)
        found, levels = _turn(frame, gaussians, fitted.origins, groups, chosen, width)
        moving = np.zeros(len(gaussians), bool)
        for place, one in enumerate(chosen):
            atoms = groups.members[groups.begins[one] : groups.begins[one + 1]]
            alone = groups.other_begins[one] == groups.other_begins[one + 1]
            before, after = gaussians[atoms], found[place]
            step = groups.share[one] * (after - before)
            gaussians[atoms] = before + step
            background[atoms] = levels[place]
            if not alone:
                far = np.abs(step[:, [0, 1, 2, 4]]).max(axis=1) > _STILL * width
                moving[atoms] = far | (np.abs(step[:, 3]) > _STILL * np.abs(before[:, 3]))
    return Fitted(gaussians, fitted.origins, background, np.zeros(len(gaussians), bool))


def _turn(
    frame: Frame, gaussians: Float64, origins: Float64, groups: Groups, chosen: Integers, width: float
) -> tuple[list[Float64], Float64]:
    """The Gaussians of each chosen group, fitted, and its background."""
    half = RADIUS * width / frame.step
    firsts = np.array([origins[groups.members[groups.begins[one] : groups.begins[one + 1]], 0].min() for one in chosen])
    ends = np.cumsum(frame.data.chunks[0])
    slab = np.searchsorted(ends, np.clip(firsts, 0, ends[-1] - 1), side="right")
    ranges, arguments, places = [], [], []
    for number in np.unique(slab):
        here = np.flatnonzero(slab == number)
        members = [groups.members[groups.begins[one] : groups.begins[one + 1]] for one in chosen[here]]
        others = [groups.others[groups.other_begins[one] : groups.other_begins[one + 1]] for one in chosen[here]]
        inside = np.concatenate(members)
        low = max(int(np.floor(origins[inside, 0].min() - half)), 0)
        high = min(int(np.ceil(origins[inside, 0].max() + half)) + 1, frame.shape[0])
        ranges.append((low, high))
        arguments.append(
            (
                low,
                frame.step,
                width,
                _begins(members),
                gaussians[inside],
                origins[inside],
                _begins(others),
                gaussians[np.concatenate(others)] if others else np.zeros((0, peaks.PARAMETERS)),
            )
        )
        places.append((here, _begins(members)))
    found: list[Any] = [None] * len(chosen)
    levels = np.zeros(len(chosen))
    for (result, level), (here, begins) in zip(compute_slices(_fit, frame, ranges, arguments), places, strict=True):
        levels[here] = level
        for place, one in enumerate(here):
            found[one] = result[begins[place] : begins[place + 1]]
    return found, levels


def _begins(parts: list[Integers]) -> Integers:
    return np.concatenate([[0], np.cumsum([len(one) for one in parts], dtype=np.int64)]).astype(np.int64)


def _fit(
    rows: Any,
    first: int,
    step: float,
    width: float,
    groups: Integers,
    start: Float64,
    origin: Float64,
    others: Integers,
    fixed: Float64,
) -> tuple[Float64, Float64]:
    result, background, _ = peaks.fit(
        rows,
        first=first,
        step=step,
        radius=RADIUS * width,
        groups=groups,
        start=start,
        origin=origin,
        others=others,
        fixed=fixed,
        width=width,
    )
    return result, background
