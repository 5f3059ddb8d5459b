"""Integers only: how many slices a slab has, and how many bytes an operation needs at its peak."""

from collections.abc import Callable

from nntomo_dask.errors import refuse

SLAB_BYTES = 32 * 2**20  # of the default slab: large enough to outweigh a task's overhead, small beside a memory
SLAB_SLICES = 32  # the widest lane group of the kernels: more slices in a slab gain nothing
PROCESS_BYTES = 450 * 2**20  # an interpreter with our libraries and compiled kernels, measured
WORKER_BYTES = 320 * 2**20  # a Dask worker process with the same, before it has a slab, measured

GPU_SLAB_SLICES = 128  # four groups of 32: copies of one run while another is computed

TABLE_ROWS = 65_536  # voxels of a chunk of a stored training set

SIMULATED_BATCH_BYTES = 16 * 2**20  # of plane waves that are propagated together
SIMULATED_PROBES = 128  # that are made of a scattering matrix together


READ = 2  # copies of a slab that is read: packed and unpacked
WRITTEN = 3  # of one that is written: plain, packed, and packed with its checksum

SlabShape = tuple[int, int, int]  # slices, angles, detector
HostBytes = Callable[[SlabShape], int]


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
    """Slices of a default slab of a float32 array: a power of two up to 32, at most 32 MiB."""
    slice_bytes = 4 * _product(shape[1:])
    slices = 1
    while 2 * slices <= min(SLAB_SLICES, shape[0]) and 2 * slices * slice_bytes <= SLAB_BYTES:
        slices *= 2
    return slices


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


def slices_within(
    budget_bytes: int,
    host_bytes: HostBytes,
    *,
    shape: tuple[int, int, int],
    workers: int,
    processes: int = 0,
    wanted: int = SLAB_SLICES,
    who: str,
) -> int:
    """Slices of the largest slab, a power of two up to `wanted`, at which an operation fits the budget.

    Parameters
    ----------
    host_bytes
        Bytes of a slab of the operation, by the slab's shape (slices, angles, detector).
    shape
        (z, angle, detector) of the whole.
    wanted
        Slices beyond which the operation gains nothing.

    Raises
    ------
    SchemaError
        Not even one slice a worker fits.
    """
    count, angles, detector = shape

    def need(slices: int) -> int:
        return peak_bytes(host_bytes((slices, angles, detector)), workers=workers, processes=processes)

    slices = 1
    while 2 * slices <= min(wanted, count):
        slices *= 2
    while slices > 1 and need(slices) > budget_bytes:
        slices //= 2
    check_budget(budget_bytes, need(slices), who, f"one slice of {detector} pixels a worker, {workers} in all")
    return slices


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


def check_budget(budget_bytes: int, needed_bytes: int, who: str, what: str) -> None:
    """Raise a SchemaError where an operation cannot keep to a memory budget."""
    if needed_bytes > budget_bytes:
        refuse(
            who,
            needs=f"{-(-needed_bytes // 2**20)} MiB ({PROCESS_BYTES // 2**20} of it the program itself) for {what}",
            got=f"a memory budget of {budget_bytes // 2**20} MiB",
            remedy="raise --memory or lower --workers" if budget_bytes > PROCESS_BYTES + 2**20 else "raise --memory",
        )


def _product(sizes: tuple[int, ...]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
