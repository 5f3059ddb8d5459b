"""Volumes that are moved to what the projections say, against dense least squares in double precision."""

import dataclasses
import re
import tracemalloc

import dask
import numpy as np
import pytest
from scipy.optimize import lsq_linear

import nntomo_dask as nt
from nntomo_dask.assessment import predictions
from nntomo_dask.assessment.candidates import Candidate
from nntomo_dask.compute import device, reporting
from nntomo_dask.kernels.mixed_scale import parameter_count
from nntomo_dask.networks.msdnet import Inputs
from nntomo_dask.networks.nnfbp import InputLayout
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import consistency as consistency_room
from nntomo_dask.reconstruction.consistency import finished
from nntomo_dask.reconstruction.held_out import Fold
from nntomo_dask.reconstruction.method import mean_and_spread, prepared_for
from nntomo_dask.reconstruction.msdnet import input_method
from tests.test_nnfbp import random_network

SIZE = 12
ANGLES_DEG = np.array([-60.0, -20.0, 10.0, 45.0, 80.0])
NOISE = (0.0, 0.3, 0.0)  # gain, read-out noise, background


@pytest.fixture(scope="module", params=[None, (4.2, 6.1)], ids=["middle", "aside"])
def pair(request):
    return nt.projector(ANGLES_DEG, SIZE, axis=request.param)


@pytest.fixture
def volume(rng):
    """What somebody proposes: nine slices, whose voxels should lie between 0 and 1."""
    return rng.normal(0.4, 0.5, (9, SIZE, SIZE)).astype(np.float32)


@pytest.fixture
def rows(rng, pair):
    truth = rng.random((9, SIZE, SIZE), np.float32)
    return pair.forward(truth) + rng.normal(0, 0.3, (9, ANGLES_DEG.size, SIZE)).astype(np.float32)


def matrix(pair):
    """A as (ray, pixel), in double precision."""
    units = np.eye(SIZE**2, dtype=np.float32).reshape(-1, SIZE, SIZE)
    return pair.forward(units).reshape(len(units), -1).T.astype(np.float64)


def dense(volume, rows, pair, weight, bounds=(-np.inf, np.inf)):
    """The minimum of one slice by the normal equations, or by an active-set method where there are bounds."""
    stacked = np.vstack([matrix(pair), np.sqrt(weight) * np.eye(SIZE**2)])
    target = np.concatenate([rows.ravel(), np.sqrt(weight) * volume.ravel()]).astype(np.float64)
    if np.isinf(bounds).all():
        solution = np.linalg.solve(stacked.T @ stacked, stacked.T @ target)
    else:
        solution = lsq_linear(stacked, target, bounds, method="bvls").x
    return solution.reshape(SIZE, SIZE)


@pytest.mark.parametrize("bounds", [(None, None), (0.0, None), (None, 0.5), (0.1, 0.9)])
@pytest.mark.parametrize("weight", [0.5, 20.0])
def test_against_dense_least_squares(volume, rows, pair, weight, bounds):
    """Converged; single precision leaves 1e-5 of the line integrals, over a weight of 0.5 of what a voxel gets."""
    found = finished(
        volume, rows, pair, weight=weight, minimum=bounds[0], maximum=bounds[1], noise=NOISE, iterations=800
    )
    lower, upper = (-np.inf if bounds[0] is None else bounds[0]), (np.inf if bounds[1] is None else bounds[1])
    for z in (0, 8):
        expected = dense(volume[z], rows[z], pair, weight, (lower, upper))
        np.testing.assert_allclose(found[z], expected, atol=2e-4)


def test_few_iterations_are_near(volume, rows, pair):
    """By default, with the weight of a network that is wrong by 0.1 with noise of 0.3."""
    found = finished(volume, rows, pair, weight=9.0)
    expected = dense(volume[3], rows[3], pair, 9.0, (0, np.inf))
    start = np.maximum(volume[3], 0)
    assert np.linalg.norm(found[3] - expected) < 0.02 * np.linalg.norm(start - expected)


