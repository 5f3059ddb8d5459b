"""What the methods do unless told otherwise: when they stop, how low voxels may be, and the published settings."""

import re

import numpy as np
import pytest

import nntomo_dask as nt
from nntomo_dask.compute import reporting
from nntomo_dask.reconstruction.measured import least_value, noise
from nntomo_dask.reconstruction.sirt import Sirt, stops

PUBLISHED = {"sirt": {"tolerance": 0.01, "minimum": None}, "fbp": {"window": "ram-lak"}}


@pytest.fixture(scope="module")
def particle():
    return nt.nanoparticle((24, 48, 48), seed=3).compute()


@pytest.fixture(scope="module")
def clean(particle):
    return nt.project(particle, nt.tilt_angles("tem", 9)).compute()


def noisy(clean, share, seed=0):
    """With Gaussian noise, a share of the brightest ray."""
    values = np.random.default_rng(seed).normal(0, share * float(clean.max()), clean.shape)
    return clean + values.astype(np.float32)


class TestStops:
    def test_where_the_misfit_falls_slower_than_its_power(self):
        """‖r‖ = k^-s falls by s/k an iteration: it goes on for s above 0.15, and stops after the fifth below."""

        def last(power):
            norms = np.arange(1, 300.0) ** -power  # up to where it gains next to nothing anyway
            stopped = [stops("auto", k, norms[k - 1 : k], norms[k : k + 1])[0] for k in range(1, 299)]
            return stopped.index(True) + 1 if True in stopped else None

        assert last(0.3) is None
        assert last(0.19) is None
        assert last(0.1) == 5

    def test_where_an_iteration_gains_next_to_nothing(self):
        before = np.ones(2)
        after = np.array([1 - 4e-4, 1 - 6e-4])
        np.testing.assert_array_equal(stops("auto", 1000, before, after), [True, False])
        np.testing.assert_array_equal(stops(5e-4, 1, before, after), [True, False])
        np.testing.assert_array_equal(stops("auto", 2, before, np.array([1.0, 0.999])), [True, False])

    def test_sooner_the_more_noise_there_is(self, clean):
        medians = []
        for share in (0, 0.01, 0.05):
            with reporting.listening() as told:
                nt.sirt(noisy(clean, share)).compute()
            medians.append(np.median([count for one in told for count in one.iterations]))
        assert medians[0] > 2 * medians[1] > 4 * medians[2]

    @pytest.mark.parametrize("share", [0, 0.01, 0.05])
    def test_it_is_no_worse_than_a_fixed_tolerance(self, clean, particle, share):
        """Within 5 % of 1e-3, and better where noise is large."""
        series = noisy(clean, share)
        error, fixed = (float(nt.mse(nt.sirt(series, **one), particle)) for one in ({}, {"tolerance": 1e-3}))
        assert error < (0.9 if share == 0.05 else 1.05) * fixed

    def test_by_hand(self, clean):
        """The iterations of a slice follow from its own residuals; here from the textbook's formula."""
        series = noisy(clean, 0.05).isel(z=[12])
        measured, pair = series.values, nt.projector(series.angle, 48)
        rows, columns = (np.divide(1, s, out=0 * s, where=s > 1e-6) for s in (pair.row_sums, pair.column_sums))
        volume, norms = np.zeros((1, 48, 48), np.float32), [float(np.linalg.norm(measured))]
        for count in range(1, 200):
            volume = np.maximum(volume + columns * pair.back(rows * (measured - pair.forward(volume))), 0)
            norms.append(float(np.linalg.norm(pair.forward(volume) - measured)))
            if count >= 5 and 1 - norms[-1] / norms[-2] <= 0.15 / count:
                break
        assert 5 < count < 100
        wanted = nt.sirt(series, tolerance=0, max_iterations=count, minimum=0).values
        np.testing.assert_array_equal(nt.sirt(series).values, wanted)
        # Tens of iterations in single precision, summed in another order.
        np.testing.assert_allclose(wanted, volume, atol=1e-4 * volume.max())


class TestCgls:
    def test_it_stops_at_the_noise(self, clean):
        """The misfit of most slices is within the step of an iteration below the noise that was added."""
        series = noisy(clean, 0.03)
        deviation = 0.03 * float(clean.max()) * np.sqrt(9 * 48)
        residual = (nt.project(nt.cgls(series), series.angle) - series).values
        misfits = np.linalg.norm(residual.reshape(24, -1), axis=1)
        assert (misfits < 1.1 * deviation).all()
        fewer = (nt.project(nt.cgls(series, iterations=1), series.angle) - series).values
        assert np.median(misfits) > 0.7 * deviation
        assert np.linalg.norm(fewer) > np.linalg.norm(residual)

    def test_it_is_better_than_a_fixed_number(self, clean, particle):
        series = noisy(clean, 0.05)
        error = float(nt.mse(nt.cgls(series), particle))
        assert error < 0.8 * float(nt.mse(nt.cgls(series, iterations=10), particle))

    def test_without_noise_it_stops_where_it_gains_no_more(self, clean):
        with nt.report() as lines:
            nt.cgls(clean).compute()
        assert 5 < int(re.search(r"to (\d+) iterations", lines[0])[1]) < 100

    def test_slices_stop_by_themselves(self, clean):
        series = noisy(clean, 0.02)
        whole = nt.cgls(series).values
        np.testing.assert_array_equal(nt.cgls(series.chunk(z=5)).values, whole)

    def test_the_noise_of_counts(self, clean):
        """Poisson noise, whose variance is the value: gain 1."""
        counts = np.random.default_rng(0).poisson(20 * clean.values).astype(np.float32)
        gain, read_noise, _ = (float(one) for one in noise(clean.copy(data=counts), who="test"))
        expected = np.sqrt((20 * clean.values).sum())
        found = np.sqrt(read_noise**2 * counts.size + gain * counts.sum())
        assert found == pytest.approx(expected, rel=0.2)


