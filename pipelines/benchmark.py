"""How fast the pieces are, side by side with ASTRA on the same core in the same run.

``make benchmark`` runs it: some minutes, a table, and ``stores/benchmark/benchmark.json``. Machines are noisy: every
figure is a median of alternating repetitions, and what counts are the ratios. docs/performance.md explains the floors.
"""

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np

import nntomo_dask as nt
from nntomo_dask import astra_engine, cluster, filters
from nntomo_dask.kernels import backproject, project
from nntomo_dask.networks.nnfbp import folded
from nntomo_dask.training.history import History


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def side_by_side(ours, theirs, slices, repetitions=5):
    """Our kernel on some slices and ASTRA on one, in turn, each once before for the compiler; medians."""
    ours(), theirs()
    pairs = [(seconds(ours) / slices, seconds(theirs)) for _ in range(repetitions)]
    mine, other = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(astra / own for own, astra in pairs)
    return {"milliseconds a slice": mine, "ASTRA, milliseconds a slice": other, "ratio": ratio}


def network_backprojection(size):
    """A network of 8 hidden nodes at 9 angles: filtering and fused kernel, against 8 FBPs of each slice."""
    slices, angles = 8, nt.tilt_angles("full", 9)
    rng = np.random.default_rng(0)
    rows = rng.random((slices, 9, size), np.float32)
    series = nt.tilt_series(rows, angles)
    sets = nt.phantom_samples(series, n_slices=4, n_samples=1000)
    network = nt.train_nnfbp(*sets, max_epochs=1, progress="none")
    responses, end = folded(network, 1.0)
    filtered = filters.filter_rows(rows, responses)

    def kernel():
        backproject.backproject_network(filtered, np.deg2rad(angles), end)

    def with_filtering():
        backproject.backproject_network(filters.filter_rows(rows, responses), np.deg2rad(angles), end)

    def one_slice_by_astra():
        for _ in range(8):
            astra_engine.fbp(rows[:1], angles, window="ram-lak")

    return {
        name: side_by_side(ours, one_slice_by_astra, slices)
        for name, ours in (("kernel", kernel), ("with filtering", with_filtering))
    }


def projector_pair(size):
    """Joseph's projector and its transpose at 29 angles, 32 slices, against ASTRA's `linear` on one of them."""
    slices, angles = 32, nt.tilt_angles("tem", 29)
    rng = np.random.default_rng(0)
    images = rng.random((slices, size, size), np.float32)
    rows = rng.random((slices, 29, size), np.float32)
    radians = np.deg2rad(angles)
    pairs = {
        "forward": (lambda: project.forward(images, radians), lambda: astra_engine.forward(images[:1], angles)),
        "back": (lambda: project.back(rows, radians), lambda: astra_engine.back(rows[:1], angles)),
    }
    return {name: side_by_side(*pair, slices, repetitions=3) for name, pair in pairs.items()}


def training_set(folder):
    """100,000 voxels from 100 slices of 512² at 9 angles, Zarr to memory, on all cores."""
    volume = nt.save(nt.ellipse_stack((100, 512, 512), seed=1), folder / "volume.zarr")
    series = nt.save(nt.project(volume, nt.tilt_angles("full", 9)), folder / "series.zarr")
    samples = nt.training_samples(series, volume)[["inputs", "target"]]
    samples.compute()
    times = [seconds(samples.compute) for _ in range(3)]
    return {"seconds": statistics.median(times), "workers": cluster.default_workers()}


def training(folder, adam_seconds):
    """Levenberg–Marquardt from 5 seeds, and Adam for about `adam_seconds`; one core."""
    angles = nt.tilt_angles("full", 9)
    sets = []
    for seed, slices in ((1, 100), (2, 50)):
        volume = nt.ellipse_stack((slices, 512, 512), seed=seed)
        sets.append(nt.training_samples(nt.project(volume, angles), volume, seed=seed).compute())

    def run(name, **settings):
        path = folder / f"{name}.safetensors"
        path.unlink(missing_ok=True)
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        try:
            nt.train_nnfbp(*sets, checkpoint=path, progress="none", **settings)
        finally:
            os.sched_setaffinity(0, cores)
        history = History.load(path)
        losses = np.minimum.accumulate([validation for _, validation in history.losses])
        return np.array(history.seconds), losses

    runs = [run(f"lm-{seed}", seed=seed) for seed in range(5)]
    finals = [float(losses[-1]) for _, losses in runs]
    after_10 = [float(losses[times <= 10][-1] / losses[-1] - 1) if times[0] <= 10 else None for times, losses in runs]
    result = {
        "final validation losses of 5 seeds": finals,
        "spread, largest over smallest - 1": max(finals) / min(finals) - 1,
        "above the final loss after 10 s": after_10,
        "seconds": [float(times[-1]) for times, _ in runs],
    }
    if adam_seconds > 0:
        import torch

        torch.set_num_threads(1)
        # Whole epochs until the time is up: the number that fits is found by a first short run.
        short, _ = run("adam-short", solver="adam", max_epochs=2)
        epochs = max(int(adam_seconds / short[-1] * 2), 1)
        times, losses = run("adam", solver="adam", max_epochs=epochs, patience=epochs)
        best = float(losses[-1])
        result["Adam"] = {"seconds": float(times[-1]), "best validation loss": best, "epochs": epochs}
        result["Adam's best over the worst of Levenberg–Marquardt"] = best / max(finals)
    return result


@click.command(help="Measure the pieces against ASTRA and against the numbers in docs/performance.md.")
@click.option("--size", default=1024, show_default=True, help="Pixels along a slice, for the kernels.")
@click.option("--adam-seconds", default=100.0, show_default=True, help="How long Adam may train; 0 leaves it out.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("stores/benchmark"), show_default=True)
def main(size: int, adam_seconds: float, out: Path) -> None:
    result = {"cores": os.cpu_count(), "size": size}
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        parts = {
            "NN-FBP, 9 angles, 8 hidden nodes, one core": lambda: network_backprojection(size),
            "projector pair, 29 angles, one core": lambda: projector_pair(size),
            "training set, 100,000 voxels from 512², 9 angles": lambda: training_set(Path(folder)),
            "training, 100,000 + 100,000 voxels, one core": lambda: training(Path(folder), adam_seconds),
        }
        for title, part in parts.items():
            click.echo(f"\n{title}")
            result[title] = part()
            click.echo(json.dumps(result[title], indent=2, default=float, ensure_ascii=False))
    (out / "benchmark.json").write_text(json.dumps(result, indent=2, default=float, ensure_ascii=False))
    click.echo(f"\n{out / 'benchmark.json'}")


if __name__ == "__main__":
    main()