def test_the_limits(volume, rows, pair):
    """A large weight leaves the volume; a weight of 0 fits the projections and moves the volume as little as can be."""
    np.testing.assert_allclose(finished(volume, rows, pair, weight=1e9), np.maximum(volume, 0), atol=1e-6)
    found = finished(volume, rows, pair, weight=0.0, minimum=None, iterations=3000)
    nearest = volume[2].ravel() + np.linalg.pinv(matrix(pair)) @ (rows[2].ravel() - matrix(pair) @ volume[2].ravel())
    # Differences that no volume explains make q grow without a limit, and single precision lose digits of it.
    np.testing.assert_allclose(found[2].ravel(), nearest, atol=2e-2)


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_bounds_are_kept_after_any_number_of_iterations(volume, rows, pair, iterations):
    found = finished(volume, rows, pair, weight=1.0, minimum=0.2, maximum=0.6, iterations=iterations)
    assert found.min() == np.float32(0.2)
    assert found.max() == np.float32(0.6)


def test_the_automatic_weight_is_the_ratio_of_the_variances(rng):
    """White errors of voxels: four fifths of what the right weight gains.

    576 rays of 4,096 voxels, with as much noise as error: a fourteenth of the squares can be known.
    """
    size, angles = 64, nt.tilt_angles("tem", 9)
    pair = Projector(angles, size)
    truth = rng.random((16, size, size), np.float32)
    volume = truth + rng.normal(0, 0.2, truth.shape).astype(np.float32)
    rows = pair.forward(truth) + rng.normal(0, 2.0, (16, angles.size, size)).astype(np.float32)

    def error(**weight):
        found = finished(volume, rows, pair, minimum=None, **weight)
        return float(((found - truth) ** 2).mean())

    before, right = float(((volume - truth) ** 2).mean()), error(weight=(2.0 / 0.2) ** 2)
    assert right < 0.97 * before
    assert error(weight="auto", noise=(0, 2.0, 0)) < right + 0.2 * (before - right)
    assert right < error(weight=1.0)
    assert right < error(weight=1e4)


def test_a_right_volume_is_left_alone(rng):
    """Of noise alone, less than a thousandth of the squares that a fit lets in.

    Without the two deviations that an excess has to have it is 0.4 %.
    """
    size, angles = 64, nt.tilt_angles("tem", 9)
    pair = Projector(angles, size)
    truth = rng.random((16, size, size), np.float32)
    rows = pair.forward(truth) + rng.normal(0, 2.0, (16, angles.size, size)).astype(np.float32)
    moved, fitted = (
        float(((finished(truth, rows, pair, minimum=None, **arguments) - truth) ** 2).mean())
        for arguments in ({"noise": (0, 2.0, 0)}, {"weight": 1.0})
    )
    assert moved < 0.001 * fitted


def test_a_gain_and_a_background_are_noise_too(rng):
    """Of a ray of 30 above the background: the variance of Poisson's noise, like that of the read-out."""
    size, angles = 32, nt.tilt_angles("tem", 9)
    pair = Projector(angles, size)
    volume = rng.random((3, size, size), np.float32)
    rows = np.full((3, angles.size, size), 50, np.float32)
    found = finished(volume, rows, pair, noise=(0.1, 2.0, 20.0))
    np.testing.assert_allclose(found, finished(volume, rows, pair, noise=(0, np.sqrt(4 + 0.1 * 30), 0)), rtol=1e-5)


def test_what_was_not_measured_has_no_noise(rng):
    """Half of the detector is padding, so that the mean variance is half as large."""
    size, angles = 32, nt.tilt_angles("tem", 9)
    pair = Projector(angles, size)
    volume, rows = rng.random((3, size, size), np.float32), 20 * rng.random((3, angles.size, size), np.float32)
    middle = rows[:, :, 8:-8].mean(axis=(1, 2))  # of which Poisson's noise depends
    for z in range(3):
        half = finished(volume[[z]], rows[[z]], pair, noise=(0, np.sqrt((1 + 0.1 * middle[z]) / 2), 0))
        padded = finished(volume[[z]], rows[[z]], pair, noise=(0.1, 1.0, 0), pad=8)
        np.testing.assert_allclose(padded, half, atol=1e-5)


