"""What comes from files that may be damaged, or made to do harm: JSON and recipes within bounds, text that is printed.

All of it costs little memory and time whatever a file says, and every fault is a ValueError.
"""

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

LONGEST_JSON = 2**23  # bytes
DEEPEST_JSON = 128  # levels of lists and objects; far less than Python's recursion limit
MOST_CONTAINERS = 200_000  # lists and objects, each of which takes some 70 bytes
DEEPEST_RECIPE = 40  # recipes of inputs of inputs; Dask's names of deeper ones reach Python's recursion limit
MOST_ANGLES = 2**16
LONGEST_OPERATION = 200  # characters of its name
_RECIPE_KEYS = {"operation": str, "parameters": dict, "inputs": list, "version": str}


def parsed_json(content: bytes | str) -> Any:
    """Parse JSON within bounds.

    Raises
    ------
    ValueError
        It is no JSON, or too long, too deep, not UTF-8, or has NaN or infinity, which JSON does not know.
    """
    if len(content) > LONGEST_JSON:
        raise ValueError(f"{len(content)} bytes of JSON, more than {LONGEST_JSON}")
    text = content.decode("utf-8") if isinstance(content, bytes) else content
    if text.count("[") + text.count("{") > MOST_CONTAINERS:
        raise ValueError(f"more than {MOST_CONTAINERS} lists and objects in JSON")
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        value = None
        depth = DEEPEST_JSON + 1
    else:
        depth = max(level for level, _ in _containers(value))
    if depth > DEEPEST_JSON:
        raise ValueError(f"JSON of more than {DEEPEST_JSON} levels")
    if "\\u" in text:  # an escape may stand for half a character, which is no text
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def parsed_object(content: bytes | str) -> dict[str, Any]:
    """Parse a JSON object within bounds; a ValueError where it is something else."""
    value = parsed_json(content)
    if not isinstance(value, dict):
        raise ValueError(f"an object in JSON was expected, not {type(value).__name__}")
    return value


def canonical_json(value: Any) -> str:
    """JSON in which equal values, and only these, are equal text: 1, 1.0 and true differ."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def finite_number(value: Any) -> float:
    """A number, or a text that is one, as float; a ValueError where it is none, or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{str(value)[:40]!r} is no number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not finite")
    return number


def whole_number(value: Any, *, least: int, most: int) -> int:
    """A whole number, or a text that is one, within bounds; a ValueError where it is something else."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{str(value)[:40]!r} is no whole number")
    number = int(value)
    if not least <= number <= most:
        raise ValueError(f"{str(number)[:40]} is not from {least} to {most}")
    return number


def angles(value: Any) -> tuple[float, ...]:
    """Tilt angles as a file lists them; a ValueError where they are no finite numbers, or too many."""
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_ANGLES:
        raise ValueError(f"angles are not a list of at most {MOST_ANGLES} numbers")
    return tuple(finite_number(angle) for angle in value)


def is_recipe(value: Any) -> bool:
    """Whether a value has the form of a recipe, as deep as one may be, down to the last of its inputs.

    Inputs may lack a part: the recipe of a network that was made by hand is empty.
    """
    return isinstance(value, dict) and set(_RECIPE_KEYS) <= set(value) and _are_steps([value])


def recipe_of_network(text: str) -> dict[str, Any]:
    """The recipe in a network's file; a ValueError where it is none. It may lack a part."""
    recipe = parsed_object(text)
    if not _are_steps([recipe]):
        raise ValueError("its recipe is none")
    return recipe


def printable(text: str) -> str:
    """Text in which control characters and other ones that cannot be seen are escaped, as Python writes them.

    A terminal obeys such characters: they move the cursor, hide text, or set the window's title.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def _are_steps(level: list[Any]) -> bool:
    for _ in range(DEEPEST_RECIPE):
        if not all(_is_step(one) for one in level):
            return False
        level = [item for one in level for item in one.get("inputs", [])]
    return not level


def _is_step(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    parts = all(isinstance(value[key], kind) for key, kind in _RECIPE_KEYS.items() if key in value)
    return parts and len(value.get("operation", "")) <= LONGEST_OPERATION


def _containers(value: Any) -> Iterator[tuple[int, Any]]:
    """Every list and object with its level, from 1; level 0 for a value that is neither."""
    pending = [(1, value)] if isinstance(value, dict | list) else []
    if not pending:
        yield 0, value
    while pending:
        level, container = pending.pop()
        yield level, container
        items = container.values() if isinstance(container, dict) else container
        pending += [(level + 1, item) for item in items if isinstance(item, dict | list)]


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # more digits than a float takes
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")
