"""The assessment of a series by projections that are left out: choice, ties, refusals, the command and its page."""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.arrays import slabs
from nntomo_dask.assessment import check, comparison, stack
from nntomo_dask.assessment.candidates import BASELINE
from nntomo_dask.kernels.mixed_scale import parameter_count
from nntomo_dask.networks.msdnet import Inputs
from nntomo_dask.projection.noise import Noise
from nntomo_dask.reconstruction import held_out
from nntomo_dask.reconstruction.method import Method
from nntomo_dask.settings import setting

SIZE = 24
TEM = nt.tilt_angles("tem", 8)


@pytest.fixture(scope="module")
def particle():
    """A noisy series of a particle in 24 slices."""
    clean = nt.project(nt.nanoparticle(SIZE, seed=3), TEM).compute()
    noise = np.random.default_rng(1).normal(0, 0.2, clean.shape)
    return clean.copy(data=(clean.values + noise).astype(np.float32))


@pytest.fixture(scope="module")
def found(particle):
    return nt.assess(particle, ["fbp", "sirt"], noise=0.2)


def choose(misfits, learned=None, kinds=None, ranks=None):
    misfits = np.array(misfits, float)
    count = len(misfits)
    return comparison.ranks(
        misfits,
        kinds=kinds or [str(k) for k in range(count)],
        ranks=ranks or [0] * count,
        learned=learned or [False] * count,
    )


def test_ratios_are_taken_projection_by_projection():
    """Projections differ far more than methods do; of the logarithms 1, 2, 3 the mean is 2, its error 1 / √3."""
    second = np.array([100.0, 0.1, 7.0])
    found = comparison.ratio(second * np.exp([1, 2, 3]), second)
    assert (found.mean, found.folds) == (pytest.approx(2), 3)
    assert found.standard_error == pytest.approx(1 / np.sqrt(3))
    assert found.times == pytest.approx(np.exp(2))
    assert not found.is_tie
    # 3.46 standard errors: three projections need 4.53, where a normal distribution has 2.
    assert not found.is_clear
    assert comparison.ratio(second * np.exp([2, 3, 4]), second).is_clear
    assert comparison.typical(second) == pytest.approx(70 ** (1 / 3))


def test_the_best_is_chosen_where_it_is_clearly_better():
    found = choose([[30, 40, 50], [1, 2, 3], [2, 3, 4]])
    assert (found.chosen, found.order) == (1, (1, 2, 0))


def test_a_projection_that_is_hard_to_predict_does_not_decide():
    assert choose([[200, 2, 2.1], [150, 1, 1.1], [140, 1.4, 1.5]]).best == 1


def test_the_baseline_is_chosen_where_nothing_is_clearly_better():
    found = choose([[3, 4, 5], [2, 4.4, 5]])
    assert (found.best, found.chosen) == (1, 0)
    assert choose([[1, 2, 3], [2, 3, 4]]).chosen == 0


CLOSE = [[9, 19, 27], [1, 2, 3], [1.2, 1.9, 3.05]]


def test_a_method_without_a_network_is_chosen_where_it_is_as_good():
    assert choose(CLOSE, learned=[False, True, False]).chosen == 2
    assert choose(CLOSE, learned=[False, True, True]).chosen == 1
    assert choose([*CLOSE[:2], [2, 3, 4]], learned=[False, True, False]).chosen == 1


def test_of_equal_settings_those_are_chosen_that_a_method_prefers():
    misfits, kinds = [*CLOSE, [1.1, 2.2, 2.9]], ["a", "b", "b", "c"]
    assert choose(misfits, kinds=kinds, ranks=[0, 1, 0, 0]).chosen == 2
    assert choose(misfits, kinds=kinds, ranks=[0, 0, 1, 0]).chosen == 1
    assert choose(misfits).tied == (False, True, True, True)


def test_all_slices_are_looked_at_where_there_are_few():
    assert stack.runs(np.ones(20), 24) == [(0, 8), (8, 16), (16, 20)]


