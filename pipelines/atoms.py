"""From a structure to a score: how many atoms each method finds, and how far off they are, against dose.

    python pipelines/atoms.py --size small                      # a minute or two, the linear model alone
    python pipelines/atoms.py --size report --only UiO-66       # hours in all; stop and start it at will
    python pipelines/atoms.py --size full                       # days

Results go to ``stores/atoms``: ``atoms.csv``, a row for each series and method (what is there is not computed again),
``atoms.md``, figures, and ``index.html`` with all of it. Geometries are a range and a number of projections: "tem15" is
15 of them in ±70°, "full60" 60 over 180°. The dose is that of the whole series, whatever the number of projections.

From ``report`` on some series are simulated with multiple scattering (``multislice``) instead of the linear model, by
PRISM with the interpolation that `simulate` chooses and two configurations of phonons. A projection depends on its own
angle alone, so each is kept in a file in ``views/``: 15 and 30 projections of 180° are among the 60, and a run that was
stopped goes on. Dark-field projections are kept without noise, and counts are drawn afterwards.

FBP, SIRT and TV give a volume, whose strongest maxima at least a bond apart are taken for atoms: as many as there are,
which is more than one knows. "smoothed" is the same after a Gaussian as wide as an atom; "of smoothed projections"
smooths these before the reconstruction, which is then nearly converged, and the volume by half as much. The chain is
`atoms_from_series`, which is told the elements and nothing else, or the width of the atoms too, which the probe
determines. In the dark field of a framework the metal alone is looked for and scored; the chain is told the other
elements as well, but for hydrogen, or it would take what they scatter for metal. Atoms are found where they are within
0.09 nm of one, or half of the least distance of two.

The bound is that of Cramér and Rao for the positions of all atoms that are scored, with heights and a common width
unknown (`position_bound`). An estimate that knows more, such as that all atoms of an element are equally high, may be
below it; and so may the mean over those atoms that were found.
"""

import argparse
import contextlib
import csv
import functools
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import dask
import numpy as np
import scipy.ndimage
import xarray as xr
from ase.data import chemical_symbols
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from scipy.spatial import cKDTree

import nntomo_dask as nt
from nntomo_dask.arrays import recipes
from nntomo_dask.atoms import chain, counts, evidence, gradients, heights, maxima, sampling, shared, spacing, table
from nntomo_dask.kernels import counting
from nntomo_dask.plotting import html_page
from nntomo_dask.simulation.clusters import amorphous_cluster, cluster_specimen
from nntomo_dask.simulation.linear import linear_series

HAADF_OF = {"UiO-66": ("Zr",), "UiO-67": ("Zr",), "MOF-5": ("Zn",), "COF-5": ("C", "O", "B")}
WIDTH_FITS = 10  # of a series without noise, each by 5 % at most
METHODS = ("fbp", "sirt", "sirt-smooth", "smooth-sirt", "tv", "tv-smooth", "chain", "chain-width")
TITLES = {
    "fbp": "FBP",
    "sirt": "SIRT ≥ 0",
    "sirt-smooth": "SIRT ≥ 0, smoothed",
    "smooth-sirt": "SIRT ≥ 0 of smoothed projections",
    "tv": "TV",
    "tv-smooth": "TV, smoothed",
    "chain": "chain",
    "chain-width": "chain, width known",
}
COLOURS = {
    "fbp": "#8a8a8a",
    "sirt": "#4a6b8a",
    "sirt-smooth": "#7fa6c9",
    "smooth-sirt": "#2b3f73",
    "tv": "#5d8a4a",
    "tv-smooth": "#9dc48a",
    "chain": "#b5442e",
    "chain-width": "#e8935a",
}
BEFORE_NM = 0.035  # of projections that are smoothed
VOLUMES: dict[str, tuple[str, dict[str, float]]] = {
    "fbp": ("fbp", {}),
    "sirt": ("sirt", {"minimum": 0.0}),
    "smooth-sirt": ("sirt", {"minimum": 0.0, "tolerance": 1e-3}),
    "tv": ("tv", {}),
}
PEAKS = {  # the volume, and by what it is smoothed [nm]
    "fbp": ("fbp", 0.0),
    "sirt": ("sirt", 0.0),
    "sirt-smooth": ("sirt", 0.03),
    "smooth-sirt": ("smooth-sirt", 0.02),
    "tv": ("tv", 0.0),
    "tv-smooth": ("tv", 0.03),
}
LIMIT_NM = 0.09  # of a match, at most
HALF_NM = 0.06  # of the slab that a figure shows
MOST_COLUMNS = 4
ENOUGH = 0.5  # of the atoms: fewer, and a distance says how many match by chance


