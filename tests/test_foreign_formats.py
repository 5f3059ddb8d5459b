"""Readers of all formats but MRC, on files that are made here and on measured ones."""

import importlib
import json
import pickle
import shutil
import tracemalloc
from pathlib import Path

import h5py
import mrcfile
import numcodecs
import numpy as np
import pytest
import tifffile

import nntomo_dask as nt
from nntomo_dask.formats import FORMATS, zarr_arrays, zarr_forms
from nntomo_dask.formats.format import format_of
from tests import foreign_files as made
from tests.foreign_files import MAKERS, images, opened, values
from tests.shared_data import NEEDLE, SHARED

EVERY = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
NEEDS_SHARED = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared samples are not here")
BOTTOM = {"SER", "SER, narrow"}
# What each kind of file says of the same three images: tilts, pixel in nm, voltage, magnification, detector.
SAYS_TILTS = {name for name in MAKERS if name.startswith(("DM", "EMD", "hspy", "zspy"))}
SAYS_NO_PIXEL = {"TIFF of pages", "TIFF folder", "NPY"}
SAYS_ORDER = {"DM3 folder", "SER", "SER, narrow", "EMD of Velox"}
VOLTAGE_KV = {"SER": 300, "SER, narrow": 300} | dict.fromkeys(
    ["DM3", "DM4", "DM3, big-endian", "DM3 folder", "EMD of Velox", "hspy", "zspy"], 200
)


@pytest.mark.parametrize("name", MAKERS)
def test_pixels_and_what_is_said(name, tmp_path):
    found = opened(MAKERS[name](tmp_path))
    assert found.shape == (3, 5, 7)
    assert found.dtype.newbyteorder("=") == np.uint16
    np.testing.assert_array_equal(values(found), images())
    assert found.first_line == ("bottom" if name in BOTTOM else "top")
    said = found.said
    assert said.angles_deg == (pytest.approx((-10, 0, 10), abs=1e-9) if name in SAYS_TILTS else None)
    assert said.pixel_nm == (None if name in SAYS_NO_PIXEL else pytest.approx(2.5))
    assert said.order == ((1, 0, 2) if name in SAYS_ORDER else None)
    assert said.voltage_kv == VOLTAGE_KV.get(name)
    for attribute in ("angles_deg", "pixel_nm", "order", "tilt_axis_deg"):
        assert (attribute in said.places) == (getattr(said, attribute) is not None), attribute


@EVERY
def test_a_part_in_another_process(make, tmp_path):
    found = pickle.loads(pickle.dumps(opened(make(tmp_path))))
    part = found.read(2, slice(1, 4), slice(2, 7))
    np.testing.assert_array_equal(part, images()[2, 1:4, 2:7])
    assert part.dtype == found.dtype


@EVERY
def test_a_source_that_changes_is_noticed(make, tmp_path):
    found = opened(make(tmp_path))
    assert found.sources
    for source in found.sources:
        path = Path(source.path)
        path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(nt.SchemaError, match="has changed since it was opened"):
        found.read(0, slice(None), slice(None))


@EVERY
def test_nothing_is_read_when_it_is_opened(make, tmp_path):
    """The memory that opening takes does not grow with the images."""
    large = np.zeros((3, 500, 700), "<u2")  # 2.1 MB
    path = make(tmp_path, large)
    opened(path)  # pays for what is imported
    tracemalloc.start()
    try:
        found = opened(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < large[0].nbytes
    np.testing.assert_array_equal(found.read(1, slice(0, 3), slice(None)), large[1, :3])


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">u2", "<i4", "<u4", "<f4", "<f8"])
@pytest.mark.parametrize("name", ["DM4", "SER", "EMD of Velox", "hspy", "zspy", "TIFF of pages", "NPY", "OME-Zarr 0.5"])
def test_types_of_values(name, dtype, tmp_path):
    if name == "DM4" and dtype == "i1":
        dtype = "u1"
    data = images(dtype)
    if name == "OME-Zarr 0.5":
        data = data.astype(data.dtype.newbyteorder("<"))
    found = opened(MAKERS[name](tmp_path, data))
    np.testing.assert_array_equal(values(found), data)
    assert found.dtype.newbyteorder("=") == np.dtype(dtype).newbyteorder("=")


