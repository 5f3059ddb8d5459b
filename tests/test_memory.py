"""What `chunking` predicts is what the commands keep to: the measured peaks of their whole process trees."""

import contextlib
import subprocess
import sys

import numpy as np
import psutil
import pytest

import nntomo_dask as nt
from nntomo_dask.atoms import find
from nntomo_dask.cli.export import host_bytes_of as export_bytes
from nntomo_dask.compute import chunking
from nntomo_dask.formats.format import host_bytes as format_bytes
from nntomo_dask.kernels import peaks
from nntomo_dask.kernels.mixed_scale import parameter_count
from nntomo_dask.networks.msdnet import Inputs
from nntomo_dask.networks.nnfbp import Form
from nntomo_dask.plotting import showing
from nntomo_dask.reconstruction.jackknife import Jackknife
from nntomo_dask.training.nnfbp import training_bytes
from tests import measured
from tests.predictions import host_bytes
from tests.unrolled_networks import network_of

WORKERS = 2
COUNT = 9


WHERE = ["--scheduler", "threads", "--workers", WORKERS]


def predicted_bytes(operation, *, slices, detector, network=None, processes=0) -> int:
    """What an operation of so many workers says that it holds; `network` is a file."""
    loaded = None if network is None else nt.load_network(network)
    slab = host_bytes(operation, loaded)((slices, COUNT, detector))
    return chunking.peak_bytes(slab, workers=WORKERS, processes=processes)


@pytest.fixture(scope="module")
def peak_bytes():
    """Peak memory of an `nntomo` command in one process, which runs the commands of this module; they must succeed."""
    with measured.runner() as runner:
        yield lambda *words: runner.peak_bytes(*words, *WHERE)


def peak_bytes_of_tree(*words, processes=0) -> int:
    """Peak memory of an `nntomo` command in processes of its own, each one's added up; the command must succeed."""
    where = ["--scheduler", "processes" if processes else "threads"]
    command = [sys.executable, "-m", "nntomo_dask.cli", *map(str, words), *where, "--workers", str(WORKERS)]
    peaks = {}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=measured.environment()
    ) as process:
        while process.poll() is None:
            for pid in (process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))):
                peaks[pid] = max(measured.high_water_mark(pid), peaks.get(pid, 0))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
    assert process.returncode == 0
    assert processes <= len(peaks) - 1
    return sum(peaks.values())


@pytest.fixture(scope="module")
def runner_alone():
    """The same for verbs that have no workers."""
    with measured.runner() as runner:
        yield runner


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
        "tv": ("reconstruct", series, "--method", "tv", "--weight", 1, "--max-iterations", 2, "-o", output),
        "dart": ("reconstruct", series, "--method", "dart", "--levels", 2, "--iterations", 3, "-o", output),
        "nnfbp": ("reconstruct", series, "--method", "nnfbp", "--network", network, "-o", output),
    }[operation]


SLOWEST = [(name, 1024) for name in ("compare", "tv", "dart", "project", "phantom", "fbp", "nnfbp")]
CASES = [
    pytest.param(operation, size, marks=[pytest.mark.slow] if size == 512 or (operation, size) in SLOWEST else [])
    for operation in ("phantom", "project", "fbp", "sirt", "tv", "dart", "nnfbp", "compare")
    for size in (128, 512, 1024)
]


@pytest.mark.parametrize(("operation", "size"), CASES)
def test_the_measured_peak_is_within_the_predicted(stores, peak_bytes, tmp_path, operation, size):
    of_blocks = operation in ("tv", "dart")  # of 24 slices
    volume, series, network = stores(size, 64 if size < 1024 else 24 if of_blocks else 16)
    shape = nt.open(volume).shape
    whole = chunking.slab_slices(shape)
    single = size == 1024 and operation in ("sirt", "nnfbp")  # as little memory as can be
    for number, slices in enumerate((1, whole) if single else (whole,)):
        predicted = predicted_bytes(operation, slices=slices, detector=size, network=network)
        words = words_of(operation, volume, series, network, tmp_path / f"{number}.zarr")
        held = peak_bytes(*words, "--memory", predicted)
        print(operation, size, slices, f"{held / 2**20:.0f} of {predicted / 2**20:.0f} MiB")
        assert held <= predicted
        assert held > 0.35 * predicted, "the prediction says nothing"


