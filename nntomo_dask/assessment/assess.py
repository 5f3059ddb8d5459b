"""The assessment of a series: which method predicts projections best that it has not seen."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from dask.base import compute
from dask.delayed import delayed

from nntomo_dask.arrays import recipes, schema, slabs
from nntomo_dask.assessment import comparison, predictions, stack
from nntomo_dask.assessment.candidates import WHO, Candidate
from nntomo_dask.assessment.plan import Plan, planned
from nntomo_dask.assessment.result import Assessment, Score, Shown
from nntomo_dask.compute import cluster
from nntomo_dask.compute.progress import Progress
from nntomo_dask.errors import SchemaError, refuse
from nntomo_dask.networks.network import Network
from nntomo_dask.projection.noise import Noise, noise as estimated_noise
from nntomo_dask.reconstruction import held_out
from nntomo_dask.reconstruction.held_out import Fold
from nntomo_dask.reconstruction.method import Method, checked_axis
from nntomo_dask.types import Float64

WEIGHTING: held_out.Weighting = "volume"


def assess(
    series: xr.DataArray,
    methods: Sequence[str | Method] | None = None,
    *,
    networks: Mapping[str, Network] | Sequence[Network] = (),
    folds: int | Literal["all"] | None = None,
    slices: int | None = None,
    noise: float | Noise | Literal["auto"] = "auto",
    folder: str | os.PathLike[str] | None = None,
    progress: Progress = "none",
) -> Assessment:
    """Find the method that predicts projections of a series best that it has not seen.

    Directions are left out in turn, apart from those at the edges of a missing wedge. Each method, with some of its
    settings, reconstructs from the others and predicts what was left out; the least mean square misfit wins, if it is
    clearly less than that of SIRT with values of at least 0. Ratios are taken projection by projection. Computes
    at once, on a few slices.

    Parameters
    ----------
    series
        Dims (z, angle, detector), float32; angle and detector in one chunk each. It is read once.
    methods
        Names, each of which is tried with the settings that it declares (`Method.candidates`), or methods with their
        settings. By default all that need no network, and those of the networks.
    networks
        Trained for this series: by name, or in a sequence. What a network learned for all projections is applied to
        fewer, so that it is judged a little too strictly.
    folds
        How many directions are left out in turn; 2 or more, or "all". By default up to 8, spread evenly; 4 for more
        than 512 detector pixels.
    slices
        About as many are looked at, in runs of 8, where the matter is. All of them where there are no more. By default
        16; 8 for more than 512 detector pixels.
    noise
        "auto": estimated from the series, by `noise`. Or the standard deviation of a value, or a model. Its part is
        taken from the misfits that are shown; differences and the choice do not depend on it.
    folder
        Where predictions are kept, a file each, so that an assessment which was interrupted goes on, and one with other
        methods computes these alone.

    Returns
    -------
    An `Assessment`; its `method` is the one to use.

    Raises
    ------
    SchemaError
        `series` is no tilt series, has too few projections for the folds, or a value that is NaN or infinite; it is all
        noise: nothing predicts it better than an empty volume; a method is not known, does not fit the series, or lacks
        a network; a network was made for other angles.
    """
    plan = planned(series, methods, networks=networks, folds=folds, slices=slices, noise=noise)
    with _folder(folder) as place:
        return _assessed(plan, place, progress)


@contextlib.contextmanager
def _folder(folder: str | os.PathLike[str] | None) -> Iterator[Path]:
    if folder is not None:
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="nntomo-assess-") as made:
        yield Path(made)


def _assessed(plan: Plan, folder: Path, progress: Progress) -> Assessment:
    series, compared, folds = plan.series, plan.compared, plan.folds
    angles = series[schema.ANGLE].values
    (squares,) = compute(stack.squares(series))
    runs = _read(series, stack.runs(squares, plan.slices), max(one.method.halo for one in compared))
    variances = _variances(_noise(plan.noise, series), runs, folds)
    work: dict[int, list[list[predictions.Work]]] = {}

    def predict(which: Sequence[int], description: str) -> None:
        """Compute the predictions of some candidates that are not kept yet."""
        scalars = compute(*(compared[k].method.prepare(series) for k in which))
        tasks, shared = [], [delayed(run.rows) for run in runs]
        for k, prepared in zip(which, scalars, strict=True):
            axis = checked_axis(compared[k].method, series)
            numbers = tuple(float(one) for one in prepared)
            work[k] = [
                [
                    predictions.Work(compared[k], numbers, angles, axis, fold, run, path)
                    for run in runs
                    for path in [predictions.place(folder, compared[k], recipes.recipe_of(series), angles, fold, run)]
                ]
                for fold in folds
            ]
            tasks += [
                one.task(rows) for row in work[k] for one, rows in zip(row, shared, strict=True) if one.kept() is None
            ]
        cluster.compute(tasks, description=description, progress=progress)

    predict([0], "assess, SIRT")
    empty = np.array([_empty(runs, fold) for fold in folds])
    baseline, _ = _misfits(work[0])
    if not comparison.ratio(empty, baseline).is_clear:
        refuse(
            WHO,
            needs="a series in which projections can be predicted from others",
            got=f"one that is all noise: SIRT predicts those that were left out no better than an empty volume, with "
            f"a misfit of {comparison.typical(baseline):.3g} against {comparison.typical(empty):.3g}",
            remedy="more slices, or a check of angles, alignment and background",
        )
    predict(range(1, len(compared)), "assess")
    found = [_misfits(work[k]) for k in range(len(compared))]
    misfits = np.array([one for one, _ in found])
    ranks = comparison.ranks(
        misfits,
        kinds=[one.method.name + one.network for one in compared],
        ranks=[_rank(work[k][0][0]) for k in range(len(compared))],
        learned=[bool(one.network) for one in compared],
    )
    n_z, detector = series.sizes[schema.Z], series.sizes[schema.DETECTOR]
    noise = None
    if variances is not None:
        noise = held_out.noise_part(float(variances.mean()), detector, weighting=WEIGHTING)
    scores = [
        Score(
            title=candidate.title,
            method=candidate.method,
            network=candidate.network,
            misfits=tuple(misfits[k].tolist()),
            misfit=comparison.typical(misfits[k]),
            beyond_noise=float("nan") if noise is None else comparison.typical(misfits[k]) - noise,
            against_best=ranks.against_best[k].times,
            standard_error=ranks.against_best[k].times * ranks.against_best[k].standard_error,
            tied=ranks.tied[k],
            seconds=found[k][1] * n_z,
        )
        for k, candidate in enumerate(compared)
    ]
    return Assessment(
        scores=tuple(scores[k] for k in ranks.order),
        recommended=scores[ranks.chosen],
        baseline=scores[0],
        left_out_deg=tuple(tuple(angles[fold.left_out].tolist()) for fold in folds),
        slices=tuple((run.start, run.stop) for run in runs),
        noise_variance=None if variances is None else tuple(variances.tolist()),
        noise_part=noise,
        empty=comparison.typical(empty),
        shown=_shown(compared, ranks, work, runs, folds, angles),
    )


def _read(series: xr.DataArray, places: Sequence[tuple[int, int]], border: int) -> list[predictions.Run]:
    """The runs with their neighbours, in memory."""
    seen = slabs.mirrored(series.sizes[schema.Z], border)
    wanted = [seen[start : stop + 2 * border] for start, stop in places]
    lows = [int(one.min()) for one in wanted]
    blocks = [series.data[low : int(one.max()) + 1] for low, one in zip(lows, wanted, strict=True)]
    return [
        predictions.Run(start, stop, border, np.ascontiguousarray(block[one - low]))
        for (start, stop), block, low, one in zip(places, compute(*blocks), lows, wanted, strict=True)
    ]


def _noise(noise: float | Noise | str, series: xr.DataArray) -> Noise | None:
    """The model that is given or asked for; None where the series is too small for an estimate."""
    if isinstance(noise, Noise):
        return noise
    if isinstance(noise, float):
        return Noise(read_noise=noise)
    with contextlib.suppress(SchemaError):
        return estimated_noise(series)
    return None


def _variances(noise: Noise | None, runs: Sequence[predictions.Run], folds: Sequence[Fold]) -> Float64 | None:
    """(fold,), the mean variance of the noise at the projections that are left out."""
    if noise is None:
        return None
    values = [np.concatenate([run.measured[:, fold.left_out].ravel() for run in runs]) for fold in folds]
    return np.array([float(np.mean(noise.variance(one))) for one in values])


def _empty(runs: Sequence[predictions.Run], fold: Fold) -> float:
    """The misfit of predicting nothing, or the mean value of the other projections, whichever is less."""
    mean = np.float32(np.mean([run.measured[:, fold.kept].mean(dtype=np.float64) for run in runs]))
    misfits = []
    for value in (np.float32(0), mean):
        constant = [np.full_like(run.measured[:, fold.left_out], value) for run in runs]
        found = [
            held_out.misfit(one, run.measured, fold, weighting=WEIGHTING)
            for one, run in zip(constant, runs, strict=True)
        ]
        misfits.append(float(np.concatenate(found).mean()))
    return min(misfits)


def _misfits(work: Sequence[Sequence[predictions.Work]]) -> tuple[Float64, float]:
    """(fold,), the mean square misfit of a candidate; and the seconds that a slice takes."""
    misfits, seconds = [], []
    for row in work:
        slices = []
        for one in row:
            kept = one.kept()
            assert kept is not None, f"{one.path} was written a moment ago"
            slices.append(held_out.misfit(kept.prediction, one.run.measured, one.fold, weighting=WEIGHTING))
            seconds.append(kept.seconds / len(slices[-1]))
        misfits.append(np.concatenate(slices).mean())
    return np.array(misfits), float(np.median(seconds))


def _rank(work: predictions.Work) -> float:
    """Lower for settings that are preferred among equals: those that suppress more noise."""
    strength = work.candidate.method.strength(*work.prepared)
    return work.candidate.rank if strength is None else -strength


def _shown(
    compared: Sequence[Candidate],
    ranks: comparison.Ranks,
    work: Mapping[int, Sequence[Sequence[predictions.Work]]],
    runs: Sequence[predictions.Run],
    folds: Sequence[Fold],
    angles_deg: Float64,
) -> Shown:
    """The middle one of the projections, by the best settings of each method, the recommended ones and the baseline."""
    middle = len(folds) // 2
    shown: dict[str, int] = {}
    for k in ranks.order:
        shown.setdefault(compared[k].method.name + compared[k].network, k)
    titles = dict.fromkeys([ranks.chosen, *shown.values(), 0])
    predicted = {}
    for k in sorted(titles, key=ranks.order.index):
        parts = [one.kept() for one in work[k][middle]]
        predicted[compared[k].title] = np.concatenate([part.prediction[:, 0] for part in parts if part is not None])
    first = int(folds[middle].left_out[0])
    measured = np.concatenate([run.measured[:, first] for run in runs])
    return Shown(float(angles_deg[first]), measured, predicted)
