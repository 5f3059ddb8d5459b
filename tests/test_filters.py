import numpy as np
import pytest
import scipy.fft

from nntomo_dask.kernels import filters


@pytest.mark.parametrize(("detector", "bins"), [(256, 9), (1024, 11)])
def test_number_of_bins(detector, bins):
    assert filters.bin_edges(detector).size - 1 == bins


def test_bins_are_those_of_the_published_layout():
    np.testing.assert_array_equal(filters.bin_edges(32), [0, 1, 2, 3, 5, 9, 17])
    np.testing.assert_array_equal(filters.bin_edges(32, n_linear=4), [0, 1, 2, 3, 4, 5, 7, 11, 17])
    np.testing.assert_array_equal(filters.bin_edges(8, binning="none"), [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("detector", [2, 3, 7, 48])
@pytest.mark.parametrize("binning", ["exponential", "none"])
def test_bins_cover_half_the_detector_once(detector, binning):
    edges = filters.bin_edges(detector, binning=binning)
    assert edges[0] == 0
    assert edges[-1] == detector // 2 + 1
    assert (np.diff(edges) > 0).all()


def test_ramp_is_the_absolute_frequency():
    """Truncating the samples at the padded length leaves ripples of about 1/(π² length) = 2e-4 at length 512."""
    frequency = scipy.fft.rfftfreq(filters.fft_length(256))
    np.testing.assert_allclose(filters.ramp(256), frequency, atol=5e-4)


@pytest.mark.parametrize("window", filters.WINDOWS)
def test_windows_leave_low_frequencies_and_lower_high_ones(window):
    plain, windowed = filters.ramp(128), filters.ramp(128, window=window)
    np.testing.assert_allclose(windowed[:3], plain[:3], rtol=2e-3)
    assert (windowed <= plain + 1e-12).all()


def test_filtering_is_a_linear_convolution_with_the_binned_weights(rng):
    detector = 20
    rows = rng.random((2, 3, detector), np.float32)
    edges = filters.bin_edges(detector)
    weights = rng.standard_normal((edges.size - 1, 4))
    filtered = filters.filter_rows(rows, filters.binned_filter(weights, edges, detector)[:, None])
    for k in range(4):
        kernel = np.zeros(2 * (edges[-1] - 1) + 1)
        for b in range(edges.size - 1):
            offsets = np.arange(edges[b], edges[b + 1])
            both = np.unique(np.concatenate([offsets, -offsets]))
            kernel[both + edges[-1] - 1] = weights[b, k] / both.size
        expected = [[np.convolve(row, kernel)[edges[-1] - 1 :][:detector] for row in slice_] for slice_ in rows]
        # Single-precision transforms: a few 1e-7 of the largest value, which is about 3.
        np.testing.assert_allclose(filtered[:, k], expected, atol=3e-6)


def test_filters_with_two_sides_are_a_linear_convolution(rng):
    """Positive offsets look at what lies before a pixel, as in the inputs of `sample`."""
    detector = 20
    rows = rng.random((2, 3, detector), np.float32)
    edges = filters.bin_edges(detector)
    bins = edges.size - 1
    weights = rng.standard_normal((2 * bins - 1, 4))
    filtered = filters.filter_rows(rows, filters.two_sided_filter(weights, edges, detector)[:, None])
    for k in range(4):
        kernel = np.zeros(2 * (edges[-1] - 1) + 1)
        kernel[edges[-1] - 1] = weights[0, k]
        for b in range(1, bins):
            offsets = np.arange(edges[b], edges[b + 1])
            kernel[edges[-1] - 1 + offsets] = weights[b, k] / offsets.size
            kernel[edges[-1] - 1 - offsets] = weights[bins - 1 + b, k] / offsets.size
        expected = [[np.convolve(row, kernel)[edges[-1] - 1 :][:detector] for row in slice_] for slice_ in rows]
        np.testing.assert_allclose(filtered[:, k], expected, atol=3e-6)


def test_rows_are_filtered_alike_however_many_there_are(rng):
    rows = rng.random((13, 3, 50), np.float32)
    response = filters.ramp(50)[None, None]
    together = filters.filter_rows(rows, response)
    for z in range(13):
        np.testing.assert_array_equal(filters.filter_rows(rows[z : z + 1], response)[0], together[z])