@dataclass(frozen=True)
class Size:
    """How much is computed."""

    cases: tuple[tuple[str, str, str, tuple[str, ...], tuple[float, ...]], ...]
    seeds: tuple[int, ...]
    pixels: int
    field_nm: float | None  # of clusters
    cluster_atoms: int
    methods: tuple[str, ...] = METHODS
    crystal_pixels: int = 128


LINEAR, SCATTERED = "linear", "multislice"
GEOMETRIES = ("full60", "full30", "full15", "full8", "tem60", "tem30", "tem15", "tem8")
SIZES = {
    "small": Size(
        cases=(
            ("silicon", "haadf", LINEAR, ("full30", "tem15"), (5e4, 3e5, 2e6)),
            ("UiO-66", "haadf", LINEAR, ("tem15",), (1e4, 1e5)),
            ("UiO-66", "idpc", LINEAR, ("tem15",), (3e4, 1e5)),
        ),
        seeds=(1,),
        pixels=64,
        field_nm=1.9,
        cluster_atoms=40,
        # TV chooses its weight in minutes.
        methods=("fbp", "sirt", "sirt-smooth", "smooth-sirt", "chain", "chain-width"),
        crystal_pixels=96,
    ),
    "report": Size(
        cases=(
            ("silicon", "haadf", LINEAR, ("full60", "full30", "full15", "full8", "tem15"), (3e4, 5e4, 1e5, 2e6)),
            ("silicon", "haadf", SCATTERED, ("full60", "full30", "full15"), (3e4, 5e4, 1e5, 2e6)),
            ("UiO-66", "haadf", LINEAR, ("full15", "tem15", "tem8"), (1e3, 1e4, 3e4, 1e5)),
            ("UiO-67", "haadf", LINEAR, ("full15", "tem15", "tem8"), (1e3, 1e4, 3e4, 1e5)),
            ("MOF-5", "haadf", LINEAR, ("full15", "tem15", "tem8"), (1e3, 1e4, 3e4, 1e5)),
            ("COF-5", "haadf", LINEAR, ("full15", "tem15", "tem8"), (1e4, 1e5, 1e6)),
            ("UiO-66", "haadf", SCATTERED, ("tem8",), (1e4, 3e4, 1e5)),
            ("UiO-66", "idpc", LINEAR, ("tem15",), (1e3, 1e4, 3e4, 1e5)),
            ("UiO-67", "idpc", LINEAR, ("tem15",), (1e3, 1e4, 3e4, 1e5)),
        ),
        seeds=(101, 102),
        pixels=128,
        field_nm=3.0,
        cluster_atoms=200,
    ),
    "full": Size(
        cases=tuple(
            (
                structure,
                mode,
                engine,
                GEOMETRIES,
                (1e4, 3e4, 1e5, 3e5, 2e6) if structure in ("silicon", "COF-5") else (1e2, 1e3, 1e4, 1e5),
            )
            for structure in ("silicon", *HAADF_OF)
            for mode in ("haadf", "idpc")
            for engine in (LINEAR, SCATTERED)
        ),
        seeds=(101, 102, 103),
        pixels=128,
        field_nm=3.0,
        cluster_atoms=200,
    ),
}


class Case(NamedTuple):
    """A noisy series."""

    structure: str
    mode: str
    engine: str
    geometry: str  # "full60" or "tem15"
    dose: float  # [e/Å²], of the whole series
    seed: int  # of the cluster and of the noise

    def __str__(self) -> str:
        return f"{self.structure}_{self.mode}_{self.engine}_{self.geometry}_{self.dose:g}_seed{self.seed}"


class Row(NamedTuple):
    """What a method finds of a case."""

    case: Case
    method: str
    atoms: int  # of the structure
    found: int
    recall: float
    precision: float
    rmsd_pm: float
    axis_pm: float
    beam_pm: float
    across_pm: float
    bound_pm: float
    species: str  # JSON: recall and rmsd of each element
    cpu_seconds: float


COLUMNS = (*Case._fields, *Row._fields[1:])


