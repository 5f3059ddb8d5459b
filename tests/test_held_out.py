"""Projections that are left out in turn, and what a reconstruction from the others says of them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.arrays import slabs
from nntomo_dask.arrays.grid import Axis
from nntomo_dask.reconstruction import held_out
from nntomo_dask.reconstruction.method import Method
from nntomo_dask.reconstruction.sirt import Sirt

TEM = nt.tilt_angles("tem", 8)


def left_out(angles, count=None):
    """The angles of each fold."""
    angles = np.asarray(angles, float)
    return [angles[fold.left_out].tolist() for fold in held_out.folds(angles, count)]


@pytest.mark.parametrize(
    ("angles", "wanted"),
    [
        (TEM, [[-50], [-30], [-10], [10], [30], [50]]),
        (TEM + 90, [[40], [60], [80], [100], [120], [140]]),  # the wedge about 0°, so that 160° is beside 20°
        (nt.tilt_angles("full", 4), [[0], [45], [-90], [-45]]),  # no wedge, no edges
        ([-60, -30, 0, 30, 60, 30.01, -60.01], [[-30], [0], [30, 30.01]]),  # repeats together
        ([-2, -1, 0, 1, 2], [[-1], [0], [1]]),
    ],
)
def test_interior_directions_are_left_out(angles, wanted):
    assert left_out(angles) == wanted
    for fold in held_out.folds(angles):
        np.testing.assert_array_equal(np.sort(np.concatenate([fold.left_out, fold.kept])), np.arange(len(angles)))


@pytest.mark.parametrize(("count", "wanted"), [(2, [[-30], [30]]), (3, [[-30], [10], [50]]), (6, left_out(TEM))])
def test_a_few_are_spread_evenly(count, wanted):
    assert left_out(TEM, count) == wanted


def test_folds_do_not_depend_on_the_order(rng):
    for angles in (TEM, nt.tilt_angles("full", 9), np.append(TEM, [10.02, -30])):
        shuffled = rng.permutation(angles)
        assert [sorted(one) for one in left_out(shuffled, 3)] == [sorted(one) for one in left_out(angles, 3)]


@pytest.mark.parametrize(
    ("angles", "count", "text"),
    [
        ([-60, 0, 60], 4, "as many directions as folds, 4; got 3 of 3"),
        (TEM, 7, "as many directions as folds, 7 apart from .* wedge; got 6 of 8"),
        ([-40, 0, 40], None, "2 directions or more that can be left out, .* got 1 of 3"),
        ([5, 5.01], None, "got 0 of 1|got 1 of 1"),
        (TEM, 1, "a whole number of folds, 2 or more; got 1"),
        (TEM, 2.5, "a whole number of folds, 2 or more; got 2.5"),
    ],
)
def test_too_few_projections_are_refused(angles, count, text):
    with pytest.raises(nt.SchemaError, match=text):
        held_out.folds(angles, count)


@dataclass(frozen=True)
class Neighbours(Method):
    """The mean of all projections and of a slice and its two neighbours, in every voxel."""

    name: ClassVar[str] = "neighbours"
    title: ClassVar[str] = "Neighbours"

    @property
    def halo(self):
        return 1

    def slab(self, rows, angles_deg, *prepared, axis=None):
        means = rows.mean(axis=(1, 2))
        means = prepared[0] * (means[:-2] + means[1:-1] + means[2:]) / 3
        size = rows.shape[-1]
        return np.repeat(means.astype(np.float32), size * size).reshape(-1, size, size)

    def host_bytes(self, shape):
        return 0


@pytest.fixture
def rows(rng):
    return rng.normal(size=(5, 8, 12)).astype(np.float32)


def test_misfits_are_those_of_reconstructions_from_the_others(rows):
    """Written out with the public functions: select, reconstruct, project, compare."""
    axis = Axis(5.0, 5.0)
    series = nt.tilt_series(rows, TEM)
    series = series.assign_coords(detector=np.arange(12) - 5.0)
    found = held_out.misfits(Sirt(minimum=0), rows, TEM, folds=held_out.folds(TEM), axis=axis)
    assert found.shape == (6, 5)
    assert found.dtype == np.float64
    for fold, row in zip(range(1, 7), found, strict=True):
        volume = nt.sirt(series.isel(angle=[k for k in range(8) if k != fold]), minimum=0)
        projected = nt.project(volume, TEM[[fold, 0]]).values[:, 0]
        # The same float32 predictions, summed in double precision.
        np.testing.assert_allclose(row, np.square(projected - rows[:, fold], dtype=np.float64).mean(axis=-1), rtol=1e-6)


def test_neighbours_are_seen_and_not_judged(rows):
    """A run with its neighbours gives what the whole volume gives there, and scalars reach the method."""
    method, folds = Neighbours(), held_out.folds(TEM, 3)
    seen = rows[slabs.mirrored(len(rows), method.halo)]
    whole = held_out.misfits(method, seen, TEM, folds=folds, prepared=(2.0,))
    assert whole.shape == (3, 5)
    part = held_out.misfits(method, rows[:4], TEM, folds=folds, prepared=(2.0,))
    np.testing.assert_array_equal(part, whole[:, 1:3])
    assert (held_out.misfits(method, seen, TEM, folds=folds, prepared=(4.0,)) != whole).all()


def test_repeats_are_left_out_together(rows):
    angles = TEM.copy()
    angles[6] = angles[3] + 0.01
    first, *_ = (fold for fold in held_out.folds(angles) if 3 in fold.left_out)
    volume = held_out.without(Sirt(), rows, angles, first)
    np.testing.assert_array_equal(volume, Sirt().slab(rows[:, [0, 1, 2, 4, 5, 7]], angles[[0, 1, 2, 4, 5, 7]]))
    prediction = held_out.predicted(volume, angles, first)
    assert prediction.shape == (5, 2, 12)
    residual = (prediction - rows[:, [3, 6]]).astype(np.float64)
    np.testing.assert_allclose(held_out.misfit(prediction, rows, first), (residual**2).mean(axis=(1, 2)), rtol=1e-6)


def test_noise_adds_its_variance_whatever_the_method(rng):
    """In expectation: 6 folds × 32 slices × 24 pixels of noise, whose mean square is known to √(2/4608) = 2 %."""
    volume = nt.nanoparticle((32, 24, 24), seed=2)
    series = nt.project(volume, TEM)
    clean = series.values
    noisy = clean + rng.normal(scale=0.5, size=clean.shape).astype(np.float32)
    folds = held_out.folds(TEM)
    extra = []
    for fold in folds:  # reconstructed from the same values, judged by values with and without noise
        prediction = held_out.predicted(held_out.without(Sirt(), noisy, TEM, fold), TEM, fold)
        extra.append(held_out.misfit(prediction, noisy, fold) - held_out.misfit(prediction, clean, fold))
    # The noise's own mean square, and twice its product with the error of the prediction, of about 1: 0.5 · 2 / √4608.
    assert np.mean(extra) == pytest.approx(0.25, abs=4 * np.hypot(0.02 * 0.25, 0.5 * 2 / np.sqrt(4608)))


def test_reconstructions_come_one_at_a_time(rows):
    folds = held_out.folds(TEM, 2)
    found = list(held_out.reconstructions(Sirt(), rows, TEM, folds=folds))
    for volume, fold in zip(found, folds, strict=True):
        np.testing.assert_array_equal(volume, held_out.without(Sirt(), rows, TEM, fold))
