"""The unrolled networks' part of the benchmark: time of a slice in the U-Net, beside the floor of its arithmetic."""

import statistics
import time

import numpy as np

from nntomo_dask.kernels import torch_unet, unet

LANES = 16  # multiply-adds of a cycle: two units of eight float32, as AVX2 has
NEIGHBOURS = 2


def slices(size: int) -> dict[str, dict[str, float]]:
    """One slice on one core, for both pretrained widths."""
    rng = np.random.default_rng(0)
    guesses = [rng.random((1 + 2 * NEIGHBOURS, size, size), np.float32) for _ in range(3)]
    result = {}
    for width in (16, 32):
        channels = unet.channel_count(NEIGHBOURS)
        vectors = [unet.initial_parameters(channels, width, 0)]

        def run(vectors=vectors, width=width):
            torch_unet.solved(vectors, guesses, lambda images: images, noise=0.0, width=width, neighbours=NEIGHBOURS)

        run()
        times = []
        for _ in range(3):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        taken, operations = statistics.median(times), unet.multiply_adds(channels, width, size)
        result[f"{width} maps"] = {
            "seconds a slice": taken,
            "10⁹ multiply-adds": operations / 1e9,
            "10⁹ multiply-adds a second": operations / taken / 1e9,
            "floor at 3 GHz, seconds": operations / LANES / 3e9,
        }
    return result
