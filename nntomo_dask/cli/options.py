"""Options of the command line made from declarations: one for each setting, with its type, default, unit and help.

A declaration is a frozen dataclass whose fields are made by `settings.setting`. Where a verb chooses one of several
(``--method sirt``), the options of all of them stand in its help, each with the names that it belongs to, and an option
of another one is refused.
"""

import ast
import dataclasses
import shlex
from collections.abc import Callable, Collection, Mapping
from typing import Any

import click

from nntomo_dask.cli.computing import Verb
from nntomo_dask.settings import Setting, settings_of

Command = Callable[..., Any]

_NONE = "none"


class NumberOrWord(click.ParamType[Any]):
    """A number, or one of some words; `nothing` is the one among them that is None."""

    name = "number"

    def __init__(self, kind: type, words: tuple[str, ...], nothing: str | None = None) -> None:
        self.kind, self.words, self.nothing = kind, words, nothing

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What help shows for a value: ``NUMBER|auto``."""
        return "|".join(("NUMBER", *self.words))

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The number, or the word."""
        if value in self.words:
            return None if value == self.nothing else value
        try:
            return self.kind(value)
        except ValueError:
            self.fail(f"{value!r} is not a number{''.join(f' or {word}' for word in self.words)}", param, ctx)


class NumbersOrWord(click.ParamType[Any]):
    """A whole number, several numbers with commas between them, or one of some words."""

    name = "numbers"

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What help shows for a value: ``NUMBER|A,B,…|auto``."""
        return "|".join(("NUMBER", "A,B,…", *self.words))

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The number, the tuple of numbers, or the word."""
        if not isinstance(value, str) or value in self.words:
            return value
        try:
            return tuple(float(part) for part in value.split(",")) if "," in value else int(value)
        except ValueError:
            words = "".join(f" or {word}" for word in self.words)
            self.fail(f"{value!r} is not a whole number, nor numbers with commas between them{words}", param, ctx)


