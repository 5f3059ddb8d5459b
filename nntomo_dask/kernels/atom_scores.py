"""The likelihood of what all atoms share, with its derivatives: in one pass over the counts."""

import math
from typing import Any

import numpy as np

from nntomo_dask.kernels.compiling import njit
from nntomo_dask.types import Float64


def scores(counts: Float64, atoms: Float64, wider: Float64, tails: Float64, read: float, level: float) -> Any:
    """The logarithm of the likelihood of counts, its derivatives, and their information.

    The model is ``read + level + atoms``. The parameters are logarithms: of the height, by which the model changes by
    `atoms`; of the width, by `wider`; of the level; and of the tail, by `tails`.

    Parameters
    ----------
    counts, atoms, wider, tails
        (view, detector, z).

    Returns
    -------
    ``Σ y log m - m``, (4,) ``Σ (y / m - 1) ∂m`` and (4, 4) ``Σ ∂m ∂m / m``.
    """
    gradient, information = np.zeros(4), np.zeros((4, 4))
    logarithm = _scores(counts.ravel(), atoms.ravel(), wider.ravel(), tails.ravel(), read, level, gradient, information)
    return float(logarithm), gradient, information


def scores_reference(counts: Float64, atoms: Float64, wider: Float64, tails: Float64, read: float, level: float) -> Any:
    """Reference implementation of `scores`."""
    model = read + level + atoms
    changes = np.stack([atoms, wider, np.full_like(atoms, level), tails]).reshape(4, -1)
    gradient = changes @ (counts / model - 1).ravel()
    return float((counts * np.log(model) - model).sum()), gradient, (changes / model.ravel()) @ changes.T


@njit(nogil=True, cache=True)
def _scores(
    counts: Any,
    atoms: Any,
    wider: Any,
    tails: Any,
    read: float,
    level: float,
    gradient: Any,
    information: Any,
) -> float:
    logarithm = 0.0
    changes = np.empty(4)
    changes[2] = level
    for pixel in range(counts.size):
        model = read + level + atoms[pixel]
        changes[0], changes[1], changes[3] = atoms[pixel], wider[pixel], tails[pixel]
        logarithm -= model
        ratio = -1.0
        if counts[pixel] > 0:
            logarithm += counts[pixel] * math.log(model)
            ratio += counts[pixel] / model
        for i in range(4):
            gradient[i] += ratio * changes[i]
            for j in range(i + 1):
                information[i, j] += changes[i] * changes[j] / model
    for i in range(4):
        for j in range(i):
            information[j, i] = information[i, j]
    return logarithm
