import dask.array as da
import numpy as np
import pytest

import nntomo_dask as nt


def test_volume_is_centred_and_float32():
    volume = nt.volume(np.ones((2, 3, 3), np.uint8), pixel_size=0.5, units="nm")
    assert volume.dtype == np.float32
    np.testing.assert_array_equal(volume.x, [-0.5, 0, 0.5])
    assert volume.attrs["units"] == "nm"
    assert volume.attrs["pixel_size"] == 0.5


def test_series_keeps_its_angles_in_order():
    series = nt.tilt_series(np.zeros((1, 3, 4)), [30, -30, 0])
    np.testing.assert_array_equal(series.angle, [30, -30, 0])


@pytest.mark.parametrize(
    ("angles", "message"),
    [
        ([0, 1], r"needs one angle per projection \(3\); got 2 angles"),
        ([0, 1, 1], "needs every angle once; got 1 more than once"),
        ([0, 1, np.nan], "needs a list of finite angles"),
        (["a", "b", "c"], "needs angles in degrees"),
        ([0, 1, 190], "needs angles from -180 to 180 degrees; got 190"),
    ],
)
def test_bad_angles_are_refused(angles, message):
    with pytest.raises(nt.SchemaError, match=message):
        nt.tilt_series(np.zeros((1, 3, 4)), angles)


def test_one_projection_is_refused():
    with pytest.raises(nt.SchemaError, match="needs at least 2 projections; got 1"):
        nt.tilt_series(np.zeros((1, 1, 4)), [0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.values, "needs a volume as xarray.DataArray; got ndarray"),
        (lambda v: v.transpose("y", "z", "x"), r"needs a volume with dims \('z', 'y', 'x'\)"),
        (lambda v: v.astype(float), r'got float64; try: array.astype\("float32"\)'),
        (lambda v: v.isel(x=slice(0, 30)), "needs square slices .* got y=32, x=30"),
        (lambda v: v.chunk(y=8), r'needs a volume with dim "y" in one chunk; got 4 chunks; try: array.chunk\(y=-1\)'),
        (lambda v: v.drop_vars("z"), 'needs a volume with a coordinate "z"'),
        (lambda v: v.assign_attrs(units=None).drop_attrs(), r'needs a volume with attrs\["units"\]'),
        (lambda v: v.isel(z=slice(0, 0)), 'got nothing along "z"'),
    ],
)
def test_what_is_no_volume_is_refused(volume, change, message):
    with pytest.raises(nt.SchemaError, match=message):
        nt.check_volume(change(volume), who="here")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named(volume, value):
    broken = volume.copy()
    broken[3, 5, 7] = value
    broken[8, 0, 0] = value
    with pytest.raises(nt.SchemaError, match=r"got 2 NaN or infinite, the first at index z=3, y=5, x=7"):
        nt.check_finite(broken.chunk(z=2), who="here")
    nt.check_finite(volume, who="here")


def test_complex_data_are_refused():
    with pytest.raises(nt.SchemaError, match="needs real numbers; got dtype complex64"):
        nt.volume(da.zeros((2, 2, 2), dtype=np.complex64))


@pytest.mark.parametrize("size", [0, -1, np.nan])
def test_pixel_size_must_be_positive(size):
    with pytest.raises(nt.SchemaError, match="needs a pixel size above zero"):
        nt.volume(np.zeros((2, 2, 2)), pixel_size=size)
