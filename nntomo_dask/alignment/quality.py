"""How good an alignment is, by figures that need nothing but the raw series and its table.

A few neighbouring slices are looked at, where most of the matter is, before and after. What an alignment promises is
checked by what physics demands: along the tilt axis, all projections show one profile of mass; across it, the centre of
mass follows ``a cos θ + b sin θ``; and each projection is what the others predict.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import compute

from nntomo_dask.alignment import coarse
from nntomo_dask.alignment.apply import Angles, apply_alignment, rows_for
from nntomo_dask.alignment.table import Alignment, words
from nntomo_dask.arrays import finite, grid, schema, slabs
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.projection.project import forward_slab
from nntomo_dask.reconstruction import held_out
from nntomo_dask.reconstruction.fbp import Fbp
from nntomo_dask.reconstruction.sirt import Sirt
from nntomo_dask.types import Float32, Float64, Integers

_PIXELS = 160  # of a binned slice, about: residuals of larger ones take long
_SLICES = 4  # that residuals are taken of
_RUN = 32  # raw slices that are read at most for the centre of mass
_FOLDS = 12
_ITERATIONS = 40  # of SIRT: fewer leave more than what is misaligned, and of further ones a page takes long
_MATTER = 10  # percentile of a projection that counts as its background


class Look(NamedTuple):
    """What a series looks like, before or after.

    Attributes
    ----------
    sinogram
        (angle, detector), of the slice that is shown.
    centre_px
        (angle,): centre of mass across the axis, from the middle of the image, [px].
    centre_misfit_px
        Root mean square of its distance from the best ``a cos θ + b sin θ + c``, [px].
    profiles
        (angle, z): mass of each slice.
    residual
        (angle,): how far the projections of a reconstruction from all of them are from what was measured, relative.
    left_out_residual
        (fold,): the same for projections that the reconstruction was made without.
    slice_
        (y, x), reconstructed by filtered backprojection.
    """

    sinogram: Float32
    centre_px: Float64
    centre_misfit_px: float
    profiles: Float64
    residual: Float64
    left_out_residual: Float64
    slice_: Float32


@dataclass(frozen=True)
class Quality:
    """What `quality` found.

    Attributes
    ----------
    alignment
        The rows for the series, in its pixels.
    angles_deg
        (angle,), of the projections that are kept, as they were applied.
    left_out_deg
        (fold,), of those that were left out in turn.
    z
        Number of the slice that is shown.
    bins
        Pixels that were joined along z and the detector for the residuals.
    before, after
        What the series looked like, and what it looks like.
    raw_sinogram
        (angle, detector), of all raw projections, also those that are left out.
    """

    alignment: Alignment
    angles_deg: Float64
    left_out_deg: Float64
    z: int
    bins: int
    before: Look
    after: Look
    raw_sinogram: Float32

    @property
    def suspects(self) -> Integers:
        """Places, among the folds, whose prediction is off by more than thrice the median of all, and worse by 0.05."""
        residual = self.after.left_out_residual
        usual = float(np.median(residual))
        return np.flatnonzero((residual > 3 * usual) & (residual > usual + 0.05))

    def verdict(self) -> str:
        """Whether the alignment helped, in one sentence: what no volume explains, before and after."""
        first, last = (100 * float(np.mean(look.residual)) for look in (self.before, self.after))
        left, right = (float(np.mean(look.left_out_residual)) for look in (self.before, self.after))
        if last < first and right < left:
            judged = "The alignment helped"
        elif last > first and right > left:
            judged = "The alignment did harm"
        else:
            judged = "Whether the alignment helped is not clear"
        return (
            f"{judged}: a volume that is reconstructed leaves {last:.3g} % of the aligned series unexplained; of the "
            f"raw one, {first:.3g} %"
        )

    def findings(self) -> list[tuple[str, bool]]:
        """Sentences about the figures, each with whether it is good."""
        before, after = self.before, self.after
        first, last = float(np.mean(before.residual)), float(np.mean(after.residual))
        left, right = float(np.mean(before.left_out_residual)), float(np.mean(after.left_out_residual))
        wander = [_wander(look.profiles) for look in (before, after)]
        found = [
            (
                f"A reconstruction from all projections meets them to {100 * last:.3g} %; before, {100 * first:.3g} %",
                last <= first,
            ),
            (
                f"Projections that were left out are predicted to {100 * right:.3g} %; before, {100 * left:.3g} %",
                right <= left,
            ),
            (
                f"The centre of mass is off its curve by {after.centre_misfit_px:.3g} px (RMS); before, "
                f"{before.centre_misfit_px:.3g} px. It counts where all of the specimen is in view at all angles",
                after.centre_misfit_px <= max(before.centre_misfit_px, 0.5),
            ),
            (
                f"Profiles of mass along the tilt axis differ from their mean by {100 * wander[1]:.3g} %; before, "
                f"{100 * wander[0]:.3g} %",
                wander[1] <= wander[0] + 0.01,
            ),
        ]
        if self.suspects.size:
            angles = words(self.left_out_deg[self.suspects])
            found.append((f"Much worse predicted than the others: {angles}", False))
        return found

    def to_try(self, raw: str, output: str) -> list[tuple[str, str]]:
        """What to do if it looks bad: when, and the command or the place to look at."""
        hints = []
        if self.suspects.size:
            nominal = self.alignment.angles_deg[self.alignment.kept]
            which = [int(np.abs(self.angles_deg - one).argmin()) for one in self.left_out_deg[self.suspects]]
            listed = ",".join(f"{nominal[one]:g}" for one in which)
            hints.append(("single projections are bad", f"nntomo align {raw} --leave-out={listed} -o {output}"))
        hints += [
            (
                "the profile along the axis drifts, or the sinogram is cut off at a side",
                "the specimen leaves the images: leave projections out with --leave-out, or try --refine matching",
            ),
            (
                "arcs in the reconstruction, open to one side",
                "the position of the axis is off: change axis_px in the table by a pixel, and give it with --table",
            ),
            (
                "arcs that turn over from one end of the specimen to the other",
                "the direction of the axis is off: give --tilt-axis DEGREES",
            ),
            (
                "the residual is largest at the highest tilts",
                "thick or shadowed views: leave them out with --leave-out",
            ),
            (
                "the left-out residual rises while the residual falls",
                "the alignment fits noise: keep to its first steps, --refine none",
            ),
            (
                "everything is worse than before",
                "the table is that of another series, or its pixels have another size: --scale",
            ),
        ]
        return hints


def quality(
    series: xr.DataArray,
    alignment: Alignment,
    *,
    aligned: xr.DataArray | None = None,
    angles: Angles = "corrected",
) -> Quality:
    """Look at a raw series before and after an alignment. Computed at once, of a few slices and one pass over both.

    Parameters
    ----------
    series
        Dims (z, angle, detector): the raw series.
    aligned
        The same, aligned and not cropped, where it is stored already.
    angles
        See `apply_alignment`.

    Raises
    ------
    SchemaError
        As of `apply_alignment`; or fewer than 2 directions can be left out.
    """
    rows = rows_for(series, alignment)
    whole = apply_alignment(series, rows, angles=angles)
    after = whole if aligned is None or aligned.shape != whole.shape else aligned
    kept = rows.kept
    before = slabs.lazy(series).isel({schema.ANGLE: kept})
    masses = compute(*(_masses(one) for one in (before, after)))
    z = int(masses[1].mean(axis=1).argmax())
    angles_deg = np.asarray(whole[schema.ANGLE].values, np.float64)
    bins = max(round(series.sizes[schema.DETECTOR] / _PIXELS), 1)
    folds = held_out.at_most(angles_deg, _FOLDS, who="align")
    looks = []
    for one, mass in zip((before, after), masses, strict=True):
        looks.append(_look(one, mass, angles_deg, z=z, bins=bins, folds=folds))
    return Quality(
        alignment=rows,
        angles_deg=angles_deg,
        left_out_deg=np.array([angles_deg[fold.left_out].mean() for fold in folds]),
        z=z,
        bins=bins,
        before=looks[0],
        after=looks[1],
        raw_sinogram=np.asarray(slabs.lazy(series).isel({schema.Z: z}).values, np.float32),
    )


def _masses(series: xr.DataArray) -> Any:
    """(z, angle), the sum over the detector; lazy."""
    data = finite.checked_data(series.data, who="align", dims=schema.SERIES_DIMS)
    return da.map_blocks(_sums, data, drop_axis=2, dtype=np.float64, meta=np.empty((0, 0), np.float64))


def _sums(slab: Float32) -> Float64:
    return np.asarray(slab.sum(axis=2, dtype=np.float64))


def _look(
    series: xr.DataArray,
    masses: Float64,
    angles_deg: Float64,
    *,
    z: int,
    bins: int,
    folds: tuple[held_out.Fold, ...],
) -> Look:
    count, size = series.sizes[schema.Z], series.sizes[schema.DETECTOR]
    height = min(max(_SLICES * bins, 1), count, _RUN if bins * _SLICES <= _RUN else _SLICES * bins)
    first = min(max(z - height // 2, 0), count - height)
    run = np.asarray(series.isel({schema.Z: slice(first, first + height)}).values, np.float32)
    centre = _centres(run)
    fitted = rotating(centre, angles_deg)
    small, axis = _binned(run, bins)
    method = Sirt(max_iterations=_ITERATIONS, tolerance=0)
    labelled = schema.tilt_series(small, angles_deg)
    prepared = tuple(float(one) for one in compute(*method.prepare(labelled)))
    volume = method.slab(small, angles_deg, *prepared, axis=axis)
    predicted = forward_slab(volume, angles_deg=angles_deg, engine="native", axis=axis)
    norms = np.sqrt(np.mean(np.square(_without_background(small), dtype=np.float64), axis=(0, 2)))
    norms = np.where(norms > 0, norms, 1.0)
    left_out = []
    for fold in folds:
        made = held_out.without(method, small, angles_deg, fold, prepared=prepared, axis=axis)
        misfit = held_out.misfit(held_out.predicted(made, angles_deg, fold, axis=axis), small, fold).mean()
        left_out.append(float(np.sqrt(misfit)) / float(np.sqrt(np.mean(norms[fold.left_out] ** 2))))
    return Look(
        sinogram=run[z - first],
        centre_px=centre,
        centre_misfit_px=float(np.sqrt(np.mean((centre - fitted) ** 2))),
        profiles=masses.T,
        residual=np.sqrt(np.mean(np.square(predicted - small, dtype=np.float64), axis=(0, 2))) / norms,
        left_out_residual=np.array(left_out),
        slice_=Fbp().slab(run[z - first][None], angles_deg, axis=Axis.centred(size))[0],
    )


def _without_background(rows: Float32) -> Float32:
    """Projections less what is dim in them, at least 0."""
    background = np.percentile(rows, _MATTER, axis=(0, 2), keepdims=True)
    return np.asarray(np.maximum(rows - background, 0), np.float32)


def _centres(rows: Float32) -> Float64:
    """(angle,): centre of mass across the axis, from the middle, [px]; 0 where there is none."""
    mass = _without_background(rows).sum(axis=0, dtype=np.float64)
    places = schema.centred(rows.shape[2])
    total = mass.sum(axis=1)
    return np.asarray(np.where(total > 0, mass @ places / np.where(total > 0, total, 1), 0.0))


def rotating(centres: Float64, angles_deg: Float64) -> Float64:
    """(angle,): the curve ``a cos θ + b sin θ + c`` that is nearest to centres of mass."""
    turns = np.deg2rad(angles_deg)
    a, b, c = coarse.centre_of_mass_fit(centres, turns)
    return np.asarray(a * np.cos(turns) + b * np.sin(turns) + c)


def _wander(profiles: Float64) -> float:
    """How far profiles (angle, z) of equal mass are from their mean, relative to it."""
    shown = profiles - profiles.min(axis=1, keepdims=True)
    total = shown.sum(axis=1, keepdims=True)
    shown = shown / np.where(total > 0, total, 1)
    mean = shown.mean(axis=0)
    scale = float(np.sqrt(np.mean(mean**2)))
    return float(np.sqrt(np.mean((shown - mean) ** 2))) / scale if scale > 0 else 0.0


def _binned(rows: Float32, bins: int) -> tuple[Float32, Axis]:
    """Means of bins of rows (slice, angle, detector), and where the middle of the detector lies in them."""
    slices, angles, size = rows.shape
    height = min(bins, slices)
    columns, lines = size // bins, max(slices // height, 1)
    start = (size - columns * bins) // 2
    cut = rows[: lines * height, :, start : start + columns * bins]
    small = cut.reshape(lines, height, angles, columns, bins).mean(axis=(1, 4), dtype=np.float64).astype(np.float32)
    place = ((size - 1) / 2 - start + 0.5) / bins - 0.5
    return small, Axis(grid.depth_zero(place, columns), place)
