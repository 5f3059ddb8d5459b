"""Training of a Mixed-Scale Dense network: Adam on whole slices."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import torch
import xarray as xr
from dask.base import compute

from nntomo_dask.arrays import recipes
from nntomo_dask.compute import blas, limits
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import torch_layers
from nntomo_dask.kernels.mixed_scale import parameter_count
from nntomo_dask.networks.msdnet import MSDNetwork
from nntomo_dask.settings import check_settings
from nntomo_dask.training import checkpoints, loop
from nntomo_dask.training.checkpoints import Arrays, Checkpoint
from nntomo_dask.training.loop import Progress
from nntomo_dask.training.msdnet import KIND
from nntomo_dask.training.msdnet.settings import MAX_EPOCHS, Fit, Loss
from nntomo_dask.training.msdnet.slice_reader import TURNS, Group, Slices, turned
from nntomo_dask.training.msdnet.slices import layout_of
from nntomo_dask.training.where import Device, Precision, chosen_device
from nntomo_dask.types import Float32

_AVERAGED = 100  # steps over which parameters are averaged, exponentially
_WHO = "train_msdnet"


def train_msdnet(
    training: xr.Dataset,
    validation: xr.Dataset,
    *,
    depth: int = 100,
    loss: Loss = "l2",
    batch_size: int = 4,
    learning_rate: float = 1e-3,
    seed: int = 0,
    max_epochs: int = MAX_EPOCHS,
    patience: int = 15,
    checkpoint: str | os.PathLike[str] | None = None,
    device: Device = "auto",
    precision: Precision = "float32",
    progress: Progress = "bar",
) -> MSDNetwork:
    """Train a Mixed-Scale Dense network and return the one with the least validation loss.

    Mini-batches of whole slices, each turned or mirrored at random (in all eight ways, with the neighbours in either
    order). The order of the slices depends on the seed and the epoch alone. Sets of up to a GiB are held in memory;
    larger ones are read from their stores, block by block, while the network is trained on the blocks before.

    Parameters
    ----------
    training, validation
        From `training_slices`, `phantom_slices` or `noise2inverse_slices`, with the same inputs.
    depth
        Number of layers; time and parameters grow with its square.
    loss
        "l2": mean square error. "l1": mean absolute error.
    batch_size
        Slices in a step; as many of them as there are cores are computed at once.
    learning_rate
        Of Adam.
    seed
        Of the starting weights, the order and the turns. The same seed gives the same network on the CPU.
    max_epochs, patience
        Training ends after so many epochs, or so many without a better validation loss.
    checkpoint
        A .safetensors file that is updated every 20 s. If it exists already, from the same training, that training
        continues with the same steps as without an interruption, or its network is returned if it had ended.
    device
        "auto": a GPU where PyTorch sees one.
    precision
        Of the maps on a GPU; "bfloat16" takes half the memory. Parameters are float32 in either case.
    progress
        "bar" shows epochs and losses.

    Raises
    ------
    SchemaError
        The sets differ in their inputs, hold nothing to learn, or hold values that are not finite; a large set is not
        stored; a parameter is out of range; the checkpoint belongs to another training.

    References
    ----------
    .. [1] D. M. Pelt and J. A. Sethian, PNAS 115 (2018) 254, doi:10.1073/pnas.1715832114.
    .. [2] D. P. Kingma and J. Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, arXiv:1412.6980.
    """
    settings = Fit(
        depth=depth,
        loss=loss,
        patience=patience,
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
) -> MSDNetwork:
    """Train a network with checked settings; see `train_msdnet`."""
    where = chosen_device(settings.device, settings.precision, who=_WHO)
    if max_epochs < 1:
        refuse(_WHO, needs="max_epochs of at least 1", got=f"{max_epochs}", remedy=f"`max_epochs={MAX_EPOCHS}`")
    _check_sets(training, validation)
    parameters = {
        "depth": settings.depth,
        "loss": settings.loss,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "seed": seed,
        "max_epochs": max_epochs,
        "patience": settings.patience,
        "precision": settings.precision,
    }
    recipe = recipes.record("train_msdnet", parameters, [training.attrs["recipe"], validation.attrs["recipe"]])
    path = None if checkpoint is None else Path(checkpoint)
    reached = checkpoints.resume(KIND, path, recipe, who=_WHO)
    if reached is not None and reached.ended:
        return reached.best_network()
    sets = Slices.of(training), Slices.of(validation)
    sums = compute(*(da.asarray(array).sum(dtype=np.float64) for array in (sets[1].input, sets[1].target)))
    if not np.isfinite(sums).all():
        refuse(_WHO, needs="finite slices", got="NaN or infinite ones", remedy="check series and volume")
    frame = _frame(training, sets[0], settings.depth, recipe)
    if reached is None:
        reached = Checkpoint(KIND, frame)
    elif reached.frame.input_mean != frame.input_mean or reached.frame.target_mean != frame.target_mean:
        checkpoints.refuse_another(_WHO, path, "slices", "others of the same recipe")
    solver = _Adam(frame, settings, seed, *sets, where)
    with blas.one_thread():
        loop.run(
            solver,
            reached,
            max_epochs=max_epochs,
            patience=settings.patience,
            path=path,
            progress=progress,
            expected_epochs=max_epochs,
        )
    return reached.best_network()


def _check_sets(training: xr.Dataset, validation: xr.Dataset) -> None:
    for item in (training, validation):
        if "layout" not in item.attrs or not {"input", "target", "level"} <= set(item.data_vars):
            refuse(
                _WHO,
                needs="sets from training_slices, phantom_slices or noise2inverse_slices",
                got=f"a dataset of {', '.join(map(str, item.data_vars))}",
                remedy="make one; training_samples are for NN-FBP",
            )
    first, second = layout_of(training), layout_of(validation)
    if first.digest != second.digest:
        refuse(
            _WHO,
            needs="training and validation slices with the same inputs",
            got=f"{first.digest} and {second.digest}",
            remedy="make both with the same angles, method and neighbours",
        )


def _frame(training: xr.Dataset, data: Slices, depth: int, recipe: recipes.Recipe) -> MSDNetwork:
    """A network without its trained parameters."""
    arrays = [da.asarray(array) for array in (data.input, data.target)]
    moments = [(one.mean(dtype=np.float64), (one.astype(np.float64) ** 2).mean()) for one in arrays]
    *found, level = compute(*moments, training["level"].data)
    if not (np.isfinite(found).all() and np.isfinite(level)):
        refuse(_WHO, needs="finite slices", got="NaN or infinite ones", remedy="check series and volume")
    scales = [(float(mean), float(np.sqrt(max(square - mean**2, 0)))) for mean, square in found]
    (input_mean, input_deviation), (target_mean, target_deviation) = scales
    if input_deviation == 0 or target_deviation == 0:
        refuse(_WHO, needs="slices with something in them", got="one value everywhere", remedy="check both")
    inputs = layout_of(training)
    return MSDNetwork(
        inputs=inputs,
        depth=depth,
        parameters=np.zeros(parameter_count(inputs.channels, depth), np.float32),
        input_mean=input_mean,
        input_deviation=input_deviation,
        target_mean=target_mean,
        target_deviation=target_deviation,
        level=float(level),
        recipe=recipe,
    )


@dataclass
class _State:
    """Where the training stands; the parameters are those of the solver's module."""

    epoch: int = 0
    batch: int = 0  # steps taken in this epoch
    total: float = 0.0  # of the losses of this epoch's slices so far
    loss: float = np.inf  # mean over the slices of the last complete epoch
    epoch_complete: bool = False