@pytest.mark.parametrize("size", [128, pytest.param(1024, marks=pytest.mark.slow)])
def test_a_jackknife_keeps_to_its_prediction(stores, peak_bytes, tmp_path, size):
    """Mean and sum of squares beside the volume in work; the volume itself is written in the same run."""
    _, series, _ = stores(size, 64 if size < 1024 else 16)
    slices = chunking.slab_slices((64, size, size))
    slab = Jackknife(nt.METHODS["sirt"]()).host_bytes((slices, COUNT, size))
    predicted = chunking.peak_bytes(slab, workers=WORKERS)
    options = (
        "--method",
        "sirt",
        "--max-iterations",
        2,
        "--spread",
        tmp_path / "spread.zarr",
        "-o",
        tmp_path / "a.zarr",
    )
    held = peak_bytes("reconstruct", series, *options, "--memory", predicted)
    print("jackknife", size, f"{held / 2**20:.0f} of {predicted / 2**20:.0f} MiB")
    assert 0.35 * predicted < held <= predicted


@pytest.mark.parametrize("size", [128, pytest.param(1024, marks=pytest.mark.slow)])
def test_msdnet_keeps_to_its_prediction(stores, peak_bytes, tmp_path, size):
    """Depth 100: one buffer of all maps a worker, beside the reconstruction that is improved."""
    _, series, _ = stores(size, 64 if size < 1024 else 16)
    inputs = Inputs(tuple(nt.open(series)["angle"].values.tolist()), method="fbp")
    parameters = np.zeros(parameter_count(inputs.channels, 100), np.float32)
    network = tmp_path / "network.safetensors"
    nt.save_network(nt.MSDNetwork(inputs, 100, parameters, 0.0, 1.0, 0.0, 1.0, level=1.0), network)
    predicted = predicted_bytes("msdnet", slices=1, detector=size, network=network)
    words = ("reconstruct", series, "--method", "msdnet", "--network", network, "-o", tmp_path / "a.zarr")
    held = peak_bytes(*words, "--memory", predicted)
    print("msdnet", size, f"{held / 2**20:.0f} of {predicted / 2**20:.0f} MiB")
    assert 0.35 * predicted < held <= predicted


@pytest.mark.slow
@pytest.mark.extra("torch")
@pytest.mark.parametrize(("size", "members"), [(128, 1), (256, 2)])
def test_unrolled_keeps_to_its_prediction(stores, peak_bytes, tmp_path, size, members):
    """Of 32 maps: two solutions, and what a slice takes in the network."""
    _, series, _ = stores(size, 48)
    paths = [tmp_path / f"{k}.safetensors" for k in range(members)]
    networks = [nt.save_network(network_of(steps=1, neighbours=2, width=32, seed=k), p) for k, p in enumerate(paths)]
    method = nt.METHODS["unrolled"](networks=tuple(map(nt.load_network, networks)))
    predicted = chunking.peak_bytes(method.host_bytes((24, COUNT, size)), workers=WORKERS)
    words = [word for path in paths for word in ("--network", path)]
    held = peak_bytes(
        "reconstruct", series, "--method", "unrolled", *words, "--noise", 0.1, "-o", tmp_path / "a.zarr",
        "--memory", predicted,
    )  # fmt: skip
    print("unrolled", size, f"{held / 2**20:.0f} of {predicted / 2**20:.0f} MiB")
    assert 0.35 * predicted < held <= predicted


@pytest.mark.slow
@pytest.mark.extra("torch")
@pytest.mark.parametrize(("size", "steps", "width"), [(48, 1, 16), (96, 2, 8)])
def test_training_of_unrolled_keeps_to_its_prediction(stores, peak_bytes, tmp_path, size, steps, width):
    _, series, _ = stores(128)
    options = {"steps": steps, "width": width, "epoch_scenes": 8, "size": size, "validated": 4, "noise": 0.02}
    training = nt.TRAININGS["unrolled"](**options)
    predicted = training.host_bytes(training.sets_for(nt.open(series), seed=0), workers=WORKERS, processes=0)
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    held = peak_bytes(
        "train", "--network", "unrolled", "--for", series, *words, "--max-epochs", 2, "--memory", predicted,
        "-o", tmp_path / "net.safetensors",
    )  # fmt: skip
    print("training of unrolled", size, f"{held / 2**20:.0f} of {predicted / 2**20:.0f} MiB")
    assert 0.35 * predicted < held <= predicted


