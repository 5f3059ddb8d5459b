"""The inner loops of the search for atoms, each against a plain form of it, and what is read for them."""

import dask.array as da
import numpy as np
import pytest
import scipy.ndimage

import nntomo_dask as nt
from nntomo_dask.atoms import fitting
from nntomo_dask.atoms.frame import compute_slices, frame_of
from nntomo_dask.kernels import peak_fits, peaks
from tests.atom_volumes import PIXEL, gaussians, scattered

pytestmark = pytest.mark.xdist_group("found atoms")  # one process compiles their kernels


@pytest.mark.parametrize("step", [1.0, 1.5])
@pytest.mark.parametrize("width", [0.05, 0.7, 1.4, 6.0])
def test_smoothing_is_that_of_scipy(rng, width, step):
    """6 widths reach beyond both ends. Three roundings to float32 of values below 4 are 3 · 2⁻²³ at most."""
    block = rng.normal(size=(9, 17, 23)).astype(np.float32)
    expected = block.astype(np.float64)
    for axis, sigma in enumerate((width / step, width, width)):
        if int(peaks.TRUNCATE * sigma + 0.5):
            expected = scipy.ndimage.gaussian_filter1d(expected, sigma, axis=axis, mode="reflect")
    smooth = peaks.smoothed(block, width, step)
    np.testing.assert_allclose(smooth, expected, rtol=0, atol=3 * 2.0**-23)
    halo = peaks.smoothing_halo(width, step)
    places = np.clip(np.arange(2 - halo, 7 + halo), 0, 8)
    part = peaks.smoothed(block, width, step, slices=places)
    alone = peaks.smoothed(block[places], width, step)[halo:-halo] if halo else block[2:7]
    assert part.tobytes() == np.ascontiguousarray(alone).tobytes()


def test_the_laplacian_is_that_of_second_differences(rng):
    block = rng.normal(size=(4, 6, 7)).astype(np.float32)
    padded = np.pad(block.astype(np.float64), 1, mode="edge")
    expected = np.zeros(block.shape)
    for axis, weight in enumerate((1 / 1.5**2, 1, 1)):
        ahead, behind = (np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1] for shift in (1, -1))
        expected += weight * (2 * block - ahead - behind)
    # Sums of six values below 4, rounded twice.
    np.testing.assert_allclose(peaks.sharpened(block, 1.5), expected, rtol=0, atol=24 * 2.0**-23)


def test_subtracted_gaussians_leave_nothing():
    """Beyond 5 widths a Gaussian is exp(-12.5) of its height; centres lie in the block and beside it."""
    places = np.array([[4.2, 8.1, 7.7], [-1.3, 3.0, 12.5], [9.0, 15.2, -2.0]])
    shape, heights, widths = (10, 18, 18), np.array([2.0, 1.0, 3.0]), np.array([1.5, 1.1, 2.0])
    block = gaussians(places, heights, widths, shape, step=1.5).values
    peaks.subtract(block, np.column_stack([places, heights, widths]), first=0, step=1.5)
    assert np.abs(block).max() < heights.sum() * np.exp(-12.5) + 4 * 2.0**-23


def test_two_gaussians_at_one_place_do_not_cancel_each_other():
    """What two started apart make of one atom and a bit of noise: no height is below 0, or above what is there."""
    volume = gaussians([[12.0, 12.2, 11.9]], [1.0], 2.0, (24, 24, 24), noise=0.03, seed=3).values
    start = np.array([[12.0, 12, 12, 1, 2], [12.0, 14, 12, 0.2, 2], [10.0, 12, 13, 0.2, 2], [13.0, 12, 10, 0.2, 2]])
    region = peak_fits.Region(5.0, 1.0, *volume.shape)
    groups = np.array([0, 4])
    voxels, begins = peak_fits.gathered(volume, region, groups, start[:, :3].copy(), first=0)
    fitted, _ = peak_fits.fit(
        voxels, begins, region, groups=groups, start=start, origin=start[:, :3].copy(), others=np.zeros(2, np.int64),
        fixed=np.zeros((0, 5)), width=2.0,
    )  # fmt: skip
    assert (fitted[:, 3] >= 0).all()
    assert fitted[:, 3].max() < 1.5


def test_a_chunk_is_read_once_for_all_slabs():
    read = []

    def block(block_info):
        (low, high), *_ = block_info[None]["array-location"]
        read.append(low)
        return np.broadcast_to(np.arange(low, high, dtype=np.float32)[:, None, None], (high - low, 3, 3))

    data = da.map_blocks(block, chunks=((4, 4, 4, 2), (3,), (3,)), dtype=np.float32, meta=np.empty((0, 0, 0), "f4"))
    frame = frame_of(nt.volume(data, pixel_size=PIXEL, units="nm"), who="find_atoms")
    ranges = [(0, 6), (2, 10), (4, 8), (7, 14), (12, 14)]
    seen = compute_slices(lambda rows: rows[:, 0, 0].tolist(), frame, ranges, [()] * len(ranges))
    assert seen == [list(map(float, range(low, high))) for low, high in ranges]
    assert sorted(read) == [0, 4, 8, 12]


@pytest.mark.parametrize("room", [0, 6000])
def test_what_is_held_changes_nothing(monkeypatch, room):
    """Voxels around all atoms are held, around some of them, or are read again in each turn."""
    places = scattered(16, (24, 24, 24), apart=4.5, seed=9)
    volume = gaussians(places, np.linspace(1, 3, 16), 2.0, (24, 24, 24), noise=0.02).chunk(z=5)
    held = nt.find_atoms(volume)
    monkeypatch.setattr(fitting, "HELD_BYTES", room)
    again = nt.find_atoms(volume)
    assert [name for name in held if held[name].values.tobytes() != again[name].values.tobytes()] == []


@pytest.mark.parametrize("count", [1, 4])
def test_few_atoms_among_many_faint_maxima_are_found(count):
    """Waves as streaks make them, 2 % of an atom high: hundreds of maxima that say nothing about its width."""
    shape = (30, 30, 30)
    places = scattered(count, shape, apart=9, seed=4)
    volume = gaussians(places, np.full(count, 1.0), 1.8, shape)
    z, y, x = np.ogrid[:30, :30, :30]
    waves = 0.02 * np.sin(1.3 * z + 0.4 * y) * np.sin(1.1 * y + 0.5 * x) * np.sin(1.2 * x + 0.3 * z)
    found = nt.find_atoms(volume + waves.astype(np.float32), faintest=0.2)
    assert found.sizes["atom"] == count
    # The waves are a background that is 2 % steep.
    assert found.attrs["atom_width"] == pytest.approx(1.8 * PIXEL, rel=0.05)
