"""How far each method is from the truth: specimens × noise × projections × methods, over several seeds.

    python pipelines/truth.py --size small               # minutes on 2 cores
    python pipelines/truth.py --size full                # days; stop and start it at will
    python pipelines/truth.py --size full --only faceted --only 2% --only tem8 --only sirt --only tv

Results go to ``stores/truth``: ``truth.csv``, a row for each reconstruction (what is there is not computed again),
``truth.md``, the table of docs/theory.md, and ``truth.png``. ``--figure`` also draws slices of the reconstructions, and
``--peers`` writes series and truths for ``peers/peers.py``, which adds the rows of other programs to the same file.

A series is projected from a specimen that is drawn twice as fine as the volume (``--rays fine``), so that no method is
given projections that its own projector made; ``--rays grid`` takes the volume itself. Noise is Gaussian; its
deviation is a share of the brightest ray. Networks are trained once for each geometry and noise, on phantoms with the
same noise, and kept; pretrained ones come with the package. Where a method has a weight, "oracle" is the best of a
list of values, which only the truth tells.
"""

import argparse
import functools
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from specimens import FINER, SPECIMENS, binned, fine_specimen
from truth_rows import REFERENCE, Case, Column, Row, append, markdown, ratios, read

import nntomo_dask as nt
from nntomo_dask.plotting import figures as plotting
from nntomo_dask.training.declaration import Pairs

TRAINED = 0.5  # brightest ray of a specimen as a share of the detector, about; gives the noise of phantoms for training


@dataclass(frozen=True)
class Size:
    """How much is computed."""

    voxels: int
    specimens: tuple[str, ...]
    noise: tuple[float, ...]  # [% of the brightest ray]
    geometries: tuple[str, ...]
    seeds: tuple[int, ...]
    slices: int  # of the phantoms that networks are trained on
    depth: int  # of MS-D Net
    epochs: int  # of MS-D Net


SIZES = {
    "small": Size(
        voxels=48,
        specimens=("faceted", "coreshell", "smooth"),
        noise=(0, 2),
        geometries=("tem8",),
        seeds=(1,),
        slices=200,
        depth=15,
        epochs=6,
    ),
    "full": Size(
        voxels=96,
        specimens=tuple(SPECIMENS),
        noise=(0, 1, 2, 5),
        geometries=("tem8", "tem15", "tem29", "full8", "full15", "full29"),
        seeds=(1, 2, 3),
        slices=800,
        depth=30,
        epochs=12,
    ),
}


@dataclass(frozen=True)
class Weight:
    """A parameter that decides how good a method is, and the values among which the truth chooses."""

    name: str
    values: tuple[float, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)  # beside it, where they are other than the method's


@dataclass(frozen=True)
class Configuration:
    """A method with its settings."""

    name: str
    title: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    phantom: str | None = None  # that its network is trained on
    pretrained: str | None = None  # the network that comes with the package
    training: Mapping[str, Any] = field(default_factory=dict)  # settings of it, where they are not the defaults
    weight: Weight | None = None


OF_0_1_0 = {"filters": "shared", "output": "sigmoid", "solver": "lm", "samples": 100_000}  # NN-FBP as it was trained
PLAIN = {"consistency": "none"}
ITERATIONS = (5, 10, 20, 40, 80, 160, 320)
CONFIGURATIONS = (
    Configuration("fbp", "FBP", "fbp"),
    Configuration("sirt-published", "SIRT, published", "sirt", {"tolerance": 0.01, "minimum": None}),
    Configuration(
        "sirt",
        "SIRT ≥ 0",
        "sirt",
        {"tolerance": 1e-3, "minimum": 0},
        weight=Weight("max_iterations", ITERATIONS, {"tolerance": 0, "minimum": 0}),
    ),
    Configuration("sirt-default", "SIRT, default", "sirt"),
    Configuration("cgls", "CGLS", "cgls", weight=Weight("iterations", (2, 3, 5, 8, 12, 20))),
    Configuration("nnfbp", "NN-FBP", "nnfbp", phantom="materials"),
    Configuration("nnfbp-ellipses", "NN-FBP 0.1.0, ellipses", "nnfbp", PLAIN, phantom="ellipses", training=OF_0_1_0),
    Configuration("nnfbp-mixed", "NN-FBP 0.1.0, mixed", "nnfbp", PLAIN, phantom="mixed", training=OF_0_1_0),
    Configuration("msdnet", "MS-D Net bodies", "msdnet", phantom="bodies"),
    Configuration("tv", "TV", "tv", weight=Weight("weight", (0.03, 0.1, 0.3, 1, 3, 10))),
    Configuration("unrolled", "Unrolled, pretrained", "unrolled", pretrained="general"),
    Configuration("unrolled-small", "the same, small", "unrolled", pretrained="general-small"),
    Configuration("unrolled-measured", "the same, measured", "unrolled", pretrained="measured"),
    Configuration("dart", "DART", "dart", weight=Weight("levels", (2, 3))),
)


