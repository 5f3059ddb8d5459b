"""Discrete tomography: the sampler against its energy, levels and noise that are found, blocks, refusals."""

import dask
import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.kernels import discrete, layout, project as kernel
from nntomo_dask.reconstruction.dart import BLOCK, HALO, Dart
from tests.predictions import host_bytes

ANGLES = np.linspace(-70, 70, 8)
NOISE = 0.02  # of the brightest ray
GREYS = {"particle": (0.0, 1.0), "coreshell": (0.0, 0.45, 1.0)}


def noisy(volume, seed=0):
    """Projections with noise, and its standard deviation."""
    series = nt.project(volume, ANGLES).compute()
    deviation = NOISE * float(series.max())
    noise = np.random.default_rng(seed).normal(0, deviation, series.shape)
    return series.copy(data=(series.values + noise).astype(np.float32)), deviation


def partial(kind, size, seed):
    """A phantom whose voxels at boundaries have the mean of what lies in them."""
    fine = nt.phantom(kind, 2 * size, seed=seed).values
    return nt.volume(fine.reshape(size, 2, size, 2, size, 2).mean(axis=(1, 3, 5)))


@pytest.fixture(scope="module")
def cases():
    """For each kind a specimen of 48³ voxels, its noisy series and the noise."""
    made = {}
    for kind in GREYS:
        volume = partial(kind, 48, seed=1)
        made[kind] = (volume, *noisy(volume))
    return made


def error(volume, truth):
    return float(((volume.values - truth.values) ** 2).mean())


# ── The sampler ──


def small(levels, seed, axis):
    """Labels of 5 × 5 pixels and 4 slices with a noisy series, in the kernel's layout, and the matrix of a slice."""
    rng = np.random.default_rng(seed)
    n, n_z, angles = 5, 4, np.deg2rad([-60.0, -10.0, 30.0, 80.0, 90.0])
    labels = rng.integers(0, len(levels), (n, n, n_z)).astype(np.uint8)
    labels[:3] = labels[0, 0, 0]  # some voxels have only their like beside them
    truth = rng.choice(levels, (n, n, n_z))
    pixels = np.eye(n * n, dtype=np.float32).reshape(-1, n, n)
    matrix = kernel.forward_reference(pixels, angles, axis).reshape(n * n, -1).T.astype(np.float64)
    measured = matrix @ truth.reshape(-1, n_z) + rng.normal(0, 0.5, (len(matrix), n_z))
    residual = np.zeros((angles.size, n + layout.DETECTOR_PAD, 8), np.float32)
    inside = residual[:, layout.DETECTOR_FRONT : layout.DETECTOR_FRONT + n, :n_z]
    inside[...] = (measured - matrix @ levels[labels].reshape(-1, n_z)).reshape(inside.shape)
    return labels, residual, measured, matrix, angles


@pytest.mark.parametrize("axis", [Axis(2.0, 2.0), Axis(1.25, 3.5), Axis(9.0, -2.0)])
@pytest.mark.parametrize("levels", [(0.0, 1.0), (-0.5, 0.25, 2.0)])
def test_a_sweep_draws_from_the_distribution_of_its_energy(levels, axis):
    """Against the energy of whole volumes, with the random numbers of the kernel; three sweeps, each from the last."""
    levels = np.array(levels)
    labels, residual, measured, matrix, angles = small(levels, 3, axis)
    weights = discrete.neighbour_weights(0.3, thickness=1.5)
    costs = np.abs(levels[:, None] - levels) + np.diag(0.2 * (levels > 0))
    _, n_x, n_z = labels.shape
    totals = np.zeros(labels.shape, np.float32)
    place, gathered, changed = np.arange(labels.size), 0.0, 0
    for number in range(3):
        draws = np.array([discrete._uniform(one, number) for one in place]).reshape(labels.shape)
        before = labels.copy()
        wanted, probable = discrete.sweep_reference(
            labels, measured, matrix,
            levels=levels, precision=2.0, weights=weights, costs=costs, draws=draws,
            visited=np.zeros(labels.shape, bool),
        )  # fmt: skip
        discrete.sweep(
            labels, residual, totals,
            levels=levels, precision=2.0, weights=weights, costs=costs, angles_rad=angles, axis=axis, free=0.0,
            number=number, counted=number,
        )  # fmt: skip
        np.testing.assert_array_equal(labels, wanted)
        gathered = gathered + probable
        changed += int((labels != before).sum())
    assert changed > 10
    expected = measured - matrix @ levels[labels].reshape(-1, n_z)
    inside = residual[:, layout.DETECTOR_FRONT : layout.DETECTOR_FRONT + n_x, :n_z].reshape(expected.shape)
    # Tens of changes of float32 values of up to 10, each rounded to 1e-6 at most.
    np.testing.assert_allclose(inside, expected, atol=1e-4)
    mean = np.tensordot(levels, gathered, 1) / 3
    # Energies of float32 residuals are right to 1e-4, and so are their exponentials, relatively; levels are up to 2.
    np.testing.assert_allclose(discrete.means(labels, totals, levels, 3), mean, atol=5e-4)


