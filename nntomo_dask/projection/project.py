"""Projection of a volume to a tilt series, its transpose, and a change of the detector size."""

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import finite, grid, recipes, schema, slabs
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.compute import chunking, streams
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import layout
from nntomo_dask.projection import engines
from nntomo_dask.projection.projector import Projector
from nntomo_dask.types import Float32, Float64

Engine = engines.EngineName


def project(volume: xr.DataArray, angles_deg: npt.ArrayLike, *, engine: Engine = "native") -> xr.DataArray:
    """Project a volume to a tilt series.

    The line integrals are computed by Joseph's method, perpendicular to the tilt axis z, which lies where the
    coordinates y and x are zero. The detector takes the coordinate of x. Lengths are counted in pixels of the volume.
    Lazy: nothing is computed until the series is saved. Chunks along z are kept.

    Parameters
    ----------
    volume
        Dims (z, y, x), float32, square slices; y and x in one chunk each.
    angles_deg
        (angle,), [degrees]; `tilt_angles` makes the usual ranges.
    engine
        "native": the kernels of this package. "astra": the ASTRA toolbox, with its CUDA 3D projector if it finds a GPU
        and otherwise its 2D linear projector, slice by slice. Inside the field of view the results agree to rounding.

    Returns
    -------
    Dims (z, angle, detector), float32, line integrals, [value · px].

    Raises
    ------
    SchemaError
        `volume` is not a volume, or `schema.check_angles` refuses the angles. When it is computed: a value is NaN or
        infinite.

    References
    ----------
    .. [1] P. M. Joseph, IEEE Trans. Med. Imaging 1 (1982) 192, doi:10.1109/TMI.1982.4307572.
    """
    schema.check_volume(volume, who="project")
    angles = schema.check_angles(angles_deg, who="project")
    engines.engine(engine, who="project")
    return slabs.map_slabs(
        forward_slab,
        volume,
        dims=schema.SERIES_DIMS,
        coords=schema.series_coords(volume[schema.Z], angles, volume[schema.X]),
        recipe=recipes.record("project", {"angles_deg": angles, "engine": engine}, [volume]),
        name="tilt_series",
        pixel_size=schema.pixel_size_of(volume),
        # Where y and x have opposite directions, a positive tilt turns the slice, counted in pixels, the other way.
        angles_deg=angles * _orientation(volume),
        engine=engine,
        axis=schema.axis_of(volume),
    )


def backproject(series: xr.DataArray, *, engine: Engine = "native") -> xr.DataArray:
    """Apply the transpose of `project` to a tilt series: ``⟨project(v), s⟩ = ⟨v, backproject(s)⟩``.

    It is not filtered and not weighted, so the result is not a reconstruction; iterative methods use it together with
    `project`. Lazy: nothing is computed until the result is saved.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; angle and detector in one chunk each.
    engine
        See `project`.

    Returns
    -------
    Dims (z, y, x), float32.

    Raises
    ------
    SchemaError
        `series` is not a tilt series.
    """
    schema.check_tilt_series(series, who="backproject")
    engines.engine(engine, who="backproject")
    return slabs.map_slabs(
        back_slab,
        series,
        dims=schema.VOLUME_DIMS,
        coords=schema.slice_coords(series),
        recipe=recipes.record("backproject", {"engine": engine}, [series]),
        name="volume",
        pixel_size=schema.pixel_size_of(series),
        angles_deg=series[schema.ANGLE].values,
        engine=engine,
        axis=schema.axis_of(series),
    )


def _orientation(volume: xr.DataArray) -> int:
    """1 where y and x ascend or descend alike, -1 where one of them descends."""
    y, x = (volume[dim].values for dim in (schema.Y, schema.X))
    return 1 if x.size < 2 or (y[-1] > y[0]) == (x[-1] > x[0]) else -1


def forward_slab(slab: Float32, *, angles_deg: Float64, engine: Engine, axis: Axis | None = None) -> Float32:
    """Project (slice, y, x) to (slice, angle, detector)."""
    pair = Projector(angles_deg, slab.shape[-1], engine, axis)
    need = device_bytes_per_slice((len(slab), angles_deg.size, slab.shape[-1]))
    return pair.computed(pair.forward, slab, slice_bytes=need, who="project")


def back_slab(slab: Float32, *, angles_deg: Float64, engine: Engine, axis: Axis | None = None) -> Float32:
    """Backproject (slice, angle, detector) to (slice, y, x)."""
    pair = Projector(angles_deg, slab.shape[-1], engine, axis)
    need = device_bytes_per_slice((len(slab), angles_deg.size, slab.shape[-1]))
    return pair.computed(pair.back, slab, slice_bytes=need, who="backproject")


