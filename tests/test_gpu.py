"""Whole operations on a GPU, or on the stand-in that runs the CUDA sources on the CPU, against the CPU's own."""

import importlib.util
import math
import sys
import threading
import tracemalloc
import types

import dask
import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.arrays import slabs
from nntomo_dask.compute import device, streams
from nntomo_dask.networks.nnfbp_layout import InputLayout
from nntomo_dask.projection import project as projecting
from tests.conftest import ANGLES_DEG
from tests.test_nnfbp import random_network

pytestmark = pytest.mark.filterwarnings("ignore:nnfbp")  # the network is random, see below
ON_GPU = {"nntomo_dask.device": "gpu"}


@pytest.fixture(params=["cuda_on_cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request):
    """The stand-in for CuPy, or CuPy itself."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def network(rng, series):
    return random_network(rng, InputLayout(tuple(series.angle.values), series.sizes["detector"]))


OPERATIONS = {
    "project": lambda series, volume, network: nt.project(volume, ANGLES_DEG),
    "backproject": lambda series, volume, network: nt.backproject(series),
    "fbp": lambda series, volume, network: nt.fbp(series, window="hann"),
    "complete": lambda series, volume, network: nt.fbp(nt.complete_wedge(series)),
    "sirt": lambda series, volume, network: nt.sirt(series, tolerance=0.02),
    "sirt, non-negative": lambda series, volume, network: nt.sirt(series, minimum=0, max_iterations=9),
    "nnfbp": lambda series, volume, network: nt.nnfbp(series, network, scale=1, consistency="none"),
    "nnfbp, scaled": lambda series, volume, network: nt.nnfbp(series, network, consistency="none"),
    "nnfbp, consistent": lambda series, volume, network: nt.nnfbp(series, network, scale=1, consistency=5.0),
    "project, off the middle": lambda series, volume, network: nt.project(
        volume.assign_coords(x=volume.x + 3, y=volume.y - 2.25), ANGLES_DEG
    ),
    "fbp, off the middle": lambda series, volume, network: nt.fbp(aside(series)),
    "complete, off the middle": lambda series, volume, network: nt.fbp(nt.complete_wedge(aside(series))),
    "sirt, off the middle": lambda series, volume, network: nt.sirt(aside(series), max_iterations=9),
    "nnfbp, off the middle": lambda series, volume, network: nt.nnfbp(
        aside(series), network, scale=1, consistency="none"
    ),
    "nnfbp, in another order": lambda series, volume, network: nt.nnfbp(
        series.isel(angle=slice(None, None, -1)), network, scale=1, consistency="none"
    ),
}


def aside(series):
    """The series with its tilt axis 3.4 pixels from the middle."""
    return series.assign_coords(detector=series.detector - 3.4)


operations = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


def close(actual, expected):
    """Sums of hundreds of products, tens of iterations: 1e-5 of the largest value in single precision."""
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


@operations
def test_a_gpu_gives_what_the_cpu_gives(cupy, series, volume, network, operation):
    expected = operation(series, volume, network).values
    with dask.config.set(ON_GPU):
        actual = operation(series, volume, network).values
    close(actual, expected)
    assert getattr(cupy, "launches", True)


def on_gpu(cupy, array, *, slices=4):
    """The same array with its blocks on the GPU."""
    data = array.chunk(z=slices).data.map_blocks(cupy.asarray)
    return array.copy(data=data)


@operations
def test_cupy_blocks_stay_on_the_gpu(cupy, series, volume, network, operation):
    expected = operation(series, volume, network).values
    lazy = operation(on_gpu(cupy, series), on_gpu(cupy, volume), network).data
    blocks = [lazy.blocks[index].compute() for index in range(lazy.numblocks[0])]
    assert len(blocks) == 3
    assert all(isinstance(block, cupy.ndarray) for block in blocks)
    close(np.concatenate([device.to_host(block) for block in blocks]), expected)


def test_what_a_network_learns_from_comes_from_cupy_blocks_too(cupy, series, volume, network):
    arguments = {"n_samples": 500, "seed": 3}
    expected = nt.training_samples(series, volume, **arguments)
    for truth in (volume, on_gpu(cupy, volume)):
        actual = nt.training_samples(on_gpu(cupy, series), truth, **arguments)
        for name in ("inputs", "target"):
            close(device.to_host(actual[name].data.compute()), expected[name].values)
    host_rows = nt.training_samples(series, on_gpu(cupy, volume), **arguments)
    close(host_rows["target"].values, expected["target"].values)
    close(
        nt.outside_training_range(on_gpu(cupy, series), network).values,
        nt.outside_training_range(series, network).values,
    )
    level = float(nt.intensity_level(on_gpu(cupy, series)))
    assert level == pytest.approx(float(nt.intensity_level(series)), rel=1e-4)


@pytest.mark.parametrize("operation", ["project", "backproject", "fbp", "sirt"])
def test_astra_takes_no_cupy_blocks(cuda_on_cpu, series, volume, operation):
    series, volume = on_gpu(cuda_on_cpu, series), on_gpu(cuda_on_cpu, volume)
    arguments = {"project": (volume, ANGLES_DEG)}.get(operation, (series,))
    with pytest.raises(nt.SchemaError, match=f'{operation} with engine="astra": needs blocks in host memory'):
        getattr(nt, operation)(*arguments, engine="astra").compute()


@pytest.fixture
def many_slices(rng):
    """70 slices: two lane groups, and a third that is not full."""
    data = rng.random((70, 8, 12), np.float32)
    data[33] = 0
    return nt.tilt_series(data, nt.tilt_angles("tem", 8)).chunk(z=70)


def device_bytes_per_slice(operation, shape, network=None):
    """What an operation says of itself; `operation` is a name of `OPERATIONS`."""
    name = operation.partition(",")[0]
    if name not in nt.METHODS:
        return projecting.device_bytes_per_slice(shape)
    method = nt.METHODS[name]
    return (method() if method.network is None else method(networks=(network,))).device_bytes_per_slice(shape)


def test_little_memory_changes_nothing(cupy, many_slices):
    """Groups of 32 slices; SIRT and projection bit for bit, so a slice stops at the same iteration."""
    need = nt.METHODS["sirt"]().device_bytes_per_slice((32, 8, 12)) * 32 / streams._SHARE
    used = cupy.get_default_memory_pool().used_bytes()
    with dask.config.set({**ON_GPU, "nntomo_dask.gpu_memory": int(need) + used + 1024}):
        few = nt.sirt(many_slices, tolerance=0.005).values
    with dask.config.set(ON_GPU):
        many = nt.sirt(many_slices, tolerance=0.005).values
    np.testing.assert_array_equal(few, many)
    close(few, nt.sirt(many_slices, tolerance=0.005).values)


@pytest.mark.parametrize("operation", ["fbp", "sirt", "nnfbp", "project", "backproject"])
def test_too_little_memory_is_refused(cupy, series, volume, network, operation):
    """Two bytes too few, for rounding; what the pool has given out already takes more of them."""
    shape = (series.sizes["z"], ANGLES_DEG.size if operation == "project" else series.sizes["angle"], 32)
    need = 32 * device_bytes_per_slice(operation, shape, network) / streams._SHARE
    with (
        dask.config.set({**ON_GPU, "nntomo_dask.gpu_memory": math.ceil(need) - 2}),
        pytest.raises(
            nt.SchemaError, match=rf"{operation}: needs [1-9] MiB of GPU memory, for 32 slices at once; got \d MiB"
        ),
    ):
        OPERATIONS[operation](series, volume, network).compute()


@pytest.mark.parametrize("operation", ["project", "backproject", "fbp", "sirt, non-negative", "nnfbp"])
def test_the_bytes_of_a_slice_are_enough_for_the_arrays(cuda_on_cpu, monkeypatch, rng, operation):
    """All that lives at once while 32 slices are computed, by the stand-in's arrays; and no more than needed."""
    series = nt.tilt_series(rng.random((32, 8, 96), np.float32), nt.tilt_angles("tem", 8))
    volume = nt.volume(rng.random((32, 96, 96), np.float32))
    network = random_network(rng, InputLayout(tuple(series.angle.values), 96))
    inputs = (slabs.lazy(array).chunk(z=32) for array in (series, volume))
    lazy = OPERATIONS[operation](*(on_gpu(cuda_on_cpu, array, slices=32) for array in inputs), network).data
    on_the_host = "nntomo_dask.reconstruction.training_range.figures_of"
    monkeypatch.setattr(on_the_host, lambda *_, **__: np.zeros((2, 1, 32), np.float32))
    lazy.compute()  # compiles, and keeps what is kept
    tracemalloc.start()
    lazy.compute()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    shape = (32, ANGLES_DEG.size if operation == "project" else 8, 96)
    predicted = 32 * device_bytes_per_slice(operation, shape, network)
    assert 0.4 * predicted < peak < predicted


@pytest.mark.gpu
def test_the_bytes_of_a_slice_are_enough(gpu, rng):
    """The pool holds no more than was reckoned with."""
    series = nt.tilt_series(rng.random((96, 9, 256), np.float32), nt.tilt_angles("tem", 9)).chunk(z=96)
    pool = gpu.get_default_memory_pool()
    gpu.cuda.set_allocator(pool.malloc)
    for operation in ("fbp", "sirt", "backproject"):
        pool.free_all_blocks()
        before = pool.total_bytes()
        with dask.config.set(ON_GPU):
            getattr(nt, operation)(series).compute()
        # A new size is rounded up to 512 bytes, and a transform's plan may keep a little.
        assert pool.total_bytes() - before <= 32 * device_bytes_per_slice(operation, (32, 9, 256)) + 2**22


@pytest.mark.gpu
def test_torch_and_cupy_share_a_pool(gpu):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    assert device.use_one_pool() == "torch"
    before = torch.cuda.memory_allocated()
    array = gpu.ones(2**20, np.float32)
    assert torch.cuda.memory_allocated() - before >= array.nbytes
    assert float(array.sum()) == 2**20
    del array
    assert torch.cuda.memory_allocated() == before
    gpu.cuda.set_allocator(gpu.get_default_memory_pool().malloc)


# The flow of groups, with functions that need no kernel.


def limited(cupy, monkeypatch, size):
    """Free memory for `size` slices of one byte."""
    monkeypatch.setattr(device, "free_bytes", lambda: size / streams._SHARE + 1)


@pytest.mark.parametrize(("size", "groups"), [(32, 7), (64, 4), (96, 4), (10**6, 4)])
def test_groups_go_through_in_order(cupy, monkeypatch, rng, size, groups):
    limited(cupy, monkeypatch, size)
    slab, seen = rng.random((200, 3, 5), np.float32), []

    def function(block):
        assert device.is_on_gpu(block)
        seen.append(len(block))
        return block[:, :, :2] * 2

    with dask.config.set(ON_GPU):
        result = streams.streamed(function, slab, slice_bytes=1, who="test")
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(result, 2 * slab[:, :, :2])
    assert sum(seen) == 200
    assert len(seen) == groups
    assert all(count % 32 == 0 for count in seen[:-1])


@pytest.mark.parametrize("eager", ["none", "upload", "compute", "download"])
@pytest.mark.parametrize("groups", [1, 2, 3, 4, 7])
def test_nothing_overtakes_what_it_depends_on(cuda_on_cpu, monkeypatch, rng, groups, eager):
    """Each stream as late as CUDA allows, or one of them as early: the result is the same."""
    monkeypatch.setattr(streams, "_PARTS", groups)
    slab = rng.random((32 * groups, 2, 3), np.float32)
    for role in ("upload", "compute", "download"):
        device.stream(role).eager = role == eager
    device.stream("compute").patient = True

    def function(block):
        result = cuda_on_cpu.empty(block.shape, np.float32)
        source, target = (array.view(np.ndarray) for array in (block, result))
        device.stream("compute").later(lambda: np.multiply(source, 2, out=target))
        return result

    with dask.config.set(ON_GPU):
        result = streams.streamed(function, slab, slice_bytes=1, who="test")
    np.testing.assert_array_equal(result, 2 * slab)


@pytest.mark.parametrize("slices", [1, 31, 32, 33])
def test_small_slabs_go_through(cupy, rng, slices):
    slab = rng.random((slices, 2, 2), np.float32)
    with dask.config.set(ON_GPU):
        np.testing.assert_array_equal(
            streams.streamed(lambda block: block + 1, slab, slice_bytes=1, who="test"), slab + 1
        )


def test_on_the_cpu_nothing_is_cut_or_copied():
    slab = np.ones((200, 2, 2), np.float32)
    assert streams.streamed(lambda block: block, slab, slice_bytes=10**15, who="test") is slab


def test_an_error_leaves_the_gpu_usable(cupy, monkeypatch):
    limited(cupy, monkeypatch, 32)
    slab, calls = np.ones((100, 2, 2), np.float32), []

    def fails_once(block):
        calls.append(len(block))
        if len(calls) == 2:
            raise ZeroDivisionError
        return block + 1

    with dask.config.set(ON_GPU):
        with pytest.raises(ZeroDivisionError):
            streams.streamed(fails_once, slab, slice_bytes=1, who="test")
        np.testing.assert_array_equal(streams.streamed(fails_once, slab, slice_bytes=1, who="test"), slab + 1)


def test_threads_take_turns(cupy, monkeypatch):
    limited(cupy, monkeypatch, 32)
    inside, most = [], []

    def function(block):
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.001)  # another thread would come in now
        inside.pop()
        return block + 1

    def work():
        streams.streamed(function, np.ones((64, 2, 2), np.float32), slice_bytes=1, who="test")

    with dask.config.set(ON_GPU):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == [1] * 8


def test_group_sizes():
    sizes = {"slice_bytes": 100, "who": "test"}
    assert streams.group_slices(10, free_bytes=10**9, **sizes) == 32
    assert streams.group_slices(1000, free_bytes=10**9, **sizes) == 256
    assert streams.group_slices(1000, free_bytes=100 * 70 / 0.9, **sizes) == 64
    with pytest.raises(nt.SchemaError, match="test: needs 3391 MiB of GPU memory, for 32 slices at once; got 2861 MiB"):
        streams.group_slices(1, slice_bytes=10**8, free_bytes=3 * 10**9, who="test")
    # 32 slices of 2²⁰ bytes take 35.6 MiB, with what is kept free; a byte less is too little, and is said to be.
    enough = math.ceil(2**25 / 0.9)
    assert streams.group_slices(1, slice_bytes=2**20, free_bytes=enough, who="test") == 32
    with pytest.raises(nt.SchemaError, match="needs 36 MiB of GPU memory, for 32 slices at once; got 35 MiB"):
        streams.group_slices(1, slice_bytes=2**20, free_bytes=enough - 1, who="test")


# Which device, which memory.


def test_blocks_are_computed_on_the_cpu_unless_told(cuda_on_cpu):
    assert not device.computes_on_gpu()
    with dask.config.set(ON_GPU):
        assert device.computes_on_gpu()


@pytest.mark.parametrize(
    ("where", "break_it", "message"),
    [
        ("tpu", lambda fake, patch: None, 'needs "cpu" or "gpu"; got \'tpu\''),
        (
            "gpu",
            lambda fake, patch: patch.setitem(sys.modules, "cupy", None),
            "GPU: needs CuPy; got an installation",
        ),
        ("gpu", lambda fake, patch: setattr(fake, "devices", None), "driver; got cudaErrorInsufficientDriver"),
        (
            "gpu",
            lambda fake, patch: setattr(fake, "devices", 0),
            "needs an NVIDIA GPU; got none; try: check the environment variable CUDA_VISIBLE",
        ),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(cuda_on_cpu, monkeypatch, series, where, break_it, message):
    break_it(cuda_on_cpu, monkeypatch)
    with dask.config.set({"nntomo_dask.device": where}), pytest.raises(nt.SchemaError, match=message):
        nt.fbp(series).compute()


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, 2**33), ("1 GiB", 2**30 - 2**20), (2**21, 2**20), (2**40, 2**33), ("1 kB", 0)]
)
def test_free_memory_is_within_the_limit(cuda_on_cpu, limit, expected):
    """8 GiB are free, and the pool has given out 1 MiB, which counts towards a limit."""
    cuda_on_cpu.used = 2**20
    with dask.config.set({"nntomo_dask.gpu_memory": limit}):
        assert device.free_bytes() == expected


