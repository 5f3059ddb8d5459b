"""Training on sets that are read chunk by chunk: the bits of the same sets in memory, and memory for a few chunks."""

import itertools
import json
import subprocess
import sys

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from dask.callbacks import Callback

import nntomo_dask as nt
from nntomo_dask.networks.nnfbp import Form
from nntomo_dask.training import checkpoints, loop
from nntomo_dask.training.nnfbp import levenberg_marquardt, sets, solvers, tree

LEAF = tree.LEAF_VOXELS
VOXELS = 13 * LEAF + 77  # fourteen leaves, the last one small: no power of two


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(3)
    inputs = rng.normal(2, 3, (VOXELS, 5)).astype(np.float32)
    targets = np.tanh(inputs[:, 0] * inputs[:, 1] / 9) + 0.1 * rng.normal(size=VOXELS)
    return inputs, targets.astype(np.float32)


@pytest.fixture(scope="module")
def scaling(arrays):
    found = sets.summary(sets.InMemory(*arrays))
    return sets.Scaling(found.input_low, found.input_high, found.target_low, found.target_high)


@pytest.fixture
def large(trained, monkeypatch):
    """What is larger than 1000 voxels is large; a function that makes one of the shared sets lazy."""
    monkeypatch.setattr(sets, "IN_MEMORY_VOXELS", 1000)
    monkeypatch.setattr(solvers, "_STARTS", 2)
    monkeypatch.setattr(sets, "TABLE_ROWS", 1024)
    monkeypatch.setattr(tree, "LEAF_VOXELS", 512)  # so that small sets have many leaves

    def lazy(dataset, chunk):
        return dataset.chunk({"voxel": chunk})

    return lazy


