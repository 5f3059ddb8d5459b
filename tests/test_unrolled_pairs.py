"""Scenes of pairs of series and volume in trainings of unrolled networks, and phantoms with settings there."""

import pytest

pytest.importorskip("torch", reason="needs nntomo_dask[deep]")

import dask
import dask.array as da
import numpy as np

import nntomo_dask as nt
from nntomo_dask.networks.unrolled import REACH
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import tv_weight
from nntomo_dask.reconstruction.first_guess import guess
from nntomo_dask.training import loop
from nntomo_dask.training.declaration import Pairs
from nntomo_dask.training.unrolled import UnrolledTraining, scenes as scenes_room, training as room
from nntomo_dask.training.unrolled.paired import scenes_of
from nntomo_dask.training.unrolled.scenes import Scenes

ANGLES = nt.tilt_angles("tem", 8)
SIZE = 16
SMALL = {"neighbours": 1, "width": 2, "epoch_scenes": 4, "progress": "none"}


def template(angles=ANGLES):
    return nt.tilt_series(np.zeros((1, len(angles), SIZE), np.float32), angles)


def pair(slices=30, seed=1, *, factor=1.0, angles=ANGLES):
    volume = nt.phantom("particle", (slices, SIZE, SIZE), seed=seed, radius=0.65).compute() * np.float32(factor)
    return nt.project(volume, angles).compute(), volume


@pytest.fixture(scope="module")
def phantoms():
    return nt.phantom_scenes(template(), noise=0.02, validated=2)


@pytest.fixture(scope="module")
def both():
    return pair(), pair(26, 2, factor=3.0)


@pytest.fixture
def alone(phantoms, both):
    """Sets of the two pairs, without phantoms."""
    (one, first), (other, second) = both
    return tuple(nt.pair_scenes([one, other], [first, second], phantoms=part, share=1.0) for part in phantoms)


