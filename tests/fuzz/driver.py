"""Damages given to the process that reads them."""

import dataclasses
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.damage import HOWS, Damage
from tests.fuzz.targets import KINDS
from tests.fuzz.worker import MARK

FINE = {"right", "refused", "changed as it may be"}
MOST_BYTES = 200 * 2**20  # that reading a damaged file may take above what undamaged ones take


class Outcome(NamedTuple):
    """What came of a damage: a word, what was done and said, and the peak memory above that of undamaged files."""

    word: str
    said: str
    more_bytes: int

    @property
    def is_fine(self) -> bool:
        """Whether it is what is promised."""
        return self.word in FINE and self.more_bytes <= MOST_BYTES


class Reader:
    """The process; it is started again where it has died."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.process, self.base, self.starts = folder, None, 0, 0

    def start(self) -> None:
        """Start it, and wait until it has read the undamaged files."""
        self.starts += 1
        folder = self.folder / str(self.starts)
        folder.mkdir(parents=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", str(folder)],
            cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        answer = self._answer()
        assert answer is not None, "the undamaged files could not be read"
        self.base = answer[2]

    def try_out(self, damage: Damage) -> Outcome:
        """What comes of a damage."""
        if self.process is None:
            self.start()
        self.process.stdin.write(json.dumps(dataclasses.asdict(damage)) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        if answer is None:
            code = self.process.wait()
            self.process = None
            return Outcome("died", f"exit code {code}", 0)
        return Outcome(answer[0], answer[1], answer[2] - self.base)

    def _answer(self) -> list | None:
        for line in self.process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        return None

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()


@contextmanager
def reader(folder: Path) -> Iterator[Reader]:
    """A process that reads damaged files, in a folder."""
    one = Reader(folder)
    try:
        yield one
    finally:
        one.stop()


def drawn(rng: random.Random, kind: str | None) -> Damage:
    """A damage by chance."""
    numbers = [rng.randrange(2**20) for _ in range(3)]
    return Damage(kind or rng.choice(sorted(KINDS)), rng.choice(HOWS), *numbers)
