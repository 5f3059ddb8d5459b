"""How far a volume is from a reference, computed block by block.

Sums are made for each slice and added in the order of the slices, so a metric does not depend on chunks. To add one,
write its module here and put the module's name, which is the metric's, into `METRICS` below.
"""

from typing import TYPE_CHECKING

from nntomo_dask.registry import Registry

if TYPE_CHECKING:
    from nntomo_dask.metrics.metric import Metric

METRICS: "Registry[type[Metric]]" = Registry(
    "metric",
    package=__name__,
    modules=("mse", "relative_error", "psnr", "ssim", "fsc", "dice"),
    group="nntomo_dask.metrics",
)
