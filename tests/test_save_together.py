"""Several stores from one computation: what they share is computed once, and each is as `save` writes it."""

import dask
import dask.array as da
import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask import store
from nntomo_dask.arrays import recipes, slabs
from nntomo_dask.compute import cluster
from nntomo_dask.store import files, lock, places
from tests.test_store import digest

SLICES, SLAB, SIZE = 70, 16, 24


COMPUTED = {}  # of each `Shared`, the numbers of the slabs that were computed


class Shared:
    """Two volumes, the double and the triple of one input, whose slabs are made together."""

    def __init__(self, *, slab=SLAB, fails_at=None):
        run = len(COMPUTED)
        self.computed = COMPUTED[run] = []
        data = da.arange(SLICES, chunks=slab).map_blocks(
            shared_slab,
            new_axis=[0, 2, 3],
            chunks=((2,), da.core.normalize_chunks(slab, (SLICES,))[0], (SIZE,), (SIZE,)),
            dtype=np.float32,
            meta=np.empty((0,) * 4, np.float32),
            run=run,
            fails_at=fails_at,
        )
        self.double, self.triple = (labelled(data, place) for place in (0, 1))


def shared_slab(z_indices, *, run, fails_at):
    if fails_at in z_indices:
        raise RuntimeError("it fails here")
    COMPUTED[run].append(int(z_indices[0]) // SLAB)
    slab = np.broadcast_to(z_indices[:, None, None] + 1, (len(z_indices), SIZE, SIZE))
    return np.stack([2 * slab, 3 * slab]).astype(np.float32)


def labelled(data, place):
    reference = nt.volume(np.zeros((SLICES, SIZE, SIZE), np.float32))
    return slabs.label(
        da.map_blocks(take, data, place=place, drop_axis=0, dtype=np.float32, meta=np.empty((0,) * 3, np.float32)),
        dims=reference.dims,
        coords=reference.coords,
        attrs=reference.attrs,
        recipe=recipes.record("shared", {"place": place}),
        name="volume",
    )


def take(block, place):
    return block[place]


N_SLABS = -(-SLICES // SLAB)


def test_shared_slabs_are_computed_once(tmp_path):
    shared = Shared()
    saved = nt.save_together({tmp_path / "2.zarr": shared.double, tmp_path / "3.zarr": shared.triple})
    assert sorted(shared.computed) == list(range(N_SLABS))
    assert list(saved) == [tmp_path / "2.zarr", tmp_path / "3.zarr"]
    for factor, array in zip((2, 3), saved.values(), strict=True):
        expected = factor * np.arange(1, SLICES + 1)
        np.testing.assert_array_equal(array.values, np.broadcast_to(expected[:, None, None], array.shape))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.zarr", "3.zarr"]


@pytest.mark.filterwarnings("ignore")  # distributed's own, of sockets that close late
def test_shared_slabs_are_computed_once_by_a_cluster(tmp_path):
    from distributed import Client

    shared = Shared()
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None):
        nt.save_together({tmp_path / "2.zarr": shared.double, tmp_path / "3.zarr": shared.triple})
    assert sorted(shared.computed) == list(range(N_SLABS))


def test_no_more_slabs_are_held_than_with_one_store(tmp_path, monkeypatch):
    """A slab is written to both stores before another one is begun: at most those of the two workers are held."""
    shared, held, written = Shared(slab=2), [], []
    write = files.write_chunks

    def counted(*arguments):
        held.append(len(shared.computed) - len(written) // 2)
        write(*arguments)
        written.append(arguments)

    monkeypatch.setattr(files, "write_chunks", counted)
    with cluster.session(workers=2, scheduler="threads"):
        nt.save_together({tmp_path / "2.zarr": shared.double, tmp_path / "3.zarr": shared.triple})
    assert len(written) == 2 * SLICES // 2
    assert max(held) <= 3  # one of them may be counted before its second file is


def test_each_store_is_as_if_saved_alone(tmp_path):
    shared = Shared()
    nt.save_together({tmp_path / "2.zarr": shared.double, tmp_path / "3.zarr": shared.triple})
    for name, array in (("2", shared.double), ("3", shared.triple)):
        alone = nt.save(array, tmp_path / f"alone-{name}.zarr")
        assert digest(tmp_path / f"{name}.zarr") == digest(tmp_path / f"alone-{name}.zarr")
        nt.save(array, tmp_path / f"{name}.zarr")  # recognised
        assert recipes.recipe_of(alone) == recipes.recipe_of(nt.open(tmp_path / f"{name}.zarr"))


def test_only_missing_chunks_are_computed(tmp_path):
    shared, paths = Shared(), {"double": tmp_path / "2.zarr", "triple": tmp_path / "3.zarr"}
    nt.save_together({path: getattr(shared, name) for name, path in paths.items()})
    before = {path: digest(path) for path in paths.values()}
    for lacking in ({"double": [3]}, {"double": [0, 1], "triple": [1, 4]}, {}):
        for name, chunks in lacking.items():
            for chunk in chunks:
                (paths[name] / f"volume/c/{chunk}/0/0").unlink()
        again = Shared()
        nt.save_together({path: getattr(again, name) for name, path in paths.items()})
        assert sorted(again.computed) == sorted({chunk for chunks in lacking.values() for chunk in chunks})
        assert {path: digest(path) for path in paths.values()} == before


def test_unrelated_arrays_do_not_make_each_other_computed(tmp_path):
    first, second = Shared(), Shared()
    arrays = {tmp_path / "2.zarr": first.double, tmp_path / "3.zarr": second.triple}
    nt.save_together(arrays)
    (tmp_path / "3.zarr/volume/c/2/0/0").unlink()
    first.computed.clear()
    second.computed.clear()
    nt.save_together(arrays)
    assert (first.computed, second.computed) == ([], [2])


def test_an_interrupted_run_continues(tmp_path):
    paths = tmp_path / "2.zarr", tmp_path / "3.zarr"
    failing = Shared(fails_at=40)
    # One task at a time: what other threads still write when one fails would not be known as lacking yet.
    with dask.config.set(scheduler="synchronous"), pytest.raises(RuntimeError, match="it fails here"):
        nt.save_together(dict(zip(paths, (failing.double, failing.triple), strict=True)))
    lacking = {chunk for path in paths for chunk in store.missing_chunks(path)}
    assert 2 in lacking
    shared = Shared()
    nt.save_together(dict(zip(paths, (shared.double, shared.triple), strict=True)))
    assert sorted(shared.computed) == sorted(lacking)
    assert [store.missing_chunks(path) for path in paths] == [[], []]


def test_arrays_in_other_slabs(tmp_path):
    """Volumes of other sizes and other chunks than their stores."""
    volumes = [nt.nanoparticle((20 + n, 24, 24), seed=n).chunk(z=(7,) * 2 + (6 + n,)) for n in range(3)]
    saved = nt.save_together({tmp_path / f"{n}.zarr": volume for n, volume in enumerate(volumes)})
    for opened, volume in zip(saved.values(), volumes, strict=True):
        np.testing.assert_array_equal(opened.values, volume.values)


def test_all_are_replaced_at_the_end(tmp_path):
    paths = tmp_path / "2.zarr", tmp_path / "3.zarr"
    shared = Shared()
    double, triple = nt.save_together(dict(zip(paths, (shared.double, shared.triple), strict=True))).values()
    swapped = {paths[0]: triple + double, paths[1]: triple - double}
    with pytest.raises(nt.SchemaError, match="made otherwise"):
        nt.save_together(swapped)
    nt.save_together({path: array.assign_attrs(double.attrs) for path, array in swapped.items()}, overwrite=True)
    np.testing.assert_array_equal(nt.open(paths[0]).values[:, 0, 0], 5 * np.arange(1, SLICES + 1))
    np.testing.assert_array_equal(nt.open(paths[1]).values[:, 0, 0], np.arange(1, SLICES + 1))
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_progress_counts_slabs_and_names_what_is_complete(tmp_path, monkeypatch, capsys):
    shared, asked = Shared(), []
    compute = cluster.compute

    def counted(tasks, **arguments):
        asked.append((len(tasks), arguments["description"]))
        compute(tasks, **arguments)

    monkeypatch.setattr(cluster, "compute", counted)
    arrays = {tmp_path / "2.zarr": shared.double, tmp_path / "3.zarr": shared.triple}
    nt.save_together(arrays, progress="bar")
    (tmp_path / "3.zarr/volume/c/2/0/0").unlink()
    capsys.readouterr()
    nt.save_together(arrays, progress="bar")
    assert asked == [(N_SLABS, "2.zarr, 3.zarr"), (1, "3.zarr")]
    assert "2.zarr: found complete, nothing to compute" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.zarr", "./a.zarr"), r"save: needs a path for each output; got .*a\.zarr twice"),
        (("a.zarr", "a.zarr/b.zarr"), r"needs a path outside other stores; got .*b\.zarr, inside the store .*a\.zarr;"),
        (
            ("a.zarr/b/c.zarr", "a.zarr"),
            r"needs a path outside other stores; got .*c\.zarr, inside the store .*a\.zarr;",
        ),
        (("a.zarr", "/"), "needs the path of a folder to write; got /"),
        (("a.zarr", "A.ZARR"), r"needs a path for each output; got .*a\.zarr and .*A\.ZARR"),
        (("a.zarr", "."), "in which this command runs"),
        (("..",), "in which this command runs"),
    ],
)
def test_paths_are_checked_before_anything_is_written(tmp_path, monkeypatch, nothing_computes, names, message):
    monkeypatch.chdir(tmp_path)
    shared = Shared()
    with pytest.raises(nt.SchemaError, match=message):
        nt.save_together(dict(zip(names, (shared.double, shared.triple), strict=False)))
    assert list(tmp_path.iterdir()) == []


def test_every_store_is_locked(tmp_path, nothing_computes, monkeypatch):
    shared = Shared()
    monkeypatch.setattr(lock, "held", places_that_are_free(lock.held, taken=tmp_path / "3.zarr"))
    with pytest.raises(nt.SchemaError, match="another run"):
        nt.save_together({tmp_path / "2.zarr": shared.double, tmp_path / "3.zarr": shared.triple})
    assert list(tmp_path.iterdir()) == []


def places_that_are_free(held, *, taken):
    def wrapped(target):
        if target == taken:
            raise nt.SchemaError("another run")
        return held(target)

    return wrapped


def test_nothing_to_save(tmp_path):
    assert nt.save_together({}) == {}
    places.check_places([])
