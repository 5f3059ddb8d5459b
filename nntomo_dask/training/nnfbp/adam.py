"""Adam for the NN-FBP network, in PyTorch, as in Branchut (2024).

Mini-batches in a new random order every epoch, mean square error, float32. An epoch's order depends on the seed and the
epoch alone, so a training that goes on from a checkpoint takes the very same steps.

References
----------
.. [1] D. P. Kingma and J. Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, arXiv:1412.6980.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nntomo_dask.networks.nnfbp import Form
from nntomo_dask.types import Float32, Float64

_BATCHES_PER_PAUSE = 2000  # after so many the state is handed out, so that a checkpoint can be made within an epoch


@dataclass
class State:
    """All that the next step depends on."""

    parameters: Float32
    mean: Float32  # of the gradient
    square: Float32  # mean of its square
    epoch: int
    batch: int  # steps taken in this epoch; 0 when the one before is complete
    squares: float  # rᵀr over the batches of this epoch so far
    loss: float  # mean square error over the last complete epoch, each batch before its own step


def start(parameters: Float64) -> State:
    """State before the first step."""
    vector = parameters.astype(np.float32)
    return State(vector, np.zeros_like(vector), np.zeros_like(vector), 0, 0, 0.0, np.inf)


def iterate(
    state: State,
    inputs: Float64,
    targets: Float64,
    form: Form,
    *,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> Iterator[State]:
    """Yield the state at the end of each epoch (`batch` is 0) and every few seconds within one; without end."""
    x = torch.from_numpy(inputs.astype(np.float32))
    y = torch.from_numpy(targets.astype(np.float32))
    parameters = torch.from_numpy(state.parameters.copy()).requires_grad_()
    optimizer = torch.optim.Adam([parameters], lr=learning_rate)
    n_batches = -(-len(y) // batch_size)
    epoch, batch, squares = state.epoch, state.batch, state.squares
    optimizer.state[parameters] = {
        "step": torch.tensor(float(epoch * n_batches + batch)),
        "exp_avg": torch.from_numpy(state.mean.copy()),
        "exp_avg_sq": torch.from_numpy(state.square.copy()),
    }
    loss = state.loss
    while True:
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(y)))
        while batch < n_batches:
            chosen = order[batch * batch_size : (batch + 1) * batch_size]
            optimizer.zero_grad()
            residual = forward(parameters, x[chosen], form) - y[chosen]
            error = residual.square().mean()
            error.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            squares += float(error.detach()) * len(chosen)
            batch += 1
            if batch % _BATCHES_PER_PAUSE == 0 and batch < n_batches:
                yield _snapshot(parameters, optimizer, epoch, batch, squares, loss)
        epoch, batch, loss, squares = epoch + 1, 0, squares / len(y), 0.0
        yield _snapshot(parameters, optimizer, epoch, batch, squares, loss)


def forward(parameters: torch.Tensor, inputs: torch.Tensor, form: Form) -> torch.Tensor:
    """Output (voxel,) of the network whose parameters lie as `form` says."""
    sizes = [int(np.prod(shape)) for shape in form.shapes.values()]
    parts = {
        name: part.reshape(shape)
        for (name, shape), part in zip(form.shapes.items(), torch.split(parameters, sizes), strict=True)
    }
    activate = torch.relu if form.activation == "relu" else torch.sigmoid
    active = activate(inputs @ parts["hidden_weights"] - parts["hidden_bias"])
    if form.n_second:
        active = activate(active @ parts["second_weights"] - parts["second_bias"])
    output = active @ parts["output_weights"] - parts["output_bias"][0]
    return output if form.output == "linear" else torch.sigmoid(output)


def _snapshot(
    parameters: torch.Tensor, optimizer: torch.optim.Adam, epoch: int, batch: int, squares: float, loss: float
) -> State:
    moments = optimizer.state[parameters]
    return State(
        parameters.detach().numpy().copy(),
        moments["exp_avg"].numpy().copy(),
        moments["exp_avg_sq"].numpy().copy(),
        epoch,
        batch,
        squares,
        loss,
    )


def to_arrays(state: State) -> dict[str, Any]:
    """The state as arrays, for a checkpoint."""
    scalars = np.array([state.epoch, state.batch, state.squares, state.loss])
    return {"parameters": state.parameters, "mean": state.mean, "square": state.square, "scalars": scalars}


def from_arrays(arrays: dict[str, Any]) -> State:
    """Inverse of `to_arrays`."""
    epoch, batch, squares, loss = arrays["scalars"]
    return State(
        arrays["parameters"], arrays["mean"], arrays["square"], int(epoch), int(batch), float(squares), float(loss)
    )
