"""What methods with networks ask of the members of an ensemble, and of what these say."""

from collections.abc import Sequence
from typing import Any, NoReturn, get_args

from nntomo_dask.arrays import finite
from nntomo_dask.errors import refuse
from nntomo_dask.kernels.network_tiles import Statistic
from nntomo_dask.networks.network import Network, instead_of


def check(who: str, networks: Sequence[Any], kind: type[Any], statistic: str) -> None:
    """Raise a SchemaError where members are none or of another kind, or too few for what is asked of them."""
    for member in networks:
        if not isinstance(member, kind):
            got, remedy = type(member).__name__, instead_of(member, "reconstruct(series, network)")
            refuse(who, needs=f"networks from train_{who}", got=got, remedy=remedy)
    if not networks:
        refuse(who, needs="a network or several", got="none", remedy=f"{who}(series, load_network(path))")
    if statistic not in get_args(Statistic):
        refuse(who, needs='statistic "mean" or "spread"', got=f"{statistic!r}", remedy='`statistic="mean"`')
    if statistic == "spread" and len(networks) == 1:
        refuse(who, needs="two networks or more for a spread", got="one", remedy="train others with other seeds")


def check_outputs(who: str, values: Any, networks: Sequence[Network]) -> None:
    """Raise a SchemaError where what networks say is not finite; the series was."""
    if not finite.is_finite(values):
        refuse_outputs(who, networks)


def refuse_outputs(who: str, networks: Sequence[Network]) -> NoReturn:
    """Raise a SchemaError: with one of these networks numbers get too large."""
    told = "; ".join(f"{one.describe()}, digest {one.digest}" for one in networks)
    refuse(
        who,
        needs="a network that gives finite values in single precision",
        got=f"values beyond that from {told or 'its network'}",
        remedy="another network; or train it again, nntomo train --for SERIES",
    )
