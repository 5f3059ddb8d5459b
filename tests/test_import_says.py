"""What `import` says of folders, of files that are not there, and of images in which there is nothing."""

import mrcfile
import numpy as np
import pytest
import tifffile

import nntomo_dask as nt
from nntomo_dask.errors import SchemaError
from nntomo_dask.formats import FORMATS, background

ANGLES = np.array([-40.0, 0.0, 40.0])
STACK = np.random.default_rng(0).integers(0, 100, (3, 16, 20)).astype(np.int16)


@pytest.fixture
def mrc(tmp_path):
    def write(name, data=STACK, angles=None):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        with mrcfile.new(path) as file:
            file.set_data(data)
        if angles is not None:
            nt.write_tilt_angles(angles, path.with_suffix(".rawtlt"))
        return path

    return write


def found(path, **options):
    return nt.read(path, tilt_axis="y", **options).attrs["found"]


class TestFolders:
    def test_images_of_two_formats_are_refused(self, mrc, tmp_path):
        mrc("mixed/needle.mrc", angles=ANGLES)
        tifffile.imwrite(tmp_path / "mixed/other.tif", STACK, photometric="minisblack")
        with pytest.raises(SchemaError, match=r"2 formats in .*mixed \(MRC: needle\.mrc; TIFF: other\.tif\)"):
            nt.read(tmp_path / "mixed", tilt_axis="y")

    def test_the_angles_of_its_name_are_taken_and_all_files_named(self, tmp_path):
        (tmp_path / "run").mkdir()
        for number, image in enumerate(STACK):
            tifffile.imwrite(tmp_path / f"run/tilt_{number}.tif", image, photometric="minisblack")
        nt.write_tilt_angles(ANGLES, tmp_path / "run/tilt.rawtlt")
        nt.write_tilt_angles(2 * ANGLES, tmp_path / "run/else.rawtlt")
        said = found(tmp_path / "run")
        assert said["files"] == "tilt_0.tif, tilt_1.tif, tilt_2.tif"
        assert said["angles"] == "3, -40° to 40°, from tilt.rawtlt"
        (tmp_path / "run/tilt.rawtlt").rename(tmp_path / "run/third.tlt")
        with pytest.raises(SchemaError, match="needs the tilt angles"):  # of two others neither is taken
            nt.read(tmp_path / "run", tilt_axis="y")
        # Notes of the folder's name hold no angles, and the only file that does is taken.
        (tmp_path / "run/else.rawtlt").unlink()
        (tmp_path / "run/run.txt").write_text("a holder that drifts\n")
        assert "from third.tlt" in found(tmp_path / "run")["angles"]

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ((), r"a folder without images; try: check the path"),
            (("a.mrc",), r"one file is of images, a\.mrc; try: give that file: .*a\.mrc"),
            (("sub/a.mrc",), r"without images, but with 1 folders: sub; try: choose one of them: .*sub"),
            (("a.rec", "b.rec"), r"2 files that are no series together: a\.rec, b\.rec; try: choose one"),
        ],
    )
    def test_what_is_no_series_is_told_apart(self, mrc, tmp_path, names, message):
        folder = tmp_path / "folder"
        folder.mkdir()
        for name in names:
            mrc(f"folder/{name}")
        with pytest.raises(SchemaError, match=message):
            nt.read(folder)

    def test_several_series(self, mrc, tmp_path):
        for name in "ab":
            mrc(f"two/{name}.mrc", angles=ANGLES)
        with pytest.raises(SchemaError, match=r"2 series in .*: a\.mrc, b\.mrc; try: choose one of them"):
            nt.read(tmp_path / "two")


@pytest.mark.parametrize("name", ["folder/", "run.mdoc", *(f"a{kind.suffixes[0]}" for kind in FORMATS.values())])
def test_what_is_not_there(tmp_path, name):
    with pytest.raises(SchemaError, match=r"got nothing at .*; try: check the path$"):
        nt.read(tmp_path / name)
    with pytest.raises(SchemaError, match=r"got nothing at .*; try: check the path$"):
        nt.read([tmp_path / name, tmp_path / name])