class TestScenes:
    def test_a_scene_is_a_block_of_a_pair(self, alone, both):
        """Projections and truth of neighbouring slices in units of the pair's level, and what TV makes of them."""
        source = scenes_of(alone[0])
        seen = set()
        for number in range(6):
            index, start = source.place(number)
            seen.add(index)
            series, volume = both[index]
            scene = source.scene(number)
            expected = volume.values[start : start + 24]
            level = float(expected.max() / scene.truth.max())
            np.testing.assert_allclose(scene.truth * np.float32(level), expected, rtol=1e-5)
            # A reconstruction estimates the level; scenes vary it by an eighth.
            assert abs(np.log(level / float(nt.intensity_level(series)))) < 5 * 0.12
            places = np.arange(start - REACH, start + 24 + REACH)
            places = np.where(places < 0, -1 - places, places)
            places = np.where(places >= len(volume), 2 * len(volume) - 1 - places, places)
            rows = series.values[places] / np.float32(level)
            found = guess(rows, Projector(ANGLES, SIZE), noise=scene.noise, between=1.0)
            # At least the noise of the rays, as it is estimated; a reconstruction may estimate it otherwise.
            assert scene.noise > 0.4 * tv_weight.deviation_of(rows, ANGLES)
            # The level is known to a few last bits, after which the solver stops within its tolerance of 4e-4.
            np.testing.assert_allclose(scene.first, found.first, atol=2e-3)
            assert scene.first.shape == (32, SIZE, SIZE)
        assert seen == {0, 1}

    def test_numbers_say_which(self, alone, phantoms, both):
        """The same again; other places for another seed and for validation; all blocks of both pairs alike."""
        source = scenes_of(alone[0])
        places = [source.place(number) for number in range(700)]
        assert places == [scenes_of(alone[0]).place(number) for number in range(700)]
        assert places != [scenes_of(alone[1]).place(number) for number in range(700)]
        expected = {(0, start) for start in range(7)} | {(1, start) for start in range(3)}
        assert set(places) == expected
        # 700 draws among 10 blocks: 70 each, with a deviation of 8.
        assert all(30 < places.count(one) < 110 for one in expected)

    def test_a_share_of_them(self, phantoms, both, monkeypatch):
        """The other scenes are those that the phantoms have under the same numbers."""
        series, volume = both[0]
        mixed = scenes_of(nt.pair_scenes(series, volume, phantoms=phantoms[0], share=0.25))
        chosen = [mixed.place(number) is not None for number in range(800)]
        assert 0.2 < np.mean(chosen) < 0.3  # 0.25, with a deviation of 0.015
        plain = Scenes.from_json(phantoms[0].attrs["scenes"])
        monkeypatch.setattr(Scenes, "scene", lambda source, number: (source, number))
        number = chosen.index(False)
        assert mixed.scene(number) == (plain, number)

    def test_workers_change_nothing(self, alone):
        source = scenes_of(alone[0])
        for workers in (1, 3):
            for number, scene in enumerate(source.scenes(range(3), workers=workers)):
                np.testing.assert_array_equal(scene.first, source.scene(number).first)

    @pytest.mark.slow
    def test_processes_change_nothing(self, phantoms, both):
        mixed = scenes_of(nt.pair_scenes(*both[0], phantoms=phantoms[0], share=0.5))
        found = list(mixed.scenes(range(5), workers=scenes_room._THREADS + 1))
        assert {mixed.place(number) is None for number in range(5)} == {True, False}
        for number, scene in enumerate(found):
            np.testing.assert_array_equal(scene.first, mixed.scene(number).first)

    def test_only_a_block_is_read(self, phantoms):
        """Of a long series those chunks that hold the slices of a scene."""
        series, volume = pair(200)
        read = []

        def noted(block, block_info=None):
            if block_info:
                read.append(block_info[0]["chunk-location"][0])
            return block

        lazy = series.chunk(z=8)
        lazy = lazy.copy(data=da.map_blocks(noted, lazy.data, dtype=np.float32))
        source = scenes_of(nt.pair_scenes(lazy, volume.chunk(z=8), phantoms=phantoms[0], share=1.0))
        read.clear()
        source.work(3)
        start = source.place(3)[1]
        first, last = max(start - REACH, 0) // 8, min(start + 24 + REACH - 1, 199) // 8
        assert sorted(read) == list(range(first, last + 1))

    def test_fewer_slices_than_a_block(self, phantoms):
        scene = scenes_of(nt.pair_scenes(*pair(5), phantoms=phantoms[0], share=1.0)).scene(0)
        assert (scene.truth.shape, scene.first.shape) == ((5, SIZE, SIZE), (13, SIZE, SIZE))

    def test_an_axis_beside_the_middle(self, phantoms, monkeypatch):
        """Where the detector was cut on one side; the order of the angles plays no part."""
        series, volume = pair()
        kept = slice(2, None)
        cut = series.isel(detector=kept, angle=slice(None, None, -1)), volume.isel(y=kept, x=kept)
        scene = scenes_of(nt.pair_scenes(*cut, phantoms=phantoms[0], share=1.0)).scene(0)
        inside = scene.first[REACH:-REACH]
        assert ((inside - scene.truth) ** 2).mean() < 0.1 * (scene.truth**2).mean()
        operations = []

        class Noted(Projector):
            def __init__(self, *arguments, **keywords):
                operations.append(keywords["axis"])
                super().__init__(*arguments, **keywords)

        monkeypatch.setattr(room, "Projector", Noted)
        sets = [nt.pair_scenes(*cut, phantoms=one, share=1.0) for one in phantoms]
        nt.train_unrolled(*sets, max_epochs=1, **SMALL | {"epoch_scenes": 1})
        assert {(axis.y, axis.x) for axis in operations} == {(5.5, 5.5)}

    def test_noise_that_is_added(self, phantoms, both):
        """That of the phantoms, 2 % of the brightest ray, another one each time."""
        own, added = (
            scenes_of(nt.pair_scenes(*both[0], phantoms=phantoms[0], share=1.0, pair_noise=one)).work(0)[1]
            for one in ("own", "added")
        )
        brightest = float(own[0].max())
        scale = float(own[1].max() / added[1].max())  # of the levels, which are drawn after the noise
        assert float((added[0] * scale - own[0]).std()) / brightest == pytest.approx(0.02, rel=3 * 0.25)
        assert float((added[0] * scale - own[0]).std()) > 0


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (lambda series, volume: (series.isel(angle=slice(1, None)), volume), "pairs at the angles of the phantoms"),
            (lambda series, volume: (series.assign_coords(angle=ANGLES + 3), volume), "pairs at the angles"),
            (lambda series, volume: (series, volume.isel(z=slice(1, None))), "a volume with 30 slices of 16 pixels"),
            (lambda series, volume: (series, volume[:, ::2, ::2]), "a volume with 30 slices of 16 pixels"),
            (lambda series, volume: (series, volume.assign_coords(z=volume.z + 40)), '"z"'),
            (lambda series, volume: (series, volume * np.float32(3)), "a series that is 0.33. times the projections"),
            (
                lambda series, volume: (series, volume.roll(x=8, y=8)),
                "lie where their series shows them; got projections with a",
            ),
            (lambda series, volume: (series, volume * 0), "with a correlation of 0, in the middle"),
            (lambda series, volume: (series * 0, volume), "series that show a specimen"),
            (lambda series, volume: (series.where(series.z > -1), volume), "finite values; got nan"),
            (lambda series, volume: (series, volume.where(volume.z > -1)), "finite values; got nan"),
            (lambda series, volume: (volume, volume), "tilt series"),
        ],
    )
    def test_pairs(self, phantoms, both, change, text):
        with pytest.raises(nt.SchemaError, match=text):
            nt.pair_scenes(*change(*both[0]), phantoms=phantoms[0])

    def test_a_value_that_is_not_finite_where_nothing_was_looked_at(self, phantoms):
        series, volume = pair(200)
        bad = volume.where(volume.z < volume.z[-1], np.nan)
        made = nt.pair_scenes(series, bad, phantoms=phantoms[0], share=1.0)
        source = scenes_of(made)
        last = next(number for number in range(999) if source.place(number)[1] == 176)
        with pytest.raises(nt.SchemaError, match="train_unrolled: needs finite values; got nan at index z=199"):
            source.scene(last)

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"share": 0}, "a share of pairs above 0, up to 1; got 0"),
            ({"share": 1.5}, "a share of pairs above 0, up to 1; got 1.5"),
            ({"share": np.nan}, "a share of pairs"),
            ({"pair_noise": "much"}, 'a pair noise "own" or "added"; got \'much\''),
            ({"volume": []}, "one volume a series, at least one pair; got 1 series and 0 volumes"),
        ],
    )
    def test_parameters(self, phantoms, both, change, text):
        series, volume = both[0]
        arguments = {"series": series, "volume": volume, "phantoms": phantoms[0]} | change
        with pytest.raises(nt.SchemaError, match=f"pair_scenes: needs {text}"):
            nt.pair_scenes(**arguments)

    def test_other_sets(self, phantoms, both, alone):
        for one in (alone[0], phantoms[0].assign_attrs(scenes=None).drop_attrs()):
            with pytest.raises(nt.SchemaError, match="phantoms from phantom_scenes; got another dataset"):
                nt.pair_scenes(*both[0], phantoms=one)


