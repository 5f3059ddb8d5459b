import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

import nntomo_dask as nt
from nntomo_dask import store
from nntomo_dask.arrays import recipes


@pytest.fixture
def particle():
    return nt.nanoparticle((70, 24, 24), seed=1)


def digest(folder: Path) -> dict[str, str]:
    """Every file of a store by its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_round_trip(tmp_path, particle):
    saved = nt.save(particle, tmp_path / "a.zarr")
    assert saved.chunks is not None
    xr.testing.assert_identical(saved.compute(), particle.compute())
    assert recipes.recipe_of(saved) == recipes.recipe_of(particle)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_plain_xarray_reads_it(tmp_path, series):
    nt.save(series, tmp_path / "a.zarr")
    plain = xr.open_zarr(tmp_path / "a.zarr")["tilt_series"]
    np.testing.assert_array_equal(plain.values, series.values)
    np.testing.assert_array_equal(plain.angle, series.angle)
    assert plain.attrs["units"] == "px"
    assert plain.attrs["recipe"]["operation"] == "array"


def test_saving_computes_once(tmp_path, particle, nothing_computes):
    with pytest.raises(AssertionError, match="something was computed"):
        nt.save(particle, tmp_path / "a.zarr")
    with dask.config.set(scheduler="threads"):
        nt.save(particle, tmp_path / "a.zarr")
    nt.save(particle, tmp_path / "a.zarr")


def test_one_task_writes_whole_chunks(tmp_path, particle):
    """Slabs that do not line up with the chunks are brought in line first."""
    for number, chunks in enumerate([(7,) * 10, (1,) * 70, (70,), (33, 4, 33)]):
        saved = nt.save(particle.chunk(z=chunks), tmp_path / f"{number}.zarr")
        np.testing.assert_array_equal(saved.values, particle.values)
    assert nt.open(tmp_path / "0.zarr").chunksizes["z"][0] == 7
    assert nt.open(tmp_path / "2.zarr").chunksizes["z"][0] == 32


def test_open_in_other_slabs(tmp_path, particle):
    nt.save(particle, tmp_path / "a.zarr")
    opened = nt.open(tmp_path / "a.zarr", slices=5)
    assert opened.chunksizes["z"][0] == 5
    np.testing.assert_array_equal(opened.values, particle.values)


def test_missing_chunks_are_made_again_and_no_others(tmp_path, particle):
    path = tmp_path / "a.zarr"
    nt.save(particle, path)
    before = digest(path)
    (path / "volume/c/1/0/0").unlink()
    untouched = (path / "volume/c/0/0/0").stat().st_mtime_ns
    with pytest.raises(nt.SchemaError, match=r"needs a complete store; got .* without 1 of 3 chunks"):
        nt.open(path)
    nt.save(particle, path)
    assert digest(path) == before
    assert (path / "volume/c/0/0/0").stat().st_mtime_ns == untouched


def test_another_recipe_is_refused_and_says_what_differs(tmp_path, series):
    path = tmp_path / "a.zarr"
    nt.save(nt.sirt(series, tolerance=0.01), path)
    before = digest(path)
    with pytest.raises(nt.SchemaError, match=r"parameters.tolerance is 0.01 there and 0.02 here; try: overwrite=True"):
        nt.save(nt.sirt(series, tolerance=0.02), path)
    with pytest.raises(nt.SchemaError, match=r'operation is "sirt" there and "fbp" here'):
        nt.save(nt.fbp(series), path)
    with pytest.raises(nt.SchemaError, match=r"inputs\[0\].parameters.token"):
        nt.save(nt.sirt(series * 2, tolerance=0.01), path)
    assert digest(path) == before


def test_a_changed_array_is_not_mistaken_for_what_it_was(tmp_path, particle):
    """Arithmetic and selections keep the attributes, the old recipe among them; what is stored is another."""
    changed = [particle * 2, particle * 3, particle.isel(z=slice(0, 40)), particle.assign_coords(x=particle.x + 1)]
    found = [recipes.recipe_of(array) for array in [particle, *changed]]
    assert len({json.dumps(recipe) for recipe in found}) == len(found)
    assert all(recipe["inputs"] == [found[0]] for recipe in found[1:])


def test_overwriting_may_read_what_it_replaces(tmp_path, particle):
    path = tmp_path / "a.zarr"
    saved = nt.save(particle, path)
    doubled = nt.save((saved * 2).assign_attrs(saved.attrs), path, overwrite=True)
    np.testing.assert_array_equal(doubled.values, 2 * particle.values)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


def test_what_is_no_store_is_refused_and_left_alone(tmp_path, particle):
    with pytest.raises(nt.SchemaError, match="open: needs a store; got nothing at"):
        nt.open(tmp_path / "none.zarr")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(nt.SchemaError, match=r"save: needs a free path, .* which is something else"):
            nt.save(particle, foreign, overwrite=overwrite)
    with pytest.raises(nt.SchemaError, match="open: needs a store that nntomo_dask wrote"):
        nt.open(foreign)
    assert (foreign / "thesis.txt").read_text() == "precious"


def test_only_volumes_and_series_are_saved(tmp_path, particle):
    with pytest.raises(nt.SchemaError, match="save: needs a volume with dims"):
        nt.save(particle.isel(z=0), tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path, particle):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        nt.save(particle, tmp_path / "file" / "a.zarr")


SLOW_SAVE = """
import sys, time
import numpy as np
import nntomo_dask as nt
from nntomo_dask.phantoms import particle as phantoms

