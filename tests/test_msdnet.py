"""MS-D Net from training set to volume."""

import pytest

pytest.importorskip("torch", reason="needs nntomo_dask[deep]")

import dataclasses

import dask.array as da
import numpy as np
import xarray as xr
from scipy.stats import spearmanr

import nntomo_dask as nt
from nntomo_dask.networks import msdnet as networks
from nntomo_dask.training import loop
from nntomo_dask.training.checkpoints import open_checkpoint
from nntomo_dask.training.msdnet import layout, slice_reader, training as training_room
from nntomo_dask.training.msdnet.slices import layout_of

ANGLES_DEG = nt.tilt_angles("tem", 8)
SIZE = 32
SMALL = {"depth": 10, "batch_size": 4, "progress": "none"}


def empty(size=SIZE):
    return nt.tilt_series(np.zeros((1, ANGLES_DEG.size, size), np.float32), ANGLES_DEG)


@pytest.fixture(scope="module")
def sets():
    return tuple(part.compute() for part in nt.phantom_slices(empty(), n_slices=256))


@pytest.fixture(scope="module")
def network(sets):
    return nt.train_msdnet(*sets, max_epochs=20, **SMALL)


@pytest.fixture(scope="module")
def particle_series():
    particle = nt.nanoparticle(SIZE, seed=1).compute()
    return particle, nt.project(particle, ANGLES_DEG).compute()


@pytest.fixture(scope="module")
def noisy():
    body = nt.body_stack((24, SIZE, SIZE), scene=24, seed=5).compute()
    series = nt.project(body, nt.tilt_angles("full", 40)).compute()
    noise = np.random.default_rng(0).normal(0, 1.5, series.shape)
    return body, series.copy(data=(series.values + noise).astype(np.float32))


@pytest.fixture(scope="module")
def members(sets, network):
    others = nt.train_ensemble(nt.train_msdnet, *sets, members=2, seed=1, max_epochs=6, depth=10)
    return [network, *others]


def constrained(series):
    return nt.sirt(series, tolerance=1e-3, minimum=0)


def test_it_improves_what_it_is_given(network, particle_series):
    particle, series = particle_series
    assert float(nt.mse(nt.msdnet(series, network), particle)) < 0.9 * float(nt.mse(constrained(series), particle))


def test_it_is_lazy(network, particle_series, nothing_computes):
    volume = nt.msdnet(particle_series[1], network)
    assert (volume.dims, volume.shape, volume.dtype) == (("z", "y", "x"), (SIZE,) * 3, np.float32)


@pytest.mark.parametrize("slices", [1, 3, 7])
def test_chunks_change_nothing(network, particle_series, slices):
    series = particle_series[1]
    whole = nt.msdnet(series, network).values
    np.testing.assert_array_equal(nt.msdnet(series.chunk(z=slices), network).values, whole)


def test_a_volume_thinner_than_its_neighbourhood(network, particle_series):
    series = particle_series[1].isel(z=slice(15, 16))
    same = xr.concat([series] * 5, dim="z").assign_coords(z=np.arange(5.0))
    np.testing.assert_allclose(
        nt.msdnet(series, network, scale=1).values[0], nt.msdnet(same, network, scale=1).values[2], atol=1e-6
    )


def test_the_volume_scales_with_the_series(network, particle_series):
    series = particle_series[1]
    louder = series * np.float32(7)
    louder.attrs = series.attrs
    np.testing.assert_allclose(nt.msdnet(louder, network).values, 7 * nt.msdnet(series, network).values, atol=2e-3 * 7)


def test_save_and_load(network, particle_series, tmp_path):
    loaded = nt.load_network(nt.save_network(network, tmp_path / "net.safetensors"))
    assert (loaded.digest, loaded.recipe) == (network.digest, network.recipe)
    series = particle_series[1]
    np.testing.assert_array_equal(nt.reconstruct(series, loaded).values, nt.msdnet(series, network).values)


def test_a_damaged_file(network, tmp_path):
    path = nt.save_network(network, tmp_path / "net.safetensors")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(nt.SchemaError, match="its checksum is another"):
        nt.load_network(path)
    with pytest.raises(nt.SchemaError, match=r"needs \d+ parameters for 9 layers above 5 input slices"):
        dataclasses.replace(network, depth=9)


def test_damaged_metadata(network, tmp_path):
    path = nt.save_network(network, tmp_path / "net.safetensors")
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"depth":"10"', b'"depth":"11"'))
    assert path.read_bytes() != data
    with pytest.raises(nt.SchemaError, match="its checksum is another"):
        nt.load_network(path)


