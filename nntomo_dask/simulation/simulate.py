"""From a crystal to a tilt series. Each tilt angle is one task."""

import os
from dataclasses import asdict
from typing import Literal, get_args, overload

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from ase import Atoms

from nntomo_dask import extras
from nntomo_dask.arrays import recipes, schema, slabs
from nntomo_dask.compute import blas, device
from nntomo_dask.errors import refuse
from nntomo_dask.simulation import degrade, optics
from nntomo_dask.simulation.optics import Imaging, Mode, Modes, Plan
from nntomo_dask.simulation.specimen import Specimen, specimen
from nntomo_dask.types import Float32, Float64

_VACUUM = 0.5  # fraction of the largest distance from the specimen; pixels beyond it count as vacuum at every angle


@overload
def simulate(
    structure: Specimen | str | os.PathLike[str] | Atoms,
    angles_deg: npt.ArrayLike,
    *,
    mode: Literal["both"] = "both",
    imaging: Imaging | None = None,
) -> xr.Dataset: ...
@overload
def simulate(
    structure: Specimen | str | os.PathLike[str] | Atoms,
    angles_deg: npt.ArrayLike,
    *,
    mode: Mode,
    imaging: Imaging | None = None,
) -> xr.DataArray: ...
def simulate(
    structure: Specimen | str | os.PathLike[str] | Atoms,
    angles_deg: npt.ArrayLike,
    *,
    mode: Modes = "both",
    imaging: Imaging | None = None,
) -> xr.Dataset | xr.DataArray:
    """Simulate the STEM tilt series of a crystal.

    Lazy: nothing is computed until the series is saved. Each projection is one task and one chunk; save the series and
    `open` it to get chunks of slices. Both modes come from the same calculation.

    Parameters
    ----------
    structure
        A specimen, or a name, a file or ASE atoms, of which `specimen` makes one unit cell.
    angles_deg
        (angle,), [degrees].
    mode
        "haadf", "idpc" or "both".
    imaging
        Settings of the microscope, the grid and the noise; by default 300 kV, 15 mrad and no noise.

    Returns
    -------
    A tilt series, dims (z, angle, detector), float32, coordinates in nm; for "both" a Dataset of two series, haadf and
    idpc. HAADF is the fraction of the beam that hits the detector. iDPC is the phase in radians; its mean over the
    vacuum around the specimen is 0, over the same pixels at every angle. (For "idpc" alone a coarser grid is enough, so
    its values differ slightly from those of "both".)

    Raises
    ------
    SchemaError
        The structure, an angle or a setting is refused, or settings do not fit each other; see `Imaging`.

    References
    ----------
    See `Imaging`, and docs/simulation.md for the reasons of the choices.
    """
    settings = imaging or Imaging()
    modes: tuple[Mode, ...] = get_args(Mode) if mode == "both" else (mode,)
    if mode not in get_args(Modes):
        refuse("simulate", needs="mode haadf, idpc or both", got=f"{mode!r}", remedy='`mode="both"`')
    if settings.idpc == "py4dstem" and "idpc" in modes:
        extras.check("py4DSTEM", who='simulate with idpc="py4dstem"')
    held = structure if isinstance(structure, Specimen) else specimen(structure)
    angles = schema.check_angles(angles_deg, who="simulate")
    plan = optics.plan(held, settings, modes)
    parameters = asdict(settings) | {"field_of_view_nm": plan.field_of_view_nm, "interpolation": plan.interpolation}
    parameters |= {"grid": plan.grid, "angles_deg": angles}
    made_by = recipes.record("simulate", parameters | {"mode": mode}, [held.recipe])
    projections = da.map_blocks(
        _projections,
        da.arange(len(angles), chunks=1),
        new_axis=[1, 2, 3],
        chunks=((1,) * len(angles), (len(modes),), (settings.pixels,), (settings.pixels,)),
        dtype=np.float32,
        meta=np.empty((0,) * 4, np.float32),
        name=f"simulate-{recipes.token(made_by)}",
        held=held,
        angles=angles,
        plan=plan,
        imaging=settings,
        modes=modes,
    )
    positions = schema.centred(settings.pixels, plan.pixel_nm)
    series = {
        name: slabs.label(
            projections[:, index].transpose(1, 0, 2),
            dims=schema.SERIES_DIMS,
            coords=schema.series_coords(positions, angles, positions),
            attrs={
                "units": "nm",
                "pixel_size": plan.pixel_nm,
                "quantity": optics.QUANTITIES[name],
                "long_name": optics.LONG_NAMES[name],
            },
            recipe=recipes.record("simulate", parameters | {"mode": name}, [held.recipe]),
            name=name,
        )
        for index, name in enumerate(modes)
    }
    return xr.Dataset(series) if mode == "both" else series[mode]


