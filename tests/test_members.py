"""What methods with networks ask of their members: numbers that stay finite, whoever made the file."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.networks.msdnet import Inputs, parameter_count
from nntomo_dask.networks.nnfbp_layout import InputLayout
from nntomo_dask.reconstruction import METHODS, members
from nntomo_dask.reconstruction.method import Method
from tests.test_nnfbp import random_network
from tests.unrolled_networks import network_of

pytestmark = pytest.mark.filterwarnings("ignore:nnfbp. .* outside the range it saw")  # the networks are random
REFUSED = "needs a network that gives finite values in single precision; got values beyond that from "


@pytest.fixture
def nnfbp(rng, series):
    return random_network(rng, InputLayout(tuple(series.angle.values), series.sizes["detector"]))


@pytest.fixture
def msdnet(rng, series):
    inputs = Inputs(tuple(series.angle.values.tolist()), method="fbp")
    parameters = rng.normal(0, 0.1, parameter_count(inputs.channels, 4)).astype(np.float32)
    return nt.MSDNetwork(inputs, 4, parameters, 0.0, 1.0, 0.0, 1.0, level=1.0)


@pytest.mark.parametrize("output", ["sigmoid", "linear"])
@pytest.mark.parametrize(
    ("field", "factor"),
    [("hidden_weights", 1e300), ("hidden_weights", 1e38), ("output_weights", -1e38), ("second_weights", 1e38)],
)
def test_nnfbp_with_huge_weights(rng, series, tmp_path, field, factor, output):
    """They are finite in the file, in double precision; ReLUs and the sigmoid hide that sums are not."""
    layout = InputLayout(tuple(series.angle.values), series.sizes["detector"])
    whole = random_network(rng, layout, output=output, second=3)
    huge = dataclasses.replace(whole, **{field: getattr(whole, field) * factor})
    stranger = nt.load_network(nt.save_network(huge, tmp_path / "net.safetensors"))
    assert np.isfinite(nt.nnfbp(series, whole, scale=1).values).all()
    with pytest.raises(nt.SchemaError, match=f"nnfbp: {REFUSED}NN-FBP network: .*, digest {stranger.digest}; try: "):
        nt.nnfbp(series, stranger, scale=1).compute()


@pytest.mark.parametrize("statistic", ["mean", "spread"])
def test_the_member_is_named(series, nnfbp, statistic):
    huge = dataclasses.replace(nnfbp, output_weights=nnfbp.output_weights * 1e39)
    with pytest.raises(nt.SchemaError, match=f"digest {huge.digest}; try") as refused:
        nt.nnfbp(series, [nnfbp, huge], scale=1, statistic=statistic).compute()
    assert nnfbp.digest not in str(refused.value)


@pytest.mark.parametrize("consistency", ["none", "auto"])
def test_msdnet_with_huge_weights(series, msdnet, consistency):
    huge = dataclasses.replace(msdnet, parameters=msdnet.parameters * np.float32(1e30))
    assert np.isfinite(nt.msdnet(series, msdnet, scale=1, consistency=consistency).values).all()
    with pytest.raises(nt.SchemaError, match=f"msdnet: {REFUSED}MS-D Net: 4 layers.*, digest {huge.digest}; try"):
        nt.msdnet(series, [msdnet, huge], scale=1, consistency=consistency).compute()


@pytest.mark.extra("torch")
def test_unrolled_with_huge_weights(series):
    """Half precision, in which they are stored, has numbers up to 65504; layers multiply them."""
    sound, huge = network_of(width=4), network_of(width=4, spread=1e4)
    assert np.isfinite(nt.unrolled(series, sound, noise=0.1).values).all()
    with pytest.raises(nt.SchemaError, match=f"unrolled: {REFUSED}unrolled network: .*, digest {huge.digest}; try"):
        nt.unrolled(series, [sound, huge], noise=0.1).compute()


def test_a_method_of_ones_own(series, nnfbp, monkeypatch):
    """Whatever a method does with its network: what comes out is looked at."""

    @dataclass(frozen=True)
    class Own(Method):
        name: ClassVar[str] = "own"
        title: ClassVar[str] = "Own"
        network = type(nnfbp)
        networks: tuple = ()
        value: float = 1.0

        def slab(self, rows, angles_deg, *prepared):
            return np.full((len(rows), rows.shape[-1], rows.shape[-1]), self.value, np.float32)

        def host_bytes(self, shape):
            return 0

    assert (nt.reconstruct(series, Own(networks=(nnfbp,))).values == 1).all()
    for value in (np.inf, np.nan):
        with pytest.raises(nt.SchemaError, match=f"own: {REFUSED}NN-FBP .*, digest {nnfbp.digest}"):
            nt.reconstruct(series, Own(networks=(nnfbp,), value=value)).compute()


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].network is not None])
def test_what_is_asked_of_members_is_the_same_everywhere(name, nnfbp):
    kind = METHODS[name].network
    with pytest.raises(nt.SchemaError, match=f"{name}: needs a network or several; got none"):
        members.check(name, (), kind, "mean")
    other = nnfbp if name != "nnfbp" else network_of()
    with pytest.raises(nt.SchemaError, match=f"needs networks from train_{name}; got {type(other).__name__}"):
        members.check(name, [other], kind, "mean")
    with pytest.raises(nt.SchemaError, match=r"needs networks from train_.*; got str; try: load_network\(path\)"):
        members.check(name, ["net.safetensors"], kind, "mean")
    right = object.__new__(kind)
    with pytest.raises(nt.SchemaError, match=f'{name}: needs statistic "mean" or "spread"; got .median.'):
        members.check(name, [right], kind, "median")
    with pytest.raises(nt.SchemaError, match=f"{name}: needs two networks or more for a spread; got one"):
        members.check(name, [right], kind, "spread")
