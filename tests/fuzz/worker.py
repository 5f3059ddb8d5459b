"""A process that reads damaged files under a limit of memory and of time, and says what came of it.

A line of JSON, a damage, is answered by a line of JSON: [outcome, what was done and said, peak memory in bytes].
"""

import json
import os
import resource
import signal
import sys
import traceback
import warnings
from pathlib import Path

import dask
from click.testing import CliRunner

from nntomo_dask.cli.main import main as command
from nntomo_dask.errors import SchemaError
from tests.fuzz import damage
from tests.fuzz.targets import KINDS

SECONDS = 20  # for one damaged file
MORE_BYTES = 2**29  # of address space, above what undamaged files take
MARK = "@fuzz "  # begins the lines of answers


def outcome(kind: str, path: Path, right: str, how: str) -> tuple[str, str]:
    """What came of reading a damaged file, and why."""
    try:
        found = KINDS[kind].read(path)
        result, said = ("right", "") if found == right else ("changed", "other data")
        if result == "changed" and (not KINDS[kind].has_checksums or how == "crafted"):
            result = "changed as it may be"
    except SchemaError as error:
        result, said = "refused", str(error)
        if not said.isprintable() or "needs" not in said:
            return "bad message", said
    except Exception:
        return "traceback", traceback.format_exc()
    shown = CliRunner().invoke(command, ["info", str(path)])
    if shown.exception is not None and not isinstance(shown.exception, SystemExit):
        return "traceback", "".join(traceback.format_exception(shown.exception))
    if any(not one.isprintable() and one != "\n" for one in shown.output):
        return "bad message", repr(shown.output)
    return result, said


def address_space() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    """Most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def overdue(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def serve(folder: Path) -> None:
    """Answer damages until there are no more."""
    warnings.simplefilter("ignore")
    (folder / "whole").mkdir(exist_ok=True)
    originals = {kind: one.make(Path(_folder(folder / "whole", kind))) for kind, one in KINDS.items()}
    right = {kind: KINDS[kind].read(path) for kind, path in originals.items()}
    for kind, path in originals.items():  # pays for what is imported and compiled
        assert outcome(kind, path, right[kind], "")[0] == "right", outcome(kind, path, right[kind], "")
    if sys.platform == "linux":
        limit = address_space() + MORE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, overdue)
    answer(["ready", "", peak()])
    for line in sys.stdin:
        one = damage.Damage(**json.loads(line))
        path = damage.copy(originals[one.kind], folder / "damaged")
        done = one.do(path)
        signal.alarm(SECONDS)
        result, said = outcome(one.kind, path, right[one.kind], one.how)
        signal.alarm(0)
        answer([result, f"{done}; {said}", peak()])


def _folder(parent: Path, kind: str) -> Path:
    (parent / kind).mkdir()
    return parent / kind


def answer(values: list[object]) -> None:
    """Write a line."""
    print(MARK + json.dumps(values), flush=True)


if __name__ == "__main__":
    with dask.config.set(scheduler="synchronous"):
        serve(Path(sys.argv[1]))