def available() -> list[Configuration]:
    """The configurations whose method there is."""
    return [one for one in CONFIGURATIONS if one.method in nt.METHODS]


def columns() -> list[Column]:
    """Of the table: each method as it is, the best of its weights, and the peers."""
    own = itertools.chain.from_iterable(
        [Column(one.name, one.title, best=False)]
        + ([Column(one.name, f"{one.title}, oracle", best=True)] if one.weight else [])
        for one in CONFIGURATIONS
    )
    peers = {
        "peer-sart": "scikit-image SART, oracle",
        "peer-sirt": "ASTRA SIRT ≥ 0, oracle",
        "peer-dart": "DART by ASTRA",
        "peer-svmbir": "svmbir, oracle",
    }
    return [*own, *(Column(name, title, best=True) for name, title in peers.items())]


def angles_of(geometry: str) -> np.ndarray:
    """Angles of "tem8" or "full15", [degrees]."""
    kind = geometry.rstrip("0123456789")
    return nt.tilt_angles(kind, int(geometry.removeprefix(kind)))


def noisy(series: xr.DataArray, deviation: float, seed: Sequence[int]) -> xr.DataArray:
    """A series with Gaussian noise of a standard deviation, in its own units."""
    noise = np.random.default_rng(seed).normal(0, deviation, series.shape) if deviation else 0
    return series.copy(data=(series.values + noise).astype(np.float32))


@functools.lru_cache(maxsize=2)
def fine_volume(specimen: str, voxels: int, seed: int) -> np.ndarray:
    """A specimen on the finer grid."""
    return fine_specimen(specimen, voxels, seed)


def truth_of(case: Case) -> xr.DataArray:
    """The volume that a method should give."""
    return nt.volume(binned(fine_volume(case.specimen, case.voxels, case.seed), FINER))


def series_of(case: Case) -> xr.DataArray:
    """The noisy series of a case."""
    angles = angles_of(case.geometry)
    if case.rays == "grid":
        clean = nt.project(truth_of(case), angles).compute()
    else:
        fine = nt.project(nt.volume(fine_volume(case.specimen, case.voxels, case.seed)), angles).values
        z, count, detector = (case.voxels, FINER), (angles.size,), (case.voxels, FINER)
        # A mean over pixels of the detector, in lengths of the larger pixels.
        clean = nt.tilt_series(fine.reshape(*z, *count, *detector).mean(axis=(1, 4)) / FINER, angles)
    place = [case.seed, round(100 * case.noise), *case.specimen.encode(), *case.geometry.encode()]
    return noisy(clean, case.noise / 100 * float(clean.max()), place)


