import dataclasses
import warnings

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.arrays import geometry, schema
from nntomo_dask.networks.nnfbp_layout import InputLayout
from nntomo_dask.reconstruction.training_range import OUTSIDE_LIMIT, _looked_at, figures_of, outside, warn

SIZE = 48


@pytest.fixture(scope="module")
def particle():
    return nt.nanoparticle((6, SIZE, SIZE), seed=2)


@pytest.fixture
def measured(particle):
    return nt.project(particle, nt.tilt_angles("tem", 8)).compute()


def random_network(rng, layout, *, activation="relu", hidden=8, output="sigmoid", second=0):
    """A network with weights that nothing has trained, so that every part of it matters."""
    n = layout.n_inputs
    low = rng.uniform(-5, 0, n)  # the inputs of the particle, which is 24 pixels thick, lie between 0 and 200
    between = {}
    if second:
        between = {"second_weights": rng.standard_normal((hidden, second)) / np.sqrt(hidden)}
        between |= {"second_bias": rng.standard_normal(second)}
    return nt.NNFBPNetwork(
        layout=layout,
        activation=activation,
        output=output,
        **between,
        hidden_weights=rng.standard_normal((n, hidden)) / np.sqrt(n),
        hidden_bias=rng.standard_normal(hidden),
        output_weights=rng.standard_normal(second or hidden),
        output_bias=0.1 if output == "sigmoid" else -5.0,  # a linear output of at least 0 would often be 0
        input_low=low,
        input_high=low + rng.uniform(60, 120, n),
        target_low=-1.0,
        target_high=2.0,
        level=1.0,
    )


@pytest.mark.filterwarnings("ignore:nnfbp")  # an untrained network has no range that the inputs could keep to
@pytest.mark.parametrize("scale", [1.0, 3.5])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("binning", ["exponential", "none"])
@pytest.mark.parametrize("wedge", ["complete", "keep"])
@pytest.mark.parametrize("tilt_range", ["full", "tem"])
def test_both_routes_agree(rng, particle, tilt_range, wedge, binning, activation, scale):
    """Eq. 8, the network at a voxel's inputs, and Eq. 9, the filtered reconstruction there, to 1e-4 of the range."""
    angles = nt.tilt_angles(tilt_range, 8)
    series = nt.project(particle, angles).compute()
    network = random_network(rng, InputLayout(tuple(angles), SIZE, wedge, binning), activation=activation)
    volume = nt.nnfbp(series, network, scale=scale, consistency="none").values

    inside = np.argwhere(geometry.seen_by_all(SIZE))
    voxels = np.column_stack([rng.integers(0, 6, 500), inside[rng.integers(0, len(inside), 500)]])
    inputs = network.layout.inputs(series.values, voxels) / scale
    expected = scale * nt.evaluate(network, inputs)
    actual = volume[tuple(voxels.T)]
    assert np.ptp(expected) > 0.01 * scale  # the outputs differ enough for agreement to mean something
    np.testing.assert_allclose(actual, expected, atol=1e-4 * 3 * scale)


@pytest.mark.filterwarnings("ignore:nnfbp")
@pytest.mark.parametrize(
    ("filters", "output", "second", "binning"),
    [("apart", "linear", 6, "exponential"), ("apart", "sigmoid", 0, "none"), ("shared", "linear", 5, "exponential")],
)
@pytest.mark.parametrize(("tilt_range", "count"), [("tem", 8), ("tem", 15), ("full", 8)])
def test_both_routes_agree_in_other_forms(rng, particle, tilt_range, count, filters, output, second, binning):
    """Filters for each projection and side or for neighbours, a linear output, a second layer: 1e-4 of the range."""
    angles = nt.tilt_angles(tilt_range, count)
    series = nt.project(particle, angles).compute()
    layout = InputLayout(tuple(angles), SIZE, "complete", binning, filters=filters)
    network = random_network(rng, layout, output=output, second=second)
    volume = nt.nnfbp(series, network, scale=2, consistency="none").values
    inside = np.argwhere(geometry.seen_by_all(SIZE))
    voxels = np.column_stack([rng.integers(0, 6, 500), inside[rng.integers(0, len(inside), 500)]])
    expected = 2 * nt.evaluate(network, layout.inputs(series.values, voxels) / 2)
    assert np.ptp(expected) > 0.02
    np.testing.assert_allclose(volume[tuple(voxels.T)], expected, atol=1e-4 * max(6, np.ptp(expected)))


def test_a_filter_for_each_projection_knows_left_from_right(rng, particle, measured):
    """The mirrored series gives the mirrored volume only where filters are even and shared."""
    angles = tuple(measured["angle"].values)
    for filters, is_even in (("shared", True), ("apart", False)):
        network = random_network(rng, InputLayout(angles, SIZE, filters=filters), output="linear")
        network = dataclasses.replace(network, input_low=np.zeros(network.layout.n_inputs))
        volume, mirrored = (
            nt.METHODS["nnfbp"](networks=(network,), warns=False, consistency="none").slab(
                rows, np.asarray(angles), 1.0
            )
            for rows in (measured.values, np.ascontiguousarray(measured.values[:, ::-1, ::-1]))
        )
        assert np.allclose(volume, mirrored[..., ::-1], atol=1e-3 * np.ptp(volume)) == is_even


