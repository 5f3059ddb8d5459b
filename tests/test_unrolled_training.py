"""Trainings of unrolled networks: scenes without end, Adam, checkpoints, and the command."""

import pytest

pytest.importorskip("torch", reason="needs nntomo_dask[deep]")

import dataclasses
import functools
import itertools

import dask
import numpy as np

import nntomo_dask as nt
from nntomo_dask.arrays import geometry
from nntomo_dask.arrays.angles import extent_deg
from nntomo_dask.networks.unrolled import Geometry
from nntomo_dask.projection.projector import Projector
from nntomo_dask.training import TRAININGS, loop
from nntomo_dask.training.checkpoints import open_checkpoint
from nntomo_dask.training.declaration import Sets
from nntomo_dask.training.unrolled import UnrolledTraining, scenes as scenes_room, training as room
from nntomo_dask.training.unrolled.scenes import SceneNoise, Scenes

ANGLES = nt.tilt_angles("tem", 8)
SIZE = 16
BOUNDS = Geometry(projections=(6, 12), reach_deg=(55.0, 90.0))
SMALL = {"neighbours": 1, "width": 2, "epoch_scenes": 4, "progress": "none"}


def empty(angles=ANGLES, size=SIZE):
    return nt.tilt_series(np.zeros((1, len(angles), size), np.float32), angles)


def same(left, right):
    return all(np.array_equal(*pair) for pair in zip(left, right, strict=True))


@pytest.fixture(scope="module")
def sets():
    return nt.phantom_scenes(empty(), noise=0.02, validated=2)


@pytest.fixture
def drawn_once(monkeypatch):
    """Scenes are drawn once for all tests of this module: that they are the same each time is tested beside."""
    monkeypatch.setattr(Scenes, "scene", _kept)


_scene = Scenes.scene


@functools.cache
def _kept(source, number):
    return _scene(source, number)


