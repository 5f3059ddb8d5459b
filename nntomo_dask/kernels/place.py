"""Atoms placed in a volume: every atom a radial profile around its own position."""

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def place_reference(
    z_indices: npt.NDArray[np.int64], size: int, positions: Float64, kinds: npt.NDArray[np.int64], profiles: Float64
) -> Float32:
    """The arithmetic as one line an atom; see `place`."""
    steps = profiles.shape[1] - 1
    z, y, x = np.meshgrid(z_indices, np.arange(size), np.arange(size), indexing="ij")
    total = np.zeros(z.shape)
    for (ax, ay, az, scale), kind in zip(positions, kinds, strict=True):
        radius = scale * np.sqrt((x - ax) ** 2 + (y - ay) ** 2 + (z - az) ** 2)
        total += np.interp(radius, np.arange(steps + 1), profiles[kind], right=0.0)
    return total.astype(np.float32)


def place(
    z_indices: npt.NDArray[np.int64], size: int, positions: Float64, kinds: npt.NDArray[np.int64], profiles: Float64
) -> Float32:
    """Sum of the profiles of all atoms at every voxel of some slices.

    Parameters
    ----------
    z_indices
        (slice,), consecutive.
    size
        Voxels along y and x.
    positions
        (atom, 4): x, y, z in voxels, counted from the middle of voxel 0, and the profile's steps a voxel.
    kinds
        (atom,), which profile an atom has.
    profiles
        (kind, step), values at 0, 1, 2, … steps from the atom; linear between, zero beyond.

    Returns
    -------
    (slice, y, x), float32; a voxel's sum is in the order of the atoms, whatever the slices.
    """
    total = np.zeros((len(z_indices), size, size))
    if len(z_indices):
        _place(int(z_indices[0]), np.ascontiguousarray(positions), kinds, np.ascontiguousarray(profiles), total)
    return total.astype(np.float32)


@numba.njit(nogil=True, cache=True)
def _place(first: int, positions: Any, kinds: Any, profiles: Any, total: Any) -> None:
    slices, size, _ = total.shape
    last = profiles.shape[1] - 1
    for atom in range(len(positions)):
        ax, ay, az, scale = positions[atom]
        reach = last / scale
        profile = profiles[kinds[atom]]
        for z in range(max(first, math.ceil(az - reach)), min(first + slices, math.floor(az + reach) + 1)):
            for y in range(max(0, math.ceil(ay - reach)), min(size, math.floor(ay + reach) + 1)):
                across = (z - az) ** 2 + (y - ay) ** 2
                if across > reach * reach:
                    continue
                half = math.sqrt(reach * reach - across)
                for x in range(max(0, math.ceil(ax - half)), min(size, math.floor(ax + half) + 1)):
                    place = scale * math.sqrt(across + (x - ax) ** 2)
                    step = int(place)
                    if step < last:
                        share = place - step
                        total[z - first, y, x] += (1 - share) * profile[step] + share * profile[step + 1]
