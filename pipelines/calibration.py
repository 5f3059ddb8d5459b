"""How far the spread of a volume may be trusted: spread and true error, voxel by voxel near the specimen.

    python pipelines/calibration.py --size small      # a minute on 2 cores
    python pipelines/calibration.py --size full       # an hour; stop and start it at will
    python pipelines/calibration.py --size full --only faceted --only 2% --only tv
    python pipelines/calibration.py --voxels 96 --network net-0.safetensors net-1.safetensors net-2.safetensors

A spread is what ``nntomo reconstruct --spread`` writes: the jackknife's standard error of a method without networks, or
the standard deviation of an ensemble's members. Beside TV, a spread is instead √(d² + s²), from the difference d
to the volume of TV and the standard error s of that (`nt.volume_and_spread`). Specimens, noise and series are those of
`truth.py`. Looked at are the voxels that hold matter and those less than a twentieth of the width from it, as far as
all projections see them: the empty background is known to every method and would flatter the spread.

Results go to ``stores/calibration``: ``calibration.csv``, a row for each series and spread (what is there is not
computed again), ``calibration.md``, the tables of docs/theory.md, ``calibration.png``, the curves, and ``networks``.
"""

import argparse
import csv
import functools
import importlib.util
import itertools
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
from dask.base import compute
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.ndimage import distance_transform_edt
from scipy.stats import spearmanr
from specimens import SPECIMENS
from truth import angles_of, series_of, truth_of
from truth_rows import Case, case_of

import nntomo_dask as nt
from nntomo_dask.plotting import figures as plotting
from nntomo_dask.reconstruction.method import method_of

BINS = 20  # of a calibration curve, with as many voxels each
BLOCK = 4  # voxels along the edge of a block
GAUSSIAN = {1: 0.683, 2: 0.954}  # share of a Gaussian error within so many deviations


@dataclass(frozen=True)
class Statistics:
    """What a spread tells of an error, over some voxels."""

    looked_at: int  # how many
    error: float  # root mean square
    spread: float  # root mean square
    rank: float  # Spearman's correlation of the spread and the size of the error
    rank_blocks: float  # of their root mean squares in blocks
    rank_exact: float  # that a Gaussian error of exactly this deviation would have
    factor: float  # error / spread: by what the spread is to be multiplied
    within_1: float  # share of voxels whose error is at most one spread
    within_2: float
    scaled_1: float  # the same after the multiplication
    scaled_2: float
    unevenness: float  # how far the curve then is from the ideal line: 0 on it, 1 as far as it is high
    spreads: tuple[float, ...]  # the curve: root mean square of the spread in bins of as many voxels each
    errors: tuple[float, ...]  # and of the error


def calibration(error: np.ndarray, spread: np.ndarray, where: np.ndarray) -> Statistics:
    """Compare the errors of a volume with its spread in the voxels (z, y, x) of a mask."""
    errors, spreads = np.abs(error[where].astype(np.float64)), spread[where].astype(np.float64)
    size, wide = root_mean_square(errors), root_mean_square(spreads)
    factor = size / wide if wide > 0 else np.nan
    bins = [part for part in np.array_split(np.argsort(spreads, kind="stable"), BINS) if part.size]
    curve = np.array([(root_mean_square(spreads[part]), root_mean_square(errors[part])) for part in bins])
    within = {(by, count): float((errors <= count * by * spreads).mean()) for by in (1, factor) for count in GAUSSIAN}
    deviations = np.random.default_rng(0).standard_normal(spreads.size)
    return Statistics(
        looked_at=errors.size,
        error=size,
        spread=wide,
        rank=correlation(spreads, errors),
        rank_blocks=correlation(in_blocks(spread, where), in_blocks(error, where)),
        rank_exact=correlation(spreads, np.abs(deviations * spreads)),
        factor=factor,
        within_1=within[1, 1],
        within_2=within[1, 2],
        scaled_1=within[factor, 1],
        scaled_2=within[factor, 2],
        unevenness=float(np.abs(factor * curve[:, 0] - curve[:, 1]).mean() / curve[:, 1].mean()),
        spreads=tuple(curve[:, 0].tolist()),
        errors=tuple(curve[:, 1].tolist()),
    )


def root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where one of them is the same everywhere."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(spearmanr(one, other)[0])


