import sys

import dask
import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.compute import cluster, device, workers


def test_workers_are_threads_of_this_process():
    with cluster.session(workers=3):
        assert dask.config.get("scheduler") == "threads"
        assert cluster.current_workers() == 3
        assert cluster.current_processes() == 0
    with cluster.session(workers=9):
        assert (cluster.current_workers(), cluster.current_processes()) == (9, 3)
    with cluster.session(workers=3, scheduler="processes"):
        assert (cluster.current_workers(), cluster.current_processes()) == (3, 3)
    assert cluster.current_workers() == cluster.default_workers()


@pytest.mark.xdist_group("clusters")
def test_no_workers_and_no_scheduler_are_refused():
    with pytest.raises(nt.SchemaError, match="needs at least 1 worker; got 0"), cluster.session(workers=0):
        pass
    with (
        pytest.raises(nt.SchemaError, match=r"needs a Dask scheduler that answers; got none at tcp://127\.0\.0\.1:1"),
        cluster.session(scheduler="tcp://127.0.0.1:1"),
    ):
        pass


def test_progress_counts_every_slab_where_somebody_watches(tmp_path, capsys, monkeypatch):
    nt.save(nt.nanoparticle((70, 16, 16)), tmp_path / "a.zarr", progress="bar")
    assert capsys.readouterr().err.startswith("a.zarr: 0 of 3 slabs done\na.zarr: 3 slabs in ")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    nt.save(nt.nanoparticle((70, 16, 16)), tmp_path / "b.zarr", progress="bar")
    assert "3/3" in capsys.readouterr().err
    nt.save(nt.nanoparticle((70, 16, 16)), tmp_path / "b.zarr", progress="bar")
    assert "b.zarr: found complete, nothing to compute" in capsys.readouterr().err


@pytest.mark.xdist_group("clusters")
@pytest.mark.filterwarnings("ignore")  # distributed's own, of sockets that close late
def test_a_scheduler_that_runs_already(tmp_path, volume, series):
    """The same bytes by a distributed scheduler on loopback as by threads."""
    from distributed import LocalCluster

    nt.save(nt.sirt(series.chunk(z=3)), tmp_path / "threads.zarr")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as local,
        cluster.session(scheduler=local.scheduler_address),
    ):
        nt.save(nt.sirt(series.chunk(z=3)), tmp_path / "cluster.zarr", progress="bar")
        (samples,) = cluster.load(nt.training_samples(series, volume, n_samples=50), description="", progress="none")
    assert samples.inputs.shape[0] == 50
    for chunk in (tmp_path / "threads.zarr/volume/c").rglob("0"):
        if chunk.is_file():
            other = tmp_path / "cluster.zarr" / chunk.relative_to(tmp_path / "threads.zarr")
            assert other.read_bytes() == chunk.read_bytes()
    np.testing.assert_array_equal(nt.open(tmp_path / "cluster.zarr").values, nt.sirt(series).values)


@pytest.mark.parametrize(
    ("gpus", "chosen"), [("all", [0, 1, 2]), ("2", [0, 1]), ("2,", [2]), ("0,2", [0, 2]), ("1,0", [1, 0])]
)
def test_a_number_of_gpus_and_a_list_of_them(monkeypatch, gpus, chosen):
    monkeypatch.setattr(device, "gpu_count", lambda: 3)
    assert workers.chosen_gpus(gpus) == chosen


@pytest.mark.parametrize("gpus", ["4", "0", "3,", "0,0", "first", "", ",", "-1"])
def test_gpus_that_are_not_there(monkeypatch, gpus):
    monkeypatch.setattr(device, "gpu_count", lambda: 3)
    with pytest.raises(nt.SchemaError, match="needs all, a number of GPUs up to 3, or a list of indices below 3"):
        workers.chosen_gpus(gpus)
