"""The networks that come with the package, made anew: scenes first, or at the same time, then training on them.

``python -m pipelines.pretrain scenes --count 12000 --processes 16 --out stores/pretrain`` draws scenes: phantoms with
few projections at any angles and with any noise, solved with total variation. What is there already is kept, so it goes
on after an interruption. ``python -m pipelines.pretrain train --out stores/pretrain`` learns from them, and waits for
those that another process is still making. Each scene is used ``--passes`` times within a while, then never again.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

import nntomo_dask as nt
from nntomo_dask.compute import blas
from nntomo_dask.networks.unrolled import Geometry
from nntomo_dask.training.unrolled import sets
from nntomo_dask.training.unrolled.scenes import Scene, SceneNoise, Scenes

GEOMETRY = Geometry(projections=(6, 32), reach_deg=(55.0, 90.0))
WINDOW = 512  # scenes that are shuffled together
READERS = 4


@dataclass(frozen=True)
class StoredScenes(Scenes):
    """Scenes in files of a folder, in the order in which a training uses them."""

    folder: str = ""
    count: int = 0
    passes: int = 1

    def scene(self, number: int) -> Scene:
        """The scene that is used as the one of this number; waits until it has been made."""
        window, place = divmod(number, WINDOW * self.passes)
        size = min(WINDOW, self.count - window * WINDOW)
        turn, place = divmod(place, size)
        order = np.random.default_rng([self.seed, window, turn]).permutation(size)
        path = Path(self.folder) / f"{window * WINDOW + order[place]:06d}.npz"
        while not path.exists():
            time.sleep(0.05)
        with np.load(path) as kept:
            arrays = [kept[name] for name in ("first", "second", "measured", "truth")]
            first, second, measured, truth = (one.astype(np.float32) for one in arrays)
            return Scene(kept["angles_deg"], first, second, measured, float(kept["noise"]), truth)

    def scenes(self, numbers: Iterable[int], *, workers: int) -> Iterator[Scene]:
        """The scenes of some numbers; a few are read ahead."""
        with ThreadPoolExecutor(READERS) as pool:
            waiting = []
            for number in numbers:
                waiting.append(pool.submit(self.scene, number))
                if len(waiting) > 4 * READERS:
                    yield waiting.pop(0).result()
            for one in waiting:
                yield one.result()


def make(text: str, number: int, folder: Path) -> None:
    """Write a scene, in half precision, whole or not at all."""
    path = folder / f"{number:06d}.npz"
    if path.exists():
        return
    scene = Scenes.from_json(text).scene(number)
    part = folder / f".{number:06d}.{os.getpid()}.npz"
    np.savez(
        part,
        angles_deg=scene.angles_deg,
        noise=scene.noise,
        **{name: getattr(scene, name).astype(np.float16) for name in ("first", "second", "measured", "truth")},
    )
    part.rename(path)


def described(phantom: str, size: int, seed: int) -> tuple[Scenes, list]:
    """The training scenes, and both sets."""
    both = sets.drawn_scenes(GEOMETRY, phantom=phantom, noise=SceneNoise(drawn=True), size=size, seed=seed)
    return Scenes.from_json(both[0].attrs["scenes"]), list(both)


def common(function):
    for option in (
        click.option("--out", type=click.Path(path_type=Path), default=Path("stores/pretrain"), show_default=True),
        click.option("--seed", default=0, show_default=True, help="Of the scenes."),
        click.option("--size", default=96, show_default=True, help="Pixels along a slice."),
        click.option("--phantom", default="materials", show_default=True),
        click.option("--count", default=12000, show_default=True, help="Number of scenes."),
    ):
        function = option(function)
    return function


@click.group(help=__doc__.partition("\n")[0])
def main() -> None:
    pass


@main.command("scenes")
@common
@click.option("--processes", default=2, show_default=True)
def scenes(out: Path, seed: int, size: int, phantom: str, count: int, processes: int) -> None:
    """Make scenes."""
    source, _ = described(phantom, size, seed)
    folder = out / "scenes"
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=blas.limit_to_one) as pool:
        made = [pool.submit(make, source.to_json(), number, folder) for number in range(count)]
        for done, one in enumerate(made, start=1):
            one.result()
            if done % 500 == 0:
                click.echo(f"{done} scenes")


@main.command()
@common
@click.option("--passes", default=2, show_default=True, help="How often a scene is used.")
@click.option("--steps", default=1, show_default=True, help="Networks, one behind the other.")
@click.option("--width", default=16, show_default=True)
@click.option("--neighbours", default=2, show_default=True)
@click.option("--batch-size", default=4, show_default=True)
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option("--name", default="any", show_default=True, help="Of the network's file.")
def train(
    out: Path,
    seed: int,
    size: int,
    phantom: str,
    count: int,
    passes: int,
    steps: int,
    width: int,
    neighbours: int,
    batch_size: int,
    precision: str,
    name: str,
) -> None:
    """Train a network on the scenes."""
    from nntomo_dask.training.unrolled import training

    source, both = described(phantom, size, seed)
    stored = StoredScenes(**vars(source), folder=str(out / "scenes"), count=count, passes=passes)
    epochs = max(count * passes // (WINDOW * passes), 1)
    network = training.fit_scenes(
        training.Fit(
            steps=steps,
            neighbours=neighbours,
            width=width,
            epoch_scenes=count * passes // epochs,
            batch_size=batch_size,
            learning_rate=1e-3,
            precision=precision,
        ),
        *both,
        source=stored,
        seed=seed,
        max_epochs=epochs,
        checkpoint=out / f"{name}.training.safetensors",
        progress="bar",
    )
    nt.save_network(network, out / f"{name}.safetensors")
    click.echo(json.dumps(network.recipe["outcome"]))


if __name__ == "__main__":
    main()