def in_blocks(volume: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Root mean squares over the voxels of a mask in each block that has any of them."""
    z, y, x = (count // BLOCK * BLOCK for count in volume.shape)
    shape = (z // BLOCK, BLOCK, y // BLOCK, BLOCK, x // BLOCK, BLOCK)
    inside = where[:z, :y, :x]
    squares = np.where(inside, volume[:z, :y, :x].astype(np.float64) ** 2, 0).reshape(shape).sum(axis=(1, 3, 5))
    counts = inside.reshape(shape).sum(axis=(1, 3, 5))
    return np.asarray(np.sqrt(squares[counts > 0] / counts[counts > 0]))


def neighbourhood(truth: np.ndarray) -> np.ndarray:
    """The voxels of a specimen and those near to it, within the disc that all projections see."""
    size = truth.shape[-1]
    y, x = np.indices((size, size)) - (size - 1) / 2
    near = distance_transform_edt(truth <= 0) < size / 20
    return np.asarray(near & (np.hypot(y, x) < size / 2))


@dataclass(frozen=True)
class Size:
    """How much is computed."""

    voxels: int
    specimens: tuple[str, ...]
    noise: tuple[float, ...]  # [% of the brightest ray]
    seeds: tuple[int, ...]
    members: int  # of an ensemble
    slices: int  # of the phantoms that networks are trained on
    depth: int  # of MS-D Net
    epochs: int  # of MS-D Net


SIZES = {
    "small": Size(
        voxels=40,
        specimens=("faceted", "coreshell", "smooth"),
        noise=(0, 2),
        seeds=(1,),
        members=3,
        slices=160,
        depth=10,
        epochs=5,
    ),
    "full": Size(
        voxels=64,
        specimens=tuple(SPECIMENS),
        noise=(0, 2, 5),
        seeds=(1, 2, 3),
        members=4,
        slices=800,
        depth=30,
        epochs=12,
    ),
}


@dataclass(frozen=True)
class Spread:
    """A volume of which it is known how sure it is: a method with its jackknife, or an ensemble."""

    name: str
    title: str
    train: Callable[..., Any] | None = None  # a network, of an ensemble
    phantom: str = ""  # that its networks are trained on
    files: tuple[Path, ...] = ()  # networks that are there already
    digests: str = ""  # of these
    beside: str | None = None  # a method without networks: the spread is that from its volume, with its own

    def settings(self, size: Size) -> str:
        """What else decides the result, as the rows have it."""
        if self.files:
            return self.digests
        if self.train is None:
            return ""
        deep = f", {size.depth} layers, {size.epochs} epochs" if self.train is nt.train_msdnet else ""
        return f"{size.members} networks, {size.slices} slices of {self.phantom}{deep}"


SPREADS = (
    Spread("sirt", "SIRT, jackknife"),
    Spread("tv", "TV, jackknife"),
    Spread("cgls", "CGLS, jackknife"),
    Spread("fbp", "FBP, jackknife"),
    Spread("nnfbp", "NN-FBP, ensemble", train=nt.train_nnfbp, phantom="mixed"),
    Spread("msdnet", "MS-D Net, ensemble", train=nt.train_msdnet, phantom="bodies"),
    Spread("dart-beside-tv", "DART, beside TV", beside="tv"),
)


def with_beside(one: Spread) -> list[Spread]:
    """A spread, and that beside TV where it is one of networks."""
    if one.train is None and not one.files:
        return [one]
    title = f"{one.title.removesuffix(', ensemble')}, beside TV"
    return [one, replace(one, name=f"{one.name}-beside-tv", title=title, beside="tv")]


def available() -> list[Spread]:
    """Those for which everything is installed."""
    without_torch = importlib.util.find_spec("torch") is None
    there = [one for one in SPREADS if one.name != "msdnet" or not without_torch]
    return list(itertools.chain.from_iterable(map(with_beside, there)))


def trained(one: Spread, case: Case, size: Size, folder: Path) -> list[nt.Network]:
    """The members of an ensemble for a geometry and a noise: those on disk, or trained now."""
    stem = f"{one.name.partition('-')[0]}_{case.voxels}_{case.geometry}_noise{case.noise:g}_{one.settings(size)}"
    paths = [folder / f"{stem.replace(', ', '_').replace(' ', '-')}_{k}.safetensors" for k in range(size.members)]
    if all(path.exists() for path in paths):
        return [nt.load_network(path) for path in paths]
    begin = time.monotonic()
    angles = angles_of(case.geometry)
    target = nt.tilt_series(np.zeros((1, angles.size, case.voxels), np.float32), angles)
    chosen = {"phantom": one.phantom, "noise": case.noise / 100 or "none", "n_slices": size.slices}
    assert one.train is not None
    if one.train is nt.train_nnfbp:
        sets, options = nt.phantom_samples(target, **chosen, n_samples=50_000), {}
    else:
        sets, options = nt.phantom_slices(target, **chosen), {"depth": size.depth, "max_epochs": size.epochs}
    networks = nt.train_ensemble(one.train, *(part.compute() for part in sets), members=size.members, **options)
    folder.mkdir(parents=True, exist_ok=True)
    for network, path in zip(networks, paths, strict=True):
        nt.save_network(network, path)
    print(f"trained {stem} in {time.monotonic() - begin:.0f} s", flush=True)
    return networks


@functools.lru_cache(maxsize=8)
def volume_and_spread(one: Spread, case: Case, size: Size, out: Path) -> tuple[np.ndarray, np.ndarray]:
    """The volume of a case's series, and how sure it is."""
    if one.beside is not None:
        if one.files or one.train is not None:
            volume, _ = volume_and_spread(replace(one, beside=None), case, size, out)
        else:
            volume = nt.reconstruct(measured(case), one.name.partition("-")[0]).values
        reference = next(other for other in SPREADS if other.name == one.beside)
        other, sure = volume_and_spread(reference, case, size, out)
        return volume, np.hypot(volume - other, sure)
    series = measured(case)
    if one.files or one.train is not None:
        networks = [nt.load_network(path) for path in one.files] or trained(one, case, size, out / "networks")
        method = method_of(networks, {})
        if "statistic" in {field.name for field in fields(method)}:
            mean, spread = compute(*nt.mean_and_spread(series, method))
            return mean.values, spread.values
        members = [nt.reconstruct(series, network).values for network in networks]
        return np.mean(members, axis=0), np.std(members, axis=0)
    method = nt.METHODS[one.name]()
    prepared = [float(value) for value in compute(*method.prepare(series))]  # once: TV's weight takes long
    volume, spread = (make(series, method, prepared=prepared).values for make in (nt.reconstruct, nt.jackknife))
    return volume, spread


measured = functools.lru_cache(maxsize=1)(series_of)


@dataclass(frozen=True)
class Row:
    """A spread of a series."""

    case: Case
    name: str
    title: str
    settings: str
    statistics: Statistics

    @property
    def key(self) -> tuple[Case, str, str]:
        """What makes it another row."""
        return self.case, self.name, self.settings


def append(path: Path, row: Row) -> None:
    """Add a row at the end of a file, in one write; a new file gets its heading."""
    numbers = {
        name: " ".join(f"{one:.6g}" for one in value) if isinstance(value, tuple) else f"{value:.6g}"
        for name, value in asdict(row.statistics).items()
    }
    texts = {**row.case._asdict(), "name": row.name, "title": row.title, "settings": row.settings, **numbers}
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(texts))
        if new:
            writer.writeheader()
        writer.writerow(texts)


