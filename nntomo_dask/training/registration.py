"""Networks from outside the package."""

from nntomo_dask.errors import refuse
from nntomo_dask.networks import NETWORKS
from nntomo_dask.networks.network import Network
from nntomo_dask.reconstruction import METHODS
from nntomo_dask.reconstruction.method import Method


def register_network(network: type[Network], method: type[Method]) -> None:
    """Make another kind of network known: to `load_network`, `reconstruct`, and the command line.

    docs/add_a_network.md shows one.

    Parameters
    ----------
    network
        A class that fulfils `Network`.
    method
        How a series is reconstructed with it: a `Method` of the same name, with ``network`` set to this class.

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
    NETWORKS.register(network)
    try:
        METHODS.register(method)
    except Exception:
        NETWORKS.unregister(network.name)
        raise
