"""What version 0.1.0 wrote: it opens, resumes, and gives the same bytes and digests.

tests/data/v0_1 was made with version 0.1.0 by the program make.py that lies there. Bytes are compared on a processor
like the one that made them, with the same versions of the libraries; elsewhere values are compared.
"""

import hashlib
import json
import shutil
from pathlib import Path

import llvmlite
import numba
import numpy as np
import pytest
import scipy
from numpy._core._multiarray_umath import __cpu_features__

import nntomo_dask as nt
from nntomo_dask.arrays import recipes

DATA = Path(__file__).parent / "data" / "v0_1"
MANIFEST = json.loads((DATA / "manifest.json").read_text())
ANGLES = nt.tilt_angles("tem", 8)
SLICES = (8, 24, 24)


def made_on_such_a_machine():
    there = MANIFEST["made_by"]
    versions = {module.__name__: module.__version__ for module in (np, scipy, numba, llvmlite)}
    cpu = sorted(name for name, has in __cpu_features__.items() if has)
    return cpu == there["cpu"] and all(there["versions"][name] == version for name, version in versions.items())


SAME_MACHINE = made_on_such_a_machine()


def sha(values):
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


@pytest.fixture
def legacy(tmp_path):
    """A copy of what version 0.1.0 wrote."""
    return Path(shutil.copytree(DATA, tmp_path / "v0_1"))


@pytest.fixture(scope="module")
def series():
    return nt.open(DATA / "series.zarr")


@pytest.fixture(scope="module")
def networks():
    return {path.stem: nt.load_network(path) for path in DATA.glob("*.safetensors") if "training" not in path.stem}


