"""Training of an NN-FBP network: start, solver, early stopping, checkpoints."""

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
from dask.base import compute
from tqdm.auto import tqdm

from nntomo_dask import schema, slabs
from nntomo_dask.kernels.backproject import Activation
from nntomo_dask.networks import nnfbp
from nntomo_dask.training import levenberg_marquardt
from nntomo_dask.training.history import History, resume
from nntomo_dask.training.samples import is_as_recorded, layout_of

Float64 = npt.NDArray[np.float64]
Solver = Literal["lm", "adam"]
Progress = Literal["bar", "none"]

CHECKPOINT_SECONDS = 20.0  # between two checkpoints; the promise is 30, the rest is for the step under way
MAX_EPOCHS: dict[str, int] = {"lm": 500, "adam": 10_000}
# Levenberg–Marquardt tries so many random starting points, each for some iterations on a part of the set.
_STARTS, _START_ITERATIONS, _START_VOXELS = 8, 12, 10_000


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

    Parameters
    ----------
    training, validation
        From `training_samples`, of one input layout; from different volumes, or the validation says nothing.
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
        The two sets differ in layout, hold nothing to learn or values that are not finite; a parameter is out of range;
        the checkpoint belongs to another training.

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
        schema.refuse(
            "train_nnfbp",
            needs="training and validation samples of one layout",
            got=f"{layout_of(training)} and {layout_of(validation)}",
            do="make both with the same angles, detector, wedge and binning",
        )
    recipe = slabs.record("train_nnfbp", vars(settings), [training.attrs["recipe"], validation.attrs["recipe"]])
    path = None if checkpoint is None else Path(checkpoint)
    history = resume(path, recipe)
    if history is not None and history.ended and is_as_recorded(training) and is_as_recorded(validation):
        return history.best_network()
    sets = _load(training, validation)
    if history is None:
        history = History(_frame(sets, layout_of(training), settings, recipe), sets.digest)
    elif history.digest != sets.digest:
        schema.refuse(
            "train",
            needs=f"the samples with which the training in {path} began",
            got="others of the same recipe",
            do="delete that file (on the command line --overwrite), or give another path",
        )
    if not history.ended:
        _run(history, sets, settings, path, progress)
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
                schema.refuse("train_nnfbp", needs=f"{name} of at least 1", got=f"{getattr(self, name)}", do="raise it")
        if not self.learning_rate > 0:
            schema.refuse("train_nnfbp", needs="a learning rate above 0", got=f"{self.learning_rate}", do="raise it")
        for name, choices in (("activation", ("relu", "sigmoid")), ("solver", ("lm", "adam"))):
            if getattr(self, name) not in choices:
                got = f"{getattr(self, name)!r}"
                schema.refuse("train_nnfbp", needs=f"{name} {' or '.join(choices)}", got=got, do="choose one")


@dataclass(frozen=True)
class _Sets:
    """Both sets in memory, scaled: inputs (voxel, input) to [-1, 1], targets (voxel,) to [0, 1]."""

    inputs: Float64
    targets: Float64
    validation_inputs: Float64
    validation_targets: Float64
    input_low: Float64
    input_high: Float64
    target_low: float
    target_high: float
    level: float

    @property
    def digest(self) -> str:
        """Digest of all samples."""
        state = hashlib.sha256()
        for values in (self.inputs, self.targets, self.validation_inputs, self.validation_targets):
            state.update(np.ascontiguousarray(values).data)
        return state.hexdigest()[:16]


def _load(training: xr.Dataset, validation: xr.Dataset) -> _Sets:
    names = ("inputs", "target", "level")
    # One call: what both sets share is computed once.
    loaded = compute(*(training[name].data for name in names), *(validation[name].data for name in names[:2]))
    inputs, targets, level, validation_inputs, validation_targets = loaded
    for values in loaded:
        if not np.isfinite(values).all():
            schema.refuse(
                "train_nnfbp", needs="finite samples", got="NaN or infinite ones", do="check series and volume"
            )
    low, high = inputs.min(axis=0).astype(float), inputs.max(axis=0).astype(float)
    target_low, target_high = float(targets.min()), float(targets.max())
    if target_low == target_high:
        schema.refuse(
            "train_nnfbp",
            needs="training volumes with something in them",
            got=f"the value {target_low:g} everywhere",
            do="check the volume",
        )
    span = target_high - target_low
    return _Sets(
        inputs=nnfbp.scale_inputs(inputs, low, high),
        targets=(targets.astype(float) - target_low) / span,
        validation_inputs=nnfbp.scale_inputs(validation_inputs, low, high),
        validation_targets=(validation_targets.astype(float) - target_low) / span,
        input_low=low,
        input_high=high,
        target_low=target_low,
        target_high=target_high,
        level=float(level),
    )


