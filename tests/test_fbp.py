import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.kernels import filters


@pytest.fixture
def disc():
    axis = np.arange(64) - 31.5
    return nt.volume(np.tile(np.hypot(*np.meshgrid(axis, axis)) < 20, (3, 1, 1)))


@pytest.mark.parametrize("engine", ["native", "astra"])
def test_density_is_right(disc, engine):
    """Many projections give back the density, to 1 % in the mean over the inside, with the units of the volume."""
    volume = nt.fbp(nt.project(disc * 5, nt.tilt_angles("full", 90)), engine=engine)
    assert float(volume.values[1, 24:40, 24:40].mean()) == pytest.approx(5, rel=0.01)
    assert abs(float(volume.values[1, 2:6, 30:34].mean())) < 0.1


@pytest.mark.extra("astra")
def test_engines_agree(disc):
    """The two interpolate in different places; on a smooth filter that is a few per cent of the norm."""
    series = nt.project(disc, nt.tilt_angles("full", 60))
    native, astra = (nt.fbp(series, window="hann", engine=engine).values for engine in ("native", "astra"))
    assert np.linalg.norm(native - astra) < 0.03 * np.linalg.norm(native)


@pytest.mark.parametrize("engine", ["native", "astra"])
def test_handedness(volume, engine):
    """An asymmetric volume is not mirrored: its reconstruction correlates with it and with no mirror image of it."""
    volume = volume.isel(z=[0])
    result = nt.fbp(nt.project(volume, nt.tilt_angles("full", 60)), engine=engine).values[0]
    truth = volume.values[0]

    def correlation(image):
        return np.corrcoef(image.ravel(), truth.ravel())[0, 1]

    assert correlation(result) > 0.9
    assert correlation(result) > max(map(correlation, (result[::-1], result[:, ::-1], result.T))) + 0.2


@pytest.mark.parametrize("engine", ["native", "astra"])
def test_unequal_steps_are_weighted(disc, engine):
    """Half of the directions four times as dense: the centre's density stays, where equal weights would distort it."""
    angles = np.concatenate([np.arange(-90, 0, 1.0), np.arange(0, 90, 4.0)])
    volume = nt.fbp(nt.project(disc, angles), engine=engine).values[1]
    assert volume[24:40, 24:40].mean() == pytest.approx(1, rel=0.02)
    inside = volume[24:40, 24:40]
    assert inside.std() < 0.1


def test_order_of_projections_does_not_matter(series):
    shuffled = series.isel(angle=[3, 1, 0, 7, 6, 2, 5, 4])
    # Sums in another order: single-precision rounding.
    np.testing.assert_allclose(nt.fbp(shuffled).values, nt.fbp(series).values, atol=1e-5)


@pytest.mark.parametrize("engine", ["native", "astra"])
def test_chunks_change_nothing(series, engine):
    whole = nt.fbp(series, engine=engine).values
    for slices in (1, 3):
        np.testing.assert_array_equal(nt.fbp(series.chunk(z=slices), engine=engine).values, whole)


def test_lazy(series, nothing_computes):
    assert nt.fbp(series).shape == (9, 32, 32)


@pytest.mark.parametrize("window", filters.WINDOWS)
def test_every_window_works(series, window):
    assert np.isfinite(nt.fbp(series, window=window).values).all()


def test_empty_slice_is_zero(series):
    assert (nt.fbp(series).values[4] == 0).all()


def test_bad_window(series):
    with pytest.raises(nt.SchemaError, match=r"fbp: needs window .ram-lak., .* got 'bartlett'"):
        nt.fbp(series, window="bartlett")


def test_chunked_angles_are_refused_with_the_remedy(series):
    with pytest.raises(nt.SchemaError, match='with dim "angle" in one chunk; got 3 chunks; try: array'):
        nt.fbp(series.chunk(angle=3))
