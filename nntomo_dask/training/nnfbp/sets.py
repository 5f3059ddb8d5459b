"""A training set as the solver sees it: in memory, or read chunk by chunk from where it is stored.

Either way a set gives totals over its leaves, see `tree`, of the same bits. In memory it stays as it came,
float32; leaves are scaled when they are used.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import compute
from dask.delayed import Delayed, delayed

from nntomo_dask.compute import blas, limits
from nntomo_dask.compute.chunking import TABLE_ROWS
from nntomo_dask.errors import refuse
from nntomo_dask.networks.nnfbp import scale_inputs
from nntomo_dask.training.nnfbp import samples as samples_room, tree
from nntomo_dask.types import Float64, Integers

Array = npt.NDArray[Any]
Value = TypeVar("Value")
Leaf = Callable[[Array, Array], Value]  # of inputs (voxel, input) and targets (voxel,), unscaled, of one leaf

IN_MEMORY_VOXELS = 2**20  # a lazy set up to this size is loaded, at most 100 MB; a larger one is read again and again
_FAN_IN = 8  # partial sums that one task joins


@dataclass(frozen=True)
class Scaling:
    """Ranges that become [-1, 1] in the inputs and [0, 1] in the targets."""

    input_low: Float64
    input_high: Float64
    target_low: float
    target_high: float

    def inputs(self, values: Array) -> Float64:
        """Scaled (voxel, input)."""
        return scale_inputs(values, self.input_low, self.input_high)

    def targets(self, values: Array) -> Float64:
        """Scaled (voxel,)."""
        return np.asarray((values.astype(float) - self.target_low) / (self.target_high - self.target_low))


def scaled(inputs: Array, targets: Array, scaling: Scaling | None) -> tuple[Float64, Float64]:
    """Inputs (input, voxel), neighbours in memory those of one input, and targets (voxel,) of a leaf, scaled."""
    x = inputs.T.astype(np.float64, order="C")
    if scaling is None:
        return x, targets.astype(np.float64)
    low, high = scaling.input_low[:, None], scaling.input_high[:, None]
    x -= low  # the bits of Scaling.inputs, without its intermediate arrays
    x /= np.where(high > low, high - low, 1) / 2
    x -= 1
    return x, scaling.targets(targets)


@dataclass(frozen=True)
class InMemory:
    """Inputs (voxel, input) and targets (voxel,) as arrays; `scaling` is None where they are scaled already."""

    inputs: Array
    targets: Array
    scaling: Scaling | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Voxels and inputs."""
        return self.inputs.shape[0], self.inputs.shape[1]

    def total(self, leaf: Leaf[Value], join: tree.Join[Value]) -> Value:
        """The values of all leaves joined, made by as many threads as there are cores."""

        def node(index: int) -> tree.Node[Value]:
            voxels = tree.voxels_of(index)
            return index, 1, leaf(self.inputs[voxels], self.targets[voxels])

        threads = limits.cores()
        with blas.one_thread(), ThreadPoolExecutor(threads) as pool:
            nodes = _in_order(pool, node, range(tree.leaves_of(len(self.targets))), ahead=2 * threads)
            return tree.root(nodes, join)

    def rows(self, voxels: Integers) -> "InMemory":
        """A set of some voxels, in their order."""
        return InMemory(self.inputs[voxels], self.targets[voxels], self.scaling)


@dataclass(frozen=True)
class Chunked:
    """The same over Dask arrays; one task reads a chunk and gives its part of a total."""

    inputs: da.Array
    targets: da.Array
    scaling: Scaling | None = None

    @classmethod
    def of(cls, inputs: da.Array, targets: da.Array) -> "Chunked":
        """A set in equal chunks of whole leaves: those of the arrays, where they are such."""
        chunks = inputs.chunks[0]
        suits = len(set(chunks[:-1])) <= 1 and chunks[0] % tree.LEAF_VOXELS == 0 and chunks[0] >= TABLE_ROWS
        size = int(chunks[0]) if suits and chunks[-1] <= chunks[0] else TABLE_ROWS
        return cls(inputs.rechunk((size, -1)), targets.rechunk(size))

    @property
    def shape(self) -> tuple[int, int]:
        """Voxels and inputs."""
        return self.inputs.shape[0], self.inputs.shape[1]

    def total(self, leaf: Leaf[Value], join: tree.Join[Value]) -> Value:
        """The values of all leaves joined, by Dask, wherever it computes now."""
        leaves = tree.leaves_of(self.shape[0])
        parts = da.blockwise(
            _chunk_nodes,
            "vi",
            self.inputs,
            "vi",
            self.targets,
            "v",
            da.arange(leaves, chunks=tree.leaves_of(self.targets.chunks[0][0])),
            "v",
            leaf=leaf,
            join=join,
            align_arrays=False,
            dtype=object,
            meta=np.empty((0, 0), object),
        )
        nodes: list[Delayed] = parts.to_delayed().ravel().tolist()  # optimised: what reads a chunk is in its task
        while len(nodes) > 1:
            groups = [nodes[first : first + _FAN_IN] for first in range(0, len(nodes), _FAN_IN)]
            nodes = [delayed(_joined)(group, join) for group in groups]
        with blas.one_thread():
            (whole,) = compute(*nodes)
        value: Value = tree.root(whole, join)
        return value

    def rows(self, voxels: Integers) -> InMemory:
        """A set of some voxels, in their order."""
        order = np.argsort(voxels)
        starts = np.concatenate([[0], np.cumsum(self.targets.chunks[0])])
        bounds = np.searchsorted(voxels[order], starts)
        of_chunks = zip(self.inputs.to_delayed()[:, 0], self.targets.to_delayed(), strict=True)
        tasks = [
            delayed(_chosen)(inputs, targets, voxels[order[begin:end]] - start)
            for (inputs, targets), start, begin, end in zip(of_chunks, starts, bounds, bounds[1:], strict=False)
            if end > begin
        ]
        inputs, targets = (np.concatenate(values) for values in zip(*compute(*tasks), strict=True))
        places = np.argsort(order)
        return InMemory(inputs[places], targets[places], self.scaling)


