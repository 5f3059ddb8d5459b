"""The noise of a series, estimated from the series alone."""

import dask.array as da
import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.projection import noise as noise_room
from tests.shared_data import NEEDLE, SHARED

ANGLES = nt.tilt_angles("tem", 8)
SIZE = 64


@pytest.fixture(scope="module")
def clean():
    """Projections of phantoms without noise, by their names."""
    kinds = ("particle", "coreshell", "spheres", "mixed")
    return {kind: nt.project(nt.phantom(kind, SIZE, seed=5), ANGLES).compute() for kind in kinds}


def noisy(series, rng, *, noise=0.0, counts=None, background=0.0):
    """The series with so much noise at its brightest ray, and so many counts there."""
    values, peak = series.values.astype(float), float(series.max())
    if counts is not None:
        values = rng.poisson(np.maximum(values, 0) / peak * counts) / counts * peak
    values = values + noise * peak * rng.standard_normal(values.shape) + background
    return series.copy(data=values.astype(np.float32))


KINDS = pytest.mark.parametrize("kind", ["particle", "coreshell", "spheres", "mixed"])


@KINDS
def test_without_noise_next_to_none_is_found(clean, kind):
    found = nt.noise(clean[kind])
    assert found.read_noise == 0  # of the empty background, exactly
    # The sums of Joseph's projections differ by 0.1 % a pixel here, which bounds the mean; half of the rays are empty.
    assert found.share < 0.003
    assert not found.is_all_noise


@KINDS
@pytest.mark.parametrize("noise", [0.005, 0.02, 0.05])
def test_gaussian_noise(clean, kind, noise, rng):
    series = noisy(clean[kind], rng, noise=noise, background=-7)
    found, peak = nt.noise(series), float(clean[kind].max())
    # Of the 9,000 values of the background or more, at a standard error of 1 %; thin rays near it are rough.
    assert found.read_noise == pytest.approx(noise * peak, rel=0.13 if noise == 0.005 else 0.07)
    assert found.background == pytest.approx(-7, abs=0.02 * peak)
    # The variance that rough voxels leave in the specimen, see the case without noise, and a standard error of 10 %.
    most = np.hypot(noise * 1.13, 0.003) * peak
    assert noise * peak * 0.93 <= found.deviation(found.background + peak / 2) <= most
    assert found.brightest == pytest.approx(peak - 7, rel=0.2)


@KINDS
@pytest.mark.parametrize("counts", [50, 1000])
def test_counting_noise(clean, kind, counts, rng):
    found, peak = nt.noise(noisy(clean[kind], rng, counts=counts)), float(clean[kind].max())
    assert found.gain == pytest.approx(
        peak / counts, rel=0.25
    )  # 2,000 to 5,000 smooth values in few bins, and roughness
    assert found.read_noise < 0.1 * np.sqrt(found.gain * peak)


@KINDS
def test_both_kinds_of_noise(clean, kind, rng):
    found, peak = nt.noise(noisy(clean[kind], rng, noise=0.02, counts=400, background=100)), float(clean[kind].max())
    truth = nt.Noise(gain=peak / 400, read_noise=0.02 * peak, background=100)
    values = 100 + peak * np.array([0, 0.3, 0.6])
    np.testing.assert_allclose(found.deviation(values), truth.deviation(values), rtol=0.12)


def beam(values, rng):
    """A beam that differs from view to view."""
    return values * (1 + 0.1 * rng.standard_normal((1, 8, 1)))


def offsets(values, rng):
    """Views on backgrounds of their own."""
    return values + 0.05 * values.max() * rng.standard_normal((1, 8, 1))


def spikes(values, rng):
    """One value in a thousand is three times as bright as all."""
    return values + 3 * values.max() * (rng.random(values.shape) < 1e-3)


def dead(values, rng):
    """A pixel of the detector shows nothing."""
    return np.where(np.arange(SIZE) == 30, 0, values)


