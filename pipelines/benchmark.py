"""How fast the pieces and the whole are, side by side with ASTRA on the same cores in the same run.

``make benchmark`` runs it: half an hour or so, tables, and a JSON file and a figure in ``stores/benchmark``. Machines
are noisy: figures are medians of alternating repetitions, and what counts are the ratios. docs/performance.md explains
the floors. ``--parts`` chooses, ``--size`` makes all of it smaller.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
import psutil

import nntomo_dask as nt
from nntomo_dask.compute import cluster, device
from nntomo_dask.kernels import astra as astra_engine, backproject, filters, project
from nntomo_dask.networks.nnfbp import Form, folded
from nntomo_dask.reconstruction.sirt import Sirt
from nntomo_dask.training.checkpoints import open_checkpoint

HIDDEN = 8  # hidden nodes, where nothing else is said


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def side_by_side(ours, theirs, slices, repetitions=5):
    """Our kernel on some slices and ASTRA on one, in turn, each once before for the compiler; medians."""
    ours(), theirs()
    pairs = [(seconds(ours) / slices, seconds(theirs)) for _ in range(repetitions)]
    mine, other = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(astra_time / own for own, astra_time in pairs)
    return {"milliseconds a slice": mine, "ASTRA, milliseconds a slice": other, "ratio": ratio}


def on_one_core(function):
    """Run a function with all threads of this process on one core, and give its result."""
    cores = os.sched_getaffinity(0)
    pin({min(cores)})
    try:
        return function()
    finally:
        pin(cores)


def pin(cores):
    """Bind every thread that this process has to some cores; threads to come inherit them."""
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(thread.name), cores)


def network_for(angles, size, hidden=HIDDEN):
    """Some network of the right shape; how well it is trained does not matter to its speed."""
    series = nt.tilt_series(np.zeros((1, angles.size, size), np.float32), angles)
    sets = nt.phantom_samples(series, phantom="ellipses", n_slices=4, n_samples=1000, filters="shared")
    return nt.train_nnfbp(*sets, hidden_nodes=hidden, solver="lm", max_epochs=1, progress="none")


def network_slab(angles, size, hidden=HIDDEN, slices=8):
    """Reconstruction of a slab by a network: filtering, and the kernel alone."""
    rows = np.random.default_rng(0).random((slices, angles.size, size), np.float32)
    responses, end = folded([network_for(angles, size, hidden)], [1.0])
    filtered = filters.filter_rows(rows, responses)
    images = np.empty((slices, size, size), np.float32)
    radians = np.deg2rad(angles)

    def kernel():
        backproject.backproject_network(filtered, radians, end, out=images)

    def with_filtering():
        backproject.backproject_network(filters.filter_rows(rows, responses), radians, end, out=images)

    return kernel, with_filtering, rows


def kernels(size):
    """NN-FBP, FBP, the projector pair and a SIRT iteration, one core each."""
    angles, many = nt.tilt_angles("full", 9), nt.tilt_angles("tem", 29)
    kernel, with_filtering, rows = network_slab(angles, size)
    rng = np.random.default_rng(0)
    images = rng.random((32, size, size), np.float32)
    sinograms = rng.random((32, 29, size), np.float32)
    radians = np.deg2rad(many)
    ramp = filters.ramp(size)[None, None]

    def fbp():
        backproject.backproject(filters.filter_rows(sinograms, ramp)[:, 0], radians)

    def eight_fbps_by_astra():
        for _ in range(HIDDEN):
            astra_engine.fbp(rows[:1], angles, window="ram-lak")

    result = {
        "NN-FBP kernel, 9 angles, 8 hidden nodes (ASTRA: 8 FBPs)": side_by_side(kernel, eight_fbps_by_astra, 8),
        "the same with filtering": side_by_side(with_filtering, eight_fbps_by_astra, 8),
        "FBP, 29 angles": side_by_side(
            fbp, lambda: astra_engine.fbp(sinograms[:1], many, window="ram-lak"), 32, repetitions=3
        ),
        "projection, 29 angles": side_by_side(
            lambda: project.forward(images, radians), lambda: astra_engine.forward(images[:1], many), 32, repetitions=3
        ),
        "its transpose, 29 angles": side_by_side(
            lambda: project.back(sinograms, radians), lambda: astra_engine.back(sinograms[:1], many), 32, repetitions=3
        ),
    }
    for slices in (8, 32):
        result[f"SIRT iteration, 29 angles, slabs of {slices}"] = sirt_iteration(sinograms[:slices], many)
    return result


def sirt_iteration(rows, angles, iterations=4):
    """One iteration: the difference of runs with more and with one of them, against ASTRA's CPU SIRT."""
    slices, _, size = rows.shape

    def run(count):
        Sirt(tolerance=0, max_iterations=count, minimum=0.0).slab(rows, angles)

    run(1)
    with astra_sirt(rows[0], angles) as astra_run:
        astra_run(1)
        pairs = []
        for _ in range(3):
            ours = (seconds(lambda: run(1 + iterations)) - seconds(lambda: run(1))) / iterations / slices
            pairs.append((ours, seconds(lambda: astra_run(iterations)) / iterations))
    return {
        "milliseconds a slice": 1000 * statistics.median(ours for ours, _ in pairs),
        "ASTRA, milliseconds a slice": 1000 * statistics.median(theirs for _, theirs in pairs),
        "ratio": statistics.median(theirs / ours for ours, theirs in pairs),
        "size": size,
    }