@EVERY
def test_a_file_that_ends_early_is_refused(make, tmp_path):
    """At any place, unless what is missing holds nothing that is read."""
    path = make(tmp_path)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    right, refusals = values(opened(path)), 0
    for file in files:
        content = file.read_bytes()
        for part in (0, 1, len(content) // 3, 2 * len(content) // 3, len(content) - 12):
            file.write_bytes(content[: max(part, 0)])
            kind = format_of(path)
            try:
                found = values(kind.open_images(path)) if kind else None
            except nt.SchemaError as error:
                assert "needs" in str(error)  # noqa: PT017 - both outcomes are right
                refusals += 1
            else:
                assert kind is None or np.array_equal(found, right) or file.name in (".zattrs", ".zgroup")
        file.write_bytes(content)
    assert refusals


def test_other_versions_are_refused(tmp_path):
    path = made.ser_file(tmp_path / "a.ser", made.images())
    content = bytearray(path.read_bytes())
    content[4:6] = (0x999).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(nt.SchemaError, match="its version is 0x999"):
        opened(path)
    for root, name in ((made.ome_zarr_04(tmp_path), ".zattrs"), (made.ome_zarr_05(tmp_path), "zarr.json")):
        text = (root / name).read_text()
        (root / name).write_text(text.replace('"0.4"', '"0.9"').replace('"0.5"', '"0.9"'))
        with pytest.raises(nt.SchemaError, match=r"its version is 0\.9"):
            opened(root)


def test_a_zarr_folder_without_an_image_is_no_store_of_ours(tmp_path):
    root = made.ome_zarr_05(tmp_path)
    (root / "zarr.json").write_text("{}")
    with pytest.raises(nt.SchemaError, match="a Zarr folder whose metadata are none of OME-Zarr"):
        nt.read(root)


# What single formats say and refuse


def dm(folder, tree, **settings):
    return made.dm_file(folder / "x.dm3", tree, **settings)


def planned(first, last, step):
    ends = {"Minimum tilt angle (deg)": first, "Maximum tilt angle (deg)": last}
    return {"Tomography": {"Tomography setup": {"Tilt angles": ends | {"Tilt angle step (deg)": step}}}}


def listed(label, **tilts):
    return {"Meta Data": {"Dimension info": {"2": {"Label": label, "Data": tilts}}}}


@pytest.mark.parametrize(
    ("tags", "angles"),
    [
        ({"Tilt Angles": np.array([1.0, 2.0, 4.0])}, (1, 2, 4)),
        (listed("Tilt angle (deg)", **{"0": 1.0, "10": 4.0, "2": 2.0}), (1, 2, 4)),  # sorted as text in the file
        (listed("Energy (eV)", **{"0": 1.0, "1": 4.0, "2": 2.0}), None),
        (planned(-3.0, 3.0, 3.0), (-3, 0, 3)),
        (planned(-9.0, 9.0, 3.0), None),
        ({"Tilt Angles": np.array([1.0, np.nan, 4.0])}, None),
        ({"Tilt Angles": np.array([1.0, 2.0])}, None),
    ],
)
def test_tilts_in_tags_of_dm(tags, angles, tmp_path):
    assert opened(dm(tmp_path, made.dm_image(images(), tags=tags))).said.angles_deg == angles


def test_units_of_dm(tmp_path):
    micro = made.dm_image(images(), units="µm", scale=0.0025)
    assert opened(dm(tmp_path, micro)).said.pixel_nm == pytest.approx(2.5)
    assert opened(dm(tmp_path, made.dm_image(images(), units=""))).said.pixel_nm is None
    with pytest.raises(nt.SchemaError, match="its pixels are in '1/nm', which is no unit of length"):
        opened(dm(tmp_path, made.dm_image(images(), units="1/nm")))


def slices_of_dm(folder, step):
    return dm(folder, made.dm_image(images(), third=(0.0, step, "nm")))


def slices_of_imagej(folder, step):
    metadata = {"unit": "nm", "axes": "ZYX", "spacing": step}
    tifffile.imwrite(folder / "a.tif", images(), imagej=True, resolution=(0.4, 0.4), metadata=metadata)
    return folder / "a.tif"


@pytest.mark.parametrize(
    "make",
    [
        slices_of_dm,
        slices_of_imagej,
        lambda folder, step: made.hspy_stack(folder, units="nm", step=step),
        lambda folder, step: made.ncem_by_hyperspy(folder, units="nm", step=step),
        lambda folder, step: made.ome_zarr_04(folder, scale=(step, 2.5, 2.5)),
    ],
    ids=["DM3", "TIFF of ImageJ", "hspy", "EMD", "OME-Zarr"],
)
@pytest.mark.parametrize("step", [2.5, 5.0])
def test_volumes(make, step, tmp_path):
    path = make(tmp_path, step)
    found = opened(path)
    assert found.said.holds == (None if path.suffix == ".tif" else "volume")
    assert found.said.angles_deg is None
    volume = nt.read(path, kind="volume", background=0)
    np.testing.assert_array_equal(volume.values, images()[:, ::-1])  # y goes up
    np.testing.assert_allclose(volume.z, [-step, 0, step])
    np.testing.assert_allclose(volume.y, 2.5 * np.arange(-2, 3))


@pytest.mark.parametrize(("kind", "message"), [(23, "got colours"), (3, "got complex values"), (99, "type 99")])
def test_dm_without_grey_images(kind, message, tmp_path):
    with pytest.raises(nt.SchemaError, match=message):
        opened(dm(tmp_path, made.dm_image(images("<u4"), kind=kind)))


def test_several_images_of_dm(tmp_path):
    both = [made.dm_image(images() + step, name=name) for step, name in enumerate(("HAADF", "BF"))]
    path = made.dm_file(tmp_path / "a.dm3", *both)
    with pytest.raises(nt.SchemaError, match=r"got 2 in .*: 'HAADF', 'BF'; try: dataset=\"HAADF\""):
        opened(path)
    np.testing.assert_array_equal(values(opened(path, dataset="BF")), images() + 1)
    with pytest.raises(nt.SchemaError, match="got 'other'"):
        opened(path, dataset="other")


def test_a_folder_of_different_images_is_refused(tmp_path):
    place = made.dm_folder(tmp_path)
    made.dm_file(place / "b.dm3", made.dm_image(images()[0, :4]))
    with pytest.raises(nt.SchemaError, match=r"needs images of one size and type; got 7 × 5 pixels .* b.dm3"):
        opened(place)
    made.dm_file(place / "b.dm3", made.dm_image(images()[0], scale=5.0))
    with pytest.raises(nt.SchemaError, match="needs images of one magnification"):
        opened(place)


def test_a_folder_of_different_types_is_refused(tmp_path):
    place = made.tiff_folder(tmp_path)
    tifffile.imwrite(place / "t_20.tif", images("<f4")[0], photometric="minisblack")
    with pytest.raises(nt.SchemaError, match=r"of uint16 in t_9\.tif and 7 × 5 pixels of float32 in t_20\.tif"):
        opened(place)


def test_dm_that_ends_within_its_pixels_is_refused(tmp_path):
    """Where no tag follows them."""
    image = made.dm_image(images())
    image["ImageData"]["Data"] = image["ImageData"].pop("Data")  # the last one
    tree = {"ImageList": {"#0": {"ImageData": image["ImageData"]}}}
    content = made.DmWriter().file(tree)[:-8]
    path = tmp_path / "a.dm3"
    path.write_bytes(content)
    np.testing.assert_array_equal(values(opened(path)), images())
    path.write_bytes(content[:-1])
    with pytest.raises(nt.SchemaError, match="ends before its tags do"):
        opened(path)


def test_a_chunk_that_changes_or_comes_is_noticed(tmp_path):
    path = made.ome_zarr_05(tmp_path)
    chunks = [path / f"0/c/{number}/0/0" for number in range(3)]
    content = chunks[2].read_bytes()
    chunks[2].unlink()
    found = opened(path)
    chunks[1].write_bytes(chunks[1].read_bytes() + b" ")
    chunks[2].write_bytes(content)
    np.testing.assert_array_equal(found.read(0, slice(None), slice(None)), images()[0])
    with pytest.raises(nt.SchemaError, match="has changed since it was opened"):
        found.read(1, slice(None), slice(None))
    with pytest.raises(nt.SchemaError, match="has come since it was opened"):
        found.read(2, slice(None), slice(None))


def test_hidden_and_other_files_of_a_folder_are_left(tmp_path):
    place = made.tiff_folder(tmp_path)
    (place / "._t_1.tif").write_bytes(b"x")
    (place / "notes.txt").write_text("x")
    assert opened(place).shape[0] == 3


@pytest.mark.parametrize("version", [3, 4])
def test_nested_tags_of_dm_end(version, tmp_path):
    tree = {}
    for _ in range(100):
        tree = {"deeper": tree}
    path = tmp_path / "a.dm3"
    path.write_bytes(made.DmWriter(version).file(tree))
    with pytest.raises(nt.SchemaError, match="levels deep"):
        opened(path)


def test_ser_of_one_image_says_its_tilt(tmp_path):
    said = opened(made.ser_stack(tmp_path, images()[:1])).said
    assert said.angles_deg == (-12.5,)
    assert said.magnification == 28500


def test_ser_by_its_emi(tmp_path):
    made.ser_stack(tmp_path)
    np.testing.assert_array_equal(values(opened_by_name(tmp_path / "a.emi")), images())
    shutil.copy(tmp_path / "a_1.ser", tmp_path / "a_2.ser")
    with pytest.raises(nt.SchemaError, match=r"got 2 in .*: 'a_1.ser', 'a_2.ser'"):
        opened_by_name(tmp_path / "a.emi")
    assert opened_by_name(tmp_path / "a.emi", dataset="a_2.ser").shape == (3, 5, 7)


def opened_by_name(path, **options):
    return format_of(path).open_images(path, **options)


def test_ser_keeps_what_was_recorded(tmp_path):
    np.testing.assert_array_equal(values(opened(made.ser_stack(tmp_path, recorded=2))), images()[:2])


def test_entities_in_an_emi_are_not_followed(tmp_path):
    path = made.ser_stack(tmp_path, images()[:1])
    (tmp_path / "a.emi").write_bytes(made.EMI.replace("<Uuid>", "<!DOCTYPE x><Uuid>").encode())
    assert opened(path).said.angles_deg is None


def test_several_signals_of_velox(tmp_path):
    path = made.velox_stack(tmp_path)
    with h5py.File(path, "a") as file:
        record = made.velox_record(0, 1)
        record["BinaryResult"]["Detector"] = "BF"
        made.velox_image(file, "b" * 32, images()[:1], [record])  # a survey image
    assert opened(path).said.detector == "HAADF"
    with h5py.File(path, "a") as file:
        made.velox_image(file, "c" * 32, images() + 1, [record] * 3)
    with pytest.raises(nt.SchemaError, match=r"got 2 in .*: 'HAADF', 'BF'"):
        opened(path)
    np.testing.assert_array_equal(values(opened(path, dataset="BF")), images() + 1)


def test_a_folder_of_velox(tmp_path):
    place = tmp_path / "singles"
    place.mkdir()
    for number, image in enumerate(images()):
        path = made.velox_stack(tmp_path, image[None])
        with h5py.File(path, "a") as file:
            group = file["Data/Image"][next(iter(file["Data/Image"]))]
            del group["Metadata"]
            text = json.dumps(made.velox_record(5 * number, 100 - number)).encode()
            group["Metadata"] = np.frombuffer(text, np.uint8)[:, None]
        path.rename(place / f"{number}.emd")
    found = opened(place)
    np.testing.assert_array_equal(values(found), images())
    assert found.said.angles_deg == pytest.approx((0, 5, 10), abs=1e-9)
    assert found.said.order == (2, 1, 0)


@pytest.mark.parametrize(
    "how", ["external link", "soft link", "external storage", "virtual", "missing chunks", "filter"]
)
def test_hdf5_that_leads_elsewhere_is_refused(how, tmp_path):
    path = made.hspy_stack(tmp_path)
    secret = tmp_path / "secret"
    secret.write_bytes(images().tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["data"] = images()
    with h5py.File(path, "a") as file:
        group = file["Experiments/a series"]
        del group["data"]
        if how == "external link":
            group["data"] = h5py.ExternalLink("other.h5", "data")
        elif how == "soft link":
            group["kept"] = images()
            group["data"] = h5py.SoftLink("kept")
        elif how == "external storage":
            group.create_dataset("data", (3, 5, 7), "<u2", external=[(str(secret), 0, 210)])
        elif how == "virtual":
            layout = h5py.VirtualLayout((3, 5, 7), "<u2")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "data", (3, 5, 7))
            group.create_virtual_dataset("data", layout)
        elif how == "missing chunks":
            group.create_dataset("data", (3, 5, 7), "<u2", chunks=(1, 5, 7))[:2] = images()[:2]
        else:
            group.create_dataset("data", data=images(), chunks=(1, 5, 7), compression=32008, allow_unknown_filter=True)
    with pytest.raises(nt.SchemaError, match="needs a"):
        opened(path)


@pytest.mark.parametrize("make", [made.hspy_stack, made.ncem_stack])
@pytest.mark.parametrize("what", ["free space", "an object"])
def test_a_list_of_texts_without_end(make, what, tmp_path):
    """HDF5 itself would look at an object of no size again and again."""
    path = make(tmp_path)
    whole = bytearray(path.read_bytes())
    place = whole.index(b"GCOL\x01") + 16
    while what == "free space" and int.from_bytes(whole[place : place + 2], "little"):
        place += 16 + -(-int.from_bytes(whole[place + 8 : place + 16], "little") // 8) * 8
    if what == "an object":
        whole[place : place + 2] = bytes(2)  # free space now
    whole[place + 8 : place + 16] = bytes(8)
    path.write_bytes(whole)
    with pytest.raises(nt.SchemaError, match="a list of its texts is damaged"):
        opened(path)


def test_several_signals_of_hyperspy(tmp_path):
    path = made.hspy_stack(tmp_path)
    with h5py.File(path, "a") as file:
        file.copy("Experiments/a series", "Experiments/BF")
        file["Experiments/BF/data"][...] = images() + 1
    with pytest.raises(nt.SchemaError, match="'BF', 'a series'"):
        opened(path)
    np.testing.assert_array_equal(values(opened(path, dataset="BF")), images() + 1)


@pytest.mark.parametrize("make", [made.hspy_stack, made.zspy_stack])
def test_tilts_in_the_metadata_come_first(make, tmp_path):
    assert opened(make(tmp_path, tilts=(-60.0, 3.0, 61.0))).said.angles_deg == (-60, 3, 61)


def test_etspy_has_the_tilt_axis_along_x(tmp_path):
    said = opened(made.hspy_stack(tmp_path, tilts=(-60.0, 3.0, 61.0), kind="TomoStack")).said
    assert said.tilt_axis_deg == 90
    assert said.holds == "series"


def test_one_image_of_hyperspy(tmp_path):
    found = opened(made.hspy_stack(tmp_path, images()[0]))
    assert found.shape == (1, 5, 7)
    assert found.said.angles_deg == (3.5,)
    np.testing.assert_array_equal(values(found)[0], images()[0])


COMPRESSORS = {
    "none": None, "blosc": numcodecs.Blosc(cname="lz4"), "zstd": numcodecs.Zstd(), "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(), "lz4": numcodecs.LZ4(),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("separator", ["/", "."])
def test_codecs_of_zarr_2(name, separator, tmp_path):
    data = images("<f4", (4, 9, 11))
    made.zarr_2(tmp_path / "a", data, chunks=(2, 4, 6), compressor=COMPRESSORS[name], separator=separator)
    array, _ = zarr_forms.described(tmp_path / "a")
    chunks = zarr_arrays.chunks_of(tmp_path / "a", array)
    part = (slice(1, 3), slice(3, 9), slice(5, 7))
    np.testing.assert_array_equal(zarr_arrays.read_part(tmp_path / "a", array, chunks, part), data[part])


@pytest.mark.parametrize("name", ["blosc", "zstd", "gzip", "zlib", "lz4"])
def test_a_chunk_that_becomes_too_large_is_not_decoded(name, tmp_path):
    data = images("<f4", (4, 9, 11))
    made.zarr_2(tmp_path / "a", data, chunks=(4, 9, 11), compressor=COMPRESSORS[name])
    array, _ = zarr_forms.described(tmp_path / "a")
    bomb = COMPRESSORS[name].encode(np.zeros(2**26, np.uint8))
    (tmp_path / "a/0/0/0").write_bytes(bomb)
    chunks = zarr_arrays.chunks_of(tmp_path / "a", array)
    with pytest.raises(ValueError, match=r"is damaged|of a size that it cannot have"):
        zarr_arrays.read_part(tmp_path / "a", array, chunks, (slice(None),) * 3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"dtype": "|O"}, "not real numbers"),
        ({"dtype": "<c8"}, "not real numbers"),
        ({"filters": [{"id": "pickle"}]}, "pass through filters"),
        ({"compressor": {"id": "pickle"}}, "codec 'pickle' is not read"),
        ({"shape": [2**40, 5, 7]}, "none of images"),
        ({"chunks": [2**20, 2**20, 7]}, "chunks are larger"),
        ({"chunks": [1, 1]}, "do not fit"),
        ({"order": "X"}, "order that is not known"),
        ({"zarr_format": 1}, "not the keys"),
        ({"other": 1}, "not the keys"),
    ],
)
def test_other_forms_of_zarr_2_are_refused(keys, message, tmp_path):
    path = made.zspy_stack(tmp_path)
    metadata = path / "Experiments/a series/data/.zarray"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | keys))
    with pytest.raises(nt.SchemaError, match=message):
        opened(path)