def _projections(
    index: npt.NDArray[np.int64],
    *,
    held: Specimen,
    angles: Float64,
    plan: Plan,
    imaging: Imaging,
    modes: tuple[Mode, ...],
) -> Float32:
    """The block (1, mode, z, detector) of one tilt angle."""
    with blas.one_thread():
        return projection(held, float(angles[index[0]]), plan, imaging, modes, n_angles=len(angles))[None]


def projection(
    held: Specimen, angle_deg: float, plan: Plan, imaging: Imaging, modes: tuple[Mode, ...], *, n_angles: int = 1
) -> Float32:
    """The images (mode, z, detector) of one tilt angle.

    Parameters
    ----------
    n_angles
        Number of projections that share the dose of a series.
    """
    from nntomo_dask.simulation import idpc, multislice

    # It depends on the seed and the angle alone, so a projection is the same in any series and on any worker.
    sequence = np.random.SeedSequence([imaging.seed, round((angle_deg + 360) * 1000)])
    vibrations, drift, lines, dark, bright = (np.random.default_rng(child) for child in sequence.spawn(5))
    pixel = plan.pixel_nm
    signals = multislice.detect(
        held.numbers,
        held.tilted(angle_deg),
        plan,
        imaging,
        dark_field="haadf" in modes,
        diffraction="idpc" in modes,
        offset_nm=imaging.drift_nm * drift.standard_normal(2),
        rng=vibrations,
        device="gpu" if device.computes_on_gpu() else "cpu",
    )
    shifts = imaging.jitter_nm / pixel * lines.standard_normal(imaging.pixels)
    electrons = None if imaging.dose is None else imaging.dose * (10 * pixel) ** 2
    if electrons is not None and imaging.dose_per == "series":
        electrons /= n_angles

    def recorded(signal: Float32, rng: np.random.Generator) -> Float32:
        spread = degrade.blurred(signal, imaging.source_size_nm / degrade.FWHM / pixel)
        return degrade.counted(degrade.jittered(spread, shifts), electrons, rng)

    images = []
    for mode in modes:
        if mode == "haadf":
            assert signals.dark_field is not None
            image = recorded(signals.dark_field, dark)
        else:
            assert signals.patterns is not None
            image = idpc.phase(recorded(signals.patterns, bright), signals.spatial_step, pixel, imaging)
            image -= image[vacuum(held, plan, imaging)].mean()
        images.append(degrade.blurred(image, imaging.blur_nm / pixel).T)
    return np.stack(images).astype(np.float32)


def vacuum(held: Specimen, plan: Plan, imaging: Imaging) -> npt.NDArray[np.bool_]:
    """Pixels (x, z) that show vacuum at every tilt angle."""
    position = np.abs(schema.centred(imaging.pixels, plan.pixel_nm))
    beside = np.maximum(position - held.radius_nm, 0)[:, None]
    beyond = np.maximum(position - held.half_height_nm, 0)[None]
    distance = np.hypot(beside, beyond)
    return np.asarray(distance >= _VACUUM * distance.max())
