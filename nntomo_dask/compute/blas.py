"""BLAS without threads of its own, where ours have the cores."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np  # noqa: F401  brings its BLAS, which is to be limited
import scipy.linalg  # noqa: F401  the same
import threadpoolctl
from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_inside = 0
_controller: ThreadpoolController | None = None
_limit: Any = None


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within this context, in any thread, BLAS uses no threads of its own; contexts may overlap.

    The last bits of a product can depend on their number. And they wait for each other actively, so that they crawl
    where another program has a core.
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


def _let_any_thread() -> None:
    """Let any thread change the limit of OpenBLAS, which is that of the process.

    Newer versions of threadpoolctl let only the thread that did so first, and ignore the others without a word. Here
    another thread may lift a limit than set it; a lock keeps them apart.
    """
    release = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)