def host_bytes(shape: chunking.SlabShape) -> int:
    """Bytes of a slab (slices, angles, detector) at the peak of `project`."""
    slices, angles, detector = shape
    image, rows = chunking.image_bytes(detector), chunking.rows_bytes(angles, detector)
    lanes = layout.lane_width(slices, chunking.SLAB_SLICES)
    padded = layout.padded_image_bytes(detector, lanes)
    return slices * (chunking.READ * image + chunking.WRITTEN * rows) + padded + lanes * 2 * rows


def device_bytes_per_slice(shape: chunking.SlabShape) -> int:
    """Bytes of GPU memory that one slice takes at the peak of `project` or `backproject`, its copies included."""
    _, angles, detector = shape
    return (
        streams.copied_bytes(angles, detector)
        + 2 * streams.bordered_image_bytes(detector)
        + 2 * streams.padded_rows_bytes(angles, detector)
    )


def resize(series: xr.DataArray, detector_count: int) -> xr.DataArray:
    """Resample a tilt series to a detector with another number of pixels.

    The values are interpolated linearly. If the new pixels are larger, the interpolation kernel is a triangle as wide
    as the new pixel, so that every old pixel contributes. The tilt axis z is resized by about the same factor, to a
    whole number of slices. The field of view stays, and so does the place of the tilt axis in it; lengths in the line
    integrals are counted in new pixels. Lazy: nothing is computed until the result is saved.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32.
    detector_count
        Number of detector pixels of the result, at least 2.

    Returns
    -------
    Dims (z, angle, detector), float32; its coordinates and its `pixel_size` are those of the new pixels.

    Raises
    ------
    SchemaError
        `series` is not a tilt series, its slices are not at equal steps, or `detector_count` is below 2. When it is
        computed: a value is NaN or infinite.
    """
    schema.check_tilt_series(series, who="resize")
    schema.check_even_z(series, who="resize")
    if detector_count < 2:
        refuse("resize", needs="at least 2 detector pixels", got=f"{detector_count}", remedy="raise `detector_count`")
    n_z, n_angles, n_detectors = series.shape
    factor = n_detectors / detector_count
    new_z = max(round(n_z / factor), 1)
    shape = (new_z, n_angles, detector_count)
    # Interpolation along z needs all slices, so the chunks are single projections here, and slabs again afterwards.
    finite_data = finite.checked_data(slabs.lazy(series).data, who="resize", dims=schema.SERIES_DIMS)
    by_angle = finite_data.rechunk((-1, 1, -1))
    resized = by_angle.map_blocks(
        _resize_block,
        chunks=((new_z,), by_angle.chunks[1], (detector_count,)),
        dtype=np.float32,
        meta=np.empty((0,) * 3, np.float32),
        along_z=_triangle_weights(n_z, new_z),
        along_detector=_triangle_weights(n_detectors, detector_count)
        / np.float32(factor / schema.lengths_in_pixels(series)),
    ).rechunk((chunking.slab_slices(shape), -1, -1))
    return slabs.label(
        resized,
        dims=schema.SERIES_DIMS,
        coords=schema.series_coords(
            _resized_positions(series, schema.Z, new_z),
            series[schema.ANGLE],
            _resized_positions(series, schema.DETECTOR, detector_count),
        ),
        attrs={**series.attrs, "pixel_size": schema.pixel_size_of(series) * factor},
        recipe=recipes.record("resize", {"detector_count": detector_count}, [series]),
        name="tilt_series",
    )


def _resized_positions(series: xr.DataArray, dim: str, count: int) -> Float64:
    """Positions of `count` pixels that fill the field of view of the old ones along a dim."""
    old, pixel_size = series[dim].values, float(series.attrs["pixel_size"])
    factor = old.size / count
    # Where the tilt axis lies, in new pixels.
    place = grid.snapped((grid.zero(old, pixel_size) + 0.5) / factor - 0.5)
    return np.asarray((np.arange(count) - place) * (grid.spacing(old, pixel_size) * factor), np.float64)


def _resize_block(block: Float32, *, along_z: Float32, along_detector: Float32) -> Float32:
    resized = np.einsum("kz,zad,nd->kan", along_z, block, along_detector, optimize=True)
    return np.asarray(resized, np.float32)


def _triangle_weights(old: int, new: int) -> Float32:
    """(new, old): weights of linear interpolation; the triangle is as wide as the new pixel if that is larger."""
    factor = old / new
    centres = (np.arange(new) + 0.5) * factor - 0.5
    distance = np.abs(centres[:, None] - np.arange(old))
    weights = np.clip(1 - distance / max(factor, 1.0), 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
