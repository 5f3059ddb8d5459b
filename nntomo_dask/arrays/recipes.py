"""Recipes: how an array was made.

A *recipe* is a dict that JSON can store: the operation, its parameters and the recipes of its inputs. It is kept in
``attrs["recipe"]``, and the name of the Dask array is a digest of it. An array that was changed afterwards, by a
selection or by arithmetic that keeps the attributes, has another name. So the change is noticed, and the changed array
gets a recipe of its own.
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from nntomo_dask.untrusted import DEEPEST_RECIPE, printable

Recipe = dict[str, Any]

_DIGITS = 16
_LONGEST, _MOST_STEPS = 160, 40  # characters in which a recipe is shown, and operations


class Shown(dict[str, Any]):
    """A recipe that shows itself in a line, ``sirt(read_mrc("needle.mrc"))``, among the attributes of an array.

    It is the same dict otherwise, and ``repr`` writes all of it.
    """

    def __str__(self) -> str:
        """Operations, from the last to the first, and names of files."""
        text = printable(_chain(self, iter(range(_MOST_STEPS))))
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _chain(recipe: Any, steps: Iterator[int]) -> str:
    if not isinstance(recipe, dict) or next(steps, None) is None:
        return "…"
    inputs = recipe.get("inputs")
    inner = _files(recipe.get("parameters"))
    inner += [_chain(one, steps) for one in inputs] if isinstance(inputs, list) else []
    return f"{recipe.get('operation', '…')}({', '.join(inner)})" if inner else str(recipe.get("operation", "…"))


def _files(parameters: Any) -> list[str]:
    """The first file of those that were read, and a sign that there were more."""
    if not isinstance(parameters, dict):
        return []
    sources = parameters.get("sources", [parameters])
    several = sources if isinstance(sources, list) else []
    names = [one["file"] for one in several if isinstance(one, dict) and isinstance(one.get("file"), str)]
    return [json.dumps(name, ensure_ascii=False) for name in names[:1]] + ["…"] * (len(names) > 1)


def record(operation: str, parameters: Mapping[str, Any], inputs: Sequence[xr.DataArray | Recipe] = ()) -> Recipe:
    """Recipe of an operation. An input is an array, or a recipe if it is something else (a specimen, a network).

    Of inputs that are `DEEPEST_RECIPE` steps away only a digest is kept.
    """
    made_by = [recipe_of(item) if isinstance(item, xr.DataArray) else item for item in inputs]
    return {
        "operation": operation,
        "parameters": {key: _plain(value) for key, value in parameters.items()},
        "inputs": [_within(item, DEEPEST_RECIPE - 1) for item in made_by],
        "version": importlib.metadata.version("nntomo_dask"),
    }


def _within(recipe: Recipe, depth: int) -> Recipe:
    """A recipe of at most that many steps; the inputs of the last one are replaced by their digest."""
    inputs = recipe.get("inputs", [])
    if not inputs:
        return recipe
    if depth == 1:
        text = json.dumps(without_versions(inputs), sort_keys=True)
        parameters = {"digest_of_inputs": hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}
        return recipe | {"parameters": recipe["parameters"] | parameters, "inputs": []}
    within = [_within(item, depth - 1) for item in inputs]
    unchanged = all(new is old for new, old in zip(within, inputs, strict=True))
    return recipe if unchanged else recipe | {"inputs": within}


def recipe_of(array: xr.DataArray) -> Recipe:
    """How an array was made, as far as this is known."""
    recipe = array.attrs.get("recipe")
    if recipe is not None and isinstance(array.data, da.Array) and array.data.name == name_of(recipe, array):
        return cast("Recipe", recipe)
    token = tokenize(array.data.name if isinstance(array.data, da.Array) else digest(array.values), _labels(array))
    parameters = {"token": token[:_DIGITS], "shape": list(array.shape)}
    return record("array", parameters, [recipe] if recipe is not None else [])


def same(existing: Any, wanted: Any) -> bool:
    """Whether two recipes describe the same array."""
    return bool(without_versions(existing) == without_versions(wanted))


def without_versions(made_by: Any) -> Any:
    """A recipe in the form that JSON returns, without the version of the package."""
    if isinstance(made_by, dict):
        return {str(key): without_versions(value) for key, value in made_by.items() if key != "version"}
    if isinstance(made_by, list | tuple):
        return [without_versions(value) for value in made_by]
    return made_by


def find(recipe: Any, *operations: str) -> Recipe | None:
    """The first recipe of one of some operations that something was made from; None where there is none."""
    if not isinstance(recipe, dict):
        return None
    if recipe.get("operation") in operations:
        return recipe
    return next((found for one in recipe.get("inputs", ()) if (found := find(one, *operations)) is not None), None)


def difference(existing: Any, wanted: Any, place: str = "") -> str:
    """The first difference between two recipes, in words."""
    existing, wanted = without_versions(existing), without_versions(wanted)
    if isinstance(existing, dict) and isinstance(wanted, dict):
        first = ("operation", "parameters", "inputs")
        for key in (*first, *sorted(existing.keys() | wanted.keys() - set(first))):
            if existing.get(key) != wanted.get(key):
                return difference(existing.get(key), wanted.get(key), f"{place}.{key}" if place else key)
    if (
        isinstance(existing, list)
        and isinstance(wanted, list)
        and len(existing) == len(wanted)
        and place.endswith("inputs")
    ):
        for index, (left, right) in enumerate(zip(existing, wanted, strict=True)):
            if left != right:
                return difference(left, right, f"{place}[{index}]")
    return f"{place} is {_short(existing)} there and {_short(wanted)} here"


def token(recipe: Recipe) -> str:
    """A short name of a recipe, for the layers of a Dask graph."""
    return str(tokenize(recipe))[:_DIGITS]


def digest(values: np.ndarray[Any, Any]) -> str:
    """Digest of the values; it does not depend on the memory layout."""
    contiguous = np.ascontiguousarray(values)
    return hashlib.sha256(contiguous.data).hexdigest() + str((contiguous.shape, contiguous.dtype.str))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def name_of(recipe: Recipe, array: xr.DataArray) -> str:
    """Name of the Dask array that is labelled with a recipe: a digest of recipe, chunks and labels."""
    return f"{recipe['operation']}-{tokenize(recipe, array.data.chunks, _labels(array))}"


def _labels(array: xr.DataArray) -> str:
    """Token of everything that a recipe does not contain: coordinates, units, pixel size."""
    values = {str(key): np.asarray(value.values) for key, value in array.coords.items()}
    # By bytes: Dask's own token of an array depends on how the array was made.
    coords = {key: (value.dtype.str, value.tobytes()) for key, value in values.items()}
    return tokenize(coords, array.attrs.get("units"), float(array.attrs.get("pixel_size", 1.0)))
