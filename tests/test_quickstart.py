"""The main job, as the project promises it: a particle from 8 projections, and which volume is best."""

import json

import numpy as np
import pytest

import nntomo_dask as nt
from pipelines.demo import quickstart


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The quickstart as `make demo` runs it."""
    out = tmp_path_factory.mktemp("quickstart")
    return out, quickstart.run(size=128, count=8, seed=1, methods=quickstart.METHODS, out=out)


def check(errors):
    """The promise: NN-FBP no worse than SIRT, total variation the best by far, and FBP the worst."""
    assert errors["nnfbp"] <= errors["sirt"]
    assert errors["tv"] <= errors["nnfbp"] / 3
    assert errors["fbp"] == max(errors.values())


def test_errors_of_the_quickstart(study):
    check({method: value["mse"] for method, value in study[1].items()})


def test_what_it_leaves_behind(study):
    out, _ = study
    assert (out / "quickstart.png").stat().st_size > 50_000
    volume = nt.open(out / "nnfbp.zarr")
    assert volume.shape == (128, 128, 128)
    assert json.dumps(volume.attrs["recipe"]).count("train_nnfbp") == 1
    assert len(nt.intermediate_networks(out / "network.training.safetensors")) > 5


def test_a_second_run_computes_nothing_new(study, monkeypatch):
    out, errors = study
    times = {path: path.stat().st_mtime_ns for path in out.rglob("c/*/0/0")}
    again = quickstart.run(size=128, count=8, seed=1, methods=quickstart.METHODS, out=out)
    assert again == errors
    assert {path: path.stat().st_mtime_ns for path in out.rglob("c/*/0/0")} == times


@pytest.mark.parametrize("seed", [2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 3))])
def test_errors_of_other_particles(study, seed):
    out, _ = study
    particle = nt.nanoparticle(128, seed=seed)
    series = nt.project(particle, nt.tilt_angles("tem", 8)).compute()
    network = nt.load_network(out / "network.safetensors")
    volumes = {
        "fbp": nt.fbp(series),
        "sirt": nt.sirt(series),
        "nnfbp": nt.nnfbp(series, network),
        "tv": nt.tv(series),
    }
    check({method: float(nt.mse(volume, particle)) for method, volume in volumes.items()})


def test_report_is_worth_reading(study, capsys):
    out, errors = study
    quickstart.report(errors, out)
    text = capsys.readouterr().out
    assert all(quickstart.TITLES[method] in text for method in quickstart.METHODS)
    assert "nntomo import" in text
    assert np.isfinite([value for row in errors.values() for value in row.values()]).all()


@pytest.mark.slow
@pytest.mark.extra("torch")
def test_msdnet_in_the_quickstart(tmp_path):
    """The small one that is trained there: at most half the error of the strongest SIRT."""
    errors = quickstart.run(size=128, count=8, seed=1, methods=("sirt_nonnegative", "msdnet"), out=tmp_path)
    assert errors["msdnet"]["mse"] <= errors["sirt_nonnegative"]["mse"] / 2
    assert (tmp_path / "quickstart.png").stat().st_size > 50_000
