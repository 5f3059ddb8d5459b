"""The error for input that an operation cannot take, and its form: who needs what, what came, what to try."""

from typing import NoReturn


class SchemaError(ValueError):
    """Input that an operation cannot take. The message says who needs what, what came, and what to try."""


def refuse(who: str, *, needs: str, got: str, remedy: str) -> NoReturn:
    """Raise a SchemaError in the form that all errors of the package have.

    Parameters
    ----------
    who
        The function or command that refuses.
    needs, got
        What it needs, and what it was given instead.
    remedy
        What to try: an imperative, or a call. A parameter stands in backticks, ``"`pixels=58`"``: Python shows it as
        it is, and the command line shows the option of that name, ``--pixels 58``.
    """
    raise SchemaError(f"{who}: needs {needs}; got {got}; try: {remedy}")
