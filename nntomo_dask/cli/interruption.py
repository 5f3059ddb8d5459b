"""How the command ends when it is asked to: by Ctrl-C, by a terminal that closes, or by the signals of a batch system.

The first signal unwinds what runs, so that locks and partial files are removed, and the command ends with the exit code
of that signal, 130 for Ctrl-C. Where unwinding takes longer than `GRACE_SECONDS`, as in a computation, or at a second
signal, it ends at once. Worker processes end with it. Nothing here needs more than Python itself, so that it is in
force before anything else is imported.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

GRACE_SECONDS = 1.2  # for unwinding; the whole takes less than two
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # where the system has them
_IMPORTING = "<frozen importlib"

_received: list[int] = []  # signals so far
_said = False


class Interrupted(BaseException):
    """A signal asks the command to end. No KeyboardInterrupt, for which click and others have words of their own."""


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Within this context signals end the command, and the process, as described above."""
    restore = _install()
    try:
        yield
    except BaseException:
        end_if_asked()  # whatever this is, it is the consequence of the signal
        raise
    finally:
        end_if_asked()
        restore()


@contextlib.contextmanager
def expected() -> Iterator[None]:
    """Within this context Ctrl-C raises KeyboardInterrupt, for a command that runs until then."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    woken = signal.set_wakeup_fd(-1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)


def end_if_asked() -> None:
    """End the process where a signal has asked for it, once all has been unwound."""
    if _received:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        _end()


def _install() -> Callable[[], None]:
    """Handle the signals, and give the function that undoes it."""
    if threading.current_thread() is not threading.main_thread() or _is_installed():
        return lambda: None
    ours, theirs = socket.socketpair()
    theirs.settimeout(0)
    # Where a library computes, Python's handler waits for it; this wakes a thread at once.
    woken = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(ours,), daemon=True, name="interruption").start()
    before = {}
    for number in (getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            before[number] = signal.signal(number, _interrupt)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken)
        theirs.close()

    return restore


def _is_installed() -> bool:
    return signal.getsignal(signal.SIGINT) is _interrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise an exception where the main thread is; while it imports, where nothing is to be undone, end at once."""
    _received.append(number)
    if len(_received) > 1 or _imports(frame):
        _end()
    sys.unraisablehook = lambda _: None  # of what cannot be interrupted, such as a destructor
    threading.excepthook = lambda _: None
    raise Interrupted


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTING):
            return True
        frame = frame.f_back
    return False


def _watch(signals: socket.socket) -> None:
    """End the process some time after the first signal, or at the second."""
    first = _numbers(signals)
    if not first:
        return
    signals.settimeout(GRACE_SECONDS)
    with contextlib.suppress(TimeoutError):
        if len(first) == 1:
            _numbers(signals)
    if not _received:  # Python's handler had no turn
        _received.append(first[0])
    _end()


def _numbers(signals: socket.socket) -> bytes:
    """The next signals that are ours; empty once the other end is closed."""
    wanted = {getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)}
    while True:
        try:
            came = signals.recv(64)
        except TimeoutError:
            raise
        except OSError:
            return b""
        if not came or (ours := bytes(number for number in came if number in wanted)):
            return ours if came else b""


def _end() -> NoReturn:
    """End the process and all that it has started, with the code of the first signal."""
    global _said
    if not _said:
        _said = True
        with contextlib.suppress(Exception):
            os.write(2, b"\ninterrupted; give the same command again to continue\n")
    _end_children()
    os._exit(128 + _received[0])


def _end_children() -> None:
    """Kill the processes that this one has started; none can be there before psutil is imported."""
    psutil: Any = sys.modules.get("psutil")
    with contextlib.suppress(Exception):
        children = psutil.Process().children(recursive=True)
        for child in children:
            with contextlib.suppress(Exception):
                child.kill()
