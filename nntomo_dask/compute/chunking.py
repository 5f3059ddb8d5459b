"""Integers only: how many slices a slab has, and how many bytes an operation needs at its peak."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from nntomo_dask.errors import refuse

SLAB_BYTES = 32 * 2**20  # of the default slab: large enough to outweigh a task's overhead, small beside a memory
TALL_SLAB_BYTES = 8 * SLAB_BYTES  # of a slab for which a whole file has to be read
SLAB_SLICES = 32  # the widest lane group of the kernels: more slices in a slab gain nothing
PROCESS_BYTES = 450 * 2**20  # an interpreter with our libraries and compiled kernels, measured
WORKER_BYTES = 372 * 2**20  # a Dask worker process with the same, also where it compiles kernels first, measured
PYTORCH_BYTES = 64 * 2**20  # that PyTorch takes beyond both, for each worker that computes with it

GPU_SLAB_SLICES = 128  # four groups of 32: copies of one run while another is computed

TABLE_ROWS = 65_536  # voxels of a chunk of a stored training set

SIMULATED_BATCH_BYTES = 16 * 2**20  # of plane waves that are propagated together
SIMULATED_PROBES = 128  # that are made of a scattering matrix together


READ = 2  # copies of a slab that is read: packed and unpacked
WRITTEN = 3  # of one that is written: plain, packed, and packed with its checksum

SlabShape = tuple[int, int, int]  # slices, angles, detector
HostBytes = Callable[[SlabShape], int]
_highest: ContextVar[Callable[[SlabShape], int] | None] = ContextVar("_highest", default=None)


def image_bytes(detector: int) -> int:
    """Bytes of a slice as float32."""
    return 4 * detector**2


def rows_bytes(angles: int, detector: int) -> int:
    """Bytes of a slice's projections as float32."""
    return 4 * angles * detector


def spectrum_bytes(angles: int, detector: int) -> int:
    """Bytes of the spectra of a slice's projections: complex64, rows of twice the length."""
    return 4 * rows_bytes(angles, detector)


def slab_slices(shape: tuple[int, ...]) -> int:
    """Slices of a default slab of a float32 array: a power of two up to 32, at most 32 MiB; see `lower_slabs` too."""
    slice_bytes = 4 * _product(shape[1:])
    slices = 1
    while 2 * slices <= min(SLAB_SLICES, shape[0]) and 2 * slices * slice_bytes <= SLAB_BYTES:
        slices *= 2
    highest = _highest.get()
    if highest is None or len(shape) != 3:
        return slices
    return min(slices, highest((shape[0], shape[1], shape[2])))


def tall_slab_slices(shape: SlabShape) -> int:
    """Slices of a slab where every slab needs the whole file: up to 256 MiB, or what `lower_slabs` allows.

    So a series of 1024² and 61 angles is read once, and one of 2048² and 121 angles eight times.
    """
    slices = slab_slices(shape)
    highest = _highest.get()
    most = shape[0] if highest is None else max(highest(shape), slices)
    while slices < min(shape[0], most) and 2 * slices * rows_bytes(*shape[1:]) <= TALL_SLAB_BYTES:
        slices *= 2
    return min(slices, most, shape[0])


@contextlib.contextmanager
def lower_slabs(highest: Callable[[SlabShape], int]) -> Iterator[None]:
    """Within this context an array that is made, or read from a file, comes in slabs of at most so many slices.

    Parameters
    ----------
    highest
        Slices of a slab by the shape of the whole array, such as a memory allows.
    """
    before = _highest.set(highest)
    try:
        yield
    finally:
        _highest.reset(before)


def slab_chunks(count: int, slices: int) -> tuple[int, ...]:
    """Sizes of the slabs that cut `count` slices into pieces of `slices`."""
    whole, rest = divmod(count, slices)
    return (slices,) * whole + ((rest,) if rest else ())


def peak_bytes(slab_bytes: int, *, workers: int, processes: int = 0) -> int:
    """Bytes at the peak over this process and its workers.

    Parameters
    ----------
    slab_bytes
        Of one slab in work.
    workers
        Slabs in work at once.
    processes
        Worker processes beside this one; 0 where its own threads work.
    """
    return PROCESS_BYTES + processes * WORKER_BYTES + workers * slab_bytes