@pytest.mark.parametrize(
    ("squares", "wanted"),
    [
        (np.ones(64), [(11, 19), (43, 51)]),  # about the quarters
        (np.r_[np.zeros(80), np.ones(4), np.zeros(20)], [(76, 84), (84, 92)]),  # a small particle
        (np.r_[np.zeros(60), 1.0, 1.0], [(46, 54), (54, 62)]),  # at the end
        (np.full(64, 3.0) + (np.arange(64) == 5), [(1, 9), (9, 17)]),  # above a background
    ],
)
def test_slices_lie_where_the_matter_is(squares, wanted):
    found = stack.runs(squares, 16)
    assert found == wanted


def test_runs_lie_apart_and_inside(rng):
    for _ in range(50):
        count, slices = int(rng.integers(1, 200)), int(rng.integers(1, 60))
        places = np.concatenate([np.arange(*run) for run in stack.runs(rng.random(count) ** 8, slices)])
        assert len(np.unique(places)) == len(places)
        assert places.min() >= 0
        assert places.max() < count
        assert min(slices, count) / 2 <= len(places) <= max(slices, 1) or slices >= count


def test_misfits_are_those_of_left_out_projections(particle, found):
    folds = held_out.folds(TEM)
    assert found.left_out_deg == tuple((angle,) for angle in TEM[1:-1])
    for score in found.scores:
        prepared = [float(np.asarray(one)) for one in score.method.prepare(slabs.lazy(particle))]
        rows = np.concatenate([particle.values[start:stop] for start, stop in found.slices])
        wanted = held_out.misfits(score.method, rows, TEM, folds=folds, prepared=prepared, weighting="volume")
        np.testing.assert_allclose(score.misfits, wanted.mean(axis=1), rtol=1e-12)
        assert score.beyond_noise == pytest.approx(score.misfit - np.pi / 4 * 0.2**2 / SIZE)
    assert [one.misfit for one in found.scores] == sorted(one.misfit for one in found.scores)
    assert found.baseline.method == BASELINE


def test_the_choice_is_one_to_reconstruct_with(particle, found):
    assert found.method.name == "sirt"
    volume = nt.reconstruct(particle, found.method)
    truth = nt.nanoparticle(SIZE, seed=3)
    assert float(nt.mse(volume, truth)) < float(nt.mse(nt.fbp(particle), truth)) / 2
    assert found.advice("my series.zarr").count("nntomo reconstruct 'my series.zarr' --method sirt") == 1


def test_chunks_and_order_change_nothing(particle, found):
    again = nt.assess(particle.chunk({"z": 5}), ["fbp", "sirt"], noise=0.2)
    assert [one.misfits for one in again.scores] == [one.misfits for one in found.scores]
    order = np.random.default_rng(0).permutation(8)
    shuffled = nt.assess(particle.isel(angle=order), ["fbp", "sirt"], noise=0.2)
    assert shuffled.recommended.title == found.recommended.title
    by_title = {one.title: one.misfit for one in found.scores}
    for one in shuffled.scores:  # sums over projections in another order, in float32, and as many iterations of them
        assert one.misfit == pytest.approx(by_title[one.title], rel=1e-3)


def test_an_interrupted_assessment_goes_on(particle, found, tmp_path, monkeypatch):
    first = nt.assess(particle, ["fbp", "sirt"], noise=0.2, folder=tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 6 * 2 * len(first.scores)
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-40])
    files[2].write_bytes(b"something else")
    np.savez_compressed(files[3], prediction=np.zeros((8, 1, 10**6), np.float32), seconds=1.0)
    made = []
    monkeypatch.setattr(held_out, "without", lambda *a, _of=held_out.without, **k: made.append(a) or _of(*a, **k))
    again = nt.assess(particle, ["fbp", "sirt"], noise=0.2, folder=tmp_path)
    assert len(made) == 4
    assert (
        [one.misfits for one in again.scores]
        == [one.misfits for one in first.scores]
        == [one.misfits for one in found.scores]
    )
    nt.assess(particle, ["fbp"], noise=0.2, folder=tmp_path)
    assert len(made) == 4  # of another choice of methods, what is known is not computed again
    nt.assess(particle + np.float32(1), ["fbp"], folder=tmp_path)
    assert len(made) > 4


