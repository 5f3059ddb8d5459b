"""The error for input that an operation cannot take, and its form: who needs what, what it got, what to try."""

import re
from collections.abc import Callable
from typing import NoReturn

from nntomo_dask.untrusted import printable

_PARAMETER = re.compile(r"`([^`]+)`")
_WORD = re.compile(r"(\w+)=([a-z][a-z0-9_-]*)")  # in lower case: FILE stands for another, True and None are no words


class Spelled:
    """Of an error whose message names parameters, each in backticks in the raw text ``args[0]``.

    Attributes
    ----------
    command
        The raw text for a user of the command line, where it is another one; else None.

    ``str(error)`` shows them without the backticks, as Python writes them. `spelled` shows them in another form, such
    as the options of a command. What cannot be seen, such as the escape sequences of a terminal in a file's name, is
    shown as Python writes it.
    """

    command: str | None = None

    def __str__(self) -> str:
        """The message as a user of Python reads it."""
        return _PARAMETER.sub(lambda found: _quoted(found[1]), printable(super().__str__()))

    def spelled(self, spell: Callable[[str], str]) -> str:
        """The message for the command line, with ``spell(text)`` in place of every text in backticks.

        Parameters
        ----------
        spell
            Is given ``"pixels=58"`` or ``"pixels"``, without the backticks.
        """
        return _PARAMETER.sub(lambda found: spell(found[1]), printable(self.command or super().__str__()))


def _quoted(parameter: str) -> str:
    """A parameter as Python takes it: a word that is its value in quotes."""
    found = _WORD.fullmatch(parameter)
    return f'{found[1]}="{found[2]}"' if found else parameter


class SchemaError(Spelled, ValueError):
    """Input that an operation cannot take. The message says who needs what, what it got, and what to try."""


class OutOfMemoryError(Spelled, MemoryError):
    """The memory of the machine, or of a worker, was too small for what was begun."""


def refuse(who: str, *, needs: str, got: str, remedy: str, command: str | None = None) -> NoReturn:
    """Raise a SchemaError in the form that all errors of the package have.

    Parameters
    ----------
    who
        The function or command that refuses.
    needs, got
        What it needs, and what it was given instead.
    remedy
        What to try: an imperative, or a call. A parameter stands in backticks, ``"set `pixels=58`"``: Python shows
        ``pixels=58``, and the command line shows the option of that name, ``--pixels 58``. A value that
        is a word, as in ``tilt_axis=y``, gets its quotes in Python. The same holds for `needs` and `got`.
    command
        What to try on the command line, where `remedy` is something that only Python can do.
    """
    begins = f"{who}: needs {needs}; got {got}; try: "
    error = SchemaError(begins + remedy)
    if command is not None:
        error.command = begins + command
    raise error
