import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.compute import chunking, device
from nntomo_dask.networks.nnfbp_layout import InputLayout
from tests.measured import environment
from tests.predictions import host_bytes
from tests.test_nnfbp import random_network


def test_default_slabs_are_powers_of_two_within_their_bytes():
    assert chunking.slab_slices((1024, 1024, 1024)) == 8
    assert chunking.slab_slices((2048, 2048, 2048)) == 2
    assert chunking.slab_slices((64, 64, 64)) == 32
    assert chunking.slab_slices((5, 64, 64)) == 4
    assert chunking.slab_slices((3, 10**5, 10**5)) == 1


def test_slabs_cover_everything_once():
    assert chunking.slab_chunks(70, 32) == (32, 32, 6)
    assert chunking.slab_chunks(64, 32) == (32, 32)


@pytest.mark.parametrize("operation", ["fbp", "sirt", "nnfbp", "project", "copy"])
def test_slabs_shrink_with_the_budget_until_they_are_refused(operation, rng):
    network = random_network(rng, InputLayout(tuple(nt.tilt_angles("tem", 29)), 1024))
    of_slab = host_bytes(operation, network)
    arguments = {"shape": (1024, 29, 1024), "workers": 2, "fixed": True, "who": operation}
    peaks = []
    least = chunking.peak_bytes(of_slab((1, 29, 1024)), workers=2)
    for budget in (2**34, (2**30 + least) // 2, least):
        slices = chunking.plan(chunking.Budget(budget), of_slab, **arguments).slices
        assert chunking.peak_bytes(of_slab((slices, 29, 1024)), workers=2) <= budget
        peaks.append(slices)
    assert peaks == sorted(peaks, reverse=True)
    with pytest.raises(
        nt.SchemaError,
        match=r"needs \d+ MiB \(450 of it the program itself\) for one slice of 1024 pixels a worker",
    ):
        chunking.plan(chunking.Budget(least - 1), of_slab, **arguments)


# Each operation's peak, in a process that imports once.
MEASURE = """
import json, sys
import dask, numpy as np
import nntomo_dask as nt
from tests.measured import forget_peak, high_water_mark
folder, *operations = sys.argv[1:]
peaks = {}
with dask.config.set(scheduler="threads", num_workers=2):
    for operation in operations:
        forget_peak()
        series = nt.open(folder + "/series.zarr", slices=8)
        if operation == "project":
            result = nt.project(nt.open(folder + "/volume.zarr", slices=8), series.angle)
        elif operation == "nnfbp":
            result = nt.nnfbp(series, nt.load_network(folder + "/net.safetensors"), scale=1)
        else:
            result = {"fbp": nt.fbp, "sirt": lambda s: nt.sirt(s, max_iterations=2)}[operation](series)
        nt.save(result, f"{folder}/{operation}.zarr")
        peaks[operation] = high_water_mark()
print(json.dumps(peaks))
"""
MEASURED = ("fbp", "sirt", "nnfbp", "project")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    volume = nt.save(nt.random_spheres((48, 512, 512), n_spheres=5), folder / "volume.zarr")
    series = nt.save(nt.project(volume, nt.tilt_angles("tem", 8)), folder / "series.zarr")
    sets = nt.phantom_samples(series, n_slices=8, n_samples=2000)
    nt.save_network(nt.train_nnfbp(*sets, max_epochs=2, progress="none"), folder / "net.safetensors")
    return folder


@pytest.fixture(scope="module")
def peaks(stores):
    """Measured peak of each operation."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE, str(stores), *MEASURED],
        cwd=Path(__file__).parents[1],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(run.stdout)


@pytest.mark.parametrize("operation", MEASURED)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_measured_peak_stays_under_the_predicted(stores, peaks, operation):
    of_slab = host_bytes(operation, nt.load_network(stores / "net.safetensors"))
    predicted = chunking.peak_bytes(of_slab((8, 8, 512)), workers=2)
    assert peaks[operation] <= predicted


def test_arrays_on_a_gpu_are_told_apart_and_refused():
    array = type("ndarray", (), {"__module__": "cupy"})()
    assert device.is_on_gpu(array)
    assert not device.is_on_gpu(np.zeros(1))
    with pytest.raises(nt.SchemaError, match="fbp: needs blocks in host memory"):
        device.on_host(array, who="fbp")
