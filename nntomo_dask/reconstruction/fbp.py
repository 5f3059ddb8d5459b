"""Filtered backprojection."""

import functools

import numpy as np
import numpy.typing as npt
import xarray as xr

from nntomo_dask.arrays import geometry, schema, slabs
from nntomo_dask.compute import device, streams
from nntomo_dask.errors import refuse
from nntomo_dask.kernels import astra as astra_engine
from nntomo_dask.kernels import backproject as kernel
from nntomo_dask.kernels import filters
from nntomo_dask.projection import project as projection

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def fbp(
    series: xr.DataArray, *, window: filters.Window = "ram-lak", engine: projection.Engine = "native"
) -> xr.DataArray:
    """Reconstruct a tilt series by filtered backprojection.

    Lazy: nothing is computed until the result is saved. Chunks along z are kept. A projection counts with the width of
    its angular cell, so that unequal steps do no harm; a missing wedge is left missing.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; angle and detector in one chunk each. Values are line integrals, [u · px].
    window
        Apodisation of the ramp; one of `filters.WINDOWS`.
    engine
        "native": our kernels. "astra": the ASTRA toolbox, whose backprojector interpolates in the image instead.

    Returns
    -------
    Dims (z, y, x), float32, in [u]; y and x take the detector's coordinate.

    Raises
    ------
    SchemaError
        `series` is no tilt series, or `window` is none that we have.

    References
    ----------
    .. [1] Kak & Slaney, Principles of Computerized Tomographic Imaging, SIAM, 2001, §3.3.
    """
    schema.check_tilt_series(series, who="fbp")
    projection.check_engine("fbp", engine)
    if window not in filters.WINDOWS:
        refuse("fbp", needs=f"a window of {', '.join(filters.WINDOWS)}", got=f"{window!r}", remedy="choose one")
    return slabs.map_slabs(
        fbp_slab,
        series,
        dims=schema.VOLUME_DIMS,
        coords=projection.slice_coords(series),
        recipe=slabs.record("fbp", {"window": window, "engine": engine}, [series]),
        name="volume",
        angles_deg=series[schema.ANGLE].values,
        window=window,
        engine=engine,
    )


def fbp_slab(slab: Float32, *, angles_deg: Float64, window: filters.Window, engine: projection.Engine) -> Float32:
    """`fbp` of a plain (slice, angle, detector)."""
    if engine == "astra":
        slab = device.on_host(slab, who='fbp with engine="astra"')
        shares = geometry.angular_cells(angles_deg).astype(np.float32)
        weighted = slab * (shares * np.float32(angles_deg.size))[None, :, None]  # ASTRA itself multiplies by π / count
        return astra_engine.fbp(weighted, angles_deg, window=window)
    volume: Float32 = streams.streamed(
        functools.partial(_native, angles_deg=angles_deg, window=window),
        slab,
        slice_bytes=streams.bytes_of_slice("fbp", angles=angles_deg.size, detector=slab.shape[-1]),
        who="fbp",
    )
    return volume


def _native(slab: Float32, *, angles_deg: Float64, window: filters.Window) -> Float32:
    shares = geometry.angular_cells(angles_deg).astype(np.float32)
    weighted = slab * device.namespace(slab).asarray(np.float32(np.pi) * shares)[None, :, None]
    filtered = filters.filter_rows(weighted, filters.ramp(slab.shape[-1], window=window)[None, None])[:, 0]
    return kernel.backproject(filtered, np.deg2rad(angles_deg))
