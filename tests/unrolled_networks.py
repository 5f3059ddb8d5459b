"""Small unrolled networks whose parameters are random, for tests of what is made of them."""

import numpy as np

from nntomo_dask.kernels import unet
from nntomo_dask.networks.unrolled import Geometry, UnrolledNetwork, in_half_precision

ANY = Geometry(projections=(2, 40), reach_deg=(0.0, 90.0))


def network_of(*, steps=2, neighbours=1, width=2, seed=0, geometry=ANY, spread=0.15):
    """A network whose outputs are not small: each voxel shows whether all of its inputs were right."""
    count = unet.parameter_count(unet.channel_count(neighbours), width)
    parameters = np.random.default_rng(seed).normal(0, spread, (steps, count))
    return UnrolledNetwork(geometry, in_half_precision(parameters), width, neighbours, {"operation": f"made {seed}"})
