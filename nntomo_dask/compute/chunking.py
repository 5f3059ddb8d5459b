"""Integers only: how many slices a slab has, and how many bytes an operation needs at its peak."""

from typing import Literal

from nntomo_dask.errors import refuse

SLAB_BYTES = 32 * 2**20  # of the default slab: large enough to outweigh a task's overhead, small beside a memory
SLAB_SLICES = 32  # the widest lane group of the kernels: more slices in a slab gain nothing
NETWORK_GROUP = 8  # slices of which NN-FBP holds the filtered rows at once: as many as its kernel takes
PROCESS_BYTES = 450 * 2**20  # an interpreter with our libraries and compiled kernels, measured
WORKER_BYTES = 320 * 2**20  # a Dask worker process with the same, before it has a slab, measured

GPU_SLAB_SLICES = 128  # four groups of 32: copies of one run while another is computed
# Whose kernels gain by every lane, also where a slab of 32 slices is more than SLAB_BYTES.
_WANT_LANES = frozenset({"fbp", "sirt", "project", "backproject"})

NEIGHBOURS = 2  # slices on either side that MS-D Net looks at
MAP_BORDER, MAP_WIDTH = 10, 16  # of its feature maps, see `kernels.mixed_scale`

TABLE_ROWS = 65_536  # voxels of a chunk of a stored training set

SIMULATED_BATCH_BYTES = 16 * 2**20  # of plane waves that are propagated together
SIMULATED_PROBES = 128  # that are made of a scattering matrix together

Operation = Literal["fbp", "sirt", "nnfbp", "project", "backproject", "phantom", "copy", "compare", "msdnet"]


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


def peak_bytes(
    operation: Operation,
    *,
    slices: int,
    angles: int,
    detector: int,
    workers: int,
    processes: int = 0,
    hidden: int = 0,
) -> int:
    """Bytes at the peak of an operation over this process and its workers.

    Parameters
    ----------
    slices, angles, detector
        Of a slab; `angles` of the projections that are used, those that fill the wedge among them.
    workers
        Slabs in work at once.
    processes
        Worker processes beside this one; 0 where its own threads work.
    hidden
        Hidden nodes of an NN-FBP network; maps of an MS-D Net, its inputs among them.
    """
    slab = _slab_bytes(operation, slices=slices, angles=angles, detector=detector, hidden=hidden)
    return PROCESS_BYTES + processes * WORKER_BYTES + workers * slab


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
    operation: Operation,
    *,
    shape: tuple[int, ...],
    angles: int,
    detector: int,
    workers: int,
    processes: int = 0,
    hidden: int = 0,
    on_gpu: bool = False,
) -> int:
    """Slices of the largest slab, up to what the operation gains by, at which it fits the budget.

    Raises
    ------
    SchemaError
        Not even one slice a worker fits.
    """

    def need(slices: int) -> int:
        return peak_bytes(
            operation,
            slices=slices,
            angles=angles,
            detector=detector,
            workers=workers,
            processes=processes,
            hidden=hidden,
        )

    wanted = GPU_SLAB_SLICES if on_gpu else SLAB_SLICES if operation in _WANT_LANES else slab_slices(shape)
    slices = 1
    while 2 * slices <= min(wanted, shape[0]):
        slices *= 2
    while slices > 1 and need(slices) > budget_bytes:
        slices //= 2
    check_budget(budget_bytes, need(slices), operation, f"one slice of {detector} pixels a worker, {workers} in all")
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
