"""The skeleton of every training: a solver's steps, validation, early stopping, checkpoints, a progress bar."""

import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from nntomo_dask.compute import progress as progress_room
from nntomo_dask.training.checkpoints import AnyNetwork, Array, Arrays, Checkpoint

Progress = Literal["bar", "none"]
State = TypeVar("State")

CHECKPOINT_SECONDS = 20.0  # between two checkpoints; a crash loses at most 30 s, since a step takes time too


class Solver(Protocol[State]):
    """A way to lower the training loss, bound to its training and validation sets."""

    def start(self) -> State:
        """The state before the first step."""
        ...

    def resume(self, arrays: Arrays) -> State:
        """The state that `arrays` gave: from it the solver takes the same steps as without an interruption."""
        ...

    def iterate(self, state: State) -> Iterator[State]:
        """The state at the end of each epoch, and within one as often as a checkpoint can be made.

        It ends where no step lowers the loss.
        """
        ...

    def arrays(self, state: State) -> Arrays:
        """A copy of all that the next step depends on."""
        ...

    def is_epoch_complete(self, state: State) -> bool:
        """Whether a state is the end of an epoch."""
        ...

    def parameters(self, state: State) -> Array:
        """The network's parameters, which are validated and kept."""
        ...

    def loss(self, state: State) -> float:
        """Training loss of the last complete epoch."""
        ...

    def validate(self, state: State) -> float:
        """Validation loss of `parameters`."""
        ...


def run(
    solver: Solver[State],
    reached: Checkpoint[AnyNetwork],
    *,
    max_epochs: int,
    patience: int,
    path: Path | None,
    progress: Progress,
    expected_epochs: int | None = None,
) -> None:
    """Train until the validation loss stops falling; `reached` then holds the outcome.

    Parameters
    ----------
    reached
        A new checkpoint, or one from which the training continues.
    max_epochs, patience
        The training ends after so many epochs, or after so many without a better validation loss.
    path
        File of the checkpoint, brought up to date every 20 s and at the end.
    progress
        "bar" shows epochs and losses.
    expected_epochs
        Length of the progress bar, where most trainings use all epochs.
    """
    earlier = reached.seconds[-1] if reached.seconds else 0.0
    began = saved = time.monotonic()
    start = state = solver.resume(reached.state) if reached.state else solver.start()

    def end_epoch() -> None:
        validation_loss = solver.validate(state)
        seconds = earlier + time.monotonic() - began
        reached.add(solver.parameters(state), solver.loss(state), validation_loss, seconds)

    with progress_room.shown(
        progress, description="training", unit="epoch", total=expected_epochs, done=len(reached.losses)
    ) as bar:
        for state in (states := solver.iterate(start)):
            if solver.is_epoch_complete(state):
                end_epoch()
                loss, validation_loss = reached.losses[-1]
                bar.add(loss=f"{loss:.6f}", validation=f"{validation_loss:.6f}")
                bar.update()
                if len(reached.losses) >= max_epochs or reached.epochs_without_gain >= patience:
                    break
            if path is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
                reached.state = solver.arrays(state)
                reached.save(path)
                saved = time.monotonic()
        if isinstance(states, Generator):
            states.close()  # now, and not in whichever thread forgets it
        if not reached.losses:  # no step lowers the loss: the starting point is the outcome
            end_epoch()
    reached.state = solver.arrays(state)
    reached.ended = True
    if path is not None:
        reached.save(path)
