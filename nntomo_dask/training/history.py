"""What a training has reached, in one file: to go on from, and to look at afterwards."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nntomo_dask.networks import files, nnfbp
from nntomo_dask.training.checkpoints import is_better

Float64 = npt.NDArray[np.float64]

FORMAT = "nntomo_dask.nnfbp_training"


class History:
    """Losses and parameters of every epoch, and the solver's state after the last."""

    def __init__(self, frame: nnfbp.NNFBPNetwork, digest: str) -> None:
        """Begin with a network that has everything but its weights, and the digest of the samples."""
        self.frame = frame
        self.digest = digest
        self.state: dict[str, Any] = {}
        self.parameters: list[Float64] = []
        self.losses: list[tuple[float, float]] = []  # training and validation, mean square errors
        self.seconds: list[float] = []  # of training until the end of each epoch, interruptions not counted
        self.ended = False
        self._best = -1

    def add(self, parameters: Float64, loss: float, validation_loss: float, seconds: float) -> None:
        """Take up an epoch."""
        self.seconds.append(seconds)
        self.parameters.append(np.array(parameters, np.float64))
        self.losses.append((loss, validation_loss))
        if self._best < 0 or is_better(validation_loss, self.losses[self._best][1]):
            self._best = len(self.losses) - 1

    @property
    def epochs_without_gain(self) -> int:
        """Epochs since the best one."""
        return len(self.losses) - 1 - self._best

    def best_network(self) -> nnfbp.NNFBPNetwork:
        """The network of the least validation loss."""
        return self.network(self._best)

    def network(self, epoch: int) -> nnfbp.NNFBPNetwork:
        """The network after an epoch, counted from 0."""
        n_inputs = self.frame.input_low.size
        weights, bias, output_weights, output_bias = nnfbp.unpack(self.parameters[epoch], n_inputs, self.frame.n_hidden)
        loss, validation_loss = self.losses[epoch]
        outcome = {"epoch": epoch + 1, "training_loss": loss, "validation_loss": validation_loss}
        return dataclasses.replace(
            self.frame,
            hidden_weights=weights,
            hidden_bias=bias,
            output_weights=output_weights,
            output_bias=output_bias,
            recipe=self.frame.recipe | {"outcome": outcome},
        )

    def save(self, path: Path) -> None:
        """Write the file, at once or not at all."""
        tensors, metadata = self.frame.to_file()
        tensors |= {f"state.{name}": np.asarray(value) for name, value in self.state.items()}
        tensors["history.parameters"] = np.stack(self.parameters) if self.parameters else np.zeros((0, 0))
        tensors["history.losses"] = np.array(self.losses, np.float64).reshape(-1, 2)
        tensors["history.seconds"] = np.array(self.seconds, np.float64)
        files.write_tensors(
            tensors, metadata | {"format": FORMAT, "ended": str(self.ended), "digest": self.digest}, path
        )

    @classmethod
    def load(cls, path: Path) -> "History":
        """Read the file; a SchemaError where it is damaged or something else."""
        tensors, metadata = files.read_tensors(path, FORMAT, who="train")
        history = cls(nnfbp.NNFBPNetwork.from_file(tensors, metadata), metadata["digest"])
        prefix = "state."
        history.state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        epochs = (tensors[f"history.{name}"] for name in ("parameters", "losses", "seconds"))
        for parameters, losses, seconds in zip(*epochs, strict=True):
            history.add(parameters, float(losses[0]), float(losses[1]), float(seconds))
        history.ended = metadata["ended"] == "True"
        return history


def intermediate_networks(checkpoint: str | os.PathLike[str]) -> list[nnfbp.NNFBPNetwork]:
    """The networks after every epoch of a training, from its checkpoint.

    Returns
    -------
    One network an epoch, in order; ``recipe["outcome"]`` of each holds its losses.

    Raises
    ------
    SchemaError
        The file is no checkpoint.
    """
    history = History.load(Path(checkpoint))
    return [history.network(epoch) for epoch in range(len(history.losses))]
