"""Atoms and a tilt series that belong together: what has to hold of them, and what is read of the series."""

from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
import xarray as xr

from nntomo_dask.arrays import recipes, schema
from nntomo_dask.atoms import table, views as views_room
from nntomo_dask.atoms.parameters import Atoms
from nntomo_dask.atoms.views import OfViews, Pixels, Views
from nntomo_dask.errors import refuse
from nntomo_dask.projection import noise as noise_room
from nntomo_dask.projection.noise import Noise
from nntomo_dask.types import Float32, Float64

NoiseOf = Noise | Literal["auto", "none"]
OF_PROJECTIONS = "projections"  # the attribute of a refined table with what is a projection's own
_TAILS = (TAIL, TAIL_WIDTH) = (table.TAIL, table.TAIL_WIDTH)
_LEAST_VIEWS = 2  # that see an atom, for its position to be in view
_SAME_DEG = 1e-6
_IN_NM = {"Å": 0.1, "µm": 1e3}


class Projections(NamedTuple):
    """What is a projection's own, as `attrs["projections"]` holds it, in ascending order of angle."""

    angle: list[float]  # [degrees]
    misfit: list[float]  # weighted mean square of the residual, in units of that of the noise
    background: list[float]
    scale: list[float]
    shift_z: list[float]  # [nm]
    shift_detector: list[float]  # [nm]


def check(atoms: Any, series: Any, *, who: str) -> None:
    """Raise a SchemaError unless atoms with heights and widths lie in what a series in nm shows."""
    table.check(atoms, who=who, needs=("height", "width"))
    if atoms.sizes[table.ATOM] == 0:
        refuse(who, needs="one atom or more", got="a table without rows", remedy="find_atoms(volume)")
    narrow = np.flatnonzero(atoms["width"].values <= 0)
    if narrow.size:
        got = f"{atoms['width'].values[narrow[0]]:g} nm in row {narrow[0]}"
        refuse(who, needs="atoms with a width above zero", got=got, remedy="atoms.assign(width=…) in nm")
    if (TAIL in atoms.data_vars) != (TAIL_WIDTH in atoms.data_vars):
        refuse(who, needs=f"both columns {TAIL} and {TAIL_WIDTH}, or none", got="one", remedy="atoms.drop_vars(…)")
    for name in (one for one in _TAILS if one in atoms.data_vars):
        bad = np.flatnonzero(~np.isfinite(atoms[name].values) | ((atoms[name].values <= 0) & (name == TAIL_WIDTH)))
        if bad.size:
            got = f"{atoms[name].values[bad[0]]:g} in row {bad[0]}"
            refuse(
                who, needs=f"finite values of {name}", got=got, remedy=f'atoms.drop_vars(["{TAIL}", "{TAIL_WIDTH}"])'
            )
    check_geometry(series, who=who)
    _check_in_view(table.positions(atoms), Views.of(series, "points"), who)


def check_geometry(series: Any, *, who: str) -> None:
    """Raise a SchemaError unless it is a tilt series in nm with slices at equal steps."""
    schema.check_tilt_series(series, who=who)
    if series.attrs["units"] != "nm":
        nanometres = _IN_NM.get(series.attrs["units"])
        if nanometres is not None:
            pixel = f"{series.attrs['pixel_size'] * nanometres:.6g}"
            refuse(
                who,
                needs="a tilt series in nm",
                got=f"pixels of {series.attrs['pixel_size']:g} {series.attrs['units']}",
                remedy=f'tilt_series(data, angles_deg, pixel_size={pixel}, units="nm")',
                command=f"import the series with --pixel-size {pixel}, in nm",
            )
        refuse(
            who,
            needs="a tilt series whose pixels have a length",
            got=f"pixels of {series.attrs['pixel_size']:g} {series.attrs['units']}",
            remedy='tilt_series(data, angles_deg, pixel_size=…, units="nm")',
            command="import the series with --pixel-size NM",
        )
    schema.check_even_z(series, who=who)


def _check_in_view(positions: Float64, views: Views, who: str) -> None:
    z, t = (
        np.sort([first, first + step * (count - 1)]) + np.array([-0.5, 0.5]) * abs(step)
        for first, step, count in (
            (views.grid.first_z, views.grid.step_z, views.shape[0]),
            (views.grid.first_t, views.grid.step_t, views.shape[1]),
        )
    )
    across = positions[:, 1:] @ views.directions.T
    seen = ((across >= t[0]) & (across <= t[1])).sum(axis=1)
    out = np.flatnonzero((positions[:, 0] < z[0]) | (positions[:, 0] > z[1]) | (seen < min(_LEAST_VIEWS, views.count)))
    if out.size:
        place = ", ".join(f"{name} = {value:.4g}" for name, value in zip("zyx", positions[out[0]], strict=True))
        ends = f"{z[0]:.4g} to {z[1]:.4g} nm along z, {t[0]:.4g} to {t[1]:.4g} nm across it"
        refuse(
            who,
            needs=f"atoms in the field of view of two projections or more, {ends}",
            got=f"{out.size} outside, the first in row {out[0]} at {place} nm",
            remedy="the series of these atoms; positions in nm from the tilt axis; or leave these rows out",
        )


