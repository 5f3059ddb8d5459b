"""Atoms in a volume: each atom is a radial profile around its position."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nntomo_dask.kernels.compiling import njit
from nntomo_dask.types import Float32, Float64


def place_reference(
    z_indices: npt.NDArray[np.int64], size: int, positions: Float64, kinds: npt.NDArray[np.int64], profiles: Float64
) -> Float32:
    """Reference implementation of `place`."""
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
    """Sum of the profiles of all atoms at every voxel of a group of slices.

    Parameters
    ----------
    z_indices
        (slice,), consecutive.
    size
        Number of voxels along y and along x.
    positions
        (atom, 4): x, y, z in voxels, from the centre of voxel 0, and the number of profile steps per voxel.
    kinds
        (atom,), index of the profile of each atom.
    profiles
        (kind, step), values at 0, 1, 2, … steps from the atom, interpolated linearly, zero beyond the last step.

    Returns
    -------
    (slice, y, x), float32. Each voxel is summed in the order of the atoms, so it does not depend on the group.
    """
    total = np.zeros((len(z_indices), size, size))
    if len(z_indices):
        _place(int(z_indices[0]), np.ascontiguousarray(positions), kinds, np.ascontiguousarray(profiles), total)
    return total.astype(np.float32)


@njit(nogil=True, cache=True)
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
