"""The main job, as the project promises it: a particle from 8 projections, and which volume is best."""

import json

import numpy as np
import pytest

import nntomo_dask as nt
from pipelines.demo import quickstart


def check(errors):
    """The promise: NN-FBP no worse than SIRT, total variation the best by far, and FBP the worst."""
    assert errors["nnfbp"] <= errors["sirt"]
    assert errors["tv"] <= errors["nnfbp"] / 3
    assert errors["fbp"] == max(errors.values())


def test_the_quickstart(tmp_path, capsys):
    """As `make demo` runs it: its errors, what it leaves behind, what it says, and a second run."""
    errors = quickstart.run(size=128, count=8, seed=1, methods=quickstart.METHODS, out=tmp_path)
    check({method: value["mse"] for method, value in errors.items()})
    assert np.isfinite([value for row in errors.values() for value in row.values()]).all()

    assert (tmp_path / "quickstart.png").stat().st_size > 50_000
    volume = nt.open(tmp_path / "nnfbp.zarr")
    assert volume.shape == (128, 128, 128)
    assert json.dumps(volume.attrs["recipe"]).count("train_nnfbp") == 1
    assert len(nt.intermediate_networks(tmp_path / "network.training.safetensors")) > 5

    advice = quickstart.assess(nt.open(tmp_path / "series.zarr"), tmp_path)
    assert "TV" in advice
    assert f"nntomo reconstruct {tmp_path / 'series.zarr'} --method tv" in advice
    capsys.readouterr()
    quickstart.report(errors, advice, tmp_path)
    text = capsys.readouterr().out
    assert all(quickstart.TITLES[method] in text for method in quickstart.METHODS)
    assert "nntomo import" in text
    assert advice in text

    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("c/*/0/0")}
    again = quickstart.run(size=128, count=8, seed=1, methods=quickstart.METHODS, out=tmp_path)
    assert again == errors
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("c/*/0/0")} == times


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network of the quickstart."""
    out = tmp_path_factory.mktemp("quickstart")
    quickstart.run(size=128, count=8, seed=1, methods=("nnfbp",), out=out)
    return nt.load_network(out / "network.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2, 3])
def test_errors_of_other_particles(network, seed):
    particle = nt.nanoparticle(128, seed=seed)
    series = nt.project(particle, nt.tilt_angles("tem", 8)).compute()
    volumes = {
        "fbp": nt.fbp(series),
        "sirt": nt.sirt(series),
        "nnfbp": nt.nnfbp(series, network),
        "tv": nt.tv(series),
    }
    check({method: float(nt.mse(volume, particle)) for method, volume in volumes.items()})


@pytest.mark.slow
@pytest.mark.extra("torch")
def test_msdnet_in_the_quickstart(tmp_path):
    """The small one that is trained there: at most half the error of the strongest SIRT."""
    errors = quickstart.run(size=128, count=8, seed=1, methods=("sirt", "msdnet"), out=tmp_path)
    assert errors["msdnet"]["mse"] <= errors["sirt"]["mse"] / 2
    assert (tmp_path / "quickstart.png").stat().st_size > 50_000
