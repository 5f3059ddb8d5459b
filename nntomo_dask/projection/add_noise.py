"""Noise added to a series that has none, the same at a pixel whatever the order of projections, chunks and workers."""

from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.delayed import delayed

from nntomo_dask.arrays import finite, recipes, schema, slabs
from nntomo_dask.compute import chunking, device
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import counting
from nntomo_dask.projection.noise import Noise
from nntomo_dask.types import Float32, Float64, Integers

_COUNTED, _READ, _FACTOR = 1, 2, 3  # streams of random numbers: two of a row, one of a slice


def add_noise(
    series: xr.DataArray, *, noise: float | Noise = 0.0, dose: float | None = None, seed: int = 0
) -> xr.DataArray:
    """Add noise to a tilt series.

    The noise of a pixel depends on the seed, the tilt angle, the number of its slice and its row of detector pixels
    alone: not on chunks, workers, or the order and number of the other projections. Lazy; the brightest ray is found in
    a pass of its own, in which the series is computed too.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32.
    noise
        Standard deviation of Gaussian noise, as a share of the brightest ray: 0.02 is 2 % of the largest value of the
        whole series, at all pixels alike. Or a `Noise` in the units of the series, such as `nntomo_dask.noise` finds.
    dose
        Counts that the brightest ray has on average; those of other rays are in proportion. The standard deviation
        there is ``1 / √dose`` of the ray. Values below zero have no counts, and stay. By default nothing is counted.
    seed
        Another seed gives other noise.

    Returns
    -------
    Dims (z, angle, detector), float32. Without noise and dose, the series as it was given.

    Raises
    ------
    SchemaError
        `series` is no tilt series; `noise` is below zero, `dose` or `seed` is none, or a model is given with a dose.
        When it is computed: a value is NaN or infinite.
    """
    schema.check_tilt_series(series, who="add_noise")
    check(noise, dose, seed, who="add_noise")
    return _of_kind(series, noise, dose, seed=seed, spread=1.0)


def add_noises(series: xr.DataArray, *, noise: float, spread: float, seed: int) -> xr.DataArray:
    """`add_noise` with another level in each slice.

    Parameters
    ----------
    spread
        A slice has the deviation of `noise` times a factor between ``1 / spread`` and `spread`, uniform on a
        logarithmic scale, which follows from the seed and the number of the slice. 1: that of `add_noise`.
    """
    check(noise, None, seed, who="add_noise")
    return _of_kind(series, noise, None, seed=seed, spread=spread)


def _of_kind(
    series: xr.DataArray, noise: float | Noise, dose: float | None, *, seed: int, spread: float
) -> xr.DataArray:
    if isinstance(noise, Noise):
        if noise.is_noiseless:
            return series
        model = {"gain": noise.gain, "read_noise": noise.read_noise, "background": noise.background}
        return _added(series, {"noise": model, "dose": None, "seed": seed}, np.float64(1), seed=seed, **model)
    if noise == 0 and dose is None:
        return series
    parameters = {"noise": float(noise), "dose": None if dose is None else float(dose), "seed": seed}
    brightest = _brightest(slabs.lazy(series).data)
    gain = 0.0 if dose is None else 1 / dose
    model = {"gain": gain, "read_noise": float(noise), "background": 0.0}
    return _added(series, parameters, brightest, seed=seed, **model, spread=spread)


def add_noise_and_background(
    series: xr.DataArray, noise: Noise, *, ratio: da.Array, level: float, seed: int, spread: float = 1.0
) -> xr.DataArray:
    """A series of a phantom as if it were recorded with the noise, and on the background, of another series.

    Parameters
    ----------
    ratio
        No dims: what is multiplied with values of the other series to make them values of this one.
    level
        Intensity of the matter in the other series, from which the ratio was found; for the recipe.
    spread
        See `add_noises`.
    """
    model = {"gain": noise.gain, "read_noise": noise.read_noise, "background": noise.background}
    parameters = {"noise": model, "level": level, "seed": seed}
    return _added(series, parameters, ratio, seed=seed, **model, lifted=1.0, spread=spread)


