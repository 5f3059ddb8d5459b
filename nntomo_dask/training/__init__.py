"""From pairs of a tilt series and a volume to a trained network.

Every network is trained by one skeleton (`loop`), keeps one kind of checkpoint (`checkpoints`), and is declared by a
`Training` (`declaration`), whose fields are the options of ``nntomo train``. A folder for each network holds the rest:
its training sets, its solvers, and its public functions.
"""

from typing import TYPE_CHECKING, Any

from nntomo_dask.registry import Registry

if TYPE_CHECKING:
    from nntomo_dask.training.declaration import Training

TRAININGS: "Registry[type[Training[Any]]]" = Registry(
    "network", package=__name__, modules=("nnfbp", "msdnet", "unrolled"), group="nntomo_dask.trainings"
)