class TestScenes:
    SOURCE = Scenes("materials", SIZE, BOUNDS, SceneNoise(drawn=True), seed=5)

    def test_a_scene_is_that_of_its_seed_and_number(self):
        one = self.SOURCE.scene(0)
        assert same(one, self.SOURCE.scene(0))
        others = [self.SOURCE.scene(1), Scenes("materials", SIZE, BOUNDS, SceneNoise(drawn=True), seed=6).scene(0)]
        assert not any(np.array_equal(one.truth, other.truth) for other in others)

    def test_workers_change_nothing(self):
        """Nor do they change the order."""
        alone = list(self.SOURCE.scenes(range(3), workers=1))
        several = list(self.SOURCE.scenes(range(3), workers=3))
        assert all(map(same, alone, several))
        assert same(alone[2], self.SOURCE.scene(2))

    @pytest.mark.slow
    def test_processes_change_nothing(self):
        found = list(self.SOURCE.scenes(range(5), workers=scenes_room._THREADS + 1))
        assert all(map(same, found, map(self.SOURCE.scene, range(5))))

    def test_more_than_is_asked_for_is_not_made(self, monkeypatch):
        """Of scenes without end two are made ahead for each worker."""
        made = []
        monkeypatch.setattr(Scenes, "scene", lambda source, number: made.append(number) or number)
        found = self.SOURCE.scenes(itertools.count(), workers=2)
        assert [next(found) for _ in range(3)] == [0, 1, 2]
        found.close()
        assert len(made) <= 3 + 2 * 2 + 1
        assert list(self.SOURCE.scenes(range(9), workers=2)) == list(range(9))

    def test_what_it_holds(self):
        """A body, its projections on a finer grid, and what a reconstruction begins with, in units of a level."""
        source = Scenes("materials", SIZE, Geometry(tuple(ANGLES), (8, 8), (70.0, 70.0)), SceneNoise(), seed=3)
        scene = source.scene(1)
        assert scene.truth.shape == (24, SIZE, SIZE)
        assert [one.shape for one in scene[1:4]] == [(32, SIZE, SIZE)] * 3
        np.testing.assert_array_equal(scene.angles_deg, ANGLES)
        np.testing.assert_array_equal(scene.frequency_steps, Projector(ANGLES, SIZE).frequency_steps(scene.first))
        matter = scene.truth[scene.truth > 0.5 * scene.truth.max()]
        assert 0.5 < np.median(matter) < 2.5  # levels vary by an eighth, and densities within a scene
        # The body's projections are nearly those of the finer grid: the descent at the truth is close to zero.
        inside = scene.first[4:-4]
        assert ((inside - scene.truth) ** 2).mean() < 0.3 * (scene.truth**2).mean()

    def test_rays_are_means_of_those_of_a_finer_grid(self, monkeypatch):
        """And a scene's voxels means of finer ones; the rays are lengths in voxels, not in points of the finer grid."""
        source = Scenes("materials", SIZE, Geometry(tuple(ANGLES), (8, 8), (70.0, 70.0)), SceneNoise(), seed=3)
        fine = np.zeros((4, 2 * SIZE, 2 * SIZE), np.float32)
        fine[:, 8:24, 8:24] = 1
        truth = scenes_room.binned(fine, scenes_room.FINER)
        assert truth.shape == (2, SIZE, SIZE)
        assert truth.sum() == fine.sum() / 8
        rows = source._projected(fine, ANGLES, None)
        wanted = Projector(ANGLES, SIZE).forward(truth)
        # Interpolation on the finer grid is another one where an edge crosses a ray.
        np.testing.assert_allclose(rows, wanted, atol=0.1 * wanted.max())
        np.testing.assert_allclose(rows.sum(axis=2), wanted.sum(axis=2), rtol=0.01)

    def test_flaws_change_the_projections_alone(self):
        """The specimen, its angles and the share of noise are those of the same scene without flaws."""
        flawed = dataclasses.replace(self.SOURCE, flawed=1.0)
        for number in range(3):
            one, other = self.SOURCE.scene(number), flawed.scene(number)
            np.testing.assert_array_equal(one.angles_deg, other.angles_deg)
            # Levels vary, and softened bodies lose their edges: both are the same body still.
            assert np.corrcoef(one.truth.ravel(), other.truth.ravel())[0, 1] > 0.7
            assert not np.array_equal(one.first, other.first)

    def test_a_share_of_the_scenes_has_flaws(self):
        source = dataclasses.replace(self.SOURCE, flawed=0.3)
        found = [source._flaws(ANGLES, number) is not None for number in range(500)]
        assert 0.3 - 4 * 0.021 < np.mean(found) < 0.3 + 4 * 0.021  # a standard deviation is √(0.21 / 500)

    def test_angles_that_are_drawn(self):
        """Their number within the bounds; the range too, up to what each angle lies aside."""
        counts, full = set(), 0
        for number in range(300):
            angles = self.SOURCE._angles(np.random.default_rng(number))
            counts.add(angles.size)
            assert (np.diff(angles) > 0).all()
            reach, step = extent_deg(angles) / 2, 180 / angles.size
            assert 55 - 0.15 * step <= reach <= 90
            full += reach == pytest.approx(90 - 90 / angles.size)
        assert counts == set(range(6, 13))
        assert 300 * 0.06 < full < 300 * 0.2  # an eighth: a quarter, half of it without angles that lie aside

    def test_noise_that_is_drawn(self):
        """From none to 6 % of the brightest ray; a quarter of the scenes has none."""
        rows, shares = np.full((2, 8, 64), 0.5, np.float32), []
        for number in range(200):
            noisy = self.SOURCE.with_noise(rows, 0.5, np.random.default_rng(number))
            shares.append(float((noisy - rows).std()) / 0.5)
        shares = np.array(shares)
        without = shares == 0
        assert 0.15 < without.mean() < 0.35
        # The deviation of a thousand numbers is known to 2 %.
        assert shares[~without].min() > 0.003 * 0.9
        assert 0.045 < shares.max() < 0.06 * 1.1

    def test_noise_of_a_series(self):
        """In terms of the brightest ray: r² + g v, a quarter more or less, and a background."""
        source = Scenes("materials", SIZE, BOUNDS, SceneNoise(read=0.03, gain=0.01, background=0.2), seed=0)
        rows = np.full((8, 8, 64), 5.0, np.float32)
        rows[:4] = 0
        found = np.stack([source.with_noise(rows, 5.0, np.random.default_rng(seed)) for seed in range(60)])
        assert found.mean() - rows.mean() == pytest.approx(0.2 * 5, abs=0.01)
        dark, bright = found[:, :4].std(axis=(1, 2, 3)) / 5, found[:, 4:].std(axis=(1, 2, 3)) / 5
        np.testing.assert_allclose(bright / dark, np.sqrt(0.03**2 + 0.01) / 0.03, rtol=0.1)
        # Sixty logarithms, whose deviation is 0.25: the mean is known to 0.03, the deviation to a tenth.
        assert np.log(dark / 0.03).mean() == pytest.approx(0, abs=0.1)
        assert np.log(dark).std() == pytest.approx(0.25, rel=0.3)

    def test_an_empty_scene(self, monkeypatch):
        from nntomo_dask.phantoms.materials import Materials

        fine = np.zeros((64, 2 * SIZE, 2 * SIZE), np.float32)
        monkeypatch.setattr(Materials, "scene_of", lambda *_arguments, **_settings: fine)
        scene = self.SOURCE.scene(0)
        assert not scene.first.any()
        assert not scene.truth.any()
        assert scene.noise < 0.1  # what surfaces of voxels look like, since no weight is lower

    def test_text(self):
        assert Scenes.from_json(self.SOURCE.to_json()) == self.SOURCE


