"""What projections say of atoms where their noise is white in the gradient: the Fisher information. Plain arrays.

With ``C(d) = π (1 - d²/4w²) exp(-d²/4w²)``, the sum over a plane of the product of the gradients of two Gaussians of
width w that are d apart, the information of heights h and places u is

    I(h, h') = C,    I(h, u') = -h' ∂C,    I(u, u') = -h h' ∂∂C,

by the deviation of the gradient squared and the area of a pixel.
"""

import math

import numpy as np

from nntomo_dask.atoms.information import Errors, inverse_diagonal
from nntomo_dask.kernels.atom_grid import Rays
from nntomo_dask.types import Float64


def standard_errors(
    positions: Float64, heights: Float64, width: float, rays: Rays, *, precision: float, field: float
) -> Errors:
    """Standard errors of positions and heights of all atoms, all of them unknown.

    Parameters
    ----------
    positions, heights
        (atom, 3): z, y, x [nm]; (atom,), in a projection.
    precision
        One over the variance of each component of the gradient, per nm.
    field
        Field of view [nm]: what is known of a position without any projection.
    """
    count = len(heights)
    information = np.zeros((count, 4, count, 4))
    dense = precision / abs(rays.step_z * rays.step_t)
    for cosine, sine in zip(rays.cosines, rays.sines, strict=True):
        # (2, 3): how the place (z, t) in the projection follows the position.
        turned = np.array([[1.0, 0.0, 0.0], [0.0, sine, cosine]])
        places = positions @ turned.T
        away = places[:, None] - places
        value, slope, curved = _correlation(away, width)
        by_place = np.einsum("abi,ip->abp", slope, turned)
        information[:, 0, :, 0] += dense * value
        information[:, 0, :, 1:] -= dense * heights[None, :, None] * by_place
        information[:, 1:, :, 0] += dense * np.swapaxes(heights[:, None, None] * by_place, 1, 2)
        both = heights[:, None] * heights
        information[:, 1:, :, 1:] -= dense * np.einsum("ab,abij,ip,jq->apbq", both, curved, turned, turned)
    matrix = information.reshape(4 * count, 4 * count)
    known = np.tile([0.0, *[1 / field**2] * 3], count)
    variances = inverse_diagonal(matrix + np.diag(known)).reshape(count, 4)
    return Errors(np.sqrt(variances[:, 1:]), np.sqrt(variances[:, 0]))


def _correlation(away: Float64, width: float) -> tuple[Float64, Float64, Float64]:
    """C of the differences (atom, atom, 2), its gradient (…, 2), and its second derivatives (…, 2, 2)."""
    scale = 4 * width**2
    square = (away**2).sum(axis=-1) / scale
    falling = math.pi * np.exp(-square)
    # C = π (1 - s) exp(-s) with s = d²/4w²: dC/ds = -(2 - s) π exp(-s), d²C/ds² = (3 - s) π exp(-s).
    first, second = -(2 - square) * falling, (3 - square) * falling
    inner = 2 * away / scale
    slope = first[..., None] * inner
    curved = second[..., None, None] * inner[..., :, None] * inner[..., None, :]
    curved = curved + first[..., None, None] * (2 / scale) * np.eye(2)
    return (1 - square) * falling, slope, curved
