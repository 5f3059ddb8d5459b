"""Measured stacks as they come: dialects of MRC, what headers and files beside them say, and what becomes of it."""

import bz2
import gzip
import json
import pickle
import shutil
import struct
import warnings

import mrcfile
import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.arrays import recipes
from nntomo_dask.errors import SchemaError
from nntomo_dask.formats import mrc_extended, mrc_images
from nntomo_dask.formats.source import Source
from nntomo_dask.store import form
from tests.shared_data import SHARED

ANGLES = np.linspace(-60, 60, 9)
SHAPE = (9, 20, 24)  # angle, line, column
ETSPY = SHARED / "tilt-etspy"


@pytest.fixture
def counts(rng):
    """A body that moves along x as the specimen tilts, on a noisy background; whole numbers from 0 to 219."""
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    body = [200 * np.exp(-((x - 11.5 - 5 * np.sin(s)) ** 2 + (y - 9.5) ** 2) / 20) for s in np.linspace(-1, 1, 9)]
    return np.rint(np.stack(body) + rng.integers(0, 20, SHAPE)).astype(np.int16)


@pytest.fixture
def put(tmp_path, counts):
    """Write a stack with some bytes of its header replaced, an extended header, and its angles beside it."""

    def write(name="a.mrc", data=counts, *, replaced=(), extended=b"", angles=ANGLES, labels=()):
        path = tmp_path / name
        with mrcfile.new(path, overwrite=True) as mrc, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mrcfile's remarks on what these tests are about
            mrc.set_data(data)
            mrc.voxel_size = 10
            for label in labels:
                mrc.add_label(label)
        raw = bytearray(path.read_bytes())
        for place, there in (*replaced, (92, struct.pack("<i", len(extended)))):
            raw[place : place + len(there)] = there
        path.write_bytes(bytes(raw[:1024]) + extended + bytes(raw[1024:]))
        if angles is not None:
            path.with_suffix(".rawtlt").write_text("".join(f"{angle:.2f}\n" for angle in angles))
        return path

    return write


def images_of(series):
    """(angle, line, column) of a series whose tilt axis lies along y."""
    return series.values.transpose(1, 0, 2)


DIALECTS = {
    "standard": (np.int16, []),
    "no map string": (np.int16, [(208, bytes(4))]),
    "no stamp": (np.int16, [(212, bytes(4))]),
    "stamp of old SerialEM": (np.int16, [(212, b"\x44\0\0\0")]),
    "stamp of spaces": (np.int16, [(212, b"\x44\x20\x20\x20")]),
    "neither, as Amira": (np.int16, [(208, bytes(8))]),
    "a stamp of the other order": (np.int16, [(212, b"\x11\x11\0\0")]),
    "big-endian": (">i2", []),
    "big-endian without a stamp": (">i2", [(212, bytes(4))]),
    "mode 2": (np.float32, []),
    "mode 6": (np.uint16, []),
    "mode 12": (np.float16, []),
    "bytes, IMOD says unsigned": (np.uint8, [(152, struct.pack("<2i", 1146047817, 0))]),
    "NaN statistics": (np.int16, [(76, struct.pack("<3f", *[np.nan] * 3)), (216, struct.pack("<f", np.nan))]),
}


@pytest.mark.parametrize("case", DIALECTS)
def test_every_dialect_is_read(put, counts, case):
    kind, replaced = DIALECTS[case]
    data = counts.astype(kind)
    path = put(data=data.view(np.int8) if kind == np.uint8 else data, replaced=replaced)
    series = nt.read(path, background="none")
    np.testing.assert_array_equal(images_of(series), counts)
    np.testing.assert_allclose(series.angle, ANGLES)
    assert series.attrs["units"] == "nm"
    assert "by the images" in series.attrs["found"]["tilt_axis"]
    # The same file under a name that says nothing.
    assert mrc_images.is_folder(path.parent) is False
    shutil.copy(path, path.with_name("b.dat"))
    shutil.copy(path.with_suffix(".rawtlt"), path.with_name("b.rawtlt"))
    np.testing.assert_array_equal(nt.read(path.with_name("b.dat"), background="none").values, series.values)


