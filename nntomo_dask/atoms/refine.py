"""Positions, heights and widths of atoms fitted to the projections themselves."""

import warnings
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import xarray as xr

from nntomo_dask.arrays import recipes
from nntomo_dask.atoms import information, measured, table
from nntomo_dask.atoms.least_squares import Fit, Found, PerProjection, Weighing
from nntomo_dask.atoms.measured import NoiseOf
from nntomo_dask.atoms.parameters import Atoms, Parameters, Profile, Widths, grouped
from nntomo_dask.atoms.views import Pixels, Views
from nntomo_dask.settings import check_settings, setting, settings_of
from nntomo_dask.types import Bools, Float32

Free = Literal["positions", "heights"]
_WHO = "refine_atoms"
_FIRST = 3  # iterations with positions that stay, for heights and projections
_ROUNDS = 4  # in which atoms are put back
_BRIGHT = 4  # the largest values of a projection but three are its brightest
_Refined = tuple[Found, Parameters, information.Errors]


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """What a refinement may change: the keywords of `refine_atoms`, which says more about each."""

    fit: Free = setting("positions", help="positions: positions and heights of the atoms; heights: these alone.")
    widths: Widths = setting(
        "species", help="Which widths are fitted: one of all atoms, one of each species, one of each atom, or none."
    )
    profile: Profile = setting(
        "gaussian",
        help="What an atom is: a Gaussian; or tailed, with a wider one around it that is alike for all of a species.",
    )
    per_projection: PerProjection = setting(
        "scale",
        help="What is fitted for each projection: a background; a scale too; a shift too; or nothing.",
    )
    pixels: Pixels = setting(
        "points",
        help="What a pixel is: points, the value at its centre, as a scanned probe has it; means, over its area.",
    )
    expected_shift: float | None = setting(
        None, help="How far atoms are expected to be from their places. Default: their width.", unit="nm", above=0
    )
    largest_shift: float | None = setting(
        None, help="How far an atom may move before it is put back. Default: twice its width.", unit="nm", above=0
    )
    least_significance: float = setting(
        3.0, help="Height over its standard error below which an atom stays where it was.", least=0
    )
    max_iterations: int = setting(30, help="Most iterations.", least=1)


def refine_atoms(
    atoms: xr.Dataset,
    series: xr.DataArray,
    *,
    noise: NoiseOf = "auto",
    fit: Free = "positions",
    widths: Widths = "species",
    profile: Profile = "gaussian",
    per_projection: PerProjection = "scale",
    pixels: Pixels = "points",
    expected_shift: float | None = None,
    largest_shift: float | None = None,
    least_significance: float = 3.0,
    max_iterations: int = 30,
) -> xr.Dataset:
    """Fit atoms to the projections of a tilt series.

    Each atom is a Gaussian, and so is its projection. Positions, heights and widths of all atoms minimise the squares
    of the residuals of all projections together, weighted by the noise that the model's values have, by
    Levenberg–Marquardt with conjugate gradients. Atomic electron tomography refines atoms in this way [1]_.

    No atom moves without evidence. Its place is expected within `expected_shift` of the start along each direction;
    where projections say less than that, it hardly moves. An atom whose height is below `least_significance` standard
    errors, or which moves farther than `largest_shift`, is put back to where it was, and all others are fitted again.

    Computes at once; the series is read as a whole. The bytes of the result depend neither on chunks nor on the
    number of threads.

    Parameters
    ----------
    atoms
        A table, such as `find_atoms` makes. Heights and widths are starting values.
    series
        Dims (z, angle, detector), float32, in nm, slices at equal steps; angles in any order.
    noise
        The noise of the series: the weight of a pixel is one over its variance. "auto" estimates it, "none" weighs all
        alike, and errors follow from the residuals.
    fit
        "heights": positions stay.
    widths
        Standard deviations of the Gaussians: "fixed", "one" for all, one for each "species", or one for each "atom".
        Those that are shared begin at their median.
    profile
        "tailed": an atom is two Gaussians around one place. The share of the height and the width of the wider one are
        fitted too, alike for all atoms of a species. The columns ``tail`` and ``tail_width`` [nm] hold them.
    per_projection
        Besides, each projection has its own "background", "scale" and "shift", each with those before it. The mean
        scale stays 1, and a shift of all projections that is one of the specimen is left out.
    pixels
        "points": a pixel is the value at its centre, as a scanned probe measures it and as `project` computes it.
        "means": over its area, as in images of a camera or binned ones.
    expected_shift, largest_shift
        [nm]. None: the median width, and twice that.
    least_significance
        0 lets every atom move.
    max_iterations
        Where they are not enough, a warning says so.

    Returns
    -------
    The table, sorted anew, with new ``z``, ``y``, ``x``, ``height``, ``width`` and these columns: ``z_error``,
    ``y_error``, ``x_error`` [nm] and ``height_error``, standard errors from the Fisher information at the noise, with
    all that is fitted unknown (see `position_bound`); NaN for places that stayed; ``significance``, the height over
    its error; ``refined``, 1 where the projections decided the place and 0 where the atom stayed.
    ``attrs["projections"]`` has lists, in ascending order of ``angle``: ``misfit``, the weighted mean square of the
    residual in units of that of the noise; ``background``, ``scale``, ``shift_z`` and ``shift_detector`` [nm].

    Raises
    ------
    SchemaError
        `atoms` is no table, or one without heights and widths, or an atom lies out of view; `series` is no tilt series
        in nm, or a value is not finite; a setting is out of range.

    References
    ----------
    .. [1] Y. Yang et al., Deciphering chemical order/disorder and material properties at the single-atom level, Nature
       542 (2017) 75, doi:10.1038/nature21042.
    """
    settings = Refinement(
        fit=fit,
        widths=widths,
        profile=profile,
        per_projection=per_projection,
        pixels=pixels,
        expected_shift=expected_shift,
        largest_shift=largest_shift,
        least_significance=least_significance,
        max_iterations=max_iterations,
    )
    check_settings(settings, who=_WHO)
    measured.check(atoms, series, who=_WHO)
    measured.check_noise(noise, who=_WHO)
    views, data = measured.read(series, pixels, who=_WHO)
    bright = np.median(np.partition(data.reshape(views.count, -1), -_BRIGHT, axis=1)[:, -_BRIGHT])
    job = _Job(views, data, Weighing(measured.noise_of(noise, series), float(bright)), settings)
    with views.threads():
        found, parameters, errors = job.refined(atoms)
        misfits = job.fit(parameters).in_units_of_noise(found)
    names = [one.name for one in settings_of(settings)]
    said = {name: getattr(settings, name) for name in names}
    said |= {"noise": measured.said_of_noise(noise), "atoms": measured.digest(atoms)}
    significance = found.atoms.heights / errors.heights
    columns = measured.columns_of(found.atoms)
    columns |= dict(zip(table.ERRORS, errors.positions.T, strict=True))
    columns |= {
        table.HEIGHT_ERROR: errors.heights,
        table.SIGNIFICANCE: significance,
        table.REFINED: parameters.moves.astype(float),
    }
    made = table.like(atoms, recipes.record(_WHO, said, [atoms.attrs["recipe"], series]), columns)
    return made.assign_attrs({measured.OF_PROJECTIONS: measured.said_of(views, found.own, misfits)})