def with_crc(content):
    import google_crc32c

    return content + int(google_crc32c.value(content)).to_bytes(4, "little")


BYTES = made.BYTES
ZSTD = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}


@pytest.mark.parametrize(
    ("codecs", "encode"),
    [
        ([BYTES], bytes),
        ([BYTES, {"name": "crc32c"}], with_crc),
        ([BYTES, ZSTD], lambda content: bytes(numcodecs.Zstd().encode(content))),
        ([BYTES, ZSTD, {"name": "crc32c"}], lambda content: with_crc(bytes(numcodecs.Zstd().encode(content)))),
    ],
)
def test_codecs_of_zarr_3(codecs, encode, tmp_path):
    found = opened(made.ome_zarr_05(tmp_path, codecs=codecs, encode=encode))
    np.testing.assert_array_equal(values(found), images())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"codecs": [{"name": "sharding_indexed", "configuration": {}}]}, "codec 'sharding_indexed' is not read"),
        ({"codecs": [BYTES, {"name": "numcodecs.pickle"}]}, "codec 'numcodecs.pickle' is not read"),
        ({"codecs": []}, "codec 'none' is not read"),
        ({"data_type": "string"}, "not real numbers"),
        ({"storage_transformers": [{}]}, "storage transformers"),
        ({"fill_value": []}, "fill value"),
        ({"node_type": "group"}, "not the keys"),
    ],
)
def test_other_forms_of_zarr_3_are_refused(keys, message, tmp_path):
    with pytest.raises(nt.SchemaError, match=message):
        opened(made.ome_zarr_05(tmp_path, **keys))