@pytest.mark.parametrize("noise", [0.2, Noise(read_noise=0.2), Noise(gain=0.01), "auto"])
def test_the_part_of_noise_is_taken_off(particle, noise):
    found = nt.assess(particle, ["fbp"], noise=noise, folds=2, slices=8)
    if noise == "auto":
        # The estimate is of 1,500 values of a background, of which the deviation is known to some percent.
        wanted = 0.2**2
        assert np.mean(found.noise_variance) == pytest.approx(wanted, rel=0.3)
    else:
        left_out = particle.sel(angle=[angle for fold in found.left_out_deg for angle in fold])
        rows = np.concatenate([left_out.values[start:stop] for start, stop in found.slices])
        wanted = 0.2**2 if isinstance(noise, float) else np.mean(noise.variance(rows))
        assert np.mean(found.noise_variance) == pytest.approx(wanted, rel=1e-6)


@pytest.fixture
def neighbours():
    """A method registered at run time, which looks at neighbours and declares two settings to try."""

    @nt.METHODS.register
    @dataclass(frozen=True)
    class Neighbours(Method):
        name: ClassVar[str] = "neighbours"
        title: ClassVar[str] = "Neighbours"
        gain: float = setting(1.0, help="What the result is multiplied by.", above=0)
        halo = 1

        def slab(self, rows, angles_deg, *prepared, axis=None):
            mean = (rows[:-2] + rows[1:-1] + rows[2:]) / np.float32(3)
            return BASELINE.slab(mean, angles_deg) * np.float32(self.gain)

        def host_bytes(self, shape):
            return BASELINE.host_bytes(shape)

        @classmethod
        def candidates(cls, **networks):
            return [cls(gain=gain) for gain in (1.0, 3.0)]

    yield Neighbours
    nt.METHODS.unregister("neighbours")


def test_a_new_method_takes_part_by_its_declaration(neighbours, particle):
    found = nt.assess(particle, ["neighbours"], folds=2, slices=8)
    titles = {"Neighbours, gain 1", "Neighbours, gain 3"}
    assert titles < {one.title for one in found.scores}
    ((start, stop),) = found.slices
    one = next(one for one in found.scores if one.title == "Neighbours, gain 1")
    rows = particle.values[slabs.mirrored(SIZE, 1)][start : stop + 2]
    wanted = held_out.misfits(one.method, rows, TEM, folds=held_out.folds(TEM, 2), weighting="volume")
    np.testing.assert_allclose(one.misfits, wanted.mean(axis=1), rtol=1e-12)


def moved(network, layout_angles):
    """What a network is for other angles."""
    return nt.METHODS[network.name](networks=(network,)).for_angles(np.asarray(layout_angles))


def test_networks_take_part_at_fewer_projections(trained):
    network, *_ = trained
    series = nt.project(nt.nanoparticle((8, 48, 48), seed=1), TEM).compute()
    found = nt.assess(series, networks={"net.safetensors": network}, methods=["nnfbp", "fbp"], folds=2)
    (one,) = (one for one in found.scores if one.network)
    assert one.title.startswith("NN-FBP, net.safetensors")
    assert np.isfinite(one.misfit)
    # Learned for all projections, it is still better than FBP, whose filters are made for many.
    assert one.misfit < min(other.misfit for other in found.scores if other.method.name == "fbp")
    without = moved(network, TEM[[0, 1, 2, 4, 5, 6, 7]])
    assert without.networks[0].layout.n_inputs == network.layout.n_inputs
    assert found.words("s.zarr")[:4] == ["nntomo", "reconstruct", "s.zarr", "--method"]