@pytest.fixture
def cluster(tmp_path):
    """Two processes, as `dask worker` starts them."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            local_directory=tmp_path,
        ) as workers,
        Client(workers) as client,
    ):
        yield client


def chunked(arrays, chunks):
    return sets.Chunked.of(da.from_array(arrays[0], chunks=(chunks, 2)), da.from_array(arrays[1], chunks=chunks))


CHUNKS = {
    "eight leaves": 8 * LEAF,
    "nine leaves, which are no subtree": 9 * LEAF,
    "one piece": VOXELS,
    "small": 5000,
    "odd": 70_001,
    "irregular": (30_000, 1, VOXELS - 30_001),
}


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_sums_have_the_same_bits_in_any_chunks(arrays, scaling, rng, chunks, activation):
    form = Form(5, 3, activation)
    parameters = rng.standard_normal(form.count)
    expected = levenberg_marquardt.normal_equations(parameters, sets.InMemory(*arrays, scaling), form)
    cut = chunked(arrays, chunks)
    got = levenberg_marquardt.normal_equations(parameters, sets.Chunked(cut.inputs, cut.targets, scaling), form)
    for one, other in zip(expected, got, strict=True):
        np.testing.assert_array_equal(one, other)
    squares = [
        levenberg_marquardt.sum_of_squares(parameters, samples, form)
        for samples in (sets.InMemory(*arrays, scaling), sets.Chunked(cut.inputs, cut.targets, scaling))
    ]
    assert squares[0] == squares[1] == expected[2]


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_ranges_and_rows_are_the_same_in_any_chunks(arrays, rng, chunks):
    cut = chunked(arrays, chunks)
    first, second = sets.summary(sets.InMemory(*arrays)), sets.summary(cut)
    assert first.digest == second.digest
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(first.input_low, arrays[0].min(axis=0))
    assert first.target_high == arrays[1].max()
    voxels = rng.choice(VOXELS, 500, replace=False)
    rows = cut.rows(voxels)
    np.testing.assert_array_equal(rows.inputs, arrays[0][voxels])
    np.testing.assert_array_equal(rows.targets, arrays[1][voxels])


def test_digest_is_of_every_value_and_its_place(arrays):
    digest = sets.summary(sets.InMemory(*arrays)).digest
    assert sets.summary(sets.InMemory(arrays[0].astype(float), arrays[1])).digest == digest
    for index in (0, VOXELS - 1):
        inputs, targets = (array.copy() for array in arrays)
        inputs[index, 4] += 1
        targets[index] += 1
        assert sets.summary(sets.InMemory(inputs, arrays[1])).digest != digest
        assert sets.summary(sets.InMemory(arrays[0], targets)).digest != digest
    swapped = [np.concatenate([array[LEAF : 2 * LEAF], array[:LEAF], array[2 * LEAF :]]) for array in arrays]
    assert sets.summary(sets.InMemory(*swapped)).digest != digest


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 13])
def test_the_tree_does_not_depend_on_who_joins(count, rng):
    """A join that keeps the brackets: all groupings of leaves into runs give the brackets of the tree."""

    def join(left, right):
        return f"({left} {right})"

    nodes = [(index, 1, str(index)) for index in range(count)]
    whole = tree.root(nodes, join)
    assert {1: "0", 2: "(0 1)", 3: "((0 1) 2)", 7: "(((0 1) (2 3)) ((4 5) 6))"}.get(count, whole) == whole
    for _ in range(20):
        bounds = [0, *sorted(rng.integers(0, count + 1, 3).tolist()), count]
        runs = [tree.run(nodes[low:high], join) for low, high in itertools.pairwise(bounds)]
        assert all(len(run) <= 2 * count.bit_length() for run in runs)
        half = tree.run([node for run in runs[:2] for node in run], join)
        assert tree.root([*half, *(node for run in runs[2:] for node in run)], join) == whole


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_a_chunked_training_gives_the_same_network(trained, large, activation, scheduler):
    _, training, validation = trained
    settings = {"activation": activation, "max_epochs": 3, "seed": 3, "progress": "none", "solver": "lm"}
    expected = nt.train_nnfbp(training, validation, **settings)
    with dask.config.set(scheduler=scheduler, num_workers=3):
        for chunks in ((1024, 5000), (700, 768)):
            got = nt.train_nnfbp(large(training, chunks[0]), large(validation, chunks[1]), **settings)
            assert got.digest == expected.digest
            assert got.recipe["outcome"] == expected.recipe["outcome"]


def test_a_cluster_gives_the_same_network(arrays, scaling, rng, trained, cluster):
    """Whole leaves on other processes; there, nothing of this process is patched."""
    for activation in ("relu", "sigmoid"):
        form = Form(5, 3, activation)
        parameters = rng.standard_normal(form.count)
        memory, chunks = sets.InMemory(*arrays, scaling), chunked(arrays, 3 * LEAF)
        expected = levenberg_marquardt.normal_equations(parameters, memory, form)
        got = levenberg_marquardt.normal_equations(
            parameters, sets.Chunked(chunks.inputs, chunks.targets, scaling), form
        )
        for one, other in zip(expected, got, strict=True):
            np.testing.assert_array_equal(one, other)
    assert cluster.scheduler_info()["workers"]


def test_a_cluster_trains_the_same_network(trained, cluster, monkeypatch):
    _, training, validation = trained
    many = xr.concat([training] * 4, "voxel", data_vars="minimal").assign_attrs(training.attrs)  # three leaves
    settings = {"max_epochs": 3, "progress": "none", "solver": "lm"}
    with dask.config.set(scheduler="threads"):
        expected = nt.train_nnfbp(many, validation, **settings)
    monkeypatch.setattr(sets, "IN_MEMORY_VOXELS", 1000)
    monkeypatch.setattr(sets, "TABLE_ROWS", LEAF)
    assert nt.train_nnfbp(many.chunk(voxel=LEAF), validation.chunk(voxel=999), **settings).digest == expected.digest


@pytest.mark.parametrize("order", ["memory first", "chunks first"])
def test_a_checkpoint_goes_on_on_the_other_path(trained, large, tmp_path, monkeypatch, order):
    _, training, validation = trained
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    lazy = (large(training, 512), large(validation, 768))
    first, second = ((training, validation), lazy) if order == "memory first" else (lazy, (training, validation))
    settings = {"max_epochs": 6, "progress": "none", "solver": "lm"}
    whole = nt.train_nnfbp(training, validation, **settings)

    class StopError(Exception):
        pass

    def save_and_stop(self, path, save=checkpoints.Checkpoint.save):
        save(self, path)
        if len(self.losses) == 3:
            raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoint, "save", save_and_stop)
        with pytest.raises(StopError):
            nt.train_nnfbp(*first, checkpoint=tmp_path / "c", **settings)
    resumed = nt.train_nnfbp(*second, checkpoint=tmp_path / "c", **settings)
    assert resumed.digest == whole.digest
    other = second[0].assign(target=1 - second[0].target)
    with pytest.raises(nt.SchemaError, match="got others of the same recipe"):
        nt.train_nnfbp(other, second[1], checkpoint=tmp_path / "c", **settings)


def test_starting_points_of_a_large_set_need_no_permutation(trained, large, monkeypatch):
    """Where voxels are drawn without one, both paths draw the same."""
    _, training, validation = trained
    monkeypatch.setattr(solvers, "_PERMUTED_VOXELS", 1000)
    monkeypatch.setattr(solvers, "_START_VOXELS", 600)
    settings = {"max_epochs": 2, "progress": "none", "solver": "lm"}
    expected = nt.train_nnfbp(training, validation, **settings)
    assert nt.train_nnfbp(large(training, 512), validation, **settings).digest == expected.digest


def test_a_large_set_that_is_not_stored_is_refused(large, nothing_computes):
    volume = nt.ellipse_stack((12, 32, 32), seed=1)
    pair = nt.project(volume, nt.tilt_angles("tem", 8)), volume
    small, too_large = (nt.training_samples(*pair, n_samples=count) for count in (1000, 1001))
    for samples in ((too_large, small), (small, too_large)):
        with pytest.raises(
            nt.SchemaError, match=r"more than 1000 voxels in a store.*got 1001 .*try: train on what nt\.save\(samples"
        ):
            nt.train_nnfbp(*samples, solver="lm")
    changed = too_large.assign(target=too_large.target * 2).chunk(voxel=100)
    with pytest.raises(nt.SchemaError, match="that every iteration would sample anew"):
        nt.train_nnfbp(changed, small, solver="lm")
    with pytest.raises(AssertionError, match="something was computed"):
        nt.train_nnfbp(small, small, solver="lm")


@pytest.mark.extra("torch")
def test_adam_refuses_a_large_lazy_set(trained, large):
    _, training, validation = trained
    settings = {"solver": "adam", "max_epochs": 1, "progress": "none"}
    with pytest.raises(nt.SchemaError, match=r'needs a training set in memory for adam, .*got a lazy .*solver="lm"'):
        nt.train_nnfbp(large(training, 512), validation, **settings)
    expected = nt.train_nnfbp(training, validation, **settings)
    assert nt.train_nnfbp(training, large(validation, 512), **settings).digest == expected.digest


def test_bad_values_in_a_large_set_are_refused(trained, large):
    _, training, validation = trained
    for name in ("inputs", "target"):
        bad = large(training, 512).copy()
        values = training[name].values.copy()
        values[-1] = np.inf
        bad[name] = bad[name].copy(data=da.from_array(values, chunks=512))
        with pytest.raises(nt.SchemaError, match="needs finite samples"):
            nt.train_nnfbp(bad, validation, solver="lm")
        with pytest.raises(nt.SchemaError, match="needs finite samples"):
            nt.train_nnfbp(training, bad, solver="lm")


def test_a_task_reads_its_chunk_and_few_sums_wait(arrays, large, monkeypatch):
    """Of 105 chunks none is held between two tasks, and only as many partial sums as the joining tree has branches."""
    taken, held = [], []

    def observed(inputs, targets, leaves, *, leaf, join, original=sets._chunk_nodes):
        taken.append((inputs.shape, targets.shape, leaves.shape))
        return original(inputs, targets, leaves, leaf=leaf, join=join)

    def posttask(_key, _result, _graph, state, _worker):
        waiting = list(state["cache"].values())
        assert not any(isinstance(value, np.ndarray) and value.dtype == np.float32 for value in waiting)
        held.append(sum(isinstance(value, list) for value in waiting))

    monkeypatch.setattr(sets, "_chunk_nodes", observed)
    index = da.arange(VOXELS, chunks=1024)
    inputs = index.map_blocks(lambda rows: arrays[0][rows], new_axis=1, chunks=(*index.chunks, (5,)), dtype=np.float32)
    cut = sets.Chunked.of(inputs, index.map_blocks(lambda rows: arrays[1][rows], dtype=np.float32))
    with dask.config.set(scheduler="synchronous"), Callback(posttask=posttask):
        levenberg_marquardt.sum_of_squares(np.zeros(Form(5, 3).count), cut, Form(5, 3))
    assert len(taken) == -(-VOXELS // 1024) == 105
    assert set(taken[:-1]) == {((1024, 5), (1024,), (2,))}
    assert max(held) <= 25  # three levels of eight, and the one that was just made


# Peak resident memory of a training, above that of the imports and a first pass over a small part.
SCRIPT = """
import resource, sys, json
import dask, dask.array as da, numpy as np
from nntomo_dask.networks.nnfbp import Form
from nntomo_dask.training.nnfbp import levenberg_marquardt, sets
voxels, inputs = int(sys.argv[1]), 11
def random(block, count):
    start = int(block[0])
    return np.random.default_rng(start).random((len(block), count), np.float32)
