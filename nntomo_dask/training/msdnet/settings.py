"""How an MS-D Net is fitted to its slices."""

from dataclasses import dataclass
from typing import Literal

from nntomo_dask.settings import setting
from nntomo_dask.training.where import Device, Precision

Loss = Literal["l2", "l1"]

MAX_EPOCHS = 200


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Settings of `train_msdnet`."""

    depth: int = setting(
        100, least=1, help="The number of layers; time and memory grow with it, the time quadratically."
    )
    loss: Loss = setting(
        "l2", help="The error that is minimised: the mean square (l2) or the mean absolute (l1) error."
    )
    patience: int = setting(
        15, least=1, help="The training ends after so many epochs without a better validation loss."
    )
    batch_size: int = setting(4, least=1, help="The number of slices in a step of Adam.")
    learning_rate: float = setting(1e-3, above=0, help="The learning rate of Adam.")
    device: Device = setting("auto", option=None, help="Where PyTorch computes; auto takes a GPU where it finds one.")
    precision: Precision = setting(
        "float32", option=None, help="The precision in which a GPU holds the maps; bfloat16 takes half the memory."
    )