def read(path: Path) -> list[Row]:
    """The rows of a file, none where there is no file; of two with the same key the later one."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        found = [_row(texts) for texts in csv.DictReader(file)]
    return list({row.key: row for row in found}.values())


def _row(texts: Mapping[str, str]) -> Row:
    numbers: dict[str, Any] = {field.name: float(texts[field.name]) for field in fields(Statistics)[:-2]}
    curve = {name: tuple(map(float, texts[name].split())) for name in ("spreads", "errors")}
    found = Statistics(**{**numbers, **curve, "looked_at": int(float(texts["looked_at"]))})
    return Row(case_of(texts), texts["name"], texts["title"], texts["settings"], found)


def study(cases: Sequence[Case], chosen: Sequence[Spread], size: Size, out: Path) -> None:
    """Compute the rows that are not in the file."""
    path = out / "calibration.csv"
    there = {row.key for row in read(path)}
    for case in cases:
        missing = [one for one in chosen if (case, one.name, one.settings(size)) not in there]
        if not missing:
            continue
        truth = truth_of(case).values
        where = neighbourhood(truth)
        for one in missing:
            begin = time.monotonic()
            try:
                volume, spread = volume_and_spread(one, case, size, out)
            except nt.SchemaError as error:  # a network for another geometry, say
                print(f"{case} {one.name}: {error}", flush=True)
                continue
            found = calibration(volume - truth, spread, where)
            append(path, Row(case, one.name, one.title, one.settings(size), found))
            print(
                f"{case} {one.name}: rank correlation {found.rank:.2f}, error / spread {found.factor:.2f}, "
                f"{time.monotonic() - begin:.1f} s",
                flush=True,
            )


def in_groups(rows: Iterable[Row]) -> dict[tuple[str, str, float], list[Row]]:
    """Rows by title, settings and noise, in their order."""
    groups: dict[tuple[str, str, float], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.case.noise):
        groups.setdefault((row.title, row.settings, row.case.noise), []).append(row)
    order = list(dict.fromkeys(row.title for row in rows))
    return dict(sorted(groups.items(), key=lambda item: order.index(item[0][0])))


def reach(rows: Iterable[Row], name: str) -> str:
    """The median of a statistic, and its least and largest value."""
    values = sorted(value for row in rows if np.isfinite(value := getattr(row.statistics, name)))
    if not values:
        return ""
    texts = [f"{one:.2f}" for one in (statistics.median(values), values[0], values[-1])]
    return f"{texts[0]} ({texts[1]}–{texts[2]})"


def markdown(rows: Sequence[Row]) -> str:
    """A line for each spread and noise: over all specimens and seeds, the median, the least and the largest value."""
    columns = {
        "rank": "rank",
        "if exact": "rank_exact",
        "of blocks": "rank_blocks",
        "factor": "factor",
        "within 1": "within_1",
        "within 2": "within_2",
        "within 2, scaled": "scaled_2",
        "uneven": "unevenness",
    }
    lines = ["| spread of | noise | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    for (title, _, noise), group in in_groups(rows).items():
        lines.append(f"| {title} | {noise:g} % | {' | '.join(reach(group, name) for name in columns.values())} |")
    return "\n".join(lines)


def markdown_factors(rows: Sequence[Row]) -> str:
    """By what each spread is to be multiplied, specimen by specimen; over seeds, the least and the largest value."""
    specimens = list(dict.fromkeys(row.case.specimen for row in rows))
    lines = [f"| factor for | noise | {' | '.join(specimens)} |", "|---" * (2 + len(specimens)) + "|"]
    for (title, _, noise), group in in_groups(rows).items():
        cells = []
        for specimen in specimens:
            values = [row.statistics.factor for row in group if row.case.specimen == specimen]
            texts = dict.fromkeys(f"{one:.2f}" for one in (min(values), max(values))) if values else {}
            cells.append("–".join(texts))
        lines.append(f"| {title} | {noise:g} % | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: Sequence[Row], path: Path) -> None:
    """The calibration curves: a panel for each noise and spread, a colour for each specimen."""
    groups = in_groups(rows)
    kinds = list(dict.fromkeys(key[:2] for key in groups))
    specimens = list(dict.fromkeys(row.case.specimen for row in rows))
    panels = [(*kind, noise) for noise in sorted({key[2] for key in groups}) for kind in kinds]
    # Every noise begins a line of panels.
    width = min(len(kinds), 5)
    lines = -(-len(kinds) // width)
    places = [width * (lines * (place // len(kinds))) + place % len(kinds) for place in range(len(panels))]
    height = lines * len(panels) // len(kinds)
    figure = Figure(figsize=(1.6 + 2.1 * width, 0.3 + 2.2 * height), layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(height, width, sharex=True, sharey=True, squeeze=False).ravel()
    limits = 1e-3, 1.0
    for panel, axes in zip(panels, every[places], strict=True):
        axes.plot(limits, limits, color="0.6", linewidth=0.8)
        for row in groups.get(panel, []):
            colour = f"C{specimens.index(row.case.specimen)}"
            axes.plot(row.statistics.spreads, row.statistics.errors, color=colour, linewidth=1, alpha=0.8)
        axes.set_xscale("log", nonpositive="mask")
        axes.set_yscale("log", nonpositive="mask")
        axes.set(xlim=limits, ylim=limits)
        axes.set_aspect("equal")
        axes.grid(alpha=0.3)
        axes.set_title(f"{panel[0]}\nnoise {panel[2]:g} %", fontsize=9)
        axes.tick_params(labelleft=True, labelbottom=True, labelsize=8)
    for place in set(range(every.size)) - set(places):
        every[place].set_axis_off()
    figure.supxlabel("spread", fontsize=9)
    figure.supylabel("error", fontsize=9)
    handles = [every[0].plot([], [], color=f"C{place}")[0] for place in range(len(specimens))]
    figure.legend(handles, specimens, loc="outside right upper", fontsize=9)
    plotting.save_figure(figure, path)


def ensemble_of(files: Sequence[str]) -> Spread:
    """The networks of some files, named by the first without its number."""
    paths = tuple(Path(file) for file in files)
    name = paths[0].stem.rstrip("0123456789").rstrip("-_. ") or paths[0].stem
    return Spread(name, name, files=paths, digests=" ".join(nt.load_network(path).digest[:12] for path in paths))


def selected(size: Size, only: Sequence[str], geometry: str) -> list[Case]:
    """The cases of a size that `only` leaves; those of one volume follow each other."""
    specimens = [one for one in size.specimens if one in only] or size.specimens
    noises = [one for one in size.noise if f"{one:g}%" in only] or size.noise
    return [
        Case(specimen, size.voxels, "fine", geometry, float(noise), seed)
        for specimen, seed, noise in itertools.product(specimens, size.seeds, noises)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--size", choices=list(SIZES), default="small", help="how much is computed")
    counts = {
        "voxels": "along each axis",
        "members": "of an ensemble",
        "slices": "of phantoms that networks are trained on",
        "depth": "of MS-D Net",
        "epochs": "of MS-D Net",
    }
    for name, what in counts.items():
        parser.add_argument(f"--{name}", type=int, help=f"{what}, where it is to be other than the size's")
    parser.add_argument("--seeds", help="comma-separated, where they are to be other than the size's")
    parser.add_argument("--geometry", default="tem8", help="how many projections: tem8 in ±70°, full15 in 180°")
    only = "a specimen, a noise such as 2%%, or a spread such as tv; repeat it for more"
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help=only)
    given_networks = "the members of an ensemble, for series of this geometry and size; repeat it for other ensembles"
    parser.add_argument("--network", action="append", nargs="+", default=[], metavar="FILE", help=given_networks)
    parser.add_argument("--threads", type=int, default=2, help="of a reconstruction")
    parser.add_argument("--out", type=Path, default=Path("stores/calibration"), help="folder of the results")
    given = parser.parse_args(arguments)
    numbers = {name: value for name in counts if (value := getattr(given, name))}
    if given.seeds:
        numbers["seeds"] = tuple(int(one) for one in given.seeds.split(","))
    size = Size(**{**vars(SIZES[given.size]), **numbers})
    words = [*size.specimens, *(f"{one:g}%" for one in size.noise), *(one.name for one in available())]
    if unknown := set(given.only) - set(words):
        parser.error(f"--only {', '.join(sorted(unknown))}: there are {', '.join(words)}")
    if any(len(files) < 2 for files in given.network):
        parser.error("--network: an ensemble has two networks or more, after one --network")
    ensembles = [one for files in given.network for one in with_beside(ensemble_of(files))]
    chosen = [one for one in available() if one.name in given.only]
    chosen = [*(chosen or ([] if ensembles else available())), *ensembles]
    cases = selected(size, given.only, given.geometry)
    given.out.mkdir(parents=True, exist_ok=True)
    # How far networks are outside their training range is part of what is measured.
    warnings.filterwarnings("ignore", message=".*outside the range it saw in training")
    with dask.config.set(num_workers=given.threads):
        study(cases, chosen, size, given.out)
    wanted = {(case, one.name, one.settings(size)) for case, one in itertools.product(cases, chosen)}
    if rows := [row for row in read(given.out / "calibration.csv") if row.key in wanted]:
        tables = f"{markdown(rows)}\n\n{markdown_factors(rows)}"
        (given.out / "calibration.md").write_text(tables + "\n")
        draw(rows, given.out / "calibration.png")
        print(tables)


if __name__ == "__main__":
    main()