@dataclass(frozen=True)
class _Job:
    """What a refinement looks at, and how."""

    views: Views
    data: Float32
    weighing: Weighing
    settings: Refinement

    def fit(self, parameters: Parameters) -> Fit:
        """Where these are free."""
        return Fit(self.views, self.data, self.weighing, parameters, self.settings.per_projection)

    def refined(self, atoms: xr.Dataset) -> _Refined:
        """The fitted atoms, which of them moved, and their errors."""
        settings = self.settings
        species = np.asarray(atoms[table.SPECIES].values)
        start, groups, tailed = grouped(measured.atoms_of(atoms), species, settings.widths, settings.profile)
        width = float(np.median(start.widths))
        n, none = len(groups), np.full(len(groups), -1)
        parameters = Parameters(start, np.zeros(n, bool), none, none, settings.expected_shift or width)
        first = self.fit(parameters)
        found = first.run(start, measured.own_of(atoms, self.views), iterations=_FIRST)
        parameters = replace(parameters, groups=groups, tailed=tailed)
        if settings.fit == "heights":
            return self.fitted(parameters, found)
        # Heights are judged without their neighbours here, which is only a guide.
        moves = found.atoms.heights >= settings.least_significance * first.own_height_errors(found)
        parameters = replace(parameters, moves=moves)
        largest = settings.largest_shift or 2 * width
        for _ in range(_ROUNDS):
            found, parameters, errors = self.fitted(parameters, found)
            doubtful = parameters.moves & _doubtful(found.atoms, start, errors, largest, settings.least_significance)
            if not doubtful.any():
                return found, parameters, errors
            parameters = replace(parameters, moves=parameters.moves & ~doubtful)
            back = np.where(doubtful[:, None], start.positions, found.atoms.positions)
            found = found._replace(atoms=found.atoms._replace(positions=back))
        return self.fitted(parameters, found)

    def fitted(self, parameters: Parameters, before: Found) -> _Refined:
        """The least squares, and the errors at them."""
        problem, most = self.fit(parameters), self.settings.max_iterations
        found = problem.run(before.atoms, before.own, iterations=most)
        if not found.converged:
            warnings.warn(
                f"{_WHO}: atoms still move after {most} iterations; raise `max_iterations`, or look at the "
                "misfit of the projections",
                stacklevel=4,
            )
        free = problem.free_of_views
        errors = information.standard_errors(self.views, found.atoms, found.own, found.weights, parameters, free)
        return found, parameters, errors


def _doubtful(
    atoms: Atoms, start: Atoms, errors: information.Errors, largest_nm: float, least_significance: float
) -> Bools:
    moved = np.sqrt(((atoms.positions - start.positions) ** 2).sum(axis=1))
    low = atoms.heights < least_significance * errors.heights
    return np.asarray(low | (moved > largest_nm))
