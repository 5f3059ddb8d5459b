"""BLAS with one thread, for code whose own threads already use all cores."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np  # noqa: F401  loads its BLAS, which is limited here
import scipy.linalg  # noqa: F401  the same
import threadpoolctl
from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_inside = 0
_controller: ThreadpoolController | None = None
_limit: Any = None


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within this context BLAS uses one thread, in all threads of the process. Contexts may overlap.

    There are two reasons. The last bits of a matrix product can depend on the number of BLAS threads. And BLAS threads
    wait for each other in busy loops, so they become very slow if another program uses one of the cores.
    """
    global _inside, _controller, _limit
    with _lock:
        if _inside == 0:
            _controller = _controller or ThreadpoolController()
            _let_any_thread()
            _limit = _controller.limit(limits=1, user_api="blas")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _let_any_thread()
                _limit.restore_original_limits()
                _let_any_thread()


def limit_to_one() -> None:
    """Let BLAS use one thread in this process from here on: for worker processes whose cores are others' too."""
    threadpoolctl.threadpool_limits(limits=1, user_api="blas")


def _let_any_thread() -> None:
    """Allow any thread to change the limit of OpenBLAS, which belongs to the process.

    Newer versions of threadpoolctl allow this only for the thread that changed the limit first, and silently ignore the
    others. Here one thread may set the limit and another may remove it; a lock makes this safe.
    """
    release = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)
