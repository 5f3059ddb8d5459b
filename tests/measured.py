"""Peak memory of `nntomo` commands that run one after another in one process, whose imports are paid once.

Before each command the kernel's record of the most memory held is set to what is held at that moment. What an earlier
command left behind counts for a later one too, so that a peak may come out too high but never too low.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests import THREADS


def high_water_mark(pid: int | str = "self") -> int:
    """Most memory that a process has held so far, or since `forget_peak`; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def forget_peak() -> None:
    """Measure this process's peak from now on."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def environment() -> dict[str, str]:
    """That of a user: without the limits under which the tests themselves run beside each other."""
    limits = {*THREADS, "PYTEST_XDIST_WORKER"} if "PYTEST_XDIST_WORKER" in os.environ else set()
    return {name: value for name, value in os.environ.items() if name not in limits}


class Runner:
    """A process that runs commands and says what each of them held at most."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process

    def peak_bytes(self, *words: object) -> int:
        """Peak memory of the process during an `nntomo` command, which must succeed."""
        self.process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the process that runs the commands has died"
        code, peak = json.loads(answer)
        assert code == 0, words
        return peak


@contextlib.contextmanager
def runner() -> Iterator[Runner]:
    """The process, as long as the context lasts."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.measured"],
        cwd=Path(__file__).parents[1],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Runner(process)
        process.stdin.close()


def serve() -> None:
    """Run the commands that come line by line, and answer each with its exit code and its peak."""
    from nntomo_dask.cli.computing import _PRELOADED
    from nntomo_dask.cli.main import main

    for name in _PRELOADED:  # what a prediction counts as the program itself, whichever command runs
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    for line in sys.stdin:
        forget_peak()
        code = 0
        try:
            main(json.loads(line))
        except SystemExit as end:
            code = end.code or 0
        print(json.dumps([code, high_water_mark()]), file=answers, flush=True)


if __name__ == "__main__":
    serve()