def test_chunks_of_ome_zarr_that_are_missing_are_filled_and_of_zspy_refused(tmp_path):
    path = made.ome_zarr_05(tmp_path)
    (path / "0/c/1/0/0").unlink()
    expected = images()
    expected[1] = 0
    np.testing.assert_array_equal(values(opened(path)), expected)
    shutil.rmtree(path / "0/c")
    with pytest.raises(nt.SchemaError, match="0 of its 3 chunks"):
        opened(path)
    other = made.zspy_stack(tmp_path)
    (other / "Experiments/a series/data/1/0/0").unlink()
    with pytest.raises(nt.SchemaError, match="5 of its 6 chunks"):
        opened(other)


def test_links_in_a_folder_of_zarr_are_refused(tmp_path):
    path = made.ome_zarr_05(tmp_path)
    chunk = path / "0/c/1/0/0"
    chunk.rename(tmp_path / "elsewhere")
    chunk.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(nt.SchemaError, match="leads to another place"):
        opened(path)


@pytest.mark.parametrize("place", ["../secret", "/etc", "0/../../x", "", "."])
def test_paths_out_of_an_ome_zarr_are_refused(place, tmp_path):
    path = made.ome_zarr_04(tmp_path)
    group = json.loads((path / ".zattrs").read_text())
    group["multiscales"][0]["datasets"][0]["path"] = place
    (path / ".zattrs").write_text(json.dumps(group))
    with pytest.raises(nt.SchemaError, match="none in this folder"):
        opened(path)


