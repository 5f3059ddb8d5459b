"""Training of an NN-FBP network."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from nntomo_dask.arrays import recipes
from nntomo_dask.errors import refuse
from nntomo_dask.kernels.network_tiles import Activation, Output
from nntomo_dask.networks import nnfbp
from nntomo_dask.networks.nnfbp_layout import InputLayout
from nntomo_dask.settings import check_settings
from nntomo_dask.training import checkpoints, loop
from nntomo_dask.training.checkpoints import Checkpoint
from nntomo_dask.training.loop import Progress
from nntomo_dask.training.nnfbp import KIND, sets
from nntomo_dask.training.nnfbp.samples import is_as_recorded, layout_of, slices_of
from nntomo_dask.training.nnfbp.settings import MAX_EPOCHS, Fit, Nodes, Solver
from nntomo_dask.training.nnfbp.solvers import SOLVERS, Data

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
        solver: loop.Solver[Any] = SOLVERS[settings.solver](data, settings, form, seed, max_epochs)
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


def _load(training: xr.Dataset, validation: xr.Dataset) -> Data:
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
    return Data(
        training=dataclasses.replace(train_set, scaling=scaling),
        validation=dataclasses.replace(validation_set, scaling=scaling),
        scaling=scaling,
        level=level,
        digest=hashlib.sha256(summary.digest + validation_summary.digest).hexdigest()[:16],
        slices=slices_of(training),
        validation_slices=slices_of(validation),
    )


def _frame(data: Data, layout: InputLayout, form: nnfbp.Form, recipe: recipes.Recipe) -> nnfbp.NNFBPNetwork:
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
