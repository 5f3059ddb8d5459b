"""Slices as the training of MS-D Net uses them: in memory, or read block by block from their stores."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import compute

from nntomo_dask.arrays.slabs import mirrored
from nntomo_dask.errors import refuse
from nntomo_dask.training.msdnet.slices import SCENE, USED, would_be_reconstructed
from nntomo_dask.types import Float32, Integers

IN_MEMORY_BYTES = 2**30  # of a set that is held in memory; a larger one is read again in every epoch
BLOCK = 32  # slices that are read together
BLOCKS = 4  # blocks whose slices are shuffled together; twice as many of a large set are held in memory
TURNS = 8  # flips and right-angle rotations of a slice; times 2 for the order of its neighbours


class Group(NamedTuple):
    """Some used slices, and what was read for them."""

    used: Integers
    place: Integers  # where a slice lies in the arrays, by its number
    input: Float32
    target: Float32


@dataclass
class Slices:
    """Input and target (z, y, x), arrays or over Dask; which scene a slice is of; which ones are used."""

    input: Any
    target: Any
    scenes: Integers
    used: Integers

    @classmethod
    def of(cls, dataset: xr.Dataset) -> "Slices":
        """Of a training set, loaded where it is small.

        Raises
        ------
        SchemaError
            It is large, and each epoch would compute it anew.
        """
        source, target = dataset["input"].data, dataset["target"].data
        if isinstance(source, da.Array):
            size = source.nbytes + target.nbytes
            if size <= IN_MEMORY_BYTES:
                source, target = compute(source, target)
            elif would_be_reconstructed(dataset):
                refuse(
                    "train_msdnet",
                    needs=f"a set of more than {IN_MEMORY_BYTES // 2**20} MiB in stores, since every epoch reads it",
                    got=f"{size // 2**20} MiB that every epoch would reconstruct anew",
                    remedy='save the set to a store: nt.save(set, "set.zarr")',
                )
        return cls(source, target, dataset[SCENE].values, np.flatnonzero(dataset[USED].values))

    def shuffled(self, seed: Sequence[int]) -> list[Integers]:
        """The used slices in a random order: groups, each of a few blocks. A group's size depends on no seed."""
        rng = np.random.default_rng(seed)
        blocks, counts = np.unique(self.used // BLOCK, return_counts=True)
        order = rng.permutation(blocks.size)
        order = order[np.argsort(-counts[order], kind="stable")]  # the fullest first
        groups = [blocks[order[first : first + BLOCKS]] for first in range(0, blocks.size, BLOCKS)]
        return [rng.permutation(self.used[np.isin(self.used // BLOCK, group)]) for group in groups]

    def in_order(self) -> list[Integers]:
        """The used slices, block by block."""
        return np.split(self.used, np.flatnonzero(np.diff(self.used // BLOCK)) + 1)

    def groups(self, order: list[Integers], neighbours: int) -> Iterator[Group]:
        """What each group of slices needs; the next one is read while one is worked on."""
        with ThreadPoolExecutor(1) as reader:
            waiting = reader.submit(self._read, order[0], neighbours)
            for following in order[1:]:
                ready, waiting = waiting.result(), reader.submit(self._read, following, neighbours)
                yield ready
            yield waiting.result()

    def _read(self, group: Integers, neighbours: int) -> Group:
        place = np.arange(self.scenes.size)
        if isinstance(self.input, np.ndarray):
            return Group(group, place, self.input, self.target)
        wanted = np.unique(np.concatenate([self.window(int(z), neighbours) for z in group]))
        place[wanted] = np.arange(wanted.size)
        blocks = np.split(wanted, np.flatnonzero(np.diff(wanted // BLOCK)) + 1)
        lazy = [array[one] for array in (self.input, self.target) for one in blocks]
        parts = compute(*lazy, scheduler="threads", num_workers=1)
        return Group(group, place, np.concatenate(parts[: len(blocks)]), np.concatenate(parts[len(blocks) :]))

    def window(self, z: int, neighbours: int) -> Integers:
        """The numbers of a slice's neighbours and its own; at the ends of a scene they are mirrored."""
        low, high = np.searchsorted(self.scenes, [self.scenes[z], self.scenes[z] + 1])
        seen: Integers = low + mirrored(int(high - low), neighbours)[z - low : z - low + 2 * neighbours + 1]
        return seen


def turned(images: Float32, turn: int) -> Float32:
    """Images (…, y, x) turned by right angles (turn % 4), mirrored (turn // 4 % 2), neighbours reversed (turn // 8)."""
    if turn // 4 % 2:
        images = images[..., ::-1, :]
    if turn // TURNS:
        images = images[::-1]
    return np.rot90(images, turn % 4, (-2, -1))