def test_a_loss_that_explodes(sets):
    with pytest.raises(nt.SchemaError, match=r"a loss that stays finite; got .* in epoch 1; try: a lower"):
        nt.train_msdnet(*sets, max_epochs=2, **SMALL | {"learning_rate": 1e30})


def test_resumed_losses_are_those_of_an_uninterrupted_run(sets, tmp_path, monkeypatch):
    """Stopped within its third epoch, and gone on with: the same losses, the same network."""
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    expected = nt.train_msdnet(*sets, max_epochs=4, checkpoint=whole, **SMALL)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    step, steps = training_room._Adam._step, []

    def failing(self, pairs, state):
        steps.append(1)
        if len(steps) == 2 * 64 + 5:
            raise KeyboardInterrupt
        return step(self, pairs, state)

    monkeypatch.setattr(training_room._Adam, "_step", failing)
    with pytest.raises(KeyboardInterrupt):
        nt.train_msdnet(*sets, max_epochs=4, checkpoint=parts, **SMALL)
    assert open_checkpoint(parts).state["scalars"][1] == 4
    monkeypatch.setattr(training_room._Adam, "_step", step)
    network = nt.train_msdnet(*sets, max_epochs=4, checkpoint=parts, **SMALL)
    assert open_checkpoint(parts).losses == open_checkpoint(whole).losses
    np.testing.assert_array_equal(network.parameters, expected.parameters)


def test_an_ended_training_is_returned(sets, tmp_path, monkeypatch):
    path = tmp_path / "training.safetensors"
    first = nt.train_msdnet(*sets, max_epochs=1, checkpoint=path, **SMALL)
    monkeypatch.setattr(training_room._Adam, "_step", None)
    assert nt.train_msdnet(*sets, max_epochs=1, checkpoint=path, **SMALL).digest == first.digest
    with pytest.raises(nt.SchemaError, match=r"another: parameters\.seed is 0 there and 1 here"):
        nt.train_msdnet(*sets, max_epochs=1, checkpoint=path, seed=1, **SMALL)


def test_read_from_stores_as_from_memory(sets, tmp_path, monkeypatch):
    """The losses of a set that is read block by block are those of one in memory."""
    stored = [nt.save(part, tmp_path / f"{k}.zarr") for k, part in enumerate(sets)]
    for part, opened in zip(sets, stored, strict=True):
        xr.testing.assert_equal(opened.compute(), part.compute().astype(opened.dtypes))
        assert opened.attrs["layout"] == part.attrs["layout"]
    expected = nt.train_msdnet(*sets, max_epochs=2, **SMALL)
    monkeypatch.setattr(slice_reader, "IN_MEMORY_BYTES", 0)
    network = nt.train_msdnet(*stored, max_epochs=2, **SMALL)
    assert network.recipe["outcome"] == pytest.approx(expected.recipe["outcome"], rel=1e-6)
    lazy = nt.phantom_slices(empty(), n_slices=16)
    with pytest.raises(nt.SchemaError, match="every epoch would reconstruct anew"):
        nt.train_msdnet(*lazy, max_epochs=2, **SMALL)


def test_turns(rng):
    """Sixteen different ones, each of which keeps the values; input and target are turned alike."""
    images = rng.random((3, 4, 4), np.float32)
    turns = [slice_reader.turned(images, turn) for turn in range(2 * slice_reader.TURNS)]
    assert len({one.tobytes() for one in map(np.ascontiguousarray, turns)}) == 16
    for turn, one in enumerate(turns):
        np.testing.assert_array_equal(np.sort(one.ravel()), np.sort(images.ravel()))
        np.testing.assert_array_equal(one[1], slice_reader.turned(images[1], turn % slice_reader.TURNS))


def test_turns_are_used(sets, monkeypatch):
    seen = set()
    turned = slice_reader.turned

    def watching(images, turn):
        seen.add(turn)
        return turned(images, turn)

    monkeypatch.setattr(training_room, "turned", watching)
    nt.train_msdnet(*sets, max_epochs=1, **SMALL)
    assert seen == set(range(16))


def test_neighbours_stay_in_their_scene():
    slices = slice_reader.Slices(None, None, np.repeat([0, 1], [3, 4]), np.arange(7))
    assert slices.window(0, 2).tolist() == [1, 0, 0, 1, 2]
    assert slices.window(2, 2).tolist() == [0, 1, 2, 2, 1]
    assert slices.window(3, 2).tolist() == [4, 3, 3, 4, 5]


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_both_losses_fall(sets, loss, tmp_path):
    path = tmp_path / "training.safetensors"
    nt.train_msdnet(*sets, loss=loss, max_epochs=4, checkpoint=path, **SMALL)
    losses = open_checkpoint(path).losses
    assert losses[-1][0] < 0.7 * losses[0][0]