class TestTraining:
    def test_it_is_gone_on_with(self, phantoms, both, tmp_path, monkeypatch):
        """Phantoms and pairs mixed, stopped after three steps of two an epoch: the same network with any workers."""
        kept = {}
        scene = Scenes.scene
        monkeypatch.setattr(Scenes, "scene", lambda one, number: kept.setdefault((one, number), scene(one, number)))
        sets = [nt.pair_scenes(*both[0], phantoms=one, share=0.5) for one in phantoms]
        with dask.config.set(num_workers=1):
            expected = nt.train_unrolled(*sets, max_epochs=2, **SMALL)
        monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        step, steps = room.Adam._step, []

        def failing(self, batch, state, pool):
            if len(steps) == 3:
                raise KeyboardInterrupt
            steps.append(1)
            return step(self, batch, state, pool)

        monkeypatch.setattr(room.Adam, "_step", failing)
        path = tmp_path / "training.safetensors"
        with pytest.raises(KeyboardInterrupt):
            nt.train_unrolled(*sets, max_epochs=2, checkpoint=path, **SMALL)
        monkeypatch.setattr(room.Adam, "_step", step)
        again = [nt.pair_scenes(*both[0], phantoms=one, share=0.5) for one in phantoms]
        network = nt.train_unrolled(*again, max_epochs=2, checkpoint=path, **SMALL)
        np.testing.assert_array_equal(network.parameters, expected.parameters)
        other = [nt.pair_scenes(*both[0], phantoms=one, share=0.4) for one in phantoms]
        with pytest.raises(nt.SchemaError, match=r"share is 0\.5 there and 0\.4 here"):
            nt.train_unrolled(*other, max_epochs=2, checkpoint=path, **SMALL)

    def test_the_declaration(self, phantoms, both, alone):
        """Pairs for a series, or by themselves; sets are those of the functions."""
        (one, first), (other, second) = both
        pairs, validation = Pairs([one], [first]), Pairs([other], [second])
        training = UnrolledTraining(noise=0.02, validated=2, share=0.5)
        made = training.sets_with(template(), pairs, validation, seed=0)
        wanted = [
            nt.pair_scenes(*part, phantoms=base, share=0.5)
            for part, base in zip(both, nt.phantom_scenes(template(), noise=0.02, validated=2), strict=True)
        ]
        assert [part.attrs for part in made] == [part.attrs for part in wanted]
        without = training.sets_with(template(), pairs, None, seed=0)
        assert "pairs" not in without.validation.attrs
        assert "validated with phantoms alone" in " ".join(training.told(without))
        assert "50 % of the scenes are those of pairs" in " ".join(training.told(made))
        own = training.sets_of(pairs, None, seed=0)
        assert scenes_of(own.training).geometry.angles_deg == tuple(ANGLES)
        whole = UnrolledTraining(share=1.0)
        with pytest.raises(nt.SchemaError, match="pairs for validation, where all scenes are those of pairs; got none"):
            whole.sets_with(template(), pairs, None, seed=0)
        assert set(whole.unused(own_pairs=True)) >= {"phantom", "prior", "noise"}
        assert set(training.unused(own_pairs=False)) == {"share", "pair_noise"}
        assert not training.unused(own_pairs=True)
        larger = nt.phantom("particle", (26, 40, 40), radius=0.65).compute()
        projected = nt.project(larger, ANGLES)
        other = training.sets_with(template(), Pairs([projected], [larger]), None, seed=0)
        assert training.host_bytes(other, workers=1, processes=0) > training.host_bytes(made, workers=1, processes=0)
        assert "40 pixels" in training.described(other)

    def test_phantoms_with_settings(self):
        """In Python; of a series in nm atoms have the pixels, unless they were given others."""
        series = nt.tilt_series(np.zeros((1, 8, SIZE), np.float32), ANGLES, pixel_size=0.06, units="nm")
        atomic = nt.PHANTOMS["atomic"](elements="Zr,O", blur_nm=0.05)
        source = scenes_of(nt.phantom_scenes(series, phantom=atomic, noise="none", flawed=0.0)[0])
        assert source == Scenes.from_json(source.to_json())
        assert source.drawn == nt.PHANTOMS["atomic"](elements="Zr,O", blur_nm=0.05, voxel_nm=0.06)
        finer = nt.PHANTOMS["atomic"](voxel_nm=0.03)
        assert scenes_of(nt.phantom_scenes(series, phantom=finer, noise="none")[0]).drawn.voxel_nm == 0.03
        assert scenes_of(nt.phantom_scenes(template(), phantom="atomic", noise="none")[0]).drawn.edge_nm == 0.04
        scene = source.scene(0)
        fine = source.drawn.scene_of(SIZE, 32, np.random.default_rng([source.seed, 0]), finer=2)
        truth = fine.reshape(32, 2, SIZE, 2, SIZE, 2).mean(axis=(1, 3, 5))[REACH:-REACH]
        ratio = float(truth.max() / scene.truth.max())
        np.testing.assert_allclose(scene.truth * np.float32(ratio), truth, rtol=1e-4, atol=1e-6)
        coarse = nt.tilt_series(np.zeros((1, 8, SIZE), np.float32), ANGLES, pixel_size=1.0, units="nm")
        with pytest.raises(nt.SchemaError, match=r"phantom atomic: needs voxel .*of at most 0.2 in nm; got 1.0"):
            nt.phantom_scenes(coarse, phantom="atomic", noise="none")
        with pytest.raises(nt.SchemaError, match="symbols of chemical elements; got Xx"):
            UnrolledTraining(phantom=nt.PHANTOMS["atomic"](elements="Xx")).check()

    def test_all_networks_take_them(self):
        """A phantom with settings, and one by its name with those settings, are the same specimens."""
        series = template()
        coreshell = nt.PHANTOMS["coreshell"](core_density=0.5, shell_density=1.0)
        usual, other, named = (
            nt.phantom_samples(series, phantom=one, n_slices=8, n_samples=60, noise="none")[0].target.values
            for one in ("coreshell", coreshell, nt.PHANTOMS["coreshell"]())
        )
        np.testing.assert_array_equal(usual, named)
        assert not np.array_equal(usual, other)
        slices = [
            nt.phantom_slices(series, phantom=one, n_slices=8, noise="none")[0].target.values
            for one in ("coreshell", coreshell)
        ]
        assert not np.array_equal(*slices)


