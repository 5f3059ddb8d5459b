"""From a tilt series to a volume: every method as a declaration of its settings, its memory and its slab function.

To add one, write its module here and put the module's name, which is the method's, into `METHODS` below.
"""

from typing import TYPE_CHECKING

from nntomo_dask.registry import Registry

if TYPE_CHECKING:
    from nntomo_dask.reconstruction.method import Method

METHODS: "Registry[type[Method]]" = Registry(
    "method",
    package=__name__,
    modules=("fbp", "sirt", "cgls", "tv", "dart", "nnfbp", "msdnet", "unrolled"),
    group="nntomo_dask.methods",
)
