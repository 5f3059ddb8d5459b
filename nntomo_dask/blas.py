"""BLAS without threads of its own, where ours have the cores."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np  # noqa: F401  brings its BLAS, which is to be limited
import scipy.linalg  # noqa: F401  the same
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
            _limit = _controller.limit(limits=1, user_api="blas")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _limit.restore_original_limits()
