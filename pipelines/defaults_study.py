"""Why the defaults are what they are, and what the spread tells: the figures of docs/theory.md, measured anew.

    python pipelines/defaults_study.py stopping   # when SIRT with values of at least 0 should stop
    python pipelines/defaults_study.py linear     # when CGLS should stop, and the window of FBP
    python pipelines/defaults_study.py spread     # how well the jackknife and ensembles rank the true error

Specimens and noise are those of `truth.py`, 64³ voxels. Each takes some minutes on one core.
"""

import functools
import itertools
from typing import get_args

import click
import numpy as np
from dask.base import compute
from scipy.stats import spearmanr
from truth import Case, series_of, truth_of

import nntomo_dask as nt
from nntomo_dask.kernels import iterate, layout
from nntomo_dask.kernels.filters import Window
from nntomo_dask.reconstruction.sirt import stops

VOXELS, ITERATIONS, LANES = 64, 800, 32
GEOMETRIES, NOISES = ("tem8", "tem29"), (0, 1, 2, 5)


def cases(specimens, geometries=GEOMETRIES, noises=NOISES, seeds=(5,)):
    for place in itertools.product(specimens, geometries, noises, seeds):
        specimen, geometry, noise, seed = place
        yield Case(specimen, VOXELS, "fine", geometry, noise, seed)


def lanes(array, to_lanes):
    """Lane groups of 32 slices."""
    for z in range(0, len(array), LANES):
        yield to_lanes(np.ascontiguousarray(array[z : z + LANES]), LANES).reshape(-1, LANES)


