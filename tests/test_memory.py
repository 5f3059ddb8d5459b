"""What `chunking` predicts is what the commands keep to: the measured peaks of their whole process trees."""

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

import nntomo_dask as nt
from nntomo_dask.compute import chunking
from nntomo_dask.kernels.mixed_scale import parameter_count
from nntomo_dask.networks.msdnet import Inputs
from nntomo_dask.training.nnfbp import training_bytes

WORKERS = 2
COUNT = 9


def peak_bytes(*words, processes=0) -> int:
    """Peak memory of an `nntomo` command, of each of its processes added up; the command must succeed."""
    where = ["--scheduler", "processes" if processes else "threads"]
    command = [sys.executable, "-m", "nntomo_dask.cli", *map(str, words), *where, "--workers", str(WORKERS)]
    peaks = {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for pid in (process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))):
                peaks[pid] = max(high_water_mark(pid), peaks.get(pid, 0))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
    assert process.returncode == 0
    assert processes <= len(peaks) - 1
    return sum(peaks.values())


def high_water_mark(pid: int) -> int:
    """Most memory that a process has held so far; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A folder with a series and a network for each size, made when they are first asked for."""
    folder = tmp_path_factory.mktemp("stores")

    def of_size(size: int, slices: int = 64):
        series = folder / f"series-{size}-{slices}.zarr"
        network = folder / f"network-{size}.safetensors"
        volume = folder / f"volume-{size}-{slices}.zarr"
        nt.save(nt.ellipse_stack((slices, size, size)), volume)
        opened = nt.save(nt.project(nt.open(volume), nt.tilt_angles("tem", COUNT)), series)
        if not network.exists():
            sets = nt.phantom_samples(opened, n_slices=4, n_samples=500)
            nt.save_network(nt.train_nnfbp(*sets, max_epochs=1, progress="none"), network)
        return volume, series, network

    return of_size


def words_of(operation, volume, series, network, output):
    return {
        "phantom": ("phantom", "ellipses", "--size", ",".join(map(str, nt.open(volume).shape)), "-o", output),
        "project": ("project", volume, "--range", "tem", "--count", COUNT, "-o", output),
        "compare": ("compare", volume, "--reference", volume, "--json"),
        "fbp": ("reconstruct", series, "--method", "fbp", "-o", output),
        "sirt": ("reconstruct", series, "--method", "sirt", "--max-iterations", 2, "-o", output),
        "nnfbp": ("reconstruct", series, "--method", "nnfbp", "--network", network, "-o", output),
    }[operation]


SLOWEST = ("compare", 1024)
CASES = [
    pytest.param(operation, size, marks=[pytest.mark.slow] if size == 512 or (operation, size) == SLOWEST else [])
    for operation in ("phantom", "project", "fbp", "sirt", "nnfbp", "compare")
    for size in (128, 512, 1024)
]


@pytest.mark.parametrize(("operation", "size"), CASES)
def test_the_measured_peak_is_within_the_predicted(stores, tmp_path, operation, size):
    volume, series, network = stores(size, 64 if size < 1024 else 16)
    angles = nt.load_network(network).layout.used_angles_deg.size if operation == "nnfbp" else COUNT
    shape = nt.open(volume).shape
    whole = chunking.slab_slices(shape)
    single = size == 1024 and operation in ("sirt", "nnfbp")  # as little memory as can be
    for number, slices in enumerate((1, whole) if single else (whole,)):
        predicted = chunking.peak_bytes(
            operation, slices=slices, angles=angles, detector=size, workers=WORKERS, hidden=8
        )
        words = words_of(operation, volume, series, network, tmp_path / f"{number}.zarr")
        measured = peak_bytes(*words, "--memory", predicted)
        print(operation, size, slices, f"{measured / 2**20:.0f} of {predicted / 2**20:.0f} MiB")
        assert measured <= predicted
        assert measured > 0.35 * predicted, "the prediction says nothing"


