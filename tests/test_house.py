"""The rooms and what may be imported where."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nntomo_dask"
# Layer of each room; imports go to the same layer or down.
LAYERS = {
    1: {"blas", "schema", "geometry", "chunking", "device", "slabs", "streams"},
    2: {"kernels", "filters", "networks"},
    3: {
        "phantoms",
        "projection",
        "reconstruction",
        "simulation",
        "training",
        "metrics",
        "astra_engine",
        "torch_engine",
    },
    4: {"store", "formats", "cluster", "plotting", "workers"},
    5: {"cli", "cli_networks", "cli_report", "cli_simulation", "cli_support", "pipelines"},
}
LAYER_OF = {room: layer for layer, rooms in LAYERS.items() for room in rooms}
# Heavy or optional packages and the only rooms that may import them.
ROOM_OF_PACKAGE = {
    "astra": {"astra_engine"},
    "torch": {"training", "torch_engine"},
    "cupy": {"device"},
    "cupyx": {"device"},
    "rmm": {"device"},
    "abtem": {"simulation/multislice"},
    "ase": {"simulation"},
    "py4DSTEM": {"simulation/idpc"},
    "dask_cuda": {"workers"},
    "distributed": {"cluster", "workers"},
    "mrcfile": {"formats"},
    "matplotlib": {"plotting"},
    "zarr": {"store"},
    "click": {"cli", "cli_networks", "cli_report", "cli_simulation", "cli_support"},
}


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """Names of modules that a file imports, wherever in it; importlib.import_module with a literal counts."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            yield ast.literal_eval(node.args[0])


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    layer = LAYER_OF[room(path)]
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "nntomo_dask" and len(parts) > 1 and parts[1] in LAYER_OF:
            assert LAYER_OF[parts[1]] <= layer, f"{room(path)} is in layer {layer} and imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_stay_in_their_rooms(path):
    for name in imported(path):
        package = name.split(".")[0]
        places = {room(path), str(path.relative_to(PACKAGE).with_suffix(""))}  # a room, or one file of it
        assert places & ROOM_OF_PACKAGE.get(package, places), f"{path} imports {name}"


def test_no_file_is_longer_than_it_should_be():
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in modules()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_import_is_light():
    """Importing the package pulls in none of what takes time: NumPy and all above it come with the first name used."""
    heavy = {"numpy", "xarray", "dask", "numba", "scipy", "zarr", "matplotlib", *ROOM_OF_PACKAGE}
    script = "import sys, nntomo_dask; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert heavy.isdisjoint(loaded)


def test_common_names_leave_the_optional_packages_alone():
    script = "import sys, nntomo_dask as nt; nt.fbp, nt.save, nt.train_nnfbp, nt.project; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    # CuPy is not among them: Dask imports it where it is installed.
    assert {"torch", "astra", "abtem", "py4DSTEM"}.isdisjoint(loaded)


def test_every_public_name_is_there_and_documented():
    import nntomo_dask as nt

    for name in nt.__all__:
        assert getattr(nt, name).__doc__, name
