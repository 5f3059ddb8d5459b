"""What a network says of its training: its settings, its sets, its memory, and how it is trained.

A training is a frozen dataclass whose fields, made by `settings.setting`, are the options of ``nntomo train`` for that
network. The command and a script use the same object::

    training = NNFBPTraining(hidden_nodes=4)
    sets = training.sets_for(series, seed=0)
    network = training.train(*sets, seed=0)
"""

import abc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, NamedTuple

import xarray as xr

from nntomo_dask.errors import refuse
from nntomo_dask.settings import check_settings, settings_of
from nntomo_dask.training.checkpoints import AnyNetwork, Kind
from nntomo_dask.training.loop import Progress

OWN_PAIRS = "pairs of series and volume are given instead of a phantom"  # why settings of a phantom play no part
Save = Callable[[Any, Path], Any]  # writes a labelled array or a set to a store, and opens it


class Sets(NamedTuple):
    """A training set and a validation set."""

    training: xr.Dataset
    validation: xr.Dataset


class Pairs(NamedTuple):
    """Tilt series, and the volume that each of them should reconstruct to."""

    series: Sequence[xr.DataArray]
    volumes: Sequence[xr.DataArray]


@dataclass(frozen=True, kw_only=True)
class Training(abc.ABC, Generic[AnyNetwork]):
    """How a kind of network is trained.

    Attributes
    ----------
    name
        Of the network on the command line: ``--network NAME``.
    summary
        One sentence for the help of ``--network``.
    kind
        Of the networks, for their checkpoints.
    holds
        What a set holds, in the plural: "training voxels".
    reads
        "whole": its sets are in memory, or in stores that `keep` writes, when a training begins. "blocks": it reads of
        them what it needs, when it needs it.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    kind: ClassVar[Kind[Any]]
    holds: ClassVar[str]
    reads: ClassVar[Literal["whole", "blocks"]] = "whole"

    def check(self) -> None:
        """Raise a SchemaError where a setting is out of range, or settings contradict each other."""
        check_settings(self, who="train")

    def unused(self, *, own_pairs: bool) -> dict[str, str]:
        """Settings that play no part, each with the reason; the command refuses them where they are given.

        Parameters
        ----------
        own_pairs
            Whether the network is trained on pairs of series and volume, and not for one series.
        """
        return {}

    def notes(self, series: xr.DataArray | None, *, validation: bool) -> list[str]:
        """What a user should know before the sets are made.

        Parameters
        ----------
        series
            The series that the network is trained for; None where pairs are given.
        validation
            Whether pairs for validation are given.
        """
        return []

    @property
    @abc.abstractmethod
    def default_epochs(self) -> int:
        """The largest number of epochs, where none is given."""

    @abc.abstractmethod
    def sets_for(self, series: xr.DataArray, *, seed: int) -> Sets:
        """Training and validation set for one series, lazy: made from phantoms, or from the series itself."""

    @abc.abstractmethod
    def sets_of(self, training: Pairs, validation: Pairs | None, *, seed: int) -> Sets:
        """Training and validation set from pairs of series and volume, lazy."""

    def sets_with(self, series: xr.DataArray, training: Pairs, validation: Pairs | None, *, seed: int) -> Sets:
        """Training and validation set for one series, with pairs among the phantoms; most networks take either."""
        needs = f"a series (`target`) or pairs of series and volume, for the network {self.name}"
        refuse("train", needs=needs, got="both", remedy="leave one of them out")

    def told(self, sets: Sets) -> list[str]:
        """What was found while the sets were made, for the user."""
        return []

    @abc.abstractmethod
    def host_bytes(self, sets: Sets, *, workers: int, processes: int, members: int = 1) -> int:
        """Bytes of memory at the peak of making the sets and training on them.

        Parameters
        ----------
        workers
            Slabs in work at once.
        processes
            Worker processes beside this one; 0 where its own threads work.
        members
            Networks that are trained side by side.
        """

    @abc.abstractmethod
    def described(self, sets: Sets) -> str:
        """What takes the memory, for an error: "100 layers of slices of 512 pixels"."""

    @abc.abstractmethod
    def folder(self, output: Path, sets: Sets) -> Path | None:
        """Where the sets are stored beside the network in `output`; None where they are held in memory."""

    @abc.abstractmethod
    def keep(self, sets: Sets, folder: Path, *, save: Save) -> Sets:
        """The same sets, read from stores in `folder`, which `save` writes."""

    @abc.abstractmethod
    def fitter(self) -> Callable[..., AnyNetwork]:
        """The function that `train` calls, with this object before its own arguments."""

    def train(
        self,
        training: xr.Dataset,
        validation: xr.Dataset,
        *,
        seed: int = 0,
        max_epochs: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: Progress = "bar",
    ) -> AnyNetwork:
        """Train a network; `max_epochs` is `default_epochs` where it is None."""
        return self.fitter()(
            self,
            training,
            validation,
            seed=seed,
            max_epochs=self.default_epochs if max_epochs is None else max_epochs,
            checkpoint=checkpoint,
            progress=progress,
        )

    def recorded(self) -> dict[str, Any]:
        """The settings as recipes of networks have them."""
        return {one.name: getattr(self, one.name) for one in settings_of(self)}

    @abc.abstractmethod
    def measure(self, network: AnyNetwork) -> str:
        """What the losses of a network are: "mean square errors of voxels in [0, 1]"."""

    def describe_outcome(self, network: AnyNetwork) -> str:
        """What the training reached, in one line."""
        outcome = network.recipe["outcome"]
        return (
            f"best epoch {outcome['epoch']}, training loss {outcome['training_loss']:.6f}, "
            f"validation loss {outcome['validation_loss']:.6f} ({self.measure(network)})"
        )
