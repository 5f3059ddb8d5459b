"""What comes from files that may be damaged, or made to do harm: JSON and recipes within bounds, text that is printed.

All of it costs little memory and time whatever a file says, and every fault is a ValueError.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

LONGEST_JSON = 2**23  # bytes
DEEPEST_JSON = 128  # levels of lists and objects; far less than Python's recursion limit
MOST_CONTAINERS = 200_000  # lists and objects, each of which takes some 70 bytes
DEEPEST_RECIPE = 40  # recipes of inputs of inputs; Dask's names of deeper ones reach Python's recursion limit
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
        value = json.loads(text, parse_constant=_no_number)
    except RecursionError:
        value = None
        depth = DEEPEST_JSON + 1
    else:
        depth = max(level for level, _ in _containers(value))
    if depth > DEEPEST_JSON:
        raise ValueError(f"JSON of more than {DEEPEST_JSON} levels")
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


def is_recipe(value: Any) -> bool:
    """Whether a value has the form of a recipe, as deep as one may be, down to the last of its inputs.

    An input may be empty: that of a network which was made by hand.
    """
    level = [value]
    for _ in range(DEEPEST_RECIPE):
        if not all(_is_step(one) for one in level):
            return False
        level = [item for one in level for item in one["inputs"] if item != {}]
        if not level:
            return True
    return False


def printable(text: str) -> str:
    """Text in which control characters and other ones that cannot be seen are escaped, as Python writes them.

    A terminal obeys such characters: they move the cursor, hide text, or set the window's title.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def _is_step(value: Any) -> bool:
    if not isinstance(value, Mapping) or not all(isinstance(value.get(key), of) for key, of in _RECIPE_KEYS.items()):
        return False
    return len(value["operation"]) <= LONGEST_OPERATION


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


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")