class TestLeastValue:
    @pytest.mark.parametrize("share", [0, 0.02, 0.05, 0.2])
    def test_noise_does_not_make_matter_negative(self, clean, share):
        series = noisy(clean, share)
        assert float(least_value(series, who="test")) == 0
        assert nt.sirt(series, max_iterations=5).values.min() == 0

    def test_an_offset_does_not(self, clean):
        assert float(least_value(noisy(clean, 0.02) - 0.05 * float(clean.max()), who="test")) == 0

    def test_one_bad_pixel_does_not(self, clean):
        spoiled = clean.copy(data=np.where(np.arange(clean.size).reshape(clean.shape) == 5000, -50, clean.values))
        assert float(least_value(spoiled, who="test")) == 0

    @pytest.mark.parametrize("share", [0, 0.02])
    def test_negative_line_integrals_do(self, clean, share):
        """Every second slice is of negative matter."""
        signs = np.where(np.arange(24) % 2, -1, 1).astype(np.float32)[:, None, None]
        series = noisy(clean * signs, share)
        assert float(least_value(series, who="test")) == -np.inf
        assert nt.sirt(series, max_iterations=5).values.min() < -0.2
        np.testing.assert_array_equal(
            nt.sirt(series, max_iterations=5).values, nt.sirt(series, max_iterations=5, minimum=None).values
        )

    def test_it_is_said_before_the_run(self, clean):
        assert "voxels may be negative too; --minimum 0" in Sirt().outlook(clean, (-np.inf,))[0]
        assert Sirt().outlook(clean, (0.0,)) == []

    def test_chunks_units_and_order_change_nothing(self, clean):
        series = noisy(clean, 0.05)
        found = [float(one) for one in noise(series, who="test")]
        assert [float(one) for one in noise(series.chunk(z=5), who="test")] == found
        other = [float(one) for one in noise(series.isel(angle=slice(None, None, -1)), who="test")]
        np.testing.assert_allclose(other, found, rtol=1e-6)

    def test_as_input_of_a_network_it_is_zero(self):
        assert Sirt().prepare_at(3.0) == (0.0,)
        assert Sirt.as_input().prepare_at(3.0) == ()

    def test_lazy(self, clean, nothing_computes):
        assert nt.sirt(clean.chunk(z=8)).shape == (24, 48, 48)
        assert nt.cgls(clean.chunk(z=8)).shape == (24, 48, 48)


class TestPublished:
    @pytest.mark.parametrize("method", PUBLISHED)
    def test_the_settings(self, run, series_store, method):
        assert nt.METHODS[method].published == PUBLISHED[method]
        run("reconstruct", series_store, "--method", method, "--report", "-o", "report.zarr")
        wanted = nt.reconstruct(nt.open(series_store), method, **PUBLISHED[method])
        np.testing.assert_array_equal(nt.open("report.zarr").values, wanted.values)
        assert nt.open("report.zarr").attrs["recipe"]["parameters"] == wanted.attrs["recipe"]["parameters"]

    def test_no_minimum_has_a_word(self, run, series_store):
        run("reconstruct", series_store, "--method", "sirt", "--minimum", "none", "-o", "none.zarr")
        run("reconstruct", series_store, "--method", "sirt", "--minimum", "auto", "-o", "auto.zarr")
        assert nt.open("none.zarr").attrs["recipe"]["parameters"]["minimum"] is None
        assert nt.open("auto.zarr").values.min() == 0
        assert nt.open("none.zarr").values.min() < 0

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--method", "cgls", "--report"), "--report is for --method fbp or sirt, not for cgls"),
            (("--method", "sirt", "--report", "--tolerance", "0.1"), "--tolerance is what --report sets"),
            (("--method", "fbp", "--report", "--window", "hann"), "--window is what --report sets"),
            (("--method", "sirt", "--minimum", "low"), "'low' is not a number or auto or none"),
            (("--method", "sirt", "--tolerance", "none"), "'none' is not a number or auto"),
        ],
    )
    def test_what_contradicts_it_is_refused(self, run, series_store, words, message):
        assert message in run("reconstruct", series_store, *words, "-o", "v.zarr", exit_code=2).output

    def test_bad_words_are_refused(self, series):
        with pytest.raises(nt.SchemaError, match="needs tolerance \"auto\"; got 'never'"):
            nt.sirt(series, tolerance="never")
        with pytest.raises(nt.SchemaError, match='needs minimum "auto"'):
            nt.sirt(series, minimum="none")
