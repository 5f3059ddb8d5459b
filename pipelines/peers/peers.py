"""The same series through other programs: svmbir, scikit-image's SART, ASTRA's SIRT and a DART of ASTRA's parts.

In an environment of its own, after ``python pipelines/truth.py --peers write …``:

    python -m venv peers && peers/bin/pip install -r pipelines/peers/requirements.txt
    peers/bin/python pipelines/peers/peers.py --check   # the geometries agree
    peers/bin/python pipelines/peers/peers.py

Rows go to the same ``truth.csv``; those that are there are not computed again. Every program gets the constraint of
values of at least 0, and the best parameters that the truth can find: iterations from a list, and for svmbir the grid
of `sharpness` and `snr_db`, searched downhill from a start that fits the noise.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import astra
import numpy as np
import svmbir
from skimage.filters import threshold_multiotsu
from skimage.transform import iradon_sart

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from truth_rows import Case, Row, append, read

ITERATIONS = (10, 30, 100, 300)
SWEEPS = (1, 2, 4, 8, 16, 32)  # of SART: each goes through all projections
DENSITIES = {"faceted": 1, "porous": 1, "coreshell": 2, "particles": 2}  # how many; for DART
PASSES, INNER, FREE = 20, 10, 0.15  # of DART: passes, iterations of SIRT in each, share of free voxels off the edges


def by_svmbir(series: np.ndarray, angles_deg: np.ndarray, *, sharpness: float, snr_db: float) -> np.ndarray:
    """MBIR with a qGGMRF prior. Its slices have x along rows and turn the other way."""
    with tempfile.TemporaryDirectory() as folder:
        volume = svmbir.recon(
            np.ascontiguousarray(series.transpose(1, 0, 2)),
            -np.deg2rad(angles_deg),
            sharpness=sharpness,
            snr_db=snr_db,
            num_threads=threads(),
            svmbir_lib_path=folder,
            verbose=0,
        )
    return volume.transpose(0, 2, 1)


def by_sart(series: np.ndarray, angles_deg: np.ndarray, *, sweeps: int) -> np.ndarray:
    """SART slice by slice. Its axis is at pixel N // 2, not between two; the shifts make up for that."""
    radians = np.deg2rad(angles_deg)
    shifts = np.zeros_like(radians)
    if series.shape[-1] % 2 == 0:
        shifts = 0.5 * (1 - np.cos(radians) - np.sin(radians))
    volume = np.zeros((len(series), series.shape[-1], series.shape[-1]))
    for image, rows in zip(volume, series, strict=True):
        columns = np.ascontiguousarray(rows.T, np.float64)
        for _ in range(sweeps):
            image[...] = iradon_sart(
                columns, theta=-angles_deg, image=image, projection_shifts=shifts, clip=(0, np.inf), relaxation=0.15
            )
    return volume


class Slices:
    """ASTRA's 2D objects for one slice after the other; its rows of pixels go downwards, so angles are negative."""

    def __init__(self, size: int, angles_deg: np.ndarray, stack: ExitStack) -> None:
        self.image, self.mask = np.zeros((2, size, size), np.float32)
        self.rows = np.zeros((angles_deg.size, size), np.float32)
        volume = astra.create_vol_geom(size, size)
        rays = astra.create_proj_geom("parallel", 1.0, size, -np.deg2rad(angles_deg))
        self.projector = astra.create_projector("linear", rays, volume)
        stack.callback(astra.projector.delete, self.projector)
        self.ids = {}
        for name, kind, geometry in (("image", "-vol", volume), ("mask", "-vol", volume), ("rows", "-sino", rays)):
            self.ids[name] = astra.data2d.link(kind, geometry, getattr(self, name))
            stack.callback(astra.data2d.delete, self.ids[name])
        self.sirt = self._algorithm("SIRT", stack, "ReconstructionDataId", {"MinConstraint": 0.0})
        masked = {"MinConstraint": 0.0, "ReconstructionMaskId": self.ids["mask"]}
        self.masked_sirt = self._algorithm("SIRT", stack, "ReconstructionDataId", masked)
        self.projection = self._algorithm("FP", stack, "VolumeDataId", {})

    def _algorithm(self, kind: str, stack: ExitStack, image: str, option: dict[str, Any]) -> int:
        settings = astra.astra_dict(kind)
        settings |= {"ProjectorId": self.projector, "ProjectionDataId": self.ids["rows"], image: self.ids["image"]}
        settings["option"] = option
        identifier = astra.algorithm.create(settings)
        stack.callback(astra.algorithm.delete, identifier)
        return identifier

    def solved(self, rows: np.ndarray, iterations: int) -> np.ndarray:
        """SIRT from zero."""
        self.rows[...], self.image[...] = rows, 0
        astra.algorithm.run(self.sirt, iterations)
        return self.image.copy()

    def solved_within(self, rows: np.ndarray, start: np.ndarray, free: np.ndarray, iterations: int) -> np.ndarray:
        """SIRT from a start, of the free pixels only; the others keep their values."""
        fixed = np.where(free, 0, start)
        self.rows[...], self.image[...], self.mask[...] = rows - self.projected(fixed), np.where(free, start, 0), free
        astra.algorithm.run(self.masked_sirt, iterations)
        return np.where(free, self.image, start)

    def projected(self, image: np.ndarray) -> np.ndarray:
        """(angle, detector)."""
        self.image[...] = image
        astra.algorithm.run(self.projection)
        return self.rows.copy()


