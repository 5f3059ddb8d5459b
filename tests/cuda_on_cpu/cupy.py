"""A stand-in for CuPy, as far as the package uses it, as strict as CuPy is where that differs from NumPy.

Arrays are NumPy's under another type that does not mix with NumPy's arrays. Streams are lazy: a copy happens when
something waits for it, as late as CUDA allows, so that an order which nothing enforces comes out wrong.
"""

import sys
import types
from collections import Counter

import numpy as np
import scipy.fft

from tests.cuda_on_cpu.compiled import LOCK, Module


class ndarray(np.ndarray):
    """An array on the GPU that is not there."""

    __module__ = "cupy"

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        inputs = [_plain(value) for value in inputs]
        if out is not None:
            kwargs["out"] = tuple(_plain(value) for value in out)
        return _wrapped(getattr(ufunc, method)(*inputs, **kwargs))

    def __array_function__(self, func, types, args, kwargs):
        return _wrapped(func(*_plain_all(args), **{key: _plain_all(value) for key, value in kwargs.items()}))

    def __setitem__(self, key, value):
        self.view(np.ndarray)[key] = _plain(value)

    def get(self, stream=None, out=None, *, blocking=True):
        """Copy to the host."""
        if out is None:
            return np.array(self.view(np.ndarray))
        assert out.flags.c_contiguous
        assert out.shape == self.shape
        source = self.view(np.ndarray)
        (stream or current()).later(lambda: np.copyto(out, source, casting="no"))
        if blocking:
            (stream or current()).synchronize()
        return out

    def set(self, arr, stream=None):
        """Copy from the host."""
        assert self.flags.c_contiguous
        assert arr.flags.c_contiguous
        assert arr.shape == self.shape
        (stream or current()).later(lambda: np.copyto(self.view(np.ndarray), arr, casting="no"))


def _plain(value):
    if isinstance(value, ndarray):
        return value.view(np.ndarray)
    if isinstance(value, np.ndarray):
        raise TypeError("an array in host memory among arrays on the GPU")
    return value


def _plain_all(value):
    return type(value)(_plain_all(item) for item in value) if isinstance(value, list | tuple) else _plain(value)


def _wrapped(value):
    return np.asarray(value).view(ndarray) if isinstance(value, np.ndarray | np.generic) else value


class Stream:
    """Work that is done in order, when it has to be; or at once, when `eager`.

    `patient`: what computes on the stream puts its work there too, so nothing need be done when it is entered.
    """

    def __init__(self, *, non_blocking=False):
        self.work, self.eager, self.patient = [], False, False

    def later(self, action):
        self.work.append(action)
        if self.eager:
            self.synchronize()

    def synchronize(self, until=None):
        while self.work if until is None else not until.done:
            assert self.work, "waiting for what nobody will do"
            self.work.pop(0)()

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        marker = event.marker
        if marker is not None:  # an event that was never recorded is waited for by nobody
            self.later(marker.wait)

    def __enter__(self):
        stack.append(self)
        if not self.patient:  # NumPy and our kernels compute at once, so what the stream waits for has to be done now
            self.synchronize()
        return self

    def __exit__(self, *_):
        stack.pop()


class _Marker:
    def __init__(self, stream):
        self.stream, self.done = stream, False

    def reach(self):
        self.done = True

    def wait(self):
        self.stream.synchronize(until=self)


class Event:
    """A place in a stream."""

    def __init__(self, *, disable_timing=False):
        self.marker = None

    def record(self, stream):
        self.marker = _Marker(stream)
        stream.later(self.marker.reach)

    def synchronize(self):
        if self.marker is not None:
            self.marker.wait()


default_stream = Stream()
stack = [default_stream]


def current():
    """The stream in use."""
    return stack[-1]


class FakeError(RuntimeError):
    """CUDA's own error."""


class Cupy(types.ModuleType):
    """The module; `free` is the GPU's free memory, `used` what the pool has given out: nothing, as at the start.

    `compiled` holds what was compiled into `folder`.
    """

    ndarray = ndarray
    __version__ = "0"

    def __init__(self, folder, compiled):
        super().__init__("cupy")
        self.free, self.used, self.devices, self.allocators, self.pinned_bytes = 2**33, 0, 1, [], []
        self.folder, self.compiled, self.launches = folder, compiled, Counter()
        pool = types.SimpleNamespace(
            malloc="own pool", used_bytes=lambda: self.used, free_bytes=lambda: 0, free_all_blocks=lambda: None
        )
        self.get_default_memory_pool = lambda: pool
        self.cuda = types.SimpleNamespace(
            Stream=Stream,
            Event=Event,
            Device=lambda: types.SimpleNamespace(id=0),
            get_current_stream=lambda: types.SimpleNamespace(ptr=id(current())),
            set_allocator=self.allocators.append,
            PythonFunctionAllocator=lambda allocate, free: types.SimpleNamespace(malloc=(allocate, free)),
            runtime=types.SimpleNamespace(
                CUDARuntimeError=FakeError, getDeviceCount=self._count, memGetInfo=lambda: (self.free, 2**34)
            ),
        )

    def _count(self):
        if self.devices is None:
            raise FakeError("cudaErrorInsufficientDriver")
        return self.devices

    def RawModule(self, *, code, options):
        """Compile for the CPU, each source and options once."""
        key = (code, options)
        with LOCK:
            if key not in self.compiled:
                self.compiled[key] = Module(code, options, self.folder)
        module = self.compiled[key]

        def get_function(name):
            function = module.get_function(name)

            def counted(*arguments):
                self.launches[name] += 1
                return function(*arguments)

            return counted

        return types.SimpleNamespace(get_function=get_function)

    def asarray(self, values):
        """To the GPU; a copy."""
        return np.array(_plain(values) if isinstance(values, ndarray) else values, order="C").view(ndarray)

    def empty(self, shape, dtype=float):
        """NaN where it can be, so that what nobody wrote is seen."""
        array = np.empty(shape, dtype)
        array.view(np.uint8).fill(0xFF)
        return array.view(ndarray)

    def empty_like(self, array):
        return self.empty(array.shape, array.dtype)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        function = getattr(np, name)

        def on_gpu(*args, **kwargs):
            return _wrapped(function(*_plain_all(args), **{key: _plain_all(value) for key, value in kwargs.items()}))

        return on_gpu


def install(monkeypatch, folder, compiled):
    """Make ``import cupy`` find the stand-in within a test."""
    fake = Cupy(folder, compiled)
    cupyx, transforms = types.ModuleType("cupyx"), types.ModuleType("cupyx.scipy.fft")

    def empty_pinned(shape, dtype):
        fake.pinned_bytes.append(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return np.asarray(fake.empty(shape, dtype)).view(np.ndarray)

    cupyx.empty_pinned = empty_pinned
    transforms.rfft = lambda x, n, axis: _wrapped(scipy.fft.rfft(_plain(x), n=n, axis=axis))
    transforms.irfft = lambda x, n, axis: _wrapped(scipy.fft.irfft(_plain(x), n=n, axis=axis))
    for name, module in (("cupy", fake), ("cupyx", cupyx), ("cupyx.scipy", cupyx), ("cupyx.scipy.fft", transforms)):
        monkeypatch.setitem(sys.modules, name, module)
    return fake