@pytest.mark.parametrize(
    ("name", "data", "settings", "remedy"),
    [
        ("a.tif", np.zeros((5, 7, 3), np.uint8), {"photometric": "rgb"}, "convert them to grey by the program"),
        ("a.tif", np.zeros((3, 5, 7), np.complex64), {"photometric": "minisblack"}, "save it with integers or floats"),
        ("a.npy", np.zeros((3, 5, 7), np.complex64), {}, "save it with real numbers"),
        ("a.npy", np.asfortranarray(np.zeros((3, 5, 7))), {}, "save numpy.ascontiguousarray"),
    ],
)
def test_a_whole_file_that_is_not_read_has_a_remedy_of_its_own(tmp_path, name, data, settings, remedy):
    path = tmp_path / name
    np.save(path, data) if name.endswith(".npy") else tifffile.imwrite(path, data, **settings)
    with pytest.raises(SchemaError, match=f"; try: {remedy}") as caught:
        nt.read(path, angles=ANGLES)
    assert "copy the file again" not in str(caught.value)


class TestBackground:
    def test_a_specimen_that_fills_the_view_has_none(self):
        """One broad peak of grains all over: a gamma distribution, whose mode lies at a third of its range."""
        rng = np.random.default_rng(1)
        filled = rng.gamma(9, 400, 100_000) + 200
        found = background.of_values(filled)
        assert (found.kind, found.counts) == ("unclear", 0)
        assert "nothing subtracted: no background stands out" in str(found)
        assert "--background gives the counts" in str(found)

    def test_a_peak_above_many_darker_pixels_is_none(self):
        rng = np.random.default_rng(2)
        values = np.concatenate(
            [rng.uniform(0, 300, 40_000), rng.normal(310, 3, 40_000), rng.uniform(320, 1000, 20_000)]
        )
        assert background.of_values(values).counts == 0
        rare = np.concatenate([values[:8_000], values[40_000:]])  # a tenth of the pixels is darker: dust, dead pixels
        # Of the 40,000 about 310 nearly all lie in the peak; the deviation of their mean is 3 / 200.
        assert background.of_values(rare).counts == pytest.approx(310, abs=1)

    @pytest.mark.parametrize("share", [0.3, 0.9])
    def test_noise_about_a_background_is_one(self, share):
        rng = np.random.default_rng(3)
        count = int(share * 100_000)
        values = np.concatenate([rng.normal(500, 60, count), rng.uniform(600, 1500, 100_000 - count)])
        # The half of the peak is noise alone; it is off by a few tenths of the bins of 5 counts.
        assert background.of_values(values).counts == pytest.approx(500, abs=10)


class TestEmptyImages:
    def test_they_are_said(self, mrc, run):
        mrc("a.mrc", np.zeros((3, 16, 20), np.int16), angles=ANGLES)
        for choice in ("auto", "none"):
            output = run("import", "a.mrc", "--tilt-axis", "y", "--background", choice, "-o", f"{choice}.zarr").output
            assert "warning: all images are empty: the pixels looked at are 0" in output
        assert (
            "are empty: all pixels that were looked at are 0"
            in run("import", "a.mrc", "-o", "c.zarr", exit_code=2).output
        )

    def test_others_are_not(self, mrc):
        data = np.zeros((3, 16, 20), np.int16)
        data[2, 5, 5] = 1
        assert "warning" not in found(mrc("a.mrc", data, angles=ANGLES))


def test_one_angle_for_all_images_is_no_source_that_disagrees(mrc, tmp_path):
    path = mrc("a.mrc", angles=[5, 5, 5])
    with pytest.raises(SchemaError, match=r"got 5° for all 3 images; try: angles=FILE .* or all files of the series"):
        nt.read(path, tilt_axis="y")
    said = found(path, angles=nt.write_tilt_angles(ANGLES, tmp_path / "given.txt"))
    assert said["angles"] == "3, -40° to 40°, from given.txt; a.rawtlt has 5° for all images, which is left out"
    with pytest.raises(SchemaError, match="sources of angles that agree"):
        nt.read(mrc("b.mrc", angles=[5, 5, 6]), angles=ANGLES, tilt_axis="y")


def test_what_is_for_a_series_alone(mrc, run):
    mrc("a.mrc")
    words = ("import", "a.mrc", "--as", "volume", "--tilt-axis", "y", "-o", "v.zarr")
    message = run(*words, exit_code=2).output
    assert "needs a tilt series for --tilt-axis; got a volume, as --as volume says" in message
    assert "try: leave out either --tilt-axis or --as volume" in message