def test_half_bytes(put, counts):
    """4-bit pixels, two a byte, the first in the lower half; lines of an odd length end with half a byte."""
    values = (counts[..., :23] // 16).astype(np.uint8)
    padded = np.pad(values, ((0, 0), (0, 0), (0, 1)))
    packed = padded[..., 0::2] | (padded[..., 1::2] << 4)
    path = put(data=packed.view(np.int8), replaced=[(0, struct.pack("<i", 23)), (12, struct.pack("<i", 101))])
    np.testing.assert_array_equal(images_of(nt.read(path, background="none", tilt_axis="y")), values)


@pytest.mark.parametrize(("byte_kind", "kind"), [("signed", np.int8), ("unsigned", np.uint8)])
def test_what_is_said_of_bytes_is_taken(put, counts, byte_kind, kind):
    data = counts.astype(np.uint8).view(np.int8)
    series = nt.read(put(data=data), byte_kind=byte_kind, background="none", tilt_axis="y")
    np.testing.assert_array_equal(images_of(series), data.view(kind))
    with pytest.raises(SchemaError, match="needs a file of bytes where signed or unsigned is said"):
        nt.read(put(), byte_kind=byte_kind)


def old_fei(angles=ANGLES, order="<"):
    block = [np.zeros(32, f"{order}f4") for _ in range(1024)]
    for part, angle in zip(block, angles, strict=False):
        part[[0, 8, 10, 11, 12, 13]] = angle, 1.5, -3.0, 2e-9, 115000, 300000
    return b"".join(part.tobytes() for part in block)


def fei1(angles=ANGLES):
    kind = mrcfile.dtypes.get_ext_header_dtype(b"FEI1")
    table = np.zeros(len(angles), kind)
    table["Metadata size"] = kind.itemsize
    for name, value in {
        "HT": 200_000, "Dose": 3e20, "Alpha tilt": angles, "Tilt axis angle": -84.5, "Pixel size X": 2e-9,
        "Pixel size Y": 2e-9, "Magnification": 5000, "Integration time": 0.5, "STEM Detector name": b"HAADF",
    }.items():  # fmt: skip
        table[name] = value
    return table.tobytes()


def serialem(angles=ANGLES, order="<"):
    """Tilt (2 bytes), stage (4), magnification (2), dose (4)."""
    part = [struct.pack(f"{order}6h", round(100 * angle), 1, 2, 1150, 600, 3 * 256 - 3 * 256) for angle in angles]
    return b"".join(part)


EXTENDED = {
    "old FEI": (old_fei(), [], {"pixel_nm": 2, "voltage_kv": 300, "tilt_axis_deg": -3, "magnification": 115000}),
    "FEI1": (fei1(), [(104, b"FEI1")], {"pixel_nm": 2, "voltage_kv": 200, "tilt_axis_deg": -84.5, "detector": "HAADF"}),
    "SERI": (
        serialem(),
        [(104, b"SERI"), (128, struct.pack("<2h", 12, 1 + 4 + 8 + 32))],
        {"magnification": 115000, "dose_e_per_a2": (600 * 256.0,) * 9},
    ),
    "AGAR": (
        b"".join(struct.pack("<2i3f", 7, 7, angle, 1, 2) for angle in ANGLES),
        [(104, b"AGAR"), (128, struct.pack("<2h", 2, 3))],
        {},
    ),
}


@pytest.mark.parametrize("case", EXTENDED)
def test_extended_headers(put, case):
    raw, replaced, wanted = EXTENDED[case]
    path = put(extended=raw, replaced=replaced, angles=None)
    said = mrc_images.opened(path).said
    np.testing.assert_allclose(said.angles_deg, ANGLES, atol=1e-5)  # of float32
    for name, value in wanted.items():
        found = getattr(said, name)
        assert found == value if isinstance(value, str) else found == pytest.approx(value, rel=1e-6)
    series = nt.read(path, tilt_axis="y")
    assert "extended header" in series.attrs["found"]["angles"]
    assert "voltage_kv" not in wanted or series.attrs["voltage_kv"] == wanted["voltage_kv"]


def test_exposures_and_doses_are_coordinates(put, tmp_path):
    series = nt.read(put(extended=fei1(), replaced=[(104, b"FEI1")], angles=None), bin=2)
    np.testing.assert_allclose(series.exposure_s, 0.5)
    np.testing.assert_allclose(series.dose_e_per_a2, 3)  # 3 · 10²⁰ a square metre
    stored = nt.save(series, tmp_path / "s.zarr")
    for name in ("order", "exposure_s", "dose_e_per_a2"):
        np.testing.assert_array_equal(stored[name], series[name])
    assert stored.attrs["detector"] == "HAADF"
    assert stored.attrs["tilt_axis_deg"] == pytest.approx(5.5)  # from -90, by which images are turned
    assert stored.isel(angle=slice(2, 5)).order.values.tolist() == [2, 3, 4]
    assert "order" not in nt.fbp(stored).coords


@pytest.mark.parametrize(
    "along",
    [[], {"order": [0]}, {"order": ["angle", [0, 1]]}, {"order": ["time", [0] * 9]}, {"z": ["angle", [0] * 9]},
     {"order": ["angle", ["0"] * 9]}, {"a b": ["angle", [0] * 9]}, {"order": ["angle", [10**400] * 9]}],
)  # fmt: skip
def test_further_coordinates_of_a_store_that_are_none(put, tmp_path, along):
    """Whoever changes metadata may make the checksum fit; the form is looked at all the same."""
    nt.save(nt.read(put()), tmp_path / "s.zarr")
    array = json.loads((tmp_path / "s.zarr/tilt_series/zarr.json").read_text())
    form.check_data("tilt_series", array)
    array["attributes"]["coordinates_along"] = along
    with pytest.raises(form.DamagedError, match="its further coordinates cannot be read"):
        form.check_data("tilt_series", array)


@pytest.mark.parametrize("packer", [gzip, bz2], ids=lambda module: module.__name__)
def test_packed_files(put, counts, packer, tmp_path):
    path = put()
    (tmp_path / "there").mkdir()
    packed = path.with_name(f"{path.name}.{'gz' if packer is gzip else 'bz2'}")
    packed.write_bytes(packer.compress(path.read_bytes()))
    plain = nt.read(path)
    series = nt.read(packed, unpack_to=tmp_path / "there")
    np.testing.assert_array_equal(series.values, plain.values)
    assert nt.save(series, tmp_path / "s.zarr").attrs["recipe"] == plain.attrs["recipe"]  # the same pixels
    packed.write_bytes(packer.compress(path.read_bytes())[:-40])
    with pytest.raises(SchemaError, match="needs a packed file that is whole"):
        nt.read(packed, unpack_to=tmp_path / "there")


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("nntomo_dask.formats.unpacking._FREE_BYTES", 2**20)
    (tmp_path / "there").mkdir()
    (tmp_path / "a.mrc.bz2").write_bytes(bz2.compress(bytes(2**22)))
    with pytest.raises(SchemaError, match="unpacks to less than 100 times its size"):
        nt.read(tmp_path / "a.mrc.bz2", unpack_to=tmp_path / "there")
    with pytest.raises(SchemaError, match=r"^import: needs a packed file of images"):
        nt.read(tmp_path / "a.mrc.bz2", unpack_to=tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


def mdoc(order=range(9), *, angles=ANGLES, head="", end="\n", times=None, extra=""):
    lines = [head, "PixelSpacing = 7.88", "Voltage = 300", "", "[T =   Tilt axis angle = -85.5, binning = 2]"]
    for place, z in enumerate(order):
        time = place if times is None else times[z]
        lines += ["", f"[ZValue = {z}]", f"TiltAngle = {angles[z]:.3f}", "ExposureTime = 0.5", "Magnification = 5000"]
        lines += [f"DateTime = 31-Mar-23  16:{time:02d}:15", extra]
    return end.join(lines)


class TestMdoc:
    def test_what_it_says(self, put, counts):
        """Sections in the order of recording: ZValue says which image one is about, and times the order."""
        path = put(angles=None)
        path.with_name("a.mrc.mdoc").write_text(mdoc([4, 5, 3, 6, 2, 7, 1, 8, 0], end="\r\n"))
        series = nt.read(path, background="none")
        np.testing.assert_allclose(series.angle, ANGLES)
        assert series.order.values.tolist() == [8, 6, 4, 2, 0, 1, 3, 5, 7]
        assert series.attrs["pixel_size"] == pytest.approx(0.788)
        assert series.attrs["voltage_kv"] == 300
        # -85.5° is the axis to the right (-90°), and 4.5° to be turned.
        assert series.attrs["tilt_axis_deg"] == pytest.approx(4.5)
        np.testing.assert_array_equal(series.values, counts.transpose(2, 0, 1)[..., ::-1])

    @pytest.mark.parametrize("name", ["a.mdoc", "A.MDOC", "a.mrc.mdoc"])
    def test_its_names(self, put, name):
        path = put(angles=None)
        path.with_name(name).write_text(mdoc())
        np.testing.assert_allclose(nt.read(path).angle, ANGLES)
        np.testing.assert_allclose(nt.read(path.with_name(name)).angle, ANGLES)  # the stack is found by it

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (mdoc(range(8)), r"8 sections in .* and 9 images"),
            (mdoc([0, 1, 2, 3, 4, 5, 6, 7, 0]), "ZValue = 0 twice"),
            (mdoc(head="ImageSize = 1024 1024"), r"images of 1024 x 1024 in .*, and of 24 x 20 in"),
            (mdoc().replace("[ZValue = 8]", "[ZValue = 9]"), r"ZValue = 9 in .*, and images 0 to 8"),
            (mdoc().replace("TiltAngle = 60.000\n", ""), "0 of ZValue = 8"),
            (mdoc().replace("= 60.000", "= sixty"), "'sixty'"),
            ("nothing", "needs sections"),
            ("[ZValue = -1]\nTiltAngle = 1", "needs numbers of images"),
        ],
    )
    def test_that_of_another_stack_is_refused(self, put, text, message):
        path = put(angles=None)
        path.with_name("a.mdoc").write_text(text)
        with pytest.raises(SchemaError, match=message):
            nt.read(path)

    def test_rotation_where_no_title_says_the_axis(self, put):
        path = put(angles=None)
        text = mdoc(extra="RotationAngle = 95").replace("Tilt axis angle = -85.5, ", "")
        path.with_name("a.mdoc").write_text(text)
        assert nt.read(path).attrs["tilt_axis_deg"] == pytest.approx(5)

    def test_frames_in_files_of_their_own(self, put, counts, tmp_path):
        """[FrameSet] sections name a file of frames for each angle, by a path of another machine."""
        lines = ["PixelSpacing = 10", "[T = Tilt axis angle = 0, binning = 1]"]
        for k in range(9):
            put(f"frames_{k}.mrc", np.stack([counts[k], counts[k] + 1]), angles=None)
            lines += [f"[FrameSet = {k}]", f"TiltAngle = {ANGLES[k]}", rf"SubFramePath = X:\run\frames_{k}.mrc"]
        (tmp_path / "run.mdoc").write_text("\n".join(lines))
        series = nt.read(tmp_path / "run.mdoc", background="none")
        np.testing.assert_array_equal(images_of(series), 2.0 * counts + 1)
        assert series.attrs["found"]["notes"] == "frames: 2 an angle, summed"
        (tmp_path / "frames_4.mrc").unlink()
        with pytest.raises(SchemaError, match=r"no frames_4\.mrc for"):
            nt.read(tmp_path / "run.mdoc")


