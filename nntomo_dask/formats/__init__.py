"""Files of microscopes and of other programs: read lazily, written slab by slab.

To add a format, write its module here and put the module's name, which is the format's, into `FORMATS` below.
"""

from typing import TYPE_CHECKING

from nntomo_dask.registry import Registry

if TYPE_CHECKING:
    from nntomo_dask.formats.format import Format

FORMATS: "Registry[type[Format]]" = Registry(
    "format",
    package=__name__,
    modules=("mrc", "dm", "emd", "ser", "hspy", "tiff", "npy", "ome_zarr"),
    group="nntomo_dask.formats",
)