class _Adam:
    """Adam on whole slices, bound to its sets."""

    def __init__(
        self,
        frame: MSDNetwork,
        settings: Fit,
        seed: int,
        training: Slices,
        validation: Slices,
        where: torch.device,
    ) -> None:
        self.frame, self.settings, self.seed, self.where = frame, settings, seed, where
        self.training, self.validation = training, validation
        self.batches = sum(-(-len(group) // settings.batch_size) for group in training.shuffled([0]))  # of an epoch
        self.neighbours = frame.inputs.neighbours
        self.module = torch_layers.MixedScaleDense(
            frame.inputs.channels,
            settings.depth,
            precision=getattr(torch, settings.precision),
            threads=dask.config.get("num_workers", None) or limits.cores(),
        )

    def start(self) -> _State:
        """From random parameters."""
        parameters = torch_layers.initial_parameters(self.frame.inputs.channels, self.settings.depth, self.seed)
        self._put(parameters, parameters)
        return _State()

    def resume(self, arrays: Arrays) -> _State:
        """From a checkpoint."""
        self._put(arrays["parameters"], arrays["average"])
        epoch, batch, total = arrays["scalars"].tolist()
        state = _State(int(epoch), int(batch), total)
        self.optimizer.state[self.module.vector] = {
            "step": torch.tensor(float(self._steps(state))),
            "exp_avg": torch.from_numpy(arrays["mean"].copy()).to(self.where),
            "exp_avg_sq": torch.from_numpy(arrays["square"].copy()).to(self.where),
        }
        return state

    def _put(self, parameters: Float32, average: Float32) -> None:
        self.module.vector.data = torch.from_numpy(parameters.copy())
        self.module.to(self.where)
        self.average = torch.from_numpy(average.copy()).to(self.where)
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=self.settings.learning_rate)

    def _steps(self, state: _State) -> int:
        """Steps taken so far."""
        return state.epoch * self.batches + state.batch

    def iterate(self, state: _State) -> Iterator[_State]:
        """The state after every step and after every epoch; without end."""
        size = self.settings.batch_size
        while True:
            begun = 0  # batches of the groups before
            order = self.training.shuffled([self.seed, state.epoch])
            for group in self.training.groups(order, self.neighbours):
                batches = -(-len(group.used) // size)
                for batch in range(max(state.batch - begun, 0), batches):
                    chosen = group.used[batch * size : (batch + 1) * size]
                    pairs = [self._pair(self.training, group, int(z), state.epoch) for z in chosen]
                    state.total += self._step(pairs, state) * len(chosen)
                    state.batch += 1
                    state.epoch_complete = False
                    yield state
                begun += batches
            state.loss = state.total / len(self.training.used)
            state.epoch, state.batch, state.total = state.epoch + 1, 0, 0.0
            state.epoch_complete = True
            yield state

    def arrays(self, state: _State) -> Arrays:
        """A copy of the parameters, their average, and Adam's moments."""
        moments = self.optimizer.state[self.module.vector]
        return {
            "parameters": self.module.vector.detach().cpu().numpy().copy(),
            "average": self.average.cpu().numpy().copy(),
            "mean": moments["exp_avg"].cpu().numpy().copy(),
            "square": moments["exp_avg_sq"].cpu().numpy().copy(),
            "scalars": np.array([state.epoch, state.batch, state.total]),
        }

    def is_epoch_complete(self, state: _State) -> bool:
        """Whether all batches of an epoch are done."""
        return state.epoch_complete

    def parameters(self, state: _State) -> Float32:
        """The averaged parameters."""
        average: Float32 = self.average.cpu().numpy()
        return average.copy()

    def loss(self, state: _State) -> float:
        """Mean loss of the training slices."""
        return state.loss

    def validate(self, state: _State) -> float:
        """Mean loss of the validation slices with the averaged parameters."""
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

    def _pair(self, data: Slices, group: Group, z: int, epoch: int | None = None) -> tuple[Float32, Float32]:
        """Scaled input (channel, y, x) and target (y, x) of a slice; turned in an epoch of training."""
        frame = self.frame
        source = group.input[group.place[data.window(z, self.neighbours)]]
        image = (source - np.float32(frame.input_mean)) / np.float32(frame.input_deviation)
        wanted = (group.target[group.place[z]] - np.float32(frame.target_mean)) / np.float32(frame.target_deviation)
        if epoch is not None:
            turn = int(np.random.default_rng([self.seed, epoch, z]).integers(2 * TURNS))
            image, wanted = turned(image, turn), turned(wanted, turn % TURNS)
        return np.ascontiguousarray(image), np.ascontiguousarray(wanted)

    def _loss(self, pairs: list[tuple[Float32, Float32]]) -> torch.Tensor:
        images, wanted = (torch.from_numpy(np.stack(part)).to(self.where) for part in zip(*pairs, strict=True))
        residual: torch.Tensor = self.module(images) - wanted
        return residual.square().mean() if self.settings.loss == "l2" else residual.abs().mean()

    def _step(self, pairs: list[tuple[Float32, Float32]], state: _State) -> float:
        self.optimizer.zero_grad()
        loss = self._loss(pairs)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            # While there are few steps, the average is over all of them.
            self.average.lerp_(self.module.vector, max(1 / (self._steps(state) + 1), 1 / _AVERAGED))
        if not np.isfinite(error := float(loss.detach())):
            got = f"{error} in epoch {state.epoch + 1}"
            refuse(_WHO, needs="a loss that stays finite", got=got, remedy="a lower `learning_rate`")
        return error
