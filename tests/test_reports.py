"""What reconstructions tell of themselves: slices, iterations, how well the projections are met, what takes long."""

import re
import shutil

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.compute import cluster, reporting
from nntomo_dask.kernels import astra
from nntomo_dask.projection import engines
from nntomo_dask.reconstruction import report
from nntomo_dask.reconstruction.cgls import Cgls
from nntomo_dask.reconstruction.sirt import Sirt


def misfit(volume, series):
    """How far the projections of a volume are from a series, in words."""
    return report.misfit_of(volume, series)[0].told()


def told(lines, who):
    (line,) = [line for line in lines if line.startswith(f"{who}: ")]
    return line


class TestFigures:
    def test_slices_and_iterations_of_every_slab(self, series):
        """Nine slices, one of them empty, which takes no iteration; chunks and lane groups do not matter."""
        with nt.report() as lines:
            nt.sirt(series.chunk(z=2), tolerance=0, max_iterations=4).compute()
        assert re.fullmatch(
            r"sirt: 9 slices in [\d.e-]+ s; 4 iterations; the limit ended 8 before they had converged",
            told(lines, "sirt"),
        )

    def test_iterations_are_those_of_each_slice(self, series):
        """A slice that is reconstructed alone tells as many as in the range of all."""
        counts = []
        for z in range(9):
            with reporting.listening() as figures:
                nt.sirt(series.isel(z=[z]), tolerance=0.005).compute()
            counts += figures[0].iterations
        assert len(counts) == 8
        assert min(counts) < max(counts)
        with reporting.listening() as figures:
            nt.sirt(series, tolerance=0.005).compute()
        assert sorted(count for one in figures for count in one.iterations) == sorted(counts)
        assert (
            f"{min(counts)} to {max(counts)} iterations, median {np.median(counts):.0f}" in report.lines_of(figures)[0]
        )

    def test_methods_without_iterations_tell_none(self, series):
        with nt.report() as lines:
            nt.fbp(series).compute()
            nt.cgls(series, iterations=3).compute()
        assert "iteration" not in told(lines, "fbp")
        assert told(lines, "cgls").endswith("; 3 iterations")

    def test_what_a_method_starts_from_is_not_told(self, series):
        """DART starts from SIRT, whose iterations are not its own; a block of TV tells those of its finest level."""
        with nt.report() as lines:
            nt.dart(series, levels=2, noise=0.5, iterations=3).compute()
            nt.tv(series, weight=1, max_iterations=5, tolerance=1e-9).compute()
        assert re.fullmatch(r"dart: 9 slices in [\d.e-]+ s", told(lines, "dart"))
        assert "9 slices" in told(lines, "tv")
        assert "; 5 iterations" in told(lines, "tv")

    def test_nobody_has_to_listen(self, series):
        nt.sirt(series, max_iterations=2).compute()
        with nt.report() as lines:
            pass
        assert lines == []

    def test_a_slab_that_fails_is_not_told(self, series):
        broken = series.copy(data=np.where(series.z.values[:, None, None] == 0, np.nan, series.values))
        with nt.report() as lines, pytest.raises(nt.SchemaError, match="finite"):
            nt.sirt(broken.chunk(z=9), max_iterations=2).compute()
        assert lines == []

    def test_what_is_inside_a_slab_belongs_to_it(self):
        with reporting.listening() as figures, reporting.slab("outer") as outer:
            with reporting.slab("inner") as inner:
                reporting.add([1, 0, 2], unfinished=[True, False, False])
                inner.slices = 3
            reporting.add([7])
            outer.slices = 1
        assert [(one.who, one.slices, one.iterations, one.unfinished) for one in figures] == [
            ("inner", 3, [1, 2], 1),
            ("outer", 1, [7], 0),
        ]
        reporting.add([1])  # outside of a slab, so nobody's

    def test_lines_count_one_of_a_kind(self):
        figures = [reporting.Figures("tv", 1, 2.0, [1]), reporting.Figures("fbp", 2, 0.5)]
        assert report.lines_of(figures) == ["tv: 1 slice in 2 s; 1 iteration", "fbp: 2 slices in 0.5 s"]


@pytest.mark.xdist_group("clusters")
@pytest.mark.filterwarnings("ignore")  # distributed's own, of sockets that close late
@pytest.mark.parametrize("processes", [pytest.param(True, marks=pytest.mark.slow), False])
def test_workers_of_a_cluster_tell_their_client(tmp_path, series, processes):
    from distributed import LocalCluster

    settings = {"tolerance": 0, "max_iterations": 4}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=processes, dashboard_address=None) as local,
        cluster.session(scheduler=local.scheduler_address),
    ):
        for name in ("first", "second"):  # a client may listen again
            with nt.report() as lines:
                nt.save(nt.sirt(series.chunk(z=2), **settings), tmp_path / f"{name}.zarr")
            assert told(lines, "sirt").startswith("sirt: 9 slices in ")
            assert "; 4 iterations; the limit ended 8" in told(lines, "sirt")
        both = {
            tmp_path / "volume.zarr": nt.sirt(series.chunk(z=2), **settings),
            tmp_path / "spread.zarr": nt.jackknife(series.chunk(z=2), "sirt", **settings),
        }
        with nt.report() as lines:
            nt.save_together(both)
        assert told(lines, "jackknife").startswith("jackknife: 9 slices in ")
        assert told(lines, "sirt").startswith("sirt: 9 slices in ")
        with nt.report() as lines:
            nt.save(nt.sirt(series.chunk(z=2), **settings), tmp_path / "first.zarr")
        assert lines == []  # found complete