def test_units_of_ome_zarr(tmp_path):
    micro = opened(made.ome_zarr_04(tmp_path, units="micrometer", scale=(0.0025,) * 3))
    assert micro.said.pixel_nm == pytest.approx(2.5)


def test_our_own_stores_are_no_ome_zarr(tmp_path, volume):
    nt.save(volume, tmp_path / "a.zarr")
    assert not FORMATS["ome_zarr"].recognises(tmp_path / "a.zarr")
    assert not FORMATS["hspy"].recognises(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (np.zeros((5, 7, 3), "u1"), {"photometric": "rgb"}, "coloured"),
        (np.zeros((5, 7), "u1"), {"photometric": "palette", "colormap": np.zeros((3, 256), "u2")}, "coloured"),
        (np.zeros((2, 5, 7), "c8"), {}, "not read"),
        (np.zeros((2, 5, 7), "?"), {}, "not read"),
    ],
)
def test_tiffs_that_are_not_grey_are_refused(data, settings, message, tmp_path):
    with pytest.raises(nt.SchemaError, match=message):
        opened(made.tiff_pages(tmp_path, data, compression=None, **settings))


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 16}, {"tile": (16, 16)}, {"predictor": True}])
def test_compressed_tiffs(compression, layout, tmp_path):
    if layout == {"predictor": True} and compression in (None, "packbits"):
        layout = {"bigtiff": True}
    data = images("<u2", (3, 40, 50))
    found = opened(made.tiff_pages(tmp_path, data, compression=compression, **layout))
    np.testing.assert_array_equal(values(found), data)


