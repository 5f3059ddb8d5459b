"""How an NN-FBP network is fitted to its samples."""

from dataclasses import dataclass
from typing import Literal

from nntomo_dask.kernels.network_tiles import Activation, Output
from nntomo_dask.networks.nnfbp import Form
from nntomo_dask.settings import setting

Solver = Literal["annealed", "lm", "adam"]
Nodes = int | Literal["auto"]

MAX_EPOCHS: dict[Solver, int] = {"annealed": 20, "lm": 500, "adam": 10_000}
_NODES: dict[Solver, tuple[int, int]] = {"annealed": (16, 16), "lm": (8, 0), "adam": (8, 0)}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Settings of `train_nnfbp`."""

    hidden_nodes: Nodes = setting(
        "auto",
        option="hidden",
        least=1,
        help="The number of hidden nodes, that is of learned filters: 16 with the solver annealed, 8 with others "
        "(auto).",
    )
    second_nodes: Nodes = setting(
        "auto",
        option="second",
        least=0,
        help="The number of nodes of a second hidden layer, 0 for none: 16 with the solver annealed, none with others "
        "(auto).",
    )
    activation: Activation = setting("relu", help="The activation function of the hidden nodes.")
    output: Output = setting(
        "linear",
        option="output-node",
        help="The output: at least the least value of the training volumes (linear), or between their least and their "
        "greatest value (sigmoid).",
    )
    solver: Solver = setting(
        "annealed",
        help="The solver: Adam whose rate falls to zero over the epochs, every slice counting alike (annealed); "
        "Levenberg–Marquardt over the whole set, which takes dozens of epochs and any number of samples (lm); Adam as "
        "published (adam), which takes thousands. All but lm hold the set in memory.",
    )
    patience: int = setting(
        25, least=1, help="The training ends after so many epochs without a better validation loss."
    )
    batch_size: int = setting(32, least=1, help="The number of samples in a step of the solver adam.")
    learning_rate: float = setting(1e-4, above=0, help="The learning rate of the solver adam.")

    def form(self, n_inputs: int) -> Form:
        """Sizes and functions of the network."""
        given = self.hidden_nodes, self.second_nodes
        hidden, second = (
            usual if isinstance(nodes, str) else int(nodes)
            for nodes, usual in zip(given, _NODES[self.solver], strict=True)
        )
        return Form(n_inputs, hidden, self.activation, second, self.output)
