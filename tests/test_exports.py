"""Exports, opened by the libraries of their formats: voxels, scale, axes; and what stands in the way of one."""

import json
import warnings

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr

import nntomo_dask as nt
from nntomo_dask import aside
from nntomo_dask.arrays import blocks, recipes
from nntomo_dask.formats import tiff_writing, writing
from nntomo_dask.formats.format import format_to_write
from nntomo_dask.formats.numbers import Numbers
from nntomo_dask.formats.ome_zarr_writing import OmeZarrSettings

ANGLES = {
    "even": [-60.0, -20.0, 20.0, 60.0],
    "uneven": [-60.0, -21.5, 20.0, 62.0],
    "disorder": [0.0, 20.0, -20.0, 50.0],
}


@pytest.fixture
def a_volume(rng):
    """An asymmetric volume of 11 slices in nm, off the axis, in slabs of unequal heights."""
    volume = nt.volume(rng.random((11, 20, 20), np.float32), pixel_size=0.5, units="nm")
    moved = volume.assign_coords(x=volume.x + 1.25)
    return moved.chunk(z=(4, 1, 6))


@pytest.fixture(params=list(ANGLES))
def a_series(request, rng):
    return nt.tilt_series(rng.random((9, 4, 14), np.float32), ANGLES[request.param], pixel_size=0.5, units="nm").chunk(
        z=(2, 7)
    )


@pytest.fixture(params=["volume", "series"])
def an_array(request, a_volume, rng):
    if request.param == "volume":
        return a_volume
    return nt.tilt_series(rng.random((9, 4, 14), np.float32), ANGLES["even"], pixel_size=0.5, units="nm").chunk(z=4)


def in_file(array):
    """The values as files of matrices hold them: the first line of an image is the upper one, and y goes down."""
    if "angle" in array.dims:
        return np.moveaxis(array.values[::-1], 0, 1)
    return array.values[:, ::-1]


def write(array, path, how=None):
    kind = format_to_write(path, who="test")
    keywords = {} if kind.writing is None else {"how": how or kind.writing()}
    files = kind.write(array, path, **keywords)
    assert files == ([path] if kind.is_folder(path) else kind.outputs(array, path))
    return files