def read(path: Path) -> list[Row]:
    """The rows of a file; of two with the same key the later one."""
    if not path.exists():
        return []
    rows = {}
    with path.open(newline="") as file:
        for one in csv.DictReader(file):
            case = Case(*(one[name] for name in Case._fields[:4]), float(one["dose"]), int(one["seed"]))
            whole = {"atoms", "found"}
            values = [
                one[name] if name == "species" else int(one[name]) if name in whole else float(one[name])
                for name in Row._fields[2:]
            ]
            rows[case, one["method"]] = Row(case, one["method"], *values)
    return list(rows.values())


def append(path: Path, row: Row) -> None:
    """Add a row at the end of a file."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(COLUMNS)
        writer.writerow([*row.case, *(f"{one:.5g}" if isinstance(one, float) else one for one in row[1:])])


def elements_of(case: Case) -> tuple[str, ...]:
    """The elements that are looked for and scored: in the dark field of a framework its metal alone."""
    return HAADF_OF[case.structure] if case.mode == "haadf" and case.structure in HAADF_OF else seen_of(case)


def seen_of(case: Case) -> tuple[str, ...]:
    """The elements that scatter enough to be told apart from nothing: all but hydrogen, the heaviest first."""
    if case.structure == "silicon":
        return ("Si",)
    symbols = {chemical_symbols[number] for number in specimen_of(case.structure, case.seed, 0).numbers} - {"H"}
    return tuple(sorted(symbols, key=chemical_symbols.index, reverse=True))


@functools.lru_cache(maxsize=8)
def specimen_of(structure: str, seed: int, atoms: int) -> nt.Specimen:
    """The atoms: a cluster drawn by the seed, or a unit cell."""
    if structure == "silicon":
        return cluster_specimen(amorphous_cluster("Si", atoms=atoms, seed=seed))
    return nt.specimen(structure)


def imaging_of(case: Case, size: Size, *, dose: float | None) -> nt.Imaging:
    """The microscope: 300 kV, 15 mrad, a source of 0.05 nm; for silicon a dark field from 45 to 90 mrad."""
    silicon = case.structure == "silicon"
    settings: dict[str, Any] = {"detector_mrad": (45.0, 90.0), "field_of_view_nm": size.field_nm} if silicon else {}
    if case.engine == SCATTERED:
        settings |= {"phonons": 2, "slice_thickness_nm": 0.2}
    pixels = size.pixels if silicon else size.crystal_pixels
    return nt.Imaging(pixels=pixels, source_size_nm=0.05, dose=dose, seed=case.seed, **settings)


def angles_of(geometry: str) -> np.ndarray:
    """Angles of "tem8" or "full15", [degrees]."""
    kind = geometry.rstrip("0123456789")
    return nt.tilt_angles(kind, int(geometry.removeprefix(kind)))


def series_of(case: Case, size: Size, folder: Path, *, clean: bool = False) -> xr.DataArray:
    """The series of a case, computed; clean ones of the linear model have no noise."""
    held, angles = specimen_of(case.structure, case.seed, size.cluster_atoms), angles_of(case.geometry)
    if clean or case.engine == LINEAR:
        settings = imaging_of(case, size, dose=None if clean else case.dose)
        return linear_series(held, angles, mode=case.mode, imaging=settings).compute(scheduler="synchronous")
    dosed = case.mode == "idpc"  # the noise of dark-field images can be added afterwards
    dose = case.dose / len(angles) if dosed else None
    series = nt.simulate(
        held, angles, mode=case.mode, imaging=replace(imaging_of(case, size, dose=dose), dose_per="projection")
    )
    values = np.stack([view(series, index, case, folder) for index in range(len(angles))], axis=1)
    if not dosed:
        electrons = case.dose * (10 * series.attrs["pixel_size"]) ** 2 / len(angles)
        values = counting.counted(values, electrons, np.random.default_rng([case.seed, len(angles)]))
    return nt.tilt_series(values, angles, pixel_size=series.attrs["pixel_size"], units="nm")


def view(series: xr.DataArray, index: int, case: Case, folder: Path) -> np.ndarray:
    """One projection, read or computed and kept: it depends on its own angle, not on the others of the series."""
    recipe = series.attrs["recipe"]
    alone = recipe | {"parameters": {key: one for key, one in recipe["parameters"].items() if key != "angles_deg"}}
    angle = float(series["angle"].values[index])
    text = json.dumps(recipes.without_versions(alone), sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    name = f"{case.structure}_{case.mode}_seed{case.seed}_{key}_{angle:+08.3f}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / name).exists():
        begin = time.process_time()
        image = series.isel(angle=index).compute(scheduler="synchronous").values
        part = folder / f".{name}.{os.getpid()}"
        with part.open("wb") as file:
            np.save(file, image)
        part.replace(folder / name)
        print(f"{name}: {time.process_time() - begin:.0f} s", flush=True)
    return np.load(folder / name)


def truth_of(case: Case, size: Size) -> xr.Dataset:
    """The atoms that are scored, with the height and the width that fit a series without noise best.

    All elements but hydrogen take part in the fit.
    """
    held = specimen_of(case.structure, case.seed, size.cluster_atoms)
    symbols = np.array([chemical_symbols[number] for number in held.numbers])
    elements = seen_of(case)
    seen = np.isin(symbols, elements)
    made = table.make(
        held.positions_nm[seen][:, ::-1], recipe=recipes.record("truth", {"case": str(case)}), species=symbols[seen]
    )
    clean = series_of(case, size, Path(), clean=True)
    kinds = np.array([elements.index(str(one)) for one in made["species"].values])
    fit = phase_columns if case.mode == "idpc" else dark_field_columns
    columns = fit(clean, table.positions(made), kinds, elements) | {"background": np.zeros(len(kinds))}
    whole = table.like(made, made.attrs["recipe"], columns)
    return whole.isel(atom=np.isin(whole["species"].values, elements_of(case)))


def dark_field_columns(
    clean: xr.DataArray, positions: np.ndarray, kinds: np.ndarray, elements: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Heights and widths of atoms with tails that fit counts best."""
    weak = nt.Noise(gain=float(clean.max()) / 1e4, background=float(min(clean.min(), 0)))
    data = counts.counted(clean, noise=weak, who="truth")
    weights = heights.weights(elements, None, signal="dark field")
    state = sampling.begin(data, positions, kinds, weights, sampling.Sampling())
    state = sampling.fitted(data, state, width=None)
    height = state.heights[kinds] * data.gain * data.pixel / (np.sqrt(2 * np.pi) * state.width)
    tail = state.tail / shared.RATIO
    return {
        "height": height * (1 + tail),
        "width": np.full(len(kinds), state.width),
        "tail": np.full(len(kinds), tail / (1 + tail)),
        "tail_width": np.full(len(kinds), shared.RATIO * state.width),
    }


