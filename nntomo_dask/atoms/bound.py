"""How well the projections of a series can determine where its atoms are."""

import math
from typing import get_args

import numpy as np
import xarray as xr

from nntomo_dask.arrays import recipes
from nntomo_dask.atoms import gradient_bound, information, measured, table
from nntomo_dask.atoms.evidence import Likelihood, is_phase
from nntomo_dask.atoms.gradients import gradients
from nntomo_dask.atoms.least_squares import FREE_OF_VIEWS, PerProjection, Weighing
from nntomo_dask.atoms.measured import NoiseOf
from nntomo_dask.atoms.parameters import Parameters, Widths, grouped
from nntomo_dask.atoms.refine import Refinement
from nntomo_dask.atoms.views import Pixels, Views
from nntomo_dask.errors import refuse
from nntomo_dask.projection.noise import Noise
from nntomo_dask.settings import check_settings
from nntomo_dask.types import Float32

_WHO = "position_bound"


def position_bound(
    atoms: xr.Dataset,
    series: xr.DataArray,
    *,
    noise: NoiseOf = "auto",
    widths: Widths = "species",
    per_projection: PerProjection = "scale",
    pixels: Pixels = "points",
    likelihood: Likelihood = "auto",
) -> xr.Dataset:
    """The Cramér–Rao bound of each atom's position: what no unbiased estimate from such projections can beat.

    The Fisher information of positions, heights and widths of all atoms, and of what is each projection's own, is
    ``Σ ∂m/∂pᵢ ∂m/∂pⱼ / σ²`` over all pixels, with the model m of `refine_atoms` and the variance σ² of the noise at
    its values. The bound is the root of the diagonal of its inverse [1]_, so heights and overlapping neighbours that
    are unknown too are in it. An atom alone with N counts in all views, of width w, has about w / √N along the axis.

    Computes at once. The values of the series play no part where a noise is given: a lazy series of zeros with the
    angles of an experiment serves to plan it.

    Parameters
    ----------
    atoms
        A table with heights and widths; where it was refined, with what it says of the projections.
    series
        Dims (z, angle, detector), float32, in nm: its coordinates are the geometry.
    noise
        The noise; "auto" estimates it from the series.
    widths, per_projection, pixels
        What is unknown, as for `refine_atoms`.
    likelihood
        "gradient": the noise is white in the gradient, as of iDPC; its read-out noise is the deviation of each
        component of the gradient, in units of the series per nm. Then heights and positions alone are unknown, and the
        width is the median of the table's, whatever `widths`, `per_projection` and `pixels` say. "auto": gradient where
        the quantity of the series is a phase, as for `sample_atoms`; "counts" otherwise.

    Returns
    -------
    The table with the columns ``z_error``, ``y_error``, ``x_error`` [nm], ``height_error`` and ``significance``, the
    height over that. ``attrs["rmsd"]`` is the root mean square distance from the true positions of an estimate that
    reaches the bound, [nm]. Where projections do not determine a coordinate, its bound is about the field of view.

    Raises
    ------
    SchemaError
        As for `refine_atoms`; or there is no noise, or no such likelihood.

    References
    ----------
    .. [1] A. van den Bos, Parameter Estimation for Scientists and Engineers, Wiley 2007, §4.
    """
    check_settings(Refinement(widths=widths, per_projection=per_projection, pixels=pixels), who=_WHO)
    measured.check(atoms, series, who=_WHO)
    measured.check_noise(noise, who=_WHO, needs_noise=True)
    if likelihood not in get_args(Likelihood):
        refuse(
            _WHO, needs="a likelihood of counts or gradient", got=f"{likelihood!r}", remedy='`likelihood="gradient"`'
        )
    if likelihood == "gradient" or (likelihood == "auto" and is_phase(series)):
        return _of_gradients(atoms, series, noise)
    model = measured.noise_of(noise, series)
    if model is None:
        measured.refuse_noiseless(_WHO)
    views = Views.of(series, pixels)
    exact, own = measured.atoms_of(atoms), measured.own_of(atoms, views)
    species = np.asarray(atoms[table.SPECIES].values)
    _, groups, tailed = grouped(exact, species, widths, "tailed" if exact.has_tails else "gaussian")
    everything = np.ones(len(groups), bool)
    parameters = Parameters(exact, everything, groups, tailed, float(np.median(exact.widths)))
    gaussians = exact.gaussians()

    def shown(view: int) -> Float32:
        return np.asarray(own.background[view] + own.scale[view] * views.shown(gaussians, own, view), np.float32)

    with views.threads():
        images = views.each(shown)
        weighing = Weighing(model, float(np.median([image.max() for image in images])))
        weights = [weighing.weights(image, 0.0) for image in images]
        errors = information.standard_errors(views, exact, own, weights, parameters, FREE_OF_VIEWS[per_projection])
    said = {
        "widths": widths,
        "per_projection": per_projection,
        "pixels": pixels,
        "noise": measured.said_of_noise(noise),
    }
    said["atoms"] = measured.digest(atoms)
    columns = dict(zip(table.ERRORS, errors.positions.T, strict=True))
    columns |= {table.HEIGHT_ERROR: errors.heights, table.SIGNIFICANCE: exact.heights / errors.heights}
    made = table.like(atoms, recipes.record(_WHO, said, [atoms.attrs["recipe"], series]), columns)
    kept = {key: value for key, value in atoms.attrs.items() if key == measured.OF_PROJECTIONS}
    return made.assign_attrs(kept | {"rmsd": float(np.sqrt((errors.positions**2).sum(axis=1).mean()))})


def _of_gradients(atoms: xr.Dataset, series: xr.DataArray, noise: NoiseOf) -> xr.Dataset:
    known = noise if isinstance(noise, Noise) else None
    data = gradients(series, noise=known, who=_WHO)
    exact = measured.atoms_of(atoms)
    width = float(np.median(exact.widths))
    shown = exact.heights * (math.sqrt(2 * math.pi) * width / data.pixel)
    field = max(abs(data.rays.step_z) * data.shape[2], abs(data.rays.step_t) * data.shape[1])
    errors = gradient_bound.standard_errors(
        exact.positions, shown, width, data.rays, precision=data.precision, field=field
    )
    heights = exact.heights * errors.heights / shown
    said = {"likelihood": "gradient", "noise": measured.said_of_noise(noise), "atoms": measured.digest(atoms)}
    columns = dict(zip(table.ERRORS, errors.positions.T, strict=True))
    columns |= {table.HEIGHT_ERROR: heights, table.SIGNIFICANCE: exact.heights / heights}
    made = table.like(atoms, recipes.record(_WHO, said, [atoms.attrs["recipe"], series]), columns)
    return made.assign_attrs(rmsd=float(np.sqrt((errors.positions**2).sum(axis=1).mean())))
