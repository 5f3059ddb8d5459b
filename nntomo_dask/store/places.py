"""Where a store is written: which paths may be used, and how a new store replaces the old one."""

import contextlib
import os
import unicodedata
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from nntomo_dask.arrays import recipes
from nntomo_dask.errors import SchemaError, refuse
from nntomo_dask.store import files, lock

StorePath = str | os.PathLike[str]


def check_places(targets: Sequence[Path], *, who: str = "save") -> None:
    """Raise a SchemaError where one of these resolved paths cannot be the path of a store. Nothing is written.

    A store is a folder with a name, and not one in which this process works. It does not lie inside another store,
    which would then contain what is not its own.
    """
    for target in targets:
        check_store_place(target, who=who)
    check_apart(targets, who=who)


def check_store_place(target: Path, *, who: str) -> None:
    """Raise a SchemaError where one resolved path cannot be the path of a store."""
    here = Path.cwd()
    if not target.name or target == here or target in here.parents:
        got = f"{target}, in which this command runs" if target.name else f"{target}"
        refuse(who, needs="the path of a folder to write", got=got, remedy="give a path with a name of its own")
    for parent in target.parents:
        if (parent / "zarr.json").is_file() and (files.is_store(parent) or files.has_damaged_metadata(parent)):
            refuse(
                who,
                needs="a path outside other stores",
                got=f"{target}, inside the store {parent}",
                remedy=f"give a path beside it, {parent.with_name(target.name)}",
            )


def check_apart(targets: Sequence[Path], *, who: str) -> None:
    """Raise a SchemaError where two of these resolved paths are one, or one lies inside another.

    Names that differ only in the case or the encoding of letters count as equal, since on some systems they are.
    """
    for number, target in enumerate(targets):
        for other in targets[number + 1 :]:
            if are_one(target, other):
                twice = f"{target} twice" if target == other else f"{target} and {other}"
                refuse(who, needs="a path for each output", got=twice, remedy="give another path")
            if target in other.parents or other in target.parents:
                inner, outer = (other, target) if target in other.parents else (target, other)
                refuse(
                    who,
                    needs="a path outside other stores",
                    got=f"{inner}, inside the store {outer}",
                    remedy=f"give a path beside it, {outer.with_name(inner.name)}",
                )


def are_one(first: Path, second: Path) -> bool:
    """Whether two resolved paths lead to one file on some system, or are one file here."""
    if first == second:
        return True
    if _folded(first.name) == _folded(second.name) and _is_same(first.parent, second.parent):
        return True
    return _is_same(first, second)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _is_same(first: Path, second: Path) -> bool:
    try:
        return first == second or first.samefile(second)
    except OSError:
        return False


def is_empty(folder: Path) -> bool:
    """Whether a path is a folder without contents, which is as free as none."""
    return folder.is_dir() and not any(folder.iterdir())


def check_contents(folder: Path, wanted: recipes.Recipe, *, overwrite: bool) -> None:
    """Raise a SchemaError where a folder holds what may not be continued, or with `overwrite` not be replaced."""
    if is_empty(folder):
        return
    existing: recipes.Recipe | None
    if files.has_damaged_metadata(folder):
        existing = files.surviving_recipe(folder)
        if existing is None and not overwrite:
            files.refuse_metadata("save", folder)
    elif files.is_store(folder):
        existing = files.recipe(folder)
    else:
        refuse_foreign("save", folder)
    if not overwrite and not recipes.same(existing, wanted):
        refuse(
            "save",
            needs="a free path, or the path of a store with the same recipe",
            got=f"{folder}, made otherwise: {recipes.difference(existing, wanted)}",
            remedy="`overwrite=True`, or give another path",
        )


def check_is_store(folder: Path, *, who: str) -> None:
    """Raise a SchemaError where something is no store, whatever the state of its metadata."""
    if not (files.is_store(folder) or files.has_damaged_metadata(folder)):
        refuse_foreign(who, folder)


def refuse_foreign(who: str, folder: Path) -> NoReturn:
    """Raise the SchemaError for a place that holds something else than a store."""
    refuse(
        who,
        needs="a free path, or the path of a store that nntomo_dask wrote",
        got=f"{folder}, which is something else",
        remedy="give another path, or move or remove it by hand if it is not needed",
    )


def is_of(folder: Path, made_by: recipes.Recipe) -> bool:
    """Whether a folder is a store with this recipe, complete or not."""
    return files.is_store(folder) and recipes.same(files.recipe(folder), made_by)


def new_store(target: Path) -> Path:
    """Where a store is written that will replace another one."""
    return target.with_name(f".{target.name}.new")


def remove_new_store(target: Path) -> None:
    """Remove an incomplete store that was to replace `target`."""
    new = new_store(target)
    if files.is_store(new) or files.has_damaged_metadata(new) or is_empty(new):
        _remove(new, target)


def _remove(folder: Path, target: Path) -> None:
    """Remove a folder beside a store. First it gets a name that tells the next run what it is, should this one end."""
    old = target.with_name(f".{target.name}.old-{uuid.uuid4().hex[: files.TOKEN_DIGITS]}")
    folder.rename(old)
    files.remove(old)


def remove_leftovers(target: Path, made_by: recipes.Recipe) -> None:
    """Remove what runs that were killed left beside a store, unless another run writes there now.

    A new store with another recipe, begun to replace this one, goes; one with this recipe is continued.
    """
    new = new_store(target)
    with contextlib.suppress(OSError, SchemaError):  # on a disk that is read only, or where another run has just begun
        left = [*files.leftovers(target, before=".old-"), *files.leftovers(target, before=".", after=".partial")]
        if (left or new.exists() or lock.is_left(target)) and not lock.is_held(target):
            with lock.held(target):
                finish_replacement(target)
                files.remove_partial(target)
                if not is_of(new, made_by) or is_of(target, made_by):
                    remove_new_store(target)


def replace(target: Path) -> None:
    """Replace a store by the new one beside it. What others put into its folder stays."""
    files.move_foreign(target, new_store(target))
    old = target.with_name(f".{target.name}.old-{uuid.uuid4().hex[: files.TOKEN_DIGITS]}")
    target.rename(old)
    new_store(target).rename(target)
    files.remove(old)


def finish_replacement(target: Path) -> None:
    """Finish a replacement that was interrupted: rename a complete new store, and remove the old one."""
    new = new_store(target)
    if not target.exists() and files.is_store(new) and not files.missing_chunks(new):
        new.rename(target)
    if target.exists():
        for old in files.leftovers(target, before=".old-"):
            files.remove(old)
