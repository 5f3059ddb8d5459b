"""Networks as data: what a file holds and what a reconstruction needs. How they are trained is `training`'s matter."""

from typing import TYPE_CHECKING

from nntomo_dask.registry import Registry

if TYPE_CHECKING:
    from nntomo_dask.networks.network import Network

NETWORKS: "Registry[type[Network]]" = Registry(
    "network",
    package=__name__,
    modules=("nnfbp", "msdnet", "unrolled"),
    group="nntomo_dask.networks",
)
