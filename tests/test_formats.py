import warnings

import mrcfile
import numpy as np
import pytest

import nntomo_dask as nt
from tests.shared_data import NEEDLE


@pytest.fixture
def stack(tmp_path, rng):
    """An MRC stack (tilt, y, x) of 5 projections, 6 x 8 pixels of 25 Å."""
    data = rng.integers(0, 1000, (5, 6, 8)).astype(np.int16)
    path = tmp_path / "stack.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(data)
        mrc.voxel_size = 25
    return path, data


ANGLES = [-60, -30, 0, 30, 60]


def test_series_with_the_tilt_axis_along_y(stack):
    path, data = stack
    series = nt.read_mrc_series(path, ANGLES)
    np.testing.assert_array_equal(series.values, np.transpose(data, (1, 0, 2)))
    assert series.attrs["pixel_size"] == 2.5
    assert series.attrs["units"] == "nm"
    nt.check_tilt_series(series, who="test")


def test_series_with_the_tilt_axis_along_x(stack):
    path, data = stack
    np.testing.assert_array_equal(nt.read_mrc_series(path, ANGLES, tilt_axis="x").values, np.transpose(data, (2, 0, 1)))


def test_background_is_taken_off(stack):
    path, data = stack
    series = nt.read_mrc_series(path, ANGLES, background=500)
    np.testing.assert_array_equal(series.values, np.transpose(data, (1, 0, 2)) - 500.0)


@pytest.mark.parametrize("mode", [np.int8, np.int16, np.uint16, np.float16, np.float32])
def test_every_real_mode(tmp_path, mode):
    data = np.arange(24).reshape(2, 3, 4).astype(mode)
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(data)
    series = nt.read_mrc_series(tmp_path / "a.mrc", [0, 1])
    np.testing.assert_array_equal(series.values, np.transpose(data, (1, 0, 2)).astype(np.float32))
    assert series.attrs["units"] == "px"


def test_reading_is_lazy(stack, nothing_computes):
    assert nt.read_mrc_series(stack[0], ANGLES).chunks is not None


def test_fill(tmp_path):
    data = np.ones((3, 4, 4), np.float32)
    data[1, 2, 3], data[2, 0, 0] = np.nan, np.inf
    with mrcfile.new(tmp_path / "a.mrc") as mrc, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mrcfile's own remark on what this test is about
        mrc.set_data(data)
    series = nt.read_mrc_series(tmp_path / "a.mrc", [0, 1, 2])
    with pytest.raises(nt.SchemaError, match=r"got 2 NaN or infinite, the first at index z=0, angle=2, detector=0"):
        nt.check_finite(series, who="here")
    filled = nt.read_mrc_series(tmp_path / "a.mrc", [0, 1, 2], fill=7)
    assert filled.values[2, 1, 3] == 7
    nt.check_finite(filled, who="here")


def damage(path, how):
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-10])
    elif how == "no MRC":
        path.write_bytes(b"x" * 2000)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "missing":
        path.unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "needs a whole MRC2014 file"),
        ("no MRC", r"needs an MRC2014 file; got .*\(its mode is 2021161080, which is not read here"),
        ("empty", "needs a whole MRC2014 file"),
        ("missing", "needs an MRC file; got nothing at"),
    ],
)
def test_files_that_cannot_be_read_are_refused(stack, how, message):
    damage(stack[0], how)
    for read in (lambda: nt.read_mrc_series(stack[0], ANGLES), lambda: nt.read_mrc_volume(stack[0])):
        with pytest.raises(nt.SchemaError, match=message):
            read()


def test_complex_modes_are_refused(tmp_path):
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(np.ones((2, 3, 4), np.complex64))
    with pytest.raises(nt.SchemaError, match="needs real values; got complex ones"):
        nt.read_mrc_series(tmp_path / "a.mrc", [0, 1])


def test_angles_must_fit_the_stack(stack):
    with pytest.raises(nt.SchemaError, match=r"needs one angle per projection \(5\); got 4 angles"):
        nt.read_mrc_series(stack[0], ANGLES[:4])


def test_one_image_is_no_series(tmp_path):
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(np.ones((3, 4), np.float32))
    with pytest.raises(nt.SchemaError, match="needs a stack of at least 2 projections"):
        nt.read_mrc_series(tmp_path / "a.mrc", [0])