@dataclass(frozen=True)
class Budget:
    """Memory that an operation may use, its program and all its workers together.

    Attributes
    ----------
    size
        In bytes.
    origin
        What sets it, where the user did not: "the free memory of this machine".
    """

    size: int
    origin: str | None = None

    def check(self, needed_bytes: int, who: str, what: str, *, fixed: bool = False) -> None:
        """Raise a SchemaError where an operation cannot keep to it.

        Parameters
        ----------
        what
            What the memory is for.
        fixed
            It is for the workers of a cluster, whose number this process cannot change.
        """
        if needed_bytes <= self.size:
            return
        needed = -(-needed_bytes // 2**20)
        if self.origin is None:
            remedy = f"raise `memory` to {needed}MiB"
        else:
            remedy = "end other programs, or ask for more memory where a container, a job or ulimit sets the limit"
        refuse(
            who,
            needs=f"{needed} MiB ({PROCESS_BYTES // 2**20} of it the program itself) for {what}",
            got=f"{self.origin or 'a memory budget'} of {self.size // 2**20} MiB",
            remedy=f"{remedy}, or start workers with fewer threads (--nthreads)" if fixed else remedy,
        )


@dataclass(frozen=True)
class Plan:
    """How an operation is computed.

    Attributes
    ----------
    slices
        Of a slab.
    workers
        Slabs in work at once.
    processes
        Worker processes; 0 where threads of this process compute.
    """

    slices: int
    workers: int
    processes: int


def plan(
    budget: Budget,
    host_bytes: HostBytes,
    *,
    shape: SlabShape,
    workers: int,
    processes: int = 0,
    fixed: bool = False,
    least_for_processes: int = 1,
    wanted: int = SLAB_SLICES,
    who: str,
    piece: str | None = None,
) -> Plan:
    """The highest slab, a power of two of slices up to `wanted`, and the most workers, with which an operation fits.

    A slab is lowered to one slice before a worker is left out. Workers for whom there is no slab take no memory.

    Parameters
    ----------
    host_bytes
        Bytes of a slab of the operation, by the slab's shape (slices, angles, detector).
    shape
        (z, angle, detector) of the whole.
    workers, processes
        Those that were asked for; each process has the same number of threads.
    fixed
        Their number cannot be changed any more, as on a cluster that runs already.
    least_for_processes
        Fewer slabs than that are computed by threads of this process.
    wanted
        Slices beyond which the operation gains nothing.
    piece
        What the smallest slab is, for errors: "a projection"; by default a slice.

    Raises
    ------
    SchemaError
        Not even one slice fits; or with `fixed`, one slice a worker.
    """
    count, angles, detector = shape
    threads = -(-workers // processes) if processes else 0

    def need(slices: int, asked: int) -> tuple[int, int]:
        """Bytes, and the processes that are started."""
        slabs = -(-count // slices)
        started = -(-asked // threads) if threads and slabs >= least_for_processes else 0
        slab = host_bytes((slices, angles, detector))
        return peak_bytes(slab, workers=min(asked, slabs), processes=started), started

    heights = [1]
    while 2 * heights[0] <= min(wanted, count):
        heights.insert(0, 2 * heights[0])
    for asked in (workers,) if fixed else range(workers, 0, -1):
        for slices in heights:
            needed, started = need(slices, asked)
            if needed <= budget.size:
                return Plan(slices, asked, started)
    each = piece or f"one slice of {detector} pixels"
    budget.check(needed, who, f"{each} a worker, {workers} in all" if fixed else each, fixed=fixed)
    raise AssertionError("the budget was sufficient after all")


def simulation_bytes(*, grid: int, slices: int, matrix: int, window: int, positions: int, pattern: int) -> int:
    """Bytes of a worker at the peak of simulating a projection.

    Parameters
    ----------
    grid
        Points of a wave along an axis.
    slices
        Of the specimen along the beam.
    matrix
        Bytes of the scattering matrix.
    window
        Points of a probe along an axis.
    positions
        Of the probe.
    pattern
        Pixels of a diffraction pattern along an axis.
    """
    wave, probe = 8 * grid**2, 8 * window**2
    potential = 4 * slices * grid**2 + 4 * wave
    # Measured: of a batch of waves, and of the matrix while its parts are joined, so many copies stay around.
    propagating = 6 * max(SIMULATED_BATCH_BYTES, 2 * wave) + 8 * wave
    reducing = 4 * SIMULATED_PROBES * probe
    patterns = 3 * 4 * positions * pattern**2
    return potential + 2 * matrix + max(propagating, reducing + patterns)


def _product(sizes: tuple[int, ...]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
