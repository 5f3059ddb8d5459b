"""Finding the atoms of a large volume by the command: seconds, processor time, memory, and how many were right.

The volume is a sum of Gaussians with noise, written slab by slab. A volume that is there already is taken, and a
measurement that is in the JSON file is not made again.
"""

import json
import resource
from pathlib import Path

import benchmark
import click
import dask.array as da
import numpy as np
from scipy.spatial import cKDTree

import nntomo_dask as nt
from nntomo_dask.atoms import table
from nntomo_dask.compute import cluster
from nntomo_dask.kernels import peaks

WIDTH, PIXEL = 2.0, 0.02  # px; nm
NOISE = 0.1  # of the height of the faintest atom
SLAB = 8  # slices that are made at once
LIMIT = WIDTH / 2  # px: what is farther from a true atom is another one


def places_of(count, shape, layout, seed):
    """(atom, 3) voxels: at random, 3 widths from each other; or as dense as in a metal, a ball in the middle."""
    rng = np.random.default_rng(seed)
    middle = (np.array(shape) - 1) / 2
    if layout == "dense":
        apart = 2.6 * WIDTH
        half = int((count / 4) ** (1 / 3)) + 8
        cell = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2  # face-centred cubic
        corners = np.stack(np.meshgrid(*[np.arange(-half, half)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
        lattice = (corners + cell).reshape(-1, 3) * apart * np.sqrt(2)
        nearest = np.argsort((lattice**2).sum(axis=1), kind="stable")[:count]
        return middle + lattice[nearest] + rng.normal(0, 0.03 * apart, (count, 3))
    kept = np.zeros((0, 3))
    while len(kept) < count:
        more = rng.uniform(4, np.array(shape) - 5, (count, 3))
        every = np.concatenate([kept, more])
        pairs = cKDTree(every).query_pairs(3 * WIDTH, output_type="ndarray")
        spoiled = np.zeros(len(every), bool)
        spoiled[pairs.max(axis=1)] = True
        kept = every[~spoiled][:count]
    return kept


def _slab(block_info, places, heights, shape, seed):
    (low, high), *_ = block_info[None]["array-location"]
    values = np.empty((high - low, *shape[1:]), np.float32)
    for z in range(low, high):
        np.random.default_rng([seed, z]).standard_normal(shape[1:], np.float32, out=values[z - low])
    values *= NOISE
    near = np.abs(places[:, 0] - (low + high) / 2) < (high - low) / 2 + peaks.REACH * WIDTH + 1
    gaussians = np.column_stack([places[near], -heights[near], np.full(near.sum(), WIDTH)])
    peaks.subtract(values, gaussians, first=low, step=1.0)
    return values


def volume_of(places, heights, shape, seed):
    """The volume, lazy."""
    chunks = (tuple(min(SLAB, shape[0] - low) for low in range(0, shape[0], SLAB)), *((size,) for size in shape[1:]))
    data = da.map_blocks(
        _slab, chunks=chunks, dtype=np.float32, places=places, heights=heights, shape=shape, seed=seed,
        meta=np.empty((0, 0, 0), np.float32),
    )  # fmt: skip
    return nt.volume(data, pixel_size=PIXEL, units="nm")


def score(found, volume, places):
    """Shares that are found and right, and the root mean square distance in voxels, beside its bound."""
    steps = [float(volume[dim][1] - volume[dim][0]) for dim in ("z", "y", "x")]
    starts = [float(volume[dim][0]) for dim in ("z", "y", "x")]
    seen = (table.positions(found) - starts) / steps
    distance, nearest = cKDTree(seen).query(places, distance_upper_bound=LIMIT)
    matched = np.isfinite(distance)
    right = np.unique(nearest[matched]).size
    return {
        "atoms": len(seen),
        "found": right / len(places),
        "right": right / len(seen),
        "RMSD, px": float(np.sqrt((distance[matched] ** 2).mean())),
    }


@click.command(help="Measure `nntomo atoms` on a large volume of Gaussians with noise.")
@click.option("--size", default=1024, show_default=True, help="Voxels along y and x.")
@click.option("--slices", default=1024, show_default=True, help="Voxels along z.")
@click.option("--atoms", "count", default=100_000, show_default=True)
@click.option("--layout", type=click.Choice(["random", "dense"]), default="random", show_default=True)
@click.option("--memory", "memories", default=("4GB",), show_default=True, multiple=True, help="Of each run.")
@click.option("--workers", default=cluster.default_workers(), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("stores/benchmark-atoms"), show_default=True)
def main(size: int, slices: int, count: int, layout: str, memories: tuple[str, ...], workers: int, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    name, shape = f"{layout}-{slices}x{size}-{count}", (slices, size, size)
    places = places_of(count, shape, layout, seed=1)
    heights = np.random.default_rng(2).uniform(1, 2, count)
    path, table_path, results = out / f"{name}.zarr", out / f"{name}.csv", out / "benchmark_atoms.json"
    if not path.exists():
        with cluster.session(scheduler="threads"):
            nt.save(volume_of(places, heights, shape, seed=3), path)
    done = json.loads(results.read_text()) if results.exists() else {}
    volume = nt.open(path)
    squares = float(((NOISE / heights) ** 2).mean())
    for memory in memories:
        key = f"{name}, {memory}, {workers} workers"
        if key not in done:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            words = ("atoms", path, "-o", table_path, "--overwrite", "--memory", memory, "--workers", workers)
            measured = benchmark.command(*words)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            bound = float(np.sqrt(3 * squares * 2 / (np.pi**1.5 * WIDTH)))
            done[key] = {**measured, "processor seconds": cpu, **score(nt.read_atoms(table_path), volume, places)}
            done[key]["bound of the RMSD, px"] = bound
            results.write_text(json.dumps(done, indent=2, ensure_ascii=False))
        click.echo(f"{key}\n{json.dumps(done[key], indent=2, ensure_ascii=False)}")


if __name__ == "__main__":
    main()