@pytest.mark.parametrize("trouble", [beam, offsets, spikes, dead])
@pytest.mark.parametrize("noise", [0, 0.02])
def test_what_is_no_noise(clean, trouble, noise, rng):
    """What a microscope does beside noise is hardly taken for noise; a spike is not the brightest ray."""
    series, peak = clean["particle"], float(clean["particle"].max())
    values = trouble(noisy(series, rng, noise=noise).values.astype(float), rng)
    found = nt.noise(series.copy(data=values.astype(np.float32)))
    # Where spikes have a part in the sums, these do not tell the roughness of the voxels, which is 0.6 %.
    assert float(found.deviation(found.background + peak / 2)) / peak == pytest.approx(noise, rel=0.15, abs=0.008)
    assert found.brightest == pytest.approx(peak, rel=0.3)


@pytest.mark.parametrize("slices", [1, 2, 3, 5])
def test_a_few_slices(clean, slices, rng):
    series = noisy(clean["coreshell"], rng, noise=0.02).isel(z=slice(30, 30 + slices))
    # 250 values of the background, of which one in two counts: a standard error of 6 %.
    assert nt.noise(series).read_noise == pytest.approx(0.02 * float(clean["coreshell"].max()), rel=0.2)


def test_slices_that_do_not_belong_together(rng):
    series = nt.project(nt.ellipse_stack((24, SIZE, SIZE), seed=2), ANGLES).compute()
    found, peak = nt.noise(noisy(series, rng, noise=0.01)), float(series.max())
    assert found.deviation(found.background + peak / 2) == pytest.approx(0.01 * peak, rel=0.25)


def test_repeats_of_an_angle_cancel_the_specimen(rng):
    """A texture of pixels in all projections, five times as large as the noise: only the repeats tell them apart."""
    angles = np.concatenate([ANGLES, ANGLES + 0.02])
    texture = 5 * rng.standard_normal((32, 8, SIZE))
    values = np.concatenate([texture, texture], axis=1) + rng.standard_normal((32, 16, SIZE))
    order = rng.permutation(16)
    found = nt.noise(nt.tilt_series(values[:, order], angles[order]))
    assert found.deviation(0) == pytest.approx(1, rel=0.05)  # 15,000 values
    copied = nt.noise(nt.tilt_series(np.concatenate([texture, texture], axis=1), angles))
    assert copied.deviation(0) > 4  # the same projections twice are no repeats


def test_the_result_depends_on_neither_chunks_nor_order(clean, rng):
    series = noisy(clean["spheres"], rng, noise=0.02, counts=500)
    order = rng.permutation(8)
    spellings = [series, series.chunk(z=5), series.chunk(z=64), series.isel(angle=order).chunk(z=7)]
    assert len({nt.noise(one) for one in spellings}) == 1


def test_values_in_other_units(clean, rng):
    series = noisy(clean["coreshell"], rng, noise=0.02, counts=500, background=3)
    found, scaled = nt.noise(series).times(1000), nt.noise(series * 1000)
    for field in ("gain", "read_noise", "background", "brightest", "signal_to_noise"):
        assert getattr(scaled, field) == pytest.approx(getattr(found, field), rel=1e-3)
    assert scaled.share == pytest.approx(found.share, rel=1e-3)


@pytest.mark.parametrize("shape", [(64, 8, 64), (16, 8, 32), (1, 8, 64), (200, 5, 100)])
def test_a_series_that_is_all_noise(shape, rng):
    found = nt.noise(nt.tilt_series(5 + 3 * rng.standard_normal(shape), nt.tilt_angles("tem", shape[1])))
    assert found.is_all_noise
    assert "all noise" in found.described()
    assert found.read_noise == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize("noise", [0.1, 0.5, 1])
def test_a_faint_specimen_is_no_noise(clean, noise, rng):
    found = nt.noise(noisy(clean["spheres"], rng, noise=noise))
    assert not found.is_all_noise
    assert found.read_noise == pytest.approx(noise * float(clean["spheres"].max()), rel=0.07)


@pytest.mark.parametrize("value", [0, 3.3, -31_900])
@pytest.mark.parametrize("shape", [(4, 8, 40), (1, 8, 3)])
def test_a_constant_series_has_no_noise(shape, value):
    found = nt.noise(nt.tilt_series(np.full(shape, value), ANGLES))
    assert found.is_noiseless
    assert not found.is_all_noise
    assert found.background == pytest.approx(value)
    assert found.described() == "no noise"


@pytest.mark.parametrize("shape", [(4, 8, 7), (1, 2, 16), (3, 8, 12)])
def test_too_few_values_are_refused(shape, rng):
    series = nt.tilt_series(rng.random(shape), nt.tilt_angles("tem", shape[1]))
    with pytest.raises(nt.SchemaError, match="noise: needs at least 8 detector pixels, and 256 values within; got"):
        nt.noise(series)


