"""What the command line says where something is wrong: the remedy of each case, in words that can be typed.

A remedy that only Python can do has another one beside it. No message here may show a name of Python's: a parameter, a
method of xarray, a call.
"""

import pickle
import re
import struct
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import safetensors.numpy
import xarray as xr
from click.testing import CliRunner

import nntomo_dask as nt
from nntomo_dask.cli.main import main
from nntomo_dask.errors import SchemaError, refuse

# Calls and attributes of Python, and parameters of several words.
_PYTHON = re.compile(
    r"\w\(|\barray\.|\bvolume\.(?!zarr)|\battrs\[|=True|`|\b(?:size_nm|keep_deg|pixel_size|n_slices|tls_\w+)\b"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A volume, a series of it, a file of that, the state of a training, and what is no store."""
    made = tmp_path_factory.mktemp("messages")
    volume = nt.volume(np.random.default_rng(0).random((3, 16, 16), np.float32))
    series = nt.project(volume, nt.tilt_angles("tem", 4)).compute()
    nt.save(volume, made / "volume.zarr")
    nt.save(series, made / "series.zarr")
    nt.save(nt.volume(np.zeros((3, 12, 12), np.float32)), made / "smaller.zarr")
    nt.save(series.isel(detector=slice(2, 14)), made / "narrow.zarr")
    gap = series.copy(data=np.where(np.arange(16) == 3, np.nan, series.values))
    nt.save(gap, made / "gap.zarr")
    nt.write_mrc(series, made / "series.mrc")
    nt.write_tilt_angles(series.angle.values, made / "series.rawtlt")
    nt.write_mrc(volume.where(volume > 0.01), made / "holes.mrc")
    (made / "images").mkdir()
    (made / "series.mrc.gz").write_bytes(b"\x1f\x8b")
    written = {"format": "nntomo_dask.nnfbp_training", "format_version": "1"}
    (made / "net.training.safetensors").write_bytes(safetensors.numpy.save({"a": np.zeros(1)}, written))
    return made


@pytest.fixture
def tell(folder, monkeypatch):
    """Run `nntomo`, which must refuse; gives what it says."""
    monkeypatch.chdir(folder)

    def call(*words):
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == 2, result.output
        return result.output

    return call


_TRAIN = ("train", "-o", "new.safetensors")
_SIMULATE = ("simulate", "--range", "tem", "--count", "2", "-o", "new.zarr")
_TRUTH = ("truth", "-o", "new.zarr")
_NEW = ("-o", "new.zarr")
_ANGLES = ("--angles", "series.rawtlt", *_NEW)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("imprt", "series.mrc"), "No such command 'imprt'. Did you mean 'import'?"),
        (("denoise", "series.mrc"), "No such command 'denoise'. There are demo, import, "),
        (("import", "images", *_ANGLES), "got images, a folder without images; try: check the path"),
        (("import", "series.zarr", *_NEW), "series.zarr, which is a store already; try: use it as it is"),
        (("import", "nothing", *_NEW), "got nothing at nothing; try: check the path"),
        (("import", "series.rawtlt", *_ANGLES), "which is none; try: save it as MRC, "),
        (("import", "series.mrc.gz", *_ANGLES), "series.mrc.gz, which is damaged"),
        (("import", "series.mrc", *_ANGLES, "--keep", "20:25:5"), "try: a wider --keep START:STOP:STEP"),
        (("import", "holes.mrc", *_NEW), "try: import the file with --fill VALUE"),
        (("reconstruct", "gap.zarr", "--method", "fbp", *_NEW), "try: import the file with --fill VALUE"),
        (
            ("reconstruct", "series.mrc", "--method", "fbp", *_NEW),
            "series.mrc -o STORE, with --angles FILE for a tilt series",
        ),
        (("reconstruct", "images", "--method", "fbp", *_NEW), "the whole folder that a command wrote as its output"),
        (
            ("compare", "net.training.safetensors", "--reference", "volume.zarr"),
            "check the path; a network is given by",
        ),
        (("compare", "series.zarr", "--reference", "volume.zarr"), "compare series.zarr: needs a volume"),
        (("compare", "volume.zarr", "--reference", "series.zarr"), "compare with series.zarr: needs a volume"),
        (
            ("compare", "smaller.zarr", "--reference", "volume.zarr"),
            "try: volumes of one size; nntomo info STORE shows",
        ),
        (
            ("compare", "volume.zarr", "--reference", "volume.zarr", "--figure", "a.png", "--slice", "9"),
            "--slice: 9; along z there are slices 0 to 2",
        ),
        (
            ("reconstruct", "series.zarr", "--method", "nnfbp", "--network", "net.training.safetensors", *_NEW),
            "the state of a training; try: the network, net.safetensors, which is written when its training has ended",
        ),
        (
            ("reconstruct", "series.zarr", "--method", "nnfbp", "--network", "series.zarr", *_NEW),
            "got a folder, series.zarr",
        ),
        ((*_TRAIN, "--for", "volume.zarr"), "train: needs a tilt series; got a volume"),
        ((*_TRAIN, "--series", "series.zarr"), "got 1 series and 0 volumes; try: give a --volume for each --series"),
        (
            (*_TRAIN, "--for", "series.zarr", "--noise", "none", "--seed", "-1"),
            "needs a whole number from 0 as seed; got -1; try: --seed 0",
        ),
        (("train", "--for", "series.zarr", "-o", "series.rawtlt"), "which is something else; try: another --output"),
        (
            (
                *(*_TRAIN, "--network", "msdnet", "--validation-series", "series.zarr"),
                *("--validation-volume", "volume.zarr", "--series", "series.zarr", "--volume", "volume.zarr"),
                *("--series", "narrow.zarr", "--volume", "smaller.zarr"),
            ),
            "got 16 and 12; try: series of one size, or train for one of them",
        ),
        (
            ("project", "volume.zarr", "--range", "tem", "--count", "4", "--tls-key", "series.mrc", *_NEW),
            "needs the address of a scheduler for --tls-key; got none; try: --scheduler tls://host:8786",
        ),
        ((*_TRUTH, "--like", "series.zarr"), "got an array; try: nntomo truth STRUCTURE"),
        ((*_TRUTH, "UiO-66", "--mode", "haadf", "--exponent", "nan"), "try: --exponent 1.7, or leave it out"),
        ((*_TRUTH, "UiO-66", "--mode", "idpc", "--repeat", "1,2"), "write one count, 2, or three, 2,2,1"),
        ((*_SIMULATE, "nothing.cif"), "needs a file of a structure; got nothing at nothing.cif; try: check the path"),
        ((*_SIMULATE, "a/UiO-66"), "got nothing at a/UiO-66; try: check the path"),
        ((*_SIMULATE, "UiO-66", "--shape", "sphere"), "needs --size-nm of a sphere: one number above 0; got none"),
    ],
)
def test_the_remedy_fits_and_can_be_typed(tell, words, message):
    if words[0] in ("simulate", "truth"):
        pytest.importorskip("abtem")
    if "msdnet" in words:
        pytest.importorskip("torch")
    said = tell(*words)
    assert message in said
    assert not _PYTHON.search(said.split("Error: ")[-1]), said


@pytest.mark.parametrize(
    ("make", "python", "command"),
    [
        (
            lambda volume: nt.check_finite(volume.where(volume > 0.5), who="here"),
            "array.where(np.isfinite(array), value)",
            "import the file with --fill VALUE",
        ),
        (lambda volume: nt.check_volume(xr.Dataset({"a": volume}), who="here"), 'dataset["a"]', "STORE/a"),
        (
            lambda volume: nt.check_volume(volume.isel(y=slice(3)), who="here"),
            "volume.pad(…)",
            "in the program that made the volume",
        ),
    ],
)
def test_python_and_the_command_line_have_their_own_remedy(volume, make, python, command):
    with pytest.raises(SchemaError) as caught:
        make(volume)
    assert python in str(caught.value)
    assert command not in str(caught.value)
    assert command in caught.value.spelled(str)
    assert python not in caught.value.spelled(str)


@pytest.mark.parametrize(
    ("call", "remedy"),
    [
        (lambda series: nt.fbp(series.isel(z=0)), "array.isel(z=[0]), a selection by a list or a slice"),
        (lambda series: nt.fbp(series.transpose("angle", "z", ...)), "array.transpose('z', 'angle', 'detector')"),
        (lambda series: nt.fbp(series.expand_dims("time")), "array.rename(…), or a selection by numbers"),
        (lambda series: nt.fbp(series, window="none"), 'try: window="hann"'),
        (lambda series: nt.sirt(series, max_iterations=0), "try: max_iterations=1000"),
        (lambda series: nt.tilt_series(series.values, "a.rawtlt"), "try: read_tilt_angles(path)"),
        (lambda series: nt.nnfbp(series, "net.safetensors"), "try: load_network(path)"),
        (lambda series: nt.nnfbp(series, []), "try: nnfbp(series, load_network(path))"),
        (lambda series: nt.reconstruct(series, Path("net.safetensors")), "try: load_network(path)"),
        (lambda series: nt.train_nnfbp(series, series), "got another DataArray; try: make one by training"),
    ],
)
def test_python_is_told_a_call(series, call, remedy):
    with pytest.raises(SchemaError) as caught:
        call(series)
    assert remedy in str(caught.value)
    assert "`" not in str(caught.value)
    assert "--" not in str(caught.value)


def test_the_remedy_of_the_command_line_survives_a_worker():
    """Errors of worker processes are pickled."""
    with pytest.raises(SchemaError) as caught:
        refuse("here", needs="this", got="that", remedy="call()", command="`option=2`")
    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error) == "here: needs this; got that; try: call()"
    assert error.spelled(str.upper) == "here: needs this; got that; try: OPTION=2"


class TestHeaders:
    """Files of MRC with one thing wrong in the header: the whole of them need not be copied again."""

    @pytest.fixture
    def stack(self, tmp_path):
        """A path, and what writes a stack there with some bytes of the header replaced."""
        path = tmp_path / "a.mrc"

        def write(replaced=(), cut=None):
            with mrcfile.new(path, overwrite=True) as mrc:
                mrc.set_data(np.ones((3, 4, 6), np.float32))
                mrc.voxel_size = 10
            content = bytearray(path.read_bytes())
            for place, bytes_there in replaced:
                content[place : place + len(bytes_there)] = bytes_there
            path.write_bytes(content[:cut])
            return path

        return write

    @pytest.mark.parametrize(
        ("replaced", "message"),
        [
            (
                [(12, struct.pack("<i", 16))],
                r"its mode is 16, colour, which is not read here\); try: check the path, or save",
            ),
            ([(0, struct.pack("<i", -3))], r"which no stack has\); try: check the path, or save"),
            (
                [(40, struct.pack("<3f", 60, 80, 30))],
                "needs square pixels; got 1 nm along x and 2 nm along y in .*; try: resample",
            ),
        ],
    )
    def test_a_header_that_is_not_read(self, stack, replaced, message):
        path = stack(replaced)
        for read in (lambda: nt.read_mrc_series(path, [0, 1, 2]), lambda: nt.read_mrc_volume(path)):
            with pytest.raises(SchemaError, match=message) as caught:
                read()
            assert "copy" not in str(caught.value)

    def test_a_file_that_is_cut(self, stack):
        with pytest.raises(
            SchemaError, match=r"it has 1200 bytes, and its header says 1312\); try: copy the file again"
        ):
            nt.read_mrc_series(stack(cut=1200), [0, 1, 2])

    def test_a_file_that_is_longer(self, stack):
        path = stack()
        path.write_bytes(path.read_bytes() + bytes(7))
        with pytest.warns(UserWarning, match=r"a\.mrc has 7 bytes more than its header says; they are left out"):
            read = nt.read_mrc_series(path, [0, 1, 2])
        assert (read.values == 1).all()

    @pytest.mark.parametrize("sizes", [(0, 0, 0), (60, 0, 30), (60, 40.1, 90), (60, 39.9, 1)])
    def test_sizes_that_are_not_given_or_rounded(self, stack, sizes):
        """A series needs none along its angles."""
        series = nt.read_mrc_series(stack([(40, struct.pack("<3f", *sizes))]), [0, 1, 2])
        np.testing.assert_allclose(np.diff(series.z), 1)
        np.testing.assert_allclose(np.diff(series.detector), 1)

    def test_slices_further_apart_than_pixels(self, tmp_path):
        path = tmp_path / "b.mrc"
        with mrcfile.new(path) as mrc:
            mrc.set_data(np.ones((3, 4, 4), np.float32))
            mrc.voxel_size = (10, 10, 25)
        with pytest.warns(UserWarning, match=r"slices of .*b\.mrc are 2\.5 nm apart, and its pixels are 1 nm wide"):
            volume = nt.read_mrc_volume(path)
        np.testing.assert_allclose(volume.z, [-2.5, 0, 2.5])
        np.testing.assert_allclose(volume.x, [-1.5, -0.5, 0.5, 1.5])

    def test_what_is_written_with_two_steps_is_read_without_a_word(self, tmp_path):
        """Every second slice of five: centred, and twice as far apart."""
        whole = nt.volume(np.ones((5, 4, 4), np.float32), pixel_size=0.5, units="nm")
        nt.write_mrc(whole.isel(z=slice(None, None, 2)), tmp_path / "c.mrc")
        np.testing.assert_allclose(nt.read_mrc_volume(tmp_path / "c.mrc").z, [-1, 0, 1])
        series = nt.project(whole, [0, 40, 80]).isel(z=slice(None, None, 2))
        nt.write_mrc(series, tmp_path / "d.mrc")
        np.testing.assert_allclose(nt.read_mrc_series(tmp_path / "d.mrc", [0, 40, 80]).z, [-1, 0, 1])
