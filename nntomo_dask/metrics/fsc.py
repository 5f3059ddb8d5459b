"""Fourier shell correlation, and the resolution that follows from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import dask.array as da
import numpy as np
import numpy.typing as npt
import scipy.fft
import xarray as xr
from dask.base import compute
from dask.delayed import delayed

from nntomo_dask.arrays import grid, schema
from nntomo_dask.errors import refuse
from nntomo_dask.metrics import METRICS
from nntomo_dask.metrics.metric import Column, Metric
from nntomo_dask.metrics.pairs import Region, pair
from nntomo_dask.types import Float32, Float64

FREQUENCY = "frequency"
_ROWS = 8  # of the spectra, summed over shells at once
_THRESHOLDS = (0.5, 0.143)
_ABOUT = "resolution at which the Fourier shell correlation with the reference falls below that value"


@METRICS.register
@dataclass(frozen=True)
class Fsc(Metric):
    """The resolution at which the Fourier shell correlation falls below 0.5 and below 0.143."""

    name: ClassVar[str] = "fsc"
    columns: ClassVar[tuple[Column, ...]] = tuple(
        Column(f"fsc_{threshold:g}", f"FSC={threshold:g}", "lower", unit="length", digits=".3g", about=_ABOUT)
        for threshold in _THRESHOLDS
    )
    pass_number: ClassVar[int] = 0

    def measure(
        self, volume: xr.DataArray, reference: xr.DataArray, *, region: Region, memory_bytes: int
    ) -> Mapping[str, xr.DataArray | float]:
        """Computed at once."""
        correlation = fourier_shell_correlation(volume, reference, memory_bytes=memory_bytes)
        return {f"fsc_{threshold:g}": resolution(correlation, threshold=threshold) for threshold in _THRESHOLDS}


def fourier_shell_correlation(
    volume: xr.DataArray, reference: xr.DataArray, *, memory_bytes: int = 2 * 2**30
) -> xr.DataArray:
    """Correlation of two volumes on shells of equal spatial frequency.

    Computed at once, by threads of this process, in as many passes over both volumes as `memory_bytes` asks for: each
    pass keeps a band of columns of the spectra.

    Parameters
    ----------
    volume, reference
        Dims (z, y, x), float32, of one shape and with the same coordinates, at equal steps.
    memory_bytes
        Bound of what a pass holds of the two spectra.

    Returns
    -------
    Dims (frequency), float64, in [-1, 1]; ``frequency`` in cycles per unit of the reference's
    coordinates, up to Nyquist's.

    Raises
    ------
    SchemaError
        One of them is no volume, their shapes or coordinates differ, or a value is NaN or infinite.

    References
    ----------
    .. [1] G. Harauz and M. van Heel, Exact filters for general geometry three dimensional reconstruction, Optik 73
       (1986) 146.
    """
    volume, reference = pair("fourier_shell_correlation", volume, reference)
    for item in (volume, reference):
        schema.check_even_z(item, who="fourier_shell_correlation")
    shape, pixel_size = reference.shape, schema.pixel_size_of(reference)
    # Slices may be farther apart than pixels, or less.
    steps = abs(grid.spacing(reference[schema.Z].values, pixel_size)) / pixel_size, 1.0, 1.0
    columns = shape[2] // 2 + 1
    column_bytes = 2 * 8 * shape[0] * shape[1]  # two complex64 spectra
    # A quarter is left for what the blocks of the transforms take.
    wide = max(min(memory_bytes * 3 // 4 // column_bytes, columns), 1)
    sums = np.zeros((3, _shells(shape, steps)))
    for first in range(0, columns, wide):
        band = slice(first, min(first + wide, columns))
        spectra = np.empty((2, shape[0], shape[1], band.stop - band.start), np.complex64)
        compute(
            *(
                delayed(_keep_band)(block, spectrum[start : start + size], band)
                for item, spectrum in zip((volume, reference), spectra, strict=True)
                for block, start, size in _blocks(item.data)
            ),
            scheduler="threads",
        )
        parts = compute(
            *(
                delayed(_shell_sums)(spectra[:, :, start : start + _ROWS], start, shape, band, steps)
                for start in range(0, shape[1], _ROWS)
            ),
            scheduler="threads",
        )
        sums += np.sum(parts, axis=0)
    cross, first_power, second_power = sums
    power = np.sqrt(first_power * second_power)
    correlation = np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)
    frequency = np.arange(correlation.size) / _longest(shape, steps) / pixel_size
    shown = {"long_name": "spatial frequency", "units": f"1/{reference.attrs['units']}"}
    return xr.DataArray(
        correlation,
        dims=(FREQUENCY,),
        coords={FREQUENCY: (FREQUENCY, frequency, shown)},
        attrs={"long_name": "Fourier shell correlation"},
        name="fsc",
    )


def resolution(correlation: xr.DataArray, *, threshold: float = 0.143) -> float:
    """Length at which a Fourier shell correlation first falls below a threshold.

    Parameters
    ----------
    correlation
        From `fourier_shell_correlation`.
    threshold
        0.143 for two independent halves, 0.5 against a known volume.

    Returns
    -------
    Resolution in the volumes' units, linear between shells; that of Nyquist's frequency where it never falls below.
    """
    values, frequency = correlation.values, correlation[FREQUENCY].values
    if not (np.isfinite(values).all() and np.isfinite(frequency).all() and np.isfinite(threshold)):
        refuse("resolution", needs="finite values", got="NaN or infinite ones", remedy="check the correlation")
    below = np.flatnonzero(values[1:] < threshold) + 1
    if below.size == 0:
        return float(1 / frequency[-1])
    shell = int(below[0])
    upper, lower = values[shell - 1], values[shell]
    share = (upper - threshold) / (upper - lower) if upper > threshold else 0.0
    crossing = frequency[shell - 1] + share * (frequency[shell] - frequency[shell - 1])
    return float(1 / crossing) if crossing > 0 else float("inf")


def _blocks(data: da.Array) -> list[tuple[Any, int, int]]:
    """Delayed slabs of an array, with the first slice and the number of slices of each."""
    sizes = data.chunks[0]
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    return list(zip(data.to_delayed().ravel(), starts, sizes, strict=True))


def _keep_band(slab: Float32, spectrum: npt.NDArray[np.complex64], band: slice) -> None:
    """Write the columns `band` of each slice's two-dimensional spectrum to `spectrum` (slice, y, column)."""
    for image, kept in zip(slab, spectrum, strict=True):
        kept[...] = scipy.fft.fft(scipy.fft.rfft(image, axis=1)[:, band], axis=0)


