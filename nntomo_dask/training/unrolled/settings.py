"""How an unrolled iteration is fitted to its scenes."""

from dataclasses import dataclass

from nntomo_dask.settings import setting
from nntomo_dask.training.where import Device, Precision

EPOCHS = 40


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Settings of `train_unrolled`."""

    steps: int = setting(
        1, least=1, most=4, help="The number of networks, one behind the other, each of which sees the projections."
    )
    neighbours: int = setting(
        2,
        least=0,
        most=4,
        help="The number of neighbouring slices on either side that each step sees; times the steps at most 4.",
    )
    width: int = setting(16, least=1, most=256, help="The number of maps of a network on its highest level.")
    epoch_scenes: int = setting(256, least=1, help="The number of new scenes in an epoch, of 24 slices each.")
    batch_size: int = setting(2, least=1, help="The number of scenes in a step of Adam.")
    learning_rate: float = setting(1e-3, above=0, help="The learning rate of Adam, which falls to zero at the end.")
    device: Device = setting("auto", option=None, help="Where PyTorch computes; auto takes a GPU where it finds one.")
    precision: Precision = setting(
        "float32", option=None, help="The precision of the maps on a GPU; bfloat16 is faster there."
    )
