"""What a training has reached, in one file: to continue from, and to look at afterwards.

A checkpoint is a .safetensors file: the network without its trained parameters, the losses of every epoch, the
parameters of the epochs that are kept, and the solver's state. Files of version 0.1.0 are read too.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from nntomo_dask.arrays import recipes
from nntomo_dask.errors import refuse
from nntomo_dask.networks import files
from nntomo_dask.networks.network import Network
from nntomo_dask.networks.nnfbp import NNFBPNetwork
from nntomo_dask.training import TRAININGS

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
AnyNetwork = TypeVar("AnyNetwork", bound=Network)

# A validation loss must fall by this share of itself to count as better; a smaller change is rounding or chance.
_MARGIN = 1e-4
_STATE = "state."  # prefix of the names of the solver's arrays


@dataclass(frozen=True)
class Kind(Generic[AnyNetwork]):
    """What checkpoints need to know of a kind of network.

    Attributes
    ----------
    network
        Its class.
    title
        What users call it: "MS-D Net".
    with_parameters
        Gives a network from one that has everything but its parameters, the vector of parameters, and the recipe.
    keep
        Which parameters a checkpoint keeps: those of every epoch, or those of the best epoch.
    """

    network: type[AnyNetwork]
    title: str
    with_parameters: Callable[[AnyNetwork, Array, recipes.Recipe], AnyNetwork]
    keep: Literal["every", "best"]

    @property
    def format(self) -> str:
        """Name of the kind of file."""
        return f"{self.network.FORMAT}_training"


class Checkpoint(Generic[AnyNetwork]):
    """Losses of every epoch, the kept parameters, and the solver's state.

    Attributes
    ----------
    frame
        The network without its trained parameters; its recipe is that of the training.
    digest
        Of the training and validation data; empty where the frame tells them apart.
    state
        Arrays from which the solver continues; empty before the first step.
    losses
        Training and validation loss of each epoch.
    seconds
        Training time until the end of each epoch, without interruptions.
    parameters
        By epoch, counted from 0.
    best
        The best epoch; -1 before the end of the first one.
    ended
        Whether the training is complete.
    """

    def __init__(self, kind: Kind[AnyNetwork], frame: AnyNetwork, *, digest: str = "") -> None:
        self.kind, self.frame, self.digest = kind, frame, digest
        self.state: Arrays = {}
        self.losses: list[tuple[float, float]] = []
        self.seconds: list[float] = []
        self.parameters: dict[int, Array] = {}
        self.best = -1
        self.ended = False

    def add(self, parameters: Array, loss: float, validation_loss: float, seconds: float) -> None:
        """Record the end of an epoch."""
        is_best = self._add_losses(loss, validation_loss, seconds)
        if self.kind.keep == "every":
            self.parameters[len(self.losses) - 1] = np.array(parameters)
        elif is_best:
            self.parameters = {self.best: np.array(parameters)}

    def _add_losses(self, loss: float, validation_loss: float, seconds: float) -> bool:
        """Record losses; whether this epoch is the best so far."""
        self.losses.append((loss, validation_loss))
        self.seconds.append(seconds)
        if self.best >= 0 and not is_better(validation_loss, self.losses[self.best][1]):
            return False
        self.best = len(self.losses) - 1
        return True

    @property
    def epochs_without_gain(self) -> int:
        """Epochs since the best one."""
        return len(self.losses) - 1 - self.best

    def network(self, epoch: int) -> AnyNetwork:
        """The network after an epoch whose parameters are kept, counted from 0."""
        loss, validation_loss = self.losses[epoch]
        outcome = {"epoch": epoch + 1, "training_loss": loss, "validation_loss": validation_loss}
        recipe = self.frame.recipe | {"outcome": outcome}
        return self.kind.with_parameters(self.frame, self.parameters[epoch], recipe)

    def best_network(self) -> AnyNetwork:
        """The network with the least validation loss."""
        return self.network(self.best)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        tensors, metadata = self.frame.to_file()
        tensors |= {f"{_STATE}{name}": np.asarray(value) for name, value in self.state.items()}
        kept = list(self.parameters.values())
        tensors["history.parameters"] = np.stack(kept) if kept else np.zeros((0, 0))
        tensors["history.epochs"] = np.array(list(self.parameters), np.int64)
        tensors["history.losses"] = np.array(self.losses, np.float64).reshape(-1, 2)
        tensors["history.seconds"] = np.array(self.seconds, np.float64)
        texts = {"format": self.kind.format, "ended": str(self.ended), "digest": self.digest}
        files.write_tensors(tensors, metadata | texts, path)

    @classmethod
    def load(cls, path: Path, kind: Kind[AnyNetwork]) -> "Checkpoint[AnyNetwork]":
        """Read the file; a SchemaError where it is damaged, or the checkpoint of another kind of network."""
        tensors, metadata = files.read_tensors(path, kind.format, who="train")
        return files.built(lambda: cls._from_file(tensors, metadata, kind), path, who="train")

    @classmethod
    def _from_file(cls, tensors: Arrays, metadata: dict[str, str], kind: Kind[AnyNetwork]) -> "Checkpoint[AnyNetwork]":
        """Inverse of `save`; an error of some kind where the contents are not what it writes."""
        if "state.losses" in tensors:
            tensors, metadata = _from_best_only(tensors, metadata)
        reached = cls(kind, kind.network.from_file(tensors, metadata), digest=metadata["digest"])
        reached.state = {name.removeprefix(_STATE): value for name, value in tensors.items() if name.startswith(_STATE)}
        for losses, seconds in zip(tensors["history.losses"], tensors["history.seconds"], strict=True):
            reached._add_losses(float(losses[0]), float(losses[1]), float(seconds))
        kept = tensors["history.parameters"]
        epochs = tensors.get("history.epochs", np.arange(len(kept)))  # version 0.1.0 kept every epoch of NN-FBP
        reached.parameters = {int(epoch): parameters for epoch, parameters in zip(epochs, kept, strict=True)}
        reached.ended = metadata["ended"] == "True"
        if not set(reached.parameters) <= set(range(len(reached.losses))):
            raise ValueError("parameters of epochs that were not trained")
        if reached.losses:
            reached.best_network()  # fails where the parameters are not those of such a network
        return reached


def _from_best_only(tensors: Arrays, metadata: dict[str, str]) -> tuple[Arrays, dict[str, str]]:
    """The file of version 0.1.0 for networks of which only the best epoch is kept, in the layout of today."""
    best_epoch, epoch, batch, total, ended = tensors["state.scalars"].tolist()
    losses = tensors["state.losses"]
    kept = [int(best_epoch)] if best_epoch >= 0 else []
    others = {name: value for name, value in tensors.items() if name not in ("state.losses", "state.best")}
    history = {
        "state.scalars": np.array([epoch, batch, total]),
        "history.losses": losses,
        "history.seconds": np.zeros(len(losses)),
        "history.epochs": np.array(kept, np.int64),
        "history.parameters": tensors["state.best"][None] if kept else np.zeros((0, 0)),
    }
    return others | history, metadata | {"ended": str(bool(ended)), "digest": ""}


def is_better(loss: float, best: float) -> bool:
    """Whether a validation loss counts as better than the best so far."""
    return loss < best * (1 - _MARGIN)


def open_checkpoint(path: Path) -> Checkpoint[Any]:
    """The checkpoint in a file, of whatever kind of network.

    Raises
    ------
    SchemaError
        The file is damaged, or no training of a known network wrote it.
    """
    written = files.kind_of(path)
    kinds = [training.kind for training in TRAININGS.values()]
    for kind in kinds:
        if kind.format == written:
            return Checkpoint.load(path, kind)
    # Refused here, with the reason: the file is missing, damaged, or something else.
    files.read_tensors(path, *(kind.format for kind in kinds), who="train")
    raise AssertionError("unreachable: one of the kinds was written")


def intermediate_networks(checkpoint: str | os.PathLike[str]) -> list[NNFBPNetwork]:
    """The NN-FBP networks after every epoch of a training, from its checkpoint.

    Returns
    -------
    One network an epoch, in order; ``recipe["outcome"]`` of each holds its losses.

    Raises
    ------
    SchemaError
        The file is no checkpoint of `train_nnfbp`.
    """
    (kind,) = (training.kind for training in TRAININGS.values() if training.kind.network is NNFBPNetwork)
    reached = Checkpoint.load(Path(checkpoint), kind)
    return [reached.network(epoch) for epoch in range(len(reached.losses))]


def resume(
    kind: Kind[AnyNetwork], path: Path | None, recipe: recipes.Recipe, *, who: str
) -> Checkpoint[AnyNetwork] | None:
    """What a file holds, None where there is none; a SchemaError where it is the checkpoint of another training."""
    if path is None or not path.exists():
        return None
    reached = Checkpoint.load(path, kind)
    if not recipes.same(reached.frame.recipe, recipe):
        difference = recipes.difference(reached.frame.recipe, recipe)
        refuse_another(who, path, "data and parameters", f"another: {difference}")
    return reached


def refuse_another(who: str, path: Path | None, what: str, got: str) -> NoReturn:
    """Raise a SchemaError: the training in `path` began with something else."""
    refuse(
        who,
        needs=f"the {what} with which the training in {path} began",
        got=got,
        remedy="delete that file, or choose another `checkpoint`",
        command="what it began with, to go on; or another `output`; or `overwrite`, which begins anew",
    )
