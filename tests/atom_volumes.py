"""Volumes that are sums of Gaussians at known places."""

import numpy as np

import nntomo_dask as nt
from nntomo_dask.atoms import table

PIXEL = 0.02  # nm


def gaussians(places, heights, width, shape, *, background=0.0, noise=0.0, seed=0, step=1.0):
    """A volume of Gaussians at places (atom, 3) in voxels; `width` in pixels, slices `step` pixels apart."""
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    values = np.full(shape, float(background))
    for (a, b, c), height, one in zip(places, heights, np.broadcast_to(width, len(places)), strict=True):
        squared = ((z - a) * step) ** 2 + (y - b) ** 2 + (x - c) ** 2
        values += height * np.exp(-squared / (2 * one**2))
    if noise:
        values += np.random.default_rng(seed).normal(0, noise, shape)
    labelled = nt.volume(values.astype(np.float32), pixel_size=PIXEL, units="nm")
    return labelled.assign_coords(z=labelled["z"].values * step)


def scattered(count, shape, *, apart, seed, border=4.0):
    """Random places (atom, 3), at least so many voxels from each other and from the border."""
    rng = np.random.default_rng(seed)
    places = np.zeros((0, 3))
    while len(places) < count:
        one = rng.uniform(border, np.array(shape) - 1 - border)
        if (((places - one) ** 2).sum(axis=1) > apart**2).all():
            places = np.concatenate([places, one[None]])
    return places


def voxels(atoms, volume):
    """Positions of a table in voxels from the first of a volume."""
    columns = [
        (place - float(volume[dim].values[0])) / float(volume[dim].values[1] - volume[dim].values[0])
        for place, dim in zip(table.positions(atoms).T, ("z", "y", "x"), strict=True)
    ]
    return np.stack(columns, axis=1)
