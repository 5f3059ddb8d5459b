"""Whatever is opened may be damaged, or made to do harm: it is refused in the package's form, or the data are right."""

import dataclasses
import json
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import google_crc32c
import mrcfile
import numcodecs
import numpy as np
import pytest
import zarr

import nntomo_dask as nt
from nntomo_dask import store
from nntomo_dask.arrays import recipes
from nntomo_dask.networks import files as network_files
from nntomo_dask.store import files, metadata
from tests.test_store import digest

LEGACY = Path(__file__).parent / "data" / "v0_1"


@pytest.fixture
def saved(tmp_path):
    """A store of 40 slices in 5 chunks, its array, and its files."""
    volume = nt.nanoparticle((40, 16, 16), seed=1).chunk(z=8)
    nt.save(volume, tmp_path / "a.zarr")
    return tmp_path / "a.zarr", volume, digest(tmp_path / "a.zarr")


def edit(file, change):
    """Change the JSON in a file."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def both(path, change):
    """Change both copies of the metadata of the data array, and take the checksum away: a store of version 0.1.0."""
    (name,) = {"volume", "tilt_series", "samples", "projections"} & {entry.name for entry in path.iterdir()}
    edit(path / name / "zarr.json", change)

    def of_group(group):
        group["attributes"] = {}
        change(group["consolidated_metadata"]["metadata"][name])

    edit(path / "zarr.json", of_group)


def refused(path, match="metadata"):
    for attempt in (nt.open, nt.verify):
        with pytest.raises(nt.SchemaError, match=match):
            attempt(path)
    assert store.inspect(path) is None


class Boom:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def as_version_2(folder, values):
    """An array of Zarr format 2 whose chunk is a pickle."""
    shutil.rmtree(folder, ignore_errors=True)
    zarr.create_array(folder, shape=(1,), chunks=(1,), dtype="i8", zarr_format=2, compressors=None)
    header = json.loads((folder / ".zarray").read_text())
    header |= {"filters": [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 4}], "dtype": "|O", "fill_value": ""}
    (folder / ".zarray").write_text(json.dumps(header))
    (folder / "0").write_bytes(numcodecs.Pickle().encode(np.array([values], object)))


@pytest.mark.parametrize("name", ["z", "volume"])
@pytest.mark.parametrize("beside", [False, True])
def test_arrays_of_another_zarr_format_are_never_opened(saved, tmp_path, run, monkeypatch, name, beside):
    """A pickle codec would run what the store says."""
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    path, volume, _ = saved
    kept = shutil.copytree(path / name, tmp_path / "kept")
    as_version_2(path / name, Boom(tmp_path / "ran"))
    if beside:
        shutil.copytree(kept, path / name, dirs_exist_ok=True)
        np.testing.assert_array_equal(nt.open(path).values, volume.values)
    else:
        with pytest.raises(nt.SchemaError):
            nt.open(path)
        run("info", path, exit_code=0 if name == "z" else 2)
        run("info", "--verify", path, exit_code=1 if name == "z" else 2)
    assert not (tmp_path / "ran").exists()


CODECS = {
    "unknown": {"name": "numcodecs.pickle", "configuration": {}},
    "gzip": {"name": "gzip", "configuration": {"level": 5}},
    "sharding": {"name": "sharding_indexed", "configuration": {}},
    "number": 5,
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_only_the_codecs_that_are_written_are_used(saved, codec, place):
    path, _, _ = saved
    both(path, lambda array: array["codecs"].__setitem__(place, CODECS[codec]))
    refused(path)


CLAIMS = {
    "2·10⁹ slices": {"shape": [2_000_000_000, 16, 16]},
    "2·10⁹ chunks": {"shape": [2_000_000_000, 16, 16], "chunk": [1, 16, 16]},
    "beyond 64 bits": {"shape": [10**30, 16, 16]},
    "chunks of 100 TB": {"shape": [40, 5_000_000, 5_000_000], "chunk": [1, 5_000_000, 5_000_000]},
    "zero": {"shape": [0, 16, 16]},
    "negative": {"shape": [-40, 16, 16]},
    "chunks of zero": {"chunk": [0, 16, 16]},
    "fractions": {"shape": [40.0, 16, 16]},
    "texts": {"shape": ["40", 16, 16]},
    "booleans": {"shape": [True, 16, 16]},
    "two axes": {"shape": [40, 16]},
    "chunks across": {"chunk": [8, 8, 16]},
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_sizes_that_no_store_has_are_refused_at_once(saved, claim):
    path, _, _ = saved

    def change(array):
        array["shape"] = CLAIMS[claim].get("shape", array["shape"])
        grid = array["chunk_grid"]["configuration"]
        grid["chunk_shape"] = CLAIMS[claim].get("chunk", [8, *array["shape"][1:]])

    both(path, change)
    start = time.perf_counter()
    refused(path)
    assert time.perf_counter() - start < 5


def test_many_chunks_that_are_not_there_are_counted_at_once(saved):
    path, _, _ = saved

    def change(array):
        array["shape"], array["chunk_grid"]["configuration"]["chunk_shape"] = [1_000_000, 16, 16], [1, 16, 16]

    both(path, change)
    start = time.perf_counter()
    with pytest.raises(nt.SchemaError, match=r"without coordinate z and 1000000 of 1000000 chunks"):
        nt.open(path)
    assert time.perf_counter() - start < 5


WRONG = {
    "no recipe": lambda array: array["attributes"].pop("recipe"),
    "no units": lambda array: array["attributes"].pop("units"),
    "no pixel size": lambda array: array["attributes"].pop("pixel_size"),
    "a pixel size of text": lambda array: array["attributes"].__setitem__("pixel_size", "1"),
    "a pixel size below zero": lambda array: array["attributes"].__setitem__("pixel_size", -1.0),
    "a pixel size beyond floats": lambda array: array["attributes"].__setitem__("pixel_size", 10**400),
    "units of numbers": lambda array: array["attributes"].__setitem__("units", 5),
    "units of lists": lambda array: array["attributes"].__setitem__("units", [[]]),
    "a recipe of text": lambda array: array["attributes"].__setitem__("recipe", "flour, eggs"),
    "a recipe without inputs": lambda array: array["attributes"]["recipe"].pop("inputs"),
    "inputs of numbers": lambda array: array["attributes"]["recipe"].__setitem__("inputs", [1]),
    "attributes of lists": lambda array: array.__setitem__("attributes", []),
    "other dims": lambda array: array.__setitem__("dimension_names", ["z", "x", "y"]),
    "no dims": lambda array: array.__setitem__("dimension_names", None),
    "another type": lambda array: array.__setitem__("data_type", "float64"),
    "a type of objects": lambda array: array.__setitem__("data_type", {"name": "object"}),
    "another format": lambda array: array.__setitem__("zarr_format", 2),
    "a group": lambda array: array.__setitem__("node_type", "group"),
    "other keys of chunks": lambda array: array["chunk_key_encoding"].__setitem__("name", "v2"),
    "a storage transformer": lambda array: array.__setitem__("storage_transformers", [{"name": "x"}]),
    "another fill value": lambda array: array.__setitem__("fill_value", "NaN"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_metadata_of_another_form_are_refused(saved, wrong, run):
    path, volume, _ = saved
    both(path, WRONG[wrong])
    with pytest.raises(nt.SchemaError):
        nt.open(path)
    run("info", path, exit_code=2)
    with pytest.raises(nt.SchemaError):
        nt.save(volume, path)


TEXTS = {
    "NaN": '{"zarr_format": NaN}',
    "infinity": '{"zarr_format": Infinity}',
    "infinity in digits": '{"zarr_format": 1e999}',
    "endless digits": '{"zarr_format": ' + "1" * 5000 + "}",
    "nested": "[" * 100_000 + "]" * 100_000,
    "nested objects": '{"a":' * 300 + "1" + "}" * 300,
    "many lists": "[" + "[]," * 300_000 + "[]]",
    "long": '{"a": "' + "x" * 9_000_000 + '"}',
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "empty": "",
    "a list": "[]",
    "zeros": "\0" * 1000,
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("file", ["zarr.json", "volume/zarr.json", "z/zarr.json"])
def test_json_that_no_store_has_is_refused_and_mended(saved, text, file, run):
    path, volume, before = saved
    content = TEXTS[text]
    (path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(nt.SchemaError, match="rerun what wrote the store"):
        nt.open(path)
    run("info", "--verify", path, exit_code=1 if file == "z/zarr.json" else 2)
    nt.save(volume, path)
    assert digest(path) == before


CHANGES = {
    "pixel size": lambda array: array["attributes"].__setitem__("pixel_size", 9.0),
    "pixel size as an integer": lambda array: array["attributes"].__setitem__("pixel_size", 1),
    "units": lambda array: array["attributes"].__setitem__("units", "nm"),
    "an attribute more": lambda array: array["attributes"].__setitem__("note", "hello"),
    "a parameter of the recipe": lambda array: array["attributes"]["recipe"]["parameters"].__setitem__("seed", 2),
    "the recipe's version": lambda array: array["attributes"]["recipe"].__setitem__("version", "9"),
    "chunks": lambda array: array["chunk_grid"]["configuration"].__setitem__("chunk_shape", [4, 16, 16]),
    "shape": lambda array: array.__setitem__("shape", [39, 16, 16]),
    "codec": lambda array: array["codecs"][1]["configuration"].__setitem__("clevel", 4),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("copy", ["own", "consolidated", "both"])
def test_changed_metadata_are_found_and_mended(saved, change, copy, run):
    path, volume, before = saved
    if copy in ("own", "both"):
        edit(path / "volume/zarr.json", CHANGES[change])
    if copy in ("consolidated", "both"):
        edit(path / "zarr.json", lambda group: CHANGES[change](group["consolidated_metadata"]["metadata"]["volume"]))
    refused(path)
    assert "damaged or missing metadata" in run("info", "--verify", path, exit_code=2).output
    if copy != "both":
        nt.save(volume, path)
    elif change == "the recipe's version" or not change.startswith(("a parameter", "chunks", "shape", "codec")):
        nt.save(volume, path)
        return  # both copies lie; what could be mended is the recipe's own, which was asked for
    else:
        nt.save(volume, path, overwrite=True)
    assert digest(path) == before
    assert nt.verify(path) == []


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("copy", ["own", "consolidated"])
def test_a_changed_copy_is_found_in_stores_without_checksum(tmp_path, change, copy):
    path = shutil.copytree(LEGACY / "particle.zarr", tmp_path / "a.zarr")
    if copy == "own":
        edit(path / "volume/zarr.json", CHANGES[change])
    else:
        edit(path / "zarr.json", lambda group: CHANGES[change](group["consolidated_metadata"]["metadata"]["volume"]))
    refused(path)


def test_a_damaged_checksum(saved):
    path, volume, before = saved
    edit(path / "zarr.json", lambda group: group["attributes"]["nntomo_dask"].__setitem__("checksum", "0" * 64))
    refused(path, "checksum of its metadata is another")
    nt.save(volume, path)
    assert digest(path) == before


@pytest.mark.parametrize("dim", ["z", "x"])
def test_a_coordinate_of_another_store(saved, tmp_path, dim):
    """Whole, with a right checksum of its own, and of the right length: but not the one that was written."""
    path, volume, before = saved
    other = nt.volume(np.zeros((40, 16, 16), np.float32), pixel_size=2.0)
    nt.save(other, tmp_path / "b.zarr")
    shutil.copytree(tmp_path / "b.zarr" / dim, path / dim, dirs_exist_ok=True)
    with pytest.raises(nt.SchemaError, match=f"without coordinate {dim}"):
        nt.open(path)
    nt.save(volume, path)
    assert digest(path) == before


def test_metadata_are_not_mended_to_those_of_another_recipe(saved):
    path, _, _ = saved
    edit(path / "volume/zarr.json", CHANGES["a parameter of the recipe"])
    with pytest.raises(nt.SchemaError, match=r"made otherwise: .* try: overwrite=True"):
        nt.save(nt.nanoparticle((40, 16, 16), seed=2).chunk(z=8), path)


def test_a_store_that_was_just_begun_resumes(tmp_path):
    volume = nt.nanoparticle((40, 16, 16), seed=1).chunk(z=8)
    files.create(volume, recipes.recipe_of(volume), tmp_path / "a.zarr", 8)
    assert store.missing_chunks(tmp_path / "a.zarr") == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(nt.save(volume, tmp_path / "a.zarr").values, volume.values)


def test_a_chunk_of_another_size_is_missing(saved, tmp_path):
    path, volume, before = saved
    nt.save(nt.nanoparticle((40, 24, 24), seed=1).chunk(z=8), tmp_path / "b.zarr")
    shutil.copy(tmp_path / "b.zarr/volume/c/2/0/0", path / "volume/c/2/0/0")
    assert store.missing_chunks(path) == [2]
    nt.save(volume, path)
    assert digest(path) == before


def test_a_chunk_that_says_it_is_far_larger_than_it_is(saved):
    """Zeros of 2 GB packed to 150 bytes by another codec: memory is taken by what a chunk says."""
    path, _, _ = saved

    def change(array):
        array["shape"], array["chunk_grid"]["configuration"]["chunk_shape"] = [5, 10_000, 10_000], [1, 10_000, 10_000]

    both(path, change)
    packed = numcodecs.Blosc(cname="zstd", clevel=9, shuffle=1).encode(np.zeros(10**8, np.float32))
    assert len(packed) < 200_000
    for chunk in path.glob("volume/c/*/0/0"):
        chunk.write_bytes(packed + google_crc32c.value(packed).to_bytes(4, "little"))
    with pytest.raises(nt.SchemaError, match=r"without .* and 5 of 5 chunks"):
        nt.open(path)


@pytest.mark.parametrize("values", [np.zeros, np.ones])
def test_chunks_of_one_value_are_whole(tmp_path, values):
    volume = nt.volume(values((2, 1024, 1024), np.float32))
    np.testing.assert_array_equal(nt.save(volume, tmp_path / "a.zarr").values, volume.values)


def test_stores_of_version_0_1_0_get_checksums_when_their_coordinates_are_written_again(tmp_path):
    path = shutil.copytree(LEGACY / "particle.zarr", tmp_path / "a.zarr")
    before = nt.open(path).compute()
    (path / "y/c/0").unlink()
    nt.save(nt.nanoparticle((12, 24, 24), seed=1, n_pores=2), path)
    assert nt.open(path).compute().identical(before)
    edit(path / "volume/zarr.json", CHANGES["pixel size"])
    edit(path / "zarr.json", lambda group: CHANGES["pixel size"](group["consolidated_metadata"]["metadata"]["volume"]))
    refused(path, "checksum of its metadata is another")


class TestOverwrite:
    """--overwrite deletes what is ours and nothing else."""

    @pytest.fixture(params=["volume", "z", "samples", "recipe of text", "recipe of its own"])
    def foreign(self, request, tmp_path):
        """A Zarr group of somebody else that looks much like a store."""
        group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
        name = request.param if " " not in request.param else "volume"
        array = group.create_array(name, shape=(4, 8, 8), chunks=(1, 8, 8), dtype="float32")
        array[:] = 1
        if " " in request.param:
            text = request.param.endswith("text")
            array.attrs["recipe"] = "flour, eggs" if text else {"operation": "bake", "minutes": 40}
        return tmp_path / "a.zarr"

    @pytest.mark.parametrize("damage", [None, "zarr.json"])
    def test_of_a_foreign_group(self, foreign, damage):
        if damage:
            (foreign / damage).write_text("x")
        before = digest(foreign)
        for overwrite in (False, True):
            with pytest.raises(nt.SchemaError, match=r"which is something else; try: .* move or remove it by hand"):
                nt.save(nt.volume(np.zeros((4, 8, 8), np.float32)), foreign, overwrite=overwrite)
        assert digest(foreign) == before

    @pytest.mark.parametrize("legacy", [False, True])
    @pytest.mark.parametrize("file", ["zarr.json", "volume/zarr.json"])
    @pytest.mark.parametrize("damage", [b"", b"x", None])
    def test_of_a_damaged_store(self, saved, tmp_path, legacy, file, damage):
        """One damaged file does not hide whose a store is."""
        path = shutil.copytree(LEGACY / "particle.zarr", tmp_path / "old.zarr") if legacy else saved[0]
        (path / file).unlink()
        if damage is not None:
            (path / file).write_bytes(damage)
        volume = nt.volume(np.ones((4, 8, 8), np.float32))
        np.testing.assert_array_equal(nt.save(volume, path, overwrite=True).values, 1)

    def test_of_a_store_that_cannot_be_recognised(self, saved):
        path, volume, _ = saved
        for file in ("zarr.json", "volume/zarr.json"):
            (path / file).write_text("x")
        with pytest.raises(nt.SchemaError, match=r"something else; try: .* move or remove it by hand"):
            nt.save(volume, path, overwrite=True)

    def test_keeps_what_others_put_into_a_store(self, saved):
        path, volume, _ = saved
        (path / "thesis.txt").write_text("precious")
        (path / "fbp.zarr").mkdir()
        (path / "fbp.zarr/thesis.txt").write_text("precious")
        nt.save(nt.normalize(volume), path, overwrite=True)
        assert nt.open(path).attrs["recipe"]["operation"] == "normalize"
        assert (path / "thesis.txt").read_text() == (path / "fbp.zarr/thesis.txt").read_text() == "precious"
        assert [entry.name for entry in path.parent.iterdir()] == ["a.zarr"]

    def test_a_folder_with_the_name_of_an_old_store_that_is_none(self, saved):
        path, _, _ = saved
        old = path.with_name(".a.zarr.old-12345678")
        old.mkdir()
        (old / "thesis.txt").write_text("precious")
        nt.open(path)
        assert (old / "thesis.txt").exists()


def test_attributes_that_cannot_be_stored_are_refused_before_anything_is_written(tmp_path):
    volume = nt.volume(np.zeros((4, 8, 8), np.float32))
    for value in (float("nan"), object(), np.zeros(3), {"a": [np.inf]}):
        with pytest.raises(nt.SchemaError, match=r'save: needs attributes that JSON can hold; got attrs\["note"\]'):
            nt.save(volume.assign_attrs(note=value), tmp_path / "a.zarr")
    with pytest.raises(nt.SchemaError, match=r'save: needs a volume whose coordinate "z" has finite positions'):
        nt.save(volume.assign_coords(z=list("abcd")), tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []
    saved = nt.save(volume.assign_coords(run=5, label=("z", list("abcd"))), tmp_path / "a.zarr")
    assert set(saved.coords) == {"z", "y", "x"}


def test_arrays_that_were_changed_again_and_again(tmp_path):
    """A recipe keeps so many steps; of those before it keeps a digest."""
    volume, depth = nt.volume(np.zeros((4, 8, 8), np.float32)).chunk(z=2), 0
    names = set()
    for _ in range(60):
        volume = nt.normalize(volume + 1)
        names.add(volume.data.name)
    assert len(names) == 60
    recipe = nt.save(volume, tmp_path / "a.zarr").attrs["recipe"]
    while recipe["inputs"]:
        recipe, depth = recipe["inputs"][0], depth + 1
    assert depth == 39
    assert "digest_of_inputs" in recipe["parameters"]


def test_a_codec_pipeline_that_is_not_installed_is_left_out(saved, tmp_path):
    path, volume, _ = saved
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        files._opened.cache_clear()
        np.testing.assert_array_equal(nt.open(path).values, volume.values)
        np.testing.assert_array_equal(nt.save(volume, tmp_path / "b.zarr").values, volume.values)


def test_the_mark_is_not_among_the_attributes_of_arrays(saved):
    path, volume, _ = saved
    assert set(nt.open(path).attrs) == set(volume.attrs)
    assert metadata.is_ours(path)


ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u2028\x7f\ud800"


class TestTerminals:
    """Nothing in a file reaches the terminal as a control character."""

    @pytest.mark.parametrize("words", [("info",), ("info", "--json"), ("info", "--verify")])
    def test_recipes(self, tmp_path, run, words):
        made_by = recipes.record(f"a{ESCAPES[:-1]}", {f"b{ESCAPES[:-1]}": ESCAPES[:-1]})
        volume = nt.volume(np.zeros((4, 8, 8), np.float32)).chunk(z=2)
        files.create(volume, made_by, tmp_path / "a.zarr", 2)
        self.check(run(*words, "a.zarr", exit_code=1 if "--verify" in words else 0).output)

    def test_names_of_series_and_units(self, tmp_path, run, series):
        name = f"m{ESCAPES[:4]}"
        other = series.chunk(z=-1, angle=1).assign_attrs(units=f"nm{ESCAPES[:-1]}")
        nt.save(other.to_dataset(name=name), tmp_path / "a.zarr")
        self.check(run("info", "a.zarr").output)
        nt.save(series.assign_attrs(units=f"nm{ESCAPES[:-1]}"), tmp_path / "b.zarr")
        self.check(run("reconstruct", "b.zarr", "--method", "fbp", "-o", "c.zarr").output)

    def test_networks(self, tmp_path, run, trained):
        network = dataclasses.replace(trained[0], recipe={"operation": ESCAPES[:-1], "outcome": {ESCAPES[:-1]: 1.0}})
        nt.save_network(network, tmp_path / "a.safetensors")
        self.check(run("info", "a.safetensors").output)

    def test_paths_and_errors(self, tmp_path, run):
        name = f"a{ESCAPES[:-1]}"
        self.check(run("info", name, exit_code=2).output)
        (tmp_path / name).write_text(ESCAPES[:-1])
        self.check(run("info", name, exit_code=2).output)
        self.check(run("project", "a.zarr", "--angles", name, "-o", "b.zarr", exit_code=2).output)
        self.check(run("phantom", "particle", "--size", 16, "-o", f"{name}/b.zarr", exit_code=2).output)
        self.check(run("phantom", "particle", "--size", 16, "-o", f"{name}.zarr").output)
        self.check(run("compare", f"{name}.zarr", "--reference", f"{name}.zarr").output)
        self.check(run("export", f"{name}.zarr", f"{name}.mrc").output)
        self.check(run("phantom", name, "-o", "b.zarr", exit_code=2).output)

    @staticmethod
    def check(text):
        assert [one for one in text if not one.isprintable() and one != "\n"] == []


def test_half_a_character_in_json(saved):
    path, _, _ = saved
    both(path, lambda array: array["attributes"]["recipe"].__setitem__("operation", "\ud800"))
    refused(path, "needs a store")


class TestMrc:
    """The header says how much memory a reader takes, so it is compared with the file first."""

    @pytest.fixture
    def stack(self, tmp_path):
        with mrcfile.new(tmp_path / "a.mrc") as mrc:
            mrc.set_data(np.arange(5 * 6 * 8, dtype=np.int16).reshape(5, 6, 8))
        return tmp_path / "a.mrc"

    @staticmethod
    def write(path, place, value, order="<"):
        content = bytearray(path.read_bytes())
        struct.pack_into(f"{order}i", content, place, value)
        path.write_bytes(content)

    @pytest.mark.parametrize("place", [0, 4, 8, 12, 92])
    @pytest.mark.parametrize("value", [-1, -(2**31), 2**31 - 1, 10**6, 0])
    def test_sizes_that_are_not_those_of_the_file(self, stack, run, place, value):
        if (place, value) == (92, 0):
            return
        self.write(stack, place, value)
        tracemalloc.start()
        for read in (lambda: nt.read_mrc_series(stack, range(5)), lambda: nt.read_mrc_volume(stack)):
            with pytest.raises(nt.SchemaError, match=r"needs (a whole|an) MRC2014 file"):
                read()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 5_000_000
        run("import", stack, "-o", "a.zarr", exit_code=2)

    @pytest.mark.parametrize("mode", [0, 2, 4, 6, 7, 101, 12345])
    def test_another_mode(self, stack, mode):
        """A mode of pixels of the same size cannot be told from the right one; all others are refused."""
        self.write(stack, 12, mode)
        if mode == 6:
            assert nt.read_mrc_series(stack, range(5)).shape == (6, 5, 8)
            return
        with pytest.raises(nt.SchemaError, match=r"needs (a whole|an) MRC2014 file"):
            nt.read_mrc_series(stack, range(5))

    def test_the_other_byte_order(self, stack, tmp_path):
        with mrcfile.open(stack) as mrc:
            data = mrc.data.copy()
        with mrcfile.new(tmp_path / "b.mrc") as mrc:
            mrc.set_data(data.astype(">i2"))
        np.testing.assert_array_equal(nt.read_mrc_series(tmp_path / "b.mrc", range(5)).values[2], data[:, 2])

    def test_an_extended_header(self, stack, tmp_path):
        with mrcfile.open(stack) as mrc:
            data = mrc.data.copy()
        with mrcfile.new(tmp_path / "b.mrc") as mrc:
            mrc.set_data(data)
            mrc.set_extended_header(np.zeros(5000, "V1"))
        np.testing.assert_array_equal(nt.read_mrc_series(tmp_path / "b.mrc", range(5)).values[2], data[:, 2])
        self.write(tmp_path / "b.mrc", 92, 5001)
        with pytest.raises(nt.SchemaError, match=r"needs (a whole|an) MRC2014 file"):
            nt.read_mrc_series(tmp_path / "b.mrc", range(5))


ANGLES = {
    "junk": bytes(range(1, 256)),
    "zeros": b"\0" * 100,
    "not a number": b"1\nnan\n3\n",
    "infinity": b"1\ninf\n3\n",
    "digits of another script": "1\n\u0661\n3\n".encode(),
    "underscores": b"1\n1_0\n",
    "beyond floats": b"1\n1e999\n",
    "latin-1": b"1\n2\xb0\n",
    "escapes": b"1\n\x1b[2J\n",
    "huge": b"1\n" * 2**24,
}


@pytest.mark.parametrize("content", ANGLES)
@pytest.mark.parametrize("name", ["a.rawtlt", "a.mdoc"])
def test_angle_files_that_are_none(tmp_path, content, name):
    (tmp_path / name).write_bytes(ANGLES[content])
    with pytest.raises(nt.SchemaError, match=r"^read_tilt_angles: needs ") as caught:
        nt.read_tilt_angles(tmp_path / name)
    assert str(caught.value).isprintable()


HEADERS = {
    "an unknown type": lambda h: h["hidden_bias"].__setitem__("dtype", "BF16"),
    "a type of lists": lambda h: h["hidden_bias"].__setitem__("dtype", []),
    "another type": lambda h: h["hidden_bias"].__setitem__("dtype", "I64"),
    "a negative size": lambda h: h["hidden_bias"].__setitem__("shape", [-1]),
    "a size beyond 64 bits": lambda h: h["hidden_bias"].__setitem__("shape", [10**30]),
    "another shape": lambda h: h["hidden_bias"].__setitem__("shape", [1, *h["hidden_bias"]["shape"]]),
    "turned": lambda h: h["hidden_weights"]["shape"].reverse(),
    "many axes": lambda h: h["hidden_bias"].__setitem__("shape", [1] * 5000 + h["hidden_bias"]["shape"]),
    "offsets beyond the file": lambda h: h["hidden_bias"].__setitem__("data_offsets", [0, 10**12]),
    "offsets in another place": lambda h: h["hidden_bias"].__setitem__("data_offsets", [1, 2]),
    "no offsets": lambda h: h["hidden_bias"].pop("data_offsets"),
    "a tensor less": lambda h: h.pop("hidden_bias"),
    "a number as metadata": lambda h: h["__metadata__"].__setitem__("level", 5),
    "no checksum": lambda h: h["__metadata__"].pop("crc32"),
    "no checksum of the metadata": lambda h: h["__metadata__"].pop("metadata_crc32"),
    "half a character": lambda h: h["__metadata__"].__setitem__("level", "\ud800"),
    "no metadata": lambda h: h.pop("__metadata__"),
    "another version": lambda h: h["__metadata__"].__setitem__("format_version", "9"),
    "another kind": lambda h: h["__metadata__"].__setitem__("format", "x"),
    "another level": lambda h: h["__metadata__"].__setitem__("level", "2"),
}

CONTENTS = {
    "a level that is no number": ("level", "nan"),
    "no recipe": ("recipe", "[]"),
    "a recipe of recipes": ("recipe", '{"inputs":[' * 100 + "{}" + "]}" * 100),
    "a layout of lists": ("layout", "[]"),
    "a detector of 10¹² pixels": ("layout", '{"angles_deg": [0, 1], "detector_count": 1000000000000}'),
    "no angles": ("layout", '{"angles_deg": [], "detector_count": 48}'),
    "a wedge of 10⁸ steps": ("layout", '{"angles_deg": [0, 1e-6, 2e-6, 3e-6], "detector_count": 48}'),
    "angles of text": ("layout", '{"angles_deg": ["a", "b"], "detector_count": 48}'),
    "another activation": ("activations", '["\\u001b[2J", "linear"]'),
    "another output": ("activations", '["relu", {"linear": 1}]'),
    "three activations": ("activations", '["relu", "relu", "linear"]'),
}


class TestNetworks:
    """Headers of .safetensors files."""

    @pytest.fixture
    def network(self, tmp_path, trained):
        return nt.save_network(trained[0], tmp_path / "a.safetensors")

    @staticmethod
    def edit(path, change):
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])

    @pytest.mark.parametrize("length", [0, 1, 2**31, 2**63, 2**64 - 1])
    def test_a_header_of_another_length(self, network, length, run):
        network.write_bytes(length.to_bytes(8, "little") + network.read_bytes()[8:])
        assert "train" in run("info", network, exit_code=2).output

    @pytest.mark.parametrize("change", HEADERS)
    def test_changed_headers(self, network, change, run):
        self.edit(network, HEADERS[change])
        with pytest.raises(nt.SchemaError):
            nt.load_network(network)
        run("info", network, exit_code=2)

    @pytest.mark.parametrize("content", CONTENTS)
    def test_contents_with_right_checksums(self, network, content, run):
        """Made to do harm: the checksums fit."""
        tensors, metadata = network_files.read_tensors(network, "nntomo_dask.nnfbp", who="test")
        key, value = CONTENTS[content]
        network_files.write_tensors(tensors, {**metadata, key: value}, network)
        with pytest.raises(nt.SchemaError, match="a damaged file"):
            nt.load_network(network)
        assert run("info", network, exit_code=2).output.strip().isprintable()

    def test_equal_networks_are_equal_bytes(self, tmp_path, trained):
        """Written by processes with other orders of keys."""
        nt.save_network(trained[0], tmp_path / "a.safetensors")
        script = "import sys, nntomo_dask as nt; nt.save_network(nt.load_network(sys.argv[1]), sys.argv[2])"
        for name in ("b", "c"):
            subprocess.run(
                [sys.executable, "-c", script, str(tmp_path / "a.safetensors"), str(tmp_path / f"{name}.safetensors")],
                check=True,
            )
        assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1

    @pytest.mark.parametrize(
        ("name", "remedy"),
        [
            ("thesis.txt", "check the path"),
            ("a.safetensors", "train the network again"),
            ("store.zarr/zarr.json", "give the folder of the store"),
            ("a.cif", "nntomo simulate"),
        ],
    )
    def test_info_on_another_file(self, tmp_path, run, name, remedy):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("precious" * 100)
        text = run("info", name, exit_code=2).output
        assert f"which is something else; try: {remedy}" in text
        assert "delete" not in text