TRAIN = ("train", "--network", "unrolled", "--size", 16, "--validated", 1, "--epoch-scenes", 2)
TRAIN += ("--neighbours", 1, "--width", 2, "--max-epochs", 1, "-o", "net.safetensors")
PAIRS_ALONE = TRAIN[:3] + TRAIN[5:]  # without --size, which is that of phantoms
PAIR = ("--series", "one.zarr", "--volume", "volume.zarr")


@pytest.fixture
def call(run):
    """`nntomo` in a folder with two series and a volume."""
    run("phantom", "particle", "--size", f"26,{SIZE},{SIZE}", "--radius", 0.65, "-o", "volume.zarr")
    run("project", "volume.zarr", "--range", "tem", "--count", 8, "-o", "one.zarr")
    run("project", "volume.zarr", "--range", "tem", "--count", 8, "--noise", 0.02, "-o", "series.zarr")
    return run


def test_on_the_command_line(call):
    text = call(*TRAIN, "--for", "series.zarr", *PAIR, "--share", 0.5, "--noise", 0.02).output
    assert "note: 50 % of the scenes are those of pairs; the network is validated with phantoms alone" in text
    made = UnrolledTraining(noise=0.02, size=16, validated=1, share=0.5, neighbours=1, width=2, epoch_scenes=2)
    opened = Pairs([nt.open("one.zarr")], [nt.open("volume.zarr")])
    sets = made.sets_with(nt.open("series.zarr"), opened, None, seed=0)
    network = made.train(*sets, max_epochs=1, progress="none")
    assert nt.load_network("net.safetensors").digest == network.digest