class TestSets:
    def test_for_a_series(self, rng):
        """Its angles in any order, its pixels; validation scenes are never those of a training, of any seed."""
        order = rng.permutation(8)
        seeds = []
        for seed in range(3):
            both = nt.phantom_scenes(empty(ANGLES[order]), noise=0.02, validated=3, seed=seed)
            sources = [Scenes.from_json(one.attrs["scenes"]) for one in both]
            for one in sources:
                assert one.geometry == Geometry(tuple(ANGLES), (8, 8), (extent_deg(ANGLES) / 2,) * 2)
                assert (one.phantom, one.size, one.noise) == ("materials", SIZE, SceneNoise(read=0.02))
            seeds += [one.seed for one in sources]
            assert (both[1].attrs["count"], dict(both[0].variables)) == (3, {})
        assert len(set(seeds)) == 6
        assert Scenes.from_json(nt.phantom_scenes(empty(size=300), noise="none")[0].attrs["scenes"]).size == 128
        assert Scenes.from_json(nt.phantom_scenes(empty(), noise="none", size=24)[0].attrs["scenes"]).size == 24

    def test_noise_of_the_series(self):
        particle = nt.nanoparticle((24, 32, 32), seed=1).compute()
        series = nt.project(particle, ANGLES).compute()
        error = 0.03 * float(series.max()) * np.random.default_rng(0).standard_normal(series.shape)
        noisy = series.copy(data=(series.values + error).astype(np.float32))
        found = Scenes.from_json(nt.phantom_scenes(noisy)[0].attrs["scenes"]).noise
        share = nt.noise(geometry.in_order_of_angle(noisy)).share
        assert share == pytest.approx(0.03, rel=0.2)
        assert (found.read**2 + found.gain) ** 0.5 == pytest.approx(share, rel=0.2)
        assert Scenes.from_json(nt.phantom_scenes(noisy, noise="none")[0].attrs["scenes"]).noise == SceneNoise()

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"phantom": "cats"}, "cats"),
            ({"noise": -0.1}, "noise of at least 0"),
            ({"noise": np.nan}, "noise of at least 0"),
            ({"noise": "much"}, '"auto" or "none"'),
            ({"size": 15}, "at least 16 pixels; got 15"),
            ({"validated": 0}, "at least 1 scene to validate with; got 0"),
        ],
    )
    def test_what_is_refused(self, change, text):
        with pytest.raises(nt.SchemaError, match=f"phantom_scenes: needs .*{text}"):
            nt.phantom_scenes(empty(), **{"noise": "none"} | change)


