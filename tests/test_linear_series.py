"""Clusters, and tilt series by the linear model."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

import nntomo_dask as nt

ANGLES = [-60.0, 0.0, 35.0]


def imaging(**settings):
    return nt.Imaging(pixels=40, field_of_view_nm=1.2, source_size_nm=0.05, **settings)


@pytest.fixture(scope="module")
def held():
    return nt.cluster_specimen(nt.amorphous_cluster(atoms=8, seed=3))


@pytest.mark.parametrize(("element", "distance"), [("Si", 0.235), ("Au", 0.25)])
def test_no_two_atoms_of_a_cluster_are_too_close(element, distance):
    atoms = nt.amorphous_cluster(element, atoms=60, distance_nm=distance, seed=4)
    assert atoms.get_chemical_symbols() == [element] * 60
    assert pdist(atoms.positions).min() >= 10 * distance * (1 - 1e-5)
    # A sphere of 60 atoms at 49 / nm³, as far as the outermost ones reach.
    radius = (3 * 60 / (4 * np.pi * 49)) ** (1 / 3)
    assert np.ptp(atoms.positions, axis=0).max() <= 20 * radius * 1.02


def test_a_seed_is_a_cluster():
    one, same, other = (nt.amorphous_cluster(atoms=20, seed=seed).positions for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"element": "Xx"}, "symbol of a chemical element"),
        ({"atoms": 0}, "at least 1 atom"),
        ({"distance_nm": 0.3}, "fill at most"),
    ],
)
def test_clusters_that_cannot_be_are_refused(settings, words):
    with pytest.raises(nt.SchemaError, match=words):
        nt.amorphous_cluster(**settings)


@pytest.mark.parametrize("mode", ["haadf", "idpc"])
def test_a_series_is_the_projection_of_the_ground_truth(held, mode):
    series = nt.linear_series(held, ANGLES, mode=mode, imaging=imaging()).compute()
    projected = nt.project(nt.ground_truth(held, mode=mode, imaging=imaging()), ANGLES).compute()
    assert series.dims == projected.dims
    np.testing.assert_allclose(series["detector"], projected["detector"], atol=1e-9)
    # Voxels of 0.03 nm, interpolated linearly, blur profiles of a standard deviation of 0.04 nm: the maximum falls by
    # about 0.03² / 12 / 0.04² = 5 % in each of two directions.
    assert float(abs(series - projected.values).max()) < 0.1 * float(series.max())
    np.testing.assert_allclose(series.sum(("z", "detector")), projected.sum(("z", "detector")), rtol=0.02)


def test_counts_have_the_dose(held):
    clean = nt.linear_series(held, ANGLES, mode="haadf", imaging=imaging()).compute()
    noisy = nt.linear_series(held, ANGLES, mode="haadf", imaging=imaging(dose=3e6)).compute()
    electrons = 3e6 / 3 * (10 * clean.attrs["pixel_size"]) ** 2
    counts = noisy.values * electrons
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-2)
    # Σ (counts - mean)² / mean over the pixels with enough counts has a variance of about 2 a pixel.
    mean = clean.values * electrons
    seen = mean > 5
    chi = ((counts - mean)[seen] ** 2 / mean[seen]).mean()
    assert chi == pytest.approx(1, abs=5 * np.sqrt(2.2 / seen.sum()))


def test_the_noise_of_a_phase_is_that_of_its_gradient(held):
    doses = 1e4, 4e4
    clean = nt.linear_series(held, ANGLES, mode="idpc", imaging=imaging()).compute()
    spread = []
    for dose in doses:
        noisy = nt.linear_series(held, ANGLES, mode="idpc", imaging=imaging(dose=dose)).compute()
        noise = (noisy - clean).values
        # Its gradient along z, by differences in Fourier space: q / 2√N along an axis, half of which (in power) an
        # integration keeps of two components that are independent.
        along = np.fft.fftfreq(40, clean.attrs["pixel_size"] * 10)[:, None]
        other = np.fft.fftfreq(40, clean.attrs["pixel_size"] * 10)[None]
        power = np.abs(np.fft.fft2(noise[:, 1])) ** 2 * (along**2 + other**2)
        spread.append(np.sqrt(power.mean() / 40**2))
    electrons = doses[0] / 3 * (10 * clean.attrs["pixel_size"]) ** 2
    q = 15e-3 / (10 * imaging().wavelength_nm)
    # 1600 coefficients: a standard deviation within 2 % or so; Nyquist's frequencies are not integrated exactly.
    assert spread[0] == pytest.approx(q / 2 / np.sqrt(electrons), rel=0.1)
    assert spread[0] / spread[1] == pytest.approx(2, rel=0.1)


def test_another_mode_is_refused(held):
    with pytest.raises(nt.SchemaError, match="mode haadf or idpc"):
        nt.linear_series(held, ANGLES, mode="both")