def values_of(path):
    """The values of a file by the format's own library."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix in (".tif", ".tiff"):
        return tifffile.imread(path)
    if path.suffix == ".hspy":
        with h5py.File(path) as file:
            (signal,) = file["Experiments"].values()
            return signal["data"][:]
    if path.suffix == ".zspy":
        ((_, signal),) = zarr.open_group(path, mode="r")["Experiments"].groups()
        return signal["data"][:]
    return zarr.open_group(path, mode="r")["0"][:]


NAMES = ["a.npy", "a.tif", "a.hspy", "a.zspy", "a.ome.zarr"]


@pytest.mark.parametrize("name", NAMES)
def test_voxels_are_those_of_the_array(an_array, tmp_path, name):
    write(an_array, tmp_path / name)
    np.testing.assert_array_equal(values_of(tmp_path / name), in_file(an_array))


@pytest.mark.parametrize("name", ["a.mrc", *NAMES])
def test_bytes_do_not_depend_on_slabs(an_array, tmp_path, name):
    """So neither on the memory, by which slabs are chosen."""
    found = []
    for number, slices in enumerate((1, 3, -1)):
        place = tmp_path / str(number)
        write(an_array.chunk(z=slices), place / name)
        found.append({file.relative_to(place): content(file) for file in sorted(place.rglob("*")) if file.is_file()})
    assert found[0] == found[1] == found[2]
    assert len(found[0]) > 0


def content(file):
    """The bytes of a file, but for the recipe, which says how an array was rechunked."""
    text = file.read_bytes()
    if file.name in ("zarr.json", ".zattrs", ".zmetadata", "a.npy.json"):
        return json.dumps(without_recipes(json.loads(text)))
    if file.suffix == ".hspy":
        with h5py.File(file) as opened:
            (signal,) = opened["Experiments"].values()
            said = json.loads(signal["original_metadata/nntomo_dask"].attrs["json"])
            return json.dumps(without_recipes(said)), signal["data"][:].tobytes()
    if file.suffix == ".tif":
        with tifffile.TiffFile(file) as opened:
            return json.dumps(without_recipes(json.loads(opened.imagej_metadata["Info"]))), opened.asarray().tobytes()
    return text


def without_recipes(said):
    if isinstance(said, str) and said.startswith("{"):
        return without_recipes(json.loads(said))
    if isinstance(said, dict):
        return {key: without_recipes(value) for key, value in said.items() if key != "recipe"}
    return [without_recipes(one) for one in said] if isinstance(said, list) else said


class TestTiff:
    def test_imagej_finds_scale_and_unit(self, an_array, tmp_path):
        write(an_array, tmp_path / "a.tif")
        with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
            page, said = tiff.pages[0], tiff.imagej_metadata
            assert tiff.series[0].axes == ("ZYX" if "y" in an_array.dims else "TYX")
        for tag in ("XResolution", "YResolution"):
            over, under = page.tags[tag].value
            assert over / under == 2  # pixels a nanometre
        assert said["unit"] == "nm"
        assert said["spacing"] == (0.5 if "y" in an_array.dims else 1)
        about = json.loads(said["Info"])
        assert about["first_line"] == "top"
        assert "right-handed" in about["about_axes"]

    def test_a_series_has_its_angles_beside_it(self, a_series, tmp_path):
        files = write(a_series, tmp_path / "s.tiff")
        assert files[1] == tmp_path / "s.rawtlt"
        np.testing.assert_array_equal(nt.read_tilt_angles(files[1]), a_series.angle.values)

    def test_a_large_one_is_a_bigtiff_of_the_same_images(self, an_array, tmp_path, monkeypatch):
        """Where a file of 4 GB begins is moved, as such a file would take long."""
        monkeypatch.setattr(tiff_writing, "MOST_BYTES", 1000)
        write(an_array, tmp_path / "a.tif")
        with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
            assert tiff.is_bigtiff
            assert tiff.imagej_metadata["unit"] == "nm"
            assert tiff.imagej_metadata["images"] == in_file(an_array).shape[0]
            assert json.loads(tiff.pages[0].tags[65000].value)["written_by"] == "nntomo_dask"
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), in_file(an_array))


class TestHyperSpy:
    """By RosettaSciIO, which reads .hspy; .zspy needs Zarr 2 there: its layout is compared with that of .hspy."""

    @pytest.mark.parametrize("lazy", [False, True])
    def test_axes_and_values(self, an_array, tmp_path, lazy):
        import rsciio.hspy

        write(an_array, tmp_path / "a.hspy")
        (signal,) = rsciio.hspy.file_reader(tmp_path / "a.hspy", lazy=lazy)
        np.testing.assert_array_equal(np.asarray(signal["data"]), in_file(an_array))
        first, row, column = signal["axes"]
        assert [one["navigate"] for one in signal["axes"]] == [True, False, False]
        assert (row["scale"], row["units"], row["name"]) == (0.5, "nm", "y")
        assert (column["scale"], column["units"], column["name"]) == (0.5, "nm", "x")
        if "y" in an_array.dims:
            assert (first["name"], first["scale"], first["units"]) == ("z", 0.5, "nm")
            assert column["offset"] == an_array.x.values[0]
            assert row["offset"] == -an_array.y.values[-1]  # y from the viewer: right-handed with x and z
        else:
            assert (first["name"], first["scale"], first["offset"], first["units"]) == ("angle", 40, -60, "degree")
        assert "right-handed" in signal["metadata"]["General"]["notes"]

    def test_angles_of_every_order(self, a_series, tmp_path):
        import rsciio.hspy

        write(a_series, tmp_path / "s.hspy")
        (signal,) = rsciio.hspy.file_reader(tmp_path / "s.hspy")
        np.testing.assert_array_equal(signal["metadata"]["Tomography"]["tilts"], a_series.angle.values)
        axis, angles = signal["axes"][0], a_series.angle.values
        steps = np.diff(angles)
        if np.allclose(steps, steps[0]):
            np.testing.assert_allclose(axis["offset"] + axis["scale"] * np.arange(4), angles)
        elif (steps > 0).all():
            np.testing.assert_array_equal(axis["axis"], angles)
        else:
            assert (axis["scale"], axis["units"]) == (1, "")

    def test_a_folder_has_the_layout_of_a_file(self, an_array, tmp_path):
        write(an_array, tmp_path / "a.hspy")
        write(an_array, tmp_path / "a.zspy")
        root = zarr.open_group(tmp_path / "a.zspy", mode="r")
        assert root.metadata.zarr_format == 2
        assert root.attrs["file_format"] == "ZSpy"
        found = {}
        with h5py.File(tmp_path / "a.hspy") as file:
            file.visititems(lambda name, node: found.update({name: dict(node.attrs)}))
        for name, attributes in found.items():
            there = dict(root[name].attrs)
            assert there.keys() == attributes.keys(), name
            for key, value in attributes.items():
                assert there[key] == (value.item() if isinstance(value, np.generic) else value), (name, key)


class TestOmeZarr:
    def test_it_is_valid_and_has_its_scale(self, an_array, tmp_path):
        write(an_array, tmp_path / "a.ome.zarr", OmeZarrSettings(levels=3))
        yaozarrs.validate_zarr_store(tmp_path / "a.ome.zarr")
        group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
        assert group.metadata.zarr_format == 3
        assert group.attrs["ome"]["version"] == "0.5"
        (image,) = group.attrs["ome"]["multiscales"]
        is_volume = "y" in an_array.dims
        assert [axis["name"] for axis in image["axes"]] == (["z", "y", "x"] if is_volume else ["angle", "y", "x"])
        assert [axis.get("unit") for axis in image["axes"]][1:] == ["nanometer"] * 2
        for level, dataset in enumerate(image["datasets"]):
            scale, translation = dataset["coordinateTransformations"]
            steps, moved = scale["scale"], translation["translation"]
            assert steps[1:] == [0.5 * 2**level] * 2
            assert group[str(level)].metadata.dimension_names == tuple(axis["name"] for axis in image["axes"])
            if is_volume:
                # The middle of the first voxel: that of the 2**level voxels of which it is the mean.
                assert moved[2] == pytest.approx(an_array.x.values[: 2**level].mean())
                assert moved[1] == pytest.approx((-an_array.y.values[::-1])[: 2**level].mean())
        assert "right-handed" in group.attrs["nntomo_dask_export"]["about_axes"]

    def test_levels_are_means(self, an_array, tmp_path):
        """Of the voxels below them, also at the end of an odd length, by double precision."""
        write(an_array, tmp_path / "a.ome.zarr", OmeZarrSettings(levels=3))
        group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
        axes = (0, 1, 2) if "y" in an_array.dims else (1, 2)
        wanted = in_file(an_array).astype(np.float64)
        for level in range(3):
            # Three means of float32 values below 1, each rounded by at most 2**-25, at each level.
            np.testing.assert_allclose(group[str(level)][:], wanted, atol=3 * level * 2**-25, rtol=0)
            for axis in axes:
                wanted = mean_of_pairs(wanted, axis)

    def test_the_number_of_levels(self, tmp_path, rng):
        volume = nt.volume(rng.random((3, 300, 300), np.float32))
        write(volume, tmp_path / "a.ome.zarr")
        assert sorted(dict(zarr.open_group(tmp_path / "a.ome.zarr", mode="r").arrays())) == ["0", "1", "2"]
        with pytest.raises(nt.SchemaError, match="needs at most 9 levels of this size; got 10; try: levels=9"):
            write(volume, tmp_path / "b.ome.zarr", OmeZarrSettings(levels=10))
        assert not (tmp_path / "b.ome.zarr").exists()

    def test_angles_stand_in_the_attributes(self, a_series, tmp_path):
        write(a_series, tmp_path / "s.ome.zarr")
        yaozarrs.validate_zarr_store(tmp_path / "s.ome.zarr")
        said = zarr.open_group(tmp_path / "s.ome.zarr", mode="r").attrs["nntomo_dask_export"]
        assert said["angles_deg"] == a_series.angle.values.tolist()


def mean_of_pairs(values, axis):
    size = values.shape[axis]
    return np.stack(
        [np.take(values, range(i, min(i + 2, size)), axis=axis).mean(axis=axis) for i in range(0, size, 2)], axis=axis
    )


class TestIntegers:
    @pytest.mark.parametrize("kind", ["uint8", "int16", "uint16"])
    @pytest.mark.parametrize("name", ["a.mrc", "a.tif", "a.npy", "a.ome.zarr"])
    def test_values_come_back_within_half_a_step(self, an_array, tmp_path, name, kind):
        scaled = an_array * 7 - 3
        path = tmp_path / name
        files = write(scaled, path, OmeZarrSettings(type=kind) if "zarr" in name else Numbers(type=kind))
        if name == "a.mrc":
            with mrcfile.open(path) as mrc:
                stored = mrc.data.view(np.uint8) if kind == "uint8" else mrc.data.copy()
                text = next(label for label in mrc.get_labels() if "stored" in label)
                statistics = float(mrc.header.dmin), float(mrc.header.dmax)
            stored = np.asarray(stored) if "y" in an_array.dims else np.asarray(stored)[:, ::-1]
            assert statistics == (np.iinfo(kind).min, np.iinfo(kind).max)
        else:
            stored, text = values_of(path), said_of(path, files)
        assert stored.dtype == kind
        zero, step = (float(text.split(word)[1].split()[0]) for word in ("value =", "+ "))
        # Half a step, and the nine digits in which the scale is written.
        bound = step / 2 + 2e-8 * np.iinfo(kind).max * step
        assert np.abs(zero + step * stored.astype(np.float64) - in_file(scaled)).max() <= bound
        assert step == pytest.approx(float(np.ptp(scaled.values)) / (2 ** (8 * stored.itemsize) - 1), rel=1e-6)

    def test_imod_and_our_reader_take_bytes_as_unsigned(self, a_volume, tmp_path):
        write(a_volume, tmp_path / "a.mrc", Numbers(type="uint8"))
        header = (tmp_path / "a.mrc").read_bytes()[:1024]
        stamp, flags = np.frombuffer(header[152:160], "<i4")
        assert (stamp, flags & 1, flags & 4) == (1146047817, 0, 4)  # unsigned; the origin's sign is that of MRC2014
        assert nt.read_mrc_volume(tmp_path / "a.mrc").values.max() == 255

    def test_a_range_of_ones_own(self, a_volume, tmp_path):
        write(a_volume, tmp_path / "a.npy", Numbers(type="uint8", range=(0.25, 0.75)))
        wanted = np.clip(np.rint((in_file(a_volume).astype(np.float64) - 0.25) / (0.5 / 255)), 0, 255)
        np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), wanted)

    def test_percentiles(self, a_volume, tmp_path):
        outlier = a_volume.copy(data=a_volume.values)
        outlier.values[3, 2, 1] = 1e6
        write(outlier.chunk(z=3), tmp_path / "a.npy", Numbers(type="uint16", range="percentiles"))
        stored = np.load(tmp_path / "a.npy")
        # One value in 4400 lies far away: without it the others are spread over the type.
        assert stored.max() == 65535
        assert np.median(stored) > 20_000

    def test_counts_are_kept(self, tmp_path, rng):
        counts = nt.volume(rng.integers(0, 60_000, (4, 8, 8)).astype(np.float32))
        write(counts, tmp_path / "a.mrc", Numbers(type="uint16", range="none"))
        np.testing.assert_array_equal(nt.read_mrc_volume(tmp_path / "a.mrc").values, counts.values)
        with pytest.raises(nt.SchemaError, match=r"needs values from -32768 to 32767 where they are not scaled; got"):
            write(counts, tmp_path / "b.mrc", Numbers(type="int16", range="none"))

    def test_one_value_everywhere(self, tmp_path):
        write(nt.volume(np.full((2, 4, 4), 5, np.float32)), tmp_path / "a.npy", Numbers(type="uint8"))
        assert (np.load(tmp_path / "a.npy") == 0).all()

    @pytest.mark.parametrize(
        ("how", "message"),
        [
            (Numbers(range=(0, 1)), "needs a type of integers for a range"),
            (Numbers(type="uint8", range=(1, 0)), "needs a range LOW,HIGH of values"),
            (Numbers(type="uint8", range=(1, 2, 3)), "needs a range LOW,HIGH; got 3 values"),
            (Numbers(type="uint8", range=3.0), "needs a range LOW,HIGH; got 3.0"),
            (Numbers(type="uint8", range="all"), "needs range .* got 'all'"),
            (Numbers(type="float64"), "needs type"),
        ],
    )
    def test_settings_that_are_none(self, a_volume, tmp_path, how, message):
        with pytest.raises(nt.SchemaError, match=message):
            write(a_volume, tmp_path / "a.npy", how)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["a.mrc", "a.tif", "a.npy", "a.ome.zarr"])
    def test_what_is_no_number_becomes_no_integer(self, a_volume, tmp_path, name):
        holed = a_volume.copy(data=a_volume.values)
        holed.values[5, 6, 7] = np.nan
        how = OmeZarrSettings(type="uint8") if "zarr" in name else Numbers(type="uint8")
        with pytest.raises(nt.SchemaError, match="needs finite values; got nan at index z=5"):
            write(holed, tmp_path / name, how)
        assert list(tmp_path.iterdir()) == []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            write(holed, tmp_path / name)  # as it is


def said_of(path, files):
    if path.suffix == ".npy":
        return json.loads(files[1].read_text())["values"]
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as tiff:
            return json.loads(tiff.imagej_metadata["Info"])["values"]
    return zarr.open_group(path, mode="r").attrs["nntomo_dask_export"]["values"]


def test_blocks_do_not_depend_on_slabs(rng):
    volume = nt.volume(rng.random((13, 4, 4), np.float32))
    for slabs in (1, 5, 13):
        found = [(first, block.copy()) for first, block in blocks.blocks_of(volume.chunk(z=slabs), 4)]
        assert [first for first, _ in found] == [0, 4, 8, 12]
        np.testing.assert_array_equal(np.concatenate([block for _, block in found]), volume.values)


def test_every_export_says_where_its_positions_are(a_volume, tmp_path):
    said = writing.about(writing.as_written(a_volume, who="test"))
    assert said["first"] == [a_volume.z.values[0], -a_volume.y.values[-1], a_volume.x.values[0]]
    assert said["step"] == [0.5] * 3
    assert said["recipe"] == recipes.recipe_of(a_volume)


class TestOnTheCommandLine:
    @pytest.fixture
    def store(self, run, a_volume):
        nt.save(a_volume.chunk(z=11), "v.zarr")
        return "v.zarr"

    def test_settings_belong_to_formats(self, run, store):
        assert (
            "--levels is for files of the format ome_zarr, not for npy"
            in run("export", store, "a.npy", "--levels", 2, exit_code=2).output
        )
        assert (
            "--type is for files of the format" in run("export", store, "a.hspy", "--type", "uint8", exit_code=2).output
        )
        assert "try: --range" in run("export", store, "a.npy", "--type", "uint8", "--range", "3,1", exit_code=2).output

    def test_a_folder_is_replaced_if_it_is_an_export(self, run, store, tmp_path):
        (tmp_path / "mine.ome.zarr").mkdir()
        (tmp_path / "mine.ome.zarr/notes.txt").write_text("not yours")
        for more in ((), ("--overwrite",)):
            text = run("export", store, "mine.ome.zarr", *more, exit_code=2).output
            assert "needs a free path, or that of an earlier export" in text
        assert (tmp_path / "mine.ome.zarr/notes.txt").read_text() == "not yours"
        for name in ("a.ome.zarr", "a.zspy"):
            run("export", store, name)
            assert "which exists; try: --overwrite" in run("export", store, name, exit_code=2).output
            before = (tmp_path / name).stat().st_ino
            run("export", store, name, "--overwrite")
            assert (tmp_path / name).stat().st_ino != before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ome.zarr", "a.zspy", "mine.ome.zarr", "v.zarr"]

    def test_the_description_of_a_killed_run_is_in_nobodys_way(self, run, store, tmp_path):
        run("export", store, "a.npy")
        (tmp_path / "a.npy").unlink()
        run("export", store, "a.npy")  # its description is there already
        (tmp_path / "a.npy").unlink()
        (tmp_path / "a.npy.json").write_text("{}")
        assert "a.npy.json, which exists" in run("export", store, "a.npy", exit_code=2).output

    def test_a_store_is_no_place_for_an_export(self, run, store):
        assert "needs a name that ends in" in run("export", store, "b.zarr", exit_code=2).output
        assert "inside the store" in run("export", store, "v.zarr/a.ome.zarr", exit_code=2).output

    def test_a_failed_export_leaves_nothing(self, run, store, tmp_path, monkeypatch):
        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(aside, "flush", fail)
        for name in ("a.ome.zarr", "a.zspy", "a.npy", "a.tif", "a.hspy"):
            assert "No space left" in run("export", store, name, exit_code=2).output
        assert [path.name for path in tmp_path.iterdir()] == ["v.zarr"]

    def test_what_a_killed_run_left_is_removed(self, run, store, tmp_path):
        """A folder of a process that has ended; its number and start are in its name."""
        with aside.written_folder(tmp_path / "a.ome.zarr") as partial:
            mark = partial.name.removeprefix(".a.ome.zarr.").split("-")
        left = tmp_path / f".a.ome.zarr.{mark[0]}-{mark[1]}-1-{'0' * 8}.partial"  # of an earlier process of that number
        (left / "0").mkdir(parents=True)
        (tmp_path / "a.ome.zarr").rmdir()
        run("export", store, "a.ome.zarr")
        assert not left.exists()

    @pytest.mark.parametrize("name", ["a.npy", "a.tif", "a.hspy", "a.zspy", "a.ome.zarr"])
    def test_memory_is_kept(self, run, store, name):
        """A budget of one slice and the program itself is enough for any format."""
        text = run("export", store, name, "--memory", "300MiB", exit_code=2).output
        assert "try: raise --memory to" in text
        run("export", store, name, "--memory", "600MiB")


class TestInPython:
    def test_it_is_what_the_command_writes(self, run, a_volume, tmp_path):
        nt.save(a_volume.chunk(z=11), "v.zarr")
        array = nt.open("v.zarr")
        for name, options, settings in (
            ("a.mrc", ("--type", "uint8", "--range", "0,1"), {"type": "uint8", "range": (0.0, 1.0)}),
            ("a.npy", (), {}),
            ("a.ome.zarr", ("--levels", 2), {"levels": 2}),
        ):
            run("export", "v.zarr", name, *options)
            files = nt.write(array, tmp_path / "python" / name, **settings)
            assert files[0] == tmp_path / "python" / name
            theirs = [one for one in sorted((tmp_path / name).rglob("*")) if one.is_file()] or [tmp_path / name]
            for one in theirs:
                assert one.read_bytes() == (tmp_path / "python" / one.relative_to(tmp_path)).read_bytes()

    def test_what_is_refused(self, a_volume, tmp_path):
        (tmp_path / "a.ome.zarr").mkdir()
        (tmp_path / "a.ome.zarr/notes.txt").write_text("mine")
        for name, settings, message in (
            ("a.ome.zarr", {}, "needs a free path, or that of an earlier export"),
            ("a.hspy", {"type": "uint8"}, "needs a format that has type; got HyperSpy; try: leave type out"),
            ("a.npy", {"levels": 2}, "needs a format that has levels"),
            ("a.png", {}, "needs a name that ends in"),
        ):
            with pytest.raises(nt.SchemaError, match=message):
                nt.write(a_volume, tmp_path / name, **settings)
        assert [path.name for path in tmp_path.iterdir()] == ["a.ome.zarr"]
        with pytest.raises(nt.SchemaError, match=r"needs a volume as xarray\.DataArray; got ndarray"):
            nt.write(a_volume.values, tmp_path / "a.npy")


class TestReadAgain:
    """By this package: values, pixel size and angles without an option, whatever way up the file is."""

    @pytest.mark.parametrize("name", ["a.mrc", *NAMES])
    def test_a_volume(self, a_volume, tmp_path, name):
        write(a_volume, tmp_path / name)
        again = nt.read(tmp_path / name)
        assert again.dims == ("z", "y", "x")
        np.testing.assert_array_equal(again.values, a_volume.values)
        assert again.attrs["pixel_size"] == 0.5
        assert again.attrs["units"] == "nm"
        for dim in again.dims:
            np.testing.assert_allclose(again[dim], a_volume[dim], atol=1e-6)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_series(self, a_series, tmp_path, name):
        write(a_series, tmp_path / name)
        again = nt.read(tmp_path / name, background=0)
        order = np.argsort(a_series.angle.values)
        np.testing.assert_array_equal(again.sortby("angle").values, a_series.values[:, order])
        np.testing.assert_allclose(
            np.sort(again.angle), a_series.angle.values[order], atol=1e-4
        )  # four digits of a text
        assert again.attrs["pixel_size"] == 0.5