class TestAngles:
    def test_the_order_of_sources(self, put, tmp_path):
        near = ANGLES + 0.3
        path = put(extended=old_fei(ANGLES - 0.1), angles=near)
        assert "from a.rawtlt" in nt.read(path, tilt_axis="y").attrs["found"]["angles"]
        (tmp_path / "given.csv").write_text("image,angle\n" + "".join(f"{k},{a}\n" for k, a in enumerate(ANGLES)))
        given = nt.read(path, angles=tmp_path / "given.csv", tilt_axis="y")
        assert "from given.csv" in given.attrs["found"]["angles"]
        np.testing.assert_allclose(given.angle, ANGLES)
        path.with_suffix(".rawtlt").unlink()
        np.testing.assert_allclose(nt.read(path, tilt_axis="y").angle, ANGLES - 0.1, atol=1e-5)

    def test_sources_that_differ(self, put):
        path = put(extended=old_fei(ANGLES + np.eye(9)[4]), angles=ANGLES)
        with pytest.raises(
            SchemaError, match=r"0° in a\.rawtlt and 1° in the FEI extended header for image 5 \(1 of 9"
        ):
            nt.read(path)
        np.testing.assert_allclose(nt.read(path, disagreement="ignore", tilt_axis="y").angle, ANGLES)
        path = put(extended=old_fei(), angles=ANGLES[:8])
        with pytest.raises(SchemaError, match=r"needs one angle for each image \(9\); got 8 angles in a\.rawtlt"):
            nt.read(path)

    def test_without_angles_a_stack_is_no_volume(self, put, run, tmp_path):
        path = put(angles=None)
        for call in (lambda: nt.read(path), lambda: nt.read(path, kind="series")):
            with pytest.raises(
                SchemaError, match=r"needs the tilt angles of the images; got 9 images .*, no file a\.rawtlt"
            ):
                call()
        assert "--as volume, if the images are slices" in run("import", path, "-o", "v.zarr", exit_code=2).output
        assert "tilt axis: along y of the images, as given" in (
            run("import", path, "--angles", self._given(tmp_path), "--tilt-axis", "y", "-o", "s.zarr").output
        )
        assert "tilt axis: along y of the images, as given" in run("info", "s.zarr").output
        run("import", path, "--as", "volume", "-o", "v.zarr")
        assert nt.open("v.zarr").dims == ("z", "y", "x")

    @staticmethod
    def _given(folder):
        (folder / "given.tlt").write_text("\n".join(map(str, ANGLES)))
        return folder / "given.tlt"

    def test_what_lies_beside_is_told(self, put, tmp_path):
        """A text that holds no angles may be anything."""
        path = put(angles=None, extended=old_fei())
        (tmp_path / "a.txt").write_text("a good day\n")
        assert "a.txt beside it is left out" in nt.read(path).attrs["found"]["notes"]
        (tmp_path / "a.rawtlt").write_text("a good day\n")
        with pytest.raises(SchemaError, match="needs at least one angle; got none in"):
            nt.read(path)

    def test_all_angles_zero(self, put):
        with pytest.raises(SchemaError, match="got 0° for all 9 images"):
            nt.read(put(angles=np.zeros(9)))

    def test_the_log_of_a_microscope(self, put, tmp_path):
        log = [f"11/18/11 10:36:4{k}  {text}" for k, text in enumerate(
            ["Used parameters", "  Image pixel size [nm]: 3.36", "  Tilt Axis Angle [\xb0]:90.00"]
        )]  # fmt: skip
        (tmp_path / "a.txt").write_bytes("\r\n".join(log).encode("latin-1"))
        series = nt.read(put(replaced=[(40, bytes(12))]))
        assert series.attrs["pixel_size"] == 3.36
        assert "90° from the vertical of the images, from a.txt" in series.attrs["found"]["tilt_axis"]