def traced(series, truth, kept=None):
    """Of non-negative SIRT, (iteration, slice): residual norms, squares of the error, misfit where left out."""
    rows, angles = series.values, series.angle.values
    kept = np.arange(angles.size) if kept is None else kept
    others = np.setdiff1d(np.arange(angles.size), kept)
    pair, out = (nt.projector(angles[some], VOXELS) for some in (kept, others if others.size else kept))
    found = []
    for measured, wanted, withheld in zip(
        lanes(rows[:, kept], layout.sinogram_to_lanes),
        lanes(truth.values, layout.image_to_lanes),
        lanes(rows[:, others if others.size else kept], layout.sinogram_to_lanes),
        strict=True,
    ):
        row_weights, column_weights = pair.inverse_sums(measured)
        images, weighted, everywhere = pair.zeros(measured), np.empty_like(measured), np.ones(LANES, bool)
        norms = [iterate.residual(measured, np.zeros_like(measured), row_weights, weighted)]
        errors, misfits = [], []
        for _ in range(ITERATIONS if not others.size else ITERATIONS // 2):
            iterate.step(images, pair.back(weighted), column_weights, everywhere, np.float32(0))
            norms.append(iterate.residual(measured, pair.forward(images), row_weights, weighted))
            errors.append(((images - wanted) ** 2).sum(axis=0))
            if others.size:
                misfits.append(((out.forward(images) - withheld) ** 2).sum(axis=0))
        found.append((norms, errors, misfits))
    return [np.concatenate(part, axis=1) if len(part[0]) else None for part in zip(*found, strict=True)]


def first(condition):
    """(slice,): the iteration at which a condition (iteration, slice) holds first; the last where it never does."""
    return np.where(condition.any(axis=0), condition.argmax(axis=0) + 1, len(condition))


def stopping():
    """Error where each rule stops, in units of the error at the best number of iterations, one for all slices."""
    found = {}
    for case in cases(("faceted", "porous", "coreshell", "smooth", "particles", "needle")):
        series, truth = series_of(case), truth_of(case)
        norms, errors, _ = traced(series, truth)
        count = len(series.angle)
        kept = np.setdiff1d(np.arange(count), [count // 3, count // 2])
        held_out = int(traced(series, truth, kept)[2].sum(axis=1).argmin()) + 1
        active = norms[0] > 0
        norms, errors = norms[:, active], errors[:, active]
        share = 1 - norms[1:] / norms[:-1]
        # The noise as it was added.
        noise = case.noise / 100 * float(series_of(case._replace(noise=0)).max()) * np.sqrt(count * VOXELS)
        rules = {
            "tolerance 1e-2": first(share <= 1e-2),
            "tolerance 1e-3": first(share <= 1e-3),
            "tolerance 3e-4": first(share <= 3e-4),
            "discrepancy, or 1e-3": first((norms[1:] <= noise) | (share <= 1e-3)),
            "held-out projections": np.full(active.sum(), held_out),
            "auto": first(np.array([stops("auto", k + 1, norms[k], norms[k + 1]) for k in range(len(share))])),
        }
        oracle = errors.sum(axis=1).min()
        for name, last in rules.items():
            error = errors[last - 1, np.arange(last.size)].sum() / oracle
            found.setdefault((case.noise, name), []).append((error, last.mean()))
            if name == "auto":
                click.echo(f"{case}: auto {error:.2f} of the oracle's after {last.mean():.0f} iterations")
    click.echo("noise  rule                   error / oracle: mean, largest   iterations")
    for (noise, name), values in sorted(found.items(), key=lambda item: item[0][0]):
        errors, iterations = np.array(values).T
        click.echo(
            f"{noise} %    {name:<22} {np.exp(np.log(errors).mean()):.2f} {errors.max():.2f}   {iterations.mean():.0f}"
        )


def linear():
    """CGLS by its stop and FBP by its window, in units of the error of the best number of iterations of CGLS."""
    found = {}
    for case in cases(("faceted", "coreshell", "smooth", "needle"), ("tem8", "tem29"), seeds=(7,)):
        series, truth = series_of(case), truth_of(case)
        steps = {count: nt.cgls(series, iterations=count) for count in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 30)}
        errors = {f"cgls {count}": float(nt.mse(one, truth)) for count, one in steps.items()}
        best = min(errors.values())
        errors["cgls auto"] = float(nt.mse(nt.cgls(series), truth))
        errors |= {f"fbp {window}": float(nt.mse(nt.fbp(series, window=window), truth)) for window in get_args(Window)}
        for name in ("cgls 5", "cgls 10", "cgls 20", "cgls auto", *(f"fbp {window}" for window in get_args(Window))):
            found.setdefault(name, []).append(errors[name] / best)
    for name, values in found.items():
        click.echo(f"{name:<16} mean {np.exp(np.log(values).mean()):.2f}, largest {max(values):.2f}")


def area(uncertainty, error):
    """Area between the sparsification curves of an uncertainty and of the error itself; 1 for an order by chance.

    A curve is the root of the mean square error of what is left when the most uncertain share is left out.
    """

    def curve(order):
        squares = error[np.argsort(-order, kind="stable")] ** 2
        left = np.cumsum(squares[::-1])[::-1] / np.arange(squares.size, 0, -1)
        return np.sqrt(left[:: max(squares.size // 200, 1)]).mean()

    least, chance = curve(np.abs(error)), np.sqrt((error**2).mean())
    return (curve(uncertainty) - least) / (chance - least)


def blocks(volume, edge=4):
    """Root of the mean square in blocks of voxels."""
    parts = (part for count in volume.shape for part in (count // edge, edge))
    return np.sqrt((volume.reshape(*parts) ** 2).mean(axis=(1, 3, 5)))


def compared(name, case, volume, spread, truth):
    y, x = np.indices((VOXELS, VOXELS)) - (VOXELS - 1) / 2
    disc = np.hypot(y, x) < VOXELS / 2
    error, sure = volume.values - truth.values, spread.values
    rank = spearmanr(sure[:, disc].ravel(), np.abs(error)[:, disc].ravel())[0]
    coarse = spearmanr(blocks(sure).ravel(), blocks(error).ravel())[0]
    ratio = np.sqrt((sure[:, disc] ** 2).mean() / (error[:, disc] ** 2).mean())
    between = area(sure[:, disc].ravel(), error[:, disc].ravel())
    click.echo(
        f"{case}: {name}: rank correlation {rank:.2f}, of blocks {coarse:.2f}; area {between:.2f}; "
        f"spread / error {ratio:.2f}"
    )


def spread():
    """Rank correlation of the spread with the true error, over the voxels that all projections see, and over blocks."""
    target = nt.tilt_series(np.zeros((1, 8, VOXELS), np.float32), nt.tilt_angles("tem", 8))
    networks = {}
    for phantom in ("ellipses", "mixed"):
        settings = {"phantom": phantom, "n_slices": 400, "n_samples": 30_000, "filters": "shared"}
        sets = [part.compute() for part in nt.phantom_samples(target, **settings)]
        as_published = functools.partial(nt.train_nnfbp, solver="lm", output="sigmoid")
        networks[phantom] = nt.train_ensemble(as_published, *sets, members=4)
    for case in cases(("faceted", "coreshell", "smooth", "needle"), ("tem8",), (0, 2)):
        series, truth = series_of(case), truth_of(case)
        for name in ("sirt", "tv", "cgls", "fbp"):
            method = nt.METHODS[name]()
            prepared = [float(one) for one in compute(*method.prepare(series))]  # once: TV's weight takes long
            volume, sure = (make(series, method, prepared=prepared) for make in (nt.reconstruct, nt.jackknife))
            compared(name, case, volume, sure, truth)
        for phantom, members in networks.items():
            mean, deviation = nt.nnfbp(series, members), nt.nnfbp(series, members, statistic="spread")
            compared(f"nnfbp {phantom}", case, mean, deviation, truth)


STUDIES = {study.__name__: study for study in (stopping, linear, spread)}


@click.command(help="Measure what the defaults rest on: stopping, linear or spread.")
@click.argument("names", nargs=-1, type=click.Choice(list(STUDIES)), required=True)
def main(names):
    for name in names:
        STUDIES[name]()


if __name__ == "__main__":
    main()
