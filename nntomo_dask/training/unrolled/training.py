"""Training of an unrolled iteration: Adam on scenes that are made while it runs."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import torch
import xarray as xr

from nntomo_dask.arrays import recipes
from nntomo_dask.compute import blas, limits
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import torch_unet, unet
from nntomo_dask.networks.unrolled import REACH, UnrolledNetwork, in_half_precision
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction.first_guess import Conditioned
from nntomo_dask.settings import check_settings
from nntomo_dask.training import checkpoints, loop
from nntomo_dask.training.checkpoints import Arrays, Checkpoint
from nntomo_dask.training.loop import Progress
from nntomo_dask.training.unrolled import KIND
from nntomo_dask.training.unrolled.paired import scenes_of
from nntomo_dask.training.unrolled.scenes import Scene, Scenes
from nntomo_dask.training.unrolled.settings import EPOCHS, Fit
from nntomo_dask.training.where import Device, Precision, chosen_device
from nntomo_dask.types import Float32

_WHO = "train_unrolled"
_AVERAGED = 200  # steps over which parameters are averaged, exponentially
_WARMING = 50  # steps at the beginning in which the rate rises
# Mean square error, in intensity levels, that is added to that of total variation: where it is exact nothing is gained.
_FLOOR = 2e-5


def train_unrolled(
    training: xr.Dataset,
    validation: xr.Dataset,
    *,
    steps: int = 1,
    neighbours: int = 2,
    width: int = 16,
    epoch_scenes: int = 256,
    batch_size: int = 2,
    learning_rate: float = 1e-3,
    seed: int = 0,
    max_epochs: int = EPOCHS,
    checkpoint: str | os.PathLike[str] | None = None,
    device: Device = "auto",
    precision: Precision = "float32",
    progress: Progress = "bar",
) -> UnrolledNetwork:
    """Train an unrolled iteration and return the network with the least validation loss.

    Every scene is new: a phantom drawn by seed and number, projected, with noise, and reconstructed with total
    variation while the network learns from the scenes before. A scene counts by its mean square error, divided by that
    of total variation, so that scenes with much and with little noise weigh alike. The rate rises for 50 steps, and
    falls as a cosine to zero in the last epoch: trainings of another length are other trainings.

    Parameters
    ----------
    training, validation
        From `phantom_scenes`, or `pair_scenes`.
    steps
        Networks, one behind the other.
    neighbours
        Slices on either side that each of them sees; times the steps at most 4.
    width
        Maps of a network on its highest level.
    epoch_scenes
        Scenes of an epoch.
    batch_size
        Scenes in a step of Adam; their derivatives are computed side by side.
    learning_rate
        Of Adam, at its highest.
    seed
        Of the starting weights. The same seed gives the same network on the CPU.
    max_epochs
        Length of the training.
    checkpoint
        A .safetensors file that is updated every 20 s. If it exists already, from the same training, that training
        continues with the same steps as without an interruption, or its network is returned if it had ended.
    device
        "auto": a GPU where PyTorch sees one.
    precision
        Of the maps on a GPU.
    progress
        "bar" shows epochs and losses.

    Raises
    ------
    SchemaError
        The sets are none of scenes, or for other series; a parameter is out of range; the checkpoint belongs to another
        training.

    References
    ----------
    .. [1] D. P. Kingma and J. Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, arXiv:1412.6980.
    """
    settings = Fit(
        steps=steps,
        neighbours=neighbours,
        width=width,
        epoch_scenes=epoch_scenes,
        batch_size=batch_size,
        learning_rate=learning_rate,
        device=device,
        precision=precision,
    )
    check_settings(settings, who=_WHO)
    return fit(
        settings,
        training,
        validation,
        seed=seed,
        max_epochs=max_epochs,
        checkpoint=checkpoint,
        progress=progress,
    )


def fit(
    settings: Fit,
    training: xr.Dataset,
    validation: xr.Dataset,
    *,
    seed: int,
    max_epochs: int,
    checkpoint: str | os.PathLike[str] | None,
    progress: Progress,
) -> UnrolledNetwork:
    """Train a network with checked settings; see `train_unrolled`."""
    where = chosen_device(settings.device, settings.precision, who=_WHO)
    if max_epochs < 1:
        refuse(_WHO, needs="max_epochs of at least 1", got=f"{max_epochs}", remedy=f"`max_epochs={EPOCHS}`")
    if settings.steps * settings.neighbours > REACH:
        got = f"{settings.steps} steps with {settings.neighbours}"
        refuse(_WHO, needs=f"neighbours of at most {REACH} in all steps", got=got, remedy="`neighbours=1`")
    for one in (training, validation):
        _check_set(one)
    sources = scenes_of(training), scenes_of(validation)
    if sources[0].geometry != sources[1].geometry:
        got = f"{sources[0].geometry.describe()} and {sources[1].geometry.describe()}"
        refuse(_WHO, needs="training and validation scenes for the same series", got=got, remedy="make both alike")
    parameters = {
        "steps": settings.steps,
        "neighbours": settings.neighbours,
        "width": settings.width,
        "epoch_scenes": settings.epoch_scenes,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "seed": seed,
        "max_epochs": max_epochs,
        "precision": settings.precision,
    }
    recipe = recipes.record(_WHO, parameters, [training.attrs["recipe"], validation.attrs["recipe"]])
    path = None if checkpoint is None else Path(checkpoint)
    reached = checkpoints.resume(KIND, path, recipe, who=_WHO)
    if reached is not None and reached.ended:
        return reached.best_network()
    channels = unet.channel_count(settings.neighbours)
    count = unet.parameter_count(channels, settings.width)
    if reached is None:
        zeros = np.zeros((settings.steps, count), np.float32)
        frame = UnrolledNetwork(sources[0].geometry, zeros, settings.width, settings.neighbours, recipe)
        reached = Checkpoint(KIND, frame)
    numbers = range(int(validation.attrs["count"]))
    with blas.one_thread():
        solver = Adam(settings, seed, sources[0], sources[1], numbers, where, max_epochs=max_epochs)
        loop.run(
            solver,
            reached,
            max_epochs=max_epochs,
            patience=max_epochs,
            path=path,
            progress=progress,
            expected_epochs=max_epochs,
        )
    return reached.best_network()


def _check_set(dataset: xr.Dataset) -> None:
    if "scenes" not in dataset.attrs:
        got = f"a dataset of {', '.join(map(str, dataset.data_vars))}"
        refuse(_WHO, needs="sets from phantom_scenes", got=got, remedy="make them for the series")


@dataclass
class State:
    """Where the training stands; the parameters are those of the solver's tensor."""

    epoch: int = 0
    batch: int = 0  # steps taken in this epoch
    total: float = 0.0  # of the losses of this epoch's steps so far
    loss: float = np.inf  # mean over the steps of the last complete epoch
    epoch_complete: bool = False