def test_volume_round_trip(tmp_path, volume):
    in_nm = nt.volume(volume.data, units="nm", pixel_size=0.5)
    nt.write_mrc(in_nm.chunk(z=4), tmp_path / "v.mrc")
    again = nt.read_mrc_volume(tmp_path / "v.mrc")
    np.testing.assert_array_equal(again.values, volume.values)
    assert again.attrs["pixel_size"] == pytest.approx(0.5)
    with mrcfile.open(tmp_path / "v.mrc") as mrc:
        assert mrc.header.dmax == volume.values.max()
    assert [path.name for path in tmp_path.iterdir()] == ["v.mrc"]


def test_series_round_trip(tmp_path, series):
    nt.write_mrc(series.chunk(z=2), tmp_path / "s.mrc")
    np.testing.assert_array_equal(nt.read_mrc_series(tmp_path / "s.mrc", series.angle).values, series.values)


@pytest.mark.parametrize(
    ("name", "text", "angles"),
    [
        ("a.rawtlt", "-60.00\n 0.5\n\n61\n", [-60, 0.5, 61]),
        ("a.tlt", "-1 0 1", [-1, 0, 1]),
        ("a.mdoc", "PixelSpacing = 7.88\n[ZValue = 0]\nTiltAngle = -3.5\n[ZValue = 1]\nTiltAngle = 2\n", [-3.5, 2]),
    ],
)
def test_tilt_angle_files(tmp_path, name, text, angles):
    (tmp_path / name).write_text(text)
    np.testing.assert_array_equal(nt.read_tilt_angles(tmp_path / name), angles)


@pytest.mark.parametrize(
    ("text", "message"),
    [("1\ntwo\n3", "needs one angle in degrees a line; got 'two' in"), ("", "needs at least one angle")],
)
def test_bad_tilt_angle_files(tmp_path, text, message):
    (tmp_path / "a.rawtlt").write_text(text)
    with pytest.raises(nt.SchemaError, match=message):
        nt.read_tilt_angles(tmp_path / "a.rawtlt")
    with pytest.raises(nt.SchemaError, match="got nothing at"):
        nt.read_tilt_angles(tmp_path / "none.rawtlt")


def test_the_needle():
    """A measured series: 91 projections in 2 degree steps, and what its microscope's file says of the pixels."""
    angles = nt.read_tilt_angles(NEEDLE / "needle.rawtlt")
    series = nt.read_mrc_series(NEEDLE / "needle.mrc", angles, tilt_axis="x")
    assert series.shape == (64, 91, 64)
    assert series.attrs["pixel_size"] == pytest.approx(17.995, rel=1e-3)
    assert float(series.min()) == 513
    assert nt.read_tilt_angles(NEEDLE / "serialem.mdoc").size > 1


class TestExport:
    def test_every_file_of_an_export_is_checked_first(self, run, series_store, tmp_path):
        (tmp_path / "mine.rawtlt").write_text("precious")
        text = run("export", series_store, "mine.mrc", exit_code=2).output
        assert "got mine.rawtlt, which exists; try: --overwrite" in text
        assert (tmp_path / "mine.rawtlt").read_text() == "precious"
        assert not (tmp_path / "mine.mrc").exists()
        run("export", series_store, "mine.mrc", "--overwrite")
        assert nt.read_tilt_angles(tmp_path / "mine.rawtlt").size == 8

    def test_a_failed_export_leaves_nothing(self, run, series_store, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        before = sorted(tmp_path.iterdir())
        with monkeypatch.context() as patch:
            patch.setattr("nntomo_dask.formats.mrc_writing._write", full)
            assert "No space left" in run("export", series_store, "a.mrc", exit_code=2).output
        assert sorted(tmp_path.iterdir()) == before
        run("export", series_store, "a.mrc")

    def test_a_failed_figure_keeps_the_table(self, run, series_store, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("nntomo_dask.plotting.figures.save_figure", full)
        text = run("compare", "particle.zarr", "--reference", "particle.zarr", "--figure", "a.png", exit_code=2).output
        assert "MSE" in text
        assert "No space left" in text
