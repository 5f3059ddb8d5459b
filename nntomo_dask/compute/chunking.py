"""Integers only: how many slices a slab has, and how many bytes an operation needs at its peak."""

from collections.abc import Callable
from typing import Literal

from nntomo_dask.errors import refuse

SLAB_BYTES = 32 * 2**20  # of the default slab: large enough to outweigh a task's overhead, small beside a memory
SLAB_SLICES = 32  # the widest lane group of the kernels: more slices in a slab gain nothing
NETWORK_GROUP = 8  # slices of which NN-FBP holds the filtered rows at once: as many as its kernel takes
PROCESS_BYTES = 450 * 2**20  # an interpreter with our libraries and compiled kernels, measured
WORKER_BYTES = 320 * 2**20  # a Dask worker process with the same, before it has a slab, measured

GPU_SLAB_SLICES = 128  # four groups of 32: copies of one run while another is computed
NEIGHBOURS = 2  # slices on either side that MS-D Net looks at
SLICES_HELD_BYTES = 2**30  # of a set of slices that is held; a larger one is read again every epoch
MAP_BORDER, MAP_WIDTH = 10, 16  # of its feature maps, see `kernels.mixed_scale`

JACOBIAN_VOXELS = 8192  # of which Levenberg–Marquardt holds the derivatives at once
TABLE_ROWS = 8 * JACOBIAN_VOXELS  # voxels of a chunk of a stored training set

SIMULATED_BATCH_BYTES = 16 * 2**20  # of plane waves that are propagated together
SIMULATED_PROBES = 128  # that are made of a scattering matrix together

_MAKING_SAMPLES: tuple["Operation", ...] = ("phantom", "project")
Operation = Literal["fbp", "sirt", "nnfbp", "project", "backproject", "phantom", "copy", "compare", "msdnet"]


READ, WRITTEN = (
    2,
    3,
)  # copies of a slab: what is read is there packed and unpacked; what is written plain, packed, checked

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


def _slab_bytes(operation: Operation, *, slices: int, angles: int, detector: int, hidden: int) -> int:
    image = 4 * detector**2
    sinogram = 4 * angles * detector
    lanes = 8 if slices <= 8 else 16 if slices <= 16 else 32
    padded_image = 4 * (detector + 2) ** 2 * lanes
    spectrum = 4 * sinogram  # complex64 of rows of twice the length
    # What is read is there packed and unpacked; what is written plain, packed, and packed with its checksum.
    read, write = 2, 3
    if operation == "msdnet":
        seen = slices + 2 * NEIGHBOURS  # reconstructed by SIRT, the most that an input takes; then held in two copies
        maps = hidden * 4 * (detector + 2 * MAP_BORDER) * (detector + 2 * MAP_BORDER + MAP_WIDTH)
        making = _slab_bytes("sirt", slices=seen, angles=angles, detector=detector, hidden=0)
        return making + 2 * seen * image + (2 + write) * slices * image + maps
    return {
        "compare": slices * 2 * read * image + 24 * image,  # two slabs, and what one slice's similarity takes
        "copy": slices * (read + write) * sinogram,
        "phantom": slices * write * image + 12 * image,
        "project": slices * (read * image + write * sinogram) + padded_image + lanes * 2 * sinogram,
        "backproject": slices * (write * image + read * sinogram) + padded_image + lanes * 2 * sinogram,
        "fbp": slices * (write * image + (read + 2) * sinogram + 2 * spectrum) + lanes * sinogram,
        "nnfbp": slices * (write * image + (read + 1) * sinogram + spectrum)
        + min(slices, NETWORK_GROUP) * hidden * (3 * sinogram + 2 * spectrum),
        "sirt": slices * (write * image + read * sinogram) + 3 * padded_image + 4 * lanes * sinogram,
    }[operation]


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


def training_bytes(
    *, samples: int, inputs: int, hidden: int, slices: int, angles: int, detector: int, workers: int, processes: int = 0
) -> int:
    """Bytes at the peak of making both training sets from phantoms and training on them.

    Parameters
    ----------
    samples
        Voxels of each set that are held in memory; 0 where the sets are stores and the training reads them in chunks.
    """
    making = sum(
        _slab_bytes(operation, slices=slices, angles=angles, detector=detector, hidden=0)
        for operation in _MAKING_SAMPLES
    )
    parameters = (inputs + 2) * hidden + 1
    # The samples as float32, in parts and joined; of a leaf of them the scaled inputs, the derivatives and a product.
    held = 2 * samples * (inputs + 1) * 8
    derivatives = 8 * JACOBIAN_VOXELS * (parameters + 2 * inputs) + 3 * 8 * parameters**2
    if samples == 0:
        derivatives += 12 * TABLE_ROWS * (inputs + 1)  # of a chunk, packed and unpacked
    return PROCESS_BYTES + processes * WORKER_BYTES + workers * (making + derivatives) + held


def slice_training_bytes(
    *,
    slices: int,
    detector: int,
    angles: int,
    channels: int,
    depth: int,
    workers: int,
    processes: int = 0,
    members: int = 1,
    batch: int = 4,
) -> int:
    """Bytes at the peak of making the slices of both training sets and training an MS-D Net on them.

    Parameters
    ----------
    slices
        Of both sets together.
    workers
        Slices in work at once.
    members
        Networks that are trained side by side, as far as there are workers.
    batch
        Slices of a step, whose maps are held until their derivatives are there.
    """
    side_by_side = min(members, workers)
    image = 4 * (detector + 4 * MAP_BORDER) * (detector + 4 * MAP_BORDER + MAP_WIDTH)
    held = min(2 * slices * 4 * detector**2, 2 * SLICES_HELD_BYTES)
    height = slab_slices((2**20, detector, detector))
    making = _slab_bytes("sirt", slices=height, angles=angles, detector=detector, hidden=0)
    training = side_by_side * (batch * (channels + depth) + min(batch, workers) * (depth + 1)) * image
    held *= max(processes, side_by_side)
    return PROCESS_BYTES + processes * WORKER_BYTES + held + max(workers * making, training)


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
