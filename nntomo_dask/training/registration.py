"""Networks from outside the package."""

from typing import Any

from nntomo_dask.errors import refuse
from nntomo_dask.networks import NETWORKS
from nntomo_dask.networks.network import Network
from nntomo_dask.reconstruction import METHODS
from nntomo_dask.reconstruction.method import Method
from nntomo_dask.registry import Registry
from nntomo_dask.training import TRAININGS
from nntomo_dask.training.declaration import Training


def register_network(network: type[Network], method: type[Method], training: type[Training[Any]] | None = None) -> None:
    """Make another kind of network known: to `load_network`, `reconstruct`, and the command line.

    docs/add_a_network.md shows one.

    Parameters
    ----------
    network
        A class that fulfils `Network`.
    method
        How a series is reconstructed with it: a `Method` of the same name, with ``network`` set to this class.
    training
        How it is trained by ``nntomo train``: a `Training` of the same name.

    Raises
    ------
    SchemaError
        The two do not belong to each other, or there is a network of that name already.
    """
    if method.network is not network or method.name != network.name:
        refuse(
            "register_network",
            needs="a method with the network's name and class",
            got=f"method {method.name!r} for {getattr(method.network, '__name__', None)}",
            remedy=f"set name = {network.name!r} and network = {network.__name__}",
        )
    things: list[tuple[Registry[Any], Any]] = [(NETWORKS, network), (METHODS, method)]
    if training is not None:
        things.append((TRAININGS, training))
    done: list[Registry[Any]] = []
    try:
        for registry, thing in things:
            registry.register(thing)
            done.append(registry)
    except Exception:  # all of them, or none
        for registry in done:
            registry.unregister(network.name)
        raise