def check(noise: float | Noise, dose: float | None, seed: int, *, who: str) -> None:
    """Raise a SchemaError unless noise of this kind can be added."""
    if not isinstance(noise, Noise) and not _is_number(noise, least=0):
        refuse(
            who, needs="a noise of at least 0, a share of the brightest ray", got=f"{noise!r}", remedy="`noise=0.02`"
        )
    if dose is not None and (not _is_number(dose, least=0) or dose == 0):
        refuse(who, needs="a dose above 0, counts at the brightest ray", got=f"{dose!r}", remedy="`dose=1000`")
    if isinstance(noise, Noise) and dose is not None:
        got = "a model, which has its counts, and a dose"
        refuse(who, needs="a model of the noise or a dose", got=got, remedy="leave out `dose`")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        refuse(who, needs="a seed that is a whole number of at least 0", got=f"{seed!r}", remedy="`seed=0`")


def _is_number(value: object, *, least: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return False
    return bool(np.isfinite(value)) and float(value) >= least


class _Whole:
    """A lazy array that one task of another graph computes, slab by slab."""

    def __init__(self, data: da.Array) -> None:
        self.data = data

    def largest(self) -> np.float64:
        """The largest value."""
        return np.float64(self.data.max().compute(scheduler="synchronous"))


def _brightest(data: da.Array) -> da.Array:
    """The largest value, no dims; lazy.

    In one graph with the array each slab would be kept in memory until the largest value of all is known.
    """
    whole = _Whole(finite.checked_data(data, who="add_noise", dims=schema.SERIES_DIMS))
    task = delayed(whole.largest, traverse=False)(dask_key_name=f"brightest-{tokenize(data.name)}")
    found: da.Array = da.from_delayed(task, (), np.float64)
    return found


def host_bytes(shape: chunking.SlabShape) -> int:
    """Bytes that adding noise takes beside what makes the slab (slices, angles, detector)."""
    slices, angles, detector = shape
    return 2 * slices * chunking.rows_bytes(angles, detector) + 64 * detector


def _added(
    series: xr.DataArray,
    parameters: Mapping[str, Any],
    unit: da.Array | np.float64,
    *,
    seed: int,
    gain: float,
    read_noise: float,
    background: float,
    lifted: float = 0.0,
    spread: float = 1.0,
) -> xr.DataArray:
    """The series with noise; gain, read-out noise and background are in `unit`, and `lifted` backgrounds are added."""
    of_slices: dict[str, float] = {} if spread == 1 else {"spread": float(spread)}
    data = slabs.lazy(series).data
    numbers = da.arange(series.sizes[schema.Z], chunks=(data.chunks[0],))[:, None, None]
    angles = np.asarray(series[schema.ANGLE].values, np.float64) + 0.0  # -0 becomes 0
    made = da.map_blocks(
        _slab,
        data,
        numbers,
        unit,
        chunks=data.chunks,
        dtype=np.float32,
        meta=np.empty((0,) * 3, np.float32),
        keys=angles.view(np.uint64),
        seed=int(seed),
        model=(gain, read_noise, background),
        lifted=lifted,
        **of_slices,
    )
    return slabs.label(
        made,
        dims=schema.SERIES_DIMS,
        coords=schema.series_coords(*(series[dim] for dim in schema.SERIES_DIMS)),
        attrs={key: value for key, value in series.attrs.items() if key != "recipe"},
        recipe=recipes.record("add_noise", {**parameters, **of_slices}, [series]),
        name="tilt_series",
    )


def _slab(
    rows: Float32,
    numbers: Integers,
    unit: Float64,
    *,
    keys: np.ndarray[tuple[int], np.dtype[np.uint64]],
    seed: int,
    model: tuple[float, float, float],
    lifted: float,
    spread: float = 1.0,
) -> Float32:
    """One slab with noise. A series whose brightest ray is zero has none."""
    finite.check_slab(rows, who="add_noise", dims=schema.SERIES_DIMS, first=int(numbers[0, 0, 0]))
    host, scale = device.to_host(rows), max(float(unit), 0.0)
    gain, read_noise, background = (part * scale for part in model)
    made = np.empty(host.shape, np.float32)
    for slice_number, (z, plane) in enumerate(zip(numbers[:, 0, 0].tolist(), host, strict=True)):
        factor = 1.0 if spread == 1 else spread ** np.random.default_rng([seed, z, _FACTOR]).uniform(-1, 1)
        for place, (key, row) in enumerate(zip(keys.tolist(), plane, strict=True)):
            made[slice_number, place] = counting.noisy(
                row + lifted * background,
                gain=gain * factor**2,
                read_noise=read_noise * factor,
                background=background,
                streams=([seed, key, z, _COUNTED], [seed, key, z, _READ]),
            )
    return made
