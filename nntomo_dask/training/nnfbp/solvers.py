"""The solvers of NN-FBP as the loop of trainings sees them."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from nntomo_dask import extras
from nntomo_dask.networks import nnfbp
from nntomo_dask.training.checkpoints import Array, Arrays
from nntomo_dask.training.nnfbp import annealed, levenberg_marquardt, sets
from nntomo_dask.training.nnfbp.settings import Fit, Solver
from nntomo_dask.types import Float64, Integers

if TYPE_CHECKING:
    from nntomo_dask.training.nnfbp import adam

# Levenberg–Marquardt tries so many random starting points, each for some iterations on a part of the set.
_STARTS, _START_ITERATIONS, _START_VOXELS = 8, 12, 10_000
_PERMUTED_VOXELS = 2**20  # of a larger set that part is drawn without a permutation of all


@dataclass(frozen=True)
class Data:
    """Both sets, and what of them the network keeps."""

    training: sets.Samples
    validation: sets.Samples
    scaling: sets.Scaling
    level: float
    digest: str
    slices: Integers  # of the training voxels, (voxel,); all 0 where the set does not say
    validation_slices: Integers


class _State(Protocol):
    """What the states of both solvers have in common."""

    @property
    def parameters(self) -> Array: ...
    @property
    def loss(self) -> float: ...


State = TypeVar("State", bound=_State)


class _OnSamples(Generic[State]):
    """What solvers do alike."""

    def __init__(self, data: Data, settings: Fit, form: nnfbp.Form, seed: int, max_epochs: int) -> None:
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
    def __init__(self, data: Data, settings: Fit, form: nnfbp.Form, seed: int, max_epochs: int) -> None:
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
    def __init__(self, data: Data, settings: Fit, form: nnfbp.Form, seed: int, max_epochs: int) -> None:
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


SOLVERS: dict[Solver, type[_LevenbergMarquardt] | type[_Adam] | type[_Annealed]] = {
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
