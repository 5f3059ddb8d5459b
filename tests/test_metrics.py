import numpy as np
import pytest
from skimage.metrics import structural_similarity

import nntomo_dask as nt
from nntomo_dask.arrays import geometry


@pytest.fixture
def noisy(volume, rng):
    return volume + rng.normal(0, 0.1, volume.shape).astype(np.float32)


def test_mse_and_psnr(volume, noisy):
    expected = np.mean((volume.values.astype(float) - noisy.values) ** 2)
    assert float(nt.mse(noisy, volume)) == pytest.approx(expected, rel=1e-12)
    peak = float(volume.max() - volume.min())
    assert float(nt.psnr(noisy, volume)) == pytest.approx(10 * np.log10(peak**2 / expected), rel=1e-6)
    assert float(nt.mse(volume, volume)) == 0
    assert float(nt.psnr(volume, volume)) == np.inf


def test_relative_error(volume, noisy, rng):
    expected = np.sqrt(
        np.mean((volume.values.astype(float) - noisy.values) ** 2) / np.mean(volume.values.astype(float) ** 2)
    )
    assert float(nt.relative_error(noisy, volume)) == pytest.approx(expected, rel=1e-12)
    assert float(nt.relative_error(volume * 1e-5, volume)) == pytest.approx(1, abs=1e-4)
    assert float(nt.relative_error(noisy * np.float32(2**-20), volume * np.float32(2**-20))) == pytest.approx(expected)
    assert float(nt.relative_error(volume, volume)) == 0
    assert float(nt.relative_error(volume * 0, volume * 0)) == 0
    assert float(nt.relative_error(volume, volume * 0)) == np.inf
    inside = geometry.seen_by_all(32)
    parts = [(volume.values.astype(float) - noisy.values)[:, inside], volume.values.astype(float)[:, inside]]
    expected = np.sqrt(np.mean(parts[0] ** 2) / np.mean(parts[1] ** 2))
    assert float(nt.relative_error(noisy, volume, region="disc")) == pytest.approx(expected, rel=1e-12)


def test_disc(volume, noisy):
    inside = geometry.seen_by_all(32)
    expected = np.mean((volume.values.astype(float) - noisy.values)[:, inside] ** 2)
    assert float(nt.mse(noisy, volume, region="disc")) == pytest.approx(expected, rel=1e-12)


def test_ssim(volume, noisy):
    span = float(volume.max() - volume.min())
    expected = np.mean(
        [
            structural_similarity(a, b, data_range=span, full=True)[1].mean()
            for a, b in zip(noisy.values, volume.values, strict=True)
        ]
    )
    assert float(nt.ssim(noisy, volume)) == pytest.approx(expected, rel=1e-6)
    assert float(nt.ssim(volume, volume)) == pytest.approx(1)