class TestChoice:
    DOSE_SYMMETRIC = (0, 15, -15, -30, 30, 45, -45, -60, 60)

    def test_sorted_with_the_order_kept(self, put, counts):
        series = nt.read(put(angles=self.DOSE_SYMMETRIC), background="none", tilt_axis="y")
        order = np.argsort(self.DOSE_SYMMETRIC)
        np.testing.assert_array_equal(series.angle, ANGLES)
        np.testing.assert_array_equal(series.order, order)
        np.testing.assert_array_equal(images_of(series), counts[order])

    def test_repeats(self, put, counts):
        """Two images at 0°."""
        angles = [-60, -45, -30, 0, 0.0, 30, 45, 60, 70]
        path = put(angles=angles)
        with pytest.raises(SchemaError, match=r"needs every angle once; got 0° \(images 4, 5\).*repeats=.sum"):
            nt.read(path)
        wanted = counts.astype(float)
        for repeats, both in {"sum": wanted[3] + wanted[4], "mean": (wanted[3] + wanted[4]) / 2}.items():
            series = nt.read(path, repeats=repeats, background="none", tilt_axis="y")
            np.testing.assert_array_equal(images_of(series)[3], both)
            assert series.order.values.tolist() == list(range(8))
        kept = nt.read(path, repeats="keep", background="none", tilt_axis="y")
        np.testing.assert_allclose(kept.angle[3:5], [0, 0.001])
        np.testing.assert_array_equal(images_of(kept), counts)
        backwards = nt.read(put("b.mrc", counts[::-1], angles=angles[::-1]), repeats="keep", tilt_axis="y")
        np.testing.assert_allclose(backwards.angle, kept.angle)
        assert backwards.order.values.tolist() == [8, 7, 6, 4, 5, 3, 2, 1, 0]  # of one angle, by the order of the file
        left = nt.read(path, exclude=[4], background="none", tilt_axis="y")
        np.testing.assert_array_equal(images_of(left), np.delete(counts, 3, axis=0))

    def test_frames_of_a_stack(self, put, counts):
        angles = np.repeat([-60, 0, 60], 3)
        summed = counts.reshape(3, 3, *SHAPE[1:]).sum(axis=1)
        for repeats, wanted in {None: summed, "mean": np.float32(summed / 3)}.items():
            series = nt.read(put(angles=angles), repeats=repeats, background="none", tilt_axis="y")
            np.testing.assert_array_equal(images_of(series), wanted)
        background = nt.read(put(angles=angles), background=5, tilt_axis="y")
        np.testing.assert_array_equal(images_of(background), summed - 15)

    def test_files_of_one_image_each(self, put, counts):
        paths = [put(f"tilt_{k}.mrc", counts[k], angles=None) for k in range(9)]
        series = nt.read(paths, angles=ANGLES, background="none")
        np.testing.assert_array_equal(images_of(series), counts)
        assert len(series.attrs["recipe"]["parameters"]["sources"]) == 9
        # The folder as a series, with the only file of angles in it.
        (paths[0].parent / "angles.tlt").write_text("\n".join(map(str, ANGLES)))
        np.testing.assert_array_equal(nt.read(paths[0].parent, background="none").values, series.values)

    def test_images_of_several_sizes(self, put, counts):
        paths = [put("one.mrc", counts, angles=None), put("two.mrc", counts[:, 1:], angles=None)]
        with pytest.raises(SchemaError, match=r"one\.mrc of 24 x 20 pixels and two\.mrc of 24 x 19 pixels"):
            nt.read(paths)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"exclude": [0]}, "numbers of images from 1 to 9"),
            ({"exclude": range(1, 9)}, "needs at least 2 projections"),
            ({"keep_deg": [0, 1]}, "at least 2 projections near the angles"),
            ({"bin": 0}, "needs a binning of at least 1"),
            ({"bin": 11}, "needs at least 2 bins along the lines"),
            ({"crop": ((0, 25), (0, 20))}, r"needs columns from 0 to 24 to crop to; got 0:25"),
            ({"crop": ((5, 5), (0, 20))}, "needs columns from 0 to 24"),
            ({"pixel_size_nm": -1}, "needs a pixel size above zero"),
            ({"background": float("nan")}, "needs a background that is a number"),
            ({"contrast": "dark"}, 'needs a contrast "as-is" or "bright-field"'),
            ({"contrast": "bright-field", "background": -3}, "needs bright counts above zero"),
            ({"background": "some"}, "needs a background that is a number"),
            ({"fill": float("inf")}, "needs a finite value to fill with"),
            ({"tilt_axis": "z"}, "needs a tilt axis along x or y"),
            ({"dataset": "A"}, "needs options that MRC has; got dataset for MRC"),
            ({"kind": "volume", "keep_deg": [0, 5]}, "needs a tilt series for keep_deg"),
        ],
    )
    def test_parameters_that_do_not_fit(self, put, options, message):
        with pytest.raises(SchemaError, match=message):
            nt.read(put(), **options)

    def test_one_image(self, put, counts):
        with pytest.raises(SchemaError, match=r"needs at least 2 projections; got one image in .*; try: all files"):
            nt.read(put(data=counts[0], angles=[0]))