def test_a_network_after_another_reconstruction_takes_that_from_fewer_projections():
    count = parameter_count(5, 2)
    network = nt.MSDNetwork(
        inputs=Inputs(angles_deg=tuple(TEM), method="sirt"),
        depth=2,
        parameters=np.zeros(count, np.float32),
        **dict.fromkeys(("input_deviation", "target_deviation", "level"), 1.0),
        **dict.fromkeys(("input_mean", "target_mean"), 0.0),
        recipe={},
    )
    few = moved(network, TEM[[0, 1, 3, 4, 5, 6, 7]])
    few.check(nt.tilt_series(np.ones((8, 7, 16), np.float32), TEM[[0, 1, 3, 4, 5, 6, 7]]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"methods": ["sort"]}, "needs a method: .* got 'sort'; try: sirt"),
        ({"methods": []}, "needs a method or several; got none"),
        ({"methods": ["nnfbp"]}, "needs a network for nnfbp; got none"),
        ({"folds": 7}, "as many directions as folds, 7 apart from .* got 6 of 8"),
        ({"folds": 1}, "a whole number of folds, 2 or more; got 1"),
        ({"folds": "some"}, "a whole number of folds, 2 or more; got 'some'"),
        ({"slices": 0}, "a whole number of slices, 1 or more; got 0"),
        ({"noise": -1}, "a deviation of the noise of 0 or more; got -1"),
        ({"noise": "none"}, "a deviation of the noise of 0 or more; got 'none'"),
        ({"methods": [nt.METHODS["cgls"](damping=-1)]}, "cgls: needs damping of at least 0"),
    ],
)
def test_what_cannot_be_assessed_is_refused_before_any_work(particle, nothing_computes, change, text):
    with pytest.raises(nt.SchemaError, match=text):
        nt.assess(particle, **change)


def test_networks_for_other_series_are_refused(particle, trained, nothing_computes):
    network, *_ = trained
    with pytest.raises(nt.SchemaError, match=r"assess: needs .*48"):
        nt.assess(particle, networks=[network])
    other = nt.tilt_series(np.ones((4, 8, 48), np.float32), TEM + 1)
    with pytest.raises(nt.SchemaError, match="assess: needs"):
        nt.assess(other, networks=[network])
    same = nt.tilt_series(np.ones((4, 8, 48), np.float32), TEM)
    with pytest.raises(nt.SchemaError, match="networks for the methods that are assessed; got network 1, for nnfbp"):
        nt.assess(same, ["fbp"], networks=[network])


def test_methods_that_do_not_fit_the_series_are_refused(particle, nothing_computes):
    """The tilt axis is not in the middle, where ASTRA's filtered backprojection needs it."""
    beside = particle.isel(detector=slice(0, 20))
    with pytest.raises(nt.SchemaError, match="the tilt axis in the middle of the detector"):
        nt.assess(beside, [nt.METHODS["fbp"](engine="astra")])


def test_too_few_projections_are_refused(particle, nothing_computes):
    with pytest.raises(nt.SchemaError, match="assess: needs 2 directions or more that can be left out"):
        nt.assess(particle.isel(angle=[2, 3, 4]))


@pytest.mark.parametrize("background", [0, 5])
def test_a_series_that_is_all_noise_is_refused(rng, background):
    noise = rng.normal(background, 1, (16, 8, SIZE)).astype(np.float32)
    with pytest.raises(nt.SchemaError, match="all noise"):
        nt.assess(nt.tilt_series(noise, TEM), ["fbp"])


def test_a_value_that_is_not_finite_is_refused(particle):
    broken = particle.copy()
    broken[7, 2, 3] = np.nan
    with pytest.raises(nt.SchemaError, match="nan at index z=7, angle=2, detector=3"):
        nt.assess(broken, ["fbp"])


WORDS = ("--methods", "fbp,sirt", "--folds", "3", "--slices", "8", "--workers", "1")


def test_the_command(run, series_store):
    result = run("assess", series_store, *WORDS, "-o", "out")
    (chosen,) = re.findall(r"^\*  (SIRT.*?)  ", result.output, re.MULTILINE)
    (command,) = re.findall(r"run: (nntomo reconstruct series.zarr --method sirt.* -o volume.zarr)", result.output)
    run(*command.split()[1:])
    told = json.loads((run("assess", series_store, *WORDS, "-o", "out", "--json")).stdout)
    assert told["recommended"] == chosen
    written = json.loads(Path("out/assessment.json").read_text())
    assert written["scores"] == told["scores"]
    assert len(written["scores"][0]["misfits"]) == 3
    page = Path("out/index.html").read_text()
    assert command in page
    assert page.count("<img") == 3
    assert set(re.findall(r'(?:src|href)="(.{5})', page)) == {"data:"}
    assert "http" not in re.sub(r'src="[^"]*"', "", page)


