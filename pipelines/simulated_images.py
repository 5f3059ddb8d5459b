"""What simulated images look like: four kinds of one projection, and what they add up to against the tilt angle.

Draws the figures of docs/simulation.md, ``python pipelines/simulated_images.py``: some minutes on 2 cores. To see
another crystal, or other settings, change the constants.
"""

from pathlib import Path

import click
import numpy as np
from matplotlib.figure import Figure

import nntomo_dask as nt
from nntomo_dask.compute import cluster
from nntomo_dask.plotting import figures as plotting

CRYSTAL = "UiO-67"
TOTALS_OF = "UiO-66"
PHONONS = 4
AT_REST = {"phonons": 0, "detector_mrad": (50.0, 80.0)}  # what scattering by resting atoms shows
MOVING = AT_REST | {"phonons": PHONONS}
DOSE = 20_000  # e/Å² of the noisy image
NOISY = {"dose": DOSE, "dose_per": "projection", "blur_nm": 0.03}
ANGLES = (0.0, 15.0)  # the first is drawn; a series has two at least


def images(out: Path) -> dict[str, np.ndarray]:
    """One projection, in four kinds."""
    kinds = {
        "HAADF": ("haadf", nt.Imaging(pixels=160, **AT_REST)),
        f"HAADF, {PHONONS} frozen phonons": ("haadf", nt.Imaging(pixels=160, **MOVING)),
        f"HAADF, blur 0.03 nm, {DOSE} e/Å²": ("haadf", nt.Imaging(pixels=160, **AT_REST, **NOISY)),
        "iDPC": ("idpc", nt.Imaging(pixels=160, **AT_REST)),
    }
    found = {}
    for number, (title, (mode, imaging)) in enumerate(kinds.items()):
        series = nt.save(
            nt.simulate(CRYSTAL, ANGLES, mode=mode, imaging=imaging), out / f"image-{number}.zarr", progress="bar"
        )
        found[title] = series.isel(angle=0).values
    return found


def totals(out: Path, count: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Angles, and sums of the images of a crystal at them; with vibrating atoms at every third angle."""
    angles = nt.tilt_angles("full", count)
    both = nt.save(nt.simulate(TOTALS_OF, angles, imaging=nt.Imaging(**AT_REST)), out / "totals.zarr", progress="bar")
    vibrating = nt.simulate(TOTALS_OF, angles[::3], mode="haadf", imaging=nt.Imaging(**MOVING))
    series = {
        "HAADF, atoms at rest": both["haadf"],
        f"HAADF, {PHONONS} frozen phonons": nt.save(vibrating, out / "totals-phonons.zarr", progress="bar"),
        "iDPC": both["idpc"],
    }
    return {name: (one.angle.values, one.sum(("z", "detector")).values) for name, one in series.items()}


def draw(found: dict[str, np.ndarray], path: Path) -> None:
    """The four images side by side."""
    figure = Figure(figsize=(13, 3.7), layout="constrained")
    for letter, ax, (title, image) in zip("abcd", figure.subplots(1, 4), found.items(), strict=True):
        ax.imshow(image, cmap="gray", origin="lower")
        ax.set_title(f"({letter}) {title}", fontsize=10)
        ax.set_axis_off()
    click.echo(plotting.save_figure(figure, path))


def draw_totals(sums: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Totals relative to their mean."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    ax = figure.subplots()
    for (name, (angles, values)), line in zip(sums.items(), ("o-", "s", "o-"), strict=True):
        relative = values / values.mean()
        ax.plot(angles, relative, line, markersize=3, label=name)
        click.echo(f"{TOTALS_OF}, {name}: {relative.min():.3f} to {relative.max():.3f} of the mean")
    ax.set_xlabel("tilt angle [°]")
    ax.set_ylabel("total, relative")
    ax.legend(fontsize=8)
    click.echo(plotting.save_figure(figure, path))


@click.command(help="Draw simulated images and their totals against the tilt angle.")
@click.option("--count", default=24, show_default=True, help="Angles of the totals.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("stores/simulated_images"), show_default=True)
def main(count: int, out: Path) -> None:
    with cluster.session():
        draw(images(out), out / "images.png")
        draw_totals(totals(out, count), out / "totals.png")


if __name__ == "__main__":
    main()
