"""What a training of MS-D Net has reached, in one file: to go on from."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nntomo_dask.networks import files
from nntomo_dask.networks.msdnet import MSDNetwork
from nntomo_dask.training.checkpoints import is_better

Float32 = npt.NDArray[np.float32]

FORMAT = "nntomo_dask.msdnet_training"


@dataclass
class State:
    """All that the next step depends on, and what has been reached."""

    frame: MSDNetwork  # with all but its parameters
    parameters: Float32
    mean: Float32  # of the gradient
    square: Float32  # mean of its square
    average: Float32  # of the parameters over the last steps: what is validated and kept
    best: Float32
    best_epoch: int = -1
    epoch: int = 0
    batch: int = 0  # steps taken in this epoch
    total: float = 0.0  # of the losses of this epoch's slices so far
    losses: list[tuple[float, float]] = field(default_factory=list)  # training and validation, of each epoch
    ended: bool = False

    _ARRAYS: ClassVar[tuple[str, ...]] = ("parameters", "mean", "square", "average", "best")

    def add(self, loss: float, validation_loss: float) -> None:
        """End an epoch."""
        self.losses.append((loss, validation_loss))
        if self.best_epoch < 0 or is_better(validation_loss, self.losses[self.best_epoch][1]):
            self.best_epoch, self.best = len(self.losses) - 1, self.average
        self.epoch, self.batch, self.total = self.epoch + 1, 0, 0.0

    def best_network(self) -> MSDNetwork:
        """The one with the least validation loss."""
        loss, validation_loss = self.losses[self.best_epoch]
        outcome = {"epoch": self.best_epoch + 1, "training_loss": loss, "validation_loss": validation_loss}
        return dataclasses.replace(self.frame, parameters=self.best, recipe=self.frame.recipe | {"outcome": outcome})

    def save(self, path: Path) -> None:
        """Write the file, at once or not at all."""
        tensors, metadata = self.frame.to_file()
        tensors |= {f"state.{name}": getattr(self, name) for name in self._ARRAYS}
        tensors["state.losses"] = np.array(self.losses, np.float64).reshape(-1, 2)
        tensors["state.scalars"] = np.array([self.best_epoch, self.epoch, self.batch, self.total, self.ended], float)
        files.write_tensors(tensors, {**metadata, "format": FORMAT}, path)

    @classmethod
    def load(cls, path: Path) -> "State":
        """Read the file; a SchemaError where it is damaged or something else."""
        tensors, metadata = files.read_tensors(path, FORMAT, who="train_msdnet")
        best_epoch, epoch, batch, total, ended = tensors["state.scalars"].tolist()
        arrays: dict[str, Any] = {name: tensors[f"state.{name}"] for name in cls._ARRAYS}
        return cls(
            MSDNetwork.from_file(tensors, metadata),
            **arrays,
            best_epoch=int(best_epoch),
            epoch=int(epoch),
            batch=int(batch),
            total=total,
            losses=[(float(one), float(other)) for one, other in tensors["state.losses"]],
            ended=bool(ended),
        )
