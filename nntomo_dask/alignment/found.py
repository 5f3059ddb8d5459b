"""The table of an alignment that was found, kept beside its output: a rerun reads it and goes on from there."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import xarray as xr

from nntomo_dask.alignment.files import read_alignment, write_alignment
from nntomo_dask.alignment.table import Alignment
from nntomo_dask.arrays import recipes, schema
from nntomo_dask.errors import SchemaError, refuse
from nntomo_dask.untrusted import canonical_json

_FOUND_FOR, _DIGEST = "found_for", "digest"


def found_once(
    series: xr.DataArray,
    find: Callable[..., Alignment],
    options: Mapping[str, Any],
    table: Path,
    *,
    overwrite: bool = False,
) -> tuple[Alignment, bool]:
    """The alignment that ``find(series, **options)`` gives, written to a table; or the one in the table, if it is that.

    Parameters
    ----------
    overwrite
        Replace the table of another series or of other options, or one that was edited.

    Returns
    -------
    The alignment, and whether it was found now.

    Raises
    ------
    SchemaError
        The table is another one, or was edited; or as `find`.
    """
    recipe = canonical_json(recipes.without_versions(recipes.recipe_of(series)))
    wanted = {"series": hashlib.sha256(recipe.encode()).hexdigest()[:32], "options": recipes.without_versions(options)}
    there = _there(table, wanted, overwrite=overwrite)
    if there is not None:
        return there, False
    found = replace(find(series, **options), pixel_size=schema.pixel_size_of(series), units=str(series.attrs["units"]))
    found = replace(found, provenance={**found.provenance, _FOUND_FOR: wanted, _DIGEST: found.digest()})
    write_alignment(found, table)
    return found, True


def _there(table: Path, wanted: dict[str, Any], *, overwrite: bool) -> Alignment | None:
    """The alignment of the table, if it is the one that is wanted; None where it may be replaced, or there is none."""
    if not table.exists():
        return None
    try:
        there = read_alignment(table)
    except SchemaError:
        if overwrite:
            return None
        raise
    same = canonical_json(there.provenance.get(_FOUND_FOR)) == canonical_json(wanted)
    if same and there.provenance.get(_DIGEST) == there.digest():
        return there
    if overwrite:
        return None
    refuse(
        "align",
        needs=f"a free path for the table, {table}, or the one that this found before",
        got="one that was edited since" if same else "the table of another series, or of other options",
        remedy=f"`table={str(table)!r}` to apply it; or `overwrite=True` to find it again",
    )
