"""A measured series with fewer and fewer projections, against what all of them show; see docs/theory.md.

    python pipelines/measured_needle.py needle256.mrc --out results/needle
    python pipelines/measured_needle.py needle.mrc --tilt-axis x --out results/needle-64

FILE is a raw series, which is imported and aligned here. Its middle slices are reconstructed from all projections, and
from a few of them, spread over all angles and within ±70°. Nobody has the truth of a measured specimen, so there are
three kinds of figures:

- the error against SIRT ≥ 0 and against FBP of all projections, mean squares inside the disc that all projections see,
  as shares of the mean square of that reference; a reference favours methods of its own kind;
- the resolution at which the Fourier shell correlation with them falls below 0.5;
- the misfit at the projections that were left out, a share of their mean square. It needs no reference.

Prints a table in Markdown; all figures go to OUT/needle.csv.
"""

import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import click
import numpy as np
import xarray as xr

import nntomo_dask as nt
from nntomo_dask.arrays import schema

METHODS = ("fbp", "sirt", "tv", "unrolled")
PHANTOMS = ("ellipses", "mixed")
TITLES = {
    "fbp": "FBP",
    "sirt": "SIRT",
    "tv": "TV",
    "unrolled": "unrolled, pretrained",
    "ellipses": "NN-FBP, ellipses",
    "mixed": "NN-FBP, mixed",
}
REFERENCES = {"sirt": {"minimum": 0.0}, "fbp": {}}
RANGES = {"all angles": 90.0, "±70°": 70.0}
FIGURES = ("mse_sirt", "fsc_sirt", "mse_fbp", "fsc_fbp", "left_out")
FIELDS = ("range", "projections", "method", *FIGURES, "first_deg", "last_deg", "seconds")


def aligned_series(path: Path, tilt_axis: Literal["x", "y"] | None) -> xr.DataArray:
    """The aligned series of a file, without its background."""
    raw = nt.read(path, tilt_axis=tilt_axis)
    found = nt.align(raw)
    click.echo(f"tilt axis: {found.rotation_deg[0]:.2f}° and {found.axis_px:.2f} px from the middle")
    return nt.apply_alignment(raw, found)


def nearest(angles_deg: np.ndarray, count: int, limit: float) -> np.ndarray:
    """Positions of the `count` angles nearest to equal steps within ±limit; one of -90° and 90° is enough."""
    inside = angles_deg[np.abs(angles_deg) <= limit + 0.5]
    wanted = np.linspace(inside[0], inside[-1], count, endpoint=bool(inside[-1] - inside[0] < 179))
    return np.unique([int(np.abs(angles_deg - one).argmin()) for one in wanted])


PUBLISHED = {"n_samples": 100_000, "filters": "shared"}  # networks in the form of Pelt and Batenburg (2013)


def reconstructions(series: xr.DataArray, slices: int) -> Iterator[tuple[str, xr.DataArray, float]]:
    """Name, volume and seconds of each method; networks are trained for this series."""
    for name in (*METHODS, *PHANTOMS):
        begin = time.perf_counter()
        if name in METHODS:
            made = nt.reconstruct(series, name)
        else:
            sets = nt.phantom_samples(series, phantom=name, n_slices=slices, **PUBLISHED)
            made = nt.reconstruct(series, nt.train_nnfbp(*sets, solver="lm", output="sigmoid", progress="none"))
        yield name, made.compute(), time.perf_counter() - begin


def figures(volume: xr.DataArray, references: dict[str, xr.DataArray], left_out: xr.DataArray) -> dict[str, float]:
    """The figures of a volume, by their names in the table."""
    row: dict[str, float] = {}
    for name, reference in references.items():
        size = float(nt.mse(reference, xr.zeros_like(reference), region="disc"))
        row[f"mse_{name}"] = float(nt.mse(volume, reference, region="disc")) / size
        row[f"fsc_{name}"] = nt.resolution(nt.fourier_shell_correlation(volume, reference), threshold=0.5)
    predicted = nt.project(volume, left_out[schema.ANGLE].values).values.astype(np.float64)
    measured = left_out.values.astype(np.float64)
    row["left_out"] = float(np.square(predicted - measured).sum() / np.square(measured).sum())
    return row


def line(row: dict[str, str]) -> str:
    """A row of the table in Markdown."""
    errors = {name: f"{100 * float(row[name]):.2f}" for name in ("mse_sirt", "mse_fbp", "left_out")}
    shown = [errors.get(name) or f"{float(row[name]):.1f}" for name in FIGURES]
    return f"| {row['range']}, {row['projections']} | {TITLES[row['method']]} | " + " | ".join(shown) + " |"


@click.command()
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the results.")
@click.option("--count", "counts", type=int, multiple=True, default=(9, 13, 19, 31), show_default=True)
@click.option("--middle", type=int, default=24, show_default=True, help="Slices that are reconstructed.")
@click.option("--slices", type=int, default=200, show_default=True, help="Slices of the phantoms for training.")
@click.option("--tilt-axis", type=click.Choice(["x", "y"]), help="Of raw images, where the file does not say it.")
def main(
    path: Path,
    out: Path,
    counts: tuple[int, ...],
    middle: int,
    slices: int,
    tilt_axis: Literal["x", "y"] | None,
) -> None:
    """Reconstruct from few projections of FILE, and compare with all of them."""
    out.mkdir(parents=True, exist_ok=True)
    series = aligned_series(path, tilt_axis)
    first = max((series.sizes[schema.Z] - middle) // 2, 0)
    series = series.isel({schema.Z: slice(first, first + middle)}).compute()
    angles = series[schema.ANGLE].values
    references = {name: nt.reconstruct(series, name, **given).compute() for name, given in REFERENCES.items()}
    with (out / "needle.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        click.echo("| projections | method | MSE, SIRT [%] | FSC, SIRT | MSE, FBP [%] | FSC, FBP | left out [%] |")
        click.echo("|---" * 7 + "|")
        for name, limit in RANGES.items():
            for count in counts:
                kept = nearest(angles, count, limit)
                few = series.isel({schema.ANGLE: kept})
                left_out = series.isel({schema.ANGLE: np.setdiff1d(np.arange(angles.size), kept)})
                for method, volume, seconds in reconstructions(few, slices):
                    row = {"range": name, "projections": kept.size, "method": method}
                    row |= figures(volume, references, left_out)
                    row |= {"first_deg": angles[kept[0]], "last_deg": angles[kept[-1]], "seconds": round(seconds, 1)}
                    writer.writerow(row)
                    file.flush()
                    click.echo(line({key: str(value) for key, value in row.items()}))


if __name__ == "__main__":
    main()
