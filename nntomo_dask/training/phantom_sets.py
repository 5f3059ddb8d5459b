"""Phantoms that networks are trained on, by name."""

from collections.abc import Callable
from dataclasses import dataclass

import xarray as xr

from nntomo_dask.errors import refuse
from nntomo_dask.phantoms import volumes


@dataclass(frozen=True)
class TrainingPhantom:
    """A phantom as training sets use it.

    Attributes
    ----------
    make
        Gives a volume from its shape and a `seed`.
    slices_of_a_scene
        How many of its slices lie in one specimen; None: all.
    """

    make: Callable[..., xr.DataArray]
    slices_of_a_scene: int | None


BODIES, ELLIPSES = "bodies", "ellipses"  # the defaults of MS-D Net and of NN-FBP
PHANTOMS = {
    ELLIPSES: TrainingPhantom(volumes.training_stack, 1),
    BODIES: TrainingPhantom(volumes.body_stack, volumes.SCENE),
    "mixed": TrainingPhantom(volumes.mixed_stack, 1),
    "spheres": TrainingPhantom(volumes.random_spheres, None),
}


def choose(name: str, *, who: str) -> TrainingPhantom:
    """The phantom of that name; a SchemaError that lists them where there is none."""
    if name not in PHANTOMS:
        refuse(who, needs=f"a phantom: {', '.join(PHANTOMS)}", got=f"{name!r}", remedy="choose one of them")
    return PHANTOMS[name]


# Why a phantom's settings play no part.
OWN_PAIRS = "pairs of series and volume are given instead of a phantom"
