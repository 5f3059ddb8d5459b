"""What consistency with the measurement does to volumes of networks and to others; docs/theory.md has what it prints.

    python pipelines/consistency_study.py --out stores/consistency

Specimens, noise and networks are those of `truth.py`, 64³ voxels and 8 projections in ±70°: a row for each volume, a
column for each specimen and noise, mean square errors as multiples of that before. "white" and "smooth" are the truth
with errors in its matter, of 0.03 from voxel to voxel and of 0.05 that are smooth; "TV" and "SIRT ≥ 0" fit already.
"""

import argparse
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter
from truth import CONFIGURATIONS, Case, Size, network_of, series_of, truth_of

import nntomo_dask as nt
from nntomo_dask.reconstruction import consistency
from nntomo_dask.reconstruction.consistency import ITERATIONS, finished

VOXELS, GEOMETRY = 64, "tem8"
NOISES, SPECIMENS = (0.0, 2.0, 5.0), ("faceted", "coreshell", "smooth", "porous", "particles", "needle")
SIZE = Size(VOXELS, SPECIMENS, NOISES, (GEOMETRY,), (1,), slices=240, depth=20, epochs=8)
WEIGHTS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
COUNTS = (3, 5, ITERATIONS, 20, 100)
SETTINGS = [{"weight": weight} for weight in WEIGHTS] + [{"iterations": count} for count in COUNTS]
AUTOMATIC = len(WEIGHTS) + COUNTS.index(ITERATIONS)
NETWORKS = {one.name: one for one in CONFIGURATIONS if one.name in ("msdnet", "nnfbp-mixed")}


def proposals(case: Case, series: xr.DataArray, truth: np.ndarray, out: Path) -> dict[str, np.ndarray]:
    """Volumes by their names."""
    rng = np.random.default_rng(case.seed)
    matter = (truth > 0).astype(np.float32)
    smooth = gaussian_filter(rng.standard_normal(truth.shape, np.float32), (1, 2, 2))
    found = {
        one.title: nt.reconstruct(series, network_of(one, case, SIZE, out / "networks"), consistency="none").values
        for one in NETWORKS.values()
    }
    return found | {
        "TV": nt.tv(series).values,
        "SIRT ≥ 0": nt.sirt(series, minimum=0, tolerance=1e-3).values,
        "white": truth + np.float32(0.03) * rng.standard_normal(truth.shape, np.float32) * matter,
        "smooth": truth + np.float32(0.05) / smooth.std() * smooth * matter,
    }


def study(seed: int, out: Path) -> dict[str, dict[tuple[str, float], list[float]]]:
    """For each volume and case the error before, and its multiples after with each of `SETTINGS`."""
    table: dict[str, dict[tuple[str, float], list[float]]] = {}
    for noise in NOISES:
        for specimen in SPECIMENS:
            case = Case(specimen, VOXELS, "fine", GEOMETRY, noise, seed)
            series, truth = series_of(case), truth_of(case).values
            pair = nt.projector(series.angle.values, VOXELS)
            level = nt.intensity_level(series).data
            least, *of_rays = consistency.prepare(series, "auto", level=level, who="study")
            known = {"minimum": float(least), "noise": [float(one) for one in of_rays]}
            for name, volume in proposals(case, series, truth, out).items():
                before = float(((volume - truth) ** 2).mean())
                after = [finished(volume, series.values, pair, **settings, **known) for settings in SETTINGS]
                errors = [float(((one - truth) ** 2).mean()) / before for one in after]
                table.setdefault(name, {})[specimen, noise] = [before, *errors]
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("stores/consistency"), help="folder of the networks")
    parser.add_argument("--seed", type=int, default=11, help="of the specimens")
    given = parser.parse_args()
    table = study(given.seed, given.out)
    print("automatic: geometric mean and largest over the specimens; (best fixed weight)")
    print("| volume | " + " | ".join(f"{noise:g} %" for noise in NOISES) + " |")
    print("|---" * (1 + len(NOISES)) + "|")
    means: dict[str, list[np.ndarray]] = {}
    for name, line in table.items():
        cells = []
        for noise in NOISES:
            values = np.array([line[specimen, noise] for specimen in SPECIMENS])[:, 1:]
            means.setdefault(name, []).append(np.exp(np.log(values).mean(axis=0)))
            fixed = means[name][-1][: len(WEIGHTS)]
            best = int(fixed.argmin())
            auto, largest = means[name][-1][AUTOMATIC], values[:, AUTOMATIC].max()
            cells.append(f"{auto:.2f}, {largest:.2f} ({fixed[best]:.2f} with {WEIGHTS[best]:g})")
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(f"\nautomatic, after {', '.join(map(str, COUNTS))} iterations:")
    for name, of_noises in means.items():
        text = " | ".join(", ".join(f"{one:.2f}" for one in values[len(WEIGHTS) :]) for values in of_noises)
        print(f"| {name} | {text} |")
    print()
    for name in [one.title for one in NETWORKS.values()]:
        for (specimen, noise), (before, *after) in table[name].items():
            print(f"{name}, {specimen} {noise:g} %: {before:.6f} to {before * after[AUTOMATIC]:.6f}")


if __name__ == "__main__":
    main()