def test_lossy_tiffs_are_refused(tmp_path):
    with pytest.raises(nt.SchemaError, match="its compression, 7, is not read"):
        opened(made.tiff_pages(tmp_path, images("u1"), compression="jpeg"))


def test_tiffs_of_several_sizes_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(images()[0], metadata=None, photometric="minisblack")
        tiff.write(images()[1, :4], metadata=None, photometric="minisblack")
    with pytest.raises(nt.SchemaError, match="needs images of one size and type"):
        opened(tmp_path / "a.tif")


def test_several_images_of_an_ome_tiff(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        tiff.write(images(), metadata={"axes": "TYX", "Name": "HAADF"})
        tiff.write(
            images()[:2] + 1, metadata={"axes": "TYX", "Name": "BF", "PhysicalSizeX": 3, "PhysicalSizeXUnit": "nm"}
        )
    with pytest.raises(nt.SchemaError, match="'HAADF', 'BF'"):
        opened(tmp_path / "a.ome.tif")
    found = opened(tmp_path / "a.ome.tif", dataset="BF")
    np.testing.assert_array_equal(values(found), images()[:2] + 1)
    assert found.said.pixel_nm == 3


@pytest.mark.parametrize(
    ("resolution", "unit", "pixel_nm"),
    [
        ((72, 72), "INCH", None),
        ((4e6, 4e6), "CENTIMETER", 2.5),
        ((10160000, 10160000), "INCH", 2.5),
        ((5, 5), "NONE", None),
    ],
)
def test_resolutions_of_tiffs(resolution, unit, pixel_nm, tmp_path):
    path = made.tiff_pages(tmp_path, resolution=resolution, resolutionunit=unit)
    assert opened(path).said.pixel_nm == (None if pixel_nm is None else pytest.approx(pixel_nm))


@pytest.mark.parametrize(("unit", "size"), [("µm", 400), ("micron", 400), ("um", 400), ("Å", 0.04), ("nm", 0.4)])
def test_units_of_imagej(unit, size, tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", images(), imagej=True, resolution=(size, size),
        metadata={"unit": unit.replace("µ", "\\u00B5").replace("Å", "angstrom"), "axes": "TYX"},
    )  # fmt: skip
    assert opened(tmp_path / "a.tif").said.pixel_nm == pytest.approx(2.5)


def test_a_chain_of_images_that_breaks_is_refused(tmp_path):
    """Rather than read as a shorter series."""
    path = made.tiff_pages(tmp_path)
    with tifffile.TiffFile(path) as tiff:
        last = tiff.pages[1].offset
        following = last + 2 + 12 * len(tiff.pages[1].tags)
    content = bytearray(path.read_bytes())
    content[following : following + 4] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(nt.SchemaError, match="invalid page offset"):
        opened(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([{}, 1], object), "not real numbers"),
        (np.zeros((2, 5, 7), "c8"), "not real numbers"),
        (np.zeros((2, 3, 5, 7)), "none of images"),
        (np.zeros((2, 5, 0)), "none of images"),
        (np.asfortranarray(np.zeros((2, 5, 7))), "order is that of Fortran"),
    ],
)
def test_npy_that_holds_no_images(array, message, tmp_path):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(nt.SchemaError, match=message):
        opened(tmp_path / "a.npy")


