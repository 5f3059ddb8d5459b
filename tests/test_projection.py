import numpy as np
import pytest

import nntomo_dask as nt
from tests.conftest import ANGLES_DEG


@pytest.mark.parametrize("engine", ["native", "astra"])
def test_chunks_change_nothing(volume, engine):
    whole = nt.project(volume, ANGLES_DEG, engine=engine).values
    for slices in (1, 3):
        np.testing.assert_array_equal(nt.project(volume.chunk(z=slices), ANGLES_DEG, engine=engine).values, whole)


def test_projecting_is_lazy(volume, nothing_computes):
    assert nt.project(volume, ANGLES_DEG).shape == (9, ANGLES_DEG.size, 32)


def test_labels(volume):
    series = nt.project(volume, ANGLES_DEG)
    nt.check_tilt_series(series, who="test")
    np.testing.assert_array_equal(series.angle, ANGLES_DEG)
    np.testing.assert_array_equal(series.detector, volume.x)
    assert series.attrs["recipe"]["operation"] == "project"


@pytest.mark.extra("astra")
def test_engines_agree_inside_the_field_of_view(rng):
    """ASTRA's linear projector is Joseph's; the two differ where a ray leaves the image, so it is empty there."""
    data = np.zeros((2, 40, 40), np.float32)
    data[:, 6:34, 6:34] = rng.random((2, 28, 28))
    volume = nt.volume(data)
    native, astra = (nt.project(volume, ANGLES_DEG, engine=engine).values for engine in ("native", "astra"))
    # ASTRA counts positions in single precision: 1e-6 of 40 pixels, times a difference of neighbours of at most 1.
    np.testing.assert_allclose(native, astra, atol=2e-4 * native.max())


@pytest.mark.parametrize("engine", ["native", "astra"])
def test_handedness(engine):
    """One bright voxel at x = +8, y = +3 is seen at t = x cos θ + y sin θ, θ counter-clockwise."""
    data = np.zeros((1, 33, 33), np.float32)
    data[0, 16 + 3, 16 + 8] = 1
    series = nt.project(nt.volume(data), [0, 30, 90, -60], engine=engine)
    theta = np.deg2rad(series.angle.values)
    centre = (series * series.detector).sum("detector") / series.sum("detector")
    # The spot is one or two pixels wide, and its centre of mass wanders by hundredths of a pixel about the true place.
    np.testing.assert_allclose(centre.values[0], 8 * np.cos(theta) + 3 * np.sin(theta), atol=0.05)


@pytest.mark.parametrize("engine", ["native", "astra"])
def test_backproject_is_the_transpose(volume, series, engine):
    left = float((nt.project(volume, series.angle, engine=engine).astype(float) * series).sum())
    right = float((volume.astype(float) * nt.backproject(series, engine=engine)).sum())
    assert left == pytest.approx(right, rel=1e-5)


def test_unknown_engine(volume):
    with pytest.raises(nt.SchemaError, match='needs engine "native" or "astra"; got \'cuda\''):
        nt.project(volume, ANGLES_DEG, engine="cuda")


def test_non_square_volume(volume):
    with pytest.raises(nt.SchemaError, match="project: needs square slices"):
        nt.project(volume.isel(x=slice(0, 30)), ANGLES_DEG)


def test_resize_by_two_averages_pairs(rng):
    """Halving: a triangle over 4 old pixels, 1/8 3/8 3/8 1/8, and line integrals in pixels twice as wide."""
    rows = rng.random((8, 3, 16), np.float32)
    small = nt.resize(nt.tilt_series(rows, [0, 10, 20], pixel_size=2.0, units="nm"), 8)
    assert small.shape == (4, 3, 8)
    assert small.attrs["pixel_size"] == 4.0
    weights = np.array([1, 3, 3, 1]) / 8
    expected = np.einsum("zad,z,d->a", rows[1:5, :, 5:9], weights, weights) / 2
    np.testing.assert_allclose(small.values[1, :, 3], expected, rtol=1e-5)


def test_resized_series_reconstructs_to_the_same_density():
    """A disc of density 1 still has density 1 on half as many detector pixels; FBP of 60 projections is good to 3 %."""
    volume = nt.volume(np.tile(np.hypot(*np.meshgrid(*2 * [np.arange(64) - 31.5])) < 20, (2, 1, 1)))
    small = nt.resize(nt.project(volume, nt.tilt_angles("full", 60)), 32)
    middle = nt.fbp(small).values[0, 12:20, 12:20]
    assert middle.mean() == pytest.approx(1, rel=0.03)


def test_resize_to_the_same_size_changes_nothing(series):
    np.testing.assert_allclose(nt.resize(series, 32).values, series.values, rtol=1e-6)


def test_subsets_are_xarray_selections(series):
    subset = series.isel(angle=slice(None, None, 2)).sel(angle=slice(-60, 60))
    np.testing.assert_array_equal(nt.fbp(subset).shape, (9, 32, 32))


@pytest.mark.parametrize("engine", ["native", "astra"])
def test_sums_of_the_projector_are_projections_of_ones(engine):
    pair = nt.projector(nt.tilt_angles("tem", 5), 16, engine=engine)
    np.testing.assert_array_equal(pair.row_sums, pair.forward(np.ones((1, 16, 16), np.float32))[0])
    np.testing.assert_array_equal(pair.column_sums, pair.back(np.ones((1, 5, 16), np.float32))[0])