class TestAssembling:
    @pytest.mark.parametrize("tilt_axis", ["x", "y", 0, 90, -90, 180, 87.5])
    @pytest.mark.parametrize("factor", [1, 2, 3])
    def test_parts_turned_and_binned(self, put, counts, tilt_axis, factor):
        """Against NumPy on the whole array, with slabs of any height."""
        crop = ((1, 24), (2, 19))
        options = {"crop": crop, "bin": factor, "background": 7, "tilt_axis": tilt_axis}
        series = nt.read(put(), **options)
        part = counts[:, 2:19, 1:24].astype(np.float64)
        lines, columns = part.shape[1] // factor, part.shape[2] // factor
        part = part[:, : lines * factor, : columns * factor]
        part = part.reshape(9, lines, factor, columns, factor).mean(axis=(2, 4))
        turned = {
            "y": part,
            "x": part.transpose(0, 2, 1),
            90: part.transpose(0, 2, 1)[:, ::-1],
            -90: part.transpose(0, 2, 1)[:, :, ::-1],
            180: part[:, ::-1, ::-1],
        } | {0: part, 87.5: part.transpose(0, 2, 1)[:, ::-1]}
        # A sum of nine whole numbers divided in double precision, rounded to float32: the last bit at most.
        np.testing.assert_allclose(images_of(series), turned[tilt_axis] - 7, rtol=2e-7, atol=2e-5)
        assert series.attrs["tilt_axis_deg"] == pytest.approx({87.5: -2.5}.get(tilt_axis, 0))
        assert series.attrs["pixel_size"] == factor
        # Where the middle of the whole image lies, the coordinates are zero.
        x = np.arange(1, 1 + columns * factor).reshape(-1, factor).mean(axis=1) - 11.5
        places = {"y": x, 0: x, 180: -x[::-1]}
        if tilt_axis in places:
            np.testing.assert_allclose(series.detector, places[tilt_axis])

    def test_slabs_of_any_height_give_the_same_bytes(self, put, monkeypatch):
        whole = nt.read(put(), tilt_axis="x", bin=2).values
        monkeypatch.setattr("nntomo_dask.compute.chunking.SLAB_BYTES", 4 * 9 * 10 * 2)
        monkeypatch.setattr("nntomo_dask.compute.chunking.TALL_SLAB_BYTES", 4 * 9 * 10 * 3)
        monkeypatch.setattr("nntomo_dask.formats.assembling._BAND_BYTES", 100)
        low = nt.read(put(), tilt_axis="x", bin=2)
        assert low.chunks[0] == (2,) * 6
        np.testing.assert_array_equal(low.values, whole)

    def test_across_the_lines_a_file_is_read_a_few_times(self, put, monkeypatch, rng):
        """A slab needs whole images there; along the lines every byte is read once."""
        shape = (9, 160, 160)
        path = put(data=rng.integers(0, 100, shape).astype(np.int16))
        monkeypatch.setattr("nntomo_dask.compute.chunking.SLAB_BYTES", 4 * 9 * 160 * 16)
        monkeypatch.setattr("nntomo_dask.compute.chunking.TALL_SLAB_BYTES", 4 * 9 * 160 * 64)
        read = []
        block = Source.block
        monkeypatch.setattr(
            Source, "block", lambda self, *args: read.append(block(self, *args).nbytes) or block(self, *args)
        )
        for tilt_axis, times in {"y": 1, "x": 3}.items():
            series = nt.read(path, tilt_axis=tilt_axis, background="none")
            read.clear()
            series.compute()
            assert sum(read) == times * 2 * np.prod(shape)

    def test_reading_is_lazy(self, put, nothing_computes):
        assert nt.read(put()).chunks is not None

    def test_fill(self, put, counts):
        data = counts.astype(np.float32)
        data[:, :2], data[3, 5] = np.nan, np.inf
        filled = nt.read(put(data=data), fill=-1, background="none", tilt_axis="y")
        np.testing.assert_array_equal(images_of(filled), np.where(np.isfinite(data), data, -1))

    def test_signs_of_angles(self, put, counts):
        series = nt.read(put(angles=ANGLES + 5), tilt_sign="left-handed", background="none", tilt_axis="y")
        np.testing.assert_allclose(series.angle, -(ANGLES + 5)[::-1])
        np.testing.assert_array_equal(images_of(series), counts[::-1])

    def test_without_a_pixel_size(self, put):
        path = put(replaced=[(40, bytes(12))])
        assert nt.read(path).attrs["units"] == "px"
        assert nt.read(path, pixel_size_nm=2.5).attrs["pixel_size"] == 2.5

    def test_the_axis_is_not_guessed(self, put, rng):
        path = put(data=rng.integers(0, 100, SHAPE).astype(np.int16))
        with pytest.raises(
            SchemaError, match=r"needs the direction of the tilt axis.*tilt_axis=.y. where it is vertical"
        ):
            nt.read(path)
        assert "next" not in nt.read(path, tilt_axis="y").attrs

    def test_the_axis_of_a_particle_is_seen_in_its_images(self, put):
        """Three particles that drift by up to three pixels, with noise: along y, and along x where images lie down."""
        for seed in range(3):
            noise = np.random.default_rng(seed)
            volume = nt.nanoparticle(48, seed=seed)
            images = nt.project(volume, np.linspace(-70, 70, 15)).values.transpose(1, 0, 2)
            images = np.stack([np.roll(one, noise.integers(-3, 4, 2), (0, 1)) for one in images])
            images += noise.normal(0, 0.02 * images.max(), images.shape).astype(np.float32)
            for axis, data in {"y": images, "x": np.swapaxes(images, 1, 2)}.items():
                series = nt.read(
                    put(data=np.ascontiguousarray(data)), angles=np.linspace(-70, 70, 15), disagreement="ignore"
                )
                assert series.attrs["found"]["tilt_axis"].startswith(f"along {axis} of the images, by the images")


