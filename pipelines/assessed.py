"""Whether an assessment by projections that are left out picks the method that is nearest to the truth.

Specimens of `pipelines.specimens` × projections in ±70° × noise. Each series is assessed as ``nntomo assess`` does;
then all candidates reconstruct the whole volume, and their mean square errors are compared with the choice.

    python -m pipelines.assessed --size 64 --out results/assessed
"""

import csv
import itertools
from pathlib import Path

import click
import numpy as np
import xarray as xr
from scipy import stats

import nntomo_dask as nt
from pipelines.specimens import SPECIMENS, binned, fine_specimen

FIELDS = ("specimen", "count", "noise", "seed", "candidate", "error", "misfit", "beyond_noise", "chosen", "baseline")


def series_of(specimen: str, size: int, count: int, noise: float, seed: int) -> tuple[np.ndarray, xr.DataArray]:
    """The volume, and its series as a microscope would see it: projected on a finer grid."""
    fine = fine_specimen(specimen, size, seed)
    projected = nt.project(nt.volume(fine), nt.tilt_angles("tem", count)).values
    rows = projected.reshape(size, 2, count, size, 2).mean(axis=(1, 4)) / 2
    deviation = noise * rows.max()
    added = np.random.default_rng([seed, count]).normal(0, deviation, rows.shape) if noise else 0
    return binned(fine, 2), nt.tilt_series((rows + added).astype(np.float32), nt.tilt_angles("tem", count))


@click.command()
@click.option("--size", default=64)
@click.option("--specimen", "specimens", multiple=True, default=tuple(SPECIMENS))
@click.option("--count", "counts", multiple=True, type=int, default=(8, 15))
@click.option("--noise", "noises", multiple=True, type=float, default=(0.0, 0.02))
@click.option("--seed", default=11)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(
    size: int, specimens: tuple[str, ...], counts: tuple[int, ...], noises: tuple[float, ...], seed: int, out: Path
) -> None:
    """Assess every case, and compare with the truth."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "assessed.csv").open("a", newline="") as file:
        rows = csv.DictWriter(file, FIELDS)
        if file.tell() == 0:
            rows.writeheader()
        for count, noise, specimen in itertools.product(counts, noises, specimens):
            truth, series = series_of(specimen, size, count, noise, seed)
            found = nt.assess(series, folder=out / f"{specimen}-{count}-{noise:g}-{seed}")
            errors = []
            for score in found.scores:
                volume = nt.reconstruct(series, score.method).values
                errors.append(float(np.square(volume - truth, dtype=np.float64).mean()))
                rows.writerow(
                    {
                        "specimen": specimen,
                        "count": count,
                        "noise": noise,
                        "seed": seed,
                        "candidate": score.title,
                        "error": errors[-1],
                        "misfit": score.misfit,
                        "beyond_noise": score.beyond_noise,
                        "chosen": int(score is found.recommended),
                        "baseline": int(score is found.baseline),
                    }
                )
            file.flush()
            chosen, base = (found.scores.index(one) for one in (found.recommended, found.baseline))
            best = int(np.argmin(errors))
            rank = stats.spearmanr(errors, [one.misfit for one in found.scores])[0]
            click.echo(
                f"{count:2d} projections, noise {100 * noise:g} %, {specimen}: picked {found.recommended.title}, "
                f"error {errors[chosen] / errors[best]:.2f} × that of {found.scores[best].title} and "
                f"{errors[chosen] / errors[base]:.2f} × SIRT ≥ 0; rank correlation {rank:.2f}"
            )


if __name__ == "__main__":
    main()
