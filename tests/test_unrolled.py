"""Unrolled networks: the U-Net, its derivatives, the file, the geometry, and the method."""

import pytest

pytest.importorskip("torch", reason="needs nntomo_dask[deep]")

import dataclasses
import sys
from pathlib import Path

import dask
import numpy as np
import torch
from scipy.ndimage import correlate

import nntomo_dask as nt
from nntomo_dask.arrays import detector, schema, slabs
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.assessment import candidates
from nntomo_dask.kernels import torch_unet, unet
from nntomo_dask.networks import files
from nntomo_dask.networks.unrolled import Geometry, in_half_precision
from nntomo_dask.projection import conditioning
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import (
    consistency,
    first_guess,
    held_out,
    method as method_room,
    tv_weight,
    unrolled as room,
)
from nntomo_dask.reconstruction.intensity import lazy_level
from nntomo_dask.reconstruction.tv_solver import Problem, solve
from tests.unrolled_networks import ANY, network_of

LEGACY = Path(__file__).parent / "data" / "v0_1"
ANGLES = nt.tilt_angles("tem", 8)
SIZE = 16


@pytest.fixture
def one_thread():
    """Small images are convolved much faster where threads of PyTorch do not wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def particle():
    return nt.nanoparticle((30, SIZE, SIZE), seed=1).compute()


@pytest.fixture(scope="module")
def series(particle):
    return nt.project(particle, ANGLES).compute()


@pytest.fixture(scope="module")
def network():
    return network_of()


@pytest.fixture(scope="module")
def wider():
    return network_of(steps=1, neighbours=2, width=3, seed=1)


def reference(images, vector, width):
    """The U-Net of one image (channel, y, x) with SciPy, in double precision."""
    height, length = images.shape[1:]
    maps = np.pad(images.astype(float), ((0, 0), (0, -height % 4), (0, -length % 4)))
    weights = iter(
        np.split(vector.astype(float), np.cumsum([one.weights + one.outputs for one in layers_of(images, width)]))
    )
    layers = iter(layers_of(images, width))

    def convolved(maps):
        layer, numbers = next(layers), next(weights)
        kernels = numbers[: layer.weights].reshape(layer.outputs, layer.inputs, layer.edge, layer.edge)
        return np.stack(
            [
                sum(correlate(one, part, mode="constant") for one, part in zip(maps, kernel, strict=True)) + bias
                for kernel, bias in zip(kernels, numbers[layer.weights :], strict=True)
            ]
        )

    def level(maps):
        return np.maximum(convolved(np.maximum(convolved(maps), 0)), 0)

    def half(maps):
        return maps.reshape(len(maps), maps.shape[1] // 2, 2, maps.shape[2] // 2, 2).mean(axis=(2, 4))

    def doubled(maps):
        return maps.repeat(2, axis=1).repeat(2, axis=2)

    highest = level(maps)
    middle = level(half(highest))
    lowest = level(half(middle))
    middle = level(np.concatenate([doubled(lowest), middle]))
    highest = level(np.concatenate([doubled(middle), highest]))
    return convolved(highest)[0, :height, :length]


def layers_of(images, width):
    return unet.layers(len(images), width)


@pytest.mark.usefixtures("one_thread")
class TestUNet:
    @pytest.mark.parametrize("shape", [(8, 8), (5, 7), (1, 3), (4, 10)])
    def test_it_is_that_of_the_reference(self, rng, shape):
        """Also of sides that are no multiple of 4: what is beyond is zero."""
        images = rng.standard_normal((2, 3, *shape)).astype(np.float32)
        vector = rng.normal(0, 0.3, unet.parameter_count(3, 2)).astype(np.float32)
        found = torch_unet.apply(torch.from_numpy(images), torch.from_numpy(vector), 2)
        wanted = np.stack([reference(one, vector, 2) for one in images])
        # Eleven layers, each a sum of at most 108 products in single precision.
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-4 * np.abs(wanted).max())

    def test_parameters_by_hand(self):
        """3 × 3 kernels: 5 → 2 → 2, 2 → 4 → 4, 4 → 8 → 8, 8 + 4 → 4 → 4, 4 + 2 → 2 → 2, and 2 → 1 with 1 × 1."""
        products = 5 * 2 + 2 * 2 + 2 * 4 + 4 * 4 + 4 * 8 + 8 * 8 + 12 * 4 + 4 * 4 + 6 * 2 + 2 * 2
        biases = 2 + 2 + 4 + 4 + 8 + 8 + 4 + 4 + 2 + 2 + 1
        assert unet.parameter_count(5, 2) == 9 * products + 2 + biases
        assert [(one.inputs, one.outputs) for one in unet.layers(5, 2)][5:8] == [(8, 8), (12, 4), (4, 4)]

    def test_multiply_adds_are_those_of_the_convolutions(self, monkeypatch):
        counted = []
        convolution = torch.nn.functional.conv2d

        def counting(maps, weights, *arguments, **settings):
            made = convolution(maps, weights, *arguments, **settings)
            counted.append(weights.numel() * made.shape[2] * made.shape[3])
            return made

        monkeypatch.setattr(torch_unet.functional, "conv2d", counting)
        torch_unet.apply(torch.zeros(1, 5, 16, 16), torch.zeros(unet.parameter_count(5, 2)), 2)
        assert sum(counted) == unet.multiply_adds(5, 2, 16)

    def test_channels(self, monkeypatch, rng):
        """As many as `channel_count` says reach the network; the last are the direction and the root of the noise."""
        seen = []

        def watching(images, vector, width):
            seen.append(images)
            return images[:, 0]

        monkeypatch.setattr(torch_unet, "apply", watching)
        for neighbours in (0, 1, 2):
            guesses = [torch.from_numpy(rng.random((3 + 2 * neighbours, 4, 4), np.float32)) for _ in range(3)]
            torch_unet.steps([None], guesses, lambda x: x, noise=0.09, width=2, neighbours=neighbours, together=3)
            images = seen.pop()
            inside = slice(neighbours, neighbours + 3)
            assert images.shape[1] == unet.channel_count(neighbours)
            torch.testing.assert_close(images[:, neighbours], guesses[0][inside], rtol=0, atol=0)
            torch.testing.assert_close(images[:, 2 * neighbours + 1], guesses[0][inside], rtol=0, atol=0)
            torch.testing.assert_close(images[:, -2], guesses[2][inside], rtol=0, atol=0)
            assert images[:, -1].unique().tolist() == pytest.approx([0.3])

    def test_the_direction_follows_the_slices(self, monkeypatch, rng, small_pair):
        """``Aᵀ S (y - A x)`` of the slices as they are before each step, whose outputs are added."""
        pair, _, _ = small_pair
        conditioned, seen, outputs = first_guess.Conditioned(pair), [], []

        def watching(images, vector, width):
            seen.append(images.numpy())
            outputs.append(rng.standard_normal((len(images), 6, 6)).astype(np.float32))
            return torch.from_numpy(outputs[-1])

        monkeypatch.setattr(torch_unet, "apply", watching)
        rows = rng.standard_normal((9, 4, 6)).astype(np.float32)
        first, second = rng.standard_normal((2, 9, 6, 6)).astype(np.float32)
        descent = conditioned.back(rows - pair.forward(first))
        guesses = [torch.from_numpy(one) for one in (first, second, descent)]
        found = torch_unet.steps([None] * 3, guesses, conditioned.normal, noise=0, width=2, neighbours=1, together=9)
        slices = first
        for step, (images, output) in enumerate(zip(seen, outputs, strict=True)):
            inside = slice(step + 1, 9 - step - 1)
            np.testing.assert_allclose(images[:, 1], slices[1:-1], atol=1e-6)
            np.testing.assert_allclose(images[:, 0], slices[:-2], atol=1e-6)
            np.testing.assert_allclose(images[:, 2], slices[2:], atol=1e-6)
            np.testing.assert_array_equal(images[:, 3], first[inside])
            np.testing.assert_array_equal(images[:, 5], second[inside])
            wanted = conditioned.back(rows[inside] - pair.forward(slices[1:-1]))
            np.testing.assert_allclose(images[:, 7], wanted, atol=1e-5 * np.abs(descent).max())
            slices = slices[1:-1] + output
        np.testing.assert_allclose(found.numpy(), slices, atol=1e-6)

    def test_first_parameters_leave_the_guess_as_it_is(self, rng):
        channels = unet.channel_count(1)
        vectors = [unet.initial_parameters(channels, 4, seed) for seed in (0, 1)]
        assert not np.array_equal(*vectors)
        first, second, descent = rng.standard_normal((3, 9, 6, 6)).astype(np.float32)
        found = torch_unet.solved(vectors, [first, second, descent], lambda x: x, noise=0.1, width=4, neighbours=1)
        np.testing.assert_array_equal(found, first[2:-2])
        weights = vectors[0][: channels * 4 * 9]
        assert weights.std() == pytest.approx(np.sqrt(2 / (channels * 9)), rel=0.15)  # 324 numbers: ± 4 %


@pytest.fixture(scope="module")
def small_pair():
    """The projector pair of a slice of 6 × 6 pixels, and ``Aᵀ S A`` as a matrix in double precision."""
    pair = Projector(np.array([-50.0, -10.0, 20.0, 65.0]), 6)
    units = np.eye(36, dtype=np.float32).reshape(36, 6, 6)
    forward = pair.forward(units).reshape(36, -1).T.astype(float)  # (ray, pixel)
    spectra = np.fft.rfft(np.eye(6), axis=1)[None] * pair.frequency_steps(forward)[:, None]
    steps = np.zeros((24, 24))
    for angle, block in enumerate(np.fft.irfft(spectra, 6, axis=2)):
        steps[6 * angle : 6 * angle + 6, 6 * angle : 6 * angle + 6] = block
    return pair, forward, steps


@pytest.mark.usefixtures("one_thread")
class TestDerivatives:
    def test_the_operation_is_that_of_matrices(self, small_pair, rng):
        pair, forward, steps = small_pair
        images = rng.standard_normal((5, 6, 6)).astype(np.float32)
        rows = rng.standard_normal((5, 4, 6)).astype(np.float32)
        conditioned = first_guess.Conditioned(pair)
        normal = images.reshape(5, 36) @ (forward.T @ steps @ forward).T
        # Sums of some 30 numbers of single precision.
        np.testing.assert_allclose(conditioned.normal(images).reshape(5, 36), normal, atol=1e-5)
        back = rows.reshape(5, 24) @ (forward.T @ steps).T
        np.testing.assert_allclose(conditioned.back(rows).reshape(5, 36), back, atol=1e-5)
        given = first_guess.Conditioned(pair, pair.frequency_steps(rows))
        np.testing.assert_array_equal(given.back(rows), conditioned.back(rows))

    @pytest.mark.parametrize(("size", "axis"), [(15, None), (16, Axis(6.5, 9.0))])
    def test_the_operation_is_symmetric_and_bounded(self, size, axis, rng):
        """Which its own derivative and the steps of total variation rest on."""
        images, others = rng.standard_normal((2, 3, size, size)).astype(np.float32)
        normal = first_guess.Conditioned(Projector(ANGLES, size, "native", axis)).normal
        left, right = float((normal(images) * others).sum()), float((images * normal(others)).sum())
        bound = float(np.linalg.norm(images) * np.linalg.norm(others))
        assert left == pytest.approx(right, abs=1e-6 * bound)
        assert 0 < float((normal(images) * images).sum()) <= np.linalg.norm(images) ** 2

    def test_derivatives_pass_through_the_operation(self, small_pair, rng):
        normal = first_guess.Conditioned(small_pair[0]).normal
        images = torch.from_numpy(rng.standard_normal((2, 6, 6)).astype(np.float32)).requires_grad_()
        weights = rng.standard_normal((2, 6, 6)).astype(np.float32)
        (torch_unet.symmetric(normal, images) * torch.from_numpy(weights)).sum().backward()
        np.testing.assert_array_equal(images.grad.numpy(), normal(weights))

    def test_derivatives_of_a_loss_after_three_steps(self, small_pair, rng):
        """In double precision against central differences, in directions that change all parameters of a step."""
        _, forward, steps = small_pair
        matrix = forward.T @ steps @ forward

        def dense(images):
            return (images.reshape(len(images), 36) @ matrix).reshape(images.shape)

        guesses = [torch.from_numpy(rng.standard_normal((2 + 2 * 3, 6, 6))) for _ in range(3)]
        count = unet.parameter_count(unet.channel_count(1), 2)
        vectors = torch.from_numpy(rng.normal(0, 0.2, (3, count)))

        def loss(vectors):
            found = torch_unet.steps(list(vectors), guesses, dense, noise=0.04, width=2, neighbours=1, together=2)
            return found.square().sum()

        vectors.requires_grad_()
        (derivative,) = torch.autograd.grad(loss(vectors), vectors)
        for number in range(3):
            direction = torch.zeros_like(vectors)
            direction[number] = torch.from_numpy(rng.standard_normal(count))
            step = 1e-6 * direction  # short: where a ReLU begins within it, the difference is wrong
            with torch.no_grad():
                difference = float(loss(vectors + step) - loss(vectors - step)) / 2e-6
            assert float((derivative * direction).sum()) == pytest.approx(difference, rel=1e-5)

    def test_single_precision_and_the_pair_give_the_same_derivatives(self, small_pair, rng):
        pair, forward, steps = small_pair
        matrix = forward.T @ steps @ forward
        guesses = rng.standard_normal((3, 2 + 2 * 2, 6, 6))
        vectors = rng.normal(0, 0.2, (2, unet.parameter_count(unet.channel_count(1), 2)))

        def derivative(kind, operation):
            parameters = torch.from_numpy(vectors.astype(kind)).requires_grad_()
            images = [torch.from_numpy(one.astype(kind)) for one in guesses]
            found = torch_unet.steps(list(parameters), images, operation, noise=0.04, width=2, neighbours=1, together=2)
            return torch.autograd.grad(found.square().sum(), parameters)[0].numpy()

        wanted = derivative(np.float64, lambda images: (images.reshape(-1, 36) @ matrix).reshape(images.shape))
        found = derivative(np.float32, first_guess.Conditioned(pair).normal)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())

    @pytest.mark.parametrize("together", [1, 2, 5])
    def test_slices_that_are_convolved_at_once(self, together, rng):
        """In training more than one: the same up to rounding."""
        guesses = [torch.from_numpy(one) for one in rng.standard_normal((3, 9, 6, 6)).astype(np.float32)]
        vectors = torch.from_numpy(rng.normal(0, 0.2, (2, unet.parameter_count(9, 2))).astype(np.float32))
        found = [
            torch_unet.steps(list(vectors), guesses, lambda x: x, noise=0.1, width=2, neighbours=1, together=count)
            for count in (5, together)
        ]
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_the_first_guess(series):
    """Two solutions of total variation, the second smoother where there is no noise, and the descent of the first."""
    rows = series.values[10:16] / np.float32(lazy_level(series, who="test").compute())
    pair = Projector(ANGLES, SIZE)
    ones = np.ones(ANGLES.size)
    for noise, lower in ((0.0, False), (0.3, True)):
        weight = first_guess.weight_of(noise, ANGLES.size)
        assert weight == pytest.approx(max(0.85 * np.sqrt(8 * max(noise**2 - 0.05**2, 0)), 0.1))
        found = first_guess.guess(rows, pair, noise=noise, between=1.0)
        for one, volume in ((weight, found.first), (weight / 5 if lower else weight * 5, found.second)):
            problem = Problem(one, 0.0, np.inf, 0.0, 1.0, 2.5e-3 if one >= 0.5 else 4e-4, 120)
            np.testing.assert_array_equal(volume, solve(rows, pair, problem, ones))
        residual = rows - pair.forward(found.first)
        spectra = np.fft.rfft(residual, axis=-1) * conditioning.frequency_steps(ANGLES, SIZE, pair.forward, pair.back)
        wanted = pair.back(np.fft.irfft(spectra, SIZE, axis=-1).astype(np.float32))
        np.testing.assert_allclose(found.descent, wanted, atol=1e-5 * np.abs(wanted).max())


class TestNetwork:
    def test_a_file_keeps_it(self, network, tmp_path):
        loaded = nt.load_network(nt.save_network(network, tmp_path / "net.safetensors"))
        np.testing.assert_array_equal(loaded.parameters, network.parameters)
        assert dataclasses.replace(loaded, parameters=network.parameters) == network
        assert (loaded.digest, loaded.parameters.dtype) == (network.digest, np.float32)
        one = dataclasses.replace(network, geometry=Geometry(tuple(ANGLES), (8, 8), (70.0, 70.0)))
        assert nt.load_network(nt.save_network(one, tmp_path / "one.safetensors")).geometry == one.geometry

    def test_half_precision(self, rng):
        parameters = rng.normal(0, 1, 99).astype(np.float32)
        once = in_half_precision(parameters)
        assert once.dtype == np.float32
        np.testing.assert_array_equal(in_half_precision(once), once)
        np.testing.assert_allclose(once, parameters, rtol=2**-11, atol=2**-25)

    def test_the_digest_depends_on_all_that_counts(self, network):
        changed = network.parameters.copy()
        changed[1, -1] += np.float32(0.5)
        others = [
            dataclasses.replace(network, parameters=changed),
            network_of(width=3),
            network_of(neighbours=2),
            network_of(steps=1),
            *(
                dataclasses.replace(network, geometry=dataclasses.replace(ANY, **change))
                for change in (
                    {"angles_deg": tuple(ANGLES)},
                    {"projections": (2, 41)},
                    {"reach_deg": (0.0, 80.0)},
                )
            ),
        ]
        assert len({one.digest for one in [network, *others]}) == 1 + len(others)
        assert dataclasses.replace(network, recipe={}).digest == network.digest

    def test_what_it_says(self, network, wider):
        count = unet.parameter_count(unet.channel_count(1), 2)
        text = f"unrolled network: 2 steps of {count} parameters after total variation, "
        text += "for 2 to 40 projections in ±0° to ±90°"
        assert (network.describe(), repr(network)) == (text, f"<{text}>")
        assert "1 step of" in wider.describe()
        one = dataclasses.replace(network, geometry=Geometry(tuple(ANGLES), (8, 8), (70.0, 70.0)))
        assert one.describe().endswith("for 8 projections")
        assert one.angles_deg == tuple(ANGLES)

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"width": 3}, r"parameters a step for a width of 3 and 1 neighbours; got \(2, "),
            ({"neighbours": 2}, "and 2 neighbours"),
            ({"parameters": np.zeros(5, np.float32)}, r"got \(5,\)"),
        ],
    )
    def test_parameters_of_another_network(self, network, change, text):
        with pytest.raises(nt.SchemaError, match=text):
            dataclasses.replace(network, **change)

    def test_steps_that_see_too_far(self):
        with pytest.raises(nt.SchemaError, match="at most 4 slices on either side together; got 3 steps with 2"):
            network_of(steps=3, neighbours=2)

    @pytest.mark.parametrize(
        "change",
        [
            {"width": "257"},
            {"width": "two"},
            {"width": "3"},
            {"neighbours": "-1"},
            {"neighbours": "5"},
            {"neighbours": "1.0"},
            {"recipe": "[]"},
            {"geometry": "[]"},
            {"geometry": "{}"},
            {"geometry": '{"angles_deg": [], "projections": [2], "reach_deg": [0, 90]}'},
            {"geometry": '{"angles_deg": [], "projections": [2, 1e99], "reach_deg": [0, 90]}'},
            {"geometry": '{"angles_deg": [], "projections": [2, 10001], "reach_deg": [0, 90]}'},
            {"geometry": '{"angles_deg": [], "projections": 5, "reach_deg": [0, 90]}'},
            {"geometry": '{"angles_deg": [], "projections": [2, 40], "reach_deg": [0, "nan"]}'},
            {"geometry": '{"angles_deg": ["a"], "projections": [2, 40], "reach_deg": [0, 90]}'},
            {"geometry": '{"angles_deg": 7, "projections": [2, 40], "reach_deg": [0, 90]}'},
            {"parameters": np.zeros((2, 2041), np.float32)},
            {"parameters": np.zeros((2, 2040), np.float16)},
            {"parameters": np.full((2, 2041), np.nan, np.float16)},
            {"parameters": np.zeros((0, 2041), np.float16)},
            {"parameters": np.zeros((5, 2041), np.float16)},
            {"parameters": np.zeros(2041, np.float16)},
        ],
    )
    def test_files_that_say_something_else_are_refused(self, network, tmp_path, change):
        """Whose checksums are right: someone wrote them so."""
        tensors, metadata = network.to_file()
        tensors |= {name: value for name, value in change.items() if name == "parameters"}
        metadata |= {name: value for name, value in change.items() if name != "parameters"}
        files.write_tensors(tensors, metadata | {"format": network.FORMAT}, tmp_path / "net.safetensors")
        with pytest.raises(nt.SchemaError, match=r"load_network: needs"):
            nt.load_network(tmp_path / "net.safetensors")

    @pytest.mark.parametrize("missing", ["geometry", "width", "neighbours", "recipe"])
    def test_files_that_lack_something_are_refused(self, network, tmp_path, missing):
        tensors, metadata = network.to_file()
        del metadata[missing]
        files.write_tensors(tensors, metadata | {"format": network.FORMAT}, tmp_path / "net.safetensors")
        with pytest.raises(nt.SchemaError, match=r"load_network: needs"):
            nt.load_network(tmp_path / "net.safetensors")


def series_at(angles, size=SIZE):
    return nt.tilt_series(np.ones((2, len(angles), size), np.float32), angles)


class TestGeometry:
    BOUNDS = Geometry(projections=(6, 12), reach_deg=(55.0, 75.0))

    @pytest.mark.parametrize(
        ("angles", "fits"),
        [
            (np.linspace(-60, 60, 6), True),
            (np.linspace(-60, 60, 12), True),
            (np.linspace(-60, 60, 5), False),
            (np.linspace(-60, 60, 13), False),
            (np.linspace(-54.1, 54.1, 8), True),
            (np.linspace(-53.9, 53.9, 8), False),
            (np.linspace(-75.9, 75.9, 8), True),
            (np.linspace(-76.1, 76.1, 8), False),
            (np.linspace(-40, 80, 8), True),  # 120° in all, however they lie
            (np.linspace(-60, 60, 8)[::-1], True),
        ],
    )
    def test_what_fits(self, angles, fits):
        assert self.BOUNDS.fits(np.asarray(angles)) == fits
        if fits:
            self.BOUNDS.check(series_at(angles), who="test")
        else:
            with pytest.raises(
                nt.SchemaError,
                match=rf"test: needs a series like those that the network learned from: 6 to 12 projections in "
                rf"±55° to ±75°; got {len(angles)} projections in ±.*; try: train a network for this series, or tv",
            ):
                self.BOUNDS.check(series_at(angles), who="test")

    def test_one_series(self, rng):
        """Its angles in any order, and no others."""
        one = Geometry(tuple(ANGLES), (8, 8), (70.0, 70.0))
        one.check(series_at(rng.permutation(ANGLES)), who="test")
        with pytest.raises(nt.SchemaError, match="test: needs"):
            one.check(series_at(ANGLES + 1), who="test")
        with pytest.raises(nt.SchemaError, match="test: needs"):
            one.check(series_at(ANGLES[1:]), who="test")

    def test_text(self):
        for one in (self.BOUNDS, Geometry(tuple(ANGLES), (8, 8), (70.0, 70.0))):
            assert Geometry.from_json(one.to_json()) == one


def by_hand(series, networks, noise, rows=None, axis=None):
    """What one block of slices is to be, (slice, 2, y, x): its parts, put together."""
    level = np.float32(lazy_level(series, who="test").compute())
    rows = series.values if rows is None else rows
    seen = rows[slabs.mirrored(len(rows), 4)]
    pair = Projector(series[schema.ANGLE].values, rows.shape[-1], "native", axis)
    found = first_guess.guess(seen / level, pair, noise=noise, between=1.0)
    members = []
    for one in networks:
        inside = slice(4 - one.reach, len(seen) - 4 + one.reach)
        guesses = [part[inside] for part in (found.first, found.second, found.descent)]
        slices = torch_unet.solved(
            list(one.parameters),
            guesses,
            first_guess.Conditioned(pair).normal,
            noise=noise,
            width=one.width,
            neighbours=one.neighbours,
        )
        members.append(np.maximum(slices, 0) * level)
    return np.stack([np.mean(members, axis=0), np.std(members, axis=0)], axis=1)


@pytest.fixture(scope="module")
def whole(series, network, wider):
    with dask.config.set(scheduler="sync"):
        return nt.unrolled(series.chunk(z=-1), [network, wider], noise=0.05).values


class TestMethod:
    def test_it_is_made_of_its_parts(self, series, network, wider):
        """Slices beyond the ends are those at the ends, mirrored."""
        few = series.isel(z=slice(11, 18))
        wanted = by_hand(few, [network], 0.2)
        found = nt.unrolled(few, network, noise=0.2)
        assert (found.dims, found.dtype) == (("z", "y", "x"), np.float32)
        np.testing.assert_array_equal(found.values, wanted[:, 0])
        assert wanted[:, 0].max() > 0
        without = nt.tv(few, weight=1).values
        assert np.abs(wanted[:, 0] - without).max() > 0.05 * without.max()

        both = by_hand(few, [network, wider], 0.2)
        # The mean of two numbers in single precision.
        mean = nt.unrolled(few, [network, wider], noise=0.2).values
        np.testing.assert_allclose(mean, both[:, 0], rtol=1e-6, atol=1e-7)
        spread = nt.unrolled(few, [network, wider], noise=0.2, statistic="spread").values
        np.testing.assert_allclose(spread, both[:, 1], rtol=1e-5, atol=1e-6)
        assert spread.max() > 0.01 * mean.max()
        method = room.Unrolled(networks=(network, wider), noise=0.2)
        for one, statistic in zip(nt.mean_and_spread(few, method), (mean, spread), strict=True):
            np.testing.assert_array_equal(one.values, statistic)

    @pytest.mark.parametrize("axis", [6.0, 9.5])
    def test_the_axis_lies_beside_the_middle(self, series, network, axis):
        few = nt.with_axis_position(series.isel(z=slice(14, 17)), axis)
        wanted = by_hand(few, [network], 0.1, axis=schema.axis_of(few))[:, 0]
        np.testing.assert_array_equal(nt.unrolled(few, network, noise=0.1).values, wanted)
        assert not np.array_equal(wanted, by_hand(few, [network], 0.1)[:, 0])

    def test_padding(self, series, network):
        few = series.isel(z=slice(14, 17))
        one = room.Unrolled(networks=(network,), noise=0.1)
        level, *_ = dask.compute(*method_room.prepared_for(few, one, pad=4))
        wide = detector.extended(few, 4)
        wanted = by_hand(wide, [network], 0.1)[:, 0]
        found = nt.reconstruct(few, one, pad=4)
        np.testing.assert_array_equal(found.values, wanted[:, 4:-4, 4:-4])
        assert level == lazy_level(wide, who="test").compute()

    @pytest.mark.parametrize("chunks", [5, 24, 30])
    @pytest.mark.parametrize("scheduler", [{"scheduler": "sync"}, {"scheduler": "threads", "num_workers": 2}])
    def test_chunks_and_workers_change_nothing(self, series, network, wider, whole, chunks, scheduler):
        with dask.config.set(scheduler):
            found = nt.unrolled(series.chunk(z=chunks), [network, wider], noise=0.05)
            np.testing.assert_array_equal(found.values, whole)

    def test_a_volume_that_was_interrupted_is_gone_on_with(self, series, network, wider, whole, tmp_path, monkeypatch):
        lazy = nt.unrolled(series.chunk(z=24), [network, wider], noise=0.05)
        block, blocks = room.Unrolled._block, []

        def failing(self, rows, **arguments):
            blocks.append(len(rows))
            if len(blocks) == 2:
                raise KeyboardInterrupt
            return block(self, rows, **arguments)

        monkeypatch.setattr(room.Unrolled, "_block", failing)
        with dask.config.set(scheduler="sync"):
            with pytest.raises(KeyboardInterrupt):
                nt.save(lazy, tmp_path / "volume.zarr")
            saved = nt.save(lazy, tmp_path / "volume.zarr")
        assert blocks[:2] == [32, 14]
        np.testing.assert_array_equal(saved.values, whole)

    def test_the_order_of_the_projections(self, series, network, rng):
        few = series.isel(z=slice(14, 17))
        order = rng.permutation(ANGLES.size)
        found = nt.unrolled(few.isel(angle=order), network, noise=0.1).values
        wanted = nt.unrolled(few, network, noise=0.1).values
        # Total variation sums in another order; some hundred iterations and two networks carry the rounding on.
        np.testing.assert_allclose(found, wanted, atol=1e-4 * wanted.max())

    def test_it_scales_with_the_series(self, series, network):
        few = series.isel(z=slice(14, 17))
        louder = few.copy(data=few.values * np.float32(1024))
        found, wanted = (nt.unrolled(one, network, noise=0.1).values for one in (louder, few))
        np.testing.assert_allclose(found, 1024 * wanted, atol=1e-4 * found.max())

    def test_consistency(self, series, network, wider):
        """The mean fits its projections better; the spread is that of the networks."""
        few = series.isel(z=slice(9, 18))
        plain, moved = (
            nt.unrolled(few, [network, wider], noise=0.1, consistency=one).compute() for one in ("none", "auto")
        )

        def misfit(volume):
            return float(((nt.project(volume, ANGLES) - few) ** 2).sum())

        assert misfit(moved) < 0.5 * misfit(plain)
        assert (moved.values >= 0).all()
        method = room.Unrolled(networks=(network, wider), noise=0.1, consistency="auto")
        mean, spread = nt.mean_and_spread(few, method)
        np.testing.assert_array_equal(mean.values, moved.values)
        alone = nt.unrolled(few, [network, wider], noise=0.1, statistic="spread").values
        np.testing.assert_array_equal(spread.values, alone)
        assert moved.attrs["recipe"]["parameters"]["consistency"] == "auto"
        np.testing.assert_array_equal(
            nt.unrolled(few.chunk(z=2), [network, wider], noise=0.1, consistency="auto").values, moved.values
        )

    def test_consistency_of_padded_projections(self, series, network, monkeypatch):
        """What was not measured has no part: `finished` is told how much that is."""
        told = []
        finished = consistency.finished

        def watching(*arguments, **settings):
            told.append(settings["pad"])
            return finished(*arguments, **settings)

        monkeypatch.setattr(consistency, "finished", watching)
        one = room.Unrolled(networks=(network,), noise=0.1, consistency="auto")
        nt.reconstruct(series.isel(z=slice(14, 16)), one, pad=3).compute()
        assert told == [3]

    def test_the_noise_is_estimated(self, series, network):
        """As that which was given, where it is found: in units of the intensity level."""
        level = float(lazy_level(series, who="test").compute())
        error = 0.4 * level * np.random.default_rng(3).standard_normal(series.shape)
        noisy = series.copy(data=(series.values + error).astype(np.float32))
        method = room.Unrolled(networks=(network,))
        _, deviation, thickness = dask.compute(*method.prepare(noisy))
        # Of 30 · 8 · 16 rays some hundred cross the particle; the level itself is that of a noisy series.
        assert deviation == pytest.approx(0.4, rel=0.25)
        assert thickness == 1
        np.testing.assert_array_equal(
            nt.unrolled(noisy, network).values, nt.unrolled(noisy, network, noise=float(deviation)).values
        )
        (line,) = method.outlook(noisy, (1.0, 0.123, 1.0))
        assert "noise 0.12, in units of the specimen's intensity; --noise sets another" in line
        assert dataclasses.replace(method, noise=0.1).outlook(noisy, (1.0, 0.1, 1.0)) == []

    def test_slices_that_are_thick(self, particle, network):
        """Differences between slices count less, the farther apart they are."""
        few = particle.isel(z=slice(7, 12))
        apart = few.assign_coords(z=few.z * 4.0)
        series = [nt.project(one, ANGLES).compute() for one in (few, apart)]
        near, far = (nt.unrolled(one, network, noise=0.2) for one in series)
        assert float(np.abs(near.values - far.values).max()) > 1e-3
        (*_, thickness) = room.Unrolled(networks=(network,), noise=0.2).prepare(series[1])
        assert thickness == 4

    def test_an_empty_series(self, network):
        """Nothing to divide by; the pretrained network leaves it empty, up to a thousandth of a unit or so."""
        empty = nt.tilt_series(np.zeros((3, 8, SIZE), np.float32), ANGLES)
        assert np.isfinite(nt.unrolled(empty, network).values).all()
        assert float(nt.unrolled(empty).max()) < 0.01

    @pytest.mark.parametrize("size", [1, 2, 5, 9])
    def test_detectors_of_few_pixels(self, size, network, rng):
        series = nt.tilt_series(rng.random((2, 8, size), np.float32) + 1, ANGLES)
        volume = nt.unrolled(series, network).values
        assert volume.shape == (2, size, size)
        assert np.isfinite(volume).all()

    def test_it_is_lazy(self, series, network, nothing_computes):
        assert nt.unrolled(series, network).shape == (30, SIZE, SIZE)

    def test_recipe(self, series, network, wider):
        method = room.Unrolled(networks=(network, wider), noise=0.2)
        recipe = nt.reconstruct(series, method).attrs["recipe"]
        assert recipe["operation"] == "unrolled"
        wanted = {"networks": [network.digest, wider.digest], "noise": 0.2, "statistic": "mean"}
        assert {name: recipe["parameters"][name] for name in wanted} == wanted
        assert [one["operation"] for one in recipe["inputs"]][-2:] == ["made 0", "made 1"]

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"noise": -0.1}, "noise"),
            ({"noise": np.nan}, "noise"),
            ({"noise": np.inf}, "noise"),
            ({"noise": "much"}, "noise"),
            ({"statistic": "median"}, "statistic .mean. or .spread.; got 'median'"),
            ({"statistic": "spread"}, "two networks or more for a spread; got one"),
            ({"networks": ()}, "a network or several; got none"),
            ({"consistency": "some"}, "consistency"),
            ({"consistency": -1.0}, "consistency"),
        ],
    )
    def test_settings_that_are_refused(self, series, network, nothing_computes, change, text):
        with pytest.raises(nt.SchemaError, match=f"unrolled: needs .*{text}"):
            nt.reconstruct(series, room.Unrolled(**{"networks": (network,)} | change))

    def test_series_that_are_refused(self, series, network, nothing_computes):
        one = dataclasses.replace(network, geometry=Geometry(projections=(9, 20), reach_deg=(0.0, 90.0)))
        with pytest.raises(nt.SchemaError, match=r"unrolled: needs a series like those .*: 9 to 20 projections"):
            nt.unrolled(series, one)
        with pytest.raises(nt.SchemaError, match="unrolled: needs networks from train_unrolled; got NNFBPNetwork"):
            nt.unrolled(series, nt.load_network(LEGACY / "nnfbp_lm.safetensors"))
        uneven = series.assign_coords(z=series.z.values**3)
        with pytest.raises(nt.SchemaError, match="unrolled: needs"):
            nt.unrolled(uneven, network)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_values_that_are_not_finite(self, series, network, bad):
        values = series.values.copy()
        values[6, 3, 5] = bad
        spoiled = series.copy(data=values)
        with pytest.raises(
            nt.SchemaError, match=f"me: needs finite values; got {bad} at index z=6, angle=3, detector=5"
        ):
            tv_weight.lazy_deviation(spoiled, dask.array.from_array(np.float32(1)), who="me").compute()
        with pytest.raises(nt.SchemaError, match=f"unrolled: needs finite values; got {bad} at index z=6"):
            nt.unrolled(spoiled, network, noise=0.1).compute()

    def test_without_torch(self, series, network, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(nt.SchemaError, match=r"unrolled: needs PyTorch; .* pip install 'nntomo_dask\[deep\]'"):
            nt.unrolled(series, network)
        assert room.Unrolled.own_networks(ANGLES) == ()

    def test_networks_for_one_series_at_fewer_angles(self, series, network, wider):
        one = dataclasses.replace(network, geometry=Geometry(tuple(ANGLES), (8, 8), (70.0, 70.0)))
        kept = ANGLES[[6, 0, 1, 3, 4, 7]]
        fewer = room.Unrolled(networks=(one, wider), noise=0.1).for_angles(kept)
        assert {member.angles_deg for member in fewer.networks} == {tuple(sorted(kept))}
        fewer.check(series.sel(angle=kept))
        general = room.Unrolled(networks=(wider,))
        assert general.for_angles(kept) is general


class TestPretrained:
    @pytest.mark.parametrize(("name", "width"), [("general", 32), ("general-small", 16), ("measured", 16)])
    def test_they_come_with_the_package(self, name, width):
        found = nt.pretrained_network(name)
        assert (found.width, found.angles_deg) == (width, ())
        assert found is nt.pretrained_network(name)
        assert found.recipe["operation"] == "pretrain"
        assert found.geometry.fits(nt.tilt_angles("tem", 12))

    def test_another_name(self):
        with pytest.raises(nt.SchemaError, match="needs 'general', 'general-small' or 'measured'; got 'best'"):
            nt.pretrained_network("best")

    def test_it_serves_where_none_is_given(self, series):
        """In both spellings; and it leaves less error than total variation, where there is noise."""
        few = series.isel(z=slice(13, 17))
        lazy = [nt.unrolled(few), nt.reconstruct(few, "unrolled"), nt.reconstruct(few, nt.pretrained_network())]
        digests = [one.attrs["recipe"]["parameters"]["networks"] for one in lazy]
        assert digests == [[nt.pretrained_network().digest]] * 3
        own = nt.reconstruct(few, "unrolled", networks=(network_of(),))
        assert own.attrs["recipe"]["parameters"]["networks"] == [network_of().digest]

    def test_it_improves_total_variation(self):
        """On matter like that which it learned, with noise; `general-small`, which takes least time."""
        volume = nt.phantom("materials", (8, 32, 32), seed=1001).compute()
        clean = nt.project(volume, nt.tilt_angles("tem", 12)).compute()
        error = 0.02 * float(clean.max()) * np.random.default_rng(0).standard_normal(clean.shape)
        series = clean.copy(data=(clean.values + error).astype(np.float32))
        both = (nt.pretrained_network("general-small"), network_of(spread=0))
        improved, before = (float(nt.mse(nt.unrolled(series, one), volume)) for one in both)
        assert improved < 0.8 * before

    def test_it_is_assessed_where_it_fits(self, monkeypatch):
        def names(angles):
            series = series_at(angles)
            folds = held_out.folds(angles, 4, who="test")
            return [one.method.name for one in candidates.candidates(None, {}, series.angle.values, folds)]

        assert "unrolled" in names(nt.tilt_angles("tem", 12))
        assert "unrolled" not in names(nt.tilt_angles("tem", 6))  # five without a fold
        assert "unrolled" not in names(np.linspace(-20, 20, 12))
        monkeypatch.setitem(sys.modules, "torch", None)
        assert "unrolled" not in names(nt.tilt_angles("tem", 12))


def test_on_the_command_line(run, series_store):
    run("reconstruct", series_store, "--method", "unrolled", "--noise", 0.1, "-o", "volume.zarr")
    parameters = nt.open("volume.zarr").attrs["recipe"]["parameters"]
    assert parameters["networks"] == [nt.pretrained_network().digest]
    nt.save_network(network_of(), "net.safetensors")
    nt.save_network(network_of(seed=1), "other.safetensors")
    words = ("reconstruct", series_store, "--method", "unrolled", "--network", "net.safetensors")
    result = run(*words, "--network", "other.safetensors", "--spread", "spread.zarr", "-o", "mean.zarr")
    assert "note: noise " in result.output
    both = [network_of(), network_of(seed=1)]
    np.testing.assert_array_equal(nt.open("mean.zarr").values, nt.unrolled(nt.open(series_store), both).values)
    spread = nt.unrolled(nt.open(series_store), both, statistic="spread").values
    np.testing.assert_array_equal(nt.open("spread.zarr").values, spread)
    assert "unrolled network: 2 steps" in run("info", "net.safetensors").output
    text = run("reconstruct", series_store, "--method", "unrolled", "--noise", -1, "-o", "v.zarr", exit_code=2).output
    assert "noise" in text


def test_names_of_pretrained_networks_on_the_command_line(run, series_store, tmp_path):
    """In the place of files; a file of that name comes first."""
    words = ("reconstruct", series_store, "--method", "unrolled", "--noise", 0.1, "--network", "general-small")
    run(*words, "-o", "small.zarr")
    parameters = nt.open("small.zarr").attrs["recipe"]["parameters"]
    assert parameters["networks"] == [nt.pretrained_network("general-small").digest]
    run(*words, "--network", "general", "-o", "both.zarr")
    both = [nt.pretrained_network(name).digest for name in ("general-small", "general")]
    assert nt.open("both.zarr").attrs["recipe"]["parameters"]["networks"] == both
    text = run("reconstruct", series_store, "--method", "nnfbp", "--network", "general", "-o", "v.zarr", exit_code=2)
    assert "general holds a network for --method unrolled, not for nnfbp" in text.output
    text = run("reconstruct", series_store, "--method", "unrolled", "--network", "other", "-o", "v.zarr", exit_code=2)
    assert "nothing at other" in text.output
    assert "general-small" in run("reconstruct", "--help").output
    nt.save_network(network_of(), tmp_path / "general-small")
    run(*words, "-o", "own.zarr")
    assert nt.open("own.zarr").attrs["recipe"]["parameters"]["networks"] == [network_of().digest]


def test_pretrained_networks_by_name_are_assessed(run, series_store):
    words = ("assess", series_store, "--methods", "unrolled", "--network", "general-small", "--folds", 2, "--slices", 8)
    text = run(*words, "-o", "assessment").output
    assert "general-small" in text


class TestTiles:
    """Large images in tiles: the same values, also where sides are no multiples of a tile or of the means."""

    @pytest.mark.parametrize("shape", [(60, 60), (61, 95), (33, 130)])
    def test_tiles_change_nothing(self, rng, monkeypatch, shape):
        monkeypatch.setattr(unet, "TILE", 32)
        channels, width = 3, 2
        vector = torch.from_numpy(rng.normal(0, 0.3, unet.parameter_count(channels, width)).astype(np.float32))
        images = torch.from_numpy(rng.random((2, channels, *shape), np.float32))
        whole = torch_unet.apply(images, vector, width)
        tiled = torch_unet.apply_in_tiles(images, vector, width)
        # Sums of hundreds of products in single precision, in another order.
        np.testing.assert_allclose(tiled.numpy(), whole.numpy(), rtol=0, atol=1e-5 * float(whole.abs().max()))

    def test_a_margin_that_is_too_small_is_seen(self, rng, monkeypatch):
        """Otherwise the test above would say nothing."""
        monkeypatch.setattr(unet, "TILE", 32)
        monkeypatch.setattr(unet, "MARGIN", 12)
        vector = torch.from_numpy(rng.normal(0, 0.3, unet.parameter_count(3, 2)).astype(np.float32))
        images = torch.from_numpy(rng.random((1, 3, 96, 96), np.float32))
        difference = torch_unet.apply_in_tiles(images, vector, 2) - torch_unet.apply(images, vector, 2)
        assert difference.abs().max() > 1e-4


def test_where_there_is_nothing_the_network_says_nothing():
    empty = nt.tilt_series(np.zeros((5, 8, 16), np.float32), nt.tilt_angles("tem", 8))
    assert not nt.unrolled(empty).values.any()


def test_slices_far_from_all_matter_are_empty():
    """Also those of a block that shows some: nothing changes at the border of a block."""
    rows = np.zeros((30, 8, SIZE), np.float32)
    rows[5] = nt.project(nt.nanoparticle((1, SIZE, SIZE), seed=1), ANGLES).values[0]
    volume = nt.unrolled(nt.tilt_series(rows, ANGLES)).values
    assert volume[5].any()
    assert not volume[:1].any()
    assert not volume[10:].any()


def test_threads_are_given_back_where_contexts_overlap():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        first, second = torch_unet.one_thread(), torch_unet.one_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__()
        assert torch.get_num_threads() == 1
        second.__exit__()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