class TestBackground:
    def test_offset_of_a_detector(self, put, counts):
        series = nt.read(put(data=counts - 31_900, angles=ANGLES), tilt_axis="y")
        # The background is uniform noise from 0 to 19, with a mean of 9.5; the feet of the body add some counts.
        np.testing.assert_allclose(images_of(series), counts - 9.5, atol=4)
        assert "counts subtracted, the most frequent value at the dark end" in series.attrs["found"]["background"]

    def test_bright_field(self, put, counts):
        series = nt.read(put(data=1000 - counts), tilt_axis="y")
        np.testing.assert_array_equal(images_of(series), 1000 - counts)
        assert "this is bright field; --contrast bright-field" in series.attrs["found"]["background"]
        line_integrals = nt.read(put(data=1000 - counts), tilt_axis="y", contrast="bright-field", background=1000)
        # The logarithm is taken in double precision, and rounded once.
        np.testing.assert_allclose(images_of(line_integrals), np.log(1000 / (1000 - counts.astype(float))), rtol=1e-6)
        found = nt.read(put(data=1000 - counts), tilt_axis="y", contrast="bright-field")
        assert abs(float(found.isel(detector=slice(0, 3)).mean())) < 0.01
        with pytest.raises(SchemaError, match="needs the bright level beside the specimen"):
            nt.read(put(), contrast="bright-field", tilt_axis="y")

    def test_nothing_to_subtract(self, put, counts):
        data = np.where(counts > 25, counts, 0).astype(np.int16)
        np.testing.assert_array_equal(images_of(nt.read(put(data=data), tilt_axis="y")), data)

    @pytest.mark.parametrize("value", [7, np.nan])
    def test_nothing_there(self, put, value):
        data = np.full(SHAPE, value, np.float32)
        assert "one value" in nt.read(put(data=data), tilt_axis="y").attrs["found"]["background"]


