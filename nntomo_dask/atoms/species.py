"""Which element an atom is, by how much it adds up to: heavier elements are brighter."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nntomo_dask.atoms import elements
from nntomo_dask.atoms.finding import Scale
from nntomo_dask.errors import refuse
from nntomo_dask.types import Float64, Integers

Species = str | Sequence[str] | Mapping[str, int]

_BINS = 1024  # of the values that are divided


def integrated(heights: Float64, widths: Float64) -> Float64:
    """What Gaussians add up to, (2π)^(3/2) height width³."""
    return np.asarray((2 * np.pi) ** 1.5 * heights * widths**3)


def checked(species: Species, boundaries: Sequence[float] | None, *, who: str) -> dict[str, int | None]:
    """Symbols with their numbers of atoms, None where these are not given; the heaviest element first.

    Raises
    ------
    SchemaError
        A symbol is of no element, a number is none of atoms, or boundaries do not fit.
    """
    names = [species] if isinstance(species, str) else list(species)
    symbols = elements.symbols(names, who=who)
    if not symbols:
        refuse(who, needs="at least one element", got="none", remedy='`species=("Zr", "O")`, or leave it out')
    counts: list[Any] = list(species.values()) if isinstance(species, Mapping) else [None] * len(symbols)
    for symbol, count in zip(symbols, counts, strict=True):
        is_number = isinstance(count, int | np.integer) and not isinstance(count, bool)
        if isinstance(species, Mapping) and not (is_number and count > 0):
            refuse(who, needs="a number of atoms of each element", got=f"{symbol}: {count!r}", remedy='{"Zr": 24}')
    if boundaries is not None:
        if isinstance(species, Mapping):
            refuse(who, needs="numbers of atoms or `boundaries`", got="both", remedy="leave one of them out")
        if len(boundaries) != len(symbols) - 1 or not np.isfinite(boundaries).all():
            got = f"{len(boundaries)} for {len(symbols)} elements"
            refuse(who, needs="one of `boundaries` between two elements", got=got, remedy="one less than elements")
    pairs = sorted(zip(symbols, counts, strict=True), key=lambda one: -elements.NUMBERS[one[0]])
    return dict(pairs)


def assigned(
    amounts: Float64, wanted: Mapping[str, int | None], *, boundaries: Sequence[float] | None, scale: Scale, who: str
) -> list[str]:
    """The symbol of each atom.

    Parameters
    ----------
    amounts
        (atom,): what each adds up to, above zero.
    wanted
        From `checked`.
    """
    symbols = list(wanted)
    if boundaries is not None:
        classes = len(symbols) - 1 - np.searchsorted(np.sort(boundaries), amounts, side="right")
    elif None not in wanted.values():
        counts = [int(count) for count in wanted.values() if count is not None]
        classes = np.empty(len(amounts), np.int64)
        classes[np.argsort(-amounts, kind="stable")] = np.repeat(np.arange(len(counts)), counts)
    else:
        distinct = len(np.unique(amounts))
        if distinct < len(symbols):
            got = f"{distinct}"
            refuse(who, needs=f"at least {len(symbols)} atoms that differ", got=got, remedy="fewer elements")
        values = np.log(amounts) if scale == "log" else amounts
        classes = len(symbols) - 1 - divided(values, len(symbols))
    return [symbols[one] for one in classes]


def divided(values: Float64, parts: int) -> Integers:
    """Class of each value, 0 for the least: the division with the least sum of squared distances from the means.

    k-means in one dimension, solved exactly by dynamic programming over bins of equal width [1]_.

    References
    ----------
    .. [1] H. Wang and M. Song, Ckmeans.1d.dp: Optimal k-means Clustering in One Dimension by Dynamic Programming, The R
       Journal 3/2 (2011) 29.
    """
    unique, inverse = np.unique(values, return_inverse=True)
    if len(unique) > _BINS:
        edges = np.linspace(unique[0], unique[-1], _BINS + 1)
        inverse = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, _BINS - 1)
        filled, inverse = np.unique(inverse, return_inverse=True)
        centres = np.array([values[inverse == place].mean() for place in range(len(filled))])
    else:
        centres = unique
    weights = np.bincount(inverse).astype(np.float64)
    centred = centres - np.average(centres, weights=weights)
    sums = [np.concatenate([[0.0], np.cumsum(weights * centred**power)]) for power in range(3)]
    count = len(centres)
    begin, end = np.meshgrid(np.arange(count), np.arange(1, count + 1), indexing="ij")
    number, first, second = (one[end] - one[begin] for one in sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.where(end > begin, second - first**2 / number, np.inf)  # of the bins begin … end - 1
    best = spread[0].copy()  # by end - 1
    splits = []
    for _ in range(parts - 1):
        # With one class more: bins up to k - 1 as before, and k … end - 1 in the new one.
        total = np.full((count, count), np.inf)
        total[1:] = best[:-1, None] + spread[1:]
        splits.append(total.argmin(axis=0))
        best = total.min(axis=0)
    classes, last = np.zeros(count, np.int64), count
    for part in range(parts - 1, 0, -1):
        first_bin = int(splits[part - 1][last - 1])
        classes[first_bin:last] = part
        last = first_bin
    return classes[inverse]
