"""A program that runs `nntomo` commands and kills them at chosen moments, each in a process of its own.

The processes are forked from one that has imported everything. A moment is a number of accesses to files in the folder
of the command since it took its first lock: opening, renaming, removing, and so on. The same command makes about the
same accesses, so moments can be spread over all of its writing.

It reads a request a line from its input, ``{"words": […], "folder": …, "signal": 15, "moment": 30, "patches": {…}}``,
and answers with the exit status, which is negative after a signal, and the number of accesses.
"""

import importlib
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

import nntomo_dask.cli.main

_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "shutil.rmtree"}
_MODULES = (
    "nntomo_dask.cli.compare",
    "nntomo_dask.cli.export",
    "nntomo_dask.cli.importing",
    "nntomo_dask.cli.phantom",
    "nntomo_dask.cli.project",
    "nntomo_dask.cli.reconstruct",
    "nntomo_dask.cli.simulation",
    "nntomo_dask.cli.train",
    "nntomo_dask.plotting.figures",
    "nntomo_dask.training.nnfbp.training",
)


class _Accesses:
    """Counts accesses, and sends a signal at one of them."""

    def __init__(self, folder, number, moment):
        self.folder, self.number, self.moment = folder, number, moment
        self.count, self.writing, self.lock = 0, False, threading.Lock()

    def __call__(self, event, arguments):
        if event not in _EVENTS or not arguments or isinstance(arguments[0], int):
            return
        path = os.fsdecode(arguments[0])
        if Path(path).is_absolute() and not path.startswith(self.folder):
            return
        self.writing |= path.endswith(".lock")
        if self.writing:
            with self.lock:
                self.count += 1
                due = self.count == self.moment
            if due:
                os.kill(os.getpid(), self.number)


def _child(request, answer):
    os.setsid()  # a signal to the group reaches nothing else
    os.chdir(request["folder"])
    with Path(os.devnull).open("r+b") as nowhere, Path(request["log"]).open("ab") as log:
        os.dup2(nowhere.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    for name, value in request.get("patches", {}).items():
        module, attribute = name.rsplit(".", 1)
        setattr(importlib.import_module(module), attribute, value)
    accesses = _Accesses(os.path.realpath(request["folder"]), request.get("signal"), request.get("moment"))
    sys.addaudithook(accesses)
    status = 1
    try:
        nntomo_dask.cli.main.main(request["words"])
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    os.write(answer, str(accesses.count).encode())
    os._exit(status)


def main():
    for module in _MODULES:
        importlib.import_module(module)
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        result, answer = os.pipe()
        child = os.fork()
        if child == 0:
            _child(request, answer)
        os.close(answer)
        with os.fdopen(result, "rb") as file:
            count = int(file.read() or 0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"status": status, "count": count}), flush=True)


if __name__ == "__main__":
    main()
