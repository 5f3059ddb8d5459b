"""Where a store is written: which paths may be used, and how a new store replaces the old one."""

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

from nntomo_dask.arrays import recipes
from nntomo_dask.errors import refuse
from nntomo_dask.store import files

StorePath = str | os.PathLike[str]


def check_places(targets: Sequence[Path]) -> None:
    """Raise a SchemaError where one of these resolved paths cannot be the path of a store. Nothing is written.

    A store is a folder with a name. It does not lie inside another store, which would then contain what is not its own.
    """
    for target in targets:
        if not target.name:
            refuse("save", needs="the path of a folder to write", got=f"{target}", remedy="give a path with a name")
        for parent in target.parents:
            if (parent / "zarr.json").is_file() and (files.is_store(parent) or files.has_damaged_metadata(parent)):
                refuse(
                    "save",
                    needs="a path outside other stores",
                    got=f"{target}, inside the store {parent}",
                    remedy=f"give a path beside it, {parent.with_name(target.name)}",
                )
    for number, target in enumerate(targets):
        for other in targets[number + 1 :]:
            if target == other:
                refuse("save", needs="a path for each store", got=f"{target} twice", remedy="give another path")
            if target in other.parents or other in target.parents:
                inner, outer = (other, target) if target in other.parents else (target, other)
                refuse(
                    "save",
                    needs="a path outside other stores",
                    got=f"{inner}, inside the store {outer}",
                    remedy=f"give a path beside it, {outer.with_name(inner.name)}",
                )


def check_contents(folder: Path, wanted: recipes.Recipe, *, overwrite: bool) -> None:
    """Raise a SchemaError where a folder holds what may not be continued, or with `overwrite` not be replaced."""
    existing: recipes.Recipe | None
    if files.has_damaged_metadata(folder):
        existing = files.surviving_recipe(folder)
        if existing is None and not overwrite:
            files.refuse_metadata("save", folder)
    elif files.is_store(folder):
        existing = files.recipe(folder)
    else:
        refuse(
            "save",
            needs="a free path, or the path of a store that nntomo_dask wrote",
            got=f"{folder}, which is something else",
            remedy="give another path, or move or remove it by hand if it is not needed",
        )
    if not overwrite and not recipes.same(existing, wanted):
        refuse(
            "save",
            needs="a free path, or the path of a store with the same recipe",
            got=f"{folder}, made otherwise: {recipes.difference(existing, wanted)}",
            remedy="`overwrite=True`, or give another path",
        )


def is_of(folder: Path, made_by: recipes.Recipe) -> bool:
    """Whether a folder is a store with this recipe, complete or not."""
    return files.is_store(folder) and recipes.same(files.recipe(folder), made_by)


def new_store(target: Path) -> Path:
    """Where a store is written that will replace another one."""
    return target.with_name(f".{target.name}.new")


def remove_new_store(target: Path) -> None:
    """Remove an incomplete store that was to replace `target`."""
    if files.is_store(new_store(target)) or files.has_damaged_metadata(new_store(target)):
        files.remove(new_store(target))


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