@pytest.mark.usefixtures("drawn_once")
class TestTraining:
    def test_the_loss_falls(self, sets, tmp_path, monkeypatch):
        """Of two scenes that come again and again, with which it is validated too."""
        source = Scenes.from_json(sets[0].attrs["scenes"])
        monkeypatch.setattr(Scenes, "scene", lambda _, number: _kept(source, number % 2))
        monkeypatch.setattr(room, "_WARMING", 5)
        path = tmp_path / "training.safetensors"
        options = SMALL | {"learning_rate": 0.005, "width": 8, "epoch_scenes": 8}
        network = nt.train_unrolled(*sets, max_epochs=7, checkpoint=path, **options)
        losses = np.array(open_checkpoint(path).losses)
        assert losses[-1, 0] < 0.85 * losses[0, 0]
        assert losses[-1, 1] < 0.9 * losses[0, 1]
        outcome = network.recipe["outcome"]
        assert outcome["validation_loss"] == losses[:, 1].min() == losses[outcome["epoch"] - 1, 1]
        assert (network.steps, network.width, network.neighbours) == (1, 8, 1)
        assert network.angles_deg == tuple(ANGLES)
        network.check(empty(ANGLES[::-1]), who="test")
        loaded = nt.load_network(nt.save_network(network, tmp_path / "net.safetensors"))
        assert loaded.digest == network.digest

    def test_the_first_loss_is_that_of_total_variation(self, sets):
        """One, but for what is added to it: a network's first output is zero."""
        scene = Scenes.from_json(sets[0].attrs["scenes"]).scene(0)
        error = float(((scene.first[4:-4] - scene.truth) ** 2).mean())
        losses = []
        step = room.Adam._step

        def watching(self, batch, state, pool):
            losses.append(step(self, batch, state, pool))
            return losses[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(room.Adam, "_step", watching)
            nt.train_unrolled(*sets, max_epochs=1, batch_size=1, **SMALL | {"epoch_scenes": 1})
        assert losses == [pytest.approx(error / (error + 2e-5), rel=1e-5)]

    @pytest.mark.parametrize("steps", [1, 2])
    def test_workers_change_nothing(self, sets, steps):
        found = []
        for workers in (1, 2, 3):
            with dask.config.set(num_workers=workers):
                found.append(nt.train_unrolled(*sets, max_epochs=1, steps=steps, **SMALL))
        assert {one.digest for one in found} == {found[0].digest}
        assert len({nt.train_unrolled(*sets, max_epochs=1, seed=seed, **SMALL).digest for seed in (0, 1)}) == 2

    @pytest.mark.parametrize("stop", [3, 4], ids=["within an epoch", "at its end"])
    def test_a_training_is_gone_on_with(self, sets, tmp_path, monkeypatch, stop):
        """Stopped after three or four steps of two an epoch: the same losses, the same network."""
        whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
        expected = nt.train_unrolled(*sets, max_epochs=3, checkpoint=whole, **SMALL)
        monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        step, steps = room.Adam._step, []

        def failing(self, batch, state, pool):
            if len(steps) == stop:
                raise KeyboardInterrupt
            steps.append(1)
            return step(self, batch, state, pool)

        monkeypatch.setattr(room.Adam, "_step", failing)
        with pytest.raises(KeyboardInterrupt):
            nt.train_unrolled(*sets, max_epochs=3, checkpoint=parts, **SMALL)
        reached = open_checkpoint(parts)
        assert reached.state["scalars"][:2].tolist() == [stop // 2, stop % 2]
        assert not reached.ended
        monkeypatch.setattr(room.Adam, "_step", step)
        network = nt.train_unrolled(*sets, max_epochs=3, checkpoint=parts, **SMALL)
        assert open_checkpoint(parts).losses == open_checkpoint(whole).losses
        np.testing.assert_array_equal(network.parameters, expected.parameters)

    def test_one_that_has_ended(self, sets, tmp_path, monkeypatch):
        path = tmp_path / "training.safetensors"
        first = nt.train_unrolled(*sets, max_epochs=1, checkpoint=path, **SMALL)
        monkeypatch.setattr(room.Adam, "_step", None)
        assert nt.train_unrolled(*sets, max_epochs=1, checkpoint=path, **SMALL).digest == first.digest
        for change, text in (
            ({"seed": 1}, r"parameters\.seed is 0 there and 1 here"),
            ({"max_epochs": 2}, r"parameters\.max_epochs is 1 there and 2 here"),
            ({"width": 3}, r"parameters\.width is 2 there and 3 here"),
        ):
            with pytest.raises(nt.SchemaError, match=text):
                nt.train_unrolled(*sets, checkpoint=path, **{"max_epochs": 1} | SMALL | change)
        others = nt.phantom_scenes(empty(), noise=0.02, validated=2, seed=1)
        with pytest.raises(nt.SchemaError, match="another: "):
            nt.train_unrolled(*others, checkpoint=path, max_epochs=1, **SMALL)

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"steps": 3, "neighbours": 2}, "neighbours of at most 4 in all steps; got 3 steps with 2"),
            ({"steps": 0}, "steps"),
            ({"steps": 5}, "steps"),
            ({"neighbours": 5}, "neighbours"),
            ({"width": 0}, "width"),
            ({"epoch_scenes": 0}, "epoch_scenes"),
            ({"batch_size": 0}, "batch_size"),
            ({"learning_rate": 0.0}, "learning_rate"),
            ({"max_epochs": 0}, "max_epochs of at least 1; got 0"),
            ({"precision": "bfloat16", "device": "cpu"}, "float32 on the CPU; got bfloat16"),
            ({"device": "tpu"}, "device"),
        ],
    )
    def test_what_is_refused(self, sets, change, text):
        with pytest.raises(nt.SchemaError, match=f"train_unrolled: needs .*{text}"):
            nt.train_unrolled(*sets, **SMALL | change)

    def test_sets_that_are_refused(self, sets):
        other = nt.phantom_scenes(empty(ANGLES[1:]), noise=0.02)
        with pytest.raises(nt.SchemaError, match="scenes for the same series; got 8 projections and 7 projections"):
            nt.train_unrolled(sets[0], other[1], **SMALL)
        samples = nt.phantom_samples(empty(), n_slices=8, n_samples=50)
        with pytest.raises(nt.SchemaError, match=r"train_unrolled: needs sets from phantom_scenes; got a dataset of "):
            nt.train_unrolled(*samples, **SMALL)

    def test_a_loss_that_explodes(self, sets):
        with pytest.raises(nt.SchemaError, match=r"a loss that stays finite; got .* in epoch \d+; try: a lower"):
            nt.train_unrolled(*sets, max_epochs=9, **SMALL | {"learning_rate": 1e30})

    def test_an_ensemble(self, sets):
        options = {name: value for name, value in SMALL.items() if name != "progress"}
        both = nt.train_ensemble(nt.train_unrolled, *sets, members=2, max_epochs=1, **options)
        alone = [nt.train_unrolled(*sets, max_epochs=1, seed=seed, **SMALL) for seed in range(2)]
        assert [one.digest for one in both] == [one.digest for one in alone]

    def test_the_declaration(self, sets):
        training = UnrolledTraining(neighbours=1, width=2, epoch_scenes=4)
        network = training.train(*sets, max_epochs=1, progress="none")
        assert network.digest == nt.train_unrolled(*sets, max_epochs=1, **SMALL).digest
        assert "best epoch 1" in training.describe_outcome(network)
        assert "as shares of those of total variation" in training.describe_outcome(network)
        made = UnrolledTraining(noise=0.02, validated=2, phantom="particle").sets_for(empty(), seed=3)
        assert Scenes.from_json(made.training.attrs["scenes"]).phantom == "particle"
        assert TRAININGS["unrolled"] is UnrolledTraining

    def test_declarations_that_are_refused(self):
        with pytest.raises(nt.SchemaError, match="steps times neighbours of at most 4; got 3 steps with 2"):
            UnrolledTraining(steps=3).check()
        with pytest.raises(nt.SchemaError, match="cats"):
            UnrolledTraining(phantom="cats").check()

    def test_it_predicts_more_memory_for_more(self, sets):
        made = Sets(*sets)
        small = UnrolledTraining(width=2).host_bytes(made, workers=1, processes=0)
        assert UnrolledTraining(width=32).host_bytes(made, workers=1, processes=0) > small
        assert UnrolledTraining(width=2).host_bytes(made, workers=4, processes=0) > small
        assert UnrolledTraining(width=2).host_bytes(made, workers=1, processes=0, members=2) > small