def network_of(one: Configuration, case: Case, size: Size, folder: Path) -> nt.Network:
    """The network of a configuration for a geometry and a noise: the one on disk, or trained now."""
    phantom = nt.PHANTOMS[one.phantom].for_training()
    if one.method == "nnfbp":
        phantom = phantom.for_single_slices()
    name = f"{one.name}_{case.voxels}_{case.geometry}_noise{case.noise:g}_{size.slices}"
    path = folder / f"{name}.safetensors"
    if path.exists():
        return nt.load_network(path)
    begin = time.monotonic()

    def pair(slices: int, seed: int) -> tuple[xr.DataArray, xr.DataArray]:
        volume = phantom.volume((slices, case.voxels, case.voxels), seed=seed).compute()
        clean = nt.project(volume, angles_of(case.geometry)).compute()
        return noisy(clean, case.noise / 100 * TRAINED * case.voxels, [seed]), volume

    # NN-FBP as it is by default looks at more slices, one by one, and is trained in less time nevertheless.
    slices = 2 * size.slices if one.method == "nnfbp" and not one.training else size.slices
    pairs = pair(slices, 1), pair(max(slices // 8, 16), 2)
    folder.mkdir(parents=True, exist_ok=True)
    if one.method == "nnfbp":
        declared = nt.TRAININGS["nnfbp"](**one.training)
        sets = declared.sets_of(*(Pairs([series], [volume]) for series, volume in pairs), seed=0)
        network = declared.train(*(part.compute() for part in sets), seed=0, progress="none")
    else:
        sets = [nt.training_slices(*both, scene=phantom.scene).compute() for both in pairs]
        network = nt.train_msdnet(*sets, depth=size.depth, max_epochs=size.epochs, progress="none")
    nt.save_network(network, path)
    print(f"trained {name} in {time.monotonic() - begin:.0f} s", flush=True)
    return network


def method_of(one: Configuration, case: Case, size: Size, out: Path, settings: Mapping[str, Any]) -> nt.Method:
    """The method of a configuration, with its network where it has one."""
    networks = {"networks": (network_of(one, case, size, out / "networks"),)} if one.phantom else {}
    if one.pretrained:
        networks = {"networks": (nt.pretrained_network(one.pretrained),)}
    return nt.METHODS[one.method](**settings, **networks)


def choices(one: Configuration) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Of a configuration the settings to run: its own, and one for each value of its weight."""
    yield "", one.settings
    if one.weight:
        for value in one.weight.values:
            yield f"{one.weight.name}={value:g}", {**one.settings, **one.weight.settings, one.weight.name: value}


_compiled: set[str] = set()  # methods that ran once


def timed(series: xr.DataArray, method: nt.Method) -> tuple[xr.DataArray, float, float]:
    """A reconstruction, its seconds, and those of the processor; the first of a method runs twice, if it is short."""
    while True:
        begin, cpu = time.perf_counter(), time.process_time()
        volume = nt.reconstruct(series, method).compute()
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu
        new = method.name not in _compiled
        _compiled.add(method.name)
        if not new or seconds > 20:
            return volume, seconds, cpu_seconds


def errors(volume: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Mean square error over all voxels, and the relative error."""
    mse = float(np.square(volume.astype(np.float64) - truth).mean())
    return mse, float(np.sqrt(mse / np.square(truth.astype(np.float64)).mean()))


def study(cases: Sequence[Case], chosen: Sequence[Configuration], size: Size, out: Path, *, peers: str) -> None:
    """Compute the rows that are not in the file."""
    path = out / "truth.csv"
    for case in cases:
        there = {row.key for row in read(path)}  # anew, so that several runs may share the work
        if peers == "write":
            keep_for_peers(case, out / "peers")
        missing = [
            (one, choice, settings)
            for one in chosen
            for choice, settings in choices(one)
            if (case, one.name, choice) not in there
        ]
        if not missing:
            continue
        series, truth = series_of(case), truth_of(case).values
        for one, choice, settings in missing:
            try:
                method = method_of(one, case, size, out, settings)
                volume, seconds, cpu_seconds = timed(series, method)
            except nt.SchemaError as error:
                print(f"{case} {one.name} {choice}: {error}", flush=True)
                continue
            row = Row(case, one.name, choice, *errors(volume.values, truth), seconds, cpu_seconds)
            append(path, row)
            if not choice:
                kept = slice_of(case, one, out)
                kept.parent.mkdir(exist_ok=True)
                np.save(kept, shown(volume.values, case, truth))
            print(f"{case} {one.name} {choice}: {row.mse:.6f} in {seconds:.1f} s", flush=True)


def shown(volume: np.ndarray, case: Case, truth: np.ndarray) -> np.ndarray:
    """The slice of a volume that figures show: where the truth has the most contrast, across the tilt axis."""
    if case.specimen == "needle":  # along the tilt axis, since its layers lie across
        return volume[:, int(truth.std(axis=(0, 2)).argmax())]
    return volume[int(truth.std(axis=(1, 2)).argmax())]


def slice_of(case: Case, one: Configuration, out: Path) -> Path:
    """Where that slice of a reconstruction is kept."""
    return out / "slices" / f"{case}_{one.name}.npy"


def keep_for_peers(case: Case, folder: Path) -> None:
    """Write series, truth, angles and the case itself, for programs that have no nntomo_dask beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    described = folder / f"{case}.json"
    if not described.exists():
        np.save(folder / f"{case}.npy", series_of(case).values)
        np.save(folder / f"{case}_truth.npy", truth_of(case).values)
        described.write_text(json.dumps({"case": case, "angles_deg": angles_of(case.geometry).tolist()}))


def draw_errors(rows: Sequence[Row], path: Path) -> None:
    """Errors in units of the reference's: a panel for each geometry and noise, a line for each specimen."""
    table = ratios(rows, columns())
    panels = list(dict.fromkeys(key[1:] for key in table))
    used = [column for column in columns() if any(column in line for line in table.values())]
    figure = Figure(figsize=(1.5 + 0.55 * len(used) * len(panels), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        for marker, (key, line) in zip(
            itertools.cycle("os^vDP"), ((key, line) for key, line in table.items() if key[1:] == panel), strict=False
        ):
            shown = [(place, line[column]) for place, column in enumerate(used) if column in line]
            means = [float(np.mean(values)) for _, values in shown]
            reach = [[mean - min(values) for mean, (_, values) in zip(means, shown, strict=True)]]
            reach += [[max(values) - mean for mean, (_, values) in zip(means, shown, strict=True)]]
            places = [place for place, _ in shown]
            axes.errorbar(places, means, reach, fmt=marker, markersize=5, capsize=2, label=key[0], alpha=0.8)
        axes.set_yscale("log")
        axes.axhline(1, color="0.6", linewidth=0.8)
        axes.set_xticks(range(len(used)), [column.title for column in used], rotation=60, ha="right", fontsize=8)
        axes.set_title(f"{panel[0]}, noise {panel[1]}", fontsize=10)
        axes.grid(axis="y", alpha=0.3)
    figure.axes[0].set_ylabel("mean square error / that of SIRT ≥ 0")
    figure.axes[0].legend(fontsize=8)
    plotting.save_figure(figure, path)


def draw_slices(cases: Sequence[Case], chosen: Sequence[Configuration], rows: Sequence[Row], out: Path) -> None:
    """A row for each specimen, at the highest noise: the truth and each method."""
    noise = max(case.noise for case in cases)
    firsts = {case.specimen: case for case in reversed(cases) if case.noise == noise}
    found = {(row.case, row.method): row.mse for row in rows if not row.choice}
    shape = len(firsts), 1 + len(chosen)
    figure = Figure(figsize=(1.7 * shape[1], 1.95 * shape[0]), layout="constrained")
    FigureCanvasAgg(figure)
    for line, case in zip(figure.subplots(*shape, squeeze=False), reversed(firsts.values()), strict=True):
        truth = truth_of(case).values
        images = {case.specimen: shown(truth, case, truth)}
        for one in chosen:
            if (kept := slice_of(case, one, out)).exists():
                images[f"{one.title}\n{found[case, one.name]:.5f}"] = np.load(kept)
        for axes in line:
            axes.set_axis_off()
        for axes, (caption, image) in zip(line, images.items(), strict=False):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1, origin="lower", interpolation="nearest")
            axes.set_title(caption, fontsize=8)
    figure.suptitle(f"{cases[0].geometry}, noise {noise:g} %; mean square errors of the volumes", fontsize=9)
    plotting.save_figure(figure, out / "slices.png")


def selected(size: Size, only: Sequence[str], seeds: Sequence[int], rays: str) -> list[Case]:
    """The cases of a size that `only` leaves; those of one volume follow each other."""
    kinds: list[list[Any]] = [list(size.specimens), list(size.geometries), [f"{one:g}%" for one in size.noise]]
    kept = [[one for one in kind if one in only] or kind for kind in kinds]
    return [
        Case(specimen, size.voxels, rays, geometry, float(noise.removesuffix("%")), seed)
        for specimen, seed, geometry, noise in itertools.product(kept[0], seeds, kept[1], kept[2])
    ]


def words(size: Size) -> set[str]:
    """What `--only` may name."""
    return {*size.specimens, *size.geometries, *(f"{one:g}%" for one in size.noise), *(one.name for one in available())}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--size", choices=list(SIZES), default="small", help="how much is computed")
    parser.add_argument("--voxels", type=int, help="along each axis, where it is to be other than the size's")
    parser.add_argument("--seeds", help="comma-separated, where they are to be other than the size's")
    only = "a specimen, a noise such as 2%%, a geometry such as tem8 or a method; repeat it for more"
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help=only)
    parser.add_argument("--rays", choices=["fine", "grid"], default="fine", help="how series are projected")
    parser.add_argument("--threads", type=int, default=2, help="of a reconstruction")
    parser.add_argument("--figure", action="store_true", help="draw slices of them too")
    parser.add_argument("--peers", choices=["none", "write"], default="none", help="write series for peers/peers.py")
    parser.add_argument("--out", type=Path, default=Path("stores/truth"), help="folder of the results")
    given = parser.parse_args(arguments)
    size = SIZES[given.size]
    if unknown := set(given.only) - words(size):
        parser.error(f"--only {', '.join(sorted(unknown))}: there are {', '.join(sorted(words(size)))}")
    if given.voxels:
        size = Size(**{**vars(size), "voxels": given.voxels})
    seeds = [int(one) for one in given.seeds.split(",")] if given.seeds else size.seeds
    chosen = [one for one in available() if one.name in given.only]
    chosen = chosen or available()
    cases = selected(size, given.only, seeds, given.rays)
    given.out.mkdir(parents=True, exist_ok=True)
    with dask.config.set(num_workers=given.threads):
        study(cases, chosen, size, given.out, peers=given.peers)
        rows = [row for row in read(given.out / "truth.csv") if row.case in set(cases)]
        if any(row.method == REFERENCE for row in rows):
            table = markdown(rows, columns())
            (given.out / "truth.md").write_text(table + "\n")
            draw_errors(rows, given.out / "truth.png")
            print(table)
        if given.figure:
            draw_slices(cases, chosen, rows, given.out)


if __name__ == "__main__":
    main()
