"""How readers of foreign files refuse: what a parser says of a damaged file becomes the error of the package."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nntomo_dask.errors import SchemaError, refuse
from nntomo_dask.untrusted import printable

APART = "save the images of one size and type to a file of their own"  # where a file holds several kinds
REAL = "save it with real numbers, of which integers or floats are read"
_LONGEST = 200  # characters of what a parser says
_MOST_NAMES = 20


class FaultError(ValueError):
    """What is wrong with a file, as readers raise it within `reading`.

    A file that is whole but cannot be read here has a remedy of its own; that of a damaged one is another copy.
    """

    def __init__(self, text: str, *, remedy: str = "copy the file again, or save it again by the program that made it"):
        super().__init__(text)
        self.remedy = remedy


@contextmanager
def reading(path: Path, needs: str) -> Iterator[None]:
    """Turn every fault of a parser into a SchemaError; `needs` says what was needed: "a whole DM3 or DM4 file".

    Parsers that meet a damaged file raise errors of all kinds, of which none may reach the user as it is.
    """
    try:
        yield
    except SchemaError:
        raise
    except Exception as error:
        said = printable(str(error) or type(error).__name__).replace("`", "'")
        refuse(
            "import",
            needs=needs,
            got=f"{path} ({said[:_LONGEST]})",
            remedy=(error if isinstance(error, FaultError) else FaultError("")).remedy,
        )


def choose(path: Path, names: Sequence[str], dataset: str | None, *, what: str) -> int:
    """Which of several things in a file is meant.

    Raises
    ------
    SchemaError
        There are several and none is named, or the name is none of them.
    """
    shown = ", ".join(repr(name) for name in names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")
    if dataset is None:
        if len(names) == 1:
            return 0
        refuse("import", needs=f"one {what}", got=f"{len(names)} in {path}: {shown}", remedy=f'`dataset="{names[0]}"`')
    found = [index for index, name in enumerate(names) if name == dataset]
    if len(found) == 1:
        return found[0]
    refuse("import", needs=f"a {what} of {path}: {shown}", got=f"{dataset!r}", remedy=f'`dataset="{names[0]}"`')
