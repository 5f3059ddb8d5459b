"""Projections that are smoothed."""

import numpy as np
import pytest
import scipy.ndimage
import xarray as xr

import nntomo_dask as nt

ANGLES = nt.tilt_angles("tem", 5)


@pytest.fixture(scope="module")
def series():
    values = np.random.default_rng(0).poisson(0.3, (40, 5, 32))
    return nt.tilt_series(values, ANGLES, pixel_size=0.02, units="nm")


def test_each_projection_is_smoothed_by_itself(series):
    found = nt.smooth_projections(series, width=0.035)
    for place in range(5):
        image = series.values[:, place].astype(float)
        expected = scipy.ndimage.gaussian_filter(image, 0.035 / 0.02, mode=("reflect", "nearest"))
        # float32 of values about 0.3
        np.testing.assert_allclose(found.values[:, place], expected, atol=1e-6)
    assert found.dtype == np.float32
    xr.testing.assert_identical(found.coords.to_dataset(), series.coords.to_dataset())
    assert found.attrs["recipe"]["operation"] == "smooth_projections"


def test_chunks_and_order_change_no_bytes(series):
    whole = nt.smooth_projections(series, width=0.05).values
    for height in (1, 3, 17):
        np.testing.assert_array_equal(nt.smooth_projections(series.chunk(z=height), width=0.05).values, whole)
    turned = nt.smooth_projections(series.isel(angle=slice(None, None, -1)), width=0.05)
    np.testing.assert_array_equal(turned.values[:, ::-1], whole)


def test_slices_at_another_step_are_smoothed_as_far(series):
    far = series.assign_coords(z=series["z"] * 2)
    spread = np.zeros_like(series.values)
    spread[20, 2, 16] = 1
    found = nt.smooth_projections(far.copy(data=spread), width=0.06).values[:, 2]
    z, t = (np.arange(size) - place for size, place in ((40, 20), (32, 16)))
    # A pixel is 0.02 nm along the detector, and slices are 0.04 nm apart.
    assert np.sqrt((found.sum(axis=1) * z**2).sum()) == pytest.approx(0.06 / 0.04, rel=0.02)
    assert np.sqrt((found.sum(axis=0) * t**2).sum()) == pytest.approx(0.06 / 0.02, rel=0.02)


def test_nothing_is_done_before_it_is_asked_for(series):
    assert nt.smooth_projections(series, width=0) is series
    broken = series.copy(data=np.where(series.values > 2, np.nan, series.values))
    lazy = nt.smooth_projections(broken, width=0.05)
    with pytest.raises(nt.SchemaError, match="smooth_projections: needs finite values"):
        lazy.compute()


@pytest.mark.parametrize("width", [-0.1, 1.0, float("nan"), "wide", True])
def test_widths_that_cannot_be_are_refused(series, width):
    with pytest.raises(nt.SchemaError, match=r"at least 0 and less than the field of view, 0\.64 nm"):
        nt.smooth_projections(series, width=width)
    uneven = series.assign_coords(z=series["z"].values ** 3)
    with pytest.raises(nt.SchemaError, match="z"):
        nt.smooth_projections(uneven, width=0.03)
