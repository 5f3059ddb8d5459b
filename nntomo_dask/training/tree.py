"""Sums over all voxels that come out the same, bit for bit, however the set is cut and whoever adds.

A set is cut into leaves of 8192 voxels, counted from its first. Values of leaves are joined in pairs, those in pairs,
and so on: leaf 0 with 1, 2 with 3, (0, 1) with (2, 3); what has no partner waits for the end. Which values meet depends
on their places alone, so threads and chunks may work in any order.

A run of leaves is a list of nodes (first leaf, leaves, value), each as large as the tree allows.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from nntomo_dask.compute.chunking import JACOBIAN_VOXELS

Value = TypeVar("Value")
Node = tuple[int, int, Value]
Join = Callable[[Value, Value], Value]


def leaves_of(voxels: int) -> int:
    """How many leaves so many voxels have; the last may be smaller."""
    return -(-voxels // JACOBIAN_VOXELS)


def voxels_of(leaf: int) -> slice:
    """The voxels of a leaf."""
    return slice(leaf * JACOBIAN_VOXELS, (leaf + 1) * JACOBIAN_VOXELS)


def run(nodes: Iterable[Node[Value]], join: Join[Value]) -> list[Node[Value]]:
    """Nodes of adjacent leaves, in order, joined as far as the tree allows; never more than two a level."""
    joined: list[Node[Value]] = []
    for node in nodes:
        first, leaves, value = node
        while joined and joined[-1][1] == leaves and joined[-1][0] % (2 * leaves) == 0:
            first, _, left = joined.pop()
            leaves, value = 2 * leaves, join(left, value)
        joined.append((first, leaves, value))
    return joined


def root(nodes: Iterable[Node[Value]], join: Join[Value]) -> Value:
    """The value of all leaves; the smaller nodes at the end join first."""
    *others, (_, _, value) = run(nodes, join)
    for _, _, left in reversed(others):
        value = join(left, value)
    return value


def add(left: tuple[Any, ...], right: tuple[Any, ...]) -> tuple[Any, ...]:
    """Join by adding, element by element."""
    return tuple(np.add(one, other) for one, other in zip(left, right, strict=True))