def by_astra_sirt(series: np.ndarray, angles_deg: np.ndarray, *, iterations: int) -> np.ndarray:
    """SIRT on the CPU, slice by slice, values at least 0."""
    with ExitStack() as stack:
        slices = Slices(series.shape[-1], angles_deg, stack)
        return np.stack([slices.solved(rows, iterations) for rows in series])


def by_dart(series: np.ndarray, angles_deg: np.ndarray, *, densities: int) -> np.ndarray:
    """DART [1] slice by slice, with grey levels from the histogram of SIRT of the whole volume.

    References
    ----------
    .. [1] K. J. Batenburg and J. Sijbers, IEEE Trans. Image Process. 20 (2011) 2542, doi:10.1109/TIP.2011.2131661.
    """
    rng = np.random.default_rng(0)
    with ExitStack() as stack:
        slices = Slices(series.shape[-1], angles_deg, stack)
        volume = np.stack([slices.solved(rows, 100) for rows in series])
        levels = grey_levels(volume, densities)
        for number, rows in enumerate(series):
            image = volume[number]
            for _ in range(PASSES):
                flat = segmented(image, levels)
                free = at_edges(flat) | (rng.random(flat.shape) < FREE)
                image = slices.solved_within(rows, np.where(free, image, flat), free, INNER)
                image = np.where(free, 0.6 * image + 0.4 * mean_of_neighbours(image), image)
            volume[number] = segmented(image, levels)
    return volume


def grey_levels(volume: np.ndarray, densities: int) -> np.ndarray:
    """0, and the medians of the classes that Otsu's thresholds part."""
    thresholds = threshold_multiotsu(volume, densities + 1)
    classes = np.digitize(volume, thresholds)
    return np.array([0, *(np.median(volume[classes == one]) for one in range(1, densities + 1))], np.float32)