def test_cupy_takes_the_pool_that_is_there(cuda_on_cpu, monkeypatch):
    """CuPy's own; torch's as soon as torch is there and sees the GPU; an allocator is set once only."""
    monkeypatch.setitem(sys.modules, "torch", None)
    asked, sees_gpu = [], []
    torch = types.SimpleNamespace(
        cuda=types.SimpleNamespace(
            is_available=lambda: bool(sees_gpu),
            init=lambda: None,
            caching_allocator_alloc=lambda *arguments: asked.append(arguments) or 4096,
            caching_allocator_delete=asked.append,
            memory_allocated=lambda _device: 3 * 2**20,
            memory_reserved=lambda _device: 5 * 2**20,
        )
    )
    assert device.use_one_pool() == device.use_one_pool() == "cupy"
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert device.use_one_pool() == "cupy"
    sees_gpu.append(True)
    assert device.use_one_pool() == device.use_one_pool() == "torch"
    own, (allocate, free) = cuda_on_cpu.allocators
    assert own == "own pool"
    assert allocate(100, 0) == 4096
    free(4096, 0)
    assert asked == [(100, 0, cuda_on_cpu.cuda.get_current_stream().ptr), 4096]
    assert device.free_bytes() == 2**33 + 2 * 2**20
    with dask.config.set({"nntomo_dask.gpu_memory": 2**23}):
        assert device.free_bytes() == 5 * 2**20


@pytest.mark.parametrize("kept", [False, True])
def test_rmm_keeps_the_resource_that_somebody_chose(cuda_on_cpu, monkeypatch, kept):
    monkeypatch.setitem(sys.modules, "torch", None)

    class CudaMemoryResource:
        pass

    class CudaAsyncMemoryResource:
        pass

    chosen = [type("Pool", (), {})() if kept else CudaMemoryResource()]
    first = chosen[0]
    resources = types.SimpleNamespace(
        CudaMemoryResource=CudaMemoryResource,
        CudaAsyncMemoryResource=CudaAsyncMemoryResource,
        get_current_device_resource=lambda: chosen[-1],
        set_current_device_resource=chosen.append,
    )
    monkeypatch.setitem(sys.modules, "rmm", types.SimpleNamespace(mr=resources, __spec__=object()))
    monkeypatch.setitem(sys.modules, "rmm.allocators.cupy", types.SimpleNamespace(rmm_cupy_allocator="rmm's"))
    assert importlib.util.find_spec("rmm")
    assert device.use_one_pool() == "rmm"
    assert cuda_on_cpu.allocators == ["rmm's"]
    assert (chosen[-1] is first) == kept
    assert device.free_bytes() == 2**33