original = phantoms._particle_slab
def slow(z_indices, **arguments):
    print("slab", flush=True)
    time.sleep(float(sys.argv[2]))  # so that the kill meets a run in the middle
    return original(z_indices, **arguments)
phantoms._particle_slab = slow
import dask
with dask.config.set(scheduler="threads", num_workers=2):
    nt.save(nt.nanoparticle((70, 24, 24), seed=1).chunk(z=5), sys.argv[1])
"""


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path):
    """SIGKILL at three moments of one run, each time half-way through what is left."""
    command = [sys.executable, "-c", SLOW_SAVE]
    never_killed, killed = tmp_path / "never.zarr", tmp_path / "killed.zarr"
    subprocess.run([*command, str(never_killed), "0"], check=True, capture_output=True)
    for slabs_seen in (1, 2, 3):
        with subprocess.Popen([*command, str(killed), "0.2"], stdout=subprocess.PIPE) as process:
            for _ in range(slabs_seen):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        if killed.exists():
            assert store.missing_chunks(killed)
    subprocess.run([*command, str(killed), "0"], check=True, capture_output=True)
    assert digest(killed / "volume") == digest(never_killed / "volume")
    assert not store.missing_chunks(killed)


FULL_DISK = """
import resource, sys
import nntomo_dask as nt
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
array = nt.volume(__import__("numpy").random.default_rng(0).random((64, 24, 24)))
nt.save(array, sys.argv[1])
"""


def test_a_full_disk_is_an_error_and_leaves_no_half_chunk(tmp_path):
    """A limit on the size of files stands for the full disk: the chunks that do not fit are missing, not damaged."""
    path = tmp_path / "a.zarr"
    run = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "File too large" in run.stderr
    assert len(store.missing_chunks(path)) == 2
    array = nt.volume(np.random.default_rng(0).random((64, 24, 24)))
    np.testing.assert_array_equal(nt.save(array, path).values, array.values)


def test_a_swap_that_was_killed_between_its_renames_is_finished(tmp_path, particle):
    """What `overwrite` leaves when it dies after it moved the old store away: the new one is complete beside it."""
    nt.save(particle, tmp_path / "a.zarr")
    nt.save(nt.normalize(particle * 2), tmp_path / "b.zarr")
    (tmp_path / "a.zarr").rename(tmp_path / ".a.zarr.old-12345678")
    (tmp_path / "b.zarr").rename(tmp_path / ".a.zarr.new")
    assert nt.open(tmp_path / "a.zarr").attrs["recipe"]["operation"] == "normalize"
    nt.open(tmp_path / "a.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_a_store_that_was_replaced_is_not_read_as_the_old_one(tmp_path, particle):
    opened = nt.save(particle, tmp_path / "a.zarr")
    nt.save(nt.segment(particle, threshold=2), tmp_path / "a.zarr", overwrite=True)
    with pytest.raises(nt.SchemaError, match="got another store; try: open it again"):
        opened.compute()


def test_units_and_pixel_size_belong_to_what_is_stored(tmp_path, rng):
    data = rng.random((4, 8, 8), np.float32)
    nt.save(nt.volume(data, units="px"), tmp_path / "a.zarr")
    with pytest.raises(nt.SchemaError, match="made otherwise"):
        nt.save(nt.volume(data, units="nm", pixel_size=2), tmp_path / "a.zarr")
    nt.save(nt.volume(np.asfortranarray(data)), tmp_path / "a.zarr")


def test_relative_paths_and_links(tmp_path, particle, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = nt.save(particle, "a.zarr")
    (tmp_path / "link.zarr").symlink_to("a.zarr")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(saved.values, particle.values)
    nt.save(nt.segment(particle, threshold=2), tmp_path / "link.zarr", overwrite=True)
    assert nt.open(tmp_path / "a.zarr").values.max() == 0


def test_an_empty_chunk_file_counts_as_missing(tmp_path, particle):
    nt.save(particle, tmp_path / "a.zarr")
    (tmp_path / "a.zarr/volume/c/1/0/0").write_bytes(b"")
    np.testing.assert_array_equal(nt.save(particle, tmp_path / "a.zarr").values, particle.values)


@pytest.mark.parametrize("name", ["a*.zarr", "a[bc].zarr", "a?.zarr"])
def test_leftovers_belong_to_the_store_with_that_very_name(tmp_path, particle, name):
    """What killed runs left: a partial store, and the old one of a replacement."""
    endings = (".12345678.partial", ".old-12345678")
    own = [tmp_path / f".{name}{ending}" for ending in endings]
    others = [tmp_path / f".{other}{ending}" for other in ("ab.zarr", f"{name}.x") for ending in endings]
    for folder in (*own, *others):
        folder.mkdir()
    nt.save(particle, tmp_path / name)
    nt.open(tmp_path / name)  # finds the place complete, and removes the old store
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / name, *others])


def test_a_store_inside_a_store_is_refused(tmp_path, particle):
    nt.save(particle, tmp_path / "a.zarr")
    before = digest(tmp_path / "a.zarr")
    for inner in ("b.zarr", "volume", "volume/c/b.zarr"):
        with pytest.raises(nt.SchemaError, match=r"save: needs a path outside other stores; got .* inside the store"):
            nt.save(particle, tmp_path / "a.zarr" / inner, overwrite=True)
    (tmp_path / "a.zarr/zarr.json").write_text("damaged")
    with pytest.raises(nt.SchemaError, match="inside the store"):
        nt.save(particle, tmp_path / "a.zarr/b.zarr")
    assert {**digest(tmp_path / "a.zarr"), "zarr.json": before["zarr.json"]} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


def test_a_folder_named_like_an_array_is_no_store(tmp_path, particle):
    nt.save(particle, tmp_path / "volume/a.zarr")
    nt.save(particle, tmp_path / "volume/b.zarr")


def test_the_root_folder_is_refused(particle):
    with pytest.raises(nt.SchemaError, match="save: needs the path of a folder to write; got /; try: give a path with"):
        nt.save(particle, "/")


def test_foreign_folders_in_a_store_are_ignored(tmp_path, particle):
    """Notebooks, file servers and earlier versions of this package put folders there."""
    nt.save(particle, tmp_path / "a.zarr")
    (tmp_path / "a.zarr/.ipynb_checkpoints").mkdir()
    (tmp_path / "a.zarr/b.zarr").mkdir()
    np.testing.assert_array_equal(nt.open(tmp_path / "a.zarr").values, particle.values)


def test_what_is_not_ours_is_not_replaced_beside_a_store_either(tmp_path, particle):
    nt.save(particle, tmp_path / "a.zarr")
    (tmp_path / ".a.zarr.new").mkdir()
    (tmp_path / ".a.zarr.new/thesis.txt").write_text("precious")
    with pytest.raises(nt.SchemaError, match=r"a\.zarr\.new, which is something else"):
        nt.save(nt.segment(particle, threshold=2), tmp_path / "a.zarr", overwrite=True)
    assert (tmp_path / ".a.zarr.new/thesis.txt").exists()


def test_a_replacement_that_was_given_up_is_removed(tmp_path, particle):
    nt.save(particle, tmp_path / "a.zarr")
    nt.save(nt.segment(particle, threshold=2), tmp_path / "b.zarr")
    (tmp_path / "b.zarr/volume/c/1/0/0").unlink()
    (tmp_path / "b.zarr").rename(tmp_path / ".a.zarr.new")
    (tmp_path / "a.zarr/volume/c/1/0/0").unlink()
    nt.save(particle, tmp_path / "a.zarr")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


def test_datasets(tmp_path, trained, particle, series):
    """`open_dataset` has the type of what it opens; `open` opens the same stores."""
    training = trained[1].isel(voxel=slice(0, 100))
    assert isinstance(nt.save(training, tmp_path / "set.zarr"), xr.Dataset)
    xr.testing.assert_identical(nt.open(tmp_path / "set.zarr"), nt.open_dataset(tmp_path / "set.zarr"))
    by_angle = series.chunk(z=-1, angle=1)
    for names in (["haadf"], ["haadf", "idpc"]):
        path = tmp_path / f"{len(names)}.zarr"
        saved = nt.save(xr.Dataset({name: by_angle for name in names}), path)
        assert isinstance(saved, xr.Dataset)
        assert list(saved) == list(nt.open_dataset(path)) == names
    np.testing.assert_array_equal(nt.open(tmp_path / "1.zarr").values, series.values)
    nt.save(particle, tmp_path / "a.zarr")
    with pytest.raises(nt.SchemaError, match=r"open_dataset: needs a store of a training set or .*; got .* a volume"):
        nt.open_dataset(tmp_path / "a.zarr")
