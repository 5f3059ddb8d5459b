"""From a structure to a score: how many atoms each method finds, and how far off they are, against dose.

    python pipelines/atoms.py --size small                      # minutes on 2 cores, the linear model alone
    python pipelines/atoms.py --size report --only silicon      # an hour or so; stop and start it at will
    python pipelines/atoms.py --size full                       # days

Results go to ``stores/atoms``: ``atoms.csv``, a row for each series and method (what is there is not computed again),
``atoms.md``, figures, and ``index.html`` with all of it. The dose is that of the whole series, whatever the number of
projections. From ``report`` on some series are simulated with multiple scattering (``multislice``) instead of the
linear model; they are kept in ``series/``, for they take long.

FBP, SIRT and TV give a volume, whose strongest maxima at least a bond apart are taken for atoms: as many as there are,
which is more than one knows. "smoothed" is the same after a Gaussian as wide as an atom. The chain is
`atoms_from_series`, which is told the elements and nothing else. The bound is that of Cramér and Rao for the positions
of all atoms, with heights and a common width unknown (`position_bound`). An estimate that knows more, such as that all
atoms of an element are equally high, may be below it.
"""

import argparse
import contextlib
import csv
import functools
import itertools
import json
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

import nntomo_dask as nt
from nntomo_dask.arrays import recipes
from nntomo_dask.atoms import chain, counts, evidence, sampling, table
from nntomo_dask.kernels import counting
from nntomo_dask.plotting import html_page
from nntomo_dask.simulation.clusters import amorphous_cluster, cluster_specimen
from nntomo_dask.simulation.linear import linear_series

HAADF_OF = {"UiO-66": ("Zr",), "UiO-67": ("Zr",), "MOF-5": ("Zn",), "COF-5": ("C", "O", "B")}
EXPONENT = {"haadf": 1.7, "idpc": 0.7}
COLOURS = {"fbp": "#8a8a8a", "sirt": "#4a6b8a", "sirt-smooth": "#7fa6c9", "tv": "#5d8a4a", "chain": "#b5442e"}
TITLES = {"fbp": "FBP", "sirt": "SIRT ≥ 0", "sirt-smooth": "SIRT ≥ 0, smoothed", "tv": "TV", "chain": "chain"}


METHODS = ("fbp", "sirt", "sirt-smooth", "tv", "chain")


@dataclass(frozen=True)
class Size:
    """How much is computed."""

    cases: tuple[tuple[str, str, str, tuple[str, ...], tuple[float, ...]], ...]
    seeds: tuple[int, ...]
    pixels: int
    field_nm: float | None  # of clusters
    cluster_atoms: int
    methods: tuple[str, ...] = METHODS


