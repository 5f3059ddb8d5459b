"""What a phantom shows: scenes in slices or projections; how much matter they hold, and the time that they take.

``python pipelines/scenes.py materials docs/materials.png``, or for atoms of several elements
``python pipelines/scenes.py atomic docs/atoms.png --show projection --set elements=Pt,Fe,O``.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import nntomo_dask as nt
from nntomo_dask.phantoms import atomic, materials
from nntomo_dask.phantoms.composing import DISC
from nntomo_dask.plotting import figures as plotting

COLUMNS, ROWS = 10, 4
DRAWN: dict[str, Any] = {one.__name__.rpartition(".")[2]: one for one in (materials, atomic)}


def shown(scene: np.ndarray, show: str) -> np.ndarray:
    """The projection along the tilt axis, or the slice halfway between the middle and the one with the most matter."""
    if show == "projection":
        return scene.sum(axis=0)
    fullest = int((scene > 0).sum(axis=(1, 2)).argmax())
    return scene[(fullest + len(scene) // 2) // 2]


def draw(scenes: Sequence[np.ndarray], path: Path, show: str) -> None:
    """Some scenes in rows."""
    figure = Figure(figsize=(1.1 * COLUMNS, 1.1 * ROWS), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, scene in zip(figure.subplots(ROWS, COLUMNS).flat, scenes, strict=False):
        image, top = shown(scene, show), 1 if show == "slice" else None
        axes.imshow(image, cmap="gray", vmin=0, vmax=top, origin="lower", interpolation="nearest")
        axes.set_axis_off()
    plotting.save_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phantom", choices=DRAWN)
    parser.add_argument("figure", type=Path)
    parser.add_argument("--show", choices=("slice", "projection"), default="slice")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--count", type=int, default=COLUMNS * ROWS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the phantom")
    chosen = parser.parse_args(arguments)
    settings: dict[str, Any] = {}
    for name, _, value in (one.partition("=") for one in chosen.set):
        try:
            settings[name] = float(value) if "." in value else int(value)
        except ValueError:
            settings[name] = value
    phantom = nt.PHANTOMS[chosen.phantom](**settings)
    module, slices = DRAWN[chosen.phantom], phantom.scene
    scenes, shares, counts, empty, seconds = [], [], [], [], []
    for number in range(chosen.count):
        start = time.process_time()
        fine = module.scene(chosen.size, slices, np.random.default_rng([chosen.seed, number]), settings=phantom)
        seconds.append(time.process_time() - start)
        shares.append((fine > 0).mean() / (np.pi / 4 * DISC**2))
        counts.append(np.unique(fine).size - 1)
        empty.append((fine.max(axis=(1, 2)) == 0).mean())
        if number < COLUMNS * ROWS:
            scenes.append(materials.binned(fine, materials.FINER))
    draw(scenes, chosen.figure, chosen.show)
    one, few = (np.mean(each) for each in (np.equal(counts, 1), np.less_equal(counts, 5)))
    print(f"scenes of one density: {one:.2f}, of two to five: {few - one:.2f}, of more: {1 - few:.2f}")
    print("share of the disc with matter, 10th, 50th and 90th of 100:", np.percentile(shares, [10, 50, 90]).round(3))
    print(f"slices without matter: {np.mean(empty):.2f}")
    print("seconds of a core, 50th and 90th of 100:", np.percentile(seconds, [50, 90]).round(3))


if __name__ == "__main__":
    main()