def shells(first, second):
    """Fourier shell correlation by full transforms."""
    n = max(first.shape)
    f, g = np.fft.fftn(first), np.fft.fftn(second)
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*(np.fft.fftfreq(s) for s in first.shape), indexing="ij")))
    shell = np.rint(radius * n).astype(int)
    result = []
    for k in range(n // 2 + 1):
        inside = shell == k
        cross = (f * g.conj())[inside].real.sum()
        result.append(cross / np.sqrt((np.abs(f) ** 2)[inside].sum() * (np.abs(g) ** 2)[inside].sum()))
    return result


@pytest.mark.parametrize("memory_bytes", [2**31, 1])
@pytest.mark.parametrize("size", [12, 13])
def test_fourier_shell_correlation(rng, size, memory_bytes):
    """Against full transforms, in one pass or in one a row; single-precision transforms keep 1e-5."""
    first, second = (nt.volume(rng.random((9, size, size)), pixel_size=0.5, units="nm") for _ in range(2))
    correlation = nt.fourier_shell_correlation(first.chunk(z=4), second, memory_bytes=memory_bytes)
    np.testing.assert_allclose(correlation.values, shells(first.values, second.values), atol=1e-5)
    np.testing.assert_allclose(correlation.frequency, np.arange(size // 2 + 1) / size / 0.5)


def test_resolution_is_where_the_correlation_falls():
    import xarray as xr

    correlation = xr.DataArray([1, 0.8, 0.4, 0.1, 0.0], dims="frequency", coords={"frequency": [0, 0.1, 0.2, 0.3, 0.4]})
    assert nt.resolution(correlation, threshold=0.5) == pytest.approx(1 / 0.175)
    assert nt.resolution(correlation, threshold=0.143) == pytest.approx(1 / (0.2 + 0.1 * (0.4 - 0.143) / 0.3))
    assert nt.resolution(correlation + 1, threshold=0.5) == pytest.approx(1 / 0.4)


def test_blurring_costs_resolution(volume):
    kernel = np.array([0.25, 0.5, 0.25], np.float32)
    rows = np.apply_along_axis(lambda row: np.convolve(row, kernel, "same"), 2, volume.values)
    blurred = volume.copy(data=rows)
    noise = np.random.default_rng(0).normal(0, 0.3, volume.shape).astype(np.float32)
    sharp, dull = (nt.fourier_shell_correlation(v + noise, volume) for v in (volume, blurred))
    assert nt.resolution(dull, threshold=0.8) > nt.resolution(sharp, threshold=0.8)


def test_chunks_change_nothing(volume, noisy):
    for metric in (nt.mse, nt.psnr, nt.ssim, nt.relative_error):
        whole = float(metric(noisy, volume))
        for slices in (1, 3):
            assert float(metric(noisy.chunk(z=slices), volume.chunk(z=2))) == whole
    whole = nt.fourier_shell_correlation(noisy, volume).values
    np.testing.assert_array_equal(nt.fourier_shell_correlation(noisy.chunk(z=1), volume.chunk(z=3)).values, whole)


def test_lazy(volume, nothing_computes):
    for result in (nt.mse(volume, volume), nt.psnr(volume, volume), nt.ssim(volume, volume), nt.normalize(volume)):
        assert result.chunks is not None


def test_normalize_and_segment(volume):
    scaled = nt.normalize(volume * 4 - 3)
    assert float(scaled.min()) == 0
    assert float(scaled.max()) == 1
    np.testing.assert_allclose(scaled.values, volume.values / volume.values.max(), atol=1e-6)
    assert (nt.normalize(volume * 0 + 5).values == 0).all()
    np.testing.assert_array_equal(nt.segment(volume, threshold=0.5).values, volume.values > 0.5)


def test_what_cannot_be_compared_is_refused(volume):
    with pytest.raises(nt.SchemaError, match=r"two volumes of one shape; got \(8, 32, 32\) and \(9, 32, 32\)"):
        nt.mse(volume.isel(z=slice(0, 8)), volume)
    with pytest.raises(nt.SchemaError, match='needs region "all" or "disc"'):
        nt.mse(volume, volume, region="half")
    small = volume.isel(x=slice(0, 5), y=slice(0, 5))
    with pytest.raises(nt.SchemaError, match="needs slices of at least 7 pixels; got 5"):
        nt.ssim(small, small)


class TestDice:
    def test_by_hand(self):
        """Of 4 and 6 voxels, 3 in common: 2 · 3 / 10."""
        first, second = np.zeros((2, 4, 4), np.float32), np.zeros((2, 4, 4), np.float32)
        first[0, 0, :4] = 1
        second[0, 0, 1:4], second[1, 2, :3] = 2, 2
        volume, reference = nt.volume(first), nt.volume(second)
        assert float(nt.dice(volume, reference, threshold=0.5)) == pytest.approx(0.6)
        assert float(nt.dice(volume, reference)) == 0  # halfway of the reference's range is 1, which is not exceeded
        assert float(nt.dice(reference, reference)) == 1
        assert float(nt.dice(volume, reference, threshold=5)) == 1  # neither has matter

    def test_chunks_and_region(self, rng):
        volume, reference = (nt.volume(rng.random((9, 16, 16), np.float32)) for _ in range(2))
        whole = float(nt.dice(volume, reference))
        assert float(nt.dice(volume.chunk(z=2), reference.chunk(z=5))) == whole
        inside = np.hypot(*np.meshgrid(*[np.arange(16) - 7.5] * 2)) <= 7.5
        level = (reference.values.max() + reference.values.min()) / 2
        first, second = (one.values[:, inside] > level for one in (volume, reference))
        wanted = 2 * (first & second).sum() / (first.sum() + second.sum())
        assert float(nt.dice(volume, reference, region="disc")) == pytest.approx(wanted)


@pytest.mark.parametrize("name", nt.METRICS)
def test_metrics_measure_what_their_columns_say(name, rng):
    volume, reference = (nt.volume(rng.random((9, 16, 16), np.float32)) for _ in range(2))
    metric = nt.METRICS[name]()
    values = nt.measure(volume, reference, [metric])
    same = nt.measure(reference, reference, [metric])
    assert list(values) == [column.name for column in metric.columns]
    for column in metric.columns:  # the reference itself is at least as good as noise
        better = same[column.name] >= values[column.name]
        assert better if column.better == "higher" else same[column.name] <= values[column.name]
