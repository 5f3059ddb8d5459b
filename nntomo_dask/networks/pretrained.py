"""Networks that come with the package: a first volume by a network needs no training."""

import functools
from importlib import resources
from pathlib import Path
from typing import Literal, cast, get_args

from nntomo_dask.errors import refuse
from nntomo_dask.networks.files import load_network
from nntomo_dask.networks.unrolled import UnrolledNetwork

Pretrained = Literal["general", "general-small", "measured"]


def pretrained_network(name: Pretrained = "general") -> UnrolledNetwork:
    """A network for the method "unrolled" that learned from the phantom `materials` with any angles and noise.

    ``pipelines/pretrain.py`` made it, from an earlier draft of that phantom; it makes others like it. docs/theory.md
    has a table of how well it does.

    Parameters
    ----------
    name
        "general": 32 maps on the highest level. "general-small": 16, which takes a third of the time. "measured": as
        small; it went on learning from unsharp specimens and flawed projections, and is better where these are.

    Raises
    ------
    SchemaError
        There is no such network.
    """
    if name not in get_args(Pretrained):
        *others, last = map(repr, get_args(Pretrained))
        known = f"{', '.join(others)} or {last}"
        refuse("pretrained_network", needs=known, got=f"{name!r}", remedy='`name="general"`')
    return _loaded(name)


@functools.cache
def _loaded(name: str) -> UnrolledNetwork:
    with resources.as_file(resources.files(__package__) / f"{name}.safetensors") as path:
        return cast("UnrolledNetwork", load_network(Path(path)))
