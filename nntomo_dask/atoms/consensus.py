"""Atoms that samples agree on."""

import numpy as np
from scipy.spatial import cKDTree

from nntomo_dask.errors import refuse
from nntomo_dask.types import Float64, Integers


def consensus(
    taken: list[tuple[Float64, Integers]], kinds: int, radius: float, least: float
) -> tuple[Float64, Integers, Float64, Float64]:
    """Atoms that are in a share of the samples: positions, kinds, shares, and standard deviations (atom, 3).

    Places where most samples have an atom come first. An atom of a sample counts once.
    """
    places = np.concatenate([one for one, _ in taken]).reshape(-1, 3)
    species = np.concatenate([one for _, one in taken])
    sample = np.repeat(np.arange(len(taken)), [len(one) for one, _ in taken])
    left = np.ones(len(places), bool)
    found: list[tuple[Float64, int, float, Float64]] = []
    if len(places):
        tree = cKDTree(places)
        crowd = tree.query_ball_point(places, radius / 2, return_length=True)
        for first in np.argsort(-crowd, kind="stable"):
            if not left[first]:
                continue
            centre, members = places[first], np.array([first])
            for _ in range(5):
                near = np.array(tree.query_ball_point(centre, radius), np.int64)
                near = _one_of_each(near[left[near]], sample, places, centre)
                if near.size == 0:
                    break
                members, centre = near, places[near].mean(axis=0)
            left[members] = False
            share = members.size / len(taken)
            if share >= least:
                votes = np.bincount(species[members], minlength=max(kinds, 1))
                found.append((centre, int(votes.argmax()), share, places[members].std(axis=0)))
    if not found:
        return np.zeros((0, 3)), np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 3))
    centres, chosen, shares, spread = zip(*found, strict=True)
    return np.array(centres), np.array(chosen, np.int64), np.array(shares), np.array(spread)


def refuse_none(who: str, least: float) -> None:
    """Raise a SchemaError about samples that agree on no atom."""
    refuse(
        who,
        needs=f"atoms that are in {100 * least:g} % of the samples",
        got="none: the projections do not tell where atoms are",
        remedy="a lower `agreement`, or the `width` of the atoms",
    )


def _one_of_each(near: Integers, sample: Integers, places: Float64, centre: Float64) -> Integers:
    """Of several atoms of one sample the nearest."""
    order = np.argsort(np.linalg.norm(places[near] - centre, axis=1), kind="stable")
    near = near[order]
    _, first = np.unique(sample[near], return_index=True)
    return np.sort(near[first])