def segmented(image: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Each pixel at the nearest level."""
    return levels[np.digitize(image, (levels[1:] + levels[:-1]) / 2)]


def at_edges(image: np.ndarray) -> np.ndarray:
    """Pixels of which one of eight neighbours has another value."""
    return np.any([one != image for one in neighbours(image)], axis=0)


def mean_of_neighbours(image: np.ndarray) -> np.ndarray:
    return np.mean(list(neighbours(image)), axis=0)


def neighbours(image: np.ndarray) -> Iterator[np.ndarray]:
    padded = np.pad(image, 1, mode="edge")
    height, width = image.shape
    for y, x in np.ndindex(3, 3):
        if (y, x) != (1, 1):
            yield padded[y : y + height, x : x + width]


def threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "2"))


class Run:
    """One case: computes what is not in the file, and tells the error."""

    def __init__(self, case: Case, folder: Path, path: Path) -> None:
        self.case, self.path = case, path
        self.series, self.truth = np.load(folder / f"{case}.npy"), np.load(folder / f"{case}_truth.npy")
        self.angles_deg = np.array(json.loads((folder / f"{case}.json").read_text())["angles_deg"])
        self.there = {row.key: row.mse for row in read(path)}

    def __call__(self, method: str, reconstruct: Callable[..., np.ndarray], **settings: float) -> float:
        """The mean square error of a program with some settings."""
        choice = ",".join(f"{name}={value:g}" for name, value in settings.items())
        key = self.case, method, choice
        if key not in self.there:
            begin, cpu = time.perf_counter(), time.process_time()
            volume = reconstruct(self.series, self.angles_deg, **settings)
            seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu
            mse = float(np.square(volume.astype(np.float64) - self.truth).mean())
            relative = float(np.sqrt(mse / np.square(self.truth.astype(np.float64)).mean()))
            append(self.path, Row(self.case, method, choice, mse, relative, seconds, cpu_seconds))
            print(f"{self.case} {method} {choice}: {mse:.6f} in {seconds:.1f} s", flush=True)
            self.there[key] = mse
        return self.there[key]


def downhill(error: Callable[[int, int], float], start: tuple[int, int]) -> None:
    """From a place of the grid to its best neighbour, until there is none better."""
    place = start
    while True:
        around = [place, *((place[0] + a, place[1] + b) for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1)))]
        best = min(around, key=lambda one: error(*one))
        if best == place:
            return
        place = best


def all_of(run: Run, methods: list[str]) -> None:
    """Every program on one case."""
    if "peer-sirt" in methods:
        for iterations in ITERATIONS:
            run("peer-sirt", by_astra_sirt, iterations=iterations)
    if "peer-sart" in methods:
        for sweeps in SWEEPS:
            run("peer-sart", by_sart, sweeps=sweeps)
    if "peer-dart" in methods and run.case.specimen in DENSITIES:
        run("peer-dart", by_dart, densities=DENSITIES[run.case.specimen])
    if "peer-svmbir" in methods:
        start = (1, 4) if run.case.noise == 0 else (0, 3)
        downhill(lambda a, b: run("peer-svmbir", by_svmbir, sharpness=a, snr_db=10 * b), start)


def check() -> None:
    """Each program gives back an asymmetric body from many projections, in its place and orientation."""
    size, angles = 64, np.linspace(-90, 90, 60, endpoint=False)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    truth = np.float32(((x - 8) / 14) ** 2 + ((y + 6) / 8) ** 2 <= 1) + np.float32(np.hypot(x + 12, y - 10) <= 6) / 2
    with ExitStack() as stack:
        sinogram = Slices(size, angles, stack).projected(truth)
    # The formula of the projections, by their first moment: x cos θ + y sin θ.
    radians, place = np.deg2rad(angles), np.arange(size) - (size - 1) / 2
    centre = ((truth * x).sum() * np.cos(radians) + (truth * y).sum() * np.sin(radians)) / truth.sum()
    assert np.abs(sinogram @ place / sinogram.sum(axis=1) - centre).max() < 0.05
    series = np.stack([sinogram] * 4)
    for name, volume in {
        "ASTRA SIRT": by_astra_sirt(series, angles, iterations=100),
        "ASTRA DART": by_dart(series, angles, densities=2),
        "SART": by_sart(series, angles, sweeps=16),
        "svmbir": by_svmbir(series, angles, sharpness=1, snr_db=40),
    }.items():
        errors = [
            float(np.linalg.norm(np.rot90(image, turns) - truth) / np.linalg.norm(truth))
            for image in (volume[1], volume[1].T)
            for turns in range(4)
        ]
        relative, turned = errors[0], min(errors[1:])
        print(f"{name}: relative error {relative:.3f}; turned or mirrored {turned:.3f} or more")
        assert relative < 0.3 < turned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only see whether the geometries agree")
    parser.add_argument("--out", type=Path, default=Path("stores/truth"), help="folder of truth.py")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="part of a case's name; repeatable")
    names = ["peer-sirt", "peer-sart", "peer-dart", "peer-svmbir"]
    parser.add_argument("--methods", default=",".join(names), help="comma-separated")
    given = parser.parse_args()
    if unknown := set(given.methods.split(",")) - set(names):
        parser.error(f"--methods {', '.join(sorted(unknown))}: there are {', '.join(names)}")
    if given.check:
        check()
        return
    folder = given.out / "peers"
    for described in sorted(folder.glob("*.json")):
        case = Case(*json.loads(described.read_text())["case"])
        if all(word in str(case) for word in given.only):
            all_of(Run(case, folder, given.out / "truth.csv"), given.methods.split(","))


if __name__ == "__main__":
    main()