OPERATIONS = {
    "particle": lambda s, n: nt.nanoparticle((12, 24, 24), seed=1, n_pores=2),
    "spheres": lambda s, n: nt.random_spheres(SLICES, seed=2, n_spheres=5, grey="grey"),
    "ellipses": lambda s, n: nt.ellipse_stack(SLICES, seed=2),
    "training": lambda s, n: nt.training_stack(SLICES, seed=2),
    "mixed": lambda s, n: nt.mixed_stack(SLICES, seed=2),
    "bodies": lambda s, n: nt.body_stack(SLICES, seed=2),
    "series": lambda s, n: nt.project(nt.open(DATA / "particle.zarr"), ANGLES),
    "project_astra": lambda s, n: nt.project(nt.open(DATA / "particle.zarr"), ANGLES, engine="astra"),
    "backproject": lambda s, n: nt.backproject(s),
    "resize": lambda s, n: nt.resize(s, 16),
    "complete_wedge": lambda s, n: nt.complete_wedge(s),
    "fbp": lambda s, n: nt.fbp(s, window="ram-lak"),
    "fbp_hann": lambda s, n: nt.fbp(s, window="hann"),
    "fbp_astra": lambda s, n: nt.fbp(s, window="ram-lak", engine="astra"),
    "sirt": lambda s, n: nt.sirt(s, tolerance=0.01, minimum=None),
    "sirt_nonnegative": lambda s, n: nt.sirt(s, minimum=0, tolerance=1e-3),
    "sirt_astra": lambda s, n: nt.sirt(s, tolerance=0.01, minimum=None, engine="astra", max_iterations=5),
    "normalize": lambda s, n: nt.normalize(nt.open(DATA / "particle.zarr")),
    "segment": lambda s, n: nt.segment(nt.open(DATA / "particle.zarr"), threshold=0.5),
    "nnfbp": lambda s, n: nt.nnfbp(s, n["nnfbp_lm"], consistency="none"),
    "nnfbp_scaled": lambda s, n: nt.nnfbp(s, n["nnfbp_lm"], scale=1.5, consistency="none"),
    "nnfbp_ensemble": lambda s, n: nt.nnfbp(s, [n["nnfbp_lm"], n["nnfbp_second"]], consistency="none"),
    "nnfbp_spread": lambda s, n: nt.nnfbp(s, [n["nnfbp_lm"], n["nnfbp_second"]], statistic="spread"),
    "msdnet_sirt": lambda s, n: nt.msdnet(s, n["msdnet_sirt"], consistency="none"),
    "msdnet_fbp": lambda s, n: nt.msdnet(s, n["msdnet_fbp"], consistency="none"),
    "msdnet_nnfbp": lambda s, n: nt.msdnet(s, n["msdnet_nnfbp"], consistency="none"),
    "msdnet_self": lambda s, n: nt.msdnet(s, n["msdnet_self"], consistency="none"),
    "msdnet_ensemble": lambda s, n: nt.msdnet(s, [n["msdnet_sirt"], n["msdnet_second"]], consistency="none"),
    "msdnet_spread": lambda s, n: nt.msdnet(s, [n["msdnet_sirt"], n["msdnet_second"]], statistic="spread"),
    "read_mrc": lambda s, n: nt.read_mrc_series(DATA / "series.mrc", ANGLES),
    "read_mrc_kept": lambda s, n: nt.read_mrc_series(
        DATA / "series.mrc", ANGLES, keep_deg=[-50, 0, 50], background=0.5
    ),
    "read_mrc_volume": lambda s, n: nt.read_mrc_volume(DATA / "particle.mrc"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_give_the_same_bytes_and_recipes(name, series, networks):
    if name.endswith("_astra"):
        pytest.importorskip("astra")
    array, wanted = OPERATIONS[name](series, networks), MANIFEST["arrays"][name]
    assert recipes.same(array.attrs["recipe"], wanted["recipe"])
    assert [list(chunks) for chunks in array.chunks] == wanted["chunks"]
    if SAME_MACHINE:
        assert sha(array.values) == wanted["sha256"]


def test_every_operation_of_then_is_tried():
    assert set(MANIFEST["arrays"]) - {"incomplete"} == set(OPERATIONS)


@pytest.mark.parametrize("name", [name for name in MANIFEST["stores"] if name != "by_angle"])
def test_stores_open_and_are_recognised(legacy, name, networks):
    opened = nt.open(legacy / f"{name}.zarr")
    assert sha(opened.values) == MANIFEST["stores"][name]["sha256"]
    assert nt.verify(legacy / f"{name}.zarr") == []
    inputs = nt.open(legacy / "series.zarr")
    made = OPERATIONS["msdnet_sirt" if name == "msdnet" else name](inputs, networks)
    before = {path: path.stat().st_mtime_ns for path in (legacy / f"{name}.zarr").rglob("*")}
    nt.save(made, legacy / f"{name}.zarr")  # complete, so nothing is computed
    assert {path: path.stat().st_mtime_ns for path in (legacy / f"{name}.zarr").rglob("*")} == before


def test_a_series_by_angle_opens(legacy):
    for mode, digest in MANIFEST["stores"]["by_angle"].items():
        assert sha(nt.open(legacy / "by_angle.zarr" / mode).values) == digest


def test_an_incomplete_store_is_completed(legacy):
    saved = nt.save(nt.random_spheres((96, 24, 24), seed=3, n_spheres=9), legacy / "incomplete.zarr")
    assert sha(saved.values) == MANIFEST["arrays"]["incomplete"]["sha256"]


def test_a_training_set_opens(legacy):
    opened = nt.open(legacy / "samples.zarr")
    assert recipes.same(opened.attrs["recipe"], MANIFEST["sets"]["nnfbp"][0])
    assert opened["inputs"].shape[0] == 1500


@pytest.mark.parametrize("name", MANIFEST["networks"])
def test_networks_load_with_their_digests(name, networks):
    wanted = MANIFEST["networks"][name]
    assert networks[name].digest == wanted["digest"]
    assert networks[name].recipe == wanted["recipe"]


@pytest.mark.parametrize("name", [name for name in MANIFEST["networks"] if name.endswith(("_lm", "_adam"))])
@pytest.mark.parametrize("kind", ["complete", "interrupted"])
def test_trainings_of_nnfbp_go_on(legacy, series, name, kind):
    wanted = MANIFEST["networks"][name]
    checkpoint = legacy / f"{name}{'_interrupted' if kind == 'interrupted' else ''}.training.safetensors"
    settings = {"phantom": "ellipses", "filters": "shared", "noise": "none"}
    sets = nt.phantom_samples(nt.open(legacy / "series.zarr"), n_slices=16, n_samples=1500, **settings)
    network = nt.train_nnfbp(*sets, checkpoint=checkpoint, output="sigmoid", **wanted["arguments"])
    assert recipes.same(network.recipe, wanted["recipe"]) or not SAME_MACHINE
    assert network.digest == wanted["digest"] or not SAME_MACHINE
    assert len(nt.intermediate_networks(checkpoint)) == wanted["recipe"]["parameters"]["max_epochs"]


@pytest.mark.parametrize("kind", ["complete", "interrupted"])
def test_trainings_of_msdnet_go_on(legacy, kind):
    pytest.importorskip("torch")
    wanted = MANIFEST["networks"]["msdnet_sirt"]
    checkpoint = legacy / f"msdnet_sirt{'_interrupted' if kind == 'interrupted' else ''}.training.safetensors"
    sets = nt.phantom_slices(nt.open(legacy / "series.zarr"), n_slices=16, neighbours=1, noise="none")
    network = nt.train_msdnet(*sets, checkpoint=checkpoint, **wanted["arguments"])
    assert recipes.same(network.recipe["inputs"], wanted["recipe"]["inputs"])
    assert network.digest == wanted["digest"] or not SAME_MACHINE


def test_measures_of_a_series(series, networks):
    assert float(nt.intensity_level(series)) == pytest.approx(MANIFEST["level"], rel=1e-6)
    outside = nt.outside_training_range(series, networks["nnfbp_lm"]).values
    np.testing.assert_allclose(outside, MANIFEST["outside"], atol=1e-6)
