"""Atoms that samples agree on."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from nntomo_dask.arrays import recipes
from nntomo_dask.atoms import table
from nntomo_dask.errors import refuse
from nntomo_dask.types import Bools, Float64, Integers


class Agreed(NamedTuple):
    """Atoms that are in a share of the samples."""

    places: Float64  # (atom, 3) [nm]
    kinds: Integers
    shares: Float64  # of the samples
    spread: Float64  # (atom, 3): standard deviations [nm]

    def only(self, kept: Bools) -> "Agreed":
        """Some of them."""
        return Agreed(self.places[kept], self.kinds[kept], self.shares[kept], self.spread[kept])


def consensus(taken: list[tuple[Float64, Integers]], kinds: int, radius: float, least: float) -> Agreed:
    """Atoms that are in a share of the samples.

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
        return Agreed(np.zeros((0, 3)), np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 3)))
    centres, chosen, shares, spread = zip(*found, strict=True)
    return Agreed(np.array(centres), np.array(chosen, np.int64), np.array(shares), np.array(spread))


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


def heights_in_volume(heights: Float64, width: float, pixel: float) -> Float64:
    """Heights of Gaussians in a volume whose projections have some heights: of 1 it is √(2π) w, lengths in pixels."""
    return np.asarray(heights * pixel / (math.sqrt(2 * math.pi) * width))


def table_of(
    agreed: Agreed,
    symbols: tuple[str, ...],
    heights: Float64,
    width: float,
    less: Float64,
    *,
    distance: float,
    recipe: recipes.Recipe,
    common: Mapping[str, float] | None = None,
) -> xr.Dataset:
    """The table of `sample_atoms`.

    Parameters
    ----------
    heights
        (atom,), in the volume.
    width, distance
        Of all atoms; the least between two, [nm].
    less
        (atom,): what the logarithm of the likelihood changes by without the atom.
    common
        Further columns with one value for all atoms.
    """
    count = len(agreed.places)
    columns = {name: np.full(count, value) for name, value in ({"width": width} | dict(common or {})).items()}
    columns |= {
        "height": heights,
        "background": np.full(count, np.nan),
        "confidence": np.sqrt(2 * np.maximum(-less, 0)),
        table.AGREEMENT: agreed.shares,
        **dict(zip(table.ERRORS, agreed.spread.T, strict=True)),
    }
    named = np.array([symbols[kind] if symbols else "" for kind in agreed.kinds], np.str_)
    made = table.make(agreed.places, recipe=recipe, species=named, **columns)
    return made.assign_attrs(atom_width=width, minimum_distance=distance)
