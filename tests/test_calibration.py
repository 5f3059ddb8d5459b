"""What pipelines/calibration.py says of spreads: its statistics where the answer is known, and one tiny study."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.networks.nnfbp import InputLayout
from tests.test_nnfbp import random_network

PIPELINES = Path(__file__).parents[1] / "pipelines"
SHAPE = (40, 40, 40)
EVERYWHERE = np.ones(SHAPE, bool)
COUNT = 40**3


@pytest.fixture
def study(monkeypatch):
    """The script, which imports what lies beside it."""
    monkeypatch.syspath_prepend(str(PIPELINES))
    import calibration

    return calibration


@pytest.fixture
def spread(rng):
    """Spreads of many sizes."""
    return rng.lognormal(-3, 1, SHAPE)


def test_an_exact_spread(study, rng, spread):
    """Gaussian errors of exactly these deviations; tolerances are four standard errors."""
    found = study.calibration(rng.standard_normal(SHAPE) * spread, spread, EVERYWHERE)
    assert found.looked_at == COUNT
    # Of the ratio of mean squares Σ s²z² / Σ s², whose variance is 2 Σ s⁴ / (Σ s²)²; half of it for the root.
    deviation = np.sqrt(2 * (spread**4).sum()) / (spread**2).sum() / 2
    assert found.factor == pytest.approx(1, abs=4 * deviation)
    for name, share in (("within_1", 0.6827), ("within_2", 0.9545)):
        assert getattr(found, name) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / COUNT))
    # Two draws of the same kind: a rank correlation of n pairs has a standard error of at most 1/√n.
    assert found.rank == pytest.approx(found.rank_exact, abs=4 * np.sqrt(2 / COUNT))
    # The mean square of n errors has a relative error of √(2/n), its root half of that; in the last bin, the widest,
    # few of them count.
    np.testing.assert_allclose(found.errors[:-1], found.spreads[:-1], rtol=4 * np.sqrt(20 / COUNT / 2))
    assert found.unevenness < 0.05
    assert len(found.spreads) == len(found.errors) == study.BINS


def test_a_spread_that_is_five_times_too_small(study, rng, spread):
    error = rng.standard_normal(SHAPE) * spread
    exact, small = (study.calibration(error, one, EVERYWHERE) for one in (spread, spread / 5))
    assert small.factor == pytest.approx(5 * exact.factor)
    assert small.rank == exact.rank
    assert small.unevenness == pytest.approx(exact.unevenness)
    # The errors of 16 % of voxels are within a fifth of a deviation.
    assert small.within_1 == pytest.approx(0.1585, abs=4 * np.sqrt(0.1585 * 0.8415 / COUNT))
    assert (small.scaled_1, small.scaled_2) == pytest.approx((exact.scaled_1, exact.scaled_2), abs=1e-4)


def test_a_spread_that_knows_nothing(study, rng, spread):
    """Its factor makes the mean right, and its curve is level."""
    found = study.calibration(rng.standard_normal(SHAPE), spread, EVERYWHERE)
    assert abs(found.rank) < 4 / np.sqrt(COUNT)
    assert abs(found.rank_blocks) < 4 / np.sqrt(1000)
    np.testing.assert_allclose(found.errors, found.error, rtol=4 * np.sqrt(20 / COUNT / 2))
    # Of the ideal line's mean height, that of the spreads' bins, and the level one.
    expected = np.abs(found.factor * np.array(found.spreads) - found.error).mean() / found.error
    assert found.unevenness == pytest.approx(expected, rel=0.1)
    assert expected > 0.5


@pytest.mark.parametrize(("sign", "rank"), [(1, 1), (-1, -1)])
def test_order(study, rng, sign, rank):
    """Errors of either sign that grow, or fall, with the spread."""
    spread = rng.permutation(np.arange(1.0, COUNT + 1)).reshape(SHAPE)
    error = np.exp(sign * spread / COUNT) * rng.choice([-1, 1], SHAPE)
    assert study.calibration(error, spread, EVERYWHERE).rank == pytest.approx(rank)


def test_a_curve_by_hand(study):
    """80 voxels in 20 bins; errors are twice the spreads."""
    spread = np.arange(1.0, 81).reshape(4, 4, 5)
    found = study.calibration(-2 * spread, spread, np.ones(spread.shape, bool))
    fours = np.arange(1.0, 81).reshape(20, 4)
    np.testing.assert_allclose(found.spreads, np.sqrt((fours**2).mean(axis=1)))
    np.testing.assert_allclose(found.errors, 2 * np.array(found.spreads))
    assert found.factor == pytest.approx(2)
    assert found.unevenness == pytest.approx(0, abs=1e-12)
    assert (found.within_1, found.within_2) == (0, 1)


def test_only_the_mask_counts(study, rng, spread):
    error, where = rng.standard_normal(SHAPE) * spread, rng.random(SHAPE) < 0.3
    expected = study.calibration(error, spread, where)
    error[~where], spread[~where] = np.nan, np.nan
    assert study.calibration(error, spread, where) == expected
    assert expected.looked_at == where.sum()


def test_a_spread_that_is_the_same_everywhere(study, rng):
    found = study.calibration(rng.standard_normal(SHAPE), np.full(SHAPE, 0.5), EVERYWHERE)
    assert np.isnan(found.rank)
    assert np.isnan(found.rank_blocks)
    assert found.factor == pytest.approx(2 * found.error)
    nothing = study.calibration(rng.standard_normal(SHAPE), np.zeros(SHAPE), EVERYWHERE)
    assert np.isnan(nothing.factor)
    assert (nothing.within_2, nothing.scaled_2) == (0, 0)


def test_blocks_by_hand(study):
    volume, where = np.zeros((8, 4, 4)), np.zeros((8, 4, 4), bool)
    volume[0, 0, 0], volume[1, 1, 1], volume[7] = 3, 4, 100
    where[:2, :2, :2] = True  # 8 voxels of the first block, none of the second
    np.testing.assert_allclose(study.in_blocks(volume, where), [np.sqrt(25 / 8)])


def test_neighbourhood(study):
    """A ball of radius 6 in 40³: within 8, and nowhere else; a body at the edge is cut by the disc."""
    z, y, x = np.indices(SHAPE) - 19.5
    distance = np.sqrt(z**2 + y**2 + x**2)
    near = study.neighbourhood((distance < 6).astype(np.float32))
    assert near[distance < 6].all()
    assert near[distance < 7].all()  # a voxel's distance is to the nearest voxel's middle, up to half a diagonal more
    assert not near[distance >= 8].any()
    wide = study.neighbourhood((np.abs(y) < 30).astype(np.float32))
    assert np.array_equal(wide, np.hypot(y, x) < 20)


def test_rows_come_back(study, tmp_path, rng, spread):
    found = study.calibration(rng.standard_normal(SHAPE) * spread, spread, EVERYWHERE)
    row = study.Row(study.Case("faceted", 40, "fine", "tem8", 2.0, 1), "tv", "TV, jackknife", "", found)
    later = dataclasses.replace(row, settings="4 networks, 5 slices")
    for one in (row, later, dataclasses.replace(later, title="TV")):
        study.append(tmp_path / "rows.csv", one)
    first, second = study.read(tmp_path / "rows.csv")
    assert (first.key, second.key, second.title) == (row.key, later.key, "TV")
    # Six digits are written.
    for name, value in dataclasses.asdict(first.statistics).items():
        assert value == pytest.approx(getattr(found, name), rel=1e-5), name
    assert study.read(tmp_path / "none.csv") == []


@pytest.fixture
def run(study, tmp_path):
    """One tiny case as from the command line; gives the rows."""

    def main(*words):
        options = ["--voxels", "16", "--only", "faceted", "--only", "2%", "--out", str(tmp_path / "out")]
        study.main([*options, *map(str, words)])
        return {row.name: row for row in study.read(tmp_path / "out" / "calibration.csv")}

    return main


def test_jackknife_from_the_command_line(study, run, tmp_path):
    rows = run("--only", "sirt")
    case = study.Case("faceted", 16, "fine", "tem8", 2.0, 1)
    assert {(name, row.case) for name, row in rows.items()} == {("sirt", case)}
    series, truth = study.series_of(case), study.truth_of(case).values
    volume, spread = nt.sirt(series).values, nt.jackknife(series, "sirt").values
    expected = study.calibration(volume - truth, spread, study.neighbourhood(truth))
    assert rows["sirt"].statistics.rank == pytest.approx(expected.rank, rel=1e-5)
    assert rows["sirt"].statistics.factor == pytest.approx(expected.factor, rel=1e-5)
    assert (tmp_path / "out" / "calibration.png").read_bytes()[:4] == b"\x89PNG"
    table = (tmp_path / "out" / "calibration.md").read_text()
    assert f"| SIRT, jackknife | 2 % | {expected.rank:.2f} " in table
    assert table.splitlines()[-1] == f"| SIRT, jackknife | 2 % | {expected.factor:.2f} |"
    written = (tmp_path / "out" / "calibration.csv").read_bytes()
    run("--only", "sirt")  # nothing is computed again
    assert (tmp_path / "out" / "calibration.csv").read_bytes() == written


@pytest.mark.filterwarnings("ignore:nnfbp")  # the networks are random
def test_networks_from_files(study, run, tmp_path, rng, capsys):
    case = study.Case("faceted", 16, "fine", "tem8", 2.0, 1)
    series, truth = study.series_of(case), study.truth_of(case).values
    networks = [random_network(rng, InputLayout(tuple(series.angle.values), 16)) for _ in range(3)]
    paths = [tmp_path / f"net-{k}.safetensors" for k in range(3)]
    for network, path in zip(networks, paths, strict=True):
        nt.save_network(network, path)
    rows = run("--network", *paths)
    assert set(rows) == {"net", "net-beside-tv"}
    volume, spread = nt.nnfbp(series, networks).values, nt.nnfbp(series, networks, statistic="spread").values
    beside = nt.volume_and_spread(series, networks)[1].values
    for name, one in (("net", spread), ("net-beside-tv", beside)):
        expected = study.calibration(volume - truth, one, study.neighbourhood(truth))
        assert rows[name].statistics.factor == pytest.approx(expected.factor, rel=1e-5)
        assert rows[name].statistics.rank == pytest.approx(expected.rank, rel=1e-5)
    # Networks for other series are said, and the study goes on.
    run("--network", *paths, "--geometry", "tem9")
    assert "faceted_16_fine_tem9_noise2_seed1 net: nnfbp: needs" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("--network", paths[0])


@pytest.mark.filterwarnings("ignore:nnfbp")
def test_ensembles_are_trained_once(study, run, tmp_path, monkeypatch, rng):
    layout = InputLayout(tuple(nt.tilt_angles("tem", 8)), 16)
    asked = []

    def train(train, training, validation, *, members, **options):
        asked.append((train, members, options, training.sizes))
        return [random_network(rng, layout) for _ in range(members)]

    monkeypatch.setattr(nt, "train_ensemble", train)
    words = ("--only", "nnfbp", "--members", "2", "--slices", "8")
    first = run(*words)["nnfbp"]
    (tmp_path / "out" / "calibration.csv").unlink()
    study.volume_and_spread.cache_clear()
    assert run(*words)["nnfbp"] == first
    assert len(asked) == 1
    assert asked[0][:2] == (nt.train_nnfbp, 2)
    assert first.settings == "2 networks, 8 slices of mixed"
    assert len(list((tmp_path / "out" / "networks").iterdir())) == 2