def about(kind, angles):
    keys = {"written_by": "nntomo_dask", "kind": kind, "units": "nm", "voltage_kv": 300, "first_line": "top"}
    keys |= {"step": [2.5, 2.5, 2.5], "first": [-2.5, -5.0, -2.5]}
    return json.dumps(keys | ({"angles_deg": angles} if angles else {}))


@pytest.mark.parametrize(("kind", "holds"), [("tilt series", "series"), ("volume", "volume")])
@pytest.mark.parametrize("place", ["npy", "tiff", "big tiff", "ome_zarr", "hspy"])
def test_what_our_exports_say_is_read(place, kind, holds, tmp_path):
    angles = [-5.0, 0.0, 5.0] if holds == "series" else None
    text = about(kind, angles)
    if place == "npy":
        path = made.npy_file(tmp_path)
        (tmp_path / "a.npy.json").write_text(text)
    elif place == "tiff":
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, images(), imagej=True, metadata={"Info": text, "axes": "TYX"})
    elif place == "big tiff":
        path = made.tiff_pages(tmp_path, bigtiff=True, extratags=[(65000, 2, 0, text, True)])
    elif place == "ome_zarr":
        path = made.ome_zarr_05(tmp_path)
        group = json.loads((path / "zarr.json").read_text())
        group["attributes"]["nntomo_dask_export"] = json.loads(text)
        (path / "zarr.json").write_text(json.dumps(group))
    else:
        path = made.hspy_stack(tmp_path)
        with h5py.File(path, "a") as file:
            file.require_group("Experiments/a series/original_metadata/nntomo_dask").attrs["json"] = text
    found = opened(path)
    assert found.first_line == "top"
    assert found.zero == (2, 1)
    assert found.line_step == 1
    assert found.said.holds == holds
    assert found.slice_zero == (1 if holds == "volume" else None)
    assert found.said.pixel_nm == 2.5
    assert found.said.voltage_kv == 300
    assert found.said.angles_deg == (tuple(angles) if angles else None)
    assert found.said.tilt_axis_deg == (0 if angles else None)


