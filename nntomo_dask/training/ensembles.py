"""Several networks from different seeds, trained side by side."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import xarray as xr
from dask.base import compute
from dask.delayed import delayed

from nntomo_dask import aside
from nntomo_dask.errors import refuse


def train_ensemble(
    train: Callable[..., Any],
    training: xr.Dataset,
    validation: xr.Dataset,
    *,
    members: int,
    seed: int = 0,
    checkpoints: Sequence[str | os.PathLike[str]] | None = None,
    **options: Any,
) -> list[Any]:
    """Train networks from seeds `seed`, `seed + 1`, …: one task of Dask each, wherever it computes now.

    Where the members of an ensemble agree they may still be wrong together; where they differ, see
    ``statistic="spread"`` of `msdnet` and `nnfbp`, the set did not teach them what to say. That is a fraction of their
    error: docs/theory.md, and `volume_and_spread`.

    Parameters
    ----------
    train
        `train_msdnet` or `train_nnfbp`, or a function of your own with the arguments `seed`, `checkpoint`, `progress`.
    training, validation
        What `train` takes; every member sees the same.
    members
        How many, at least 1.
    checkpoints
        A file a member, so that what was interrupted goes on.
    options
        Of `train`.

    Returns
    -------
    The networks, in the order of their seeds: each the one that `train` alone gives for that seed.

    Raises
    ------
    SchemaError
        Fewer than one member, or not as many checkpoints; and whatever `train` refuses.
    """
    if members < 1:
        refuse("train_ensemble", needs="at least 1 member", got=f"{members}", remedy="`members=4`")
    paths: Sequence[Any] = [None] * members if checkpoints is None else checkpoints
    if len(paths) != members:
        refuse("train_ensemble", needs=f"{members} checkpoints", got=f"{len(paths)}", remedy="give one for each member")
    if checkpoints is not None and len({aside.resolved(path) for path in paths}) < members:
        refuse("train_ensemble", needs="a checkpoint of its own for each member", got="one twice", remedy="name them")
    tasks = [
        delayed(
            functools.partial(train, training, validation, seed=seed + k, checkpoint=path, progress="none", **options),
            pure=False,
        )()
        for k, path in enumerate(paths)
    ]
    return list(compute(*tasks))