def test_voxels_within_bodies_are_drawn_where_some_are_free():
    """A uniform volume that does not fit its projections changes only where voxels within bodies are drawn."""
    levels = np.array([0.0, 1.0])
    counts = []
    for free in (0.0, 0.01):
        labels, residual = np.zeros((16, 16, 8), np.uint8), np.full((4, 16 + layout.DETECTOR_PAD, 8), 50, np.float32)
        discrete.sweep(
            labels, residual, np.empty((0, 0, 0), np.float32),
            levels=levels, precision=1.0, weights=discrete.neighbour_weights(0.1), costs=1 - np.eye(2),
            angles_rad=np.deg2rad([0.0, 40.0, 80.0, 120.0]), axis=Axis.centred(16), free=free, number=0, counted=-1,
        )  # fmt: skip
        counts.append(int(labels.sum()))
    assert counts[0] == 0 < counts[1]


def test_random_numbers_are_uniform():
    """Moments of 20,000 numbers over places and sweeps; three standard errors of the mean, 0.29 / √20000."""
    drawn = np.array([[discrete._uniform(place, number) for place in range(2000)] for number in range(10)])
    assert 0 <= drawn.min() < drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 3 * 0.29 / np.sqrt(drawn.size)
    assert abs(np.corrcoef(drawn[:, :-1].ravel(), drawn[:, 1:].ravel())[0, 1]) < 3 / np.sqrt(drawn.size)
    assert abs(np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]) < 3 / np.sqrt(drawn.size)


# ── Volumes ──


@pytest.mark.parametrize("kind", GREYS)
def test_better_than_total_variation(cases, kind):
    """At most 0.8 of the error of total variation with the best of three weights; measured 0.5 to 0.7."""
    truth, series, _ = cases[kind]
    rival = min(error(nt.tv(series, weight=weight), truth) for weight in (1.5, 3, 5))
    for levels in ("auto", GREYS[kind]):
        assert error(nt.dart(series, levels=levels), truth) < 0.8 * rival


@pytest.mark.parametrize("kind", GREYS)
@pytest.mark.parametrize("levels", ["auto", "number"])
def test_levels_and_noise_are_found(cases, kind, levels):
    _, series, deviation = cases[kind]
    wanted = GREYS[kind]
    method = Dart(levels="auto" if levels == "auto" else len(wanted))
    thickness, _, noise, *padded = prepared = [float(one) for one in dask.compute(*method.prepare(series))]
    found = [level for level in padded if not np.isnan(level)]
    assert thickness == 1
    assert len(found) == len(wanted)
    # Some 500 voxels a level and slice against noise of 1 pixel's length; whole voxels at boundaries cost the rest.
    np.testing.assert_allclose(found, wanted, atol=0.03)
    assert noise == pytest.approx(deviation, rel=0.1)
    (line,) = method.outlook(series, prepared)
    assert line.startswith(f"dart: grey levels 0, {found[1]:.4g}")
    assert f"noise {noise:.3g}" in line


def test_sharp_edges_of_sharp_phantoms():
    """Voxels of one level each: errors at most half as large as with edges of partial voxels."""
    truth = nt.nanoparticle(48, seed=2)
    series, _ = noisy(truth)
    sharp, smooth = (error(nt.dart(series, edges=edges), truth) for edges in ("sharp", "partial"))
    assert sharp < 0.5 * smooth


