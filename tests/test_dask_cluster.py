"""Dask's own scheduler and workers, started as on a cluster: the bytes that threads give, TLS, and what goes wrong."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors import safe_open

import nntomo_dask as nt
from nntomo_dask import store
from nntomo_dask.cli.main import main
from tests.test_faults import RECONSTRUCT
from tests.test_store import digest

# Not two clusters beside each other: their processes are more than the cores, and their fixtures would be made twice.
pytestmark = pytest.mark.xdist_group("clusters")

ROOT = Path(nt.__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}
NNTOMO = [sys.executable, "-m", "nntomo_dask.cli"]
LOOPBACK = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
SIZE = "96,32,32"  # three slabs
TLS = ["--tls-ca-file", "ca.pem", "--tls-cert", "node.pem", "--tls-key", "node.key"]


@dataclass
class Server:
    """A process of Dask's: the end of the line by which it was known to run, and the process."""

    address: str
    process: subprocess.Popen


@contextlib.contextmanager
def server(
    *words: str, until: str, folder: Path, python: tuple[str, ...] = (), path: str = str(ROOT)
) -> Iterator[Server]:
    """A process of Dask's in a folder, once its log has a line with these words."""
    with subprocess.Popen(
        [sys.executable, *python, "-m", *words, *LOOPBACK],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            log = []
            for line in process.stderr:
                log.append(line)
                if until in line:
                    break
            else:
                pytest.fail("".join(log))
            # Nobody reads on, and a full pipe would halt it.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield Server(line.split()[-1], process)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def scheduler(folder: Path, *words: str):
    return server("distributed.cli.dask_scheduler", "--port", "0", *words, until="Scheduler at", folder=folder)


def worker(address: str, folder: Path, *words: str, **options):
    words = (address, "--nthreads", "1", "--memory-limit", "0", *words)
    return server("distributed.cli.dask_worker", *words, until="Registered to", folder=folder, **options)


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """Address of a scheduler with two workers."""
    folder = tmp_path_factory.mktemp("dask")
    with scheduler(folder) as started, worker(started.address, folder), worker(started.address, folder):
        yield started.address


@pytest.fixture
def alone(tmp_path):
    """A scheduler without workers."""
    with scheduler(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def by_threads(tmp_path_factory):
    """A phantom that threads made."""
    path = tmp_path_factory.mktemp("threads") / "particle.zarr"
    nt.save(nt.nanoparticle(tuple(map(int, SIZE.split(","))), seed=1), path)
    return path


def phantom(folder: Path, *words: str) -> list[str]:
    return [*NNTOMO, "phantom", "particle", "--size", SIZE, "--seed", "1", "-o", str(folder / "particle.zarr"), *words]


def refusal(command: list[str]) -> str:
    """The one line by which a command ends that cannot run as it was given."""
    result = CliRunner().invoke(main, command[len(NNTOMO) :], catch_exceptions=False)
    assert result.exit_code == 2, result.output
    (line,) = result.output.splitlines()
    assert not Path(command[command.index("-o") + 1]).exists()
    return line


def everything(folder: Path, *session: str) -> str:
    """From a phantom to the table of three methods, in one folder; gives the table."""
    places = {name: str(folder / f"{name}.zarr") for name in ("particle", "series", "fbp", "sirt", "nnfbp")}
    network = str(folder / "net.safetensors")

    def run(*words: str) -> str:
        result = CliRunner().invoke(main, [*words, *session], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    run("phantom", "particle", "--size", SIZE, "--seed", "1", "-o", places["particle"])
    run("project", places["particle"], "--range", "tem", "--count", "8", "-o", places["series"])
    small = ("--slices", "40", "--samples", "3000", "--max-epochs", "10")
    run("train", "--for", places["series"], *small, "-o", network)
    run("reconstruct", places["series"], "--method", "fbp", "-o", places["fbp"])
    run("reconstruct", places["series"], "--method", "sirt", "-o", places["sirt"])
    run("reconstruct", places["series"], "--method", "nnfbp", "--network", network, "-o", places["nnfbp"])
    table = run("compare", places["fbp"], places["sirt"], places["nnfbp"], "--reference", places["particle"], "--json")
    return table.replace(str(folder), "")


def same(folder: Path, other: Path) -> set[str]:
    """Names in a folder whose stores are, byte for byte, those of another, and whose networks have the same content."""
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in other.iterdir()}
    for name in names:
        if name.endswith(".zarr"):
            assert digest(folder / name) == digest(other / name)
        elif name.endswith(".safetensors"):  # its header has no fixed order
            (mine, its_words), (theirs, their_words) = (content(path / name) for path in (folder, other))
            if mine.pop("history.seconds", None) is not None:
                theirs.pop("history.seconds")
                its_words.pop("crc32"), their_words.pop("crc32")  # of the seconds too
            assert its_words == their_words
            assert mine.keys() == theirs.keys()
            for tensor in mine:
                np.testing.assert_array_equal(mine[tensor], theirs[tensor])
    return names


def content(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


@pytest.mark.filterwarnings("ignore")  # distributed's own, of sockets that close late
def test_every_verb_on_a_cluster(tmp_path, two_workers):
    from distributed import Client

    table = everything(tmp_path / "threads", "--scheduler", "threads", "--workers", "2")
    assert everything(tmp_path / "cluster", "--scheduler", two_workers) == table
    assert same(tmp_path / "cluster", tmp_path / "threads") >= {"nnfbp.zarr", "net.safetensors"}
    with Client(two_workers) as client:
        imported = client.run(lambda: set(sys.modules))
    assert len(imported) == 2
    for modules in imported.values():
        assert "nntomo_dask.kernels.backproject" in modules, "it was not this worker that computed"


@pytest.mark.slow
def test_the_quickstart_on_a_cluster(tmp_path, two_workers):
    script = [sys.executable, str(ROOT / "pipelines/demo/quickstart.py"), "--size", "70"]
    for folder, scheduler in (("threads", "threads"), ("cluster", two_workers)):
        command = [*script, "--out", folder, "--scheduler", scheduler]
        subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, check=True, capture_output=True)
    made = same(tmp_path / "cluster", tmp_path / "threads")
    assert made >= {"fbp.zarr", "sirt.zarr", "sirt_nonnegative.zarr", "nnfbp.zarr", "network.safetensors"}


@pytest.fixture
def certificates(tmp_path):
    """In the test's folder a certificate authority, and a node's certificate and key signed by it."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, to make certificates")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-subj", "/CN=ours", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", *key, "-subj", "/CN=node", "-keyout", "node.key", "-out", "node.csr")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
    openssl("x509", "-req", "-in", "node.csr", *signed, "-out", "node.pem")


@pytest.mark.filterwarnings("ignore")  # distributed's own, of sockets that close late
def test_tls(tmp_path, monkeypatch, certificates, by_threads):
    monkeypatch.chdir(tmp_path)
    with scheduler(tmp_path, "--protocol", "tls", *TLS) as started, worker(started.address, tmp_path, *TLS):
        address = started.address
        assert address.startswith("tls://127.0.0.1:")
        line = refusal(phantom(tmp_path, "--scheduler", address))
        assert "needs a Dask scheduler that answers; got none at tls://" in line
        assert "for a tls:// address give --tls-ca-file, --tls-cert and --tls-key" in line
        line = refusal(phantom(tmp_path, "--scheduler", address, *TLS[:2]))
        assert "needs --tls-ca-file, --tls-cert and --tls-key together; got --tls-ca-file" in line
        unprotected = ("--scheduler", address.replace("tls", "tcp"))
        assert "got none at tcp://" in refusal(phantom(tmp_path, *unprotected))
        assert "encryption required" in refusal(phantom(tmp_path, *unprotected, *TLS))
        command = phantom(tmp_path, "--scheduler", address, *TLS)
        subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)
    assert digest(tmp_path / "particle.zarr") == digest(by_threads)


def test_a_scheduler_whose_workers_come_later(tmp_path, alone, by_threads):
    command = phantom(tmp_path, "--scheduler", alone.address)
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == f"{alone.address} has no workers yet; waiting for one\n"
        with worker(alone.address, tmp_path):
            process.communicate(timeout=120)
    assert process.returncode == 0
    assert digest(tmp_path / "particle.zarr") == digest(by_threads)


def without_the_package(folder: Path) -> str:
    """A folder of all that is installed here, but for nntomo_dask."""
    for place in (Path(text) for text in sys.path if text.endswith("site-packages")):
        for entry in place.iterdir():
            if "nntomo_dask" not in entry.name and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    return str(folder)


def with_another_version(folder: Path) -> str:
    metadata = folder / "nntomo_dask-0.0.1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: nntomo_dask\nVersion: 0.0.1\n")
    return os.pathsep.join([str(folder), str(ROOT)])


@pytest.mark.filterwarnings("ignore")  # distributed's own, of sockets that close late
@pytest.mark.parametrize(
    ("environment", "python", "found"),
    [
        (without_the_package, ("-S",), "none on a worker"),
        (with_another_version, (), r"0\.0\.1 on tcp://127\.0\.0\.1:\d+"),
    ],
)
def test_workers_of_another_environment_are_refused(tmp_path, alone, environment, python, found):
    folder = tmp_path / "environment"
    folder.mkdir()
    path = environment(folder)
    with worker(alone.address, tmp_path, "--no-nanny", python=python, path=path):
        line = refusal(phantom(tmp_path, "--scheduler", alone.address))
    wanted = rf"needs nntomo_dask \S+ on every worker, as on this machine; got {found}; try: install this version"
    assert re.search(wanted, line)


def wait_for(pattern: str, folder: Path, process: subprocess.Popen) -> None:
    """Until the process has written such a file."""
    while not any(folder.glob(pattern)):
        with pytest.raises(subprocess.TimeoutExpired):  # it runs still
            process.wait(0.05)


@pytest.mark.slow
def test_a_worker_dies_and_another_comes(tmp_path, alone):
    script = tmp_path / "reconstruct.py"
    script.write_text(RECONSTRUCT)

    def command(output: str, scheduler: str) -> list[str]:
        return [sys.executable, str(script), str(tmp_path / output), scheduler, "200"]

    with (
        worker(alone.address, tmp_path, "--no-nanny") as first,
        subprocess.Popen(command("cluster.zarr", alone.address), env=ENVIRONMENT, stdout=subprocess.DEVNULL) as driver,
    ):
        wait_for("cluster.zarr/volume/c/*/0/0", tmp_path, driver)
        first.process.kill()
        first.process.wait()
        assert store.missing_chunks(tmp_path / "cluster.zarr"), "it was done before its worker died"
        with worker(alone.address, tmp_path):
            assert driver.wait(120) == 0
    subprocess.run(command("threads.zarr", "threads"), env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    assert digest(tmp_path / "cluster.zarr") == digest(tmp_path / "threads.zarr")


def test_the_scheduler_dies(tmp_path, monkeypatch, alone, rng):
    nt.save(nt.tilt_series(rng.random((96, 8, 32), np.float32), nt.tilt_angles("tem", 8)), tmp_path / "series.zarr")
    options = ["--method", "sirt", "--tolerance", "0", "--max-iterations", "3000"]
    command = [*NNTOMO, "reconstruct", "series.zarr", *options, "-o", "a.zarr", "--scheduler"]
    with (
        worker(alone.address, tmp_path),
        subprocess.Popen(
            [*command, alone.address], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
        ) as driver,
    ):
        wait_for("a.zarr/zarr.json", tmp_path, driver)
        alone.process.kill()
        _, text = driver.communicate(timeout=120)
    assert driver.returncode == 2
    lost = "Error: a.zarr: the connection to the Dask scheduler was lost. Fix this and rerun: what was written is kept"
    assert any(line.startswith(lost) for line in text.splitlines()), text
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, [*command[len(NNTOMO) :], "threads"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert store.missing_chunks(tmp_path / "a.zarr") == []
