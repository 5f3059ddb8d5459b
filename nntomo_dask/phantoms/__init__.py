"""Volumes that are known: to train networks on, and to test reconstructions with.

To add one, write its module here and put the module's name, which is the phantom's, into `PHANTOMS` below.
"""

from typing import TYPE_CHECKING

from nntomo_dask.registry import Registry

if TYPE_CHECKING:
    from nntomo_dask.phantoms.phantom import Phantom

PHANTOMS: "Registry[type[Phantom]]" = Registry(
    "phantom",
    package=__name__,
    modules=("particle", "ellipses", "bodies", "mixed", "spheres", "coreshell", "materials", "atomic"),
    group="nntomo_dask.phantoms",
)