def test_what_is_not_finite_is_refused(clean):
    series = clean["particle"].copy()
    series[40, 3, 5] = np.nan
    with pytest.raises(nt.SchemaError, match="noise: needs finite values; got nan at index z=40, angle=3, detector=5"):
        nt.noise(series)
    with pytest.raises(nt.SchemaError, match="noise: needs a tilt series"):
        nt.noise(nt.volume(np.zeros((8, 8, 8))))


@pytest.mark.parametrize("words", [{"gain": -1}, {"read_noise": -0.1}, {"read_noise": float("nan")}])
def test_models_that_cannot_be_are_refused(words):
    with pytest.raises(nt.SchemaError, match="Noise: needs"):
        nt.Noise(**words)


@pytest.mark.parametrize(("shape", "chunk"), [((2000, 20, 64), 20), ((30, 400, 128), 1)])
def test_a_bounded_part_is_read(shape, chunk, monkeypatch, rng):
    monkeypatch.setattr(noise_room, "_MOST_VALUES", 2**16)
    read = []

    def block(block_info=None):
        places = block_info[None]["array-location"]
        read.append(places[0])
        return rng.standard_normal(tuple(stop - start for start, stop in places)).astype(np.float32)

    data = da.map_blocks(block, chunks=((chunk,) * (shape[0] // chunk), *((size,) for size in shape[1:])), dtype="f4")
    found = nt.noise(nt.tilt_series(data, np.linspace(-70, 70, shape[1])))
    assert found.read_noise == pytest.approx(1, rel=0.1)
    assert len(read) <= 16
    starts, height, kept = noise_room._chosen(*shape)
    assert len(starts) * height * kept.size * shape[2] <= 2**16
    assert starts[-1] - starts[0] > shape[0] / 3 or len(starts) == 1


def test_the_needle():
    """Measured counts, against a corner that the needle does not reach, and one half of the views against the other."""
    angles = nt.read_tilt_angles(NEEDLE / "needle.rawtlt")
    series = nt.read_mrc_series(NEEDLE / "needle.mrc", angles, tilt_axis="x")
    found, values = nt.noise(series), series.values.astype(float)
    halves = [nt.noise(series.isel(angle=slice(first, None, 2))) for first in (0, 1)]
    for half in halves:
        assert half.deviation(20_000) == pytest.approx(float(found.deviation(20_000)), rel=0.2)
    # Differences along the detector hold the needle's layers and outline too.
    fourth = (np.diff(values, 4, axis=2) / np.sqrt(70))[np.abs(values[..., 2:-2] - 20_000) < 3000]
    assert found.deviation(20_000) < np.median(np.abs(fourth)) / 0.6745
    assert found.background == pytest.approx(515, abs=10)
    corner = np.diff(values[:6, :, :6], axis=2) / np.sqrt(2)
    assert found.read_noise == pytest.approx(corner.std(), rel=0.3)
    assert found.read_noise < 0.01 * found.deviation(20_000)


@pytest.mark.skipif(not (SHARED / "tilt-etspy").is_dir(), reason="the measured series lies beside the project only")
def test_a_larger_measured_series():
    """Counts of a second needle: few views say the same as all, and so does a part of the detector."""
    values = np.fromfile(SHARED / "tilt-etspy/needle256.mrc", "<i2", offset=132_096).reshape(77, 256, 256)
    series = nt.tilt_series(values.transpose(2, 0, 1) + 32_768.0, np.arange(-76, 77, 2.0))
    found = nt.noise(series)
    for part in (series.isel(angle=slice(0, None, 5)), series.isel(detector=slice(90, 160))):
        np.testing.assert_allclose(
            nt.noise(part).deviation([20_000, 50_000]), found.deviation([20_000, 50_000]), rtol=0.1
        )
    assert 0.002 < found.share < 0.008
    aligned = nt.tilt_series(np.load(SHARED / "tilt-etspy/needle256_aligned_48.npy"), np.arange(-76, 77, 2.0))
    assert 0.3 < nt.noise(aligned).deviation(30_000) / found.deviation(30_000) < 1  # interpolation has smoothed it
