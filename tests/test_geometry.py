import doctest

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.arrays import geometry


def test_examples_in_the_docstrings():
    assert doctest.testmod(geometry).failed == 0


def test_full_range_excludes_its_end():
    np.testing.assert_allclose(nt.tilt_angles("full", 4), [-90, -45, 0, 45])


@pytest.mark.parametrize(("arguments", "message"), [(("tem", 1), "at least 2"), (("all", 8), '"full" or "tem"')])
def test_bad_ranges_are_refused(arguments, message):
    with pytest.raises(nt.SchemaError, match=message):
        nt.tilt_angles(*arguments)


@pytest.mark.parametrize("angles", [nt.tilt_angles("full", 9), nt.tilt_angles("tem", 8), nt.tilt_angles("tem", 29)])
def test_equal_steps_have_equal_cells(angles):
    np.testing.assert_allclose(geometry.angular_cells(angles), 1 / angles.size, rtol=1e-12)


def test_cells_follow_the_steps():
    """Directions 0, 10, 30 and 90: half of the gaps on both sides, 180 degrees being 0 again."""
    cells = geometry.angular_cells(np.array([0.0, 10.0, 30.0, 80.0, 130.0]))
    np.testing.assert_allclose(cells * 180, [30, 15, 35, 50, 50])


def test_opposite_directions_share_a_cell():
    angles = np.arange(-90, 91, 2.0)
    cells = geometry.angular_cells(angles)
    np.testing.assert_allclose(cells[[0, -1]], cells[1] / 2)


def test_cells_do_not_depend_on_the_order(rng):
    angles = np.sort(rng.uniform(-90, 90, 12))
    order = rng.permutation(12)
    np.testing.assert_allclose(geometry.angular_cells(angles)[order], geometry.angular_cells(angles[order]))


@pytest.mark.parametrize(("count", "completed"), [(8, 9), (15, 18), (29, 36)])
def test_wedge_completion_gives_the_full_range(count, completed):
    angles = geometry.completed_angles(nt.tilt_angles("tem", count))
    np.testing.assert_allclose(angles, nt.tilt_angles("full", completed), atol=1e-12)
    filled = geometry.is_filled(nt.tilt_angles("tem", count))
    assert filled.sum() == completed - count
    assert (np.abs(angles[filled]) > 70).all()


def test_wedge_completion_interpolates_towards_the_mirrored_projection(rng):
    """15 projections in ±70°: 80 degrees lies a quarter on the way from 70 to 110, which is -70 mirrored."""
    rows = rng.random((2, 15, 10), np.float32)
    series = nt.tilt_series(rows, nt.tilt_angles("tem", 15))
    completed = nt.complete_wedge(series)
    at_80 = completed.sel(angle=80, method="nearest").values
    np.testing.assert_allclose(at_80, 0.75 * rows[:, -1] + 0.25 * rows[:, 0, ::-1], rtol=1e-5)
    # 100 degrees is -80, seen from the other side.
    at_100 = completed.sel(angle=-80, method="nearest").values
    np.testing.assert_allclose(at_100, (0.25 * rows[:, -1] + 0.75 * rows[:, 0, ::-1])[:, ::-1], rtol=1e-5)
    np.testing.assert_array_equal(completed.sel(angle=series.angle, method="nearest").values, rows)


def test_wedge_completion_does_not_depend_on_the_order_or_the_half_turn(rng):
    angles = nt.tilt_angles("tem", 8)
    rows = rng.random((1, 8, 6), np.float32)
    straight = geometry.complete_rows(rows, angles)
    order = rng.permutation(8)
    np.testing.assert_array_equal(geometry.complete_rows(rows[:, order], angles[order]), straight)
    turned = angles.copy()
    turned[0] += 180  # 110 degrees is -70, mirrored
    mirrored = rows.copy()
    mirrored[:, 0] = rows[:, 0, ::-1]
    filled = geometry.complete_rows(mirrored, turned)[:, geometry.is_filled(turned)]
    np.testing.assert_array_equal(filled, straight[:, geometry.is_filled(angles)])


@pytest.mark.parametrize(
    ("angles", "cells"),
    [
        (np.arange(-180, 180, 10.0), np.full(36, 1 / 36)),  # a full turn: every direction twice
        (np.array([-90.0, -60, -30, 0, 30, 60, 90]), np.array([1, 2, 2, 2, 2, 2, 1]) / 12),  # both ends are one
        (np.array([-90.0, 0, 90]), np.array([1, 2, 1]) / 4),
    ],
)
def test_directions_seen_twice_are_no_wedge(angles, cells):
    assert geometry.wedge(angles) is None
    np.testing.assert_allclose(geometry.angular_cells(angles), cells)
    np.testing.assert_array_equal(geometry.completed_angles(angles), angles)


def test_each_tilt_recorded_twice_completes_as_if_once():
    once = np.arange(-60, 61, 3.0)
    twice = np.concatenate([once, once + 0.01])
    assert geometry.completed_angles(twice).size - twice.size == geometry.completed_angles(once).size - once.size
    np.testing.assert_allclose(geometry.angular_cells(twice)[: once.size], geometry.angular_cells(once) / 2)


def test_one_direction_from_both_sides_is_refused():
    with pytest.raises(nt.SchemaError, match="needs at least 2 directions"):
        nt.tilt_series(np.zeros((1, 2, 4)), [-90, 90])


def test_a_series_without_wedge_is_left_alone(volume):
    series = nt.project(volume, nt.tilt_angles("full", 6))
    assert nt.complete_wedge(series) is series
    assert not geometry.is_filled(series.angle.values).any()