def test_pairs_alone_on_the_command_line(call):
    pairs = (*PAIR, "--validation-series", "one.zarr", "--validation-volume", "volume.zarr", "--share", 1)
    call(*PAIRS_ALONE, *pairs, "--pair-noise", "added", "--noise", 0.02)
    recipe = nt.load_network("net.safetensors").recipe
    assert recipe["inputs"][0]["parameters"]["pair_noise"] == "added"


def test_options_of_phantoms_on_the_command_line(call, monkeypatch):
    settings = ("--phantom", "atomic", "--elements", "Zr,O", "--blur-nm", 0.06)
    call(*TRAIN, "--for", "series.zarr", *settings, "--noise", "none")
    made = nt.phantom_scenes(
        nt.open("series.zarr"),
        phantom=nt.PHANTOMS["atomic"](elements="Zr,O", blur_nm=0.06),
        noise="none",
        size=16,
        validated=1,
    )
    found = nt.load_network("net.safetensors").recipe["inputs"]
    assert [one["parameters"]["settings"] for one in found] == [[["elements", "Zr,O"], ["blur_nm", 0.06]] for _ in made]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((*PAIRS_ALONE, *PAIR, "--share", 1), "pairs for validation, where all scenes are those of pairs"),
        ((*TRAIN, "--for", "series.zarr", "--share", 0.5), "--share plays no part where no pairs are given"),
        ((*TRAIN, "--for", "series.zarr", "--elements", "Zr"), "--elements is for --phantom atomic, not for materials"),
        (
            ("train", "--network", "nnfbp", *PAIR, "--densities", 2, "-o", "net.safetensors"),
            "--densities plays no part where pairs of series and volume are given",
        ),
        (
            ("train", "--network", "msdnet", "--for", "series.zarr", *PAIR, "-o", "net.safetensors"),
            "train: needs a series (--for) or pairs of series and volume, for the network msdnet; got both",
        ),
        (
            (*PAIRS_ALONE, *PAIR, "--share", 1, "--phantom", "bodies"),
            "--phantom plays no part where --share 1 leaves no phantoms",
        ),
        ((*TRAIN, "--for", "series.zarr", "--prior", "narrow"), "--prior"),
    ],
)
def test_words_that_are_refused(call, words, text):
    assert text in " ".join(call(*words, exit_code=2).output.split())