@contextlib.contextmanager
def astra_sirt(rows, angles):
    """ASTRA's CPU SIRT of one slice with values of at least 0; gives the function that runs some iterations."""
    import astra  # a part of the benchmark alone needs it

    size = rows.shape[-1]
    volume = astra.create_vol_geom(size, size)
    projections = astra.create_proj_geom("parallel", 1.0, size, -np.deg2rad(angles))
    projector = astra.create_projector("linear", projections, volume)
    data = [
        astra.data2d.create("-sino", projections, np.ascontiguousarray(rows)),
        astra.data2d.create("-vol", volume),
    ]
    settings = astra.astra_dict("SIRT")
    settings.update(ProjectorId=projector, ProjectionDataId=data[0], ReconstructionDataId=data[1])
    settings["option"] = {"MinConstraint": 0.0}
    algorithm = astra.algorithm.create(settings)
    try:
        yield lambda iterations: astra.algorithm.run(algorithm, iterations)
    finally:
        astra.algorithm.delete(algorithm)
        astra.data2d.delete(data)
        astra.projector.delete(projector)


def scaling(size):
    """NN-FBP with filtering, milliseconds a slice on one core, against pixels, angles and hidden nodes."""

    def cost(angles, pixels, hidden):
        _, run, _ = network_slab(nt.tilt_angles("full", angles), pixels, hidden)
        run()
        return 1000 * statistics.median(seconds(run) for _ in range(5)) / 8

    return {
        "pixels": {pixels: cost(9, pixels, HIDDEN) for pixels in (size // 4, size // 2, size)},
        "angles": {angles: cost(angles, size, HIDDEN) for angles in (9, 18, 36)},
        "hidden nodes": {hidden: cost(9, size, hidden) for hidden in (1, 2, 4, 8, 16)},
    }


def tree_memory(process):
    """Bytes of a process and its descendants now, what they share counted once; the same with it counted for each."""
    proportional = resident = 0
    for one in (process, *process.children(recursive=True)):
        try:
            resident += one.memory_info().rss
            proportional += one.memory_full_info().pss
        except psutil.Error:
            continue  # it has just ended
    return proportional, resident


def command(*words):
    """Run `nntomo` and measure the wall time and the peak memory of its process tree."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "nntomo_dask.cli", *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        errors = []
        reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
        reader.start()
        peaks = []
        while process.poll() is None:
            try:
                peaks.append(tree_memory(psutil.Process(process.pid)))
            except psutil.NoSuchProcess:
                break
            time.sleep(0.1)
        reader.join()
    if process.returncode:
        raise click.ClickException(errors[0].decode())
    return {
        "seconds": time.perf_counter() - start,
        "peak MiB": max(proportional for proportional, _ in peaks) / 2**20,
        "peak MiB, shared pages counted for each process": max(resident for _, resident in peaks) / 2**20,
    }


def whole(size, folder, memory="2GiB"):
    """The verbs of the command from Zarr to Zarr on a volume of size³, against ASTRA on the same cores."""
    volume, series, network = folder / "volume.zarr", folder / "series.zarr", folder / "network.safetensors"
    common = ("--memory", memory)
    result = {
        f"phantom {size}³": command("phantom", "ellipses", "--size", size, *common, "-o", volume),
        "project, 9 angles": command("project", volume, "--range", "full", "--count", 9, *common, "-o", series),
        "train": command("train", "--for", series, *common, "-o", network),
    }
    nnfbp = ("reconstruct", "--method", "nnfbp", "--network", network, "--consistency", "none", *common)
    scratch = folder / "reconstruction.zarr"
    for name, source, options in (
        ("NN-FBP", series, ()),
        ("NN-FBP, 1 worker", series, ("--workers", 1)),
        ("NN-FBP, worker processes", series, ("--scheduler", "processes")),
        ("NN-FBP again", series, ()),
    ):
        result[name] = command(*nnfbp, source, *options, "-o", scratch)
        shutil.rmtree(scratch)
    tall = nt.open(series)
    twice = nt.tilt_series(np.concatenate([tall.values, tall.values]), tall.angle.values)
    nt.save(twice, folder / "twice.zarr")
    result[f"NN-FBP, {2 * size} slices"] = command(*nnfbp, folder / "twice.zarr", "-o", scratch)
    shutil.rmtree(scratch)
    result["FBP"] = command("reconstruct", "--method", "fbp", series, *common, "-o", scratch)
    if device.gpu_count():
        shutil.rmtree(scratch)
        result["NN-FBP on GPUs"] = command(*nnfbp, series, "--gpus", "all", "-o", scratch)
    result["compare"] = command("compare", scratch, "--reference", volume, *common)
    result["8 ASTRA FBPs of every slice, the same cores, from 4 slices a core [s]"] = theirs = astra_fbps(tall, size)
    result["ratio to ASTRA"] = theirs / statistics.median(
        [result["NN-FBP"]["seconds"], result["NN-FBP again"]["seconds"]]
    )
    result["workers, without the program's start"] = workers(series, network, folder)
    result["10⁶ training voxels [s]"] = seconds(
        lambda: nt.training_samples(nt.open(series), nt.open(volume), n_samples=10**6, filters="shared")[
            ["inputs", "target"]
        ].compute()
    )
    return result


def workers(series, network, folder, slices=256, repetitions=3):
    """Seconds of NN-FBP of some slices, without any program's start, by the number of workers.

    From Zarr to Zarr, with one worker on one core and on all of them, whose others then flush and unpack; and as far as
    the volume in memory.
    """
    volume = nt.nnfbp(
        nt.open(series, slices=8).isel(z=slice(0, slices)), nt.load_network(network), scale=1, consistency="none"
    )
    counts = sorted({1, cluster.default_workers()})

    def run(count):
        with cluster.session(workers=count, scheduler="threads"):
            taken = seconds(lambda: nt.save(volume, folder / "workers.zarr"))
        shutil.rmtree(folder / "workers.zarr")
        return taken

    corners = volume.data.map_blocks(_corner, dtype=np.float32, chunks=(volume.data.chunks[0], (1,), (1,)))

    def compute_only(count):
        return seconds(lambda: corners.compute(scheduler="threads", num_workers=count))

    run(counts[-1]), compute_only(counts[-1])
    times = [[run(count) for count in counts] for _ in range(repetitions)]
    on_one = [(on_one_core(lambda: run(1)), run(counts[-1])) for _ in range(repetitions)]
    unwritten = [[compute_only(count) for count in counts] for _ in range(repetitions)]
    return {
        "without writing: 1 worker over all": statistics.median(row[0] / row[-1] for row in unwritten),
        "seconds": {
            count: statistics.median(column) for count, column in zip(counts, zip(*times, strict=True), strict=True)
        },
        "1 worker over all": statistics.median(row[0] / row[-1] for row in times),
        "1 worker on one core over all on all": statistics.median(one / every for one, every in on_one),
    }


def _corner(block):
    """All that is kept of a slab whose computation is timed."""
    return block[:, :1, :1]


def astra_fbps(series, size, slices=4):
    """Seconds of eight FBPs of every slice by ASTRA, a slice a core, from some slices on every core."""
    rows, angles = series.isel(z=slice(0, slices)).values, series.angle.values
    cores = cluster.default_workers()

    def core(_):
        for _ in range(HIDDEN):
            astra_engine.fbp(rows, angles, window="ram-lak")

    with ThreadPoolExecutor(cores) as pool:  # ASTRA releases the interpreter
        taken = seconds(lambda: list(pool.map(core, range(cores))))
    return taken / slices / cores * size


def stores(size, folder):
    """Writing and reading a chunk of 8 slices of a reconstruction by several codecs, one core."""
    import zarr
    from zarr.codecs import BloscCodec

    volume = nt.fbp(nt.project(nt.ellipse_stack((8, size, size)), nt.tilt_angles("full", 9))).values
    blosc = {
        f"{name}, {shuffle}": [BloscCodec(cname=name, clevel=5, shuffle=shuffle, typesize=4)]
        for name in ("lz4", "zstd")
        for shuffle in ("shuffle", "bitshuffle")
    }
    result = {}
    for name, compressors in {"Zarr's default": "auto", "none": None, **blosc}.items():
        array = zarr.create_array(
            folder / "codec.zarr",
            shape=volume.shape,
            chunks=volume.shape,
            dtype="float32",
            compressors=compressors,
            overwrite=True,
        ).with_config({"write_empty_chunks": True})
        array[:] = volume
        result[name] = {
            "writing, ms a slice": statistics.median(
                seconds(lambda a=array: a.__setitem__(..., volume)) for _ in range(5)
            )
            * 125,
            "reading, ms a slice": statistics.median(seconds(lambda a=array: a[:]) for _ in range(5)) * 125,
            "share of the bytes": array.nbytes_stored() / volume.nbytes,
        }
    return result


def training_set(folder):
    """100,000 voxels from 100 slices of 512² at 9 angles, Zarr to memory, on all cores."""
    volume = nt.save(nt.ellipse_stack((100, 512, 512), seed=1), folder / "volume-512.zarr")
    series = nt.save(nt.project(volume, nt.tilt_angles("full", 9)), folder / "series-512.zarr")
    samples = nt.training_samples(series, volume, n_samples=100_000, filters="shared")[["inputs", "target"]]
    samples.compute()
    times = [seconds(samples.compute) for _ in range(3)]
    return {"seconds": statistics.median(times), "workers": cluster.default_workers()}


def training(folder, adam_seconds):
    """Levenberg–Marquardt from 5 seeds, and Adam for about `adam_seconds`; one core."""
    angles = nt.tilt_angles("full", 9)
    sets = []
    for seed, slices in ((1, 100), (2, 50)):
        volume = nt.ellipse_stack((slices, 512, 512), seed=seed)
        own = nt.training_samples(nt.project(volume, angles), volume, n_samples=100_000, seed=seed, filters="shared")
        sets.append(own.compute())

    def run(name, **settings):
        path = folder / f"{name}.safetensors"
        path.unlink(missing_ok=True)
        on_one_core(lambda: nt.train_nnfbp(*sets, checkpoint=path, progress="none", output="sigmoid", **settings))
        history = open_checkpoint(path)
        losses = np.minimum.accumulate([validation for _, validation in history.losses])
        return np.array(history.seconds), losses

    runs = [run(f"lm-{seed}", solver="lm", seed=seed) for seed in range(5)]
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


def large_training(folder, voxels=4_000_000):
    """One pass over a stored set of some million voxels, in chunks on all cores; seconds for a million."""
    from nntomo_dask.training.nnfbp import levenberg_marquardt, sets

    volume = nt.open(folder / "volume-512.zarr")
    series = nt.open(folder / "series-512.zarr")
    saved = nt.save(nt.training_samples(series, volume, n_samples=voxels, filters="shared"), folder / "samples.zarr")
    chunked = sets.Chunked.of(saved["inputs"].data, saved["target"].data)
    form = Form(saved.sizes["input"], HIDDEN)
    parameters = np.random.default_rng(0).normal(size=form.count)
    one_pass = [seconds(lambda: levenberg_marquardt.normal_equations(parameters, chunked, form)) for _ in range(3)]
    return {"voxels": voxels, "normal equations, seconds for 10⁶": statistics.median(one_pass) / voxels * 10**6}


def simulation(folder, projections=8):
    """Projections an hour of one cell of UiO-66, both modes, 128 × 128 pixels, on all cores; the command's memory."""
    result = {}
    for scheduler, thickness in (("threads", 0.2), ("threads", 0.1), ("processes", 0.2)):
        runs = []
        for count in (8, 8 + projections):  # fewer are done by threads while processes start
            options = ("--phonons", 0, "--detector-mrad", "50,80", "--interpolation", 4)
            options += ("--slice-thickness-nm", thickness, "--scheduler", scheduler)
            output = folder / f"simulated-{scheduler}-{thickness}-{count}.zarr"
            runs.append(command("simulate", "UiO-66", "--range", "full", "--count", count, *options, "-o", output))
        taken = runs[1]["seconds"] - runs[0]["seconds"]
        result[f"{scheduler}, slices of {thickness} nm"] = {
            "projections an hour, without the program's start": projections / taken * 3600,
            **{key: value for key, value in runs[1].items() if key != "seconds"},
        }
    return result


def msdnet():
    """MS-D Net's part of the benchmark, which needs PyTorch."""
    import benchmark_msdnet

    return benchmark_msdnet


def unrolled_room():
    """The unrolled networks' part, which needs PyTorch."""
    import benchmark_unrolled

    return benchmark_unrolled


def gpu(size, angles=9, slices=128):
    """NN-FBP on one GPU: device time of filtering and kernel, and the rates that come of it."""
    cupy = device.cupy()
    network = network_for(nt.tilt_angles("full", angles), size)
    responses, end = folded([network], [1.0])
    rows = cupy.random.default_rng(0).random((slices, angles, size), dtype=np.float32)
    radians = np.deg2rad(network.layout.used_angles_deg)

    def run():
        for first in range(0, slices, 32):
            backproject.backproject_network(filters.filter_rows(rows[first : first + 32], responses), radians, end)

    run()
    begin, finish = cupy.cuda.Event(), cupy.cuda.Event()
    times = []
    for _ in range(5):
        begin.record()
        run()
        finish.record()
        finish.synchronize()
        times.append(cupy.cuda.get_elapsed_time(begin, finish) / 1000)
    taken = statistics.median(times) * size / slices
    voxels = size**3
    return {
        "device": cupy.cuda.runtime.getDeviceProperties(0)["name"].decode(),
        f"seconds for {size} slices, copies excluded": taken,
        "written, GB/s": 4 * voxels / taken / 1e9,
        "read by the interpolation, GB/s": voxels * angles * HIDDEN * 2 * 4 / taken / 1e9,
    }


def draw(result, path):
    """A figure of the ratios and of the cost against sizes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=[1.6, 1, 1, 1])
    ratios = {name: value["ratio"] for name, value in result.get("kernels, one core", {}).items()}
    axes[0].barh(list(ratios), list(ratios.values()), color="tab:blue")
    axes[0].invert_yaxis()
    axes[0].set_xlabel("times faster than ASTRA on the same core")
    for ax, (name, costs) in zip(axes[1:], result.get("NN-FBP against sizes, ms a slice", {}).items(), strict=False):
        ax.loglog(sizes := [int(key) for key in costs], list(costs.values()), "o-")
        ax.set_ylim(0.5, 100)
        ax.set_yticks([1, 10, 100], ["1", "10", "100"])
        ax.set_xlabel(name)
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.minorticks_off()
        ax.set_ylabel("ms a slice, one core")
    figure.savefig(path, dpi=120)


@click.command(help="Measure the pieces and the whole against ASTRA and against the numbers in docs/performance.md.")
@click.option("--size", default=1024, show_default=True, help="Pixels along a slice, and slices of a volume.")
@click.option(
    "--parts",
    default="all",
    show_default=True,
    help="Some of whole,kernels,scaling,stores,training,msdnet,unrolled,simulation,gpu.",
)
@click.option("--adam-seconds", default=100.0, show_default=True, help="How long Adam may train; 0 leaves it out.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("stores/benchmark"), show_default=True)
def main(size: int, parts: str, adam_seconds: float, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    result = {"cores": cluster.default_workers(), "size": size}
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        folder = Path(temporary)
        sections = {
            "whole": [(f"whole, {size}³, Zarr to Zarr", lambda: whole(size, folder))],
            "kernels": [("kernels, one core", lambda: on_one_core(lambda: kernels(size)))],
            "scaling": [("NN-FBP against sizes, ms a slice", lambda: on_one_core(lambda: scaling(size)))],
            "stores": [("stores, one core", lambda: on_one_core(lambda: stores(size, folder)))],
            "training": [
                ("training set, 100,000 voxels from 512², 9 angles", lambda: training_set(folder)),
                ("training, 100,000 + 100,000 voxels, one core", lambda: training(folder, adam_seconds)),
                ("training on a stored set", lambda: large_training(folder)),
            ],
            "msdnet": [
                ("MS-D Net, a slice, one core", lambda: on_one_core(lambda: msdnet().slices(size))),
                ("MS-D Net, training, a slice of 128², one core", lambda: on_one_core(lambda: msdnet().step())),
            ],
            "unrolled": [
                ("unrolled networks, a slice, one core", lambda: on_one_core(lambda: unrolled_room().slices(size)))
            ],
            "simulation": [("simulation, UiO-66, HAADF and iDPC", lambda: simulation(folder))],
            "gpu": [("GPU", lambda: gpu(size) if device.gpu_count() else "none at hand")],
        }
        chosen = list(sections) if parts == "all" else parts.split(",")
        if unknown := set(chosen) - set(sections):
            raise click.BadParameter(
                f"{', '.join(sorted(unknown))}; there are {', '.join(sections)}", param_hint="--parts"
            )
        with cluster.session(scheduler="threads"):
            for title, part in (section for name in chosen for section in sections[name]):
                click.echo(f"\n{title}")
                result[title] = part()
                click.echo(json.dumps(result[title], indent=2, default=float, ensure_ascii=False))
                (out / "benchmark.json").write_text(json.dumps(result, indent=2, default=float, ensure_ascii=False))
    draw(result, out / "benchmark.png")
    click.echo(f"\n{out / 'benchmark.json'}\n{out / 'benchmark.png'}")


if __name__ == "__main__":
    main()
