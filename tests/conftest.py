"""Fixtures that several test modules share, and how the suite is divided between the processes of pytest-xdist."""

import importlib.util
import re
import signal
import threading

import dask
import numpy as np
import pytest
from click.testing import CliRunner

import nntomo_dask as nt
from nntomo_dask import extras
from nntomo_dask.cli.main import main
from nntomo_dask.compute import device
from tests.cuda_on_cpu import compiled, cupy

# A shell that starts the tests in the background has them ignore SIGINT, and so would every command that they start.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


ANGLES_DEG = np.array([-90.0, -70.0, -45.0, -31.3, 0.0, 12.0, 45.0, 60.0, 89.0])  # both kinds of rays, and the diagonal

# Words in a test's parameters, and the optional package that they need; other tests carry the mark `extra`.
NEEDED_BY = {"adam": "torch", "astra": "astra", "simulate": "abtem", "truth": "abtem"}


def _skip_without_extras(items):
    """Skip what needs an optional package that is not installed, and say which extra has it."""
    for item in items:
        words = re.split("[-_]", item.callspec.id) if hasattr(item, "callspec") else []
        packages = [mark.args[0] for mark in item.iter_markers("extra")] + [NEEDED_BY.get(word) for word in words]
        for package in filter(None, packages):
            if importlib.util.find_spec(package) is None:
                title, extra = extras.PACKAGES[package]
                item.add_marker(pytest.mark.skip(reason=f"needs {title}: pip install 'nntomo_dask[{extra}]'"))


def pytest_itemcollected(item):
    """Tests that share a fixture of their module or class run in one process, so that it is made once.

    A test without such a fixture goes to whichever process is free. A mark ``xdist_group`` comes first. The marks are
    set here, since pytest-xdist reads them before `pytest_collection_modifyitems` of a conftest is called.
    """
    if item.get_closest_marker("xdist_group") is None and hasattr(item, "_fixtureinfo"):
        definitions = (found[-1] for found in item._fixtureinfo.name2fixturedefs.values())
        shared = sorted({fixture.baseid for fixture in definitions if fixture.scope in ("module", "class")})
        if shared:
            item.add_marker(pytest.mark.xdist_group(shared[0].split("::")[0]))


def pytest_collection_modifyitems(items):
    """Skip what needs an optional package that is missing."""
    _skip_without_extras(items)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def volume(rng):
    """An asymmetric volume of 9 slices, one of them empty, none of them like another."""
    data = rng.random((9, 32, 32), np.float32)
    data[:, 20:, :10] += 3
    data[4] = 0
    return nt.volume(data)


@pytest.fixture
def series(volume):
    return nt.project(volume, nt.tilt_angles("tem", 8)).compute()


@pytest.fixture
def nothing_computes():
    """Within this fixture any computation fails: what runs nevertheless is lazy."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("something was computed")

    with dask.config.set(scheduler=refuse):
        yield


@pytest.fixture(scope="session")
def trained():
    """A small network for 8 projections of 48 pixels, and what it was trained with."""
    angles = nt.tilt_angles("tem", 8)
    target = nt.tilt_series(np.zeros((1, 8, 48), np.float32), angles)
    samples = nt.phantom_samples(target, phantom="ellipses", n_slices=60, n_samples=5000, filters="shared")
    training, validation = (one.compute() for one in samples)
    network = nt.train_nnfbp(training, validation, solver="lm", max_epochs=15, progress="none")
    return network, training, validation


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run `nntomo` with some words in an empty folder; gives the result, which must have the exit code."""
    monkeypatch.chdir(tmp_path)

    def call(*words, exit_code=0):
        result = CliRunner().invoke(main, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == exit_code, result.output
        return result

    return call


@pytest.fixture
def series_store(run):
    """A particle of 32³ voxels, and 8 projections of it."""
    run("phantom", "particle", "--size", 32, "--seed", 1, "-o", "particle.zarr")
    run("project", "particle.zarr", "--range", "tem", "--count", 8, "-o", "series.zarr")
    return "series.zarr"


@pytest.fixture(scope="session")
def compiled_for_cpu(tmp_path_factory):
    """Where the CUDA sources are compiled for the CPU, and what has been compiled already."""
    if compiled.COMPILER is None:
        pytest.skip("no C++ compiler (g++)")
    return tmp_path_factory.mktemp("cuda_on_cpu"), {}


@pytest.fixture
def fresh_device(monkeypatch):
    """Nothing is remembered of a GPU, before and after a test."""
    caches = (device._compiled, device._stream)
    for cache in caches:
        cache.cache_clear()
    monkeypatch.setattr(device, "_pool", None)
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def cuda_on_cpu(monkeypatch, fresh_device, compiled_for_cpu):
    """Within this test ``import cupy`` finds a stand-in, whose kernels are the CUDA sources compiled for the CPU."""
    return cupy.install(monkeypatch, *compiled_for_cpu)


@pytest.fixture
def gpu(fresh_device):
    """CuPy with a GPU."""
    try:
        return device.cupy()
    except nt.SchemaError as error:
        pytest.skip(str(error))


class Spelling:
    """One of the spellings of a kernel: how arrays get to it and back."""

    def __init__(self, module=None):
        self.module = module

    def put(self, array):
        """To where this spelling computes."""
        return array if self.module is None else self.module.asarray(array)

    def __call__(self, kernel, block, *arguments):
        """The kernel of a block there; what comes back has to lie there too."""
        result = kernel(self.put(block), *arguments)
        assert device.is_on_gpu(result) == (self.module is not None)
        return device.to_host(result)


@pytest.fixture(params=["numba", "cuda_on_cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def spelling(request):
    """Numba, the CUDA sources on the CPU, and CUDA on a GPU."""
    return Spelling(None if request.param == "numba" else request.getfixturevalue(request.param))
