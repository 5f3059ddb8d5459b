"""How well alignments find what is known: synthetic raw series, ours and ETSpy's in the same run.

    python pipelines/alignment_study.py --seeds 11 12 13
    python pipelines/alignment_study.py --seeds 11 12 13 --etspy ETSPY_ENVIRONMENT/bin/python

A specimen of `specimens.py`, drawn twice as fine, is projected, turned, shifted and binned: drift of up to 5 pixels in
both directions, the axis tilted by up to 3° and up to 8 pixels beside the middle, 1000 counts in the brightest pixel.
A third of its length lies beyond the images along the axis. Prints the root mean square of what remains of the shifts
after what only moves the object is taken off (a median along the axis, cos θ and sin θ across it), and the errors of
the axis's angle and place; the place is the part of the error across that is the same in all views.
"""

import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from specimens import fine_specimen

import nntomo_dask as nt
from nntomo_dask.alignment.views import Pose, without_gauge
from nntomo_dask.kernels import project, warp

SPECIMENS, VIEWS = ("particles", "needle"), (15, 8)
DRIFT, AXIS_DEG, AXIS_PX, COUNTS, SPAN = 5.0, 3.0, 8.0, 1000, 70.0
METHODS = ("moments", "matching")
ROW = "{:10} {:>5} {:>5}  {:16} {:>8} {:>8} {:>10} {:>10} {:>8}"


class Raw(NamedTuple):
    """A raw series (view, along, across) and where its projections lie."""

    images: np.ndarray
    angles_deg: np.ndarray
    pose: Pose


def raw_series(specimen: str, size: int, views: int, seed: int) -> Raw:
    """A series of a specimen of `size`³ pixels; images have a third less along the axis."""
    rng = np.random.default_rng([seed, views, *specimen.encode()])
    angles = np.linspace(-SPAN, SPAN, views)
    fine = np.moveaxis(project.forward(fine_specimen(specimen, size, seed), np.deg2rad(angles)), 1, 0)
    rotation = rng.uniform(-AXIS_DEG, AXIS_DEG)
    shifts = rng.uniform(-DRIFT, DRIFT, (views, 2)) + np.array([0, rng.uniform(-AXIS_PX, AXIS_PX)])
    pose = Pose(shifts, np.full(views, rotation))
    # The raw image at w shows what the aligned one has at R(-φ) w - d.
    cos, sin = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
    back = -2 * shifts @ np.array([[cos, sin], [-sin, cos]])
    cut = size // 6
    along, across = (np.arange(2 * count) - (2 * count - 1) / 2 for count in (size - 2 * cut, size))
    images = warp.warp(warp.coefficients(fine), along, across, back, -pose.rotation_deg)
    images = images.reshape(views, along.size // 2, 2, size, 2).mean(axis=(2, 4))
    counts = rng.poisson(np.maximum(images, 0) * (COUNTS / images.max()))
    return Raw(counts.astype(np.float32), angles, pose)


def errors(raw: Raw, shifts: np.ndarray, rotation_deg: np.ndarray) -> tuple[float, float, float, float]:
    """Along, across [px, root mean square], angle of the axis [degrees], place of the axis [px]."""
    radians = np.deg2rad(raw.angles_deg)
    off = shifts - raw.pose.shifts
    left = without_gauge(off, radians)
    left[:, 0] -= left[:, 0].mean()
    basis = np.column_stack([np.cos(radians), np.sin(radians), np.ones(radians.size)])
    place = np.linalg.lstsq(basis, off[:, 1], rcond=None)[0][2]
    along, across = np.sqrt((left**2).mean(axis=0))
    return float(along), float(across), float(np.abs(rotation_deg - raw.pose.rotation_deg).mean()), float(abs(place))


def ours(raw: Raw, refine: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Shifts, rotation and seconds."""
    series = nt.tilt_series(np.ascontiguousarray(np.moveaxis(raw.images, 0, 1)), raw.angles_deg)
    begin = time.perf_counter()
    found = nt.align(series, refine=refine)
    seconds = time.perf_counter() - begin
    return np.column_stack([found.along_px, found.across_px + found.axis_px]), found.rotation_deg, seconds


def etspys(raw: Raw, python: str) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """The same by ETSpy's methods, in its own environment."""
    script = Path(__file__).parent / "peers" / "etspy_alignment.py"
    with tempfile.TemporaryDirectory() as folder:
        given, result = (str(Path(folder) / name) for name in ("series.npz", "result.npz"))
        np.savez(given, images=raw.images, angles_deg=raw.angles_deg)
        subprocess.run([python, str(script), given, result], check=True, stdout=subprocess.DEVNULL)
        found = dict(np.load(result))
    names = {name.rsplit(" ", 1)[0] for name in found}
    parts = ("shifts", "rotation", "seconds")
    return {f"ETSpy {name}": tuple(found[f"{name} {part}"] for part in parts) for name in sorted(names)}


@click.command()
@click.option("--seeds", type=int, multiple=True, default=(11, 12, 13), show_default=True)
@click.option("--size", type=int, default=128, show_default=True, help="Pixels across the axis; a multiple of 6 or so.")
@click.option("--etspy", "python", help="Python of an environment with etspy 1.3.0.")
def main(seeds: tuple[int, ...], size: int, python: str | None) -> None:
    """Print a line for each series and method, and the means over seeds."""
    ours(raw_series("particles", 48, 8, 0), "matching")  # compiles
    click.echo(ROW.format("specimen", "views", "seed", "method", "along", "across", "angle", "place", "s"))
    for specimen in SPECIMENS:
        for views in VIEWS:
            kept: dict[str, list[tuple[float, ...]]] = {}
            for seed in seeds:
                raw = raw_series(specimen, size, views, seed)
                found = {f"nntomo {one}": ours(raw, one) for one in METHODS}
                found |= etspys(raw, python) if python else {}
                for name, (shifts, rotation, seconds) in found.items():
                    row = (*errors(raw, shifts, rotation), float(seconds))
                    kept.setdefault(name, []).append(row)
                    show(specimen, views, str(seed), name, row)
            for name, rows in kept.items():
                mean = np.sqrt(np.square(np.array(rows)[:, :4]).mean(axis=0))
                show(specimen, views, "rms", name, (*mean, np.mean([row[4] for row in rows])))


def show(specimen: str, views: int, seed: str, name: str, row: tuple[float, ...]) -> None:
    """One line of the table."""
    along, across, angle, place, seconds = row
    figures = (f"{along:.3f}", f"{across:.3f}", f"{angle:.3f}", f"{place:.3f}", f"{seconds:.2f}")
    click.echo(ROW.format(specimen, views, seed, name, *figures))


if __name__ == "__main__":
    main()