def test_training_stops_early(sets, tmp_path, monkeypatch):
    path = tmp_path / "training.safetensors"
    monkeypatch.setattr(training_room._Adam, "validate", lambda self, state: 1.0)
    nt.train_msdnet(*sets, max_epochs=50, patience=2, checkpoint=path, **SMALL)
    assert len(open_checkpoint(path).losses) == 3


@pytest.mark.parametrize("method", ["fbp", "nnfbp"])
def test_other_inputs(method, trained, particle_series, tmp_path):
    inner = trained[0] if method == "nnfbp" else None
    size = 48 if inner else SIZE
    sets = nt.phantom_slices(empty(size), n_slices=16, method=method, network=inner, neighbours=1)
    network = nt.train_msdnet(*(part.compute() for part in sets), max_epochs=1, **SMALL)
    loaded = nt.load_network(nt.save_network(network, tmp_path / "net.safetensors"))
    assert loaded.digest == network.digest
    series = nt.project(nt.nanoparticle(size, seed=2), ANGLES_DEG)
    volume = nt.msdnet(series, loaded)
    assert volume.shape == (size,) * 3
    assert np.isfinite(volume.values).all()


class TestNoise2Inverse:
    def test_it_takes_the_noise_away(self, noisy):
        """Without any truth. Against FBP, from which it starts."""
        body, series = noisy
        sets = nt.noise2inverse_slices(series)
        network = nt.train_msdnet(*sets, max_epochs=50, patience=50, **SMALL | {"batch_size": 2})
        assert float(nt.mse(nt.msdnet(series, network), body)) < 0.6 * float(
            nt.mse(nt.fbp(series, window="ram-lak"), body)
        )

    @pytest.mark.slow
    def test_it_beats_sirt_at_its_best(self):
        """SIRT is stopped where its error is least, which nobody could know."""
        body = nt.body_stack((64, 128, 128), scene=64, seed=5).compute()
        series = nt.project(body, nt.tilt_angles("full", 64)).compute()
        noise = np.random.default_rng(0).normal(0, 2, series.shape)
        series = series.copy(data=(series.values + noise).astype(np.float32))
        sets = (part.compute() for part in nt.noise2inverse_slices(series))
        network = nt.train_msdnet(*sets, max_epochs=30, depth=30, progress="none")
        least = min(
            float(nt.mse(nt.sirt(series, tolerance=0, max_iterations=count, minimum=0), body))
            for count in (35, 50, 80, 120)
        )
        assert float(nt.mse(nt.msdnet(series, network), body)) < least

    def test_parts_of_the_projections(self, noisy):
        """Input k is made without the projections k, k + splits, …; its target of those alone."""
        series = noisy[1].isel(angle=slice(0, 9))
        training, validation = nt.noise2inverse_slices(series, splits=3, neighbours=0)
        parts = (series.isel(angle=[1, 2, 4, 5, 7, 8]), series.isel(angle=[0, 3, 6]))
        whole = [nt.fbp(part, window="ram-lak").values for part in parts]
        np.testing.assert_array_equal(training["input"].values[:24], whole[0])
        np.testing.assert_array_equal(training["target"].values[:24], whole[1])
        assert not (training["used"].values & validation["used"].values).any()

    def test_too_few_projections(self, series):
        with pytest.raises(nt.SchemaError, match="at least 2 splits of at least 2 projections each; got 5 of 8"):
            nt.noise2inverse_slices(series, splits=5)


class TestEnsemble:
    def test_each_is_what_training_alone_gives(self, sets, members):
        alone = nt.train_msdnet(*sets, seed=2, max_epochs=6, **SMALL)
        np.testing.assert_array_equal(members[2].parameters, alone.parameters)

    def test_mean_and_spread(self, members, particle_series):
        series = particle_series[1]
        single = np.stack([nt.msdnet(series, member, consistency="none").values for member in members])
        mean = nt.msdnet(series, members, consistency="none")
        np.testing.assert_allclose(mean.values, single.mean(axis=0), atol=1e-5)
        spread = nt.msdnet(series, members, statistic="spread")
        np.testing.assert_allclose(spread.values, single.std(axis=0), atol=1e-5)

    def test_the_spread_is_larger_where_the_error_is(self, members, particle_series):
        particle, series = particle_series
        error = np.abs(nt.msdnet(series, members, consistency="none").values - particle.values)
        spread = nt.msdnet(series, members, statistic="spread").values
        assert spearmanr(spread.ravel(), error.ravel())[0] > 0.4

    def test_members_of_different_sets(self, network, particle_series):
        other = dataclasses.replace(network, inputs=dataclasses.replace(network.inputs, method="fbp"))
        with pytest.raises(nt.SchemaError, match="networks that were trained on one set"):
            nt.msdnet(particle_series[1], [network, other])
        with pytest.raises(nt.SchemaError, match="two networks or more for a spread; got one"):
            nt.msdnet(particle_series[1], network, statistic="spread")