class TestCommand:
    def test_every_method_tells_what_it_did(self, run, series_store):
        for method in ("fbp", "sirt", "cgls"):
            text = run("reconstruct", series_store, "--method", method, "-o", f"{method}.zarr").stderr
            assert f"{method}: 32 slices in " in text
            assert re.search(rf"{method}: its projections differ from the series by [\d.]+ %", text)
        assert re.search(r"sirt: 32 slices in \S+ s; \d+ to \d+ iterations, median \d+", text_of(run, series_store))

    def test_a_resumed_run_tells_what_was_computed_now(self, run, tmp_path):
        run("phantom", "particle", "--size", "70,24,24", "-o", "particle.zarr")
        run("project", "particle.zarr", "--range", "tem", "--count", 5, "-o", "series.zarr")
        command = ("reconstruct", "series.zarr", "--method", "cgls", "-o", "v.zarr")
        assert "cgls: 70 slices in " in run(*command).stderr
        shutil.rmtree(tmp_path / "v.zarr/volume/c/1")
        assert "cgls: 32 slices in " in run(*command).stderr
        assert "cgls: " not in run(*command).stderr

    def test_the_misfit_is_that_of_the_volume(self, series):
        """Half of the volume that has no misfit misses half of the projections."""
        volume = nt.sirt(series, tolerance=1e-6).compute()
        assert float(re.search(r"by ([\d.e-]+) %", misfit(volume, series))[1]) < 1
        assert "by 50 %" in misfit(volume / 2, series)
        assert misfit(volume * 0, series * 0) == "the series is empty"

    def test_the_misfit_is_compared_with_the_noise(self, series, rng):
        noisy = series.copy(data=series.values * 0 + rng.normal(0, 3, series.shape).astype(np.float32))
        text = misfit(nt.sirt(noisy, minimum=None, max_iterations=1) * 0, noisy)
        # 9 x 8 x 32 values give the deviation within some percent.
        assert float(re.search(r"100 %, ([\d.]+) times the noise", text)[1]) == pytest.approx(1, abs=0.15)

    def test_projections_that_are_not_aligned_are_noticed(self, series, rng):
        """Slices are a disc each; shifts of up to 8 of 32 pixels are no body's."""
        noisy = series.values + rng.normal(0, 0.01, series.shape).astype(np.float32)
        moved = np.stack(
            [np.roll(noisy[:, i], shift, axis=-1) for i, shift in enumerate(rng.integers(-8, 9, 8))], axis=1
        )
        for values, is_aligned in ((noisy, True), (moved, False)):
            one = series.copy(data=values)
            text = misfit(nt.sirt(one, minimum=0).compute(), one)
            assert text.endswith("are they aligned? nntomo align finds out") != is_aligned, text


def text_of(run, series_store):
    return run("reconstruct", series_store, "--method", "sirt", "-o", "again.zarr").stderr


class TestEngines:
    @pytest.fixture
    def large(self):
        return nt.tilt_series(np.zeros((512, 9, 512), np.float32), nt.tilt_angles("tem", 9))

    def test_a_slow_engine_is_warned_of_before_it_begins(self, large, monkeypatch):
        monkeypatch.setattr(astra, "uses_gpu", lambda: False)
        monkeypatch.setattr(cluster, "current_workers", lambda: 2)
        (line,) = engines.outlook("astra", large, passes=200)
        # 200 passes over 512 slices of 512² pixels and 9 angles: 5 ns and 0.4 ns each, by two workers.
        assert line == (
            "warning: --engine astra computes on the CPU here and takes about 10 min, --engine native about 48 s"
        )
        assert engines.outlook("native", large, passes=200) == []
        assert engines.outlook("astra", large, passes=10) == []
        monkeypatch.setattr(astra, "uses_gpu", lambda: True)
        assert engines.outlook("astra", large, passes=200) == []

    def test_methods_say_it(self, large, monkeypatch):
        monkeypatch.setattr(astra, "uses_gpu", lambda: False)
        assert "--engine astra" in Sirt(engine="astra", minimum=0).outlook(large, ())[0]
        assert "--engine astra" in Cgls(engine="astra", iterations=100).outlook(large, ())[0]
        assert Sirt(engine="astra", minimum=0, max_iterations=1).outlook(large.isel(z=slice(0, 9)), ()) == []
