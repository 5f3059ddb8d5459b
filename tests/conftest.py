"""Fixtures that several test modules share."""

import dask
import numpy as np
import pytest

import nntomo_dask as nt

ANGLES_DEG = np.array([-90.0, -70.0, -45.0, -31.3, 0.0, 12.0, 45.0, 60.0, 89.0])  # both kinds of rays, and the diagonal


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def volume(rng):
    """An asymmetric volume of 9 slices, one of them empty, none of them like another."""
    data = rng.random((9, 32, 32), np.float32)
    data[:, 20:, :10] += 3
    data[4] = 0
    return nt.volume(data)


@pytest.fixture
def series(volume):
    return nt.project(volume, nt.tilt_angles("tem", 8)).compute()


@pytest.fixture
def nothing_computes():
    """Within this fixture any computation fails: what runs nevertheless is lazy."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("something was computed")

    with dask.config.set(scheduler=refuse):
        yield


@pytest.fixture(scope="session")
def trained():
    """A small network for 8 projections of 48 pixels, and what it was trained with."""
    angles = nt.tilt_angles("tem", 8)
    target = nt.tilt_series(np.zeros((1, 8, 48), np.float32), angles)
    training, validation = nt.phantom_samples(target, n_slices=60, n_samples=5000)
    training, validation = training.compute(), validation.compute()
    network = nt.train_nnfbp(training, validation, max_epochs=15, progress="none")
    return network, training, validation