LINEAR, SCATTERED = "linear", "multislice"
SIZES = {
    "small": Size(
        cases=(("silicon", "haadf", LINEAR, ("full30", "tem15"), (5e4, 3e5, 2e6)),),
        seeds=(1,),
        pixels=64,
        field_nm=1.9,
        cluster_atoms=40,
        methods=("fbp", "sirt", "sirt-smooth", "chain"),  # TV chooses its weight in minutes
    ),
    "report": Size(
        cases=(
            ("silicon", "haadf", LINEAR, ("full60", "full30", "full15", "tem15"), (3e4, 5e4, 1e5, 2e6)),
            ("silicon", "haadf", SCATTERED, ("full30",), (1e5, 2e6)),
            ("UiO-66", "haadf", LINEAR, ("tem15", "tem8"), (1e3, 1e4)),
            ("UiO-66", "idpc", LINEAR, ("tem15",), (1e3, 1e4)),
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
                ("full60", "full30", "full15", "full8", "tem60", "tem30", "tem15", "tem8"),
                (1e4, 3e4, 1e5, 3e5, 2e6) if structure == "silicon" else (1e2, 1e3, 1e4, 1e5),
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
    """The elements that are looked for: what is seen of the structure."""
    if case.structure == "silicon":
        return ("Si",)
    if case.mode == "haadf":
        return HAADF_OF[case.structure]
    held = specimen_of(case.structure, case.seed, 0)
    symbols = {chemical_symbols[number] for number in held.numbers} - {"H"}
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
    return nt.Imaging(pixels=size.pixels, source_size_nm=0.05, dose=dose, seed=case.seed, **settings)


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
    series = nt.simulate(
        held, angles, mode=case.mode, imaging=imaging_of(case, size, dose=case.dose if dosed else None)
    )
    name = f"{case if dosed else case._replace(dose=0.0)}_{size.pixels}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / name).exists():
        np.save(folder / name, series.compute().values)
    values = np.load(folder / name)
    if not dosed:
        electrons = case.dose * (10 * series.attrs["pixel_size"]) ** 2 / len(angles)
        values = counting.counted(values, electrons, np.random.default_rng([case.seed, len(angles)]))
    return nt.tilt_series(values, angles, pixel_size=series.attrs["pixel_size"], units="nm")


def truth_of(case: Case, size: Size) -> xr.Dataset:
    """The atoms that can be seen, with the height and the width that fit a series without noise best."""
    held = specimen_of(case.structure, case.seed, size.cluster_atoms)
    symbols = np.array([chemical_symbols[number] for number in held.numbers])
    seen = np.isin(symbols, elements_of(case))
    made = table.make(
        held.positions_nm[seen][:, ::-1], recipe=recipes.record("truth", {"case": str(case)}), species=symbols[seen]
    )
    clean = series_of(case, size, Path(), clean=True)
    weak = nt.noise(clean).__class__(gain=float(clean.max()) / 1e4, background=float(min(clean.min(), 0)))
    data = counts.counted(clean, noise=weak, who="truth")
    wanted = elements_of(case)
    kinds = np.array([wanted.index(str(one)) for one in made["species"].values])
    weights = np.array([float(chemical_symbols.index(one)) for one in wanted]) ** EXPONENT[case.mode]
    settings = sampling.Sampling()
    state = sampling.begin(data, table.positions(made), kinds, weights / weights.max(), settings)
    state = sampling.fitted(data, state, width=None)
    height = state.heights[kinds] * data.gain * data.pixel / (np.sqrt(2 * np.pi) * state.width)
    columns = {"height": height, "width": np.full(len(kinds), state.width), "background": np.zeros(len(kinds))}
    return table.like(made, made.attrs["recipe"], columns)


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
    apart = sampling.apart(places * pixel, np.zeros(len(places), np.int64), values, np.array([[distance]]))
    kept = apart[np.argsort(-values[apart], kind="stable")[:count]]
    found = chain.vertices(smooth, places[kept])
    middle = (np.array(volume.shape) - 1) / 2
    return table.make((found - middle) * pixel, recipe=recipes.record("plain_peaks", {}, [volume]))


def found_by(method: str, series: xr.DataArray, case: Case, count: int) -> tuple[xr.Dataset, xr.DataArray | None]:
    """Atoms, and the volume where there is one."""
    wanted = elements_of(case)
    if method == "chain":
        likelihood: evidence.Likelihood = "gradient" if case.mode == "idpc" else "counts"
        made = chain.run(series, elements=wanted, settings=sampling.Sampling(likelihood=likelihood))
        return made.atoms, made.volume
    name = "sirt" if method.startswith("sirt") else method
    settings = {"minimum": 0.0} if name == "sirt" else {}
    volume = nt.reconstruct(series, nt.METHODS[name](**settings)).compute(scheduler="synchronous")
    distance = float(sampling.least_distances(wanted, sampling.Sampling(), None).min())
    sigma = 0.03 if method == "sirt-smooth" else 0.0
    return plain_peaks(volume, count, distance=distance, sigma=sigma), volume


def scored(case: Case, method: str, found: xr.Dataset, truth: xr.Dataset, bound: float, seconds: float) -> Row:
    """The row of a method; where nothing fits, nothing was found."""
    limit = 0.09 if case.structure == "silicon" else None
    nothing = Row(
        case, method, truth.sizes["atom"], found.sizes["atom"], 0.0, 0.0, *[float("nan")] * 4, bound, "{}", seconds
    )
    with contextlib.suppress(nt.SchemaError):
        match = nt.match_atoms(found, truth, limit=limit, align="none")
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
        series, truth = series_of(case, size, out / "series"), truth_of(case, size)
        bound = bound_of(truth, series, case)
        for method in missing:
            begin = time.process_time()
            try:
                found, volume = found_by(method, series, case, truth.sizes["atom"])
            except nt.SchemaError as error:
                print(f"{case} {method}: {error}", flush=True)
                continue
            row = scored(case, method, found, truth, bound, time.process_time() - begin)
            append(path, row)
            keep_for_figure(out, case, method, found, truth, volume)
            print(
                f"{case} {method}: {row.found} of {row.atoms}, recall {row.recall:.3f}, precision {row.precision:.3f}, "
                f"{row.rmsd_pm:.1f} pm (bound {row.bound_pm:.1f}), {row.cpu_seconds:.0f} s",
                flush=True,
            )


def keep_for_figure(
    out: Path, case: Case, method: str, found: xr.Dataset, truth: xr.Dataset, volume: xr.DataArray | None
) -> None:
    """Write what a figure of a slice shows: the mean of the slices within 0.06 nm of the middle, and atoms there."""
    folder = out / "slices"
    folder.mkdir(exist_ok=True)
    assert volume is not None
    half = 0.06
    level = float(np.median(truth["z"].values))
    slab = volume.sel(z=slice(level - half, level + half))
    near = [table.positions(one)[np.abs(table.positions(one)[:, 0] - level) <= half][:, 1:] for one in (found, truth)]
    extent = [float(volume["x"].values[0]), float(volume["x"].values[-1])]
    np.savez(folder / f"{case}_{method}.npz", image=slab.mean("z").values, found=near[0], truth=near[1], extent=extent)


def panels(rows: Sequence[Row]) -> dict[tuple[str, str, str, str], list[Row]]:
    """Rows by structure, mode, engine and geometry."""
    made: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        made.setdefault(row.case[:4], []).append(row)
    return made


def means(rows: Sequence[Row], value: Callable[[Row], float]) -> tuple[list[float], list[float]]:
    """Doses, and means over seeds."""
    by_dose: dict[float, list[float]] = {}
    for row in rows:
        by_dose.setdefault(row.case.dose, []).append(value(row))
    doses = sorted(by_dose)
    return doses, [float(np.nanmean(by_dose[dose])) if np.isfinite(by_dose[dose]).any() else np.nan for dose in doses]


def draw_doses(rows: Sequence[Row]) -> Figure:
    """Above recall, below the distance of what was found with its bound, against dose; a column for each panel."""
    parts = panels(rows)
    figure = Figure(figsize=(0.9 + 2.6 * len(parts), 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(parts), squeeze=False, sharex="col", sharey="row")
    for column, (key, some) in zip(grid.T, parts.items(), strict=True):
        for method in METHODS:
            own = [row for row in some if row.method == method]
            if own:
                style = {"color": COLOURS[method], "label": TITLES[method], "marker": "o", "markersize": 4}
                column[0].plot(*means(own, lambda row: row.recall), **style)
                column[1].plot(*means(own, lambda row: row.rmsd_pm), **style)
        style = {"color": "0.2", "linestyle": ":", "marker": "_", "markersize": 9, "label": "bound"}
        column[1].plot(*means(some, lambda row: row.bound_pm), **style)
        column[0].set_title(f"{key[0]}, {key[1]}\n{key[2]}, {key[3]}", fontsize=9)
        column[0].set_ylim(0, 1.04)
        column[1].set_xscale("log")
        column[1].set_yscale("log")
        column[1].set_xlabel("dose of the series [e/Å²]")
        for axes in column:
            axes.grid(alpha=0.3)
    grid[0, 0].set_ylabel("share of atoms found")
    grid[1, 0].set_ylabel("RMSD [pm]")
    lengths = FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "125" else "")
    grid[1, 0].yaxis.set_major_formatter(lengths)
    grid[1, 0].yaxis.set_minor_formatter(lengths)
    figure.legend(*grid[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def draw_slices(out: Path, case: Case) -> Figure | None:
    """Each method's slice of one case, with the true atoms as circles and what was found as crosses."""
    kept = [(method, out / "slices" / f"{case}_{method}.npz") for method in METHODS]
    kept = [(method, path) for method, path in kept if path.exists()]
    if not kept:
        return None
    figure = Figure(figsize=(0.3 + 2.7 * len(kept), 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (method, path) in zip(figure.subplots(1, len(kept), squeeze=False)[0], kept, strict=True):
        with np.load(path) as held:
            low, high = held["extent"]
            axes.imshow(
                held["image"], cmap="gray", origin="lower", extent=(low, high, low, high), interpolation="nearest"
            )
            circles = held["truth"]
            axes.scatter(circles[:, 1], circles[:, 0], s=70, facecolors="none", edgecolors="#7fd0ff", linewidths=0.9)
            crosses = held["found"]
            axes.scatter(crosses[:, 1], crosses[:, 0], s=24, marker="+", color="#ff6b4a", linewidths=1.0)
        axes.set_title(TITLES[method], fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


HEADS = ("structure", "mode", "series", "views", "dose", "method", "recall", "precision", "RMSD [pm]", "bound [pm]")


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
        told = (f"{numbers[0]:.3f}", f"{numbers[1]:.3f}", f"{numbers[2]:.1f}", f"{numbers[3]:.1f}")
        yield (*key[:4], f"{key[4]:g}", TITLES[key[5]], *told)


def page(rows: Sequence[Row], cases: Sequence[Case], out: Path) -> None:
    """Write the figures, the table and the page."""
    middle = sorted({case.dose for case in cases})
    chosen = list({case[:4]: case for case in cases if case.dose == middle[len(middle) // 3]}.values())
    drawn = [(draw_doses(rows), "doses.png", "Against dose", "Means over seeds; the dotted line is the bound.")]
    for case in chosen:
        figure = draw_slices(out, case)
        if figure is not None:
            text = "A slice of 0.12 nm: circles are atoms of the structure, crosses those that were found."
            title = f"{case.structure}, {case.mode}, {case.engine}, {case.geometry}, {case.dose:g} e/Å²"
            drawn.append((figure, f"slice_{case}.png", title, text))
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
    rows = [row for row in read(given.out / "atoms.csv") if row.case in set(cases)]
    if rows:
        page(rows, cases, given.out)
        print((given.out / "atoms.md").read_text())


if __name__ == "__main__":
    main()