def test_units_of_the_series_change_nothing_else(cases):
    """Counts instead of line integrals: voxels a thousand times as bright; the sampler sees the same ratios."""
    _, series, _ = cases["coreshell"]
    part = series.isel(z=slice(20, 28))
    once, more = nt.dart(part).values, nt.dart(part * np.float32(1024)).values
    np.testing.assert_allclose(more, 1024 * once, atol=1e-3 * 1024)


def test_chunks_and_order_change_no_byte(cases):
    """Blocks lie where they lie in the series, and projections are brought into the order of their angles."""
    _, series, _ = cases["particle"]
    whole = nt.dart(series, levels=2).values
    others = series.chunk(z=7), series.isel(angle=[3, 1, 0, 2, 7, 6, 5, 4])
    for other in others:
        np.testing.assert_array_equal(nt.dart(other, levels=2).values, whole)


def test_the_seed_decides(cases):
    _, series, _ = cases["particle"]
    part = series.isel(z=slice(12, 36))
    volumes = [nt.dart(part, levels=(0, 1), noise=0.5, seed=seed).values for seed in (0, 0, 1)]
    np.testing.assert_array_equal(volumes[0], volumes[1])
    assert (volumes[0] != volumes[2]).any()


def test_seams_are_no_worse_than_the_rest(cases):
    """Slices at the ends of blocks are as near to the truth as those within."""
    truth, series, _ = cases["particle"]
    volume = nt.dart(series, levels=(0, 1))
    squares = ((volume.values - truth.values) ** 2).mean(axis=(1, 2))
    seam = squares[BLOCK - 1 : BLOCK + 1].mean()
    near = np.concatenate([squares[BLOCK - 7 : BLOCK - 1], squares[BLOCK + 1 : BLOCK + 7]])
    # Slices beside each other have boundaries of about the same length; their errors scatter by a fifth.
    assert seam < 1.5 * near.mean()


def test_without_smoothing_noise_is_fitted(cases):
    truth, series, deviation = cases["particle"]
    part = slice(12, 36)
    rough, smooth = (
        error(nt.dart(series.isel(z=part), levels=2, noise=deviation, smoothing=one), truth.isel(z=part))
        for one in (0, 0.45)
    )
    assert rough > 2 * smooth


@pytest.mark.parametrize("scale", [0, 1])
def test_where_there_is_nothing_the_volume_is_empty_and_it_is_said(scale):
    noise = scale * np.random.default_rng(5).normal(0, 1, (9, ANGLES.size, 24)).astype(np.float32)
    series = nt.tilt_series(noise, ANGLES)
    method = Dart()
    prepared = [float(one) for one in dask.compute(*method.prepare(series))]
    (line,) = method.outlook(series, prepared)
    assert "nothing in the series can be told from its noise" in line
    assert (nt.dart(series).values == 0).all()


def test_slices_that_have_nothing_in_common():
    """Each slice by itself; together they are smoothed across, which the outlook tells."""
    truth = nt.ellipse_stack((12, 48, 48)).compute()
    series, _ = noisy(truth)
    alone, together = Dart(levels=2, dimensions=2), Dart(levels=2)
    assert error(nt.reconstruct(series, alone), truth) < error(nt.sirt(series, minimum=0, tolerance=1e-3), truth)
    prepared = [float(one) for one in dask.compute(*alone.prepare(series))]
    assert len(alone.outlook(series, prepared)) == 1
    prepared = [float(one) for one in dask.compute(*together.prepare(series))]
    _, warning = together.outlook(series, prepared)
    assert "neighbouring slices have nothing in common: see dimensions" in warning


def test_lowest_level_that_is_not_zero(cases):
    """Surroundings of another level than 0: they fill the slice."""
    truth, _, _ = cases["particle"]
    background = truth + np.float32(0.25)
    series, _ = noisy(background)
    volume = nt.dart(series, levels=(0.25, 1.25))
    assert volume.values.min() == pytest.approx(0.25)
    assert error(volume, background) < 0.002


