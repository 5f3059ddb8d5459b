"""The registries: names stand in their own files, and what is registered at run time works everywhere."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.metrics.metric import Column
from nntomo_dask.reconstruction.method import Method
from nntomo_dask.settings import setting, settings_of
from nntomo_dask.training import TRAININGS

PACKAGE = Path(__file__).parents[1] / "nntomo_dask"
REGISTRIES = {
    "methods": nt.METHODS,
    "networks": nt.NETWORKS,
    "phantoms": nt.PHANTOMS,
    "metrics": nt.METRICS,
    "formats": nt.FORMATS,
    "trainings": TRAININGS,
}


def docstrings(tree):
    """The constants that are documentation: first expressions of modules, classes and functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield first.value


@pytest.mark.parametrize("kind", REGISTRIES)
def test_names_stand_in_their_own_files(kind):
    """A literal that is a registered name stands in a module or folder of that name, or in a registry's list."""
    names, strays = set(REGISTRIES[kind]), []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        documentation = {id(node) for node in docstrings(tree)}
        own = {part.removesuffix(".py") for part in path.relative_to(PACKAGE).parts}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node.value in names and id(node) not in documentation:
                declares = path.name == "__init__.py" and "Registry(" in path.read_text()
                if node.value not in own and not declares:
                    strays.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.value!r}")
    assert strays == []


@pytest.mark.parametrize("name", nt.METHODS)
def test_methods_describe_themselves(name):
    method = nt.METHODS[name]
    assert method.name == name
    assert method.title
    for one in settings_of(method):
        assert one.help.endswith("."), one.name
        assert method.slab.__doc__


@pytest.fixture
def toy():
    """A method registered at run time: the mean of all projections, smeared over the slice."""

    @nt.METHODS.register
    @dataclass(frozen=True)
    class Toy(Method):
        name: ClassVar[str] = "toy"
        title: ClassVar[str] = "Toy"
        gain: float = setting(1.0, help="What the mean is multiplied by.", above=0)

        def slab(self, rows, angles_deg, *prepared):
            mean = rows.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
            return np.repeat(mean * np.float32(self.gain), rows.shape[-1] ** 2).reshape(
                len(rows), *(rows.shape[-1],) * 2
            )

        def host_bytes(self, shape):
            return 8 * shape[0] * shape[2] ** 2

    yield Toy
    nt.METHODS.unregister("toy")


def test_a_toy_method_in_python(toy, series):
    volume = nt.reconstruct(series, "toy", gain=2)
    assert volume.attrs["recipe"]["parameters"] == {"gain": 2}
    np.testing.assert_allclose(volume.values[:, 3, 5], 2 * series.values.mean(axis=(1, 2)), rtol=1e-6)
    with pytest.raises(nt.SchemaError, match="toy: needs gain above 0; got 0"):
        nt.reconstruct(series, toy(gain=0))


def test_a_toy_method_on_the_command_line(toy, run, series_store):
    assert "[toy] What the mean is multiplied by." in run("reconstruct", "--help").output
    run("reconstruct", series_store, "--method", "toy", "--gain", 3, "--memory", "1GiB", "-o", "toy.zarr")
    wanted = 3 * nt.open(series_store).values.mean(axis=(1, 2))
    np.testing.assert_allclose(nt.open("toy.zarr").values[:, 0, 0], wanted, rtol=1e-6)
    refused = run("reconstruct", series_store, "--method", "fbp", "--gain", 3, "-o", "other.zarr", exit_code=2)
    assert "--gain is for --method toy, not for fbp" in refused.output


def test_a_toy_method_as_input_of_a_network(toy, series, volume):
    made = nt.training_slices(series, volume, method="toy")
    np.testing.assert_array_equal(made["input"].values, nt.reconstruct(series, "toy").values)


@pytest.mark.parametrize(("name", "text"), [("srit", "try: sirt"), ("mlem", "choose one of them")])
def test_unknown_names_are_refused_with_those_that_are_known(series, name, text):
    with pytest.raises(nt.SchemaError, match=f"needs a method: fbp, sirt, .* got '{name}'; .*{text}"):
        nt.reconstruct(series, name)
    with pytest.raises(nt.SchemaError, match="which is taken"):
        nt.METHODS.register(type("Again", (), {"name": "sirt"}))


@pytest.fixture
def toys():
    """A phantom, a metric and a format registered at run time."""

    @nt.PHANTOMS.register
    @dataclass(frozen=True)
    class Slope(nt.Phantom):
        name: ClassVar[str] = "slope"
        summary: ClassVar[str] = "values that rise along z"
        rise: float = setting(1.0, help="Value of the last slice.")

        def volume(self, shape, *, seed=0, pixel_size=1.0):
            sizes = (shape,) * 3 if isinstance(shape, int) else shape
            return nt.volume(np.linspace(0, self.rise, sizes[0])[:, None, None] * np.ones(sizes), pixel_size=pixel_size)

    @nt.METRICS.register
    @dataclass(frozen=True)
    class Bias(nt.Metric):
        name: ClassVar[str] = "bias"
        columns: ClassVar = (Column("bias", "Bias", "lower"),)

        def measure(self, volume, reference, *, region, memory_bytes):
            return {"bias": (volume - reference).mean()}

    @nt.FORMATS.register
    class Raw(nt.Format):
        name: ClassVar[str] = "raw"
        title: ClassVar[str] = "raw float32 cube"
        suffixes: ClassVar = (".raw",)

        @classmethod
        def read_volume(cls, path):
            values = np.fromfile(path, np.float32)
            return nt.volume(values.reshape((round(values.size ** (1 / 3)),) * 3))

        @classmethod
        def write(cls, array, path):
            array.values.tofile(path)
            return [path]

    yield
    for registry, name in ((nt.PHANTOMS, "slope"), (nt.METRICS, "bias"), (nt.FORMATS, "raw")):
        registry.unregister(name)


def test_a_phantom_a_metric_and_a_format_on_the_command_line(toys, run):
    assert "[slope] Value of the last slice." in run("phantom", "--help").output
    run("phantom", "slope", "--size", 16, "--rise", 3, "-o", "slope.zarr")
    run("export", "slope.zarr", "slope.raw")
    assert "exists" in run("export", "slope.zarr", "slope.raw", exit_code=2).output
    run("import", "slope.raw", "-o", "again.zarr")
    np.testing.assert_array_equal(nt.open("again.zarr").values, nt.open("slope.zarr").values)
    run("phantom", "slope", "--size", 16, "--rise", 5, "-o", "steep.zarr")
    table = run("compare", "steep.zarr", "--reference", "slope.zarr").output
    assert "Bias" in table
    assert "lower is better: MSE, Relative error, FSC=0.5, FSC=0.143, Bias; higher is better: PSNR, SSIM, Dice" in table