@pytest.mark.parametrize("size", [96, pytest.param(512, marks=pytest.mark.slow)])
@pytest.mark.parametrize("slices", [4, pytest.param(32, marks=pytest.mark.slow)])
def test_finding_atoms_keeps_to_its_prediction(peak_bytes, tmp_path, size, slices):
    """Slabs of so many slices, whose borders are as high; atoms three widths from each other."""
    shape = (96, size, size)
    places = np.stack(np.meshgrid(np.arange(5, 92, 6), *[np.arange(5, size - 4, 24)] * 2, indexing="ij"), -1)
    volume = np.random.default_rng(1).normal(0, 0.02, shape).astype(np.float32)
    atoms = np.column_stack([places.reshape(-1, 3), np.ones(places.size // 3), np.full(places.size // 3, 2.0)])
    peaks.subtract(volume, atoms * [1, 1, 1, -1, 1], first=0, step=1.0)
    nt.save(nt.volume(volume, pixel_size=0.02, units="nm"), tmp_path / "volume.zarr")
    slab = find.host_bytes((slices, size, size), border=8, chunk=min(slices, chunking.slab_slices(shape)))
    predicted = chunking.peak_bytes(slab, workers=WORKERS) + find.fixed_bytes(shape)
    words = ("atoms", tmp_path / "volume.zarr", "-o", tmp_path / "atoms.csv", "--width", 0.04)
    held = peak_bytes(*words, "--memory", predicted)
    print("atoms", size, slices, f"{held / 2**20:.0f} of {predicted / 2**20:.0f} MiB")
    assert 0.35 * predicted < held <= predicted
    assert len(nt.read_atoms(tmp_path / "atoms.csv")["z"]) >= len(atoms)


@pytest.mark.parametrize("size", [128, pytest.param(1024, marks=pytest.mark.slow)])
def test_consistency_keeps_to_its_prediction(stores, peak_bytes, tmp_path, size):
    """After NN-FBP, whose own memory it exceeds."""
    _, series, network = stores(size, 64 if size < 1024 else 16)
    slices = chunking.slab_slices((64, size, size))
    method = nt.METHODS["nnfbp"](networks=(nt.load_network(network),), consistency="auto")
    predicted = chunking.peak_bytes(method.host_bytes((slices, COUNT, size)), workers=WORKERS)
    words = ("reconstruct", series, "--method", "nnfbp", "--network", network, "--consistency", "auto")
    held = peak_bytes(*words, "-o", tmp_path / "a.zarr", "--memory", predicted)
    print("consistency", size, f"{held / 2**20:.0f} of {predicted / 2**20:.0f} MiB")
    assert 0.35 * predicted < held <= predicted


@pytest.mark.parametrize("size", [128, pytest.param(1024, marks=pytest.mark.slow)])
def test_training_keeps_to_its_prediction(stores, peak_bytes, tmp_path, size):
    _, series, network = stores(size, 64 if size < 1024 else 16)
    layout = nt.load_network(network).layout
    predicted = training_bytes(
        samples=50_000,
        form=Form(layout.n_inputs, 16, n_second=16),
        solver="annealed",
        angles=COUNT,
        detector=size,
        workers=WORKERS,
    )
    words = ("train", "--for", series, "--slices", 32, "--samples", 50_000, "--max-epochs", 2)
    held = peak_bytes(*words, "--memory", predicted, "-o", tmp_path / "network.safetensors")
    print("train", size, f"{held / 2**20:.0f} of {predicted / 2**20:.0f} MiB")
    assert 0.35 * predicted < held <= predicted


def test_a_figure_of_noise_keeps_to_the_memory(peak_bytes, tmp_path, rng):
    """Whose surface would have seven million triangles."""
    nt.save(nt.volume(rng.random((128, 128, 128), np.float32)), tmp_path / "noise.zarr")
    words = ("compare", tmp_path / "noise.zarr", "--reference", tmp_path / "noise.zarr", "--figure", tmp_path / "a.png")
    held = peak_bytes(*words, "--memory", "720MiB")
    print(f"{held / 2**20:.0f} of 720 MiB")
    assert held <= 720 * 2**20


@pytest.mark.parametrize("operation", [pytest.param("project", marks=pytest.mark.slow), "nnfbp"])
def test_with_worker_processes(stores, tmp_path, operation):
    """The same promise for the whole process tree."""
    volume, series, network = stores(256, 512)
    predicted = predicted_bytes(operation, slices=32, detector=256, processes=WORKERS, network=network)
    words = words_of(operation, volume, series, network, tmp_path / "a.zarr")
    held = peak_bytes_of_tree(*words, "--memory", predicted, processes=WORKERS)
    print(operation, f"{held / 2**20:.0f} of {predicted / 2**20:.0f} MiB")
    assert held <= predicted


def test_the_peak_does_not_grow_with_the_number_of_slices(stores, peak_bytes, tmp_path):
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
    assert "try: raise --memory" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_processes_own_memory_is_counted():
    alone = predicted_bytes("fbp", slices=1, detector=128)
    with_workers = predicted_bytes("fbp", slices=1, detector=128, processes=2)
    assert with_workers - alone == 2 * chunking.WORKER_BYTES


@pytest.mark.slow
@pytest.mark.extra("abtem")
def test_the_measured_peak_of_a_simulation_is_within_the_predicted(tmp_path):
    from nntomo_dask.simulation import cost, optics

    angles, settings = nt.tilt_angles("full", 4), nt.Imaging(pixels=64, convergence_mrad=10.0, phonons=0)
    held, modes = nt.specimen("MIL-53"), ("haadf", "idpc")
    needed = cost.cost(held, optics.plan(held, settings, modes), settings, modes)
    held = peak_bytes_of_tree(
        "simulate", "MIL-53", "--range", "full", "--count", len(angles), "--pixels", 64, "--convergence-mrad", 10,
        "--phonons", 0,
        "-o", tmp_path / "a.zarr",
    )  # fmt: skip
    predicted = chunking.PROCESS_BYTES + WORKERS * needed.worker_bytes
    assert held <= predicted, f"{held / 2**20:.0f} MiB of {predicted / 2**20:.0f}"


EXPORTED = ["a.mrc", "a.npy", "a.ome.zarr"]
EXPORTED += [pytest.param(name, marks=pytest.mark.slow) for name in ("a.tif", "a.hspy", "a.zspy")]


@pytest.mark.parametrize("size", [256, pytest.param(1024, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", EXPORTED)
def test_an_export_keeps_to_its_memory(stores, runner_alone, tmp_path, name, size):
    """Whatever the format: the plan of the verb with the default slab, and what gathers rows of chunks."""
    volume, _, _ = stores(size, 128 if size < 1024 else 16)
    shape = nt.open(volume).shape
    slices = chunking.slab_slices(shape)
    predicted = chunking.peak_bytes(export_bytes(name, shape)((slices, *shape[1:])), workers=1)
    held = runner_alone.peak_bytes("export", volume, tmp_path / name, "--memory", predicted)
    print(name, size, f"{held / 2**20:.0f} of {predicted / 2**20:.0f} MiB")
    assert held <= predicted


@pytest.mark.parametrize("size", [256, pytest.param(1024, marks=pytest.mark.slow)])
def test_showing_keeps_to_its_memory(stores, runner_alone, tmp_path, size):
    volume, series, _ = stores(size, 128 if size < 1024 else 16)
    for store in (volume, series):
        array = nt.open(store)
        slab = format_bytes((chunking.slab_slices(array.shape), *array.shape[1:]))
        predicted = chunking.peak_bytes(slab + showing.host_bytes(array.shape), workers=1)
        held = runner_alone.peak_bytes("show", store, "-o", tmp_path / f"{store.stem}.png", "--memory", predicted)
        print(store.stem, f"{held / 2**20:.0f} of {predicted / 2**20:.0f} MiB")
        assert held <= predicted
