"""Training of an NN-FBP network."""

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import xarray as xr

from nntomo_dask import extras
from nntomo_dask.arrays import recipes
from nntomo_dask.errors import refuse
from nntomo_dask.kernels.backproject import Activation, Output
from nntomo_dask.networks import nnfbp
from nntomo_dask.settings import check_settings
from nntomo_dask.training import checkpoints, loop
from nntomo_dask.training.checkpoints import Array, Arrays, Checkpoint
from nntomo_dask.training.loop import Progress
from nntomo_dask.training.nnfbp import KIND, annealed, levenberg_marquardt, sets
from nntomo_dask.training.nnfbp.samples import is_as_recorded, layout_of, slices_of
from nntomo_dask.training.nnfbp.settings import MAX_EPOCHS, Fit, Nodes, Solver
from nntomo_dask.types import Float64, Integers

if TYPE_CHECKING:
    from nntomo_dask.training.nnfbp import adam


# Levenberg–Marquardt tries so many random starting points, each for some iterations on a part of the set.
_STARTS, _START_ITERATIONS, _START_VOXELS = 8, 12, 10_000
_PERMUTED_VOXELS = 2**20  # of a larger set that part is drawn without a permutation of all
_WHO = "train_nnfbp"


def train_nnfbp(
    training: xr.Dataset,
    validation: xr.Dataset,
    *,
    hidden_nodes: Nodes = "auto",
    second_nodes: Nodes = "auto",
    activation: Activation = "relu",
    output: Output = "linear",
    solver: Solver = "annealed",
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
        From `training_samples`, with the same input layout, and from different volumes. Sets that do not fit into
        memory must come from stores, see `save` and `open`.
    hidden_nodes
        Number of hidden nodes, that is of learned filters. "auto": 16 with the solver "annealed", 8 with others.
    second_nodes
        Of a second hidden layer, 0 for none. "auto": 16 with "annealed", none with others.
    activation
        Of the hidden nodes.
    output
        "linear": at least the least value of the training volumes, and above their greatest one where the inputs say
        so. "sigmoid": between the two, as in version 0.1.0.
    solver
        "annealed": Adam in mini-batches of 200 with a rate that rises over a tenth of the epochs and falls to zero;
        every slice counts alike, its errors as shares of its mean square error (plus a fifth of the median slice's).
        "lm": Levenberg–Marquardt over the whole set, dozens of iterations. "adam": mini-batches, as in Branchut (2024).
    seed
        Of the starting weights and of the order of mini-batches; the same seed gives the same network.
    max_epochs
        Passes over the set of "annealed" (default 20), which plans its rate for them, and of "adam" (default 10 000);
        iterations of "lm" (default 500).
    patience
        Epochs without a better validation loss after which training ends.
    batch_size, learning_rate
        Of "adam".
    checkpoint
        A .safetensors file that is updated every 20 s. If it exists already, from the same training, that training
        continues where it stopped, or its network is returned if it had ended. The file holds the network of every
        epoch, see `intermediate_networks`.
    progress
        "bar" shows epochs and losses.

    Raises
    ------
    SchemaError
        The two sets differ in layout, hold nothing to learn, or hold values that are not finite; a large set is not
        stored, or was given to another solver than "lm"; a parameter is out of range; the checkpoint belongs to another
        training.

    References
    ----------
    .. [1] D. M. Pelt and K. J. Batenburg, IEEE Trans. Image Process. 22 (2013) 5238, doi:10.1109/TIP.2013.2283142.
    """
    settings = Fit(
        hidden_nodes=hidden_nodes,
        second_nodes=second_nodes,
        activation=activation,
        output=output,
        solver=solver,
        patience=patience,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    check_settings(settings, who=_WHO)
    return fit(
        settings,
        training,
        validation,
        seed=seed,
        max_epochs=MAX_EPOCHS[solver] if max_epochs is None else max_epochs,
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
) -> nnfbp.NNFBPNetwork:
    """Train a network with checked settings; see `train_nnfbp`."""
    if max_epochs < 1:
        got = f"{max_epochs}"
        refuse(_WHO, needs="max_epochs of at least 1", got=got, remedy=f"`max_epochs={MAX_EPOCHS[settings.solver]}`")
    layout = layout_of(training)
    if layout != layout_of(validation):
        refuse(
            _WHO,
            needs="training and validation samples of one layout",
            got=f"{layout} and {layout_of(validation)}",
            remedy="make both with the same angles, detector, wedge and binning",
        )
    form = settings.form(layout.n_inputs)
    parameters = {
        "hidden_nodes": form.n_hidden,
        # What version 0.1.0 did not have is left out where it plays no part, so that its trainings go on.
        **({"second_nodes": form.n_second} if form.n_second else {}),
        "activation": settings.activation,
        **({"output": settings.output} if settings.output != "sigmoid" else {}),
        "solver": settings.solver,
        "seed": seed,
        "max_epochs": max_epochs,
        "patience": settings.patience,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
    }
    recipe = recipes.record("train_nnfbp", parameters, [training.attrs["recipe"], validation.attrs["recipe"]])
    path = None if checkpoint is None else Path(checkpoint)
    reached = checkpoints.resume(KIND, path, recipe, who="train")
    if reached is not None and reached.ended and is_as_recorded(training) and is_as_recorded(validation):
        return reached.best_network()
    held = {"lm": (), "adam": (training,), "annealed": (training, validation)}[settings.solver]
    large = [part for part in held if sets.is_large(part)]
    if large:
        refuse(
            _WHO,
            needs=f"a training set in memory for {settings.solver}, or one of at most {sets.IN_MEMORY_VOXELS} voxels",
            got=f"a lazy one of {large[0].sizes['voxel']}",
            remedy='`solver="lm"`, which reads it chunk by chunk, or training.load() where memory holds it',
        )
    data = _load(training, validation)
    if reached is None:
        reached = Checkpoint(KIND, _frame(data, layout, form, recipe), digest=data.digest)
    elif reached.digest != data.digest:
        checkpoints.refuse_another("train", path, "samples", "others of the same recipe")
    if not reached.ended:
        solver: loop.Solver[Any] = _SOLVERS[settings.solver](data, settings, form, seed, max_epochs)
        loop.run(
            solver,
            reached,
            max_epochs=max_epochs,
            patience=settings.patience,
            path=path,
            progress=progress,
            expected_epochs=max_epochs if settings.solver == "annealed" else None,
        )
    return reached.best_network()


@dataclass(frozen=True)
class _Data:
    """Both sets, and what of them the network keeps."""

    training: sets.Samples
    validation: sets.Samples
    scaling: sets.Scaling
    level: float
    digest: str
    slices: Integers  # of the training voxels, (voxel,); all 0 where the set does not say
    validation_slices: Integers


def _load(training: xr.Dataset, validation: xr.Dataset) -> _Data:
    train_set, validation_set, level = sets.load(training, validation)
    summary, validation_summary = sets.summary(train_set), sets.summary(validation_set)
    if not (summary.finite and validation_summary.finite and np.isfinite(level)):
        refuse(_WHO, needs="finite samples", got="NaN or infinite ones", remedy="check series and volume")
    if summary.target_low == summary.target_high:
        refuse(
            _WHO,
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
        slices=slices_of(training),
        validation_slices=slices_of(validation),
    )


def _frame(data: _Data, layout: nnfbp.InputLayout, form: nnfbp.Form, recipe: recipes.Recipe) -> nnfbp.NNFBPNetwork:
    """A network with all but its weights."""
    parts: dict[str, Any] = form.unpack(np.zeros(form.count))
    return nnfbp.NNFBPNetwork(
        layout=layout,
        activation=form.activation,
        output=form.output,
        **parts | {"output_bias": 0.0},
        input_low=data.scaling.input_low,
        input_high=data.scaling.input_high,
        target_low=data.scaling.target_low,
        target_high=data.scaling.target_high,
        level=data.level,
        recipe=recipe,
    )


class _State(Protocol):
    """What the states of both solvers have in common."""

    @property
    def parameters(self) -> Array: ...
    @property
    def loss(self) -> float: ...


State = TypeVar("State", bound=_State)


class _OnSamples(Generic[State]):
    """What solvers do alike."""

    def __init__(self, data: _Data, settings: Fit, form: nnfbp.Form, seed: int, max_epochs: int) -> None:
        self.data, self.settings, self.form, self.seed, self.max_epochs = data, settings, form, seed, max_epochs

    def parameters(self, state: State) -> Float64:
        """The network's parameters."""
        return np.asarray(state.parameters, np.float64)

    def loss(self, state: State) -> float:
        """Mean square error of the training samples."""
        return state.loss

    def validate(self, state: State) -> float:
        """Mean square error of the validation samples."""
        return levenberg_marquardt.mean_square_error(self.parameters(state), self.data.validation, self.form)


class _LevenbergMarquardt(_OnSamples[levenberg_marquardt.State]):
    def start(self) -> levenberg_marquardt.State:
        """The best of some starting points after a few iterations on a part of the set."""
        form, samples = self.form, self.data.training
        voxels = samples.shape[0]
        rng = np.random.default_rng(self.seed)
        if voxels <= _PERMUTED_VOXELS:
            chosen = rng.permutation(voxels)[:_START_VOXELS]
        else:
            chosen = rng.choice(voxels, _START_VOXELS, replace=False)
        part = samples.rows(chosen)
        best: levenberg_marquardt.State | None = None
        for _ in range(_STARTS):
            state = levenberg_marquardt.start(_initial(rng, form), part, form)
            for later in itertools.islice(levenberg_marquardt.iterate(state, part, form), _START_ITERATIONS):
                state = later
            if best is None or state.loss < best.loss:
                best = state
        assert best is not None
        return levenberg_marquardt.start(best.parameters, samples, form)

    def resume(self, arrays: Arrays) -> levenberg_marquardt.State:
        return levenberg_marquardt.from_arrays(arrays)

    def iterate(self, state: levenberg_marquardt.State) -> Iterator[levenberg_marquardt.State]:
        return levenberg_marquardt.iterate(state, self.data.training, self.form)

    def arrays(self, state: levenberg_marquardt.State) -> Arrays:
        return levenberg_marquardt.to_arrays(state)

    def is_epoch_complete(self, state: levenberg_marquardt.State) -> bool:
        return True  # every state is a whole pass over the set


class _Adam(_OnSamples["adam.State"]):
    def __init__(self, data: _Data, settings: Fit, form: nnfbp.Form, seed: int, max_epochs: int) -> None:
        extras.check("torch", who='train_nnfbp with solver="adam"')
        from nntomo_dask.training.nnfbp import adam  # PyTorch takes seconds to import

        super().__init__(data, settings, form, seed, max_epochs)
        assert isinstance(data.training, sets.InMemory)
        self.adam = adam
        self.inputs = data.scaling.inputs(data.training.inputs)
        self.targets = data.scaling.targets(data.training.targets)

    def start(self) -> "adam.State":
        rng = np.random.default_rng(self.seed)
        return self.adam.start(_initial(rng, self.form))

    def resume(self, arrays: Arrays) -> "adam.State":
        return self.adam.from_arrays(arrays)

    def iterate(self, state: "adam.State") -> Iterator["adam.State"]:
        return self.adam.iterate(
            state,
            self.inputs,
            self.targets,
            self.form,
            batch_size=self.settings.batch_size,
            learning_rate=self.settings.learning_rate,
            seed=self.seed,
        )

    def arrays(self, state: "adam.State") -> Arrays:
        return self.adam.to_arrays(state)

    def is_epoch_complete(self, state: "adam.State") -> bool:
        return state.batch == 0


class _Annealed(_OnSamples[annealed.State]):
    def __init__(self, data: _Data, settings: Fit, form: nnfbp.Form, seed: int, max_epochs: int) -> None:
        super().__init__(data, settings, form, seed, max_epochs)
        assert isinstance(data.training, sets.InMemory)
        self.standard = annealed.Standard.of(data.training.inputs)
        self.problem = annealed.Problem(
            inputs=self.standard.scaled(data.training.inputs),
            targets=data.scaling.targets(data.training.targets).astype(np.float32),
            slices=data.slices,
            form=form,
            epochs=max_epochs,
            seed=seed,
        )

    def parameters(self, state: annealed.State) -> Float64:
        return self.standard.for_range(state.parameters, self.form, self.data.scaling)

    def validate(self, state: annealed.State) -> float:
        validation = self.data.validation
        assert isinstance(validation, sets.InMemory)
        targets = self.data.scaling.targets(validation.targets).astype(np.float32)
        slices = self.data.validation_slices
        return annealed.validation_loss(state.parameters, validation.inputs, targets, slices, self.form, self.standard)

    def start(self) -> annealed.State:
        parameters = _initial(np.random.default_rng(self.seed), self.form)
        return annealed.start(parameters)

    def resume(self, arrays: Arrays) -> annealed.State:
        return annealed.from_arrays(arrays)

    def iterate(self, state: annealed.State) -> Iterator[annealed.State]:
        return annealed.iterate(state, self.problem)

    def arrays(self, state: annealed.State) -> Arrays:
        return annealed.to_arrays(state)

    def is_epoch_complete(self, state: annealed.State) -> bool:
        return True


_SOLVERS: dict[Solver, type[_LevenbergMarquardt] | type[_Adam] | type[_Annealed]] = {
    "annealed": _Annealed,
    "lm": _LevenbergMarquardt,
    "adam": _Adam,
}


def _initial(rng: np.random.Generator, form: nnfbp.Form) -> Float64:
    """Random parameters, of a size that leaves every node in its sensitive range for inputs in [-1, 1]."""
    weights = rng.standard_normal((form.n_inputs, form.n_hidden)) * np.sqrt(2 / form.n_inputs)
    bias = rng.uniform(-0.5, 0.5, form.n_hidden)
    second = []
    if form.n_second:
        second = [
            (rng.standard_normal((form.n_hidden, form.n_second)) * np.sqrt(2 / form.n_hidden)).ravel(),
            rng.uniform(-0.5, 0.5, form.n_second),
        ]
    last = form.n_second or form.n_hidden
    output_weights = rng.uniform(-1, 1, last)
    return np.concatenate([weights.ravel(), bias, *second, output_weights, [0.0]])
