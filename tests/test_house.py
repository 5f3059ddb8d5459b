"""The rooms and what may be imported where."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nntomo_dask"
# The layers, from the lowest; a folder or a file of the root. Imports go to the same layer or down.
LAYERS = [
    {"aside", "errors", "extras", "registry", "settings", "types", "untrusted"},
    {"compute"},
    {"arrays"},
    {"kernels"},
    {"phantoms", "projection", "metrics", "simulation"},
    {"networks", "reconstruction"},
    {"training"},
    {"store", "formats", "plotting"},
    {"assessment", "alignment", "atoms"},
    {"cli", "pipelines"},
]
LAYER_OF = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms}
# Heavy or optional packages and the only places that may import them: folders, or single files.
ROOM_OF_PACKAGE = {
    "astra": {"kernels/astra"},
    "torch": {"training", "kernels/torch_layers", "kernels/torch_unet"},
    "cupy": {"compute/device"},
    "cupyx": {"compute/device"},
    "rmm": {"compute/device"},
    "abtem": {"simulation/multislice"},
    "ase": {"simulation", "atoms/table", "atoms/match", "atoms/files"},
    "gemmi": {"simulation/cif", "simulation/symmetry"},
    "py4DSTEM": {"simulation/idpc"},
    "dask_cuda": {"compute/workers"},
    "distributed": {"compute/cluster", "compute/workers"},
    "mrcfile": {"formats"},
    "h5py": {"formats"},
    "rsciio": {"formats"},
    "tifffile": {"formats"},
    "yaozarrs": {"formats"},
    "matplotlib": {"plotting"},
    "zarr": {"store", "formats"},
    "click": {"cli"},
}


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """Names of modules that a file imports, wherever in it; so do import_module and extras.require with a literal."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "importlib.import_module",
            "extras.require",
        ):
            if isinstance(node.args[0], ast.Constant):
                yield node.args[0].value


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


def test_kernels_are_compiled_in_one_place():
    """Where the cache of compiled code is chosen: beside the package, or elsewhere where that cannot be written."""
    compiling = {str(path.relative_to(PACKAGE)) for path in modules() if "numba.njit" in imported(path)}
    assert compiling == set()


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


@pytest.mark.extra("abtem")
@pytest.mark.extra("torch")
def test_every_public_name_is_there_and_documented():
    import nntomo_dask as nt

    for name in nt.__all__:
        assert getattr(nt, name).__doc__, name


def test_no_circle_of_folders():
    """Each folder and file of the root can be read before those that import it."""
    needs = {}
    for path in modules():
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "nntomo_dask" and len(parts) > 1 and parts[1] in LAYER_OF and parts[1] != room(path):
                needs.setdefault(room(path), set()).add(parts[1])
    graphlib.TopologicalSorter(needs).prepare()  # raises a CycleError that names the circle