def samples(voxels):
    index = da.arange(voxels, chunks=65536)
    x = index.map_blocks(random, count=inputs, new_axis=1, chunks=(index.chunks[0], (inputs,)), dtype=np.float32)
    t = index.map_blocks(random, count=inputs, new_axis=1, chunks=(index.chunks[0], (inputs,)), dtype=np.float32)[:, 0]
    return sets.Chunked.of(x, t)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def train(part):
    found = sets.summary(part)
    scaling = sets.Scaling(found.input_low, found.input_high, found.target_low, found.target_high)
    part = sets.Chunked(part.inputs, part.targets, scaling)
    part.rows(np.arange(0, part.shape[0], part.shape[0] // 1000))
    levenberg_marquardt.normal_equations(np.full(Form(inputs, 8).count, 0.1), part, Form(inputs, 8))
with dask.config.set(scheduler="threads", num_workers=2):
    train(samples(3 * 65536))
    before = peak()
    train(samples(voxels))
print(json.dumps([before, peak()]))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_set():
    voxels = 40 * 65536  # 126 MB as float32
    run = subprocess.run([sys.executable, "-c", SCRIPT, str(voxels)], check=True, capture_output=True, text=True)
    before, after = json.loads(run.stdout)
    # The first pass, over three chunks, had two in work already; a third of the set would show.
    assert after - before < voxels * 12 * 4 / 3
