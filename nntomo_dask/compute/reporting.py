"""What slabs tell of themselves while they are computed: how many slices, seconds, iterations.

A slab is computed within `slab`, and what computes it may `add` figures of its own. They go to whoever is within
`listening` in this process; from a worker of a cluster they go as events to its scheduler, and from there to the client
that is within `heard`. Where nobody listens they are dropped. Nothing of this is part of a result.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

TOPIC = "nntomo_dask.slabs"  # of the events


@dataclass
class Figures:
    """What is told of one slab.

    Attributes
    ----------
    who
        What computed it.
    slices
        In the slab, without those of neighbours.
    seconds
        That it took, of one worker.
    iterations
        Of each slice, where the method has such and the slice is not empty.
    unfinished
        How many of these a limit has ended before the method's own rule did.
    measured_squares, before_squares, after_squares
        Sums over all rays: of what was measured, and of what projections differ from it before a volume was made
        consistent with them and after; 0 where none was.
    """

    who: str
    slices: int = 0
    seconds: float = 0.0
    iterations: list[int] = field(default_factory=list)
    unfinished: int = 0
    measured_squares: float = 0.0
    before_squares: float = 0.0
    after_squares: float = 0.0


_inside = threading.local()  # the figures of the slab that this thread computes
_listeners: list[list[Figures]] = []
_lock = threading.Lock()


@contextlib.contextmanager
def slab(who: str) -> Iterator[Figures]:
    """Within this context a slab is computed. The figures, whose slices are to be set, are told if that succeeds."""
    figures, outer = Figures(who), getattr(_inside, "figures", None)
    _inside.figures, began = figures, time.perf_counter()
    try:
        yield figures
    finally:
        _inside.figures = outer
    figures.seconds = time.perf_counter() - began
    _tell(figures)


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Within this context nothing is told: for the start of an iteration that another method computes."""
    outer, _inside.figures = getattr(_inside, "figures", None), None
    try:
        yield
    finally:
        _inside.figures = outer


def add(iterations: Iterable[int], *, unfinished: Iterable[bool] = ()) -> None:
    """Iterations of some slices of the slab in work, 0 where a slice is empty; and which of them a limit has ended."""
    figures: Figures | None = getattr(_inside, "figures", None)
    if figures is not None:
        figures.iterations += [int(count) for count in iterations if count > 0]
        figures.unfinished += sum(map(bool, unfinished))


def add_squares(measured: float, before: float, after: float) -> None:
    """Sums of squares of the slab in work: see `Figures`."""
    figures: Figures | None = getattr(_inside, "figures", None)
    if figures is not None:
        figures.measured_squares += measured
        figures.before_squares += before
        figures.after_squares += after


@contextlib.contextmanager
def listening() -> Iterator[list[Figures]]:
    """The figures of all slabs that this process computes, or has computed by a cluster, within this context."""
    told: list[Figures] = []
    with _lock:
        _listeners.append(told)
    try:
        yield told
    finally:
        with _lock:
            _listeners[:] = [one for one in _listeners if one is not told]


@contextlib.contextmanager
def heard(client: Any, keys: Collection[str] | None = None) -> Iterator[None]:
    """Within this context what the workers of a client's cluster tell is heard here, if somebody listens.

    Parameters
    ----------
    keys
        Of the tasks that are heard, as text; others may use the same cluster. None for all tasks.
    """
    if not _listeners:
        yield
        return

    def handle(event: tuple[float, Any]) -> None:
        key, told = event[1]["key"], event[1]["figures"]
        if keys is None or key in keys:
            _hear(Figures(**told))

    # Events and the ends of tasks come in one stream, so all of a task is heard before it is known to be done.
    client.subscribe_topic(TOPIC, handle)
    try:
        yield
    finally:
        if client.status == "running":
            client.unsubscribe_topic(TOPIC)


def _tell(figures: Figures) -> None:
    worker = _worker()
    if worker is None:
        _hear(figures)
    else:
        worker.log_event(TOPIC, {"key": str(worker.get_current_task()), "figures": vars(figures)})


def _hear(figures: Figures) -> None:
    with _lock:
        for one in _listeners:
            one.append(figures)


def _worker() -> Any | None:
    """The worker of a cluster that this thread works for; None where it computes for its own process."""
    if "distributed" not in sys.modules:
        return None
    try:
        return sys.modules["distributed"].get_worker()
    except ValueError:
        return None
