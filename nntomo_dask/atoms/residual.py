"""What atoms leave of the projections: the misfit of each, and how high each atom would be by itself."""

from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import xarray as xr

from nntomo_dask.arrays import schema
from nntomo_dask.atoms import measured, table
from nntomo_dask.atoms.counts import Counted
from nntomo_dask.atoms.project import project_atoms
from nntomo_dask.types import Float64

_REACH = 4.0  # standard deviations of a Gaussian that are looked at
_LEAST = 0.01  # of the mean counts: those that are expected anywhere, so that a single one does not outweigh an atom


@dataclass(frozen=True)
class Residual:
    """What is left.

    Attributes
    ----------
    angles_deg
        (view,), ascending.
    misfit
        (view,): mean square of measured less expected counts, both smoothed by the Gaussian of an atom, over that of
        the counting noise alone. 1 where nothing but noise is left.
    deviation
        (view,): standard deviation of the misfit by that noise.
    heights, height_errors
        (atom,): the height that an atom would have if it were fitted while all others stay, over the mean height of its
        element, and the standard error of that.
    counts
        (atom,): counts of an atom in all projections.
    view
        The projection that fits worst, of which there are images.
    measured, expected, significance
        (detector, z): smoothed counts of that projection, and their difference in standard deviations.
    """

    angles_deg: Float64
    misfit: Float64
    deviation: Float64
    heights: Float64
    height_errors: Float64
    counts: Float64
    view: int
    measured: Float64
    expected: Float64
    significance: Float64


def of(atoms: xr.Dataset, series: xr.DataArray, data: Counted) -> Residual | None:
    """What atoms leave of a series, whose counts are `data`; None without atoms.

    The background of a projection is that of a refinement, or else the one that explains the counts best.
    """
    if atoms.sizes[table.ATOM] == 0:
        return None
    shown = project_atoms(atoms, like=series).sortby(schema.ANGLE).compute(scheduler="synchronous")
    images = np.ascontiguousarray(shown.values.transpose(1, 2, 0), np.float64)
    least = _LEAST * float(data.counts.mean())
    if measured.OF_PROJECTIONS in atoms.attrs:
        model = np.maximum((images - data.background) / data.gain + data.read, least)
    else:
        model = images / data.gain + data.read
        model = np.maximum(model + _level(data.counts, model), least)
    width = float(np.mean(atoms["width"].values))
    steps = data.rays.step_t, data.rays.step_z
    kernels = [_kernel(width / abs(step)) for step in steps]
    misfit, deviation, worst = _misfits(data.counts, model, kernels)
    smooth, noise = (_by_axis(one, kernels) for one in (data.counts[worst], model[worst]))
    variance = _by_axis(model[worst], [kernel**2 for kernel in kernels])
    heights, errors, counts = _alone(atoms, data, model)
    return Residual(
        angles_deg=np.sort(np.asarray(series[schema.ANGLE].values, np.float64)),
        misfit=misfit,
        deviation=deviation,
        heights=heights,
        height_errors=errors,
        counts=counts,
        view=worst,
        measured=smooth,
        expected=noise,
        significance=(smooth - noise) / np.sqrt(variance),
    )


def _level(counts: Float64, model: Float64) -> float:
    """The constant that explains counts best beside a model, by their likelihood; 0 where none is needed."""

    def slope(level: float) -> float:
        return float((counts / np.maximum(model + level, 1e-9)).sum()) - counts.size

    highest = float(counts.mean())
    if highest <= 0 or slope(0.0) <= 0:
        return 0.0
    from scipy.optimize import brentq  # not for the sake of a help text

    return float(brentq(slope, 0.0, highest, xtol=1e-6 * highest, rtol=1e-6))


def _kernel(sigma: float) -> Float64:
    """Weights of a Gaussian, which add up to 1."""
    reach = max(int(np.ceil(_REACH * sigma)), 1)
    weights = np.exp(-((np.arange(-reach, reach + 1) / sigma) ** 2) / 2)
    return np.asarray(weights / weights.sum())


def _by_axis(image: Float64, kernels: list[Float64]) -> Float64:
    """An image (detector, z), with zeros around it, smoothed along each axis."""
    for axis, kernel in enumerate(kernels):
        image = scipy.ndimage.convolve1d(image, kernel, axis=axis, mode="constant")
    return image


def _misfits(counts: Float64, model: Float64, kernels: list[Float64]) -> tuple[Float64, Float64, int]:
    """The misfit of each view, its standard deviation, and the view that fits worst.

    With smoothed residuals G r the sum of squares is rᵀ K r, K = GᵀG. Poisson variables have a variance of m and a
    fourth cumulant of m, so that the sum has a mean of Σ K_ii m_i and a variance of 2 Σ K_ij² m_i m_j + Σ K_ii² m_i.
    """
    overlaps = [np.convolve(kernel, kernel) for kernel in kernels]
    here = float(np.prod([overlap.max() for overlap in overlaps]))
    misfit, deviation = np.zeros(len(counts)), np.zeros(len(counts))
    for view, (found, expected) in enumerate(zip(counts, model, strict=True)):
        left = _by_axis(found - expected, kernels)
        noise = float(_by_axis(expected, [kernel**2 for kernel in kernels]).sum())
        squares = float((expected * _by_axis(expected, [overlap**2 for overlap in overlaps])).sum())
        misfit[view] = float((left**2).sum()) / noise
        deviation[view] = np.sqrt(2 * squares + here**2 * float(expected.sum())) / noise
    return misfit, deviation, int(np.argmax((misfit - 1) / deviation))


def _alone(atoms: xr.Dataset, data: Counted, model: Float64) -> tuple[Float64, Float64, Float64]:
    """Heights of atoms by themselves, by a step of least squares weighted by the variance; errors; and counts."""
    rays, (_, detectors, slices) = data.rays, data.shape
    z = rays.first_z + rays.step_z * np.arange(slices)
    t = rays.first_t + rays.step_t * np.arange(detectors)
    names = np.asarray(atoms[table.SPECIES].values)
    own, widths = np.asarray(atoms["height"].values, np.float64), np.asarray(atoms["width"].values, np.float64)
    common = np.ones(len(own))
    for name in set(names.tolist()):
        common[names == name] = own[names == name].mean()
    found, errors, counts = np.ones(len(own)), np.full(len(own), np.nan), np.zeros(len(own))
    for atom, place in enumerate(table.positions(atoms)):
        width = widths[atom]
        near = np.flatnonzero(np.abs(z - place[0]) <= _REACH * width)
        across = t - (place[2] * rays.cosines + place[1] * rays.sines)[:, None]
        image = np.exp(-((across / width) ** 2) / 2)[:, :, None] * np.exp(-(((z[near] - place[0]) / width) ** 2) / 2)
        image *= common[atom] * np.sqrt(2 * np.pi) * width / (data.gain * data.pixel)
        expected = model[:, :, near]
        information = float((image**2 / expected).sum())
        share = own[atom] / common[atom]
        counts[atom] = share * float(image.sum())
        if information > 0:
            left = (data.counts[:, :, near] - expected) / expected
            found[atom] = share + float((image * left).sum()) / information
            errors[atom] = information**-0.5
    return found, errors, counts