def _longest(shape: tuple[int, ...], steps: tuple[float, ...]) -> float:
    """Longest edge of a volume, in pixels; shells are as thick as its inverse."""
    return max(size * step for size, step in zip(shape, steps, strict=True))


def _shells(shape: tuple[int, ...], steps: tuple[float, ...]) -> int:
    """Shells up to Nyquist's frequency of the coarsest step."""
    return int(_longest(shape, steps) / max(steps)) // 2 + 1


def _shell_sums(
    spectra: npt.NDArray[np.complex64], first_row: int, shape: tuple[int, ...], band: slice, steps: tuple[float, ...]
) -> Float64:
    """(3, shell): cross power and both powers of some rows (2, slice, row, column), summed over each shell."""
    f, g = scipy.fft.fft(spectra, axis=1)
    size = _longest(shape, steps)
    squared_z = (scipy.fft.fftfreq(shape[0]) / steps[0])[:, None, None] ** 2
    squared_y = scipy.fft.fftfreq(shape[1])[None, first_row : first_row + f.shape[1], None] ** 2
    squared_x = scipy.fft.rfftfreq(shape[2])[None, None, band] ** 2
    shell = np.rint(np.sqrt(squared_z + squared_y + squared_x) * size).astype(np.int64)
    # A real volume's spectrum is symmetric: all columns but the first, and the last of an even width, stand for two.
    twice = np.full(shape[2] // 2 + 1, 2.0)
    twice[0] = 1
    if shape[2] % 2 == 0:
        twice[-1] = 1
    kept = _shells(shape, steps)
    sums = [
        np.bincount(shell.ravel(), (power * twice[band]).ravel(), minlength=kept)[:kept]
        for power in ((f * g.conj()).real, np.abs(f) ** 2, np.abs(g) ** 2)
    ]
    return np.stack(sums)