def test_outputs_that_exist_are_kept(run, series_store):
    run("assess", series_store, *WORDS, "-o", "out")
    result = run("assess", series_store, *WORDS[:-3], "16", "-o", "out", exit_code=2)
    assert "which holds another: parameters.slices is 8 there and 16 here; try: --overwrite" in result.output
    run("assess", series_store, *WORDS[:-3], "16", "-o", "out", "--overwrite")
    assert json.loads(Path("out/assessment.json").read_text())["slices"] == [[9, 17], [17, 25]]
    for path in ("particle.zarr", series_store):
        assert "try:" in run("assess", series_store, *WORDS, "-o", path, exit_code=2).output
    Path("file").touch()
    assert "file, which is a file" in run("assess", series_store, *WORDS, "-o", "file", exit_code=2).output


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--methods", "sort"], "'sort' is not one of fbp, sirt"),
        (
            ["--methods", "nnfbp"],
            "needs a network for nnfbp; got none; try: --network from nntomo train --network nnfbp",
        ),
        (["--folds", "many"], "write a number of folds, 4, or all"),
        (["--folds", "12"], "got 6 of 8; try: --folds 6"),
        (["--memory", "1MB"], "try"),
    ],
)
def test_the_command_refuses_before_any_work(run, series_store, words, text):
    result = run("assess", series_store, *words, "-o", "out", exit_code=2)
    assert text in result.output


@pytest.mark.parametrize(("gain", "word"), [(1, "note"), (0.2, "warning")])
def test_a_new_network_is_compared_with_sirt(trained, gain, word):
    """A network whose output is a fifth of what it should be is worse than SIRT at every projection.

    With a little noise: without any, the network's volume is fitted to the projections.
    """
    network, *_ = trained
    series = nt.add_noise(nt.project(nt.nanoparticle((8, 48, 48), seed=1), TEM), noise=0.01).compute()
    low, high = network.target_low, network.target_high
    changed = dataclasses.replace(network, target_high=low + gain * (high - low))
    (line,) = check.told(series, changed)
    ratio = float(re.search(r"has ([0-9.]+) times the misfit of SIRT", line)[1])
    assert ratio > (1 if gain == 1 else 5)
    if gain != 1:
        assert line.startswith(f"{word}: at 4 projections of this series that were left out")


def test_why_a_new_network_is_not_compared(trained):
    network, *_ = trained
    (line,) = check.told(nt.tilt_series(np.zeros((8, 8, 48), np.float32), TEM), network)
    assert line.startswith("note: not compared with SIRT")


def test_train_says_how_the_network_does_on_the_series(run, series_store):
    words = ("--slices", 40, "--samples", 2000, "--max-epochs", 3, "--workers", 1)
    result = run("train", "--for", series_store, *words, "-o", "net.safetensors")
    assert "projections of this series that were left out, the network has" in result.output


def test_settings_that_suppress_more_noise_are_preferred_among_equals(particle, monkeypatch):
    """Where the series decides a setting, by what it decided; elsewhere by the order of the candidates."""
    tv, seen = nt.METHODS["tv"], {}
    original = comparison.ranks
    monkeypatch.setattr(comparison, "ranks", lambda misfits, **given: seen.update(given) or original(misfits, **given))
    weights = [tv(weight=weight, tolerance=0.1) for weight in (0.3, 3.0)]
    monkeypatch.setattr(tv, "candidates", classmethod(lambda cls, **networks: weights))
    nt.assess(particle, ["tv", "cgls"], folds=2, slices=8, noise=0)
    by_kind = {
        kind: [rank for one, rank in zip(seen["kinds"], seen["ranks"], strict=True) if one == kind]
        for kind in ("tv", "cgls")
    }
    assert by_kind == {"tv": [-0.3, -3.0], "cgls": [0, 1, 2, 3]}