class TestVolumes:
    def test_thin_slices(self, put, rng, run, tmp_path):
        """IMOD's .rec of a thin specimen: slices that are not square, and margins that nothing fills."""
        data = rng.random((6, 5, 24)).astype(np.float32)
        data[:, 0] = np.nan
        put("a.rec", data, angles=ANGLES)
        run("import", "a.rec", "-o", "v.zarr", "--fill", 2)
        np.testing.assert_array_equal(nt.open("v.zarr").values, np.where(np.isfinite(data), data, 2))
        assert "1 NaN" not in run("info", "v.zarr").output
        run("export", "v.zarr", "again.mrc")
        np.testing.assert_array_equal(nt.read("again.mrc").values, nt.open("v.zarr").values)

    def test_bins_and_crops(self, put, counts):
        volume = nt.read(put(angles=None), kind="volume", bin=2, crop=((0, 10), (4, 20)))
        wanted = counts[:8, 4:20, :10].reshape(4, 2, 8, 2, 5, 2).mean(axis=(1, 3, 5))
        np.testing.assert_allclose(volume.values, wanted, rtol=3e-7)
        assert volume.attrs["pixel_size"] == 2


def test_the_recipe_is_that_of_the_older_function(put):
    """Where both read the same, so that stores of version 0.1.0 are recognised."""
    path = put()
    for tilt_axis in ("x", "y"):
        older = nt.read_mrc_series(path, ANGLES, tilt_axis=tilt_axis, background=7, keep_deg=[-60, 0, 60])
        newer = nt.read(path, tilt_axis=tilt_axis, background=7, keep_deg=[-60, 0, 60])
        assert recipes.same(newer.attrs["recipe"], older.attrs["recipe"])
        np.testing.assert_array_equal(newer.values, older.values)
        assert not recipes.same(nt.read(path, tilt_axis=tilt_axis, bin=2).attrs["recipe"], older.attrs["recipe"])


