"""What measured projections have and perfect ones have not."""

import numpy as np
import pytest

from nntomo_dask.training.unrolled import flaws
from nntomo_dask.training.unrolled.flaws import Flaws

ANGLES = np.linspace(-60.0, 60, 5)
NONE = Flaws(np.zeros(5), np.zeros((5, 2)), np.ones(5), np.zeros(5), 0.0, 0.0)


def changed(**fields):
    return Flaws(**{**vars(NONE), **fields})


@pytest.fixture
def rows():
    """A blob that stays away from all borders: (slice, angle, detector)."""
    z, detector = np.mgrid[:40, :64]
    blob = np.exp(-0.5 * (((z - 19.5) / 3) ** 2 + ((detector - 30) / 4) ** 2))
    return np.repeat(blob[:, None], 5, axis=1).astype(np.float32)


def centre(image):
    """Centre of mass (slice, detector)."""
    z, detector = np.indices(image.shape)
    return np.array([(z * image).sum(), (detector * image).sum()]) / image.sum()


def test_no_flaws_change_nothing(rows):
    np.testing.assert_array_equal(NONE.apply(rows, 2), rows)


def test_shifts_are_in_pixels_of_the_projections(rows):
    shifts = np.array([[0.5, -0.25], [0, 0], [0, 1], [-0.75, 0], [0.2, 0.2]])
    found = changed(shifts=shifts).apply(rows, 2)
    for number, shift in enumerate(shifts):
        # A blob of 3 pixels has 1e-5 of its mass where values of the border are repeated.
        np.testing.assert_allclose(centre(found[:, number]) - centre(rows[:, number]), 2 * shift, atol=2e-3)


def test_softening_widens_and_keeps_the_mass(rows):
    volume = np.ascontiguousarray(rows.transpose(0, 2, 1).repeat(8, axis=2))  # (slice, y, x), alike along x
    found = changed(unsharp=1.5).soften(volume, 2)
    np.testing.assert_allclose(found.sum(), volume.sum(), rtol=1e-3)
    profiles = (array[20, :, 20] for array in (volume, found))
    spread = [np.sqrt((one * (np.arange(64) - 30) ** 2).sum() / one.sum()) for one in profiles]
    np.testing.assert_allclose(spread, [4, 5], rtol=0.01)  # 4² + (2 · 1.5)² = 5²
    assert NONE.soften(volume, 2) is volume


def test_offsets_are_shares_of_the_brightest_ray(rows):
    offsets = np.array([0, 0.01, -0.02, 0.5, 1])
    found = changed(offsets=offsets).apply(3 * rows, 2)
    np.testing.assert_allclose(found[0, :, 0], 3 * offsets * rows.max(), atol=1e-2 * rows.max())


@pytest.mark.parametrize("fields", [{"brightness": np.array([0.5, 1, 2, 1, 1])}, {"bent": 0.3}, {"bent": -0.3}])
def test_the_unit_of_the_specimen_stays(rows, fields):
    """The factor that fits the flawed rays best to the perfect ones is 1."""
    found = changed(**fields).apply(rows, 2)
    assert not np.allclose(found, rows, rtol=0.01)
    np.testing.assert_allclose((found * rows).sum() / (rows * rows).sum(), 1, rtol=1e-5)


def test_bent_rays_bend_where_they_are_bright(rows):
    found = changed(bent=0.2).apply(rows, 2)
    brightest, faint = (found.flat[place] / rows.flat[place] for place in (rows.argmax(), np.abs(rows - 0.1).argmin()))
    np.testing.assert_allclose(brightest / faint, 0.8 / (1 - 0.2 * 0.1), rtol=0.01)


def test_rays_without_matter(rows):
    assert not changed(bent=0.2, offsets=np.full(5, 0.1)).apply(0 * rows, 2).any()


def test_each_kind_is_drawn_in_about_half_of_the_cases():
    drawn = [flaws.drawn(ANGLES, np.random.default_rng(number)) for number in range(400)]
    for share in (
        np.mean([one.unsharp > 0 for one in drawn]),
        np.mean([one.bent != 0 for one in drawn]),
        np.mean([one.tilts_deg.any() for one in drawn]),
    ):
        assert 0.5 - 4 * 0.025 < share < 0.5 + 4 * 0.025  # a standard deviation is 0.5 / √400
    assert max(one.unsharp for one in drawn) <= 1.5
    assert min(one.bent for one in drawn) < 0 < max(one.bent for one in drawn)
