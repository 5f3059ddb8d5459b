"""What a command will write, checked and held before it does anything else.

Every output is free or may be replaced, lies inside no store, is neither another output nor an input, and is written by
no other run until the command has ended. What killed runs left there is removed.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nntomo_dask import aside
from nntomo_dask.errors import refuse
from nntomo_dask.store import files, lock, places


@contextlib.contextmanager
def reserved(
    who: str,
    *,
    stores: Sequence[Path] = (),
    written: Sequence[Path] = (),
    inputs: Sequence[Path] = (),
    overwrite: bool = False,
    replaced: Sequence[Path] = (),
    folders: Sequence[Path] = (),
    may_replace: Callable[[Path], bool] = lambda _: False,
) -> Iterator[None]:
    """Hold the outputs of a command from its beginning to its end.

    Parameters
    ----------
    who
        The command, for errors.
    stores
        Paths of stores. Whether the recipe of one that is there allows it to be continued or replaced, `save` checks.
    written
        Files that must not be there yet, or only with `overwrite`.
    inputs
        Paths that the command reads: stores, series within stores, files.
    replaced
        Files that may be there; what they hold, the command checks.
    folders
        Paths of folders that are no stores, written by `aside.written_folder`: free or empty, or with `overwrite` what
        `may_replace` knows as written by the same command.

    Raises
    ------
    SchemaError
        An output cannot be written there, and the message says why; or another run is writing it.
    OSError
        The place of an output cannot be written to.
    """
    all_files = [aside.resolved(path) for path in (*written, *replaced)]
    all_stores = [aside.resolved(path) for path in stores]
    for store in all_stores:
        places.check_store_place(store, who=who)
        if store.exists() and not store.is_dir():
            got = f"{store}, which is a file"
            refuse(who, needs="a free path, or the path of a store", got=got, remedy="give another path")
        if store.is_dir() and not places.is_empty(store):
            places.check_is_store(store, who=who)
    for file in all_files:
        aside.check_file(file, who=who)
    all_folders = [aside.resolved(path) for path in folders]
    for folder in all_folders:
        aside.check_folder(folder, who=who)
        if folder.is_dir() and not places.is_empty(folder) and not may_replace(folder):
            got = f"{folder}, which holds something else"
            refuse(who, needs="a free path, or that of an earlier export", got=got, remedy="give another path")
    everything = [*all_stores, *all_files, *all_folders]
    places.check_apart(everything, who=who)
    for output in everything:
        _check_parents(output, who=who)
        for path in inputs:
            _check_is_no_input(output, aside.resolved(path), who=who)
    with contextlib.ExitStack() as held:
        for output in everything:
            try:
                held.enter_context(lock.reserved([output]))
            except OSError:
                # A store that is complete needs nothing written, so its disk may be full or read only.
                if not (output in all_stores and files.is_store(output)):
                    raise
        for file in [*all_files, *all_folders]:
            aside.remove_leftovers(file)
        taken = [folder for folder in folders if folder.is_dir() and not places.is_empty(aside.resolved(folder))]
        check_free([*written, *taken], who=who, overwrite=overwrite)
        yield


def check_free(written: Sequence[Path], *, who: str, overwrite: bool) -> None:
    """Raise a SchemaError where one of some files is there already and is not to be overwritten."""
    for path in written:
        if path.exists() and not overwrite:
            refuse(who, needs="a free path", got=f"{path}, which exists", remedy="`overwrite=True`, or another path")


def check_folder(folder: Path, inputs: Sequence[Path], *, who: str) -> None:
    """Raise a SchemaError where a folder for stores beside an output is a file, or holds or is an input."""
    place = aside.resolved(folder)
    if place.exists() and not place.is_dir():
        refuse(who, needs="the path of a folder to write", got=f"{folder}, which is a file", remedy="move that file")
    for path in inputs:
        _check_is_no_input(place, aside.resolved(path), who=who)


def _check_parents(output: Path, *, who: str) -> None:
    """Raise a SchemaError where a file is in the place of a folder."""
    for parent in output.parents:
        if parent.exists():
            if not parent.is_dir():
                got = f"{output}, inside the file {parent}"
                refuse(who, needs="a path inside a folder", got=got, remedy="give another path")
            return


def _check_is_no_input(output: Path, source: Path, *, who: str) -> None:
    """Raise a SchemaError where an output is an input, or the store or folder that holds it."""
    if source.exists() and (places.are_one(output, source) or output in source.parents):
        refuse(
            who,
            needs="an output that is not an input",
            got=f"{output}" if output == source else f"{output} and {source}",
            remedy="give another path",
        )
    if not source.exists() and source.parent.exists() and places.are_one(output, source.parent):
        # A series within a store: store.zarr/haadf.
        got = f"{output}, which holds {source}"
        refuse(who, needs="an output that is not an input", got=got, remedy="give another path")
