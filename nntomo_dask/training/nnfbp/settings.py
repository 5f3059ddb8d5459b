"""How an NN-FBP network is fitted to its samples."""

from dataclasses import dataclass
from typing import Literal

from nntomo_dask.kernels.backproject import Activation
from nntomo_dask.settings import setting

Solver = Literal["lm", "adam"]

MAX_EPOCHS: dict[Solver, int] = {"lm": 500, "adam": 10_000}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Settings of `train_nnfbp`."""

    hidden_nodes: int = setting(
        8,
        option="hidden",
        least=1,
        help="The number of hidden nodes, that is of learned filters; more than 8 gain little.",
    )
    activation: Activation = setting("relu", help="The activation function of the hidden nodes.")
    solver: Solver = setting(
        "lm",
        help="The solver: Levenberg–Marquardt (lm) over the whole set, which takes dozens of epochs, or Adam (adam) "
        "over mini-batches, which takes thousands and holds the set in memory.",
    )
    patience: int = setting(
        25, least=1, help="The training ends after so many epochs without a better validation loss."
    )
    batch_size: int = setting(32, least=1, help="The number of samples in a step of Adam.")
    learning_rate: float = setting(1e-4, above=0, help="The learning rate of Adam.")