@pytest.mark.parametrize("count", [15, 29])
def test_many_projections_share_filters_with_their_neighbours(count):
    layout = InputLayout(tuple(nt.tilt_angles("tem", count)), SIZE, filters="apart")
    *measured, filled = layout.groups
    assert len(measured) == 12
    used = layout.used_angles_deg
    np.testing.assert_array_equal(np.sort(np.concatenate([*measured, filled])), np.arange(used.size))
    for group in measured:
        assert (np.diff(used[group]) == np.diff(used[measured[0]])[0]).all() or len(group) == 1


def test_what_a_series_lacks_is_interpolated(particle, rng):
    """Without a projection: as if it were the mean of its neighbours; the outermost one that of both ends."""
    angles = nt.tilt_angles("tem", 8)
    series = nt.project(particle, angles).compute()
    network = random_network(rng, InputLayout(tuple(angles), SIZE, filters="apart"), output="linear", second=4)
    method = nt.METHODS["nnfbp"](networks=(network,), scale=1, warns=False, consistency="none")
    kept = np.array([0, 1, 3, 4, 5, 6, 7])
    fewer = method.for_angles(angles[kept])
    actual = nt.reconstruct(series.isel(angle=kept), fewer).values
    filled = series.copy(deep=True)
    filled[:, 2] = (series[:, 1] + series[:, 3]) / 2
    np.testing.assert_allclose(actual, nt.reconstruct(filled, method).values, atol=1e-4 * np.ptp(actual))
    filled = series.copy(deep=True)
    # 70° is 20° from 50°, and 40° from -70° + 180° = 110°, which is -70° mirrored.
    filled[:, 7] = series[:, 6] * (2 / 3) + series.values[:, 0, ::-1] / 3
    actual = nt.reconstruct(series.isel(angle=slice(0, 7)), method.for_angles(angles[:7])).values
    np.testing.assert_allclose(actual, nt.reconstruct(filled, method).values, atol=1e-4 * np.ptp(actual))


def test_chunks_change_nothing(measured, trained):
    network = trained[0]
    whole = nt.nnfbp(measured, network).values
    for slices in (1, 3):
        np.testing.assert_array_equal(nt.nnfbp(measured.chunk(z=slices), network).values, whole)


def test_lazy(measured, trained, nothing_computes):
    volume = nt.nnfbp(measured, trained[0])
    assert volume.shape == (6, SIZE, SIZE)
    assert nt.outside_training_range(measured, trained[0]).shape == (6,)


def test_it_reconstructs_better_than_sirt(particle, measured, trained):
    error = float(nt.mse(nt.nnfbp(measured, trained[0]), particle))
    assert error < 0.5 * float(nt.mse(nt.sirt(measured, tolerance=0.01, minimum=None), particle))


@pytest.mark.parametrize("factor", [0.02, 1.0, 700.0])
def test_scale_is_estimated(particle, measured, trained, factor):
    """A series in other units gives a volume in these units; Otsu's level is good to 3 % here."""
    volume = nt.nnfbp(measured * np.float32(factor), trained[0])
    inside = particle.values > 0
    assert np.median(volume.values[inside]) == pytest.approx(factor, rel=0.05)


def test_scale_is_exact_when_given(measured, trained):
    plain = nt.nnfbp(measured, trained[0], scale=1).values
    scaled = nt.nnfbp(measured * np.float32(64), trained[0], scale=64).values
    # A power of two scales floating-point numbers exactly, but 1/scale is folded into filters: single precision.
    np.testing.assert_allclose(scaled, 64 * plain, atol=64 * 1e-5)


def test_intensity_level_is_linear_and_survives_emptiness(measured):
    level = float(nt.intensity_level(measured))
    assert level == pytest.approx(1, abs=0.25)
    assert float(nt.intensity_level(measured * np.float32(100))) == pytest.approx(100 * level, rel=1e-4)
    assert float(nt.intensity_level(measured * 0)) == 0


def test_intensity_level_does_not_depend_on_the_detector():
    """Binned for speed: the level of a particle on 288 pixels is that on 144, to 5 %."""
    levels = []
    for size in (144, 288):
        particle = nt.nanoparticle((5, size, size), seed=2)
        levels.append(float(nt.intensity_level(nt.project(particle, nt.tilt_angles("tem", 8)))))
    assert levels[0] == pytest.approx(levels[1], rel=0.05)


def test_an_empty_series_reconstructs_to_something_finite(measured, trained):
    assert np.isfinite(nt.nnfbp(measured * 0, trained[0]).values).all()


def test_inputs_outside_the_training_range_are_reported(measured, trained):
    network = trained[0]
    assert float(nt.outside_training_range(measured, network).max()) < 0.01
    foreign = measured * 20
    share = nt.outside_training_range(foreign, network, scale=1)
    assert float(share.mean()) > 0.05
    with pytest.warns(
        UserWarning, match="nnfbp: inputs of the network outside the range it saw in training: .* so it ext"
    ):
        nt.nnfbp(foreign, network, scale=1).compute()


