"""Integers only: how many slices a slab has, and how many bytes an operation needs at its peak."""

from typing import Literal

from nntomo_dask import schema

SLAB_BYTES = 32 * 2**20  # of the default slab: large enough to outweigh a task's overhead, small beside a memory
SLAB_SLICES = 32  # the widest lane group of the kernels: more slices in a slab gain nothing
PROCESS_BYTES = 450 * 2**20  # an interpreter with our libraries and compiled kernels, measured

JACOBIAN_VOXELS = 8192  # of which Levenberg–Marquardt holds the derivatives at once

Operation = Literal["fbp", "sirt", "nnfbp", "project", "phantom", "copy"]


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


def peak_bytes(operation: Operation, *, slices: int, angles: int, detector: int, workers: int, hidden: int = 0) -> int:
    """Bytes at the peak of an operation, when `workers` slabs of `slices` slices are in work at once."""
    image = 4 * detector**2
    sinogram = 4 * angles * detector
    lanes = 8 if slices <= 8 else 16 if slices <= 16 else 32
    padded_image = 4 * (detector + 2) ** 2 * lanes
    spectrum = 4 * sinogram  # complex64 of rows of twice the length
    slab = {
        "copy": 2 * slices * sinogram,
        "phantom": 2 * slices * image + 12 * image,
        "project": slices * (image + 2 * sinogram) + padded_image,
        "fbp": slices * (2 * image + 2 * sinogram + 2 * spectrum),
        "nnfbp": slices * (2 * image + sinogram + spectrum + hidden * (2 * sinogram + 2 * spectrum)),
        "sirt": slices * (2 * image + sinogram) + 3 * padded_image + 4 * lanes * sinogram,
    }[operation]
    return PROCESS_BYTES + workers * slab


def slices_within(
    budget_bytes: int,
    operation: Operation,
    *,
    shape: tuple[int, ...],
    angles: int,
    detector: int,
    workers: int,
    hidden: int = 0,
) -> int:
    """Slices of the largest slab, up to the default of an array of `shape`, at which an operation fits the budget.

    Raises
    ------
    SchemaError
        Not even one slice a worker fits.
    """

    def need(slices: int) -> int:
        return peak_bytes(operation, slices=slices, angles=angles, detector=detector, workers=workers, hidden=hidden)

    slices = slab_slices(shape)
    while slices > 1 and need(slices) > budget_bytes:
        slices //= 2
    check_budget(budget_bytes, need(slices), operation, f"one slice of {detector} pixels on each of {workers} workers")
    return slices


def training_bytes(
    *, samples: int, inputs: int, hidden: int, slices: int, angles: int, detector: int, workers: int
) -> int:
    """Bytes at the peak of making both training sets from phantoms and training on them."""
    making = peak_bytes("phantom", slices=slices, angles=angles, detector=detector, workers=workers)
    making += peak_bytes("project", slices=slices, angles=angles, detector=detector, workers=workers) - PROCESS_BYTES
    parameters = (inputs + 2) * hidden + 1
    return making + 2 * samples * (inputs + 1) * 20 + 3 * 8 * JACOBIAN_VOXELS * parameters


def check_budget(budget_bytes: int, needed_bytes: int, who: str, what: str) -> None:
    """Raise a SchemaError where an operation cannot keep to a memory budget."""
    if needed_bytes > budget_bytes:
        schema.refuse(
            who,
            needs=f"{_mebibytes(needed_bytes)} ({_mebibytes(PROCESS_BYTES)} of it the program itself) for {what}",
            got=f"a memory budget of {_mebibytes(budget_bytes)}",
            do="raise --memory or lower --workers",
        )


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"


def _product(sizes: tuple[int, ...]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