# Other readers, and measured files


@pytest.mark.parametrize(
    ("name", "plugin"),
    [
        ("DM3", "digitalmicrograph"), ("DM4", "digitalmicrograph"), ("SER", "tia"), ("SER, narrow", "tia"),
        ("EMD of Velox", "emd"), ("EMD of HyperSpy", "emd"), ("hspy", "hspy"),
    ],
)  # fmt: skip
def test_rosettasciio_reads_the_same(name, plugin, tmp_path):
    """Also that the first line of .ser files is the lowest: it turns them over."""
    path = MAKERS[name](tmp_path)
    read = importlib.import_module(f"rsciio.{plugin}").file_reader(str(path))[-1]
    found = opened(path)
    lines = slice(None, None, -1 if found.first_line == "bottom" else 1)
    np.testing.assert_array_equal(values(found)[:, lines], read["data"])
    across = read["axes"][-1]
    assert {"nm": 1, "µm": 1000}[across["units"]] * across["scale"] == pytest.approx(found.said.pixel_nm)


@NEEDS_SHARED
def test_the_needle_of_digitalmicrograph_is_that_of_the_mrc():
    found = opened(SHARED / "tilt/HAADF.dm3")
    with mrcfile.open(SHARED / "tilt/needle.mrc") as mrc:
        np.testing.assert_array_equal(values(found), mrc.data)
    angles = nt.read_tilt_angles(SHARED / "tilt/needle.rawtlt")
    np.testing.assert_allclose(found.said.angles_deg, angles)
    assert found.said.pixel_nm == pytest.approx(17.994916)
    assert found.said.voltage_kv == 300
    assert found.said.holds == "series"


@NEEDS_SHARED
def test_a_measured_folder_of_dm3():
    found = opened(SHARED / "tilt-etspy/DM_Series_Test")
    assert found.shape == (3, 128, 128)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.said.angles_deg, [-72, -69, -66], atol=0.01)
    assert found.said.order == (2, 1, 0)  # the plug-in tilted from 0 down
    assert found.said.pixel_nm == pytest.approx(19.1087)
    assert found.said.voltage_kv == 300
    read = importlib.import_module("rsciio.digitalmicrograph").file_reader
    first = read(str(SHARED / "tilt-etspy/DM_Series_Test/BF_001.dm3"))[-1]
    np.testing.assert_array_equal(values(found)[0], first["data"])
    assert first["axes"][-1]["scale"] * 1000 == pytest.approx(found.said.pixel_nm)


def test_the_needle_lies_in_no_other_format():
    assert format_of(NEEDLE / "needle.mrc") is FORMATS["mrc"]
