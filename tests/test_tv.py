"""Total variation: the kernels against NumPy, the solver against others, blocks, and the weight."""

import itertools
import types

import dask
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from skimage.restoration import denoise_tv_chambolle

import nntomo_dask as nt
from nntomo_dask.arrays import slabs
from nntomo_dask.compute import device
from nntomo_dask.kernels import layout, project, total_variation as kernel
from nntomo_dask.projection.projector import Projector
from nntomo_dask.reconstruction import tv, tv_solver as solver, tv_weight

HYPOTHESIS = settings(deadline=None, max_examples=20, derandomize=True)
ANGLES = nt.tilt_angles("tem", 8)
FREE = {"weight": 1e15, "shrink": 1.0, "relaxation": 1.0, "lower": -np.inf, "upper": np.inf, "between": 1.0}


def lanes_of(images, width=None):
    width = width or layout.lane_width(len(images), 32)
    return layout.image_to_lanes(np.ascontiguousarray(images, np.float32), width).reshape(-1, width)


def images_of(lanes, shape):
    return layout.image_from_lanes(lanes.reshape(-1), shape)


def gradient(volume, between=1.0):
    """(3, z, y, x): differences to the next voxel, zero at the last."""
    found = np.zeros((3, *volume.shape))
    found[0, :-1] = between * np.diff(volume, axis=0)
    found[1, :, :-1] = np.diff(volume, axis=1)
    found[2, :, :, :-1] = np.diff(volume, axis=2)
    return found


def objective(volume, rows, angles_deg, weight, between=1.0):
    projected = project.forward_reference(volume.astype(np.float32), np.deg2rad(angles_deg))
    edges = np.sqrt((gradient(volume, between) ** 2).sum(axis=0)).sum()
    return 0.5 * ((projected.astype(float) - rows) ** 2).sum() + weight * edges


def particle(size, seed=0, noise=0.0):
    """A particle and its projections."""
    volume = nt.nanoparticle(size, seed=seed).compute()
    series = nt.project(volume, ANGLES).compute()
    error = noise * float(series.max()) * np.random.default_rng(seed).standard_normal(series.shape)
    return volume, series.copy(data=(series.values + error).astype(np.float32))


SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 6))


@HYPOTHESIS
@given(shape=SHAPES, between=st.sampled_from([0.0, 0.5, 1.0]), seed=st.integers(0, 99))
def test_the_divergence_is_the_adjoint_of_the_gradient(shape, between, seed):
    """⟨∇x, q⟩ = -⟨x, div q⟩: from zero q a step of length 1 leaves ∇x̄ in q, and one of length 0 puts div q into x."""
    count, size = shape
    rng = np.random.default_rng(seed)
    volume = rng.standard_normal((count, size, size)).astype(np.float32)
    lanes = lanes_of(volume)
    one, zero = np.ones(len(lanes), np.float32), np.zeros_like(lanes)
    state = kernel.State(zero.copy(), lanes.copy(), np.zeros((3, *lanes.shape), np.float32), zero)
    steps = kernel.Steps(**FREE | {"between": between}, sigma=1.0)
    kernel.step(state, zero, np.zeros_like(one), size, count, steps)
    found = np.stack([images_of(part, volume.shape) for part in state.dual])
    np.testing.assert_array_equal(found, gradient(volume, between).astype(np.float32))

    vectors = rng.standard_normal((3, *volume.shape)).astype(np.float32)
    vectors[0, -1] = vectors[1, :, -1] = vectors[2, :, :, -1] = 0
    state = kernel.State(zero.copy(), zero.copy(), np.stack([lanes_of(part) for part in vectors]), zero)
    kernel.step(state, zero, one, size, count, kernel.Steps(**FREE | {"between": between}, sigma=0.0))
    divergence = images_of(state.images, volume.shape).astype(float)
    # Sums of six float32 in single precision.
    assert (found * vectors).sum(dtype=float) == pytest.approx(-(volume * divergence).sum(), abs=1e-4)


