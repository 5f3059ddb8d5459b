"""Networks like those that come with the package: scenes, and at the same time networks that learn from them.

``python -m pipelines.pretrain --minutes 60 --out stores/pretrain`` draws scenes with all cores but one: phantoms with
few projections at any angles and with any noise, solved with total variation. Networks learn from what there is so far,
each scene several times; the learning rate falls to zero at the end of the time. On a GPU several networks learn at
once, ``--networks 1x16 --networks 1x32`` (steps x width). What was drawn is used again by the next run.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import dask
import numpy as np
import torch

import nntomo_dask as nt
from nntomo_dask.arrays import recipes
from nntomo_dask.compute import blas, limits
from nntomo_dask.kernels import unet
from nntomo_dask.networks.unrolled import Geometry, UnrolledNetwork
from nntomo_dask.training import loop
from nntomo_dask.training.checkpoints import Checkpoint
from nntomo_dask.training.unrolled import KIND, sets, training as training_room
from nntomo_dask.training.unrolled.scenes import Scene, SceneNoise, Scenes

GEOMETRY = Geometry(projections=(6, 32), reach_deg=(55.0, 90.0))
EPOCH = 1024  # scenes between two validations
FIRST = 64  # scenes that there have to be before a network learns
READERS = 6
ARRAYS = ("first", "second", "descent", "truth")  # of a scene, kept in half precision


def make(text: str, number: int, folder: Path) -> None:
    """Write a scene, whole or not at all."""
    path = folder / f"{number:06d}.npz"
    if path.exists():
        return
    scene = Scenes.from_json(text).scene(number)
    part = folder / f".{number:06d}.{os.getpid()}.npz"
    others = {"angles_deg": scene.angles_deg, "noise": scene.noise, "frequency_steps": scene.frequency_steps}
    np.savez(part, **others, **{name: getattr(scene, name).astype(np.float16) for name in ARRAYS})
    part.rename(path)


def load(path: Path) -> Scene:
    """A scene that `make` wrote."""
    with np.load(path) as kept:
        arrays = {name: kept[name].astype(np.float32) for name in ARRAYS}
        return Scene(kept["angles_deg"], noise=float(kept["noise"]), frequency_steps=kept["frequency_steps"], **arrays)


def draw(text: str, count: int, folder: Path, processes: int, deadline: float) -> None:
    """Make scenes until there are enough or the time has come."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=blas.limit_to_one) as pool:
        waiting = []
        for number in range(count):
            waiting.append(pool.submit(make, text, number, folder))
            if len(waiting) > 3 * processes:
                waiting.pop(0).result()
            if time.time() > deadline:
                break
        for one in waiting:
            one.cancel()


@dataclass(frozen=True)
class Drawn(Scenes):
    """Scenes of a folder, any of them at a time, while more are being made."""

    folder: str = ""

    def scenes(self, numbers: Any, *, workers: int) -> Generator[Scene, None, None]:
        """Without end; none where too few were drawn for ten minutes."""
        rng = np.random.default_rng(self.seed)

        def known() -> Iterator[Path]:
            there: list[Path] = []
            patience = 600
            while patience:
                if len(there) < FIRST or rng.random() < 0.02:
                    there = sorted(Path(self.folder).glob("[0-9]*.npz"))
                if len(there) < FIRST:
                    time.sleep(1)
                    patience -= 1
                else:
                    yield there[rng.integers(len(there))]

        with ThreadPoolExecutor(READERS) as pool:
            waiting = []
            for path in known():
                waiting.append(pool.submit(load, path))
                if len(waiting) > 4 * READERS:
                    yield waiting.pop(0).result()


class Timed(training_room.Adam):
    """Ends at a time, when the learning rate has fallen to zero."""

    begin: float = 0.0
    deadline: float = 0.0

    def begin_with(self, parameters: Any) -> None:
        """Start from those of a network, not from random ones."""
        self.vector.data = self._tensor(parameters)
        self.average = self.vector.detach().clone()

    def progress(self, taken: int) -> float:
        """By the clock."""
        if taken == 0:
            self.begin = time.time()
        return min((time.time() - self.begin) / max(self.deadline - self.begin, 1), 1.0)

    def iterate(self, state: Any) -> Iterator[Any]:
        """The last state ends an epoch."""
        for after in super().iterate(state):
            if time.time() > self.deadline:
                after.loss = after.total / after.batch if not after.epoch_complete else after.loss
                after.epoch_complete = True
                yield after
                return
            yield after