def check_noise(noise: Any, *, who: str, needs_noise: bool = False) -> None:
    """Raise a SchemaError unless it is a `Noise` or one of the words."""
    words = ("auto",) if needs_noise else ("auto", "none")
    if isinstance(noise, Noise):
        if needs_noise and noise.is_noiseless:
            refuse(who, needs="a noise above zero", got="none at any value", remedy="`noise=Noise(read_noise=…)`")
        return
    if not (isinstance(noise, str) and noise in words):
        listed = " or ".join(f'"{word}"' for word in words)
        refuse(who, needs=f"a Noise, or {listed}", got=f"{noise!r}", remedy="`noise=auto`")


def refuse_noiseless(who: str) -> NoReturn:
    """Where a bound is asked for and there is no noise."""
    refuse(
        who,
        needs="a series with noise, or a Noise",
        got="a series in which none is found",
        remedy="`noise=Noise(gain=…, read_noise=…)` in the unit of the series",
    )


def said_of_noise(noise: NoiseOf) -> Any:
    """For a recipe."""
    if isinstance(noise, Noise):
        return {"gain": noise.gain, "read_noise": noise.read_noise, "background": noise.background}
    return noise


def digest(atoms: xr.Dataset) -> str:
    """Of what a table says of its atoms: rows may have been left out since its recipe was written."""
    names = [*table.POSITION, "height", "width", table.SPECIES, *(one for one in _TAILS if one in atoms.data_vars)]
    columns = [atoms[name].values for name in names]
    found = [recipes.digest(np.asarray(column, np.str_ if column.dtype.kind in "UO" else None)) for column in columns]
    return recipes.token({"columns": found, "projections": atoms.attrs.get(OF_PROJECTIONS)})


def noise_of(noise: NoiseOf, series: xr.DataArray) -> Noise | None:
    """The model; None where there is none, or no noise was found."""
    found = noise_room.noise(series) if noise == "auto" else None if noise == "none" else noise
    return None if found is None or found.is_noiseless else found


def atoms_of(atoms: xr.Dataset) -> Atoms:
    """The atoms of a table, with their tails where it has them."""
    heights, widths = (np.array(atoms[name].values, np.float64) for name in ("height", "width"))
    made = Atoms.simple(table.positions(atoms), heights, widths)
    if TAIL not in atoms.data_vars:
        return made
    return made._replace(tails=np.array(atoms[TAIL].values), ratios=atoms[TAIL_WIDTH].values / widths)


def columns_of(atoms: Atoms) -> dict[str, Float64]:
    """Columns of a table."""
    made = dict(zip(table.POSITION, atoms.positions.T, strict=True)) | {"height": atoms.heights, "width": atoms.widths}
    return made | ({TAIL: atoms.tails, TAIL_WIDTH: atoms.ratios * atoms.widths} if atoms.has_tails else {})


def own_of(atoms: xr.Dataset, views: Views) -> OfViews:
    """What a refined table says of projections at these angles; ideal ones where it was not refined.

    A projection whose angle the table does not know has the mean scale, 1, and the median background.
    """
    own, said = OfViews.ideal(views.count), atoms.attrs.get(OF_PROJECTIONS)
    if said is None:
        return own
    known = Projections(**said)
    own.background[:] = np.median(known.background)
    angles = np.asarray(known.angle)
    for view, angle in enumerate(views.angles_deg):
        nearest = int(np.abs(angles - angle).argmin())
        if abs(angles[nearest] - angle) <= _SAME_DEG:
            own.background[view], own.scale[view] = known.background[nearest], known.scale[nearest]
            own.shift[view] = known.shift_z[nearest], known.shift_detector[nearest]
    return own


def said_of(views: Views, own: OfViews, misfits: Float64) -> dict[str, list[float]]:
    """`attrs["projections"]`."""
    columns = (views.angles_deg, misfits, own.background, own.scale, own.shift[:, 0], own.shift[:, 1])
    return Projections(*([float(value) for value in column] for column in columns))._asdict()


def read(series: xr.DataArray, pixels: Pixels, *, who: str) -> tuple[Views, Float32]:
    """The geometry and the projections, computed."""
    return Views.of(series, pixels), views_room.values(series, who=who)