def test_any_phantom_has_scenes():
    """Those without a spelling of their own are volumes of a seed."""
    for name in ("particle", "ellipses"):
        drawn = nt.PHANTOMS[name].for_training().scene_of(8, 3, np.random.default_rng(2), finer=2)
        again = nt.PHANTOMS[name].for_training().scene_of(8, 3, np.random.default_rng(2), finer=2)
        assert (drawn.shape, drawn.dtype) == ((6, 16, 16), np.float32)
        np.testing.assert_array_equal(drawn, again)


TRAIN = ("train", "--network", "unrolled", "--for", "series.zarr", "--size", 16, "--validated", 1, "--epoch-scenes", 2)
TRAIN += ("--neighbours", 1, "--width", 2, "--max-epochs", 1)


@pytest.fixture
def call(run):
    """`nntomo` in a folder with a series."""
    particle = nt.nanoparticle((8, SIZE, SIZE), seed=1)
    run("phantom", "particle", "--size", "8,16,16", "-o", "particle.zarr")
    assert particle.shape == nt.open("particle.zarr").shape
    run("project", "particle.zarr", "--range", "tem", "--count", 8, "-o", "series.zarr")
    return run


def test_on_the_command_line(call, drawn_once):
    text = call(*TRAIN, "--noise", 0.02, "-o", "net.safetensors").output
    assert "validation loss" in text
    expected = UnrolledTraining(neighbours=1, width=2, epoch_scenes=2)
    made = nt.phantom_scenes(nt.open("series.zarr"), noise=0.02, size=16, validated=1)
    network = nt.load_network("net.safetensors")
    assert network.digest == expected.train(*made, max_epochs=1, progress="none").digest
    assert "for 8 projections" in call("info", "net.safetensors").output
    assert "1 epoch" in call("info", "net.training.safetensors").output
    call(*TRAIN, "--noise", 0.02, "-o", "net.safetensors")  # had ended: says so again
    call("reconstruct", "series.zarr", "--method", "unrolled", "--network", "net.safetensors", "-o", "volume.zarr")
    np.testing.assert_array_equal(nt.open("volume.zarr").values, nt.unrolled(nt.open("series.zarr"), network).values)


def test_members_on_the_command_line(call, drawn_once):
    call(*TRAIN, "--noise", 0.02, "--members", 2, "-o", "net.safetensors")
    both = [nt.load_network(f"net-{k}.safetensors") for k in range(2)]
    assert len({one.digest for one in both}) == 2
    made = nt.phantom_scenes(nt.open("series.zarr"), noise=0.02, size=16, validated=1)
    for seed, one in enumerate(both):
        alone = nt.train_unrolled(*made, max_epochs=1, seed=seed, **SMALL | {"epoch_scenes": 2})
        assert alone.digest == one.digest


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((*TRAIN, "--steps", 4, "--neighbours", 2), "times"),
        ((*TRAIN, "--depth", 3), "--depth is for --network msdnet"),
        ((*TRAIN, "--memory", "300MiB"), "steps of 2 scenes of 24 slices of 16 pixels; got a"),
        (("train", "--network", "msdnet", "--for", "series.zarr", "--steps", 2), "--steps is for --network unrolled"),
    ],
)
def test_words_that_are_refused(call, words, text):
    assert text in " ".join(call(*words, "-o", "net.safetensors", exit_code=2).output.split())