def test_how_far_inputs_lie_outside(measured, trained):
    """Means over voxels and inputs of the distance from the range, in units of it, by a formula of their own."""
    network = trained[0]
    foreign = measured * np.float32(3)
    (shares, squares) = outside(foreign, network, 1.0).compute()
    np.testing.assert_array_equal(shares, nt.outside_training_range(foreign, network, scale=1).values)
    axis = schema.axis_of(foreign)
    places = _looked_at(network.layout.detector_count, axis)
    for z in (0, 5):
        voxels = np.column_stack([np.full(len(places), z), places]).astype(np.int64)
        inputs = network.layout.inputs(foreign.values, voxels).astype(np.float64)
        low, high = network.input_low, network.input_high
        beyond = np.maximum(inputs - high, 0) + np.maximum(low - inputs, 0)
        assert squares[z] == pytest.approx(((beyond / (high - low)) ** 2).mean(), rel=1e-4)


def test_more_inputs_are_not_farther_outside(measured, trained):
    """Each input twice: the same figures, where the share of voxels with any input outside could only grow."""
    network = trained[0]
    both = figures_of(measured.values * np.float32(3), [1.0], [network], None)
    twice = dataclasses.replace(
        network,
        input_low=np.tile(network.input_low, 2),
        input_high=np.tile(network.input_high, 2),
        layout=_Twice(**dataclasses.asdict(network.layout)),
    )
    again = figures_of(measured.values * np.float32(3), [1.0], [twice], None)
    np.testing.assert_allclose(again, both, rtol=1e-6)
    assert both.min() >= 0
    assert both.max() > 0.01


class _Twice(InputLayout):
    """A layout that gives each input twice."""

    def inputs(self, *arguments):
        """(voxel, 2 · input)."""
        return np.tile(super().inputs(*arguments), (1, 2))


@pytest.mark.parametrize(("factor", "warned"), [(0.98, False), (1.02, True)])
def test_a_warning_beyond_the_limit(factor, warned):
    figures = np.zeros((2, 1, 4), np.float32)
    figures[0], figures[1] = 0.3, (factor * OUTSIDE_LIMIT) ** 2
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn("nnfbp", figures)
    assert bool(caught) == warned
    if warned:
        assert "30.0%, by 2.0% of that range" in str(caught[0].message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.isel(angle=slice(1, None)), r"needs the angles for which the network was trained, 8 angles \(-70"),
        (lambda s: s.assign_coords(angle=s.angle + 1), "nntomo train --for SERIES"),
        (
            lambda s: nt.resize(s, 24),
            "needs a series with 48 detector pixels, .*; got 24",
        ),
    ],
)
def test_another_series_is_refused(measured, trained, change, message):
    with pytest.raises(nt.SchemaError, match=message):
        nt.nnfbp(change(measured), trained[0])


@pytest.mark.parametrize("scale", [0, -1, np.nan, "automatic"])
def test_bad_scale(measured, trained, scale):
    with pytest.raises(nt.SchemaError, match="needs a scale above zero"):
        nt.nnfbp(measured, trained[0], scale=scale)


@pytest.mark.parametrize(
    ("binning", "filters", "output", "second"),
    [
        ("exponential", "shared", "sigmoid", 0),
        ("none", "shared", "sigmoid", 0),
        ("exponential", "apart", "linear", 3),
        ("exponential", "shared", "linear", 0),
    ],
)
def test_save_and_load(tmp_path, rng, binning, filters, output, second):
    layout = InputLayout((-60.0, 0.5, 60.0), 20, "keep", binning, 3, filters)
    network = random_network(rng, layout, output=output, second=second)
    network = dataclasses.replace(network, recipe={"operation": "test", "seed": 3})
    loaded = nt.load_network(nt.save_network(network, tmp_path / "net.safetensors"))
    assert loaded.layout == network.layout
    assert loaded.recipe == network.recipe
    assert loaded.digest == network.digest
    assert loaded.form == network.form
    second_layer = ("second_weights", "second_bias") if second else ()
    for name in ("hidden_weights", "hidden_bias", "output_weights", "input_low", "input_high", *second_layer):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(network, name))
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "needs a network.s file; got nothing at"),
        (b"not a network", "check the path; a network that is lost"),
        (b"", "check the path; a network that is lost"),
    ],
)
def test_what_is_no_network_is_refused(tmp_path, content, message):
    path = tmp_path / "net.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(nt.SchemaError, match=message):
        nt.load_network(path)


def test_damaged_and_foreign_networks_are_refused(tmp_path, rng):
    import safetensors.numpy

    path = nt.save_network(random_network(rng, InputLayout((0.0, 1.0), 20)), tmp_path / "net.safetensors")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(nt.SchemaError, match="got a damaged file"):
        nt.load_network(path)
    safetensors.numpy.save_file({"weights": np.zeros(3)}, path)
    with pytest.raises(nt.SchemaError, match="got a file of another program"):
        nt.load_network(path)