@pytest.mark.parametrize("size", [128, pytest.param(1024, marks=pytest.mark.slow)])
def test_msdnet_keeps_to_its_prediction(stores, tmp_path, size):
    """Depth 100: one buffer of all maps a worker, beside the reconstruction that is improved."""
    _, series, _ = stores(size, 64 if size < 1024 else 16)
    inputs = Inputs(tuple(nt.open(series)["angle"].values.tolist()), method="fbp")
    parameters = np.zeros(parameter_count(inputs.channels, 100), np.float32)
    network = tmp_path / "network.safetensors"
    nt.save_network(nt.MSDNetwork(inputs, 100, parameters, 0.0, 1.0, 0.0, 1.0, level=1.0), network)
    predicted = chunking.peak_bytes(
        "msdnet", slices=1, angles=COUNT, detector=size, workers=WORKERS, hidden=100 + inputs.channels
    )
    words = ("reconstruct", series, "--method", "msdnet", "--network", network, "-o", tmp_path / "a.zarr")
    measured = peak_bytes(*words, "--memory", predicted)
    print("msdnet", size, f"{measured / 2**20:.0f} of {predicted / 2**20:.0f} MiB")
    assert 0.35 * predicted < measured <= predicted


@pytest.mark.parametrize("size", [128, 1024])
def test_training_keeps_to_its_prediction(stores, tmp_path, size):
    _, series, network = stores(size, 64 if size < 1024 else 16)
    layout = nt.load_network(network).layout
    predicted = training_bytes(
        samples=50_000,
        inputs=layout.n_inputs,
        hidden=8,
        angles=COUNT,
        detector=size,
        workers=WORKERS,
    )
    words = ("train", "--for", series, "--slices", 32, "--samples", 50_000, "--max-epochs", 2)
    measured = peak_bytes(*words, "--memory", predicted, "-o", tmp_path / "network.safetensors")
    print("train", size, f"{measured / 2**20:.0f} of {predicted / 2**20:.0f} MiB")
    assert 0.35 * predicted < measured <= predicted


@pytest.mark.parametrize("operation", ["project", "nnfbp"])
def test_with_worker_processes(stores, tmp_path, operation):
    """The same promise for the whole process tree."""
    volume, series, network = stores(256, 512)
    angles = nt.load_network(network).layout.used_angles_deg.size
    predicted = chunking.peak_bytes(
        operation, slices=32, angles=angles, detector=256, workers=WORKERS, processes=WORKERS, hidden=8
    )
    words = words_of(operation, volume, series, network, tmp_path / "a.zarr")
    measured = peak_bytes(*words, "--memory", predicted, processes=WORKERS)
    print(operation, f"{measured / 2**20:.0f} of {predicted / 2**20:.0f} MiB")
    assert measured <= predicted


def test_the_peak_does_not_grow_with_the_number_of_slices(stores, tmp_path):
    """Four times the slices, 10 % more at most."""
    peaks = []
    for slices in (256, 1024):
        volume, series, network = stores(256, slices)
        words = words_of("nnfbp", volume, series, network, tmp_path / f"{slices}.zarr")
        peaks.append(peak_bytes(*words, "--memory", "600MiB"))
    assert peaks[1] < 1.1 * peaks[0]


def test_a_budget_that_is_too_small_is_refused_before_anything_is_written(stores, tmp_path):
    _, series, _ = stores(128)
    command = ["-m", "nntomo_dask.cli", "reconstruct", series, "--method", "fbp", "-o", tmp_path / "a.zarr"]
    run = subprocess.run(
        [sys.executable, *map(str, command), "--memory", "300MiB"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "fbp: needs" in run.stderr
    assert "do raise --memory" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_processes_own_memory_is_counted():
    alone = chunking.peak_bytes("fbp", slices=1, angles=9, detector=128, workers=2)
    with_workers = chunking.peak_bytes("fbp", slices=1, angles=9, detector=128, workers=2, processes=2)
    assert with_workers - alone == 2 * chunking.WORKER_BYTES


@pytest.mark.slow
@pytest.mark.extra("abtem")
def test_the_measured_peak_of_a_simulation_is_within_the_predicted(tmp_path):
    from nntomo_dask.simulation import cost, optics

    angles, settings = nt.tilt_angles("full", 4), nt.Imaging(pixels=64, convergence_mrad=10.0)
    held, modes = nt.specimen("MIL-53"), ("haadf", "idpc")
    needed = cost.cost(held, optics.plan(held, settings, modes), settings, modes)
    measured = peak_bytes(
        "simulate", "MIL-53", "--range", "full", "--count", len(angles), "--pixels", 64, "--convergence-mrad", 10,
        "-o", tmp_path / "a.zarr",
    )  # fmt: skip
    predicted = chunking.PROCESS_BYTES + WORKERS * needed.worker_bytes
    assert measured <= predicted, f"{measured / 2**20:.0f} MiB of {predicted / 2**20:.0f}"
