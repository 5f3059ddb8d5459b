"""Slabs in host memory are computed on a GPU, a group of slices at a time; copies and kernels run in parallel."""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nntomo_dask.compute import device
from nntomo_dask.errors import refuse

LANES = 32  # slices of the smallest group, which one warp computes at once; smaller groups are padded
_SHARE = 0.9  # of the free memory; the rest is for fragmentation, plans of Fourier transforms, compiled kernels
_PARTS = 4  # least number of groups of a large slab; with one group, nothing could run in parallel
_LOCK = threading.Lock()  # one slab at a time on the GPU, so that its memory is known


def streamed(function: Callable[[Any], Any], slab: Any, *, slice_bytes: int, who: str) -> Any:
    """Compute ``function(slab)`` on the device that the slab, or this process, uses.

    A CuPy slab is computed on its GPU, and the result stays there. In a process that computes on a GPU (see
    `device.computes_on_gpu`), a NumPy slab is sent to the GPU in groups of slices that are as large as the free memory
    allows, while the results of the previous group are copied back. In any other process it is computed on the CPU, in
    one piece. The threads of a process take turns.

    Parameters
    ----------
    function
        Maps (slice, …), NumPy or CuPy, to a new (slice, …) of the same kind. Slices are independent of each other.
    slab
        (slice, …).
    slice_bytes
        GPU memory for one slice, copies in both directions included.
    who
        Name of the caller, for errors.

    Raises
    ------
    SchemaError
        The free GPU memory is too small for 32 slices, or a GPU is to be used and it or CuPy is missing.
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
    """Number of slices that are sent to the GPU at once: a multiple of 32 that fits, at most a quarter of a large slab.

    Raises
    ------
    SchemaError
        The free memory is too small for 32 slices.
    """
    fitting = int(free_bytes * _SHARE) // (slice_bytes * LANES) * LANES
    if fitting == 0:
        refuse(
            who,
            needs=f"{math.ceil(slice_bytes * LANES / _SHARE / 2**20)} MiB of GPU memory, for {LANES} slices at once",
            got=f"{int(free_bytes / 2**20)} MiB",
            remedy="raise nntomo_dask.gpu_memory, end other programs on the GPU, or compute on the CPU",
        )
    wanted = -(-n_slices // (_PARTS * LANES)) * LANES
    return min(fitting, wanted)


def bordered_image_bytes(detector: int) -> int:
    """Bytes of a slice's image with its border."""
    return 4 * (detector + 2) ** 2


def padded_rows_bytes(angles: int, detector: int) -> int:
    """Bytes of a slice's projections with their padding."""
    return 4 * angles * (detector + 4)


def copied_bytes(angles: int, detector: int) -> int:
    """Bytes that the copies of one slice take: of two groups, rows in and image out or the other way round."""
    return 2 * bordered_image_bytes(detector) + 2 * padded_rows_bytes(angles, detector)


@dataclass
class _Slot:
    """One of the two sets of buffers, and the events that say what has been done with it."""

    pinned_in: Any
    on_device: Any
    pinned_out: Any
    result: Any
    uploaded: Any
    computed: Any
    downloaded: Any


class _Pipeline:
    """Upload, computation and download of successive groups, each on its own stream, with two slots.

    All computation is on one stream. The work area of a Fourier transform is shared by all uses of its plan, and a
    memory pool reuses freed memory only on the stream that used it before.
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
        # The pool may return memory that its stream still uses.
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
        finally:  # no stream may use the buffers when they are freed, even after an error
            for one in (self.upload, self.compute, self.download):
                one.synchronize()
        return self.volume

    def _start_upload(self, index: int) -> None:
        start, stop = self.groups[index]
        slot = self.slots[index % 2]
        if index >= 2:
            slot.uploaded.synchronize()  # this thread overwrites the buffer
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
