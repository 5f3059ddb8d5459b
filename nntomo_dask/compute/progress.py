"""How far a computation is: a bar on a terminal or in a notebook, now and then a plain line anywhere else."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from tqdm.auto import tqdm

Progress = Literal["bar", "none"]

PAUSE_SECONDS = 10.0  # at least, between two plain lines of one computation
_PARTS = 10  # where the whole is known, a line at each tenth


class Bar(Protocol):
    """What a computation tells of itself."""

    def update(self) -> None:
        """One more is done."""

    def expect(self, total: int) -> None:
        """So many there are in all."""

    def add(self, **values: str) -> None:
        """Values to be shown beside the count."""


def tell(line: str) -> None:
    """Print a line on stderr without disturbing a progress bar."""
    if sys.stderr is not None:
        tqdm.write(line, file=sys.stderr)


@contextmanager
def shown(progress: Progress, *, description: str, unit: str, total: int | None = None, done: int = 0) -> Iterator[Bar]:
    """Show the progress of what is computed within this context.

    Parameters
    ----------
    progress
        "bar": a bar where stderr is a terminal that can move its cursor, or a notebook; elsewhere, in a file, a pipe or
        a dumb terminal, a line at the beginning, at the end, and at most every `PAUSE_SECONDS`. "none": nothing.
    unit
        What is counted, in the singular.
    total, done
        How many there are in all, if that is known, and how many were done before.
    """
    if progress == "bar" and not _can_draw():
        lines = _Lines(description, unit, total, done)
        yield lines
        lines.end()
        return
    with tqdm(
        total=total, initial=done, desc=description, unit=unit, disable=progress != "bar", mininterval=0.2
    ) as drawn:
        yield _Drawn(drawn)


def _can_draw() -> bool:
    """Whether a bar can be drawn over and over."""
    if any(one.__module__ == "tqdm.notebook" for one in tqdm.__mro__):
        return True
    if sys.stderr is None or os.environ.get("TERM") == "dumb":
        return False
    return bool(sys.stderr.isatty())


class _Drawn:
    """A bar of tqdm."""

    def __init__(self, drawn: Any) -> None:
        self.drawn = drawn

    def update(self) -> None:
        self.drawn.update()

    def expect(self, total: int) -> None:
        self.drawn.reset(total=total)

    def add(self, **values: str) -> None:
        self.drawn.set_postfix(refresh=False, **values)


class _Lines:
    """Plain lines."""

    def __init__(self, description: str, unit: str, total: int | None, done: int) -> None:
        self.description, self.unit, self.total, self.done = description, unit, total, done
        self.values: dict[str, str] = {}
        self.began = self.told = time.monotonic()
        self.part = 0
        self._tell("begins" if total is None else f"{self._count()} done")

    def update(self) -> None:
        self.done += 1
        now = time.monotonic()
        part = self.done if self.total is None else self.done * _PARTS // max(self.total, 1)
        if part > self.part and now - self.told >= PAUSE_SECONDS and self.done != self.total:
            self.part, self.told = part, now
            self._tell(f"{self._count()}, {_duration(now - self.began)}")

    def expect(self, total: int) -> None:
        self.total = total

    def add(self, **values: str) -> None:
        self.values = values

    def end(self) -> None:
        """Say that all is done."""
        self._tell(f"{self.done} {self._units(self.done)} in {_duration(time.monotonic() - self.began)}")

    def _count(self) -> str:
        if self.total is None:
            return f"{self.done} {self._units(self.done)}"
        return f"{self.done} of {self.total} {self._units(self.total)}"

    def _units(self, count: int) -> str:
        return self.unit if count == 1 else f"{self.unit}s"

    def _tell(self, text: str) -> None:
        values = "".join(f", {name} {value}" for name, value in self.values.items())
        tell(f"{self.description}: {text}{values}")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
