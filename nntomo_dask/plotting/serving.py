"""A viewer in the browser: a server on this machine alone that gives slices of an array when the page asks for them.

Slices across the first dim are read from the array as they are. Slices along it would need all slabs, so they come from
a copy in memory, of 16 bits, halved until it is small enough; the page says so. The server listens on the loopback
interface, answers GET alone, and only to who knows the token in the address.
"""

import hmac
import json
import math
import secrets
import sys
import threading
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import schema, slabs
from nntomo_dask.arrays.blocks import blocks_of, halved
from nntomo_dask.plotting.grey import range_of
from nntomo_dask.types import Float32
from nntomo_dask.untrusted import printable

HOST = "127.0.0.1"
COPY_BYTES = 256 * 2**20  # of the copy in memory
_WHITE = 2**16 - 1
_PAGE = Path(__file__).with_name("viewer.html")
_SHARE = 1e-3  # of the values at either end that the first window leaves out
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


@dataclass
class Slices:
    """An array whose slices are given one at a time, as 16 bits between its least and its largest value.

    Attributes
    ----------
    array
        Volume or tilt series, read when a slice is wanted.
    copy
        (z, …), the whole array, halved `level` times, by which slices along z are made.
    level
        How many times.
    low, high
        The values at 0 and at 65535.
    """

    array: xr.DataArray
    copy: npt.NDArray[np.uint16]
    level: int
    low: float
    high: float

    def __post_init__(self) -> None:
        self._reading = threading.Lock()  # one slab is in memory at a time
        self._slab: tuple[int, Float32] | None = None

    @classmethod
    def of(cls, array: xr.DataArray, *, level: int | None = None, most_bytes: int = COPY_BYTES) -> "Slices":
        """Read the whole array twice, slab by slab: for its range, and for the copy.

        Parameters
        ----------
        array
            Volume or tilt series.
        level
            How many times the copy is halved; by default as often as it has to be.
        most_bytes
            Of the copy.
        """
        axes = _halved_axes(array)
        found = level_for(array, most_bytes) if level is None else level
        low, high = range_of(slabs.lazy(array).data)
        high = high if high > low else low + 1.0
        copy = np.empty(_shape(array, found), np.uint16)
        first = 0
        height = 2**found
        for _, block in blocks_of(array, max(height, slabs.lazy(array).data.chunks[0][0] // height * height)):
            small = block
            for _ in range(found):
                small = halved(small, axes=axes)
            copy[first : first + len(small)] = _as_16_bits(small, low, high)
            first += len(small)
        return cls(array, copy, found, low, high)

    def slice(self, axis: int, index: int) -> npt.NDArray[np.uint16]:
        """(row, column), a slice across a dim; across the first one as it is, across the others from the copy."""
        if axis == 0:
            return _as_16_bits(self._whole(index), self.low, self.high)
        step = 2**self.level if axis in _halved_axes(self.array) else 1
        found: npt.NDArray[np.uint16] = np.ascontiguousarray(np.take(self.copy, index // step, axis=axis))
        return found

    def _whole(self, index: int) -> Float32:
        with self._reading:
            if self._slab is None or not 0 <= index - self._slab[0] < len(self._slab[1]):
                self._slab = None
                ends = np.cumsum((0, *slabs.lazy(self.array).data.chunks[0]))
                number = int(np.searchsorted(ends, index, side="right")) - 1
                part = self.array.isel({schema.Z: slice(int(ends[number]), int(ends[number + 1]))})
                self._slab = int(ends[number]), np.asarray(part.values, np.float32)
            first, slab = self._slab
            found: Float32 = slab[index - first].copy()
            return found

    def window(self) -> tuple[float, float]:
        """Values that are black and white at first."""
        counts = np.cumsum(np.bincount(self.copy.reshape(-1)[:: max(self.copy.size // 2**22, 1)], minlength=_WHITE + 1))
        ends = np.searchsorted(counts, [_SHARE * counts[-1], (1 - _SHARE) * counts[-1]])
        low, high = (self.low + (self.high - self.low) * int(end) / _WHITE for end in ends)
        return (low, high) if low < high else (self.low, self.high)

    def about(self, name: str) -> dict[str, Any]:
        """What the page needs to know."""
        low, high = self.window()
        axes = []
        for axis, dim in enumerate(self.array.dims):
            values = self.array[dim].values
            steps = abs(float(values[-1] - values[0])) / max(len(values) - 1, 1)
            step = steps if len(values) > 1 else schema.pixel_size_of(self.array)
            axes.append(
                {
                    "name": str(dim),
                    "size": len(values),
                    "step": step,
                    "positions": [float(f"{value:.6g}") for value in values],
                    "halved": 2**self.level if axis and axis in _halved_axes(self.array) else 1,
                }
            )
        return {
            "name": printable(name),
            "kind": printable(str(self.array.name).replace("_", " ")),
            "units": str(self.array.attrs["units"]),
            "axes": axes,
            "along": 2**self.level,  # of z, in slices that come from the copy
            "range": [self.low, self.high],
            "window": [low, high],
            "series": schema.ANGLE in self.array.dims,
        }


def level_for(array: xr.DataArray, most_bytes: int = COPY_BYTES) -> int:
    """How many times an array is halved until its copy of 16 bits is small enough."""
    level = 0
    while 2 * math.prod(_shape(array, level)) > most_bytes and level < 10:
        level += 1
    return level


def host_bytes(array: xr.DataArray, level: int) -> int:
    """Bytes that the viewer holds beside the slabs that are read: the copy, and a block on its way to it."""
    shape: tuple[int, ...] = array.shape
    block = (1 << level) * 4 * shape[1] * shape[2]
    copy: int = 2 * math.prod(_shape(array, level))
    return copy + 4 * block + 24 * shape[1] * shape[2]


def _halved_axes(array: xr.DataArray) -> tuple[int, ...]:
    return (0, 2) if schema.ANGLE in array.dims else (0, 1, 2)


def _shape(array: xr.DataArray, level: int) -> tuple[int, ...]:
    axes = _halved_axes(array)
    return tuple(-(-size // 2**level) if axis in axes else size for axis, size in enumerate(array.shape))


def _as_16_bits(values: Float32, low: float, high: float) -> npt.NDArray[np.uint16]:
    """Little-endian, between two values; what is no number is 0."""
    out = np.empty(values.shape, "<u2")
    rows = values.reshape(-1, values.shape[-1])
    scale = np.float32(_WHITE / (high - low))
    for image, place in zip(rows, out.reshape(rows.shape), strict=True):
        with np.errstate(invalid="ignore", over="ignore"):
            place[...] = np.clip(np.nan_to_num(np.rint((image - np.float32(low)) * scale), nan=0.0), 0, _WHITE)
    return out


class Viewer:
    """The server; it listens from the beginning, and answers while `serve` runs.

    Parameters
    ----------
    slices
        What is shown.
    name
        What the page calls it.
    port
        On which it listens; 0 lets the system choose.
    """

    def __init__(self, slices: Slices, *, name: str, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(18)
        page = _PAGE.read_bytes()
        answers = {"": ("text/html; charset=utf-8", page)}
        answers["about.json"] = ("application/json", json.dumps(slices.about(name)).encode())
        handler = type("Handler", (_Handler,), {"token": self.token, "slices": slices, "answers": answers})
        self.server = _Server((HOST, port), handler)

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server.server_port}/{self.token}/"

    def serve(self) -> None:
        """Answer until `close` is called, or an exception such as KeyboardInterrupt ends it."""
        try:
            self.server.serve_forever(poll_interval=0.2)
        finally:
            self.server.server_close()

    def close(self) -> None:
        """Stop answering; `serve` returns."""
        self.server.shutdown()


class _Server(ThreadingHTTPServer):
    """A thread for each connection; all end with the process."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a page that was closed while it was answered."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET with the page, what it needs to know, and slices."""

    server: ThreadingHTTPServer
    token: str
    slices: Slices
    answers: dict[str, tuple[str, bytes]]
    server_version, sys_version = "nntomo", ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Answer a request."""
        port = self.server.server_port
        # Another name for this host would let a page of a stranger ask, by a name that leads here.
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        token, _, what = self.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        if what in self.answers:
            self._answer(*self.answers[what])
            return
        image = self._slice(what)
        if image is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        shape = {"X-Rows": str(image.shape[0]), "X-Columns": str(image.shape[1])}
        self._answer("application/octet-stream", image.tobytes(), shape)

    def _slice(self, what: str) -> npt.NDArray[np.uint16] | None:
        """The slice that ``slice/AXIS/INDEX`` names; None where it names none."""
        parts = what.split("/")
        if len(parts) != 3 or parts[0] != "slice" or not all(part.isascii() and part.isdigit() for part in parts[1:]):
            return None
        if any(len(part) > 9 for part in parts):
            return None
        axis, index = int(parts[1]), int(parts[2])
        if axis > 2 or index >= self.slices.array.shape[axis]:
            return None
        return self.slices.slice(axis, index)

    def _answer(self, kind: str, content: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            **_HEADERS,
            **(more or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True
        self.send_response(status)
        for name, value in {"Content-Length": "0", "Connection": "close", **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the terminal belongs to the command."""