class Adam:
    """Adam on batches of scenes."""

    def __init__(
        self,
        settings: Fit,
        seed: int,
        training: Scenes,
        validation: Scenes,
        validated: Sequence[int],
        where: torch.device,
        *,
        max_epochs: int,
    ) -> None:
        self.settings, self.seed, self.where, self.training = settings, seed, where, training
        self.workers = dask.config.get("num_workers", None) or limits.cores()
        self.validation = list(validation.scenes(validated, workers=self.workers))
        self.batches = -(-settings.epoch_scenes // settings.batch_size)
        self.steps = self.batches * max_epochs
        channels = unet.channel_count(settings.neighbours)
        initial = [unet.initial_parameters(channels, settings.width, seed + k) for k in range(settings.steps)]
        self.vector = torch.nn.Parameter(torch.from_numpy(np.stack(initial)).to(where))
        self.average = self.vector.detach().clone()
        self.optimizer = torch.optim.Adam([self.vector], lr=settings.learning_rate)

    def start(self) -> State:
        """From random parameters."""
        return State()

    def resume(self, arrays: Arrays) -> State:
        """From the arrays of `arrays`."""
        self.vector.data = self._tensor(arrays["parameters"])
        self.average = self._tensor(arrays["average"])
        epoch, batch, total = arrays["scalars"].tolist()
        taken = int(epoch) * self.batches + int(batch)
        self.optimizer.state[self.vector] = {
            "step": torch.tensor(float(taken)),
            "exp_avg": self._tensor(arrays["mean"]),
            "exp_avg_sq": self._tensor(arrays["square"]),
        }
        return State(int(epoch), int(batch), total)

    def _tensor(self, array: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(array, np.float32)).to(self.where)

    def iterate(self, state: State) -> Iterator[State]:
        """One state a step; the last of an epoch is complete."""
        size = self.settings.batch_size
        begun = state.epoch * self.batches + state.batch
        numbers = range(begun * size, self.steps * size)
        made = self.training.scenes(numbers, workers=self.workers)
        with contextlib.closing(made), ThreadPoolExecutor(min(self.workers, size)) as pool:
            while True:
                batch = [scene for _, scene in zip(range(size), made, strict=False)]
                if not batch:
                    return
                state.total += self._step(batch, state, pool)
                state.batch += 1
                state.epoch_complete = state.batch == self.batches
                if state.epoch_complete:
                    state.loss = state.total / self.batches
                    state.epoch, state.batch, state.total = state.epoch + 1, 0, 0.0
                yield state

    def arrays(self, state: State) -> Arrays:
        """A copy of the parameters, their average, and Adam's moments."""
        moments = self.optimizer.state[self.vector]
        return {
            "parameters": self.vector.detach().cpu().numpy().copy(),
            "average": self.average.cpu().numpy().copy(),
            "mean": moments["exp_avg"].cpu().numpy().copy(),
            "square": moments["exp_avg_sq"].cpu().numpy().copy(),
            "scalars": np.array([state.epoch, state.batch, state.total]),
        }

    def is_epoch_complete(self, state: State) -> bool:
        """Whether all batches of an epoch are done."""
        return state.epoch_complete

    def parameters(self, state: State) -> Float32:
        """The averaged parameters."""
        average: Float32 = self.average.cpu().numpy()
        return in_half_precision(average)

    def loss(self, state: State) -> float:
        """Mean loss of the training scenes."""
        return state.loss

    def validate(self, state: State) -> float:
        """Mean loss of the validation scenes with the averaged parameters."""
        vectors = self._tensor(self.parameters(state))

        def one(scene: Scene) -> float:
            with torch.no_grad(), torch_unet.one_thread():
                return float(self._loss(scene, vectors))

        if self.where.type != "cpu":
            return float(np.mean([one(scene) for scene in self.validation]))
        with ThreadPoolExecutor(self.workers) as pool:
            return float(np.mean(list(pool.map(one, self.validation))))

    def _loss(self, scene: Scene, vectors: torch.Tensor) -> torch.Tensor:
        """Mean square error of a scene, as a share of that of total variation."""
        settings = self.settings
        unseen = REACH - settings.steps * settings.neighbours
        seen = slice(unseen, len(scene.first) - unseen)
        images = [torch.from_numpy(array[seen]).to(self.where) for array in scene[1:4]]
        wanted = torch.from_numpy(scene.truth).to(self.where)
        operation = Conditioned(
            Projector(scene.angles_deg, wanted.shape[-1], axis=scene.axis), scene.frequency_steps
        ).normal
        with torch.autocast("cuda", torch.bfloat16, enabled=settings.precision == "bfloat16"):
            slices = torch_unet.steps(
                list(vectors),
                images,
                operation,
                noise=scene.noise,
                width=settings.width,
                neighbours=settings.neighbours,
                together=len(wanted) + 2 * REACH,
            )
        before = torch.from_numpy(scene.first[REACH:-REACH]).to(self.where)
        return (slices.float() - wanted).square().mean() / ((before - wanted).square().mean() + _FLOOR)

    def progress(self, taken: int) -> float:
        """Which share of the training lies behind, after so many steps."""
        return taken / self.steps

    def _step(self, batch: list[Scene], state: State, pool: ThreadPoolExecutor) -> float:
        taken = state.epoch * self.batches + state.batch
        rate = min((taken + 1) / _WARMING, 1) * 0.5 * (1 + np.cos(np.pi * self.progress(taken)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * rate

        def one(scene: Scene) -> tuple[float, torch.Tensor]:
            with torch_unet.one_thread():
                loss = self._loss(scene, self.vector)
                (derivative,) = torch.autograd.grad(loss, self.vector)
            return float(loss.detach()), derivative

        found = list((pool.map if self.where.type == "cpu" else map)(one, batch))
        losses, derivatives = zip(*found, strict=True)
        self.vector.grad = torch.stack(derivatives).mean(dim=0)
        self.optimizer.step()
        with torch.no_grad():
            self.average.lerp_(self.vector, max(1 / (taken + 1), 1 / _AVERAGED))
        error = float(np.mean(losses))
        if not np.isfinite(error):
            got = f"{error} in epoch {state.epoch + 1}"
            refuse(_WHO, needs="a loss that stays finite", got=got, remedy="a lower `learning_rate`")
        return error