class SettingOption(click.Option):
    """The option of a setting; `setting` is the setting's name in Python, which the option's name may differ from."""

    def __init__(self, *arguments: Any, setting: str, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.setting = setting


def spelled(command: click.Command, parameter: str) -> str:
    """A parameter of a Python call as an option of a command: ``pixels=58`` as ``--pixels 58``.

    A value that Python quotes loses its quotes, a tuple its brackets, and ``True`` is the option alone. A parameter for
    which the command has no option stays as it is.
    """
    name, equals, value = (part.strip() for part in parameter.partition("="))
    for option in command.get_params(click.Context(command)):
        if isinstance(option, click.Option) and name in (option.name, getattr(option, "setting", None)):
            break
    else:
        return parameter
    flag = max(option.opts, key=len)
    if not equals:
        return flag
    if option.is_flag:
        return flag if value == "True" else option.secondary_opts[0] if option.secondary_opts else parameter
    return f"{flag} {_as_argument(value)}"


def _as_argument(value: str) -> str:
    """A value in Python's spelling as it is typed on the command line; what is no literal stays as it is."""
    try:
        literal = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    if literal is None:
        return _NONE
    if isinstance(literal, dict):
        return ",".join(f"{key}={part}" for key, part in literal.items())
    if isinstance(literal, tuple | list):
        return ",".join(str(part) for part in literal)
    if isinstance(literal, str):
        return shlex.quote(literal)
    return value


def of(
    declaration: type,
    types: Mapping[str, click.ParamType[Any]] | None = None,
    *,
    only: Collection[str] | None = None,
) -> Callable[[Command], Command]:
    """Options for the settings of one declaration.

    Parameters
    ----------
    types
        By setting, where the type of an option does not follow from the type of the field.
    only
        Names of the settings that become options; by default all of them.
    """
    chosen = [one for one in settings_of(declaration) if one.option is not None and (only is None or one.name in only)]

    def decorate(command: Command) -> Command:
        for one in reversed(chosen):
            attributes = _attributes(one, "", one) | (
                {"type": types[one.name]} if types is not None and one.name in types else {}
            )
            command = click.option(one.flag, _parameter(one), **attributes)(command)
        return command

    return decorate


class Chooser(Verb):
    """A verb that chooses one of some declarations; its options are those of all of them, made when they are asked for.

    So a method or a phantom that is registered at run time has its options too.
    """

    declarations: Mapping[str, Any]
    others: tuple[Mapping[str, Any], ...] = ()

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What the verb does, and what it chooses among."""
        super().format_help_text(ctx, formatter)
        known = [(name, getattr(one, "summary", "")) for name, one in self.declarations.items()]
        if any(summary for _, summary in known):
            with formatter.section(f"{getattr(self.declarations, 'kind', 'choice').capitalize()}s"):
                formatter.write_dl([(name, f"{summary}.") for name, summary in known])

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The options of the verb itself, those of the declarations, of what they take, and --help."""
        own = super().get_params(ctx)
        return [*self.params, *of_all(self.declarations), *self.options_of_others(), *own[len(self.params) :]]

    def options_of_others(self) -> list[click.Option]:
        """Options for the settings of what the declarations take, as far as nothing else has their flags."""
        own = [one for one in self.params if isinstance(one, click.Option)] + of_all(self.declarations)
        taken = {flag for one in own for flag in one.opts}
        return [one for other in self.others for one in of_all(other) if not taken.intersection(one.opts)]


def chooser(declarations: Mapping[str, Any], *others: Mapping[str, Any]) -> type[Chooser]:
    """The class of a verb that chooses among some declarations: ``@click.command(cls=chooser(METHODS))``.

    Settings of the declarations can be names of `others`, whose settings are options too.
    """
    return type("Chooser", (Chooser,), {"declarations": declarations, "others": others})


def of_all(declarations: Mapping[str, Any]) -> list[click.Option]:
    """Options for the settings of all declarations among which a verb chooses, each flag once."""
    by_flag: dict[str, dict[str, Setting]] = {}
    for name, declaration in declarations.items():
        for one in settings_of(declaration):
            if one.option is not None:
                by_flag.setdefault(one.flag, {})[name] = one
    found = []
    for flag, owners in by_flag.items():
        first = next(iter(owners.values()))
        prefix = f"[{', '.join(owners)}] " if len(owners) < len(declarations) else ""
        if len({one.help for one in owners.values()}) > 1:
            prefix, words = "", " ".join(f"[{name}] {_with_default(one)}" for name, one in owners.items())
            merged = dataclasses.replace(first, default=None, help=words)
        elif len({_shown(one) for one in owners.values()}) > 1:
            values = ", ".join(f"{_shown(one) or 'none'} ({name})" for name, one in owners.items())
            merged = dataclasses.replace(first, default=None, help=f"{first.help} Default: {values}.")
        else:
            merged = first
        choices = tuple(dict.fromkeys(choice for one in owners.values() for choice in one.choices))
        merged = dataclasses.replace(merged, choices=choices)
        attributes = _attributes(merged, prefix, first)
        found.append(attributes.pop("cls")([flag, _parameter(first)], **attributes))
    return found


class Name(click.ParamType[str]):
    """The name of something in a registry; what is registered at run time is known too."""

    name = "name"

    def __init__(self, registry: Mapping[str, Any]) -> None:
        self.registry = registry

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The names."""
        return "|".join(self.registry)

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """A name of the registry."""
        if value not in self.registry:
            self.fail(f"{value!r} is not one of {', '.join(self.registry)}", param, ctx)
        return str(value)


def build(declaration: Any, arguments: dict[str, Any], /, *, without: Collection[str] = (), **others: Any) -> Any:
    """An instance of a declaration with the settings that stand on the command line; the others keep their defaults.

    `without` are flags that belong to something else here.
    """
    given: dict[str, Any] = {}
    for one in settings_of(declaration):
        if one.option is not None and one.flag not in without and is_given(key := _parameter(one)):
            given[one.name] = arguments[key]
    return declaration(**given, **others)


def build_chosen(
    declarations: Mapping[str, Any],
    chosen: str,
    flag: str,
    arguments: dict[str, Any],
    /,
    *,
    without: Collection[str] = (),
    **others: Any,
) -> Any:
    """An instance of the chosen declaration; options that only others know are refused."""
    known = {one.flag for one in settings_of(declarations[chosen])}
    owners: dict[str, list[str]] = {}
    parameters = {}
    for name in declarations:
        for one in settings_of(declarations[name]):
            if one.option is not None and one.flag not in without:
                owners.setdefault(one.flag, []).append(name)
                parameters[one.flag] = _parameter(one)
    for option, names in owners.items():
        if option not in known and is_given(parameters[option]):
            raise click.UsageError(f"{option} is for {flag} {' or '.join(names)}, not for {chosen}")
    return build(declarations[chosen], arguments, without=without, **others)


def is_given(name: str) -> bool:
    """Whether an option stands on the command line."""
    return click.get_current_context().get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _parameter(one: Setting) -> str:
    return one.flag.removeprefix("--").replace("-", "_")


def _shown(one: Setting) -> str:
    """A default as help shows it; empty where there is none worth showing."""
    if one.default in (dataclasses.MISSING, None) or one.kind is bool:
        return ""
    parts = one.default if isinstance(one.default, tuple) else (one.default,)
    return ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts)


def _with_default(one: Setting) -> str:
    """Help with unit and default."""
    default = _shown(one)
    return f"{one.help}{f' [{one.unit}]' if one.unit else ''}{f' [default: {default}]' if default else ''}"


def _attributes(one: Setting, prefix: str, original: Setting) -> dict[str, Any]:
    """Keywords of a click option."""
    text = prefix + _with_default(one)
    common: dict[str, Any] = {"cls": SettingOption, "setting": original.name, "help": text}
    return common | ({"is_flag": True} if one.kind is bool else {"type": _type(one)})


def _type(one: Setting) -> Any:
    if one.registry is not None:
        return Name(one.registry)
    if one.kind in (int, float) and one.choices:
        words = tuple(str(choice) for choice in one.choices)
        return NumberOrWord(one.kind, (*words, _NONE), _NONE) if one.optional else NumberOrWord(one.kind, words)
    if one.kind is object:
        return NumbersOrWord(tuple(str(choice) for choice in one.choices))
    if one.choices:
        return click.Choice([str(choice) for choice in one.choices])
    return one.kind