def _frame(sets: _Sets, layout: nnfbp.InputLayout, settings: _Settings, recipe: slabs.Recipe) -> nnfbp.NNFBPNetwork:
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
        input_low=sets.input_low,
        input_high=sets.input_high,
        target_low=sets.target_low,
        target_high=sets.target_high,
        level=sets.level,
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
    def __init__(self, sets: _Sets, settings: _Settings) -> None:
        self.sets, self.settings = sets, settings

    def start(self) -> levenberg_marquardt.State:
        """The best of some starting points after a few iterations on a part of the set."""
        sets, activation = self.sets, self.settings.activation
        rng = np.random.default_rng(self.settings.seed)
        part = rng.permutation(sets.targets.size)[:_START_VOXELS]
        inputs, targets = sets.inputs[part], sets.targets[part]
        best: levenberg_marquardt.State | None = None
        for _ in range(_STARTS):
            state = levenberg_marquardt.start(
                _initial(rng, inputs.shape[1], self.settings), inputs, targets, activation
            )
            iterations = levenberg_marquardt.iterate(state, inputs, targets, activation)
            *_, state = state, *itertools.islice(iterations, _START_ITERATIONS)
            if best is None or state.loss < best.loss:
                best = state
        assert best is not None
        return levenberg_marquardt.start(best.parameters, sets.inputs, sets.targets, activation)

    def resume(self, arrays: dict[str, Any]) -> levenberg_marquardt.State:
        return levenberg_marquardt.from_arrays(arrays)

    def iterate(self, state: levenberg_marquardt.State) -> Iterator[levenberg_marquardt.State]:
        return levenberg_marquardt.iterate(state, self.sets.inputs, self.sets.targets, self.settings.activation)

    def arrays(self, state: levenberg_marquardt.State) -> dict[str, Any]:
        return levenberg_marquardt.to_arrays(state)

    def epoch_is_complete(self, state: levenberg_marquardt.State) -> bool:
        return state.loss >= 0  # every state is a whole pass over the set


class _Adam:
    def __init__(self, sets: _Sets, settings: _Settings) -> None:
        from nntomo_dask.training import adam

        self.adam, self.sets, self.settings = adam, sets, settings

    def start(self) -> Any:
        rng = np.random.default_rng(self.settings.seed)
        return self.adam.start(_initial(rng, self.sets.inputs.shape[1], self.settings))

    def resume(self, arrays: dict[str, Any]) -> Any:
        return self.adam.from_arrays(arrays)

    def iterate(self, state: Any) -> Iterator[Any]:
        settings = self.settings
        return self.adam.iterate(
            state,
            self.sets.inputs,
            self.sets.targets,
            settings.activation,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
        )

    def arrays(self, state: Any) -> dict[str, Any]:
        return self.adam.to_arrays(state)

    def epoch_is_complete(self, state: Any) -> bool:
        return bool(state.batch == 0)


def _run(history: History, sets: _Sets, settings: _Settings, path: Path | None, progress: Progress) -> None:
    """Train until the validation loss stops falling; `history` holds the outcome."""
    solver: _Solver = (_LevenbergMarquardt if settings.solver == "lm" else _Adam)(sets, settings)
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
                    np.asarray(state.parameters, np.float64),
                    sets.validation_inputs,
                    sets.validation_targets,
                    settings.activation,
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
            sample = (sets.validation_inputs, sets.validation_targets, settings.activation)
            validation_loss = levenberg_marquardt.mean_square_error(parameters, *sample)
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