def learn(
    name: str,
    settings: Any,
    both: list[Any],
    out: Path,
    seed: int,
    minutes: float,
    deadline: float,
    start: Path | None,
) -> None:
    """Train one network until the deadline."""
    source = Scenes.from_json(both[0].attrs["scenes"])
    drawn = Drawn(**vars(source), folder=str(out / "scenes"))
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    hardware = torch.cuda.get_device_name() if where.type == "cuda" else "CPU"
    parameters = {**vars(settings), "seed": seed, "minutes": minutes, "device": hardware}
    first = None if start is None else nt.load_network(start)
    inputs = [one.attrs["recipe"] for one in both] + ([] if first is None else [first.recipe])
    recipe = recipes.record("pretrain", parameters, inputs)
    count = unet.parameter_count(unet.channel_count(settings.neighbours), settings.width)
    zeros = np.zeros((settings.steps, count), np.float32)
    frame = UnrolledNetwork(source.geometry, zeros, settings.width, settings.neighbours, recipe)
    reached = Checkpoint(KIND, frame)
    validation = Scenes.from_json(both[1].attrs["scenes"])
    begin = time.time()
    with blas.one_thread(), dask.config.set(num_workers=min(limits.cores(), 4)):
        numbers = range(int(both[1].attrs["count"]))
        solver = Timed(settings, seed, drawn, validation, numbers, where, max_epochs=10**6)
        solver.deadline = deadline
        if first is not None:
            solver.begin_with(first.parameters)
        path = out / f"{name}.training.safetensors"
        loop.run(solver, reached, max_epochs=10**6, patience=10**6, path=path, progress="none")
    network = reached.best_network()
    scenes = len(list(Path(drawn.folder).glob("[0-9]*.npz")))
    network.recipe["parameters"] |= {"scenes": scenes, "epochs": len(reached.losses)}
    nt.save_network(network, out / f"{name}.safetensors")
    losses = [round(validation_loss, 4) for _, validation_loss in reached.losses]
    told = {"network": name, "seconds": round(time.time() - begin), "epochs": len(losses), "validation": losses}
    click.echo(json.dumps(told))
    (out / f"{name}.json").write_text(json.dumps(told))


@click.command(help=__doc__.partition("\n")[0])
@click.option("--minutes", default=60.0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("stores/pretrain"), show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the scenes and the first weights.")
@click.option("--size", default=96, show_default=True, help="Pixels along a slice.")
@click.option("--phantom", default="materials", show_default=True)
@click.option("--count", default=100_000, show_default=True, help="The most scenes.")
@click.option("--processes", type=int, help="That draw scenes. Default: all cores but one.")
@click.option(
    "--networks", multiple=True, default=["1x32"], show_default=True, help="Steps x width, or with x neighbours."
)
@click.option("--flawed", default=sets.FLAWED, show_default=True, help="Share of the scenes with flaws.")
@click.option("--start", type=click.Path(path_type=Path), help="A network to begin with, of the same size.")
@click.option("--learning-rate", default=1e-3, show_default=True)
@click.option("--batch-size", default=4, show_default=True, help="Scenes in a step of Adam.")
def main(
    minutes: float,
    out: Path,
    seed: int,
    size: int,
    phantom: str,
    count: int,
    processes: int | None,
    networks: tuple[str, ...],
    flawed: float,
    start: Path | None,
    learning_rate: float,
    batch_size: int,
) -> None:
    if count < FIRST:
        raise click.BadParameter(f"at least {FIRST}", param_hint="--count")
    deadline = time.time() + 60 * minutes
    both = list(
        sets.drawn_scenes(GEOMETRY, phantom=phantom, noise=SceneNoise(drawn=True), size=size, flawed=flawed, seed=seed)
    )
    text, folder = both[0].attrs["scenes"], out / "scenes"
    folder.mkdir(parents=True, exist_ok=True)
    make(text, 0, folder)  # compiles the kernels for all
    context = multiprocessing.get_context("spawn")
    makers = processes or max(limits.cores() - 1, 1)
    running = [context.Process(target=draw, args=(text, count, folder, makers, deadline))]
    for one in networks:
        steps, width, *rest = (int(part) for part in one.split("x"))
        settings = training_room.Fit(
            steps=steps,
            width=width,
            neighbours=rest[0] if rest else 2,
            epoch_scenes=EPOCH,
            batch_size=batch_size,
            learning_rate=learning_rate,
        )
        run = (one, settings, both, out, seed, minutes, deadline, start)
        running.append(context.Process(target=learn, args=run))
    for process in running:
        process.start()
    for process in running[1:]:
        process.join()
    running[0].join()  # it ends at the same time
    click.echo(f"{len(list(folder.glob('[0-9]*.npz')))} scenes")


if __name__ == "__main__":
    main()
