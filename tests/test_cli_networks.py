"""`nntomo train` and `nntomo reconstruct` with MS-D Net and with ensembles."""

import numpy as np
import pytest

import nntomo_dask as nt

SMALL = ("--slices", 16, "--max-epochs", 2)
MSDNET = ("train", "--network", "msdnet", "--for", "series.zarr", "--depth", 4, *SMALL)


@pytest.fixture
def call(run, series_store):
    """Run `nntomo` in a folder that has a particle and its series."""
    assert series_store == "series.zarr"
    return run


@pytest.mark.extra("torch")
def test_train_and_reconstruct(call, tmp_path):
    text = call(*MSDNET, "-o", "net.safetensors").output
    assert "validation loss" in text
    assert "2 epochs, ended" in call("info", "net.training.safetensors").output
    text = call("info", "net.safetensors").output
    assert "MS-D Net: 4 layers" in text
    assert "improves sirt of 8 projections, 5 slices at once" in text
    call("reconstruct", "series.zarr", "--method", "msdnet", "--network", "net.safetensors", "-o", "volume.zarr")
    expected = nt.msdnet(nt.open("series.zarr"), nt.load_network("net.safetensors"))
    np.testing.assert_array_equal(nt.open("volume.zarr").values, expected.values)
    assert (tmp_path / "net.slices" / "training-input.zarr").is_dir()
    call(*MSDNET, "-o", "net.safetensors")  # had ended: says so again


@pytest.mark.extra("torch")
def test_from_nnfbp_and_from_pairs(call):
    few = ("--phantom", "ellipses", "--slices", 20, "--samples", 500, "--max-epochs", 1)
    call("train", "--for", "series.zarr", *few, "-o", "n.safetensors")
    call(*MSDNET, "--input", "nnfbp", "--input-network", "n.safetensors", "-o", "net.safetensors")
    assert nt.load_network("net.safetensors").inputs.method == "nnfbp"
    pairs = ("--series", "series.zarr", "--volume", "particle.zarr")
    validation = ("--validation-series", "series.zarr", "--validation-volume", "particle.zarr")
    words = ("train", "--network", "msdnet", "--depth", 3, "--max-epochs", 1, "--input", "fbp", "--loss", "l1")
    call(*words, *pairs, *validation, "-o", "own.safetensors")
    assert "give" not in call("info", "own.safetensors").output
    assert "add --validation-series" in call(*words, *pairs, "-o", "x.safetensors", exit_code=2).output


@pytest.mark.extra("torch")
def test_self_supervised(call):
    words = (
        "train",
        "--network",
        "msdnet",
        "--self-supervised",
        "--for",
        "series.zarr",
        "--depth",
        3,
        "--max-epochs",
        1,
    )
    call(*words, "-o", "net.safetensors")
    assert "self-supervised in 2 parts" in call("info", "net.safetensors").output
    call("reconstruct", "series.zarr", "--method", "msdnet", "--network", "net.safetensors", "-o", "volume.zarr")


@pytest.mark.extra("torch")
def test_overwriting_with_other_data(call):
    """Refused as long as it is not asked for; then the slices are replaced too."""
    call(*MSDNET, "-o", "net.safetensors")
    first = nt.load_network("net.safetensors").digest
    other = (*MSDNET, "--input", "fbp", "-o", "net.safetensors")
    assert "another" in call(*other, exit_code=2).output
    assert nt.load_network("net.safetensors").digest == first
    call(*other, "--overwrite")
    assert nt.load_network("net.safetensors").inputs.method == "fbp"


@pytest.mark.parametrize("network", ["nnfbp", pytest.param("msdnet", marks=pytest.mark.extra("torch"))])
def test_ensembles(call, network):
    own = ("--depth", 3) if network == "msdnet" else ("--samples", 500)
    words = ("train", "--network", network, "--for", "series.zarr", *SMALL, *own, "--members", 2)
    call(*words, "-o", "net.safetensors")
    both = ("--network", "net-0.safetensors", "--network", "net-1.safetensors")
    method = ("reconstruct", "series.zarr", "--method", network, "--consistency", "none")
    note = "note: the spread is how far the networks disagree"
    assert note in call(*method, *both, "--spread", "spread.zarr", "-o", "mean.zarr").stderr
    for k in range(2):
        assert note not in call(*method, "--network", f"net-{k}.safetensors", "-o", f"{k}.zarr").stderr
    single = np.stack([nt.open(f"{k}.zarr").values for k in range(2)])
    np.testing.assert_allclose(nt.open("mean.zarr").values, single.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(nt.open("spread.zarr").values, single.std(axis=0), atol=1e-5)
    text = call(*method, both[0], both[1], "--spread", "s.zarr", "-o", "m.zarr", exit_code=2).output
    assert "needs an ensemble: --network twice or more" in text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((*MSDNET, "--hidden", 4, "-o", "n.safetensors"), "--hidden is for --network nnfbp, not for msdnet"),
        (("train", "--for", "series.zarr", "--depth", 4, "-o", "n.safetensors"), "--depth is for --network msdnet"),
        ((*MSDNET, "--input", "nnfbp", "-o", "n.safetensors"), "one without the other"),
        ((*MSDNET, "--splits", 3, "-o", "n.safetensors"), "--splits plays no part"),
        ((*MSDNET, "--validation-series", "series.zarr", "-o", "n.safetensors"), "--validation-series plays no part"),
        ((*MSDNET, "--self-supervised", "-o", "n.safetensors"), "--slices plays no part"),
        (("reconstruct", "series.zarr", "--method", "msdnet", "-o", "v.zarr"), "needs --network FILE"),
        (
            ("train", "--for", "series.zarr", "--phantom", "cats", "-o", "n.safetensors"),
            "is not one of particle, ellipses",
        ),
        (
            (*MSDNET, "--memory", "300MiB", "-o", "n.safetensors"),
            "4 layers of slices of 32 pixels; got a",
        ),
    ],
)
def test_what_it_refuses(call, words, text):
    assert text in call(*words, exit_code=2).output


@pytest.mark.extra("torch")
def test_a_network_of_another_kind(call):
    call(*MSDNET, "-o", "net.safetensors")
    words = ("reconstruct", "series.zarr", "--method", "nnfbp", "--network", "net.safetensors", "-o", "v.zarr")
    assert "holds a network for --method msdnet, not for nnfbp" in call(*words, exit_code=2).output