@HYPOTHESIS
@given(weight=st.floats(0, 3), seed=st.integers(0, 99))
def test_vectors_are_shortened_to_the_nearest_of_that_length(weight, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((3, 4, 5, 5)).astype(np.float32)
    vectors[0, -1] = vectors[1, :, -1] = vectors[2, :, :, -1] = 0
    lanes = np.stack([lanes_of(part) for part in vectors])
    zero = np.zeros_like(lanes[0])
    state = kernel.State(zero.copy(), zero.copy(), lanes, zero)
    kernel.step(state, zero, zero[:, 0], 5, 4, kernel.Steps(**FREE | {"weight": weight}, sigma=0.5))
    found = np.stack([images_of(part, (4, 5, 5)) for part in state.dual])
    lengths = np.linalg.norm(vectors, axis=0)
    np.testing.assert_allclose(
        found, vectors * np.minimum(1, weight / np.maximum(lengths, 1e-12)), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(("count", "size"), [(1, 7), (5, 16), (20, 9), (32, 20)])
def test_the_steps_are_those_of_the_reference(spelling, rng, count, size):
    width = 32
    pixels, entries = (size + 2) ** 2, 100
    images, bar, *dual, back = (lanes_of(rng.random((count, size, size)), width) for _ in range(6))
    tau = rng.random(pixels, np.float32)
    dual = np.stack(dual)
    solver._close(dual, size, count)
    steps = kernel.Steps(weight=0.8, sigma=0.4, shrink=0.9, relaxation=1.5, lower=-0.1, upper=0.9, between=0.7)
    wanted = kernel.State(images.copy(), bar.copy(), dual.copy(), np.zeros((1, width)))
    moved = kernel.step_reference(wanted, back, tau, size, count, steps)
    state = kernel.State(*(spelling.put(one.copy()) for one in (images, bar, dual, images)))
    got = kernel.step(state, spelling.put(back), spelling.put(tau), size, count, steps)
    assert got == pytest.approx(moved, rel=1e-5)
    # Some ten operations in single precision on numbers of about 1.
    for name in ("images", "extrapolated", "dual"):
        np.testing.assert_allclose(device.to_host(getattr(state, name)), getattr(wanted, name), atol=3e-6)

    rows, projected, measured = rng.standard_normal((3, entries, width)).astype(np.float32)
    sigma, keep = rng.random((2, entries), np.float32)
    expected, found = rows.copy(), spelling.put(rows.copy())
    kernel.dual_reference(expected, projected, measured, sigma, keep, 1.5)
    kernel.dual(found, *(spelling.put(one) for one in (projected, measured, sigma, keep)), 1.5)
    np.testing.assert_allclose(device.to_host(found), expected, atol=3e-6)


def plain(rows, angles_deg, weight, iterations, ratio):
    """Chambolle and Pock's iteration with one step length for x and one for the dual variables, from zero."""
    size, radians = rows.shape[-1], np.deg2rad(angles_deg)
    x = np.zeros((len(rows), size, size), np.float32)
    bar, p, q = x, np.zeros_like(rows), np.zeros((3, *x.shape), np.float32)
    norm = np.sqrt(project.back_reference(project.forward_reference(x + 1, radians), radians).max() + 12)
    ours, theirs = np.float32(1 / norm / ratio), np.float32(ratio / norm)
    for _ in range(iterations):
        p = (p + theirs * (project.forward(bar, radians) - rows)) / (1 + theirs)
        q = (q + theirs * gradient(bar)).astype(np.float32)
        q *= weight / np.maximum(np.sqrt((q**2).sum(axis=0)), weight)
        divergence = sum(np.diff(q[axis], axis=axis, prepend=0) for axis in range(3))
        before, x = x, np.maximum(x - ours * (project.back(p, radians) - divergence), 0).astype(np.float32)
        bar = 2 * x - before
    return x


@pytest.mark.parametrize(("weight", "ratio"), [(0.3, 1), (3.0, 10)])
def test_the_objective_is_that_of_a_plain_solver(weight, ratio):
    """Both to convergence, for one block."""
    _, series = particle((5, 12, 12), noise=0.02)
    problem = solver.Problem(weight, 0, np.inf, 0, 1, 1e-7, 6000)
    found = solver.solve(series.values, Projector(ANGLES, 12), problem, np.ones(8))
    expected = plain(series.values, ANGLES, weight, 6000, ratio)
    wanted = objective(expected, series.values, ANGLES, weight)
    assert objective(found, series.values, ANGLES, weight) == pytest.approx(wanted, rel=1e-4)
    assert objective(0.9 * expected, series.values, ANGLES, weight) > 1.001 * wanted


class Identity:
    """A projector pair that leaves images as they are: a row of pixels is a projection."""

    def __init__(self, size):
        self.size, self.angles_deg, self.axis = size, np.zeros(size), types.SimpleNamespace(y=0, x=0)
        self.zeros = Projector(ANGLES, size).zeros

    def forward(self, images):
        width = images.shape[1]
        inside = images.reshape(self.size + 2, self.size + 2, width)[1:-1, 1:-1]
        return layout.sinogram_to_lanes(np.moveaxis(inside, -1, 0), width).reshape(-1, width)

    def back(self, rows):
        width = rows.shape[1]
        return layout.image_to_lanes(
            layout.sinogram_from_lanes(rows.reshape(-1), (width, self.size, self.size)), width
        ).reshape(-1, width)

    def frequency_steps(self, like):
        return np.ones((self.size, self.size // 2 + 1), np.float32)


def test_denoising_is_that_of_scikit_image(rng):
    """With the identity for a projector the problem is that of Rudin, Osher and Fatemi."""
    clean = np.zeros((12, 20, 20), np.float32)
    clean[3:9, 5:15, 5:15] = 1
    noisy = clean + 0.2 * rng.standard_normal(clean.shape).astype(np.float32)
    problem = solver.Problem(0.1, -np.inf, np.inf, 0, 1, 1e-7, 3000)
    found = solver.solve(noisy, Identity(20), problem, np.ones(20))
    # Of ½ ‖u - f‖² + λ TV(u) scikit-image calls λ the weight.
    expected = denoise_tv_chambolle(noisy, weight=0.1, eps=1e-9, max_num_iter=3000)
    assert np.abs(noisy - expected).max() > 0.3
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_it_finds_what_few_projections_leave_open():
    volume, series = particle(48, seed=4)
    errors = {
        name: float(((one - volume) ** 2).mean())
        for name, one in {"tv": nt.tv(series, weight=0.1), "sirt": nt.sirt(series, minimum=0, tolerance=1e-3)}.items()
    }
    assert errors["tv"] < 0.3 * errors["sirt"]


def test_chunks_and_schedulers_change_no_byte():
    _, series = particle((60, 20, 20), noise=0.02)
    wanted = nt.tv(series, weight=1, max_iterations=20)
    assert wanted.data.chunks[0] == (24, 24, 12)
    for chunks in (7, 32, 60):
        with dask.config.set(scheduler="threads", num_workers=3):
            got = nt.tv(series.chunk(z=chunks), weight=1, max_iterations=20).values
        np.testing.assert_array_equal(got, wanted.values)


def test_seams_are_invisible(monkeypatch):
    """Blocks with their halo, against the whole volume solved at once: they differ by far less than both err."""
    volume, series = particle((56, 32, 32), noise=0.02)
    blocks = nt.tv(series, weight=2, tolerance=1e-6, max_iterations=3000).values
    level = float(nt.intensity_level(series))
    problem = solver.Problem(2, 0, np.inf, 0, 1, 1e-6, 3000)
    padded = np.ascontiguousarray(series.values / np.float32(level))
    monkeypatch.setattr(project, "WIDEST", 64)  # lanes of a group, so that one has the whole volume
    whole = solver.solve(padded, Projector(ANGLES, 32), problem, np.ones(8)) * level
    error = ((whole - volume.values) ** 2).mean(axis=(1, 2))
    difference = ((blocks - whole) ** 2).mean(axis=(1, 2))
    for seam in (24, 48):
        assert difference[seam - 1 : seam + 1].mean() < 0.02 * error[seam - 1 : seam + 1].mean()


def test_in_two_dimensions_slices_are_independent():
    _, series = particle((30, 20, 20), noise=0.02)
    options = {"weight": 1, "dimensions": 2, "max_iterations": 2000, "tolerance": 1e-6}
    level = float(nt.intensity_level(series))
    found = nt.tv(series, **options).values
    problem = solver.Problem(1, 0, np.inf, 0, 0, 1e-6, 2000)
    for z in (0, 13, 27):
        alone = solver.solve(series.values[z : z + 1] / np.float32(level), Projector(ANGLES, 20), problem, np.ones(8))
        # Both have converged; how far the last iterations moved differs with the slices beside it.
        np.testing.assert_allclose(found[z], alone[0] * level, atol=1e-2)
    assert np.abs(found - nt.tv(series, **options | {"dimensions": 3}).values).max() > 0.05


def test_units_play_no_part():
    """Counts or line integrals, pixels or nanometres: the same weight, and a volume in other units."""
    _, series = particle(24, noise=0.02)
    wanted = nt.tv(series, weight=1).values
    counts = series.copy(data=series.values * np.float32(4096))
    np.testing.assert_allclose(nt.tv(counts, weight=1).values, 4096 * wanted, rtol=1e-3, atol=0.2)
    nanometres = nt.tilt_series(series.values, ANGLES, pixel_size=0.25, units="nm")
    np.testing.assert_allclose(nt.tv(nanometres, weight=1).values, wanted, atol=1e-5)


def test_bounds_hold():
    _, series = particle(24, noise=0.05)
    volume = nt.tv(series, weight=0.3, minimum=0.1, maximum=0.8).values
    assert volume.min() == np.float32(0.1)
    assert volume.max() == pytest.approx(0.8)


def test_huber_smooths_slopes(rng):
    """A ramp seen without noise: total variation makes steps, Huber's function a slope."""
    ramp = np.broadcast_to(np.linspace(0.2, 1, 32, dtype=np.float32), (4, 32, 32))
    noisy = ramp + 0.05 * rng.standard_normal(ramp.shape).astype(np.float32)
    steps, slope = (
        solver.solve(noisy, Identity(32), solver.Problem(0.3, 0, np.inf, huber, 1, 1e-6, 2000), np.ones(32))
        for huber in (0.0, 0.1)
    )
    second = [np.abs(np.diff(one[:, 8:-8, 4:-4], n=2, axis=2)).mean() for one in (steps, slope)]
    assert second[1] < 0.5 * second[0]
    assert ((slope - ramp) ** 2).mean() < ((steps - ramp) ** 2).mean()


def test_thick_slices_count_less():
    """Differences between slices ten pixels apart are nearly those of two dimensions."""
    _, series = particle((24, 20, 20), noise=0.03)
    spread = series.assign_coords(z=series.z * 100)
    options = {"weight": 3, "tolerance": 1e-5}
    flat = nt.tv(series, dimensions=2, **options).values
    thick, thin = nt.tv(spread, **options).values, nt.tv(series, **options).values
    assert np.abs(thick - flat).max() < 0.3 * np.abs(thin - flat).max()


def test_a_projection_of_no_weight_plays_no_part(rng):
    _, series = particle(24)
    spoiled = series.copy(data=series.values.copy())
    spoiled.values[:, 3] += 5 * rng.random(spoiled.values[:, 3].shape, np.float32)
    weights = np.ones(8)
    weights[3] = 0
    level = float(nt.intensity_level(series))
    options = {"tolerance": 1e-5, "max_iterations": 3000}
    method = tv.TotalVariation(projection_weights=tuple(zip(ANGLES.tolist(), weights, strict=True)), **options)
    halo = slabs.mirrored(24, method.halo)
    found = method.slab(spoiled.values[halo], ANGLES, 1.0, level, 1.0)
    wanted = tv.TotalVariation(**options).slab(
        np.delete(series.values[halo], 3, axis=1), np.delete(ANGLES, 3), 1.0, level, 1.0
    )
    # Other steps, the same limit.
    np.testing.assert_allclose(found, wanted, atol=0.02)
    assert nt.tv(series, weight=1, projection_weights=weights).attrs["recipe"]["parameters"]["projection_weights"]


def test_the_automatic_weight_grows_with_the_noise_and_ignores_units(monkeypatch):
    """With bins of two pixels and several runs, which larger series have."""
    monkeypatch.setattr(tv_weight, "_PIXELS", 20)
    shape = (64, 40, 40)
    chosen = []
    for noise in (0.0, 0.05):
        _, series = particle(shape, seed=2, noise=noise)
        chosen.append(float(tv.TotalVariation().prepare(series)[0]))
    assert chosen[1] > 3 * chosen[0] > 0
    counts = series.copy(data=series.values * np.float32(1000))
    assert float(tv.TotalVariation().prepare(counts)[0]) == pytest.approx(chosen[1], rel=0.02)
    assert float(tv.TotalVariation().prepare(series.chunk(z=5))[0]) == chosen[1]


def test_runs_lie_within_the_volume():
    for count in (1, 7, 24, 25, 100, 1024):
        for factor in (1, 3, 8):
            starts, length = tv_weight.runs_of(count, factor)
            assert starts[0] >= 0
            assert starts[-1] + length <= count
            assert all(later - start >= length for start, later in itertools.pairwise(starts))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1}, "needs a weight of at least 0"),
        ({"weight": "large"}, 'needs a weight, or "auto"'),
        ({"weight": np.nan}, "needs a weight of at least 0, or"),
        ({"minimum": 1, "maximum": 1}, "needs a minimum below the maximum; got 1 and 1"),
        ({"dimensions": 4}, "needs dimensions 2 or 3"),
        ({"huber": -0.1}, "huber"),
        ({"tolerance": 0}, "tolerance"),
        ({"projection_weights": [1, 2]}, "needs a weight for each of the 8 projections"),
        ({"projection_weights": [-1] * 8}, "weights of projections of at least 0"),
        ({"projection_weights": [0] * 8}, "not all of them 0"),
    ],
)
def test_refused(options, message):
    _, series = particle(16)
    with pytest.raises(nt.SchemaError, match=message):
        nt.tv(series, **options)


def test_too_few_projections_for_an_automatic_weight():
    series = nt.tilt_series(np.ones((2, 3, 16), np.float32), [-60, -30, 0])
    with pytest.raises(nt.SchemaError, match="left out"):
        nt.tv(series)
    assert nt.tv(series, weight=1).shape == (2, 16, 16)


def test_an_empty_series_stays_empty():
    series = nt.tilt_series(np.zeros((3, 8, 16), np.float32), ANGLES)
    assert not nt.tv(series, weight=1).values.any()
