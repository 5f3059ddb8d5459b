"""What a verb of `nntomo` imports: only what it uses, since imports are most of the time that a short command takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nntomo_dask as nt
from nntomo_dask.cli.main import main

# Runs commands one after another in one process: the modules that each of them was the first to load.
SCRIPT = """
import json, os, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
from nntomo_dask.cli.main import main
found, before = {}, set()
for words in json.loads(sys.argv[1]):
    code = 0
    try:
        main(words)
    except SystemExit as end:
        code = end.code or 0
    found[" ".join(words)] = [code, sorted(set(sys.modules) - before)]
    before = set(sys.modules)
json.dump(found, answers)
"""
# Of what is installed, what takes tens of milliseconds or more to import.
HEAVY = {
    "numpy", "scipy", "pandas", "xarray", "dask", "distributed", "bokeh", "zarr", "numcodecs", "numba", "llvmlite",
    "torch", "matplotlib", "skimage", "astra", "abtem", "ase", "py4DSTEM", "mrcfile", "safetensors", "psutil", "tqdm",
    "nntomo_dask.compute", "nntomo_dask.store", "nntomo_dask.kernels", "nntomo_dask.simulation",
}  # fmt: skip
# Those that only one operation or another needs, and no help text.
OF_AN_OPERATION = {
    "torch", "matplotlib", "astra", "abtem", "ase", "py4DSTEM", "mrcfile", "bokeh", "distributed", "scipy.optimize",
    "nntomo_dask.simulation.multislice", "nntomo_dask.kernels.torch_layers",
}  # fmt: skip
LIGHT = ["--help", "-h", "--version"]
NEEDED = {  # what a verb's help loads of these all the same
    "simulate": {"ase", "scipy.optimize"},
    "truth": {"ase", "scipy.optimize"},
    "structures": {"ase", "scipy.optimize"},
    "demo": {"matplotlib"},
}
VERBS = sorted(main.list_commands(None), key=lambda verb: verb in NEEDED)  # last, for they hide it from later ones


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Names of the modules that each command was the first of all to load."""
    folder = tmp_path_factory.mktemp("quick")
    nt.save(nt.nanoparticle(8, seed=1), folder / "a.zarr")
    lines = [*([word] for word in LIGHT), ["info", "a.zarr"], *([verb, "--help"] for verb in VERBS)]
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(lines)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(nt.__file__).parents[1])},
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(run.stdout)
    assert all(code == 0 for code, _ in found.values())
    return {line: set(modules) for line, (_, modules) in found.items()}


# What runs before a verb is known.
START = {"nntomo_dask.cli.main", "nntomo_dask.cli.interruption", "nntomo_dask.cli.output"}


@pytest.mark.parametrize("line", LIGHT)
def test_the_list_of_verbs_imports_none_of_them(loaded, line):
    assert loaded[line] & HEAVY == set()
    assert not {name for name in loaded[line] if name.startswith("nntomo_dask.cli.")} - START


@pytest.mark.parametrize("verb", VERBS)
def test_help_leaves_the_optional_packages_alone(loaded, verb):
    assert loaded[f"{verb} --help"] & OF_AN_OPERATION <= NEEDED.get(verb, set())


def test_info_leaves_alone_what_it_does_not_use(loaded):
    assert loaded["info a.zarr"] & (OF_AN_OPERATION | {"skimage.metrics", "scipy.signal"}) == set()