def test_members_with_other_networks_before_them(network, trained, particle_series):
    """The inputs of both look alike, but come from different NN-FBP networks."""
    inner = dataclasses.replace(trained[0], layout=dataclasses.replace(trained[0].layout, detector_count=SIZE))
    other = dataclasses.replace(inner, output_bias=inner.output_bias + 1)
    both = [
        dataclasses.replace(network, inputs=dataclasses.replace(network.inputs, method="nnfbp", network=one))
        for one in (inner, other)
    ]
    with pytest.raises(nt.SchemaError, match="networks that were trained on one set"):
        nt.msdnet(particle_series[1], both)
    with pytest.raises(nt.SchemaError, match="networks from train_msdnet; got NNFBPNetwork"):
        nt.msdnet(particle_series[1], inner)
    with pytest.raises(nt.SchemaError, match="networks from train_nnfbp; got MSDNetwork"):
        nt.nnfbp(particle_series[1], network)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "needs depth of at least 1; got 0"),
        ({"learning_rate": 0.0}, "learning rate above 0"),
        ({"loss": "l3"}, "loss .l2. or .l1."),
        ({"device": "tpu"}, "device .auto., .cpu. or .cuda."),
        ({"precision": "bfloat16", "device": "cpu"}, "float32 on the CPU"),
    ],
)
def test_settings_out_of_range(sets, change, message):
    with pytest.raises(nt.SchemaError, match=message):
        nt.train_msdnet(*sets, **SMALL | change)


def test_sets_that_do_not_fit(sets, trained):
    with pytest.raises(nt.SchemaError, match="training_samples are for NN-FBP"):
        nt.train_msdnet(*trained[1:])
    others = nt.phantom_slices(empty(), n_slices=16, neighbours=1)
    with pytest.raises(nt.SchemaError, match="with the same inputs"):
        nt.train_msdnet(sets[0], others[1])
    broken = sets[0].assign(input=sets[0]["input"] * np.float32(np.nan))
    with pytest.raises(nt.SchemaError, match="needs finite slices"):
        nt.train_msdnet(broken, sets[1], **SMALL)


def test_a_series_at_other_angles(network, particle_series):
    with pytest.raises(nt.SchemaError, match="the angles for which the network was trained, 8 angles"):
        nt.msdnet(particle_series[1].isel(angle=slice(0, 7)), network)


def test_inputs_of_wrong_kinds(series, volume):
    with pytest.raises(nt.SchemaError, match="a method: fbp, sirt, cgls, tv, dart, nnfbp, msdnet, unrolled; got 'art'"):
        nt.training_slices(series, volume, method="art")
    with pytest.raises(nt.SchemaError, match="a network for NN-FBP; got none"):
        nt.training_slices(series, volume, method="nnfbp")
    with pytest.raises(nt.SchemaError, match="a volume with 9 slices of 32 pixels"):
        nt.training_slices(series, volume.isel(z=slice(4)))


def test_scenes_of_several_pairs(series, volume):
    both = nt.training_slices([series, series], [volume, volume], method="fbp")
    assert isinstance(both["input"].data, da.Array)
    assert both["input"].shape == (18, 32, 32)
    assert both["scene"].values.tolist() == [0] * 9 + [1] * 9
    assert networks.NEIGHBOURS == layout_of(both).neighbours


def test_a_layout_is_json_with_the_network_in_it(trained):
    """Also for inputs of NN-FBP: the network comes back with all its numbers."""
    inner = trained[0]
    made, _ = nt.phantom_slices(empty(48), n_slices=16, method="nnfbp", network=inner, neighbours=1)
    assert isinstance(made.attrs["layout"], str)
    found = layout_of(made)
    assert found.network.digest == inner.digest
    assert layout.to_json(found) == made.attrs["layout"]