def test_slabs_go_to_other_processes(put):
    series = nt.read(put())
    again = pickle.loads(pickle.dumps(series.data))
    np.testing.assert_array_equal(again.compute(), series.values)


def test_a_series_that_was_exported_comes_back(series, tmp_path, run):
    off = (series + 7).isel(detector=slice(3, None), z=slice(1, None))  # and no background is looked for
    nt.write_mrc(off, tmp_path / "s.mrc")
    nt.write_tilt_angles(off.angle, tmp_path / "s.rawtlt")
    again = nt.read(tmp_path / "s.mrc")
    # .rawtlt has four decimals.
    np.testing.assert_allclose(again.angle, off.angle, atol=5.1e-5)
    np.testing.assert_array_equal(again.values, off.values)
    for dim in ("z", "detector"):
        np.testing.assert_allclose(again[dim], off[dim])
    assert "next: nntomo align" not in run("import", "s.mrc", "-o", "a.zarr").output


class TestSamples:
    """Files of microscopes, which lie beside the project where it is developed."""

    @pytest.fixture(autouse=True)
    def there(self):
        if not ETSPY.is_dir():
            pytest.skip("the samples are not there")

    def test_an_old_fei_file(self):
        series = nt.read(ETSPY / "needle256.mrc")
        np.testing.assert_array_equal(series.angle, np.arange(-76, 77, 2))
        assert series.attrs["pixel_size"] == pytest.approx(3.36)
        assert series.attrs["voltage_kv"] == 300
        assert "from needle256.txt" in series.attrs["found"]["tilt_axis"]
        low, high = np.percentile(series.isel(z=128).values, [5, 99.9])
        assert -100 < low < 100 < high

    def test_frames_of_serialem(self):
        series = nt.read(ETSPY / "SerialEM_Multiframe_Test")
        np.testing.assert_allclose(series.angle, [-5.00151, -0.000488, 5.00054])
        assert series.order.values.tolist() == [1, 0, 2]  # by the times in three files
        assert series.attrs["pixel_size"] == pytest.approx(0.788)
        np.testing.assert_allclose(series.exposure_s, 2 * 0.524)

    def test_one_angle_alone(self):
        with pytest.raises(SchemaError, match="at different angles"):
            nt.read(ETSPY / "SerialEM_MultiTilt_Test/test_000.mrc")


def test_a_header_that_asks_for_more_than_the_file_has(put):
    for place, value in ((92, 2**26), (92, 2**31 - 1), (0, 2**24), (8, 2**31 - 1), (4, -5)):
        path = put()
        raw = bytearray(path.read_bytes())
        raw[place : place + 4] = struct.pack("<i", value)
        path.write_bytes(raw)
        with pytest.raises(SchemaError, match=r"needs (a whole|an) MRC2014 file"):
            nt.read(path)


def test_a_number_of_serialem():
    """Two shorts of a number, as IMOD describes them."""
    assert mrc_extended._of_two_shorts(600, 0) == 600 * 256
    assert mrc_extended._of_two_shorts(-3, 2 * 256 + 5) == -(3 * 256 + 5) * 4
    assert mrc_extended._of_two_shorts(3, -(2 * 256 + 5)) == (3 * 256 + 5) / 4