def phase_columns(
    clean: xr.DataArray, positions: np.ndarray, kinds: np.ndarray, elements: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Heights and widths of atoms that fit gradients best."""
    data = gradients.gradients(clean, noise=None, who="truth")
    weights = heights.weights(elements, None, signal="phase")
    width = gradients.width_of(data)
    highest = max(heights.potential(one) for one in elements)
    expected = gradients.expected_heights(data, positions, weights, highest, width)
    for _ in range(WIDTH_FITS):
        width = gradients.better_width(data, positions, kinds, expected, width)
    height = gradients.heights_of(data, positions, kinds, expected, width)[kinds]
    return {"height": height * data.pixel / (np.sqrt(2 * np.pi) * width), "width": np.full(len(kinds), width)}


def bound_of(truth: xr.Dataset, series: xr.DataArray, case: Case) -> float:
    """The bound of the root mean square distance, [pm]."""
    if case.mode == "idpc":
        return 1000 * float(nt.position_bound(truth, series, likelihood="gradient").attrs["rmsd"])
    electrons = case.dose * (10 * series.attrs["pixel_size"]) ** 2 / series.sizes["angle"]
    noise = nt.Noise(gain=1 / electrons, read_noise=1e-3 / electrons)
    return 1000 * float(nt.position_bound(truth, series, noise=noise, per_projection="nothing").attrs["rmsd"])


def plain_peaks(volume: xr.DataArray, count: int, *, distance: float, sigma: float) -> xr.Dataset:
    """The strongest maxima that are at least a bond apart."""
    pixel = float(volume.attrs["pixel_size"])
    smooth = np.asarray(volume.values, np.float64)
    if sigma:
        smooth = scipy.ndimage.gaussian_filter(smooth, sigma / pixel)
    highest = scipy.ndimage.maximum_filter(smooth, 3)
    y, x = np.meshgrid(volume["y"].values, volume["x"].values, indexing="ij")
    seen = np.hypot(y, x) < float(volume["x"].values.max()) - distance / 2  # not in corners, which few rays cross
    places = np.argwhere((smooth == highest) & (smooth > 0) & seen)
    values = smooth[tuple(places.T)]
    apart = spacing.apart(places * pixel, np.zeros(len(places), np.int64), values, np.array([[distance]]))
    kept = apart[np.argsort(-values[apart], kind="stable")[:count]]
    found = maxima.vertices(smooth, places[kept])
    middle = (np.array(volume.shape) - 1) / 2
    return table.make((found - middle) * pixel, recipe=recipes.record("plain_peaks", {}, [volume]))


def found_by(
    method: str, series: xr.DataArray, case: Case, truth: xr.Dataset, volumes: dict[str, xr.DataArray]
) -> tuple[xr.Dataset, xr.DataArray]:
    """Atoms of the elements that are scored, and the volume that they come from; volumes are kept by method."""

    def volume_of(name: str) -> xr.DataArray:
        if name not in volumes:
            kind, settings = VOLUMES[name]
            projections = nt.smooth_projections(series, width=BEFORE_NM) if name == "smooth-sirt" else series
            made = nt.reconstruct(projections, nt.METHODS[kind](**settings))
            volumes[name] = made.compute(scheduler="synchronous")
        return volumes[name]

    wanted = elements_of(case)
    if method.startswith("chain"):
        width = float(truth["width"].values[0]) if method == "chain-width" else None
        likelihood: evidence.Likelihood = "gradient" if case.mode == "idpc" else "counts"
        chosen = sampling.Sampling(likelihood=likelihood, width=width)
        try:
            made = chain.run(series, elements=seen_of(case), settings=chosen)
        except nt.SchemaError as error:  # it is sure of no atom
            print(f"{case} {method}: {error}", flush=True)
            return truth.isel(atom=slice(0, 0)), volume_of("smooth-sirt")
        return made.atoms.isel(atom=np.isin(made.atoms["species"].values, wanted)), made.volume
    name, sigma = PEAKS[method]
    distance = float(spacing.spaced(wanted, None, None).min())
    return plain_peaks(volume_of(name), truth.sizes["atom"], distance=distance, sigma=sigma), volume_of(name)


def limit_of(truth: xr.Dataset) -> float:
    """How far an atom may be off, [nm]."""
    nearest = cKDTree(table.positions(truth)).query(table.positions(truth), k=2)[0][:, 1]
    return min(LIMIT_NM, float(nearest.min()) / 2)


def scored(case: Case, method: str, found: xr.Dataset, truth: xr.Dataset, bound: float, seconds: float) -> Row:
    """The row of a method; where nothing fits, nothing was found."""
    nothing = Row(
        case, method, truth.sizes["atom"], found.sizes["atom"], 0.0, 0.0, *[float("nan")] * 4, bound, "{}", seconds
    )
    with contextlib.suppress(nt.SchemaError):
        match = nt.match_atoms(found, truth, limit=limit_of(truth), align="none")
        way = match.by_direction()
        kinds = match.by_species()
        species = {
            str(kind): [round(float(kinds["recall"][k]), 4), round(float(kinds["rmsd"][k]), 1)]
            for k, kind in enumerate(kinds["species"].values)
        }
        return nothing._replace(
            recall=match.recall,
            precision=match.precision,
            rmsd_pm=match.rmsd_pm,
            axis_pm=way["axis"],
            beam_pm=way["beam"],
            across_pm=way["across"],
            species=json.dumps(species),
        )
    return nothing


def study(cases: Sequence[Case], methods: Sequence[str], size: Size, out: Path) -> None:
    """Compute the rows that are not in the file."""
    path = out / "atoms.csv"
    for case in cases:
        there = {(row.case, row.method) for row in read(path)}
        missing = [method for method in methods if (case, method) not in there]
        if not missing:
            continue
        series, truth = series_of(case, size, out / "views"), truth_of(case, size)
        bound = bound_of(truth, series, case)
        volumes: dict[str, xr.DataArray] = {}
        for method in missing:
            begin = time.process_time()
            found, volume = found_by(method, series, case, truth, volumes)
            row = scored(case, method, found, truth, bound, time.process_time() - begin)
            append(path, row)
            keep_for_figure(out, case, method, found, truth, volume)
            print(
                f"{case} {method}: {row.found} of {row.atoms}, recall {row.recall:.3f}, precision {row.precision:.3f}, "
                f"{row.rmsd_pm:.1f} pm (bound {row.bound_pm:.1f}), {row.cpu_seconds:.0f} s",
                flush=True,
            )


def keep_for_figure(
    out: Path, case: Case, method: str, found: xr.Dataset, truth: xr.Dataset, volume: xr.DataArray
) -> None:
    """Write what a figure of a slice shows: the mean of the slices within `HALF_NM` of a level, and atoms there.

    The level is that of the true atom with the most others near it.
    """
    folder = out / "slices"
    folder.mkdir(exist_ok=True)
    levels = np.sort(truth["z"].values)
    crowd = [np.count_nonzero(np.abs(levels - one) <= HALF_NM / 2) for one in levels]
    level = float(levels[int(np.argmax(crowd - 1e-3 * np.abs(levels)))])
    slab = volume.sel(z=slice(level - HALF_NM, level + HALF_NM))
    near = [
        table.positions(one)[np.abs(table.positions(one)[:, 0] - level) <= HALF_NM][:, 1:] for one in (found, truth)
    ]
    extent = [float(volume["x"].values[0]), float(volume["x"].values[-1])]
    np.savez(folder / f"{case}_{method}.npz", image=slab.mean("z").values, found=near[0], truth=near[1], extent=extent)


def means(rows: Sequence[Row], value: Callable[[Row], float]) -> tuple[list[float], list[float]]:
    """Doses, and means over seeds."""
    by_dose: dict[float, list[float]] = {}
    for row in rows:
        by_dose.setdefault(row.case.dose, []).append(value(row))
    doses = sorted(by_dose)
    return doses, [float(np.nanmean(by_dose[dose])) if np.isfinite(by_dose[dose]).any() else np.nan for dose in doses]


def error_of(row: Row) -> float:
    """The distance, where enough atoms are found for it to say something."""
    return row.rmsd_pm if row.recall >= ENOUGH else float("nan")


def draw_doses(rows: Sequence[Row]) -> Figure:
    """Of one structure: the atoms that were found, those that are right, and their distance, against dose.

    A column for each geometry.
    """
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(row.case.geometry, []).append(row)
    figure = Figure(figsize=(max(0.9 + 2.3 * len(parts), 5.0), 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(3, len(parts), squeeze=False, sharex=True, sharey="row")
    measures = (lambda row: row.recall, lambda row: row.precision, error_of)
    for column, (key, some) in zip(grid.T, parts.items(), strict=True):
        for method in METHODS:
            own = [row for row in some if row.method == method]
            for axes, measure in zip(column, measures, strict=True):
                if own:
                    style = {"color": COLOURS[method], "label": TITLES[method], "marker": "o", "markersize": 4}
                    axes.plot(*means(own, measure), **style)
        style = {"color": "0.2", "linestyle": ":", "marker": "_", "markersize": 9, "label": "bound"}
        column[2].plot(*means(some, lambda row: row.bound_pm), **style)
        column[0].set_title(key, fontsize=9)
        for axes in column:
            axes.grid(alpha=0.3)
    for axes in grid[:2].ravel():
        axes.set_ylim(-0.04, 1.06)
    grid[2, 0].set_xscale("log")
    drawn = np.concatenate([np.asarray(line.get_ydata(), float) for axes in grid[2] for line in axes.get_lines()])
    if np.isfinite(drawn).any():
        low, high = float(np.nanmin(drawn)), float(np.nanmax(drawn))
        wider = 1.2 * max(1.0, np.sqrt(4 * low / high))
        grid[2, 0].set_yscale("log")
        grid[2, 0].set_ylim(low / wider, high * wider)
    lengths = FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "125" else "")
    grid[2, 0].yaxis.set_major_formatter(lengths)
    grid[2, 0].yaxis.set_minor_formatter(lengths)
    for axes, name in zip(grid[:, 0], ("found, share", "right, share", "RMSD [pm]"), strict=True):
        axes.set_ylabel(name)
    for axes in grid[2]:
        axes.set_xlabel("dose of the series [e/Å²]", fontsize=9)
    handles: dict[str, Any] = {}
    for axes in grid[2]:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    ordered = [name for name in (*TITLES.values(), "bound") if name in handles]
    figure.legend(
        [handles[name] for name in ordered],
        ordered,
        loc="outside lower center",
        ncols=min(4, 1 + len(parts)),
        fontsize=8,
    )
    return figure


def draw_slices(out: Path, cases: Sequence[Case]) -> Figure | None:
    """A slice of each case by each method: the true atoms are circles, and what was found crosses."""
    kept = {
        (case, method): path
        for case in cases
        for method in METHODS
        if (path := out / "slices" / f"{case}_{method}.npz").exists()
    }
    rows, columns = (list(dict.fromkeys(key[place] for key in kept)) for place in (0, 1))
    if not kept:
        return None
    columns.sort(key=METHODS.index)
    figure = Figure(figsize=(0.4 + 2.4 * len(columns), 0.3 + 2.5 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for axes, method in zip(grid[0], columns, strict=True):
        axes.set_title(TITLES[method], fontsize=10)
    for line, case in zip(grid, rows, strict=True):
        for axes, method in zip(line, columns, strict=True):
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_box_aspect(1)
            if (case, method) not in kept:
                axes.set_axis_off()
                continue
            with np.load(kept[case, method]) as held:
                low, high = held["extent"]
                image, circles, crosses = held["image"], held["truth"], held["found"]
            top = max(float(np.percentile(image, 99.8)), 1e-30)
            bottom = min(float(np.percentile(image, 2)), 0.0)
            axes.imshow(
                image,
                cmap="gray",
                origin="lower",
                extent=(low, high, low, high),
                interpolation="nearest",
                vmin=bottom,
                vmax=top,
            )
            size = 3200 / len(columns) / (high - low) ** 2
            axes.scatter(circles[:, 1], circles[:, 0], s=size, facecolors="none", edgecolors="#7fd0ff", linewidths=0.9)
            axes.scatter(crosses[:, 1], crosses[:, 0], s=size / 2.5, marker="+", color="#ff6b4a", linewidths=1.0)
            axes.set_xlim(low, high)
            axes.set_ylim(low, high)
        line[0].set_ylabel(f"{case.structure}, {case.engine}\n{case.geometry}, {case.dose:,.0f} e/Å²", fontsize=9)
    return figure


HEADS = ("structure", "mode", "model", "views", "dose", "method", "found", "right", "RMSD [pm]", "bound [pm]", "seeds")


def lines(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """The table: means over seeds."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((*row.case[:5], row.method), []).append(row)
    for key, some in groups.items():
        numbers = [
            float(np.nanmean(values)) if np.isfinite(values).any() else np.nan
            for values in (
                np.array([getattr(row, name) for row in some])
                for name in ("recall", "precision", "rmsd_pm", "bound_pm")
            )
        ]
        told = [
            f"{number:.{digits}f}" if np.isfinite(number) else "–"
            for number, digits in zip(numbers, (3, 3, 1, 1), strict=True)
        ]
        yield (*key[:4], f"{key[4]:,.0f}", TITLES[key[5]], *told, str(len(some)))


def in_order(rows: Sequence[Row], cases: Sequence[Case]) -> list[Row]:
    """Rows in the order of the cases and of the methods, not in that in which they were computed."""
    places = {case: number for number, case in enumerate(cases)}
    return sorted(rows, key=lambda row: (places[row.case], METHODS.index(row.method)))


def shown_cases(rows: Sequence[Row]) -> list[Case]:
    """For a figure of slices: of each structure and engine the series on which methods differ most.

    That is the one at which the shares of right atoms are farthest apart, among those with the most methods.
    """
    own: dict[Case, list[float]] = {}
    for row in rows:
        own.setdefault(row.case, []).append(row.recall * row.precision)
    chosen: dict[tuple[str, str], tuple[int, float, Case]] = {}
    for case, shares in own.items():
        key, rank = (case.structure, case.engine), (len(shares), max(shares) - min(shares))
        if key not in chosen or rank > chosen[key][:2]:
            chosen[key] = (*rank, case)
    return [case for *_, case in chosen.values()]


def page(rows: Sequence[Row], cases: Sequence[Case], out: Path) -> None:
    """Write the figures, the table and the page."""
    drawn = []
    for mode in dict.fromkeys(row.case.mode for row in rows):
        figure = draw_slices(out, shown_cases([row for row in rows if row.case.mode == mode]))
        if figure is not None:
            text = (
                f"Slices of {2 * HALF_NM:g} nm: circles are atoms of the structure, crosses those that were found. Of "
                "each structure the series on which methods differ most."
            )
            drawn.append((figure, f"slices_{mode}.png", f"Atoms, {mode}", text))
    for key in dict.fromkeys(row.case[:3] for row in rows):
        own = [row for row in rows if row.case[:3] == key]
        text = (
            "Shares of the structure's atoms that were found, and of the found ones that are right; below how far off "
            f"they are, where at least {100 * ENOUGH:g} % were found, with the bound. Means over seeds."
        )
        there = list(dict.fromkeys(row.case.geometry for row in own))
        for first in range(0, len(there), MOST_COLUMNS):
            geometries = there[first : first + MOST_COLUMNS]
            figure = draw_doses([row for row in own if row.case.geometry in geometries])
            name = "_".join(("doses", *key, geometries[0])) + ".png"
            drawn.append((figure, name, f"{', '.join(key)}: against dose", text))
    images = list(html_page.save_figures([one[0] for one in drawn], [one[1] for one in drawn], out))
    body_lines = list(lines(rows))
    (out / "atoms.md").write_text(
        "\n".join(f"| {' | '.join(one)} |" for one in (HEADS, ("---",) * len(HEADS), *body_lines)) + "\n"
    )
    head = "".join(f"<th>{html_page.shown(one)}</th>" for one in HEADS)
    body = "".join(f"<tr>{''.join(f'<td>{html_page.shown(cell)}</td>' for cell in one)}</tr>" for one in body_lines)
    table_html = f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    parts = [" ".join(part.replace("`", "").split()) for part in __doc__.split("\n\n")[2:]]
    notes = "".join(f"<p class=note>{html_page.shown(part)}</p>" for part in parts)
    figures = html_page.figures([(one[2], one[3]) for one in drawn], images)
    html_page.write(
        out / "index.html", html_page.page("Atoms against dose", f"{figures}<h2>All</h2>{table_html}{notes}").encode()
    )


def as_word(value: object) -> str:
    """A part of a case as it is compared: 2e6 and 2000000 are one dose."""
    try:
        return f"{float(str(value)):g}"
    except ValueError:
        return str(value)


def cases_of(size: Size, only: Sequence[str]) -> list[Case]:
    """The cases that `only` leaves."""
    made = [
        Case(structure, mode, engine, geometry, dose, seed)
        for structure, mode, engine, geometries, doses in size.cases
        for geometry, dose, seed in itertools.product(geometries, doses, size.seeds)
    ]
    words = {as_word(word) for word in only if word not in METHODS}
    kinds = [{as_word(one[place]) for one in made} for place in range(5)]
    unknown = words - set().union(*kinds)
    if unknown:
        known = ", ".join(word for kind in kinds for word in sorted(kind))
        raise SystemExit(f"--only {', '.join(sorted(unknown))}: not at this size; there are {known}")

    def kept(case: Case) -> bool:
        own = [as_word(one) for one in case[:5]]
        return all(not (words & kind) or value in words for kind, value in zip(kinds, own, strict=True))

    return [case for case in made if kept(case)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--size", choices=list(SIZES), default="small", help="how much is computed")
    parser.add_argument("--seeds", help="comma-separated, where they are to be other than the size's")
    only = "a structure, mode, engine, geometry, dose or method; repeat it for more"
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help=only)
    parser.add_argument("--out", type=Path, default=Path("stores/atoms"), help="folder of the results")
    given = parser.parse_args(arguments)
    size = SIZES[given.size]
    if given.seeds:
        size = replace(size, seeds=tuple(int(one) for one in given.seeds.split(",")))
    methods = [one for one in METHODS if one in given.only] or list(size.methods)
    cases = cases_of(size, given.only)
    given.out.mkdir(parents=True, exist_ok=True)
    with dask.config.set(scheduler="synchronous"):
        study(cases, methods, size, given.out)
    rows = in_order([row for row in read(given.out / "atoms.csv") if row.case in set(cases)], cases)
    if rows:
        page(rows, cases, given.out)
        print((given.out / "atoms.md").read_text())


if __name__ == "__main__":
    main()
