"""Slabs in host memory computed on a GPU, a few slices at a time, with copies and kernels side by side."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nntomo_dask.compute import device
from nntomo_dask.errors import refuse

Operation = Literal["fbp", "sirt", "nnfbp", "project"]

LANES = 32  # slices of the smallest group: what one warp computes at once; fewer are padded to it
_SHARE = 0.9  # of the free memory; the rest is for what fragments, plans of transforms, compiled kernels
_PARTS = 4  # groups of a slab that would fit as a whole: with one group nothing could overlap
_LOCK = threading.Lock()  # one slab at a time on the GPU: the memory it may use is known then


def streamed(function: Callable[[Any], Any], slab: Any, *, slice_bytes: int, who: str) -> Any:
    """Compute ``function(slab)`` where the slab or this process computes.

    A CuPy slab is computed where it lies, and so is the result. A NumPy slab in a process that computes on a GPU (see
    `device.computes_on_gpu`) goes there in groups of slices as large as the free memory allows, while the results of
    the group before come back; in another process it is computed on the CPU, whole. Threads of one process take turns.

    Parameters
    ----------
    function
        Of (slice, …), NumPy or CuPy, to a new (slice, …) of the same kind; slices independent of each other.
    slab
        (slice, …).
    slice_bytes
        Of GPU memory for one slice, copies in both directions included; see `bytes_of_slice`.
    who
        Who asks, for errors.

    Raises
    ------
    SchemaError
        Not even 32 slices fit the free GPU memory, or CuPy or a GPU is missing where one is to be used.
    """
    if device.is_on_gpu(slab):
        return function(device.namespace(slab).ascontiguousarray(slab))
    host = np.ascontiguousarray(slab)
    if len(host) == 0 or not device.computes_on_gpu():
        return function(host)
    with _LOCK:
        device.use_one_pool()
        size = group_slices(len(host), slice_bytes=slice_bytes, free_bytes=device.free_bytes(), who=who)
        return _Pipeline(host, size).run(function)


def group_slices(n_slices: int, *, slice_bytes: int, free_bytes: int, who: str) -> int:
    """Slices that go to the GPU at once: a multiple of 32, at most what fits and a quarter of a large slab.

    Raises
    ------
    SchemaError
        Not even 32 slices fit.
    """
    fitting = int(free_bytes * _SHARE) // (slice_bytes * LANES) * LANES
    if fitting == 0:
        refuse(
            who,
            needs=f"{slice_bytes * LANES / _SHARE / 2**20:.0f} MiB of GPU memory, for {LANES} slices at once",
            got=f"{free_bytes / 2**20:.0f} MiB",
            remedy="raise nntomo_dask.gpu_memory, end other programs on the GPU, or compute on the CPU",
        )
    wanted = -(-n_slices // (_PARTS * LANES)) * LANES
    return min(fitting, wanted)


def bytes_of_slice(operation: Operation, *, angles: int, detector: int, hidden: int = 1) -> int:
    """Bytes of GPU memory that one slice takes at the peak of an operation, with the copies of two groups.

    Parameters
    ----------
    angles
        Projections that are summed, those that fill the wedge included.
    """
    image = 4 * (detector + 2) ** 2
    row = 4 * angles * (detector + 4)
    spectrum = 2 * row  # complex64 of rows padded to twice their length
    between = {
        # Spectra before and after the filter, padded rows before and after, the transform's own; rows as lanes.
        "fbp": 2 * row + 5 * spectrum,
        "nnfbp": 2 * row + 2 * spectrum + hidden * (2 * row + 3 * spectrum),
        # Image, gradient and the volume in both orders; measured, projected and weighted rows.
        "sirt": 4 * image + 5 * row,
        "project": 2 * image + 2 * row,
    }[operation]
    return 2 * image + 2 * row + between


@dataclass
class _Slot:
    """One of two sets of buffers, and what has been done with them."""

    pinned_in: Any
    on_device: Any
    pinned_out: Any
    result: Any
    uploaded: Any
    computed: Any
    downloaded: Any


class _Pipeline:
    """Upload, computation and download of successive groups, each on a stream of its own, through two slots.

    All computation is on one stream: a transform's work area is shared by all uses of its plan, and a memory pool hands
    freed memory out again on the stream that used it.
    """

    def __init__(self, slab: Any, size: int) -> None:
        self.slab = slab
        self.groups = [(start, min(start + size, len(slab))) for start in range(0, len(slab), size)]
        self.upload, self.compute, self.download = (device.stream(role) for role in ("upload", "compute", "download"))
        shape = (min(size, len(slab)), *slab.shape[1:])
        with self.compute:
            self.slots = [
                _Slot(
                    pinned_in=device.empty_pinned(shape, slab.dtype),
                    on_device=device.cupy().empty(shape, slab.dtype),
                    pinned_out=None,
                    result=None,
                    uploaded=device.event(),
                    computed=device.event(),
                    downloaded=device.event(),
                )
                for _ in self.groups[:2]
            ]
        # The pool may hand out memory that its stream has not done with yet.
        self.upload.wait_event(self.compute.record())
        self.volume: Any = None

    def run(self, function: Callable[[Any], Any]) -> Any:
        try:
            self._start_upload(0)
            for index in range(len(self.groups)):
                if index + 1 < len(self.groups):
                    self._start_upload(index + 1)
                self._start_compute(index, function)
                if index > 0:
                    self._collect(index - 1)
            self._collect(len(self.groups) - 1)
        finally:  # nothing may still use the buffers when they are freed, also after an error
            for one in (self.upload, self.compute, self.download):
                one.synchronize()
        return self.volume

    def _start_upload(self, index: int) -> None:
        start, stop = self.groups[index]
        slot = self.slots[index % 2]
        if index >= 2:
            slot.uploaded.synchronize()  # the buffer is refilled by this thread
            self.upload.wait_event(slot.computed)
        slot.pinned_in[: stop - start] = self.slab[start:stop]
        slot.on_device[: stop - start].set(slot.pinned_in[: stop - start], stream=self.upload)
        slot.uploaded.record(self.upload)

    def _start_compute(self, index: int, function: Callable[[Any], Any]) -> None:
        start, stop = self.groups[index]
        slot = self.slots[index % 2]
        self.compute.wait_event(slot.uploaded)
        with self.compute:
            slot.result = device.cupy().ascontiguousarray(function(slot.on_device[: stop - start]))
        slot.computed.record(self.compute)
        if slot.pinned_out is None:
            slot.pinned_out = device.empty_pinned((len(slot.on_device), *slot.result.shape[1:]), slot.result.dtype)
        self.download.wait_event(slot.computed)
        slot.result.get(stream=self.download, out=slot.pinned_out[: stop - start], blocking=False)
        slot.downloaded.record(self.download)

    def _collect(self, index: int) -> None:
        start, stop = self.groups[index]
        slot = self.slots[index % 2]
        slot.downloaded.synchronize()
        if self.volume is None:
            self.volume = np.empty((len(self.slab), *slot.result.shape[1:]), slot.result.dtype)
        self.volume[start:stop] = slot.pinned_out[: stop - start]
        slot.result = None
