"""Training of a Mixed-Scale Dense network: Adam on whole slices, early stopping, checkpoints."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from dask.base import compute
from tqdm.auto import tqdm

from nntomo_dask.arrays import slabs
from nntomo_dask.compute import blas
from nntomo_dask.compute import device as device_room
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import torch_layers as torch_engine
from nntomo_dask.kernels.mixed_scale import parameter_count
from nntomo_dask.networks.msdnet import MSDNetwork
from nntomo_dask.training import checkpoints
from nntomo_dask.training.msdnet_state import State
from nntomo_dask.training.slice_reader import TURNS, Group, Slices, turned

Float32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Loss = Literal["l2", "l1"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]
Progress = Literal["bar", "none"]

CHECKPOINT_SECONDS = 20.0  # between two checkpoints
_AVERAGED = 100  # steps over which parameters are averaged, exponentially


def train_msdnet(
    training: xr.Dataset,
    validation: xr.Dataset,
    *,
    depth: int = 100,
    loss: Loss = "l2",
    batch_size: int = 4,
    learning_rate: float = 1e-3,
    seed: int = 0,
    max_epochs: int = 200,
    patience: int = 15,
    checkpoint: str | os.PathLike[str] | None = None,
    device: Device = "auto",
    precision: Precision = "float32",
    progress: Progress = "bar",
) -> MSDNetwork:
    """Train a Mixed-Scale Dense network and return the one with the least validation loss.

    Mini-batches of whole slices, each turned or mirrored at random (all eight ways, and the neighbours in either
    order), in an order that depends on the seed and the epoch alone. Sets of up to a GiB are held in memory; larger
    ones are read from their stores, block by block, while the blocks before are trained on.

    Parameters
    ----------
    training, validation
        From `training_slices`, `phantom_slices` or `noise2inverse_slices`; with the same inputs.
    depth
        Layers; time and parameters grow with its square.
    loss
        "l2": mean square error. "l1": mean absolute error.
    batch_size
        Slices of a step; as many as there are cores are in work at once.
    learning_rate
        Of Adam.
    seed
        Of the starting weights, the order and the turns. On the CPU the same seed gives the same network.
    max_epochs, patience
        Training ends after so many epochs, or so many without a better validation loss.
    checkpoint
        A .safetensors file that is brought up to date every 20 s. If it is there already, from the same training, that
        one goes on where it stopped, with the very same steps, or is returned if it had ended.
    device
        "auto": a GPU where PyTorch sees one.
    precision
        In which a GPU holds the maps; "bfloat16" takes half the memory. Parameters are float32 in any case.
    progress
        "bar" shows epochs and losses.

    Raises
    ------
    SchemaError
        The sets differ in their inputs, hold nothing to learn or values that are not finite; a large one is not stored;
        a parameter is out of range; the checkpoint belongs to another training.

    References
    ----------
    .. [1] D. M. Pelt and J. A. Sethian, PNAS 115 (2018) 254, doi:10.1073/pnas.1715832114.
    .. [2] D. P. Kingma and J. Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, arXiv:1412.6980.
    """
    settings = _Settings(depth, loss, batch_size, learning_rate, seed, max_epochs, patience, precision)
    where = _device(device, precision)
    settings.check()
    _check_sets(training, validation)
    recipe = slabs.record("train_msdnet", vars(settings), [training.attrs["recipe"], validation.attrs["recipe"]])
    path = None if checkpoint is None else Path(checkpoint)
    state = checkpoints.resume(State, path, recipe, who="train_msdnet")
    if state is not None and state.ended:
        return state.best_network()
    sets = Slices.of(training), Slices.of(validation)
    frame = _frame(training, sets[0], settings, recipe)
    if state is None:
        start = torch_engine.initial_parameters(frame.inputs.channels, depth, seed)
        state = State(frame, start, np.zeros_like(start), np.zeros_like(start), start, start)
    elif state.frame.input_mean != frame.input_mean or state.frame.target_mean != frame.target_mean:
        checkpoints.refuse_another("train_msdnet", path, "slices", "others of the same recipe")
    _Training(state, settings, *sets, where, path, progress).run()
    return state.best_network()


@dataclass(frozen=True)
class _Settings:
    depth: int
    loss: Loss
    batch_size: int
    learning_rate: float
    seed: int
    max_epochs: int
    patience: int
    precision: Precision

    def check(self) -> None:
        """Raise a SchemaError where a setting is out of range."""
        for name in ("depth", "batch_size", "max_epochs", "patience"):
            if getattr(self, name) < 1:
                refuse("train_msdnet", needs=f"{name} of at least 1", got=f"{getattr(self, name)}", remedy="raise it")
        if not 0 < self.learning_rate < np.inf:
            got = f"{self.learning_rate}"
            refuse("train_msdnet", needs="a learning rate above 0", got=got, remedy="learning_rate=1e-3")
        if self.loss not in ("l2", "l1"):
            refuse("train_msdnet", needs="loss l2 or l1", got=f"{self.loss!r}", remedy="choose one")


def _device(device: Device, precision: Precision) -> torch.device:
    if device not in ("auto", "cpu", "cuda") or precision not in ("float32", "bfloat16"):
        refuse(
            "train_msdnet",
            needs="device auto, cpu or cuda, and precision float32 or bfloat16",
            got=f"{device!r} and {precision!r}",
            remedy="choose one of each",
        )
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        refuse("train_msdnet", needs="a GPU that PyTorch sees", got="none", remedy='device="cpu"')
    where = torch.device("cuda" if there and device != "cpu" else "cpu")
    if where.type == "cpu" and precision != "float32":
        refuse("train_msdnet", needs="float32 on the CPU", got=precision, remedy='precision="float32"')
    return where


def _check_sets(training: xr.Dataset, validation: xr.Dataset) -> None:
    for item in (training, validation):
        if "inputs" not in item.attrs or not {"input", "target", "level"} <= set(item.data_vars):
            refuse(
                "train_msdnet",
                needs="sets from training_slices, phantom_slices or noise2inverse_slices",
                got=f"a dataset of {', '.join(map(str, item.data_vars))}",
                remedy="make one; training_samples are for NN-FBP",
            )
    first, second = training.attrs["inputs"], validation.attrs["inputs"]
    if first.digest != second.digest:
        refuse(
            "train_msdnet",
            needs="training and validation slices with the same inputs",
            got=f"{first.digest} and {second.digest}",
            remedy="make both with the same angles, method and neighbours",
        )


def _frame(training: xr.Dataset, data: Slices, settings: _Settings, recipe: slabs.Recipe) -> MSDNetwork:
    """A network with all but its parameters."""
    arrays = [da.asarray(array) for array in (data.input, data.target)]
    moments = [(one.mean(dtype=np.float64), (one.astype(np.float64) ** 2).mean()) for one in arrays]
    *found, level = compute(*moments, training["level"].data)
    scales = [(float(mean), float(np.sqrt(max(square - mean**2, 0)))) for mean, square in found]
    if not (np.isfinite(scales).all() and np.isfinite(level)):
        refuse("train_msdnet", needs="finite slices", got="NaN or infinite ones", remedy="check series and volume")
    (input_mean, input_deviation), (target_mean, target_deviation) = scales
    if input_deviation == 0 or target_deviation == 0:
        refuse("train_msdnet", needs="slices with something in them", got="one value everywhere", remedy="check both")
    inputs = training.attrs["inputs"]
    return MSDNetwork(
        inputs=inputs,
        depth=settings.depth,
        parameters=np.zeros(parameter_count(inputs.channels, settings.depth), np.float32),
        input_mean=input_mean,
        input_deviation=input_deviation,
        target_mean=target_mean,
        target_deviation=target_deviation,
        level=float(level),
        recipe=recipe,
    )


class _Training:
    """The loop, bound to its sets."""

    def __init__(
        self,
        state: State,
        settings: _Settings,
        training: Slices,
        validation: Slices,
        where: torch.device,
        path: Path | None,
        progress: Progress,
    ) -> None:
        self.state, self.settings, self.where, self.path, self.progress = state, settings, where, path, progress
        self.training, self.validation = training, validation
        self.saved = time.monotonic()
        self.batches = sum(-(-len(group) // settings.batch_size) for group in training.shuffled([0]))  # of an epoch
        self.neighbours = state.frame.inputs.neighbours
        self.module = torch_engine.MixedScaleDense(
            state.frame.inputs.channels,
            settings.depth,
            precision=getattr(torch, settings.precision),
            threads=dask.config.get("num_workers", None) or device_room.cores(),
        )
        self.module.vector.data = torch.from_numpy(state.parameters.copy())
        self.module.to(where)
        self.average = torch.from_numpy(state.average.copy()).to(where)
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=settings.learning_rate)
        if state.epoch or state.batch:
            steps = state.epoch * self.batches + state.batch
            self.optimizer.state[self.module.vector] = {
                "step": torch.tensor(float(steps)),
                "exp_avg": torch.from_numpy(state.mean.copy()).to(where),
                "exp_avg_sq": torch.from_numpy(state.square.copy()).to(where),
            }

    def run(self) -> None:
        """Train until the validation loss stops falling."""
        state, settings = self.state, self.settings
        with (
            blas.one_thread(),
            tqdm(
                total=settings.max_epochs,
                initial=len(state.losses),
                desc="training",
                unit="epoch",
                disable=True if self.progress == "none" else None,
                mininterval=0.5,
            ) as bar,
        ):
            while not state.ended:
                self._epoch()
                training_loss, validation_loss = state.losses[-1]
                bar.set_postfix(loss=f"{training_loss:.6f}", validation=f"{validation_loss:.6f}", refresh=False)
                bar.update()
                without_gain = len(state.losses) - 1 - state.best_epoch
                state.ended = len(state.losses) >= settings.max_epochs or without_gain >= settings.patience
        if self.path is not None:
            state.save(self.path)

    def _epoch(self) -> None:
        state, size = self.state, self.settings.batch_size
        begun = 0  # batches of the groups before
        order = self.training.shuffled([self.settings.seed, state.epoch])
        for group in self.training.groups(order, self.neighbours):
            batches = -(-len(group.used) // size)
            for batch in range(max(state.batch - begun, 0), batches):
                chosen = group.used[batch * size : (batch + 1) * size]
                pairs = [self._pair(self.training, group, int(z), state.epoch) for z in chosen]
                state.total += self._step(pairs) * len(chosen)
                state.batch += 1
                self._save()
            begun += batches
        self._take_state()
        state.add(state.total / len(self.training.used), self._validate())

    def _pair(self, data: Slices, group: Group, z: int, epoch: int | None = None) -> tuple[Float32, Float32]:
        """Scaled input (channel, y, x) and target (y, x) of a slice; turned in an epoch of training."""
        frame = self.state.frame
        source = group.input[group.place[data.window(z, self.neighbours)]]
        image = (source - np.float32(frame.input_mean)) / np.float32(frame.input_deviation)
        wanted = (group.target[group.place[z]] - np.float32(frame.target_mean)) / np.float32(frame.target_deviation)
        if epoch is not None:
            turn = int(np.random.default_rng([self.settings.seed, epoch, z]).integers(2 * TURNS))
            image, wanted = turned(image, turn), turned(wanted, turn % TURNS)
        return np.ascontiguousarray(image), np.ascontiguousarray(wanted)

    def _loss(self, pairs: list[tuple[Float32, Float32]]) -> torch.Tensor:
        images, wanted = (torch.from_numpy(np.stack(part)).to(self.where) for part in zip(*pairs, strict=True))
        residual: torch.Tensor = self.module(images) - wanted
        return residual.square().mean() if self.settings.loss == "l2" else residual.abs().mean()

    def _step(self, pairs: list[tuple[Float32, Float32]]) -> float:
        self.optimizer.zero_grad()
        loss = self._loss(pairs)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            steps = self.state.epoch * self.batches + self.state.batch  # few at first: then the average is of all
            self.average.lerp_(self.module.vector, max(1 / (steps + 1), 1 / _AVERAGED))
        if not np.isfinite(error := float(loss.detach())):
            got = f"{error} in epoch {self.state.epoch + 1}"
            refuse("train_msdnet", needs="a loss that stays finite", got=got, remedy="lower the learning rate")
        return error

    def _validate(self) -> float:
        total, size = 0.0, self.settings.batch_size
        with torch.no_grad(), self._averaged():
            for group in self.validation.groups(self.validation.in_order(), self.neighbours):
                for first in range(0, len(group.used), size):
                    pairs = [self._pair(self.validation, group, int(z)) for z in group.used[first : first + size]]
                    total += float(self._loss(pairs)) * len(pairs)
        return total / len(self.validation.used)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within this context the module has the averaged parameters."""
        own, self.module.vector.data = self.module.vector.data, self.average
        try:
            yield
        finally:
            self.module.vector.data = own

    def _take_state(self) -> None:
        moments = self.optimizer.state[self.module.vector]
        self.state.parameters = self.module.vector.detach().cpu().numpy().copy()
        self.state.average = self.average.cpu().numpy().copy()
        self.state.mean = moments["exp_avg"].cpu().numpy().copy()
        self.state.square = moments["exp_avg_sq"].cpu().numpy().copy()

    def _save(self) -> None:
        if self.path is not None and time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            self._take_state()
            self.state.save(self.path)
            self.saved = time.monotonic()