Samples = InMemory | Chunked


class Summary(NamedTuple):
    """What a training must know of a set beforehand."""

    finite: bool
    input_low: Float64
    input_high: Float64
    target_low: float
    target_high: float
    digest: bytes  # of all values in order, whatever their type


def summary(samples: Samples) -> Summary:
    """Ranges and digest of a set, in one pass."""
    return samples.total(_leaf_summary, _join_summaries)


def load(training: xr.Dataset, validation: xr.Dataset) -> tuple[Samples, Samples, float]:
    """Both sets and the level of the first, lazy ones of moderate size computed: in one go, what they share once.

    Raises
    ------
    SchemaError
        A set is too large to be loaded and would have to be sampled anew in every iteration.
    """
    datasets = (training, validation)
    for dataset in datasets:
        _check_stored(dataset)
    arrays = [(dataset["inputs"].data, dataset["target"].data) for dataset in datasets]
    wanted = [() if is_large(dataset) else pair for dataset, pair in zip(datasets, arrays, strict=True)]
    *computed, level = compute(*wanted, training["level"].data)
    first, second = (
        InMemory(*loaded) if loaded else Chunked.of(*pair) for loaded, pair in zip(computed, arrays, strict=True)
    )
    return first, second, float(level)


def is_large(dataset: xr.Dataset) -> bool:
    """Whether a set is lazy and too large to be loaded."""
    lazy = all(isinstance(dataset[name].data, da.Array) for name in ("inputs", "target"))
    return lazy and dataset.sizes[samples_room.VOXEL] > IN_MEMORY_VOXELS


def _check_stored(dataset: xr.Dataset) -> None:
    """Raise a SchemaError where each pass over a large set would make its phantoms and project them again."""
    if is_large(dataset) and samples_room.would_be_sampled(dataset):
        voxels = dataset.sizes[samples_room.VOXEL]
        refuse(
            "train_nnfbp",
            needs=f"a set of more than {IN_MEMORY_VOXELS} voxels in a store, since every iteration reads it",
            got=f"{voxels} voxels that every iteration would sample anew",
            remedy="train on what nt.save(samples, path) returns",
        )


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[int], Value], items: Iterable[int], *, ahead: int
) -> Iterator[Value]:
    """Results of `function` in the order of the items; at most `ahead` wait to be taken."""
    waiting: deque[Future[Value]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _chunk_nodes(
    inputs: Array, targets: Array, leaves: Integers, *, leaf: Leaf[Value], join: tree.Join[Value]
) -> list[tree.Node[Value]]:
    """The nodes of one chunk, given the indices of its leaves."""
    with blas.one_thread():
        chunk = (tree.voxels_of(index) for index in range(len(leaves)))
        parts = (leaf(inputs[voxels], targets[voxels]) for voxels in chunk)
        return tree.run(((int(index), 1, part) for index, part in zip(leaves, parts, strict=True)), join)


def _joined(parts: list[list[tree.Node[Value]]], join: tree.Join[Value]) -> list[tree.Node[Value]]:
    return tree.run((node for part in parts for node in part), join)


def _chosen(inputs: Array, targets: Array, voxels: Integers) -> tuple[Array, Array]:
    return inputs[voxels], targets[voxels]


def _leaf_summary(inputs: Array, targets: Array) -> Summary:
    state = hashlib.sha256(np.ascontiguousarray(inputs, np.float64).data)
    state.update(np.ascontiguousarray(targets, np.float64).data)
    return Summary(
        finite=bool(np.isfinite(inputs).all() and np.isfinite(targets).all()),
        input_low=inputs.min(axis=0).astype(float),
        input_high=inputs.max(axis=0).astype(float),
        target_low=float(targets.min()),
        target_high=float(targets.max()),
        digest=state.digest(),
    )


def _join_summaries(left: Summary, right: Summary) -> Summary:
    return Summary(
        finite=left.finite and right.finite,
        input_low=np.minimum(left.input_low, right.input_low),
        input_high=np.maximum(left.input_high, right.input_high),
        target_low=min(left.target_low, right.target_low),
        target_high=max(left.target_high, right.target_high),
        digest=hashlib.sha256(left.digest + right.digest).digest(),
    )
