"""What `import` says of folders, of files that are not there, and of images in which there is nothing."""

import mrcfile
import numpy as np
import pytest
import tifffile

import nntomo_dask as nt
from nntomo_dask.errors import SchemaError
from nntomo_dask.formats import FORMATS

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
