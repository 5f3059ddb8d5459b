"""Training of an NN-FBP network: start, solver, early stopping, checkpoints."""

import dataclasses
import hashlib
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import xarray as xr
from tqdm.auto import tqdm

from nntomo_dask import extras
from nntomo_dask.arrays import slabs
from nntomo_dask.errors import refuse
from nntomo_dask.kernels.backproject import Activation
from nntomo_dask.networks import nnfbp
from nntomo_dask.training import checkpoints, levenberg_marquardt, sets
from nntomo_dask.training.history import History
from nntomo_dask.training.samples import is_as_recorded, layout_of

Float64 = npt.NDArray[np.float64]
Solver = Literal["lm", "adam"]
Progress = Literal["bar", "none"]

CHECKPOINT_SECONDS = 20.0  # between two checkpoints; the promise is 30, the rest is for the step under way
MAX_EPOCHS: dict[str, int] = {"lm": 500, "adam": 10_000}
# Levenberg–Marquardt tries so many random starting points, each for some iterations on a part of the set.
_STARTS, _START_ITERATIONS, _START_VOXELS = 8, 12, 10_000
_PERMUTED_VOXELS = 2**20  # of a larger set that part is drawn without a permutation of all


def train_nnfbp(
    training: xr.Dataset,
    validation: xr.Dataset,
    *,
    hidden_nodes: int = 8,
    activation: Activation = "relu",
    solver: Solver = "lm",
    seed: int = 0,
    max_epochs: int | None = None,
    patience: int = 25,
    batch_size: int = 32,
    learning_rate: float = 1e-4,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress = "bar",
) -> nnfbp.NNFBPNetwork:
    """Train an NN-FBP network and return the one with the least validation loss.

    A lazy set of more than 2²⁰ voxels is read from its store chunk by chunk in every iteration of "lm", by tasks of
    Dask, and never held whole; any other is loaded. The network is the same, bit for bit, either way and with any
    number of workers, as long as their processors are of one kind.

    Parameters
    ----------
    training, validation
        From `training_samples`, of one input layout; from different volumes, or the validation says nothing. Larger
        ones than fit memory: saved, and opened again.
    hidden_nodes
        Learned filters; 8 is where more stops helping.
    activation
        Of the hidden nodes.
    solver
        "lm": Levenberg–Marquardt over the whole set, dozens of iterations. "adam": mini-batches, as the report did.
    seed
        Of the starting weights and of Adam's order; the same seed gives the same network.
    max_epochs
        Iterations of "lm" (default 500), passes over the set of "adam" (default 10 000).
    patience
        Epochs without a better validation loss after which training ends.
    batch_size, learning_rate
        Of "adam".
    checkpoint
        A .safetensors file that is brought up to date every 20 s. If it is there already, from the same training, that
        one goes on where it stopped, or is returned if it had ended. It holds the network of every epoch, see
        `intermediate_networks`.
    progress
        "bar" shows epochs and losses.

    Raises
    ------
    SchemaError
        The two sets differ in layout, hold nothing to learn or values that are not finite; a large one is not stored,
        or "adam" is to train on it; a parameter is out of range; the checkpoint belongs to another training.

    References
    ----------
    .. [1] D. M. Pelt and K. J. Batenburg, IEEE Trans. Image Process. 22 (2013) 5238, doi:10.1109/TIP.2013.2283142.
    """
    settings = _Settings(
        hidden_nodes=hidden_nodes,
        activation=activation,
        solver=solver,
        seed=seed,
        max_epochs=MAX_EPOCHS.get(solver, 1) if max_epochs is None else max_epochs,
        patience=patience,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    settings.check()
    if layout_of(training) != layout_of(validation):
        refuse(
            "train_nnfbp",
            needs="training and validation samples of one layout",
            got=f"{layout_of(training)} and {layout_of(validation)}",
            remedy="make both with the same angles, detector, wedge and binning",
        )
    recipe = slabs.record("train_nnfbp", vars(settings), [training.attrs["recipe"], validation.attrs["recipe"]])
    path = None if checkpoint is None else Path(checkpoint)
    history = checkpoints.resume(History, path, recipe, who="train")
    if history is not None and history.ended and is_as_recorded(training) and is_as_recorded(validation):
        return history.best_network()
    if solver == "adam" and sets.is_large(training):
        refuse(
            "train_nnfbp",
            needs=f"a training set in memory for adam, or one of at most {sets.IN_MEMORY_VOXELS} voxels",
            got=f"a lazy one of {training.sizes['voxel']}",
            remedy='solver="lm", which reads it chunk by chunk, or training.load() where memory holds it',
        )
    data = _load(training, validation)
    if history is None:
        history = History(_frame(data, layout_of(training), settings, recipe), data.digest)
    elif history.digest != data.digest:
        checkpoints.refuse_another("train", path, "samples", "others of the same recipe")
    if not history.ended:
        _run(history, data, settings, path, progress)
    return history.best_network()


@dataclass(frozen=True)
class _Settings:
    hidden_nodes: int
    activation: Activation
    solver: Solver
    seed: int
    max_epochs: int
    patience: int
    batch_size: int
    learning_rate: float

    def check(self) -> None:
        """Raise a SchemaError where a setting is out of range."""
        for name in ("hidden_nodes", "max_epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                refuse("train_nnfbp", needs=f"{name} of at least 1", got=f"{getattr(self, name)}", remedy="raise it")
        if not self.learning_rate > 0:
            refuse("train_nnfbp", needs="a learning rate above 0", got=f"{self.learning_rate}", remedy="raise it")
        for name, choices in (("activation", ("relu", "sigmoid")), ("solver", ("lm", "adam"))):
            if getattr(self, name) not in choices:
                got = f"{getattr(self, name)!r}"
                refuse("train_nnfbp", needs=f"{name} {' or '.join(choices)}", got=got, remedy="choose one")


@dataclass(frozen=True)
class _Data:
    """Both sets, and what of them the network keeps."""

    training: sets.Samples
    validation: sets.Samples
    scaling: sets.Scaling
    level: float
    digest: str


def _load(training: xr.Dataset, validation: xr.Dataset) -> _Data:
    train_set, validation_set, level = sets.load(training, validation)
    summary, validation_summary = sets.summary(train_set), sets.summary(validation_set)
    if not (summary.finite and validation_summary.finite and np.isfinite(level)):
        refuse("train_nnfbp", needs="finite samples", got="NaN or infinite ones", remedy="check series and volume")
    if summary.target_low == summary.target_high:
        refuse(
            "train_nnfbp",
            needs="training volumes with something in them",
            got=f"the value {summary.target_low:g} everywhere",
            remedy="check the volume",
        )
    scaling = sets.Scaling(summary.input_low, summary.input_high, summary.target_low, summary.target_high)
    return _Data(
        training=dataclasses.replace(train_set, scaling=scaling),
        validation=dataclasses.replace(validation_set, scaling=scaling),
        scaling=scaling,
        level=level,
        digest=hashlib.sha256(summary.digest + validation_summary.digest).hexdigest()[:16],
    )


def _frame(data: _Data, layout: nnfbp.InputLayout, settings: _Settings, recipe: slabs.Recipe) -> nnfbp.NNFBPNetwork:
    """A network with all but its weights."""
    zeros = np.zeros(nnfbp.parameter_count(layout.n_inputs, settings.hidden_nodes))
    weights, bias, output_weights, output_bias = nnfbp.unpack(zeros, layout.n_inputs, settings.hidden_nodes)
    return nnfbp.NNFBPNetwork(
        layout=layout,
        activation=settings.activation,
        hidden_weights=weights,
        hidden_bias=bias,
        output_weights=output_weights,
        output_bias=output_bias,
        input_low=data.scaling.input_low,
        input_high=data.scaling.input_high,
        target_low=data.scaling.target_low,
        target_high=data.scaling.target_high,
        level=data.level,
        recipe=recipe,
    )


class _Solver(Protocol):
    """A way to lower the training loss, bound to a training set."""

    def start(self) -> Any: ...
    def resume(self, arrays: dict[str, Any]) -> Any: ...
    def iterate(self, state: Any) -> Iterator[Any]: ...
    def arrays(self, state: Any) -> dict[str, Any]: ...
    def epoch_is_complete(self, state: Any) -> bool: ...


class _LevenbergMarquardt:
    def __init__(self, data: _Data, settings: _Settings) -> None:
        self.samples, self.settings = data.training, settings

    def start(self) -> levenberg_marquardt.State:
        """The best of some starting points after a few iterations on a part of the set."""
        activation = self.settings.activation
        voxels, n_inputs = self.samples.shape
        rng = np.random.default_rng(self.settings.seed)
        if voxels <= _PERMUTED_VOXELS:
            chosen = rng.permutation(voxels)[:_START_VOXELS]
        else:
            chosen = rng.choice(voxels, _START_VOXELS, replace=False)
        part = self.samples.rows(chosen)
        best: levenberg_marquardt.State | None = None
        for _ in range(_STARTS):
            state = levenberg_marquardt.start(_initial(rng, n_inputs, self.settings), part, activation)
            iterations = levenberg_marquardt.iterate(state, part, activation)
            *_, state = state, *itertools.islice(iterations, _START_ITERATIONS)
            if best is None or state.loss < best.loss:
                best = state
        assert best is not None
        return levenberg_marquardt.start(best.parameters, self.samples, activation)

    def resume(self, arrays: dict[str, Any]) -> levenberg_marquardt.State:
        return levenberg_marquardt.from_arrays(arrays)

    def iterate(self, state: levenberg_marquardt.State) -> Iterator[levenberg_marquardt.State]:
        return levenberg_marquardt.iterate(state, self.samples, self.settings.activation)

    def arrays(self, state: levenberg_marquardt.State) -> dict[str, Any]:
        return levenberg_marquardt.to_arrays(state)

    def epoch_is_complete(self, state: levenberg_marquardt.State) -> bool:
        return state.loss >= 0  # every state is a whole pass over the set


class _Adam:
    def __init__(self, data: _Data, settings: _Settings) -> None:
        extras.check("torch", who='train_nnfbp with solver="adam"')
        from nntomo_dask.training import adam

        self.adam, self.settings = adam, settings
        assert isinstance(data.training, sets.InMemory)
        self.inputs = data.scaling.inputs(data.training.inputs)
        self.targets = data.scaling.targets(data.training.targets)

    def start(self) -> Any:
        rng = np.random.default_rng(self.settings.seed)
        return self.adam.start(_initial(rng, self.inputs.shape[1], self.settings))

    def resume(self, arrays: dict[str, Any]) -> Any:
        return self.adam.from_arrays(arrays)

    def iterate(self, state: Any) -> Iterator[Any]:
        settings = self.settings
        return self.adam.iterate(
            state,
            self.inputs,
            self.targets,
            settings.activation,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
        )

    def arrays(self, state: Any) -> dict[str, Any]:
        return self.adam.to_arrays(state)

    def epoch_is_complete(self, state: Any) -> bool:
        return bool(state.batch == 0)


def _run(history: History, data: _Data, settings: _Settings, path: Path | None, progress: Progress) -> None:
    """Train until the validation loss stops falling; `history` holds the outcome."""
    solver: _Solver = (_LevenbergMarquardt if settings.solver == "lm" else _Adam)(data, settings)
    began = saved = time.monotonic()
    began -= history.seconds[-1] if history.seconds else 0
    start = solver.resume(history.state) if history.state else solver.start()
    with tqdm(
        initial=len(history.losses),  # no total: training ends when validation no longer gains
        desc="training",
        unit="epoch",
        disable=True if progress == "none" else None,
        mininterval=0.5,
    ) as bar:
        for state in solver.iterate(start):
            history.state = solver.arrays(state)
            if solver.epoch_is_complete(state):
                validation_loss = levenberg_marquardt.mean_square_error(
                    np.asarray(state.parameters, np.float64), data.validation, settings.activation
                )
                history.add(state.parameters, state.loss, validation_loss, time.monotonic() - began)
                bar.set_postfix(loss=f"{state.loss:.6f}", validation=f"{validation_loss:.6f}", refresh=False)
                bar.update()
                if len(history.losses) >= settings.max_epochs or history.epochs_without_gain >= settings.patience:
                    break
            if path is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
                history.save(path)
                saved = time.monotonic()
        if not history.losses:  # no step lowers the loss: where training began is where it ends
            parameters = np.asarray(start.parameters, np.float64)
            validation_loss = levenberg_marquardt.mean_square_error(parameters, data.validation, settings.activation)
            history.add(parameters, start.loss, validation_loss, time.monotonic() - began)
    history.ended = True
    if path is not None:
        history.save(path)


def _initial(rng: np.random.Generator, n_inputs: int, settings: _Settings) -> Float64:
    """Random parameters, of a size that leaves every node in its sensitive range for inputs in [-1, 1]."""
    n_hidden = settings.hidden_nodes
    weights = rng.standard_normal((n_inputs, n_hidden)) * np.sqrt(2 / n_inputs)
    bias = rng.uniform(-0.5, 0.5, n_hidden)
    output_weights = rng.uniform(-1, 1, n_hidden)
    return np.concatenate([weights.ravel(), bias, output_weights, [0.0]])
