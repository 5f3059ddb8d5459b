"""Sums over all voxels with the same bits for any chunks of the set and any number of workers.

A set is cut into leaves of 8192 voxels, counted from its first. The values of the leaves are joined in pairs, the
results in pairs, and so on: leaf 0 with 1, 2 with 3, (0, 1) with (2, 3); a value without a partner waits for the end.
The places of the leaves alone determine which values are joined, so threads and chunks may work in any order.

A run of leaves is a list of nodes (first leaf, leaves, value), each as large as the tree allows.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

LEAF_VOXELS = 8192  # of which Levenberg–Marquardt holds the derivatives at once

Value = TypeVar("Value")
Node = tuple[int, int, Value]
Join = Callable[[Value, Value], Value]


def leaves_of(voxels: int) -> int:
    """How many leaves so many voxels have; the last may be smaller."""
    return -(-voxels // LEAF_VOXELS)


def voxels_of(leaf: int) -> slice:
    """The voxels of a leaf."""
    return slice(leaf * LEAF_VOXELS, (leaf + 1) * LEAF_VOXELS)


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
