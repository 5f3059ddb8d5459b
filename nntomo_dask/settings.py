"""Settings: fields of a frozen dataclass that say of themselves what they mean.

Options of the command line, their help, checks of values and the rows of tables in the documentation follow from them.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from nntomo_dask.errors import refuse

_KEY = "nntomo_dask.setting"


@dataclass(frozen=True)
class Setting:
    """One field of a declaration.

    Attributes
    ----------
    name
        Of the field, and of the keyword in Python.
    help
        One sentence or two that a user understands.
    kind
        Type of a value: bool, int, float, str, or another class.
    optional
        Whether None is allowed.
    choices
        The values of a Literal; empty where there is no list.
    default
        `dataclasses.MISSING` where one must be given.
    unit
        Of a number: "nm".
    least, most
        Bounds of a number, both included; `above` and `below` are bounds that are not.
    registry
        The registry of which a value is a name; None where it is none.
    option
        Name on the command line where it differs from `name`; None keeps the setting off the command line.
    """

    name: str
    help: str
    kind: Any
    optional: bool
    choices: tuple[Any, ...]
    default: Any
    unit: str | None = None
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    registry: Mapping[str, Any] | None = None
    option: str | None = None

    @property
    def flag(self) -> str:
        """The option: ``--max-iterations``."""
        return "--" + (self.option or self.name).replace("_", "-")


def setting(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    unit: str | None = None,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    registry: Mapping[str, Any] | None = None,
    option: str | None = "",
) -> Any:
    """A field of a declaration; see `Setting`."""
    metadata = {
        "help": help,
        "unit": unit,
        "least": least,
        "most": most,
        "above": above,
        "below": below,
        "registry": registry,
        "option": option,
    }
    return dataclasses.field(default=default, metadata={_KEY: metadata})


def settings_of(declaration: Any) -> tuple[Setting, ...]:
    """The settings of a dataclass or of an instance of one, in the order of its fields."""
    cls = declaration if isinstance(declaration, type) else type(declaration)
    hints = get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        if _KEY not in field.metadata:
            continue
        metadata: Mapping[str, Any] = field.metadata[_KEY]
        kind, optional, choices = _parts(hints[field.name])
        found.append(
            Setting(name=field.name, kind=kind, optional=optional, choices=choices, default=field.default, **metadata)
        )
    return tuple(found)


def check_settings(declaration: Any, *, who: str) -> None:
    """Raise a SchemaError where a setting of an instance is not one of its choices or out of its bounds."""
    for one in settings_of(declaration):
        value = getattr(declaration, one.name)
        if value is None and one.optional:
            continue
        default = one.default if one.default not in (dataclasses.MISSING, None) else None
        remedy = f"`{one.name}={_spelled(default)}`" if default is not None else f"another `{one.name}`"
        words = _words(one)
        if isinstance(value, str) and one.choices:
            if value not in one.choices:
                refuse(who, needs=f"{words} {_listed(one.choices)}", got=f"{value!r}", remedy=remedy)
        elif one.kind is object:
            continue  # a number or something else: its owner checks it
        elif one.choices and all(isinstance(choice, one.kind) for choice in one.choices):
            if value not in one.choices:
                refuse(who, needs=f"{words} {_listed(one.choices)}", got=f"{value!r}", remedy=remedy)
        elif one.kind in (int, float):
            if one.kind is float and isinstance(value, float) and math.isinf(value):
                refuse(who, needs=f"a finite {words}", got=f"{value!r}", remedy=remedy)
            number = _number(value, whole=one.kind is int)
            if number is None or not _within(number, one):
                refuse(who, needs=f"{words} {_bounds(one)}", got=f"{value!r}", remedy=remedy)
        elif one.choices and value not in one.choices:
            refuse(who, needs=f"{words} {_listed(one.choices)}", got=f"{value!r}", remedy=remedy)


def _words(one: Setting) -> str:
    """A setting in words: "field of view" of ``field_of_view_nm``."""
    name = one.name if one.unit is None else one.name.removesuffix(f"_{one.unit.lower()}")
    return name.replace("_", " ")


def _listed(choices: tuple[Any, ...]) -> str:
    """``"native" or "astra"``."""
    quoted = [f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in choices]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def _spelled(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: Any, *, whole: bool) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if isinstance(value, str | bool) or not math.isfinite(number) or (whole and not number.is_integer()):
        return None
    return number


def _within(number: float, one: Setting) -> bool:
    return (
        (one.least is None or number >= one.least)
        and (one.most is None or number <= one.most)
        and (one.above is None or number > one.above)
        and (one.below is None or number < one.below)
    )


def _bounds(one: Setting) -> str:
    number = "whole number" if one.kind is int else "number"
    parts = [
        text
        for bound, text in (
            (one.above, f"above {one.above:g}" if one.above is not None else ""),
            (one.least, f"of at least {one.least:g}" if one.least is not None else ""),
            (one.below, f"below {one.below:g}" if one.below is not None else ""),
            (one.most, f"of at most {one.most:g}" if one.most is not None else ""),
        )
        if bound is not None
    ]
    unit = f" in {one.unit}" if one.unit else ""
    return " and ".join(parts) + unit if parts else f"that is a {number}{unit}"


def _parts(hint: Any) -> tuple[Any, bool, tuple[Any, ...]]:
    """Type of a value, whether None is allowed, and the values of a Literal."""
    optional = False
    choices: list[Any] = []
    kinds = []
    for part in get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType) else (hint,):
        if part is type(None):
            optional = True
        elif get_origin(part) is Literal:
            choices.extend(get_args(part))
        else:
            kinds.append(part)
    if len(kinds) > 1:
        return object, optional, tuple(choices)  # a number or something else: its owner checks it
    kind = kinds[0] if kinds else type(choices[0]) if choices else str
    return kind, optional, tuple(choices)
