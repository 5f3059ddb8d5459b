"""How far a volume is from another, block by block.

Sums are made for each slice and added in the order of the slices, so a metric does not depend on chunks. `mse`, `psnr`
and `ssim` are lazy: scalars that compute when they are asked for their value.
"""

from typing import Any, Literal

import dask.array as da
import numpy as np
import numpy.typing as npt
import scipy.fft
import xarray as xr
from dask.base import compute
from dask.delayed import delayed
from dask.graph_manipulation import clone
from skimage.metrics import structural_similarity

from nntomo_dask.arrays import geometry, schema, slabs
from nntomo_dask.errors import refuse

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Region = Literal["all", "disc"]

FREQUENCY = "frequency"
_SSIM_WINDOW = 7  # pixels, scikit-image's default
_ROWS = 8  # of the spectra, summed over shells at once


def mse(volume: xr.DataArray, reference: xr.DataArray, *, region: Region = "all") -> xr.DataArray:
    """Mean square error.

    Parameters
    ----------
    volume, reference
        Dims (z, y, x), float32, of one shape.
    region
        "all" voxels, or those of the "disc" that every projection sees, in each slice.

    Returns
    -------
    No dims, float64, [u²].

    Raises
    ------
    SchemaError
        One of them is no volume, or their shapes differ.
    """
    volume, reference = _pair("mse", volume, reference)
    inside = _inside(volume, region)
    sums = da.map_blocks(
        _squares, volume.data, reference.data, drop_axis=[1, 2], dtype=np.float64, meta=np.empty((0,)), inside=inside
    )
    count = volume.sizes[schema.Z] * int(inside.sum())
    return xr.DataArray(sums.rechunk(-1).sum() / count, name="mse")


def psnr(volume: xr.DataArray, reference: xr.DataArray, *, region: Region = "all") -> xr.DataArray:
    """Peak signal-to-noise ratio, the peak being the range of the reference.

    Parameters
    ----------
    volume, reference, region
        See `mse`.

    Returns
    -------
    No dims, float64, [dB]; infinite where both are equal.

    Raises
    ------
    SchemaError
        See `mse`.
    """
    error = mse(volume, reference, region=region).data
    peak = _data_range(slabs.lazy(reference).data).astype(np.float64)
    # Delayed, not mapped: Dask fuses a mapped one with the error, and loses that where both are asked for at once.
    return xr.DataArray(da.from_delayed(delayed(_decibels)(peak, error), (), np.float64), name="psnr")


def ssim(volume: xr.DataArray, reference: xr.DataArray, *, region: Region = "all") -> xr.DataArray:
    """Structural similarity, slice by slice in windows of 7 × 7 pixels, and its mean.

    Parameters
    ----------
    volume, reference, region
        See `mse`.

    Returns
    -------
    No dims, float64, at most 1.

    Raises
    ------
    SchemaError
        See `mse`; or slices are narrower than the window.

    References
    ----------
    .. [1] Z. Wang et al., IEEE Trans. Image Process. 13 (2004) 600, doi:10.1109/TIP.2003.819861.
    """
    volume, reference = _pair("ssim", volume, reference)
    if volume.sizes[schema.X] < _SSIM_WINDOW:
        got = f"{volume.sizes[schema.X]}"
        refuse("ssim", needs=f"slices of at least {_SSIM_WINDOW} pixels", got=got, remedy="use mse")
    means = da.map_blocks(
        _similarities,
        volume.data,
        reference.data,
        # Of blocks that are read for it alone: else all of them would be held until the range is known.
        _data_range(clone(reference.data)),
        drop_axis=[1, 2],
        dtype=np.float64,
        meta=np.empty((0,)),
        inside=_inside(volume, region),
    )
    return xr.DataArray(means.rechunk(-1).sum() / volume.sizes[schema.Z], name="ssim")


