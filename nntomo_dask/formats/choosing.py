"""Which images make a series: frames and repeats of an angle, the range and the numbers to keep, the order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from nntomo_dask.errors import refuse
from nntomo_dask.formats.joining import Joined
from nntomo_dask.types import Float64

Repeats = Literal["sum", "mean", "keep", "refuse"]

_SAME_DEG = 0.02  # frames of an angle, as stages report them
_REPEAT_DEG = 0.05  # images that are repeats of an angle, where an option says what to do with them
_APART_DEG = 1e-3  # by which repeats that are kept apart differ, so that each has a name


@dataclass(frozen=True)
class Projection:
    """A projection of the series.

    Attributes
    ----------
    angle_deg
        Its tilt angle.
    images
        Numbers of the images in the file, from 0 on.
    order
        Its place in the order of acquisition, from 0 on.
    together
        Whether several images are summed or averaged.
    """

    angle_deg: float
    images: tuple[int, ...]
    order: int
    together: Literal["sum", "mean"] = "sum"


@dataclass(frozen=True)
class Choice:
    """The projections, by ascending angle, and what was done, in words."""

    projections: tuple[Projection, ...]
    notes: tuple[str, ...]


def chosen(
    angles_deg: Float64,
    *,
    files: object,
    order: Sequence[int] | None,
    repeats: Repeats | None,
    keep_deg: npt.ArrayLike | None,
    exclude: Sequence[int],
    who: str,
) -> Choice:
    """The projections of a series.

    Parameters
    ----------
    angles_deg
        (image,).
    files
        The images; where they come from several files, frames of one angle are looked for in each.
    order
        The place of each image in the order of acquisition; None where only the order of the file is known.
    repeats
        What is done with images of one angle; None sums frames and refuses other repeats.
    keep_deg
        Keep the projections nearest to these angles.
    exclude
        Numbers of images to leave out, from 1 on.

    Raises
    ------
    SchemaError
        An angle has several images and nothing says what to do with them; or fewer than two projections remain.
    """
    count = angles_deg.size
    places = np.arange(count) if order is None else np.asarray(order)
    left_out = _excluded(exclude, count, who)
    kept = [image for image in range(count) if image not in left_out]
    if not kept:
        refuse(who, needs="images that are left", got="all of them excluded", remedy="a shorter `exclude`")
    if np.ptp(angles_deg[kept]) == 0 and len(kept) > 1:
        got = f"{angles_deg[kept[0]]:g}° for all {len(kept)} images"
        remedy = "`angles=FILE` with the angles; or all files of the series, if these images are frames of one angle"
        refuse(who, needs="at least 2 projections at different angles", got=got, remedy=remedy)
    notes: list[str] = []
    groups = _frames(angles_deg, kept, files)
    is_frames = any(len(group) > 1 for group in groups)
    if is_frames:
        mode = {"mean": "averaged", "keep": "kept apart"}.get(repeats or "sum", "summed")
        sizes = sorted({len(group) for group in groups})
        notes.append(f"frames: {' or '.join(map(str, sizes))} an angle, {mode}")
    if repeats == "keep":
        groups = [[image] for image in kept]
    groups, more = _repeats(angles_deg, groups, repeats, who)
    notes += more
    ranks = np.argsort(np.argsort([min(places[image] for image in group) for group in groups], kind="stable"))
    together: Literal["sum", "mean"] = "mean" if repeats == "mean" else "sum"
    found = [
        Projection(float(np.mean(angles_deg[group])), tuple(group), int(rank), together)
        for group, rank in zip(groups, ranks, strict=True)
    ]
    found.sort(key=lambda one: (one.angle_deg, one.images))
    found = _apart(found)
    if keep_deg is not None:
        found = _nearest(found, np.asarray(keep_deg, np.float64), who)
    sizes = sorted({len(one.images) for one in found})
    if together == "sum" and len(sizes) > 1:
        notes.append(
            f"summed projections are of {' and '.join(map(str, sizes))} images: --repeats mean keeps one level"
        )
    if len(found) < 2:
        refuse(
            who,
            needs="at least 2 projections",
            got=f"{len(found)}",
            remedy="all files of the series, or a file of several images",
        )
    return Choice(tuple(found), tuple(notes))


def _excluded(exclude: Sequence[int], count: int, who: str) -> set[int]:
    for number in exclude:
        if not 1 <= number <= count:
            refuse(
                who,
                needs=f"numbers of images from 1 to {count} to leave out",
                got=f"{number}",
                remedy="`exclude=1`, which leaves out the first",
            )
    return {int(number) - 1 for number in exclude}


def _frames(angles_deg: Float64, kept: Sequence[int], files: object) -> list[list[int]]:
    """Neighbouring images of one angle: in each of several files, or where each angle of a stack has as many."""
    runs: list[list[int]] = []
    file_of = np.repeat(np.arange(len(files.counts)), files.counts) if isinstance(files, Joined) else None
    for image in kept:
        last = runs[-1][-1] if runs else image
        apart = abs(angles_deg[image] - angles_deg[last])
        same = (
            apart == 0 and image - last == 1
            if file_of is None
            else apart <= _SAME_DEG and file_of[image] == file_of[last]
        )
        if runs and same:
            runs[-1].append(image)
        else:
            runs.append([image])
    if file_of is not None:
        return runs
    sizes = {len(run) for run in runs}
    distinct = len({float(angles_deg[run[0]]) for run in runs}) == len(runs)
    return runs if len(sizes) == 1 and distinct and len(runs) > 1 else [[image] for image in kept]


def _repeats(
    angles_deg: Float64, groups: list[list[int]], repeats: Repeats | None, who: str
) -> tuple[list[list[int]], list[str]]:
    """Join groups of one angle, or refuse them."""
    if repeats == "keep":
        return groups, []
    tolerance = _REPEAT_DEG if repeats in ("sum", "mean") else 0.0
    means = np.array([np.mean(angles_deg[group]) for group in groups])
    ranked = np.argsort(means, kind="stable")
    steps = np.diff(means[ranked])
    if tolerance and steps.size and np.median(steps[steps > 0] if (steps > 0).any() else steps) < 4 * tolerance:
        tolerance = 0.0  # the step of the series is as small
    joined: list[list[int]] = []
    for place, number in enumerate(ranked):
        if place and means[number] - means[ranked[place - 1]] <= tolerance:
            joined[-1] += groups[number]
        else:
            joined.append(list(groups[number]))
    several = [sorted(group) for group, number in zip(joined, range(len(joined)), strict=True)]
    repeated = [group for group in several if len(group) > 1 and group not in groups]
    if not repeated:
        return several, []
    if repeats in (None, "refuse"):
        angles = ", ".join(
            f"{angles_deg[group[0]]:g}° (images {', '.join(str(k + 1) for k in group)})" for group in repeated[:5]
        )
        refuse(
            who,
            needs="every angle once",
            got=f"{angles}{' and more' if len(repeated) > 5 else ''} more than once",
            remedy="`repeats=sum`, `repeats=mean` or `repeats=keep`; or `exclude` with their numbers",
        )
    done = "averaged" if repeats == "mean" else "summed"
    return several, [f"repeats: {len(repeated)} angles with several images, {done}"]


def _apart(found: list[Projection]) -> list[Projection]:
    """Repeats that are kept get angles that differ by a thousandth of a degree."""
    result: list[Projection] = []
    for one in found:
        angle = one.angle_deg
        while result and angle <= result[-1].angle_deg:
            angle = round(result[-1].angle_deg + _APART_DEG, 6)
        result.append(Projection(angle, one.images, one.order, one.together))
    return result


def _nearest(found: list[Projection], wanted_deg: Float64, who: str) -> list[Projection]:
    angles = np.array([one.angle_deg for one in found])
    kept = np.unique(np.abs(angles[:, None] - wanted_deg).argmin(axis=0))
    if kept.size < 2:
        refuse(
            who,
            needs="at least 2 projections near the angles to keep",
            got=f"one, at {angles[kept][0]:g}°",
            remedy="other `keep_deg`, or leave it out to keep all",
            command="a wider --keep START:STOP:STEP, or leave it out to keep all",
        )
    return [found[place] for place in kept]