def test_nothing_from_nothing(pair):
    """Empty slices, without noise, divide nothing by zero."""
    empty = np.zeros((2, SIZE, SIZE), np.float32), np.zeros((2, ANGLES_DEG.size, SIZE), np.float32)
    for arguments in ({}, {"noise": NOISE}, {"weight": 0.0}):
        np.testing.assert_array_equal(finished(*empty, pair, **arguments), 0)


@pytest.mark.parametrize("weight", ["auto", 5.0])
def test_a_slice_does_not_depend_on_the_others(rng, weight):
    """Bit for bit, in lane groups of any width and at any place in them."""
    size = 24
    pair = Projector(ANGLES_DEG, size)
    volume, rows = rng.random((70, size, size), np.float32), 9 * rng.random((70, ANGLES_DEG.size, size), np.float32)
    whole = finished(volume, rows, pair, weight=weight, noise=NOISE)
    for part in (slice(0, 1), slice(3, 12), slice(20, 40), slice(31, 70)):
        alone = finished(volume[part], rows[part], pair, weight=weight, noise=NOISE)
        np.testing.assert_array_equal(alone, whole[part])


@pytest.mark.parametrize("weight", ["auto", 5.0])
def test_a_gpu_gives_what_the_cpu_gives(cuda_on_cpu, rng, weight):
    """From host memory in groups of 32 slices, and from blocks on the GPU, which stay there."""
    size = 24
    pair = Projector(ANGLES_DEG, size)
    volume, rows = rng.random((70, size, size), np.float32), 9 * rng.random((70, ANGLES_DEG.size, size), np.float32)
    expected = finished(volume, rows, pair, weight=weight, noise=NOISE)
    need = 32 * consistency_room.device_bytes_per_slice((32, ANGLES_DEG.size, size)) / 0.9
    with dask.config.set({"nntomo_dask.device": "gpu", "nntomo_dask.gpu_memory": int(need) + 2**20 + 1024}):
        streamed = finished(volume, rows, pair, weight=weight, noise=NOISE)
    np.testing.assert_allclose(streamed, expected, atol=1e-5)
    there = finished(volume[:9], cuda_on_cpu.asarray(rows[:9]), pair, weight=weight, noise=NOISE)
    assert device.is_on_gpu(there)
    np.testing.assert_array_equal(device.to_host(there), streamed[:9])


