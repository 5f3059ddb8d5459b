"""⟨A x, y⟩ = ⟨x, Aᵀ y⟩, whatever the size, the slices and the angles."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from nntomo_dask.kernels import astra as astra_engine, project

angle_lists = st.lists(st.floats(-180, 180), min_size=1, max_size=6).map(np.array)


def native(images, sinograms, angles_deg):
    return project.forward(images, np.deg2rad(angles_deg)), project.back(sinograms, np.deg2rad(angles_deg))


def astra(images, sinograms, angles_deg):
    return astra_engine.forward(images, angles_deg), astra_engine.back(sinograms, angles_deg)


@pytest.mark.parametrize("pair", [native, astra])
@settings(deadline=None, max_examples=40, derandomize=True)
@given(n=st.integers(2, 40), slices=st.integers(1, 4), angles_deg=angle_lists, seed=st.integers(0, 2**31))
def test_back_is_the_transpose_of_forward(pair, n, slices, angles_deg, seed):
    rng = np.random.default_rng(seed)
    images = rng.random((slices, n, n), np.float32)
    sinograms = rng.random((slices, angles_deg.size, n), np.float32)
    forward, back = pair(images, sinograms, angles_deg)
    left = float((forward.astype(float) * sinograms).sum())
    right = float((images.astype(float) * back).sum())
    # Positive terms: no cancellation, so the relative error is that of single precision; 1e-5 is the promise.
    assert left == pytest.approx(right, rel=1e-5)
