"""A missing optional package is one line that says which command installs it."""

import pickle
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nntomo_dask import extras

SERIES = "series = nt.tilt_series(np.ones((2, 3, 16), np.float32), [-60, 0, 60])"
EIGHT = "series = nt.tilt_series(np.ones((2, 8, 16), np.float32), nt.tilt_angles('tem', 8))"
SAMPLES = f"{SERIES}; sets = nt.phantom_samples(series, n_slices=8, n_samples=200)"
# What is hidden, what is tried, and what the message says of who needs what, and which extra has it.
# (Of abTEM and ASE the first that is missing is named.)
CASES = [
    ("astra", f"{SERIES}; nt.fbp(series, engine='astra').compute()", 'engine="astra": needs the ASTRA', "astra"),
    ("torch", "nt.train_msdnet", "train_msdnet: needs PyTorch", "deep"),
    ("torch", "nt.train_unrolled", "train_unrolled: needs PyTorch", "deep"),
    ("torch", f"{EIGHT}; nt.unrolled(series)", "unrolled: needs PyTorch", "deep"),
    (
        "torch",
        f'{SAMPLES}; nt.train_nnfbp(*sets, solver="adam", progress="none")',
        'train_nnfbp with solver="adam": needs PyTorch',
        "deep",
    ),
    ("ase", "nt.simulate", "simulate: needs ASE", "simulation"),
    ("ase", "nt.Imaging", "Imaging: needs ASE", "simulation"),
    ("abtem", "nt.ground_truth", "ground_truth: needs ", "simulation"),
    (
        "cupy",
        f'import dask; dask.config.set({{"nntomo_dask.device": "gpu"}}); {SERIES}; nt.fbp(series).compute()',
        "GPU: needs CuPy",
        "cuda13",
    ),
    ("dask_cuda", "from nntomo_dask.compute import workers; workers.local_cluster(1, 1, [0]).__enter__()",
     "--gpus: needs dask-cuda", "cuda13"),
]  # fmt: skip


def hidden(package, script):
    """Run Python where a package is missing; gives the process when it has ended."""
    start = f"import sys; sys.modules[{package!r}] = None\n"
    return subprocess.run([sys.executable, "-c", start + script], capture_output=True, text=True)


@pytest.mark.parametrize(("package", "script", "message", "extra"), CASES, ids=range(len(CASES)))
def test_in_python(package, script, message, extra):
    result = hidden(package, f"import numpy as np, nntomo_dask as nt\n{script}")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("nntomo_dask.extras.MissingPackageError: " + message)
    assert f"try: pip install 'nntomo_dask[{extra}]'" in last


def test_py4dstem_is_asked_for_before_anything_is_computed():
    pytest.importorskip("abtem")
    settings = 'nt.Imaging(idpc="py4dstem")'
    result = hidden(
        "py4DSTEM", f'import nntomo_dask as nt; nt.simulate("MIL-53", [0, 1], mode="idpc", imaging={settings})'
    )
    assert (
        'simulate with idpc="py4dstem": needs py4DSTEM; got an installation without it; try: pip install'
        in (result.stderr.splitlines()[-1])
    )


@pytest.mark.parametrize(
    ("package", "words", "message"),
    [
        ("ase", ["structures"], "simulation: needs ASE"),
        ("abtem", ["simulate", "--help"], "simulation: needs "),
        ("abtem", ["truth", "UiO-66", "--mode", "haadf", "-o", "a.zarr"], "simulation: needs "),
        ("torch", ["train", "--network", "msdnet", "--for", "series.zarr", "-o", "a.safetensors"], "needs PyTorch"),
        (
            "cupy",
            ["reconstruct", "series.zarr", "--method", "fbp", "--gpus", "all", "-o", "a.zarr"],
            "needs an NVIDIA GPU",
        ),
    ],
)
def test_on_the_command_line(run, series_store, package, words, message):
    """One line and exit code 2, as with everything else that the user can fix."""
    result = hidden(package, f"from nntomo_dask.cli.main import main; main({words!r})")
    assert result.returncode == 2, result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert message in last
    assert "try: pip install 'nntomo_dask[" in last
    assert "Traceback" not in result.stderr


def test_what_is_no_extra_stays_as_it_is():
    result = hidden("tqdm", "import nntomo_dask as nt; nt.train_nnfbp")
    assert result.stderr.splitlines()[-1].startswith("ModuleNotFoundError: ")


def test_the_error_is_both_kinds_and_travels(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(extras.MissingPackageError) as caught:
        extras.require("torch", who="test")
    assert isinstance(caught.value, ModuleNotFoundError)
    assert caught.value.name == "torch"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_extras_are_those_of_the_project_file():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["optional-dependencies"]
    assert {extra for _, extra in extras.PACKAGES.values()} <= set(declared)
    names = {"astra": "astra-toolbox", "cupy": "cupy-cuda13x", "dask_cuda": "dask-cuda", "py4DSTEM": "py4dstem"}
    for package, (_, extra) in extras.PACKAGES.items():
        name = names.get(package, package)
        assert any(entry.startswith(name) for entry in declared[extra]), name
        assert not any(entry.startswith(name) for entry in project["dependencies"]), name