@pytest.mark.parametrize("count", [9, 60])
def test_the_bytes_of_a_slice_are_enough_for_the_arrays(cuda_on_cpu, rng, count):
    """All that lives at once while 32 slices are computed, by the stand-in's arrays; and no more than needed."""
    size = 64
    pair = Projector(nt.tilt_angles("tem", count), size)
    volume, rows = (cuda_on_cpu.asarray(rng.random((32, n, size), np.float32)) for n in (size, count))
    finished(volume, rows, pair, noise=NOISE)  # compiles, and keeps what is kept
    tracemalloc.start()
    finished(volume, rows, pair, noise=NOISE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    predicted = 32 * consistency_room.device_bytes_per_slice((32, count, size))
    print(peak / predicted)
    assert 0.4 * predicted < peak < predicted


@pytest.mark.parametrize(("count", "size"), [(9, 128), (60, 64)])
def test_the_bytes_in_host_memory(rng, count, size):
    """Beside the arguments."""
    pair = Projector(nt.tilt_angles("tem", count), size)
    volume, rows = (rng.random((40, n, size), np.float32) for n in (size, count))
    finished(volume[:1], rows[:1], pair, noise=NOISE)  # keeps what is kept
    tracemalloc.start()
    finished(volume, rows, pair, noise=NOISE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    predicted = consistency_room.host_bytes((40, count, size))
    print(peak / predicted)
    assert 0.5 * predicted < peak < predicted


def test_the_squares_are_told(volume, rows, pair):
    with reporting.listening() as told, reporting.slab("test") as figures:
        found = finished(volume, rows, pair, weight=9.0)
        figures.slices = len(found)
    (one,) = told
    before = rows - pair.forward(np.maximum(volume, 0))
    wanted = [float((values.astype(np.float64) ** 2).sum()) for values in (rows, before, rows - pair.forward(found))]
    measured = [one.measured_squares, one.before_squares, one.after_squares]
    np.testing.assert_allclose(measured, wanted, rtol=1e-4)


# Methods with networks, whose parameters nothing has trained: their volumes contradict the projections.

EDGE, ANGLES = 32, nt.tilt_angles("tem", 8)


@pytest.fixture(scope="module")
def noisy():
    """A particle, and projections with noise in the units of counts."""
    particle = nt.nanoparticle(EDGE, seed=1).compute()
    series = nt.project(particle, ANGLES).compute()
    return nt.add_noise(nt.tilt_series(50 * series.values, ANGLES), noise=0.02).compute()


@pytest.fixture(scope="module")
def networks():
    """Two of each kind."""
    rng = np.random.default_rng(3)
    layout, inputs = InputLayout(tuple(ANGLES), EDGE), Inputs(tuple(ANGLES), method="fbp", neighbours=1)
    count = parameter_count(inputs.channels, 3)
    deep = [
        nt.MSDNetwork(inputs, 3, rng.normal(0, 0.3, count).astype(np.float32), 0.1, 0.4, 0.1, 0.4, level=1.0)
        for _ in range(2)
    ]
    return {"nnfbp": [random_network(rng, layout) for _ in range(2)], "msdnet": deep}


methods = pytest.mark.parametrize("name", ["nnfbp", "msdnet"])
# Networks that nothing has trained have no range that the inputs could keep to.
untrained = pytest.mark.filterwarnings("ignore:nnfbp")


def misfit(volume, series):
    return float(np.linalg.norm(nt.project(volume, series.angle.values).values - series.values))


@untrained
@methods
@pytest.mark.parametrize("consistency", ["auto", 10.0])
def test_chunks_and_workers_change_nothing(noisy, networks, name, consistency):
    whole = nt.reconstruct(noisy.chunk(z=-1), networks[name][0], consistency=consistency).compute()
    with dask.config.set(scheduler="threads", num_workers=2):
        for slices in (1, 5):
            other = nt.reconstruct(noisy.chunk(z=slices), networks[name][0], consistency=consistency)
            np.testing.assert_array_equal(other.values, whole.values)
    turned = nt.reconstruct(noisy.isel(angle=slice(None, None, -1)), networks[name][0], consistency=consistency)
    # The noise and the level of the series are those of another order of summation.
    np.testing.assert_allclose(turned.values, whole.values, atol=1e-5 * float(whole.max()))


@untrained
@methods
@pytest.mark.parametrize("shift", [0.0, 3.4])
def test_it_is_the_plain_function_on_the_networks_volume(noisy, networks, name, shift):
    """With the tilt axis in the middle and beside it."""
    series = noisy.assign_coords(detector=noisy.detector - shift)
    alone = nt.reconstruct(series, networks[name][0], consistency="none")
    place = (EDGE - 1) / 2 + shift
    pair = nt.projector(ANGLES, EDGE, axis=(place, place))
    expected = finished(alone.values, series.values, pair, weight=20.0)
    found = nt.reconstruct(series, networks[name][0], consistency=20.0)
    np.testing.assert_allclose(found.values, expected, atol=1e-6 * expected.max())
    assert misfit(found, series) < 0.5 * misfit(alone, series)


@untrained
@methods
def test_the_automatic_weight_reaches_the_noise_and_no_farther(noisy, networks, name):
    volume = nt.reconstruct(noisy, networks[name][0], consistency="auto")
    expected = float(np.sqrt(nt.noise(noisy).variance(noisy.values).sum()))
    alone = nt.reconstruct(noisy, networks[name][0], consistency="none")
    assert misfit(alone, noisy) > 5 * expected
    assert 0.3 * expected < misfit(volume, noisy) < 2 * expected


@untrained
@methods
def test_of_an_ensemble_the_mean_is_finished_and_the_spread_is_as_it_was(noisy, networks, name):
    members = networks[name]
    mean, spread = mean_and_spread(noisy, nt.METHODS[name](networks=tuple(members), consistency=20.0))
    single = [nt.reconstruct(noisy, member, consistency="none").values for member in members]
    expected = finished(np.mean(single, axis=0), noisy.values, nt.projector(ANGLES, EDGE), weight=20.0)
    np.testing.assert_allclose(mean.values, expected, atol=1e-5 * expected.max())
    np.testing.assert_allclose(spread.values, np.std(single, axis=0), atol=1e-5 * expected.max())
    alone = nt.reconstruct(noisy, members, consistency=20.0)
    np.testing.assert_array_equal(alone.values, mean.values)
    assert alone.attrs["recipe"] == mean.attrs["recipe"]
    for consistency in (20.0, "none"):
        again = nt.reconstruct(noisy, members, statistic="spread", consistency=consistency)
        assert again.attrs["recipe"] == spread.attrs["recipe"]


@untrained
@methods
def test_padding(noisy, networks, name):
    """Projections are extended before, and cropped after; what was added has no noise and tells none."""
    narrow = noisy.isel(detector=slice(4, -4))
    if name == "nnfbp":
        member = random_network(np.random.default_rng(3), InputLayout(tuple(ANGLES), EDGE - 8))
    else:
        member = networks[name][0]
    method = nt.METHODS[name](networks=(member,), consistency="auto")
    plain, wide = (prepared_for(narrow, method, pad=pad) for pad in (0, 16))
    np.testing.assert_allclose([float(one) for one in wide[2:]], [float(one) for one in plain[2:]], rtol=0.3)
    volume = nt.reconstruct(narrow, method, pad=8)
    assert volume.attrs["recipe"]["parameters"]["pad"] == 8
    alone = nt.reconstruct(narrow, member, consistency="none", pad=8)
    assert misfit(volume, narrow) < 0.5 * misfit(alone, narrow)


@methods
def test_recipes(noisy, networks, name):
    """Without it they are those of versions that had none."""
    member = networks[name][0]
    parameters = {
        consistency: nt.reconstruct(noisy, member, consistency=consistency).attrs["recipe"]["parameters"]
        for consistency in ("auto", 3.0, "none")
    }
    assert parameters["auto"] == parameters["none"] | {"consistency": "auto"}
    assert parameters[3.0] == parameters["none"] | {"consistency": 3.0}
    default = nt.reconstruct(noisy, member).attrs["recipe"]["parameters"]
    assert default == parameters["none"] | {"consistency": {"msdnet": "auto", "nnfbp": "noiseless"}[name]}


@pytest.mark.parametrize(("name", "filters"), [("nnfbp", "shared"), ("nnfbp", "apart"), ("msdnet", "shared")])
def test_at_some_of_the_angles(noisy, networks, name, filters):
    """As an assessment asks for it: the projections that are left out play no part."""
    kept = np.delete(np.arange(8), [2, 5])
    network = networks[name][0]
    if filters == "apart":
        network = random_network(np.random.default_rng(4), InputLayout(tuple(ANGLES), EDGE, filters="apart"))
    method = nt.METHODS[name](networks=(network,), consistency=20.0, scale=50.0).for_angles(ANGLES[kept])
    few = noisy.isel(angle=kept)
    alone = nt.reconstruct(few, dataclasses.replace(method, consistency="none"))
    expected = finished(alone.values, few.values, nt.projector(ANGLES[kept], EDGE), weight=20.0)
    np.testing.assert_allclose(nt.reconstruct(few, method).values, expected, atol=1e-6 * expected.max())


def test_predictions_of_an_assessment_depend_on_it(noisy, networks, tmp_path):
    fold, run = Fold(np.array([7]), np.arange(7)), predictions.Run(0, 4, 0, noisy.data[:4])
    recipe = noisy.attrs["recipe"]
    places = {
        predictions.place(tmp_path, Candidate(nt.METHODS["msdnet"](**settings), "x"), recipe, ANGLES, fold, run)
        for settings in (
            {"networks": tuple(networks["msdnet"][:1])},
            {"networks": tuple(networks["msdnet"][:1]), "consistency": "none"},
            {"networks": tuple(networks["msdnet"][:1]), "consistency": 2.0},
        )
    }
    assert len(places) == 3


@methods
@pytest.mark.parametrize("consistency", ["on", -1.0, np.inf, np.nan, None, True])
def test_other_values_are_refused(noisy, networks, name, consistency, nothing_computes):
    words = '"auto" or "none"' if name == "msdnet" else '"auto" or "none" or "noiseless"'
    with pytest.raises(nt.SchemaError, match=f"{name}: needs consistency {words}, or a number of at least 0"):
        nt.reconstruct(noisy, networks[name][0], consistency=consistency)


@untrained
@methods
def test_nothing_is_computed_before(noisy, networks, name, nothing_computes):
    nt.reconstruct(noisy, networks[name][0], consistency="auto")


@untrained
def test_a_report_tells_the_difference(noisy, networks):
    with nt.report() as lines:
        alone = nt.reconstruct(noisy, networks["nnfbp"][0], consistency="none").compute()
        volume = nt.reconstruct(noisy.chunk(z=7), networks["nnfbp"][0], consistency=5.0).compute()
    (line,) = lines
    before, after = map(float, re.search(r"difference from ([\d.]+) % to ([\d.]+) %", line).groups())
    size = float(np.linalg.norm(noisy.values))
    assert before == pytest.approx(100 * misfit(alone.clip(0), noisy) / size, rel=0.01)
    assert after == pytest.approx(100 * misfit(volume, noisy) / size, rel=0.01)


@untrained
def test_the_command(run, noisy, networks):
    nt.save(noisy, "series.zarr")
    nt.save_network(networks["msdnet"][0], "net.safetensors")
    words = ("reconstruct", "series.zarr", "--method", "msdnet", "--network", "net.safetensors")
    said = run(*words, "-o", "a.zarr").output
    assert re.search(r"msdnet: 32 slices in .*; consistency moved its projections' difference from .* % to .* %", said)
    assert "consistency" not in run(*words, "--consistency", "none", "-o", "b.zarr").output
    for consistency, store in (("auto", "a.zarr"), ("none", "b.zarr")):
        expected = nt.msdnet(nt.open("series.zarr"), nt.load_network("net.safetensors"), consistency=consistency)
        np.testing.assert_array_equal(nt.open(store).values, expected.values)
        assert nt.open(store).attrs["recipe"]["parameters"].get("consistency", "none") == consistency
    run(*words, "--consistency", 7, "-o", "c.zarr")
    refused = run(*words, "--consistency", -1, "-o", "d.zarr", exit_code=2).output
    assert "try: --consistency auto" in refused


@pytest.fixture(scope="module")
def clean():
    """Projections of a particle as large as a network's training asks for, without noise."""
    return nt.project(nt.nanoparticle((32, 48, 48), seed=2).compute(), ANGLES).compute()


@pytest.fixture(scope="module")
def coarse(clean):
    """A network that nothing has trained, with values of both signs and a scale."""
    return random_network(np.random.default_rng(3), InputLayout(tuple(ANGLES), 48))


@untrained
@pytest.mark.parametrize("shift", [0.0, 3.4])
def test_without_noise_a_coarse_volume_is_the_beginning_of_a_fit(clean, coarse, shift):
    """Half of it, with no weight: the plain function; chunks and order change nothing."""
    series = clean.assign_coords(detector=clean.detector - shift)
    place = (48 - 1) / 2 + shift
    alone = nt.nnfbp(series, coarse, scale=1, consistency="none").values
    pair = nt.projector(ANGLES, 48, axis=(place, place))
    expected = finished(np.float32(0.5) * alone, series.values, pair, weight=0.0, iterations=40)
    found = nt.nnfbp(series, coarse, scale=1)
    np.testing.assert_allclose(found.values, expected, atol=1e-5 * expected.max())
    np.testing.assert_array_equal(nt.nnfbp(series.chunk(z=5), coarse, scale=1).values, found.values)
    size = float(np.linalg.norm(series.values))
    if shift == 0:  # else the particle was not projected about that axis, and bounds keep a fit from it
        assert misfit(found, series) < 0.02 * size
        assert misfit(found.copy(data=alone), series) > 0.2 * size


@untrained
@pytest.mark.parametrize(
    "change",
    [
        lambda clean: nt.add_noise(clean, noise=0.01),
        lambda clean: nt.add_noise(clean, dose=2000),
        lambda clean: clean + np.float32(0.02 * float(clean.max())),  # a background
        lambda clean: clean.isel(z=[16], detector=slice(20, 26)),  # too small to tell
        lambda clean: clean * np.float32(0),
    ],
    ids=["noise", "counts", "background", "few", "empty"],
)
def test_with_noise_or_doubt_it_stays_as_it_is(clean, rng, change):
    series = change(clean).compute()
    network = random_network(rng, InputLayout(tuple(ANGLES), series.sizes["detector"]))
    alone, default = (nt.nnfbp(series, network, scale=1, consistency=one).values for one in ("none", "noiseless"))
    np.testing.assert_array_equal(default, alone)


@untrained
def test_of_an_ensemble_without_noise_the_mean_is_fitted(clean, coarse):
    other = random_network(np.random.default_rng(4), coarse.layout)
    method = nt.METHODS["nnfbp"](networks=(coarse, other), scale=1)
    mean, spread = mean_and_spread(clean, method)
    np.testing.assert_array_equal(mean.values, nt.nnfbp(clean, [coarse, other], scale=1).values)
    plain = nt.nnfbp(clean, [coarse, other], scale=1, statistic="spread", consistency="none")
    np.testing.assert_array_equal(spread.values, plain.values)


def test_as_the_input_of_a_network_it_stays_as_it_is(coarse):
    """Networks learned what NN-FBP alone says."""
    assert nt.METHODS["nnfbp"].as_input(networks=(coarse,)).consistency == "none"
    for settings in (None, {"scale": 1.0}, {"scale": 1.0, "consistency": "noiseless"}):
        inputs = Inputs(tuple(ANGLES), method="nnfbp", network=coarse, settings=settings)
        assert input_method(inputs).consistency == "none"
    method = nt.METHODS["nnfbp"](networks=(coarse,), scale=1, warns=False)
    rows = np.random.default_rng(0).random((2, 8, 48), np.float32)
    alone = dataclasses.replace(method, consistency="none")
    np.testing.assert_array_equal(
        method.slab(rows, ANGLES, *method.prepare_at(1.0)), alone.slab(rows, ANGLES, *alone.prepare_at(1.0))
    )


def test_a_trained_network_without_noise_gains(clean, trained):
    """Measured: from 0.0026 to 0.0009; total variation and networks for noise are another matter."""
    particle = nt.nanoparticle((32, 48, 48), seed=2).values
    errors = [
        float(((nt.nnfbp(clean, trained[0], consistency=one).values - particle) ** 2).mean())
        for one in ("none", "noiseless")
    ]
    assert errors[1] < 0.7 * errors[0]


@untrained
def test_a_report_of_a_fit_without_noise_begins_with_the_whole_volume(clean, coarse):
    with nt.report() as lines:
        nt.nnfbp(clean, coarse, scale=1).compute()
    alone = nt.nnfbp(clean, coarse, scale=1, consistency="none").compute()
    (before,) = re.findall(r"difference from ([\d.]+) % to", lines[0])
    wanted = 100 * misfit(alone.clip(0), clean) / float(np.linalg.norm(clean.values))
    assert float(before) == pytest.approx(wanted, rel=0.01)


def test_series_that_are_negative_have_no_bound(noisy, networks):
    """Where line integrals are negative by more than noise, voxels may be too."""
    negative = nt.tilt_series(-noisy.values, ANGLES)
    volume = nt.reconstruct(negative, networks["msdnet"][0], scale=50.0)
    assert float(volume.min()) < 0
    assert float(nt.reconstruct(noisy, networks["msdnet"][0], scale=50.0).min()) == 0