def test_blocks_without_a_bad_value_are_computed(cases):
    """A value is refused in the blocks that see it; the first sees 4 of the 24 slices of the second."""
    _, series, _ = cases["particle"]
    values = series.values.copy()
    values[BLOCK + HALO, 3, 5] = np.nan
    spoiled = nt.dart(series.copy(data=values), levels=(0, 1), noise=0.5)
    wanted = nt.dart(series, levels=(0, 1), noise=0.5).isel(z=slice(BLOCK)).values
    np.testing.assert_array_equal(spoiled.data[:BLOCK].compute(), wanted)
    with pytest.raises(nt.SchemaError, match=r"dart: needs finite values; got nan at index z=28, angle=3, detector=5"):
        spoiled.data[BLOCK:].compute()


def test_lazy(cases, nothing_computes):
    assert nt.dart(cases["particle"][1]).shape == (48, 48, 48)


# ── What is refused ──


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": (0, 1, 1)}, r"needs levels that differ; got \(0, 1, 1\)"),
        ({"levels": (0, 1, 1.0001)}, "needs levels that differ"),
        ({"levels": (1.0,)}, "needs levels: a number from 2 to 8, values .* got 1 values"),
        ({"levels": ()}, "got 0 values"),
        ({"levels": 1}, "needs levels: a number from 2 to 8, values .* got 1;"),
        ({"levels": 9}, "got 9;"),
        ({"levels": tuple(range(9))}, "got 9 values"),
        ({"levels": (0, np.nan)}, "needs levels that are finite numbers"),
        ({"levels": (0, np.inf)}, "needs levels that are finite numbers"),
        ({"levels": (0, "1")}, "needs levels that are finite numbers"),
        ({"levels": "many"}, 'needs levels "auto"; got .many.'),
        ({"levels": True}, "needs levels: a number"),
        ({"smoothing": -0.1}, "needs smoothing of at least 0; got -0.1"),
        ({"smoothing": np.nan}, "needs smoothing of at least 0; got nan"),
        ({"noise": 0}, "needs noise above 0; got 0"),
        ({"noise": "low"}, 'needs noise "auto"; got .low.'),
        ({"edges": "soft"}, 'needs edges "partial" or "sharp"; got .soft.'),
        ({"dimensions": 4}, "needs dimensions 2 or 3; got 4"),
        ({"iterations": 2}, "needs iterations of at least 3; got 2"),
        ({"seed": -1}, "needs seed of at least 0 .* got -1"),
    ],
)
def test_bad_parameters_are_refused(series, arguments, message):
    with pytest.raises(nt.SchemaError, match=message):
        nt.dart(series, **arguments)


def test_slices_at_uneven_distances_are_refused(series):
    with pytest.raises(nt.SchemaError, match="dart: needs"):
        nt.dart(series.isel(z=[0, 1, 4]))


def test_not_as_the_input_of_a_network(series):
    with pytest.raises(nt.SchemaError, match="needs a method of single slices; got DART"):
        nt.phantom_slices(series, n_slices=8, method="dart", neighbours=0)["input"].compute()


# ── The command ──


def test_on_the_command_line(run, cases, tmp_path):
    nt.save(cases["coreshell"][1], tmp_path / "series.zarr")
    made = run("reconstruct", tmp_path / "series.zarr", "--method", "dart", "--levels", "0,0.45,1", "-o", "a.zarr")
    assert "dart: grey levels 0, 0.45, 1; noise" in made.output
    np.testing.assert_array_equal(
        nt.open("a.zarr").values, nt.dart(nt.open(tmp_path / "series.zarr"), levels=(0, 0.45, 1)).values
    )
    assert "NUMBER|A,B,…|auto" in run("reconstruct", "--help").output
    for text, message in (("0,0", "needs levels that differ"), ("2,x", "is not a whole number, nor numbers")):
        refused = run(
            "reconstruct", tmp_path / "series.zarr", "--method", "dart", "--levels", text, "-o", "b.zarr", exit_code=2
        )
        assert message in refused.output


def test_memory_grows_with_blocks():
    """A block in work, beside slabs in and out: tests/test_memory.py measures it."""
    assert host_bytes("dart")((2 * BLOCK, 8, 512)) > host_bytes("dart")((BLOCK, 8, 512))
    assert host_bytes("dart")((1, 8, 512)) == host_bytes("dart")((BLOCK, 8, 512))
    assert HALO == Dart().halo
