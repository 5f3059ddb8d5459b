import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from nntomo_dask.kernels import torch_unet, unet  # noqa: E402
from nntomo_dask.networks.unrolled import REACH  # noqa: E402
from nntomo_dask.reconstruction.blocks import BLOCK  # noqa: E402
from pipelines import forms_study  # noqa: E402

SIZE, NOISE = 16, 0.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("forms")


def run(folder, *options):
    sizes = ["--size", str(SIZE), "--scenes", "2", "--validated", "2", "--seconds", "0.05", "--width", "2"]
    others = ["--depth", "2", "--width-3d", "2", "--seeds", "0", "--out", str(folder)]
    result = CliRunner().invoke(forms_study.main, [*sizes, *others, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def scene(seed=0):
    rng = np.random.default_rng(seed)
    seen = [torch.from_numpy(rng.random((BLOCK + 2 * REACH, SIZE, SIZE), np.float32)) for _ in range(5)]
    return forms_study.Kept(*seen, seen[0][forms_study.INSIDE])


def trained(form, seed=0):
    """A network whose last layer is not zero."""
    network = form.network(0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for one in network.parameters():
            one += 0.1 * torch.randn(one.shape, generator=generator)
    return network


@pytest.mark.parametrize(("name", "neighbours"), [("unet", 2), ("unet-2d", 0)])
def test_the_unets_are_those_of_the_package(name, neighbours):
    form = forms_study.forms(2, 2, 2)[name]
    network, one = trained(form), scene()
    seen = slice(REACH - neighbours, REACH + BLOCK + neighbours)
    guesses = [array[seen] for array in (one.first, one.second, one.descent)]
    wanted = torch_unet.steps(
        [network.vector], guesses, None, noise=NOISE, width=2, neighbours=neighbours, together=BLOCK
    )
    # The same convolutions of the same values.
    torch.testing.assert_close(form.applied(network, one, NOISE), wanted, rtol=0, atol=1e-6)


def test_convolutions_in_three_dimensions():
    network = forms_study.UNet3D(3, 2, 0)
    layer, block = network.layers[0], torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    weights = layer.weight.reshape(2, 3, 3, 3, 3).transpose(1, 2)  # (output, input, z, y, x)
    wanted = torch.nn.functional.conv3d(block.transpose(0, 1)[None], weights, layer.bias, padding=1)[0].transpose(0, 1)
    found = []
    layer.register_forward_hook(lambda *seen: found.append(seen[2]))
    network(block)
    # Sums of 81 products in another order, values of about 1: 81 · 2⁻²⁴ at most.
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=81 * 2**-24 * 4)


@pytest.mark.parametrize("name", ["msdnet", "unet-sirt", "unet-3d", "msdnet-sirt"])
def test_every_form_begins_with_total_variation_and_sees_what_it_says(name):
    form, one = forms_study.forms(2, 2, 2)[name], scene()
    torch.testing.assert_close(form.applied(form.network(0), one, NOISE), one.first[forms_study.INSIDE], rtol=0, atol=0)
    network = trained(form)
    before = form.applied(network, one, NOISE)
    after = form.applied(network, one._replace(sirt=one.sirt + 1), NOISE)
    assert bool((before != after).any()) == name.endswith("sirt")
    after = form.applied(network, one._replace(descent=one.descent + 1), NOISE)
    assert (before != after).any()


def test_the_table_of_two_runs_and_nothing_done_twice(folder):
    assert "unet, seed 0" in run(folder, "--only", "unet")
    output = run(folder, "--only", "unet", "--only", "unet-3d")
    assert "unet, seed 0" not in output
    assert "unet-3d, seed 0" in output
    with (folder / "forms.csv").open() as file:
        rows = {row["form"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"unet", "unet-3d"}
    assert float(rows["unet"]["of unet"]) == 1
    first, second = (
        json.loads(next((folder / "results").glob(f"{name}-0*.json")).read_text())["losses"]
        for name in ("unet", "unet-3d")
    )
    ratio = np.exp(np.mean(np.log(np.array(second) / first)))
    assert float(rows["unet-3d"]["of unet"]) == pytest.approx(ratio, abs=6e-4)  # three digits
    assert int(rows["unet"]["parameters"]) == unet.parameter_count(unet.channel_count(2), 2)