def fourier_shell_correlation(
    volume: xr.DataArray, reference: xr.DataArray, *, memory_bytes: int = 2 * 2**30
) -> xr.DataArray:
    """Correlation of two volumes on shells of equal spatial frequency.

    Computed at once, by threads of this process, in as many passes over both volumes as `memory_bytes` asks for: each
    pass keeps a band of columns of the spectra.

    Parameters
    ----------
    volume, reference
        Dims (z, y, x), float32, of one shape.
    memory_bytes
        Bound of what a pass holds of the two spectra.

    Returns
    -------
    Dims (frequency), float64, in [-1, 1]; ``frequency`` in cycles per `units` of the reference, up to Nyquist's.

    Raises
    ------
    SchemaError
        One of them is no volume, or their shapes differ.

    References
    ----------
    .. [1] G. Harauz and M. van Heel, Exact filters for general geometry three dimensional reconstruction, Optik 73
       (1986) 146.
    """
    volume, reference = _pair("fourier_shell_correlation", volume, reference)
    shape = reference.shape
    columns = shape[2] // 2 + 1
    column_bytes = 2 * 8 * shape[0] * shape[1]  # two complex64 spectra
    # A quarter is left for what the blocks of the transforms take.
    wide = max(min(memory_bytes * 3 // 4 // column_bytes, columns), 1)
    sums = np.zeros((3, max(shape) // 2 + 1))
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
                delayed(_shell_sums)(spectra[:, :, start : start + _ROWS], start, shape, band)
                for start in range(0, shape[1], _ROWS)
            ),
            scheduler="threads",
        )
        sums += np.sum(parts, axis=0)
    cross, first_power, second_power = sums
    power = np.sqrt(first_power * second_power)
    correlation = np.divide(cross, power, out=np.zeros_like(cross), where=power > 0)
    frequency = np.arange(correlation.size) / max(shape) / reference.attrs["pixel_size"]
    attrs = {"units": reference.attrs["units"]}
    return xr.DataArray(correlation, dims=(FREQUENCY,), coords={FREQUENCY: frequency}, attrs=attrs, name="fsc")


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
    below = np.flatnonzero(values[1:] < threshold) + 1
    if below.size == 0:
        return float(1 / frequency[-1])
    shell = int(below[0])
    upper, lower = values[shell - 1], values[shell]
    share = (upper - threshold) / (upper - lower) if upper > threshold else 0.0
    crossing = frequency[shell - 1] + share * (frequency[shell] - frequency[shell - 1])
    return float(1 / crossing) if crossing > 0 else float("inf")


def normalize(volume: xr.DataArray) -> xr.DataArray:
    """A volume scaled linearly to [0, 1]; a constant one becomes 0. Lazy.

    Raises
    ------
    SchemaError
        `volume` is no volume.
    """
    schema.check_volume(volume, who="normalize")
    data = slabs.lazy(volume).data
    return _same_grid(_scaled, volume, "normalize", {}, [data.min(), data.max()])


def segment(volume: xr.DataArray, *, threshold: float) -> xr.DataArray:
    """1 where a volume exceeds the threshold, 0 elsewhere; float32. Lazy.

    Raises
    ------
    SchemaError
        `volume` is no volume.
    """
    schema.check_volume(volume, who="segment")
    return _same_grid(_above, volume, "segment", {"threshold": threshold}, [threshold])


def _same_grid(
    function: Any, volume: xr.DataArray, operation: str, parameters: dict[str, Any], extra: list[Any]
) -> xr.DataArray:
    return slabs.map_slabs(
        function,
        volume,
        dims=schema.VOLUME_DIMS,
        coords={dim: volume[dim].values for dim in schema.VOLUME_DIMS},
        recipe=slabs.record(operation, parameters, [volume]),
        name="volume",
        extra=extra,
    )


def _scaled(slab: Float32, low: Any, high: Any) -> Float32:
    low, high = np.float32(low), np.float32(high)
    return (slab - low) / (high - low) if high > low else np.zeros_like(slab)


def _above(slab: Float32, threshold: float) -> Float32:
    return (slab > threshold).astype(np.float32)


def _pair(who: str, volume: xr.DataArray, reference: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Both volumes over Dask, in slabs of the same slices."""
    schema.check_volume(volume, who=who)
    schema.check_volume(reference, who=who)
    schema.check_same_grid(volume, reference, who=who)
    reference = slabs.lazy(reference)
    return volume.chunk(dict(reference.chunksizes)), reference


def _inside(volume: xr.DataArray, region: Region) -> npt.NDArray[np.bool_]:
    size = volume.sizes[schema.X]
    if region == "disc":
        return geometry.seen_by_all(size)
    if region == "all":
        return np.ones((size, size), bool)
    refuse("metrics", needs='region "all" or "disc"', got=f"{region!r}", remedy='region="all"')


def _data_range(data: da.Array) -> da.Array:
    span: da.Array = data.max() - data.min()
    return span


def _squares(slab: Float32, reference: Float32, *, inside: npt.NDArray[np.bool_]) -> Float64:
    difference = (slab.astype(np.float64) - reference)[:, inside]
    return np.array([float(values @ values) for values in difference])


def _decibels(peak: Any, error: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, np.inf, 10 * np.log10(peak**2 / error))


def _similarities(slab: Float32, reference: Float32, data_range: Any, *, inside: npt.NDArray[np.bool_]) -> Float64:
    span = float(data_range) or 1.0
    maps = (
        structural_similarity(image, truth, data_range=span, win_size=_SSIM_WINDOW, full=True)[1]
        for image, truth in zip(slab, reference, strict=True)
    )
    return np.array([float(similarity[inside].mean()) for similarity in maps])


def _blocks(data: da.Array) -> list[tuple[Any, int, int]]:
    """Delayed slabs of an array, with the first slice and the number of slices of each."""
    sizes = data.chunks[0]
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    return list(zip(data.to_delayed().ravel(), starts, sizes, strict=True))


def _keep_band(slab: Float32, spectrum: npt.NDArray[np.complex64], band: slice) -> None:
    """Write the columns `band` of each slice's two-dimensional spectrum to `spectrum` (slice, y, column)."""
    for image, kept in zip(slab, spectrum, strict=True):
        kept[...] = scipy.fft.fft(scipy.fft.rfft(image, axis=1)[:, band], axis=0)


def _shell_sums(spectra: npt.NDArray[np.complex64], first_row: int, shape: tuple[int, ...], band: slice) -> Float64:
    """(3, shell): cross power and both powers of some rows (2, slice, row, column), summed over each shell."""
    f, g = scipy.fft.fft(spectra, axis=1)
    size = max(shape)
    squared_z = scipy.fft.fftfreq(shape[0])[:, None, None] ** 2
    squared_y = scipy.fft.fftfreq(shape[1])[None, first_row : first_row + f.shape[1], None] ** 2
    squared_x = scipy.fft.rfftfreq(shape[2])[None, None, band] ** 2
    shell = np.rint(np.sqrt(squared_z + squared_y + squared_x) * size).astype(np.int64)
    # A real volume's spectrum is symmetric: all columns but the first, and the last of an even width, stand for two.
    twice = np.full(shape[2] // 2 + 1, 2.0)
    twice[0] = 1
    if shape[2] % 2 == 0:
        twice[-1] = 1
    kept = size // 2 + 1
    sums = [
        np.bincount(shell.ravel(), (power * twice[band]).ravel(), minlength=kept)[:kept]
        for power in ((f * g.conj()).real, np.abs(f) ** 2, np.abs(g) ** 2)
    ]
    return np.stack(sums)
